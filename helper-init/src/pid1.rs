//! What PID 1 does, from the first mount to power-off. It never returns and never dies: the
//! kernel would panic.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::mount::{MountFlags, mount};
use rustix::system::{RebootCommand, reboot};

use crate::cmdline::CommandLine;
use crate::serial::{Serial, one_line};
use crate::snapshot::{self, Wake};
use crate::supervise::{self, Lines};
use crate::{BANNER, PROTOCOL, debug, device, floppy, modules, worker};

/// How long a device may take to appear.
const DEVICE_LIMIT: Duration = Duration::from_secs(10);
/// Longest result line, its first word included.
const RESULT_LIMIT: usize = 4000;
/// Where the initramfs has its kernel modules.
const MODULES: &str = "/modules";

/// Runs the helper VM.
pub(crate) fn run() -> ! {
    std::panic::set_hook(Box::new(|info| {
        // The last resort: whatever broke, the host gets its line and the VM ends.
        Serial::open("/dev/ttyS1").line(&error_line(&format!("the helper's init failed: {info}")));
        power_off();
    }));
    let mut lines = None;
    let mut line = None;
    let result = prepare(&mut lines, &mut line);
    let mut lines = lines.unwrap_or_default();
    let result = result.and_then(|(line, started)| supervise::run(line, started, &mut lines));
    let mut debug = None;
    let result = match result {
        Ok(end) => end.line().to_owned(),
        Err(error) => {
            lines.log(&format!("ERROR: {error}"));
            lines.monitor("ERROR", &error);
            debug = line.as_ref().and_then(|line| Some((line, line.debug?, error.clone())));
            error_line(&error)
        }
    };
    // Everything is on the disk before the host hears of it.
    lines.mark("sync");
    rustix::fs::sync();
    lines.mark("power-off");
    if line.as_ref().is_some_and(|line| line.times) {
        lines.log_marks();
    }
    let mut serial = Serial::open("/dev/ttyS1");
    serial.line(&result);
    if !lines.report.is_empty() {
        serial.line(&format!("REPORT:{}", lines.report));
    }
    serial.drain();
    if let Some((line, limit, error)) = debug {
        debug::run(&line.rules_dev, &error, limit, &mut lines);
    }
    lines.drain();
    power_off();
}

fn error_line(error: &str) -> String {
    format!("ERROR: {}", one_line(error, RESULT_LIMIT))
}

/// Everything before the worker starts.
fn prepare<'a>(
    lines: &mut Option<Lines>,
    line: &'a mut Option<CommandLine>,
) -> Result<(&'a CommandLine, Duration), String> {
    let mut started = uptime();
    for (kind, target) in [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev")] {
        let _ = fs::create_dir(target);
        match mount(kind, target, kind, MountFlags::NOSUID | MountFlags::NOEXEC, None) {
            // The kernel may have mounted /dev by itself.
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(e) => return Err(format!("cannot mount {kind} on {target}: {e}")),
        }
    }
    fs::create_dir(worker::EMPTY).map_err(|e| format!("cannot make {}: {e}", worker::EMPTY))?;
    let lines = lines.insert(Lines::open());
    let text = fs::read_to_string("/proc/cmdline")
        .map_err(|e| format!("cannot read the kernel command line: {e}"))?;
    let mut parsed = CommandLine::parse(&text);
    if parsed.snapshot {
        modules::load_some(Path::new(MODULES), &|module| !snapshot::is_late(module))?;
        let said = snapshot::pause()?;
        started = uptime();
        lines.log(BANNER);
        Wake::parse(&said)?.apply()?;
        parsed = CommandLine::parse(&format!("{text} {}", *said));
    } else {
        lines.log(BANNER);
        lines.mark_at("mounts", started);
    }
    if let Some(refusal) = parsed.refusal(PROTOCOL) {
        return Err(refusal);
    }
    let line = &*line.insert(parsed);
    lines.mark("modules");
    let left = |module: &Path| !line.snapshot || snapshot::is_late(module);
    modules::load_some(Path::new(MODULES), &left)?;
    lines.mark("device");
    device::wait_for(Path::new(&line.rules_dev), DEVICE_LIMIT)
        .map_err(|e| format!("cannot find the parameter disk {}: {e}", line.rules_dev))?;
    floppy::hurry(&line.rules_dev);
    Ok((line, started))
}

/// Time since the kernel started.
pub(crate) fn uptime() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    Duration::new(now.tv_sec.try_into().unwrap_or(0), now.tv_nsec.try_into().unwrap_or(0))
}

/// Ends the VM. Where power-off does not work, a reboot does (QEMU runs with -no-reboot).
fn power_off() -> ! {
    rustix::fs::sync();
    let _ = reboot(RebootCommand::PowerOff);
    let _ = reboot(RebootCommand::Restart);
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}
