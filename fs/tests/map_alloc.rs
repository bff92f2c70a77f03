//! Allocation and block maps against mke2fs, debugfs and e2fsck.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::support;
use crate::support::{Image, Random, commit, content, files};
use snf_fs::Error;
use snf_fs::ext::internals::alloc;
use snf_fs::ext::internals::map::{self, Mapping};
use snf_fs::ext::internals::units::{FsBlock, GroupNo, Ino};

/// The file systems: label, mke2fs arguments, size in MiB.
const SHAPES: &[(&str, &str, u64)] = &[
    ("ext2 1k", "-t ext2 -b 1024", 48),
    ("ext2 4k", "-t ext2 -b 4096", 64),
    ("ext2 rev0", "-t ext2 -r 0 -b 1024", 32),
    ("ext3 1k", "-t ext3 -b 1024 -I 128", 64),
    ("ext3 4k", "-t ext3 -b 4096", 64),
    ("debian 11", "-t ext4 -O metadata_csum,64bit,^orphan_file,^metadata_csum_seed", 96),
    ("debian 13", "-t ext4 -O metadata_csum,64bit,orphan_file,metadata_csum_seed", 96),
    ("ext4 1k", "-t ext4 -b 1024", 64),
    ("ext4 2k", "-t ext4 -b 2048", 64),
    ("ext4 no flex_bg", "-t ext4 -b 1024 -O ^flex_bg", 64),
    ("ext4 uninit_bg", "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg", 64),
    ("ext4 32 bit", "-t ext4 -b 1024 -O ^64bit", 64),
    ("ext4 32 bit uninit_bg", "-t ext4 -O ^64bit,^metadata_csum,uninit_bg", 96),
    ("ext4 meta_bg", "-t ext4 -b 1024 -O meta_bg,^resize_inode", 64),
    ("ext4 block maps", "-t ext4 -b 1024 -O ^extents,^64bit", 64),
    ("ext4 no journal", "-t ext4 -O ^has_journal", 64),
    ("ext4 sparse_super2", "-t ext4 -b 1024 -O sparse_super2", 64),
    ("ext4 small inodes", "-t ext4 -I 128", 64),
    ("bigalloc 4k/64k", "-t ext4 -b 4096 -C 65536 -O bigalloc", 160),
    ("bigalloc 1k/16k", "-t ext4 -b 1024 -C 16384 -O bigalloc", 96),
    ("64k blocks", "-t ext4 -b 65536", 160),
];

#[test]
fn every_shape_reads_and_changes() {
    for (name, args, mib) in SHAPES {
        let mut expected = files(6, 600_000, 7);
        expected.push(("empty".into(), Vec::new()));
        expected.push(("tiny".into(), b"root:x:0:0\n".to_vec()));
        let image = Image::make(args, *mib, &expected);
        let mut vol = image.open();
        let mut random = Random(99);
        for round in 0..2 {
            for (file, bytes) in &mut expected {
                let ino = image.ino(file);
                let mut inode = vol.live_inode(ino).unwrap();
                assert!(content(&vol, &inode) == *bytes, "{name}: {file} differs");
                match (round + ino.get()) % 3 {
                    0 => {
                        let size = random.below(300_000) as usize;
                        *bytes = random.bytes(size);
                        map::replace(&mut vol, &mut inode, bytes).unwrap();
                    }
                    1 => {
                        let size = random.below(9_000) as usize;
                        let more = random.bytes(size);
                        map::append(&mut vol, &mut inode, &more).unwrap();
                        bytes.extend_from_slice(&more);
                    }
                    _ => {
                        let size = random.below(bytes.len() as u64 * 3 / 2 + 1);
                        map::truncate(&mut vol, &mut inode, size).unwrap();
                        bytes.resize(size as usize, 0);
                    }
                }
                vol.write_inode(&inode).unwrap();
                assert!(content(&vol, &inode) == *bytes, "{name}: {file} differs after a change");
            }
            commit(&mut vol);
            image.fsck(name);
        }
        for (file, bytes) in &expected {
            assert!(image.dump(file) == *bytes, "{name}: debugfs reads {file} differently");
        }
    }
}

#[test]
fn inodes_come_and_go() {
    for (name, args, mib) in SHAPES {
        let image = Image::make(args, *mib, &[]);
        let mut vol = image.open();
        let groups = vol.sb.group_count();
        let free = vol.sb.raw.s_free_inodes_count.get();
        let mut made = Vec::new();
        for group in [0, groups - 1, groups / 2, groups - 1] {
            for is_dir in [false, true] {
                let ino = alloc::alloc_inode(&mut vol, GroupNo::new(group), is_dir).unwrap();
                assert!(ino > vol.sb.first_ino());
                assert!(!made.contains(&(ino, is_dir)));
                made.push((ino, is_dir));
            }
        }
        assert_eq!(vol.sb.raw.s_free_inodes_count.get(), free - made.len() as u32);
        for (ino, is_dir) in made {
            alloc::free_inode(&mut vol, ino, is_dir).unwrap();
            assert!(matches!(alloc::free_inode(&mut vol, ino, is_dir), Err(Error::Corrupt { .. })));
        }
        assert!(alloc::free_inode(&mut vol, Ino::new(2), true).is_err());
        commit(&mut vol);
        image.fsck(name);
    }
}

#[test]
fn metadata_and_free_blocks_are_not_freed() {
    let image = Image::make("-t ext4", 64, &[]);
    let mut vol = image.open();
    let table = vol.group(GroupNo::FIRST).unwrap().inode_table().get();
    for (block, len) in
        [(0, 1), (1, 1), (table + 3, 1), (vol.sb.blocks_count() - 1, 2), (u64::MAX, 1)]
    {
        let error = alloc::free_blocks(&mut vol, FsBlock::new(block), len).unwrap_err();
        assert!(matches!(error, Error::Corrupt { .. }), "{block}: {error}");
    }
    let (start, len) = alloc::alloc_blocks(&mut vol, FsBlock::default(), 100).unwrap();
    alloc::free_blocks(&mut vol, start, len).unwrap();
    assert!(alloc::free_blocks(&mut vol, start, len).is_err());
    // Blocks that this transaction freed are not given out while there are any others.
    let (again, _) = alloc::alloc_blocks(&mut vol, start, 1).unwrap();
    assert!(!(start..start + u64::from(len)).contains(&again));
}

#[test]
fn mappings_tell_holes() {
    let image = Image::make("-t ext4 -b 1024", 64, &[("f".into(), vec![1; 5000])]);
    let mut vol = image.open();
    let mut inode = vol.live_inode(image.ino("f")).unwrap();
    map::truncate(&mut vol, &mut inode, 10 << 30).unwrap();
    map::append(&mut vol, &mut inode, b"end").unwrap();
    let mut lblk = 0;
    let mut holes = 0;
    while lblk < (10 << 20) {
        lblk += match map::map(&vol, &inode, lblk).unwrap() {
            Mapping::Hole { len } => {
                holes += 1;
                len
            }
            Mapping::Data { len, .. } => len,
        };
    }
    assert!(holes <= 2);
    let mut buf = [0; 10];
    assert_eq!(map::read(&vol, &inode, 10 << 30, &mut buf).unwrap(), 3);
    assert_eq!(&buf[..3], b"end");
    vol.write_inode(&inode).unwrap();
    commit(&mut vol);
    image.fsck("sparse");
}

/// Files beyond 2 GiB, sparse, up to the last block that their map can name.
#[test]
fn huge_sparse_files() {
    for (args, largest) in [
        ("-t ext2 -b 1024 -O ^large_file", (12 + 256 + 256 * 256 + 256 * 256 * 256) * 1024u64),
        ("-t ext3 -b 4096 -I 128 -O ^large_file", (12 + 1024 + (1 << 20) + (1 << 30)) * 4096),
        ("-t ext4 -b 4096 -O ^large_file", u64::from(u32::MAX) * 4096),
        ("-t ext4 -b 1024", u64::from(u32::MAX) * 1024),
    ] {
        let image = Image::make(args, 32, &[("f".into(), vec![1; 5000])]);
        let mut vol = image.open();
        let mut inode = vol.live_inode(image.ino("f")).unwrap();
        let block = vol.block_size() as u64;
        let mut ends = Vec::new();
        // The last block of every level of a block map, and the first of the next.
        let per = block / 4;
        for edge in [12, 12 + per, 12 + per + per * per, largest / block - 1] {
            for lblk in [edge.saturating_sub(1), edge] {
                let at = lblk * block;
                if at < inode.size() || at >= largest {
                    continue;
                }
                map::truncate(&mut vol, &mut inode, at).unwrap();
                map::append(&mut vol, &mut inode, &[7; 100]).unwrap();
                ends.push(at);
            }
        }
        assert!(inode.size() > largest - 2 * block, "{args}");
        assert!(vol.sb.has_ro_compat(snf_fs::ext::internals::superblock::ro_compat::LARGE_FILE));
        vol.write_inode(&inode).unwrap();
        commit(&mut vol);
        image.fsck(args);
        let vol = image.open();
        for at in ends {
            let mut buf = [0; 101];
            map::read(&vol, &inode, at, &mut buf).unwrap();
            assert_eq!((buf[0], buf[99], buf[100]), (7, 7, 0), "{args} at {at}");
        }
        let mut vol = image.open();
        // One byte too much, and room for all that is left.
        assert!(matches!(map::truncate(&mut vol, &mut inode, largest + 1), Err(Error::NoSpace(_))));
        map::truncate(&mut vol, &mut inode, largest).unwrap();
        vol.write_inode(&inode).unwrap();
        commit(&mut vol);
        image.fsck(args);
        for size in [largest / 2, (12 + per + 5) * block, 12 * block, 3] {
            map::truncate(&mut vol, &mut inode, size).unwrap();
            vol.write_inode(&inode).unwrap();
            commit(&mut vol);
            image.fsck(args);
        }
        assert_eq!(content(&vol, &inode), [1; 3]);
        assert_eq!(inode.blocks_512(&vol.sb), block / 512);
    }
}

/// The cost of a small edit in blocks written.
#[test]
fn a_small_edit_touches_few_blocks() {
    let image = Image::make("-t ext4 -b 4096", 256, &files(300, 20_000, 1));
    let mut vol = image.open();
    let mut inode = vol.live_inode(image.ino("file7")).unwrap();
    map::replace(&mut vol, &mut inode, &[1; 1500]).unwrap();
    vol.write_inode(&inode).unwrap();
    snf_fs::ext::internals::journal::seal(&mut vol).unwrap();
    vol.store.seal();
    let transaction = &vol.store.transactions()[0];
    // Block bitmap, group descriptor, inode, superblock; and the content.
    assert_eq!((transaction.meta.len(), transaction.data.len()), (4, 1));
    let mut vol = image.open();
    let mut inode = vol.live_inode(image.ino("file7")).unwrap();
    map::truncate(&mut vol, &mut inode, 100).unwrap();
    commit(&mut vol);
    map::append(&mut vol, &mut inode, b"one more line\n").unwrap();
    vol.write_inode(&inode).unwrap();
    snf_fs::ext::internals::journal::seal(&mut vol).unwrap();
    vol.store.seal();
    // The block itself, through the journal, and the inode.
    vol.store.seal();
    let transaction = &vol.store.transactions()[0];
    assert_eq!((transaction.meta.len(), transaction.data.len()), (2, 0));
}

/// Files inside their inode: read, changed in place, moved out when they grow.
#[test]
fn inline_files() {
    for args in ["-t ext4 -O inline_data -I 256", "-t ext4 -b 1024 -O inline_data -I 512"] {
        let sizes = [0, 1, 59, 60, 61, 100, 130, 155, 161, 200, 400, 5000];
        let expected: Vec<(String, Vec<u8>)> = sizes
            .iter()
            .map(|&size| (format!("f{size}"), Random(size).bytes(size as usize)))
            .collect();
        let image = Image::make(args, 32, &expected);
        let mut inline = 0;
        for change in 0..5 {
            let mut vol = image.open();
            let mut wanted = Vec::new();
            for (name, bytes) in &expected {
                let mut inode = vol.live_inode(image.ino(name)).unwrap();
                inline += u32::from(!map::has_map(&inode));
                let old = content(&vol, &inode);
                if change == 0 {
                    assert!(old == *bytes, "{args}: {name}");
                }
                let mut new = old.clone();
                match change {
                    0 | 1 => {
                        new.extend_from_slice(b"0123456789012345");
                        map::append(&mut vol, &mut inode, b"0123456789012345").unwrap();
                    }
                    2 => {
                        new = Random(9).bytes(70);
                        map::replace(&mut vol, &mut inode, &new).unwrap();
                    }
                    3 => {
                        new.truncate(20);
                        map::truncate(&mut vol, &mut inode, 20).unwrap();
                    }
                    _ => {
                        new.resize(3000, 0);
                        map::truncate(&mut vol, &mut inode, 3000).unwrap();
                    }
                }
                vol.write_inode(&inode).unwrap();
                wanted.push(new);
            }
            commit(&mut vol);
            image.fsck(&format!("{args} change {change}"));
            for ((name, _), new) in expected.iter().zip(&wanted) {
                let inode = vol.live_inode(image.ino(name)).unwrap();
                assert!(content(&vol, &inode) == *new, "{args}: {name} change {change}");
                // debugfs gives all 60 bytes of i_block, whatever the size.
                let mut dump = image.dump(name);
                assert!(dump.iter().skip(new.len()).all(|&byte| byte == 0));
                dump.truncate(new.len());
                assert!(dump == *new, "{args}: debugfs on {name} change {change}");
            }
        }
        assert!(inline > 20, "{args}: only {inline} times inline");
    }
}

fn write_with_debugfs(image: &Image, request: &str) {
    support::run(
        std::process::Command::new("debugfs").args(["-w", "-R", request]).arg(&image.path),
    );
}

/// Freeing a swap file of 10 GiB takes neither long nor a record for every block.
#[test]
fn a_large_file_goes_quickly() {
    let image = Image::make("-t ext4 -b 4096 -J size=8", 16 << 10, &[("swap".into(), vec![1; 9])]);
    write_with_debugfs(&image, "fallocate swap 0 2621439");
    let mut vol = image.open();
    let mut inode = vol.live_inode(image.ino("swap")).unwrap();
    assert_eq!(inode.blocks_512(&vol.sb) >> 11, 10 << 10);
    let free = vol.sb.free_blocks_count();
    let start = std::time::Instant::now();
    map::replace(&mut vol, &mut inode, b"small").unwrap();
    assert!(start.elapsed().as_secs() < 60, "{:?}", start.elapsed());
    assert!(vol.sb.free_blocks_count() >= free + 2_621_439);
    vol.write_inode(&inode).unwrap();
    snf_fs::ext::internals::journal::seal(&mut vol).unwrap();
    vol.store.seal();
    // 81 bitmaps and their descriptors, not the file.
    assert!(vol.store.transactions()[0].meta.len() < 100);
    assert!(vol.store.transactions()[0].freed.within(0..u64::MAX).count() < 100);
    commit(&mut vol);
    image.fsck("swap");
}

/// Files of more than 2 TiB count their blocks in other units (huge_file).
#[test]
fn files_beyond_two_tebibytes() {
    // Clusters of 64 KiB, so that there are not so many bitmaps.
    let args = "-t ext4 -b 4096 -C 65536 -O bigalloc -J size=8 -N 30000";
    let image = Image::make(args, 3 << 20, &[("f".into(), vec![1; 9])]);
    write_with_debugfs(&image, "fallocate f 0 590000000");
    write_with_debugfs(&image, "sif f size 2416640004096");
    let mut vol = image.open();
    let mut inode = vol.live_inode(image.ino("f")).unwrap();
    let blocks = inode.blocks_512(&vol.sb);
    assert!(blocks > 1 << 32, "{blocks}");
    map::truncate(&mut vol, &mut inode, 589_999_000 * 4096).unwrap();
    map::append(&mut vol, &mut inode, &[5; 9_000]).unwrap();
    // Content, and a few nodes of the extent tree.
    let least = (589_999_000u64 + 3).next_multiple_of(16) * 8;
    assert!((least..least + 20_000).contains(&inode.blocks_512(&vol.sb)));
    vol.write_inode(&inode).unwrap();
    commit(&mut vol);
    image.fsck("huge_file");
}
