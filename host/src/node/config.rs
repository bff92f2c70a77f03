//! `/etc/default/snf-image` and the variants' files.

#[cfg(test)]
mod tests;
mod values;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use snf_image::secret::Secret;

use self::values::{
    absolute, addresses, boolean, duration, memory, nic_config, optional_path, rate, uid_range,
    user,
};
use crate::limits::{BYTE_MICROSECONDS, CONFIG_BYTES, IMAGE_SECONDS, TEXT_SECONDS};
use crate::node::allow::{Files, Hosts};
use crate::node::edits::Edits;
use crate::node::parameters;
use crate::node::shellvars::{self, Assignment};
use crate::node::trust::{self, Distrust};
use crate::node::users::default_user;

/// The configuration file, unless the environment names another.
pub const DEFAULT_PATH: &str = "/etc/default/snf-image";
/// The folder of the variants' files (`NAME.conf`).
pub const DEFAULT_VARIANTS_DIR: &str = "/etc/ganeti/snf-image/variants";
/// The folder of external back-ends.
pub const DEFAULT_BACKENDS_DIR: &str = "/etc/ganeti/snf-image/backends";
/// Environment variable that names another configuration file.
pub const PATH_VARIABLE: &str = "SNF_IMAGE_CONFIG";

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Others than root could change it, and so what root runs.
    #[error("the configuration {} is refused", path.display())]
    Distrust {
        /// The file.
        path: PathBuf,
        /// The reason, and how to mend it.
        source: Distrust,
    },
    /// The file is not a list of assignments.
    #[error("the configuration {} is no list of assignments", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line and problem.
        source: shellvars::SyntaxError,
    },
    /// A key has a value it cannot have.
    #[error("{}, line {line}, {key}: {problem}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The line of the key.
        line: usize,
        /// The key.
        key: String,
        /// The value found and the valid values.
        problem: String,
    },
}

/// How the helper VM's CPU is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Acceleration {
    /// KVM, and TCG when the helper does not come up under KVM.
    #[default]
    Auto,
    /// KVM or an error.
    Kvm,
    /// TCG only.
    Tcg,
}

impl Acceleration {
    /// The word that HELPER_ACCEL and QEMU's `-accel` use.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }
}

/// Treatment of the blocks after an image, on a disk that cannot discard them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rest {
    /// Old labels at both ends are overwritten. The bytes between them stay: on a large disk they cost
    /// more than the deployment.
    #[default]
    Labels,
    /// All of it is overwritten.
    Everything,
}

/// All settings, with their defaults.
#[derive(Clone, Debug)]
pub struct Config {
    /// `IMAGE_DIR`: the folder of `local://` images.
    pub image_dir: PathBuf,
    /// `IMAGE_DEBUG`: tell more in the log.
    pub image_debug: bool,
    /// `CLOUD_INIT_DEBUG`: passed on to the helper.
    pub cloud_init_debug: bool,
    /// `HELPER_DIR`: the folder of the helper's kernel and initramfs.
    pub helper_dir: PathBuf,
    /// `HELPER_SOFT_TIMEOUT`: after this long the VM is asked to end.
    pub helper_soft_timeout: Duration,
    /// `HELPER_HARD_TIMEOUT`: this long after that it is killed.
    pub helper_hard_timeout: Duration,
    /// `HELPER_USER`: who QEMU runs as.
    pub helper_user: String,
    /// `HELPER_UID_RANGE`: user numbers of which each run takes one of its own.
    pub helper_uid_range: Option<RangeInclusive<u32>>,
    /// `HELPER_MEMORY` in MiB; `None`: what the helper needs.
    pub helper_memory: Option<u32>,
    /// `HELPER_DEBUG`: the helper tells more, and one that failed stays up.
    pub helper_debug: bool,
    /// `HELPER_ACCEL`.
    pub helper_accel: Acceleration,
    /// `HELPER_SNAPSHOT`: under TCG go on from a helper that has booted before.
    pub helper_snapshot: bool,
    /// `HELPER_QEMU`: the QEMU program; `None`: looked for in `PATH`.
    pub helper_qemu: Option<PathBuf>,
    /// `PROGRESS_MONITOR`: a program that takes the progress messages.
    pub progress_monitor: Option<PathBuf>,
    /// `DHCP_TAGS`.
    pub dhcp_tags: String,
    /// `STATEFUL_DHCPV6_TAGS`.
    pub stateful_dhcpv6_tags: String,
    /// `STATELESS_DHCPV6_TAGS`.
    pub stateless_dhcpv6_tags: String,
    /// `DEFAULT_NIC_CONFIG`.
    pub default_nic_config: String,
    /// `NIC_DNS`: name servers, with blanks between them.
    pub nic_dns: String,
    /// `UNATTEND`: an answer file for Windows images that have none.
    pub unattend: Option<PathBuf>,
    /// `WINDOWS_TIMEZONE`.
    pub windows_timezone: String,
    /// `RENAME_HOSTNAME`: `rename` also changes the host name inside the disk.
    pub rename_hostname: bool,
    /// `IMPORT_SHORT`: a dump smaller than the disk is not an error.
    pub import_short: bool,
    /// `WIPE_REST`: the rest of the disk after an image is zeroed even if every byte must be written.
    pub rest: Rest,
    /// `BACKENDS_DIR`: the folder of external back-ends.
    pub backends_dir: PathBuf,
    /// `BACKEND_TIMEOUT`: how long a back-end may be silent.
    pub backend_timeout: Duration,
    /// `STORAGE_DAEMON`: the program that opens disks without a path; `None`: looked for in `PATH`.
    pub storage_daemon: Option<PathBuf>,
    /// `SPOOL_DIR`: where images are kept that cannot be read while they arrive.
    pub spool_dir: PathBuf,
    /// Whether a person deploys an image of their own (`snf-customize deploy`), and not a tenant of
    /// this node. No setting of the file.
    pub for_a_person: bool,
    /// `IMAGE_FILES`: places whose files a `file://` URL may name.
    pub image_files: Files,
    /// `IMAGE_HOSTS`: hosts, networks and URLs that are allowed although their address is special.
    pub image_hosts: Hosts,
    /// `EDITS`: the kinds of edits that `img_edits` may hold.
    pub edits: Edits,
    /// `FETCH_TIMEOUT`: all of a text that a URL leads to has to be here after this long.
    pub fetch_timeout: Duration,
    /// `FETCH_IMAGE_TIMEOUT`: the most time that is spent waiting for all of an image.
    pub fetch_image_timeout: Duration,
    /// `FETCH_MIN_RATE`: fewest bytes a second of an image from a web server.
    pub fetch_min_rate: u64,
    /// OS parameters that were set here or in the variant's file, by lower-case name.
    pub parameters: BTreeMap<String, Secret>,
    /// Things to tell the admin that stop nothing.
    pub warnings: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            image_dir: "/var/lib/snf-image".into(),
            image_debug: false,
            cloud_init_debug: false,
            helper_dir: "/var/lib/snf-image/helper".into(),
            helper_soft_timeout: Duration::from_secs(120),
            helper_hard_timeout: Duration::from_secs(5),
            helper_user: default_user().into(),
            helper_uid_range: None,
            helper_memory: None,
            helper_debug: false,
            helper_accel: Acceleration::Auto,
            helper_snapshot: true,
            helper_qemu: None,
            progress_monitor: None,
            dhcp_tags: "auto dhcp nfdhcpd".into(),
            stateful_dhcpv6_tags: "dhcpv6 stateful_dhcpv6".into(),
            stateless_dhcpv6_tags: "nfdhcpd stateless_dhcpv6".into(),
            default_nic_config: "dhcp".into(),
            nic_dns: String::new(),
            unattend: None,
            windows_timezone: "GMT Standard Time".into(),
            rename_hostname: false,
            import_short: false,
            rest: Rest::default(),
            backends_dir: DEFAULT_BACKENDS_DIR.into(),
            backend_timeout: Duration::from_secs(120),
            storage_daemon: None,
            spool_dir: "/var/tmp".into(),
            for_a_person: false,
            image_files: Files::default(),
            image_hosts: Hosts::default(),
            edits: Edits::default(),
            fetch_timeout: Duration::from_secs(TEXT_SECONDS),
            fetch_image_timeout: Duration::from_secs(IMAGE_SECONDS),
            fetch_min_rate: 1_000_000 / BYTE_MICROSECONDS,
            parameters: BTreeMap::new(),
            warnings: Vec::new(),
        }
    }
}

/// Keys that configured the original and have no meaning here.
const RETIRED: &[(&str, &str)] = &[
    ("HELPER_PKG", "the helper is part of this package"),
    ("HELPER_URL", "the helper is built from this node's kernel"),
    ("HELPER_IMG", "the helper has no root disk"),
    ("HELPER_SIZE", "the helper has no root disk"),
    ("HELPER_KERNEL", "snf-image-update-helper chooses the kernel"),
    ("HELPER_INITRD", "snf-image-update-helper writes the initramfs"),
    ("HELPER_CACHE_DIR", "the helper is not downloaded"),
    ("HELPER_EXTRA_PKGS", "the helper contains no packages"),
    ("HELPER_PROXY", "the helper is not downloaded"),
    ("VERSION_CHECK", "helper and host are of one version"),
    ("MULTISTRAP_CONFIG", "the helper is not a Debian system"),
    ("MULTISTRAP_CONFIG_DIR", "the helper is not a Debian system"),
    ("MULTISTRAP_APTPREFDIR", "the helper is not a Debian system"),
    ("XEN_SCRIPTS_DIR", "the helper always runs under QEMU"),
    ("PITHOS_DB", "there is no Pithos back-end"),
    ("PITHOS_DATA", "there is no Pithos back-end"),
    ("PITHOS_BACKEND_STORAGE", "there is no Pithos back-end"),
    ("PITHOS_RADOS_CEPH_CONF", "there is no Pithos back-end"),
    ("PITHOS_RADOS_POOL_MAPS", "there is no Pithos back-end"),
    ("PITHOS_RADOS_POOL_BLOCKS", "there is no Pithos back-end"),
    ("NETWORK_BACKEND_SUPPORT", "the network back-end is always there"),
    ("MDSUM", "no external programs are run"),
    ("CURL", "no external programs are run"),
];

impl Config {
    /// The configuration of this node: the file that `SNF_IMAGE_CONFIG` names, else
    /// `/etc/default/snf-image` (which may be missing), then the file of `variant`.
    pub fn load(named: Option<&Path>, variant: Option<&str>) -> Result<Self, ConfigError> {
        let mut config = Self::default();
        match named {
            Some(path) => {
                // Beside a named configuration lies what belongs to it, so that a test or a second
                // installation does not see this node's.
                if let Some(parent) = path.parent() {
                    config.backends_dir = parent.join("backends");
                }
                config.apply(path, &read(path)?)?;
            }
            None => config.apply_if_there(Path::new(DEFAULT_PATH))?,
        }
        if let Some(variant) = variant {
            let dir = match named.and_then(Path::parent) {
                Some(parent) => parent.join("variants"),
                None => PathBuf::from(DEFAULT_VARIANTS_DIR),
            };
            config.apply_if_there(&dir.join(format!("{variant}.conf")))?;
        }
        Ok(config)
    }

    fn apply_if_there(&mut self, path: &Path) -> Result<(), ConfigError> {
        match read(path) {
            Ok(text) => self.apply(path, &text),
            Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// Takes the settings of one file over what is there already.
    pub fn apply(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let assignments = shellvars::parse(text)
            .map_err(|source| ConfigError::Syntax { path: path.to_owned(), source })?;
        for assignment in assignments {
            let Assignment { line, key, value } = assignment;
            match self.set(&key, &value) {
                Ok(true) => {}
                Ok(false) => {
                    let mut text = format!("{}, line {line}: ", path.display());
                    let _ = match RETIRED.iter().find(|(name, _)| *name == key) {
                        Some((_, why)) => write!(text, "{key} is not used any more: {why}"),
                        None => write!(text, "{key} is not a known setting and is ignored"),
                    };
                    self.warnings.push(text);
                }
                Err(problem) => {
                    return Err(ConfigError::Value { path: path.to_owned(), line, key, problem });
                }
            }
        }
        Ok(())
    }

    /// Sets one key; `Ok(false)` when there is no such key.
    fn set(&mut self, key: &str, value: &str) -> Result<bool, String> {
        match key {
            "IMAGE_DIR" => self.image_dir = absolute(value)?,
            "IMAGE_DEBUG" => self.image_debug = boolean(value)?,
            "CLOUD_INIT_DEBUG" => self.cloud_init_debug = boolean(value)?,
            "HELPER_DIR" => self.helper_dir = absolute(value)?,
            "HELPER_SOFT_TIMEOUT" => self.helper_soft_timeout = duration(value)?,
            "HELPER_HARD_TIMEOUT" => self.helper_hard_timeout = duration(value)?,
            "HELPER_USER" => self.helper_user = user(value)?,
            "HELPER_UID_RANGE" => self.helper_uid_range = uid_range(value)?,
            "HELPER_MEMORY" => self.helper_memory = memory(value)?,
            "HELPER_DEBUG" => self.helper_debug = boolean(value)?,
            "HELPER_ACCEL" => {
                self.helper_accel = match value {
                    "" | "auto" => Acceleration::Auto,
                    "kvm" => Acceleration::Kvm,
                    "tcg" => Acceleration::Tcg,
                    _ => return Err(format!("{value:?} is none of auto, kvm and tcg")),
                }
            }
            "HELPER_SNAPSHOT" => self.helper_snapshot = boolean(value)?,
            "HELPER_QEMU" => self.helper_qemu = optional_path(value)?,
            "PROGRESS_MONITOR" => self.progress_monitor = optional_path(value)?,
            "DHCP_TAGS" => self.dhcp_tags = value.to_owned(),
            "STATEFUL_DHCPV6_TAGS" => self.stateful_dhcpv6_tags = value.to_owned(),
            "STATELESS_DHCPV6_TAGS" => self.stateless_dhcpv6_tags = value.to_owned(),
            "DEFAULT_NIC_CONFIG" => self.default_nic_config = nic_config(value)?,
            "NIC_DNS" => self.nic_dns = addresses(value)?,
            "UNATTEND" => self.unattend = optional_path(value)?,
            "WINDOWS_TIMEZONE" => {
                if value.is_empty() {
                    return Err("it is empty; a time zone is e.g. \"GMT Standard Time\"".into());
                }
                self.windows_timezone = value.to_owned();
            }
            "RENAME_HOSTNAME" => self.rename_hostname = boolean(value)?,
            "IMPORT_SHORT" => self.import_short = boolean(value)?,
            "WIPE_REST" => {
                self.rest = if boolean(value)? { Rest::Everything } else { Rest::Labels };
            }
            "BACKENDS_DIR" => self.backends_dir = absolute(value)?,
            "BACKEND_TIMEOUT" => self.backend_timeout = duration(value)?,
            "STORAGE_DAEMON" => self.storage_daemon = optional_path(value)?,
            "IMAGE_FILES" => self.image_files = value.parse()?,
            "EDITS" => self.edits = value.parse()?,
            "IMAGE_HOSTS" => self.image_hosts = value.parse()?,
            "FETCH_TIMEOUT" => self.fetch_timeout = duration(value)?,
            "FETCH_IMAGE_TIMEOUT" => self.fetch_image_timeout = duration(value)?,
            "FETCH_MIN_RATE" => self.fetch_min_rate = rate(value)?,
            "SPOOL_DIR" => self.spool_dir = absolute(value)?,
            _ => {
                let lower = key.to_ascii_lowercase();
                if key != key.to_ascii_uppercase() || !parameters::is_known(&lower) {
                    return Ok(false);
                }
                self.parameters.insert(lower, Secret::new(value));
            }
        }
        Ok(true)
    }
}

/// The configuration that this process is to use, with the file of `variant`.
pub fn of_process(variant: Option<&str>) -> Result<Config, ConfigError> {
    let named = std::env::var_os(PATH_VARIABLE).map(PathBuf::from);
    Config::load(named.as_deref(), variant)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    match trust::check(path) {
        Err(error) if !error.is_missing() => {
            return Err(ConfigError::Distrust { path: path.to_owned(), source: error });
        }
        _ => {}
    }
    read_bounded(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })
}

fn read_bounded(path: &Path) -> io::Result<String> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(CONFIG_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > CONFIG_BYTES {
        return Err(io::Error::other("larger than 1 MiB: not a configuration file"));
    }
    Ok(text)
}
