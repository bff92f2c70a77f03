//! Checksums of damaged structures, made right again: an engine that only looks at checksums would
//! pass any fuzzer that does not do this. Written from the specification, not from the engine.

use snf_fs::BlockDevice;
use snf_fs::ext::internals::checksum::{crc16, crc32c};
use snf_fs::ext::internals::units::{GroupNo, Ino};
use snf_fs::ext::internals::volume::Volume;

use super::device::Patched;

/// A structure on disk.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    Superblock,
    Descriptor(u32),
    BlockBitmap(u32, u64),
    InodeBitmap(u32, u64),
    Inode(u32),
    ExtentNode(u32, u64),
    DirBlock(u32, u64),
    Xattr(u64),
    Plain(u64),
}

/// The facts with which structures in the undamaged image are found and sealed.
pub struct Fixup {
    block_size: usize,
    seed: u32,
    metadata_csum: bool,
    gdt_csum: bool,
    uuid: [u8; 16],
    desc_size: usize,
    first_descriptor: u64,
    inode_size: usize,
    clusters_per_group: usize,
    inodes_per_group: usize,
    inodes: Vec<(u64, u32)>,
}

impl Fixup {
    pub fn new(vol: &Volume) -> Self {
        let block_size = vol.block_size();
        let inodes = (1..=vol.sb.raw.s_inodes_count.get())
            .map(|ino| {
                let (block, at) = vol.inode_position(Ino::new(ino)).unwrap();
                let generation =
                    vol.read_inode(Ino::new(ino)).map_or(0, |inode| inode.raw.i_generation.get());
                (block.byte(block_size) + at as u64, generation)
            })
            .collect();
        let (block, at) = vol.descriptor_position(GroupNo::FIRST);
        Self {
            block_size,
            seed: vol.sb.checksum_seed(),
            metadata_csum: vol.sb.has_metadata_csum(),
            gdt_csum: vol.sb.has_group_csum(),
            uuid: vol.sb.raw.s_uuid,
            desc_size: vol.sb.desc_size() as usize,
            first_descriptor: block.byte(block_size) + at as u64,
            inode_size: vol.sb.inode_size() as usize,
            clusters_per_group: vol.sb.clusters_per_group() as usize,
            inodes_per_group: vol.sb.raw.s_inodes_per_group.get() as usize,
            inodes,
        }
    }

    fn descriptor(&self, group: u32) -> u64 {
        self.first_descriptor + u64::from(group) * self.desc_size as u64
    }

    /// The place of a structure: byte and length.
    pub fn range(&self, place: Place) -> (u64, usize) {
        let size = self.block_size;
        match place {
            Place::Superblock => (1024, 1024),
            Place::Descriptor(group) => (self.descriptor(group), self.desc_size),
            Place::Inode(ino) => (self.inodes[ino as usize - 1].0, self.inode_size),
            Place::BlockBitmap(_, block)
            | Place::InodeBitmap(_, block)
            | Place::ExtentNode(_, block)
            | Place::DirBlock(_, block)
            | Place::Xattr(block)
            | Place::Plain(block) => (block * size as u64, size),
        }
    }

    fn inode_seed(&self, ino: u32) -> u32 {
        let crc = crc32c(self.seed, &ino.to_le_bytes());
        crc32c(crc, &self.inodes[ino as usize - 1].1.to_le_bytes())
    }

    /// Puts the right checksum into a structure's bytes.
    pub fn seal(&self, _device: &Patched, place: Place, bytes: &mut [u8]) {
        if let Place::Descriptor(group) = place {
            self.seal_descriptor(group, bytes);
        }
        if !self.metadata_csum {
            return;
        }
        let put = |bytes: &mut [u8], at: usize, sum: u32| {
            if let Some(word) = bytes.get_mut(at..at + 4) {
                word.copy_from_slice(&sum.to_le_bytes());
            }
        };
        match place {
            Place::Superblock => {
                let sum = crc32c(!0, &bytes[..1020]);
                put(bytes, 1020, sum);
            }
            Place::Inode(ino) => {
                // The generation may be what was damaged.
                let mut crc = crc32c(self.seed, &ino.to_le_bytes());
                crc = crc32c(crc, &bytes[0x64..0x68]);
                bytes[0x7C..0x7E].fill(0);
                let wide = bytes.len() > 128 && u16::from_le_bytes([bytes[128], bytes[129]]) >= 4;
                if wide {
                    bytes[0x82..0x84].fill(0);
                }
                let sum = crc32c(crc, bytes).to_le_bytes();
                bytes[0x7C..0x7E].copy_from_slice(&sum[..2]);
                if wide {
                    bytes[0x82..0x84].copy_from_slice(&sum[2..]);
                }
            }
            Place::ExtentNode(ino, _) => {
                let max = usize::from(u16::from_le_bytes([bytes[4], bytes[5]]));
                let at = 12 * (max + 1);
                if at + 4 <= bytes.len() {
                    let sum = crc32c(self.inode_seed(ino), &bytes[..at]);
                    put(bytes, at, sum);
                }
            }
            Place::DirBlock(ino, _) => self.seal_directory(ino, bytes),
            Place::Xattr(block) => {
                bytes[16..20].fill(0);
                let crc = crc32c(self.seed, &block.to_le_bytes());
                let sum = crc32c(crc, bytes);
                put(bytes, 16, sum);
            }
            _ => {}
        }
    }

    fn seal_descriptor(&self, group: u32, bytes: &mut [u8]) {
        let sum = if self.metadata_csum {
            bytes[0x1E..0x20].fill(0);
            crc32c(crc32c(self.seed, &group.to_le_bytes()), bytes) as u16
        } else if self.gdt_csum {
            let crc = crc16(crc16(!0, &self.uuid), &group.to_le_bytes());
            crc16(crc16(crc, &bytes[..0x1E]), &bytes[0x20..])
        } else {
            return;
        };
        bytes[0x1E..0x20].copy_from_slice(&sum.to_le_bytes());
    }

    /// A leaf ends in a false entry of 12 bytes with the checksum; an index has it after its room.
    fn seal_directory(&self, ino: u32, bytes: &mut [u8]) {
        let seed = self.inode_seed(ino);
        let half = |bytes: &[u8], at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let end = bytes.len();
        if half(bytes, end - 8) == 12 && bytes[end - 5] == 0xDE {
            let sum = crc32c(seed, &bytes[..end - 12]);
            bytes[end - 4..].copy_from_slice(&sum.to_le_bytes());
            return;
        }
        let count_at = if half(bytes, 4) == end as u16 { 8 } else { 32 };
        let limit = usize::from(half(bytes, count_at));
        let count = usize::from(half(bytes, count_at + 2));
        let tail = count_at + limit * 8;
        if tail + 8 <= end && count_at + count * 8 <= end {
            let mut crc = crc32c(seed, &bytes[..count_at + count * 8]);
            crc = crc32c(crc, &bytes[tail..tail + 4]);
            crc = crc32c(crc, &[0; 4]);
            bytes[tail + 4..tail + 8].copy_from_slice(&crc.to_le_bytes());
        }
    }

    /// Bitmaps have their checksums in the descriptor, which is sealed anew.
    pub fn seal_bitmaps(&self, device: &Patched, place: Place) {
        let (group, block, count, lo, hi) = match place {
            Place::BlockBitmap(group, block) => (group, block, self.clusters_per_group, 0x18, 0x38),
            Place::InodeBitmap(group, block) => (group, block, self.inodes_per_group, 0x1A, 0x3A),
            _ => return,
        };
        if !self.metadata_csum {
            return;
        }
        let bits = device.bytes(block * self.block_size as u64, self.block_size);
        let sum = crc32c(self.seed, &bits[..count / 8]).to_le_bytes();
        let at = self.descriptor(group);
        let mut bytes = device.bytes(at, self.desc_size);
        bytes[lo..lo + 2].copy_from_slice(&sum[..2]);
        if self.desc_size >= 64 {
            bytes[hi..hi + 2].copy_from_slice(&sum[2..]);
        }
        // The counts of clear bits, so that the damage gets past them.
        let clear = |bits: &[u8]| bits.iter().map(|byte| byte.count_zeros()).sum::<u32>() as u16;
        let field = if lo == 0x18 { 0x0C } else { 0x0E };
        bytes[field..field + 2].copy_from_slice(&clear(&bits[..count / 8]).to_le_bytes());
        self.seal_descriptor(group, &mut bytes);
        device.write_at(at, &bytes).unwrap();
    }
}
