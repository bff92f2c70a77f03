//! Starting QEMU with as little as it can do with: another user, no core dumps, only the
//! descriptors it is given, and an end when we end.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};

use landlock::RulesetCreated;
use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::UnshareFlags;

use super::HelperError;
use crate::node::child::bind;

/// Whom a child runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl Identity {
    /// Looks a user up by name or number in the node's passwd file.
    pub(super) fn of_user(user: &str) -> Result<Self, HelperError> {
        let passwd =
            fs::read_to_string("/etc/passwd").map_err(HelperError::system("read /etc/passwd"))?;
        Self::in_passwd(user, &passwd).ok_or_else(|| HelperError::NoSuchUser(user.to_owned()))
    }

    fn in_passwd(user: &str, passwd: &str) -> Option<Self> {
        passwd.lines().find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            let uid = fields.nth(1)?;
            if name != user && uid != user {
                return None;
            }
            let uid = uid.parse().ok().filter(|&n: &u32| n != u32::MAX)?;
            let gid = fields.next()?.parse().ok().filter(|&n: &u32| n != u32::MAX)?;
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            Some(Self { uid, gid, groups: Vec::new() })
        })
    }

    /// Adds the group that may use /dev/kvm. Says whether the identity can open it then.
    pub(super) fn allow_kvm(&mut self) -> bool {
        let Ok(node) = fs::metadata("/dev/kvm") else { return false };
        if node.mode() & 0o006 == 0o006 {
            return true;
        }
        if node.mode() & 0o060 == 0o060 && node.gid() != 0 {
            self.groups.push(Gid::from_raw(node.gid()));
            return true;
        }
        node.uid() == self.uid.as_raw()
    }
}

/// Limits of the child.
#[derive(Debug)]
pub(super) struct Limits<'a> {
    /// Seconds of processor time.
    pub(super) cpu_seconds: u64,
    /// Bytes of address space.
    pub(super) address_space: u64,
    /// Whether it gets an empty network of its own.
    pub(super) isolate: bool,
    /// What it may reach of the file systems.
    pub(super) landlock: Option<RulesetCreated>,
    /// Where its control group takes processes.
    pub(super) group: Option<BorrowedFd<'a>>,
}

/// Starts `command` as `identity` (or as we are), with `inherited` descriptors besides its error
/// output, in its own process group. The child dies when the calling thread does.
pub(super) fn spawn(
    command: &mut Command,
    identity: Option<Identity>,
    limits: Limits<'_>,
    inherited: &[BorrowedFd<'_>],
) -> io::Result<Child> {
    let (cpu_seconds, address_space) = (limits.cpu_seconds, limits.address_space);
    let (isolate, mut rules) = (limits.isolate, limits.landlock);
    let group = limits.group.map(|fd| fd.as_raw_fd());
    let mut name_spaces = UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    if !rustix::process::geteuid().is_root() {
        // Which gives the right to the others.
        name_spaces |= UnshareFlags::NEWUSER;
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    bind(command, inherited, move || {
        for (resource, value) in
            [(Resource::Cpu, cpu_seconds), (Resource::As, address_space), (Resource::Nofile, 256)]
        {
            let limit = Rlimit { current: Some(value), maximum: Some(value) };
            rustix::process::setrlimit(resource, limit)?;
        }
        // Where the kernel or a container refuses one of these walls, the others stand.
        if let Some(group) = group {
            // SAFETY: the caller holds the descriptor open over the call of spawn().
            #[allow(unsafe_code)]
            let group = unsafe { BorrowedFd::borrow_raw(group) };
            let _ = rustix::io::write(group, b"0");
        }
        if isolate {
            // SAFETY: the child has one thread, and shares no descriptors with another.
            #[allow(unsafe_code)]
            let _ = unsafe { rustix::thread::unshare_unsafe(name_spaces) };
        }
        if let Some(identity) = &identity {
            rustix::thread::set_thread_groups(&identity.groups)?;
            rustix::thread::set_thread_gid(identity.gid)?;
            rustix::thread::set_thread_uid(identity.uid)?;
        }
        rustix::thread::set_no_new_privs(true)?;
        if let Some(rules) = rules.take() {
            let _ = rules.restrict_self();
        }
        Ok(())
    });
    command.spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_by_exact_name_or_number() {
        let passwd =
            "root:x:0:0:root:/root:/bin/bash\nnobody2:x:7:8::/:\nbad\nnobody:x:65534:65533:n:/:\n";
        let nobody = Identity::in_passwd("nobody", passwd).unwrap();
        assert_eq!((nobody.uid.as_raw(), nobody.gid.as_raw()), (65534, 65533));
        assert_eq!(Identity::in_passwd("65534", passwd), Some(nobody));
        assert_eq!(Identity::in_passwd("nobod", passwd), None);
        assert_eq!(Identity::in_passwd("bad", passwd), None);
    }
}
