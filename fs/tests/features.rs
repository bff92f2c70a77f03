//! The table of docs/ext.md, row by row: images with the feature are read, changed and enlarged through
//! [`Ext`], judged by e2fsck and debugfs; and every refusal has its sentence. The rows here and those
//! of the page are the same, or the first test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::journal_support::{Mount, at_one_moment, set_journal_features};
use crate::support::{Image, Random, run};
use snf_fs::ext::{Ext, Options};
use snf_fs::{Attributes, Error, FileDevice, FileSystem, NodeId, Timestamp};

/// The change of an image after mke2fs.
#[derive(Clone, Copy)]
enum Then {
    Nothing,
    /// A program and its arguments; the image follows.
    Run(&'static [&'static str]),
    /// The hash of new directories, and `s_flags`: 1 signed, 2 unsigned.
    Hash(&'static str, &'static str),
    /// The journal's superblock gets these features (compatible, incompatible), as by a mount.
    Journal(u32, u32),
    /// It is copied from under a busy mount.
    Busy,
}

/// A row: the feature as docs/ext.md names it, and the images that prove it, each by the arguments
/// of mke2fs and what is done after.
type Row = (&'static str, &'static [(&'static str, Then)]);

use Then::{Busy, Hash, Journal, Nothing, Run};

/// Rows that say "yes" three times.
const YES: &[Row] = &[
    ("ext2, revision 0 and 1", &[("-t ext2", Nothing), ("-t ext2 -r 0 -b 1024", Nothing)]),
    ("ext3, inodes of 128 bytes", &[("-t ext3 -I 128", Nothing), ("-t ext3 -b 1024", Nothing)]),
    ("`has_journal`", &[("-t ext4", Nothing), ("-t ext4 -O ^has_journal", Nothing)]),
    (
        "journal with checksums v1, v2, v3",
        &[
            ("-t ext3", Journal(1, 1)),
            ("-t ext4 -O 64bit", Journal(0, 0xB)),
            ("-t ext4 -O 64bit", Journal(0, 0x13)),
        ],
    ),
    (
        "journal with 64-bit numbers",
        &[
            ("-t ext4 -O 64bit,^metadata_csum", Journal(0, 0x3)),
            ("-t ext4 -O ^64bit", Journal(0, 0x11)),
        ],
    ),
    (
        "journal with async_commit",
        &[("-t ext4 -O ^metadata_csum", Journal(1, 0x5)), ("-t ext4 -O 64bit", Journal(0, 0x17))],
    ),
    (
        "`needs_recovery`",
        &[
            ("-t ext3 -I 128", Busy),
            ("-t ext4 -O ^orphan_file", Busy),
            ("-t ext4 -b 1024 -O ^64bit,^metadata_csum", Busy),
        ],
    ),
    ("`fast_commit`", &[("-t ext4 -b 1024 -O fast_commit", Nothing)]),
    ("`extent`", &[("-t ext4 -O extent", Nothing), ("-t ext4 -O ^extent,^64bit", Nothing)]),
    ("`64bit`", &[("-t ext4 -O 64bit", Nothing), ("-t ext4 -O ^64bit", Nothing)]),
    (
        "`flex_bg`",
        &[("-t ext4 -b 1024 -O flex_bg -G 4", Nothing), ("-t ext4 -b 1024 -O ^flex_bg", Nothing)],
    ),
    (
        "`uninit_bg` (gdt_csum)",
        &[
            ("-t ext4 -b 1024 -O ^metadata_csum,uninit_bg", Nothing),
            ("-t ext4 -b 1024 -O ^metadata_csum,^uninit_bg", Nothing),
        ],
    ),
    ("`metadata_csum`", &[("-t ext4 -O metadata_csum", Nothing)]),
    (
        "`metadata_csum_seed`",
        &[("-t ext4 -O metadata_csum,metadata_csum_seed", Run(&["tune2fs", "-U", "random"]))],
    ),
    ("`meta_bg`", &[("-t ext4 -b 1024 -O meta_bg,^resize_inode", Nothing)]),
    (
        "`resize_inode`",
        &[("-t ext4 -O resize_inode", Nothing), ("-t ext4 -O ^resize_inode", Nothing)],
    ),
    (
        "`sparse_super`",
        &[
            ("-t ext4 -b 1024 -O sparse_super", Nothing),
            ("-t ext4 -b 1024 -O ^sparse_super,^resize_inode", Nothing),
        ],
    ),
    ("`sparse_super2`", &[("-t ext4 -b 1024 -O sparse_super2", Nothing)]),
    ("`bigalloc`", &[("-t ext4 -b 1024 -C 16384 -O bigalloc", Nothing)]),
    (
        "block sizes 1k, 2k, 4k",
        &[
            ("-t ext4 -b 1024", Nothing),
            ("-t ext4 -b 2048", Nothing),
            ("-t ext4 -b 4096", Nothing),
            // Groups so small that the reserved inodes are in two of them.
            ("-t ext4 -b 1024 -g 256 -N 3072 -O ^resize_inode", Nothing),
        ],
    ),
    (
        "block sizes 8k to 64k",
        &[
            ("-t ext4 -b 8192", Nothing),
            ("-t ext4 -b 16384", Nothing),
            ("-t ext4 -b 65536", Nothing),
        ],
    ),
    (
        "`dir_index`",
        &[("-t ext4 -b 1024 -O dir_index", Nothing), ("-t ext4 -b 1024 -O ^dir_index", Nothing)],
    ),
    (
        "hashes legacy, half_md4, tea, signed and unsigned",
        &[
            ("-t ext4 -b 1024", Hash("legacy", "1")),
            ("-t ext4 -b 1024", Hash("legacy", "2")),
            ("-t ext4 -b 1024", Hash("half_md4", "1")),
            ("-t ext4 -b 1024", Hash("half_md4", "2")),
            ("-t ext4 -b 1024", Hash("tea", "1")),
            ("-t ext4 -b 1024", Hash("tea", "2")),
        ],
    ),
    ("`large_dir`", &[("-t ext4 -b 1024 -O large_dir", Nothing)]),
    ("`dir_nlink`", &[("-t ext4 -O dir_nlink", Nothing), ("-t ext4 -O ^dir_nlink", Nothing)]),
    ("`filetype`", &[("-t ext2 -O filetype", Nothing), ("-t ext2 -O ^filetype", Nothing)]),
    ("`huge_file`", &[("-t ext4 -O huge_file", Nothing), ("-t ext4 -O ^huge_file", Nothing)]),
    ("`large_file`", &[("-t ext4 -O large_file", Nothing), ("-t ext4 -O ^large_file", Nothing)]),
    (
        "`extra_isize`, inodes of 128 bytes to a block",
        &[
            ("-t ext4 -O extra_isize", Nothing),
            ("-t ext4 -O ^extra_isize", Nothing),
            ("-t ext4 -I 128", Nothing),
            ("-t ext4 -I 1024", Nothing),
        ],
    ),
    ("`ext_attr`", &[("-t ext4 -O ext_attr", Nothing), ("-t ext4 -O ^ext_attr", Nothing)]),
    ("`ea_inode`", &[("-t ext4 -O ea_inode", Nothing)]),
    (
        "`inline_data`",
        &[("-t ext4 -O inline_data", Nothing), ("-t ext4 -O inline_data -I 1024", Nothing)],
    ),
    ("`orphan_file`", &[("-t ext4 -O orphan_file", Nothing), ("-t ext4 -O orphan_file", Busy)]),
    ("orphans to be cleaned up", &[("-t ext4 -O ^orphan_file", Busy)]),
    ("`project`", &[("-t ext4 -O project -I 256", Nothing)]),
    (
        "`quota`",
        &[(
            "-t ext4 -O quota,project -E quotatype=usrquota:grpquota:prjquota",
            Run(&["e2fsck", "-fy"]),
        )],
    ),
    ("`verity`", &[("-t ext4 -O verity", Nothing)]),
    ("`stable_inodes`", &[("-t ext4 -O stable_inodes", Nothing)]),
    ("`casefold`", &[("-t ext4 -O casefold -E encoding=utf8", Nothing)]),
    ("`encrypt`", &[("-t ext4 -O encrypt", Nothing)]),
    ("`mmp`", &[("-t ext4 -O mmp", Nothing)]),
];

/// The other rows: read, write, grow.
const NO: &[(&str, [&str; 3])] = &[
    ("encrypted files and directories", ["refused", "refused", "yes"]),
    ("fast commits that wait for replay", ["refused", "refused", "refused"]),
    ("external journal", ["refused", "refused", "refused"]),
    (
        "`compression`, `dirdata`, `journal_dev`, unknown incompat",
        ["refused", "refused", "refused"],
    ),
    ("`read-only`, unknown ro_compat", ["yes", "refused", "refused"]),
];

#[test]
fn the_page_has_these_rows() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/ext.md");
    let page = std::fs::read_to_string(page).unwrap();
    let table = page.lines().skip_while(|line| !line.starts_with("| feature")).skip(2);
    let there: Vec<Vec<&str>> = table
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.split('|').skip(1).take(4).map(str::trim).collect())
        .collect();
    let yes = YES.iter().map(|(feature, _)| vec![*feature, "yes", "yes", "yes"]);
    let no = NO.iter().map(|(feature, cells)| [&[*feature], &cells[..]].concat());
    let here: Vec<Vec<&str>> = yes.chain(no).collect();
    for (page, test) in there.iter().zip(&here) {
        assert_eq!(page, test, "docs/ext.md (left) and this file (right)");
    }
    assert_eq!(there.len(), here.len());
}

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
    // Bytes above 127 make signed and unsigned hashes differ.
    files.extend((0..200).map(|i| (format!("un fichier nommé {i}"), vec![b'x'; i])));
    files
}

/// Makes the image of one cell; whether its journal is dirty.
fn make(args: &str, then: Then, files: &[(String, Vec<u8>)]) -> (Image, bool) {
    let image = Image::make_unchecked(args, 96, files);
    let tool = |words: &[&str]| {
        let (code, text) = run(Command::new(words[0]).args(&words[1..]).arg(&image.path));
        assert!(code < Some(2), "{args}: {words:?}: {text}");
    };
    match then {
        Nothing => {}
        Run(words) => tool(words),
        Hash(algorithm, flags) => {
            tool(&["tune2fs", "-E", &format!("hash_alg={algorithm}")]);
            tool(&["debugfs", "-w", "-R", &format!("ssv flags {flags}")]);
        }
        Journal(compat, incompat) => {
            let mut bytes = std::fs::read(&image.path).unwrap();
            set_journal_features(&mut bytes, compat, incompat);
            std::fs::write(&image.path, bytes).unwrap();
        }
        Busy => {
            let mount = Mount::new(&image.path, image.path.with_extension("mnt"), "rw");
            std::fs::create_dir(mount.0.join("busy")).unwrap();
            for i in 0..40 {
                std::fs::write(mount.0.join(format!("busy/{i}")), vec![i; 3000]).unwrap();
            }
            let mut orphan = File::create(mount.0.join("orphan")).unwrap();
            orphan.write_all(&[1; 70_000]).unwrap();
            std::fs::remove_file(mount.0.join("orphan")).unwrap();
            orphan.sync_all().unwrap();
            File::open(mount.0.join("busy/39")).unwrap().sync_all().unwrap();
            let copy = at_one_moment(&image.path);
            drop(orphan);
            drop(mount);
            std::fs::write(&image.path, copy).unwrap();
        }
    }
    let busy = matches!(then, Busy);
    if !busy {
        image.fsck(args);
    }
    (image, busy)
}

#[test]
fn every_feature_is_read_written_and_grown() {
    let cells: Vec<_> =
        YES.iter().flat_map(|(row, images)| images.iter().map(move |cell| (row, cell))).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((row, (args, then))) =
                    cells.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    prove(&format!("{row} ({args})"), args, *then);
                }
            });
        }
    });
}

/// Reads, writes and enlarges one image.
fn prove(feature: &str, args: &str, then: Then) {
    let files = tree();
    let (image, busy) = make(args, then, &files);
    if !busy {
        debugfs_write(&image, "sif f5000 generation 77");
    }
    let mut fs = open(&image).unwrap_or_else(|error| panic!("{feature}: {error}"));
    assert_eq!(fs.was_replayed(), busy, "{feature}");
    for (name, bytes) in &files {
        let node = find(&fs, name).unwrap_or_else(|| panic!("{feature}: no {name}"));
        assert!(read(&fs, node) == *bytes, "{feature}: {name}");
    }
    let root = fs.root();
    let entries = files.len() + 1 + usize::from(busy);
    assert_eq!(fs.readdir(root).unwrap().len(), entries, "{feature}");
    if busy {
        assert_eq!(read(&fs, find(&fs, "busy/39").unwrap()), [39; 3000], "{feature}");
    }

    let mut random = Random(18);
    let [small, large] = [random.bytes(50), random.bytes(300_000)];
    let dir = fs.mkdir(root, b"new", DIR).unwrap();
    for i in 0..150 {
        let node = fs.create(dir, format!("entrée numéro {i}").as_bytes(), FILE).unwrap();
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
        fs.unlink(root, format!("un fichier nommé {i}").as_bytes()).unwrap();
    }
    let node = find(&fs, "new/entrée numéro 3").unwrap();
    let xattr = fs.set_xattr(node, b"user.key", Some(b"value"));
    let has_xattr = !args.contains("-r 0") && !args.contains("^ext_attr");
    if has_xattr {
        xattr.unwrap_or_else(|error| panic!("{feature}: {error}"));
        fs.set_xattr(node, b"security.selinux", Some(&[b's'; 150])).unwrap();
    }
    fs.chown(node, 70_000, 70_000).unwrap();
    fs.commit().unwrap_or_else(|error| panic!("{feature}: {error}"));
    image.fsck(feature);

    let longer = [&files[2].1[..], &small].concat();
    let check = |fs: &Ext| {
        assert!(read(fs, find(fs, "f5000").unwrap()) == large, "{feature}");
        assert!(read(fs, find(fs, "f100").unwrap()) == longer, "{feature}");
        assert!(find(fs, "f70000").is_none() && find(fs, "f10").is_none(), "{feature}");
        assert_eq!(fs.readdir(find(fs, "new").unwrap()).unwrap().len(), 153, "{feature}");
        for (name, bytes) in &files[106..] {
            assert!(read(fs, find(fs, name).unwrap()) == *bytes, "{feature}: {name}");
        }
        let link = fs.read_link(find(fs, "new/long link").unwrap()).unwrap();
        assert_eq!(link, [b'l'; 200], "{feature}");
    };
    check(&open(&image).unwrap());
    assert!(image.dump("f5000") == large, "{feature}: debugfs");
    let kept = image.debugfs("stat /f5000").contains("Generation: 77 ");
    assert!(kept || busy, "{feature}: i_generation of a replaced file");
    assert!(image.dump("new/moved")[..10] == files[1].1, "{feature}: debugfs");
    assert!(image.debugfs("stat \"/new/link\"").contains("/etc/short"), "{feature}");
    if has_xattr {
        let text = image.debugfs("ea_get \"/new/entrée numéro 3\" user.key");
        assert!(text.contains("value"), "{feature}: {text}");
    }

    File::options().write(true).open(&image.path).unwrap().set_len(160 << 20).unwrap();
    let mut fs = open(&image).unwrap();
    let report = fs.grow(None).unwrap_or_else(|error| panic!("{feature}: {error}"));
    assert!(report.new_blocks > report.old_blocks * 8 / 5, "{feature}: {report:?}");
    let node = fs.create(fs.root(), b"after", FILE).unwrap();
    fs.replace(node, &large).unwrap();
    fs.commit().unwrap_or_else(|error| panic!("{feature}: grown: {error}"));
    image.fsck(&format!("{feature}: grown"));
    let fs = open(&image).unwrap();
    check(&fs);
    assert!(read(&fs, find(&fs, "after").unwrap()) == large, "{feature}: grown");
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
fn unknown_features_are_refused_by_name_with_the_remedy() {
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
    for (bit, name) in
        [(0x1000, "read-only"), (0x4000, "shared_blocks"), (0x4000_0000, "0x40000000")]
    {
        let image = Image::make("-t ext4 -O ^metadata_csum", 32, &[("f".into(), vec![1; 100])]);
        with_bit(&image, RO_COMPAT, bit);
        File::options().write(true).open(&image.path).unwrap().set_len(64 << 20).unwrap();
        let mut fs = open(&image).unwrap();
        let node = find(&fs, "f").unwrap();
        assert_eq!(read(&fs, node), [1; 100]);
        for result in [fs.replace(node, b"no"), fs.grow(None).map(|_| ())] {
            match result {
                Err(Error::ReadOnly(text)) => assert!(text.contains(name), "{text}"),
                other => panic!("{name}: {other:?}"),
            }
        }
        assert!(!fs.is_dirty());
    }
}

fn debugfs_write(image: &Image, request: &str) {
    run(Command::new("debugfs").args(["-w", "-R", request]).arg(&image.path));
}

#[test]
fn sealed_files_and_foreign_journals_are_refused() {
    let image = Image::make("-t ext4", 32, &[("f".into(), vec![1; 5000])]);
    debugfs_write(&image, "mkdir d");
    for (flag, word, readable) in [(0x800, "encrypt", false), (0x10_0000, "verity", true)] {
        debugfs_write(&image, &format!("sif f flags {:#x}", 0x8_0000 | flag));
        debugfs_write(&image, &format!("sif d flags {:#x}", 0x8_0000 | flag));
        let mut fs = open(&image).unwrap();
        let node = find(&fs, "f").unwrap();
        let mut buf = [0; 5000];
        assert_eq!(fs.read(node, 0, &mut buf).is_ok(), readable, "{word}");
        let mut results = vec![fs.replace(node, b"new"), fs.append(node, b"new")];
        if !readable {
            let dir = find(&fs, "d").unwrap();
            results.push(fs.create(dir, b"new", FILE).map(|_| ()));
            results.push(fs.lookup(dir, b"old").map(|_| ()));
        }
        for result in results {
            let text = result.unwrap_err().to_string();
            assert!(text.contains(word), "{word}: {text}");
        }
        assert!(!fs.is_dirty());
    }
    // Growing moves nothing of them.
    File::options().write(true).open(&image.path).unwrap().set_len(64 << 20).unwrap();
    debugfs_write(&image, "sif d flags 0x80800");
    let mut fs = open(&image).unwrap();
    assert!(fs.grow(None).unwrap().new_blocks > 1 << 15);
    fs.commit().unwrap();

    debugfs_write(&image, "sif f flags 0x80000");
    debugfs_write(&image, "ssv journal_inum 0");
    debugfs_write(&image, "ssv journal_dev 0x0801");
    match open(&image).map(|_| ()) {
        Err(Error::Unsupported { what, remedy }) => {
            assert!(what.contains("external journal"), "{what}");
            assert!(remedy.contains("tune2fs -O ^has_journal"), "{remedy}");
        }
        other => panic!("{other:?}"),
    }
}
