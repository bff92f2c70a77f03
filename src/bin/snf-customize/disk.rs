//! Opening the disk: a file or a block device, for us alone while we write.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::ioctl_blksszget;
use rustix::io::Errno;
use snf_claim::Purpose;
use snf_fs::{BlockDevice, DeviceError, FileDevice};
use snf_storage::foreign::Foreign;

use crate::args::{Format, Stack, Wrapping};
use crate::container::{self, Damage};
use crate::exit::{Exit, Failure};
use crate::resize::{self, DiskSize, Resized};
use crate::selector::io_problem;
use crate::signals::{Progress, Watched};

/// The purpose of opening the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// To look only.
    Read,
    /// To change it.
    Write,
}

/// The file or device that a disk is, open and locked.
pub(crate) struct OpenDisk {
    pub(crate) file: File,
    /// Size of the file or device in bytes, not of the disk in it.
    pub(crate) size: u64,
    /// Size of a sector in bytes.
    pub(crate) sector_size: u32,
    /// Whether it is a block device.
    pub(crate) block: bool,
}

/// A disk that is open, whatever it is wrapped in.
pub(crate) struct Disk {
    /// The bytes that the guest sees.
    pub(crate) device: Arc<dyn BlockDevice>,
    pub(crate) format: Format,
    /// Its size in bytes before this run, when the run makes it larger.
    pub(crate) grown_from: Option<u64>,
    damage: Damage,
    /// The open file that holds our locks, where the device does not.
    _claim: Option<File>,
}

impl Disk {
    /// The code for a failure of reading this disk: damage of its container is told from a device
    /// that fails.
    pub(crate) fn judge(&self, exit: Exit) -> Exit {
        self.damage.judge(exit)
    }
}

/// All disks of a guest.
pub(crate) struct Disks {
    /// The first one holds the image.
    disks: Vec<Disk>,
}

impl Disks {
    /// The format of the image's disk.
    pub(crate) fn format(&self) -> Format {
        self.disks.first().map_or(Format::Raw, |disk| disk.format)
    }

    /// Whether one of them has this format.
    pub(crate) fn any(&self, format: Format) -> bool {
        self.disks.iter().any(|disk| disk.format == format)
    }

    /// The bytes of each disk, as the guest sees them.
    pub(crate) fn devices(&self) -> Vec<Arc<dyn BlockDevice>> {
        self.disks.iter().map(|disk| disk.device.clone()).collect()
    }

    /// The size of the image's disk before and after, when the run makes it larger.
    pub(crate) fn sizes(&self) -> Option<(u64, u64)> {
        let first = self.disks.first()?;
        first.grown_from.map(|before| (before, first.device.len()))
    }

    /// The code for a failure of reading these disks: see [`Disk::judge`].
    pub(crate) fn judge(&self, exit: Exit) -> Exit {
        self.disks.iter().fold(exit, |exit, disk| disk.judge(exit))
    }

    /// Flushes all: the image's disk, which holds the root, at the end.
    pub(crate) fn flush(&self) -> Result<(), DeviceError> {
        self.disks.iter().rev().try_for_each(|disk| disk.device.flush())
    }
}

/// Opens the image's disk and the guest's further ones.
pub(crate) fn open_all(
    first: &Path,
    stack: &Stack,
    wrapping: Wrapping,
    access: Access,
    progress: &Progress,
) -> Result<Disks, Failure> {
    distinct(first, &stack.more)?;
    open_all_sized(first, open_file(first, access)?, stack, wrapping, access, None, progress)
}

/// Sees to it that no disk is given twice.
pub(crate) fn distinct(first: &Path, more: &[PathBuf]) -> Result<(), Failure> {
    let mut seen = Vec::new();
    for path in std::iter::once(first).chain(more.iter().map(PathBuf::as_path)) {
        // One that is not there is told when it is opened.
        let Ok(metadata) = fs::metadata(path) else { continue };
        let identity = match metadata.file_type().is_block_device() {
            true => (0, metadata.rdev()),
            false => (metadata.dev(), metadata.ino()),
        };
        if seen.contains(&identity) {
            let text = format!("--disk: {} is given twice", path.display());
            return Err(Failure::usage(text));
        }
        seen.push(identity);
    }
    Ok(())
}

/// The image's disk, which is open and may be to have another size, and the guest's further ones.
pub(crate) fn open_all_sized(
    first: &Path,
    opened: OpenDisk,
    stack: &Stack,
    wrapping: Wrapping,
    access: Access,
    wanted: Option<DiskSize>,
    progress: &Progress,
) -> Result<Disks, Failure> {
    let mut disks = vec![unwrap(first, opened, wrapping, access, wanted, progress.clone())?];
    for (index, path) in stack.more.iter().enumerate() {
        let format = stack.formats.get(index).copied().or(wrapping.format);
        let wrapping = Wrapping { format, ..wrapping };
        disks.push(open(path, wrapping, access, progress.clone())?);
    }
    Ok(Disks { disks })
}

/// Opens a disk.
pub(crate) fn open(
    path: &Path,
    wrapping: Wrapping,
    access: Access,
    progress: Progress,
) -> Result<Disk, Failure> {
    unwrap(path, open_file(path, access)?, wrapping, access, None, progress)
}

/// The disk in a file that is open, which may be to have another size.
fn unwrap(
    path: &Path,
    opened: OpenDisk,
    wrapping: Wrapping,
    access: Access,
    wanted: Option<DiskSize>,
    progress: Progress,
) -> Result<Disk, Failure> {
    let format = format(path, &opened, wrapping)?;
    if let Format::Foreign(foreign) = format {
        return unwrap_foreign(path, &opened, foreign, access, wanted, progress);
    }
    let OpenDisk { file, size, sector_size, block } = opened;
    if wanted.is_some() && format == Format::Raw {
        resize::refuse_block(path, block)?;
    }
    let mut grown_from = None;
    let (device, damage): (Arc<dyn BlockDevice>, _) = match format {
        Format::Raw => {
            let after = wanted.map_or(Ok(size), |wanted| wanted.of(path, size))?;
            let other = file.try_clone().map_err(|error| {
                Failure::new(Exit::Device, format!("cannot use {}: {error}", path.display()))
            })?;
            let watched = Watched::new(FileDevice::new(file, after, sector_size), progress.clone());
            let device: Arc<dyn BlockDevice> = Arc::new(watched);
            if after == size {
                (device, Damage::default())
            } else {
                grown_from = Some(size);
                let grow = Box::new(move |size| resize::lengthen(&other, size, &progress));
                (Arc::new(Resized::new(device, size, after, grow)), Damage::default())
            }
        }
        _ => {
            let (disk, damage) =
                container::open_qcow2(path, file, access, wrapping.backing, progress)?;
            let size = disk.len();
            let after = wanted.map_or(Ok(size), |wanted| wanted.of(path, size))?;
            if after == size {
                (disk, damage)
            } else {
                disk.check_grow(path, after)?;
                grown_from = Some(size);
                let image = disk.clone();
                let grow = Box::new(move |size| image.grow(size));
                (Arc::new(Resized::new(disk, size, after, grow)), damage)
            }
        }
    };
    if device.is_empty() {
        return Err(Failure::new(
            Exit::Device,
            format!("cannot use {}: the disk in it is empty", path.display()),
        ));
    }
    Ok(Disk { device, format, grown_from, damage, _claim: None })
}

/// The disk in an open file of a format that only QEMU knows.
fn unwrap_foreign(
    path: &Path,
    opened: &OpenDisk,
    format: Foreign,
    access: Access,
    wanted: Option<DiskSize>,
    progress: Progress,
) -> Result<Disk, Failure> {
    if wanted.is_some() {
        return Err(Failure::new(
            Exit::Refused,
            format!(
                "--size: {} is a {} image, and only raw and qcow2 are made larger in place; make a \
                 larger disk of it with snf-customize deploy IMAGE TARGET --size",
                path.display(),
                format.name()
            ),
        ));
    }
    let disk = container::open_foreign(path, &opened.file, format, access)?;
    if disk.is_empty() {
        return Err(Failure::new(
            Exit::Device,
            format!("cannot use {}: the disk in it is empty", path.display()),
        ));
    }
    let device: Arc<dyn BlockDevice> = Arc::new(Watched::new(disk, progress));
    // The daemon has a descriptor of its own; ours holds the claim.
    let claim = opened.file.try_clone().ok();
    let (format, damage) = (Format::Foreign(format), Damage::default());
    Ok(Disk { device, format, grown_from: None, damage, _claim: claim })
}

/// The format of an open disk.
pub(crate) fn format(path: &Path, disk: &OpenDisk, wrapping: Wrapping) -> Result<Format, Failure> {
    container::format(disk, wrapping).map_err(|error| {
        let text = format!("cannot use {}: {}", path.display(), io_problem(&error));
        Failure::new(Exit::Device, text)
    })
}

/// Opens and locks the file or device that a disk is.
pub(crate) fn open_file(path: &Path, access: Access) -> Result<OpenDisk, Failure> {
    let shown = path.display();
    let fail =
        |problem: String| Failure::new(Exit::Device, format!("cannot use {shown}: {problem}"));
    let metadata = fs::metadata(path).map_err(|error| fail(io_problem(&error)))?;
    let kind = metadata.file_type();
    let block = kind.is_block_device();
    if kind.is_dir() {
        return Err(fail(
            "it is a directory; a disk is a file or block device with an image on it".to_owned(),
        ));
    }
    if !block && !kind.is_file() {
        return Err(fail("it is neither a regular file nor a block device".to_owned()));
    }

    let mut options = OpenOptions::new();
    options.read(true).write(access == Access::Write);
    if block && access == Access::Write {
        // On a block device the kernel then refuses what is mounted or part of something else.
        options.custom_flags(rustix::fs::OFlags::EXCL.bits() as i32);
    }
    let mut file = options.open(path).map_err(|error| match error.raw_os_error() {
        Some(code) if code == Errno::BUSY.raw_os_error() => match snf_claim::user_of(&metadata) {
            Some(user) => busy(path, &user.to_string()),
            None => busy(
                path,
                "it, or a partition on it, is mounted or part of a volume group or RAID; unmount it first",
            ),
        },
        Some(code) if code == Errno::ROFS.raw_os_error() => {
            fail("it is on a read-only file system".to_owned())
        }
        _ if error.kind() == io::ErrorKind::PermissionDenied => fail(format!(
            "permission denied; it must be {} for you",
            if access == Access::Write { "readable and writable" } else { "readable" }
        )),
        _ => fail(io_problem(&error)),
    })?;

    let purpose = match access {
        Access::Read => Purpose::Read,
        Access::Write => Purpose::Write,
    };
    snf_claim::claim(&file, purpose).map_err(|user| busy(path, &user.to_string()))?;

    let size = file.seek(SeekFrom::End(0)).map_err(|error| fail(io_problem(&error)))?;
    if size == 0 {
        return Err(fail("it is empty".to_owned()));
    }
    let sector_size = if block {
        ioctl_blksszget(&file)
            .map_err(|errno| fail(format!("its sector size cannot be found: {errno}")))?
    } else {
        512
    };
    if !matches!(sector_size, 512 | 1024 | 2048 | 4096) {
        return Err(fail(format!(
            "it has sectors of {sector_size} bytes; 512 and 4096 are handled"
        )));
    }
    Ok(OpenDisk { file, size, sector_size, block })
}

fn busy(path: &Path, problem: &str) -> Failure {
    Failure::new(Exit::Busy, format!("{} is in use: {problem}", path.display()))
}
