//! The environment Ganeti gives to an OS script, as typed values.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use snf_image::secret::Secret;

use crate::limits::DEVICES;
use crate::node::{log, scrub};

/// An error in the environment, by variable.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// A variable that the script cannot do without.
    #[error(
        "the environment variable {0} is not set; Ganeti sets it when it runs this script (see ganeti-os-interface(7))"
    )]
    Missing(String),
    /// A value that is not what the interface promises.
    #[error("the environment variable {name} is wrong: {problem}")]
    Wrong {
        /// The variable.
        name: String,
        /// The value found and the valid values. Never the value of an OS parameter.
        problem: String,
    },
}

fn wrong(name: impl Into<String>, problem: impl Into<String>) -> EnvError {
    EnvError::Wrong { name: name.into(), problem: problem.into() }
}

/// One disk of the instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disk {
    /// `n` of `DISK_n_*`.
    pub index: usize,
    /// Block device or plain file; not set when the storage has only a URI.
    pub path: Option<PathBuf>,
    /// An address that QEMU may open instead (`DISK_n_URI`).
    pub uri: Option<String>,
    /// Whether `DISK_n_ACCESS` is `ro`.
    pub read_only: bool,
    /// `DISK_n_SIZE` in MiB.
    pub size_mib: Option<u64>,
    /// `DISK_n_NAME`.
    pub name: Option<String>,
    /// `DISK_n_FRONTEND_TYPE` (paravirtual, ide, scsi, ...).
    pub frontend: Option<String>,
}

/// The one disk that `export` reads or `import` writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// `EXPORT_DEVICE` or `IMPORT_DEVICE`; not set when the storage has only a URI.
    pub device: Option<PathBuf>,
    /// `EXPORT_DISK_URI` or `IMPORT_DISK_URI`.
    pub uri: Option<String>,
    /// `EXPORT_INDEX` or `IMPORT_INDEX`.
    pub index: usize,
    /// `EXP_SIZE_FD`: the descriptor to write the size to.
    pub size_fd: Option<i32>,
}

/// Everything the scripts use of the environment.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// Every variable whose name and value are text, but for the OS parameters.
    vars: BTreeMap<String, OsString>,
    /// `OSP_*`, by lower-case name without the prefix.
    parameters: BTreeMap<String, Secret>,
}

impl Environment {
    /// The environment of this process. The values of the OS parameters are wiped there: the only
    /// copies are those in the result. Call this before there are threads.
    pub fn take() -> Self {
        let out = Self::from_vars(std::env::vars_os());
        if let Err(error) = scrub::environment("OSP_") {
            log::warning(&format!("the OS parameters stay in /proc/self/environ: {error}"));
        }
        out
    }

    /// Any environment. Names that are not text are left out, as nothing of ours has such a name.
    pub fn from_vars(vars: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut out = Self::default();
        for (name, value) in vars {
            let Ok(name) = name.into_string() else { continue };
            match name.strip_prefix("OSP_") {
                Some(parameter) if !parameter.is_empty() => {
                    out.parameters
                        .insert(parameter.to_ascii_lowercase(), Secret::new(value.into_vec()));
                }
                _ => {
                    out.vars.insert(name, value);
                }
            }
        }
        out
    }

    /// The OS parameters that were given, by lower-case name. A parameter that is set but empty
    /// is there with an empty value.
    pub fn parameters(&self) -> &BTreeMap<String, Secret> {
        &self.parameters
    }

    /// A variable as text; `None` when it is not set.
    pub fn text(&self, name: &str) -> Result<Option<&str>, EnvError> {
        match self.vars.get(name) {
            None => Ok(None),
            Some(value) => match value.to_str() {
                Some(text) => Ok(Some(text)),
                None => Err(wrong(name, "its value is not valid UTF-8")),
            },
        }
    }

    /// A variable as text that must be set and not empty.
    pub fn required(&self, name: &str) -> Result<&str, EnvError> {
        match self.text(name)? {
            None => Err(EnvError::Missing(name.to_owned())),
            Some("") => Err(wrong(name, "it is empty")),
            Some(text) => Ok(text),
        }
    }

    fn non_empty(&self, name: &str) -> Result<Option<String>, EnvError> {
        Ok(self.text(name)?.filter(|text| !text.is_empty()).map(str::to_owned))
    }

    fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, EnvError> {
        match self.text(name)? {
            None | Some("") => Ok(None),
            Some(text) => text
                .parse()
                .map(Some)
                .map_err(|_| wrong(name, format!("{text:?} is not a number in range"))),
        }
    }

    fn count(&self, name: &str) -> Result<usize, EnvError> {
        let count: usize = self.number(name)?.ok_or_else(|| EnvError::Missing(name.to_owned()))?;
        if count > DEVICES {
            return Err(wrong(name, format!("{count} is more than the {DEVICES} supported")));
        }
        Ok(count)
    }

    /// `OS_API_VERSION` must be 20 when it is given.
    pub fn check_api_version(&self) -> Result<(), EnvError> {
        match self.text("OS_API_VERSION")? {
            None | Some("20") => Ok(()),
            Some(other) => Err(wrong(
                "OS_API_VERSION",
                format!("{other:?} is not supported; this OS definition speaks version 20"),
            )),
        }
    }

    /// `INSTANCE_NAME`. It becomes a host name and an argument of the monitor, so it must look
    /// like one.
    pub fn instance_name(&self) -> Result<&str, EnvError> {
        self.host_name("INSTANCE_NAME")
    }

    /// `OLD_INSTANCE_NAME` (rename only).
    pub fn old_instance_name(&self) -> Result<&str, EnvError> {
        self.host_name("OLD_INSTANCE_NAME")
    }

    fn host_name(&self, name: &str) -> Result<&str, EnvError> {
        let text = self.required(name)?;
        if text.len() > 253
            || text.starts_with('-')
            || !text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
        {
            return Err(wrong(
                name,
                format!(
                    "{text:?} is not a host name (letters, digits, '-', '.', '_', at most 253 characters)"
                ),
            ));
        }
        Ok(text)
    }

    /// `OS_VARIANT`, when the OS has variants. It names a file, so it must be one plain word.
    pub fn variant(&self) -> Result<Option<&str>, EnvError> {
        match self.text("OS_VARIANT")? {
            None | Some("") => Ok(None),
            Some(text) => {
                let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
                if plain && !text.starts_with('.') {
                    Ok(Some(text))
                } else {
                    Err(wrong("OS_VARIANT", format!("{text:?} is not the name of a variant")))
                }
            }
        }
    }

    /// `HYPERVISOR`.
    pub fn hypervisor(&self) -> Result<Option<&str>, EnvError> {
        self.text("HYPERVISOR")
    }

    /// `DEBUG_LEVEL`, 0 when it is not set.
    pub fn debug_level(&self) -> Result<u32, EnvError> {
        Ok(self.number("DEBUG_LEVEL")?.unwrap_or(0))
    }

    /// Whether `create` runs on an instance that existed before (`INSTANCE_REINSTALL=1`).
    pub fn reinstall(&self) -> Result<bool, EnvError> {
        Ok(matches!(self.text("INSTANCE_REINSTALL")?, Some("1")))
    }

    /// `DISK_COUNT` disks. A disk needs a path or a URI.
    pub fn disks(&self) -> Result<Vec<Disk>, EnvError> {
        (0..self.count("DISK_COUNT")?).map(|index| self.disk(index)).collect()
    }

    fn disk(&self, index: usize) -> Result<Disk, EnvError> {
        let name = |field: &str| format!("DISK_{index}_{field}");
        let path = self.vars.get(&name("PATH")).filter(|path| !path.is_empty()).map(PathBuf::from);
        if let Some(path) = path.as_ref().filter(|path| !path.is_absolute()) {
            return Err(wrong(name("PATH"), format!("{path:?} is not an absolute path")));
        }
        let uri = self.non_empty(&name("URI"))?;
        if path.is_none() && uri.is_none() {
            return Err(EnvError::Missing(name("PATH")));
        }
        let read_only = match self.text(&name("ACCESS"))? {
            // How QEMU reaches the disk says nothing against writing to it.
            None | Some("" | "rw" | "w" | "userspace" | "kernelspace") => false,
            Some("ro") => true,
            Some(other) => {
                return Err(wrong(name("ACCESS"), format!("{other:?} is neither rw nor ro")));
            }
        };
        Ok(Disk {
            index,
            path,
            uri,
            read_only,
            size_mib: self.number(&name("SIZE"))?,
            name: self.non_empty(&name("NAME"))?,
            frontend: self.non_empty(&name("FRONTEND_TYPE"))?,
        })
    }

    /// Every `NIC_*` variable, for the rules: `NIC_COUNT` and whatever Ganeti (or a hook) added to
    /// each NIC.
    pub fn nic_variables(&self) -> Result<BTreeMap<String, String>, EnvError> {
        if self.vars.contains_key("NIC_COUNT") {
            self.count("NIC_COUNT")?;
        }
        let mut out = BTreeMap::new();
        for name in self.vars.keys().filter(|name| name.starts_with("NIC_")) {
            let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
            if !plain {
                continue;
            }
            if let Some(value) = self.text(name)? {
                out.insert(name.clone(), value.to_owned());
            }
        }
        Ok(out)
    }

    /// The disk that `export` reads.
    pub fn export(&self) -> Result<Transfer, EnvError> {
        self.transfer("EXPORT")
    }

    /// The disk that `import` writes.
    pub fn import(&self) -> Result<Transfer, EnvError> {
        self.transfer("IMPORT")
    }

    fn transfer(&self, prefix: &str) -> Result<Transfer, EnvError> {
        let device = format!("{prefix}_DEVICE");
        let path = self.vars.get(&device).filter(|path| !path.is_empty()).map(PathBuf::from);
        let uri = self.non_empty(&format!("{prefix}_DISK_URI"))?;
        match &path {
            None if uri.is_none() => return Err(EnvError::Missing(device)),
            Some(path) if !path.is_absolute() => {
                return Err(wrong(device, format!("{path:?} is not an absolute path")));
            }
            _ => {}
        }
        let size_fd = self.number("EXP_SIZE_FD")?;
        if size_fd.is_some_and(|fd: i32| fd < 3) {
            return Err(wrong("EXP_SIZE_FD", "it must be a descriptor above 2"));
        }
        Ok(Transfer {
            device: path,
            uri,
            index: self.number(&format!("{prefix}_INDEX"))?.unwrap_or(0),
            size_fd,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::from_vars(pairs.iter().map(|(k, v)| (OsString::from(k), OsString::from(v))))
    }

    #[test]
    fn a_real_one() {
        let env = environment(&[
            ("OS_API_VERSION", "20"),
            ("INSTANCE_NAME", "inst1.example.test"),
            ("DISK_COUNT", "2"),
            ("DISK_0_PATH", "/dev/loop0"),
            ("DISK_0_ACCESS", "rw"),
            ("DISK_0_SIZE", "1024"),
            ("DISK_1_URI", "nbd:unix:/run/x"),
            ("DISK_1_ACCESS", "ro"),
            ("NIC_COUNT", "1"),
            ("NIC_0_MAC", "aa:00:00:00:00:01"),
            ("OSP_IMG_ID", "debian"),
            ("OSP_IMG_PASSWD", ""),
            ("OS_VARIANT", "default"),
            ("DEBUG_LEVEL", "1"),
        ]);
        env.check_api_version().unwrap();
        assert_eq!(env.instance_name().unwrap(), "inst1.example.test");
        assert_eq!(env.variant().unwrap(), Some("default"));
        assert_eq!(env.debug_level().unwrap(), 1);
        let disks = env.disks().unwrap();
        assert_eq!(disks[0].path.as_deref(), Some(std::path::Path::new("/dev/loop0")));
        assert_eq!(disks[0].size_mib, Some(1024));
        assert!(disks[1].read_only && disks[1].path.is_none());
        assert_eq!(env.nic_variables().unwrap().len(), 2);
        assert_eq!(env.parameters().len(), 2);
        assert_eq!(env.parameters()["img_passwd"].expose(), b"");
        assert!(!format!("{env:?}").contains("debian"));
    }

    #[test]
    fn errors_name_the_variable() {
        let base = [("DISK_COUNT", "1"), ("DISK_0_PATH", "/x")];
        type Probe = fn(&Environment) -> Result<(), EnvError>;
        let disks: Probe = |e| e.disks().map(drop);
        let table: &[(&str, &str, Probe)] = &[
            ("DISK_COUNT", "many", disks),
            ("DISK_COUNT", "-1", disks),
            ("DISK_COUNT", "4294967296", disks),
            ("DISK_COUNT", "65", disks),
            ("DISK_0_PATH", "x", disks),
            ("DISK_0_PATH", "", disks),
            ("DISK_0_ACCESS", "maybe", disks),
            ("DISK_0_SIZE", "1.5", disks),
            ("INSTANCE_NAME", "a b", |e| e.instance_name().map(drop)),
            ("INSTANCE_NAME", "-rf", |e| e.instance_name().map(drop)),
            ("INSTANCE_NAME", "", |e| e.instance_name().map(drop)),
            ("OS_VARIANT", "../../etc", |e| e.variant().map(drop)),
            ("OS_API_VERSION", "15", Environment::check_api_version),
            ("NIC_COUNT", "1000", |e| e.nic_variables().map(drop)),
            ("DEBUG_LEVEL", "x", |e| e.debug_level().map(drop)),
            ("EXPORT_DEVICE", "", |e| e.export().map(drop)),
            ("IMPORT_DEVICE", "x", |e| e.import().map(drop)),
        ];
        for (name, value, probe) in table {
            let mut pairs = base.to_vec();
            pairs.push((name, value));
            let error = probe(&environment(&pairs)).unwrap_err().to_string();
            assert!(error.contains(name), "{name}={value}: {error}");
        }
        let error = environment(&[]).disks().unwrap_err().to_string();
        assert!(error.contains("DISK_COUNT is not set"), "{error}");
    }

    #[test]
    fn bytes_that_are_not_text_are_refused_by_name() {
        use std::os::unix::ffi::OsStringExt;
        let env = Environment::from_vars([(
            OsString::from("NIC_0_NAME"),
            OsString::from_vec(vec![0xff]),
        )]);
        assert!(env.nic_variables().unwrap_err().to_string().contains("NIC_0_NAME"));
    }
}
