//! Whether a password or a key lets a user in, as sshd decides it.

use std::fmt;

use snf_fs::error::display_name;
use snf_fs::{FileType, Result, Tree};

use super::pattern::{self, Truth};
use super::{RootLogin, Settings, SshdConfig, Who};

/// The means of a user to get in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// By the password.
    Password,
    /// By a key.
    Key,
}

/// The account, as far as sshd looks at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// User number 0.
    pub root: bool,
    /// The hash begins with `!`.
    pub locked: bool,
    /// There is a password.
    pub has_password: bool,
    /// There are keys.
    pub has_key: bool,
    /// One of the keys names a command.
    pub has_command: bool,
}

/// The reason that keeps a user out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Obstacle {
    /// sshd does not start.
    Broken(String),
    /// `DenyUsers`.
    DenyUsers(String),
    /// `AllowUsers`.
    AllowUsers(String),
    /// `DenyGroups`.
    DenyGroups(String),
    /// `AllowGroups`.
    AllowGroups(String),
    /// `PermitRootLogin`.
    RootLogin(RootLogin),
    /// `PubkeyAuthentication`.
    Pubkey,
    /// `PasswordAuthentication`, and nothing else that asks for a password.
    Password,
    /// `AuthenticationMethods`.
    Methods(String),
    /// Without PAM sshd refuses locked accounts, keys or not.
    Locked,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broken(line) => write!(f, "sshd does not start, because {line}"),
            Self::DenyUsers(user) => write!(f, "DenyUsers names {user}"),
            Self::AllowUsers(user) => write!(f, "AllowUsers does not name {user}"),
            Self::DenyGroups(user) => write!(f, "DenyGroups names a group of {user}"),
            Self::AllowGroups(user) => write!(f, "AllowGroups names no group of {user}"),
            Self::RootLogin(value @ RootLogin::ForcedCommandsOnly) => {
                write!(f, "PermitRootLogin is {} and no key names a command", value.name())
            }
            Self::RootLogin(value) => write!(f, "PermitRootLogin is {}", value.name()),
            Self::Pubkey => f.write_str("PubkeyAuthentication is no"),
            Self::Password => f.write_str("PasswordAuthentication is no"),
            Self::Methods(lists) => write!(f, "AuthenticationMethods is {lists}"),
            Self::Locked => f.write_str("the account is locked and sshd works without PAM"),
        }
    }
}

/// An obstacle, and whether it may fall away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The reason.
    pub obstacle: Obstacle,
    /// Whether it depends on the address that the user comes from.
    pub depends: bool,
}

impl SshdConfig {
    /// Everything that keeps a user out; empty when sshd lets the user in by these means.
    pub fn obstacles(&self, who: &Who, login: Login, reach: Reach) -> Vec<Finding> {
        if let Some(line) = &self.broken {
            let obstacle = Obstacle::Broken(line.clone());
            return vec![Finding { obstacle, depends: false }];
        }
        let closed = self.settings(who, false).obstacles(who, login, reach, false);
        let open = self.settings(who, true).obstacles(who, login, reach, true);
        let mut findings: Vec<Finding> = Vec::new();
        for (obstacle, other) in
            closed.iter().map(|o| (o, &open)).chain(open.iter().map(|o| (o, &closed)))
        {
            if !findings.iter().any(|finding| finding.obstacle == *obstacle) {
                let depends = !other.contains(obstacle);
                findings.push(Finding { obstacle: obstacle.clone(), depends });
            }
        }
        findings
    }
}

impl Settings {
    fn obstacles(&self, who: &Who, login: Login, reach: Reach, open: bool) -> Vec<Obstacle> {
        let mut found = Vec::new();
        let shown = || display_name(&who.name);
        let named = |patterns: &[Vec<u8>]| {
            let truths = patterns.iter().map(|one| pattern::user(one, &who.name));
            let truths: Vec<Truth> = truths.collect();
            truths.iter().any(|truth| truth.settle(open))
        };
        let grouped = |patterns: &[Vec<u8>]| {
            let matches = |group: &Vec<u8>| patterns.iter().any(|p| pattern::matches(p, group));
            who.groups.iter().any(matches)
        };
        let [allow_users, deny_users, allow_groups, deny_groups] = self.restrictions();
        if named(deny_users) {
            found.push(Obstacle::DenyUsers(shown()));
        } else if !allow_users.is_empty() && !named(allow_users) {
            found.push(Obstacle::AllowUsers(shown()));
        }
        if grouped(deny_groups) {
            found.push(Obstacle::DenyGroups(shown()));
        } else if !allow_groups.is_empty() && !grouped(allow_groups) {
            found.push(Obstacle::AllowGroups(shown()));
        }
        if login.locked && !self.use_pam() {
            found.push(Obstacle::Locked);
        }
        let root = self.root_login();
        let refuses_root = match (root, reach) {
            (RootLogin::Yes, _) | (RootLogin::ProhibitPassword, Reach::Key) => false,
            (RootLogin::ForcedCommandsOnly, Reach::Key) => !login.has_command,
            _ => true,
        };
        if login.root && refuses_root {
            found.push(Obstacle::RootLogin(root));
        }
        let passwords = self.password() || (self.kbd_interactive() && self.use_pam());
        match reach {
            Reach::Key if !self.pubkey() => found.push(Obstacle::Pubkey),
            Reach::Password if !passwords => found.push(Obstacle::Password),
            _ if !self.methods_suffice(login, reach) => {
                let lists = self.authentication_methods().iter().map(|list| display_name(list));
                found.push(Obstacle::Methods(lists.collect::<Vec<_>>().join(" ")));
            }
            _ => {}
        }
        found
    }

    /// Whether one of the lists of `AuthenticationMethods` has only methods that are on: without one
    /// sshd does not start. Methods that are not evaluated here count as on.
    pub(super) fn methods_are_on(&self) -> bool {
        let lists = self.authentication_methods();
        let is_on = |method: &[u8]| match method.split(|byte| *byte == b':').next() {
            Some(b"publickey") => self.pubkey(),
            Some(b"password") => self.password(),
            Some(b"keyboard-interactive") => self.kbd_interactive(),
            _ => true,
        };
        lists.is_empty() || lists.iter().any(|list| list.split(|byte| *byte == b',').all(is_on))
    }

    /// Whether one of the lists of `AuthenticationMethods` is met by what the user has.
    fn methods_suffice(&self, login: Login, reach: Reach) -> bool {
        let lists = self.authentication_methods();
        let has = |method: &[u8]| match method.split(|byte| *byte == b':').next() {
            Some(b"publickey") => login.has_key && self.pubkey(),
            Some(b"password") => login.has_password && self.password(),
            Some(b"keyboard-interactive") => {
                login.has_password && self.kbd_interactive() && self.use_pam()
            }
            _ => false,
        };
        let of_reach = |method: &[u8]| method.starts_with(b"publickey") == (reach == Reach::Key);
        lists.is_empty()
            || lists.iter().any(|list| {
                let mut methods = list.split(|byte| *byte == b',');
                methods.clone().all(has) && methods.any(of_reach)
            })
    }
}

/// The place on the way to a key file that `StrictModes` does not accept, and why: the file, and
/// the directories above it up to the home, must be the user's or root's and writable for nobody
/// else. Both paths are canonical.
///
/// # Errors
/// When a place cannot be looked at.
pub fn unsafe_place(
    tree: &Tree,
    file: &[u8],
    home: &[u8],
    uid: u32,
) -> Result<Option<(Vec<u8>, &'static str)>> {
    let mut path = file.to_vec();
    loop {
        let place: &[u8] = if path.is_empty() { b"/" } else { &path };
        if let Some(stat) = tree.stat_optional(place)? {
            if stat.uid != 0 && stat.uid != uid {
                return Ok(Some((place.to_vec(), "belongs to another user")));
            }
            if stat.mode & 0o022 != 0 && stat.file_type != FileType::Symlink {
                return Ok(Some((place.to_vec(), "can be written by other users")));
            }
        }
        if path == home || path.is_empty() {
            return Ok(None);
        }
        let slash = path.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        path.truncate(slash);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snf_fs::{Attributes, MemoryFs};

    fn config(text: &str) -> SshdConfig {
        let mut tree = Tree::new(Box::new(MemoryFs::new()));
        let attributes = Attributes { mode: 0o755, uid: 0, gid: 0 };
        tree.mkdir_all("/etc/ssh", attributes).unwrap();
        tree.write("/etc/ssh/sshd_config", text.as_bytes(), attributes).unwrap();
        SshdConfig::read(&tree).unwrap()
    }

    fn found(text: &str, name: &str, login: Login, reach: Reach) -> Vec<String> {
        let who = Who { name: name.into(), groups: vec![name.into(), b"users".to_vec()] };
        let findings = config(text).obstacles(&who, login, reach);
        let text = |finding: Finding| {
            format!("{}{}", finding.obstacle, if finding.depends { "?" } else { "" })
        };
        findings.into_iter().map(text).collect()
    }

    #[test]
    fn keys() {
        let login = Login { has_key: true, ..Login::default() };
        let root = Login { root: true, ..login };
        for (text, name, login, expected) in [
            ("", "ann", login, ""),
            ("", "root", root, ""),
            ("PermitRootLogin no\n", "root", root, "PermitRootLogin is no"),
            ("PermitRootLogin no\n", "ann", login, ""),
            (
                "PermitRootLogin forced-commands-only\n",
                "root",
                root,
                "PermitRootLogin is forced-commands-only and no key names a command",
            ),
            (
                "PermitRootLogin forced-commands-only\n",
                "root",
                Login { has_command: true, ..root },
                "",
            ),
            ("PubkeyAuthentication no\n", "ann", login, "PubkeyAuthentication is no"),
            ("AllowUsers bob\n", "ann", login, "AllowUsers does not name ann"),
            ("AllowUsers bob a*\n", "ann", login, ""),
            ("AllowUsers ann@10.*\n", "ann", login, "AllowUsers does not name ann?"),
            ("DenyUsers ann\nAllowUsers ann\n", "ann", login, "DenyUsers names ann"),
            ("DenyGroups us*\n", "ann", login, "DenyGroups names a group of ann"),
            ("AllowGroups wheel\n", "ann", login, "AllowGroups names no group of ann"),
            (
                "Match Group users\nPubkeyAuthentication no\n",
                "ann",
                login,
                "PubkeyAuthentication is no",
            ),
            (
                "Match Host x\nPubkeyAuthentication no\n",
                "ann",
                login,
                "PubkeyAuthentication is no?",
            ),
            (
                "",
                "ann",
                Login { locked: true, ..login },
                "the account is locked and sshd works without PAM",
            ),
            ("UsePAM yes\n", "ann", Login { locked: true, ..login }, ""),
            (
                "AuthenticationMethods password publickey,password\n",
                "ann",
                login,
                "AuthenticationMethods is password publickey,password",
            ),
            (
                "AuthenticationMethods publickey,password\n",
                "ann",
                Login { has_password: true, ..login },
                "",
            ),
            (
                "UsePAM\n",
                "ann",
                login,
                "sshd does not start, because line 1 of /etc/ssh/sshd_config has no value",
            ),
        ] {
            assert_eq!(found(text, name, login, Reach::Key).join("; "), expected, "{text}");
        }
    }

    #[test]
    fn passwords() {
        let login = Login { has_password: true, ..Login::default() };
        let root = Login { root: true, ..login };
        for (text, login, expected) in [
            ("", login, ""),
            ("", root, "PermitRootLogin is prohibit-password"),
            ("PermitRootLogin yes\n", root, ""),
            ("PasswordAuthentication no\n", login, "PasswordAuthentication is no"),
            ("PasswordAuthentication no\nUsePAM yes\n", login, ""),
            (
                "PasswordAuthentication no\nUsePAM yes\nKbdInteractiveAuthentication no\n",
                login,
                "PasswordAuthentication is no",
            ),
            ("AuthenticationMethods publickey\n", login, "AuthenticationMethods is publickey"),
            (
                "AuthenticationMethods publickey\nPubkeyAuthentication no\n",
                login,
                "sshd does not start, because AuthenticationMethods asks for methods that are \
                 switched off",
            ),
            ("AuthenticationMethods keyboard-interactive:pam\nUsePAM yes\n", login, ""),
            ("Match User root\nPermitRootLogin yes\n", root, ""),
        ] {
            assert_eq!(found(text, "root", login, Reach::Password).join("; "), expected, "{text}");
        }
    }

    #[test]
    fn strict_modes() {
        let mut tree = Tree::new(Box::new(MemoryFs::new()));
        let root = Attributes { mode: 0o755, uid: 0, gid: 0 };
        let own = Attributes { mode: 0o700, uid: 7, gid: 7 };
        tree.mkdir_all("/home", root).unwrap();
        tree.mkdir_all("/home/ann/.ssh", own).unwrap();
        let place = |tree: &Tree| {
            unsafe_place(tree, b"/home/ann/.ssh/authorized_keys", b"/home/ann", 7).unwrap()
        };
        tree.chmod("/home", 0o777).unwrap();
        assert_eq!(place(&tree), None);
        tree.chmod("/home/ann", 0o775).unwrap();
        assert_eq!(place(&tree), Some((b"/home/ann".to_vec(), "can be written by other users")));
        tree.chown("/home/ann/.ssh", 8, 8).unwrap();
        assert_eq!(place(&tree).unwrap().1, "belongs to another user");
        assert_eq!(unsafe_place(&tree, b"/etc/keys/ann", b"/home/ann", 7).unwrap(), None);
    }
}
