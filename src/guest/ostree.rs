//! Systems that ostree or bootc deploys (Fedora CoreOS, Silverblue, image mode): which deployment
//! boots next, and which of its directories can be changed.
//!
//! The root file system holds deployments below `/ostree/deploy/STATEROOT/deploy/`. A boot loader
//! entry names one on the kernel's command line (`ostree=`). In the running system its `/usr` is
//! read-only, its `/etc` is its own, and `/var` belongs to the state root. Source: "Deployments"
//! of ostree's documentation, and the Boot Loader Specification.

use snf_fs::error::display_name;
use snf_fs::{FileSystem, FileType, Tree};

use super::disk::{Content, Disk};
use super::view::View;

/// A boot loader entry is read up to this size.
const ENTRY_MAX: u64 = 64 << 10;
/// Entries and deployments that are looked at.
const ENTRIES_MAX: usize = 256;
/// Directories of boot loader entries, in the root's file system or in that of `/boot`.
const ENTRIES: [&str; 2] = ["/boot/loader/entries", "/loader/entries"];

/// A deployment, and its directories that can be changed.
pub(super) struct Deployment {
    /// Its path in the physical root.
    pub(super) path: String,
    /// Its `/etc`.
    pub(super) etc: Box<dyn FileSystem>,
    /// The `/var` of its state root.
    pub(super) var: Box<dyn FileSystem>,
}

/// The reason why the rest of a deployment stays as it is.
pub(super) const FIXED: &str = "only /etc and /var of a system that ostree deploys can be changed, \
                                the rest belongs to its image";

/// Why no deployment was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoDeployment {
    /// The boot loader's entries name none of several.
    #[error(
        "it holds several ostree deployments, and no boot loader entry says which one boots next; \
         remove the others with ostree admin undeploy"
    )]
    Ambiguous,
    /// Nothing was deployed.
    #[error("it is a root for ostree deployments and holds none")]
    Empty,
    /// A deployment without the directories that every one has.
    #[error("its ostree deployment has no /etc, or its state root no /var")]
    Incomplete,
}

/// Whether this is the physical root of deployments.
pub(super) fn is_sysroot(tree: &Tree) -> bool {
    let is_dir = |path: &str| tree.is_dir(path).unwrap_or(false);
    is_dir("/ostree/deploy") && is_dir("/ostree/repo")
}

/// Whether this is the root of a system that bootc deploys without ostree (composefs backend).
pub(super) fn is_composefs_state(tree: &Tree) -> bool {
    let is_dir = |path: &str| tree.is_dir(path).unwrap_or(false);
    is_dir("/state/deploy") && is_dir("/composefs")
}

/// A boot loader entry.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// Runs of digits as numbers: a boot loader sorts by these, and the last one boots.
    order: Vec<(bool, Vec<u8>)>,
    /// The deployment, as the kernel's command line names it.
    path: Vec<u8>,
}

/// All entries that boot a deployment, on whatever file system of the disk they are, the one that
/// boots next first.
pub(super) fn entries(disk: &mut Disk) -> Vec<Entry> {
    let mut found = Vec::new();
    for volume in &mut disk.volumes {
        let Content::Open(fs) = std::mem::replace(&mut volume.content, Content::Unknown) else {
            continue;
        };
        let tree = Tree::new(fs);
        found.extend(ENTRIES.iter().flat_map(|dir| entries_in(&tree, dir)));
        if let Some(fs) = tree.into_file_systems().pop() {
            volume.content = Content::Open(fs);
        }
    }
    found.sort();
    found.reverse();
    found
}

fn entries_in(tree: &Tree, dir: &str) -> Vec<Entry> {
    let files = tree.read_dir_optional(dir).unwrap_or_default();
    let files = files.into_iter().filter(|file| file.name.ends_with(b".conf"));
    files
        .take(ENTRIES_MAX)
        .filter_map(|file| {
            let path = [dir.as_bytes(), b"/", &file.name].concat();
            entry(&file.name, &tree.read(&path, ENTRY_MAX).ok()?)
        })
        .collect()
}

/// The entry in a file, if it boots a deployment.
fn entry(name: &[u8], text: &[u8]) -> Option<Entry> {
    let value = |key: &[u8]| {
        text.split(|byte| *byte == b'\n').find_map(|line| {
            let rest = line.trim_ascii().strip_prefix(key)?;
            rest.first().filter(|byte| byte.is_ascii_whitespace())?;
            Some(rest.trim_ascii())
        })
    };
    let options = text.split(|byte| *byte == b'\n').filter_map(|line| {
        line.trim_ascii().strip_prefix(b"options").filter(|rest| rest.starts_with(b" "))
    });
    let words = options.flat_map(|line| line.split(u8::is_ascii_whitespace));
    let path = words.filter_map(|word| word.strip_prefix(b"ostree=")).next_back()?;
    // ostree numbers its entries in the field version, and their files alike.
    let order = order(value(b"version").unwrap_or(name));
    Some(Entry { order, path: path.to_vec() })
}

/// Digits without leading zeros and other bytes in turns, so that `10` comes after `9`.
fn order(text: &[u8]) -> Vec<(bool, Vec<u8>)> {
    let mut runs: Vec<(bool, Vec<u8>)> = Vec::new();
    for byte in text.iter().take(255) {
        match runs.last_mut() {
            Some((digits, run)) if *digits == byte.is_ascii_digit() => run.push(*byte),
            _ => runs.push((byte.is_ascii_digit(), vec![*byte])),
        }
    }
    for (digits, run) in &mut runs {
        if *digits {
            let zeros = run.iter().take_while(|byte| **byte == b'0').count();
            run.drain(..zeros);
            // The longer number is the larger one.
            let length = run.len() as u8;
            run.insert(0, length);
        }
    }
    runs
}

/// The deployment that boots next, and the file system as it is seen from there.
pub(super) fn open(
    fs: Box<dyn FileSystem>,
    entries: &[Entry],
) -> (Box<dyn FileSystem>, Result<Deployment, NoDeployment>) {
    let view = View::new(fs);
    let tree = Tree::new(Box::new(view.at(view.root())));
    let path = match choose(&tree, entries) {
        Ok(path) => path,
        Err(problem) => return (Box::new(view), Err(problem)),
    };
    let node = |path: &[u8]| {
        let stat = tree.stat(path).ok()?;
        (stat.file_type == FileType::Directory).then_some(stat.node)
    };
    // PATH/deploy/CHECKSUM.SERIAL lies beside PATH/var.
    let state = path.rsplitn(3, |byte| *byte == b'/').nth(2).unwrap_or_default();
    let found =
        (node(&path), node(&[&path[..], b"/etc"].concat()), node(&[state, b"/var"].concat()));
    let (Some(root), Some(etc), Some(var)) = found else {
        return (Box::new(view), Err(NoDeployment::Incomplete));
    };
    let deployment = Deployment {
        path: display_name(&path),
        etc: Box::new(view.at(etc)),
        var: Box::new(view.at(var)),
    };
    (Box::new(view.at(root)), Ok(deployment))
}

/// The canonical path of the deployment that boots next.
fn choose(tree: &Tree, entries: &[Entry]) -> Result<Vec<u8>, NoDeployment> {
    for entry in entries {
        if let Ok(resolved) = tree.resolve(&entry.path)
            && resolved.stat.is_some_and(|stat| stat.file_type == FileType::Directory)
            && is_deployment(&resolved.path)
        {
            return Ok(resolved.path);
        }
    }
    let mut all = Vec::new();
    for state in list(tree, b"/ostree/deploy") {
        all.extend(list(tree, &[&state[..], b"/deploy"].concat()));
    }
    match <[Vec<u8>; 1]>::try_from(all) {
        Ok([path]) => Ok(path),
        Err(all) if all.is_empty() => Err(NoDeployment::Empty),
        Err(_) => Err(NoDeployment::Ambiguous),
    }
}

/// `/ostree/deploy/STATEROOT/deploy/CHECKSUM.SERIAL`: an entry cannot name another directory.
fn is_deployment(path: &[u8]) -> bool {
    let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    matches!(names.as_slice(), [b"", b"ostree", b"deploy", _, b"deploy", _])
}

/// The directories in a directory.
fn list(tree: &Tree, path: &[u8]) -> Vec<Vec<u8>> {
    let entries = tree.read_dir_optional(path).unwrap_or_default();
    let paths =
        entries.into_iter().take(ENTRIES_MAX).map(|entry| [path, b"/", &entry.name].concat());
    paths.filter(|path| tree.is_dir(path).unwrap_or(false)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_version_boots() {
        let text = |version: &str, path: &str| {
            format!("title Fedora\nversion {version}\noptions root=UUID=1 ostree={path} rw\n")
        };
        let mut found: Vec<Entry> = [("9", "/a"), ("10", "/b"), ("2", "/c")]
            .iter()
            .map(|(version, path)| entry(b"x.conf", text(version, path).as_bytes()).unwrap())
            .collect();
        found.sort();
        assert_eq!(found.last().unwrap().path, b"/b");
        assert_eq!(entry(b"x.conf", b"version 3\noptions root=UUID=1 rw\n"), None);
        let named = entry(b"ostree-2.conf", b"options ostree=/x\n").unwrap();
        assert!(named > entry(b"ostree-1.conf", b"options ostree=/y\n").unwrap());
        assert_eq!(entry(b"", &[0xff; 300]), None);
        assert!(order(b"007") == order(b"7") && order(b"1.10") > order(b"1.9"));
    }

    #[test]
    fn paths_of_deployments() {
        assert!(is_deployment(b"/ostree/deploy/fedora/deploy/abc.0"));
        assert!(!is_deployment(b"/ostree/deploy/fedora") && !is_deployment(b"/"));
    }
}
