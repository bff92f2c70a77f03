//! RunCustomTask: the image's own program (`CUSTOM_TASK`). Nothing of a guest is ever run while it
//! is customized, neither in the helper VM nor by the command line: the program runs once, as
//! root, at the guest's first boot.

use snf_fs::error::display_name;
use snf_fs::{Attributes, Tree};

use super::initialize_datasource::put;
use super::{Guest, LINUX, Needs, Session, Task, TaskError, TaskId, Work};

pub(super) static TASK: Task = Task {
    id: TaskId::RunCustomTask,
    summary: "have the program in CUSTOM_TASK run once, at the guest's first boot",
    applies: |plan| {
        plan.properties.get("CUSTOM_TASK").is_some_and(|text| !text.trim().is_empty())
            // A value that is neither yes nor no was refused before.
            || plan.properties.boolean(OVERWRITING).unwrap_or(false)
    },
    work: Work::guest(Needs::System(LINUX), run),
};

const OVERWRITING: &str = "ALLOW_MOUNTED_TASK_OVERWRITING";
/// The directory in which images of the original keep programs that replace tasks.
const OVERWRITING_DIR: &str = "/root/snf-image/helper";
const PROGRAM_DIR: &str = "/usr/local/sbin";
const PROGRAM: &str = "snf-image-custom-task";
const UNIT_DIR: &str = "/etc/systemd/system";
const UNIT: &str = "snf-image-custom-task.service";
const WANTS: &str = "/etc/systemd/system/multi-user.target.wants";

/// It is removed when it has ended, however it ended; after a power cut it runs again.
const SERVICE: &str = "\
# Written by snf-image when the instance was made: the image property CUSTOM_TASK.
[Unit]
Description=Custom task of the instance's deployment
ConditionFileIsExecutable=/usr/local/sbin/snf-image-custom-task
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
Environment=SNF_IMAGE_TARGET=/
ExecStart=/usr/local/sbin/snf-image-custom-task
ExecStopPost=/bin/rm -f /usr/local/sbin/snf-image-custom-task

[Install]
WantedBy=multi-user.target
";

fn run(guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    if session.plan.properties.boolean(OVERWRITING)? {
        refuse_overwriting(&guest.tree)?;
    }
    let Some(program) = session.plan.properties.custom_task()? else { return Ok(()) };
    if !guest.has_systemd()? {
        return Err(TaskError::request(
            "CUSTOM_TASK cannot be met: programs are not run while an image is customized, and \
             without systemd in the image there is no first boot to leave it to; do it with \
             img_personality or cloud_userdata, or make it part of the image",
        ));
    }
    put(guest, PROGRAM_DIR, PROGRAM, program.expose(), 0o700)?;
    put(guest, UNIT_DIR, UNIT, SERVICE.as_bytes(), 0o644)?;
    guest.tree.mkdir_all(WANTS, Attributes { mode: 0o755, uid: 0, gid: 0 })?;
    let link = format!("{WANTS}/{UNIT}");
    match guest.tree.unlink(&link) {
        Err(error) if !error.is_not_found() => return Err(error.into()),
        _ => {}
    }
    let attributes = Attributes { mode: 0o777, uid: 0, gid: 0 };
    guest.tree.symlink(&link, format!("../{UNIT}").as_bytes(), attributes)?;
    session.info(format!("CUSTOM_TASK will run at the first boot ({UNIT})"));
    Ok(())
}

/// An image that wants to replace a task of ours is not given what it counts on.
fn refuse_overwriting(tree: &Tree) -> Result<(), TaskError> {
    for entry in tree.read_dir_optional(OVERWRITING_DIR)? {
        if let Some(task) = entry.name.strip_prefix(b"overwrite_task_") {
            return Err(TaskError::request(format!(
                "{OVERWRITING_DIR}/{} in the image was to be run in place of the task {}, and programs \
                 of a guest are never run here; leave {OVERWRITING} out, and use \
                 EXCLUDE_TASK_{} with CUSTOM_TASK (first boot) or cloud_userdata instead",
                display_name(&entry.name),
                display_name(task),
                display_name(task),
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::testing::Guest;

    #[test]
    fn at_the_first_boot_and_only_there() {
        let mut guest = Guest::debian();
        guest.plan.properties.set("CUSTOM_TASK", "IyEvYmluL3NoCmVjaG8gaGkK");
        for _ in 0..2 {
            guest.run(&TASK).unwrap();
        }
        let path = format!("{PROGRAM_DIR}/{PROGRAM}");
        assert_eq!(guest.read(&path), "#!/bin/sh\necho hi\n");
        assert_eq!(guest.attributes(&path), (0o700, 0, 0));
        let unit = guest.read(&format!("{WANTS}/{UNIT}"));
        assert!(unit.contains(&format!("ExecStart={path}\n")), "the link leads to the unit");
    }

    #[test]
    fn what_cannot_be_met_is_said() {
        let mut guest = Guest::empty();
        guest.plan.properties.set("CUSTOM_TASK", "IyEvYmluL3NoCg==");
        let error = guest.run(&TASK).unwrap_err().to_string();
        assert!(error.contains("without systemd"), "{error}");
        guest.plan.properties.set("CUSTOM_TASK", "no base64!");
        let error = guest.run(&TASK).unwrap_err().to_string();
        assert!(error.contains("CUSTOM_TASK"), "{error}");
        let mut guest = Guest::debian();
        guest.plan.properties.set(OVERWRITING, "yes");
        assert!((TASK.applies)(&guest.plan));
        guest.run(&TASK).unwrap();
        guest.write("/root/snf-image/helper/overwrite_task_AddSwap", "");
        let error = guest.run(&TASK).unwrap_err().to_string();
        assert!(error.contains("in place of the task AddSwap"), "{error}");
    }
}
