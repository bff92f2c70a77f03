//! Files that fill, fragment and empty a file system, judged by e2fsck and debugfs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::support::{Image, Random, commit, content, files};
use snf_fs::Error;
use snf_fs::ext::internals::inode::Inode;
use snf_fs::ext::internals::map;
use snf_fs::ext::internals::units::Ino;

/// Fills, fragments and empties a file system for `rounds` rounds of random changes.
fn stress(args: &str, mib: u64, count: usize, largest: u64, rounds: usize, seed: u64) {
    let mut expected = files(count, 24_000, seed);
    let image = Image::make(args, mib, &expected);
    let mut vol = image.open();
    let inos: Vec<Ino> = expected.iter().map(|(file, _)| image.ino(file)).collect();
    let mut random = Random(seed);
    let mut full = 0;
    let mut largest_tree = 0;
    for round in 0..rounds {
        // Phases: fill, cut every other file, fill again.
        for _ in 0..count {
            let which = random.below(count as u64) as usize;
            let bytes = &mut expected[which].1;
            let mut inode = vol.live_inode(inos[which]).unwrap();
            let before = (vol.sb.free_blocks_count(), inode.raw.i_block);
            let most = if random.below(8) == 0 { largest } else { 60_000 };
            let size = random.below(most) as usize;
            let mut wanted = bytes.clone();
            let result = match (round + random.below(2) as usize) % 4 {
                0 | 1 => {
                    let more = random.bytes(size);
                    wanted.extend_from_slice(&more);
                    map::append(&mut vol, &mut inode, &more)
                }
                2 => {
                    let size = random.below(bytes.len() as u64 + 5_000);
                    wanted.resize(size as usize, 0);
                    map::truncate(&mut vol, &mut inode, size)
                }
                _ => {
                    wanted = random.bytes(size);
                    map::replace(&mut vol, &mut inode, &wanted)
                }
            };
            match result {
                Ok(()) => {
                    *bytes = wanted;
                    vol.write_inode(&inode).unwrap();
                }
                Err(Error::NoSpace(_)) => {
                    full += 1;
                    assert_eq!(before, (vol.sb.free_blocks_count(), inode.raw.i_block));
                }
                Err(error) => panic!("{args}: round {round}: {error}"),
            }
            largest_tree = largest_tree.max(inode.raw.i_block[6]);
        }
        commit(&mut vol);
        image.fsck(&format!("{args} round {round}"));
    }
    assert!(full > 0, "{args}: never full");
    let again = image.open();
    for (which, (file, bytes)) in expected.iter().enumerate() {
        for vol in [&vol, &again] {
            let inode = vol.live_inode(inos[which]).unwrap();
            assert!(content(vol, &inode) == *bytes, "{args}: {file} differs");
        }
        assert!(image.dump(file) == *bytes, "{args}: debugfs reads {file} differently");
    }
    println!("{args}: {full} times full, extent tree depth or pointer byte {largest_tree}");
}

#[test]
fn stress_ext4() {
    stress("-t ext4 -b 1024 -N 2000", 24, 200, 4 << 20, 4, 1);
}

#[test]
fn stress_ext4_large_files() {
    stress("-t ext4 -J size=4", 48, 40, 20 << 20, 6, 2);
}

#[test]
fn stress_ext3() {
    stress("-t ext3 -b 1024 -N 2000", 24, 200, 4 << 20, 4, 3);
}

#[test]
fn stress_ext2_large_files() {
    stress("-t ext2 -b 1024", 48, 40, 20 << 20, 6, 4);
}

#[test]
fn stress_bigalloc() {
    stress("-t ext4 -b 1024 -C 8192 -O bigalloc -N 1000", 32, 150, 4 << 20, 4, 5);
}

#[test]
fn stress_no_journal() {
    stress("-t ext4 -O ^has_journal -N 1000", 32, 150, 8 << 20, 4, 6);
}

/// A file in thousands of pieces: leaves split, the tree grows, and shrinks again.
#[test]
fn extent_trees_grow_and_shrink() {
    for (args, mib) in [("-t ext4 -b 1024", 64u64), ("-t ext4", 64), ("-t ext3 -b 1024", 64)] {
        let image = Image::make(args, mib, &[("a".into(), vec![1; 10]), ("b".into(), vec![2; 10])]);
        let mut vol = image.open();
        let names = ["a", "b"];
        let mut inodes: Vec<Inode> =
            names.iter().map(|name| vol.live_inode(image.ino(name)).unwrap()).collect();
        let block = vol.block_size() as u64;
        let pieces = 1_500u64;
        for piece in 1..=pieces {
            for inode in &mut inodes {
                // Every other block a hole.
                map::truncate(&mut vol, inode, piece * 2 * block).unwrap();
                map::append(&mut vol, inode, &[piece as u8; 3]).unwrap();
            }
        }
        for inode in &inodes {
            vol.write_inode(inode).unwrap();
        }
        commit(&mut vol);
        image.fsck(args);
        for (name, inode) in names.iter().zip(&inodes) {
            assert!(image.dump(name) == content(&vol, inode), "{args}: {name}");
        }
        let blocks = inodes[0].blocks_512(&vol.sb);
        for size in [pieces * 2 * block - 1, pieces * block + 5, 90 * block, 7 * block, 100, 0] {
            for inode in &mut inodes {
                map::truncate(&mut vol, inode, size).unwrap();
                vol.write_inode(inode).unwrap();
            }
            commit(&mut vol);
            image.fsck(&format!("{args} at {size}"));
        }
        assert!(inodes[0].blocks_512(&vol.sb) < blocks);
        assert_eq!(inodes[0].blocks_512(&vol.sb), 0);
        for inode in &mut inodes {
            let bytes = vec![7; 100_000];
            map::replace(&mut vol, inode, &bytes).unwrap();
            map::replace(&mut vol, inode, &bytes[..5000]).unwrap();
            vol.write_inode(inode).unwrap();
        }
        commit(&mut vol);
        image.fsck(args);
    }
}
