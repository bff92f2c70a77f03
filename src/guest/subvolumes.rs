//! The subvolume of a btrfs that holds the system. Distributions differ: the default subvolume
//! (openSUSE), or one named on the kernel's command line: `@` (Ubuntu), `@rootfs` (Debian),
//! `root` (Fedora).

use snf_fs::error::display_name;
use snf_fs::{FileSystem, FileType, Tree};

use super::detect::{NotRoot, Verdict, examine};
use super::fstab;

/// How many directories of the whole tree are looked into.
const CANDIDATES_MAX: usize = 64;
const FSTAB: &str = "/etc/fstab";
const FSTAB_MAX: u64 = 1 << 20;

/// A view and what was found there.
type Judged = (Option<Box<dyn FileSystem>>, Verdict);

/// Looks at the root of a file system, and when that has subvolumes for the one with a system.
pub(super) fn judge(fs: Box<dyn FileSystem>) -> Judged {
    let whole = fs.subvolume(b"");
    let root = fs.root();
    let (view, verdict, named) = look(fs);
    let whole = match whole {
        Ok(Some(whole)) => whole,
        Ok(None) => return (view, verdict),
        Err(error) => return (view, Verdict::Not(NotRoot::unreadable(error))),
    };
    let mut systems: Vec<Candidate> = Vec::new();
    if let (Some(view), true) = (&view, verdict.is_system()) {
        systems.push(Candidate { path: None, root: view.root(), own: named.is_none() });
    }
    let mut views = Vec::new();
    for entry in whole.readdir(whole.root()).unwrap_or_default().into_iter().take(CANDIDATES_MAX) {
        if entry.file_type != Some(FileType::Directory) {
            continue;
        }
        let Ok(Some(other)) = whole.subvolume(&entry.name) else { continue };
        let at = other.root();
        let (Some(other), judged, named) = look(other) else { continue };
        if !judged.is_system() {
            continue;
        }
        let own = named.as_deref() == Some(&*String::from_utf8_lossy(&entry.name));
        if at == root {
            // The default subvolume by its name.
            if let Some(default) = systems.first_mut() {
                default.own |= own;
            }
            continue;
        }
        systems.push(Candidate { path: Some(entry.name), root: at, own });
        views.push((other, judged));
    }
    let chosen = match systems.as_slice() {
        [] => return (view, verdict),
        [one] => one,
        several => {
            let mut own = several.iter().filter(|candidate| candidate.own);
            match (own.next(), own.next(), &several[0].path) {
                (Some(one), None, _) => one,
                // The default subvolume is what boots when nothing is said.
                (_, _, None) => &several[0],
                _ => return (view, Verdict::Files(NotRoot::Subvolumes(names(several)))),
            }
        }
    };
    match &chosen.path {
        None => (view, verdict),
        Some(_) => {
            let at = chosen.root;
            let found = views.into_iter().find(|(view, _)| view.root() == at);
            found.map_or((view, verdict), |(view, verdict)| (Some(view), verdict))
        }
    }
}

/// A subvolume with a system.
struct Candidate {
    /// Its name; none for the default subvolume.
    path: Option<Vec<u8>>,
    root: snf_fs::NodeId,
    /// Whether its own fstab mounts it on `/`.
    own: bool,
}

fn names(candidates: &[Candidate]) -> String {
    let names = candidates.iter().filter_map(|candidate| candidate.path.as_ref());
    names.map(|name| display_name(name)).collect::<Vec<_>>().join(", ")
}

/// Looks at one view: what is there, and the subvolume that its fstab mounts on `/`.
fn look(fs: Box<dyn FileSystem>) -> (Option<Box<dyn FileSystem>>, Verdict, Option<String>) {
    let tree = Tree::new(fs);
    let verdict = match examine(&tree) {
        Ok(verdict) => verdict,
        Err(error) => Verdict::Not(NotRoot::unreadable(error)),
    };
    let mut named = None;
    if let (Verdict::Root(_), Ok(Some(text))) = (&verdict, tree.read_optional(FSTAB, FSTAB_MAX)) {
        let entries = fstab::parse(&text);
        let root = entries.iter().find(|entry| entry.target == b"/");
        if let Some(Ok(path)) = root.and_then(fstab::Entry::subvolume) {
            named = Some(path.to_owned());
        }
    }
    (tree.into_file_systems().pop(), verdict, named)
}
