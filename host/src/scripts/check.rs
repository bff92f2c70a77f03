//! `snf-image-host check`: what is missing on this node for deployments to work, and how to mend
//! it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use snf_image::random::Clock;
use snf_image::rules::Rules;

use crate::backend::{self, Kind};
use crate::disk::open::daemon;
use crate::helper::floppy;
use crate::helper::{
    HelperConfig, HelperError, HelperImage, HelperSink, MonitorMessage, SECTOR_SIZE, VmDisk,
    VmRequest, check_user, run_helper,
};
use crate::node::cancel::Cancel;
use crate::node::config::{Acceleration, Config, ConfigError};
use crate::node::log;
use crate::node::users::{PACKAGE_USER, SHARED_USER};
use crate::scripts::create::{helper_config, trust_checks};

/// The folders in which Ganeti looks for OS directories.
const OS_DIRS: [&str; 4] =
    ["/srv/ganeti/os", "/usr/local/lib/ganeti/os", "/usr/lib/ganeti/os", "/usr/share/ganeti/os"];

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finding {
    /// It is as it should be.
    Good(String),
    /// It works, but.
    Remark(String),
    /// Deployments fail until this is mended.
    Missing(String),
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Good(text) => write!(f, "ok       {text}"),
            Self::Remark(text) => write!(f, "note     {text}"),
            Self::Missing(text) => write!(f, "MISSING  {text}"),
        }
    }
}

/// Looks at everything a deployment needs.
pub fn check(config: Result<Config, ConfigError>, cancel: &Cancel) -> Vec<Finding> {
    let mut out = Vec::new();
    let config = match config {
        Ok(config) => {
            out.push(Finding::Good("the configuration can be read".into()));
            out.extend(config.warnings.iter().cloned().map(Finding::Remark));
            config
        }
        Err(error) => {
            out.push(Finding::Missing(log::chain(&error)));
            Config::default()
        }
    };
    if !rustix::process::geteuid().is_root() {
        out.push(Finding::Missing(
            "this check is not run by root, as Ganeti runs the scripts".into(),
        ));
    }
    for (key, check) in trust_checks(&config) {
        if let Err(error) = check {
            out.push(Finding::Missing(format!("{key} is refused: {}", log::chain(&error))));
        }
    }
    out.push(urls(&config));
    out.push(edits(&config));
    out.push(os_directory());
    out.push(directory("IMAGE_DIR", &config.image_dir));
    out.push(user(&config.helper_user));
    if let Some(program) = &config.progress_monitor {
        out.push(executable("PROGRESS_MONITOR", program));
    }
    out.push(directory("SPOOL_DIR", &config.spool_dir));
    out.push(storage_daemon(&daemon(&config)));
    for kind in [Kind::Source, Kind::Destination] {
        out.push(back_ends(&config, kind));
    }
    let helper = helper_config(&config);
    out.push(qemu(&helper.qemu));
    match HelperImage::open(&helper.directory) {
        Err(error) => out.push(Finding::Missing(log::chain(&error))),
        Ok(image) => {
            out.push(Finding::Good(format!(
                "the helper is built (kernel {})",
                image.description.kernel_release
            )));
            out.push(boots(&helper, cancel));
        }
    }
    out
}

fn os_directory() -> Finding {
    let ours = |dir: &PathBuf| {
        fs::canonicalize(dir.join("create"))
            .is_ok_and(|program| program.file_name().is_some_and(|name| name == "snf-image-host"))
    };
    let found: Vec<PathBuf> = OS_DIRS
        .iter()
        .filter_map(|dir| fs::read_dir(dir).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(ours)
        .collect();
    match found.as_slice() {
        [] => Finding::Missing(format!(
            "no OS directory of ours is where Ganeti looks; run snf-image-host install-os {}/snf-image",
            OS_DIRS[3]
        )),
        [one] => Finding::Good(format!("the OS directory is {}", one.display())),
        [one, two, ..] if one.file_name() == two.file_name() => Finding::Missing(format!(
            "{} and {} have the same name, on which gnt-os diagnose fails; remove one",
            one.display(),
            two.display()
        )),
        several => Finding::Remark(format!("there are {} OS directories of ours", several.len())),
    }
}

/// The rules for a tenant's URLs, and the lines that change them.
fn urls(config: &Config) -> Finding {
    let files = match config.image_files.is_empty() {
        true => {
            "no files of this node (IMAGE_FILES=\"/srv/images\" would allow those below)".into()
        }
        false => format!("files below {}", config.image_files),
    };
    let hosts = match config.image_hosts.is_empty() {
        true => "no private or local addresses (IMAGE_HOSTS=\"10.1.0.0/16\" would allow a network)"
            .into(),
        false => format!("of private and local addresses only {}", config.image_hosts),
    };
    Finding::Good(format!("URLs lead to {files} and to {hosts}"))
}

/// The kinds of edits that tenants may ask for.
fn edits(config: &Config) -> Finding {
    Finding::Good(format!("edits that img_edits may hold (EDITS): {}", config.edits))
}

fn directory(key: &str, path: &Path) -> Finding {
    if path.is_dir() {
        Finding::Good(format!("{key} is {}", path.display()))
    } else {
        Finding::Missing(format!("{key}: {} is not a directory; make it", path.display()))
    }
}

fn executable(key: &str, path: &Path) -> Finding {
    let good = fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    if good {
        Finding::Good(format!("{key} is {}", path.display()))
    } else {
        Finding::Remark(format!(
            "{key}: {} cannot be executed; progress goes into the log",
            path.display()
        ))
    }
}

fn user(name: &str) -> Finding {
    match check_user(name) {
        Ok(()) if name == SHARED_USER => Finding::Remark(format!(
            "HELPER_USER is {name}, which others on this node may run as, too; make one for the \
             helper alone: adduser --system --group --no-create-home {PACKAGE_USER}"
        )),
        Ok(()) => Finding::Good(format!("HELPER_USER is {name}")),
        Err(error @ HelperError::NoSuchUser(_)) => Finding::Missing(format!(
            "{error}; make it: adduser --system --group --no-create-home {name}"
        )),
        Err(error) => Finding::Missing(crate::node::log::chain(&error)),
    }
}

fn qemu(program: &Path) -> Finding {
    let out = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    match out {
        Ok(out) if out.status.success() => {
            let text = String::from_utf8_lossy(&out.stdout);
            Finding::Good(text.lines().next().unwrap_or("QEMU is there").to_owned())
        }
        _ => Finding::Missing(format!(
            "{} does not run; install qemu-system-x86 or set HELPER_QEMU",
            program.display()
        )),
    }
}

fn storage_daemon(program: &Path) -> Finding {
    let out = Command::new(program).arg("--version").stdin(Stdio::null()).output();
    match out {
        Ok(out) if out.status.success() => Finding::Good(format!(
            "{} is there, for disks that have only a URI (access=userspace)",
            program.display()
        )),
        _ => Finding::Remark(format!(
            "{} does not run; disks that have only a URI (access=userspace) cannot be deployed to \
             before qemu-system-common is installed",
            program.display()
        )),
    }
}

fn back_ends(config: &Config, kind: Kind) -> Finding {
    let what = match kind {
        Kind::Source => "images",
        Kind::Destination => "disks",
    };
    match backend::survey(&config.backends_dir, kind) {
        Ok(names) => {
            Finding::Good(format!("back-ends for {what}, in their order: {}", names.join(", ")))
        }
        Err(error) => Finding::Missing(log::chain(&error)),
    }
}

struct Quiet(Vec<String>);

impl HelperSink for Quiet {
    fn console(&mut self, _line: &str) {}
    fn warning(&mut self, text: &str) {
        self.0.push(text.to_owned());
    }
    fn monitor(&mut self, _message: MonitorMessage) {}
}

/// Boots the helper on an empty disk. There is nothing for it to customize, so it reports an
/// error; that it reports at all is what we want to know.
fn boots(config: &HelperConfig, cancel: &Cancel) -> Finding {
    let prepare = || -> std::io::Result<VmRequest> {
        let memory = rustix::fs::memfd_create("snf-image-check", rustix::fs::MemfdFlags::CLOEXEC)?;
        rustix::fs::ftruncate(&memory, 1 << 20)?;
        let mut rules = Rules::default();
        rules
            .set("TYPE", "diskdump")
            .and_then(|()| rules.set_array("DEV", ["/dev/vda"]))
            .map_err(std::io::Error::other)?;
        let text = rules.write();
        let parameters = floppy::build(&[("rules", text.expose())], Clock::system().now(), [0; 16])
            .map_err(std::io::Error::other)?;
        Ok(VmRequest {
            disks: vec![VmDisk::Open(memory.into())],
            parameters,
            hypervisor: String::new(),
            flush_later: false,
            sector_size: SECTOR_SIZE,
        })
    };
    let request = match prepare() {
        Ok(request) => request,
        Err(error) => {
            let problem = log::chain(&error);
            return Finding::Missing(format!("cannot prepare a test of the helper: {problem}"));
        }
    };
    let config = HelperConfig {
        soft_timeout: config.soft_timeout.min(Duration::from_secs(60)),
        ..config.clone()
    };
    let mut sink = Quiet(Vec::new());
    match run_helper(&config, &request, cancel, &mut sink) {
        Ok(_) | Err(HelperError::Failed(_)) => match (sink.0.first(), config.acceleration) {
            (Some(warning), _) => Finding::Remark(format!("the helper VM works: {warning}")),
            (None, Acceleration::Tcg) => Finding::Remark(
                "the helper VM works, without KVM as HELPER_ACCEL=tcg asks for".into(),
            ),
            (None, _) => Finding::Good("the helper VM boots with KVM".into()),
        },
        Err(error) => {
            Finding::Missing(format!("the helper VM does not work: {}", log::chain(&error)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_node() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            image_dir: dir.path().join("none"),
            helper_dir: dir.path().join("helper"),
            helper_user: "no-such-user".into(),
            helper_qemu: Some(dir.path().join("qemu")),
            progress_monitor: Some(dir.path().join("monitor")),
            ..Config::default()
        };
        let found = check(Ok(config), &Cancel::new());
        let text: String = found.iter().map(|finding| format!("{finding}\n")).collect();
        for wanted in [
            "MISSING  IMAGE_DIR",
            "MISSING  HELPER_USER",
            "does not run; install qemu-system-x86",
            "the helper is not built",
            "note     PROGRESS_MONITOR",
        ] {
            assert!(text.contains(wanted), "{wanted}: {text}");
        }
    }
}
