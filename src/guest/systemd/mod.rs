//! Units of systemd, as `systemctl --root` sees them: where a unit lies, what its `[Install]` section
//! says, and which links switch it on. Source: systemd.unit(5) and systemctl(1).

mod install;
mod links;
mod name;
mod search;

pub use install::Install;
pub use links::{Link, Plan, disable, enable, file_of, pulled_in};
pub use name::{BadUnitName, UnitName};
pub use search::{Found, find};

use snf_fs::error::display_name;

/// The folder of the administrator's links.
pub const CONFIG: &str = "/etc/systemd/system";

/// Why a unit cannot be switched on.
#[derive(Debug, thiserror::Error)]
pub enum UnitError {
    /// The guest's file system.
    #[error(transparent)]
    Fs(#[from] snf_fs::Error),
    /// There is no such unit.
    #[error("the guest has no unit {0}")]
    Missing(String),
    /// It is masked.
    #[error("{unit} is masked by {}; --unmask it first", display_name(.path))]
    Masked {
        /// The unit.
        unit: String,
        /// The link, or the empty file.
        path: Vec<u8>,
    },
    /// Names that lead to each other.
    #[error("{0} is a name that leads to no unit, only to other names")]
    Loop(String),
    /// A template without an instance.
    #[error("{0} is a template without a default instance; name one, such as {1}")]
    Template(String, String),
    /// A specifier that depends on the running machine.
    #[error(
        "{unit}: the specifier %{specifier} in its [Install] section is not known before it runs"
    )]
    Specifier {
        /// The unit.
        unit: String,
        /// Its letter.
        specifier: char,
    },
    /// More units than anybody has.
    #[error("{0}: its [Install] sections name more than {1} units")]
    TooMany(String, usize),
}
