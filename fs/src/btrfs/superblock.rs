//! The superblock: what is checked before anything else is read.

use zerocopy::{FromBytes, IntoBytes};

use super::checksum::Checksum;
use super::layout::SuperBlock;
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::num::to_u64;

/// Bytes of the device at which copies of the superblock are; the first is the one that counts.
pub const MIRRORS: [u64; 3] = [64 << 10, 64 << 20, 256 << 30];
/// Bytes of a superblock.
pub const SUPER_SIZE: usize = 4096;
/// The first bytes of a device that no chunk has.
pub const RESERVED: u64 = 1 << 20;

const MAGIC: &[u8; 8] = b"_BHRfS_M";
const ELSEWHERE: &str = "use the kernel (--vm), or do it in the guest";

/// Features that must be known.
pub mod incompat {
    /// Longer lists of names of an inode.
    pub const EXTENDED_IREF: u64 = 1 << 6;
    /// Extent items of tree blocks have the level in their key.
    pub const SKINNY_METADATA: u64 = 1 << 8;
    /// The UUID in tree blocks is another one.
    pub const METADATA_UUID: u64 = 1 << 10;
    /// Simple quotas.
    pub const SIMPLE_QUOTA: u64 = 1 << 16;
    /// The features that are read: backrefs, default subvolume, mixed groups, LZO, zstd, large metadata, extended
    /// references, RAID56 (where no chunk has it), skinny metadata, no holes, metadata UUID, RAID1C34
    /// (likewise), simple quotas.
    pub const KNOWN: u64 = 0xfff | SIMPLE_QUOTA;
    /// Names of those that are not.
    pub const UNKNOWN: [(u64, &str); 4] = [
        (1 << 12, "zoned"),
        (1 << 13, "extent-tree-v2"),
        (1 << 14, "raid-stripe-tree"),
        (1 << 17, "remap-tree"),
    ];
}

/// Features that must be known for writing.
pub mod compat_ro {
    /// There is a free space tree.
    pub const FREE_SPACE_TREE: u64 = 1;
    /// It is right.
    pub const FREE_SPACE_TREE_VALID: u64 = 2;
    /// Block group items are in a tree of their own.
    pub const BLOCK_GROUP_TREE: u64 = 8;
    /// All that are known: these, and files with fs-verity (4).
    pub const KNOWN: u64 = 0xf;
}

/// Flags of the superblock.
mod flags {
    pub const ERROR: u64 = 1 << 2;
    pub const SEEDING: u64 = 1 << 32;
    pub const METADUMP: u64 = 1 << 33 | 1 << 34;
    pub const CHANGING: u64 = 1 << 35 | 1 << 36 | 1 << 37 | 1 << 38 | 1 << 39 | 1 << 40;
}

/// A superblock that was checked.
#[derive(Clone, Debug)]
pub struct Super {
    /// Its content.
    pub raw: Box<SuperBlock>,
    /// The kind of checksums.
    pub checksum: Checksum,
    /// Bytes of a tree block.
    pub node_size: u32,
    /// Bytes of a sector of data.
    pub sector_size: u32,
    /// Why the file system must not be changed, where that is so.
    pub read_only: Option<String>,
}

impl Super {
    /// Reads the primary superblock and checks it.
    pub fn read(device: &dyn BlockDevice) -> Result<Self> {
        let mut bytes = vec![0; SUPER_SIZE];
        if device.len() < MIRRORS[0] + to_u64(SUPER_SIZE) {
            return Err(corrupt(format!("the device has {} bytes only", device.len())));
        }
        device.read_at(MIRRORS[0], &mut bytes)?;
        Self::parse(&bytes, device.len())
    }

    fn parse(bytes: &[u8], device_size: u64) -> Result<Self> {
        let raw = SuperBlock::read_from_bytes(bytes)
            .map_err(|_| corrupt(format!("{} bytes instead of {SUPER_SIZE}", bytes.len())))?;
        if &raw.magic != MAGIC {
            return Err(corrupt("the magic number is missing"));
        }
        let checksum = Checksum::of_type(raw.csum_type.get())?;
        if checksum.of(&bytes[32..]) != clean(&raw.csum, checksum.size()) {
            return Err(corrupt(
                "its checksum is wrong; btrfs rescue super-recover takes one of the copies",
            ));
        }
        if raw.bytenr.get() != MIRRORS[0] {
            return Err(corrupt(format!("it says that it is at byte {}", raw.bytenr.get())));
        }
        let node_size = raw.nodesize.get();
        let sector_size = raw.sectorsize.get();
        let power = |size: u32| size.is_power_of_two() && (4096..=65_536).contains(&size);
        if !power(node_size) || !power(sector_size) || node_size < sector_size {
            return Err(corrupt(format!(
                "nodesize {node_size} and sectorsize {sector_size} cannot be"
            )));
        }
        if raw.total_bytes.get() == 0 || raw.bytes_used.get() > raw.total_bytes.get() {
            return Err(corrupt(format!(
                "bytes_used {} of total_bytes {}",
                raw.bytes_used.get(),
                raw.total_bytes.get()
            )));
        }
        if raw.generation.get() == 0 || raw.generation.get() > u64::MAX / 2 {
            return Err(corrupt(format!("the generation is {}", raw.generation.get())));
        }
        if [raw.root_level, raw.chunk_root_level].iter().any(|level| *level >= 8) {
            return Err(corrupt("a root has a level above 7"));
        }
        refuse_features(&raw)?;
        if raw.num_devices.get() != 1 {
            return Err(Error::unsupported(
                format!("a btrfs on {} devices", raw.num_devices.get()),
                ELSEWHERE,
            ));
        }
        if raw.dev_item.total_bytes.get() > device_size {
            return Err(corrupt(format!(
                "its device has {} bytes, this one {device_size}",
                raw.dev_item.total_bytes.get()
            )));
        }
        let read_only = read_only(&raw);
        Ok(Self { raw: Box::new(raw), checksum, node_size, sector_size, read_only })
    }

    /// Whether it has a feature of [`incompat`].
    pub fn has(&self, feature: u64) -> bool {
        self.raw.incompat_flags.get() & feature != 0
    }

    /// Whether it has a feature of [`compat_ro`].
    pub fn has_ro(&self, feature: u64) -> bool {
        self.raw.compat_ro_flags.get() & feature != 0
    }

    /// The UUID that tree blocks have.
    pub fn tree_uuid(&self) -> [u8; 16] {
        if self.has(incompat::METADATA_UUID) { self.raw.metadata_uuid } else { self.raw.fsid }
    }

    /// The bytes of a copy at `bytenr`, with its checksum.
    pub fn bytes_at(&self, bytenr: u64) -> Vec<u8> {
        let mut raw = self.raw.clone();
        raw.bytenr = bytenr.into();
        let sum = self.checksum.of(&raw.as_bytes()[32..]);
        raw.csum = sum;
        raw.as_bytes().to_vec()
    }
}

/// The first `size` bytes of a checksum; what follows does not count.
pub(super) fn clean(csum: &[u8; 32], size: usize) -> [u8; 32] {
    let mut out = *csum;
    out[size..].fill(0);
    out
}

fn corrupt(detail: impl Into<String>) -> Error {
    Error::corrupt("superblock", format!("byte {}", MIRRORS[0]), detail)
}

fn refuse_features(raw: &SuperBlock) -> Result<()> {
    let features = raw.incompat_flags.get();
    if features & !incompat::KNOWN != 0 {
        let name = incompat::UNKNOWN.iter().find(|(bit, _)| features & bit != 0);
        let what = match name {
            Some((_, name)) => format!("the btrfs feature {name}"),
            None => {
                format!("a btrfs with unknown features ({:#x})", features & !incompat::KNOWN)
            }
        };
        return Err(Error::unsupported(what, ELSEWHERE));
    }
    if raw.flags.get() & flags::METADUMP != 0 {
        return Err(Error::unsupported(
            "an image of metadata only (btrfs-image)",
            "its files have no content",
        ));
    }
    if raw.flags.get() & flags::CHANGING != 0 {
        return Err(Error::unsupported(
            "a btrfs whose conversion by btrfstune was interrupted",
            "let btrfstune finish it",
        ));
    }
    Ok(())
}

fn read_only(raw: &SuperBlock) -> Option<String> {
    let unknown = raw.compat_ro_flags.get() & !compat_ro::KNOWN;
    if unknown != 0 {
        return Some(format!("it has unknown features for writing (compat_ro {unknown:#x})"));
    }
    if raw.incompat_flags.get() & incompat::SIMPLE_QUOTA != 0 {
        return Some("it has simple quotas, which only the kernel keeps; use --vm".into());
    }
    if raw.compat_ro_flags.get() & compat_ro::BLOCK_GROUP_TREE != 0 {
        return Some(
            "it has a block-group-tree, which only the kernel keeps so far; use --vm".into(),
        );
    }
    if raw.flags.get() & flags::SEEDING != 0 {
        return Some("it is a seed device".into());
    }
    if raw.flags.get() & flags::ERROR != 0 {
        return Some("the kernel noted an error in it; run btrfs check".into());
    }
    if raw.log_root.get() != 0 {
        return Some(
            "it was not unmounted cleanly and has a log to be replayed; mount it once, then unmount"
                .into(),
        );
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_superblock_is_refused() {
        assert!(Super::parse(&[0; 4096], 1 << 30).is_err());
        assert!(Super::parse(&[0; 100], 1 << 30).is_err());
        let device = crate::MemoryDevice::new(vec![0; 70_000]);
        assert!(Super::read(&device).unwrap_err().to_string().contains("magic"));
        let device = crate::MemoryDevice::new(vec![0; 60_000]);
        assert!(Super::read(&device).is_err());
    }
}
