//! The worker: opens the devices, gives up every right, then reads what comes from outside (the
//! rules, the image) and runs the library. If it crashes, PID 1 is there to say so, and the disk
//! is as it was, because the library writes only when all is decided.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;

use rustix::process::{Gid, Resource, Rlimit, Uid};
use snf_fs::{BlockDevice, FileDevice};

use crate::filter;
use crate::job;
use crate::report::{Message, Reporter};

/// First argument of a worker.
pub(crate) const ARGUMENT: &str = "worker";

/// The worker's root directory.
pub(crate) const EMPTY: &str = "/empty";
/// Whom the worker becomes: nobody. There is no passwd file in here to ask.
const NOBODY: u32 = 65534;
/// Address space beyond the guest's memory: code, stacks, mappings that are never touched.
const ADDRESS_SPACE_EXTRA: u64 = 64 << 20;

/// Every disk of the VM by device file, opened while we may.
pub(crate) type Disks = BTreeMap<String, Arc<dyn BlockDevice>>;

/// Runs the worker and returns its exit status.
pub(crate) fn run(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let mut reporter = Reporter(io::stdout());
    let rules_dev = arguments.next().unwrap_or_default();
    let mut report = Vec::new();
    let fault = arguments.next();
    let result = prepare(&rules_dev).and_then(|(parameters, disks)| {
        fault.iter().for_each(|kind| fail(kind));
        let broker = io::stdin().as_fd().try_clone_to_owned().ok();
        job::run(parameters, &disks, broker, &mut reporter, &mut report)
    });
    reporter.report(&report);
    match result {
        Ok(()) => {
            reporter.send(&Message::Done);
            ExitCode::SUCCESS
        }
        Err(error) => {
            reporter.send(&Message::Failed(error));
            ExitCode::FAILURE
        }
    }
}

/// Comes to a bad end that a test asks for with `snf_image_fault=` on the kernel's command line.
#[allow(clippy::panic)]
fn fail(kind: &str) {
    match kind {
        "panic" => panic!("a fault that was asked for"),
        "memory" => {
            let mut all = Vec::new();
            loop {
                all.push(vec![1_u8; 1 << 20]);
            }
        }
        "loop" => loop {
            std::hint::spin_loop();
        },
        _ => {}
    }
}

fn prepare(rules_dev: &str) -> Result<(Arc<dyn BlockDevice>, Disks), String> {
    let parameters = open(rules_dev, false)
        .map_err(|e| format!("cannot open the parameter disk {rules_dev}: {e}"))?;
    let disks = open_disks(rules_dev, true)?;
    confine()?;
    Ok((parameters, disks))
}

/// Every disk but the parameter disk.
pub(crate) fn open_disks(rules_dev: &str, writable: bool) -> Result<Disks, String> {
    let mut disks = Disks::new();
    let entries = fs::read_dir("/sys/block").map_err(|e| format!("cannot list /sys/block: {e}"))?;
    for entry in entries.flatten() {
        let path = format!("/dev/{}", entry.file_name().to_string_lossy());
        // One that refuses to be written is there to be looked at: a dry run.
        if path.starts_with("/dev/vd")
            && path != rules_dev
            && let Ok(disk) = open(&path, writable).or_else(|_| open(&path, false))
        {
            disks.insert(path, disk);
        }
    }
    Ok(disks)
}

/// Gives up all but what is open.
pub(crate) fn confine() -> Result<(), String> {
    drop_rights().map_err(|e| format!("cannot give up root's rights: {e}"))?;
    filter::apply().map_err(|e| format!("cannot set the system call filter: {e}"))
}

fn open(path: &str, writable: bool) -> io::Result<Arc<dyn BlockDevice>> {
    let mut file: File = OpenOptions::new().read(true).write(writable).open(path)?;
    let size = file.seek(SeekFrom::End(0))?;
    // A partition table counts in these.
    let sector_size = rustix::fs::ioctl_blksszget(&file)?;
    Ok(Arc::new(FileDevice::new(file, size, sector_size)))
}

/// From here on: no root, no way back, bounded memory, no core dump.
fn drop_rights() -> Result<(), rustix::io::Errno> {
    let memory = rustix::system::sysinfo();
    let unit = u64::from(memory.mem_unit.max(1));
    let total = memory.totalram.saturating_mul(unit);
    for (resource, value) in [
        (Resource::As, total.saturating_add(ADDRESS_SPACE_EXTRA)),
        (Resource::Core, 0),
        (Resource::Nofile, 128),
        (Resource::Nproc, 32),
    ] {
        let limit = Rlimit { current: Some(value), maximum: Some(value) };
        rustix::process::setrlimit(resource, limit)?;
    }
    // An empty directory becomes all there is to see, and no right is left to get out of it.
    rustix::process::chroot(EMPTY)?;
    rustix::process::chdir("/")?;
    rustix::thread::set_thread_groups(&[])?;
    rustix::thread::set_thread_gid(Gid::from_raw(NOBODY))?;
    rustix::thread::set_thread_uid(Uid::from_raw(NOBODY))?;
    rustix::thread::set_no_new_privs(true)
}
