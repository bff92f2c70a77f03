//! `--enable`, `--disable` and `--mask` on the real units of Debian packages, judged by `systemctl --root` on
//! the same files.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use snf_fs::{Attributes, MemoryFs, Tree};
use snf_image::guest::systemd::{self, UnitName};

const DIR: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0 };
/// The folder of the units of this machine's packages. `cargo xtask test` installs systemd.
const UNITS: &str = "/usr/lib/systemd/system";

/// Units of our own, for what packages seldom have.
const MORE: [(&str, &str); 10] = [
    ("t@.service", "[Install]\nWantedBy=multi-user.target\n"),
    ("u@.service", "[Install]\nWantedBy=a.target\nDefaultInstance=one\nAlias=uu@.service\n"),
    (
        "d@.service",
        "[Install]\nWantedBy=multi-user.target\nDefaultInstance=one\nAlias=dd.service\n",
    ),
    ("spec@.service", "[Install]\nWantedBy=%i.target\nRequiredBy=a-%p@%i.service\n"),
    ("also.service", "[Install]\nWantedBy=multi-user.target\nAlso=also.socket also.timer\n"),
    ("also.socket", "[Install]\nWantedBy=sockets.target\n"),
    ("also.timer", "[Install]\nWantedBy=timers.target\nAlias=tick.timer\n"),
    ("kind.service", "[Install]\nAlias=kind.socket\nWantedBy=multi-user.target\n"),
    (
        "reset.service",
        "[Install]\nWantedBy=a.target\nWantedBy=\nWantedBy=b.target \\\n  c.target\n",
    ),
    ("drop.service", "[Service]\nExecStart=/bin/true\n"),
];

/// A tree of files on this machine, and the same in memory.
struct Both {
    dir: tempfile::TempDir,
    tree: Tree,
}

impl Both {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let units = dir.path().join("usr/lib/systemd/system");
        fs::create_dir_all(&units).unwrap();
        fs::create_dir_all(dir.path().join("etc/systemd/system")).unwrap();
        for path in fs::read_dir(UNITS).expect("this test needs systemd").map(|e| e.unwrap().path())
        {
            let name = path.file_name().unwrap();
            if path.is_symlink() {
                std::os::unix::fs::symlink(fs::read_link(&path).unwrap(), units.join(name))
                    .unwrap();
            } else if path.is_file() {
                fs::copy(&path, units.join(name)).unwrap();
            }
        }
        for (name, text) in MORE {
            fs::write(units.join(name), text).unwrap();
        }
        let drop_in = dir.path().join("etc/systemd/system/drop.service.d");
        fs::create_dir_all(&drop_in).unwrap();
        fs::write(drop_in.join("10-on.conf"), "[Install]\nWantedBy=multi-user.target\n").unwrap();
        let mut tree = Tree::new(Box::new(MemoryFs::new()));
        copy(dir.path(), Path::new("/"), &mut tree);
        Self { dir, tree }
    }

    fn systemctl(&self, verb: &str, unit: &str) -> bool {
        let mut command = Command::new("systemctl");
        command.arg("--root").arg(self.dir.path()).args(["--quiet", verb, unit]);
        // Scripts of SysV are not this test's business.
        command.env("SYSTEMCTL_SKIP_SYSV", "1");
        command.output().expect("this test needs systemctl (systemd)").status.success()
    }

    /// The links that systemctl has made: where they are, and which unit they lead to.
    fn theirs(&self) -> BTreeMap<String, String> {
        let config = self.dir.path().join("etc/systemd/system");
        let mut found = BTreeMap::new();
        let mut dirs = vec![config.clone()];
        while let Some(dir) = dirs.pop() {
            for path in fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_symlink() {
                    let name = path.strip_prefix(&config).unwrap().to_str().unwrap().to_owned();
                    let target = fs::read_link(&path).unwrap();
                    found.insert(name, base(&target));
                } else if path.is_dir() {
                    dirs.push(path);
                }
            }
        }
        found
    }

    fn clear(&self) {
        let config = self.dir.path().join("etc/systemd/system");
        for path in fs::read_dir(&config).unwrap().map(|entry| entry.unwrap().path()) {
            if path.ends_with("drop.service.d") {
                continue;
            }
            if path.is_symlink() {
                fs::remove_file(path).unwrap()
            } else {
                fs::remove_dir_all(path).unwrap()
            }
        }
    }
}

fn base(path: &Path) -> String {
    path.file_name().unwrap().to_str().unwrap().to_owned()
}

fn copy(from: &Path, to: &Path, tree: &mut Tree) {
    for path in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
        let inside: PathBuf = to.join(path.file_name().unwrap());
        let name = inside.to_str().unwrap();
        if path.is_symlink() {
            let target = fs::read_link(&path).unwrap();
            tree.symlink(name, target.to_str().unwrap().as_bytes(), DIR).unwrap();
        } else if path.is_dir() {
            tree.mkdir_all(name, DIR).unwrap();
            copy(&path, &inside, tree);
        } else {
            tree.write(name, &fs::read(&path).unwrap(), DIR).unwrap();
        }
    }
}

#[test]
fn links_are_those_of_systemctl() {
    let mut both = Both::new();
    let mut names: Vec<String> = fs::read_dir(both.dir.path().join("usr/lib/systemd/system"))
        .unwrap()
        .map(|entry| base(&entry.unwrap().path()))
        .filter(|name| UnitName::new(name).is_ok_and(|unit| unit.as_str() == name))
        .collect();
    names.extend(
        ["t@x.service", "spec@y.service", "u@z.service", "getty@ttyS1.service"].map(str::to_owned),
    );
    names.sort();
    let mut enabled = 0;
    for name in &names {
        let unit = UnitName::new(name).unwrap();
        both.clear();
        let they_did = both.systemctl("enable", name);
        let theirs = both.theirs();
        match systemd::enable(&both.tree, &unit) {
            Ok(plan) => {
                let ours: BTreeMap<String, String> = plan
                    .links
                    .iter()
                    .map(|link| {
                        let place =
                            link.path.strip_prefix("/etc/systemd/system/").unwrap().to_owned();
                        let target = String::from_utf8(link.target.clone()).unwrap();
                        (place, base(Path::new(&target)))
                    })
                    .collect();
                assert_eq!(ours, theirs, "{name}");
                // A failure in part of systemctl is a warning of ours.
                assert!(
                    they_did || ours.is_empty() || !plan.warnings.is_empty(),
                    "{name}: systemctl refuses it"
                );
                enabled += usize::from(!ours.is_empty());
                off(&mut both, &unit, &plan.links);
            }
            Err(error) => assert!(!they_did, "{name}: systemctl takes it, we say: {error}"),
        }
    }
    // Debian's systemd alone brings more than these.
    assert!(enabled >= 30 && names.len() >= 100, "{enabled} of {}", names.len());
}

/// Both switch the unit off again: systemctl in its files, we in ours.
fn off(both: &mut Both, unit: &UnitName, links: &[systemd::Link]) {
    for link in links {
        let dir = link.path.rsplit_once('/').unwrap().0;
        both.tree.mkdir_all(dir, DIR).unwrap();
        both.tree.symlink(&link.path, &link.target, DIR).unwrap();
    }
    assert!(both.systemctl("disable", unit.as_str()), "{unit}");
    let left = both.theirs();
    let removed = systemd::disable(&both.tree, unit).unwrap();
    for path in &removed {
        both.tree.unlink(path).unwrap();
    }
    let ours: Vec<&str> = links
        .iter()
        .filter(|link| !removed.contains(&link.path))
        .map(|link| link.path.strip_prefix("/etc/systemd/system/").unwrap())
        .collect();
    assert_eq!(ours, left.keys().map(String::as_str).collect::<Vec<_>>(), "{unit} switched off");
    for link in links.iter().filter(|link| !removed.contains(&link.path)) {
        both.tree.unlink(&link.path).unwrap();
    }
}
