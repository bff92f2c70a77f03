//! Starting QEMU for one run: the files, sockets and disks that it inherits, the user that it runs
//! as, and the walls around it.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::debug::{DEBUG_LIMIT, DebugSocket};
use super::identity::Identity;
use super::image::{HelperImage, ParameterDisk};
use super::lines::SerialPairs;
use super::qemu::{Invocation, Life, QemuDisk, arguments, run_words};
use super::room::Room;
use super::snapshot;
use super::spawn::{Confinement, spawn};
use super::vm::{Parts, Vm};
use super::walls::{ControlGroup, landlock};
use super::{Acceleration, HelperConfig, HelperError, VmDisk, VmRequest};

/// Bytes that a 3.5 inch floppy holds.
const FLOPPY_SIZE: u64 = 1440 << 10;
/// Address space of QEMU besides the guest's memory.
const ADDRESS_SPACE_EXTRA: u64 = 2 << 30;

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

/// The files of the helper and the parameters, as descriptors: HELPER_DIR need not be open to the
/// user that QEMU runs as.
struct Files {
    kernel: File,
    initramfs: File,
    /// Opened for reading only: no way to write through it.
    parameters: File,
}

impl Files {
    fn open(helper: &HelperImage, request: &VmRequest) -> Result<Self, HelperError> {
        let open = |path: &Path| {
            File::open(path).map_err(HelperError::system(format!("open {}", path.display())))
        };
        Ok(Self {
            kernel: open(&helper.kernel)?,
            initramfs: open(&helper.initramfs)?,
            parameters: open(format!("/proc/self/fd/{}", request.parameters.as_raw_fd()).as_ref())?,
        })
    }

    fn all(&self) -> [BorrowedFd<'_>; 3] {
        [self.kernel.as_fd(), self.initramfs.as_fd(), self.parameters.as_fd()]
    }

    /// How the parameters are attached, and how much memory the guest gets in MiB. Parameters
    /// that are larger than a floppy take another disk, and more memory in there.
    fn fit(
        &self,
        config: &HelperConfig,
        helper: &HelperImage,
    ) -> Result<(ParameterDisk, u32), HelperError> {
        let metadata =
            self.parameters.metadata().map_err(HelperError::system("look at the parameters"))?;
        if metadata.len() <= FLOPPY_SIZE {
            return Ok((helper.description.parameter_disk, config.memory_mib));
        }
        // The text, its values decoded, and the files made of them, each once or twice.
        let mib = u32::try_from(metadata.len() >> 20).unwrap_or(u32::MAX);
        Ok((ParameterDisk::Virtio, config.memory_mib.saturating_add(mib.saturating_mul(6))))
    }
}

/// Connections to the storage daemons of a request, in the order of its remote disks. Each run has
/// its own: a second one must not find what a first one left in it.
fn connect(request: &VmRequest) -> Result<Vec<UnixStream>, HelperError> {
    let mut connections = Vec::new();
    for disk in &request.disks {
        if let VmDisk::Remote(daemon) = disk {
            connections
                .push(daemon.connect().map_err(HelperError::system("reach the storage daemon"))?);
        }
    }
    Ok(connections)
}

/// The disks as QEMU gets them.
fn disks<'a>(
    request: &'a VmRequest,
    connections: &'a [UnixStream],
) -> Result<Vec<QemuDisk<'a>>, HelperError> {
    let mut connections = connections.iter();
    let mut disks = Vec::new();
    for disk in &request.disks {
        disks.push(match disk {
            VmDisk::Remote(_) => match connections.next() {
                Some(connection) => QemuDisk::Nbd(connection.as_fd()),
                None => continue,
            },
            VmDisk::Open(file) if is_device(file)? => QemuDisk::Device(file.as_fd()),
            VmDisk::Open(file) => QemuDisk::File(file.as_fd()),
            VmDisk::ReadOnly(file) => {
                let driver = if is_device(file)? { "host_device" } else { "file" };
                QemuDisk::ReadOnly(file.as_fd(), driver)
            }
        });
    }
    Ok(disks)
}

fn is_device(file: &File) -> Result<bool, HelperError> {
    let metadata = file.metadata().map_err(HelperError::system("look at the disk"))?;
    Ok(metadata.file_type().is_block_device())
}

/// The user of a run.
struct RunAs<'a> {
    /// The user that the child becomes before QEMU starts.
    identity: Option<Identity>,
    /// The user that QEMU itself becomes after it has opened `/dev/kvm`, where that is root's alone.
    by_qemu: Option<&'a str>,
}

impl<'a> RunAs<'a> {
    fn choose(config: &'a HelperConfig, acceleration: Acceleration) -> Result<Self, HelperError> {
        let nobody_else = Self { identity: None, by_qemu: None };
        let Some(user) = config.user.as_deref() else { return Ok(nobody_else) };
        if !rustix::process::geteuid().is_root() {
            return Ok(nobody_else);
        }
        // Even where a range is given: QEMU can change to a user that has a name only.
        let mut by_name = Identity::of_user(user)?;
        if acceleration == Acceleration::Kvm && !by_name.allow_kvm() {
            return Ok(Self { identity: None, by_qemu: Some(user) });
        }
        let identity = match &config.uid_range {
            None => by_name,
            Some(range) => {
                let mut own = Identity::of_range(range)?;
                own.groups = by_name.groups;
                own
            }
        };
        Ok(Self { identity: Some(identity), by_qemu: None })
    }
}

/// QEMU's monitor and the snapshot it goes on from, where it has them.
struct Beginning {
    ours: Option<UnixStream>,
    theirs: Option<UnixStream>,
    snapshot: Option<File>,
    machine: Option<Vec<String>>,
}

impl Beginning {
    /// Finds out what the machine of these arguments needs.
    fn choose(
        config: &HelperConfig,
        helper: &HelperImage,
        acceleration: Acceleration,
        way: Way,
        arguments: &[String],
    ) -> Result<Self, HelperError> {
        let machine = match way {
            Way::Boot => None,
            Way::Wake | Way::Save => snapshot::machine(config, helper, arguments),
        };
        let snapshot = match (way, &machine) {
            (Way::Wake, Some(machine)) => snapshot::find(&config.directory, machine),
            _ => None,
        };
        let monitored = way == Way::Save || snapshot.is_some() || acceleration == Acceleration::Kvm;
        let pair = monitored.then(UnixStream::pair).transpose();
        let (ours, theirs) = pair.map_err(HelperError::system("make a socket pair"))?.unzip();
        Ok(Self { ours, theirs, snapshot, machine })
    }

    fn life(&self, way: Way) -> Life<'_> {
        match (&self.theirs, &self.snapshot) {
            (Some(monitor), Some(snapshot)) => Life::Wake(monitor.as_fd(), snapshot.as_fd()),
            (Some(monitor), None) if way == Way::Save => Life::Save(monitor.as_fd()),
            (Some(monitor), None) => Life::Watch(monitor.as_fd()),
            (None, _) => Life::Boot,
        }
    }
}

/// The walls around QEMU.
fn confine<'a>(
    config: &HelperConfig,
    invocation: &Invocation<'_>,
    files: &Files,
    identity: Option<&'a Identity>,
    group: Option<&'a ControlGroup>,
) -> Confinement<'a> {
    let mut wall = config.soft_timeout.saturating_add(config.hard_timeout);
    if invocation.debug.is_some() {
        wall = wall.saturating_add(DEBUG_LIMIT);
    }
    Confinement {
        identity,
        // Two threads may be busy at once, and a little more for the start.
        cpu_seconds: wall.as_secs().saturating_mul(3).saturating_add(10),
        // A kernel without Landlock gives empty rules; an error leaves the other walls.
        landlock: landlock(&config.qemu, &[files.kernel.as_fd(), files.initramfs.as_fd()]).ok(),
        room: Room::plan(&config.qemu),
        group: group.map(ControlGroup::procs),
        address_space: guest_memory(invocation).saturating_add(ADDRESS_SPACE_EXTRA),
    }
}

/// In bytes.
fn guest_memory(invocation: &Invocation<'_>) -> u64 {
    u64::from(invocation.memory_mib) << 20
}

/// Every descriptor that QEMU gets besides its standard streams.
fn inherited<'a>(files: &'a Files, invocation: &Invocation<'a>) -> Vec<BorrowedFd<'a>> {
    let mut all = files.all().to_vec();
    all.extend(invocation.debug);
    all.extend(invocation.serial);
    all.extend(invocation.disks.iter().map(|disk| match disk {
        QemuDisk::File(fd)
        | QemuDisk::Device(fd)
        | QemuDisk::Nbd(fd)
        | QemuDisk::ReadOnly(fd, _) => *fd,
    }));
    match invocation.life {
        Life::Boot => {}
        Life::Watch(monitor) | Life::Save(monitor) => all.push(monitor),
        Life::Wake(monitor, snapshot) => all.extend([monitor, snapshot]),
    }
    all
}

/// Starts QEMU.
pub(super) fn start(
    config: &HelperConfig,
    helper: &HelperImage,
    request: &VmRequest,
    acceleration: Acceleration,
    way: Way,
) -> Result<Vm, HelperError> {
    let files = Files::open(helper, request)?;
    let pairs = SerialPairs::make()?;
    let connections = connect(request)?;
    let run_as = RunAs::choose(config, acceleration)?;
    let debug = config.debug.then(DebugSocket::make).transpose();
    let debug = debug.map_err(HelperError::system("make a socket"))?;
    let (parameter_disk, memory_mib) = files.fit(config, helper)?;
    let mut invocation = Invocation {
        config,
        helper,
        kernel: format!("/proc/self/fd/{}", files.kernel.as_raw_fd()),
        initramfs: format!("/proc/self/fd/{}", files.initramfs.as_raw_fd()),
        acceleration,
        disks: disks(request, &connections)?,
        flush_later: request.flush_later,
        sector_size: request.sector_size,
        memory_mib,
        parameter_disk,
        parameters: files.parameters.as_fd(),
        serial: pairs.theirs.each_ref().map(AsFd::as_fd),
        hypervisor: &request.hypervisor,
        debug: debug.as_ref().map(|debug| debug.listener.as_fd()),
        run_as: run_as.by_qemu,
        life: Life::Boot,
    };
    let beginning = Beginning::choose(config, helper, acceleration, way, &arguments(&invocation))?;
    invocation.life = beginning.life(way);
    let group = ControlGroup::make(guest_memory(&invocation));
    let identity = run_as.identity.as_ref();
    let command = || {
        let mut command = Command::new(&config.qemu);
        command.args(arguments(&invocation));
        command
    };
    let walls = || confine(config, &invocation, &files, identity, group.as_ref());
    let started = Instant::now();
    let child = spawn(command, walls, &inherited(&files, &invocation))
        .map_err(|source| HelperError::QemuMissing { qemu: config.qemu.clone(), source })?;
    let words = run_words(&invocation);
    let parts = Parts {
        group,
        lock: run_as.identity.and_then(|mut identity| identity.take_lock()),
        pairs,
        debug,
        monitor: beginning.ours,
        resumes: beginning.snapshot.is_some(),
        words,
        machine: beginning.machine,
    };
    Vm::watch(child, started, parts)
}
