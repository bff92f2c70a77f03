//! The place of an edit: the path after all links, and whether it may be used.
//!
//! A user of the guest can make links. Root, who edits the guest, would follow them: a link in
//! a home that leads to /etc/shadow, or a second name of it there, would have the edit hand it over.

use snf_fs::error::display_name;
use snf_fs::{Attributes, FileType, Kind, Stat, Tree};

use super::GuestPath;
use crate::guest::Guest;
use crate::task::{Session, TaskError, hidden_at_boot};

/// Attributes of directories that are made on the way.
pub(super) const PARENTS: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0 };

/// The place of an edit in the guest's tree.
#[derive(Clone, Debug)]
pub(super) struct Spot {
    /// The path, all links on the way (and at its end, where they are followed) resolved.
    pub(super) path: Vec<u8>,
    /// The node that is there.
    pub(super) existing: Option<Stat>,
}

/// Finds the place that `path` names, for something that is to be written there.
///
/// # Errors
/// When the path leads nowhere, or out of another user's directory.
pub(super) fn to_write(
    guest: &Guest,
    session: &mut Session<'_>,
    path: &GuestPath,
    follow: bool,
) -> Result<Spot, TaskError> {
    let spot = find(guest, path, follow)?;
    if let Some(dir) = hidden_at_boot(&spot.path) {
        let shown = display_name(&spot.path);
        session.warn(format!("{shown} will be hidden when the guest mounts {dir}"));
    }
    let asked = path.on(guest)?;
    if follow && guest.tree.lstat(&asked).is_ok_and(|stat| stat.file_type == FileType::Symlink) {
        session.warn(format!(
            "{path} is a symbolic link to {}, which is what changes; --no-follow replaces the link",
            display_name(&spot.path)
        ));
    }
    Ok(spot)
}

/// Finds the place that `path` names.
///
/// # Errors
/// As [`to_write`].
pub(super) fn find(guest: &Guest, path: &GuestPath, follow: bool) -> Result<Spot, TaskError> {
    let asked = path.on(guest)?;
    let canonical = canonical(&guest.tree, &asked, follow)?;
    let existing = match guest.tree.lstat(&canonical) {
        Ok(stat) => Some(stat),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error.into()),
    };
    if !guest.is_windows() {
        refuse_traps(&guest.tree, &asked, &canonical, existing.as_ref())?;
    }
    Ok(Spot { path: canonical, existing })
}

/// The canonical path, its last name followed or not.
fn canonical(tree: &Tree, path: &[u8], follow: bool) -> Result<Vec<u8>, TaskError> {
    let trimmed = trim(path);
    let slash = trimmed.iter().rposition(|byte| *byte == b'/');
    let (Some(slash), false) = (slash, follow) else {
        return Ok(tree.resolve_missing(path)?);
    };
    let (dir, name) = (&trimmed[..slash], &trimmed[slash + 1..]);
    if matches!(name, b"" | b"." | b"..") {
        return Ok(tree.resolve_missing(path)?);
    }
    let dir = tree.resolve_missing(if dir.is_empty() { b"/" } else { dir })?;
    Ok(join(&dir, name))
}

/// Says that the file system of a path keeps no owner, group and mode: `what` of them were asked for.
pub(super) fn warn_unowned(
    guest: &Guest,
    session: &mut Session<'_>,
    path: &[u8],
    shown: &GuestPath,
    what: &str,
) {
    let above = |dir: &[u8]| {
        let rest = path.strip_prefix(trim(dir));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
    };
    let mounts = guest.tree.mounts().into_iter().filter(|(dir, _)| above(dir));
    let Some((_, Ok(info))) = mounts.max_by_key(|(dir, _)| dir.len()) else { return };
    if matches!(info.kind, Kind::Fat | Kind::Ntfs) && !guest.is_windows() {
        session.warn(format!(
            "{shown}: {what} no effect: its file system ({}) keeps no owner, group and mode; options of \
             its line in /etc/fstab (uid=, gid=, umask=) give them to all of it",
            info.kind.name()
        ));
    }
}

/// A path without the slashes at its end.
pub(super) fn trim(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    &path[..end]
}

/// The path of an entry of a directory.
pub(super) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    [trim(dir), b"/", name].concat()
}

/// Refuses what a user of the guest may have laid out for root to step into.
fn refuse_traps(
    tree: &Tree,
    asked: &[u8],
    canonical: &[u8],
    existing: Option<&Stat>,
) -> Result<(), TaskError> {
    let slashes = asked.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/');
    for (at, _) in slashes {
        let dir = &asked[..at];
        let Some(stat) = tree.stat_optional(dir)? else { return Ok(()) };
        if stat.file_type != FileType::Directory || stat.uid == 0 {
            continue;
        }
        let home = tree.resolve(dir)?.path;
        let inside = canonical.strip_prefix(home.as_slice()).is_some_and(|r| r.starts_with(b"/"));
        if !inside {
            return Err(TaskError::request(format!(
                "{} leads to {}, out of {}, which belongs to the user with the number {}; name the \
                 place itself",
                display_name(asked),
                display_name(canonical),
                display_name(&home),
                stat.uid
            )));
        }
        if existing.is_some_and(|stat| stat.file_type == FileType::Regular && stat.links > 1) {
            return Err(TaskError::request(format!(
                "{} has other names elsewhere, and {} belongs to the user with the number {}; \
                 delete it first",
                display_name(canonical),
                display_name(&home),
                stat.uid
            )));
        }
        return Ok(());
    }
    Ok(())
}

/// Makes the directories above a path that are missing.
///
/// # Errors
/// Errors of the tree.
pub(super) fn make_parents(tree: &mut Tree, path: &[u8]) -> Result<(), TaskError> {
    if let Some(slash) = path.iter().rposition(|byte| *byte == b'/')
        && slash > 0
    {
        tree.mkdir_all(&path[..slash], PARENTS)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use snf_fs::MemoryDevice;

    use super::super::testing::{Guest, fails, runs};

    #[test]
    fn links_of_users_lead_nowhere() {
        let mut guest = Guest::debian();
        guest.symlink("/home/ann/shadow", "/etc/shadow");
        guest.symlink("/home/ann/up", "..");
        guest.symlink("/home/ann/own", "below");
        guest.symlink("/srv", "home/ann");
        for path in ["/home/ann/shadow", "/home/ann/up/x", "/srv/shadow", "/home/ann/up/../etc/x"] {
            let error = fails(&mut guest, "write", &format!("{path}:text:x"));
            assert!(error.contains("belongs to the user with the number 1000"), "{error}");
        }
        runs(&mut guest, "write", "/home/ann/own/x:text:x");
        assert_eq!(guest.read("/home/ann/below/x"), "x");
        runs(&mut guest, "write", "/etc/shadow:text:x");
    }

    #[test]
    fn fat_keeps_no_owner() {
        let mut guest = Guest::debian();
        guest.mkdir("/boot");
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("fat");
        std::fs::write(&file, vec![0; 4 << 20]).unwrap();
        let made = std::process::Command::new("mkfs.vfat").arg(&file).output();
        assert!(made.expect("this test needs mkfs.vfat").status.success());
        let device = std::sync::Arc::new(MemoryDevice::new(std::fs::read(&file).unwrap()));
        let now = snf_fs::Timestamp { seconds: 1_700_000_000, nanoseconds: 0 };
        let fat = snf_fs::fat::Fat::open(device, snf_fs::fat::Options { now }).unwrap();
        guest.tree().mount("/boot", Box::new(fat), None).unwrap();
        for (verb, text) in [
            ("write", "/etc/x:file:/etc/hostname:owner=0,mode=0600"),
            ("write", "/boot/x:file:/etc/hostname"),
            ("write", "/boot/x:text:hello"),
            ("mkdir", "/boot/a"),
            ("chmod", "0600:/etc/x"),
        ] {
            runs(&mut guest, verb, text);
        }
        assert!(guest.warnings().is_empty(), "{:?}", guest.warnings());
        for (told, (verb, text)) in (1..).zip([
            ("write", "/boot/x:file:/etc/hostname:owner=0,mode=0600"),
            ("mkdir", "/boot/b/c:mode=0700"),
            ("chmod", "0600:/boot/x"),
            ("chown", "0:/boot/x"),
        ]) {
            runs(&mut guest, verb, text);
            assert_eq!(guest.warnings().len(), told, "{verb} {text}");
            assert!(guest.warnings()[told - 1].contains("(vfat) keeps no owner"));
        }
    }

    #[test]
    fn links_are_told() {
        let mut guest = Guest::debian();
        guest.write("/usr/share/zoneinfo/UTC", "TZif");
        guest.symlink("/etc/localtime", "/usr/share/zoneinfo/UTC");
        runs(&mut guest, "write", "/etc/localtime:text:x");
        assert_eq!(guest.read("/usr/share/zoneinfo/UTC"), "x");
        assert!(guest.warnings()[0].contains("/usr/share/zoneinfo/UTC"), "{:?}", guest.warnings());
    }
}
