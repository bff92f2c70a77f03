//! AssignHostname: the host name, where this guest keeps it, and everywhere else that holds the old
//! one.

mod places;

use snf_fs::Attributes;
use snf_fs::error::display_name;

use self::places::Renaming;
use super::{
    Guest, LINUX_AND_WINDOWS, Needs, Session, Task, TaskError, TaskId, Work, hidden_at_boot,
    windows,
};
use crate::guest::CONFIG_MAX;
use crate::guest::distro::Family;

pub(super) static TASK: Task = Task {
    id: TaskId::AssignHostname,
    summary: "set the host name, and the 127.0.1.1 line of /etc/hosts",
    applies: |plan| plan.hostname.is_some(),
    work: Work::guest(Needs::System(LINUX_AND_WINDOWS), run),
};

/// Linux keeps at most this many bytes.
const HOST_NAME_MAX: usize = 64;
const CONFIG: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };

/// Why a name cannot be a host name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {what} \"{}\"{of} {problem}", .name.escape_debug())]
pub struct HostnameError {
    /// `host name`, or `computer name` where Windows takes only a part of it.
    what: &'static str,
    /// The name.
    name: String,
    /// The host name that it is a part of, in words; empty when it is the whole.
    of: String,
    /// The problem.
    problem: HostnameProblem,
}

/// The problem with a host name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostnameProblem {
    /// Nothing.
    #[error("is empty")]
    Empty,
    /// More characters than the system keeps.
    #[error("has {length} characters, and {system} takes no more than {most}")]
    TooLong {
        /// Its length.
        length: usize,
        /// The system that has this limit.
        system: &'static str,
        /// The longest that is valid.
        most: usize,
    },
    /// An empty part between dots.
    #[error("begins or ends with a dot, or has two in a row")]
    EmptyPart,
    /// A part that no name server takes.
    #[error("has a part of more than 63 characters")]
    LongPart,
    /// A part with a hyphen in the wrong place.
    #[error("has a part that begins or ends with a hyphen")]
    PartHyphen,
    /// The same, of a name without parts.
    #[error("begins or ends with a hyphen")]
    Hyphen,
    /// A character that names do not have.
    #[error("has the character \"{}\"; {valid} are valid", .character.escape_debug())]
    Character {
        /// The character.
        character: char,
        /// The characters that are valid.
        valid: &'static str,
    },
    /// A number, which NetBIOS does not take for a name.
    #[error("has digits only, which Windows does not take")]
    Digits,
}

impl HostnameError {
    fn new(name: &str, problem: HostnameProblem) -> Self {
        Self { what: "host name", name: name.to_owned(), of: String::new(), problem }
    }

    /// An error of the computer name that a Windows makes of a host name.
    pub(super) fn of_computer(name: &str, hostname: &str, problem: HostnameProblem) -> Self {
        let of = match hostname == name {
            true => String::new(),
            false => format!(", the first part of {},", hostname.escape_debug()),
        };
        Self { what: "computer name", name: name.to_owned(), of, problem }
    }
}

/// Whether the name can be a host name.
///
/// # Errors
/// The problem with it.
fn check(name: &str) -> Result<(), HostnameError> {
    let wrong = |problem| Err(HostnameError::new(name, problem));
    if name.is_empty() {
        return wrong(HostnameProblem::Empty);
    }
    if name.len() > HOST_NAME_MAX {
        let (length, most) = (name.len(), HOST_NAME_MAX);
        return wrong(HostnameProblem::TooLong { length, system: "Linux", most });
    }
    for label in name.split('.') {
        if label.is_empty() {
            return wrong(HostnameProblem::EmptyPart);
        }
        if label.len() > 63 {
            return wrong(HostnameProblem::LongPart);
        }
        if label.starts_with('-') || label.ends_with('-') {
            return wrong(HostnameProblem::PartHyphen);
        }
        if let Some(character) = label.chars().find(|c| !c.is_ascii_alphanumeric() && *c != '-') {
            let valid = "letters, digits, hyphens and dots";
            return wrong(HostnameProblem::Character { character, valid });
        }
    }
    Ok(())
}

/// Whether some system takes the name: Linux the whole, or Windows its first part. The guest's own rules
/// are looked at when it is known.
///
/// # Errors
/// The problem that Linux has with it.
pub fn check_hostname(name: &str) -> Result<(), HostnameError> {
    check(name).or_else(|problem| match windows::computer_name::from_hostname(name) {
        Ok(_) => Ok(()),
        Err(_) => Err(problem),
    })
}

fn run(guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    let Some(name) = session.plan.hostname.clone() else { return Ok(()) };
    if guest.is_windows() {
        return windows::computer_name::assign(guest, session, &name);
    }
    check(&name)?;
    if guest.tree.exists("/etc/NIXOS")? {
        session.warn(
            "the host name was not set: NixOS takes it from networking.hostName in /etc/nixos, and \
             what is written elsewhere is lost at the next rebuild",
        );
        return Ok(());
    }
    let old = set(guest, session, &name)?;
    let renaming = Renaming::new(old.as_deref(), &name);
    renaming.hosts(guest)?;
    renaming.settings(guest)?;
    let seeded = super::initialize_datasource::seeded(session)?;
    if guest.has_cloud_init()? && !seeded && !preserves_hostname(guest)? {
        // It would set another name, or none, at the next boot.
        let text = "# Written by snf-image, which set the host name.\npreserve_hostname: true\n";
        let dir = Attributes { mode: 0o755, uid: 0, gid: 0 };
        guest.tree.mkdir_all("/etc/cloud/cloud.cfg.d", dir)?;
        guest.tree.write(
            "/etc/cloud/cloud.cfg.d/99-snf-image-hostname.cfg",
            text.as_bytes(),
            CONFIG,
        )?;
    }
    Ok(())
}

fn preserves_hostname(guest: &Guest) -> Result<bool, TaskError> {
    let mut paths = vec![b"/etc/cloud/cloud.cfg".to_vec()];
    paths.extend(crate::guest::glob::expand(&guest.tree, b"/etc/cloud/cloud.cfg.d/*.cfg")?);
    for path in paths {
        let text = guest.tree.read_optional(&path, CONFIG_MAX)?.unwrap_or_default();
        let set = text.split(|byte| *byte == b'\n').any(|line| {
            line.trim_ascii().strip_prefix(b"preserve_hostname:").map(<[u8]>::trim_ascii)
                == Some(b"true")
        });
        if set {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Writes the name where the guest looks for it; gives the name it had.
fn set(
    guest: &mut Guest,
    session: &mut Session<'_>,
    name: &str,
) -> Result<Option<String>, TaskError> {
    let old = guest.hostname()?;
    let uci = "/etc/config/system";
    if let Some(text) = guest.config(uci)? {
        let text = String::from_utf8_lossy(&text).into_owned();
        let (new, changed) = with_uci_name(&text, name);
        if changed {
            guest.tree.write(uci, new.as_bytes(), CONFIG)?;
            return Ok(old);
        }
    }
    let place = guest.tree.resolve_missing("/etc/hostname");
    if let Some(dir) = place.as_deref().ok().and_then(hidden_at_boot) {
        session.warn(format!(
            "/etc/hostname leads to {}, which the running guest does not see: it mounts something \
             else on {dir}; the guest will not have the name",
            display_name(&place.unwrap_or_default())
        ));
    }
    let line = format!("{name}\n");
    let family = guest.distro.family;
    let modern = guest.tree.exists("/etc/hostname")? || guest.has_systemd()?;
    // An older file is updated too, because something may still read it.
    let legacy = match family {
        Family::RedHat => assign(guest, "/etc/sysconfig/network", "HOSTNAME", name, !modern)?,
        Family::Gentoo => assign(guest, "/etc/conf.d/hostname", "hostname", name, !modern)?,
        Family::Arch => assign(guest, "/etc/rc.conf", "HOSTNAME", name, false)?,
        Family::Suse | Family::Slackware => {
            let path = "/etc/HOSTNAME";
            let old = guest.config(path)?;
            if old.is_some() || !modern {
                guest.tree.write(path, line.as_bytes(), CONFIG)?;
            }
            old.map(|text| String::from_utf8_lossy(&text).trim().to_owned())
        }
        _ => None,
    };
    let elsewhere =
        matches!(family, Family::RedHat | Family::Gentoo | Family::Suse | Family::Slackware)
            || (family == Family::Arch && legacy.is_some());
    if modern || !elsewhere {
        guest.tree.write("/etc/hostname", line.as_bytes(), CONFIG)?;
    }
    Ok(old.or(legacy).filter(|old| !old.is_empty()))
}

/// Sets `key=name` in a file of shell assignments and gives the value that was there. A file or a
/// line that is missing is made only when `make` says so.
fn assign(
    guest: &mut Guest,
    path: &str,
    key: &str,
    name: &str,
    make: bool,
) -> Result<Option<String>, TaskError> {
    let text = guest.config(path)?;
    let (new, old) = assigned(text.as_deref().unwrap_or_default(), key, name);
    if old.is_some() || make {
        guest.tree.write(path, &new, CONFIG)?;
    }
    Ok(old)
}

/// The text with `key=value` in place of the last such line, or after the end.
fn assigned(text: &[u8], key: &str, value: &str) -> (Vec<u8>, Option<String>) {
    let prefix = format!("{key}=");
    let mut lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let found = lines.iter().rposition(|line| line.trim_ascii().starts_with(prefix.as_bytes()));
    let quoted = found.is_some_and(|at| lines[at].contains(&b'"')) || key == "hostname";
    let line = if quoted { format!("{prefix}\"{value}\"\n") } else { format!("{prefix}{value}\n") };
    match found {
        Some(at) => {
            let old = String::from_utf8_lossy(lines[at]).into_owned();
            lines[at] = line.as_bytes();
            (lines.concat(), crate::guest::distro::value(&old, key).or(Some(String::new())))
        }
        None => {
            let mut out = text.to_vec();
            if !out.is_empty() && !out.ends_with(b"\n") {
                out.push(b'\n');
            }
            out.extend_from_slice(line.as_bytes());
            (out, None)
        }
    }
}

/// OpenWrt's `system` with another host name, and whether there was a place for one.
fn with_uci_name(text: &str, name: &str) -> (String, bool) {
    let mut changed = false;
    let new = text.split_inclusive('\n').map(|line| {
        let mut words = line.split_whitespace();
        if (words.next(), words.next()) == (Some("option"), Some("hostname")) && !changed {
            changed = true;
            return format!("\toption hostname '{name}'\n");
        }
        line.to_owned()
    });
    (new.collect(), changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::testing::Guest;

    fn assign_to(guest: &mut Guest, name: &str) {
        guest.plan.hostname = Some(name.into());
        guest.run(&TASK).unwrap();
    }

    #[test]
    fn names() {
        for good in ["a", "vm-1.example.org", "1", &"x".repeat(63)] {
            assert!(check(good).is_ok(), "{good}");
        }
        for (bad, part) in [
            ("", "empty"),
            (".", "dot"),
            ("a..b", "dot"),
            ("a.", "dot"),
            ("-a", "hyphen"),
            ("a-.b", "hyphen"),
            ("a_b", "\"_\""),
            ("a b", "\" \""),
            ("a\nb", "\\n"),
            ("ü", "\"ü\""),
            (&"x".repeat(64), "63"),
            (&format!("{}.x", "y".repeat(63)), "64"),
        ] {
            assert!(check(bad).unwrap_err().to_string().contains(part), "{bad}");
        }
    }

    #[test]
    fn debian() {
        let mut guest = Guest::debian();
        assign_to(&mut guest, "vm1");
        assert_eq!(guest.read("/etc/hostname"), "vm1\n");
        assert_eq!(
            guest.read("/etc/hosts"),
            "127.0.0.1\tlocalhost\n127.0.1.1\tvm1.example.org vm1\n"
        );
        assert_eq!(guest.changed(), ["/etc/hostname", "/etc/hosts"]);
        guest.renew();
        assign_to(&mut guest, "vm1");
        assert!(guest.changed().is_empty());
        assign_to(&mut guest, "vm2.example.com");
        assert_eq!(guest.read("/etc/hostname"), "vm2.example.com\n");
        assert!(guest.read("/etc/hosts").ends_with("127.0.1.1\tvm2.example.com vm2\n"));
    }

    #[test]
    fn families() {
        let family = |family, files: &[(&str, &str)]| {
            let mut guest = Guest::empty();
            guest.mkdir("/etc");
            guest.distro.family = family;
            files.iter().for_each(|(path, text)| guest.write(path, text));
            assign_to(&mut guest, "vm");
            guest
        };
        let network = "/etc/sysconfig/network";
        let mut guest = family(Family::RedHat, &[(network, "NETWORKING=yes\nHOSTNAME=\"old\"")]);
        assert_eq!(guest.read(network), "NETWORKING=yes\nHOSTNAME=\"vm\"\n");
        assert!(!guest.tree().exists("/etc/hostname").unwrap());
        let mut guest = family(Family::RedHat, &[(network, ""), ("/usr/lib/systemd/systemd", "")]);
        assert_eq!((guest.read(network), guest.read("/etc/hostname")), ("".into(), "vm\n".into()));
        let mut guest = family(Family::Slackware, &[("/etc/HOSTNAME", "darkstar\n")]);
        assert_eq!(guest.read("/etc/HOSTNAME"), "vm\n");
        let mut guest =
            family(Family::Gentoo, &[("/etc/conf.d/hostname", "# x\nhostname=\"l\"\n")]);
        assert_eq!(guest.read("/etc/conf.d/hostname"), "# x\nhostname=\"vm\"\n");
        let mut guest = family(Family::Arch, &[("/etc/rc.conf", "HOSTNAME=a\n")]);
        assert_eq!(guest.read("/etc/rc.conf"), "HOSTNAME=vm\n");
        let mut guest = family(Family::Arch, &[]);
        assert_eq!(guest.read("/etc/hostname"), "vm\n");
        let mut guest = family(Family::Alpine, &[("/etc/hostname", "localhost\n")]);
        assert_eq!(guest.read("/etc/hostname"), "vm\n");
    }

    #[test]
    fn systems_that_keep_it_elsewhere() {
        let mut guest = Guest::empty();
        let system = "config system\n\toption hostname 'OpenWrt'\n\toption timezone 'UTC'\n";
        guest.write("/etc/config/system", system);
        assign_to(&mut guest, "vm");
        assert_eq!(guest.read("/etc/config/system"), system.replace("OpenWrt", "vm"));
        assert!(!guest.tree().exists("/etc/hostname").unwrap());
        let mut guest = Guest::empty();
        guest.write("/etc/NIXOS", "");
        guest.write("/etc/static/hostname", "nixos\n");
        guest.symlink("/etc/hostname", "/etc/static/hostname");
        assign_to(&mut guest, "vm");
        assert_eq!(guest.read("/etc/static/hostname"), "nixos\n");
        assert!(guest.warnings()[0].contains("networking.hostName"));
        let mut guest = Guest::debian();
        guest.tree().unlink("/etc/hostname").unwrap();
        guest.mkdir("/run");
        guest.symlink("/etc/hostname", "/run/hostname");
        assign_to(&mut guest, "vm");
        assert!(guest.warnings()[0].contains("/etc/hostname leads to /run/hostname"));
    }

    #[test]
    fn hostile_guests() {
        let mut guest = Guest::debian();
        guest.plan.hostname = Some("vm".into());
        guest.tree().unlink("/etc/hostname").unwrap();
        guest.mkdir("/etc/hostname");
        assert_eq!(guest.fail(&TASK), "/etc/hostname: is a directory");
        let mut guest = Guest::debian();
        guest.plan.hostname = Some("vm".into());
        let long = format!("127.0.0.1 {}\n\u{fffd}\n", "x".repeat(5000));
        guest.write("/etc/hosts", &long);
        guest.run(&TASK).unwrap();
        assert_eq!(
            guest.read("/etc/hosts"),
            long.replace("\n\u{fffd}", "\n127.0.1.1\tvm\n\u{fffd}")
        );
        guest.plan.hostname = Some("a\nb".into());
        assert!(guest.fail(&TASK).contains("the host name \"a\\nb\""));
        guest.write("/etc/cloud/cloud.cfg", "preserve_hostname: false\n");
        assign_to(&mut guest, "vm");
        assert!(guest.warnings().is_empty());
        let text = guest.read("/etc/cloud/cloud.cfg.d/99-snf-image-hostname.cfg");
        assert!(text.ends_with("preserve_hostname: true\n"));
    }
}
