//! DisableRemoteDesktopConnections: nobody logs on from afar before the passwords are set.

use super::super::{Guest, Needs, Session, Task, TaskError, TaskId, Work};
use super::Way;
use super::script::{self, Part};
use crate::guest::windows::hives;

pub(in super::super) static TASK: Task = Task {
    id: TaskId::DisableRemoteDesktopConnections,
    summary: "refuse remote desktop until the setup of Windows has set the passwords",
    applies: |_| true,
    work: Work::guest(Needs::Where(super::WINDOWS), run),
};

const KEY: &str = "Control\\Terminal Server";
const VALUE: &str = "fDenyTSConnections";

fn run(guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    if super::way(guest, session)? == Way::Offline {
        session.info("remote desktop stays as it is: nothing would allow it again");
        return Ok(());
    }
    let windows = super::system(guest)?;
    let now = super::now(session);
    let mut system = hives::open(&guest.tree, &windows.directory, "SYSTEM", now)?;
    let hive = &mut system.hive;
    let select = hive.key("Select").ok().flatten();
    let set = select
        .and_then(|select| hives::control_set(|name| hive.number(select, name).ok().flatten()));
    let Some(set) = set else {
        return Err(TaskError::request("the SYSTEM hive has no usable value Select\\Default"));
    };
    let result = hive.key(&format!("{set}\\{KEY}")).and_then(|key| match key {
        None => Ok(None),
        Some(key) => Ok(Some((key, hive.number(key, VALUE)?))),
    });
    let found = result.map_err(|error| system.error(error))?;
    let Some((key, before)) = found else {
        session.info("the image has no remote desktop");
        return Ok(());
    };
    if before == Some(1) {
        // It was so, or an earlier run did it and its command file has what was before.
        session.info("remote desktop is refused already");
        return Ok(());
    }
    system.hive.set_number(key, VALUE, 1).map_err(|error| system.error(error))?;
    system.save(&mut guest.tree)?;
    if script::exists(guest, Part::RemoteDesktop)? {
        return Ok(());
    }
    let path = "HKLM\\SYSTEM\\CurrentControlSet\\Control\\Terminal Server";
    let command = match before {
        Some(number) => {
            format!("reg add \"{path}\" /v {VALUE} /t REG_DWORD /d {number} /f")
        }
        None => format!("reg delete \"{path}\" /v {VALUE} /f"),
    };
    let text = format!("@echo off\r\n{command}\r\nexit /b 0\r\n");
    script::install(guest, session, Part::RemoteDesktop, text.as_bytes())
}
