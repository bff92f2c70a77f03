//! The only unsafe code of the helper: requests to the kernel that have no call of their own. Each
//! structure is declared as the kernel has it, and its size is checked against the size that the
//! request's number carries.

use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::ioctl::{Getter, NoArg, Opcode, Setter, Updater, ioctl};
use snf_image::wire::SEED_SIZE;
use zeroize::Zeroize;

type Result<T> = std::result::Result<T, Errno>;

/// The size that an `_IOR`, `_IOW` or `_IOWR` number of <asm-generic/ioctl.h> carries.
const fn size_in(request: Opcode) -> usize {
    (request >> 16 & 0x3fff) as usize
}

/// `BLKROSET` and `BLKPG` of <linux/fs.h> and <linux/blkpg.h>: old numbers without a size.
const BLKROSET: Opcode = 0x125d;
const BLKPG: Opcode = 0x1269;
const BLKPG_ADD_PARTITION: i32 = 1;
const BLKPG_DEL_PARTITION: i32 = 2;

/// `struct blkpg_partition`.
#[repr(C)]
struct BlkpgPartition {
    start: i64,
    length: i64,
    pno: i32,
    devname: [u8; 64],
    volname: [u8; 64],
}
const BLKPG_PARTITION_SIZE: i32 = 152;
const _: () = assert!(size_of::<BlkpgPartition>() == BLKPG_PARTITION_SIZE as usize);

/// `struct blkpg_ioctl_arg`.
#[repr(C)]
struct BlkpgIoctlArg {
    op: i32,
    flags: i32,
    datalen: i32,
    data: *mut BlkpgPartition,
}
const _: () = assert!(size_of::<BlkpgIoctlArg>() == 24);

fn blkpg(disk: impl AsFd, op: i32, number: i32, start: u64, length: u64) -> Result<()> {
    let position = |value: u64| i64::try_from(value).map_err(|_| Errno::INVAL);
    let mut partition = BlkpgPartition {
        start: position(start)?,
        length: position(length)?,
        pno: number,
        devname: [0; 64],
        volname: [0; 64],
    };
    let mut argument =
        BlkpgIoctlArg { op, flags: 0, datalen: BLKPG_PARTITION_SIZE, data: &raw mut partition };
    // SAFETY: BLKPG takes a `struct blkpg_ioctl_arg`.
    let request = unsafe { Updater::<BLKPG, BlkpgIoctlArg>::new(&mut argument) };
    // SAFETY: the argument and the partition that it points to live until the call returns.
    unsafe { ioctl(disk, request) }
}

/// Makes a range of a disk, in bytes, a partition with this number.
pub(crate) fn add_partition(disk: impl AsFd, number: i32, start: u64, length: u64) -> Result<()> {
    blkpg(disk, BLKPG_ADD_PARTITION, number, start, length)
}

/// Forgets a partition; the disk is not written.
pub(crate) fn delete_partition(disk: impl AsFd, number: i32) -> Result<()> {
    blkpg(disk, BLKPG_DEL_PARTITION, number, 0, 0)
}

/// Makes the kernel take a device for read-only, or not.
pub(crate) fn set_read_only(device: impl AsFd, read_only: bool) -> Result<()> {
    let mut flag = i32::from(read_only);
    // SAFETY: BLKROSET takes a pointer to an int.
    let request = unsafe { Updater::<BLKROSET, i32>::new(&mut flag) };
    // SAFETY: the int lives until the call returns.
    unsafe { ioctl(device, request) }
}

/// `XFS_IOC_FSGEOMETRY_V1` of xfs_fs.h.
const XFS_IOC_FSGEOMETRY_V1: Opcode = 0x8070_5864;

/// `struct xfs_fsop_geom_v1`, as far as it is of interest.
#[repr(C)]
struct XfsFsopGeomV1 {
    blocksize: u32,
    _to_imaxpct: [u32; 6],
    imaxpct: u32,
    datablocks: u64,
    _rest: [u64; 9],
}
const _: () = assert!(size_of::<XfsFsopGeomV1>() == size_in(XFS_IOC_FSGEOMETRY_V1));
const _: () = assert!(std::mem::offset_of!(XfsFsopGeomV1, imaxpct) == 28);
const _: () = assert!(std::mem::offset_of!(XfsFsopGeomV1, datablocks) == 32);

/// The size of an XFS, and the share that inodes may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct XfsGeometry {
    /// Bytes in a block.
    pub(crate) blocksize: u32,
    /// Percentage of the space that inodes may take.
    pub(crate) imaxpct: u32,
    /// Number of blocks.
    pub(crate) datablocks: u64,
}

/// Block size and number of blocks: `statfs` leaves the log out.
pub(crate) fn xfs_geometry(root: impl AsFd) -> Result<XfsGeometry> {
    // SAFETY: the request fills the structure, which is valid with any content.
    let request = unsafe { Getter::<XFS_IOC_FSGEOMETRY_V1, XfsFsopGeomV1>::new() };
    // SAFETY: the request owns the memory that it fills.
    let geometry = unsafe { ioctl(root, request)? };
    Ok(XfsGeometry {
        blocksize: geometry.blocksize,
        imaxpct: geometry.imaxpct,
        datablocks: geometry.datablocks,
    })
}

/// `XFS_IOC_FSGROWFSDATA` of xfs_fs.h.
const XFS_IOC_FSGROWFSDATA: Opcode = 0x4010_586e;

/// `struct xfs_growfs_data`.
#[repr(C)]
struct XfsGrowfsData {
    newblocks: u64,
    imaxpct: u32,
    _padding: u32,
}
const _: () = assert!(size_of::<XfsGrowfsData>() == size_in(XFS_IOC_FSGROWFSDATA));

/// Enlarges a mounted XFS to this many blocks.
pub(crate) fn xfs_grow(root: impl AsFd, newblocks: u64, imaxpct: u32) -> Result<()> {
    let argument = XfsGrowfsData { newblocks, imaxpct, _padding: 0 };
    // SAFETY: the request reads a `struct xfs_growfs_data`.
    let request = unsafe { Setter::<XFS_IOC_FSGROWFSDATA, XfsGrowfsData>::new(argument) };
    // SAFETY: the request owns the memory that is read.
    unsafe { ioctl(root, request) }
}

/// `BTRFS_IOC_FS_INFO` of <linux/btrfs.h>.
const BTRFS_IOC_FS_INFO: Opcode = 0x8400_941f;

/// `struct btrfs_ioctl_fs_info_args`, as far as it is of interest.
#[repr(C)]
struct BtrfsFsInfo {
    max_id: u64,
    num_devices: u64,
    _rest: [u64; 126],
}
const _: () = assert!(size_of::<BtrfsFsInfo>() == size_in(BTRFS_IOC_FS_INFO));

/// `BTRFS_IOC_RESIZE` of <linux/btrfs.h>.
const BTRFS_IOC_RESIZE: Opcode = 0x5000_9403;

/// `struct btrfs_ioctl_vol_args`.
#[repr(C)]
struct BtrfsVolArgs {
    fd: i64,
    name: [u8; 4088],
}
const _: () = assert!(size_of::<BtrfsVolArgs>() == size_in(BTRFS_IOC_RESIZE));

/// Enlarges a mounted btrfs on one device to the device's size.
pub(crate) fn btrfs_grow(root: impl AsFd) -> Result<()> {
    // SAFETY: the request fills the structure, which is valid with any content.
    let request = unsafe { Getter::<BTRFS_IOC_FS_INFO, BtrfsFsInfo>::new() };
    // SAFETY: the request owns the memory that it fills.
    let info = unsafe { ioctl(&root, request)? };
    if info.num_devices != 1 {
        return Err(Errno::OPNOTSUPP);
    }
    let mut argument = BtrfsVolArgs { fd: 0, name: [0; 4088] };
    let text = format!("{}:max", info.max_id);
    for (to, from) in argument.name.iter_mut().zip(text.bytes()) {
        *to = from;
    }
    // SAFETY: the request reads a `struct btrfs_ioctl_vol_args`, whose name ends with a zero.
    let request = unsafe { Setter::<BTRFS_IOC_RESIZE, BtrfsVolArgs>::new(argument) };
    // SAFETY: the request owns the memory that is read.
    unsafe { ioctl(root, request) }
}

/// `BTRFS_IOC_SUBVOL_GETFLAGS` of <linux/btrfs.h>.
const BTRFS_IOC_SUBVOL_GETFLAGS: Opcode = 0x8008_9419;
const BTRFS_SUBVOL_RDONLY: u64 = 1 << 1;
const _: () = assert!(size_of::<u64>() == size_in(BTRFS_IOC_SUBVOL_GETFLAGS));

/// Whether a subvolume is read-only.
pub(crate) fn subvolume_read_only(directory: impl AsFd) -> Result<bool> {
    // SAFETY: the request fills a u64.
    let request = unsafe { Getter::<BTRFS_IOC_SUBVOL_GETFLAGS, u64>::new() };
    // SAFETY: the request owns the memory that it fills.
    let flags = unsafe { ioctl(directory, request)? };
    Ok(flags & BTRFS_SUBVOL_RDONLY != 0)
}

/// `FDGETDRVPRM` and `FDSETDRVPRM` of <linux/fd.h>.
const FDGETDRVPRM: Opcode = 0x8080_0211;
const FDSETDRVPRM: Opcode = 0x4080_0290;

/// `struct floppy_drive_params`, as far as it is of interest.
#[repr(C)]
pub(crate) struct FloppyDriveParams {
    _to_spinup: [u64; 5],
    /// Jiffies for the motor to spin up.
    pub(crate) spinup: u64,
    _to_select_delay: [u8; 9],
    /// Jiffies between selecting a drive and using it.
    pub(crate) select_delay: u8,
    _rest: [u8; 70],
}
const _: () = assert!(size_of::<FloppyDriveParams>() == size_in(FDGETDRVPRM));
const _: () = assert!(size_of::<FloppyDriveParams>() == size_in(FDSETDRVPRM));
const _: () = assert!(std::mem::offset_of!(FloppyDriveParams, spinup) == 40);
const _: () = assert!(std::mem::offset_of!(FloppyDriveParams, select_delay) == 57);

/// The parameters that the driver uses for a floppy drive.
pub(crate) fn floppy_parameters(drive: impl AsFd) -> Result<FloppyDriveParams> {
    // SAFETY: the request fills the structure, which is valid with any content.
    let request = unsafe { Getter::<FDGETDRVPRM, FloppyDriveParams>::new() };
    // SAFETY: the request owns the memory that it fills.
    unsafe { ioctl(drive, request) }
}

/// Sets the parameters that the driver uses for a floppy drive.
pub(crate) fn set_floppy_parameters(drive: impl AsFd, parameters: FloppyDriveParams) -> Result<()> {
    // SAFETY: the request reads a `struct floppy_drive_params`.
    let request = unsafe { Setter::<FDSETDRVPRM, FloppyDriveParams>::new(parameters) };
    // SAFETY: the request owns the memory that is read.
    unsafe { ioctl(drive, request) }
}

/// `RNDADDENTROPY` of <linux/random.h>; its size is that of the structure without its bytes.
const RNDADDENTROPY: Opcode = 0x4008_5203;
/// `RNDRESEEDCRNG`.
const RNDRESEEDCRNG: Opcode = 0x5207;

/// `struct rand_pool_info` with its bytes, wiped afterwards.
#[repr(C)]
struct RandPoolInfo {
    entropy_count: i32,
    buf_size: i32,
    buf: [u8; SEED_SIZE],
}
const _: () = assert!(size_of::<RandPoolInfo>() == size_in(RNDADDENTROPY) + SEED_SIZE);
const _: () = assert!(SEED_SIZE < 4096);

impl Drop for RandPoolInfo {
    fn drop(&mut self) {
        self.buf.zeroize();
    }
}

/// Adds bytes to the kernel's random pool and counts each bit of them.
pub(crate) fn add_entropy(random: impl AsFd, seed: &[u8; SEED_SIZE]) -> Result<()> {
    let mut info = RandPoolInfo {
        entropy_count: 8 * SEED_SIZE as i32,
        buf_size: SEED_SIZE as i32,
        buf: [0; SEED_SIZE],
    };
    info.buf.copy_from_slice(seed);
    // SAFETY: the request takes a `struct rand_pool_info` with `buf_size` bytes. It is read where
    // it is: a copy would not be wiped.
    let request = unsafe { Updater::<RNDADDENTROPY, RandPoolInfo>::new(&mut info) };
    // SAFETY: the structure lives until the call returns.
    unsafe { ioctl(random, request) }
}

/// Has the kernel take what is in its random pool into use at once.
pub(crate) fn reseed(random: impl AsFd) -> Result<()> {
    // SAFETY: the request takes no argument.
    let request = unsafe { NoArg::<RNDRESEEDCRNG>::new() };
    // SAFETY: the kernel touches none of our memory.
    unsafe { ioctl(random, request) }
}
