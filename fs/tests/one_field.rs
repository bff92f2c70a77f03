//! One field of a good image changed at a time, its checksum right again. The work that is then done to the
//! image must be refused with an error that names the field (or the one beside it that it no longer
//! fits), or it must be right: every other file reads as before, the changes are there, and all that
//! again after the commit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod fuzz;
mod journal_support;
mod support;

use std::sync::Arc;

use fuzz::corpus::{self, Corpus};
use fuzz::device::Patched;
use fuzz::fixup::Place;
use snf_fs::ext::{Ext, Options};
use snf_fs::{Attributes, BlockDevice, Error, FileSystem, NodeId, Timestamp};

/// A field: its name, byte and width, and what an error about it may name instead.
type Field = (&'static str, usize, usize, &'static [&'static str]);

const SUPERBLOCK: &[Field] = &[
    ("s_inodes_count", 0x0, 4, &[]),
    ("s_blocks_count", 0x4, 4, &["s_inodes_count", "bg_free_blocks_count"]),
    ("s_r_blocks_count_lo", 0x8, 4, &[]),
    ("s_free_blocks_count_lo", 0xC, 4, &["s_free_blocks_count is"]),
    ("s_free_inodes_count", 0x10, 4, &[]),
    ("s_first_data_block", 0x14, 4, &[]),
    ("s_log_block_size", 0x18, 4, &["s_first_data_block", "s_blocks_count"]),
    ("s_log_cluster_size", 0x1C, 4, &[]),
    (
        "s_blocks_per_group",
        0x20,
        4,
        &["s_inodes_count", "bg_block_bitmap_csum", "bg_free_blocks_count"],
    ),
    ("s_clusters_per_group", 0x24, 4, &[]),
    ("s_inodes_per_group", 0x28, 4, &["s_inodes_count"]),
    ("s_mtime", 0x2C, 4, &[]),
    ("s_wtime", 0x30, 4, &[]),
    ("s_mnt_count", 0x34, 2, &[]),
    ("s_max_mnt_count", 0x36, 2, &[]),
    ("s_magic", 0x38, 2, &[]),
    ("s_state", 0x3A, 2, &["not unmounted cleanly"]),
    ("s_errors", 0x3C, 2, &[]),
    ("s_minor_rev_level", 0x3E, 2, &[]),
    ("s_lastcheck", 0x40, 4, &[]),
    ("s_creator_os", 0x48, 4, &[]),
    ("s_rev_level", 0x4C, 4, &["inode 8"]),
    ("s_first_ino", 0x54, 4, &["reserved inode"]),
    ("s_inode_size", 0x58, 2, &[]),
    ("s_block_group_nr", 0x5A, 2, &[]),
    ("s_feature_compat", 0x5C, 4, &[]),
    ("s_feature_incompat", 0x60, 4, &["incompatible feature", "journal_dev", "bg_checksum"]),
    ("s_feature_ro_compat", 0x64, 4, &["ro_compat", "s_checksum_type"]),
    ("s_uuid", 0x68, 4, &["bg_checksum"]),
    ("s_volume_name", 0x78, 8, &[]),
    ("s_reserved_gdt_blocks", 0xCE, 2, &["descriptors lie in it", "file system's own free"]),
    ("s_journal_uuid", 0xD0, 4, &[]),
    ("s_journal_inum", 0xE0, 4, &["s_journal_dev", "corrupt journal"]),
    ("s_journal_dev", 0xE4, 4, &[]),
    ("s_last_orphan", 0xE8, 4, &[]),
    ("s_def_hash_version", 0xFC, 1, &[]),
    ("s_jnl_backup_type", 0xFD, 1, &[]),
    ("s_desc_size", 0xFE, 2, &[]),
    ("s_default_mount_opts", 0x100, 4, &[]),
    ("s_first_meta_bg", 0x104, 4, &[]),
    ("s_jnl_blocks", 0x10C, 8, &[]),
    ("s_blocks_count_hi", 0x150, 4, &["s_blocks_count"]),
    ("s_r_blocks_count_hi", 0x154, 4, &[]),
    ("s_free_blocks_count_hi", 0x158, 4, &[]),
    ("s_min_extra_isize", 0x15C, 2, &[]),
    ("s_want_extra_isize", 0x15E, 2, &[]),
    ("s_flags", 0x160, 4, &[]),
    ("s_raid_stride", 0x164, 2, &[]),
    ("s_mmp_interval", 0x166, 2, &[]),
    ("s_mmp_block", 0x168, 8, &[]),
    ("s_log_groups_per_flex", 0x174, 1, &[]),
    ("s_checksum_type", 0x175, 1, &[]),
    ("s_encryption_level", 0x176, 1, &[]),
    ("s_kbytes_written", 0x178, 8, &[]),
    ("s_error_count", 0x194, 4, &[]),
    ("s_usr_quota_inum", 0x240, 4, &[]),
    ("s_overhead_clusters", 0x248, 4, &[]),
    ("s_backup_bgs", 0x24C, 4, &[]),
    ("s_lpf_ino", 0x268, 4, &[]),
    ("s_prj_quota_inum", 0x26C, 4, &[]),
    ("s_checksum_seed", 0x270, 4, &[]),
    ("s_encoding", 0x27C, 2, &[]),
    ("s_orphan_file_inum", 0x280, 4, &[]),
    ("s_reserved", 0x284, 8, &[]),
];

const DESCRIPTOR: &[Field] = &[
    ("bg_block_bitmap", 0x0, 4, &["corrupt block bitmap"]),
    ("bg_inode_bitmap", 0x4, 4, &["corrupt inode bitmap", "file system's own free"]),
    ("bg_inode_table", 0x8, 4, &["i_checksum", "inode 8"]),
    ("bg_free_blocks_count", 0xC, 2, &[]),
    ("bg_free_inodes_count", 0xE, 2, &["inodes are in use"]),
    ("bg_used_dirs_count", 0x10, 2, &[]),
    ("bg_flags", 0x12, 2, &["flagged INODE_UNINIT"]),
    ("bg_exclude_bitmap_lo", 0x14, 4, &[]),
    ("bg_block_bitmap_csum", 0x18, 2, &[]),
    ("bg_inode_bitmap_csum", 0x1A, 2, &[]),
    ("bg_itable_unused", 0x1C, 2, &[]),
    ("bg_block_bitmap", 0x20, 4, &["corrupt block bitmap"]),
    ("bg_inode_bitmap", 0x24, 4, &["corrupt inode bitmap"]),
    ("bg_inode_table", 0x28, 4, &[]),
    ("bg_free_blocks_count", 0x2C, 2, &[]),
    ("bg_free_inodes_count", 0x2E, 2, &[]),
    ("bg_used_dirs_count", 0x30, 2, &[]),
    ("bg_itable_unused", 0x32, 2, &[]),
    ("bg_exclude_bitmap_hi", 0x34, 4, &[]),
    ("bg_block_bitmap_csum", 0x38, 2, &[]),
    ("bg_inode_bitmap_csum", 0x3A, 2, &[]),
    ("bg_reserved", 0x3C, 4, &[]),
];

const INODE: &[Field] = &[
    ("i_mode", 0x0, 2, &[]),
    ("i_uid", 0x2, 2, &[]),
    ("i_size", 0x4, 4, &[]),
    ("i_atime", 0x8, 4, &[]),
    ("i_ctime", 0xC, 4, &[]),
    ("i_mtime", 0x10, 4, &[]),
    ("i_dtime", 0x14, 4, &[]),
    ("i_gid", 0x18, 2, &[]),
    ("i_links_count", 0x1A, 2, &[]),
    ("i_blocks", 0x1C, 4, &[]),
    ("i_flags", 0x20, 4, &["block map", "encrypt"]),
    ("i_version", 0x24, 4, &[]),
    ("eh_magic", 0x28, 2, &[]),
    ("eh_entries", 0x2A, 2, &["ee_len of extent 1"]),
    ("eh_max", 0x2C, 2, &[]),
    ("eh_depth", 0x2E, 2, &["ei_leaf"]),
    ("eh_generation", 0x30, 4, &[]),
    ("ee_block", 0x34, 4, &["extent 0 is for blocks"]),
    ("ee_len", 0x38, 2, &["i_blocks", "is to be freed", "ee_start"]),
    ("ee_start", 0x3A, 2, &[]),
    ("ee_start", 0x3C, 4, &["is to be freed"]),
    ("i_generation", 0x64, 4, &[]),
    ("i_file_acl", 0x68, 4, &["h_magic"]),
    ("i_size", 0x6C, 4, &[]),
    ("i_blocks", 0x74, 2, &[]),
    ("i_file_acl", 0x76, 2, &[]),
    ("i_uid", 0x78, 2, &[]),
    ("i_gid", 0x7A, 2, &[]),
    ("i_extra_isize", 0x80, 2, &[]),
    ("i_ctime_extra", 0x84, 4, &[]),
    ("i_crtime", 0x90, 4, &[]),
    ("i_projid", 0x9C, 4, &[]),
];

const FILE: Attributes = Attributes { mode: 0o600, uid: 0, gid: 0 };
/// The file whose inode is damaged, and that is replaced.
const VICTIM: &str = "file 5";
const OTHERS: [&str; 6] = ["file 0", "file 1", "file 2", "file 3", "file 4", "pieces"];
const NEW: [u8; 9_000] = [7; 9_000];

fn open(device: &Arc<Patched>) -> Result<Ext, Error> {
    let shared: Arc<dyn BlockDevice> = device.clone();
    let now = Timestamp { seconds: 1_760_000_000, nanoseconds: 0 };
    Ext::open(shared, Options { now, seed: 1 })
}

fn find(fs: &Ext, name: &str) -> Result<NodeId, Error> {
    let found = fs.lookup(fs.root(), name.as_bytes())?;
    Ok(found.unwrap_or_else(|| panic!("{name} is gone")))
}

fn content(fs: &Ext, name: &str) -> Result<Vec<u8>, Error> {
    let node = find(fs, name)?;
    let mut bytes = vec![0; fs.stat(node)?.size as usize];
    let count = fs.read(node, 0, &mut bytes)?;
    assert_eq!(count, bytes.len(), "{name}");
    Ok(bytes)
}

fn others(fs: &Ext) -> Result<Vec<Vec<u8>>, Error> {
    OTHERS.iter().map(|name| content(fs, name)).collect()
}

/// Reads, changes, commits and reads again: an error, or everything was right.
fn use_all(device: &Arc<Patched>, good: &[Vec<u8>]) -> Result<(), Error> {
    let mut fs = open(device)?;
    assert!(others(&fs)? == good, "a file reads as something else");
    let victim = find(&fs, VICTIM)?;
    fs.replace(victim, &NEW)?;
    let root = fs.root();
    let dir = fs.mkdir(root, b"new", FILE)?;
    for n in 0..20 {
        let node = fs.create(dir, format!("new {n}").as_bytes(), FILE)?;
        fs.append(node, &NEW[..n * 100])?;
    }
    fs.set_xattr(victim, b"user.new", Some(&NEW[..300]))?;
    fs.commit()?;
    let fs = open(device)?;
    assert!(others(&fs)? == good, "a file reads as something else after the commit");
    assert!(content(&fs, VICTIM)? == NEW, "the new content is not there");
    let dir = find(&fs, "new")?;
    assert_eq!(fs.readdir(dir)?.len(), 20);
    Ok(())
}

fn values(old: u64, width: usize) -> Vec<u64> {
    let bits = width as u32 * 8;
    let max = u64::MAX >> (64 - bits);
    let mut all = vec![0, 1, max, max >> 1, old.wrapping_add(1) & max, old.wrapping_sub(1) & max];
    all.extend((0..bits).step_by(3).map(|bit| old ^ 1 << bit));
    all.retain(|value| *value != old);
    all.sort_unstable();
    all.dedup();
    all
}

fn try_fields(corpus: &Corpus, place: Place, fields: &[Field]) -> (usize, Vec<String>) {
    let good = others(&open(&corpus.device()).unwrap()).unwrap();
    use_all(&corpus.device(), &good).unwrap();
    let (start, length) = corpus.fixup.range(place);
    let (mut refused, mut bad) = (0, Vec::new());
    for &(name, at, width, also) in fields {
        if at + width > length {
            continue;
        }
        let mut word = [0; 8];
        word[..width].copy_from_slice(&corpus.device().bytes(start + at as u64, width));
        for value in values(u64::from_le_bytes(word), width) {
            let device = corpus.device();
            let mut bytes = device.bytes(start, length);
            bytes[at..at + width].copy_from_slice(&value.to_le_bytes()[..width]);
            corpus.fixup.seal(&device, place, &mut bytes);
            device.write_at(start, &bytes).unwrap();
            let work = std::panic::AssertUnwindSafe(|| use_all(&device, &good));
            let what = format!("{} {name} = {value:#x}", corpus.name);
            match std::panic::catch_unwind(work) {
                Ok(Ok(())) => {}
                Ok(Err(Error::Device(error))) => bad.push(format!("{what}: {error}")),
                Ok(Err(error)) => {
                    refused += 1;
                    let text = error.to_string();
                    if !text.contains(name) && !also.iter().any(|word| text.contains(word)) {
                        bad.push(format!("{what}: {text}"));
                    }
                }
                Err(_) => bad.push(format!("{what}: wrong, see above")),
            }
        }
    }
    (refused, bad)
}

fn check(place: impl Fn(&Corpus) -> Place, fields: &[Field], at_least: usize) {
    for name in ["ext4 checksums", "ext4 plain"] {
        let corpus = corpus::one(name);
        let (refused, bad) = try_fields(&corpus, place(&corpus), fields);
        println!("{name}: {refused} refused");
        assert!(bad.is_empty(), "{} of {name}:\n{}", bad.len(), bad.join("\n"));
        assert!(refused > at_least, "{name}: only {refused} refused");
    }
}

#[test]
fn each_field_of_the_superblock() {
    check(|_| Place::Superblock, SUPERBLOCK, 100);
}

#[test]
fn each_field_of_a_group_descriptor() {
    check(|_| Place::Descriptor(0), DESCRIPTOR, 30);
}

#[test]
fn each_field_of_an_inode() {
    let place = |corpus: &Corpus| {
        let fs = open(&corpus.device()).unwrap();
        Place::Inode(find(&fs, VICTIM).unwrap().0 as u32)
    };
    check(place, INODE, 20);
}
