//! Services that are scripts in `/etc/init.d`: links in `rcN.d` (SysV init), and in the runlevels of OpenRC.

use snf_fs::{Attributes, FileType, Tree};

use super::place::PARENTS;
use crate::guest::systemd::UnitName;
use crate::task::TaskError;

const LINK: Attributes = Attributes { mode: 0o777, uid: 0, gid: 0 };
/// The runlevels that have links.
const LEVELS: std::ops::RangeInclusive<u8> = 0..=6;
/// Largest script that is read, in bytes.
const SCRIPT_MAX: u64 = 1 << 20;

/// Whether a service is a script.
///
/// # Errors
/// Errors of the tree.
pub(super) fn has_script(unit: &UnitName, tree: &Tree) -> Result<bool, TaskError> {
    Ok(unit.suffix() == "service" && tree.is_file(format!("/etc/init.d/{}", unit.stem()))?)
}

fn missing(name: &str) -> TaskError {
    TaskError::Request(format!("the guest has no service {name} (no /etc/init.d/{name})"))
}

/// Adds a service to OpenRC's runlevel `default`.
///
/// # Errors
/// When there is no such service.
pub(super) fn openrc_add(name: &str, tree: &mut Tree) -> Result<(), TaskError> {
    let script = format!("/etc/init.d/{name}");
    if !tree.is_file(&script)? {
        return Err(missing(name));
    }
    // One that starts earlier starts anyway.
    for level in ["default", "boot", "sysinit"] {
        if tree.lstat(format!("/etc/runlevels/{level}/{name}")).is_ok() {
            return Ok(());
        }
    }
    tree.mkdir_all("/etc/runlevels/default", PARENTS)?;
    Ok(tree.symlink(format!("/etc/runlevels/default/{name}"), script.as_bytes(), LINK)?)
}

/// Removes a service from all of OpenRC's runlevels.
///
/// # Errors
/// When there is no such service.
pub(super) fn openrc_delete(name: &str, tree: &mut Tree) -> Result<(), TaskError> {
    let mut known = tree.is_file(format!("/etc/init.d/{name}"))?;
    for level in tree.read_dir_optional("/etc/runlevels")? {
        let path = [b"/etc/runlevels/", level.name.as_slice(), b"/", name.as_bytes()].concat();
        match tree.lstat(&path) {
            Ok(_) => {
                tree.unlink(&path)?;
                known = true;
            }
            Err(error) if error.is_not_found() => {}
            Err(snf_fs::Error::NotADirectory(_)) => {}
            Err(error) => return Err(error.into()),
        }
    }
    if known { Ok(()) } else { Err(missing(name)) }
}

/// The levels in which a script starts, and the numbers of its links.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Header {
    start: Vec<u8>,
    stop: Vec<u8>,
    start_number: u8,
    stop_number: u8,
}

impl Header {
    /// From the comments of the script: the LSB header, or the line for `chkconfig`.
    fn read(text: &str) -> Self {
        let mut header =
            Self { start: vec![2, 3, 4, 5], stop: vec![0, 1, 6], start_number: 1, stop_number: 1 };
        let levels = |list: &str| -> Vec<u8> {
            list.bytes()
                .filter(u8::is_ascii_digit)
                .map(|digit| digit - b'0')
                .filter(|n| *n <= 6)
                .collect()
        };
        for line in text.lines().take(200) {
            let Some(line) = line.strip_prefix('#').map(str::trim) else { continue };
            if let Some(list) = line.strip_prefix("Default-Start:") {
                header.start = levels(list);
            } else if let Some(list) = line.strip_prefix("Default-Stop:") {
                header.stop = levels(list);
            } else if let Some(rest) = line.strip_prefix("chkconfig:") {
                let mut words = rest.split_whitespace();
                let list = words.next().unwrap_or_default();
                header.start = levels(list);
                header.stop = LEVELS.filter(|level| !header.start.contains(level)).collect();
                let mut number =
                    || words.next().and_then(|word| word.parse().ok()).filter(|n: &u8| *n < 100);
                header.start_number = number().unwrap_or(50);
                header.stop_number = number().unwrap_or(50);
                return header;
            }
        }
        header
    }
}

/// The directory of a runlevel.
fn level_dir(tree: &Tree, level: u8) -> Result<Option<String>, TaskError> {
    for dir in [format!("/etc/rc{level}.d"), format!("/etc/rc.d/rc{level}.d")] {
        if tree.is_dir(&dir)? {
            return Ok(Some(dir));
        }
    }
    Ok(None)
}

/// Makes the start links of a script, and its stop links.
///
/// # Errors
/// When there is no such script.
pub(super) fn enable(name: &str, tree: &mut Tree) -> Result<(), TaskError> {
    link(name, tree, true)
}

/// Makes stop links where a script has start links.
///
/// # Errors
/// When there is no such script.
pub(super) fn disable(name: &str, tree: &mut Tree) -> Result<(), TaskError> {
    link(name, tree, false)
}

fn link(name: &str, tree: &mut Tree, on: bool) -> Result<(), TaskError> {
    let script = format!("/etc/init.d/{name}");
    if !tree.is_file(&script)? {
        return Err(missing(name));
    }
    let text = tree.read(&script, SCRIPT_MAX)?;
    let header = Header::read(&String::from_utf8_lossy(&text));
    for level in LEVELS {
        let Some(dir) = level_dir(tree, level)? else { continue };
        let starts = header.start.contains(&level);
        if !starts && !header.stop.contains(&level) {
            continue;
        }
        let wanted = match starts && on {
            true => format!("S{:02}{name}", header.start_number),
            false => format!("K{:02}{name}", header.stop_number),
        };
        let mut there = false;
        for entry in tree.read_dir(&dir)? {
            let own = matches!(entry.name.as_slice(), [b'S' | b'K', a, b, rest @ ..]
                if a.is_ascii_digit() && b.is_ascii_digit() && rest == name.as_bytes());
            // A link with another number stays, if it says the same.
            if own && entry.name.first() == wanted.as_bytes().first() {
                there = true;
            } else if own {
                let path = [dir.as_bytes(), b"/", &entry.name].concat();
                if tree.lstat(&path)?.file_type == FileType::Symlink {
                    tree.unlink(&path)?;
                }
            }
        }
        if !there {
            let target = format!("../init.d/{name}");
            tree.symlink(format!("{dir}/{wanted}"), target.as_bytes(), LINK)?;
        }
    }
    Ok(())
}
