//! The numbers of the guest's users and groups, for names that a request gives.

use snf_fs::error::display_name;

use super::{CONFIG_MAX, Guest, passwd};

/// The guest's users and groups, read when a name asks for them.
#[derive(Default)]
pub(crate) struct Accounts {
    passwd: Option<Vec<u8>>,
    group: Option<Vec<u8>>,
}

/// A name that the guest does not have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the image has no {kind} \"{}\"", display_name(.name.as_bytes()))]
pub struct NoSuchAccount {
    /// `user` or `group`.
    kind: &'static str,
    /// The name that was asked for.
    name: String,
}

impl NoSuchAccount {
    /// The name that was asked for.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is a group that was asked for.
    pub(crate) fn is_group(&self) -> bool {
        self.kind == "group"
    }
}

/// Why the number of a name is not known.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The file of the names cannot be read.
    #[error(transparent)]
    Fs(#[from] snf_fs::Error),
    /// Nobody has the name.
    #[error(transparent)]
    Unknown(#[from] NoSuchAccount),
}

impl Accounts {
    /// The number of a user that is given by name or number.
    ///
    /// # Errors
    /// When the guest has no such user, or its `/etc/passwd` cannot be read.
    pub(crate) fn user(&mut self, guest: &Guest, name: &str) -> Result<u32, AccountError> {
        let passwd = load(&mut self.passwd, guest, "/etc/passwd")?;
        let known = passwd::find_user(passwd, name.as_bytes()).map(|user| user.uid);
        found(known, "user", name)
    }

    /// The number of a group that is given by name or number.
    ///
    /// # Errors
    /// When the guest has no such group, or its `/etc/group` cannot be read.
    pub(crate) fn group(&mut self, guest: &Guest, name: &str) -> Result<u32, AccountError> {
        let group = load(&mut self.group, guest, "/etc/group")?;
        found(passwd::find_group(group, name.as_bytes()), "group", name)
    }
}

fn load<'a>(slot: &'a mut Option<Vec<u8>>, guest: &Guest, path: &str) -> snf_fs::Result<&'a [u8]> {
    if slot.is_none() {
        *slot = Some(guest.tree.read_optional(path, CONFIG_MAX)?.unwrap_or_default());
    }
    Ok(slot.as_deref().unwrap_or_default())
}

/// A number in place of a name. `root` is 0 everywhere, also where there is no passwd; the number
/// of all ones means "no change" to the kernel and is nobody's.
fn found(known: Option<u32>, kind: &'static str, name: &str) -> Result<u32, AccountError> {
    let number = match (known, name) {
        (Some(number), _) => Some(number),
        (None, "root") => Some(0),
        (None, other) => other.parse().ok().filter(|number| *number != u32::MAX),
    };
    number.ok_or_else(|| NoSuchAccount { kind, name: name.to_owned() }.into())
}
