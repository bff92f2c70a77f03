//! Where the helper VM's milliseconds go. Run by `cargo xtask bench helper`, which prepares what it
//! needs and says where in the environment:
//!
//! - `SNF_BENCH_HELPERS`: `NAME=DIR` pairs, built helpers by name;
//! - `SNF_BENCH_IMAGE`: the Debian image; `SNF_BENCH_WORK`: an empty directory;
//! - `SNF_BENCH_ORIGINAL`: the stand-in for the original's helper (a directory with `vmlinuz`,
//!   `initrd` and `root.img`).
//!
//! All variants take turns, so that what else the machine does hits all alike; the best of the
//! rounds counts, the median is beside it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use snf_image::prepare::prepare;
use snf_image::random::{Clock, Entropy};
use snf_image::rules::Rules;
use snf_image_host::cancel::Cancel;
use snf_image_host::helper::{
    Acceleration, HelperConfig, HelperError, HelperSink, MonitorMessage, SECTOR_SIZE, VmDisk,
    VmRequest, run_helper,
};

const ROUNDS: usize = 7;
/// The original's way takes long enough to be measured in fewer rounds.
const ORIGINAL_ROUNDS: usize = 3;
const HOSTNAME: &str = "bench.example.test";

/// Collects the `time` lines of the init.
#[derive(Default)]
struct Times {
    steps: Vec<(String, f64)>,
    /// QEMU's largest resident size so far, in KiB.
    resident: u64,
}

impl HelperSink for Times {
    fn console(&mut self, line: &str) {
        if let Some((what, time)) = line.strip_prefix("time ").and_then(|l| l.rsplit_once(' ')) {
            self.steps.push((what.to_owned(), time.parse().unwrap()));
        }
        self.resident = self.resident.max(largest_child());
    }
    fn warning(&mut self, text: &str) {
        println!("warning: {text}");
    }
    fn monitor(&mut self, _: MonitorMessage) {}
}

/// One way to start a VM.
struct Variant {
    name: String,
    directory: PathBuf,
    qemu: PathBuf,
    customises: bool,
    seconds: Vec<f64>,
    /// The steps of the best run, in milliseconds from QEMU's start.
    steps: Vec<(String, f64)>,
    /// QEMU's resident size in KiB.
    resident: u64,
}

struct Bench {
    work: PathBuf,
    image: PathBuf,
    variants: Vec<Variant>,
}

fn variable(name: &str) -> String {
    std::env::var(name)
        .unwrap_or_else(|_| panic!("{name} is not set: use cargo xtask bench helper"))
}

fn main() {
    // `cargo test` builds benches and runs them with --test: nothing to measure then.
    if std::env::args().any(|argument| argument == "--test") {
        return;
    }
    let mut bench = Bench {
        work: variable("SNF_BENCH_WORK").into(),
        image: variable("SNF_BENCH_IMAGE").into(),
        variants: Vec::new(),
    };
    fs::set_permissions(&bench.work, fs::Permissions::from_mode(0o755)).unwrap();
    let helpers: BTreeMap<String, PathBuf> = variable("SNF_BENCH_HELPERS")
        .split(',')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, directory)| (name.to_owned(), directory.into()))
        .collect();
    for (name, directory) in &helpers {
        bench.add_kernel(name, directory);
    }
    for round in 0..ROUNDS {
        println!("round {} of {ROUNDS}", round + 1);
        for index in 0..bench.variants.len() {
            bench.measure(index);
        }
    }
    bench.report(&helpers);
    let original = bench.original(Path::new(&variable("SNF_BENCH_ORIGINAL")));
    let ours = bench.best("cloud, pc, full");
    println!("\n{:<44} {original:>8.2}\n{:<44} {ours:>8.2}", "the original's way, s", "ours, s");
    println!("{:<44} {:>8.3} (wanted: 0.125)", "ratio", ours / original);
}

impl Bench {
    /// The variants of one kernel: machines, with an init that powers off at once and with ours.
    fn add_kernel(&mut self, name: &str, helper: &Path) {
        let off = self.work.join(format!("{name}-off"));
        copy_helper(helper, &off, "initramfs", &power_off_initramfs());
        let end = self.work.join(format!("{name}-end"));
        copy_helper(helper, &end, "kernel", &kernel_that_ends());
        for machine in ["pc", "q35", "microvm"] {
            let qemu = self.qemu(machine);
            let mut add = |what: &str, directory: &Path, customises| {
                self.variants.push(Variant {
                    name: format!("{name}, {machine}, {what}"),
                    directory: directory.to_owned(),
                    qemu: qemu.clone(),
                    customises,
                    seconds: Vec::new(),
                    steps: Vec::new(),
                    resident: 0,
                });
            };
            if name == "cloud" {
                add("firmware", &end, false);
            }
            add("off", &off, false);
            // microvm has no floppy controller; q35 neither, so there the kernel must take virtio.
            if machine == "pc" || (machine == "q35" && !has_floppy(helper)) {
                add("full", helper, true);
            }
        }
    }

    /// QEMU, or a script that changes the machine (and lets the kernel's first instruction end it).
    fn qemu(&self, machine: &str) -> PathBuf {
        let path = self.work.join(format!("qemu-{machine}"));
        let change = match machine {
            "pc" => String::new(),
            "q35" => "${a//pc,usb=off/q35,usb=off,sata=off}".to_owned(),
            _ => "${a//pc,usb=off,vmport=off,smm=off,hpet=off/microvm,pcie=on,rtc=on}".to_owned(),
        };
        let loop_ = if change.is_empty() {
            String::new()
        } else {
            format!(
                "n=(); for a in \"${{all[@]}}\"; do n+=(\"{change}\"); done; all=(\"${{n[@]}}\")"
            )
        };
        // Time lines are asked for by a word on the kernel's command line.
        let script = format!(
            "#!/bin/bash\nall=(\"${{@/snf_image_activate_helper/snf_image_times \
             snf_image_activate_helper}}\")\n{loop_}\nexec qemu-system-x86_64 \"${{all[@]}}\" -device \
             isa-debug-exit,iobase=0xf4\n"
        );
        fs::write(&path, script).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// A fresh 4 GiB disk with the image.
    fn disk(&self) -> File {
        let path = self.work.join("disk.raw");
        let status = Command::new("cp")
            .args(["--sparse=always", "--reflink=auto"])
            .args([&self.image, &path])
            .status()
            .unwrap();
        assert!(status.success());
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        file.set_len(4 << 30).unwrap();
        file.sync_all().unwrap();
        file
    }

    fn measure(&mut self, index: usize) {
        let variant = &self.variants[index];
        let disk = if variant.customises {
            self.disk()
        } else {
            let file = tempfile::tempfile_in(&self.work).unwrap();
            file.set_len(4 << 30).unwrap();
            file
        };
        let config = HelperConfig {
            directory: variant.directory.clone(),
            acceleration: Acceleration::Tcg,
            qemu: variant.qemu.clone(),
            ..HelperConfig::default()
        };
        let request = VmRequest {
            disks: vec![VmDisk::Open(disk)],
            parameters: parameters(),
            hypervisor: "kvm".into(),
            flush_later: true,
            sector_size: SECTOR_SIZE,
        };
        let mut times = Times::default();
        let started = Instant::now();
        let result = run_helper(&config, &request, &Cancel::new(), &mut times);
        let seconds = started.elapsed().as_secs_f64();
        let variant = &mut self.variants[index];
        match result {
            Ok(_) if variant.customises => {}
            Err(HelperError::NoResult { .. } | HelperError::QemuFailed { .. })
                if !variant.customises => {}
            other => {
                // A machine type that this QEMU or kernel has not is left out of the report.
                println!("{}: {other:?}", variant.name);
                return;
            }
        }
        if variant.seconds.iter().all(|&best| seconds < best) {
            let mut steps = times.steps;
            steps.push(("end".to_owned(), seconds * 1000.0));
            variant.steps = steps;
            variant.resident = times.resident;
        }
        variant.seconds.push(seconds);
    }

    fn best(&self, name: &str) -> f64 {
        let variant = self.variants.iter().find(|v| v.name == name);
        variant.map_or(f64::NAN, |v| v.seconds.iter().copied().fold(f64::NAN, f64::min))
    }

    fn report(&self, helpers: &BTreeMap<String, PathBuf>) {
        println!("\n{:<44} {:>8} {:>8}", "QEMU start to exit, TCG", "best, s", "median");
        for variant in &self.variants {
            let mut sorted = variant.seconds.clone();
            sorted.sort_by(f64::total_cmp);
            if let (Some(best), Some(median)) = (sorted.first(), sorted.get(sorted.len() / 2)) {
                println!("{:<44} {best:>8.3} {median:>8.3}", variant.name);
            }
        }
        println!("\n{:<44} {:>8}", "full / off", "ratio");
        for variant in self.variants.iter().filter(|v| v.customises) {
            let off = variant.name.replace("full", "off");
            println!("{:<44} {:>8.3}", variant.name, self.best(&variant.name) / self.best(&off));
        }
        println!("(wanted: 1.15)");
        for name in helpers.keys() {
            self.steps(name);
        }
        for (name, directory) in helpers {
            let size = fs::metadata(file_of(directory, "initramfs")).unwrap().len();
            println!("{name}: initramfs {:.2} MiB (wanted: 3)", size as f64 / f64::from(1 << 20));
        }
    }

    /// Where the time of one kernel's full run on `pc` goes.
    fn steps(&self, name: &str) {
        let full = format!("{name}, pc, full");
        let Some(variant) = self.variants.iter().find(|v| v.name == full) else { return };
        let firmware = self.best("cloud, pc, firmware") * 1000.0;
        let end = variant.steps.last().map_or(0.0, |(_, time)| *time);
        // The init counts from the kernel's first moments, and powers off with the last mark: what
        // is over is QEMU's start, the firmware, the kernel's very first steps and QEMU's end.
        let marks = &variant.steps[..variant.steps.len().saturating_sub(1)];
        let (Some(first), Some(last)) = (marks.first(), marks.last()) else { return };
        println!("\n{full}: {end:.0} ms, QEMU resident {} MiB", variant.resident >> 10);
        let line = |what: &str, time: f64| println!("  {what:<36} {time:>8.1} ms");
        line("QEMU's start, firmware, QEMU's end", firmware);
        line("kernel", end - firmware - (last.1 - first.1));
        let mut sums: Vec<(String, f64)> = Vec::new();
        for pair in marks.windows(2) {
            let time = pair[1].1 - pair[0].1;
            match sums.iter_mut().find(|(what, _)| *what == pair[0].0) {
                Some((_, sum)) => *sum += time,
                None => sums.push((pair[0].0.clone(), time)),
            }
        }
        for (what, time) in sums {
            line(&what, time);
        }
    }

    /// The original's way: the kernel with Debian's initrd, a Debian on a disk of its own, tasks in
    /// shell on the mounted image. Gives the best time in seconds.
    fn original(&self, place: &Path) -> f64 {
        let rules = self.work.join("rules.img");
        let parameters = parameters();
        let open = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&parameters));
        fs::copy(open, &rules).unwrap();
        let mut best = f64::INFINITY;
        for _ in 0..ORIGINAL_ROUNDS {
            drop(self.disk());
            let result = self.work.join("result");
            let drive = |path: &Path, more: &str| {
                format!("file={},format=raw,if=virtio,cache=unsafe{more}", path.display())
            };
            let started = Instant::now();
            let mut qemu = Command::new("qemu-system-x86_64");
            qemu.args(["-nodefaults", "-display", "none", "-no-reboot", "-accel", "tcg"]);
            qemu.args(["-m", "512", "-device", "virtio-rng-pci"]);
            qemu.arg("-kernel").arg(place.join("vmlinuz")).arg("-initrd").arg(place.join("initrd"));
            qemu.args(["-append", "quiet root=/dev/vda rw console=ttyS0 init=/tasks"]);
            qemu.arg("-drive").arg(drive(&place.join("root.img"), ",snapshot=on"));
            qemu.arg("-drive").arg(drive(&self.work.join("disk.raw"), ""));
            qemu.arg("-drive").arg(drive(&rules, ",readonly=on"));
            qemu.arg("-serial").arg(format!("file:{}", self.work.join("log").display()));
            qemu.arg("-serial").arg(format!("file:{}", result.display()));
            assert!(qemu.status().unwrap().success());
            let seconds = started.elapsed().as_secs_f64();
            assert_eq!(
                fs::read_to_string(&result).unwrap(),
                "SUCCESS\n",
                "{}",
                String::from_utf8_lossy(&fs::read(self.work.join("log")).unwrap())
            );
            best = best.min(seconds);
        }
        best
    }
}

/// Rules for a full customization, with what the host prepares.
fn parameters() -> File {
    let mut rules = Rules::default();
    let contents = "RGVwbG95ZWQgYnkgc25mLWltYWdlLgo=";
    for (name, value) in [
        ("TYPE", "diskdump"),
        ("HOSTNAME", HOSTNAME),
        ("PASSWD", "bench"),
        ("PROPERTIES", r#"{"OSFAMILY":"linux","ROOT_PARTITION":"2","USERS":"root"}"#),
        (
            "AUTH_KEYS",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2bLbRL0fQkzq3o3TRgEZHJqUGzUMfhC5e0LhbHnVqS x\n",
        ),
        ("NIC_COUNT", "0"),
    ] {
        rules.set(name, value).unwrap();
    }
    let personality = format!(r#"[{{"path":"/etc/motd","contents":"{contents}","mode":420}}]"#);
    rules.set("PERSONALITY", personality).unwrap();
    rules.set_array("DEV", ["/dev/vda"]).unwrap();
    let entropy = Entropy::from_os().unwrap();
    prepare(&rules.plan().unwrap(), HOSTNAME, &entropy).write(&mut rules).unwrap();
    let text = rules.write();
    let now = Clock::system().now();
    snf_image_host::floppy::build(&[("rules", text.expose())], now, [7; 16]).unwrap()
}

fn description(directory: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(directory.join("helper.json")).unwrap()).unwrap()
}

fn has_floppy(directory: &Path) -> bool {
    description(directory)["parameter_disk"] == "floppy"
}

fn file_of(directory: &Path, key: &str) -> PathBuf {
    directory.join(description(directory)[key].as_str().unwrap())
}

/// A helper with one file replaced.
fn copy_helper(from: &Path, to: &Path, replaced: &str, content: &[u8]) {
    fs::create_dir_all(to).unwrap();
    for key in ["kernel", "initramfs"] {
        let source = file_of(from, key);
        let target = to.join(source.file_name().unwrap());
        if key == replaced {
            fs::write(target, content).unwrap();
        } else {
            fs::copy(source, target).unwrap();
        }
    }
    // The one for file systems that only the kernel knows is never started here, but must be there.
    if let Some(name) = description(from)["file_systems"]["initramfs"].as_str() {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
    fs::copy(from.join("helper.json"), to.join("helper.json")).unwrap();
}

/// An x86-64 ELF file of one segment with this code, loaded at 1 MiB; `note` is a PVH note that
/// names the code's address.
fn elf(code: &[u8], note: bool) -> Vec<u8> {
    const BASE: u64 = 0x10_0000;
    let headers: u64 = 64 + 2 * 56;
    let notes: u64 = 20;
    let entry = BASE + headers + notes;
    let mut out = Vec::new();
    out.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
    out.extend([0; 8]);
    out.extend(2_u16.to_le_bytes()); // e_type: executable
    out.extend(62_u16.to_le_bytes()); // e_machine: x86-64
    out.extend(1_u32.to_le_bytes());
    out.extend(entry.to_le_bytes());
    out.extend(64_u64.to_le_bytes()); // e_phoff
    out.extend(0_u64.to_le_bytes());
    out.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, if note { 2 } else { 1 }, 0, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    let size = headers + notes + code.len() as u64;
    for (kind, offset, length) in [(1_u32, 0, size), (4, headers, notes)] {
        out.extend(kind.to_le_bytes());
        out.extend(5_u32.to_le_bytes()); // readable, executable
        for word in [offset, BASE + offset, BASE + offset, length, length, 0x1000] {
            out.extend(word.to_le_bytes());
        }
    }
    for word in [4_u32, 4, 18] {
        out.extend(word.to_le_bytes());
    }
    out.extend(b"Xen\0");
    out.extend((entry as u32).to_le_bytes());
    out.extend(code);
    out
}

/// A PVH kernel whose first instructions end QEMU by its debug exit port.
fn kernel_that_ends() -> Vec<u8> {
    // xor eax, eax; out 0xf4, al; hlt
    elf(&[0x31, 0xc0, 0xe6, 0xf4, 0xf4], true)
}

/// An initramfs whose init does nothing but power off.
fn power_off_initramfs() -> Vec<u8> {
    let mut code = vec![0xb8];
    code.extend(169_u32.to_le_bytes()); // mov eax, SYS_reboot
    code.push(0xbf);
    code.extend(0xfee1_dead_u32.to_le_bytes()); // mov edi, LINUX_REBOOT_MAGIC1
    code.push(0xbe);
    code.extend(672_274_793_u32.to_le_bytes()); // mov esi, LINUX_REBOOT_MAGIC2
    code.push(0xba);
    code.extend(0x4321_fedc_u32.to_le_bytes()); // mov edx, LINUX_REBOOT_CMD_POWER_OFF
    code.extend([0x0f, 0x05, 0xeb, 0xfe]); // syscall; jmp $
    let mut cpio = snf_image_host::cpio::CpioWriter::new();
    cpio.directory("dev", 0o755);
    cpio.char_device("dev/console", 0o600, 5, 1);
    cpio.file("init", 0o755, &elf(&code, false)).unwrap();
    cpio.finish()
}

/// The largest resident size, in KiB, that a child of this process has had. The last line of the
/// console comes when a VM has done its work and is still there.
fn largest_child() -> u64 {
    let children = fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    let of = |pid: &str| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
        line.trim().strip_suffix(" kB")?.parse().ok()
    };
    children.split_whitespace().filter_map(of).max().unwrap_or(0)
}
