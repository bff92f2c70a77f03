//! The commit: what was decided in memory is done to the mounted file system, in the order in
//! which it was decided, and written out.
//!
//! A file gets its new content under a name of its own and then takes its place by rename, so it
//! is the old or the new one at any time. On XFS each is on the disk before that; a cut leaves
//! the files that came first new and the others old. On btrfs nothing is written out before the
//! end, where everything becomes one transaction.

use std::collections::BTreeMap;

use snf_fs::{CommitReport, Error, FileType, Result};

use super::overlay::Shared;
use super::state::{Node, State, Step};
use super::wire::{Bytes, Meta, Request};

/// Access control lists, which a new node inherits from its directory: one that replaces another
/// must have those of the other, or none.
const ACLS: [&[u8]; 2] = [b"system.posix_acl_access", b"system.posix_acl_default"];
/// Space that is kept for what a change takes beside the content.
const PER_STEP: u64 = 64 << 10;

/// The attributes of a node that is made.
fn whole(node: &Node, xattrs: BTreeMap<Bytes, Bytes>) -> Meta {
    let mut meta = of(node, Vec::new());
    let acls = match node.stat.file_type {
        FileType::Regular => &ACLS[..1],
        FileType::Directory => &ACLS[..],
        _ => &[],
    };
    let missing = acls.iter().filter(|name| !xattrs.contains_key(**name));
    meta.xattrs.extend(missing.map(|name| (Bytes::from(*name), None)));
    meta.xattrs.extend(xattrs.into_iter().map(|(name, value)| (name, Some(value))));
    meta
}

/// The attributes of a node that is there, with the extended ones that changed.
fn changed(node: &Node) -> Meta {
    let value = |name: &Bytes| node.xattrs.as_ref().and_then(|all| all.get(name)).cloned();
    of(node, node.xattrs_changed.iter().map(|name| (name.clone(), value(name))).collect())
}

fn of(node: &Node, xattrs: Vec<(Bytes, Option<Bytes>)>) -> Meta {
    let stat = &node.stat;
    Meta {
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        atime: stat.atime,
        mtime: stat.mtime,
        xattrs,
    }
}

impl Shared {
    /// Does and writes everything. The file system cannot be read afterwards.
    pub(super) fn commit(&self) -> Result<CommitReport> {
        let mut state = self.lock();
        let steps = std::mem::take(&mut state.steps);
        let grow = state.grow.take();
        if steps.is_empty() && grow.is_none() {
            return Ok(CommitReport::default());
        }
        let bytes: u64 =
            state.nodes.values().flat_map(|n| &n.content).map(|c| c.len() as u64).sum();
        let grown = grow.unwrap_or(self.size) - self.size;
        let needed = bytes.saturating_add(PER_STEP.saturating_mul(steps.len() as u64));
        if !steps.is_empty() && needed > self.free.saturating_add(grown) {
            return Err(Error::NoSpace(format!(
                "the changes may take {needed} bytes, and {} are free",
                self.free.saturating_add(grown)
            )));
        }
        // Pending reads come before the tree begins to change.
        let mut xattrs = BTreeMap::new();
        for step in &steps {
            if let Step::MakeFile(number, _)
            | Step::Content(number, _)
            | Step::MakeDirectory(number, _)
            | Step::MakeSymlink(number, _) = step
            {
                xattrs.insert(*number, self.xattrs_of(&mut state, *number)?);
            }
        }
        self.client.tell(&Request::Begin { mount: self.mount, grow })?;
        for step in steps {
            self.perform(&state, &mut xattrs, step)?;
        }
        self.client.tell(&Request::Finish { mount: self.mount })?;
        Ok(CommitReport {
            data_blocks: bytes.div_ceil(self.block_size.max(1).into()),
            ..CommitReport::default()
        })
    }

    fn perform(
        &self,
        state: &State,
        xattrs: &mut BTreeMap<u64, BTreeMap<Bytes, Bytes>>,
        step: Step,
    ) -> Result<()> {
        let (client, mount) = (&self.client, self.mount);
        let mut all = |number: &u64| xattrs.remove(number).unwrap_or_default();
        match step {
            Step::MakeFile(number, path) => {
                let node = state.node(number)?;
                let content = node.content.as_deref().unwrap_or_default();
                client.write(mount, &path, false, content, whole(node, all(&number)))
            }
            Step::Content(number, path) => {
                let node = state.node(number)?;
                let content = node.content.as_deref().unwrap_or_default();
                // The other names of the file keep its content too.
                if node.links_before > 1 {
                    return client.write(mount, &path, true, content, changed(node));
                }
                client.write(mount, &path, false, content, whole(node, all(&number)))
            }
            Step::MakeDirectory(number, path) => {
                let meta = whole(state.node(number)?, all(&number));
                client.tell(&Request::MakeDirectory { mount, path, meta })
            }
            Step::MakeSymlink(number, path) => {
                let node = state.node(number)?;
                let target = node.target.clone().unwrap_or_default();
                let meta = whole(node, all(&number));
                client.tell(&Request::MakeSymlink { mount, path, target, meta })
            }
            Step::Remove { path, directory } => {
                client.tell(&Request::Remove { mount, path, directory })
            }
            Step::Rename { from, to } => client.tell(&Request::Rename { mount, from, to }),
            Step::Set(number, path) => {
                let meta = changed(state.node(number)?);
                client.tell(&Request::Set { mount, path, meta })
            }
        }
    }
}
