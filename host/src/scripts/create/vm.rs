//! Running the helper VM on the instance's disks.

use std::time::Instant;

use super::error::CreateError;
use crate::disk::open::{DiskError, OpenDisk, daemon};
use crate::helper::{
    HelperConfig, HelperError, HelperImage, HelperReport, HelperSink, MonitorMessage, VmDisk,
    VmRequest, run_helper,
};
use crate::node::cancel::Cancel;
use crate::node::config::Config;
use crate::node::log;
use crate::node::monitor::Monitor;
use crate::node::trust::{self, Distrust};

/// Runs the helper VM: QEMU, or a stand-in in tests.
pub trait HelperRunner {
    /// Whether there is a helper at all, asked before anything is written.
    fn check(&self, config: &HelperConfig) -> Result<(), HelperError>;

    /// Runs it; `Ok` only after `SUCCESS`.
    fn run(
        &mut self,
        config: &HelperConfig,
        request: &VmRequest,
        cancel: &Cancel,
        sink: &mut dyn HelperSink,
    ) -> Result<HelperReport, HelperError>;
}

/// The helper VM under QEMU.
#[derive(Clone, Copy, Debug, Default)]
pub struct Qemu;

impl HelperRunner for Qemu {
    fn check(&self, config: &HelperConfig) -> Result<(), HelperError> {
        HelperImage::open(&config.directory).map(drop)
    }

    fn run(
        &mut self,
        config: &HelperConfig,
        request: &VmRequest,
        cancel: &Cancel,
        sink: &mut dyn HelperSink,
    ) -> Result<HelperReport, HelperError> {
        run_helper(config, request, cancel, sink)
    }
}

/// How helper VMs run on this node.
pub fn helper_config(config: &Config) -> HelperConfig {
    let default = HelperConfig::default();
    HelperConfig {
        directory: config.helper_dir.clone(),
        user: Some(config.helper_user.clone()),
        uid_range: config.helper_uid_range.clone(),
        memory_mib: config.helper_memory.unwrap_or(default.memory_mib),
        soft_timeout: config.helper_soft_timeout,
        hard_timeout: config.helper_hard_timeout,
        acceleration: config.helper_accel,
        qemu: config.helper_qemu.clone().unwrap_or(default.qemu),
        debug: config.helper_debug,
        snapshot: config.helper_snapshot,
    }
}

/// Runs the VM and tells how long it took.
pub(crate) fn customize_in_vm(
    helper: &HelperConfig,
    request: &VmRequest,
    cancel: &Cancel,
    runner: &mut dyn HelperRunner,
    monitor: &mut Monitor,
) -> Result<(), CreateError> {
    let started = Instant::now();
    let report = runner.run(helper, request, cancel, &mut Sink { monitor })?;
    log::info(&format!(
        "the helper VM ended with SUCCESS after {:.2} s ({}{})",
        started.elapsed().as_secs_f64(),
        report.acceleration.name(),
        if report.resumed { ", from its snapshot" } else { "" }
    ));
    Ok(())
}

struct Sink<'a> {
    monitor: &'a mut Monitor,
}

impl HelperSink for Sink<'_> {
    fn console(&mut self, line: &str) {
        log::line(&format!("HELPER: {line}"));
    }

    fn warning(&mut self, text: &str) {
        log::warning(text);
    }

    fn monitor(&mut self, message: MonitorMessage) {
        match message {
            MonitorMessage::TaskStart(task) => self.monitor.task_start(&task),
            MonitorMessage::TaskEnd(task) => self.monitor.task_end(&task),
            MonitorMessage::Warning(text) => self.monitor.helper_warning(&text),
            MonitorMessage::Error(text) => self.monitor.helper_error(&text),
            MonitorMessage::Stderr(lines) => self.monitor.helper_stderr(&lines.join("\n")),
        }
    }
}

/// Refuses what root would run or obey although others could change it: the helper's files, and
/// the programs and files that the configuration names.
///
/// # Errors
///
/// The first such thing.
pub fn check_trust(config: &Config) -> Result<(), CreateError> {
    for (key, check) in trust_checks(config) {
        check.map_err(|source| CreateError::Distrust { key, source })?;
    }
    Ok(())
}

/// Each thing that must be root's by its key, and whether it is.
pub(crate) fn trust_checks(config: &Config) -> Vec<(&'static str, Result<(), Distrust>)> {
    let helper = helper_config(config);
    let mut out = vec![
        ("HELPER_DIR", trust::check_folder(&helper.directory)),
        ("HELPER_QEMU", trust::check_program(&helper.qemu)),
        ("STORAGE_DAEMON", trust::check_program(&daemon(config))),
    ];
    let named = [("PROGRESS_MONITOR", &config.progress_monitor), ("UNATTEND", &config.unattend)];
    for (key, path) in named {
        out.extend(path.as_ref().map(|path| (key, trust::check_program(path))));
    }
    out
}

/// An open disk as the helper VM gets it. The VM's descriptor keeps the claim on the disk.
pub(crate) fn vm_disk(disk: &OpenDisk) -> Result<VmDisk, DiskError> {
    Ok(match disk {
        OpenDisk::Local(target) => {
            VmDisk::Open(target.file().try_clone().map_err(DiskError::Duplicate)?)
        }
        OpenDisk::Remote(disk) => VmDisk::Remote(disk.daemon().clone()),
    })
}
