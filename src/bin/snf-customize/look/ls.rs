//! `snf-customize ls`.

use serde_json::{Value, json};
use snf_fs::error::display_name;
use snf_fs::tree::{Descend, Handle, Visited};
use snf_fs::{FileType, Stat, Tree};

use super::args::Ls;
use super::names::{self, Names};
use super::opened::{Opened, bytes};
use super::stream::Stream;
use super::{Trouble, time};
use crate::exit::{Exit, Failure};
use crate::output::{self, Document};

/// Lists.
pub(super) fn run(args: &Ls) -> Result<Exit, Failure> {
    let opened = Opened::new(&args.source)?;
    let names = if args.numeric { Names::default() } else { Names::of(&opened.guest) };
    let lister = Lister { args, tree: opened.tree(), names };
    if args.json {
        let mut entries = Vec::new();
        opened.end(
            args.paths.iter().try_for_each(|path| lister.collect(bytes(path), &mut entries)),
        )?;
        let mut document = Document::new("ls", &args.source.disk);
        document.set("entries", entries);
        document.finish(Exit::Done, "");
        return Ok(Exit::Done);
    }
    let mut out = Stream::new()?;
    let result = lister.all(&mut out).and_then(|()| out.finish());
    opened.end(result)?;
    Ok(Exit::Done)
}

struct Lister<'a> {
    args: &'a Ls,
    tree: &'a Tree,
    names: Names,
}

/// One line to be.
struct Row {
    name: Vec<u8>,
    handle: Handle,
    stat: Stat,
}

impl Lister<'_> {
    /// Everything that was asked for. Files first, as `ls` does, then each directory.
    fn all(&self, out: &mut Stream) -> Result<(), Trouble> {
        let (mut single, mut directories) = (Vec::new(), Vec::new());
        for path in &self.args.paths {
            let path = bytes(path);
            let handle = self.tree.handle(path, !self.args.long)?;
            // The walk above says so where the path is blocked.
            let stat = self.tree.stat_handle(handle)?;
            if stat.file_type == FileType::Directory && !self.args.directory {
                directories.push((path.to_vec(), handle));
            } else {
                single.push(Row { name: path.to_vec(), handle, stat });
            }
        }
        let several = self.args.recursive || directories.len() > 1 || !single.is_empty();
        let mut first = single.is_empty();
        self.rows(&single, out)?;
        for (path, handle) in directories {
            if !several {
                self.directory(handle, &path, out)?;
                continue;
            }
            self.tree.visit(&path, |visited: &Visited<'_>| {
                if visited.stat.file_type != FileType::Directory {
                    return Ok(Descend::No);
                }
                if let Some(reason) = visited.blocked {
                    output::warning_line(&format!("{}: {reason}", display_name(visited.path)));
                    return Ok(Descend::No);
                }
                if !std::mem::take(&mut first) {
                    out.line("")?;
                }
                out.line(&format!("{}:", display_name(visited.path)))?;
                self.directory(visited.handle, visited.path, out)?;
                Ok::<_, Trouble>(if self.args.recursive { Descend::Yes } else { Descend::No })
            })?;
        }
        Ok(())
    }

    /// The content of one directory.
    fn directory(&self, handle: Handle, path: &[u8], out: &mut Stream) -> Result<(), Trouble> {
        let mut rows = Vec::new();
        for child in self.tree.children(handle)? {
            let stat = self.tree.stat_handle(child.handle)?;
            if let Some(reason) = child.blocked.filter(|_| !self.args.recursive) {
                let path = [path, b"/", &child.name].concat();
                output::warning_line(&format!("{}: {reason}", display_name(&path)));
            }
            rows.push(Row { name: child.name, handle: child.handle, stat });
        }
        self.rows(&rows, out)
    }

    fn rows(&self, rows: &[Row], out: &mut Stream) -> Result<(), Trouble> {
        if !self.args.long {
            return rows.iter().try_for_each(|row| out.line(&display_name(&row.name)));
        }
        let cells: Vec<[String; 7]> =
            rows.iter().map(|row| self.cells(row)).collect::<Result<_, _>>()?;
        let width = |column: usize| {
            cells.iter().map(|cells: &[String; 7]| cells[column].chars().count()).max().unwrap_or(0)
        };
        let [mode, links, user, group, size] = [0, 1, 2, 3, 4].map(width);
        cells.iter().try_for_each(|cells| {
            out.line(&format!(
                "{:mode$} {:>links$} {:user$} {:group$} {:>size$} {} {}",
                cells[0], cells[1], cells[2], cells[3], cells[4], cells[5], cells[6]
            ))
        })
    }

    fn cells(&self, row: &Row) -> Result<[String; 7], Trouble> {
        let Row { name, handle, stat } = row;
        let mut shown = display_name(name);
        if stat.file_type == FileType::Symlink {
            let target = self.tree.read_link_handle(*handle)?;
            shown.push_str(&format!(" -> {}", display_name(&target)));
        }
        Ok([
            names::mode(stat),
            stat.links.to_string(),
            self.names.user(stat.uid).map_or_else(|| stat.uid.to_string(), str::to_owned),
            self.names.group(stat.gid).map_or_else(|| stat.gid.to_string(), str::to_owned),
            match stat.device {
                Some((major, minor)) => format!("{major}, {minor}"),
                None => stat.size.to_string(),
            },
            time::short(stat.mtime),
            shown,
        ])
    }

    /// The same for JSON.
    fn collect(&self, path: &[u8], entries: &mut Vec<Value>) -> Result<(), Trouble> {
        let start = self.tree.handle(path, false)?;
        let deep = self.args.recursive;
        let itself =
            self.args.directory || self.tree.stat_handle(start)?.file_type != FileType::Directory;
        if itself {
            let path = self.tree.resolve_link(path)?;
            entries.push(entry(self.tree, &path, start, None)?);
            return Ok(());
        }
        let mut top = true;
        self.tree.visit(path, |visited| {
            if !std::mem::take(&mut top) {
                entries.push(entry(self.tree, visited.path, visited.handle, visited.blocked)?);
                return Ok(if deep { Descend::Yes } else { Descend::No });
            }
            Ok(Descend::Yes)
        })
    }
}

/// A node as JSON has it.
pub(super) fn entry(
    tree: &Tree,
    path: &[u8],
    handle: Handle,
    blocked: Option<&str>,
) -> Result<Value, Trouble> {
    let stat = tree.stat_handle(handle)?;
    let mut value = json!({
        "path": display_name(path),
        "kind": names::kind(stat.file_type),
        "mode": format!("{:04o}", stat.mode),
        "uid": stat.uid,
        "gid": stat.gid,
        "links": stat.links,
        "size": stat.size,
        "mtime": time::long(stat.mtime),
    });
    if stat.file_type == FileType::Symlink {
        value["target"] = json!(display_name(&tree.read_link_handle(handle)?));
    }
    if let Some((major, minor)) = stat.device {
        value["device"] = json!({"major": major, "minor": minor});
    }
    if let Some(reason) = blocked {
        value["hidden"] = json!(reason);
    }
    Ok(value)
}
