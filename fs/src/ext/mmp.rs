//! Multiple mount protection: a block in which a host that has the file system mounted leaves a sign of
//! life. A file system in use elsewhere is not touched.
//!
//! Source: the kernel's Documentation/filesystems/ext4/mmp.rst.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::checksum::crc32c;
use super::superblock::incompat;
use super::units::FsBlock;
use super::volume::Volume;
use crate::error::{Error, Result, display_name};

const EXT4_MMP_MAGIC: u32 = 0x004D_4D50;
/// `mmp_seq`: it is not mounted.
const EXT4_MMP_SEQ_CLEAN: u32 = 0xFF4D_4D50;
/// `mmp_seq`: e2fsck works on it.
const EXT4_MMP_SEQ_FSCK: u32 = 0xE24D_4D50;

/// The MMP block. All fields are little-endian.
#[derive(Clone, Debug, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
#[allow(missing_docs)] // the names are the specification's
pub struct RawMmp {
    pub mmp_magic: U32,
    pub mmp_seq: U32,
    pub mmp_time: U64,
    pub mmp_nodename: [u8; 64],
    pub mmp_bdevname: [u8; 32],
    pub mmp_check_interval: U16,
    pub mmp_pad1: U16,
    pub mmp_pad2: [U32; 226],
    pub mmp_checksum: U32,
}

const _: () = assert!(size_of::<RawMmp>() == 1024);

/// Refuses a file system that is marked as in use. The block on the device counts, not the overlay.
pub fn check(vol: &Volume) -> Result<()> {
    if !vol.sb.has_incompat(incompat::MMP) {
        return Ok(());
    }
    let number = FsBlock::new(vol.sb.raw.s_mmp_block.get());
    let position = format!("block {number}");
    let first = FsBlock::from(vol.sb.raw.s_first_data_block.get());
    if number <= first || number.get() >= vol.sb.blocks_count() {
        return Err(Error::corrupt("superblock", "s_mmp_block", format!("is {number}")));
    }
    let mut bytes = vec![0; size_of::<RawMmp>()];
    vol.store.device().read_at(number.byte(vol.block_size()), &mut bytes)?;
    let mmp = RawMmp::read_from_bytes(&bytes)
        .map_err(|_| Error::corrupt("MMP block", &*position, "it is too short"))?;
    if mmp.mmp_magic.get() != EXT4_MMP_MAGIC {
        let detail = format!("mmp_magic is {:#x}, {EXT4_MMP_MAGIC:#x} expected", mmp.mmp_magic);
        return Err(Error::corrupt("MMP block", position, detail));
    }
    if vol.sb.has_metadata_csum() {
        let expected = crc32c(vol.sb.checksum_seed(), &bytes[..bytes.len() - 4]);
        if mmp.mmp_checksum.get() != expected {
            let detail = format!("mmp_checksum is {:#x}, {expected:#x} expected", mmp.mmp_checksum);
            return Err(Error::corrupt("MMP block", position, detail));
        }
    }
    let node = text(&mmp.mmp_nodename);
    let device = text(&mmp.mmp_bdevname);
    match mmp.mmp_seq.get() {
        EXT4_MMP_SEQ_CLEAN => Ok(()),
        EXT4_MMP_SEQ_FSCK => Err(Error::ReadOnly(format!(
            "e2fsck runs on it on the node «{node}» (mmp); wait for it, or if it was stopped run \
             e2fsck again"
        ))),
        _ => Err(Error::ReadOnly(format!(
            "the node «{node}» has it mounted as {device} (mmp); unmount it there, or if that node \
             crashed run tune2fs -f -E clear_mmp"
        ))),
    }
}

/// A zero-terminated name as text for a message.
fn text(name: &[u8]) -> String {
    display_name(name.split(|&byte| byte == 0).next().unwrap_or_default())
}
