//! The helper VM, seen from the host: what it is built from ([`update`]), how QEMU is told to run
//! it ([`qemu`]), and one run from start to result (`run`).

use std::fs::File;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::disk::storage::StorageDaemon;

mod attempt;
pub mod cpio;
mod debug;
mod error;
pub mod floppy;
mod identity;
mod image;
pub(crate) mod init_file;
pub mod kernel;
mod lines;
mod lzop;
pub mod modules;
pub mod protocol;
pub mod qemu;
pub mod qmp;
mod room;
mod run;
mod snapshot;
mod spawn;
mod start;
mod trial;
pub mod unpack;
pub mod update;
mod vm;
mod walls;

pub use crate::node::config::Acceleration;
pub use error::HelperError;
pub use identity::check_user;
pub use image::{FileSystems, HelperImage, ParameterDisk};
pub use init_file::InitProblem;
pub use protocol::MonitorMessage;
pub use run::run_helper;
pub use snapshot::make as make_snapshot;

/// How helper VMs are run on this node.
#[derive(Clone, Debug)]
pub struct HelperConfig {
    /// HELPER_DIR: where update-helper put kernel and initramfs.
    pub directory: PathBuf,
    /// HELPER_USER: whom QEMU runs as when we are root. `None` changes nothing.
    pub user: Option<String>,
    /// HELPER_UID_RANGE: numbers of which each run gets one of its own instead of the user.
    pub uid_range: Option<RangeInclusive<u32>>,
    /// HELPER_MEMORY in MiB.
    pub memory_mib: u32,
    /// HELPER_SOFT_TIMEOUT.
    pub soft_timeout: Duration,
    /// HELPER_HARD_TIMEOUT, counted from the soft one.
    pub hard_timeout: Duration,
    /// HELPER_ACCEL.
    pub acceleration: Acceleration,
    /// The QEMU to run: a name looked up in PATH, or a path.
    pub qemu: PathBuf,
    /// HELPER_DEBUG: a talkative kernel and helper; after a failure the VM stays up for a while, with
    /// a shell.
    pub debug: bool,
    /// HELPER_SNAPSHOT: under TCG go on from a helper that has booted before, where there is one.
    pub snapshot: bool,
}

impl Default for HelperConfig {
    fn default() -> Self {
        Self {
            directory: PathBuf::from("/var/lib/snf-image/helper"),
            user: Some(crate::node::users::default_user().to_owned()),
            uid_range: None,
            memory_mib: 128,
            soft_timeout: Duration::from_secs(120),
            hard_timeout: Duration::from_secs(5),
            acceleration: Acceleration::Auto,
            qemu: PathBuf::from("qemu-system-x86_64"),
            debug: false,
            snapshot: true,
        }
    }
}

/// One disk of the VM.
#[derive(Debug)]
pub enum VmDisk {
    /// A regular file or block device, opened for reading and writing. QEMU gets the descriptor,
    /// so it needs no rights on the path.
    Open(File),
    /// A disk that a storage daemon has open: QEMU gets a connection to it.
    Remote(Arc<StorageDaemon>),
    /// The same as `Open`, opened for reading: a dry run.
    ReadOnly(File),
}

/// The work of one VM.
#[derive(Debug)]
pub struct VmRequest {
    /// The instance's disks in order: they appear as [`guest_disk`] names them.
    pub disks: Vec<VmDisk>,
    /// The parameter disk: an ext2 image with `rules` in it, in a file (or memfd) that QEMU gets
    /// read-only.
    pub parameters: File,
    /// Ganeti's HYPERVISOR, for the tasks that care.
    pub hypervisor: String,
    /// Whether flushes of the first disk may wait: the host flushes it after the run, and what a run
    /// that was cut short leaves on it is worth nothing. Otherwise the VM's flushes reach the disk.
    pub flush_later: bool,
    /// The disks' sectors as the VM sees them, in bytes: [`SECTOR_SIZE`], whatever lies below, for
    /// the disk of an instance.
    pub sector_size: u32,
}

/// The sectors that QEMU shows an instance, and any machine but one with a disk of 4096-byte
/// sectors.
pub const SECTOR_SIZE: u32 = 512;

/// The name that disk `index` of a [`VmRequest`] has inside the VM, as the rules' DEV array wants
/// it: `/dev/vda`, `/dev/vdb`, ..., `/dev/vdaa`.
pub fn guest_disk(index: usize) -> String {
    let mut letters = Vec::new();
    let mut rest = index;
    loop {
        letters.push(b'a' + (rest % 26) as u8);
        if rest < 26 {
            break;
        }
        rest = rest / 26 - 1;
    }
    let name: String = letters.iter().rev().map(|&b| char::from(b)).collect();
    format!("/dev/vd{name}")
}

/// The receiver of the words of a run.
pub trait HelperSink {
    /// A line of the VM's console, clean text without the `HELPER: ` prefix.
    fn console(&mut self, line: &str);
    /// Something the host itself has to say, for the log.
    fn warning(&mut self, text: &str);
    /// A message of the monitor line.
    fn monitor(&mut self, message: MonitorMessage);
    /// The report that a request of `snf-customize` is answered with, as the VM sent it.
    fn report(&mut self, report: &[u8]) {
        let _ = report;
    }
}

/// Facts about a successful run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelperReport {
    /// The acceleration of the VM.
    pub acceleration: Acceleration,
    /// Whether it went on from a snapshot instead of booting.
    pub resumed: bool,
    /// QEMU start to exit of the run that counted.
    pub elapsed: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disk_names_follow_the_kernel() {
        let names: Vec<String> = [0, 1, 8, 25, 26, 27, 51, 52, 701, 702].map(guest_disk).into();
        assert_eq!(
            names.join(" "),
            "/dev/vda /dev/vdb /dev/vdi /dev/vdz /dev/vdaa /dev/vdab /dev/vdaz /dev/vdba \
             /dev/vdzz /dev/vdaaa"
        );
    }
}
