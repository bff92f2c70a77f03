//! `create`: environment and configuration → image onto the disk → helper VM → result.

use std::fs::File;
use std::io;
use std::thread::JoinHandle;
use std::time::Instant;

use snf_image::params::{OsParameters, Problem};
use snf_image::plan::{ImageFormat, Plan};
use snf_image::prepare::{Prepared, prepare};
use snf_image::properties::OsFamily;
use snf_image::random::{Clock, Entropy};
use snf_image::rules::{Rules, WriteError, variable_of};
use snf_image::secret::Secret;

use crate::backend::BackendError;
use crate::disk::open::{DiskError, OpenDisk};
use crate::disk::target::TargetError;
use crate::helper::floppy::{self, FloppyError};
use crate::helper::{
    HelperConfig, HelperError, HelperImage, HelperReport, HelperSink, MonitorMessage, SECTOR_SIZE,
    VmDisk, VmRequest, guest_disk, run_helper,
};
use crate::image::copy::{CopyError, Settle};
use crate::image::fetch::{self, FetchError};
use crate::image::source::id::{self, ImageId};
use crate::image::source::{self, SourceError};
use crate::node::cancel::{Cancel, Cancelled};
use crate::node::config::Config;
use crate::node::env::{Disk, EnvError, Environment};
use crate::node::log;
use crate::node::monitor::Monitor;
use crate::node::parameters;

pub(crate) mod lay;

/// Why an instance was not deployed. Everything the node did for it is undone but for what was
/// written to the disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CreateError {
    /// Ganeti's environment.
    #[error(transparent)]
    Environment(#[from] EnvError),
    /// Wrong or missing OS parameters.
    #[error("the OS parameters are wrong: {}", list(.0))]
    Parameters(Vec<Problem>),
    /// No OS parameter at all.
    #[error(
        "no OS parameters were given, not even img_id and img_format; pass them with -O \
         (gnt-instance reinstall forgets stored ones in Ganeti 3.0, so pass them again there), or set \
         IMG_ID and IMG_FORMAT in /etc/default/snf-image"
    )]
    NoParameters,
    /// There is no disk to deploy to.
    #[error("{0}")]
    Disk(String),
    /// The image.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// `config_url` or `os_answer_file`.
    #[error("{parameter}: {source}")]
    Fetch {
        /// The parameter with the URL.
        parameter: &'static str,
        /// What went wrong.
        source: FetchError,
    },
    /// Copying.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The disk.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Opening a disk.
    #[error(transparent)]
    OpenDisk(#[from] DiskError),
    /// A back-end that is asked for disks.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A parameter that the rules cannot hold.
    #[error(transparent)]
    Rules(#[from] WriteError),
    /// The parameter disk.
    #[error(transparent)]
    Floppy(#[from] FloppyError),
    /// The helper VM.
    #[error(transparent)]
    Helper(#[from] HelperError),
    /// A system call.
    #[error("cannot {action}: {source}")]
    System {
        /// What was being done.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A signal came.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl CreateError {
    /// What the instance's owner may read: what failed, and nothing about the node.
    pub fn public(&self) -> String {
        match self {
            Self::Parameters(_) | Self::NoParameters | Self::Floppy(FloppyError::Format(_)) => {
                self.to_string()
            }
            Self::Copy(CopyError::TooLarge { needed, available, .. }) => format!(
                "the image needs {needed} bytes and the disk has {available}; make the disk larger"
            ),
            Self::Source(error) | Self::Copy(CopyError::Source(error)) => match error {
                SourceError::Id { .. } => error.to_string(),
                _ => "the image could not be read".into(),
            },
            Self::Copy(_) | Self::Target(_) | Self::OpenDisk(_) | Self::Backend(_) => {
                "the image could not be copied to the disk".into()
            }
            Self::Helper(HelperError::Failed(text)) => text.clone(),
            Self::Helper(HelperError::SoftTimeout(_) | HelperError::HardTimeout(..)) => {
                "customising the image took too long".into()
            }
            Self::Helper(_) => "the image could not be customised".into(),
            Self::Fetch { parameter, .. } => format!("what {parameter} leads to cannot be used"),
            Self::Cancelled(_) => "the deployment was stopped".into(),
            _ => "the deployment failed; the node's log says why".into(),
        }
    }
}

/// Who runs the helper VM: QEMU, or a stand-in in tests.
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
        memory_mib: config.helper_memory.unwrap_or(default.memory_mib),
        soft_timeout: config.helper_soft_timeout,
        hard_timeout: config.helper_hard_timeout,
        acceleration: config.helper_accel,
        qemu: config.helper_qemu.clone().unwrap_or(default.qemu),
        debug: config.helper_debug,
        snapshot: config.helper_snapshot,
    }
}

/// The whole of `create`. The monitor hears of an error, too.
pub fn create(
    env: &Environment,
    config: &Config,
    cancel: &Cancel,
    runner: &mut dyn HelperRunner,
) -> Result<(), CreateError> {
    env.check_api_version()?;
    let instance = env.instance_name()?;
    let mut monitor = match &config.progress_monitor {
        Some(program) => Monitor::to_program(program, instance),
        None => Monitor::to_log(),
    };
    let result = deploy(env, config, cancel, runner, &mut monitor);
    match &result {
        Ok(()) => monitor.info("the instance was deployed"),
        Err(error) => monitor.error(&error.public()),
    }
    result
}

fn deploy(
    env: &Environment,
    config: &Config,
    cancel: &Cancel,
    runner: &mut dyn HelperRunner,
    monitor: &mut Monitor,
) -> Result<(), CreateError> {
    let parameters = os_parameters(env, config, cancel)?;
    let plan = parameters.plan().map_err(CreateError::Parameters)?;
    let disks = env.disks()?;
    log::debug(|| format!("OS parameters: {}", names_of(env, config)));
    for disk in &disks {
        log::debug(|| format!("disk {}: {disk:?}", disk.index));
    }
    let img_id = parameters.img_id.as_deref().unwrap_or_default();
    let image_id: ImageId = img_id.parse()?;
    let mut helper = helper_config(config);
    if config.helper_memory.is_none() && plan_is_windows(&plan) {
        helper.memory_mib = helper.memory_mib.max(WINDOWS_MEMORY_MIB);
    }
    let customise = !plan.properties.boolean("EXCLUDE_ALL_TASKS").unwrap_or(false);
    if customise {
        runner.check(&helper)?;
    }
    // What is fetched and what can be wrong comes before the first byte on the disk.
    let mut files = answer_file(&parameters, config, &plan, cancel)?;
    let mut rules = rules(env, config, &parameters, &plan, &disks)?;
    if customise {
        check_room(&files, &rules)?;
    }
    let preparation = customise.then(|| start_preparation(&plan, env)).transpose()?;

    let mut system = lay::system_disk(&disks, config, cancel)?;
    match source::open(&image_id, config, Some(system.size()), cancel)? {
        Some(image) => {
            monitor.info("copying the image to the disk");
            // One flush does for the copy and for what the VM writes.
            let settle = if customise { Settle::Later } else { Settle::Now };
            system.lay(&id::display(img_id), image, plan.format, settle, cancel, monitor)?;
        }
        None => log::info("no image to copy: the disk is customised as it is"),
    }
    cancel.check()?;
    if !customise {
        log::info("all tasks are excluded: the helper VM is not started");
        return Ok(());
    }
    monitor.info("customising the image");
    if preparation.as_ref().is_some_and(|thread| !thread.is_finished()) {
        // The disk has something to do while keys are made.
        system.flush()?;
    }
    // A thread that failed costs the time it would have saved, nothing else.
    if let Some(Ok(prepared)) = preparation.map(JoinHandle::join) {
        prepared.write(&mut rules)?;
    }
    files.insert(0, ("rules", rules.write()));
    let mut system = system.open(config, cancel)?;
    let request = VmRequest {
        disks: vm_disks(&disks, &system, config, cancel)?,
        parameters: parameter_disk(&files)?,
        hypervisor: env.hypervisor()?.unwrap_or_default().to_owned(),
        flush_later: true,
        sector_size: SECTOR_SIZE,
    };
    drop(files);
    customise_in_vm(&helper, &request, cancel, runner, monitor)?;
    // QEMU wrote through another description of the same file.
    lay::flush(system.destination())
}

/// What the helper needs to change a Windows: a registry hive is held as a whole, twice.
const WINDOWS_MEMORY_MIB: u32 = 384;

/// Whether the image is, or may be, a Windows.
fn plan_is_windows(plan: &Plan) -> bool {
    plan.properties.os_family().ok().flatten().is_some_and(OsFamily::is_windows)
}

/// The names of the OS parameters and where each comes from, for the log.
fn names_of(env: &Environment, config: &Config) -> String {
    let all = parameters::collect(env, config);
    let names: Vec<String> = all
        .keys()
        .map(|name| match env.parameters().contains_key(name) {
            true => format!("{name} (Ganeti)"),
            false => format!("{name} (configuration)"),
        })
        .collect();
    names.join(", ")
}

/// Whether the parameters will fit onto a parameter disk, with room for what is prepared.
fn check_room(files: &[(&'static str, Secret)], rules: &Rules) -> Result<(), CreateError> {
    let mut all = files.to_vec();
    all.push(("rules", rules.write()));
    all.push(("prepared", Secret::new(vec![0; 16 << 10])));
    parameter_disk(&all).map(drop)
}

/// Begins the slow computations that need nothing of the image: keys and hashes are made here
/// while the image is copied, and not in a VM that may have to do without KVM.
fn start_preparation(plan: &Plan, env: &Environment) -> Result<JoinHandle<Prepared>, CreateError> {
    let (plan, hostname) = (plan.clone(), env.instance_name()?.to_owned());
    let entropy = entropy()?;
    Ok(std::thread::spawn(move || prepare(&plan, &hostname, &entropy)))
}

/// Runs the VM and tells how long it took.
pub(crate) fn customise_in_vm(
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

/// The parameters of Ganeti, of what `config_url` leads to, and of the configuration, in this
/// order.
fn os_parameters(
    env: &Environment,
    config: &Config,
    cancel: &Cancel,
) -> Result<OsParameters, CreateError> {
    let given = parameters::collect(env, config);
    if given.is_empty() {
        return Err(CreateError::NoParameters);
    }
    let lookup =
        |map: &std::collections::BTreeMap<String, Secret>, name: &str| map.get(name).cloned();
    let own = OsParameters::from_lookup(|name| lookup(env.parameters(), name))
        .map_err(CreateError::Parameters)?;
    let configured = OsParameters::from_lookup(|name| lookup(&config.parameters, name))
        .map_err(CreateError::Parameters)?;
    let url = own.config_url.clone().or_else(|| configured.config_url.clone());
    let fetched = match url.filter(|url| !url.is_empty()) {
        None => OsParameters::default(),
        Some(url) => {
            let problems = own.problems();
            if !problems.is_empty() {
                return Err(CreateError::Parameters(problems));
            }
            let fetch_error = |source| CreateError::Fetch { parameter: "config_url", source };
            let body = cancel.wait(move || fetch::small(&url))?.map_err(fetch_error)?;
            let text =
                std::str::from_utf8(body.expose()).map_err(|_| fetch_error(FetchError::NotText))?;
            OsParameters::from_json(text).map_err(CreateError::Parameters)?
        }
    };
    let all = own.or(fetched).or(configured);
    let problems = all.problems_of_create();
    if problems.is_empty() { Ok(all) } else { Err(CreateError::Parameters(problems)) }
}

/// The disks that the VM gets: the system disk, then all others that may be written.
fn writable(disks: &[Disk]) -> impl Iterator<Item = &Disk> {
    disks.iter().filter(|disk| !disk.read_only)
}

fn vm_disks(
    disks: &[Disk],
    system: &OpenDisk,
    config: &Config,
    cancel: &Cancel,
) -> Result<Vec<VmDisk>, CreateError> {
    let mut out = vec![system.for_vm()?];
    for disk in writable(disks).filter(|disk| disk.index != 0) {
        out.push(OpenDisk::open(&lay::place_of(disk)?, config, cancel)?.for_vm()?);
    }
    Ok(out)
}

/// What goes onto the parameter disk besides the rules: the answer file for Windows.
fn answer_file(
    parameters: &OsParameters,
    config: &Config,
    plan: &Plan,
    cancel: &Cancel,
) -> Result<Vec<(&'static str, Secret)>, CreateError> {
    let fetch_error = |parameter| move |source| CreateError::Fetch { parameter, source };
    let family = plan.properties.os_family().ok().flatten();
    // Windows XP and Server 2003 have another kind of file.
    let name = match family {
        Some(OsFamily::WindowsLegacy) => "sysprep.inf",
        _ => "unattend.xml",
    };
    if let Some(url) = parameters.os_answer_file.as_deref().filter(|url| !url.is_empty()) {
        let url = url.to_owned();
        let fetched = cancel.wait(move || fetch::small(&url))?;
        let body = fetched.map_err(fetch_error("os_answer_file"))?;
        return Ok(vec![(name, body)]);
    }
    match &config.unattend {
        // Of a family that is not known the helper finds out; others do not look at the file.
        Some(path) if family.is_none_or(OsFamily::is_windows) => {
            let body = fetch::small_file(path).map_err(fetch_error("UNATTEND"))?;
            Ok(vec![(name, body)])
        }
        _ => Ok(Vec::new()),
    }
}

/// The rules for the helper.
fn rules(
    env: &Environment,
    config: &Config,
    parameters: &OsParameters,
    plan: &Plan,
    disks: &[Disk],
) -> Result<Rules, CreateError> {
    let mut rules = base_rules(env, config, writable(disks).count())?;
    let text = |value: &Option<String>| value.as_ref().map(|text| Secret::new(text.as_str()));
    let given = [
        ("img_format", text(&parameters.img_format)),
        ("img_passwd", parameters.img_passwd.clone()),
        ("img_passwd_hash", parameters.img_passwd_hash.clone()),
        ("auth_keys", text(&parameters.auth_keys)),
        ("img_properties", text(&parameters.img_properties)),
        ("inst_properties", text(&parameters.inst_properties)),
        ("img_personality", parameters.img_personality.clone()),
        ("os_product_key", parameters.os_product_key.clone()),
        ("cloud_userdata", parameters.cloud_userdata.clone()),
    ];
    for (name, value) in given {
        if let (Some(variable), Some(value)) = (variable_of(name), value) {
            rules.set(variable, value.expose())?;
        }
    }
    // What the format implies; of a whole disk nothing is known.
    let implied: &[&str] = match plan.format {
        ImageFormat::DiskDump => &[],
        _ => &["OSFAMILY", "ROOT_PARTITION"],
    };
    for name in implied {
        if let Some(value) = plan.properties.get(name).filter(|value| !value.is_empty()) {
            rules.set(&format!("PROPERTY_{name}"), value)?;
        }
    }
    if parameters.os_answer_file.as_deref().is_some_and(|url| !url.is_empty()) {
        rules.set("INST_PROPERTIES", ignore_unattend(parameters.inst_properties.as_deref()))?;
    }
    Ok(rules)
}

/// The instance's properties with IGNORE_UNATTEND, which an answer file of its own implies.
fn ignore_unattend(properties: Option<&str>) -> String {
    // They were checked before: what does not parse is empty.
    let mut object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(properties.unwrap_or_default()).unwrap_or_default();
    object.retain(|name, _| !name.eq_ignore_ascii_case("IGNORE_UNATTEND"));
    object.insert("IGNORE_UNATTEND".into(), "yes".into());
    serde_json::Value::Object(object).to_string()
}

/// What every run of the helper is told, whatever the parameters.
pub(crate) fn base_rules(
    env: &Environment,
    config: &Config,
    disks: usize,
) -> Result<Rules, CreateError> {
    let mut rules = Rules::default();
    rules.set("HOSTNAME", env.instance_name()?)?;
    rules.set_array("DEV", (0..disks).map(guest_disk))?;
    rules.set("DHCP_TAGS", config.dhcp_tags.as_str())?;
    rules.set("STATEFUL_DHCPV6_TAGS", config.stateful_dhcpv6_tags.as_str())?;
    rules.set("STATELESS_DHCPV6_TAGS", config.stateless_dhcpv6_tags.as_str())?;
    rules.set("DEFAULT_NIC_CONFIG", config.default_nic_config.as_str())?;
    rules.set("WINDOWS_TIMEZONE", config.windows_timezone.as_str())?;
    if config.cloud_init_debug {
        rules.set("CLOUD_INIT_DEBUG", "yes")?;
    }
    for (name, value) in env.nic_variables()? {
        rules.set(&name, value)?;
    }
    Ok(rules)
}

/// The parameter disk with these files.
pub(crate) fn parameter_disk(files: &[(&str, Secret)]) -> Result<File, CreateError> {
    let files: Vec<(&str, &[u8])> =
        files.iter().map(|(name, content)| (*name, content.expose())).collect();
    Ok(floppy::build(&files, Clock::system().now(), entropy()?.bytes())?)
}

pub(crate) fn entropy() -> Result<Entropy, CreateError> {
    Entropy::from_os().map_err(|source| CreateError::System { action: "get random bytes", source })
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
