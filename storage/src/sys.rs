//! The only unsafe code of this crate: steps between fork and exec, and descriptors by their numbers.
//! Each call here is safe to its callers; the comments say why.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::Errno;

/// Has `steps` run in the child of `command`, between fork and exec. They may make system calls;
/// they must neither allocate nor take a lock, for another thread of ours may hold that lock at the
/// moment of the fork and the child would wait for ever.
pub(crate) fn before_exec(
    command: &mut Command,
    steps: impl FnMut() -> io::Result<()> + Send + Sync + 'static,
) {
    // SAFETY: `child.rs` alone calls this. Its steps make system calls on values that were made
    // before the fork: no allocation, no lock. It asks the same of the steps that it is given.
    unsafe {
        command.pre_exec(steps);
    }
}

/// Makes one call with the descriptor of a number. The call fails with EBADF if nothing is open
/// under that number. For the steps between fork and exec, which know descriptors by their numbers.
///
/// # Errors
/// The error of the call; EBADF for a negative number.
pub fn with_descriptor<T>(
    number: RawFd,
    call: impl FnOnce(BorrowedFd<'_>) -> rustix::io::Result<T>,
) -> rustix::io::Result<T> {
    if number < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: the number is not -1, and the borrow ends with the one call that it is made for. The
    // child before exec has one thread: nobody closes the number meanwhile.
    let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
    call(descriptor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_not_open_is_an_error() {
        let stat = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).map(drop);
        assert_eq!(with_descriptor(-1, stat), Err(Errno::BADF));
        assert_eq!(with_descriptor(RawFd::MAX, stat), Err(Errno::BADF));
        assert_eq!(with_descriptor(0, |_| Ok(7)), Ok(7));
    }
}
