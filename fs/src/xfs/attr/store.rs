//! Writing all attributes of an inode.

use super::leaf::{REMOTE_CRC, REMOTE_HEADER, XFS_ATTR3_LEAF_MAGIC, XFS_ATTR3_RMT_MAGIC};
use super::{Attr, flag};
use crate::error::{Error, Result};
use crate::num::{to_u8, to_u16, to_u32, to_u64, to_usize};
use crate::xfs::bmap::Extent;
use crate::xfs::inode::{Fork, Format, Inode};
use crate::xfs::num;
use crate::xfs::store::BufferType;
use crate::xfs::volume::Volume;

/// Bytes of a leaf before its entries.
const LEAF_HEADER: usize = 80;
/// Bytes that are left to a list of extents of attributes.
const EXTENTS_ROOM: usize = 48;

/// An attribute on its way into a leaf.
struct Planned {
    hash: u32,
    attr: Attr,
    /// Whether its value gets blocks of its own, and the first of them.
    remote: Option<u64>,
}

impl Planned {
    fn size(&self) -> usize {
        let name = self.attr.name.len();
        // The structure of a remote one counts with the padding at its end.
        let size = if self.remote.is_some() { 11 + name } else { 3 + name + self.attr.value.len() };
        size.next_multiple_of(4)
    }
}

fn short(attrs: &[Attr]) -> Option<Vec<u8>> {
    let mut bytes = vec![0, 0, u8::try_from(attrs.len()).ok()?, 0];
    for attr in attrs {
        bytes.push(u8::try_from(attr.name.len()).ok()?);
        bytes.push(u8::try_from(attr.value.len()).ok()?);
        bytes.push(attr.space);
        bytes.extend(&attr.name);
        bytes.extend(&attr.value);
    }
    let total = u16::try_from(bytes.len()).ok()?;
    num::put16(&mut bytes, 0, total);
    Some(bytes)
}

impl Volume {
    /// Bytes that the data fork needs, without a tree.
    fn data_need(&self, inode: &Inode) -> Result<usize> {
        let need = match inode.format(Fork::Data)? {
            Format::Dev => 8,
            Format::Local => to_usize(inode.size()),
            Format::Extents => to_usize(inode.extent_count(Fork::Data)) * 16,
            // The root: one pointer would do; what it has now stays where that can be.
            Format::Btree => 4 + usize::from(num::be16(inode.fork(Fork::Data), 2)) * 16,
        };
        Ok(need.next_multiple_of(8))
    }

    /// Moves the border between the forks; a tree of extents is made anew for its new room.
    fn move_border(&mut self, inode: &mut Inode, offset: usize) -> Result<()> {
        if inode.format(Fork::Data)? != Format::Btree {
            inode.set_fork_offset(offset);
            return Ok(());
        }
        let extents = self.extents(inode, Fork::Data)?;
        self.set_extents(inode, Fork::Data, &[])?;
        inode.set_fork_offset(offset);
        self.set_extents(inode, Fork::Data, &extents)
    }

    /// Gives an inode exactly these attributes.
    pub(super) fn store_attrs(&mut self, inode: &mut Inode, attrs: Vec<Attr>) -> Result<()> {
        self.drop_attrs(inode)?;
        if attrs.is_empty() {
            return self.move_border(inode, 0);
        }
        self.sb.set_attr();
        let literal = inode.literal_len();
        let need = self.data_need(inode)?;
        if let Some(bytes) = short(&attrs) {
            let offset = literal.saturating_sub(bytes.len()) / 8 * 8;
            if offset > 0 && offset >= need {
                self.move_border(inode, offset)?;
                inode.set_format(Fork::Attr, Format::Local);
                inode.set_fork(Fork::Attr, &bytes);
                return Ok(());
            }
        }
        let offset = (literal - EXTENTS_ROOM) / 8 * 8;
        if need > offset {
            self.leave_inode(inode, offset)?;
        }
        self.move_border(inode, offset)?;
        inode.set_format(Fork::Attr, Format::Extents);
        self.store_leaves(inode, attrs)
    }

    /// Lets the data fork fit into `room` bytes.
    fn leave_inode(&mut self, inode: &mut Inode, room: usize) -> Result<()> {
        match inode.format(Fork::Data)? {
            Format::Local if inode.is_dir() => self.dir_leave_inode(inode),
            Format::Local => self.link_leave_inode(inode),
            Format::Extents => {
                // As a tree it takes less: it is made in the room that there will be.
                let extents = self.extents(inode, Fork::Data)?;
                self.set_extents(inode, Fork::Data, &[])?;
                inode.set_fork_offset(room);
                self.set_extents(inode, Fork::Data, &extents)
            }
            Format::Btree | Format::Dev => Ok(()),
        }
    }

    fn store_leaves(&mut self, inode: &mut Inode, attrs: Vec<Attr>) -> Result<()> {
        let bs = self.sb.block_size();
        let most_local = bs / 2 + bs / 4;
        let mut planned: Vec<Planned> = attrs
            .into_iter()
            .map(|attr| {
                let hash = num::hash(&attr.name);
                let local = (3 + attr.name.len() + attr.value.len()).next_multiple_of(4);
                let remote = (local > most_local).then_some(0);
                Planned { hash, attr, remote }
            })
            .collect();
        planned.sort_by_key(|one| one.hash);
        // Leaves, each as full as it gets.
        let mut leaves: Vec<Vec<Planned>> = Vec::new();
        let mut used = usize::MAX;
        for one in planned {
            let size = one.size() + 8;
            if used.saturating_add(size) > bs - LEAF_HEADER {
                leaves.push(Vec::new());
                used = 0;
            }
            used += size;
            if let Some(leaf) = leaves.last_mut() {
                leaf.push(one);
            }
        }
        let nodes = to_u64(self.da_node_count(leaves.len(), bs));
        let mut next = nodes + to_u64(leaves.len());
        for one in leaves.iter_mut().flatten() {
            if one.remote.is_some() {
                one.remote = Some(next);
                next += to_u64(one.attr.value.len().div_ceil(self.attr_remote_room()));
            }
        }
        let extents = self.alloc_content(inode, Fork::Attr, None, 0, next)?;
        self.set_extents(inode, Fork::Attr, &extents)?;
        let mut tops = Vec::with_capacity(leaves.len());
        for (index, leaf) in leaves.iter().enumerate() {
            let side = |there: bool, block: u64| if there { block } else { 0 };
            let offset = nodes + to_u64(index);
            let back = side(index > 0, offset.wrapping_sub(1));
            let forw = side(index + 1 < leaves.len(), offset + 1);
            self.write_leaf(inode, &extents, offset, (back, forw), leaf)?;
            tops.push((leaf.last().map_or(0, |one| one.hash), offset));
            for one in leaf {
                if let Some(first) = one.remote {
                    self.write_value(inode, &extents, first, &one.attr.value)?;
                }
            }
        }
        let nodes: Vec<u64> = (0..nodes).collect();
        self.da_write_nodes(self.attr_place(inode, 0), &extents, tops, &nodes)
    }

    fn write_leaf(
        &mut self,
        inode: &Inode,
        extents: &[Extent],
        offset: u64,
        sides: (u64, u64),
        leaf: &[Planned],
    ) -> Result<()> {
        let place = self.attr_place(inode, offset);
        let at = self.da_address(place, extents)?;
        let mut bytes = self.da_info(place, at, XFS_ATTR3_LEAF_MAGIC, sides.0, sides.1);
        let mut first = bytes.len();
        for (index, one) in leaf.iter().enumerate() {
            first -= one.size();
            let entry = LEAF_HEADER + index * 8;
            num::put32(&mut bytes, entry, one.hash);
            num::put16(&mut bytes, entry + 4, to_u16(first));
            let attr = &one.attr;
            let local = if one.remote.is_some() { 0 } else { flag::LOCAL };
            bytes[entry + 6] = attr.space | local;
            match one.remote {
                Some(block) => {
                    num::put32(&mut bytes, first, to_u32(block));
                    num::put32(&mut bytes, first + 4, to_u32(attr.value.len()));
                    bytes[first + 8] = to_u8(attr.name.len());
                    num::put(&mut bytes, first + 9, &attr.name);
                }
                None => {
                    num::put16(&mut bytes, first, to_u16(attr.value.len()));
                    bytes[first + 2] = to_u8(attr.name.len());
                    num::put(&mut bytes, first + 3, &attr.name);
                    num::put(&mut bytes, first + 3 + attr.name.len(), &attr.value);
                }
            }
        }
        let end = LEAF_HEADER + leaf.len() * 8;
        num::put16(&mut bytes, 56, to_u16(leaf.len()));
        num::put16(&mut bytes, 58, to_u16(self.sb.block_size() - first));
        num::put16(&mut bytes, 60, to_u16(first));
        num::put16(&mut bytes, 64, to_u16(end));
        num::put16(&mut bytes, 66, to_u16(first - end));
        self.da_write(at, BufferType::AttrLeaf, bytes, true)
    }

    fn write_value(
        &mut self,
        inode: &Inode,
        extents: &[Extent],
        first: u64,
        value: &[u8],
    ) -> Result<()> {
        let room = self.attr_remote_room();
        for (index, part) in value.chunks(room).enumerate() {
            let place = self.attr_place(inode, first + to_u64(index));
            let at = self.da_address(place, extents)?;
            if !self.store.is_fresh(at) {
                return Err(Error::NoSpace("no free block for an attribute's value".into()));
            }
            let mut bytes = vec![0; self.sb.block_size()];
            num::put32(&mut bytes, 0, XFS_ATTR3_RMT_MAGIC);
            num::put32(&mut bytes, 4, to_u32(index * room));
            num::put32(&mut bytes, 8, to_u32(part.len()));
            num::put(&mut bytes, 16, &self.sb.meta_uuid());
            num::put64(&mut bytes, 32, inode.ino.0);
            num::put64(&mut bytes, 40, at.0);
            // The kernel does not log values either, and says so here.
            num::put64(&mut bytes, 48, u64::MAX);
            num::put(&mut bytes, REMOTE_HEADER, part);
            num::seal(&mut bytes, REMOTE_CRC);
            self.store.write(at, BufferType::AttrRemote, bytes);
        }
        Ok(())
    }
}
