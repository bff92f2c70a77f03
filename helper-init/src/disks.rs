//! The disks of the VM, opened while we may.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::sync::Arc;

use snf_fs::{BlockDevice, FileDevice};

use crate::error::InitError;

/// Disks by device file.
pub(crate) type Disks = BTreeMap<String, Arc<dyn BlockDevice>>;

/// Opens every disk but the parameter disk. A disk that refuses to be written is there to be
/// looked at (a dry run) and is opened for reading.
pub(crate) fn open_disks(rules_dev: &str, writable: bool) -> Result<Disks, InitError> {
    let mut disks = Disks::new();
    let entries = fs::read_dir("/sys/block").map_err(InitError::at("list /sys/block"))?;
    for entry in entries.flatten() {
        let path = format!("/dev/{}", entry.file_name().to_string_lossy());
        if path.starts_with("/dev/vd")
            && path != rules_dev
            && let Ok(disk) = open(&path, writable).or_else(|_| open(&path, false))
        {
            disks.insert(path, disk);
        }
    }
    Ok(disks)
}

/// Opens one disk.
pub(crate) fn open(path: &str, writable: bool) -> io::Result<Arc<dyn BlockDevice>> {
    let mut file: File = OpenOptions::new().read(true).write(writable).open(path)?;
    let size = file.seek(SeekFrom::End(0))?;
    // A partition table counts in these.
    let sector_size = rustix::fs::ioctl_blksszget(&file)?;
    Ok(Arc::new(FileDevice::new(file, size, sector_size)))
}
