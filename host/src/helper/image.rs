//! A built helper: kernel, initramfs and what update-helper wrote down about them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::HelperError;
use super::protocol::PROTOCOL_VERSION;

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
}

/// A helper that is ready to run.
#[derive(Clone, Debug)]
pub struct HelperImage {
    /// What update-helper wrote down.
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
        for name in [&description.kernel, &description.initramfs] {
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
        };
        let write = |d: &Description| {
            fs::write(dir.path().join(DESCRIPTION), serde_json::to_string(d).unwrap()).unwrap();
        };
        write(&description);
        assert!(matches!(open(), HelperError::NotBuilt(_)));
        fs::write(dir.path().join("vmlinux"), "").unwrap();
        fs::write(dir.path().join("initramfs"), "").unwrap();
        HelperImage::open(dir.path()).unwrap();
        description.kernel = "../../etc/shadow".into();
        write(&description);
        assert!(matches!(open(), HelperError::BadHelper { .. }));
    }
}
