//! One run of the helper VM: QEMU is started, listened to, and always gone at the end.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStderr, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal};

use super::debug::{DEBUG_LIMIT, DebugSocket};
use super::image::{HelperImage, ParameterDisk};
use super::protocol::{
    LogReader, MonitorReader, ProtocolError, ResultReader, VmResult, clean_line,
};
use super::qemu::{Invocation, Life, QemuDisk, arguments, run_words};
use super::snapshot;
use super::spawn::{Identity, Limits, spawn};
use super::walls::{ControlGroup, landlock};
use super::{Acceleration, HelperConfig, HelperError, HelperReport, HelperSink, VmDisk, VmRequest};
use crate::node::cancel::Cancel;

/// How long a helper under KVM may take to announce itself. A working one needs some hundred
/// milliseconds; where KVM only seems to work it never speaks.
const KVM_PATIENCE: Duration = Duration::from_secs(4);

/// How long a helper that goes on from a snapshot may take to announce itself. It needs hundredths of
/// a second.
const WAKE_PATIENCE: Duration = Duration::from_secs(20);

/// What the drivers of file systems and their caches take beside HELPER_MEMORY.
const FILE_SYSTEMS_MIB: u32 = 96;

/// What a 3.5 inch floppy holds.
const FLOPPY_SIZE: u64 = 1440 << 10;

/// How often a silent run looks whether it was asked to stop. A signal also ends the wait.
const CANCEL_INTERVAL: Duration = Duration::from_millis(500);

/// Runs the helper VM on `request` and returns when QEMU has ended. `Ok` means that the helper
/// said `SUCCESS`. On every path QEMU is gone afterwards.
pub fn run_helper(
    config: &HelperConfig,
    request: &VmRequest,
    cancel: &Cancel,
    sink: &mut dyn HelperSink,
) -> Result<HelperReport, HelperError> {
    let helper = HelperImage::open(&config.directory)?;
    if let Some(report) = run_image(config, &helper, request, cancel, sink)? {
        return Ok(report);
    }
    let nothing = || HelperError::Garbage("AGAIN, and there is no other initramfs".to_owned());
    let helper = helper.with_file_systems().ok_or_else(nothing)?;
    sink.console("the disk has a file system that needs the kernel's drivers: starting with them");
    let config = HelperConfig {
        memory_mib: config.memory_mib.saturating_add(FILE_SYSTEMS_MIB),
        ..config.clone()
    };
    run_image(&config, &helper, request, cancel, sink)?.ok_or_else(nothing)
}

/// Runs one helper. `None`: it asks for the drivers that the other initramfs has.
fn run_image(
    config: &HelperConfig,
    helper: &HelperImage,
    request: &VmRequest,
    cancel: &Cancel,
    sink: &mut dyn HelperSink,
) -> Result<Option<HelperReport>, HelperError> {
    let mut first = config.acceleration;
    if first != Acceleration::Tcg
        && let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/kvm")
    {
        let reason = format!("/dev/kvm: {error}");
        if first == Acceleration::Kvm {
            return Err(HelperError::Kvm(reason));
        }
        sink.warning(&format!("no KVM ({reason}): the helper VM runs with TCG, which is slower"));
        first = Acceleration::Tcg;
    }
    if first != Acceleration::Tcg {
        match attempt(config, helper, request, Acceleration::Kvm, Way::Boot, cancel, sink)? {
            Outcome::Done(report) => return Ok(Some(report)),
            Outcome::NeedsFileSystems => return Ok(None),
            Outcome::Unusable(reason) if config.acceleration == Acceleration::Kvm => {
                return Err(HelperError::Kvm(reason));
            }
            Outcome::Unusable(reason) => sink.warning(&format!(
                "the helper VM does not boot with KVM here ({reason}): it runs with TCG instead; \
                 HELPER_ACCEL=tcg saves the attempt"
            )),
        }
    }
    let mut way = if config.snapshot { Way::Wake } else { Way::Boot };
    loop {
        match attempt(config, helper, request, Acceleration::Tcg, way, cancel, sink)? {
            Outcome::Done(report) => return Ok(Some(report)),
            Outcome::NeedsFileSystems => return Ok(None),
            // A VM that boots is never found unusable here: this goes round once.
            Outcome::Unusable(reason) if way == Way::Boot => {
                return Err(HelperError::NoResult { last: reason });
            }
            Outcome::Unusable(reason) => sink.warning(&format!(
                "the snapshot of the helper VM cannot be used ({reason}): it boots instead; \
                 snf-image-update-helper makes a new one"
            )),
        }
        way = Way::Boot;
    }
}

/// How a VM is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It boots.
    Boot,
    /// It goes on from a snapshot, if there is one of such a machine.
    Wake,
    /// It boots until it can be saved.
    Save,
}

/// How an attempt that is not an error ended.
enum Outcome {
    /// SUCCESS.
    Done(HelperReport),
    /// Nothing was done: the drivers of more file systems are needed.
    NeedsFileSystems,
    /// The helper never came to life with KVM, or from its snapshot; no disk was opened in there.
    Unusable(String),
}

fn attempt(
    config: &HelperConfig,
    helper: &HelperImage,
    request: &VmRequest,
    acceleration: Acceleration,
    way: Way,
    cancel: &Cancel,
    sink: &mut dyn HelperSink,
) -> Result<Outcome, HelperError> {
    let mut vm = Vm::start(config, helper, request, acceleration, way)?;
    let resumed = vm.asleep.is_some();
    if let Err(reason) = vm.wake(cancel) {
        vm.kill(sink)?;
        cancel.check()?;
        return Ok(Outcome::Unusable(format!("{reason}; QEMU: {}", vm.stderr_text())));
    }
    let patience = match acceleration {
        Acceleration::Kvm => Some(KVM_PATIENCE),
        _ => resumed.then_some(WAKE_PATIENCE),
    };
    let hello_deadline = patience.map(|patience| Instant::now() + patience);
    let mut soft_deadline = vm.started + config.soft_timeout;
    let mut waits_for_person = false;
    let mut terminated = false;
    let mut unusable = None;

    let status = loop {
        let deadline = match hello_deadline {
            _ if terminated => soft_deadline + config.hard_timeout,
            Some(deadline) if !vm.log.heard_hello() => deadline.min(soft_deadline),
            _ => soft_deadline,
        };
        if vm.wait(deadline, sink)? {
            break vm.reap(sink)?;
        }
        if let (Some(debug), Some(VmResult::Error(_))) = (&vm.debug, vm.result.result())
            && !waits_for_person
        {
            waits_for_person = true;
            soft_deadline = Instant::now() + DEBUG_LIMIT + config.hard_timeout;
            sink.warning(&debug.how_to_attach());
        }
        if let Err(cancelled) = cancel.check() {
            vm.kill(sink)?;
            return Err(HelperError::Cancelled(cancelled));
        }
        if acceleration == Acceleration::Kvm && vm.kvm_error() && !vm.log.heard_hello() {
            unusable = Some("QEMU reports a KVM internal error".to_owned());
            break vm.kill(sink)?;
        }
        let now = Instant::now();
        if now < deadline {
            continue;
        }
        if terminated {
            vm.kill(sink)?;
            return Err(HelperError::HardTimeout(config.soft_timeout, config.hard_timeout));
        }
        if now >= soft_deadline {
            terminated = true;
            vm.signal(Signal::TERM);
            continue;
        }
        let quiet =
            if vm.log.heard_anything() { "the helper did not start" } else { "no sign of life" };
        unusable = Some(format!("{quiet} within {} s", patience.unwrap_or_default().as_secs()));
        break vm.kill(sink)?;
    };
    let elapsed = vm.started.elapsed();
    if let Some(report) = vm.result.report() {
        sink.report(report);
    }

    // A result that arrived before the end counts, whatever hurried the end.
    if let Some(result) = vm.result.result() {
        return match result.clone() {
            VmResult::Success => match vm.protocol_error.take() {
                Some(error) => Err(HelperError::Protocol(error)),
                None => Ok(Outcome::Done(HelperReport { acceleration, resumed, elapsed })),
            },
            VmResult::NeedsFileSystems => Ok(Outcome::NeedsFileSystems),
            VmResult::Error(text) => Err(HelperError::Failed(text)),
            VmResult::Ready => Err(HelperError::Garbage("READY, which nobody asked for".into())),
            VmResult::Garbage(text) => Err(HelperError::Garbage(text)),
        };
    }
    if terminated {
        return Err(HelperError::SoftTimeout(config.soft_timeout));
    }
    if patience.is_some() && !vm.log.heard_hello() {
        let reason = unusable.or_else(|| {
            (!status.success())
                .then(|| format!("QEMU ended with {}: {}", words(status), vm.stderr_text()))
        });
        if let Some(reason) = reason {
            return Ok(Outcome::Unusable(reason));
        }
    }
    if let Some(signal) = status.signal() {
        return Err(HelperError::QemuKilled { signal: format!("signal {signal}") });
    }
    if !status.success() {
        return Err(HelperError::QemuFailed { status: words(status), stderr: vm.stderr_text() });
    }
    let last: Vec<&str> = match vm.log.panic() {
        Some(panic) => vec![panic],
        None => vm.log.tail().collect(),
    };
    let last = if last.is_empty() { "none".to_owned() } else { last.join(" / ") };
    Err(HelperError::NoResult { last })
}

fn is_device(file: &File) -> Result<bool, HelperError> {
    let metadata = file.metadata().map_err(HelperError::system("look at the disk"))?;
    Ok(metadata.file_type().is_block_device())
}

/// What is larger than a floppy does not go into a floppy drive, and takes more memory in there.
fn fit_parameters(
    config: &HelperConfig,
    helper: &HelperImage,
    parameters: &File,
) -> Result<(ParameterDisk, u32), HelperError> {
    let metadata = parameters.metadata().map_err(HelperError::system("look at the parameters"))?;
    if metadata.len() <= FLOPPY_SIZE {
        return Ok((helper.description.parameter_disk, config.memory_mib));
    }
    // The text, its values decoded, and the files made of them, each once or twice.
    let mib = u32::try_from(metadata.len() >> 20).unwrap_or(u32::MAX);
    Ok((ParameterDisk::Virtio, config.memory_mib.saturating_add(mib.saturating_mul(6))))
}

fn words(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        _ => "an unknown status".to_owned(),
    }
}

/// A running QEMU and our ends of its lines.
pub(super) struct Vm {
    child: Child,
    /// After QEMU has ended, whatever it may have left goes with its group.
    _group: Option<ControlGroup>,
    debug: Option<DebugSocket>,
    pidfd: OwnedFd,
    reaped: bool,
    started: Instant,
    /// Of one that is to be saved or to go on: our end of its monitor, and what to tell its init.
    pub(super) asleep: Option<(UnixStream, String)>,
    /// Of one that is to be saved: what a VM has to be like to go on from there.
    pub(super) machine: Option<Vec<String>>,
    pub(super) serial: [Option<UnixStream>; 3],
    stderr: Option<ChildStderr>,
    stderr_bytes: Vec<u8>,
    pub(super) log: LogReader,
    pub(super) result: ResultReader,
    monitor: MonitorReader,
    protocol_error: Option<ProtocolError>,
}

impl Vm {
    pub(super) fn start(
        config: &HelperConfig,
        helper: &HelperImage,
        request: &VmRequest,
        acceleration: Acceleration,
        way: Way,
    ) -> Result<Self, HelperError> {
        let open = |path: &std::path::Path| {
            File::open(path).map_err(HelperError::system(format!("open {}", path.display())))
        };
        // As descriptors: HELPER_DIR need not be open to the user QEMU runs as.
        let kernel = open(&helper.kernel)?;
        let initramfs = open(&helper.initramfs)?;
        // A descriptor that was opened for reading only: no way to write through it.
        let parameters =
            open(format!("/proc/self/fd/{}", request.parameters.as_raw_fd()).as_ref())?;

        let mut ours = Vec::new();
        let mut theirs = Vec::new();
        for _ in 0..3 {
            let (our, their) =
                UnixStream::pair().map_err(HelperError::system("make a socket pair"))?;
            our.set_nonblocking(true).map_err(HelperError::system("set up a socket"))?;
            ours.push(Some(our));
            theirs.push(their);
        }
        let too_few = || HelperError::system("make socket pairs")(io::Error::other("too few"));
        let serial: [Option<UnixStream>; 3] = ours.try_into().map_err(|_| too_few())?;
        let their_fds: Vec<_> = theirs.iter().map(AsFd::as_fd).collect();

        // A connection for each run: a second one must not find what a first one left in it.
        let mut connections = Vec::new();
        for disk in &request.disks {
            if let VmDisk::Remote(daemon) = disk {
                connections.push(
                    daemon.connect().map_err(HelperError::system("reach the storage daemon"))?,
                );
            }
        }
        let mut connected = connections.iter();
        let mut disks = Vec::new();
        for disk in &request.disks {
            disks.push(match disk {
                VmDisk::Remote(_) => match connected.next() {
                    Some(connection) => QemuDisk::Nbd(connection.as_fd()),
                    None => return Err(too_few()),
                },
                VmDisk::Open(file) if is_device(file)? => QemuDisk::Device(file.as_fd()),
                VmDisk::Open(file) => QemuDisk::File(file.as_fd()),
                VmDisk::ReadOnly(file) => {
                    let driver = if is_device(file)? { "host_device" } else { "file" };
                    QemuDisk::ReadOnly(file.as_fd(), driver)
                }
            });
        }

        // Root gives up its rights before QEMU starts. Only where /dev/kvm is root's alone does
        // QEMU itself have to do it, after it has opened that.
        let mut identity = None;
        let mut run_as = None;
        if let Some(user) = config.user.as_deref().filter(|_| rustix::process::geteuid().is_root())
        {
            let mut found = Identity::of_user(user)?;
            if acceleration == Acceleration::Kvm && !found.allow_kvm() {
                run_as = Some(user);
            } else {
                identity = Some(found);
            }
        }

        let debug = match config.debug {
            true => Some(DebugSocket::make().map_err(HelperError::system("make a socket"))?),
            false => None,
        };
        let debug_seconds = DEBUG_LIMIT.as_secs();
        let listener = debug.as_ref().map(|debug| debug.listener.as_fd());
        let mut inherited = vec![kernel.as_fd(), initramfs.as_fd(), parameters.as_fd()];
        inherited.extend(listener);
        inherited.extend(their_fds.iter().copied());
        for disk in &disks {
            let (QemuDisk::File(fd)
            | QemuDisk::Device(fd)
            | QemuDisk::Nbd(fd)
            | QemuDisk::ReadOnly(fd, _)) = disk;
            inherited.push(*fd);
        }
        let (parameter_disk, memory_mib) = fit_parameters(config, helper, &parameters)?;
        let mut invocation = Invocation {
            config,
            helper,
            kernel: format!("/proc/self/fd/{}", kernel.as_raw_fd()),
            initramfs: format!("/proc/self/fd/{}", initramfs.as_raw_fd()),
            acceleration,
            disks,
            flush_later: request.flush_later,
            sector_size: request.sector_size,
            memory_mib,
            parameter_disk,
            parameters: parameters.as_fd(),
            serial: their_fds.try_into().map_err(|_| too_few())?,
            hypervisor: &request.hypervisor,
            debug: listener.map(|listener| (listener, debug_seconds)),
            run_as,
            life: Life::Boot,
        };
        let machine = match way {
            Way::Boot => None,
            _ => snapshot::machine(config, helper, &arguments(&invocation)),
        };
        let found = match (way, &machine) {
            (Way::Wake, Some(machine)) => snapshot::find(&config.directory, machine),
            _ => None,
        };
        let pair = (way == Way::Save || found.is_some())
            .then(UnixStream::pair)
            .transpose()
            .map_err(HelperError::system("make a socket pair"))?;
        let (monitor, their_monitor) = pair.unzip();
        if let Some(theirs) = &their_monitor {
            inherited.push(theirs.as_fd());
            invocation.life = Life::Save(theirs.as_fd());
            if let Some(snapshot) = &found {
                inherited.push(snapshot.as_fd());
                invocation.life = Life::Wake(theirs.as_fd(), snapshot.as_fd());
            }
        }
        let mut wall = config.soft_timeout.saturating_add(config.hard_timeout).as_secs();
        if debug.is_some() {
            wall = wall.saturating_add(debug_seconds);
        }
        let guest_memory = u64::from(memory_mib) << 20;
        // A kernel without Landlock gives empty rules; an error leaves the other walls.
        let rules = || landlock(&config.qemu, &[kernel.as_fd(), initramfs.as_fd()]).ok();
        let group = ControlGroup::make(guest_memory);
        let limits = Limits {
            // Two threads may be busy at once, and a little more for the start.
            cpu_seconds: wall.saturating_mul(3).saturating_add(10),
            isolate: true,
            landlock: rules(),
            group: group.as_ref().map(ControlGroup::procs),
            address_space: guest_memory.saturating_add(2 << 30),
        };
        let mut command = Command::new(&config.qemu);
        command.args(arguments(&invocation));
        let started = Instant::now();
        let mut child = spawn(&mut command, identity, limits, &inherited)
            .map_err(|source| HelperError::QemuMissing { qemu: config.qemu.clone(), source })?;
        let pidfd = rustix::process::Pid::from_raw(child.id().cast_signed())
            .ok_or(rustix::io::Errno::SRCH)
            .and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()));
        let pidfd = match pidfd {
            Ok(pidfd) => pidfd,
            Err(e) => {
                let _ = child.kill();
                let _ = child.wait();
                return Err(HelperError::system("watch QEMU")(e));
            }
        };
        let stderr = child.stderr.take();
        let vm = Self {
            asleep: monitor.map(|monitor| (monitor, run_words(&invocation))),
            machine,
            child,
            _group: group,
            debug,
            pidfd,
            reaped: false,
            started,
            serial,
            stderr,
            stderr_bytes: Vec::new(),
            log: LogReader::default(),
            result: ResultReader::default(),
            monitor: MonitorReader::default(),
            protocol_error: None,
        };
        if let Some(stderr) = &vm.stderr {
            rustix::io::ioctl_fionbio(stderr, true)
                .map_err(HelperError::system("set up QEMU's error output"))?;
        }
        Ok(vm)
    }

    /// Listens until QEMU ends (true), something was heard, or the deadline passes (false).
    pub(super) fn wait(
        &mut self,
        deadline: Instant,
        sink: &mut dyn HelperSink,
    ) -> Result<bool, HelperError> {
        // Now and then the caller looks whether it was asked to stop.
        let left = deadline.saturating_duration_since(Instant::now()).min(CANCEL_INTERVAL);
        let timeout = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let exited = {
            let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
            for serial in self.serial.iter().flatten() {
                fds.push(PollFd::new(serial, PollFlags::IN));
            }
            if let Some(stderr) = &self.stderr {
                fds.push(PollFd::new(stderr, PollFlags::IN));
            }
            match poll(&mut fds, Some(&timeout)) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => return Ok(false),
                Err(e) => return Err(HelperError::system("wait for QEMU")(e)),
            }
            !fds.first().is_none_or(|fd| fd.revents().is_empty())
        };
        self.listen(sink);
        Ok(exited)
    }

    /// Takes whatever the lines hold, at most a bounded piece of each.
    fn listen(&mut self, sink: &mut dyn HelperSink) {
        let mut buffer = [0; 16384];
        for n in 0..self.serial.len() {
            let Some(stream) = &mut self.serial[n] else { continue };
            let count = match stream.read(&mut buffer) {
                Ok(0) => {
                    self.serial[n] = None;
                    continue;
                }
                Ok(count) => count,
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) =>
                {
                    continue;
                }
                Err(_) => {
                    self.serial[n] = None;
                    continue;
                }
            };
            let bytes = &buffer[..count];
            match n {
                0 => self.log.feed(bytes, &mut |line| sink.console(line)),
                1 => self.result.feed(bytes),
                _ => {
                    let heard = self.monitor.feed(bytes, &mut |message| sink.monitor(message));
                    self.protocol_error = self.protocol_error.take().or(heard.err());
                }
            }
        }
        if let Some(stderr) = &mut self.stderr {
            match stderr.read(&mut buffer) {
                Ok(0) => self.stderr = None,
                Ok(count) => {
                    // The first words are the ones that tell.
                    let room = 8192_usize.saturating_sub(self.stderr_bytes.len());
                    self.stderr_bytes.extend_from_slice(&buffer[..count.min(room)]);
                }
                Err(e)
                    if matches!(
                        e.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                    ) => {}
                Err(_) => self.stderr = None,
            }
        }
    }

    fn kvm_error(&self) -> bool {
        let text = String::from_utf8_lossy(&self.stderr_bytes);
        text.contains("KVM internal error") || text.contains("KVM: entry failed")
    }

    pub(super) fn stderr_text(&self) -> String {
        let text = String::from_utf8_lossy(&self.stderr_bytes);
        let lines: Vec<String> = text
            .lines()
            .map(|line| clean_line(line.as_bytes()))
            .filter(|line| !line.trim().is_empty() && !line.contains("warning:"))
            .take(4)
            .collect();
        if lines.is_empty() { "no message".to_owned() } else { lines.join(" / ") }
    }

    fn signal(&self, signal: Signal) {
        // It may have ended by itself just now; reap() will tell.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, signal);
    }

    /// Ends QEMU and whatever it may have started. Only called before it was waited for, so its
    /// number cannot be somebody else's.
    fn kill_group(&self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id().cast_signed()) {
            let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        }
    }

    pub(super) fn kill(&mut self, sink: &mut dyn HelperSink) -> Result<ExitStatus, HelperError> {
        self.kill_group();
        self.reap(sink)
    }

    /// QEMU has ended: its status, after all that its lines still hold was heard.
    fn reap(&mut self, sink: &mut dyn HelperSink) -> Result<ExitStatus, HelperError> {
        let status = self.child.wait().map_err(HelperError::system("wait for QEMU"))?;
        self.reaped = true;
        // The other ends are closed now, so each line ends; what a socket holds is bounded.
        let limit = Instant::now() + Duration::from_secs(2);
        while (self.serial.iter().any(Option::is_some) || self.stderr.is_some())
            && Instant::now() < limit
        {
            self.listen(sink);
        }
        self.log.finish(&mut |line| sink.console(line));
        let unfinished = self.monitor.finish();
        self.protocol_error = self.protocol_error.take().or(unfinished.err());
        Ok(status)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill_group();
            let _ = self.child.wait();
        }
    }
}
