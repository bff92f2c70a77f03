//! The work of tasks on Windows: the answer file that its setup reads at the next start, and a
//! command
//! file that it runs once.

pub(super) mod command;
pub(super) mod computer_name;
pub(super) mod extend;
pub(super) mod files;
pub(super) mod first_boot;
pub(super) mod install_unattend;
pub(super) mod offline_resize;
pub(super) mod passwords;
pub(super) mod personality;
pub(super) mod places;
pub(super) mod remote_desktop;
pub(super) mod script;
#[cfg(test)]
mod tests;

use super::{Guest, Session, TaskError};
use crate::ask::properties::PropertyError;
use crate::guest::OsFamily;
use crate::guest::windows::registry::FileTime;
use crate::guest::windows::{Architecture, SetupState, Windows};

/// Every Windows.
pub(super) const WINDOWS: &[OsFamily] = &[OsFamily::Windows, OsFamily::WindowsLegacy];
/// The property by which passwords are set in the registry itself.
const OFFLINE_PASSWORD: &str = "OFFLINE_PASSWORD";

/// How a Windows is customized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It is generalized: its setup does what the answer file says.
    Setup,
    /// It is not, and the request knows that: only what can be done to its files is done.
    Offline,
}

/// The guest's Windows.
pub(super) fn system(guest: &Guest) -> Result<Windows, TaskError> {
    guest.windows.clone().ok_or_else(|| {
        TaskError::request(
            "OSFAMILY says that this is a Windows, and its root has no Windows\\System32 with a \
             kernel and registry hives; name the right partition with ROOT_PARTITION",
        )
    })
}

/// The time that changes of a registry carry.
pub(super) fn now(session: &Session<'_>) -> FileTime {
    session.clock.now().into()
}

/// How this guest is to be customized; an error when it is not generalized and nobody has said
/// that this is known.
pub(super) fn way(guest: &Guest, session: &Session<'_>) -> Result<Way, TaskError> {
    let windows = system(guest)?;
    match windows.setup_state(&guest.tree)? {
        SetupState::Generalized { .. } => Ok(Way::Setup),
        SetupState::Complete(_) if offline(session)? => Ok(Way::Offline),
        SetupState::Complete(reason) => Err(TaskError::request(format!(
            "the image is not generalized ({reason}), so its setup will read no answer file; run \
             sysprep /generalize /oobe /shutdown in it, or set only passwords, in its registry, \
             with the property {OFFLINE_PASSWORD} (snf-customize: --offline-password)"
        ))),
    }
}

/// Whether passwords may be set in the registry itself.
pub(super) fn offline(session: &Session<'_>) -> Result<bool, PropertyError> {
    session.plan.properties.boolean(OFFLINE_PASSWORD)
}

/// The processor that answer files are for. One that is not known is taken for the usual one.
pub(super) fn architecture(windows: &Windows) -> Architecture {
    windows.architecture.unwrap_or(Architecture::Amd64)
}

/// Whether this is a Windows of before Vista.
pub(super) fn is_legacy(guest: &Guest) -> bool {
    guest.family == Some(OsFamily::WindowsLegacy)
}
