//! Local users of a Windows: their names, and their passwords set in the registry itself.
//!
//! The layouts are those that public tools for reading SAM (impacket, samdump) document: Microsoft
//! has published none. Both forms are here: RC4 with MD5, up to Windows 10 1511, and AES-128, since
//! 1607. The tests let impacket read what we wrote.

mod account;
mod crypt;
#[cfg(test)]
pub(crate) mod fixture;
mod keys;

use zeroize::Zeroizing;

use super::RegistryError;
use crate::craft::random::Entropy;
use crate::craft::secret::Secret;
use crate::guest::windows::registry::{FileTime, Hive, HiveError, Key};

pub use keys::BootKey;

const USERS: &str = "SAM\\Domains\\Account\\Users";
const DOMAIN: &str = "SAM\\Domains\\Account";
/// No password is longer, in UTF-16 units.
pub const PASSWORD_MAX: usize = 127;
/// The number of the built-in administrator, whatever its name.
pub const ADMINISTRATOR: u32 = 500;

/// A local user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its relative identifier.
    pub rid: u32,
    /// Whether it may not log on.
    pub disabled: bool,
    /// Whether it has a password; `None` when that cannot be told.
    pub password: Option<bool>,
}

/// Side effects of setting a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Changed {
    /// The account was disabled and no longer is.
    pub enabled: bool,
}

/// The part that the values of a SAM lack. The words follow "has no".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
enum Lacking {
    #[error("value V: entry {0} of a user")]
    Entry(usize),
    #[error("value F of a user: it has {0} bytes")]
    Fields(usize),
    #[error("key in the value F of SAM\\Domains\\Account")]
    Key,
    #[error(
        "key that fits the boot key of SYSTEM: the hives are of two systems, or its startup key is \
         not in the image"
    )]
    FittingKey,
    #[error("known revision of its key (it is {0})")]
    Revision(u32),
}

impl From<Lacking> for RegistryError {
    fn from(lacking: Lacking) -> Self {
        lacks(lacking.to_string())
    }
}

fn hive_error(source: HiveError) -> RegistryError {
    RegistryError::Hive { path: "SAM".into(), source }
}

fn lacks(what: impl Into<String>) -> RegistryError {
    RegistryError::Lacks { hive: "SAM", what: what.into() }
}

/// All local users, by number.
pub fn accounts(sam: &Hive) -> Result<Vec<Account>, RegistryError> {
    let names = sam.key(&format!("{USERS}\\Names")).map_err(hive_error)?;
    let names = names.ok_or_else(|| lacks(format!("key {USERS}\\Names")))?;
    let mut accounts = Vec::new();
    for key in sam.subkeys(names).map_err(hive_error)? {
        let name = sam.name(key).map_err(hive_error)?.to_string();
        // The type of the default value is the number.
        let Some(value) = sam.value(key, "").map_err(hive_error)? else { continue };
        let rid = value.data_type;
        let mut account = Account { name, rid, disabled: false, password: None };
        if let Some(user) = user_key(sam, rid)? {
            if let Some(f) = sam.value(user, "F").map_err(hive_error)? {
                account.disabled = account::is_disabled(&f.data);
            }
            if let Some(v) = sam.value(user, "V").map_err(hive_error)? {
                account.password = account::has_password(&v.data);
            }
        }
        accounts.push(account);
    }
    accounts.sort_by_key(|account| account.rid);
    Ok(accounts)
}

fn user_key(sam: &Hive, rid: u32) -> Result<Option<Key>, RegistryError> {
    sam.key(&format!("{USERS}\\{rid:08X}")).map_err(hive_error)
}

/// Sets a local user's password. The account is enabled and unlocked, as somebody who sets a
/// password expects; keys made of the old one are removed.
pub fn set_password(
    sam: &mut Hive,
    boot_key: &BootKey,
    rid: u32,
    password: &Secret,
    entropy: &mut Entropy,
    now: FileTime,
) -> Result<Changed, RegistryError> {
    let key = user_key(sam, rid)?.ok_or_else(|| lacks(format!("key {USERS}\\{rid:08X}")))?;
    let read = |sam: &Hive, key, name: &str| {
        let value = sam.value(key, name).map_err(hive_error)?;
        value.ok_or_else(|| lacks(format!("value {name} of user {rid:08X}")))
    };
    let domain = sam.key(DOMAIN).map_err(hive_error)?;
    let domain = domain.ok_or_else(|| lacks(format!("key {DOMAIN}")))?;
    let domain_f = Zeroizing::new(read(sam, domain, "F")?.data);
    let (f, v) = (read(sam, key, "F")?, read(sam, key, "V")?);
    let v_data = Zeroizing::new(v.data);

    let hashed = keys::hashed_boot_key(&domain_f, boot_key)?;
    let hash = crypt::nt_hash(password);
    let hash = crypt::with_rid(&hash, rid);
    let stored = crypt::Stored::of(&v_data, hashed.revision);
    let content = stored.encrypt(&hashed, rid, &hash, entropy);
    let new_v = account::with_hash(&v_data, &content, stored.empty())?;
    let (new_f, enabled) = account::usable(&f.data, now)?;
    sam.set_value(key, "V", v.data_type, &new_v).map_err(hive_error)?;
    sam.set_value(key, "F", f.data_type, &new_f).map_err(hive_error)?;
    if sam.number(key, "ForcePasswordReset").map_err(hive_error)?.is_some_and(|set| set != 0) {
        sam.set_number(key, "ForcePasswordReset", 0).map_err(hive_error)?;
    }
    // Kerberos keys and hints of the old password: Windows makes the keys again when it needs them.
    for name in ["SupplementalCredentials", "UserPasswordHint"] {
        sam.delete_value(key, name).map_err(hive_error)?;
    }
    Ok(Changed { enabled })
}

#[cfg(test)]
mod tests;
