//! `rename`: Ganeti's name of the instance changed. Ganeti also calls it after every import and
//! with a name that did not change, so it can run any number of times.

use snf_image::properties::Properties;
use snf_image::task::TaskId;

use crate::disk::open::OpenDisk;
use crate::helper::{SECTOR_SIZE, VmRequest};
use crate::node::cancel::Cancel;
use crate::node::config::Config;
use crate::node::env::Environment;
use crate::node::log;
use crate::node::monitor::Monitor;
use crate::scripts::create::lay;
use crate::scripts::create::{
    CreateError, HelperRunner, base_rules, check_trust, customize_in_vm, helper_config, json_of,
    parameter_disk, vm_disk,
};

/// Tasks that a rename must not do again.
const EXCLUDED: [TaskId; 16] = [
    TaskId::FixPartitionTable,
    TaskId::FilesystemResizeUnmounted,
    TaskId::PrepareSystem,
    TaskId::InitializeDatasource,
    TaskId::InstallUnattend,
    TaskId::FilesystemResizeMounted,
    TaskId::AddSwap,
    TaskId::ChangeMachineId,
    TaskId::ChangePassword,
    TaskId::ConfigureNetwork,
    TaskId::DeleteSSHKeys,
    TaskId::DisableRemoteDesktopConnections,
    TaskId::EditGuest,
    TaskId::EnforcePersonality,
    TaskId::RunCustomTask,
    TaskId::FilesystemResizeAfterUmount,
];

/// Sets the host name inside the first disk where the configuration asks for it
/// (`RENAME_HOSTNAME=yes`), and nothing else; otherwise there is nothing to do.
pub fn rename(
    env: &Environment,
    config: &Config,
    cancel: &Cancel,
    runner: &mut dyn HelperRunner,
) -> Result<(), CreateError> {
    env.check_api_version()?;
    let new = env.instance_name()?;
    let old = env.old_instance_name()?;
    if !config.rename_hostname {
        log::info(&format!(
            "{old} is now {new}; the disk is left as it is (RENAME_HOSTNAME=yes would change the host name in it)"
        ));
        return Ok(());
    }
    let disks = env.disks()?;
    let Some(disk) = disks.first().filter(|disk| !disk.read_only) else {
        log::info("there is no disk to change the host name in");
        return Ok(());
    };
    let place = lay::place_of(disk)?;
    let helper = helper_config(config);
    check_trust(config)?;
    runner.check(&helper)?;
    let mut rules = base_rules(env, config, 1)?;
    rules.set("TYPE", "diskdump")?;
    rules.set("PROPERTIES", properties())?;
    let mut target = OpenDisk::open(&place, config, cancel)?;
    let request = VmRequest {
        disks: vec![vm_disk(&target)?],
        parameters: parameter_disk(&[("rules", rules.write())])?,
        hypervisor: env.hypervisor()?.unwrap_or_default().to_owned(),
        flush_later: false,
        sector_size: SECTOR_SIZE,
    };
    log::info(&format!("{old} is now {new}; changing the host name in {}", place.text()));
    customize_in_vm(&helper, &request, cancel, runner, &mut Monitor::to_log())?;
    target.destination().flush()?;
    Ok(())
}

fn properties() -> String {
    let mut properties = Properties::default();
    for task in EXCLUDED {
        properties.exclude(task);
    }
    json_of(&properties)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_name_is_left() {
        let properties = Properties::parse(&properties(), "x").unwrap();
        for task in EXCLUDED {
            assert!(properties.excluded(task).unwrap());
        }
        let left = TaskId::ALL.into_iter().filter(|task| !EXCLUDED.contains(task));
        // The label is that of the file that holds the name.
        let expected = [TaskId::MountImage, TaskId::AssignHostname, TaskId::SELinuxAutorelabel];
        assert_eq!(left.collect::<Vec<_>>(), expected, "a new task must be excluded, or be here");
        assert!(!properties.excluded(TaskId::AssignHostname).unwrap());
        assert!(!properties.excluded(TaskId::MountImage).unwrap());
    }
}
