//! The only unsafe code of the host: name spaces. The call is safe to its callers; the comment says
//! why. Descriptors by their numbers are `snf_storage::sys`.

use rustix::io::Errno;
use rustix::thread::UnshareFlags;

/// Moves this thread, or its children to come, into new name spaces.
///
/// # Errors
/// The kernel's error; EINVAL for the table of descriptors, which is never taken apart.
pub(crate) fn unshare(spaces: UnshareFlags) -> rustix::io::Result<()> {
    if spaces.contains(UnshareFlags::FILES) {
        return Err(Errno::INVAL);
    }
    // SAFETY: of all flags only FILES can make a descriptor mean something else in this thread.
    unsafe { rustix::thread::unshare_unsafe(spaces) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_stay_shared() {
        assert_eq!(unshare(UnshareFlags::FILES | UnshareFlags::NEWNET), Err(Errno::INVAL));
    }
}
