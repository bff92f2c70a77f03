//! A trial of a helper that was just built: it boots, loads the drivers of disks, finds the parameter
//! disk, confines its worker and reads a file that asks for nothing. With the other initramfs the same.

use std::fs::File;
use std::io;
use std::time::Instant;

use rustix::fs::MemfdFlags;
use snf_fs::Timestamp;
use snf_image::wire::TRIAL_FILE;

use super::floppy;
use super::image::HelperImage;
use super::run::run_image;
use super::{
    Acceleration, HelperConfig, HelperError, HelperSink, MonitorMessage, SECTOR_SIZE, VmDisk,
    VmRequest,
};
use crate::node::cancel::Cancel;

/// Keeps what the host has to say.
#[derive(Default)]
struct Warnings(Vec<String>);

impl HelperSink for Warnings {
    fn console(&mut self, _: &str) {}
    fn warning(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
    fn monitor(&mut self, _: MonitorMessage) {}
}

/// Boots the helper in the directory of `config` and returns words about it.
///
/// # Errors
/// Says how the run of it ended.
pub(super) fn run(config: &HelperConfig) -> Result<String, HelperError> {
    let helper = HelperImage::open(&config.directory)?;
    // A KVM that does not work is no defect of the helper.
    let acceleration = match config.acceleration {
        Acceleration::Kvm => Acceleration::Auto,
        other => other,
    };
    let config = HelperConfig { acceleration, snapshot: false, debug: false, ..config.clone() };
    let request = request().map_err(HelperError::system("make the disks of a trial"))?;
    let cancel = Cancel::new();
    let mut warnings = Warnings::default();
    let started = Instant::now();
    let mut boots = 0;
    for helper in [Some(helper.clone()), helper.with_file_systems()].into_iter().flatten() {
        boots += 1;
        // It cannot ask for drivers: it has looked at no disk.
        if run_image(&config, &helper, &request, &cancel, &mut warnings)?.is_none() {
            return Err(HelperError::Garbage("AGAIN, in a trial".to_owned()));
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    let mut text = match boots {
        1 => format!("it was booted and works ({seconds:.1} s)"),
        _ => format!("it was booted with each initramfs and works ({seconds:.1} s)"),
    };
    for warning in warnings.0 {
        text.push_str(&format!("; {warning}"));
    }
    Ok(text)
}

fn request() -> io::Result<VmRequest> {
    let disk = File::from(rustix::fs::memfd_create("disk", MemfdFlags::CLOEXEC)?);
    disk.set_len(floppy::FLOPPY_SIZE as u64)?;
    let parameters = floppy::build(&[(TRIAL_FILE, b"")], Timestamp::default(), [0; 16])
        .map_err(io::Error::other)?;
    Ok(VmRequest {
        disks: vec![VmDisk::Open(disk)],
        parameters,
        hypervisor: String::new(),
        flush_later: true,
        sector_size: SECTOR_SIZE,
    })
}
