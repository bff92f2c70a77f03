//! One owner of a disk.
//!
//! A disk that two programs write at once is lost. [`claim`] takes the locks that other programs
//! respect, and then looks for users that take no lock: loop devices, mounts, device-mapper and
//! md. The claim lasts as long as the open file, and every duplicate of its descriptor: it belongs
//! to the open file description and not to the process.
//!
//! | who | found by |
//! |---|---|
//! | another run of snf-image, udev | `flock(2)` on the whole file |
//! | QEMU and its tools | open file description locks over all bytes; QEMU locks bytes from 100 and from 200 on |
//! | a loop device on the disk | device and inode of its backing file (`LOOP_GET_STATUS64`), so hard links, bind mounts and symbolic links are seen through |
//! | a mounted file system | device numbers in `/proc/self/mountinfo` |
//! | device-mapper, md, bcache | `/sys/dev/block/*/holders` of the disk and its partitions |
//! | a virtual machine or a second loop device on what the disk lies on | `slaves` and `loop/backing_file` in sysfs, down to the last disk or file |
//!
//! The kernel itself refuses `O_EXCL` opens of block devices in use; the caller opens with it, and
//! [`user_of`] then gives the user a name.
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod lock;
mod sys;
mod users;

use std::fs::File;
use std::path::PathBuf;

pub use users::user_of;

/// The purpose of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To look only: other readers are welcome.
    Read,
    /// To change it: nobody else may use it.
    Write,
}

/// The other user of the disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Busy {
    /// Somebody holds the lock of flock(2).
    #[error("another snf-image or snf-customize (or another program) has locked it")]
    Locked,
    /// Somebody holds a lock of fcntl(2).
    #[error("another program has locked it, most likely a running virtual machine")]
    Vm,
    /// It is what a loop device shows.
    #[error("it is attached to {}; detach it (losetup -d) or use that device", .0.display())]
    Loop(PathBuf),
    /// A file system on it is mounted.
    #[error("it, or a partition on it, is mounted at {}; unmount it first", .0.display())]
    Mounted(PathBuf),
    /// A device of device-mapper, md or bcache is made of it.
    #[error("it, or a partition on it, is part of the device {0}; release that first")]
    Part(String),
    /// It is a loop device, and another loop device shows the same file.
    #[error("its file {} is attached to {} as well; detach that one (losetup -d)", .0.display(), .1.display())]
    Twin(PathBuf, PathBuf),
    /// Somebody holds a lock of fcntl(2) on the file or device that it lies on.
    #[error("it lies on {}, which another program has locked, most likely a running virtual machine", .0.display())]
    Below(PathBuf),
}

/// Claims an open disk. The claim ends when the last duplicate of the descriptor is closed.
///
/// File systems that know no locks (some network file systems) are taken as they are.
///
/// # Errors
///
/// [`Busy`] says who has the disk. Nothing was changed, but locks that were taken stay until the
/// file is closed.
pub fn claim(disk: &File, purpose: Purpose) -> Result<(), Busy> {
    lock::flock(disk, purpose)?;
    lock::bytes(disk, purpose)?;
    if purpose == Purpose::Write
        && let Some(busy) = disk.metadata().ok().and_then(|found| user_of(&found))
    {
        return Err(busy);
    }
    Ok(())
}

/// Gives the locks that QEMU respects back and keeps that against our own runs: a program of QEMU that
/// we start on the disk takes them for itself.
pub fn hand_over(disk: &File) {
    lock::give_bytes_back(disk);
}

/// Claims an open disk against other runs of snf-image only. Virtual machines do not see it: for
/// reading a disk that an instance may be started on meanwhile, and for a disk that another
/// program writes for us.
///
/// # Errors
///
/// [`Busy::Locked`] when another run has the disk.
pub fn claim_among_us(disk: &File, purpose: Purpose) -> Result<(), Busy> {
    lock::flock(disk, purpose)
}
