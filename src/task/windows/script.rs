//! The command files that Windows' setup runs once: `run.cmd`, which is always the same, and beside
//! it one file for each task. In the specialize pass (XP: at the end of the mini-setup) they run;
//! then they are overwritten and deleted. `SetupComplete.cmd` does at the end what could not be
//! done before, and deletes the answer file with its secrets.

use super::super::{Guest, Session, TaskError};
use super::{files, install_unattend};

/// Directory of the command files, below that of Windows.
const DIRECTORY: &str = "Setup/Scripts/snf-image";
const SETUP_COMPLETE: &str = "Setup/Scripts/SetupComplete.cmd";
const RUN: &str = include_str!("run.cmd");
/// In `SetupComplete.cmd`, in front of what is there: that may end with `exit`.
pub(super) const CALL: &str = "@if exist \"%~dp0snf-image\\run.cmd\" \
    (call \"%~dp0snf-image\\run.cmd\" last & rd /s /q \"%~dp0snf-image\")\r\n";
/// The command that the answer file runs in the specialize pass.
const COMMAND: &str = "cmd.exe /c \"%SystemRoot%\\Setup\\Scripts\\snf-image\\run.cmd\"";

/// The list of commands of the mini-setup of XP, and where it looks for it.
const CMDLINES: &str = "/sysprep/i386/$oem$/cmdlines.txt";
const INSTALL_FILES: &str = "\\sysprep\\i386";
const LEGACY_COMMAND: &str = "\"cmd.exe /c call %SystemRoot%\\Setup\\Scripts\\snf-image\\run.cmd last & \
     rd /s /q %SystemRoot%\\Setup\\Scripts\\snf-image\"\r\n";

/// A command file of a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// Enlarges the file system.
    Extend,
    /// Sets passwords.
    Password,
    /// Allows remote desktop again, when the passwords were set.
    RemoteDesktop,
}

impl Part {
    fn file(self) -> &'static str {
        match self {
            Self::Extend => "extend.cmd",
            Self::Password => "password.cmd",
            Self::RemoteDesktop => "remote-desktop.cmd",
        }
    }
}

/// The path of a task's command file.
fn path(guest: &Guest, part: Part) -> Result<String, TaskError> {
    Ok(super::system(guest)?.below(&format!("{DIRECTORY}/{}", part.file())))
}

/// Whether the image has a task's command file already.
pub(super) fn exists(guest: &Guest, part: Part) -> Result<bool, TaskError> {
    Ok(files::read(guest, &path(guest, part)?)?.is_some())
}

/// Installs a task's command file, and sees to it that it is run. `text` has a line for each.
pub(super) fn install(
    guest: &mut Guest,
    session: &mut Session<'_>,
    part: Part,
    text: &[u8],
) -> Result<(), TaskError> {
    let path = path(guest, part)?;
    files::write(guest, &path, text)?;
    clean_up(guest, session)
}

/// Sees to it that the command files are run and that afterwards all is deleted that holds secrets.
pub(super) fn clean_up(guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    let windows = super::system(guest)?;
    if super::is_legacy(guest) {
        files::write(guest, &windows.below(&format!("{DIRECTORY}/run.cmd")), run(b"").as_bytes())?;
        return call_from_mini_setup(guest, session);
    }
    install_unattend::edit(guest, session, |file| {
        file.run_in_specialize("snf-image: run once what was asked for", COMMAND)
    })?;
    let answer = guest.answer.clone().unwrap_or_default();
    files::write(guest, &windows.below(&format!("{DIRECTORY}/run.cmd")), run(&answer).as_bytes())?;
    let complete = windows.below(SETUP_COMPLETE);
    let old = files::read(guest, &complete)?.unwrap_or_default();
    if !old.starts_with(CALL.as_bytes()) {
        files::write(guest, &complete, &[CALL.as_bytes(), &old].concat())?;
    }
    Ok(())
}

/// The command file that runs the others, for an answer file at this path of the guest.
fn run(answer: &[u8]) -> String {
    // A path that a command file cannot hold is not among those that Windows looks at, but for one
    // that the registry names.
    let answer = std::str::from_utf8(answer).ok().filter(|path| path.is_ascii());
    let answer = match answer {
        Some(path) if !path.is_empty() => {
            format!(" \"%SystemDrive%{}\"", path.replace('/', "\\").replace('%', "%%"))
        }
        _ => String::new(),
    };
    RUN.replace("@ANSWER@", &answer).replace("\r\n", "\n").replace('\n', "\r\n")
}

fn call_from_mini_setup(guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    install_unattend::edit_legacy(guest, session, |inf| {
        if inf.get("Unattended", "InstallFilesPath").is_none() {
            inf.set("Unattended", "InstallFilesPath", INSTALL_FILES);
        }
    })?;
    let old = files::read(guest, CMDLINES)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&old);
    if text.contains("snf-image\\run.cmd") {
        return Ok(());
    }
    let mut new = if text.to_ascii_lowercase().contains("[commands]") {
        old.clone()
    } else {
        b"[Commands]\r\n".to_vec()
    };
    if !new.ends_with(b"\n") {
        new.extend_from_slice(b"\r\n");
    }
    new.extend_from_slice(LEGACY_COMMAND.as_bytes());
    files::write(guest, CMDLINES, &new)?;
    Ok(())
}
