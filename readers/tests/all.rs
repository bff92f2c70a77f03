//! The work of our engines, as readers of other authors see it: the crates ext4-view and ntfs. They
//! share no code and no author with us, so that a fault in our idea of a format does not hide in a
//! reader of ours that has the same fault.

#[path = "../../fs/tests/ntfs_support/mod.rs"]
mod ntfs_support;
#[path = "../../fs/tests/oracle/mod.rs"]
mod oracle;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};

use ext4_view::{Ext4, FileType as ViewType};
use ntfs::structured_values::NtfsFileNamespace;
use ntfs::{Ntfs as Reader, NtfsReadSeek};
use snf_fs::ext::Ext;
use snf_fs::{Attributes, FileSystem, NodeId};

use crate::ntfs_support::Image;
use crate::ntfs_support::edit::open;
use crate::ntfs_support::walk::{Seen as NtfsSeen, through_us};
use crate::oracle::{Disk, walk_ext};

const FILE: Attributes = Attributes { mode: 0o640, uid: 12, gid: 70_000 };
/// Records of NTFS below this one are the file system's own.
const FIRST_USER_RECORD: u64 = 24;

/// Bytes that differ by seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    (0..length as u64)
        .map(|n| ((n ^ seed).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8)
        .collect()
}

/// Edits of every kind that both engines know: new, replaced, longer, renamed and removed.
fn edit(fs: &mut dyn FileSystem, large: usize, many: usize) {
    let root = fs.root();
    let make = |fs: &mut dyn FileSystem, dir: NodeId, name: &str, content: &[u8]| {
        let node = fs.create(dir, name.as_bytes(), FILE).unwrap();
        fs.replace(node, content).unwrap();
        node
    };
    make(fs, root, "empty", b"");
    let small = make(fs, root, "small", b"a few bytes");
    fs.append(small, b" and some more").unwrap();
    make(fs, root, "large", &noise(1, large));
    let twice = make(fs, root, "twice", &noise(2, 5_000));
    fs.replace(twice, &noise(3, 70_000)).unwrap();
    let dir = fs.mkdir(root, b"many", Attributes { mode: 0o755, uid: 0, gid: 0 }).unwrap();
    for number in 0..many {
        let name = format!("a name of some length, number {number}");
        make(fs, dir, &name, &noise(number as u64, number % 3_000));
    }
    for number in (0..many).step_by(3) {
        fs.unlink(dir, format!("a name of some length, number {number}").as_bytes()).unwrap();
    }
    let deep = (0..10)
        .fold(root, |dir, level| fs.mkdir(dir, format!("level {level}").as_bytes(), FILE).unwrap());
    fs.rename(root, b"twice", deep, "zweimal Größe".as_bytes()).unwrap();
    make(fs, deep, "gone", b"x");
    fs.unlink(deep, b"gone").unwrap();
    fs.commit().unwrap();
}

/// Path, kind, mode, owner, content or target.
type View = BTreeMap<Vec<u8>, (char, u16, (u32, u32), Vec<u8>)>;

fn by_ext4_view(path: &std::path::Path) -> View {
    let fs = Ext4::load_from_path(path).unwrap();
    let mut out = View::new();
    let mut todo = vec![ext4_view::PathBuf::new("/")];
    while let Some(dir) = todo.pop() {
        for entry in fs.read_dir(&dir).unwrap() {
            let entry = entry.unwrap();
            if matches!(entry.file_name().as_ref(), b"." | b"..") {
                continue;
            }
            let path = entry.path();
            let meta = fs.symlink_metadata(&path).unwrap();
            let (kind, content) = match meta.file_type() {
                ViewType::Directory => {
                    todo.push(path.clone());
                    ('d', Vec::new())
                }
                ViewType::Symlink => {
                    ('l', AsRef::<[u8]>::as_ref(&fs.read_link(&path).unwrap()).to_vec())
                }
                ViewType::Regular => ('f', fs.read(&path).unwrap()),
                other => panic!("{other:?} at {}", path.display()),
            };
            let name = AsRef::<[u8]>::as_ref(&path)[1..].to_vec();
            out.insert(name, (kind, meta.mode() & 0o7777, (meta.uid(), meta.gid()), content));
        }
    }
    out
}

fn by_us(fs: &Ext) -> View {
    let mut nodes = BTreeMap::new();
    let mut todo = vec![(fs.root(), Vec::new())];
    while let Some((dir, prefix)) = todo.pop() {
        for entry in fs.readdir(dir).unwrap() {
            let path = [&prefix[..], &entry.name].concat();
            todo.extend(
                (fs.stat(entry.node).unwrap().file_type == snf_fs::FileType::Directory)
                    .then(|| (entry.node, [&path[..], b"/"].concat())),
            );
            nodes.insert(path, entry.node);
        }
    }
    walk_ext(fs)
        .into_iter()
        .filter(|(path, _)| !path.is_empty())
        .map(|(path, seen)| {
            let mut content = seen.link;
            if seen.file_type == 'f' {
                content = vec![0; seen.size as usize];
                let count = fs.read(nodes[&path], 0, &mut content).unwrap();
                assert_eq!(count as u64, seen.size);
            }
            let mode = u16::try_from(seen.mode).unwrap();
            (path, (seen.file_type, mode, seen.owner, content))
        })
        .collect()
}

#[test]
fn ext4_view_reads_what_we_wrote() {
    for (args, mib) in [
        ("-t ext4", 64),
        ("-t ext4 -b 1024 -O ^64bit", 64),
        ("-t ext4 -O ^metadata_csum,^64bit,^extent", 64),
        ("-t ext4 -O metadata_csum_seed,orphan_file -I 512", 64),
        ("-t ext2", 48),
    ] {
        let disk = Disk::make(args, mib);
        let mut fs = disk.open();
        edit(&mut fs, 6_000_000, 900);
        let root = fs.root();
        for (name, target) in [("short link", "small"), ("long link", &"x/".repeat(200))] {
            fs.symlink(root, name.as_bytes(), target.as_bytes(), FILE).unwrap();
        }
        fs.commit().unwrap();
        drop(fs);
        disk.fsck(args);
        let (ours, theirs) = (by_us(&disk.open()), by_ext4_view(&disk.path));
        assert!(ours.len() > 600, "{args}");
        let names = |view: &View| view.keys().cloned().collect::<Vec<_>>();
        assert!(names(&ours) == names(&theirs), "{args}: the names differ");
        for (path, seen) in &ours {
            assert!(theirs[path] == *seen, "{args}: {} differs", String::from_utf8_lossy(path));
        }
    }
}

/// Size and hash of files, as [`through_us`] gives them; directories without.
fn by_ntfs<T: Read + Seek>(disk: &mut T) -> BTreeMap<Vec<u8>, Option<(u64, u64)>> {
    let volume = Reader::new(disk).unwrap();
    let mut out = BTreeMap::new();
    let mut todo = vec![(volume.root_directory(disk).unwrap().file_record_number(), Vec::new())];
    while let Some((record, prefix)) = todo.pop() {
        let dir = volume.file(disk, record).unwrap();
        let index = dir.directory_index(disk).unwrap();
        let mut entries = index.entries();
        while let Some(entry) = entries.next(disk) {
            let entry = entry.unwrap();
            let name = entry.key().unwrap().unwrap();
            let record = entry.file_reference().file_record_number();
            if name.namespace() == NtfsFileNamespace::Dos || record < FIRST_USER_RECORD {
                continue;
            }
            let name = name.name().to_string_lossy();
            let path = [&prefix[..], name.as_bytes()].concat();
            let file = volume.file(disk, record).unwrap();
            if file.is_directory() {
                todo.push((record, [&path[..], b"/"].concat()));
                out.insert(path, None);
                continue;
            }
            let item = file.data(disk, "").unwrap().unwrap();
            let mut value = item.to_attribute().unwrap().value(disk).unwrap();
            let mut content = vec![0; usize::try_from(value.len()).unwrap()];
            value.read_exact(disk, &mut content).unwrap();
            let hash = crate::ntfs_support::walk::hash(&content);
            out.insert(path, Some((content.len() as u64, hash)));
        }
    }
    out
}

#[test]
fn the_crate_ntfs_reads_what_we_wrote() {
    // Not with clusters larger than an index block: there this reader counts blocks in clusters,
    // where the format counts them in sectors.
    for args in ["-c 4096", "-c 512", "-c 2048", "-s 4096 -c 4096"] {
        let image = Image::make(args, 100);
        let mut fs = open(&image);
        edit(&mut fs, 6_000_000, 600);
        drop(fs);
        image.must_be_clean(args);
        let ours: BTreeMap<_, _> = through_us(&open(&image))
            .into_iter()
            .map(|(path, seen)| match seen {
                NtfsSeen::File { size, hash, .. } => (path, Some((size, hash))),
                _ => (path, None),
            })
            .collect();
        let theirs = by_ntfs(&mut File::open(&image.path).unwrap());
        assert!(ours.len() > 400 && ours.keys().eq(theirs.keys()), "{args}: the names differ");
        for (path, seen) in &ours {
            assert!(theirs[path] == *seen, "{args}: {} differs", String::from_utf8_lossy(path));
        }
    }
}
