//! Giving up every right. The worker and the debug shell do so before they read anything that
//! comes from outside.

use rustix::process::{Gid, Resource, Rlimit, Uid};

use crate::error::InitError;
use crate::filter;

/// The root directory of a confined process.
pub(crate) const EMPTY: &str = "/empty";
/// The user of a confined process: nobody. There is no passwd file in here to ask.
const NOBODY: u32 = 65534;
/// Address space beyond the guest's memory: code, stacks, mappings that are never touched.
const ADDRESS_SPACE_EXTRA: u64 = 64 << 20;

/// Gives up all but what is open.
pub(crate) fn confine() -> Result<(), InitError> {
    drop_rights().map_err(InitError::Rights)?;
    filter::apply().map_err(InitError::Filter)
}

/// From here on: no root, no way back, bounded memory, no core dump.
fn drop_rights() -> Result<(), rustix::io::Errno> {
    let memory = rustix::system::sysinfo();
    let unit = u64::from(memory.mem_unit.max(1));
    let total = memory.totalram.saturating_mul(unit);
    for (resource, value) in [
        (Resource::As, total.saturating_add(ADDRESS_SPACE_EXTRA)),
        (Resource::Core, 0),
        (Resource::Nofile, 128),
        (Resource::Nproc, 32),
    ] {
        let limit = Rlimit { current: Some(value), maximum: Some(value) };
        rustix::process::setrlimit(resource, limit)?;
    }
    // An empty directory becomes all there is to see, and no right is left to get out of it.
    rustix::process::chroot(EMPTY)?;
    rustix::process::chdir("/")?;
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_gid(Gid::from_raw(NOBODY))?;
    rustix::thread::set_thread_uid(Uid::from_raw(NOBODY))?;
    rustix::thread::set_no_new_privs(true)
}
