//! Counting: what each change of an inode adds to the usage of its owners.
//!
//! This is the part of quota that reading and writing inodes needs. It knows inodes and the
//! superblock only; the files that hold the usage are [`super::flush`]'s business.

use std::collections::BTreeMap;

use crate::ext::inode::{Inode, ROOT_INO, flags};
use crate::ext::superblock::{Superblock, ro_compat};
use crate::ext::units::Ino;

/// Space and inodes of one id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::ext) struct Usage {
    /// Bytes.
    pub(super) space: i64,
    pub(super) inodes: i64,
}

/// The quota files of a file system: user, group, project. 0 for none.
pub(super) fn files(sb: &Superblock) -> [Ino; 3] {
    if !sb.has_ro_compat(ro_compat::QUOTA) {
        return [Ino::default(); 3];
    }
    let raw = &sb.raw;
    [raw.s_usr_quota_inum, raw.s_grp_quota_inum, raw.s_prj_quota_inum].map(Ino::from)
}

/// Whether the file system keeps quota.
pub(in crate::ext) fn is_on(sb: &Superblock) -> bool {
    files(sb).iter().any(|&ino| !ino.is_none())
}

/// The owners that an inode is counted for: user, group, project.
fn ids(sb: &Superblock, inode: &Inode) -> [u32; 3] {
    let project = if sb.has_ro_compat(ro_compat::PROJECT) { inode.projid() } else { 0 };
    [inode.uid(), inode.gid(), project]
}

/// Changes of usage since the quota files were last written, by kind of quota and id.
#[derive(Clone, Debug, Default)]
pub(in crate::ext) struct Changes(BTreeMap<(usize, u32), Usage>);

impl Changes {
    /// Counts that an inode changed from `old` (`None`: not in use) to `new`.
    pub(in crate::ext) fn note(&mut self, sb: &Superblock, old: Option<&Inode>, new: &Inode) {
        for (inode, sign) in [(old, -1), (Some(new), 1)] {
            if let Some(inode) = inode.filter(|inode| inode.links() > 0) {
                self.count(sb, inode, sign);
            }
        }
    }

    /// Counts out an inode that has lost its last name and is about to be freed: the kernel keeps
    /// it counted until then.
    pub(in crate::ext) fn note_orphan(&mut self, sb: &Superblock, inode: &Inode) {
        self.count(sb, inode, -1);
    }

    /// Adds what an inode takes to its owners' usage, or (`sign` -1) takes it away.
    fn count(&mut self, sb: &Superblock, inode: &Inode, sign: i64) {
        let files = files(sb);
        let counted = inode.file_type().is_some()
            && (inode.ino == ROOT_INO || inode.ino >= sb.first_ino())
            && !files.contains(&inode.ino)
            && inode.ino != Ino::from(sb.raw.s_orphan_file_inum)
            && !inode.has_flag(flags::EA_INODE);
        if !counted {
            return;
        }
        let space = i64::try_from(inode.blocks_512(sb).saturating_mul(512)).unwrap_or(i64::MAX);
        for (kind, id) in ids(sb, inode).into_iter().enumerate() {
            if !files[kind].is_none() {
                let usage = self.0.entry((kind, id)).or_default();
                usage.space = usage.space.saturating_add(sign * space);
                usage.inodes = usage.inodes.saturating_add(sign);
            }
        }
    }

    /// Counts `count` more (or fewer) xattr values in inodes of their own: each is an inode of the
    /// one that refers to it. Their space is in its `i_blocks`.
    pub(in crate::ext) fn note_values(&mut self, sb: &Superblock, inode: &Inode, count: i64) {
        let files = files(sb);
        for (kind, id) in ids(sb, inode).into_iter().enumerate() {
            if !files[kind].is_none() && count != 0 {
                let usage = self.0.entry((kind, id)).or_default();
                usage.inodes = usage.inodes.saturating_add(count);
            }
        }
    }

    /// The changes of one kind of quota, by id, without those that cancelled out.
    pub(super) fn of_kind(&self, kind: usize) -> Vec<(u32, Usage)> {
        self.0
            .range((kind, 0)..=(kind, u32::MAX))
            .filter(|(_, usage)| **usage != Usage::default())
            .map(|(&(_, id), &usage)| (id, usage))
            .collect()
    }
}
