//! The user whom cloud-init makes or locks at the first boot: what is asked for of a user who has
//! no line in passwd yet goes into cloud-init's settings, and there it is said whose password stays.

use super::{Granted, Guest, Session, TaskError, passwd};
use crate::craft::secret::Secret;
use crate::task::initialize_datasource::{
    CONFIG_DIR, configuration, default_user, put, quote, seeded,
};

const OURS: &str = "99-snf-image-user.cfg";
const ROOT: &str = "disable_root: false\n";
const SYSTEM_INFO: &str = "system_info:\n";

/// The settings of cloud-init that concern users.
#[derive(Default)]
pub(super) struct CloudUser {
    /// The image's default user; `None` without cloud-init.
    name: Option<String>,
    /// Whether cloud-init makes the default user: this run makes a seed, or says so (`--cloud-user`).
    seeded: bool,
    /// Whether another name is asked for than the image's.
    renamed: bool,
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
        let seeded = seeded(session)?;
        let has_cloud_init = seeded || guest.has_cloud_init()?;
        let name = if has_cloud_init { default_user(guest)? } else { None };
        let Some(asked) = &session.plan.cloud_user else {
            return Ok(Self { name, seeded, ..Self::default() });
        };
        if !has_cloud_init {
            return Err(TaskError::request(format!(
                "--cloud-user {asked}: the guest has no cloud-init that would make the user; make it \
                 with --add-user"
            )));
        }
        let renamed = name.as_ref() != Some(asked);
        Ok(Self { name: Some(asked.clone()), seeded: true, renamed, ..Self::default() })
    }

    pub(super) fn is(&self, name: &str) -> bool {
        self.name.as_deref() == Some(name)
    }

    pub(super) fn is_yet_to_be_made(&self, passwd: &[u8], name: &str) -> bool {
        self.seeded && self.is(name) && passwd::find_user(passwd, name.as_bytes()).is_none()
    }

    /// Writes the settings, which hold a hash and so are root's alone. Of those that are there, what says
    /// nothing new stays.
    pub(super) fn write(&self, guest: &mut Guest, session: &Session<'_>) -> Result<(), TaskError> {
        let old = guest.config(&format!("{CONFIG_DIR}/{OURS}"))?.map(Secret::new);
        let old = old.as_ref().map(|old| String::from_utf8_lossy(old.expose())).unwrap_or_default();
        let mut text = String::new();
        let root = self.root_has_keys && (seeded(session)? || guest.has_cloud_init()?);
        if root || old.contains(ROOT) {
            text.push_str(ROOT);
        }
        let mut user = String::new();
        if let (true, Some(name)) = (self.renamed, &self.name) {
            user.push_str(&format!("    name: {}\n", quote(name)));
        }
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
        if user.is_empty() {
            text.push_str(old.find(SYSTEM_INFO).map_or("", |at| &old[at..]));
        } else {
            text.push_str(&format!("{SYSTEM_INFO}  default_user:\n{user}"));
        }
        if !root && user.is_empty() {
            return Ok(());
        }
        let text = Secret::new(format!("# Written by snf-image.\n{text}"));
        put(guest, CONFIG_DIR, OURS, text.expose(), 0o600)
    }

    /// Says where a user who was asked for is not made.
    pub(super) fn warn_of_request(
        &self,
        guest: &Guest,
        session: &mut Session<'_>,
    ) -> Result<(), TaskError> {
        let Some(name) = &session.plan.cloud_user else { return Ok(()) };
        let passwd = guest.config("/etc/passwd")?.unwrap_or_default();
        if passwd::find_user(&passwd, name.as_bytes()).is_some() {
            session.warn(format!(
                "--cloud-user {name} has no effect: the guest has that user already"
            ));
            return Ok(());
        }
        let texts = configuration(guest)?;
        if !texts.iter().any(|text| text.lines().any(lists_default)) {
            session.warn(format!(
                "--cloud-user {name} has no effect: the users of /etc/cloud/cloud.cfg do not list \
                 default, so cloud-init makes no user of that kind"
            ));
        } else if !seeded(session)? {
            session.info(format!(
                "cloud-init makes {name} where it finds a data source; --cloud-init brings one along"
            ));
        } else if !self.renamed && self.password.is_none() && self.keys.is_empty() {
            session.warn(format!(
                "--cloud-user {name} has no effect: the image's cloud-init makes {name} anyway"
            ));
        }
        Ok(())
    }

    /// Says what cloud-init will do to a password that was set, and no setting of ours prevents.
    pub(super) fn warn(
        &self,
        guest: &Guest,
        session: &mut Session<'_>,
        granted: &Granted,
    ) -> Result<(), TaskError> {
        if granted.passwords.is_empty() || !guest.has_cloud_init()? {
            return Ok(());
        }
        let texts = configuration(guest)?;
        for name in &granted.passwords {
            let name = String::from_utf8_lossy(name);
            if !self.is(&name) && texts.iter().any(|text| locks(text, &name)) {
                session.warn(format!(
                    "cloud-init will lock the password of {name} at the first boot: users in \
                     /etc/cloud lists {name} without lock_passwd: false"
                ));
            }
        }
        let off = |text: &String| {
            text.lines().rev().find_map(|line| {
                let value = line.trim_end().strip_prefix("ssh_pwauth:")?;
                let value = value.split('#').next().unwrap_or_default();
                Some(matches!(value.trim().to_ascii_lowercase().as_str(), "0" | "no" | "false"))
            })
        };
        if texts.iter().rev().find_map(off) == Some(true) {
            session.warn(
                "cloud-init will have sshd refuse passwords from the first boot on (ssh_pwauth in \
                 /etc/cloud is no); they work on the console",
            );
        }
        Ok(())
    }
}

/// Whether a line is the word for the default user in a list of users.
fn lists_default(line: &str) -> bool {
    let line = line.split(" #").next().unwrap_or_default().trim();
    line.strip_prefix('-').is_some_and(|rest| rest.trim().trim_matches(['"', '\'']) == "default")
        || line.strip_prefix("users:").is_some_and(|list| list.contains("default"))
}

/// Whether a list of `users` has an entry of this name that leaves the password to be locked, which
/// is what cloud-init does unless it is told not to.
fn locks(text: &str, name: &str) -> bool {
    let mut ours = false;
    let mut locked = false;
    for line in text.lines().map(str::trim) {
        let (word, starts) = match line.strip_prefix('-') {
            Some(rest) => (rest.trim_start(), true),
            None => (line, false),
        };
        if starts {
            if ours && locked {
                return true;
            }
            (ours, locked) = (false, true);
        }
        let Some((key, value)) = word.split_once(':') else { continue };
        let value = value.split(" #").next().unwrap_or_default().trim().trim_matches(['"', '\'']);
        match key.trim() {
            "name" if starts || locked => ours = value == name,
            "lock_passwd" | "lock-passwd" => {
                locked = !matches!(value.to_ascii_lowercase().as_str(), "false" | "no" | "0");
            }
            _ => {}
        }
    }
    ours && locked
}

#[cfg(test)]
mod tests {
    use super::super::TASK;
    use super::*;
    use crate::ask::plan::{Password, Who};
    use crate::task::testing::Guest;

    const OURS: &str = "/etc/cloud/cloud.cfg.d/99-snf-image-user.cfg";

    fn guest(config: &str, user: &str) -> Guest {
        let mut guest = Guest::debian();
        guest.write("/etc/cloud/cloud.cfg", config);
        let hash = Password::Hash(Secret::new("$6$salt$0123456789abc"));
        guest.plan.passwords = vec![(Who::Named(user.into()), hash)];
        guest.run(&TASK).unwrap();
        guest
    }

    #[test]
    fn the_default_user_keeps_the_password_without_a_seed() {
        let config = "system_info:\n  default_user:\n    name: ann\n    lock_passwd: True\n";
        let mut ours = guest(config, "ann");
        assert!(ours.read(OURS).ends_with("default_user:\n    lock_passwd: false\n"));
        assert!(ours.warnings().is_empty(), "{:?}", ours.warnings());
        assert!(!guest(config, "root").tree().exists(OURS).unwrap());
        // A later run for root keeps it.
        ours.plan.passwords.clear();
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBxx me\n";
        ours.plan.auth_keys = vec![(Who::Named("root".into()), key.into())];
        ours.run(&TASK).unwrap();
        let text = ours.read(OURS);
        assert!(text.contains("disable_root: false\n") && text.contains("lock_passwd: false\n"));
    }

    #[test]
    fn a_user_that_only_cloud_init_makes() {
        let config = "users:\n - default\nsystem_info:\n  default_user:\n    name: debian\n";
        let asked = |config: &str, name: &str, user: &str| {
            let mut guest = Guest::debian();
            guest.write("/etc/cloud/cloud.cfg", config);
            let hash = Password::Hash(Secret::new("$6$salt$0123456789abc"));
            guest.plan.passwords = vec![(Who::Named(user.into()), hash)];
            guest.plan.cloud_user = Some(name.into());
            let result = guest.run(&TASK).map_err(|error| error.to_string());
            (guest, result)
        };
        let (mut guest, result) = asked(config, "bob", "bob");
        result.unwrap();
        let text = guest.read(OURS);
        assert!(
            text.contains("    name: \"bob\"\n    lock_passwd: false\n    passwd: \"$6$"),
            "{text}"
        );
        let (mut guest, result) = asked(config, "debian", "debian");
        result.unwrap();
        assert!(!guest.read(OURS).contains("name:"));
        assert!(asked(config, "bob", "eve").1.unwrap_err().contains("no user \"eve\""));
        let (guest, result) = asked("users: []\n", "bob", "bob");
        result.unwrap();
        assert!(guest.warnings()[0].contains("do not list default"));
        let (guest, _) = asked(config, "ann", "ann");
        assert!(guest.warnings()[0].contains("has that user already"), "{:?}", guest.warnings());
        let mut none = Guest::debian();
        none.plan.cloud_user = Some("bob".into());
        assert!(none.fail(&TASK).contains("has no cloud-init that would make"));
    }

    #[test]
    fn what_cloud_init_will_do_is_said() {
        let users = "users:\n - default\n - name: ann\n   sudo: ALL\n - name: bob\n";
        assert!(guest(users, "ann").warnings()[0].contains("will lock the password of ann"));
        let open = users.replace("sudo: ALL", "lock_passwd: false");
        assert!(guest(&open, "ann").warnings().is_empty());
        let no = guest("ssh_pwauth: true\nssh_pwauth:   0 # x\n", "ann");
        assert!(no.warnings()[0].contains("refuse passwords"), "{:?}", no.warnings());
        assert!(guest("ssh_pwauth: unchanged\n", "ann").warnings().is_empty());
    }
}
