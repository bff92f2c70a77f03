//! Disks in the formats of other makers (vmdk, vhdx, vhd, vdi): QEMU's storage daemon opens them, and
//! we read and write them over a private socket. An image that names further files is refused before
//! QEMU sees it: it would open them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use snf_fs::{BlockDevice, DeviceError};

use crate::{DaemonError, EXPORT, NbdClient, StorageDaemon};

/// QEMU's program, looked for in the PATH.
pub const PROGRAM: &str = "qemu-storage-daemon";
/// QEMU reads so much of a vmdk's descriptor.
const DESCRIPTOR_MAX: usize = 20 * 512;
/// The beginning of a vmdk that is a text and describes a disk in further files.
pub const VMDK_TEXT: &[u8] = b"# Disk DescriptorFile";

/// A format of another maker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// VMware's format, in one file.
    Vmdk,
    /// Hyper-V's format.
    Vhdx,
    /// Virtual PC's format, fixed or dynamic.
    Vhd,
    /// VirtualBox's format.
    Vdi,
}

impl Foreign {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Vmdk, Self::Vhdx, Self::Vhd, Self::Vdi];

    /// Its name, which is also the usual ending of a file's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vmdk => "vmdk",
            Self::Vhdx => "vhdx",
            Self::Vhd => "vhd",
            Self::Vdi => "vdi",
        }
    }

    /// The format with this name; QEMU's own name of vhd is vpc.
    pub fn from_name(name: &str) -> Option<Self> {
        if name == "vpc" {
            return Some(Self::Vhd);
        }
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    fn driver(self) -> &'static str {
        match self {
            Self::Vhd => "vpc",
            other => other.name(),
        }
    }
}

/// Why an image is not opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ForeignError {
    /// The daemon is not installed.
    #[error(
        "it is a {} image, which needs {PROGRAM}, and that is not installed; install qemu-utils (on \
         Debian 12 qemu-system-common, on Fedora qemu-img), or convert the image with qemu-img \
         convert",
        format.name()
    )]
    NotInstalled {
        /// The format.
        format: Foreign,
    },
    /// The daemon does not start.
    #[error(transparent)]
    Daemon(DaemonError),
    /// The image is not whole by itself.
    #[error("{0}; make one image of it with qemu-img convert")]
    OtherFiles(&'static str),
    /// The file cannot be read.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// Somebody of QEMU's has it.
    #[error("another program has locked it, most likely a running virtual machine")]
    Busy,
    /// The daemon only reads this format.
    #[error("{PROGRAM} opens {} images only for reading here", format.name())]
    ReadOnly {
        /// The format.
        format: Foreign,
    },
    /// The daemon finds something wrong with it.
    #[error("{PROGRAM} does not open it as {}: {words}", format.name())]
    Refused {
        /// The format.
        format: Foreign,
        /// The daemon's last words.
        words: String,
    },
}

/// A disk that the daemon has open.
#[derive(Debug)]
pub struct ForeignDisk {
    /// The connection is closed before the daemon is ended.
    client: Mutex<Option<NbdClient>>,
    daemon: Option<StorageDaemon>,
    size: u64,
    writable: bool,
}

/// Opens the disk in a file that is open for reading and, where it is to be changed, for writing. The
/// file needs no QEMU lock of ours: the daemon takes its own. `stop` ends waits with its error; see
/// [`NbdClient::connect`]. Call it on a thread that lives as long as the disk is needed.
///
/// # Errors
/// See [`ForeignError`]. Nothing has been written.
pub fn open(
    file: &File,
    format: Foreign,
    writable: bool,
    stop: impl Fn() -> io::Result<()> + Send + Sync + 'static,
) -> Result<ForeignDisk, ForeignError> {
    if let Some(problem) = needs_other_files(file, format).map_err(ForeignError::Read)? {
        return Err(ForeignError::OtherFiles(problem));
    }
    let options = options(file, format, writable).map_err(ForeignError::Read)?;
    let started = StorageDaemon::start(Path::new(PROGRAM), options, writable, &[file.as_fd()]);
    let mut daemon = started.map_err(|error| match error {
        DaemonError::NoProgram { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            ForeignError::NotInstalled { format }
        }
        error => ForeignError::Daemon(error),
    })?;
    let connected = daemon.connect().and_then(|stream| NbdClient::connect(stream, EXPORT, stop));
    match connected {
        Ok(client) if writable && client.read_only() => Err(ForeignError::ReadOnly { format }),
        Ok(client) => Ok(ForeignDisk {
            size: client.size(),
            client: Mutex::new(Some(client)),
            daemon: Some(daemon),
            writable,
        }),
        Err(error) => match daemon.complaint().unwrap_or_else(|| error.to_string()) {
            words if words.contains("lock") => Err(ForeignError::Busy),
            words => Err(ForeignError::Refused { format, words }),
        },
    }
}

/// The options of the block device: no file but the one that is open, whatever the image names.
fn options(file: &File, format: Foreign, writable: bool) -> io::Result<Value> {
    let block = file.metadata()?.file_type().is_block_device();
    let mut options = json!({
        "driver": format.driver(),
        "read-only": !writable,
        "file": {
            "driver": if block { "host_device" } else { "file" },
            "filename": format!("/dev/fd/{}", file.as_raw_fd()),
            "read-only": !writable,
        },
    });
    if format == Foreign::Vmdk {
        options["backing"] = Value::Null;
    }
    if !writable {
        // To look is allowed while somebody else has it, as with a raw disk.
        options["force-share"] = true.into();
    }
    Ok(options)
}

/// Why the image is not whole by itself. QEMU would open whatever files it names.
fn needs_other_files(file: &File, format: Foreign) -> io::Result<Option<&'static str>> {
    const FURTHER: &str = "it describes a disk in further files, which are not opened";
    const DIFFERENCE: &str = "it is a difference to another image, which is not opened";
    let size = {
        let mut file = file;
        io::Seek::seek(&mut file, io::SeekFrom::End(0))?
    };
    let read = |offset: u64, length: usize| {
        let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut bytes = vec![0; length.min(left)];
        file.read_exact_at(&mut bytes, offset).map(|()| bytes)
    };
    let head = read(0, 512)?;
    let word = |at: usize| -> u64 {
        let bytes = head.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    match format {
        Foreign::Vmdk if head.starts_with(VMDK_TEXT) => Ok(Some(FURTHER)),
        Foreign::Vmdk if !head.starts_with(b"KDMV") => {
            Ok(Some("it is no vmdk image in one file, which begins with KDMV"))
        }
        // The capacity; without one, the descriptor names the files that hold the disk.
        Foreign::Vmdk if word(12) == 0 => Ok(Some(FURTHER)),
        Foreign::Vmdk => {
            let text = match word(28) {
                0 => Vec::new(),
                sector => read(sector.saturating_mul(512), DESCRIPTOR_MAX)?,
            };
            let text = String::from_utf8_lossy(&text).to_ascii_lowercase();
            let none =
                |rest: &str| rest.trim_start_matches([' ', '=', '"', '\t']).starts_with("ffffffff");
            let mut parents = text.lines().filter_map(|line| line.trim().strip_prefix("parentcid"));
            let has_parent = parents.any(|rest| !none(rest)) || text.contains("parentfilenamehint");
            Ok(has_parent.then_some(DIFFERENCE))
        }
        // The copy of the footer that all but fixed disks begin with: the type of the disk.
        Foreign::Vhd => {
            let kind = head.get(60..64).filter(|_| head.starts_with(b"conectix"));
            Ok((kind == Some(&[0, 0, 0, 4])).then_some(DIFFERENCE))
        }
        // QEMU refuses those of them that have a parent.
        Foreign::Vhdx | Foreign::Vdi => Ok(None),
    }
}

impl ForeignDisk {
    fn client(&self) -> MutexGuard<'_, Option<NbdClient>> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask(
        &self,
        operation: &'static str,
        offset: u64,
        length: usize,
        act: impl FnOnce(&mut NbdClient) -> io::Result<()>,
    ) -> Result<(), DeviceError> {
        let fail = |source| DeviceError { operation, offset, length, source };
        let end = offset.checked_add(length as u64);
        if end.is_none_or(|end| end > self.size) {
            let text = format!("beyond the end of the disk ({} bytes)", self.size);
            return Err(fail(io::Error::new(io::ErrorKind::UnexpectedEof, text)));
        }
        match self.client().as_mut() {
            Some(client) => act(client).map_err(fail),
            None => Err(fail(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl BlockDevice for ForeignDisk {
    fn len(&self) -> u64 {
        self.size
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.ask("read", offset, buf.len(), |client| client.read(offset, buf))
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        self.ask("write", offset, buf.len(), |client| client.write(offset, buf))
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.ask("flush", 0, 0, NbdClient::flush)
    }
}

impl Drop for ForeignDisk {
    fn drop(&mut self) {
        drop(self.client().take());
        if let Some(daemon) = self.daemon.take().filter(|_| self.writable) {
            daemon.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn problem(bytes: &[u8], format: Foreign) -> Option<&'static str> {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        needs_other_files(&file, format).unwrap()
    }

    fn vmdk(capacity: u64, descriptor: &str) -> Vec<u8> {
        let mut head = vec![0; 512];
        head[..4].copy_from_slice(b"KDMV");
        head[12..20].copy_from_slice(&capacity.to_le_bytes());
        head[28..36].copy_from_slice(&1u64.to_le_bytes());
        head.extend_from_slice(descriptor.as_bytes());
        head
    }

    #[test]
    fn an_image_cannot_name_a_file_of_this_machine() {
        let own = "# Disk DescriptorFile\nCID=1\nparentCID=ffffffff\nRW 8 SPARSE \"x.vmdk\"\n";
        assert_eq!(problem(&vmdk(8, own), Foreign::Vmdk), None);
        assert_eq!(problem(&vmdk(8, ""), Foreign::Vmdk), None);
        for (bytes, part) in [
            (vmdk(0, "RW 8 FLAT \"/etc/shadow\" 0\n"), "further files"),
            (vmdk(8, "parentCID=12345678\n"), "difference"),
            (vmdk(8, "parentCID=ffffffff\nparentFileNameHint=\"/etc/shadow\"\n"), "difference"),
            (b"# Disk DescriptorFile\nRW 8 FLAT \"/etc/shadow\" 0\n".to_vec(), "further files"),
            (b"COWD".to_vec(), "one file"),
        ] {
            assert!(problem(&bytes, Foreign::Vmdk).unwrap().contains(part), "{part}");
        }
        let mut vhd = vec![0; 512];
        vhd[..8].copy_from_slice(b"conectix");
        vhd[63] = 3;
        assert_eq!(problem(&vhd, Foreign::Vhd), None);
        vhd[63] = 4;
        assert!(problem(&vhd, Foreign::Vhd).unwrap().contains("difference"));
    }
}
