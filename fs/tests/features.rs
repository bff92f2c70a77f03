//! The table of docs/ext.md, cell by cell: one image for every feature, read and changed through
//! [`Ext`], judged by e2fsck and debugfs; and every refusal with its sentence.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs::File;
use std::process::Command;
use std::sync::Arc;

use snf_fs::ext::{Ext, Options};
use snf_fs::{Attributes, Error, FileDevice, FileSystem, NodeId, Timestamp};
use support::{Image, Random, run};

/// Feature as docs/ext.md names it, arguments of mke2fs, what is done to the image after.
const YES: &[(&str, &str, &str)] = &[
    ("ext2", "-t ext2", ""),
    ("ext2 revision 0", "-t ext2 -r 0 -b 1024", ""),
    ("ext3", "-t ext3 -I 128", ""),
    ("has_journal", "-t ext4", ""),
    ("^has_journal", "-t ext4 -O ^has_journal", ""),
    ("extent", "-t ext4 -O extent", ""),
    ("^extent", "-t ext4 -O ^extent,^64bit", ""),
    ("64bit", "-t ext4 -O 64bit", ""),
    ("^64bit", "-t ext4 -O ^64bit", ""),
    ("flex_bg", "-t ext4 -b 1024 -O flex_bg -G 4", ""),
    ("^flex_bg", "-t ext4 -b 1024 -O ^flex_bg", ""),
    ("uninit_bg", "-t ext4 -b 1024 -O ^metadata_csum,uninit_bg", ""),
    ("^uninit_bg", "-t ext4 -b 1024 -O ^metadata_csum,^uninit_bg", ""),
    ("metadata_csum", "-t ext4 -O metadata_csum", ""),
    ("metadata_csum_seed", "-t ext4 -O metadata_csum,metadata_csum_seed", "tune2fs -U random"),
    ("dir_index", "-t ext4 -b 1024 -O dir_index", ""),
    ("^dir_index", "-t ext4 -b 1024 -O ^dir_index", ""),
    ("hash legacy", "-t ext4 -b 1024", "tune2fs -E hash_alg=legacy"),
    ("hash half_md4", "-t ext4 -b 1024", "tune2fs -E hash_alg=half_md4"),
    ("hash tea", "-t ext4 -b 1024", "tune2fs -E hash_alg=tea"),
    ("hash unsigned", "-t ext4 -b 1024", "debugfs -w -R ssv+flags+2"),
    ("dir_nlink", "-t ext4 -O dir_nlink", ""),
    ("^dir_nlink", "-t ext4 -O ^dir_nlink", ""),
    ("large_dir", "-t ext4 -b 1024 -O large_dir", ""),
    ("filetype", "-t ext2 -O filetype", ""),
    ("^filetype", "-t ext2 -O ^filetype", ""),
    ("sparse_super", "-t ext4 -b 1024 -O sparse_super", ""),
    ("^sparse_super", "-t ext4 -b 1024 -O ^sparse_super,^resize_inode", ""),
    ("sparse_super2", "-t ext4 -b 1024 -O sparse_super2", ""),
    ("resize_inode", "-t ext4 -O resize_inode", ""),
    ("^resize_inode", "-t ext4 -O ^resize_inode", ""),
    ("meta_bg", "-t ext4 -b 1024 -O meta_bg,^resize_inode", ""),
    ("huge_file", "-t ext4 -O huge_file", ""),
    ("^huge_file", "-t ext4 -O ^huge_file", ""),
    ("large_file", "-t ext4 -O large_file", ""),
    ("^large_file", "-t ext4 -O ^large_file", ""),
    ("extra_isize", "-t ext4 -O extra_isize", ""),
    ("^extra_isize", "-t ext4 -O ^extra_isize", ""),
    ("inodes of 128 bytes", "-t ext4 -I 128", ""),
    ("inodes of 1024 bytes", "-t ext4 -I 1024", ""),
    ("ext_attr", "-t ext4 -O ext_attr", ""),
    ("^ext_attr", "-t ext4 -O ^ext_attr", ""),
    ("ea_inode", "-t ext4 -O ea_inode", ""),
    ("inline_data", "-t ext4 -O inline_data", ""),
    ("orphan_file", "-t ext4 -O orphan_file", ""),
    ("project", "-t ext4 -O project -I 256", ""),
    ("quota", "-t ext4 -O quota,project -E quotatype=usrquota:grpquota:prjquota", "e2fsck -fy"),
    ("verity", "-t ext4 -O verity", ""),
    ("stable_inodes", "-t ext4 -O stable_inodes", ""),
    ("casefold", "-t ext4 -O casefold -E encoding=utf8", ""),
    ("encrypt", "-t ext4 -O encrypt", ""),
    ("bigalloc", "-t ext4 -b 1024 -C 16384 -O bigalloc", ""),
    ("block size 1k", "-t ext4 -b 1024", ""),
    ("block size 2k", "-t ext4 -b 2048", ""),
    ("block size 4k", "-t ext4 -b 4096", ""),
    ("block size 8k", "-t ext4 -b 8192", ""),
    ("block size 64k", "-t ext4 -b 65536", ""),
    ("mmp", "-t ext4 -O mmp", ""),
    ("fast_commit", "-t ext4 -b 1024 -O fast_commit", ""),
    ("journal 64bit checksum v3", "-t ext4 -O 64bit,metadata_csum", ""),
];

const FILE: Attributes = Attributes { mode: 0o640, uid: 5, gid: 1000 };
const DIR: Attributes = Attributes { mode: 0o750, uid: 0, gid: 0 };

fn options() -> Options {
    Options { now: Timestamp { seconds: 1_760_000_000, nanoseconds: 5 }, seed: 3 }
}

fn open(image: &Image) -> Result<Ext, Error> {
    let file = File::options().read(true).write(true).open(&image.path).unwrap();
    Ext::open(Arc::new(FileDevice::from_file(file).unwrap()), options())
}

fn read(fs: &Ext, node: NodeId) -> Vec<u8> {
    let mut bytes = vec![0; fs.stat(node).unwrap().size as usize];
    assert_eq!(fs.read(node, 0, &mut bytes).unwrap(), bytes.len());
    bytes
}

fn find(fs: &Ext, path: &str) -> Option<NodeId> {
    path.split('/').try_fold(fs.root(), |dir, name| fs.lookup(dir, name.as_bytes()).unwrap())
}

fn tree() -> Vec<(String, Vec<u8>)> {
    let mut random = Random(17);
    let mut files: Vec<_> = [0, 10, 100, 5_000, 70_000, 400_000]
        .iter()
        .map(|&size| (format!("f{size}"), random.bytes(size)))
        .collect();
    files.extend((0..200).map(|i| (format!("a file with a longer name {i}"), vec![b'x'; i])));
    files
}

#[test]
fn every_feature_is_read_and_written() {
    for (feature, args, after) in YES {
        let files = tree();
        let image = Image::make_unchecked(args, 96, &files);
        if !after.is_empty() {
            let words: Vec<&str> = after.split(' ').collect();
            // A debugfs request is one argument.
            let words = words.iter().map(|word| word.replace('+', " "));
            let words: Vec<String> = words.collect();
            let (code, text) = run(Command::new(&words[0]).args(&words[1..]).arg(&image.path));
            assert!(code < Some(2), "{feature}: {after}: {text}");
        }
        image.fsck(feature);
        let mut fs = open(&image).unwrap_or_else(|error| panic!("{feature}: {error}"));
        for (name, bytes) in &files {
            let node = find(&fs, name).unwrap_or_else(|| panic!("{feature}: no {name}"));
            assert!(read(&fs, node) == *bytes, "{feature}: {name}");
        }
        let root = fs.root();
        assert_eq!(fs.readdir(root).unwrap().len(), files.len() + 1, "{feature}");

        let mut random = Random(18);
        let [small, large] = [random.bytes(50), random.bytes(300_000)];
        let dir = fs.mkdir(root, b"new", DIR).unwrap();
        for i in 0..150 {
            let node = fs.create(dir, format!("entry number {i}").as_bytes(), FILE).unwrap();
            fs.replace(node, if i % 50 == 0 { &large } else { &small }).unwrap();
        }
        fs.symlink(dir, b"link", b"/etc/short", FILE).unwrap();
        fs.symlink(dir, b"long link", &[b'l'; 200], FILE).unwrap();
        fs.replace(find(&fs, "f5000").unwrap(), &large).unwrap();
        fs.append(find(&fs, "f100").unwrap(), &small).unwrap();
        fs.append(find(&fs, "f400000").unwrap(), &large).unwrap();
        fs.unlink(root, b"f70000").unwrap();
        fs.rename(root, b"f10", dir, b"moved").unwrap();
        for i in 0..100 {
            fs.unlink(root, format!("a file with a longer name {i}").as_bytes()).unwrap();
        }
        let node = find(&fs, "new/entry number 3").unwrap();
        let xattr = fs.set_xattr(node, b"user.key", Some(b"value"));
        let has_xattr = *feature != "ext2 revision 0" && *feature != "^ext_attr";
        if has_xattr {
            xattr.unwrap_or_else(|error| panic!("{feature}: {error}"));
            fs.set_xattr(node, b"security.selinux", Some(&[b's'; 150])).unwrap();
        }
        fs.chown(node, 70_000, 70_000).unwrap();
        fs.commit().unwrap_or_else(|error| panic!("{feature}: {error}"));
        image.fsck(feature);

        let fs = open(&image).unwrap();
        let longer = [&files[2].1[..], &small].concat();
        assert!(read(&fs, find(&fs, "f5000").unwrap()) == large, "{feature}");
        assert!(read(&fs, find(&fs, "f100").unwrap()) == longer, "{feature}");
        assert!(image.dump("f5000") == large, "{feature}: debugfs");
        assert!(find(&fs, "f70000").is_none() && find(&fs, "f10").is_none(), "{feature}");
        assert_eq!(fs.readdir(find(&fs, "new").unwrap()).unwrap().len(), 153, "{feature}");
        assert!(image.dump("new/moved")[..10] == files[1].1, "{feature}: debugfs");
        let link = fs.read_link(find(&fs, "new/long link").unwrap()).unwrap();
        assert_eq!(link, [b'l'; 200], "{feature}");
        assert!(image.debugfs("stat \"/new/link\"").contains("/etc/short"), "{feature}");
        if has_xattr {
            let text = image.debugfs("ea_get \"/new/entry number 3\" user.key");
            assert!(text.contains("value"), "{feature}: {text}");
        }
    }
}

/// Sets a feature bit that mke2fs does not know.
fn with_bit(image: &Image, offset: u64, bit: u32) {
    use std::os::unix::fs::FileExt;
    let file = File::options().read(true).write(true).open(&image.path).unwrap();
    let mut word = [0; 4];
    file.read_exact_at(&mut word, 1024 + offset).unwrap();
    let word = u32::from_le_bytes(word) | bit;
    file.write_all_at(&word.to_le_bytes(), 1024 + offset).unwrap();
}

#[test]
fn refusals_name_the_feature_and_the_remedy() {
    const INCOMPAT: u64 = 0x60;
    const RO_COMPAT: u64 = 0x64;
    for (bit, name) in [
        (0x1, "compression"),
        (0x8, "journal_dev"),
        (0x1000, "dirdata"),
        (0x4000_0000, "0x40000000"),
    ] {
        let image = Image::make("-t ext4 -O ^metadata_csum", 32, &[]);
        with_bit(&image, INCOMPAT, bit);
        match open(&image) {
            Err(Error::Unsupported { what, remedy }) => {
                assert!(what.contains(name) && !remedy.is_empty(), "{what}; {remedy}");
            }
            other => panic!("{name}: {:?}", other.map(|_| ())),
        }
    }
    for (bit, name) in [(0x1000, "read-only"), (0x4000_0000, "0x40000000")] {
        let image = Image::make("-t ext4 -O ^metadata_csum", 32, &[("f".into(), vec![1; 100])]);
        with_bit(&image, RO_COMPAT, bit);
        let mut fs = open(&image).unwrap();
        let node = find(&fs, "f").unwrap();
        assert_eq!(read(&fs, node), [1; 100]);
        match fs.replace(node, b"no") {
            Err(Error::ReadOnly(text)) => assert!(text.contains(name), "{text}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

fn debugfs_write(image: &Image, request: &str) {
    run(Command::new("debugfs").args(["-w", "-R", request]).arg(&image.path));
}

#[test]
fn sealed_files_and_foreign_journals_are_refused() {
    let image = Image::make("-t ext4", 32, &[("f".into(), vec![1; 5000])]);
    for (flag, word, readable) in [(0x800, "encrypt", false), (0x10_0000, "verity", true)] {
        debugfs_write(&image, &format!("sif f flags {:#x}", 0x8_0000 | flag));
        let mut fs = open(&image).unwrap();
        let node = find(&fs, "f").unwrap();
        let mut buf = [0; 5000];
        assert_eq!(fs.read(node, 0, &mut buf).is_ok(), readable, "{word}");
        for result in [fs.replace(node, b"new"), fs.append(node, b"new")] {
            let text = result.unwrap_err().to_string();
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(!fs.is_dirty());
    }
    debugfs_write(&image, "sif f flags 0x80000");
    debugfs_write(&image, "ssv journal_inum 0");
    debugfs_write(&image, "ssv journal_dev 0x0801");
    let text = match open(&image) {
        Err(error) => error.to_string(),
        Ok(mut fs) => {
            let node = find(&fs, "f").unwrap();
            let result = fs.replace(node, b"new").and_then(|()| fs.commit().map(|_| ()));
            result.unwrap_err().to_string()
        }
    };
    assert!(text.contains("external journal"), "{text}");
}
