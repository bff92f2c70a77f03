//! Starting QEMU with as little as it can do with: another user, name spaces of its own, only the
//! descriptors it is given, no core dumps, and an end when we end.
//!
//! The user name space is what keeps strangers out. It belongs to root, so a process outside of it
//! that runs as the same user has no right to trace QEMU: that denies `ptrace`, `pidfd_getfd`,
//! `/proc/PID/mem` and `/proc/PID/fd/N` (kernel: `__ptrace_may_access`, `cap_ptrace_access_check`).

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use landlock::RulesetCreated;
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::process::{Gid, Resource, Rlimit};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use snf_storage::child::bind;
use snf_storage::sys::with_descriptor;

use super::identity::Identity;
use super::room::Room;
use crate::sys;

/// Says from the child that it cannot have a user name space of its own.
const NO_USER_SPACE: Errno = Errno::NOTRECOVERABLE;

/// The identity of a child and its limits.
#[derive(Debug)]
pub(super) struct Confinement<'a> {
    /// Its user; `None` for our own.
    pub(super) identity: Option<&'a Identity>,
    /// Seconds of processor time.
    pub(super) cpu_seconds: u64,
    /// Bytes of address space.
    pub(super) address_space: u64,
    /// The part of the file systems that it may reach.
    pub(super) landlock: Option<RulesetCreated>,
    /// The file systems it sees.
    pub(super) room: Option<Room>,
    /// The file through which its control group takes processes.
    pub(super) group: Option<BorrowedFd<'a>>,
}

/// Starts a program in its own process group, with `inherited` descriptors besides its error
/// output. The child dies when the calling thread does. `command` and `confinement` are made for each
/// try: where a user name space cannot be had, there is a second one without.
///
/// # Errors
/// Says why the program does not run. Walls that the kernel or a container refuses are left out.
pub(super) fn spawn<'a>(
    command: impl Fn() -> Command,
    confinement: impl Fn() -> Confinement<'a>,
    inherited: &[BorrowedFd<'_>],
) -> io::Result<Child> {
    let privileged = rustix::process::geteuid().is_root();
    let first = confinement();
    if !privileged || first.identity.is_none() {
        return spawn_once(command(), first, inherited, None);
    }
    let (ours, theirs) = UnixStream::pair()?;
    let maps = first.identity.map(maps).unwrap_or_default();
    let result = std::thread::scope(|scope| {
        // Before the process ID name space: a thread that has one for its children gets no threads.
        let mapper = scope.spawn(move || map_ids(ours, &maps));
        let result = spawn_once(command(), first, inherited, Some(theirs.as_fd()));
        // A child that never asked leaves the mapper with the end of its line.
        drop(theirs);
        let _ = mapper.join();
        result
    });
    match result {
        Err(error) if error.raw_os_error() == Some(NO_USER_SPACE.raw_os_error()) => {
            spawn_once(command(), confinement(), inherited, None)
        }
        result => result,
    }
}

/// The user and groups of a child as the files `uid_map` and `gid_map` have them: itself, and
/// nobody else. Root has no number in there.
fn maps(identity: &Identity) -> [String; 2] {
    let line = |id: u32| format!("{id} {id} 1\n");
    let groups = std::iter::once(&identity.gid).chain(&identity.groups);
    let mut groups: Vec<u32> = groups.map(|gid| gid.as_raw()).collect();
    groups.dedup();
    [line(identity.uid.as_raw()), groups.into_iter().map(line).collect()]
}

/// Waits until the child names itself, and gives its user name space its numbers. Only a process
/// outside of the name space may do that.
fn map_ids(mut line: UnixStream, maps: &[String; 2]) {
    let mut name = [0; 16];
    let Ok(count) = line.read(&mut name) else { return };
    let Some(pid) = name.get(..count).and_then(|name| std::str::from_utf8(name).ok()) else {
        return;
    };
    if pid.is_empty() || !pid.bytes().all(|byte| byte.is_ascii_digit()) {
        return;
    }
    let done = ["uid_map", "gid_map"]
        .iter()
        .zip(maps)
        .all(|(file, map)| fs::write(format!("/proc/{pid}/{file}"), map).is_ok());
    let _ = line.write_all(&[u8::from(done)]);
}

/// Starts a program once. `mapper` leads to the thread that fills in the user name space.
fn spawn_once(
    mut command: Command,
    confinement: Confinement<'_>,
    inherited: &[BorrowedFd<'_>],
    mapper: Option<BorrowedFd<'_>>,
) -> io::Result<Child> {
    let mut child = InChild::new(confinement, mapper);
    let privileged = child.privileged;
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    bind(&mut command, inherited, move || child.enter());
    if privileged { in_pid_space(|| command.spawn()) } else { command.spawn() }
}

/// Has a process that `start` makes be the first one in a process ID name space of its own, where
/// that can be had. It sees and signals no other process then.
fn in_pid_space<T>(start: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let Ok(own) = File::open("/proc/self/ns/pid") else { return start() };
    // This is about children to come.
    if sys::unshare(UnshareFlags::NEWPID).is_err() {
        return start();
    }
    let result = start();
    // Without this, the thread could make no thread and no process any more.
    move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::ProcessID))?;
    result
}

/// The steps between fork and exec. None of them allocates or takes a lock.
struct InChild {
    cpu_seconds: u64,
    address_space: u64,
    privileged: bool,
    ids: Option<(rustix::process::Uid, Gid, Vec<Gid>)>,
    landlock: Option<RulesetCreated>,
    room: Option<Room>,
    group: Option<RawFd>,
    mapper: Option<RawFd>,
}

impl InChild {
    fn new(confinement: Confinement<'_>, mapper: Option<BorrowedFd<'_>>) -> Self {
        let ids = confinement
            .identity
            .map(|identity| (identity.uid, identity.gid, identity.groups.clone()));
        Self {
            cpu_seconds: confinement.cpu_seconds,
            address_space: confinement.address_space,
            privileged: rustix::process::geteuid().is_root(),
            ids,
            landlock: confinement.landlock,
            room: confinement.room,
            group: confinement.group.map(|fd| fd.as_raw_fd()),
            mapper: mapper.map(|fd| fd.as_raw_fd()),
        }
    }

    /// Puts up the walls. If the kernel or a container refuses one of them, the others
    /// stand; the user and `no_new_privs` are no matter of choice.
    fn enter(&mut self) -> io::Result<()> {
        self.limit()?;
        self.join_group();
        // As the node's /proc names us: the room has another one.
        let mut name = [0; 16];
        let name = rustix::fs::readlinkat_raw(CWD, c"/proc/self", &mut name[..])
            .ok()
            .and_then(|count| name.get(..count));
        self.separate();
        if let (Some(mapper), Some(name)) = (self.mapper, name) {
            own_user_space(mapper, name)?;
        }
        if let Some((uid, gid, groups)) = &self.ids {
            rustix::thread::set_thread_groups(groups)?;
            rustix::thread::set_thread_gid(*gid)?;
            rustix::thread::set_thread_uid(*uid)?;
        }
        rustix::thread::set_no_new_privs(true)?;
        if let Some(rules) = self.landlock.take() {
            let _ = rules.restrict_self();
        }
        Ok(())
    }

    fn limit(&self) -> io::Result<()> {
        for (resource, value) in [
            (Resource::Cpu, self.cpu_seconds),
            (Resource::As, self.address_space),
            (Resource::Nofile, 256),
        ] {
            let limit = Rlimit { current: Some(value), maximum: Some(value) };
            rustix::process::setrlimit(resource, limit)?;
        }
        Ok(())
    }

    fn join_group(&self) {
        if let Some(group) = self.group {
            // The caller holds it open over the call of spawn().
            let _ = with_descriptor(group, |group| rustix::io::write(group, b"0"));
        }
    }

    /// An empty network, no shared memory, and the room. An ordinary user needs a user name space
    /// before it may have the others, and has no room.
    fn separate(&self) {
        let spaces = UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
        if !self.privileged {
            let _ = sys::unshare(spaces | UnshareFlags::NEWUSER);
            return;
        }
        let _ = sys::unshare(spaces);
        if let Some(room) = &self.room
            && sys::unshare(UnshareFlags::NEWNS).is_ok()
        {
            let _ = room.enter();
        }
    }
}

/// Enters a user name space that belongs to root, and waits until our thread there has filled it in.
fn own_user_space(mapper: RawFd, name: &[u8]) -> io::Result<()> {
    if sys::unshare(UnshareFlags::NEWUSER).is_err() {
        return Ok(());
    }
    // The caller holds it open over the call of spawn().
    let mut done = [0];
    with_descriptor(mapper, |mapper| rustix::io::write(mapper, name))?;
    with_descriptor(mapper, |mapper| rustix::io::read(mapper, &mut done))?;
    if done == [1] { Ok(()) } else { Err(NO_USER_SPACE.into()) }
}
