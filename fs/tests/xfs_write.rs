//! Changes to XFS by chance, against a model; xfs_repair and the kernel judge, and edit in turns.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use crate::oracle::shell;
use crate::xfs_support::{Image, compare};
use snf_fs::testing::Random;
use snf_fs::xfs::Xfs;
use snf_fs::{Attributes, Error, FileSystem, NodeId};

const FILE: Attributes = Attributes { mode: 0o640, uid: 10, gid: 70_000 };
const DIR: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0 };

const SHAPES: &[(&str, u64)] = &[
    ("", 64),
    ("-m rmapbt=1,reflink=1 -i nrext64=1 -d agcount=3", 64),
    ("-b size=1024 -m rmapbt=1", 48),
    ("-m finobt=0,reflink=0,bigtime=0,inobtcount=0 -i sparse=0", 64),
    ("-b size=1024 -n size=8192", 48),
    ("-b size=8192 -m rmapbt=1 -d agcount=2 -l size=24m", 80),
    ("-l su=32k,size=16m -m rmapbt=1 -d agcount=2", 80),
];

fn content(random: &mut Random) -> Vec<u8> {
    let limit = [50, 3000, 20_000, 400_000][random.below(4)];
    let size = random.below(limit);
    let seed = random.next_u64().to_le_bytes();
    seed.iter().copied().cycle().take(size).collect()
}

type Model = BTreeMap<(usize, Vec<u8>), Vec<u8>>;

fn read(fs: &Xfs, node: NodeId) -> Vec<u8> {
    let size = fs.stat(node).unwrap().size as usize;
    let mut bytes = vec![0; size];
    assert_eq!(fs.read(node, 0, &mut bytes).unwrap(), size);
    bytes
}

fn name(random: &mut Random) -> Vec<u8> {
    let i = random.below(1500);
    let mut name = format!("n{i}").into_bytes();
    name.resize(name.len() + i % 60, b'-');
    name
}

/// Whether an operation was done, or refused for want of space.
fn done<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(Error::NoSpace(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

fn step(fs: &mut Xfs, dirs: &[NodeId], model: &mut Model, random: &mut Random) {
    let d = random.below(4);
    let key = (d, name(random));
    let node = fs.lookup(dirs[d], &key.1).unwrap();
    assert_eq!(node.is_some(), model.contains_key(&key), "{key:?}");
    match (node, random.below(12)) {
        (None, 0..10) => {
            let content = content(random);
            if let Some(node) = done(fs.create(dirs[d], &key.1, FILE)) {
                match done(fs.replace(node, &content)) {
                    Some(()) => drop(model.insert(key, content)),
                    None => {
                        assert_eq!(read(fs, node), b"");
                        model.insert(key, Vec::new());
                    }
                }
            } else {
                assert!(fs.lookup(dirs[d], &key.1).unwrap().is_none());
            }
        }
        (None, _) => assert!(fs.unlink(dirs[d], &key.1).unwrap_err().is_not_found()),
        (Some(node), 0..3) => {
            let content = content(random);
            if done(fs.replace(node, &content)).is_some() {
                model.insert(key, content);
            }
        }
        (Some(node), 3..5) => {
            let content = content(random);
            if done(fs.append(node, &content)).is_some() {
                model.get_mut(&key).unwrap().extend(content);
            }
        }
        (Some(_), 5..7) => {
            fs.unlink(dirs[d], &key.1).unwrap();
            model.remove(&key);
        }
        (Some(_), 7..9) => {
            let to = (random.below(4), name(random));
            if done(fs.rename(dirs[d], &key.1, dirs[to.0], &to.1)).is_some() {
                let content = model.remove(&key).unwrap();
                model.insert(to, content);
            }
        }
        (Some(node), _) => {
            let most = [40, 500, 5000][random.below(3)];
            let value = vec![7; random.below(most)];
            let attribute = format!("user.a{}", random.below(6));
            let value = (random.below(5) > 0).then_some(&value[..]);
            done(fs.set_xattr(node, attribute.as_bytes(), value));
        }
    }
}

#[test]
fn against_a_model() {
    for (seed, (what, mib)) in SHAPES.iter().enumerate() {
        let image = Image::make(what, *mib);
        let mut random = Random(42 + seed as u64);
        let mut model = Model::new();
        for round in 0..3 {
            let what = format!("{what}, round {round}");
            let mut fs = image.open();
            let root = fs.root();
            let mut dirs = Vec::new();
            for i in 0..4 {
                let name = format!("dir{i}").into_bytes();
                dirs.push(match fs.lookup(root, &name).unwrap() {
                    Some(node) => node,
                    None => fs.mkdir(root, &name, DIR).unwrap(),
                });
            }
            for _ in 0..400 {
                step(&mut fs, &dirs, &mut model, &mut random);
            }
            for ((d, name), content) in &model {
                let node = fs.lookup(dirs[*d], name).unwrap().unwrap();
                assert!(read(&fs, node) == *content, "{what}: dir{d}/{}", name.escape_ascii());
            }
            fs.commit().unwrap();
            drop(fs);
            image.check(&what);
            compare(&image, &what);
            // The kernel's turn.
            let mount = image.mount("rw");
            shell(
                &mount.at,
                "set +e; exec 2> /dev/null; mkdir -p kernel; for i in $(seq 60); do echo $RANDOM > kernel/$i-$RANDOM; done; \
                 rm -f kernel/1*; cp --reflink=auto $(find dir0 -type f -size +20k | head -3) kernel; true",
            );
            drop(mount);
            image.check(&format!("{what}, after the kernel"));
        }
    }
}

/// Trees that reach every form of a directory and go again.
#[test]
fn directories_grow_and_shrink_through_every_form() {
    for args in [
        "-b size=1024 -m rmapbt=1 -l size=24m",
        "-b size=1024 -n size=4096 -l size=24m",
        "-n ftype=1 -l size=24m",
    ] {
        let image = Image::make(args, 128);
        let mut left = Vec::new();
        for (count, keep) in [(5, 5), (60, 60), (700, 700), (2500, 2500), (0, 300), (0, 3), (40, 0)]
        {
            let mut fs = image.open();
            let root = fs.root();
            let dir = match fs.lookup(root, b"dir").unwrap() {
                Some(dir) => dir,
                None => fs.mkdir(root, b"dir", DIR).unwrap(),
            };
            for i in left.len()..count {
                let name = format!("name-{i}-{}", "y".repeat(i % 23)).into_bytes();
                fs.create(dir, &name, FILE).unwrap();
                left.push(name);
            }
            while left.len() > keep {
                let name = left.swap_remove(left.len() / 3);
                fs.unlink(dir, &name).unwrap();
            }
            for name in &left {
                assert!(fs.lookup(dir, name).unwrap().is_some());
            }
            assert_eq!(fs.readdir(dir).unwrap().len(), left.len());
            if left.is_empty() {
                fs.rmdir(root, b"dir").unwrap();
            }
            fs.commit().unwrap();
            drop(fs);
            let what = format!("{args}: {count}, {keep}");
            image.check(&what);
            compare(&image, &what);
        }
    }
}
