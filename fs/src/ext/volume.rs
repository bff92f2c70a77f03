//! The parts of an ext file system that everything else stands on: superblock, group descriptors
//! and inodes, read and written through the [`Store`].

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::feature::RoCompat;
use super::group::{BG_INODE_UNINIT, GroupDescriptor};
use super::inode::{Inode, ROOT_INO};
use super::journal::state::State;
use super::quota::usage::{self, Changes};
use super::store::{Block, Store};
use super::superblock::{
    STATE_ERROR, STATE_VALID, SUPERBLOCK_OFFSET, SUPERBLOCK_SIZE, Superblock, compat, incompat,
    ro_compat,
};
use super::units::{FsBlock, GroupNo, Ino};
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::filesystem::Timestamp;
use crate::num::{low32, to_u32, to_u64, to_usize};

/// Time and randomness for an engine. The engine itself asks neither the clock nor the kernel's
/// random pool.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// The time that new and changed nodes get.
    pub now: Timestamp,
    /// The seed of new inodes' generations.
    pub seed: u64,
}

/// Sorted runs of blocks: first, and one past the last.
pub(super) type Zones = Arc<[(FsBlock, FsBlock)]>;

impl Options {
    /// `i_dtime` for inodes that are deleted now. Never 0, which would mean "in use".
    pub fn deletion_time(&self) -> u32 {
        to_u32(self.now.seconds.clamp(1, i64::from(u32::MAX)))
    }
}

/// One ext2/3/4 file system.
pub struct Volume {
    /// The superblock, with counters as they are after all changes so far.
    pub sb: Superblock,
    /// The blocks.
    pub store: Store,
    /// Time and seed.
    pub options: Options,
    generation_state: u64,
    /// The superblock's bytes as they were read, to know whether they changed.
    sb_on_disk: Vec<u8>,
    /// Bitmaps and inode tables by flex group; see [`super::alloc`].
    pub(super) zones: RefCell<BTreeMap<u32, Zones>>,
    /// Usage not yet in the quota files.
    pub(super) quota: Changes,
    /// The journal, once [`super::journal`] has looked at it.
    pub(super) journal: State,
}

impl Volume {
    /// Reads and verifies the superblock. A dirty journal is not replayed here: see
    /// [`super::journal`].
    pub fn open(device: Arc<dyn BlockDevice>, options: Options) -> Result<Self> {
        if device.len() < SUPERBLOCK_OFFSET + to_u64(SUPERBLOCK_SIZE) {
            return Err(Error::corrupt(
                "superblock",
                "byte 1024",
                format!("the device has only {} bytes", device.len()),
            ));
        }
        let mut bytes = vec![0; SUPERBLOCK_SIZE];
        device.read_at(SUPERBLOCK_OFFSET, &mut bytes)?;
        let sb = Superblock::parse(&bytes, device.len())?;
        let store = Store::new(device, sb.block_size(), sb.blocks_count());
        Ok(Self {
            sb,
            store,
            options,
            generation_state: options.seed,
            sb_on_disk: bytes,
            zones: RefCell::default(),
            quota: Changes::default(),
            journal: State::default(),
        })
    }

    /// Parses the superblock again, after a replay put another one over it.
    pub fn reload_superblock(&mut self) -> Result<()> {
        let (number, at) = self.superblock_position();
        let block = self.store.read(number)?;
        let bytes = &block[at..at + SUPERBLOCK_SIZE];
        self.sb = Superblock::parse(bytes, self.store.device().len())?;
        self.sb_on_disk = bytes.to_vec();
        self.store.set_blocks_count(self.sb.blocks_count());
        self.layout_changed();
        Ok(())
    }

    /// Forgets the known places of bitmaps and inode tables, after groups were added or tables moved.
    pub fn layout_changed(&mut self) {
        self.zones.borrow_mut().clear();
    }

    /// Runs `work`; when it fails, every change it made to superblock, blocks, their number, and
    /// usage is taken back.
    /// Inodes that the caller holds in memory are the caller's to restore. Attempts nest.
    pub fn attempt<T>(&mut self, work: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let sb = self.sb.clone();
        let sb_on_disk = self.sb_on_disk.clone();
        let generation_state = self.generation_state;
        let quota = self.quota.clone();
        self.store.begin();
        let result = work(self);
        if result.is_ok() {
            self.store.keep();
        } else {
            self.store.roll_back();
            // Known places of bitmaps and inode tables may be those of the attempt.
            self.layout_changed();
            self.sb = sb;
            self.sb_on_disk = sb_on_disk;
            self.generation_state = generation_state;
            self.quota = quota;
        }
        result
    }

    /// Block of the primary superblock and the byte in it where it starts.
    pub fn superblock_position(&self) -> (FsBlock, usize) {
        FsBlock::of_byte(SUPERBLOCK_OFFSET, self.block_size())
    }

    /// Puts the superblock into the open transaction if it changed. To be called before every seal
    /// and commit.
    pub fn store_superblock(&mut self) -> Result<()> {
        let bytes = self.sb.to_bytes();
        if bytes != self.sb_on_disk {
            let (number, at) = self.superblock_position();
            let mut block = self.store.read(number)?.to_vec();
            block[at..at + SUPERBLOCK_SIZE].copy_from_slice(&bytes);
            self.store.write_meta(number, block)?;
            self.sb_on_disk = bytes;
        }
        Ok(())
    }

    /// Bytes in a block.
    pub fn block_size(&self) -> usize {
        self.store.block_size()
    }

    /// The content of a block.
    pub fn read_block(&self, number: FsBlock) -> Result<Block> {
        self.store.read(number)
    }

    /// The next inode generation.
    pub fn next_generation(&mut self) -> u32 {
        // splitmix64: generations need to differ from each other, not to be secret.
        self.generation_state = self.generation_state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.generation_state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        low32(z ^ (z >> 31))
    }

    /// First block of a group.
    pub fn group_first_block(&self, group: GroupNo) -> FsBlock {
        FsBlock::from(self.sb.raw.s_first_data_block.get())
            + u64::from(group) * u64::from(self.sb.raw.s_blocks_per_group.get())
    }

    /// Blocks of a group; the last one may be shorter.
    pub fn group_blocks(&self, group: GroupNo) -> u32 {
        let per_group = u64::from(self.sb.raw.s_blocks_per_group.get());
        let left = self.sb.blocks_count().saturating_sub(self.group_first_block(group).get());
        to_u32(left.min(per_group))
    }

    /// The block after the last of a group.
    pub fn group_end(&self, group: GroupNo) -> FsBlock {
        self.group_first_block(group) + u64::from(self.group_blocks(group))
    }

    /// The group that a block belongs to.
    pub fn group_of_block(&self, block: FsBlock) -> GroupNo {
        let first = u64::from(self.sb.raw.s_first_data_block.get());
        let per_group = u64::from(self.sb.raw.s_blocks_per_group.get());
        let number = block.get().saturating_sub(first) / per_group;
        // A block that a pointer of the image names may be anywhere.
        GroupNo::new(u32::try_from(number).unwrap_or(u32::MAX))
    }

    /// Block that holds the descriptor of `group`, and the byte in it.
    pub fn descriptor_position(&self, group: GroupNo) -> (FsBlock, usize) {
        let desc_size = self.sb.desc_size();
        let per_block = self.sb.block_size() / desc_size;
        let index = group.get() / per_block;
        let at = to_usize(group.get() % per_block * desc_size);
        let sb_block = SUPERBLOCK_OFFSET / u64::from(self.sb.block_size());
        let meta =
            self.sb.has_incompat(incompat::META_BG) && index >= self.sb.raw.s_first_meta_bg.get();
        if !meta {
            return (FsBlock::new(sb_block + 1 + u64::from(index)), at);
        }
        let first_group = GroupNo::new(index * per_block);
        let mut block = self.group_first_block(first_group);
        if self.sb.group_has_super(first_group) {
            block += 1;
            // With 1 KiB blocks and a first data block of 0 (bigalloc), block 0 is the boot block.
            if first_group == GroupNo::FIRST
                && sb_block == 1
                && self.sb.raw.s_first_data_block.get() == 0
            {
                block += 1;
            }
        }
        (block, at)
    }

    fn check_group(&self, group: GroupNo) -> Result<()> {
        let count = self.sb.group_count();
        if group.get() < count {
            return Ok(());
        }
        Err(Error::corrupt(
            "group number",
            format!("group {group}"),
            format!("the file system has {count} groups"),
        ))
    }

    /// The descriptor of a group, its three pointers checked to be within the file system.
    pub fn group(&self, group: GroupNo) -> Result<GroupDescriptor> {
        self.check_group(group)?;
        let (number, at) = self.descriptor_position(group);
        let block = self.store.read(number)?;
        let size = to_usize(self.sb.desc_size());
        let descriptor = GroupDescriptor::parse(&block[at..at + size], group, &self.sb)?;
        let table_blocks = self.inode_table_blocks();
        let first = FsBlock::from(self.sb.raw.s_first_data_block.get());
        let end = FsBlock::new(self.sb.blocks_count());
        for (what, start, length) in [
            ("bg_block_bitmap", descriptor.block_bitmap(), 1),
            ("bg_inode_bitmap", descriptor.inode_bitmap(), 1),
            ("bg_inode_table", descriptor.inode_table(), table_blocks),
        ] {
            if start <= first || start.saturating_add(length) > end {
                return Err(Error::corrupt(
                    "group descriptor",
                    format!("group {group}"),
                    format!("{what} is block {start} of {}", self.sb.blocks_count()),
                ));
            }
        }
        Ok(descriptor)
    }

    /// Changes the descriptor of a group.
    pub fn set_group(&mut self, group: GroupNo, descriptor: &GroupDescriptor) -> Result<()> {
        self.check_group(group)?;
        let (number, at) = self.descriptor_position(group);
        let mut block = self.store.read(number)?.to_vec();
        let size = to_usize(self.sb.desc_size());
        descriptor.write_to(&mut block[at..at + size], group, &self.sb);
        self.store.write_meta(number, block)
    }

    /// Blocks of an inode table.
    pub fn inode_table_blocks(&self) -> u64 {
        let bytes =
            u64::from(self.sb.raw.s_inodes_per_group.get()) * u64::from(self.sb.inode_size());
        bytes.div_ceil(to_u64(self.block_size()))
    }

    /// The group of an inode and its index in it.
    pub fn inode_group(&self, ino: Ino) -> Result<(GroupNo, u32)> {
        if ino.is_none() || ino.get() > self.sb.raw.s_inodes_count.get() {
            return Err(Error::corrupt(
                "inode number",
                format!("inode {ino}"),
                format!("the file system has {} inodes", self.sb.raw.s_inodes_count),
            ));
        }
        let per_group = self.sb.raw.s_inodes_per_group.get();
        let index = ino.get() - 1;
        Ok((GroupNo::new(index / per_group), index % per_group))
    }

    /// Block that holds an inode, and the byte in it.
    pub fn inode_position(&self, ino: Ino) -> Result<(FsBlock, usize)> {
        let (group, index) = self.inode_group(ino)?;
        let descriptor = self.group(group)?;
        let offset = u64::from(index) * u64::from(self.sb.inode_size());
        let (block, at) = FsBlock::of_byte(offset, self.block_size());
        Ok((descriptor.inode_table() + block.get(), at))
    }

    /// Reads an inode, whether it is in use or not.
    pub fn read_inode(&self, ino: Ino) -> Result<Inode> {
        let (group, _) = self.inode_group(ino)?;
        if self.sb.has_group_csum()
            && self.group(group)?.has_flag(BG_INODE_UNINIT)
            && ino >= self.sb.first_ino()
        {
            return Err(Error::corrupt(
                "inode",
                format!("inode {ino}"),
                format!("it is in use, but group {group} is flagged INODE_UNINIT"),
            ));
        }
        let (number, at) = self.inode_position(ino)?;
        let block = self.store.read(number)?;
        Inode::parse(&block[at..at + to_usize(self.sb.inode_size())], ino, &self.sb)
    }

    /// Reads an inode that something refers to: it must be in use and of a known type.
    pub fn live_inode(&self, ino: Ino) -> Result<Inode> {
        if ino != ROOT_INO && ino < self.sb.first_ino() {
            return Err(Error::corrupt(
                "directory entry",
                format!("inode {ino}"),
                "it is a reserved inode",
            ));
        }
        let inode = self.read_inode(ino)?;
        if inode.links() == 0 || inode.file_type().is_none() {
            return Err(Error::corrupt(
                "inode",
                format!("inode {ino}"),
                format!(
                    "an entry refers to it, but i_mode is {:#o} and i_links_count {}",
                    inode.raw.i_mode, inode.raw.i_links_count
                ),
            ));
        }
        Ok(inode)
    }

    /// Writes an inode.
    pub fn write_inode(&mut self, inode: &Inode) -> Result<()> {
        let (number, at) = self.inode_position(inode.ino)?;
        if usage::is_on(&self.sb) {
            // The table may hold anything for an inode that was never used.
            let old = self.read_inode(inode.ino).ok();
            self.quota.note(&self.sb, old.as_ref(), inode);
        }
        let mut block = self.store.read(number)?.to_vec();
        let bytes = inode.to_bytes(&self.sb);
        block[at..at + bytes.len()].copy_from_slice(&bytes);
        self.store.write_meta(number, block)
    }

    /// Whether the file system has a journal of its own.
    pub fn has_journal(&self) -> bool {
        self.sb.has_compat(compat::HAS_JOURNAL)
    }

    /// Whether changes are safe, and if not, why.
    pub fn check_writable(&self) -> Result<()> {
        let sb = &self.sb;
        let unknown = sb.ro_compat().without(RoCompat::KNOWN);
        if unknown.intersects(ro_compat::READONLY) {
            return Err(Error::ReadOnly(
                "its feature read-only (ro_compat 0x1000) forbids writing; tune2fs -O ^read-only takes it away"
                    .to_owned(),
            ));
        }
        if !unknown.is_empty() {
            return Err(Error::ReadOnly(format!(
                "it has the feature {unknown} (ro_compat {:#x}), which this program does not write; make the image without it",
                unknown.bits()
            )));
        }
        let state = sb.raw.s_state.get();
        if state & STATE_ERROR != 0 {
            return Err(Error::ReadOnly(
                "the kernel found errors in it (s_state); run e2fsck -f first".to_owned(),
            ));
        }
        if state & STATE_VALID == 0 && !self.has_journal() {
            return Err(Error::ReadOnly(
                "it was not unmounted cleanly and has no journal; run e2fsck -f first".to_owned(),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::MemoryDevice;
    use crate::ext::mkfs::build_ext2_image;

    #[test]
    fn an_attempt_that_fails_leaves_the_volume_as_it_was() {
        let image =
            build_ext2_image(1 << 20, &[("f", b"x", 0o644)], Timestamp::default(), [7; 16], "");
        let device = Arc::new(MemoryDevice::new(image.unwrap()));
        let mut vol = Volume::open(device, Options::default()).unwrap();
        let (blocks, sb) = (vol.store.blocks_count(), vol.sb.to_bytes());
        let inode = vol.read_inode(ROOT_INO).unwrap();
        let failed: Result<()> = vol.attempt(|vol| {
            vol.sb.set_blocks_count(blocks - 1);
            vol.store.set_blocks_count(blocks - 1);
            vol.zones.borrow_mut().insert(0, Arc::from([(FsBlock::new(1), FsBlock::new(2))]));
            let mut changed = inode.clone();
            changed.set_size(1);
            vol.write_inode(&changed)?;
            vol.store.zero(FsBlock::new(blocks - 4), 2)?;
            vol.next_generation();
            Err(Error::Invalid("no".to_owned()))
        });
        assert!(failed.is_err());
        assert_eq!(vol.store.blocks_count(), blocks);
        assert_eq!(vol.sb.to_bytes(), sb);
        assert!(vol.zones.borrow().is_empty());
        assert!(!vol.store.is_dirty());
        assert_eq!(vol.read_inode(ROOT_INO).unwrap().size(), inode.size());
        assert_eq!(vol.generation_state, 0);
    }
}
