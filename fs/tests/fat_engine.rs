//! The FAT engine against mkfs.fat, fsck.fat and mtools.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use snf_fs::fat::{Fat, Options};
use snf_fs::testing::{Fault, FaultDevice, Random, RecordingDevice};
use snf_fs::{
    Attributes, BlockDevice, FileDevice, FileSystem, FileType, MemoryDevice, NodeId, Timestamp,
};
use tempfile::TempDir;

const PLAIN: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };
const NOW: Timestamp = Timestamp { seconds: 1_795_651_200, nanoseconds: 0 };

fn run(program: &str, args: &[&str]) -> (Option<i32>, Vec<u8>) {
    let output = Command::new("timeout")
        .args(["-s", "KILL", "300", program])
        .args(args)
        // mtools takes the disk as it is, and names in UTF-8.
        .env("MTOOLS_SKIP_CHECK", "1")
        .env("LC_ALL", "C.UTF-8")
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    let code = output.status.code();
    let text =
        if code == Some(0) { output.stdout } else { [output.stdout, output.stderr].concat() };
    (code, text)
}

struct Image {
    dir: TempDir,
    path: PathBuf,
}

impl Image {
    fn make(args: &str, kib: u64) -> Self {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("image");
        File::create(&path).unwrap().set_len(kib << 10).unwrap();
        let mut all: Vec<&str> = args.split_whitespace().collect();
        let name = path.to_str().unwrap().to_owned();
        all.push(&name);
        let (code, text) = run("mkfs.fat", &all);
        assert_eq!(code, Some(0), "mkfs.fat {args}: {}", String::from_utf8_lossy(&text));
        Self { dir, path }
    }

    fn device(&self) -> Arc<FileDevice> {
        let file = File::options().read(true).write(true).open(&self.path).unwrap();
        Arc::new(FileDevice::from_file(file).unwrap())
    }

    fn open(&self) -> Fat {
        Fat::open(self.device(), Options { now: NOW }).unwrap()
    }

    fn fsck(&self, what: &str) {
        must_be_clean(&self.path, what);
    }

    /// The files that mtools copies out: path and content of each.
    fn by_mtools(&self) -> BTreeMap<String, Option<Vec<u8>>> {
        let out = self.dir.path().join("out");
        let _ = std::fs::remove_dir_all(&out);
        std::fs::create_dir(&out).unwrap();
        let (image, to) = (self.path.to_str().unwrap(), out.to_str().unwrap());
        let (code, text) = run("mcopy", &["-s", "-n", "-i", image, "::*", to]);
        assert_eq!(code, Some(0), "mcopy: {}", String::from_utf8_lossy(&text));
        let mut found = BTreeMap::new();
        let mut todo = vec![(out, String::new())];
        while let Some((dir, prefix)) = todo.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                let name = format!("{prefix}/{}", entry.file_name().to_str().unwrap());
                if entry.file_type().unwrap().is_dir() {
                    found.insert(name.clone(), None);
                    todo.push((entry.path(), name));
                } else {
                    found.insert(name, Some(std::fs::read(entry.path()).unwrap()));
                }
            }
        }
        found
    }
}

fn must_be_clean(path: &Path, what: &str) {
    let (code, text) = run("fsck.fat", &["-n", "-v", path.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&text).into_owned();
    assert_eq!(code, Some(0), "{what}: {text}");
}

fn content(fs: &Fat, node: NodeId) -> Vec<u8> {
    let mut out = vec![0; fs.stat(node).unwrap().size as usize + 10];
    let count = fs.read(node, 0, &mut out).unwrap();
    out.truncate(count);
    out
}

fn walk(fs: &Fat) -> BTreeMap<String, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![(fs.root(), String::new())];
    while let Some((dir, prefix)) = todo.pop() {
        for entry in fs.readdir(dir).unwrap() {
            let name = format!("{prefix}/{}", String::from_utf8(entry.name).unwrap());
            if entry.file_type == Some(FileType::Directory) {
                found.insert(name.clone(), None);
                todo.push((entry.node, name));
            } else {
                found.insert(name, Some(content(fs, entry.node)));
            }
        }
    }
    found
}

fn bytes(random: &mut Random, most: usize) -> Vec<u8> {
    (0..random.below(most)).map(|_| random.next_u64() as u8).collect()
}

/// Changes of every kind, in two directories and below, with a model beside them.
fn edit(
    fs: &mut Fat,
    model: &mut BTreeMap<String, Option<Vec<u8>>>,
    random: &mut Random,
    rounds: usize,
) {
    let names = [
        "EFI",
        "Boot",
        "BOOTX64.EFI",
        "grub.cfg",
        "a long name, with a comma.text",
        "Füße",
        "日本語",
        "emoji \u{1f600}.x",
        "x.y.z",
        "another long name.text",
        "another long name 2.text",
    ];
    let find = |fs: &Fat, path: &str| {
        path.split('/')
            .skip(1)
            .try_fold(fs.root(), |dir, name| fs.lookup(dir, name.as_bytes()).unwrap())
    };
    for _ in 0..rounds {
        let dirs: Vec<String> = std::iter::once(String::new())
            .chain(model.iter().filter(|(_, c)| c.is_none()).map(|(path, _)| path.clone()))
            .filter(|path| path.matches('/').count() < 4)
            .collect();
        let dir = dirs[random.below(dirs.len())].clone();
        let name = names[random.below(names.len())];
        let path = format!("{dir}/{name}");
        let node = find(fs, &dir).unwrap();
        match (random.below(6), model.get(&path).cloned()) {
            (0, None) => {
                fs.mkdir(node, name.as_bytes(), PLAIN).unwrap();
                model.insert(path, None);
            }
            (1..=3, None) => {
                let new = fs.create(node, name.as_bytes(), PLAIN).unwrap();
                let body = bytes(random, 9000);
                fs.replace(new, &body).unwrap();
                model.insert(path, Some(body));
            }
            (0..=1, Some(Some(old))) => {
                let more = bytes(random, 5000);
                fs.append(find(fs, &path).unwrap(), &more).unwrap();
                model.insert(path, Some([old, more].concat()));
            }
            (2, Some(Some(_))) => {
                let body = bytes(random, 20_000);
                fs.replace(find(fs, &path).unwrap(), &body).unwrap();
                model.insert(path, Some(body));
            }
            (3, Some(kind)) => {
                let empty = !model.keys().any(|other| other.starts_with(&format!("{path}/")));
                match kind {
                    Some(_) => fs.unlink(node, name.as_bytes()).unwrap(),
                    None if empty => fs.rmdir(node, name.as_bytes()).unwrap(),
                    None => {
                        fs.rmdir(node, name.as_bytes()).unwrap_err();
                        continue;
                    }
                }
                model.remove(&path);
            }
            (4.., Some(kind)) => {
                let to_dir = dirs[random.below(dirs.len())].clone();
                let to_name = names[random.below(names.len())];
                let to = format!("{to_dir}/{to_name}");
                let to_node = find(fs, &to_dir).unwrap();
                let before = find(fs, &path);
                let result = fs.rename(node, name.as_bytes(), to_node, to_name.as_bytes());
                let below = to_dir == path || to_dir.starts_with(&format!("{path}/"));
                let full = model.keys().any(|other| other.starts_with(&format!("{to}/")));
                let allowed = match (&kind, model.get(&to)) {
                    _ if to == path => true,
                    (None, _) if below => false,
                    (_, None) | (Some(_), Some(Some(_))) => true,
                    (None, Some(None)) => !full,
                    _ => false,
                };
                assert_eq!(result.is_ok(), allowed, "{path} to {to}: {result:?}");
                if !allowed || to == path {
                    continue;
                }
                assert_eq!(find(fs, &to), before, "a node keeps its number");
                let below = format!("{path}/");
                for (old, kind) in std::mem::take(model) {
                    let moved = old == path || old.starts_with(&below);
                    if moved {
                        model.insert(format!("{to}{}", &old[path.len()..]), kind);
                    } else if old != to {
                        model.insert(old, kind);
                    }
                }
            }
            _ => {}
        }
    }
}

#[test]
fn every_width_survives_edits() {
    let volumes = [
        ("-F 12", 1440),
        ("-F 12 -s 8 -f 1", 8_000),
        ("-F 16 -s 4", 40_000),
        ("-F 16 -S 4096 -s 1", 40_000),
        ("-F 32 -s 1", 40_000),
        ("-F 32 -s 8 -n ESP -i ABCD1234", 34_000),
        ("-F 32 -S 4096 -s 1 -n ESP", 40_000),
    ];
    for (index, (args, kib)) in volumes.into_iter().enumerate() {
        let image = Image::make(args, kib);
        let mut random = Random(index as u64 + 1);
        let mut model = BTreeMap::new();
        for round in 0..3 {
            let before = std::fs::read(&image.path).unwrap();
            let mut fs = image.open();
            edit(&mut fs, &mut model, &mut random, 120);
            assert!(walk(&fs) == model, "{args} {round} before the commit");
            assert!(std::fs::read(&image.path).unwrap() == before, "{args}: written too early");
            let free = fs.info().unwrap().free;
            fs.commit().unwrap();
            assert!(!fs.is_dirty());
            let fs = image.open();
            assert!(walk(&fs) == model, "{args} {round}");
            assert_eq!(fs.info().unwrap().free, free, "{args} {round}");
            image.fsck(&format!("{args} {round}"));
            assert!(model.len() > 5, "{args} {round}: the test should do more");
            if args.contains("ESP") {
                // mtools opens no FAT32 of so few clusters; Linux and fsck.fat do.
                continue;
            }
            let seen = image.by_mtools();
            // mtools shows each half of a surrogate pair as an underscore.
            let shown = |path: &String| path.replace('\u{1f600}', "__");
            let expected: BTreeMap<_, _> =
                model.iter().map(|(p, c)| (shown(p), c.clone())).collect();
            let paths: Vec<_> = seen.keys().collect();
            assert_eq!(paths, expected.keys().collect::<Vec<_>>(), "{args} {round}");
            assert!(seen == expected, "{args} {round}: mtools reads something else");
        }
        let info = image.open().info().unwrap();
        if args.contains("ABCD") {
            assert_eq!((info.label.as_str(), info.uuid.as_str()), ("ESP", "ABCD-1234"));
        }
    }
}

#[test]
fn what_mtools_wrote_is_read_and_edited() {
    let image = Image::make("-F 32 -s 1", 40_000);
    let source = image.dir.path().join("source");
    std::fs::create_dir_all(source.join("EFI/a directory")).unwrap();
    let mut random = Random(9);
    for index in 0..600 {
        let name = format!("EFI/a directory/file with a long name {index}");
        std::fs::write(source.join(name), bytes(&mut random, 900)).unwrap();
    }
    std::fs::write(source.join("EFI/large"), vec![7; 3_000_000]).unwrap();
    let (disk, from) = (image.path.to_str().unwrap(), source.join("EFI"));
    let (code, text) = run("mcopy", &["-s", "-i", disk, from.to_str().unwrap(), "::"]);
    assert_eq!(code, Some(0), "{}", String::from_utf8_lossy(&text));
    assert!(walk(&image.open()) == image.by_mtools());
    let mut fs = image.open();
    let efi = fs.lookup(fs.root(), b"efi").unwrap().unwrap();
    let dir = fs.lookup(efi, b"A Directory").unwrap().unwrap();
    for index in (0..600).step_by(3) {
        fs.unlink(dir, format!("FILE with a long name {index}").as_bytes()).unwrap();
    }
    for index in 0..300 {
        let node = fs.create(dir, format!("new {index} and long").as_bytes(), PLAIN).unwrap();
        fs.replace(node, b"content").unwrap();
    }
    fs.commit().unwrap();
    image.fsck("edited");
    let seen = image.by_mtools();
    assert_eq!(seen.len(), 2 + 1 + 400 + 300);
    assert!(walk(&image.open()) == seen);
}

/// One read gets the clusters of a directory that lie side by side. The fuzzer found the second
/// directory: a file that is marked as one. Each of its bytes made an entry, and each look-up of
/// one read each cluster.
#[test]
fn clusters_side_by_side_cost_one_read() {
    let image = Image::make("-F 12 -s 1", 1440);
    let mut fs = image.open();
    let many = fs.mkdir(fs.root(), b"many", PLAIN).unwrap();
    for index in 0..300 {
        fs.create(many, format!("entry number {index}").as_bytes(), PLAIN).unwrap();
    }
    let file = fs.create(fs.root(), b"CONTENT", PLAIN).unwrap();
    fs.replace(file, &[7; 40_000]).unwrap();
    fs.commit().unwrap();
    image.fsck("made");
    let mut bytes = std::fs::read(&image.path).unwrap();
    let at = bytes.windows(11).position(|name| name == b"CONTENT    ").unwrap();
    bytes[at + 11] = 0x10;
    let device = Arc::new(FaultDevice::new(Arc::new(MemoryDevice::new(bytes)), Fault::None));
    let reads = || device.counts().reads.load(std::sync::atomic::Ordering::Relaxed);
    let fs = Fat::open(device.clone(), Options { now: NOW }).unwrap();
    for name in ["many", "content"] {
        let dir = fs.lookup(fs.root(), name.as_bytes()).unwrap().unwrap();
        let entries = fs.readdir(dir).unwrap();
        assert!(entries.len() >= 300, "{name}: {} entries", entries.len());
        let before = reads();
        for entry in entries.iter().take(300) {
            assert!(fs.lookup(dir, &entry.name).unwrap().is_some());
        }
        // The first cluster of the new directory lies apart from the others.
        let cost = reads() - before;
        assert!(cost <= 300 * 4, "{name}: {cost} reads for 300 look-ups");
    }
}

/// Wherever the power fails, a file that was there is there with its old or its new content, and
/// fsck can mend the rest.
#[test]
fn a_cut_at_any_write_loses_nothing_old() {
    for args in ["-F 12", "-F 16 -s 1", "-F 32 -s 1"] {
        let image = Image::make(args, if args.contains("12") { 1440 } else { 5_000 });
        let mut fs = image.open();
        let root = fs.root();
        for (name, size) in [("keep", 5000), ("replace", 7000), ("remove", 2000)] {
            let node = fs.create(root, name.as_bytes(), PLAIN).unwrap();
            fs.replace(node, &vec![1; size]).unwrap();
        }
        fs.commit().unwrap();
        let device = Arc::new(RecordingDevice::new(std::fs::read(&image.path).unwrap()));
        let mut fs = Fat::open(device.clone(), Options { now: NOW }).unwrap();
        let node = fs.lookup(root, b"replace").unwrap().unwrap();
        fs.replace(node, &[2; 9000]).unwrap();
        fs.unlink(root, b"remove").unwrap();
        let dir = fs.mkdir(root, b"a new directory", PLAIN).unwrap();
        let new = fs.create(dir, b"new", PLAIN).unwrap();
        fs.replace(new, &[3; 4000]).unwrap();
        fs.commit().unwrap();
        let events = device.events().len();
        for count in 0..=events {
            std::fs::write(&image.path, device.cut(count, count as u64, false)).unwrap();
            let path = image.path.to_str().unwrap();
            let (code, text) = run("fsck.fat", &["-a", path]);
            let text = String::from_utf8_lossy(&text).into_owned();
            assert!(matches!(code, Some(0 | 1)), "{args} {count}: {text}");
            image.fsck(&format!("{args} after {count} of {events}"));
            let seen = walk(&image.open());
            assert_eq!(seen["/keep"], Some(vec![1; 5000]), "{args} {count}");
            let replaced = seen["/replace"].clone().unwrap();
            assert!(replaced == [1; 7000] || replaced == [2; 9000], "{args} {count}");
            if let Some(Some(old)) = seen.get("/remove") {
                assert_eq!(*old, [1; 2000], "{args} {count}");
            }
        }
    }
}

#[test]
fn a_mark_of_an_unclean_unmount_stays() {
    let image = Image::make("-F 32 -s 1", 40_000);
    image.device().write_at(65, &[1]).unwrap();
    let mut fs = image.open();
    fs.create(fs.root(), b"new", PLAIN).unwrap();
    fs.commit().unwrap();
    let mut state = [0];
    image.device().read_at(65, &mut state).unwrap();
    assert_eq!(state, [1]);
}
