//! The life of PID 1, from the first mount to power-off. It never returns and never dies: the
//! kernel would panic.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};
use snf_image::failure::sentence;
use snf_image::wire::{INITRAMFS_END, MonitorKind, PROTOCOL_VERSION, ResultLine};

use crate::clock::uptime;
use crate::cmdline::CommandLine;
use crate::confine::EMPTY;
use crate::error::InitError;
use crate::host::Host;
use crate::lines::Lines;
use crate::serial::one_line;
use crate::snapshot::{self, Wake};
use crate::supervise::{self, End};
use crate::{BANNER, debug, device, floppy, modules};

/// The folder of kernel modules in the initramfs.
const MODULES: &str = "/modules";

/// Runs the helper VM.
pub(crate) fn run() -> ! {
    std::panic::set_hook(Box::new(|info| {
        // The last resort: whatever broke, the host gets its line and the VM ends.
        Host::open().say(&failure(&format!("the helper's init failed: {info}")));
        power_off();
    }));
    let started = uptime();
    let mounted = mount_all();
    let mut lines = Lines::open();
    match mounted.and_then(|()| understand(&mut lines, started)) {
        Ok(line) => {
            let result = find_disks(&line, &mut lines)
                .and_then(|()| supervise::run(&line.rules_dev, &mut lines));
            end(lines, Some(&line), result)
        }
        Err(error) => end(lines, None, Err(error)),
    }
}

/// Mounts what every step needs.
fn mount_all() -> Result<(), InitError> {
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        let _ = fs::create_dir(target);
        match mount(kind, target, kind, MountFlags::NOSUID | MountFlags::NOEXEC, None) {
            // The kernel may have mounted /dev by itself.
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(source) => return Err(InitError::Mount { kind, target, source }),
        }
    }
    if !Path::new("/").join(INITRAMFS_END).exists() {
        return Err(InitError::Initramfs);
    }
    fs::create_dir(EMPTY).map_err(InitError::at("make the empty root of confined processes"))
}

/// Reads the command line; a VM that is to be saved waits here for its run.
fn understand(lines: &mut Lines, started: Duration) -> Result<CommandLine, InitError> {
    let text = fs::read_to_string("/proc/cmdline")
        .map_err(InitError::at("read the kernel command line"))?;
    let mut line = CommandLine::parse(&text);
    if line.snapshot {
        modules::load_some(Path::new(MODULES), &|module| !snapshot::is_late(module))?;
        let said = snapshot::pause(&mut lines.host)?;
        lines.log(BANNER);
        Wake::parse(&said)?.apply()?;
        line = CommandLine::parse(&format!("{text} {}", *said));
    } else {
        lines.log(BANNER);
        lines.mark_at("mounts", started);
    }
    line.check(PROTOCOL_VERSION)?;
    Ok(line)
}

/// Loads the drivers of disks and waits for the parameter disk.
fn find_disks(line: &CommandLine, lines: &mut Lines) -> Result<(), InitError> {
    lines.mark("modules");
    let left = |module: &Path| !line.snapshot || snapshot::is_late(module);
    modules::load_some(Path::new(MODULES), &left)?;
    lines.mark("device");
    device::wait_for(Path::new(&line.rules_dev), device::LIMIT, &mut lines.host)
        .map_err(|source| InitError::NoParameters { path: line.rules_dev.clone(), source })?;
    floppy::hurry(&line.rules_dev);
    Ok(())
}

/// Reports the result and ends the VM.
fn end(mut lines: Lines, line: Option<&CommandLine>, result: Result<End, InitError>) -> ! {
    let (said, error) = match result {
        Ok(end) => (end.line(), None),
        Err(error) => {
            let error = sentence(&error);
            lines.log(&format!("ERROR: {error}"));
            lines.monitor(MonitorKind::Error, &error);
            (failure(&error), Some(error))
        }
    };
    // Everything is on the disk before the host hears of it.
    lines.mark("sync");
    rustix::fs::sync();
    lines.mark("power-off");
    if line.is_some_and(|line| line.times) {
        lines.log_marks();
    }
    lines.host.say(&said);
    if !lines.report.is_empty() {
        let report = std::mem::take(&mut lines.report);
        lines.host.report(&report);
    }
    lines.host.drain();
    if let (Some(line), Some(error)) = (line.filter(|line| line.debug), error) {
        debug::run(&line.rules_dev, &error, &mut lines);
    }
    lines.drain();
    power_off();
}

fn failure(error: &str) -> ResultLine {
    ResultLine::Error(one_line(error, ResultLine::TEXT_LIMIT))
}

/// Ends the VM. If power-off does not work, a reboot does (QEMU runs with -no-reboot).
fn power_off() -> ! {
    rustix::fs::sync();
    let _ = reboot(RebootCommand::PowerOff);
    let _ = reboot(RebootCommand::Restart);
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
