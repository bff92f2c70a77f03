//! The user whom cloud-init makes at the first boot: what is asked for of that user goes into
//! cloud-init's settings, because there is no line in passwd yet.

use super::{Guest, Session, TaskError, passwd};
use crate::craft::secret::Secret;
use crate::task::initialize_datasource::{CONFIG_DIR, default_user, put, quote, seeded};

/// The settings of cloud-init that concern users.
#[derive(Default)]
pub(super) struct CloudUser {
    /// The image's default user; `None` without a seed.
    name: Option<String>,
    /// The hash to give a user who is yet to be made.
    pub(super) password: Option<Secret>,
    /// The keys for that user.
    pub(super) keys: Vec<String>,
    /// The default user is there already, and got a password that must not be locked.
    pub(super) keeps_password: bool,
    /// Root got keys: cloud-init must not forbid their use.
    pub(super) root_has_keys: bool,
}

impl CloudUser {
    pub(super) fn of(guest: &Guest, session: &Session<'_>) -> Result<Self, TaskError> {
        let name = if seeded(session)? { default_user(guest)? } else { None };
        Ok(Self { name, ..Self::default() })
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name)
    }

    pub(super) fn is_yet_to_be_made(&self, passwd: &[u8], name: &str) -> bool {
        self.is(name) && passwd::find_user(passwd, name.as_bytes()).is_none()
    }

    /// Writes the settings, which hold a hash and so are root's alone.
    pub(super) fn write(
        &self,
        guest: &mut Guest,
        session: &mut Session<'_>,
    ) -> Result<(), TaskError> {
        let mut text = String::new();
        if self.root_has_keys && seeded(session)? {
            text.push_str("disable_root: false\n");
        }
        let mut user = String::new();
        if self.keeps_password || self.password.is_some() {
            user.push_str("    lock_passwd: false\n");
        }
        if let Some(hash) = &self.password {
            let hash = String::from_utf8_lossy(hash.expose());
            user.push_str(&format!("    passwd: {}\n", quote(&hash)));
        }
        let mut keys = self.keys.iter().filter(|key| !key.is_empty() && !key.starts_with('#'));
        if let Some(first) = keys.next() {
            user.push_str("    ssh_authorized_keys:\n");
            for key in std::iter::once(first).chain(keys) {
                user.push_str(&format!("      - {}\n", quote(key)));
            }
        }
        if !user.is_empty() {
            text.push_str(&format!("system_info:\n  default_user:\n{user}"));
        }
        if text.is_empty() {
            return Ok(());
        }
        let text = Secret::new(format!("# Written by snf-image.\n{text}"));
        put(guest, CONFIG_DIR, "99-snf-image-user.cfg", text.expose(), 0o600)
    }
}
