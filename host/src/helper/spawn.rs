//! Starting QEMU with as little as it can do with: another user, no core dumps, only the
//! descriptors it is given, and an end when we end.

use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use landlock::RulesetCreated;
use rustix::process::{Gid, Resource, Rlimit, Signal, Uid};
use rustix::thread::UnshareFlags;

use super::HelperError;

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
    use std::os::fd::AsRawFd;
    let fds: Vec<RawFd> = inherited.iter().map(AsRawFd::as_raw_fd).collect();
    let parent = rustix::process::getpid();
    let (cpu_seconds, address_space) = (limits.cpu_seconds, limits.address_space);
    let (isolate, mut rules) = (limits.isolate, limits.landlock);
    let group = limits.group.map(|fd| fd.as_raw_fd());
    let mut name_spaces = UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    if !rustix::process::geteuid().is_root() {
        // Which gives the right to the others.
        name_spaces |= UnshareFlags::NEWUSER;
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.process_group(0).current_dir("/").env_clear();
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    // SAFETY: between fork and exec only system calls are made: no allocation, no lock. The
    // vectors were filled before the fork.
    #[allow(unsafe_code)]
    unsafe {
        command.pre_exec(move || {
            for (resource, value) in [
                (Resource::Core, 0),
                (Resource::Cpu, cpu_seconds),
                (Resource::As, address_space),
                (Resource::Nofile, 256),
            ] {
                let limit = Rlimit { current: Some(value), maximum: Some(value) };
                rustix::process::setrlimit(resource, limit)?;
            }
            // Where the kernel or a container refuses one of these walls, the others stand.
            if let Some(group) = group {
                // SAFETY: the caller holds the descriptor open over the call of spawn().
                let _ = rustix::io::write(BorrowedFd::borrow_raw(group), b"0");
            }
            if isolate {
                let _ = rustix::thread::unshare_unsafe(name_spaces);
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
            // After the change of user, which clears it.
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
            if rustix::process::getppid() != Some(parent) {
                return Err(io::Error::from(rustix::io::Errno::CANCELED));
            }
            for &fd in &fds {
                // SAFETY: the caller holds these descriptors open over the call of spawn().
                let fd = BorrowedFd::borrow_raw(fd);
                rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::empty())?;
            }
            Ok(())
        });
    }
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
