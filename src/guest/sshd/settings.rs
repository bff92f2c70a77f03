//! The settings of sshd that decide who gets in and where keys lie.

/// `PermitRootLogin`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RootLogin {
    /// By every method.
    Yes,
    /// By every method but passwords.
    ProhibitPassword,
    /// By key, and only for the commands that the keys name.
    ForcedCommandsOnly,
    /// Not at all.
    No,
}

impl RootLogin {
    /// The value as one writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::ProhibitPassword => "prohibit-password",
            Self::ForcedCommandsOnly => "forced-commands-only",
            Self::No => "no",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        match word {
            "yes" => Some(Self::Yes),
            "prohibit-password" | "without-password" => Some(Self::ProhibitPassword),
            "forced-commands-only" => Some(Self::ForcedCommandsOnly),
            "no" => Some(Self::No),
            _ => None,
        }
    }
}

/// The settings that were found; what is not set anywhere is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    pub(super) permit_root_login: Option<RootLogin>,
    pub(super) pubkey: Option<bool>,
    pub(super) password: Option<bool>,
    pub(super) kbd_interactive: Option<bool>,
    pub(super) use_pam: Option<bool>,
    pub(super) strict_modes: Option<bool>,
    pub(super) authorized_keys_file: Vec<Vec<u8>>,
    pub(super) authorized_keys_command: Option<Vec<u8>>,
    pub(super) authorized_keys_command_user: Option<Vec<u8>>,
    pub(super) authentication_methods: Vec<Vec<u8>>,
    pub(super) allow_users: Vec<Vec<u8>>,
    pub(super) deny_users: Vec<Vec<u8>>,
    pub(super) allow_groups: Vec<Vec<u8>>,
    pub(super) deny_groups: Vec<Vec<u8>>,
    pub(super) host_keys: Vec<Vec<u8>>,
    pub(super) host_certificates: Vec<Vec<u8>>,
}

/// The problem of a line that keeps sshd from starting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LineProblem {
    #[error("has no value")]
    NoValue,
    #[error("has a value that sshd does not know")]
    BadValue,
    #[error("has more than one value")]
    TooMany,
    #[error("has a quotation mark without its partner")]
    NoPartner,
    #[error("is not valid under Match")]
    UnderMatch,
    #[error("has a condition that sshd does not know")]
    BadMatch,
}

/// Keywords that are read; all others are left aside.
const KNOWN: [&str; 18] = [
    "permitrootlogin",
    "pubkeyauthentication",
    "passwordauthentication",
    "kbdinteractiveauthentication",
    "challengeresponseauthentication",
    "skeyauthentication",
    "usepam",
    "strictmodes",
    "authorizedkeysfile",
    "authorizedkeyscommand",
    "authorizedkeyscommanduser",
    "authenticationmethods",
    "allowusers",
    "denyusers",
    "allowgroups",
    "denygroups",
    "hostkey",
    "hostcertificate",
];

/// Whether a keyword is one of those that decide something here.
pub(super) fn is_known(keyword: &str) -> bool {
    KNOWN.contains(&keyword)
}

/// Whether a keyword may not stand under `Match`.
pub(super) fn is_global(keyword: &str) -> bool {
    matches!(keyword, "usepam" | "strictmodes" | "hostkey" | "hostcertificate")
}

fn flag(word: &str) -> Option<bool> {
    match word {
        "yes" => Some(true),
        "no" => Some(false),
        _ => None,
    }
}

/// Checks a line's values; sshd does so whether the line holds or not.
pub(super) fn check(keyword: &str, values: &[Vec<u8>]) -> Result<(), LineProblem> {
    Settings::default().set(keyword, values)
}

impl Settings {
    /// Takes a line over: the first value of a keyword counts, lists of users and groups and host
    /// keys add up.
    pub(super) fn set(&mut self, keyword: &str, values: &[Vec<u8>]) -> Result<(), LineProblem> {
        let Some(first) = values.first() else { return Err(LineProblem::NoValue) };
        if values.iter().any(Vec::is_empty) {
            return Err(LineProblem::NoValue);
        }
        let one = |more: bool| if more { Ok(()) } else { Err(LineProblem::TooMany) };
        let word = String::from_utf8_lossy(first).to_ascii_lowercase();
        let yes_or_no = |place: &mut Option<bool>| {
            one(values.len() == 1)?;
            let value = flag(&word).ok_or(LineProblem::BadValue)?;
            place.get_or_insert(value);
            Ok(())
        };
        match keyword {
            "permitrootlogin" => {
                one(values.len() == 1)?;
                let value = RootLogin::parse(&word).ok_or(LineProblem::BadValue)?;
                self.permit_root_login.get_or_insert(value);
            }
            "pubkeyauthentication" => yes_or_no(&mut self.pubkey)?,
            "passwordauthentication" => yes_or_no(&mut self.password)?,
            "kbdinteractiveauthentication"
            | "challengeresponseauthentication"
            | "skeyauthentication" => yes_or_no(&mut self.kbd_interactive)?,
            "usepam" => yes_or_no(&mut self.use_pam)?,
            "strictmodes" => yes_or_no(&mut self.strict_modes)?,
            "authorizedkeysfile" if self.authorized_keys_file.is_empty() => {
                self.authorized_keys_file = values.to_vec();
            }
            "authorizedkeyscommand" => {
                if !first.starts_with(b"/") && word != "none" {
                    return Err(LineProblem::BadValue);
                }
                self.authorized_keys_command.get_or_insert(first.clone());
            }
            "authorizedkeyscommanduser" => {
                one(values.len() == 1)?;
                self.authorized_keys_command_user.get_or_insert(first.clone());
            }
            "authenticationmethods" if self.authentication_methods.is_empty() => {
                self.authentication_methods = values.to_vec();
            }
            "allowusers" => self.allow_users.extend_from_slice(values),
            "denyusers" => self.deny_users.extend_from_slice(values),
            "allowgroups" => self.allow_groups.extend_from_slice(values),
            "denygroups" => self.deny_groups.extend_from_slice(values),
            "hostkey" => {
                one(values.len() == 1)?;
                add(&mut self.host_keys, first);
            }
            "hostcertificate" => {
                one(values.len() == 1)?;
                add(&mut self.host_certificates, first);
            }
            _ => {}
        }
        Ok(())
    }

    /// Settings of `Match` are stronger.
    pub(super) fn overridden_by(mut self, stronger: Self) -> Self {
        let list = |place: &mut Vec<Vec<u8>>, stronger: Vec<Vec<u8>>| {
            if !stronger.is_empty() {
                *place = stronger;
            }
        };
        self.permit_root_login = stronger.permit_root_login.or(self.permit_root_login);
        self.pubkey = stronger.pubkey.or(self.pubkey);
        self.password = stronger.password.or(self.password);
        self.kbd_interactive = stronger.kbd_interactive.or(self.kbd_interactive);
        self.authorized_keys_command =
            stronger.authorized_keys_command.or(self.authorized_keys_command.take());
        self.authorized_keys_command_user =
            stronger.authorized_keys_command_user.or(self.authorized_keys_command_user.take());
        list(&mut self.authorized_keys_file, stronger.authorized_keys_file);
        list(&mut self.authentication_methods, stronger.authentication_methods);
        list(&mut self.allow_users, stronger.allow_users);
        list(&mut self.deny_users, stronger.deny_users);
        list(&mut self.allow_groups, stronger.allow_groups);
        list(&mut self.deny_groups, stronger.deny_groups);
        self
    }

    /// `PermitRootLogin`, or what sshd does without it.
    pub fn root_login(&self) -> RootLogin {
        self.permit_root_login.unwrap_or(RootLogin::ProhibitPassword)
    }

    /// `PubkeyAuthentication`.
    pub fn pubkey(&self) -> bool {
        self.pubkey.unwrap_or(true)
    }

    /// `PasswordAuthentication`.
    pub fn password(&self) -> bool {
        self.password.unwrap_or(true)
    }

    /// `KbdInteractiveAuthentication`, or one of its older names.
    pub fn kbd_interactive(&self) -> bool {
        self.kbd_interactive.unwrap_or(true)
    }

    /// `UsePAM`.
    pub fn use_pam(&self) -> bool {
        self.use_pam.unwrap_or(false)
    }

    /// `StrictModes`.
    pub fn strict_modes(&self) -> bool {
        self.strict_modes.unwrap_or(true)
    }

    /// `AuthorizedKeysFile`: its patterns.
    pub fn authorized_keys_file(&self) -> Vec<Vec<u8>> {
        if self.authorized_keys_file.is_empty() {
            return vec![b".ssh/authorized_keys".to_vec(), b".ssh/authorized_keys2".to_vec()];
        }
        self.authorized_keys_file.clone()
    }

    /// `AuthorizedKeysCommand`, unless it is `none`.
    pub fn authorized_keys_command(&self) -> Option<&[u8]> {
        self.authorized_keys_command.as_deref().filter(|path| path.starts_with(b"/"))
    }

    /// `AuthenticationMethods`: lists of methods, one of which must succeed; empty when any method will do.
    pub fn authentication_methods(&self) -> &[Vec<u8>] {
        match self.authentication_methods.as_slice() {
            [any] if any.eq_ignore_ascii_case(b"any") => &[],
            lists => lists,
        }
    }

    /// `AllowUsers`, `DenyUsers`, `AllowGroups`, `DenyGroups`.
    pub fn restrictions(&self) -> [&[Vec<u8>]; 4] {
        [&self.allow_users, &self.deny_users, &self.allow_groups, &self.deny_groups]
    }
}

fn add(list: &mut Vec<Vec<u8>>, value: &[u8]) {
    if !list.iter().any(|other| other == value) {
        list.push(value.to_vec());
    }
}
