//! The two kinds of lock.

use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use rustix::fs::FlockOperation;

use crate::{Busy, Purpose};

/// A program that ends lets go a moment later, as does a child that it has just forked.
const PATIENCE: Duration = Duration::from_secs(1);
/// udev locks a device for a moment after each change of it.
const UDEV_PATIENCE: Duration = Duration::from_secs(5);
const NAP: Duration = Duration::from_millis(20);

/// Tries until the lock is there or patience ends. False when somebody else has it.
fn patiently(disk: &File, mut locked_by_others: impl FnMut() -> bool) -> bool {
    let device = disk.metadata().is_ok_and(|found| found.file_type().is_block_device());
    let deadline = Instant::now() + if device { UDEV_PATIENCE } else { PATIENCE };
    while locked_by_others() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(NAP);
    }
    true
}

/// Takes the lock of flock(2), which udev and our other runs respect.
pub(crate) fn flock(disk: &File, purpose: Purpose) -> Result<(), Busy> {
    let operation = match purpose {
        Purpose::Read => FlockOperation::NonBlockingLockShared,
        Purpose::Write => FlockOperation::NonBlockingLockExclusive,
    };
    // Network file systems may want a writable descriptor or know no locks at all: any other error
    // is taken for that.
    let others = || rustix::fs::flock(disk, operation) == Err(rustix::io::Errno::WOULDBLOCK);
    if patiently(disk, others) { Ok(()) } else { Err(Busy::Locked) }
}

/// Gives back what [`bytes`] took.
pub(crate) fn give_bytes_back(disk: &File) {
    // Without locks there is nothing to give back.
    let _ = fcntl(disk, FcntlArg::F_OFD_SETLK(&all_bytes(libc::F_UNLCK)));
}

fn all_bytes(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        // To the end, however far that moves.
        l_len: 0,
        // Must be 0 for a lock of an open file description.
        l_pid: 0,
    }
}

/// Locks every byte. QEMU marks its permissions as shared locks on bytes from 100 and from 200 on
/// (`block/file-posix.c`), so it collides with this in both directions.
pub(crate) fn bytes(disk: &File, purpose: Purpose) -> Result<(), Busy> {
    let kind = match purpose {
        Purpose::Read => libc::F_RDLCK,
        Purpose::Write => libc::F_WRLCK,
    };
    let all = all_bytes(kind);
    let others =
        || matches!(fcntl(disk, FcntlArg::F_OFD_SETLK(&all)), Err(Errno::EACCES | Errno::EAGAIN));
    if patiently(disk, others) { Ok(()) } else { Err(Busy::Vm) }
}

/// Whether somebody has a lock on any byte; none is taken.
pub(crate) fn is_locked(disk: &File) -> bool {
    let mut found = all_bytes(libc::F_WRLCK);
    let asked = fcntl(disk, FcntlArg::F_OFD_GETLK(&mut found));
    asked.is_ok() && found.l_type != libc::F_UNLCK as libc::c_short
}
