//! ChangePassword on Windows.
//!
//! On a generalized image a command file sets the passwords in the specialize pass (`net user`),
//! because only then the users' keys are the machine's own; the answer file has the administrator's
//! too, since setup would ask for one, and those of users that it creates itself. An image that is
//! not generalized gets them in its SAM.

use std::fmt::Write as _;

use snf_fs::error::display_name;
use zeroize::Zeroizing;

use super::super::{Guest, Session, TaskError};
use super::script::{self, Part};
use super::{Way, command, install_unattend};
use crate::ask::plan::{Password, Who};
use crate::craft::secret::Secret;
use crate::guest::windows::path::folded;
use crate::guest::windows::sam::{self, Account, BootKey};
use crate::guest::windows::{hives, path};

/// Sets the passwords that the plan has.
pub(in super::super) fn change(
    guest: &mut Guest,
    session: &mut Session<'_>,
) -> Result<(), TaskError> {
    let plan = session.plan;
    if !plan.auth_keys.is_empty() {
        return Err(TaskError::request(
            "authorized keys (auth_keys, --ssh-key) cannot be set on Windows; leave them out",
        ));
    }
    let mut wanted: Vec<(&Who, &Secret)> = Vec::new();
    for (who, password) in &plan.passwords {
        match password {
            Password::Clear(clear) => wanted.push((who, clear)),
            Password::Hashes(_) => {
                return Err(TaskError::request(
                    "the image is a Windows, which needs the password itself, and only hashes of it \
                     came into the helper VM; add the property OSFAMILY=windows (img_properties, \
                     --properties)",
                ));
            }
            Password::Hash(_) => {
                return Err(TaskError::request(
                    "a crypt(3) hash (img_passwd_hash, hash:) cannot be set on Windows, which hashes \
                     otherwise; give the password itself (img_passwd)",
                ));
            }
        }
    }
    let way = super::way(guest, session)?;
    let windows = super::system(guest)?;
    let now = super::now(session);
    let sam = hives::open(&guest.tree, &windows.directory, "SAM", now)?;
    let accounts = sam::accounts(&sam.hive)?;
    let mut passwords = Vec::new();
    for (who, password) in wanted {
        for name in names(session, who, &accounts)? {
            let text = check(password, &name)?;
            passwords.push((name, text, password));
        }
    }
    match way {
        Way::Setup => in_setup(guest, session, &accounts, &passwords),
        Way::Offline => offline(guest, session, sam, &accounts, &passwords),
    }
}

type Wanted<'a> = (String, Zeroizing<String>, &'a Secret);

/// The users that a request means; without USERS the administrator, whatever it is called.
fn names(session: &Session<'_>, who: &Who, accounts: &[Account]) -> Result<Vec<String>, TaskError> {
    if let Who::Named(name) = who {
        return Ok(vec![name.clone()]);
    }
    if let Some(users) = session.plan.properties.users()? {
        return Ok(users.into_iter().map(str::to_owned).collect());
    }
    let administrator = accounts.iter().find(|account| account.rid == sam::ADMINISTRATOR);
    Ok(vec![administrator.map_or_else(|| "Administrator".to_owned(), |a| a.name.clone())])
}

/// The password as text, when Windows can have it.
fn check(password: &Secret, user: &str) -> Result<Zeroizing<String>, TaskError> {
    let wrong = |why: String| {
        let user = display_name(user.as_bytes());
        Err(TaskError::request(format!("the password of {user} {why}")))
    };
    let Ok(text) = std::str::from_utf8(password.expose()) else {
        return wrong("is not UTF-8 text".into());
    };
    let length = text.encode_utf16().count();
    if length > sam::PASSWORD_MAX {
        let most = sam::PASSWORD_MAX;
        return wrong(format!("has {length} characters, and Windows takes no more than {most}"));
    }
    if text.is_empty() {
        return wrong("is empty".into());
    }
    if text.chars().any(char::is_control) {
        return wrong("has a control character, which cannot be typed at a login".into());
    }
    Ok(Zeroizing::new(text.to_owned()))
}

fn no_such_user(name: &str, accounts: &[Account], created: &[String]) -> TaskError {
    let known: Vec<String> = accounts
        .iter()
        .map(|account| &account.name)
        .chain(created)
        .take(30)
        .map(|name| display_name(name.as_bytes()))
        .collect();
    TaskError::request(format!(
        "the image has no user \"{}\", and its answer file creates none of that name; there are {}",
        display_name(name.as_bytes()),
        if known.is_empty() { "none".into() } else { known.join(", ") }
    ))
}

fn in_setup(
    guest: &mut Guest,
    session: &mut Session<'_>,
    accounts: &[Account],
    passwords: &[Wanted<'_>],
) -> Result<(), TaskError> {
    let legacy = super::is_legacy(guest);
    let mut lines = Zeroizing::new(String::with_capacity(64 << 10));
    for (name, text, password) in passwords {
        let account = accounts.iter().find(|account| folded(&account.name) == folded(name));
        let is_administrator = account.is_some_and(|a| a.rid == sam::ADMINISTRATOR);
        if let Some(account) = account {
            push_line(&mut lines, &account.name, text, legacy)?;
        }
        let mut created = false;
        let mut known = Vec::new();
        if !legacy {
            install_unattend::edit(guest, session, |file| {
                created = file.set_account_password(name, password)?;
                known = file.local_accounts();
                if is_administrator {
                    file.set_administrator_password(password)?;
                }
                file.set_auto_logon_password(name, password)
            })?;
        }
        if account.is_none() && !created {
            return Err(no_such_user(name, accounts, &known));
        }
    }
    if lines.is_empty() {
        // All are created by the answer file, which must go afterwards.
        return script::clean_up(guest, session);
    }
    let mut text = Zeroizing::new(String::with_capacity(lines.len() + 512));
    text.push_str("@echo off\r\nsetlocal EnableExtensions DisableDelayedExpansion\r\n");
    text.push_str("set \"SNF_BAD=\"\r\n");
    if !lines.is_ascii() {
        // The file is UTF-8.
        text.push_str("chcp 65001 >nul\r\n");
    }
    text.push_str(&lines);
    text.push_str("if defined SNF_BAD exit /b 1\r\nexit /b 0\r\n");
    script::install(guest, session, Part::Password, text.as_bytes())
}

/// The line that sets one password.
fn push_line(
    lines: &mut String,
    name: &str,
    password: &str,
    legacy: bool,
) -> Result<(), TaskError> {
    let wrong = |what: &str| {
        let name = display_name(name.as_bytes());
        Err(TaskError::request(format!("the password of {name} {what}; choose another one")))
    };
    // `net user` takes these for something else.
    if password.starts_with('/') {
        return wrong(
            "begins with a slash, and Windows' command `net user` takes that for an option",
        );
    }
    if password == "*" {
        return wrong(
            "is an asterisk, by which Windows' command `net user` means that it is to ask",
        );
    }
    if legacy && !(name.is_ascii() && password.is_ascii()) {
        return wrong(
            "or the name has characters beyond ASCII, which this old Windows cannot read",
        );
    }
    let (Some(user), Some(word)) = (command::argument(name), command::argument(password)) else {
        return wrong("or the name has a control character");
    };
    let word = Zeroizing::new(word);
    // More than 14 characters make it ask whether that is meant: /y. Neither is ever echoed.
    write!(lines, "net user {user} {} /active:yes /y || set \"SNF_BAD=1\"\r\n", *word)
        .map_err(TaskError::Format)
}

fn offline(
    guest: &mut Guest,
    session: &mut Session<'_>,
    mut sam: hives::OpenHive,
    accounts: &[Account],
    passwords: &[Wanted<'_>],
) -> Result<(), TaskError> {
    let windows = super::system(guest)?;
    let now = super::now(session);
    let system = hives::open(&guest.tree, &windows.directory, "SYSTEM", now)?;
    let boot_key = BootKey::read(&system.hive)?;
    for (name, _, password) in passwords {
        let account = accounts.iter().find(|account| folded(&account.name) == folded(name));
        let account = account.ok_or_else(|| no_such_user(name, accounts, &[]))?;
        let shown = display_name(account.name.as_bytes());
        let mut salt = session.entropy.derive(&format!("SAM {}", account.rid));
        let changed =
            sam::set_password(&mut sam.hive, &boot_key, account.rid, password, &mut salt, now)?;
        if changed.enabled {
            session.info(format!("the user {shown} was disabled and is enabled now"));
        }
        session.info(format!("the password of {shown} is set in the registry"));
    }
    sam.save(&mut guest.tree)?;
    // A domain controller's users are elsewhere.
    if path::find(&guest.tree, &windows.below("NTDS/ntds.dit"))?.is_some() {
        session.warn(
            "this is a domain controller: only the password of its recovery mode was changed, the \
             domain's users are in Active Directory",
        );
    }
    Ok(())
}
