//! `export` and `import`: the whole disk, byte for byte, on standard output and from standard
//! input. The stream is a raw dump, as Ganeti's own tools and other OS definitions write it.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::time::Instant;

use snf_claim::Purpose;

use crate::disk::buffer::AlignedBuffer;
use crate::disk::error::TargetError;
use crate::disk::open::{DiskError, OpenDisk, Place, daemon};
use crate::disk::storage::{RemoteDisk, StorageError};
use crate::image::copy::{self, CopyError, Settle};
use crate::image::local;
use crate::image::source::raw::RawImage;
use crate::image::source::remote::RemoteImage;
use crate::image::source::stream::{StreamImage, peek};
use crate::image::source::{ImageReader, Part, SourceError};
use crate::node::cancel::{Cancel, Cancelled};
use crate::node::config::Config;
use crate::node::env::{EnvError, Environment, Transfer};
use crate::node::log;
use crate::node::monitor::Monitor;
use crate::node::trust::{self, Distrust};

/// Why a disk was not exported or imported.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransferError {
    /// Ganeti's environment.
    #[error(transparent)]
    Environment(#[from] EnvError),
    /// Reading.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The receiver of the export went away, or its disk is full.
    #[error("cannot write the export at byte {offset}")]
    Output {
        /// Bytes that were written.
        offset: u64,
        /// The system's error.
        source: io::Error,
    },
    /// Writing the imported disk.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A disk that has no path.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The dump ended early.
    #[error(
        "the import ended after {found} bytes, but disk {index} has {expected}: the export is truncated \
         or the transfer broke off (if the disk was made larger on purpose, set IMPORT_SHORT=yes)"
    )]
    Truncated {
        /// Bytes that came.
        found: u64,
        /// Bytes that were expected.
        expected: u64,
        /// The number of the disk.
        index: usize,
    },
    /// Others than root could change what root runs.
    #[error("{key} is refused")]
    Distrust {
        /// The key of the configuration.
        key: &'static str,
        /// The reason, and how to mend it.
        source: Distrust,
    },
    /// A signal came.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

/// Writes the disk to `output`. Holes are not read, only their zeros are written.
pub fn export(
    env: &Environment,
    config: &Config,
    cancel: &Cancel,
    output: &mut dyn Write,
) -> Result<(), TransferError> {
    env.check_api_version()?;
    check_trust(config)?;
    let transfer = env.export()?;
    let place = place_of(&transfer, "EXPORT_DEVICE")?;
    let name = place.text();
    let mut image: Box<dyn ImageReader> = match &place {
        Place::Path(path) => {
            let disk = local::open_file_url(path)?;
            // A virtual machine may be started on the disk meanwhile, as Ganeti does.
            snf_claim::claim_among_us(&disk, Purpose::Read)
                .map_err(|source| TargetError::Busy { path: path.clone(), source })
                .map_err(DiskError::from)?;
            Box::new(RawImage::new(disk, &name)?)
        }
        Place::Uri(uri) => {
            Box::new(RemoteImage::new(RemoteDisk::open(&daemon(config), uri, cancel)?))
        }
    };
    let size = image.size().unwrap_or(0);
    tell_size(&transfer, size);
    let mut monitor = monitor(env, config, "disk-export-progress", &transfer)?;
    let started = Instant::now();
    let mut buffer = AlignedBuffer::new(1 << 20).map_err(CopyError::Memory)?;
    let zeros = AlignedBuffer::new(1 << 20).map_err(CopyError::Memory)?;
    let mut offset = 0;
    let mut data = 0;
    loop {
        cancel.check()?;
        let part = image.next(buffer.as_mut_slice())?;
        let mut write = |bytes: &[u8]| {
            output.write_all(bytes).map_err(|source| TransferError::Output { offset, source })?;
            offset += bytes.len() as u64;
            monitor.position(offset, Some(size));
            Ok::<(), TransferError>(())
        };
        match part {
            Part::End => break,
            Part::Data(length) => {
                data += length as u64;
                write(&buffer.as_slice()[..length])?;
            }
            Part::Zero(mut length) => {
                while length > 0 {
                    cancel.check()?;
                    let now = length.min(zeros.as_slice().len() as u64);
                    write(&zeros.as_slice()[..now as usize])?;
                    length -= now;
                }
            }
        }
    }
    output.flush().map_err(|source| TransferError::Output { offset, source })?;
    log::info(&format!(
        "exported {offset} bytes of {name} ({data} of them read, the rest holes) in {:.1} s",
        started.elapsed().as_secs_f64()
    ));
    Ok(())
}

fn place_of(transfer: &Transfer, device: &str) -> Result<Place, EnvError> {
    Place::choose(transfer.device.as_deref(), transfer.uri.as_deref())
        .ok_or_else(|| EnvError::Missing(device.to_owned()))
}

/// Of the programs that the configuration names these two run here.
fn check_trust(config: &Config) -> Result<(), TransferError> {
    let refused = |key| move |source| TransferError::Distrust { key, source };
    trust::check_program(&daemon(config)).map_err(refused("STORAGE_DAEMON"))?;
    match &config.progress_monitor {
        Some(program) => trust::check_program(program).map_err(refused("PROGRESS_MONITOR")),
        None => Ok(()),
    }
}

/// The receiver of progress messages.
fn monitor(
    env: &Environment,
    config: &Config,
    kind: &'static str,
    transfer: &Transfer,
) -> Result<Monitor, EnvError> {
    let monitor = match &config.progress_monitor {
        Some(program) => Monitor::to_program(program, env.instance_name()?),
        None => Monitor::to_log(),
    };
    Ok(monitor.about(kind, transfer.index))
}

/// Ganeti shows progress when it knows how much is to come. It can do without.
fn tell_size(transfer: &Transfer, size: u64) {
    let Some(fd) = transfer.size_fd else { return };
    let told = OpenOptions::new()
        .write(true)
        .open(format!("/proc/self/fd/{fd}"))
        .and_then(|mut file| file.write_all(format!("{size}\n").as_bytes()));
    if let Err(error) = told {
        log::warning(&format!("cannot tell the size to Ganeti (EXP_SIZE_FD={fd}): {error}"));
    }
}

/// Writes what `input` gives to the disk; holes and zeros are not stored.
pub fn import(
    env: &Environment,
    config: &Config,
    cancel: &Cancel,
    input: Box<dyn Read + Send>,
) -> Result<(), TransferError> {
    env.check_api_version()?;
    check_trust(config)?;
    let transfer = env.import()?;
    let place = place_of(&transfer, "IMPORT_DEVICE")?;
    let mut opened = OpenDisk::open(&place, config, cancel)?;
    let target = opened.destination();
    // The size that Ganeti promised; a device may be a little larger than that, and the
    // dump of one that was is too.
    let promised = env
        .text(&format!("DISK_{}_SIZE", transfer.index))?
        .and_then(|mib| mib.parse::<u64>().ok())
        .and_then(|mib| mib.checked_mul(1 << 20))
        .filter(|bytes| *bytes <= target.size());
    let expected = promised.unwrap_or_else(|| target.size());
    let first = cancel.wait(move || peek(input))?;
    let Some(input) = first.map_err(|source| SourceError::Io {
        name: "the export on standard input".into(),
        offset: None,
        source,
    })?
    else {
        return Err(TransferError::Truncated { found: 0, expected, index: transfer.index });
    };
    let image = StreamImage::new(input, "the export on standard input", None);
    let mut monitor = monitor(env, config, "disk-import-progress", &transfer)?;
    // The stream does not tell its own size: it should be the disk's.
    let mut progress = |position, _| monitor.position(position, Some(expected));
    let report = copy::copy_image(Box::new(image), target, 0, Settle::Now, cancel, &mut progress)?;
    if report.size < expected && !config.import_short {
        return Err(TransferError::Truncated {
            found: report.size,
            expected,
            index: transfer.index,
        });
    }
    log::info(&format!(
        "imported {} bytes to {} ({} of them data) in {:.1} s",
        report.size,
        place.text(),
        report.written,
        report.elapsed.as_secs_f64()
    ));
    Ok(())
}

/// Standard input as a file of its own, without the buffer of the standard library.
pub fn standard_input() -> io::Result<File> {
    Ok(File::from(rustix::io::dup(io::stdin()).map_err(io::Error::from)?))
}

/// Standard output, likewise: its line buffer would cut every block in two.
///
/// # Errors
///
/// It is closed: an export would be lost without a word.
pub fn standard_output() -> io::Result<File> {
    if snf_ceiling::output_was_closed() {
        return Err(io::Error::other("it is closed"));
    }
    Ok(File::from(rustix::io::dup(io::stdout()).map_err(io::Error::from)?))
}
