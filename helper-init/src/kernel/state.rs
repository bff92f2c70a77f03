//! The part of a mounted file system that is held in memory: the nodes that were looked at or made, and the
//! steps that the commit will do.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use snf_fs::error::display_name;
use snf_fs::{Attributes, Error, FileType, Result, Timestamp};

use super::wire::{Bytes, NodeStat};

/// The changes, in order; the final state of a node is in the node. Paths are those that
/// the nodes had when it was done, from the root of the whole file system on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    MakeFile(u64, Bytes),
    Content(u64, Bytes),
    MakeDirectory(u64, Bytes),
    MakeSymlink(u64, Bytes),
    Remove { path: Bytes, directory: bool },
    Rename { from: Bytes, to: Bytes },
    Set(u64, Bytes),
}

/// A node that was looked at or made.
#[derive(Debug)]
pub(super) struct Node {
    /// As it is now.
    pub(super) stat: NodeStat,
    /// Its path on the mount, to be read; new nodes have none.
    pub(super) origin: Option<Bytes>,
    /// Hard links when it was looked at first.
    pub(super) links_before: u32,
    /// Directory and name, for each name that is known.
    names: Vec<(u64, Bytes)>,
    /// Of a directory: names that were looked up or changed, and what they name now.
    pub(super) children: HashMap<Bytes, Option<u64>>,
    pub(super) content: Option<Vec<u8>>,
    pub(super) target: Option<Bytes>,
    /// Extended attributes as they are now, once somebody has asked.
    pub(super) xattrs: Option<BTreeMap<Bytes, Bytes>>,
    /// Names of those that changed.
    pub(super) xattrs_changed: BTreeSet<Bytes>,
    /// Whether a step brings its content, and its attributes.
    content_in_steps: bool,
    in_steps: bool,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) nodes: HashMap<u64, Node>,
    by_identity: HashMap<(u64, u64), u64>,
    pub(super) next: u64,
    pub(super) steps: Vec<Step>,
    pub(super) grow: Option<u64>,
}

impl Node {
    pub(super) fn existing(stat: NodeStat, origin: Bytes) -> Self {
        Self {
            links_before: stat.links,
            stat,
            origin: Some(origin),
            names: Vec::new(),
            children: HashMap::new(),
            content: None,
            target: None,
            xattrs: None,
            xattrs_changed: BTreeSet::new(),
            content_in_steps: false,
            in_steps: false,
        }
    }
}

impl State {
    pub(super) fn node(&self, number: u64) -> Result<&Node> {
        self.nodes.get(&number).ok_or_else(|| Error::NotFound(format!("node {number}")))
    }

    pub(super) fn node_mut(&mut self, number: u64) -> Result<&mut Node> {
        self.nodes.get_mut(&number).ok_or_else(|| Error::NotFound(format!("node {number}")))
    }

    pub(super) fn directory(&self, number: u64) -> Result<&Node> {
        let node = self.node(number)?;
        match node.stat.file_type {
            FileType::Directory => Ok(node),
            _ => Err(Error::NotADirectory(format!("node {number}"))),
        }
    }

    pub(super) fn regular(&self, number: u64) -> Result<&Node> {
        let node = self.node(number)?;
        match node.stat.file_type {
            FileType::Regular => Ok(node),
            FileType::Directory => Err(Error::IsADirectory(format!("node {number}"))),
            _ => Err(Error::WrongType(format!("node {number}"), "not a regular file")),
        }
    }

    /// The number of a node that was found on the mount: two names of one file are one node.
    pub(super) fn intern(&mut self, stat: NodeStat, path: Bytes) -> u64 {
        let shared = stat.file_type != FileType::Directory && stat.links > 1;
        if shared && let Some(number) = self.by_identity.get(&stat.identity) {
            return *number;
        }
        let number = self.next;
        self.next += 1;
        if shared {
            self.by_identity.insert(stat.identity, number);
        }
        self.nodes.insert(number, Node::existing(stat, path));
        number
    }

    pub(super) fn new_node(
        &mut self,
        now: Timestamp,
        file_type: FileType,
        attributes: Attributes,
        target: Option<&[u8]>,
    ) -> u64 {
        let number = self.next;
        self.next += 1;
        let stat = NodeStat {
            identity: (u64::MAX, number),
            file_type,
            mode: attributes.mode & 0o7777,
            uid: attributes.uid,
            gid: attributes.gid,
            links: if file_type == FileType::Directory { 2 } else { 1 },
            size: target.map_or(0, |target| target.len() as u64),
            blocks: 0,
            device: (0, 0),
            atime: now,
            mtime: now,
            ctime: now,
            fixed: false,
        };
        let mut node = Node::existing(stat, Bytes::default());
        node.origin = None;
        node.target = target.map(Bytes::from);
        self.nodes.insert(number, node);
        number
    }

    pub(super) fn add_name(&mut self, dir: u64, name: &[u8], number: u64) -> Result<()> {
        self.node_mut(dir)?.children.insert(name.into(), Some(number));
        self.node_mut(number)?.names.push((dir, name.into()));
        Ok(())
    }

    pub(super) fn drop_name(&mut self, dir: u64, name: &[u8], number: u64) -> Result<()> {
        self.node_mut(dir)?.children.insert(name.into(), None);
        self.node_mut(number)?.names.retain(|(d, n)| (*d, &**n) != (dir, name));
        Ok(())
    }

    pub(super) fn add_links(&mut self, number: u64, change: i32) -> Result<()> {
        let stat = &mut self.node_mut(number)?.stat;
        // btrfs counts no subdirectories: one link, whatever is in it.
        if stat.file_type != FileType::Directory || stat.links > 1 {
            stat.links = stat.links.saturating_add_signed(change);
        }
        Ok(())
    }

    pub(super) fn touch(&mut self, number: u64, now: Timestamp) -> Result<()> {
        let stat = &mut self.node_mut(number)?.stat;
        stat.mtime = now;
        stat.ctime = now;
        Ok(())
    }

    /// The path of a node by one of its names.
    fn path(&self, number: u64) -> Result<Bytes> {
        let mut names: Vec<&[u8]> = Vec::new();
        let mut at = number;
        while at != 0 {
            let Some((dir, name)) = self.node(at)?.names.first() else {
                return Err(Error::NotFound(format!("node {number}")));
            };
            names.push(name);
            at = *dir;
        }
        names.reverse();
        Ok(names.join(&b'/').into())
    }

    pub(super) fn path_of(&self, dir: u64, name: &[u8]) -> Result<Bytes> {
        Ok(join(&self.path(dir)?, name))
    }

    /// Notes that a node is made. A file that takes the place of one that was removed replaces it
    /// in one step: at no time is there none.
    pub(super) fn make(&mut self, number: u64, file_type: FileType, path: Bytes) {
        if file_type == FileType::Regular {
            let removed = self
                .steps
                .iter()
                .rposition(|step| {
                    matches!(step, Step::Rename { .. })
                        || matches!(step, Step::Remove { path: gone, .. } if *gone == path)
                })
                .filter(|at| matches!(self.steps[*at], Step::Remove { directory: false, .. }));
            if let Some(at) = removed {
                self.steps.remove(at);
            }
        }
        if let Some(node) = self.nodes.get_mut(&number) {
            node.in_steps = true;
            node.content_in_steps = true;
        }
        self.steps.push(match file_type {
            FileType::Directory => Step::MakeDirectory(number, path),
            FileType::Symlink => Step::MakeSymlink(number, path),
            _ => Step::MakeFile(number, path),
        });
    }

    /// Notes that a node has other attributes.
    pub(super) fn set(&mut self, number: u64, now: Timestamp) -> Result<&mut Node> {
        if !self.node(number)?.in_steps {
            let path = self.path(number)?;
            self.steps.push(Step::Set(number, path));
        }
        let node = self.node_mut(number)?;
        node.in_steps = true;
        node.stat.ctime = now;
        Ok(node)
    }

    pub(super) fn set_content(
        &mut self,
        number: u64,
        content: Vec<u8>,
        now: Timestamp,
    ) -> Result<()> {
        if !self.regular(number)?.content_in_steps {
            let path = self.path(number)?;
            self.steps.push(Step::Content(number, path));
        }
        self.touch(number, now)?;
        let node = self.node_mut(number)?;
        node.content_in_steps = true;
        node.in_steps = true;
        node.stat.size = content.len() as u64;
        node.content = Some(content);
        Ok(())
    }

    /// Whether `number` is `dir` or is above it.
    pub(super) fn is_above(&self, number: u64, dir: u64) -> Result<bool> {
        let mut at = dir;
        loop {
            if at == number {
                return Ok(true);
            }
            match self.node(at)?.names.first() {
                Some((parent, _)) => at = *parent,
                None => return Ok(false),
            }
        }
    }
}

pub(super) fn join(dir: &[u8], name: &[u8]) -> Bytes {
    if dir.is_empty() { name.into() } else { [dir, b"/", name].concat().into() }
}

pub(super) fn check_name(name: &[u8]) -> Result<()> {
    if name.len() > 255 {
        return Err(Error::NameTooLong(display_name(name)));
    }
    if name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0)
    {
        return Err(Error::Invalid(format!("\"{}\" is not a file name", display_name(name))));
    }
    Ok(())
}
