//! The changes of a run, as a unified diff: the tree as it was beside the tree as it will be. Secrets are
//! masked (module `mask`); other files are only named.

mod mask;

use std::collections::BTreeSet;
use std::fmt::Write;
use std::time::Duration;

use similar::{Algorithm, TextDiff};
use snf_fs::error::display_name;
use snf_fs::text::is_hidden;
use snf_fs::{FileType, Stat, Tree};

use crate::craft::secret::Secret;
use mask::Masks;

/// Longer texts, in bytes, are named only.
const TEXT_MAX: u64 = 1 << 20;
/// The whole diff is at most about this long, in bytes.
const DIFF_MAX: usize = 16 << 20;
/// So many paths are looked at, those in directories that came or went included.
const PATHS_MAX: usize = 200_000;
/// Comparing one pair of texts: after this, what is left is shown as removed and added.
const PATIENCE: Duration = Duration::from_millis(500);

/// The unified diff of all that changed in `new`, which has not been written yet, against `old`, the same
/// tree as the disk has it. `patch -p1` takes it where no secret is masked. `secrets`
/// are masked, too, where they can stand by no chance.
///
/// # Errors
/// When a file of either tree cannot be read.
pub fn diff(old: &Tree, new: &Tree, secrets: &[Secret]) -> snf_fs::Result<String> {
    let mut paths = BTreeSet::new();
    for change in new.changes().iter() {
        collect(old, new, &change.path, &mut paths)?;
        collect(new, old, &change.path, &mut paths)?;
    }
    let mut masks = Masks::new(secrets);
    let mut text = String::new();
    let cut = paths.len() > PATHS_MAX;
    for (number, path) in paths.iter().take(PATHS_MAX).enumerate() {
        if text.len() > DIFF_MAX {
            let left = paths.len() - number;
            let _ = writeln!(text, "The diff is too long: {left} more paths are not shown");
            return Ok(text);
        }
        pair(old, new, path, &mut masks, &mut text)?;
    }
    if cut {
        let _ = writeln!(text, "The diff is too long: more than {PATHS_MAX} paths changed");
    }
    Ok(text)
}

/// A path that changed, and those below it in `tree` where it is a directory in that tree only: of a
/// directory that came or went as a whole, only its own name is recorded.
fn collect(
    tree: &Tree,
    other: &Tree,
    path: &[u8],
    paths: &mut BTreeSet<Vec<u8>>,
) -> snf_fs::Result<()> {
    let mut open = vec![path.to_vec()];
    while let Some(path) = open.pop() {
        if paths.len() > PATHS_MAX {
            return Ok(());
        }
        let is_directory = |tree: &Tree| {
            node(tree, &path).map(|stat| stat.is_some_and(|s| s.file_type == FileType::Directory))
        };
        let (here, there) = (is_directory(tree)?, is_directory(other)?);
        if here && !there {
            for entry in tree.read_dir(&path)? {
                if entry.name != b"." && entry.name != b".." {
                    open.push([&path, &b"/"[..], &entry.name].concat());
                }
            }
        }
        paths.insert(path);
    }
    Ok(())
}

/// The node at a path, without following a link at its end.
fn node(tree: &Tree, path: &[u8]) -> snf_fs::Result<Option<Stat>> {
    match tree.lstat(path) {
        Ok(stat) => Ok(Some(stat)),
        Err(snf_fs::Error::NotFound(_) | snf_fs::Error::NotADirectory(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

fn pair(
    old: &Tree,
    new: &Tree,
    path: &[u8],
    masks: &mut Masks,
    out: &mut String,
) -> snf_fs::Result<()> {
    let (before, after) = (node(old, path)?, node(new, path)?);
    let shown = display_name(path);
    if let (Some(a), Some(b)) = (&before, &after)
        && a.file_type == b.file_type
    {
        attributes(&shown, a, b, out);
    }
    let kinds = [&before, &after].map(|stat| stat.as_ref().map(|stat| stat.file_type));
    if kinds.iter().flatten().all(|kind| *kind == FileType::Regular) {
        let read = |tree: &Tree, stat: &Option<Stat>| -> snf_fs::Result<Content> {
            Ok(match stat {
                None => Content::Absent,
                Some(stat) if stat.size > TEXT_MAX => Content::Long(stat.size),
                Some(_) => Content::of(tree.read(path, TEXT_MAX)?),
            })
        };
        let (a, b) = (read(old, &before)?, read(new, &after)?);
        return contents(path, &a, &b, masks, out);
    }
    let say = |tree: &Tree, stat: &Option<Stat>| -> snf_fs::Result<String> {
        Ok(match stat {
            None => "nothing".to_owned(),
            Some(stat) if stat.file_type == FileType::Symlink => {
                format!("symbolic link to {}", display_name(&tree.read_link(path)?))
            }
            Some(stat) => kind(stat.file_type).to_owned(),
        })
    };
    let (a, b) = (say(old, &before)?, say(new, &after)?);
    if a != b {
        let _ = writeln!(out, "{shown}: {a} -> {b}");
    }
    Ok(())
}

/// A word for something that is no symbolic link.
fn kind(file_type: FileType) -> &'static str {
    match file_type {
        FileType::Regular => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symbolic link",
        FileType::CharDevice | FileType::BlockDevice => "device",
        FileType::Fifo => "pipe",
        FileType::Socket => "socket",
    }
}

/// Owner and mode are no part of a unified diff: a line that patch passes over.
fn attributes(shown: &str, a: &Stat, b: &Stat, out: &mut String) {
    let mut parts = Vec::new();
    if a.mode != b.mode {
        parts.push(format!("mode {:04o} -> {:04o}", a.mode, b.mode));
    }
    if (a.uid, a.gid) != (b.uid, b.gid) {
        parts.push(format!("owner {}:{} -> {}:{}", a.uid, a.gid, b.uid, b.gid));
    }
    if !parts.is_empty() {
        let _ = writeln!(out, "{shown}: {}", parts.join(", "));
    }
}

/// The content of a file, as far as it is compared.
enum Content {
    Absent,
    Text(String),
    Binary(Vec<u8>),
    /// Too long to be compared line by line.
    Long(u64),
}

impl Content {
    fn of(bytes: Vec<u8>) -> Self {
        match String::from_utf8(bytes) {
            Ok(text) if !text.chars().any(|c| is_hidden(c) && !"\t\n\r".contains(c)) => {
                Self::Text(text)
            }
            Ok(text) => Self::Binary(text.into_bytes()),
            Err(error) => Self::Binary(error.into_bytes()),
        }
    }
}

fn contents(
    path: &[u8],
    a: &Content,
    b: &Content,
    masks: &mut Masks,
    out: &mut String,
) -> snf_fs::Result<()> {
    let name = |side: &str, content: &Content| match content {
        Content::Absent => "/dev/null".to_owned(),
        _ => quoted(side, path),
    };
    let (from, to) = (name("a", a), name("b", b));
    let (old, new) = match (a, b) {
        (Content::Binary(a), Content::Binary(b)) if a == b => return Ok(()),
        (Content::Text(a), Content::Text(b)) => (a.as_str(), b.as_str()),
        (Content::Text(a), Content::Absent) => (a.as_str(), ""),
        (Content::Absent, Content::Text(b)) => ("", b.as_str()),
        (Content::Long(_), _) | (_, Content::Long(_)) => {
            let size = |content: &Content| match content {
                Content::Absent => 0,
                Content::Text(text) => text.len() as u64,
                Content::Binary(bytes) => bytes.len() as u64,
                Content::Long(size) => *size,
            };
            let _ = writeln!(
                out,
                "Files {from} and {to} are too long to be compared line by line ({} and {} bytes)",
                size(a),
                size(b)
            );
            return Ok(());
        }
        _ => {
            let _ = writeln!(out, "Binary files {from} and {to} differ");
            return Ok(());
        }
    };
    if old == new {
        if matches!((a, b), (Content::Absent, _) | (_, Content::Absent)) {
            let word = if matches!(a, Content::Absent) { "new" } else { "removed" };
            let _ = writeln!(out, "{}: {word} empty file", display_name(path));
        }
        return Ok(());
    }
    let (shown_old, shown_new) = (masks.text(path, old, old), masks.text(path, new, old));
    if shown_old != old || shown_new != new {
        let _ = writeln!(out, "{}: secrets are masked", display_name(path));
    }
    let lines = TextDiff::configure()
        .algorithm(Algorithm::Myers)
        .timeout(PATIENCE)
        .diff_lines(shown_old.as_str(), shown_new.as_str());
    let _ = write!(out, "{}", lines.unified_diff().context_radius(3).header(&from, &to));
    Ok(())
}

/// A name as patch reads it: quoted as in C where it must be, with a tab after it where it has blanks.
fn quoted(side: &str, path: &[u8]) -> String {
    let plain = path.iter().all(|byte| matches!(byte, b' '..=b'~') && !b"\"\\".contains(byte));
    if plain {
        let end = if path.contains(&b' ') { "\t" } else { "" };
        return format!("{side}{}{end}", String::from_utf8_lossy(path));
    }
    let mut text = format!("\"{side}");
    for &byte in path {
        match byte {
            b'"' | b'\\' => text.extend(['\\', char::from(byte)]),
            b' '..=b'~' => text.push(char::from(byte)),
            other => {
                let _ = write!(text, "\\{other:03o}");
            }
        }
    }
    text + "\""
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use snf_fs::{Attributes, MemoryFs};

    use super::*;

    const FILE: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };

    fn tree(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::new(Box::new(MemoryFs::new()));
        for (path, text) in files {
            if let Some((dir, _)) = path.rsplit_once('/').filter(|(dir, _)| !dir.is_empty()) {
                tree.mkdir_all(dir, Attributes { mode: 0o755, ..FILE }).unwrap();
            }
            tree.write(path, text.as_bytes(), FILE).unwrap();
        }
        // Without a memory of how it was made.
        Tree::new(tree.into_file_systems().pop().unwrap())
    }

    /// `patch` turns the old files into the new ones.
    #[test]
    fn patch_takes_it() {
        let files = [
            ("/etc/a", "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n"),
            ("/etc/no end", "x"),
            ("/etc/gone", "bye\n"),
            ("/etc/quo\"te", "old\r\n"),
            ("/d/x/y", "deep\n"),
        ];
        let (old, mut new) = (tree(&files), tree(&files));
        let changes = [
            ("/etc/a", "1\n2\nthree\n4\n5\n6\n7\n8\n9\n10\n11\n"),
            ("/etc/no end", "y"),
            ("/etc/new", "a\nb"),
            ("/etc/quo\"te", "new\r\n"),
        ];
        for (path, text) in changes {
            new.write(path, text.as_bytes(), FILE).unwrap();
        }
        new.unlink("/etc/gone").unwrap();
        new.rename("/d/x", "/d/z").unwrap();
        let text = diff(&old, &new, &[]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(&path[1..]);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let mut patch = Command::new("patch")
            .args(["-p1", "--binary", "--batch"])
            .current_dir(dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test needs patch");
        std::io::Write::write_all(&mut patch.stdin.take().unwrap(), text.as_bytes()).unwrap();
        let output = patch.wait_with_output().unwrap();
        assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stdout));
        let read = |path: &str| std::fs::read_to_string(dir.path().join(&path[1..]));
        for (path, content) in changes {
            assert_eq!(read(path).unwrap(), content, "{text}");
        }
        assert_eq!(read("/d/z/y").unwrap(), "deep\n", "{text}");
        assert!(read("/etc/gone").is_err() && read("/d/x/y").is_err(), "{text}");
    }

    #[test]
    fn what_is_no_text_is_named() {
        let files = [("/bin", "\u{1b}[31m"), ("/same", "x\n"), ("/long", "")];
        let (old, mut new) = (tree(&files), tree(&files));
        new.write("/bin", b"\xff", FILE).unwrap();
        new.write("/long", &vec![b'x'; 2 << 20], FILE).unwrap();
        new.chmod("/same", 0o600).unwrap();
        new.symlink("/link", b"/x\x07", FILE).unwrap();
        new.write("/empty", b"", FILE).unwrap();
        let text = diff(&old, &new, &[]).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines,
            [
                "Binary files a/bin and b/bin differ",
                "/empty: new empty file",
                "/link: nothing -> symbolic link to /x\\u{7}",
                "Files a/long and b/long are too long to be compared line by line (0 and 2097152 bytes)",
                "/same: mode 0644 -> 0600",
            ]
        );
    }

    #[test]
    fn secrets_are_masked() {
        let old = tree(&[("/etc/shadow", "root:$6$ab$cdefghijkl:1:::::\nann:!:1:::::\n")]);
        let mut new = tree(&[("/etc/shadow", "root:$6$ab$cdefghijkl:1:::::\nann:!:1:::::\n")]);
        new.write("/etc/shadow", b"root:$y$zz$hashhashhash:2:::::\nann:!:1:::::\n", FILE).unwrap();
        new.write("/etc/note", b"the password is hunter2hunter2, x\n", FILE).unwrap();
        let text = diff(&old, &new, &[Secret::new("hunter2hunter2")]).unwrap();
        assert!(
            text.contains("-root:[secret 1]:1") || text.contains("-root:[secret 2]:1"),
            "{text}"
        );
        assert!(text.contains(" ann:!:1"), "{text}");
        for hidden in ["hunter2", "cdefghijkl", "hashhash"] {
            assert!(!text.contains(hidden), "{text}");
        }
    }
}
