//! Mounts beside `/etc/fstab`: units of systemd (`.mount`, `.automount`), and partitions that
//! systemd mounts by their type (Discoverable Partitions Specification).

use std::collections::BTreeSet;

use snf_fs::error::display_name;
use snf_fs::{Result, Tree};

use super::fstab;
use super::opened::Guest;
use super::systemd::{Found, UnitName, find};
use crate::ask::event::EventSink;

/// A unit's file is read up to this size in bytes.
const UNIT_MAX: u64 = 1 << 20;
/// So many units are looked at.
const UNITS_MAX: usize = 1000;
/// The directories in which links switch units on.
const DIRS: [&str; 3] = ["/etc/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
/// The generator that mounts partitions by their type.
const GENERATORS: [&str; 2] = [
    "/usr/lib/systemd/system-generators/systemd-gpt-auto-generator",
    "/lib/systemd/system-generators/systemd-gpt-auto-generator",
];
/// The types of partitions that it mounts, as the partition table's reader calls them. (`/var` is mounted
/// by the machine's number only, and `/usr` with the root, which the search for the root sees to.)
const TYPES: [(&str, &str); 2] = [("Linux home", "/home"), ("Linux server data", "/srv")];

/// A unit that mounts something.
struct MountUnit {
    path: String,
    what: String,
    target: Vec<u8>,
    fs_type: String,
    options: String,
}

impl Guest {
    /// Mounts what units of systemd and types of partitions mount, where it is on this disk; what hides
    /// something and is not here is noted.
    ///
    /// # Errors
    /// When a directory on the way cannot be read.
    pub(super) fn mount_beside(&mut self, table: &[u8], events: &mut dyn EventSink) -> Result<()> {
        for cover in fstab::covers(table) {
            let why = format!("/etc/fstab line {} mounts {} there", cover.line, cover.what);
            self.hide(&cover.target, why);
        }
        if !self.has_systemd()? {
            return Ok(());
        }
        let mut taken: BTreeSet<Vec<u8>> =
            fstab::parse(table).into_iter().map(|entry| entry.target).collect();
        for unit in mount_units(&self.tree)? {
            // The table's own entry is another unit of the same name, and the unit's file comes first; both
            // say the same in every guest that works.
            if !taken.insert(unit.target.clone()) || unit.target.iter().all(|byte| *byte == b'/') {
                continue;
            }
            match fstab::of_unit(&unit.what, &unit.target, &unit.fs_type, &unit.options) {
                Some(entry) => {
                    let shown = &unit.path;
                    self.mount_entry(&entry, shown, events)?;
                }
                None => {
                    let kind = if unit.fs_type.is_empty() { &unit.what } else { &unit.fs_type };
                    self.hide(&unit.target, format!("{} mounts {kind} there", unit.path));
                }
            }
        }
        self.mount_by_type(&taken)
    }

    /// Partitions of a type: mounted on an empty directory that nothing else is mounted on.
    fn mount_by_type(&mut self, taken: &BTreeSet<Vec<u8>>) -> Result<()> {
        let generator = GENERATORS.iter().any(|path| self.tree.is_file(path).unwrap_or(false));
        let masked =
            self.tree.lstat("/etc/systemd/system-generators/systemd-gpt-auto-generator").is_ok();
        if !generator || masked || self.disk.table.as_deref() != Some("GPT") {
            return Ok(());
        }
        for (name, target) in TYPES {
            let of_type: Vec<usize> = (0..self.disk.volumes.len())
                .filter(|index| self.disk.volumes[*index].partition_type == name)
                .collect();
            let [index] = of_type[..] else { continue };
            if taken.contains(target.as_bytes()) || !self.tree.is_dir(target)? {
                continue;
            }
            let empty =
                self.tree.read_dir(target)?.iter().all(|entry| {
                    [&b"."[..], b"..", b"lost+found"].contains(&entry.name.as_slice())
                });
            if empty {
                self.mount_volume(index, target)?;
            }
        }
        Ok(())
    }

    fn hide(&mut self, target: &[u8], why: String) {
        // A mount point that leads nowhere hides nothing.
        let Ok(canonical) = self.tree.resolve_missing(target) else { return };
        // Another warning tells what the kernel's directories hide.
        let of_kernel = ["/dev", "/proc", "/sys", "/run"].iter().any(|dir| {
            canonical.strip_prefix(dir.as_bytes()).is_some_and(|r| r.is_empty() || r[0] == b'/')
        });
        if !of_kernel {
            self.hidden.push((canonical, why));
        }
    }
}

/// The units that are switched on, in the order of their mount points' depth.
fn mount_units(tree: &Tree) -> Result<Vec<MountUnit>> {
    let mut names = BTreeSet::new();
    for dir in DIRS {
        for entry in tree.read_dir_optional(dir)? {
            if !entry.name.ends_with(b".wants") && !entry.name.ends_with(b".requires") {
                continue;
            }
            let links = match tree.read_dir([dir.as_bytes(), b"/", &entry.name].concat()) {
                Ok(links) => links,
                Err(snf_fs::Error::NotADirectory(_) | snf_fs::Error::NotFound(_)) => continue,
                Err(error) => return Err(error),
            };
            for link in links {
                let Ok(name) = String::from_utf8(link.name) else { continue };
                if let Some(stem) =
                    name.strip_suffix(".mount").or_else(|| name.strip_suffix(".automount"))
                {
                    names.insert(format!("{stem}.mount"));
                }
            }
        }
    }
    let mut units = Vec::new();
    for name in names.into_iter().take(UNITS_MAX) {
        let Ok(unit) = UnitName::new(&name) else { continue };
        let Found::File(path) = find(tree, &unit)? else { continue };
        let text = tree.read(&path, UNIT_MAX)?;
        if let Some(found) = parse(&display_name(&path), &String::from_utf8_lossy(&text)) {
            units.push(found);
        }
    }
    units.sort_by_key(|unit| unit.target.iter().filter(|byte| **byte == b'/').count());
    Ok(units)
}

/// The section `[Mount]` of a unit.
fn parse(path: &str, text: &str) -> Option<MountUnit> {
    let mut unit = MountUnit {
        path: path.to_owned(),
        what: String::new(),
        target: Vec::new(),
        fs_type: String::new(),
        options: String::new(),
    };
    let mut inside = false;
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            inside = line == "[Mount]";
        } else if inside && let Some((key, value)) = line.split_once('=') {
            let value = value.trim();
            match key.trim() {
                "What" => unit.what = value.to_owned(),
                "Where" => unit.target = value.as_bytes().to_vec(),
                "Type" => unit.fs_type = value.to_owned(),
                "Options" => unit.options = value.to_owned(),
                _ => {}
            }
        }
    }
    // Only the running machine knows a path that begins with a specifier.
    (unit.target.starts_with(b"/") && !unit.target.contains(&b'%')).then_some(unit)
}

#[cfg(test)]
mod tests {
    use snf_fs::MemoryFs;

    use crate::guest::disk::Volume;
    use crate::task::testing::{FILE, Guest};

    fn with_units(units: &[(&str, &str)]) -> Guest {
        let mut guest = Guest::debian();
        guest.write("/usr/lib/systemd/systemd", "");
        let wants = "/etc/systemd/system/local-fs.target.wants";
        for dir in ["/srv", "/home", "/data", "/var/cache", wants] {
            guest.mkdir(dir);
        }
        for (name, text) in units {
            guest.write(&format!("/etc/systemd/system/{name}"), text);
            guest.symlink(
                &format!("/etc/systemd/system/local-fs.target.wants/{name}"),
                &format!("../{name}"),
            );
        }
        guest
    }

    #[test]
    fn units_mount_what_is_on_the_disk() {
        let mut guest = with_units(&[
            (
                "srv.mount",
                "[Unit]\nDescription=x\n[Mount]\nWhat=UUID=ab\nWhere=/srv\nType=ext4\n[Install]\n",
            ),
            ("data.mount", "[Mount]\nWhat=/dev/disk/by-label/none\nWhere=/data\n"),
            ("var-cache.mount", "[Mount]\nWhat=tmpfs\nWhere=/var/cache\nType=tmpfs\n"),
        ]);
        guest.write("/etc/fstab", "server:/home /home nfs defaults 0 0\ntmpfs /run tmpfs x\n");
        guest.volume(Volume::open(Some(2), Box::new(MemoryFs::new().with_identity("ab", ""))));
        guest.mount().unwrap();
        let warnings = guest.warnings().join("\n");
        assert!(
            warnings.contains("/data: /etc/systemd/system/data.mount mounts LABEL=none there"),
            "{warnings}"
        );
        assert!(guest.tree().write("/data/x", b"", FILE).is_err());
        assert_eq!(guest.tree().mounts().len(), 2);
        let why = |path: &str| guest.hidden.iter().find(|(dir, _)| dir == path.as_bytes());
        assert_eq!(why("/home").unwrap().1, "/etc/fstab line 1 mounts nfs there");
        assert!(why("/var/cache").unwrap().1.ends_with("var-cache.mount mounts tmpfs there"));
        assert!(why("/run").is_none() && why("/srv").is_none());
    }
}
