//! `--add-user`: a new user, as useradd makes one by the guest's own rules, with a home.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use snf_fs::Attributes;
use snf_fs::error::display_name;

use super::account_files::{self as files, KnownGroup};
use super::account_name::AccountName;
use super::add_group::number_of;
use super::sudoers::{self, Sudo};
use super::{Act, Action, BadEdit, GuestPath, How, Verb, flag, place, skeleton};
use crate::ask::properties::OsFamily;
use crate::guest::Guest;
use crate::guest::enroll;
use crate::guest::login_defs::Rules;
use crate::guest::passwd;
use crate::task::{self, Needs, Session, TaskError};

/// Shells that let nobody in, for users of the system.
const NO_LOGIN: [&str; 3] = ["/usr/sbin/nologin", "/sbin/nologin", "/bin/false"];
/// Shells that are used where the rules of the guest name none.
const SHELLS: [&str; 3] = ["/bin/bash", "/bin/ash", "/bin/sh"];

/// A new user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(try_from = "Fields", into = "Fields")]
pub struct AddUser(Fields);

/// The same as a document has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Fields {
    /// The login name.
    name: AccountName,
    /// The user's number; without one the guest's rules choose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    /// The first group, by name or number, in place of one of the user's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    /// Further groups, by name or number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    /// The login shell.
    shell: Option<GuestPath>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    /// The home directory.
    home: Option<GuestPath>,
    /// The user's name in full.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    /// Whether and how the user may become root.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sudo: Option<Sudo>,
    /// Whether it is a user of the system: a number of the system's, no home unless one is named, no
    /// login shell, no ageing.
    #[serde(default, skip_serializing_if = "flag::is_no")]
    system: bool,
}

impl TryFrom<Fields> for AddUser {
    type Error = BadEdit;

    fn try_from(fields: Fields) -> Result<Self, BadEdit> {
        let paths = [("shell", &fields.shell), ("home", &fields.home)];
        let paths = paths.map(|(what, path)| (what, path.as_ref().map_or("", GuestPath::as_str)));
        let comment = fields.comment.as_deref().unwrap_or_default();
        for (what, text) in paths.into_iter().chain([("comment", comment)]) {
            if text.contains([':', '\n', '\r', '\0']) {
                return Err(BadEdit::new(format!(
                    "{what} '{}' has a colon or a line break, for which /etc/passwd has no room",
                    text.escape_debug()
                )));
            }
        }
        let named = fields.group.iter().chain(&fields.groups);
        for group in named {
            crate::ask::personality::check_name(group)
                .map_err(|problem| BadEdit::new(format!("group {problem}")))?;
        }
        if fields.uid == Some(u32::MAX) {
            number_of("uid", "4294967295")?;
        }
        Ok(Self(fields))
    }
}

impl From<AddUser> for Fields {
    fn from(user: AddUser) -> Self {
        user.0
    }
}

impl AddUser {
    /// Reads `NAME[:uid=…,group=…,groups=A+B,shell=…,home=…,comment=…,sudo,system]`.
    fn parse(text: &str, _: How) -> Result<Action, BadEdit> {
        let (name, properties) = match text.split_once(':') {
            Some((name, properties)) => (name, Some(properties)),
            None => (text, None),
        };
        let mut user = Fields {
            name: AccountName::new(name)?,
            uid: None,
            group: None,
            groups: Vec::new(),
            shell: None,
            home: None,
            comment: None,
            sudo: None,
            system: false,
        };
        for property in properties.into_iter().flat_map(|list| list.split(',')) {
            match property.split_once('=').map_or((property, None), |(k, v)| (k, Some(v))) {
                ("uid", Some(number)) => user.uid = Some(number_of("uid", number)?),
                ("group", Some(group)) => user.group = Some(group.to_owned()),
                ("groups", Some(groups)) => {
                    user.groups = groups.split('+').map(str::to_owned).collect();
                }
                ("shell", Some(path)) => user.shell = Some(GuestPath::file(path)?),
                ("home", Some(path)) => user.home = Some(GuestPath::new(path)?),
                ("comment", Some(comment)) => user.comment = Some(comment.to_owned()),
                ("sudo", None | Some("nopassword")) => user.sudo = Some(Sudo::NoPassword),
                ("sudo", Some("password")) => user.sudo = Some(Sudo::Password),
                ("system", None) => user.system = true,
                _ => {
                    let hint = if user.groups.is_empty() {
                        ""
                    } else {
                        "; several groups have '+' between them (groups=adm+video)"
                    };
                    return Err(BadEdit::new(format!(
                        "'{}' is no property of a user; valid are uid=, group=, groups=, shell=, \
                         home=, comment=, sudo, sudo=password and system{hint}",
                        property.escape_debug()
                    )));
                }
            }
        }
        Ok(Action::AddUser(Self::try_from(user)?))
    }

    /// The user's name.
    pub(super) fn name(&self) -> &str {
        self.0.name.as_str()
    }

    /// The login shell of the new user.
    fn shell(&self, guest: &Guest, rules: &Rules) -> Result<String, TaskError> {
        if let Some(path) = &self.0.shell {
            return Ok(path.as_str().to_owned());
        }
        if let (false, Some(shell)) = (self.0.system, &rules.shell) {
            return Ok(shell.clone());
        }
        let shells = if self.0.system { NO_LOGIN } else { SHELLS };
        for shell in shells {
            if guest.tree.exists(shell)? {
                return Ok(shell.to_owned());
            }
        }
        Ok(shells[2].to_owned())
    }
}

impl Act for AddUser {
    const VERBS: &'static [Verb] = &[Verb {
        name: "add-user",
        metavar: "NAME[:uid=,group=,groups=,shell=,home=,comment=,sudo,system]",
        help: "Make a user with a home directory, as useradd -m does by the guest's login.defs: \
               several groups have '+' between them; sudo lets the user become root without a \
               password, sudo=password with the user's own; system makes a user of the system, \
               without a home. --user-password and --ssh-key of the same run may name the user.",
        follows: false,
        parse: Self::parse,
    }];
    const NEEDS: Needs = Needs::System(&[OsFamily::Linux]);

    fn check(&self) -> Result<(), BadEdit> {
        // The types of the fields have checked them.
        Ok(())
    }

    fn subject(&self) -> String {
        self.name().to_owned()
    }

    fn run(&self, guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
        let (name, asked) = (self.name(), &self.0);
        let rules = Rules::of(guest)?;
        let users = files::users(guest)?;
        if users.iter().any(|user| user.name == name.as_bytes()) {
            return Err(TaskError::request(format!("the guest has a user {name} already")));
        }
        let has_shadow = guest.tree.exists(files::SHADOW)?;
        if !guest.tree.exists(files::PASSWD)? {
            return Err(TaskError::request("the guest has no /etc/passwd, so it has no users"));
        }
        if !has_shadow && guest.tree.is_dir("/etc/tcb")? {
            return Err(TaskError::request(
                "the guest keeps a file of hashes for each user in /etc/tcb, which is not made here; \
                 have the user made at the first boot (--firstboot-command)",
            ));
        }
        let groups: Vec<KnownGroup> = asked
            .groups
            .iter()
            .map(|group| files::group(guest, group))
            .collect::<Result<_, _>>()?;

        let used: BTreeSet<u32> = users.iter().map(|user| user.uid).collect();
        let range = if asked.system { &rules.system_uids } else { &rules.uids };
        let uid = match asked.uid {
            Some(uid) => {
                if let Some(owner) = users.iter().find(|user| user.uid == uid) {
                    let owner = display_name(&owner.name);
                    return Err(TaskError::request(format!(
                        "the number {uid} is that of the user {owner}"
                    )));
                }
                uid
            }
            None => enroll::free_number(&used, range, asked.system)
                .ok_or_else(|| files::no_number("user", "UID", range))?,
        };
        let gid = match &asked.group {
            Some(group) => files::group(guest, group)?.number,
            None if rules.own_group => {
                files::make_group(guest, &rules, name, None, Some(uid), asked.system).map_err(
                    |error| match error {
                        TaskError::Request(text) => TaskError::request(format!(
                            "{text}; say group={name} to have it as the user's own"
                        )),
                        other => other,
                    },
                )?
            }
            None => files::group(guest, &rules.group)?.number,
        };
        let home = match &asked.home {
            Some(home) => home.as_str().trim_end_matches('/').to_owned(),
            None => format!("{}/{name}", rules.home.trim_end_matches('/')),
        };
        let home = if home.is_empty() { "/".to_owned() } else { home };
        let shell = self.shell(guest, &rules)?;
        if !guest.tree.exists(&shell)? {
            session.warn(format!("--add-user {name}: the shell {shell} is not in the guest"));
        }
        let comment = asked.comment.as_deref().unwrap_or_default();
        let hash = if has_shadow { "x" } else { "!" };
        let line = format!("{name}:{hash}:{uid}:{gid}:{comment}:{home}:{shell}");
        files::add_line(guest, files::PASSWD, &line)?;
        if has_shadow {
            let shadow = guest.config(files::SHADOW)?.unwrap_or_default();
            let ageing = if asked.system { "::::".to_owned() } else { rules.ageing.join(":") };
            let line = format!("{name}:!:{}:{ageing}:", session.clock.days());
            // A line that a user who is gone has left must not count.
            if passwd::password_of(&shadow, name.as_bytes()).is_some() {
                return Err(TaskError::request(format!(
                    "{} has a line for {name}, who is no user; remove it first",
                    files::SHADOW
                )));
            }
            files::add_line(guest, files::SHADOW, &line)?;
        }
        for group in &groups {
            files::join(guest, &group.name, name)?;
        }
        if !asked.system {
            for (path, sub) in [("/etc/subuid", &rules.sub_uids), ("/etc/subgid", &rules.sub_gids)]
            {
                if let Some(text) = guest.config(path)?
                    && let Some(new) = enroll::add_sub_range(&text, name, sub)
                {
                    files::write(guest, path, &new)?;
                }
            }
        }
        if !asked.system || asked.home.is_some() {
            self.make_home(guest, session, &rules, &home, uid, gid)?;
        }
        if let Some(how) = asked.sudo {
            sudoers::allow(guest, session, name, uid, how)?;
        }
        task::change_password_of(guest, session, name)
    }
}

impl AddUser {
    fn make_home(
        &self,
        guest: &mut Guest,
        session: &mut Session<'_>,
        rules: &Rules,
        home: &str,
        uid: u32,
        gid: u32,
    ) -> Result<(), TaskError> {
        let name = self.name();
        let path = GuestPath::new(home).map_err(|error| TaskError::request(error.to_string()))?;
        let spot = place::find(guest, &path, true)?;
        if spot.existing.is_some() {
            session.warn(format!(
                "--add-user {name}: {home} is there and keeps its owner and what is in it"
            ));
        } else {
            let attributes = Attributes { mode: rules.home_mode, uid, gid };
            skeleton::make_home(&mut guest.tree, &rules.skeleton, &spot.path, attributes)?;
        }
        if let Some(dir) = &rules.mail
            && !self.0.system
            && guest.tree.is_dir(dir)?
        {
            let path = format!("{}/{name}", dir.trim_end_matches('/'));
            if !guest.tree.exists(&path)? {
                let mail = files::group(guest, "mail").ok().map(|group| group.number);
                let (gid, mode) = mail.map_or((gid, 0o600), |mail| (mail, 0o660));
                guest.tree.write(&path, b"", Attributes { mode, uid, gid })?;
                guest.tree.chmod(&path, mode)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guest, fails, parse, runs};
    use super::super::{Action, Edit};
    use crate::ask::plan::{Password, Who};
    use crate::craft::secret::Secret;
    use crate::guest::selinux::XATTR;

    fn guest() -> Guest {
        let mut guest = Guest::debian();
        guest.write("/etc/login.defs", "UMASK 022\nUSERGROUPS_ENAB yes\nPASS_MAX_DAYS 99999\nPASS_MIN_DAYS 0\nPASS_WARN_AGE 7\n");
        guest.write("/etc/default/useradd", "SHELL=/bin/sh\n");
        guest.write("/etc/gshadow", "root:*::\nshadow:*::\n");
        guest.write("/etc/subuid", "ann:100000:65536\n");
        guest.write("/etc/skel/.profile", "# profile\n");
        guest.write("/etc/skel/.config/x", "x\n");
        guest.tree().chmod("/etc/skel/.config", 0o700).unwrap();
        guest
    }

    #[test]
    fn a_user_with_all_that_belongs_to_it() {
        let mut guest = guest();
        runs(&mut guest, "add-user", "bob:groups=shadow+0,comment=Bob B,sudo");
        assert!(guest.read("/etc/passwd").ends_with("\nbob:x:1001:1002:Bob B:/home/bob:/bin/sh\n"));
        assert!(guest.read("/etc/shadow").ends_with("\nbob:!:20000:0:99999:7:::\n"));
        let group = guest.read("/etc/group");
        assert_eq!(group, "root:x:0:bob\nshadow:x:42:bob\nann:x:1001:\nbob:x:1002:\n");
        assert_eq!(guest.read("/etc/gshadow"), "root:*::bob\nshadow:*::bob\nbob:!::\n");
        assert_eq!(guest.read("/etc/subuid"), "ann:100000:65536\nbob:165536:65536\n");
        assert_eq!(guest.attributes("/home/bob"), (0o755, 1001, 1002));
        assert_eq!(guest.attributes("/home/bob/.config"), (0o700, 1001, 1002));
        assert_eq!(guest.attributes("/home/bob/.config/x"), (0o644, 1001, 1002));
        assert_eq!(guest.attributes("/etc/sudoers.d/90-snf-image-bob"), (0o440, 0, 0));
        assert!(guest.warnings()[0].contains("the guest has no sudo"), "{:?}", guest.warnings());
        assert!(!guest.tree().exists("/etc/subgid").unwrap());
    }

    #[test]
    fn users_of_the_system_and_numbers() {
        let mut guest = guest();
        runs(&mut guest, "add-user", "svc:system");
        runs(&mut guest, "add-user", "web:uid=500,group=svc,system,home=/srv/web,shell=/bin/sh");
        let passwd = guest.read("/etc/passwd");
        assert!(passwd.contains("\nsvc:x:999:999::/home/svc:/bin/false\n"), "{passwd}");
        assert!(passwd.ends_with("\nweb:x:500:999::/srv/web:/bin/sh\n"), "{passwd}");
        assert!(guest.read("/etc/shadow").contains("\nsvc:!:20000::::::\n"));
        assert!(!guest.tree().exists("/home/svc").unwrap());
        assert_eq!(guest.attributes("/srv/web"), (0o755, 500, 999));
        assert!(guest.warnings()[0].contains("/bin/false is not in the guest"));
    }

    #[test]
    fn what_cannot_be() {
        let mut guest = guest();
        assert!(fails(&mut guest, "add-user", "ann").contains("has a user ann already"));
        assert!(fails(&mut guest, "add-user", "bob:uid=1000").contains("of the user ann"));
        assert!(fails(&mut guest, "add-user", "bob:groups=none").contains("--add-group none"));
        assert!(fails(&mut guest, "add-user", "shadow").contains("say group=shadow"));
        for bad in [
            "",
            "a:",
            "a:uid=x",
            "a:groups=b,c",
            "a:shell=sh",
            "a:comment=x:y",
            "a:sudo=no",
            "a:system=1",
            "a:groups=",
        ] {
            assert!(parse("add-user", bad).is_err(), "{bad}");
        }
        let action = parse("add-user", "a:groups=b+c,sudo=password,home=/x/,system").unwrap();
        let text = serde_json::to_string(&action).unwrap();
        assert_eq!(serde_json::from_str::<Action>(&text).unwrap(), action, "{text}");
    }

    #[test]
    fn a_password_and_keys_in_the_same_run() {
        let mut guest = guest();
        let named = |name: &str| Who::Named(name.into());
        let hash = || Password::Hash(Secret::new("$6$salt$0123456789"));
        guest.plan.passwords = vec![(named("bob"), hash()), (named("ann"), hash())];
        guest.plan.auth_keys =
            vec![(named("bob"), "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBxx me\n".into())];
        let action = parse("add-user", "bob").unwrap();
        guest.plan.edits = vec![Edit { origin: "--add-user bob".into(), action }];
        guest.run(crate::task::find(crate::task::TaskId::ChangePassword)).unwrap();
        let shadow = guest.read("/etc/shadow");
        assert!(shadow.contains("ann:$6$") && !shadow.contains("bob"), "{shadow}");
        guest.run(crate::task::find(crate::task::TaskId::EditGuest)).unwrap();
        assert!(
            guest.read("/etc/shadow").contains("\nbob:$6$salt$0123456789:20000:0:99999:7:::\n")
        );
        assert_eq!(guest.attributes("/home/bob/.ssh/authorized_keys"), (0o600, 1001, 1002));
    }

    #[test]
    fn labels() {
        let mut guest = guest();
        guest.write("/etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=targeted\n");
        guest.write(
            "/etc/selinux/targeted/contexts/files/file_contexts",
            "/.* system_u:object_r:default_t:s0\n/home/[^/]+/.+ -- u:object_r:user_home_t:s0\n",
        );
        guest.tree().set_xattr("/home", XATTR, Some(b"u:object_r:home_t:s0\0")).unwrap();
        guest.with(|guest, _| crate::task::label_new_files(guest)).unwrap();
        runs(&mut guest, "add-user", "bob");
        let label = guest.tree().xattr("/home/bob/.profile", XATTR).unwrap().unwrap();
        assert_eq!(label, b"u:object_r:user_home_t:s0\0");
    }
}
