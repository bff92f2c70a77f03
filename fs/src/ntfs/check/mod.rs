//! A checker: reads every structure of a volume that says something that another one says too, and
//! compares. It shares no code with the engine, so that neither hides the other's mistakes.
//!
//! Damage is told and the check goes on; only what makes it impossible (no boot sector, no MFT, a
//! device that fails) ends it. Its reads are bounded by the volume's size.

mod clusters;
pub mod index;
pub mod inodes;
mod names;
pub mod raw;
pub mod records;
pub mod report;
mod system;

pub use report::{Finding, Report, Severity};

use crate::device::BlockDevice;
use crate::error::Result;

/// Checks the NTFS volume on `device`, which begins with its boot sector. Nothing is written.
///
/// # Errors
/// [`crate::Error::Corrupt`] where there is no boot sector or MFT to begin with,
/// [`crate::Error::Device`] where the device fails. All other damage is in the report.
pub fn check(device: &dyn BlockDevice) -> Result<Report> {
    let mut report = Report::default();
    let reader = raw::Reader::open(device)?;
    system::boot_copy(&reader, &mut report)?;
    let mft = records::Mft::load(&reader, &mut report)?;
    let mut files = inodes::assemble(&reader, &mft, &mut report)?;
    system::mirror(&reader, &mft, &files, &mut report)?;
    let upcase = system::upcase(&reader, &files, &mut report)?;
    system::volume(&files, &mut report);
    names::check(&reader, &mft, &files, &upcase, &mut report)?;
    system::indexes(&reader, &mft, &files, &upcase, &mut report)?;
    clusters::check_records(&reader, &mft, &files, &mut report)?;
    clusters::check(&reader, &mut files, &mut report)?;
    Ok(report)
}
