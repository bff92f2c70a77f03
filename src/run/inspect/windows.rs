//! A Windows guest's description of itself.

use serde::Serialize;
use snf_fs::Tree;

use super::{GuestSummary, UserSummary};
use crate::craft::sentence::sentence;
use crate::guest::windows::registry::FileTime;
use crate::guest::windows::{RegistryError, SetupState, Windows, hives, sam};

/// The description of a Windows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WindowsSummary {
    /// `x86`, `amd64`, `arm64`; none when its kernel does not say.
    pub architecture: Option<&'static str>,
    /// `EditionID` (`ServerStandard`); may be empty.
    pub edition: String,
    /// Whether its setup will read an answer file at the next start (sysprep /generalize).
    pub generalized: Option<bool>,
    /// Its directory.
    pub directory: String,
}

/// Fills in what the registry says. Each part on its own: what one hive hides must not hide the
/// rest.
pub(super) fn fill(
    tree: &Tree,
    windows: &Windows,
    guest: &mut GuestSummary,
    warnings: &mut Vec<String>,
) {
    let mut summary = WindowsSummary {
        architecture: windows.architecture.map(|architecture| architecture.name()),
        edition: windows.edition.clone(),
        generalized: None,
        directory: windows.directory.clone(),
    };
    let state = windows.setup_state(tree).map(|state| {
        summary.generalized = Some(matches!(state, SetupState::Generalized { .. }));
    });
    let name = windows.computer_name(tree).map(|name| guest.hostname = name);
    let users = users(tree, windows).map(|users| guest.users = users);
    guest.windows = Some(summary);
    let errors = [state, name, users].into_iter().filter_map(Result::err);
    warnings.extend(errors.map(|error| sentence(&error)));
}

fn users(tree: &Tree, windows: &Windows) -> Result<Vec<UserSummary>, RegistryError> {
    let sam = hives::open(tree, &windows.directory, "SAM", FileTime(0))?;
    let accounts = sam::accounts(&sam.hive)?;
    Ok(accounts
        .into_iter()
        .take(super::USERS_MAX)
        .map(|account| UserSummary {
            name: snf_fs::error::display_name(account.name.as_bytes()),
            uid: account.rid,
            home: String::new(),
            shell: String::new(),
            password: match (account.disabled, account.password) {
                (true, _) => "locked",
                (false, Some(true)) => "set",
                (false, Some(false)) => "none",
                (false, None) => "unknown",
            },
        })
        .collect())
}
