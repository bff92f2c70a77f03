//! A floppy drive without a motor: the kernel's driver waits for drives of 1990 to spin up and
//! settle, QEMU's is ready at once. That is 0.4 s of every run.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::ioctl::{Getter, Setter, ioctl};

/// `struct floppy_drive_params` of <linux/fd.h>: 128 bytes.
type DriveParams = [u8; 128];
/// `FDGETDRVPRM`.
const FDGETDRVPRM: u32 = 0x8080_0211;
/// `FDSETDRVPRM`.
const FDSETDRVPRM: u32 = 0x4080_0290;
/// `unsigned long spinup`: jiffies for the motor to spin up.
const SPINUP: std::ops::Range<usize> = 40..48;
/// `unsigned char select_delay`: jiffies between selecting a drive and using it.
const SELECT_DELAY: usize = 57;

/// Tells the driver that the drive needs no time, if `device` is a floppy. An error only means
/// that reading takes as long as it always did.
pub(crate) fn hurry(device: &str) {
    if !Path::new(device).file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b"fd")) {
        return;
    }
    // Without waiting for a medium: this is about the drive.
    let flags = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let Ok(file) = OpenOptions::new().read(true).custom_flags(flags).open(device) else { return };
    // SAFETY: FDGETDRVPRM fills a structure of 128 bytes that is valid with any content, and
    // FDSETDRVPRM reads one of the same size; the size is part of both numbers.
    unsafe {
        let Ok(mut params) = ioctl(&file, Getter::<FDGETDRVPRM, DriveParams>::new()) else {
            return;
        };
        params[SPINUP].fill(0);
        params[SELECT_DELAY] = 0;
        let _ = ioctl(&file, Setter::<FDSETDRVPRM, DriveParams>::new(params));
    }
}
