//! Thousands of random changes on a nearly full disk, against a model: what is read back is what
//! was written, refusals change nothing, e2fsck finds nothing, and the kernel sees what we see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;

use crate::oracle::{Disk, commit, compare};
use snf_fs::ext::Ext;
use snf_fs::testing::Random;
use snf_fs::{Attributes, Error, FileSystem, NodeId};

const FILE: Attributes = Attributes { mode: 0o640, uid: 10, gid: 70_000 };
const DIR: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0 };

const SHAPES: &[(&str, &str, u64)] = &[
    ("debian 12", "-t ext4 -O metadata_csum,64bit,^orphan_file,^metadata_csum_seed -N 4096", 48),
    ("debian 13", "-t ext4 -O metadata_csum,64bit,orphan_file,metadata_csum_seed -N 4096", 48),
    ("ext4 1k", "-t ext4 -b 1024 -N 4096", 32),
    ("ext3", "-t ext3 -I 128 -N 4096", 40),
    ("ext2 1k", "-t ext2 -b 1024 -N 4096", 24),
    ("inline and ea_inode", "-t ext4 -O inline_data,ea_inode -N 4096", 40),
    ("bigalloc", "-t ext4 -O bigalloc -C 16384 -N 4096", 64),
];

fn content(random: &mut Random) -> Vec<u8> {
    let limit = [50, 3000, 20_000, 400_000][random.below(4)];
    let size = random.below(limit);
    let seed = random.next_u64().to_le_bytes();
    seed.iter().copied().cycle().take(size).collect()
}

type Model = BTreeMap<(usize, Vec<u8>), Vec<u8>>;

fn read(fs: &Ext, node: NodeId) -> Vec<u8> {
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

fn step(fs: &mut Ext, dirs: &[NodeId], model: &mut Model, random: &mut Random) -> bool {
    let d = random.below(4);
    let key = (d, name(random));
    let node = fs.lookup(dirs[d], &key.1).unwrap();
    assert_eq!(node.is_some(), model.contains_key(&key), "{:?}", key);
    let mut refused = false;
    match (node, random.below(10)) {
        (None, 0..8) => {
            let content = content(random);
            match done(fs.create(dirs[d], &key.1, FILE)) {
                Some(node) => match done(fs.replace(node, &content)) {
                    Some(()) => drop(model.insert(key, content)),
                    None => {
                        refused = true;
                        assert_eq!(read(fs, node), b"");
                        model.insert(key, Vec::new());
                    }
                },
                None => {
                    refused = true;
                    assert!(fs.lookup(dirs[d], &key.1).unwrap().is_none());
                }
            }
        }
        (None, _) => assert!(fs.unlink(dirs[d], &key.1).unwrap_err().is_not_found()),
        (Some(node), 0..3) => {
            let content = content(random);
            match done(fs.replace(node, &content)) {
                Some(()) => drop(model.insert(key, content)),
                None => refused = true,
            }
        }
        (Some(node), 3..5) => {
            let content = content(random);
            match done(fs.append(node, &content)) {
                Some(()) => model.get_mut(&key).unwrap().extend(content),
                None => refused = true,
            }
        }
        (Some(_), 5..7) => {
            fs.unlink(dirs[d], &key.1).unwrap();
            model.remove(&key);
        }
        (Some(_), 7..9) => {
            let to = (random.below(4), name(random));
            match done(fs.rename(dirs[d], &key.1, dirs[to.0], &to.1)) {
                Some(()) => {
                    let content = model.remove(&key).unwrap();
                    model.insert(to, content);
                }
                None => refused = true,
            }
        }
        (Some(node), _) => {
            let value = vec![7; random.below(500)];
            let attribute = format!("user.a{}", random.below(4));
            refused = done(fs.set_xattr(node, attribute.as_bytes(), Some(&value))).is_none();
        }
    }
    refused
}

#[test]
fn against_a_model() {
    for (seed, (what, args, mib)) in SHAPES.iter().enumerate() {
        let disk = Disk::make(args, *mib);
        let mut random = Random(42 + seed as u64);
        let mut model = Model::new();
        let mut refused = 0;
        for round in 0..2 {
            let mut fs = disk.open();
            let root = fs.root();
            let mut dirs = Vec::new();
            for i in 0..4 {
                let name = format!("dir{i}").into_bytes();
                dirs.push(match fs.lookup(root, &name).unwrap() {
                    Some(node) => node,
                    None => fs.mkdir(root, &name, DIR).unwrap(),
                });
            }
            for _ in 0..1200 {
                fs.seal().unwrap();
                refused += u32::from(step(&mut fs, &dirs, &mut model, &mut random));
            }
            for ((d, name), content) in &model {
                let node = fs.lookup(dirs[*d], name).unwrap().unwrap();
                assert!(read(&fs, node) == *content, "{what}: dir{d}/{}", name.escape_ascii());
            }
            commit(&mut fs);
            disk.fsck(&format!("{what}, round {round}"));
        }
        assert!(refused > 20, "{what}: the disk was never full ({refused})");
        compare(&disk, what);
    }
}
