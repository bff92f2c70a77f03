//! Packages, and the command of the guest that installs them.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::super::BadEdit;
use crate::guest::Guest;
use crate::task::TaskError;

/// The most packages of one edit.
const MOST: usize = 1000;

/// Names of packages, at least one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub(super) struct Packages(Vec<String>);

impl TryFrom<Vec<String>> for Packages {
    type Error = BadEdit;

    fn try_from(names: Vec<String>) -> Result<Self, BadEdit> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "+._:@~/=-".contains(c);
        if names.is_empty() || names.len() > MOST {
            return Err(BadEdit::new("a list of 1 to 1000 packages is needed"));
        }
        for name in &names {
            let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric() || "@/_".contains(c));
            if !starts || !name.chars().all(plain) || name.len() > 255 {
                return Err(BadEdit::new(format!(
                    "'{}' is no name of a package; several have commas between them",
                    name.escape_debug()
                )));
            }
        }
        Ok(Self(names))
    }
}

impl From<Packages> for Vec<String> {
    fn from(packages: Packages) -> Self {
        packages.0
    }
}

impl fmt::Display for Packages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

/// Package managers: the program that tells that it is there, and its command. The first one counts.
const MANAGERS: [(&[&str], &str); 13] = [
    (
        &["/usr/bin/rpm-ostree"],
        "rpm-ostree install --assumeyes --idempotent --allow-inactive --apply-live",
    ),
    (&["/usr/bin/apt-get"], "apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y"),
    (&["/usr/bin/dnf", "/usr/bin/dnf5", "/usr/bin/dnf-3"], "dnf install -y"),
    (&["/usr/bin/yum"], "yum install -y"),
    (&["/usr/bin/microdnf"], "microdnf install -y"),
    (&["/usr/bin/tdnf"], "tdnf install -y"),
    (&["/usr/bin/zypper"], "zypper --non-interactive install --auto-agree-with-licenses"),
    (&["/sbin/apk", "/usr/bin/apk"], "apk update && apk add"),
    (&["/usr/bin/pacman"], "pacman -Sy --noconfirm --needed"),
    (&["/usr/bin/xbps-install"], "xbps-install -Sy"),
    (&["/usr/bin/emerge"], "emerge --noreplace"),
    (&["/bin/opkg", "/usr/bin/opkg"], "opkg update && opkg install"),
    (&["/usr/bin/eopkg"], "eopkg install -y"),
];

/// The script that installs the packages: with a few tries, because mirrors and networks fail.
///
/// # Errors
/// When the guest has no package manager that is known.
pub(super) fn script(guest: &Guest, packages: &Packages) -> Result<String, TaskError> {
    for (programs, command) in MANAGERS {
        for program in programs {
            if guest.tree.exists(program)? {
                let names = packages.0.join(" ");
                return Ok(format!(
                    "#!/bin/sh\nfor pause in 10 30 60 0; do\n    {{ {command} {names}; }} && exit 0\n    \
                     sleep $pause\ndone\nexit 1\n"
                ));
            }
        }
    }
    Err(TaskError::request(
        "the guest has no package manager that is known (apt, dnf, yum, zypper, apk, pacman, xbps, \
         portage, opkg, eopkg, rpm-ostree)",
    ))
}
