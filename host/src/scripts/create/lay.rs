//! The image goes to the instance's first disk: by one of our own back-ends or by a program.

use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::time::Instant;

use snf_claim::Purpose;
use snf_image::plan::ImageFormat;

use super::error::CreateError;
use super::request::entropy;
use crate::backend::{Backend, Backends, Choice, Kind, Settings};
use crate::disk::destination::Destination;
use crate::disk::error::TargetError;
use crate::disk::mbr;
use crate::disk::open::{OpenDisk, Place};
use crate::disk::target::Target;
use crate::image::copy::{self, Settle};
use crate::image::source::ImageReader;
use crate::node::cancel::Cancel;
use crate::node::config::Config;
use crate::node::env::{Disk, EnvError};
use crate::node::log;
use crate::node::monitor::Monitor;

/// The first disk, and who writes it.
pub(crate) enum SystemDisk {
    /// We do.
    Own(OpenDisk),
    /// A program does, before we open it for the VM.
    Program { backends: Backends, program: Backend, place: Place, size: u64, claim: Option<File> },
}

/// Finds the disk that the image goes to, the first one, and opens it where we write it.
pub(crate) fn system_disk(
    disks: &[Disk],
    config: &Config,
    cancel: &Cancel,
) -> Result<SystemDisk, CreateError> {
    let Some(first) = disks.first() else {
        return Err(CreateError::Disk("the instance has no disk (DISK_COUNT is 0)".into()));
    };
    if first.read_only {
        return Err(CreateError::Disk(
            "the first disk is read-only (DISK_0_ACCESS=ro); an image cannot be deployed to it"
                .into(),
        ));
    }
    let place = place_of(first)?;
    let backends = Backends::read(&Settings::of(config), Kind::Destination)?;
    let own = match place {
        Place::Path(_) => "local",
        Place::Uri(_) => "qemu",
    };
    match backends.choose(&place.text(), Some(own), cancel)? {
        Choice::Own => Ok(SystemDisk::Own(OpenDisk::open(&place, config, cancel)?)),
        Choice::Program(program) => {
            let size = size_of(first, &place)?;
            let claim = claim(&place)?;
            Ok(SystemDisk::Program { backends, program, place, size, claim })
        }
        Choice::Disabled(_) | Choice::Nobody => Err(CreateError::Disk(format!(
            "the back-end {own} for disks is disabled on this node, and no other takes {:?}",
            place.text()
        ))),
    }
}

/// The place of a disk.
pub(crate) fn place_of(disk: &Disk) -> Result<Place, CreateError> {
    Place::choose(disk.path.as_deref(), disk.uri.as_deref())
        .ok_or_else(|| EnvError::Missing(format!("DISK_{}_PATH", disk.index)).into())
}

/// The size of a disk that we do not open: what Ganeti says, else what is there.
fn size_of(disk: &Disk, place: &Place) -> Result<u64, CreateError> {
    match (disk.size_mib.and_then(|mib| mib.checked_mul(1 << 20)), place) {
        (Some(size), _) => Ok(size),
        (None, Place::Path(path)) => Ok(Target::open(path)?.size()),
        (None, Place::Uri(_)) => Err(EnvError::Missing(format!("DISK_{}_SIZE", disk.index)).into()),
    }
}

/// Keeps our other runs away from a disk that a program writes.
fn claim(place: &Place) -> Result<Option<File>, CreateError> {
    let Place::Path(path) = place else { return Ok(None) };
    // A path that is missing or no disk is the program's business.
    let disk = std::fs::metadata(path)
        .is_ok_and(|found| found.is_file() || found.file_type().is_block_device());
    let Some(file) = disk.then(|| File::open(path).ok()).flatten() else { return Ok(None) };
    snf_claim::claim_among_us(&file, Purpose::Write)
        .map_err(|source| TargetError::Busy { path: path.clone(), source })?;
    Ok(Some(file))
}

impl SystemDisk {
    /// Its size in bytes.
    pub(crate) fn size(&mut self) -> u64 {
        match self {
            Self::Own(disk) => disk.destination().size(),
            Self::Program { size, .. } => *size,
        }
    }

    /// Writes the image.
    pub(crate) fn lay(
        &mut self,
        name: &str,
        image: Box<dyn ImageReader>,
        format: ImageFormat,
        settle: Settle,
        cancel: &Cancel,
        monitor: &mut Monitor,
    ) -> Result<(), CreateError> {
        let report = match self {
            Self::Own(disk) => {
                let destination = disk.destination();
                log::info(&format!("copying {name} to {}", destination.name()));
                lay_image(image, format, destination, settle, cancel, monitor)?
            }
            Self::Program { backends, program, place, size, .. } => {
                backends.tell(program);
                let mut destination =
                    backends.open_destination(program, &place.text(), *size, cancel)?;
                lay_image(image, format, &mut destination, Settle::Now, cancel, monitor)?
            }
        };
        log::info(&format!(
            "copied {:.0} MiB, {:.0} MiB of it data, in {:.2} s",
            report.size as f64 / f64::from(1 << 20),
            report.written as f64 / f64::from(1 << 20),
            report.elapsed.as_secs_f64(),
        ));
        Ok(())
    }

    /// Flushes what was written, where it is we who write.
    pub(crate) fn flush(&mut self) -> Result<(), CreateError> {
        match self {
            Self::Own(disk) => flush(disk.destination()),
            Self::Program { .. } => Ok(()),
        }
    }

    /// The disk, open for the helper VM.
    pub(crate) fn open(self, config: &Config, cancel: &Cancel) -> Result<OpenDisk, CreateError> {
        match self {
            Self::Own(disk) => Ok(disk),
            Self::Program { place, claim, .. } => {
                // Ours would stand in our own way.
                drop(claim);
                Ok(OpenDisk::open(&place, config, cancel)?)
            }
        }
    }
}

/// Returns when all that was written is on stable storage, and tells how long that took.
pub(crate) fn flush(disk: &mut dyn Destination) -> Result<(), CreateError> {
    let started = Instant::now();
    disk.flush()?;
    log::info(&format!("the disk was flushed in {:.2} s", started.elapsed().as_secs_f64()));
    Ok(())
}

/// Copies the image; a bare file system goes into the one partition of a fresh table.
fn lay_image(
    image: Box<dyn ImageReader>,
    format: ImageFormat,
    target: &mut dyn Destination,
    settle: Settle,
    cancel: &Cancel,
    monitor: &mut Monitor,
) -> Result<copy::CopyReport, CreateError> {
    let partition_type = match format {
        ImageFormat::DiskDump => None,
        ImageFormat::ExtDump => Some(mbr::TYPE_LINUX),
        ImageFormat::NtfsDump => Some(mbr::TYPE_NTFS),
    };
    let offset = partition_type.map_or(0, |_| mbr::PARTITION_OFFSET);
    copy::check_fits(image.size(), offset, target)?;
    let mut table = None;
    if let Some(partition_type) = partition_type {
        let signature = entropy()?.bytes();
        table = mbr::single_partition(target.size(), partition_type, signature);
        if table.is_none() {
            return Err(CreateError::Disk(format!(
                "the disk {} is too small for a partition at sector 2048",
                target.name()
            )));
        }
        if target.in_order()
            && let Some(table) = table.take()
        {
            target.write(0, &table)?;
            target.zero(table.len() as u64, offset - table.len() as u64, cancel)?;
        } else {
            // Nothing of an older table or boot loader may stay in front of the partition.
            target.zero(0, offset, cancel)?;
        }
    }
    // The partitions must be on the disk before the table that names them.
    let settle = if table.is_some() { Settle::Now } else { settle };
    let mut progress = |position, total| monitor.position(position, total);
    let report = copy::copy_image(image, target, offset, settle, cancel, &mut progress)?;
    if let Some(table) = table {
        // Last, so that a copy that was cut short does not look like a disk.
        target.write(0, &table)?;
        target.flush()?;
    }
    Ok(report)
}
