//! `snf-customize diff`: the files of two disks side by side. Both trees are walked at once, so that
//! memory holds one directory a level.

use std::cmp::Ordering;

use serde_json::{Value, json};
use snf_fs::error::display_name;
use snf_fs::tree::{Child, DEPTH_MAX, Handle};
use snf_fs::{FileType, Stat};

use super::args::Diff;
use super::opened::{Opened, bytes, keys};
use super::stream::Stream;
use super::{Trouble, names, time};
use crate::exit::{Exit, Failure};
use crate::output::{self, Document, count};

/// Compares.
pub(super) fn run(args: &Diff) -> Result<Exit, Failure> {
    let keys = keys(&args.place)?;
    let old = Opened::at(&args.old, &args.place, &keys)?;
    let new = Opened::at(&args.new, &args.place, &keys)?;
    let sink = if args.json { Sink::Json(Vec::new()) } else { Sink::Text(Stream::new()?) };
    let mut comparison = Comparison { args, old: &old, new: &new, sink, found: 0, hidden: 0 };
    let result = comparison.all();
    let (found, hidden) = (comparison.found, comparison.hidden);
    let differ = args.exit_code && found > 0;
    let exit = if differ || hidden > 0 { Exit::Failed } else { Exit::Done };
    let message = match (hidden, differ) {
        (0, false) => String::new(),
        (0, true) => count(found, "difference"),
        _ => format!("{} could not be compared: see the warnings", count(hidden, "directory")),
    };
    match comparison.sink {
        Sink::Text(out) => {
            let flushed = out.finish();
            new.end(result.and(flushed))?;
        }
        Sink::Json(differences) => {
            new.end(result)?;
            let mut document = Document::new("diff", &args.old);
            document.set("other_disk", args.new.to_string_lossy());
            document.set("differences", differences);
            document.finish(exit, &message);
        }
    }
    if hidden > 0 {
        output::error_line(&message);
    }
    // A difference that nobody could read is no answer.
    Ok(if hidden == 0 && output::is_lost() { Exit::Done } else { exit })
}

enum Sink {
    Text(Stream),
    Json(Vec<Value>),
}

struct Comparison<'a> {
    args: &'a Diff,
    old: &'a Opened,
    new: &'a Opened,
    sink: Sink,
    found: usize,
    hidden: usize,
}

/// One difference between two files of the same name.
struct Difference {
    word: &'static str,
    values: Option<(String, String)>,
}

impl Difference {
    fn between(word: &'static str, old: impl ToString, new: impl ToString) -> Self {
        Self { word, values: Some((old.to_string(), new.to_string())) }
    }
}

/// How much of two files is compared at once.
const PIECE: usize = 256 << 10;

impl Comparison<'_> {
    fn all(&mut self) -> Result<(), Trouble> {
        let path = bytes(&self.args.path);
        let old = self.old.tree().handle(path, true).map_err(|error| self.first(&error))?;
        let new = self.new.tree().handle(path, true)?;
        let path = if path.iter().all(|byte| *byte == b'/') { b"" } else { path };
        self.pair(path, old, new, 0)
    }

    /// The first disk's errors are its own.
    fn first(&self, error: &snf_fs::Error) -> Trouble {
        Trouble::Ended(self.old.failure(error))
    }

    fn pair(&mut self, path: &[u8], old: Handle, new: Handle, depth: usize) -> Result<(), Trouble> {
        let a = self.old.tree().stat_handle(old).map_err(|error| self.first(&error))?;
        let b = self.new.tree().stat_handle(new)?;
        let differences = self.differences((&a, old), (&b, new))?;
        if !differences.is_empty() {
            self.changed(path, &differences)?;
        }
        let both = a.file_type == FileType::Directory && b.file_type == FileType::Directory;
        if !both {
            return Ok(());
        }
        if depth > DEPTH_MAX {
            let text = format!("{}: directories lie too deep in each other", display_name(path));
            return Err(Failure::new(Exit::Corrupt, text).into());
        }
        let olds = self.old.tree().children(old).map_err(|error| self.first(&error))?;
        let news = self.new.tree().children(new)?;
        let (mut olds, mut news) = (olds.into_iter().peekable(), news.into_iter().peekable());
        loop {
            let order = match (olds.peek(), news.peek()) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some(a), Some(b)) => a.name.cmp(&b.name),
            };
            let a = if order == Ordering::Greater { None } else { olds.next() };
            let b = if order == Ordering::Less { None } else { news.next() };
            match (a, b) {
                (Some(a), Some(b)) => {
                    let path = [path, b"/", &a.name].concat();
                    if !(self.hides(&path, &a) | self.hides(&path, &b)) {
                        self.pair(&path, a.handle, b.handle, depth + 1)?;
                    }
                }
                (Some(a), None) => self.alone('-', "removed", path, &a, depth)?,
                (None, Some(b)) => self.alone('+', "added", path, &b, depth)?,
                (None, None) => return Ok(()),
            }
        }
    }

    /// Something that one disk has only, with all that is below it.
    fn alone(
        &mut self,
        sign: char,
        word: &'static str,
        path: &[u8],
        child: &Child,
        depth: usize,
    ) -> Result<(), Trouble> {
        let path = [path, b"/", &child.name].concat();
        if self.hides(&path, child) {
            return Ok(());
        }
        let opened = if sign == '-' { self.old } else { self.new };
        let own = |error: snf_fs::Error| Trouble::Ended(opened.failure(&error));
        let stat = opened.tree().stat_handle(child.handle).map_err(own)?;
        self.found += 1;
        match &mut self.sink {
            Sink::Text(out) => out.line(&format!("{sign} {}", display_name(&path)))?,
            Sink::Json(list) => list.push(json!({
                "path": display_name(&path),
                "change": word,
                "kind": names::kind(stat.file_type),
            })),
        }
        if stat.file_type != FileType::Directory || depth > DEPTH_MAX {
            return Ok(());
        }
        let children = opened.tree().children(child.handle).map_err(own)?;
        children.iter().try_for_each(|child| self.alone(sign, word, &path, child, depth + 1))
    }

    /// Whether nothing can be said of what is there; told as a warning.
    fn hides(&mut self, path: &[u8], child: &Child) -> bool {
        let Some(reason) = &child.blocked else { return false };
        output::warning_line(&format!("{}: {reason}", display_name(path)));
        self.hidden += 1;
        true
    }

    fn changed(&mut self, path: &[u8], differences: &[Difference]) -> Result<(), Trouble> {
        self.found += 1;
        let path = display_name(if path.is_empty() { b"/" } else { path });
        match &mut self.sink {
            Sink::Text(out) => {
                let parts = differences.iter().map(|difference| match &difference.values {
                    None => difference.word.to_owned(),
                    Some((old, new)) => format!("{} {old} -> {new}", difference.word),
                });
                out.line(&format!("! {path}: {}", parts.collect::<Vec<_>>().join(", ")))
            }
            Sink::Json(list) => {
                let parts = differences.iter().map(|difference| match &difference.values {
                    None => json!({"what": difference.word}),
                    Some((old, new)) => json!({"what": difference.word, "old": old, "new": new}),
                });
                let parts: Vec<Value> = parts.collect();
                list.push(json!({"path": path, "change": "changed", "differences": parts}));
                Ok(())
            }
        }
    }

    fn differences(
        &self,
        (a, old): (&Stat, Handle),
        (b, new): (&Stat, Handle),
    ) -> Result<Vec<Difference>, Trouble> {
        let mut found = Vec::new();
        if a.file_type != b.file_type {
            let kinds = (names::kind(a.file_type), names::kind(b.file_type));
            found.push(Difference::between("kind", kinds.0, kinds.1));
            return Ok(found);
        }
        match a.file_type {
            FileType::Regular if a.size != b.size => {
                found.push(Difference::between("size", a.size, b.size));
            }
            FileType::Regular if !self.same_content(old, new, a.size)? => {
                found.push(Difference { word: "content", values: None });
            }
            FileType::Symlink => {
                let target =
                    self.old.tree().read_link_handle(old).map_err(|error| self.first(&error))?;
                let other = self.new.tree().read_link_handle(new)?;
                if target != other {
                    let targets = (display_name(&target), display_name(&other));
                    found.push(Difference::between("target", targets.0, targets.1));
                }
            }
            FileType::CharDevice | FileType::BlockDevice if a.device != b.device => {
                let shown =
                    |stat: &Stat| stat.device.map_or(String::new(), |(a, b)| format!("{a},{b}"));
                found.push(Difference::between("device", shown(a), shown(b)));
            }
            _ => {}
        }
        if a.mode != b.mode {
            let octal = |mode: u16| format!("{mode:04o}");
            found.push(Difference::between("mode", octal(a.mode), octal(b.mode)));
        }
        if (a.uid, a.gid) != (b.uid, b.gid) {
            let owner = |stat: &Stat| format!("{}:{}", stat.uid, stat.gid);
            found.push(Difference::between("owner", owner(a), owner(b)));
        }
        if a.file_type != FileType::Directory && a.links != b.links {
            found.push(Difference::between("links", a.links, b.links));
        }
        if self.args.times && a.mtime != b.mtime {
            found.push(Difference::between("time", time::long(a.mtime), time::long(b.mtime)));
        }
        if !self.args.no_xattrs {
            let xattrs = self.old.tree().xattrs_handle(old).map_err(|error| self.first(&error))?;
            let others = self.new.tree().xattrs_handle(new)?;
            let name = |(name, _): &(Vec<u8>, Vec<u8>)| display_name(name);
            let mut names: Vec<String> = xattrs
                .iter()
                .filter(|xattr| !others.contains(xattr))
                .chain(others.iter().filter(|xattr| !xattrs.contains(xattr)))
                .map(name)
                .collect();
            names.sort();
            names.dedup();
            if !names.is_empty() {
                let values = Some((names.join(" "), "differs".to_owned()));
                found.push(Difference { word: "xattr", values });
            }
        }
        Ok(found)
    }

    fn same_content(&self, old: Handle, new: Handle, size: u64) -> Result<bool, Trouble> {
        let length = usize::try_from(size).unwrap_or(usize::MAX).min(PIECE);
        let (mut a, mut b) = (vec![0; length], vec![0; length]);
        let mut offset = 0;
        while offset < size {
            let wanted = usize::try_from(size - offset).unwrap_or(usize::MAX).min(PIECE);
            let from_old = |at, buf: &mut [u8]| self.old.tree().read_handle(old, at, buf);
            fill(&mut a[..wanted], offset, from_old).map_err(|error| self.first(&error))?;
            fill(&mut b[..wanted], offset, |at, buf| self.new.tree().read_handle(new, at, buf))?;
            if a[..wanted] != b[..wanted] {
                return Ok(false);
            }
            offset += wanted as u64; // A count of bytes in a buffer fits.
        }
        Ok(true)
    }
}

/// Fills a buffer; zeros follow where the file ends early.
fn fill(
    buf: &mut [u8],
    offset: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> snf_fs::Result<usize>,
) -> snf_fs::Result<()> {
    let mut filled = 0;
    while filled < buf.len() {
        match read(offset + filled as u64, &mut buf[filled..])? {
            0 => break,
            count => filled = (filled + count).min(buf.len()),
        }
    }
    buf[filled..].fill(0);
    Ok(())
}
