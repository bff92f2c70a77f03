//! A built helper: kernel, initramfs and what update-helper wrote down about them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use snf_image::wire::{PROTOCOL_VERSION, words};

use super::HelperError;

/// How the parameter disk reaches the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ParameterDisk {
    /// A floppy drive: the helper's kernel has the driver.
    Floppy,
    /// The last virtio disk, read-only.
    Virtio,
}

/// `helper.json`: what is needed to run the helper and to tell what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Version of the agreement between host and helper.
    pub protocol: u32,
    /// Version of snf-image that made it.
    pub version: String,
    /// The kernel's release (`uname -r`).
    pub kernel_release: String,
    /// File name of the kernel beside this file.
    pub kernel: String,
    /// File name of the initramfs beside this file.
    pub initramfs: String,
    /// How the parameter disk is attached.
    pub parameter_disk: ParameterDisk,
    /// Whether the kernel is an ELF file with a PVH entry point (otherwise a bzImage).
    pub pvh: bool,
    /// The modules in the initramfs, in the order they are loaded.
    pub modules: Vec<String>,
    /// Options for this kernel's command line, besides those of the run.
    pub command_line: String,
    /// The other initramfs, for disks with file systems that only the kernel knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file_systems: Option<FileSystems>,
}

/// An initramfs that has the drivers of file systems too. Reading it takes time, so that it is
/// used when a helper without them has met one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileSystems {
    /// Its file name.
    pub initramfs: String,
    /// The kinds of file system that it has drivers for.
    pub kinds: Vec<String>,
}

/// A helper that is ready to run.
#[derive(Clone, Debug)]
pub struct HelperImage {
    /// The description that update-helper wrote.
    pub description: Description,
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
}

/// Name of the description within HELPER_DIR.
pub(super) const DESCRIPTION: &str = "helper.json";

impl HelperImage {
    /// Opens the helper in a directory.
    pub fn open(directory: &Path) -> Result<Self, HelperError> {
        let path = directory.join(DESCRIPTION);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(HelperError::NotBuilt(path));
            }
            Err(e) => return Err(HelperError::system(format!("read {}", path.display()))(e)),
        };
        let bad = |problem| HelperError::BadHelper { directory: directory.to_owned(), problem };
        // The protocol comes first: another version may describe itself in other words.
        #[derive(Deserialize)]
        struct Version {
            protocol: u32,
            version: String,
        }
        let version: Version =
            serde_json::from_str(&text).map_err(|e| bad(format!("{DESCRIPTION}: {e}")))?;
        if version.protocol != PROTOCOL_VERSION {
            return Err(HelperError::OtherProtocol {
                directory: directory.to_owned(),
                found: version.protocol,
                wanted: PROTOCOL_VERSION,
                made_by: version.version,
            });
        }
        let description: Description =
            serde_json::from_str(&text).map_err(|e| bad(format!("{DESCRIPTION}: {e}")))?;
        let other = description.file_systems.as_ref().map(|other| &other.initramfs);
        for name in [&description.kernel, &description.initramfs].into_iter().chain(other) {
            if name.is_empty() || name.contains('/') {
                return Err(bad(format!("{DESCRIPTION} names the file {name:?}")));
            }
            if !directory.join(name).is_file() {
                return Err(HelperError::NotBuilt(directory.join(name)));
            }
        }
        Ok(Self {
            kernel: directory.join(&description.kernel),
            initramfs: directory.join(&description.initramfs),
            description,
        })
    }

    /// The kernel's command line, besides what belongs to a run.
    pub(super) fn command_line(&self) -> String {
        match &self.description.file_systems {
            // So that it can ask to be started again, instead of failing.
            Some(_) => format!(
                "{} {}={}",
                self.description.command_line,
                words::MORE,
                words::MORE_FILE_SYSTEMS
            ),
            None => self.description.command_line.clone(),
        }
    }

    /// The same helper with the drivers of more file systems, if it has them.
    pub(super) fn with_file_systems(mut self) -> Option<Self> {
        let other = self.description.file_systems.take()?;
        self.initramfs = self.initramfs.with_file_name(&other.initramfs);
        self.description.initramfs = other.initramfs;
        Some(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_defect_has_its_own_error() {
        let dir = tempfile::tempdir().unwrap();
        let open = || HelperImage::open(dir.path()).unwrap_err();
        assert!(matches!(open(), HelperError::NotBuilt(_)));
        fs::write(dir.path().join(DESCRIPTION), "{").unwrap();
        assert!(matches!(open(), HelperError::BadHelper { .. }));
        fs::write(dir.path().join(DESCRIPTION), r#"{"protocol":99,"version":"9.0"}"#).unwrap();
        let error = open();
        assert!(matches!(error, HelperError::OtherProtocol { found: 99, .. }), "{error}");
        let mut description = Description {
            protocol: PROTOCOL_VERSION,
            version: "0".into(),
            kernel_release: "6".into(),
            kernel: "vmlinux".into(),
            initramfs: "initramfs".into(),
            parameter_disk: ParameterDisk::Virtio,
            pvh: true,
            modules: vec![],
            command_line: String::new(),
            file_systems: None,
        };
        let write = |d: &Description| {
            fs::write(dir.path().join(DESCRIPTION), serde_json::to_string(d).unwrap()).unwrap();
        };
        write(&description);
        assert!(matches!(open(), HelperError::NotBuilt(_)));
        fs::write(dir.path().join("vmlinux"), "").unwrap();
        fs::write(dir.path().join("initramfs"), "").unwrap();
        let usual = HelperImage::open(dir.path()).unwrap();
        assert!(usual.clone().with_file_systems().is_none() && usual.command_line().is_empty());
        description.file_systems =
            Some(FileSystems { initramfs: "initramfs-fs".into(), kinds: vec!["xfs".into()] });
        write(&description);
        assert!(matches!(open(), HelperError::NotBuilt(_)));
        fs::write(dir.path().join("initramfs-fs"), "").unwrap();
        let both = HelperImage::open(dir.path()).unwrap();
        assert_eq!(both.command_line(), " snf_image_more=filesystems");
        let more = both.with_file_systems().unwrap();
        assert_eq!(more.initramfs, dir.path().join("initramfs-fs"));
        assert_eq!(more.command_line(), "", "it does not ask twice");
        description.kernel = "../../etc/shadow".into();
        write(&description);
        assert!(matches!(open(), HelperError::BadHelper { .. }));
    }
}
