//! The parts of the node that QEMU may still reach once it runs: a Landlock rule set and a control group.
//! Both are made before QEMU is started, and both are best effort: where the kernel (or a
//! container) has them not, the other walls stand. docs/helper.md lists them all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use landlock::{
    ABI, Access, AccessFs, AccessNet, PathBeneath, Ruleset, RulesetAttr, RulesetCreated,
    RulesetCreatedAttr, RulesetError, Scope, path_beneath_rules,
};

/// The newest rules that we know the meaning of.
const KNOWN: ABI = ABI::V6;
/// Programs, libraries, firmware.
pub(super) const RUN: [&str; 6] = ["/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc/alternatives"];
/// The files that a start reads: the linker's and the C library's, the number of processors. Nothing of
/// `/proc`: the files behind `/proc/self/fd` have rules of their own.
pub(super) const READ: [&str; 7] = [
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/group",
    "/sys/devices/system",
    "/dev/urandom",
];
/// Devices.
pub(super) const USE: [&str; 2] = ["/dev/null", "/dev/kvm"];

/// The rules for a QEMU whose program lies at `program` (a path, or a name that PATH finds) and
/// that opens the `files` by path: everything else of the file systems is out of reach, and so are
/// TCP, other processes' signals and abstract sockets.
pub(super) fn landlock(
    program: &Path,
    files: &[BorrowedFd<'_>],
) -> Result<RulesetCreated, RulesetError> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    let run = read | AccessFs::Execute;
    let used = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::IoctlDev;
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(KNOWN))?
        .handle_access(AccessNet::from_all(KNOWN))?
        .scope(Scope::from_all(KNOWN))?
        .create()?
        .add_rules(path_beneath_rules(RUN, run))?
        .add_rules(path_beneath_rules(READ, read))?
        .add_rules(path_beneath_rules(USE, used))?;
    if program.is_absolute() {
        rules = rules
            .add_rules(path_beneath_rules([program], AccessFs::ReadFile | AccessFs::Execute))?;
    }
    for file in files {
        rules = rules.add_rule(PathBeneath::new(file, AccessFs::ReadFile))?;
    }
    Ok(rules)
}

/// Most processes and threads of a helper VM: QEMU has a handful.
const PROCESSES: u32 = 128;
/// The memory of QEMU beside the guest's: its own code, and that of the guest, translated.
const QEMU_MEMORY: u64 = 768 << 20;
const PREFIX: &str = "snf-image-helper-";

/// A control group (version 2) of one VM. With it go all processes that are still in it.
#[derive(Debug)]
pub(super) struct ControlGroup {
    path: PathBuf,
    procs: File,
}

impl ControlGroup {
    /// Makes a group beside our own. `None` where there is no control group file system of version
    /// 2 that we may write to.
    pub(super) fn make(guest_memory: u64) -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        Self::make_in(&parent(&mounts, &own)?, guest_memory)
    }

    fn make_in(parent: &Path, guest_memory: u64) -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        remove_left_behind(parent);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir(&path).ok()?;
        // The limits are there only where the parent passes the controller on.
        for (name, value) in [
            ("memory.max", guest_memory.saturating_add(QEMU_MEMORY)),
            ("memory.swap.max", 0),
            ("pids.max", PROCESSES.into()),
        ] {
            let write = || -> io::Result<()> {
                OpenOptions::new()
                    .write(true)
                    .open(path.join(name))?
                    .write_all(value.to_string().as_bytes())
            };
            let _ = write();
        }
        match OpenOptions::new().write(true).open(path.join("cgroup.procs")) {
            Ok(procs) => Some(Self { path, procs }),
            Err(_) => {
                let _ = fs::remove_dir(&path);
                None
            }
        }
    }

    /// The file in which a process writes `0` to join.
    pub(super) fn procs(&self) -> BorrowedFd<'_> {
        self.procs.as_fd()
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let _ = fs::write(self.path.join("cgroup.kill"), "1");
        // A process that was killed takes a moment to be gone.
        for _ in 0..50 {
            match fs::remove_dir(&self.path) {
                Err(e) if e.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                _ => return,
            }
        }
    }
}

/// The directory of the group that ours is a child of (our own, where that is the root).
fn parent(mountinfo: &str, cgroup: &str) -> Option<PathBuf> {
    let own = cgroup.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mount = mountinfo.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut fields = left.split(' ').skip(3);
        let (root, mount) = (fields.next()?, fields.next()?);
        (right.starts_with("cgroup2 ") && root == "/").then(|| PathBuf::from(mount))
    })?;
    let above = own.rsplit_once('/').map_or("", |(above, _)| above);
    // A group outside of our name space.
    if above.split('/').any(|part| part == "..") {
        return None;
    }
    Some(mount.join(above))
}

/// Groups of runs that were killed before they could clean up.
fn remove_left_behind(parent: &Path) {
    for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(owner) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
            continue;
        };
        let owner = owner.split('-').next().unwrap_or_default();
        if owner.parse::<u32>().is_ok() && !Path::new("/proc").join(owner).exists() {
            // Only an empty one can be removed.
            let _ = fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_is_a_sibling_of_ours() {
        let mounts = "24 1 0:5 / /proc rw - proc proc rw\n\
            30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
        let of = |cgroup| parent(mounts, cgroup).map(|p| p.display().to_string());
        assert_eq!(of("0::/\n").as_deref(), Some("/sys/fs/cgroup/"));
        let noded = "1:name=systemd:/x\n0::/system.slice/ganeti.service\n";
        assert_eq!(of(noded).as_deref(), Some("/sys/fs/cgroup/system.slice"));
        assert_eq!(of("0::/../other\n"), None);
        assert_eq!(of("5:memory:/x\n"), None);
        assert_eq!(parent("", "0::/\n"), None);
    }

    #[test]
    fn limits_are_written_where_there_are_some_and_nothing_stays() {
        // A directory instead of the kernel's: the files of a group are not made by themselves.
        let dir = tempfile::tempdir().unwrap();
        assert!(ControlGroup::make_in(dir.path(), 1 << 20).is_none());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        let left = dir.path().join(format!("{PREFIX}{}-7", u32::MAX));
        let other = dir.path().join(format!("{PREFIX}{}-7", std::process::id()));
        for path in [&left, &other] {
            fs::create_dir(path).unwrap();
        }
        remove_left_behind(dir.path());
        assert!(!left.exists() && other.exists());
    }
}
