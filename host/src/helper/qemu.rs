//! The command line of QEMU: a pure function from what is wanted to arguments, so that tests can
//! look at it.
//!
//! Every device is there for a reason (docs/helper.md lists them); there is no network, no
//! display, no USB, no default device.

use std::os::fd::{AsRawFd, BorrowedFd};

use snf_image::wire::{PROTOCOL_VERSION, words};

use super::image::{HelperImage, ParameterDisk};
use super::{Acceleration, HelperConfig, SECTOR_SIZE, guest_disk};
use crate::disk::storage::EXPORT;

/// A disk as QEMU gets it.
#[derive(Debug)]
pub enum QemuDisk<'a> {
    /// An inherited descriptor of a regular file.
    File(BorrowedFd<'a>),
    /// An inherited descriptor of a block device.
    Device(BorrowedFd<'a>),
    /// An inherited connection to a storage daemon.
    Nbd(BorrowedFd<'a>),
    /// One that is only read, with the driver it takes (`file`, `host_device`).
    ReadOnly(BorrowedFd<'a>, &'static str),
}

/// How a VM comes to life. The descriptors are QEMU's ends of a monitor, and a snapshot.
#[derive(Clone, Copy, Debug)]
pub enum Life<'a> {
    /// By booting.
    Boot,
    /// By booting under KVM, which is watched until it works.
    Watch(BorrowedFd<'a>),
    /// By booting, up to where it can be saved.
    Save(BorrowedFd<'a>),
    /// From a snapshot.
    Wake(BorrowedFd<'a>, BorrowedFd<'a>),
}

/// The parts of one command line.
#[derive(Debug)]
pub struct Invocation<'a> {
    /// The node's settings.
    pub config: &'a HelperConfig,
    /// The helper to boot.
    pub helper: &'a HelperImage,
    /// Kernel and initramfs as paths QEMU can open whoever it runs as.
    pub kernel: String,
    /// See `kernel`.
    pub initramfs: String,
    /// KVM or TCG, never auto.
    pub acceleration: Acceleration,
    /// The instance's disks.
    pub disks: Vec<QemuDisk<'a>>,
    /// Whether QEMU keeps the first one's flushes from it.
    pub flush_later: bool,
    /// Their sectors, in bytes.
    pub sector_size: u32,
    /// The guest's memory in MiB.
    pub memory_mib: u32,
    /// How the parameter disk is attached.
    pub parameter_disk: ParameterDisk,
    /// The parameter disk, open for reading only.
    pub parameters: BorrowedFd<'a>,
    /// Our ends' peers of the first three serial lines.
    pub serial: [BorrowedFd<'a>; 3],
    /// Ganeti's HYPERVISOR.
    pub hypervisor: &'a str,
    /// HELPER_DEBUG: the listening socket of the fourth serial line.
    pub debug: Option<BorrowedFd<'a>>,
    /// Let QEMU itself change to this user (after it has opened /dev/kvm).
    pub run_as: Option<&'a str>,
    /// Whether it boots.
    pub life: Life<'a>,
}

/// All arguments after the program's name.
pub fn arguments(vm: &Invocation<'_>) -> Vec<String> {
    let mut args: Vec<String> = Vec::new();
    let mut add = |option: &str, value: String| {
        args.push(option.to_owned());
        if !value.is_empty() {
            args.push(value);
        }
    };
    add("-nodefaults", String::new());
    add("-no-user-config", String::new());
    add("-display", "none".into());
    add("-no-reboot", String::new());
    add("-msg", "timestamp=off".into());
    // A process that runs as somebody else from its start may deny itself everything; one that
    // changes its user by itself needs the calls for that.
    let elevate = if vm.run_as.is_some() { "allow" } else { "deny" };
    add(
        "-sandbox",
        format!("on,obsolete=deny,elevateprivileges={elevate},spawn=deny,resourcecontrol=deny"),
    );
    if let Some(user) = vm.run_as {
        add("-runas", user.to_owned());
    }
    add("-machine", "pc,usb=off,vmport=off,smm=off,hpet=off,dump-guest-core=off".into());
    add(
        "-accel",
        match vm.acceleration {
            Acceleration::Kvm => "kvm".into(),
            // The default translation buffer is 1 GiB of address space.
            _ => "tcg,thread=single,tb-size=256".into(),
        },
    );
    // Under TCG every feature more is code of the kernel to patch at boot, in software.
    add("-cpu", if vm.acceleration == Acceleration::Kvm { "host" } else { "qemu64" }.into());
    add("-smp", "1".into());
    add("-m", format!("{}M", vm.memory_mib));
    add("-kernel", vm.kernel.clone());
    add("-initrd", vm.initramfs.clone());
    add("-append", kernel_command_line(vm));

    for (n, serial) in vm.serial.iter().enumerate() {
        add("-chardev", format!("socket,id=serial{n},fd={}", serial.as_raw_fd()));
        add("-serial", format!("chardev:serial{n}"));
    }

    if let Some(listener) = vm.debug {
        let fd = listener.as_raw_fd();
        add("-chardev", format!("socket,id=serial3,fd={fd},server=on,wait=off"));
        add("-serial", "chardev:serial3".into());
    }

    // One entropy source: keys, salts and ids are made in there.
    add("-object", "rng-random,id=rng0,filename=/dev/urandom".into());
    add("-device", "virtio-rng-pci,rng=rng0,addr=0x3".into());

    for (n, disk) in vm.disks.iter().enumerate() {
        let node = format!("disk{n}");
        let access = match n {
            0 if vm.flush_later => Access::FlushLater,
            _ => Access::Write,
        };
        match disk {
            QemuDisk::File(fd) => file_node(&mut add, &node, n + 1, "file", *fd, access),
            QemuDisk::Device(fd) => file_node(&mut add, &node, n + 1, "host_device", *fd, access),
            QemuDisk::Nbd(fd) => nbd_node(&mut add, &node, *fd),
            QemuDisk::ReadOnly(fd, driver) => {
                file_node(&mut add, &node, n + 1, driver, *fd, Access::Read);
            }
        }
        virtio_disk(&mut add, &node, n, vm.sector_size);
    }
    let n = vm.disks.len();
    file_node(&mut add, "parameters", n + 1, "file", vm.parameters, Access::Read);
    match vm.parameter_disk {
        ParameterDisk::Floppy => {
            // The machine "pc" has a controller by itself.
            add("-device", "floppy,unit=0,drive=parameters,drive-type=144".into());
        }
        ParameterDisk::Virtio => virtio_disk(&mut add, "parameters", n, SECTOR_SIZE),
    }
    if let Life::Watch(monitor) | Life::Save(monitor) | Life::Wake(monitor, _) = vm.life {
        // A socket pair whose other end is ours; it is closed as soon as the VM runs.
        add("-chardev", format!("socket,id=monitor,fd={}", monitor.as_raw_fd()));
        add("-mon", "chardev=monitor,mode=control".into());
    }
    if let Life::Wake(_, snapshot) = vm.life {
        add("-incoming", format!("fd:{}", snapshot.as_raw_fd()));
    }
    args
}

/// The way QEMU uses a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
    /// As `Write`, but nothing is flushed.
    FlushLater,
}

fn file_node(
    add: &mut dyn FnMut(&str, String),
    node: &str,
    set: usize,
    driver: &str,
    fd: BorrowedFd<'_>,
    access: Access,
) {
    let read_only = if access == Access::Read { "on" } else { "off" };
    let no_flush = if access == Access::FlushLater { "on" } else { "off" };
    add("-add-fd", format!("fd={},set={set}", fd.as_raw_fd()));
    add(
        "-blockdev",
        format!(
            "driver={driver},node-name={node}-bytes,filename=/dev/fdset/{set},\
             read-only={read_only},auto-read-only=off,locking=off,cache.no-flush={no_flush}"
        ),
    );
    // The format is said, never probed: a guest's bytes must not choose it.
    add(
        "-blockdev",
        format!("driver=raw,node-name={node},file={node}-bytes,read-only={read_only}"),
    );
}

fn nbd_node(add: &mut dyn FnMut(&str, String), node: &str, fd: BorrowedFd<'_>) {
    add(
        "-blockdev",
        format!(
            "driver=nbd,node-name={node}-bytes,server.type=fd,server.str={},export={EXPORT}",
            fd.as_raw_fd()
        ),
    );
    add("-blockdev", format!("driver=raw,node-name={node},file={node}-bytes"));
}

/// Attaches a node as virtio disk number `n`. The kernel names disks in the order of PCI
/// addresses; from the fifth on they share slots as functions.
fn virtio_disk(add: &mut dyn FnMut(&str, String), node: &str, n: usize, sector_size: u32) {
    let (slot, function) = (4 + n / 8, n % 8);
    let sectors = match sector_size {
        SECTOR_SIZE => String::new(),
        size => format!(",logical_block_size={size},physical_block_size={size}"),
    };
    add(
        "-device",
        format!(
            "virtio-blk-pci,drive={node},addr=0x{slot:x}.0x{function:x},multifunction=on,\
             num-queues=1,disable-legacy=on,disable-modern=off{sectors}"
        ),
    );
}

/// The kernel's command line.
fn kernel_command_line(vm: &Invocation<'_>) -> String {
    let mut line = String::from("console=ttyS0 panic=-1 ");
    line.push_str(if vm.config.debug { "loglevel=7 " } else { "quiet " });
    line.push_str(&vm.helper.command_line());
    line.push(' ');
    line.push_str(words::ACTIVATE);
    line.push(' ');
    match vm.life {
        Life::Save(_) => line.push_str(words::SNAPSHOT),
        Life::Boot | Life::Watch(_) | Life::Wake(..) => line.push_str(&run_words(vm)),
    }
    line
}

/// The words about this run for the init: on the kernel's command line, or when it goes on.
pub(super) fn run_words(vm: &Invocation<'_>) -> String {
    let rules_dev = match vm.parameter_disk {
        ParameterDisk::Floppy => "/dev/fd0".to_owned(),
        ParameterDisk::Virtio => guest_disk(vm.disks.len()),
    };
    let mut line =
        format!("{}={PROTOCOL_VERSION} {}={rules_dev}", words::PROTOCOL, words::RULES_DEV);
    if vm.debug.is_some() {
        line.push_str(&format!(" {}", words::DEBUG));
    }
    let hypervisor: String =
        vm.hypervisor.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
    if !hypervisor.is_empty() {
        line.push_str(&format!(" {}={hypervisor}", words::HYPERVISOR));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper::image::Description;
    use std::os::fd::AsFd;

    fn build(disks: Vec<QemuDisk<'_>>, parameter_disk: ParameterDisk) -> Vec<String> {
        build_with(disks, parameter_disk, true)
    }

    fn build_with(
        disks: Vec<QemuDisk<'_>>,
        parameter_disk: ParameterDisk,
        flush_later: bool,
    ) -> Vec<String> {
        let file = std::fs::File::open("/dev/null").unwrap();
        let config = HelperConfig::default();
        let helper = HelperImage {
            description: Description {
                protocol: PROTOCOL_VERSION,
                version: "0".into(),
                kernel_release: "6".into(),
                kernel: "vmlinux".into(),
                initramfs: "initramfs".into(),
                parameter_disk,
                pvh: true,
                modules: vec![],
                command_line: "audit=0".into(),
                file_systems: None,
            },
            kernel: "/h/vmlinux".into(),
            initramfs: "/h/initramfs".into(),
        };
        arguments(&Invocation {
            config: &config,
            helper: &helper,
            kernel: "/proc/self/fd/9".into(),
            initramfs: "/proc/self/fd/10".into(),
            acceleration: Acceleration::Tcg,
            disks,
            flush_later,
            sector_size: SECTOR_SIZE,
            memory_mib: 128,
            parameter_disk,
            parameters: file.as_fd(),
            serial: [file.as_fd(); 3],
            hypervisor: "kvm evil=1",
            debug: None,
            run_as: None,
            life: Life::Boot,
        })
    }

    #[test]
    fn no_network_no_defaults_formats_said() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let args = build(
            vec![
                QemuDisk::File(file.as_fd()),
                QemuDisk::Nbd(file.as_fd()),
                QemuDisk::File(file.as_fd()),
            ],
            ParameterDisk::Virtio,
        );
        let line = args.join(" ");
        assert!(line.contains("-nodefaults"));
        assert!(line.contains("-sandbox on,obsolete=deny,elevateprivileges=deny"));
        assert!(!line.contains("-net") && !line.contains("virtio-net"));
        assert!(line.contains("server.type=fd,server.str="));
        assert!(line.contains("driver=raw,node-name=disk1,file=disk1-bytes"));
        assert!(line.contains("rules_dev=/dev/vdd"));
        let flushed = |set: u32, no: &str| {
            line.contains(&format!(
                "filename=/dev/fdset/{set},read-only=off,auto-read-only=off,locking=off,cache.no-flush={no}"
            ))
        };
        assert!(flushed(1, "on") && flushed(3, "off"), "{line}");
        assert!(line.contains(" hypervisor=kvmevil1"), "no second word of the kernel's line");
        assert!(!line.contains("-device floppy"));
        assert!(!line.contains("serial3") && !line.contains("snf_image_debug"), "no way in");
    }

    #[test]
    fn no_flush_of_a_disk_that_was_there_before_is_held_back() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let disks = || {
            vec![
                QemuDisk::Device(file.as_fd()),
                QemuDisk::File(file.as_fd()),
                QemuDisk::Nbd(file.as_fd()),
            ]
        };
        let kept = |flush_later| {
            let args = build_with(disks(), ParameterDisk::Virtio, flush_later);
            let nodes = args.into_iter().filter(|arg| arg.contains("-bytes,"));
            let held = |node: &String| node.contains("cache.no-flush=on");
            nodes.filter(held).map(|node| node.split(',').next().unwrap().to_owned()).collect()
        };
        let held: Vec<String> = kept(false);
        assert_eq!(held, Vec::<String>::new(), "no node keeps a flush from its disk");
        // A disk behind a storage daemon passes flushes on in any case.
        assert_eq!(kept(true), ["driver=host_device"]);
    }

    #[test]
    fn a_floppy_where_the_kernel_has_one() {
        let args = build(vec![], ParameterDisk::Floppy).join(" ");
        assert!(args.contains("rules_dev=/dev/fd0") && args.contains("-device floppy"));
    }
}
