//! The requests to devices and file systems that have no call of their own: partitions, read-only
//! devices, sizes and growth.

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::ioctl::{Getter, Setter, Updater, ioctl};

type Result<T> = std::result::Result<T, Errno>;

/// `BLKROSET` of <linux/fs.h>.
const BLKROSET: u32 = 0x125d;
/// `BLKPG` of <linux/blkpg.h>.
const BLKPG: u32 = 0x1269;
const BLKPG_ADD_PARTITION: i32 = 1;
const BLKPG_DEL_PARTITION: i32 = 2;
/// `XFS_IOC_FSGEOMETRY_V1` and `XFS_IOC_FSGROWFSDATA` of xfs_fs.h.
const XFS_IOC_FSGEOMETRY_V1: u32 = 0x8070_5864;
const XFS_IOC_FSGROWFSDATA: u32 = 0x4010_586e;
/// `BTRFS_IOC_RESIZE`, `BTRFS_IOC_SUBVOL_GETFLAGS` and `BTRFS_IOC_FS_INFO` of <linux/btrfs.h>.
const BTRFS_IOC_RESIZE: u32 = 0x5000_9403;
const BTRFS_IOC_SUBVOL_GETFLAGS: u32 = 0x8008_9419;
const BTRFS_IOC_FS_INFO: u32 = 0x8400_941f;
const BTRFS_SUBVOL_RDONLY: u64 = 1 << 1;

/// `struct blkpg_partition`.
#[repr(C)]
struct BlkpgPartition {
    start: i64,
    length: i64,
    pno: i32,
    devname: [u8; 64],
    volname: [u8; 64],
}

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct BlkpgIoctlArg {
    op: i32,
    flags: i32,
    datalen: i32,
    data: *mut BlkpgPartition,
}

fn blkpg(disk: impl AsFd, op: i32, number: i32, start: u64, length: u64) -> Result<()> {
    let position = |value: u64| i64::try_from(value).map_err(|_| Errno::INVAL);
    let mut partition = BlkpgPartition {
        start: position(start)?,
        length: position(length)?,
        pno: number,
        devname: [0; 64],
        volname: [0; 64],
    };
    let mut argument = BlkpgIoctlArg {
        op,
        flags: 0,
        datalen: size_of::<BlkpgPartition>() as i32,
        data: &raw mut partition,
    };
    // SAFETY: BLKPG reads the argument and the partition that it points to, both of which live
    // until the call returns and have the layout of the kernel's structures.
    unsafe { ioctl(disk, Updater::<BLKPG, BlkpgIoctlArg>::new(&mut argument)) }
}

/// Makes a range of a disk a partition with this number.
pub(super) fn add_partition(disk: impl AsFd, number: i32, start: u64, length: u64) -> Result<()> {
    blkpg(disk, BLKPG_ADD_PARTITION, number, start, length)
}

/// Forgets a partition; the disk is not written.
pub(super) fn delete_partition(disk: impl AsFd, number: i32) -> Result<()> {
    blkpg(disk, BLKPG_DEL_PARTITION, number, 0, 0)
}

/// Makes the kernel take a device for read-only, or not.
pub(super) fn set_read_only(device: impl AsFd, read_only: bool) -> Result<()> {
    let mut flag = i32::from(read_only);
    // SAFETY: BLKROSET reads an int.
    unsafe { ioctl(device, Updater::<BLKROSET, i32>::new(&mut flag)) }
}

/// What an XFS says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct XfsGeometry {
    pub(super) blocksize: u32,
    pub(super) imaxpct: u32,
    pub(super) datablocks: u64,
}

/// Block size and number of blocks: `statfs` leaves the log out.
pub(super) fn xfs_geometry(root: impl AsFd) -> Result<XfsGeometry> {
    // SAFETY: the request fills a structure of 112 bytes, which is part of its number.
    let bytes = unsafe { ioctl(root, Getter::<XFS_IOC_FSGEOMETRY_V1, [u64; 14]>::new())? };
    let halves = |word: u64| (word as u32, (word >> 32) as u32);
    Ok(XfsGeometry {
        blocksize: halves(bytes[0]).0,
        imaxpct: halves(bytes[3]).1,
        datablocks: bytes[4],
    })
}

/// Enlarges a mounted XFS to this many blocks.
pub(super) fn xfs_grow(root: impl AsFd, newblocks: u64, imaxpct: u32) -> Result<()> {
    // `struct xfs_growfs_data`: __u64 newblocks, __u32 imaxpct.
    // SAFETY: the request reads 16 bytes, which is part of its number.
    unsafe {
        let argument = [newblocks, u64::from(imaxpct)];
        ioctl(root, Setter::<XFS_IOC_FSGROWFSDATA, [u64; 2]>::new(argument))
    }
}

/// Enlarges a mounted btrfs on one device to the device's size.
pub(super) fn btrfs_grow(root: impl AsFd) -> Result<()> {
    // `struct btrfs_ioctl_fs_info_args`: __u64 max_id, __u64 num_devices, ...
    // SAFETY: the request fills 1024 bytes, which is part of its number.
    let info = unsafe { ioctl(&root, Getter::<BTRFS_IOC_FS_INFO, [u64; 128]>::new())? };
    let (max_id, num_devices) = (info[0], info[1]);
    if num_devices != 1 {
        return Err(Errno::OPNOTSUPP);
    }
    // `struct btrfs_ioctl_vol_args`: __s64 fd, char name[4088].
    let mut argument = [0_u8; 4096];
    let text = format!("{max_id}:max");
    argument[8..8 + text.len()].copy_from_slice(text.as_bytes());
    // SAFETY: the request reads 4096 bytes, which is part of its number.
    unsafe { ioctl(root, Setter::<BTRFS_IOC_RESIZE, [u8; 4096]>::new(argument)) }
}

/// Whether a subvolume is read-only.
pub(super) fn subvolume_read_only(directory: impl AsFd) -> Result<bool> {
    // SAFETY: the request fills a u64.
    let flags = unsafe { ioctl(directory, Getter::<BTRFS_IOC_SUBVOL_GETFLAGS, u64>::new())? };
    Ok(flags & BTRFS_SUBVOL_RDONLY != 0)
}
