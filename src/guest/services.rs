//! The services that a guest starts at boot: systemd, OpenRC, System V and runit.

use snf_fs::{Result, Tree};

use super::glob;

/// The folders in which systemd looks for units, the administrator's own first.
const UNITS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];

/// Whether the guest starts a service of this name at boot (`NetworkManager`, `sshd`).
///
/// # Errors
/// When a directory cannot be read.
pub fn is_enabled(tree: &Tree, name: &str) -> Result<bool> {
    Ok(by_systemd(tree, name)? || by_others(tree, name)?)
}

fn by_systemd(tree: &Tree, name: &str) -> Result<bool> {
    let unit = format!("{name}.service");
    if link(tree, &format!("{}/{unit}", UNITS[0]))?.is_some_and(|target| target == b"/dev/null") {
        return Ok(false);
    }
    for dir in UNITS {
        for entry in tree.read_dir_optional(dir)? {
            let path = [dir.as_bytes(), b"/", &entry.name].concat();
            if entry.name.ends_with(b".wants") || entry.name.ends_with(b".requires") {
                // A link whose target need not be looked at.
                match tree.lstat([&path, b"/".as_slice(), unit.as_bytes()].concat()) {
                    Ok(_) => return Ok(true),
                    Err(error) if error.is_not_found() => {}
                    Err(snf_fs::Error::NotADirectory(_)) => {}
                    Err(error) => return Err(error),
                }
            } else if dir == UNITS[0] && entry.name.ends_with(b".service") {
                // Another name of it (network.service for wicked.service).
                let suffix = format!("/{unit}");
                let target = link_of(tree, &path)?;
                if target.is_some_and(|target| target.ends_with(suffix.as_bytes())) {
                    return Ok(true);
                }
            }
        }
    }
    Ok(false)
}

fn by_others(tree: &Tree, name: &str) -> Result<bool> {
    for pattern in [
        format!("/etc/runlevels/*/{name}"),
        format!("/etc/rc[S2-5].d/S[0-9][0-9]{name}"),
        format!("/etc/rc.d/rc[2-5].d/S[0-9][0-9]{name}"),
        format!("/etc/runit/runsvdir/default/{name}"),
        format!("/var/service/{name}"),
    ] {
        let found = match glob::expand_links(tree, pattern.as_bytes()) {
            Err(snf_fs::Error::NotADirectory(_)) => continue,
            other => other?,
        };
        if !found.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn link(tree: &Tree, path: &str) -> Result<Option<Vec<u8>>> {
    link_of(tree, path.as_bytes())
}

/// The target of a symbolic link; `None` for anything else.
fn link_of(tree: &Tree, path: &[u8]) -> Result<Option<Vec<u8>>> {
    match tree.lstat(path) {
        Ok(stat) if stat.file_type == snf_fs::FileType::Symlink => tree.read_link(path).map(Some),
        Ok(_) => Ok(None),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snf_fs::{Attributes, MemoryFs};

    #[test]
    fn each_kind_of_init() {
        const DIR: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0 };
        for (path, target, name) in [
            ("/etc/systemd/system/multi-user.target.wants/a.service", "/none/a.service", "a"),
            ("/usr/lib/systemd/system/network-online.target.wants/a.service", "../a.service", "a"),
            (
                "/etc/systemd/system/network.service",
                "/usr/lib/systemd/system/wicked.service",
                "wicked",
            ),
            ("/etc/runlevels/default/net.eth0", "/etc/init.d/net.lo", "net.eth0"),
            ("/etc/rcS.d/S15networking", "../init.d/networking", "networking"),
            ("/etc/rc.d/rc3.d/S10network", "../init.d/network", "network"),
            ("/etc/runit/runsvdir/default/dhcpcd", "/etc/sv/dhcpcd", "dhcpcd"),
        ] {
            let mut tree = Tree::new(Box::new(MemoryFs::new()));
            assert!(!is_enabled(&tree, name).unwrap());
            tree.mkdir_all(path.rsplit_once('/').unwrap().0, DIR).unwrap();
            tree.symlink(path, target.as_bytes(), DIR).unwrap();
            assert!(is_enabled(&tree, name).unwrap(), "{path}");
            assert!(!is_enabled(&tree, "other").unwrap());
        }
        let mut tree = Tree::new(Box::new(MemoryFs::new()));
        tree.mkdir_all("/etc/systemd/system/x.wants", DIR).unwrap();
        for path in ["/etc/systemd/system/x.wants/a.service", "/etc/systemd/system/a.service"] {
            tree.symlink(path, b"/dev/null", DIR).unwrap();
        }
        assert!(!is_enabled(&tree, "a").unwrap());
    }
}
