//! AssignHostname on Windows: the computer's name, by the rules of NetBIOS.

use super::super::assign_hostname::{HostnameError, HostnameProblem};
use super::super::{Guest, Session, TaskError};
use super::{Way, install_unattend};
use crate::guest::windows::answer::{Pass, SHELL_SETUP};

/// No NetBIOS name of a computer is longer.
const NAME_MAX: usize = 15;

/// The computer's name for a host name: its first part.
pub(in super::super) fn from_hostname(hostname: &str) -> Result<&str, HostnameError> {
    let name = hostname.split('.').next().unwrap_or_default();
    let wrong = |problem| Err(HostnameError::of_computer(name, hostname, problem));
    if name.is_empty() {
        return wrong(HostnameProblem::Empty);
    }
    if let Some(character) = name.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '-') {
        let valid = "letters, digits and hyphens";
        return wrong(HostnameProblem::Character { character, valid });
    }
    if name.len() > NAME_MAX {
        let (length, most) = (name.len(), NAME_MAX);
        return wrong(HostnameProblem::TooLong { length, system: "Windows", most });
    }
    if name.starts_with('-') || name.ends_with('-') {
        return wrong(HostnameProblem::Hyphen);
    }
    if name.bytes().all(|byte| byte.is_ascii_digit()) {
        return wrong(HostnameProblem::Digits);
    }
    Ok(name)
}

/// Sets the name in the answer file.
pub(in super::super) fn assign(
    guest: &mut Guest,
    session: &mut Session<'_>,
    hostname: &str,
) -> Result<(), TaskError> {
    let way = super::way(guest, session)?;
    let name = from_hostname(hostname)?;
    if way == Way::Offline {
        session.warn(format!(
            "the computer is not named {name}: the image is not generalized, so it keeps the name \
             that it has"
        ));
        return Ok(());
    }
    if super::is_legacy(guest) {
        return install_unattend::edit_legacy(guest, session, |inf| {
            inf.set("UserData", "ComputerName", name);
        });
    }
    install_unattend::edit(guest, session, |file| {
        file.set(Pass::Specialize, SHELL_SETUP, &["ComputerName"], name)
    })
}

#[cfg(test)]
mod tests {
    use super::from_hostname;

    #[test]
    fn rules_of_names() {
        for (hostname, name) in
            [("vm1", "vm1"), ("VM-1.example.org", "VM-1"), ("a23456789012345", "a23456789012345")]
        {
            assert_eq!(from_hostname(hostname).unwrap(), name);
        }
        for (hostname, part) in [
            ("", "is empty"),
            (".x", "is empty"),
            ("a234567890123456", "16 characters"),
            ("long-instance-name.example.org", "18 characters"),
            ("vm_1", "the character \"_\""),
            ("vm 1", "the character \" \""),
            ("größe", "the character \"ö\""),
            ("-vm", "a hyphen"),
            ("vm-", "a hyphen"),
            ("12345", "digits only"),
        ] {
            let error = from_hostname(hostname).unwrap_err().to_string();
            assert!(error.contains(part), "{hostname}: {error}");
        }
        let error = from_hostname("a/b.example.org").unwrap_err().to_string();
        assert!(error.contains("the first part of a/b.example.org"), "{error}");
    }
}
