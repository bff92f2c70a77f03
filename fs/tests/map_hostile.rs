//! Damaged allocation and block map structures: refused by name, never a panic, never a loop.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::{Image, Random, commit};
use snf_fs::ext::Options;
use snf_fs::ext::internals::alloc;
use snf_fs::ext::internals::map::{self, Mapping};
use snf_fs::ext::internals::units::{FsBlock, GroupNo, Ino};
use snf_fs::ext::internals::volume::Volume;
use snf_fs::{Error, MemoryDevice};

/// A small file system with files whole, in pieces and sparse; without checksums, so that damage is
/// not found by them.
struct Base {
    bytes: Vec<u8>,
    inos: Vec<Ino>,
    /// Blocks worth damaging.
    blocks: Vec<u64>,
    block_size: usize,
}

fn base(args: &str) -> Base {
    let names = ["whole", "pieces", "sparse", "tiny"];
    let files: Vec<(String, Vec<u8>)> =
        names.iter().map(|name| ((*name).to_owned(), vec![5; 40_000])).collect();
    let image = Image::make(args, 12, &files);
    let mut vol = image.open();
    let inos: Vec<Ino> = names.iter().map(|name| image.ino(name)).collect();
    let mut inodes: Vec<_> = inos.iter().map(|&ino| vol.live_inode(ino).unwrap()).collect();
    let size = vol.block_size() as u64;
    for piece in 0..200 {
        map::truncate(&mut vol, &mut inodes[1], (50 + piece * 3) * size).unwrap();
        map::append(&mut vol, &mut inodes[1], b"x").unwrap();
    }
    map::truncate(&mut vol, &mut inodes[2], 200_000 * size).unwrap();
    map::append(&mut vol, &mut inodes[2], &[9; 5000]).unwrap();
    for inode in &inodes {
        vol.write_inode(inode).unwrap();
    }
    let mut blocks = [0, 1, 2].map(FsBlock::new).to_vec();
    for group in vol.sb.groups() {
        let descriptor = vol.group(group).unwrap();
        blocks.extend([descriptor.block_bitmap(), descriptor.inode_bitmap()]);
    }
    for _ in 0..4 {
        blocks.extend(inos.iter().map(|&ino| vol.inode_position(ino).unwrap().0));
    }
    snf_fs::ext::internals::journal::seal(&mut vol).unwrap();
    vol.store.seal();
    // Everything written as metadata: extent nodes and indirect blocks among it.
    blocks.extend(vol.store.transactions().iter().flat_map(|t| t.meta.keys()));
    commit(&mut vol);
    image.fsck(args);
    let block_size = vol.block_size();
    Base {
        bytes: std::fs::read(&image.path).unwrap(),
        inos,
        blocks: blocks.into_iter().map(FsBlock::get).collect(),
        block_size,
    }
}

fn open(bytes: Vec<u8>) -> Result<Volume, Error> {
    Volume::open(Arc::new(MemoryDevice::new(bytes)), Options::default())
}

/// Does everything to every file; the errors met.
fn exercise(vol: &mut Volume, inos: &[Ino]) -> Vec<Error> {
    let mut errors = Vec::new();
    for &ino in inos {
        let mut inode = match vol.live_inode(ino) {
            Ok(inode) => inode,
            Err(error) => {
                errors.push(error);
                continue;
            }
        };
        let mut buf = vec![0; 30_000];
        for offset in [0, 39_000, inode.size() / 2, inode.size().saturating_sub(10)] {
            errors.extend(map::read(vol, &inode, offset, &mut buf).err());
        }
        for lblk in [0, 11, 12, 267, 268, 70_000, 200_001, u64::from(u32::MAX) - 1, u64::MAX] {
            match map::map(vol, &inode, lblk) {
                Ok(Mapping::Hole { len } | Mapping::Data { len, .. }) => assert!(len > 0),
                Err(error) => errors.push(error),
            }
        }
        if !inode.is_file() {
            continue;
        }
        let end = inode.size();
        errors.extend(map::append(vol, &mut inode, &[1; 3000]).err());
        errors.extend(map::truncate(vol, &mut inode, end / 2).err());
        errors.extend(map::append_block(vol, &mut inode.clone(), vec![0; vol.block_size()]).err());
        errors.extend(map::replace(vol, &mut inode, &[2; 20_000]).err());
        errors.extend(vol.write_inode(&inode).err());
        errors.extend(map::clear(vol, &mut inode).err());
    }
    for group in 0..3 {
        match alloc::alloc_inode(vol, GroupNo::new(group), true) {
            Ok(ino) => errors.extend(alloc::free_inode(vol, ino, true).err()),
            Err(error) => errors.push(error),
        }
    }
    errors
}

#[test]
fn random_damage_is_survived() {
    // More rounds by hand, after a change: SNF_FUZZ_ROUNDS=20000.
    let rounds = std::env::var("SNF_FUZZ_ROUNDS").ok();
    let rounds = rounds.and_then(|n| n.parse().ok()).unwrap_or(200);
    for (args, seed) in [
        ("-t ext4 -b 1024 -O ^metadata_csum,^has_journal,uninit_bg,^resize_inode -N 128", 1),
        ("-t ext4 -b 1024 -O ^metadata_csum,^uninit_bg,^flex_bg,^resize_inode -J size=1 -N 128", 2),
        ("-t ext2 -b 1024 -N 128", 3),
        ("-t ext4 -b 1024 -C 4096 -O bigalloc,^metadata_csum,^uninit_bg,^has_journal -N 128", 4),
    ] {
        let base = base(args);
        let mut random = Random(seed);
        let mut found = 0;
        for round in 0..rounds {
            let mut bytes = base.bytes.clone();
            for _ in 0..=random.below(3) {
                let block = base.blocks[random.below(base.blocks.len() as u64) as usize];
                let at = block as usize * base.block_size;
                // Low offsets matter more in most structures.
                let reach = [16, 128, base.block_size as u64][random.below(3) as usize];
                let at = at + random.below(reach) as usize;
                let value = [0, 1, 0xFF, 0x80, random.next() as u8][random.below(5) as usize];
                let width = [1, 2, 4][random.below(3) as usize];
                bytes[at..at + width].fill(value);
            }
            let start = Instant::now();
            match open(bytes) {
                Ok(mut vol) => found += usize::from(!exercise(&mut vol, &base.inos).is_empty()),
                Err(_) => found += 1,
            }
            assert!(start.elapsed() < Duration::from_secs(60), "{args}: round {round} takes long");
        }
        assert!(found > rounds / 10, "{args}: only {found} damaged images were refused");
    }
}

/// One field at a time, and what the error must say.
#[test]
fn every_field_of_a_node_is_checked() {
    let base = base("-t ext4 -b 1024 -O ^metadata_csum,^has_journal,^resize_inode -N 128");
    let vol = open(base.bytes.clone()).unwrap();
    let (root_block, root_at) = vol.inode_position(base.inos[1]).unwrap();
    let root = root_block.byte(1024) as usize + root_at + 40;
    let Ok(leaf) = base.bytes[root + 16..root + 20].try_into().map(u32::from_le_bytes) else {
        panic!("no leaf")
    };
    let leaf = leaf as usize * 1024;
    for (structure, at, change, says) in [
        ("extent tree root", root, vec![0u8, 0], "eh_magic"),
        ("extent tree root", root + 2, vec![9, 0], "eh_entries is 9"),
        ("extent tree root", root + 2, vec![0, 0], "empty"),
        ("extent tree root", root + 4, vec![5, 0], "eh_max is 5"),
        ("extent tree root", root + 6, vec![6, 0], "eh_depth is 6"),
        ("extent tree root", root + 16, vec![0, 0, 0, 0], "ei_leaf 0"),
        ("extent tree root", root + 18, vec![0xFF; 4], "ei_leaf"),
        ("extent node", leaf, vec![1], "eh_magic"),
        ("extent node", leaf + 2, vec![0, 0], "empty"),
        ("extent node", leaf + 4, vec![0, 1], "eh_max is 256"),
        ("extent node", leaf + 6, vec![1, 0], "eh_depth is 1, 0 expected"),
        ("extent node", leaf + 16, vec![0, 0], "ee_len of extent 0 is 0"),
        ("extent node", leaf + 24, vec![0, 0, 0, 0], "extent 1 is for blocks 0"),
        ("extent node", leaf + 28, vec![0xFF, 0x7F], "expected"),
        ("extent node", leaf + 32, vec![0xFF; 4], "ee_start"),
    ] {
        let mut bytes = base.bytes.clone();
        bytes[at..at + change.len()].copy_from_slice(&change);
        let mut vol = open(bytes).unwrap();
        let errors = exercise(&mut vol, &base.inos[1..2]);
        let named = errors.iter().any(|error| match error {
            Error::Corrupt { structure: found, detail, .. } => {
                *found == structure && detail.contains(says)
            }
            _ => false,
        });
        assert!(named, "{structure} {says}: {errors:?}");
    }
}

/// A file that names the inode table, the bitmaps or another file's freed blocks as its own cannot
/// make the allocator free or overwrite them.
#[test]
fn a_file_cannot_own_metadata() {
    let base = base("-t ext4 -b 1024 -O ^metadata_csum,^resize_inode -J size=1 -N 128");
    let vol = open(base.bytes.clone()).unwrap();
    let (block, at) = vol.inode_position(base.inos[0]).unwrap();
    let start = block.byte(1024) as usize + at + 40 + 12 + 8;
    let group = vol.group(GroupNo::FIRST).unwrap();
    let own = [group.block_bitmap(), group.inode_bitmap(), group.inode_table() + 2];
    for target in [1, 2].into_iter().chain(own.map(FsBlock::get)) {
        let mut bytes = base.bytes.clone();
        bytes[start..start + 4].copy_from_slice(&(target as u32).to_le_bytes());
        let mut vol = open(bytes).unwrap();
        for result in [
            map::replace(&mut vol, &mut vol_inode(&base, 0, target), b"new"),
            map::append(&mut vol, &mut vol_inode(&base, 0, target), b"more"),
            map::truncate(&mut vol, &mut vol_inode(&base, 0, target), 1),
        ] {
            assert!(matches!(result, Err(Error::Corrupt { .. })), "{target}: {result:?}");
        }
        assert!(!vol.store.is_dirty());
    }
}

/// The inode of a file whose only extent begins at `target` and ends within a block.
fn vol_inode(base: &Base, which: usize, target: u64) -> snf_fs::ext::internals::inode::Inode {
    let vol = open(base.bytes.clone()).unwrap();
    let mut inode = vol.live_inode(base.inos[which]).unwrap();
    inode.raw.i_block[16] = 1;
    inode.raw.i_block[17] = 0;
    inode.raw.i_block[20..24].copy_from_slice(&(target as u32).to_le_bytes());
    inode.set_size(500);
    inode
}
