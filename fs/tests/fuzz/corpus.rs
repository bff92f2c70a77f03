//! Images worth damaging, made by mke2fs and filled by the engine itself, and the places in them
//! that matter.

use std::sync::Arc;

use snf_fs::ext::internals::inode::Inode;
use snf_fs::ext::internals::map::{self, Mapping};
use snf_fs::ext::internals::units::{FsBlock, Ino};
use snf_fs::ext::internals::volume::Volume;
use snf_fs::ext::{Ext, Options};
use snf_fs::{Attributes, BlockDevice, FileSystem, MemoryDevice, NodeId, Timestamp};

use super::choices::Choices;
use super::device::Patched;
use super::fixup::{Fixup, Place};
use super::mutate::mutate;
use crate::support::{Image, Random};

const SHAPES: &[(&str, &str)] = &[
    ("ext4 plain", "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg,^resize_inode -J size=1 -N 256"),
    ("ext4 checksums", "-t ext4 -b 1024 -O metadata_csum,64bit,^resize_inode -J size=1 -N 256"),
    (
        "debian 13",
        "-t ext4 -b 4096 -O metadata_csum,64bit,orphan_file,metadata_csum_seed,^resize_inode -J size=4 -N 256",
    ),
    ("ext3", "-t ext3 -b 1024 -I 128 -J size=1 -N 256"),
    ("ext2", "-t ext2 -b 1024 -N 256"),
    ("levels", "-t ext4 -b 1024 -O metadata_csum,large_dir,^resize_inode -J size=1 -N 1024"),
    (
        "inline",
        "-t ext4 -b 1024 -O metadata_csum,inline_data,ea_inode,^resize_inode -J size=1 -N 256",
    ),
    ("quota", "-t ext4 -b 1024 -O ^metadata_csum,quota,project,^resize_inode -J size=1 -N 256"),
    (
        "bigalloc",
        "-t ext4 -b 1024 -C 4096 -O bigalloc,metadata_csum,^resize_inode -J size=1 -N 256",
    ),
];

const FILE: Attributes = Attributes { mode: 0o644, uid: 1, gid: 2 };

/// One image and where to hit it.
pub struct Corpus {
    pub name: &'static str,
    bytes: Arc<Vec<u8>>,
    pub places: Vec<Place>,
    pub fixup: Fixup,
}

pub fn one(name: &str) -> Corpus {
    let shape = SHAPES.iter().find(|shape| shape.0 == name);
    shape.map(|(name, args)| make(name, args)).expect("a shape has this name")
}

pub fn all() -> Vec<Corpus> {
    SHAPES.iter().map(|(name, args)| make(name, args)).collect()
}

fn options() -> Options {
    Options { now: Timestamp { seconds: 1_750_000_000, nanoseconds: 0 }, seed: 9 }
}

/// A tree with one of everything.
fn fill(fs: &mut Ext, name: &str) -> Vec<u32> {
    let mut random = Random(4);
    let root = fs.root();
    let mut nodes = vec![root];
    for (i, size) in [0, 30, 100, 900, 5_000, 60_000].into_iter().enumerate() {
        let node = fs.create(root, format!("file {i}").as_bytes(), FILE).unwrap();
        fs.replace(node, &random.bytes(size)).unwrap();
        nodes.push(node);
    }
    let dir = fs.mkdir(root, b"large", FILE).unwrap();
    nodes.push(dir);
    for i in 0..90 {
        let name = format!("an entry with a name that fills blocks, number {i}");
        let node = fs.create(dir, name.as_bytes(), FILE).unwrap();
        if i < 3 {
            nodes.push(node);
        }
    }
    if name == "levels" {
        // Two levels of index: a leaf of 1 KiB has three of these names.
        for i in 0..420 {
            fs.create(dir, format!("{i:0>250}").as_bytes(), FILE).unwrap();
        }
    }
    let mut deep = root;
    for name in ["a", "b", "c"] {
        deep = fs.mkdir(deep, name.as_bytes(), FILE).unwrap();
        nodes.push(deep);
    }
    nodes.push(fs.symlink(deep, b"short", b"../x", FILE).unwrap());
    nodes.push(fs.symlink(deep, b"long", &[b'y'; 300], FILE).unwrap());
    let node = nodes[2];
    for (name, size) in [("security.selinux", 30), ("user.one", 90), ("user.two", 500)] {
        fs.set_xattr(node, name.as_bytes(), Some(&random.bytes(size))).unwrap();
    }
    let _ = fs.set_xattr(nodes[3], b"user.huge", Some(&random.bytes(3_000)));
    nodes.iter().map(|node: &NodeId| node.0 as u32).collect()
}

fn make(name: &'static str, args: &str) -> Corpus {
    let image = Image::make_unchecked(args, 6, &[]);
    let memory = Arc::new(MemoryDevice::new(std::fs::read(&image.path).unwrap()));
    let mut fs = Ext::open(memory.clone(), options()).unwrap();
    let inos = fill(&mut fs, name);
    fs.commit().unwrap();
    // A file in pieces and one with holes, so that trees have levels.
    let mut pieces = Vec::new();
    for name in [&b"pieces"[..], b"holes"] {
        let node = fs.create(fs.root(), name, FILE).unwrap();
        pieces.push(node.0 as u32);
    }
    let vol = fs.volume_mut();
    let size = vol.block_size() as u64;
    for (&ino, step) in pieces.iter().zip([2, 3_000]) {
        let mut inode = vol.live_inode(Ino::new(ino)).unwrap();
        for piece in 1..120 {
            if map::truncate(vol, &mut inode, piece * step * size).is_ok() {
                map::append(vol, &mut inode, b"x").unwrap();
            }
        }
        vol.write_inode(&inode).unwrap();
    }
    fs.commit().unwrap();
    std::fs::write(&image.path, memory.to_vec()).unwrap();
    image.fsck_errors(name);

    // The device has room for three more groups, for growing.
    let mut bytes = memory.to_vec();
    bytes.resize(bytes.len() + (24 << 20), 0);
    let vol = fs.volume();
    let all: Vec<u32> = inos.into_iter().chain(pieces).collect();
    let places = places(vol, &all);
    let fixup = Fixup::new(vol);
    Corpus { name, bytes: Arc::new(bytes), places, fixup }
}

/// Everything but file content, each with what its checksum needs.
fn places(vol: &Volume, inos: &[u32]) -> Vec<Place> {
    let mut out = vec![Place::Superblock; 3];
    for group in vol.sb.groups() {
        let descriptor = vol.group(group).unwrap();
        out.push(Place::Descriptor(group.get()));
        out.push(Place::BlockBitmap(group.get(), descriptor.block_bitmap().get()));
        out.push(Place::InodeBitmap(group.get(), descriptor.inode_bitmap().get()));
    }
    let raw = &vol.sb.raw;
    let hidden =
        [raw.s_journal_inum.get(), raw.s_usr_quota_inum.get(), raw.s_orphan_file_inum.get()];
    for &ino in inos.iter().chain(hidden.iter().filter(|&&ino| ino != 0)) {
        let inode = vol.read_inode(Ino::new(ino)).unwrap();
        for _ in 0..3 {
            out.push(Place::Inode(ino));
        }
        if !inode.file_acl().is_none() {
            out.extend([Place::Xattr(inode.file_acl().get()); 2]);
        }
        if map::has_map(&inode) {
            out.extend(map_blocks(vol, &inode));
        }
    }
    out
}

/// Blocks of a node's map, and its content where that is metadata.
fn map_blocks(vol: &Volume, inode: &Inode) -> Vec<Place> {
    let mut out = Vec::new();
    if inode.raw.i_flags.get() & 0x8_0000 != 0 {
        let mut nodes = vec![inode.raw.i_block.to_vec()];
        while let Some(node) = nodes.pop() {
            let half = |at: usize| u16::from_le_bytes([node[at], node[at + 1]]);
            if half(6) == 0 {
                continue;
            }
            for entry in 0..usize::from(half(2)) {
                let at = 12 + entry * 12 + 4;
                let leaf = u64::from(u32::from_le_bytes(node[at..at + 4].try_into().unwrap()));
                out.push(Place::ExtentNode(inode.ino.get(), leaf));
                nodes.push(vol.read_block(FsBlock::new(leaf)).unwrap().to_vec());
            }
        }
    } else {
        for slot in 12..15 {
            let at = slot * 4;
            let block = u32::from_le_bytes(inode.raw.i_block[at..at + 4].try_into().unwrap());
            if block != 0 {
                out.push(Place::Plain(u64::from(block)));
            }
        }
    }
    let is_metadata = inode.is_dir() || !inode.is_file() || inode.ino < vol.sb.first_ino();
    let orphans = inode.ino.get() == vol.sb.raw.s_orphan_file_inum.get();
    if is_metadata || orphans {
        for lblk in 0..(inode.size() / vol.block_size() as u64).min(600) {
            let Ok(Mapping::Data { start, .. }) = map::map(vol, inode, lblk) else { continue };
            if !inode.is_dir() && lblk < 12 {
                out.push(Place::Plain(start.get()));
            } else if inode.is_dir() {
                // The first blocks, and the nodes of an index wherever they are: these begin with an
                // empty entry over the whole block.
                let block = vol.read_block(start).unwrap();
                let node = block[..4] == [0; 4]
                    && block[6] == 0
                    && usize::from(block[5]) * 256 == block.len() & 0xFFFF;
                let times = if node || lblk == 0 { 3 } else { usize::from(lblk < 12) };
                out.extend(std::iter::repeat_n(
                    Place::DirBlock(inode.ino.get(), start.get()),
                    times,
                ));
            }
        }
    }
    out
}

impl Corpus {
    /// The image as it is.
    pub fn device(&self) -> Arc<Patched> {
        Arc::new(Patched::new(self.bytes.clone()))
    }

    /// The image with one to four of `places` hit (after the bytes that `skip` tells), their checksums
    /// right again (but for one hit in eight).
    pub fn damaged(
        &self,
        choices: &mut Choices<'_>,
        places: &[Place],
        skip: &dyn Fn(Place, usize) -> usize,
    ) -> Arc<Patched> {
        let device = Patched::new(self.bytes.clone());
        for _ in 0..=choices.below(4) {
            let place = places[choices.below(places.len())];
            let (at, len) = self.fixup.range(place);
            let mut bytes = device.bytes(at, len);
            for _ in 0..=choices.below(3) {
                mutate(&mut bytes[skip(place, len)..], choices);
            }
            if choices.below(8) != 7 {
                self.fixup.seal(&device, place, &mut bytes);
            }
            device.write_at(at, &bytes).unwrap();
            if choices.below(8) != 7 {
                self.fixup.seal_bitmaps(&device, place);
            }
        }
        Arc::new(device)
    }
}
