//! Disks in a container: which format a file has, and qcow2 opened in place.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use snf_claim::{Busy, Purpose};
use snf_container::qcow2::{Backing, DirectoryResolver, Error, Options, Qcow2};
use snf_container::{GrowableDevice, GrowableFile};
use snf_fs::{BlockDevice, DeviceError};
use snf_image::failure::sentence;
use snf_partition::signature::{Signature, WRAPPED};
use snf_storage::foreign::{self, Foreign, ForeignDisk, ForeignError, VMDK_TEXT};

use crate::args::{BackingArg, Format, Wrapping};
use crate::disk::{Access, OpenDisk};
use crate::exit::{Exit, Failure};
use crate::signals::{Progress, Watched};

/// The format of an open disk: as the command line says, or by the beginning of a regular file. A
/// block device is raw: its bytes belong to a guest, who could write anything there.
pub(crate) fn format(disk: &OpenDisk, wrapping: Wrapping) -> io::Result<Format> {
    if let Some(format) = wrapping.format {
        return Ok(format);
    }
    if disk.block {
        return Ok(Format::Raw);
    }
    let mut head = [0; 128];
    let there = usize::try_from(disk.size).map_or(head.len(), |size| size.min(head.len()));
    let head = &mut head[..there];
    disk.file.read_exact_at(head, 0)?;
    if head.starts_with(VMDK_TEXT) {
        return Ok(Format::Foreign(Foreign::Vmdk));
    }
    let begins = |signature: &&Signature| {
        let start = signature.offset().and_then(|offset| usize::try_from(offset).ok());
        start.and_then(|start| head.get(start..)).is_some_and(|b| b.starts_with(signature.magic))
    };
    Ok(match WRAPPED.iter().find(begins).map(|signature| signature.kind) {
        Some("qcow2") => Format::Qcow2,
        // A compressed one is named when it is looked into.
        Some(kind) => Foreign::from_name(kind).map_or(Format::Raw, Format::Foreign),
        None => Format::Raw,
    })
}

/// Opens the qcow2 image in an open and claimed file.
pub(crate) fn open_qcow2(
    path: &Path,
    file: File,
    access: Access,
    backing: BackingArg,
    progress: Progress,
) -> Result<(Arc<Noted>, Damage), Failure> {
    let fail = |error: Error| {
        Failure::new(exit_of(&error), format!("{}: {}", path.display(), sentence(&error)))
    };
    let file = GrowableFile::new(file).map_err(|error| {
        Failure::new(Exit::Device, format!("cannot use {}: {error}", path.display()))
    })?;
    let backing = match backing {
        BackingArg::Refuse => Backing::Refuse,
        BackingArg::Allow => {
            let directory = path.parent().unwrap_or(Path::new("."));
            Backing::Allow(Arc::new(DirectoryResolver::new(directory).admit(claim_backing)))
        }
    };
    let options = match access {
        Access::Read => Options::read_only(),
        Access::Write => Options::writable(),
    };
    let file = Watched::new(file, progress.clone());
    let disk = Qcow2::open(file, options.backing(backing)).map_err(fail)?;
    let damage = Damage::default();
    Ok((Arc::new(Noted { disk, damage: damage.clone(), progress }), damage))
}

/// Opens the image of another maker in an open and claimed file.
pub(crate) fn open_foreign(
    path: &Path,
    file: &File,
    format: Foreign,
    access: Access,
) -> Result<ForeignDisk, Failure> {
    // The daemon takes QEMU's locks itself; ours would stand in its way. That against our other runs
    // stays.
    snf_claim::hand_over(file);
    foreign::open(file, format, access == Access::Write, || Ok(())).map_err(|error| {
        let shown = path.display();
        let (exit, text) = match &error {
            ForeignError::Busy => (Exit::Busy, format!("{shown} is in use: {}", sentence(&error))),
            ForeignError::Daemon(_) | ForeignError::Read(_) => {
                (Exit::Device, format!("{shown}: {}", sentence(&error)))
            }
            _ => (Exit::Refused, format!("{shown}: {}", sentence(&error))),
        };
        Failure::new(exit, text)
    })
}

/// Claims a backing file: while we read it, none of our runs may write to it.
fn claim_backing(file: &File) -> io::Result<()> {
    snf_claim::claim(file, Purpose::Read)
        .map_err(|busy| io::Error::new(io::ErrorKind::ResourceBusy, busy))
}

/// The code for an image that is not opened.
fn exit_of(error: &Error) -> Exit {
    match error {
        Error::Corrupt { .. } | Error::Compressed { .. } | Error::Marked { .. } => Exit::Corrupt,
        Error::Device(_) => Exit::Device,
        Error::Backing { source, .. } => {
            if let Some(below) = source.downcast_ref::<Error>() {
                return exit_of(below);
            }
            let cause = source.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            if cause.is_some_and(|cause| cause.is::<Busy>()) { Exit::Busy } else { Exit::Device }
        }
        _ => Exit::Refused,
    }
}

/// Whether the container turned out to be damaged while it was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Damage(Arc<AtomicBool>);

impl Damage {
    /// A disk that could not be read because its container is damaged is no failing device.
    pub(crate) fn judge(&self, exit: Exit) -> Exit {
        match exit {
            Exit::Device if self.0.load(Ordering::Acquire) => Exit::Corrupt,
            other => other,
        }
    }
}

/// The disk in an image; notes when the image contradicts itself.
pub(crate) struct Noted {
    disk: Qcow2,
    damage: Damage,
    progress: Progress,
}

impl Noted {
    /// Whether the disk can be made this large.
    pub(crate) fn check_grow(&self, path: &Path, size: u64) -> Result<(), Failure> {
        self.disk.check_grow(size).map_err(|error| {
            Failure::new(exit_of(&error), format!("{}: {}", path.display(), sentence(&error)))
        })
    }

    /// Makes the disk larger.
    pub(crate) fn grow(&self, size: u64) -> Result<(), DeviceError> {
        self.note(self.disk.grow(size).map_err(|error| DeviceError {
            operation: "enlarge the disk to",
            offset: 0,
            length: size as usize,
            source: io::Error::other(error),
        }))
    }

    fn note<T>(&self, result: Result<T, DeviceError>) -> Result<T, DeviceError> {
        if let Err(error) = &result {
            let cause = error.source.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
            if cause.is_some_and(|cause| exit_of(cause) == Exit::Corrupt) {
                self.damage.0.store(true, Ordering::Release);
            }
        }
        result
    }
}

impl BlockDevice for Noted {
    fn len(&self) -> u64 {
        self.disk.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.note(self.disk.read_at(offset, buf))
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        self.note(self.disk.write_at(offset, buf))
    }
    // A cluster that is new, or one of which the guest uses nothing: what the guest sees of its files
    // stays.
    fn write_free(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        self.progress.of_free_places(|| self.note(self.disk.write_at(offset, buf)))
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.note(self.disk.flush())
    }
}

impl<D: GrowableDevice> GrowableDevice for Watched<D> {
    fn set_len(&self, size: u64) -> Result<(), DeviceError> {
        self.begin();
        self.device().set_len(size)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn disk(bytes: &[u8], block: bool) -> OpenDisk {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        OpenDisk { file, size: bytes.len() as u64, sector_size: 512, block }
    }

    #[test]
    fn only_a_file_is_told_by_its_beginning() {
        let unsaid = Wrapping { format: None, backing: BackingArg::Refuse };
        let raw = Wrapping { format: Some(Format::Raw), ..unsaid };
        let qcow2 = Wrapping { format: Some(Format::Qcow2), ..unsaid };
        for (bytes, block, wrapping, expected) in [
            (&b"QFI\xfb..."[..], false, unsaid, Format::Qcow2),
            (b"QFI\xfb...", true, unsaid, Format::Raw),
            (b"QFI\xfb...", false, raw, Format::Raw),
            (b"QFI\xfb...", true, qcow2, Format::Qcow2),
            (b"QFI", false, unsaid, Format::Raw),
            (b"KDMV", false, unsaid, Format::Foreign(Foreign::Vmdk)),
            (b"KDMV", true, unsaid, Format::Raw),
            (b"KDMV", false, raw, Format::Raw),
            (b"vhdxfile", false, unsaid, Format::Foreign(Foreign::Vhdx)),
            (b"conectix", false, unsaid, Format::Foreign(Foreign::Vhd)),
            (b"# Disk DescriptorFile\n", false, unsaid, Format::Foreign(Foreign::Vmdk)),
            (
                &[[0; 64].as_slice(), b"\x7f\x10\xda\xbe"].concat(),
                false,
                unsaid,
                Format::Foreign(Foreign::Vdi),
            ),
            (b"\x1f\x8b\x08", false, unsaid, Format::Raw),
            (b"", false, unsaid, Format::Raw),
            (b"....", false, qcow2, Format::Qcow2),
        ] {
            assert_eq!(format(&disk(bytes, block), wrapping).unwrap(), expected);
        }
    }

    #[test]
    fn damage_is_told_from_a_failing_device() {
        let damage = Damage::default();
        assert_eq!(damage.judge(Exit::Device), Exit::Device);
        damage.0.store(true, Ordering::Release);
        assert_eq!(damage.judge(Exit::Device), Exit::Corrupt);
        assert_eq!(damage.judge(Exit::Refused), Exit::Refused);
    }

    #[test]
    fn every_refusal_has_its_code() {
        let backing = |source: Box<dyn std::error::Error + Send + Sync>| Error::Backing {
            name: "b".to_owned(),
            source,
        };
        let busy = io::Error::new(io::ErrorKind::ResourceBusy, Busy::Locked);
        for (error, expected) in [
            (Error::NotQcow2, Exit::Refused),
            (Error::Marked { mark: "dirty" }, Exit::Corrupt),
            (Error::BackingRefused { name: "b".to_owned() }, Exit::Refused),
            (backing(Box::new(busy)), Exit::Busy),
            (backing(Box::new(io::Error::from(io::ErrorKind::NotFound))), Exit::Device),
            (backing(Box::new(Error::Marked { mark: "corrupt" })), Exit::Corrupt),
        ] {
            assert_eq!(exit_of(&error), expected, "{error}");
        }
    }
}
