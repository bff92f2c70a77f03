//! Whether an image was generalized: whether its setup will read an answer file at the next start.

use snf_fs::Tree;

use super::{OsFamily, RegistryError, Windows, hives};

/// The state of the image's setup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetupState {
    /// The next start specializes the system: an answer file is read. `audit` says that the
    /// system then starts in audit mode.
    Generalized {
        /// `IMAGE_STATE_GENERALIZE_RESEAL_TO_AUDIT`.
        audit: bool,
    },
    /// No answer file will be read; the words are those of the registry.
    Complete(String),
}

const STATE_KEY: &str = "Microsoft\\Windows\\CurrentVersion\\Setup\\State";

pub(super) fn read(tree: &Tree, windows: &Windows) -> Result<SetupState, RegistryError> {
    if windows.family() == OsFamily::WindowsLegacy {
        return read_legacy(tree, windows);
    }
    let software = hives::peek(tree, &windows.directory, "SOFTWARE")?;
    let state = match &software {
        Some(software) => software.text(STATE_KEY, "ImageState")?,
        None => None,
    };
    Ok(match state.as_deref() {
        Some("IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE") => SetupState::Generalized { audit: false },
        Some("IMAGE_STATE_GENERALIZE_RESEAL_TO_AUDIT") => SetupState::Generalized { audit: true },
        Some(state) => {
            let word = state.chars().filter(|c| c.is_ascii_graphic()).take(60).collect::<String>();
            SetupState::Complete(format!("ImageState is {word}"))
        }
        None => SetupState::Complete("its SOFTWARE hive has no ImageState".to_owned()),
    })
}

/// Before Vista: whether the mini-setup comes at the next start.
fn read_legacy(tree: &Tree, windows: &Windows) -> Result<SetupState, RegistryError> {
    let Some(system) = hives::peek(tree, &windows.directory, "SYSTEM")? else {
        return Ok(SetupState::Complete("it has no SYSTEM hive".to_owned()));
    };
    let running = system.number("Setup", "SystemSetupInProgress")?;
    let command = system.text("Setup", "CmdLine")?.unwrap_or_default().to_ascii_lowercase();
    Ok(if running == Some(1) && command.contains("-mini") {
        SetupState::Generalized { audit: false }
    } else {
        SetupState::Complete("no mini-setup is due (SystemSetupInProgress in SYSTEM)".to_owned())
    })
}
