//! The description of a Windows guest: its directory, processor, version and edition, what its
//! setup is
//! going to do at the next start, and its users.

pub mod answer;
#[cfg(test)]
pub(crate) mod fixture;
pub mod hives;
pub mod path;
pub(crate) mod pe;
pub mod registry;
pub mod sam;
mod state;

pub use hives::RegistryError;
pub use pe::Architecture;
pub use state::SetupState;

use snf_fs::{Error, Tree};

use super::OsFamily;

/// Directories that Windows has been installed in; the second one is that of Windows 2000.
const DIRECTORIES: [&str; 2] = ["/Windows", "/WINNT"];
/// The key of SOFTWARE with the version.
const CURRENT_VERSION: &str = "Microsoft\\Windows NT\\CurrentVersion";

/// A Windows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Windows {
    /// Its directory, as the image spells it (`/Windows`).
    pub directory: String,
    /// Its processor; `None` when its kernel does not say.
    pub architecture: Option<Architecture>,
    /// `Windows Server 2022 Standard`; may be empty.
    pub product: String,
    /// `EditionID` (`ServerStandard`); may be empty.
    pub edition: String,
    /// Major and minor version: 5.1 is XP, 6.0 Vista, 10.0 Windows 10 and 11.
    pub version: Option<(u32, u32)>,
    /// The build's number (19045); may be empty.
    pub build: String,
}

impl Windows {
    /// The Windows of a tree; `None` when there is none: no kernel with registry hives beside it.
    /// Hives that cannot be read leave it without version.
    pub fn detect(tree: &Tree) -> Result<Option<Self>, Error> {
        for wanted in DIRECTORIES {
            let Some(directory) = path::find(tree, wanted)? else { continue };
            let Ok(directory) = String::from_utf8(directory) else { continue };
            let kernel = path::find(tree, &format!("{directory}/System32/ntoskrnl.exe"))?;
            let system = path::find(tree, &format!("{directory}/System32/config/SYSTEM"))?;
            let (Some(kernel), Some(_)) = (kernel, system) else { continue };
            let head = tree.read_range(&kernel, 0, 4096).unwrap_or_default();
            let mut windows = Self {
                architecture: pe::architecture(&head),
                directory,
                product: String::new(),
                edition: String::new(),
                version: None,
                build: String::new(),
            };
            // Unreadable values count as absent.
            let _ = windows.read_version(tree);
            return Ok(Some(windows));
        }
        Ok(None)
    }

    fn read_version(&mut self, tree: &Tree) -> Result<(), RegistryError> {
        let Some(software) = hives::peek(tree, &self.directory, "SOFTWARE")? else {
            return Ok(());
        };
        let text = |name| software.text(CURRENT_VERSION, name);
        let number = |name| software.number(CURRENT_VERSION, name);
        self.product = text("ProductName")?.unwrap_or_default().trim().to_owned();
        self.edition = text("EditionID")?.unwrap_or_default();
        self.build = match text("CurrentBuildNumber")? {
            Some(build) => build,
            None => text("CurrentBuild")?.unwrap_or_default(),
        };
        let split = |text: String| {
            let (major, minor) = text.split_once('.')?;
            Some((major.parse().ok()?, minor.parse().ok()?))
        };
        // Since Windows 10 the text stands still at 6.3 and numbers say more.
        self.version =
            match (number("CurrentMajorVersionNumber")?, number("CurrentMinorVersionNumber")?) {
                (Some(major), minor) => Some((major, minor.unwrap_or(0))),
                (None, _) => text("CurrentVersion")?.and_then(split),
            };
        // Windows 11 calls itself 10 in this place.
        if self.build.parse::<u32>().is_ok_and(|build| build >= 22_000)
            && let Some(rest) = self.product.strip_prefix("Windows 10")
        {
            self.product = format!("Windows 11{rest}");
        }
        Ok(())
    }

    /// `windows` or `windows-legacy`: before Vista there were other answer files. A version that
    /// is not known is taken for a newer one.
    pub fn family(&self) -> OsFamily {
        match self.version {
            Some((major, _)) if major < 6 => OsFamily::WindowsLegacy,
            _ => OsFamily::Windows,
        }
    }

    /// The system in words.
    pub fn name(&self) -> String {
        let mut name =
            if self.product.is_empty() { "Windows".to_owned() } else { self.product.clone() };
        if !name.contains("Windows") {
            name.insert_str(0, "Windows ");
        }
        if let Some(architecture) = self.architecture {
            name.push_str(&format!(" ({})", architecture.name()));
        }
        name
    }

    /// The version as a number (`10.0.20348`); empty when it is not known.
    pub fn version_text(&self) -> String {
        match self.version {
            Some((major, minor)) if self.build.is_empty() => format!("{major}.{minor}"),
            Some((major, minor)) => format!("{major}.{minor}.{}", self.build),
            None => String::new(),
        }
    }

    /// A path below the directory of Windows, for [`path::find`].
    pub fn below(&self, rest: &str) -> String {
        format!("{}/{rest}", self.directory)
    }

    /// The work of its setup at the next start.
    pub fn setup_state(&self, tree: &Tree) -> Result<SetupState, RegistryError> {
        state::read(tree, self)
    }

    /// The names of the time zones that it knows; empty when its registry does not list them.
    pub fn time_zones(&self, tree: &Tree) -> Result<Vec<String>, RegistryError> {
        let software = hives::peek(tree, &self.directory, "SOFTWARE")?;
        let key = format!("{CURRENT_VERSION}\\Time Zones");
        Ok(match software {
            Some(software) => software.subkeys(&key)?.unwrap_or_default(),
            None => Vec::new(),
        })
    }

    /// The number that `sysprep.inf` has for a time zone.
    pub fn time_zone_index(&self, tree: &Tree, name: &str) -> Result<Option<u32>, RegistryError> {
        let key = format!("{CURRENT_VERSION}\\Time Zones\\{name}");
        match hives::peek(tree, &self.directory, "SOFTWARE")? {
            Some(software) => software.number(&key, "Index"),
            None => Ok(None),
        }
    }

    /// The computer's name.
    pub fn computer_name(&self, tree: &Tree) -> Result<Option<String>, RegistryError> {
        let Some(system) = hives::peek(tree, &self.directory, "SYSTEM")? else { return Ok(None) };
        let number = |name: &str| system.number("Select", name).ok().flatten();
        let Some(set) = hives::control_set(number) else { return Ok(None) };
        let key = format!("{set}\\Control\\ComputerName\\ComputerName");
        system.text(&key, "ComputerName")
    }
}
