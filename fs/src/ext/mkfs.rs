//! Makes small plain ext2 file systems in memory: the parameter disk that the helper VM reads.
//!
//! The result is a revision 1 file system that every kernel since 2.2 mounts: 1 KiB blocks,
//! 128-byte inodes, `filetype` and `sparse_super`, no reserve for root, and just as many inodes
//! as there are files, so that nearly all of a floppy holds data. The content of the files goes
//! from the caller's slices straight into the caller's buffer: nothing else ever holds it.
//!
//! Sources: the kernel's Documentation/filesystems/ext4/ (super.rst, group_descr.rst, inodes.rst,
//! directory.rst, blockmap.rst).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromZeros, IntoBytes};

use super::group::GroupDescriptor;
use super::inode::{Inode, ROOT_INO};
use super::superblock::{EXT_MAGIC, RawSuperblock, STATE_VALID, Superblock, incompat, ro_compat};
use super::units::{FsBlock, GroupNo, Ino};
use crate::error::{Error, Result, display_name};
use crate::filesystem::Timestamp;
use crate::num::{to_u8, to_u16, to_u32, to_u64, to_usize};

const BLOCK_SIZE: u32 = 1024;
const BLOCK: usize = 1024;
const BLOCKS_PER_GROUP: u32 = BLOCK_SIZE * 8;
const INODE_SIZE: u32 = 128;
const INODES_PER_BLOCK: u32 = BLOCK_SIZE / INODE_SIZE;
/// Inode of lost+found, the first that is not reserved.
const LOST_AND_FOUND: u32 = 11;
const FIRST_FILE: u32 = LOST_AND_FOUND + 1;
const POINTERS: usize = BLOCK / 4;
const DIRECT: usize = 12;
/// Blocks of the largest file: direct, indirect and double indirect ones (64 MiB).
const MAX_FILE_BLOCKS: usize = DIRECT + POINTERS + POINTERS * POINTERS;
/// A last group with fewer blocks than its own metadata and this is left out, as mke2fs does.
const MIN_USEFUL_BLOCKS: u64 = 50;
/// Largest file system made: the parameter disk never needs more, and all of it is in memory.
const MAX_SIZE: usize = 256 << 20;

/// One regular file of the root directory. It belongs to root.
#[derive(Clone, Copy)]
pub struct NewFile<'a> {
    /// Its name: 1 to 255 bytes, no slash.
    pub name: &'a str,
    /// Its content.
    pub content: &'a [u8],
    /// Permission bits (12 bits).
    pub mode: u16,
}

/// The identity of the new file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ext2Spec<'a> {
    /// Every time stamp in it.
    pub now: Timestamp,
    /// UUID.
    pub uuid: [u8; 16],
    /// Label, at most 16 bytes.
    pub label: &'a str,
}

/// Makes an ext2 file system of `size` bytes that holds `files` (name, content, mode) in its root
/// directory. Callers with secrets use [`format_ext2`] with a buffer of their own, which they
/// can wipe.
pub fn build_ext2_image(
    size: u64,
    files: &[(&str, &[u8], u16)],
    now: Timestamp,
    uuid: [u8; 16],
    label: &str,
) -> Result<Vec<u8>> {
    let length = usize::try_from(size).ok().filter(|&n| n <= MAX_SIZE).ok_or_else(|| {
        Error::Invalid(format!("an ext2 image of {size} bytes: at most {MAX_SIZE} are made"))
    })?;
    let files: Vec<NewFile<'_>> =
        files.iter().map(|&(name, content, mode)| NewFile { name, content, mode }).collect();
    let mut image = vec![0; length];
    format_ext2(&mut image, &files, &Ext2Spec { now, uuid, label })?;
    Ok(image)
}

/// Fills `image` with an ext2 file system as large as it, holding `files` in its root directory.
/// The old content of `image` is gone, after an error too.
pub fn format_ext2(image: &mut [u8], files: &[NewFile<'_>], spec: &Ext2Spec<'_>) -> Result<()> {
    image.fill(0);
    if image.len() > MAX_SIZE {
        return Err(Error::Invalid(format!(
            "an ext2 image of {} bytes: at most {MAX_SIZE} are made",
            image.len()
        )));
    }
    check_names(files)?;
    let layout = Layout::new(to_u64(image.len()), files.len(), spec)?;
    let mut builder = Builder { layout, image, next: 0, used: Vec::new(), dirs: 2 };
    builder.used = vec![0; to_usize(builder.layout.blocks)];
    builder.reserve_metadata();
    let result = builder.build(files, spec);
    if result.is_err() {
        builder.image.fill(0);
    }
    result
}

fn check_names(files: &[NewFile<'_>]) -> Result<()> {
    for (index, file) in files.iter().enumerate() {
        let name = file.name;
        if name.is_empty()
            || name.len() > 255
            || name.bytes().any(|byte| byte == b'/' || byte == 0)
            || matches!(name, "." | ".." | "lost+found")
        {
            return Err(Error::Invalid(format!(
                "«{}» cannot be the name of a file in the root directory",
                display_name(name.as_bytes())
            )));
        }
        if files[..index].iter().any(|earlier| earlier.name == name) {
            return Err(Error::Exists(display_name(name.as_bytes())));
        }
        if file.content.len().div_ceil(BLOCK) > MAX_FILE_BLOCKS {
            return Err(Error::NoSpace(format!(
                "{} has {} bytes, a file of this small ext2 at most {}",
                display_name(name.as_bytes()),
                file.content.len(),
                MAX_FILE_BLOCKS * BLOCK
            )));
        }
    }
    Ok(())
}

/// The places of the metadata.
struct Layout {
    sb: Superblock,
    blocks: u64,
    groups: u32,
    descriptor_blocks: u64,
    inode_blocks: u64,
}

impl Layout {
    fn new(size: u64, files: usize, spec: &Ext2Spec<'_>) -> Result<Self> {
        let too_small = || Error::NoSpace(format!("{size} bytes are too few for an ext2"));
        let mut blocks = size / to_u64(BLOCK);
        let per_group = u64::from(BLOCKS_PER_GROUP);
        let inodes = u32::try_from(files).ok().and_then(|n| n.checked_add(FIRST_FILE - 1));
        let inodes = inodes.ok_or_else(|| Error::Invalid(format!("{files} files are too many")))?;
        // The last group may turn out too small for its own metadata; then it is left out.
        for _ in 0..2 {
            if blocks < 2 {
                return Err(too_small());
            }
            let groups = to_u32((blocks - 1).div_ceil(per_group));
            // All inodes could be in the first group, but every group has as many; and the
            // reserved ones must fit in the first.
            let in_group = inodes.div_ceil(groups).max(LOST_AND_FOUND);
            let inodes_per_group = in_group.div_ceil(INODES_PER_BLOCK) * INODES_PER_BLOCK;
            if inodes_per_group > BLOCKS_PER_GROUP {
                return Err(Error::NoSpace(format!("{files} files are too many")));
            }
            let layout = Self {
                sb: superblock(blocks, groups, inodes_per_group, spec)?,
                blocks,
                groups,
                descriptor_blocks: (u64::from(groups) * 32).div_ceil(to_u64(BLOCK)),
                inode_blocks: u64::from(inodes_per_group / INODES_PER_BLOCK),
            };
            let last = groups - 1;
            let last_blocks = layout.group_blocks(last);
            let overhead = layout.group_overhead(last);
            if groups > 1 && last_blocks < overhead + MIN_USEFUL_BLOCKS {
                blocks -= last_blocks;
                continue;
            }
            if last_blocks < overhead {
                return Err(too_small());
            }
            return Ok(layout);
        }
        Err(too_small())
    }

    fn group_first(&self, group: u32) -> u64 {
        1 + u64::from(group) * u64::from(BLOCKS_PER_GROUP)
    }

    fn group_blocks(&self, group: u32) -> u64 {
        (self.blocks - self.group_first(group)).min(u64::from(BLOCKS_PER_GROUP))
    }

    /// Blocks of superblock and descriptors at the start of the group.
    fn group_header(&self, group: u32) -> u64 {
        if self.sb.group_has_super(GroupNo::new(group)) { 1 + self.descriptor_blocks } else { 0 }
    }

    fn group_overhead(&self, group: u32) -> u64 {
        self.group_header(group) + 2 + self.inode_blocks
    }

    fn block_bitmap(&self, group: u32) -> u64 {
        self.group_first(group) + self.group_header(group)
    }

    fn inode_bitmap(&self, group: u32) -> u64 {
        self.block_bitmap(group) + 1
    }

    fn inode_table(&self, group: u32) -> u64 {
        self.block_bitmap(group) + 2
    }
}

fn superblock(
    blocks: u64,
    groups: u32,
    inodes_per_group: u32,
    spec: &Ext2Spec<'_>,
) -> Result<Superblock> {
    if spec.label.len() > 16 {
        return Err(Error::NameTooLong(display_name(spec.label.as_bytes())));
    }
    let too_large = || Error::Invalid(format!("an ext2 of {blocks} blocks is too large"));
    let now = to_u32(spec.now.seconds.clamp(0, i64::from(i32::MAX)));
    let mut raw = RawSuperblock::new_zeroed();
    raw.s_inodes_count = U32::new(groups.checked_mul(inodes_per_group).ok_or_else(too_large)?);
    raw.s_blocks_count_lo = U32::new(u32::try_from(blocks).map_err(|_| too_large())?);
    raw.s_first_data_block = U32::new(1);
    raw.s_blocks_per_group = U32::new(BLOCKS_PER_GROUP);
    raw.s_clusters_per_group = U32::new(BLOCKS_PER_GROUP);
    raw.s_inodes_per_group = U32::new(inodes_per_group);
    raw.s_wtime = U32::new(now);
    raw.s_mkfs_time = U32::new(now);
    raw.s_lastcheck = U32::new(now);
    raw.s_max_mnt_count = U16::new(u16::MAX);
    raw.s_magic = U16::new(EXT_MAGIC);
    raw.s_state = U16::new(STATE_VALID);
    raw.s_errors = U16::new(1); // go on after an error: the disk lives for one boot
    raw.s_rev_level = U32::new(1);
    raw.s_first_ino = U32::new(LOST_AND_FOUND);
    raw.s_inode_size = U16::new(to_u16(INODE_SIZE));
    raw.s_feature_incompat = U32::new(incompat::FILETYPE.bits());
    raw.s_feature_ro_compat = U32::new(ro_compat::SPARSE_SUPER.bits());
    raw.s_uuid = spec.uuid;
    raw.s_volume_name[..spec.label.len()].copy_from_slice(spec.label.as_bytes());
    Ok(Superblock { raw })
}

struct Builder<'a> {
    layout: Layout,
    image: &'a mut [u8],
    /// The block at which the search for a free one starts.
    next: u64,
    /// One byte a block: 1 when it is in use.
    used: Vec<u8>,
    dirs: u32,
}

impl Builder<'_> {
    fn block(&mut self, number: u64) -> &mut [u8] {
        let at = to_usize(number) * BLOCK;
        &mut self.image[at..at + BLOCK]
    }

    fn reserve_metadata(&mut self) {
        self.used[0] = 1; // the boot block is not part of any group
        for group in 0..self.layout.groups {
            let first = to_usize(self.layout.group_first(group));
            let count = to_usize(self.layout.group_overhead(group));
            self.used[first..first + count].fill(1);
        }
    }

    fn allocate(&mut self, what: &str) -> Result<u64> {
        let from = to_usize(self.next);
        let free = self.used[from..].iter().position(|&used| used == 0).ok_or_else(|| {
            Error::NoSpace(format!(
                "{} does not fit on a disk of {} bytes",
                display_name(what.as_bytes()),
                self.image.len()
            ))
        })?;
        self.used[from + free] = 1;
        self.next = to_u64(from + free + 1);
        Ok(to_u64(from + free))
    }

    fn build(&mut self, files: &[NewFile<'_>], spec: &Ext2Spec<'_>) -> Result<()> {
        let mut entries: Vec<(u32, &[u8], u8)> = vec![
            (ROOT_INO.get(), b".", 2),
            (ROOT_INO.get(), b"..", 2),
            (LOST_AND_FOUND, b"lost+found", 2),
        ];
        for (ino, file) in (FIRST_FILE..).zip(files) {
            entries.push((ino, file.name.as_bytes(), 1));
        }
        let root = directory(&entries);
        self.write_node(ROOT_INO.get(), 0x4000 | 0o755, 3, &root, "/", spec)?;
        let lost = directory(&[(LOST_AND_FOUND, b".", 2), (ROOT_INO.get(), b"..", 2)]);
        self.write_node(LOST_AND_FOUND, 0x4000 | 0o700, 2, &lost, "lost+found", spec)?;
        for (ino, file) in (FIRST_FILE..).zip(files) {
            let mode = 0x8000 | file.mode & 0o7777;
            self.write_node(ino, mode, 1, file.content, file.name, spec)?;
        }
        self.write_groups(FIRST_FILE + to_u32(files.len()));
        Ok(())
    }

    fn write_node(
        &mut self,
        ino: u32,
        mode: u16,
        links: u16,
        content: &[u8],
        name: &str,
        spec: &Ext2Spec<'_>,
    ) -> Result<()> {
        let mut inode = Inode::new(Ino::new(ino), &self.layout.sb);
        inode.raw.i_mode = U16::new(mode);
        inode.set_links(links);
        inode.set_size(to_u64(content.len()));
        inode.set_atime(spec.now);
        inode.set_ctime(spec.now);
        inode.set_mtime(spec.now);

        let mut map = [0u32; 15];
        let mut taken = 0i64;
        // The pointer block being filled on each level, and the level above its own.
        let mut single = 0u64;
        let mut double = 0u64;
        for (index, chunk) in content.chunks(BLOCK).enumerate() {
            if index >= DIRECT {
                let at = index - DIRECT;
                if at == 0 {
                    single = self.allocate(name)?;
                    taken += 1;
                    map[12] = to_u32(single);
                } else if at.is_multiple_of(POINTERS) {
                    let above = at / POINTERS - 1;
                    if above == 0 {
                        double = self.allocate(name)?;
                        taken += 1;
                        map[13] = to_u32(double);
                    }
                    single = self.allocate(name)?;
                    taken += 1;
                    self.point(double, above, single);
                }
            }
            let data = self.allocate(name)?;
            taken += 1;
            self.block(data)[..chunk.len()].copy_from_slice(chunk);
            if index < DIRECT {
                map[index] = to_u32(data);
            } else {
                self.point(single, (index - DIRECT) % POINTERS, data);
            }
        }
        for (slot, pointer) in inode.raw.i_block.chunks_exact_mut(4).zip(map) {
            slot.copy_from_slice(&pointer.to_le_bytes());
        }
        inode.add_blocks(taken, &self.layout.sb)?;

        let per_group = self.layout.sb.raw.s_inodes_per_group.get();
        let (group, index) = ((ino - 1) / per_group, (ino - 1) % per_group);
        let number = self.layout.inode_table(group) + u64::from(index / INODES_PER_BLOCK);
        let at = to_usize(index % INODES_PER_BLOCK * INODE_SIZE);
        let bytes = inode.to_bytes(&self.layout.sb);
        self.block(number)[at..at + bytes.len()].copy_from_slice(&bytes);
        Ok(())
    }

    fn point(&mut self, block: u64, index: usize, to: u64) {
        self.block(block)[index * 4..index * 4 + 4].copy_from_slice(&to_u32(to).to_le_bytes());
    }

    /// Bitmaps, descriptors and superblocks. Inodes below `next_ino` are in use.
    fn write_groups(&mut self, next_ino: u32) {
        let per_group = self.layout.sb.raw.s_inodes_per_group.get();
        let mut descriptors = vec![0u8; to_usize(self.layout.descriptor_blocks) * BLOCK];
        let (mut free_blocks, mut free_inodes) = (0u64, 0u32);
        for group in 0..self.layout.groups {
            let first = to_usize(self.layout.group_first(group));
            let count = to_usize(self.layout.group_blocks(group));
            let mut bitmap = [0xFFu8; BLOCK];
            let mut free = 0;
            for bit in (0..count).filter(|bit| self.used[first + bit] == 0) {
                bitmap[bit / 8] &= !(1 << (bit % 8));
                free += 1;
            }
            let number = self.layout.block_bitmap(group);
            self.block(number).copy_from_slice(&bitmap);

            let used = (next_ino - 1).saturating_sub(group * per_group).min(per_group);
            let mut bitmap = [0xFFu8; BLOCK];
            for bit in to_usize(used)..to_usize(per_group) {
                bitmap[bit / 8] &= !(1 << (bit % 8));
            }
            let number = self.layout.inode_bitmap(group);
            self.block(number).copy_from_slice(&bitmap);

            let mut descriptor = GroupDescriptor::empty(&self.layout.sb);
            descriptor.set_block_bitmap(FsBlock::new(self.layout.block_bitmap(group)));
            descriptor.set_inode_bitmap(FsBlock::new(self.layout.inode_bitmap(group)));
            descriptor.set_inode_table(FsBlock::new(self.layout.inode_table(group)));
            descriptor.set_free_blocks_count(free);
            descriptor.set_free_inodes_count(per_group - used);
            descriptor.set_used_dirs_count(if group == 0 { self.dirs } else { 0 });
            let at = to_usize(group) * 32;
            descriptor.write_to(
                &mut descriptors[at..at + 32],
                GroupNo::new(group),
                &self.layout.sb,
            );
            free_blocks += u64::from(free);
            free_inodes += per_group - used;
        }
        self.layout.sb.set_free_blocks_count(free_blocks);
        self.layout.sb.raw.s_free_inodes_count = U32::new(free_inodes);
        for group in (0..self.layout.groups)
            .filter(|&group| self.layout.sb.group_has_super(GroupNo::new(group)))
        {
            let mut raw = self.layout.sb.raw.clone();
            raw.s_block_group_nr = U16::new(to_u16(group));
            let at = to_usize(self.layout.group_first(group)) * BLOCK;
            let sb = raw.as_bytes();
            self.image[at..at + sb.len()].copy_from_slice(sb);
            let at = at + BLOCK;
            self.image[at..at + descriptors.len()].copy_from_slice(&descriptors);
        }
    }
}

/// The blocks of a directory with these entries (inode, name, file type).
fn directory(entries: &[(u32, &[u8], u8)]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::new();
    let mut last = 0; // where the last entry of the open block starts
    for &(ino, name, file_type) in entries {
        let length = (8 + name.len()).next_multiple_of(4);
        let room = out.len().next_multiple_of(BLOCK) - out.len();
        if room < length {
            stretch(&mut out, last);
        }
        last = out.len();
        out.extend(ino.to_le_bytes());
        out.extend(to_u16(length).to_le_bytes());
        out.push(to_u8(name.len()));
        out.push(file_type);
        out.extend(name);
        out.resize(last + length, 0);
    }
    stretch(&mut out, last);
    out
}

/// Makes the entry at `last` reach to the end of its block.
fn stretch(out: &mut Vec<u8>, last: usize) {
    let end = out.len().next_multiple_of(BLOCK);
    out.resize(end, 0);
    if let Some(field) = out.get_mut(last + 4..last + 6) {
        field.copy_from_slice(&to_u16(end - last).to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_does_not_fit() {
        let now = Timestamp::default();
        let build = |size, files: &[(&str, &[u8], u16)]| {
            build_ext2_image(size, files, now, [1; 16], "PARAMS")
        };
        assert!(matches!(build(4096, &[]), Err(Error::NoSpace(_))));
        assert!(matches!(build(1440 << 10, &[("a/b", b"", 0)]), Err(Error::Invalid(_))));
        assert!(matches!(
            build(1440 << 10, &[("a", b"", 0), ("a", b"", 0)]),
            Err(Error::Exists(_))
        ));
        let large = vec![7; 1440 << 10];
        assert!(matches!(build(1440 << 10, &[("rules", &large, 0o600)]), Err(Error::NoSpace(_))));
        // All but 20 KiB of the floppy is for data.
        assert!(build(1440 << 10, &[("rules", &large[..1420 << 10], 0o600)]).is_ok());
    }

    #[test]
    fn a_failed_format_leaves_no_content_behind() {
        let secret = vec![0xA5; 3 << 20];
        let mut image = vec![1; 1440 << 10];
        let file = NewFile { name: "rules", content: &secret, mode: 0o600 };
        assert!(format_ext2(&mut image, &[file], &Ext2Spec::default()).is_err());
        assert!(image.iter().all(|&byte| byte == 0));
    }
}
