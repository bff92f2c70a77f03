//! `create`: environment and configuration → image onto the disk → helper VM → result.

use snf_image::passwords;
use snf_image::plan::Plan;
use snf_image::properties::OsFamily;

use crate::disk::open::OpenDisk;
use crate::helper::{SECTOR_SIZE, VmDisk, VmRequest};
use crate::image::copy::Settle;
use crate::image::source;
use crate::image::source::id::{self, ImageId};
use crate::node::cancel::Cancel;
use crate::node::config::Config;
use crate::node::env::{Disk, Environment};
use crate::node::log;
use crate::node::monitor::Monitor;

mod error;
pub(crate) mod lay;
mod parameters;
mod preparation;
mod request;
mod vm;

pub use error::CreateError;
use parameters::{names_of, os_parameters};
use preparation::Preparation;
use request::{answer_file, check_room, rules};
pub(crate) use request::{base_rules, json_of, parameter_disk};
pub use vm::{HelperRunner, Qemu, check_trust, helper_config};
pub(crate) use vm::{customize_in_vm, trust_checks, vm_disk};

/// The whole of `create`. The monitor hears of an error, too.
pub fn create(
    env: &Environment,
    config: &Config,
    cancel: &Cancel,
    runner: &mut dyn HelperRunner,
) -> Result<(), CreateError> {
    env.check_api_version()?;
    let instance = env.instance_name()?;
    // Before the first program of the configuration runs.
    check_trust(config)?;
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
    passwords::check(&plan)?;
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
    let customize = !plan.properties.boolean("EXCLUDE_ALL_TASKS").unwrap_or(false);
    if customize {
        runner.check(&helper)?;
    }
    // Everything that can fail comes before the first byte on the disk.
    let mut files = answer_file(&parameters, config, &plan, cancel)?;
    let mut rules = rules(env, config, &parameters, &plan, writable(&disks).count())?;
    if customize {
        // The helper does the same first. A mistake that it finds has cost the old disk.
        rules.plan()?;
        check_room(&files, &rules)?;
    }
    let preparation = if customize { Some(Preparation::start(&plan, env)?) } else { None };

    let mut system = lay::system_disk(&disks, config, cancel)?;
    let others = match customize {
        true => other_disks(&disks, config, cancel)?,
        false => Vec::new(),
    };
    let image = source::open(&image_id, config, Some(system.size()), cancel)?;
    // Nothing is worth keeping of a deployment that was cut short. A disk that was there before is
    // worth keeping, and the order in which its file systems are written depends on flushes.
    let flush_later = image.is_some();
    match image {
        Some(image) => {
            monitor.info("copying the image to the disk");
            // One flush does for the copy and for what the VM writes.
            let settle = if customize { Settle::Later } else { Settle::Now };
            system.lay(&id::display(img_id), image, plan.format, settle, cancel, monitor)?;
        }
        None => log::info("no image to copy: the disk is customized as it is"),
    }
    cancel.check()?;
    if !customize {
        log::info("all tasks are excluded: the helper VM is not started");
        return Ok(());
    }
    monitor.info("customizing the image");
    if preparation.as_ref().is_some_and(|preparation| !preparation.is_finished()) {
        // The disk has something to do while keys are made.
        system.flush()?;
    }
    if let Some(preparation) = preparation {
        preparation.write(&mut rules)?;
    }
    files.insert(0, ("rules", rules.write()));
    let mut system = system.open(config, cancel)?;
    let request = VmRequest {
        disks: vm_disks(&system, &others)?,
        parameters: parameter_disk(&files)?,
        hypervisor: env.hypervisor()?.unwrap_or_default().to_owned(),
        flush_later,
        sector_size: SECTOR_SIZE,
    };
    drop(files);
    customize_in_vm(&helper, &request, cancel, runner, monitor)?;
    // QEMU wrote through another description of the same file.
    lay::flush(system.destination())
}

/// Memory for changing a Windows: the helper holds a whole registry hive twice.
const WINDOWS_MEMORY_MIB: u32 = 384;

/// Whether the image is, or may be, a Windows.
fn plan_is_windows(plan: &Plan) -> bool {
    plan.properties.os_family().ok().flatten().is_some_and(OsFamily::is_windows)
}

/// The disks that the VM gets: all that may be written, the system disk first.
fn writable(disks: &[Disk]) -> impl Iterator<Item = &Disk> {
    disks.iter().filter(|disk| !disk.read_only)
}

/// Opens the disks besides the first. They are claimed before the copy, so that one that is in use
/// costs nothing.
fn other_disks(
    disks: &[Disk],
    config: &Config,
    cancel: &Cancel,
) -> Result<Vec<OpenDisk>, CreateError> {
    let others = writable(disks).filter(|disk| disk.index != 0);
    others.map(|disk| Ok(OpenDisk::open(&lay::place_of(disk)?, config, cancel)?)).collect()
}

fn vm_disks(system: &OpenDisk, others: &[OpenDisk]) -> Result<Vec<VmDisk>, CreateError> {
    let all = std::iter::once(system).chain(others);
    all.map(|disk| Ok(vm_disk(disk)?)).collect()
}
