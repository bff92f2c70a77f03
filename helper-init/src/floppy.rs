//! A floppy drive without a motor: the kernel's driver waits for drives of 1990 to spin up and
//! settle, QEMU's is ready at once. That is 0.4 s of every run.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::sys;

/// Tells the driver that the drive needs no time, if `device` is a floppy. An error only means
/// that reading takes as long as it always did.
pub(crate) fn hurry(device: &str) {
    if !Path::new(device).file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"fd")) {
        return;
    }
    // Without waiting for a medium: this is about the drive.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(device) else { return };
    let Ok(mut parameters) = sys::floppy_parameters(&file) else { return };
    parameters.spinup = 0;
    parameters.select_delay = 0;
    let _ = sys::set_floppy_parameters(&file, parameters);
}
