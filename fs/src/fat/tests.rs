//! A volume in memory, built here as small as can be: hostile bytes in every place.

use std::sync::Arc;

use super::*;
use crate::filesystem::{Attributes, FileSystem, NodeId};
use crate::testing::Random;
use crate::{Error, MemoryDevice};

const PLAIN: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };

/// A FAT12 volume of 100 clusters of one sector: a boot sector, two tables of a sector, a root
/// directory of two.
fn small() -> Vec<u8> {
    let mut bytes = vec![0; 105 * 512];
    bytes[..3].copy_from_slice(&[0xeb, 0x3c, 0x90]);
    let fields: [(usize, &[u8]); 8] = [
        (11, &[0, 2]),
        (13, &[1]),
        (14, &[1, 0]),
        (16, &[2]),
        (17, &[32, 0]),
        (19, &[105, 0]),
        (22, &[1, 0]),
        (510, &[0x55, 0xaa]),
    ];
    for (at, field) in fields {
        bytes[at..at + field.len()].copy_from_slice(field);
    }
    for table in [512, 1024] {
        bytes[table..table + 3].copy_from_slice(&[0xf8, 0xff, 0xff]);
    }
    bytes
}

fn open(bytes: &[u8]) -> crate::Result<Fat> {
    Fat::open(Arc::new(MemoryDevice::new(bytes.to_vec())), Options::default())
}

fn filled() -> Vec<u8> {
    let device = Arc::new(MemoryDevice::new(small()));
    let mut fat = Fat::open(device.clone(), Options::default()).unwrap();
    let root = fat.root();
    let dir = fat.mkdir(root, b"a directory", PLAIN).unwrap();
    for index in 0..12 {
        let name = format!("file number {index}.text");
        let node = fat.create(dir, name.as_bytes(), PLAIN).unwrap();
        fat.replace(node, &vec![index; 300 * usize::from(index)]).unwrap();
    }
    let sub = fat.mkdir(dir, b"SUB", PLAIN).unwrap();
    fat.create(sub, b"X", PLAIN).unwrap();
    fat.commit().unwrap();
    device.to_vec()
}

/// Everything once, whatever it says.
fn exercise(fat: &mut Fat, dir: NodeId, depth: usize, left: &mut usize) {
    let Ok(entries) = fat.readdir(dir) else { return };
    for entry in entries {
        if *left == 0 {
            return;
        }
        *left -= 1;
        let _ = fat.lookup(dir, &entry.name);
        let _ = fat.stat(entry.node);
        let _ = fat.read(entry.node, 100, &mut [0; 2000]);
        if depth < 5 {
            exercise(fat, entry.node, depth + 1, left);
        }
    }
    if depth > 2 {
        return;
    }
    if let Ok(new) = fat.create(dir, b"a new file.txt", PLAIN) {
        let _ = fat.replace(new, &[1; 3000]);
        let _ = fat.append(new, &[2; 3000]);
    }
    let _ = fat.mkdir(dir, b"new", PLAIN);
    let _ = fat.rename(dir, b"SUB", dir, b"another");
    let _ = fat.rename(dir, b"file number 3.text", dir, b"file number 4.text");
    let root = fat.root();
    let _ = fat.rename(dir, b"another", root, b"up");
    let _ = fat.rename(root, b"a directory", dir, b"below itself");
    let _ = fat.unlink(dir, b"file number 5.text");
    let _ = fat.rmdir(dir, b"new");
}

#[test]
fn hostile_volumes_end_in_errors() {
    let good = filled();
    assert!(open(&good).unwrap().lookup(NodeId(0), b"A DIRECTORY").unwrap().is_some());
    let mut random = Random(21);
    for round in 0..1500 {
        let mut bad = good.clone();
        // The tables and directories more often than the rest.
        let limit = [512, 1536, 2560, 20 * 512, bad.len()][round % 5];
        for _ in 0..1 + random.below(4) {
            let at = random.below(limit);
            bad[at] = match random.below(3) {
                0 => random.below(20) as u8,
                1 => 0xff,
                _ => random.next_u64() as u8,
            };
        }
        if let Ok(mut fat) = open(&bad) {
            let _ = fat.info();
            exercise(&mut fat, NodeId(0), 0, &mut 300);
            let _ = fat.commit();
        }
    }
}

#[test]
fn a_directory_cannot_be_moved_below_itself() {
    let mut fat = open(&filled()).unwrap();
    let root = fat.root();
    let dir = fat.lookup(root, b"a directory").unwrap().unwrap();
    let sub = fat.lookup(dir, b"sub").unwrap().unwrap();
    assert!(matches!(fat.rename(root, b"a directory", sub, b"y"), Err(Error::Invalid(_))));
    assert!(matches!(fat.rename(root, b"a directory", dir, b"x"), Err(Error::Invalid(_))));
    fat.rename(dir, b"SUB", root, b"sub").unwrap();
    fat.rename(root, b"a directory", sub, b"y").unwrap();
    assert_eq!(fat.lookup(sub, b"Y").unwrap(), Some(dir), "a node keeps its number");
    assert!(fat.lookup(dir, b"sub").unwrap().is_none());
}

#[test]
fn what_fat_does_not_know_is_refused() {
    let mut fat = open(&filled()).unwrap();
    let root = fat.root();
    let dir = fat.lookup(root, b"a directory").unwrap().unwrap();
    assert!(matches!(fat.symlink(root, b"l", b"t", PLAIN), Err(Error::Unsupported { .. })));
    assert!(matches!(fat.chown(dir, 1000, 0), Err(Error::Unsupported { .. })));
    assert!(fat.chown(dir, 0, 0).is_ok());
    let other = Attributes { uid: 1000, ..PLAIN };
    assert!(matches!(fat.create(root, b"x", other), Err(Error::Unsupported { .. })));
    assert!(matches!(fat.mkdir(root, b"x", other), Err(Error::Unsupported { .. })));
    assert!(matches!(fat.set_xattr(dir, b"user.a", Some(b"b")), Err(Error::Unsupported { .. })));
    assert!(matches!(fat.create(root, b"a:b", PLAIN), Err(Error::Invalid(_))));
    assert!(matches!(fat.create(root, b"A directory", PLAIN), Err(Error::Exists(_))));
    assert!(matches!(fat.rmdir(root, b"a directory"), Err(Error::NotEmpty(_))));
    assert!(matches!(fat.unlink(root, b"a directory"), Err(Error::IsADirectory(_))));
    assert!(matches!(fat.grow(1 << 30), Err(Error::Unsupported { .. })));
    let node = fat.create(root, b"big", PLAIN).unwrap();
    assert!(matches!(fat.replace(node, &[0; 100 * 512]), Err(Error::NoSpace(_))));
    for index in 0.. {
        match fat.create(root, format!("{index}").as_bytes(), PLAIN) {
            Ok(_) => assert!(index < 32),
            Err(error) => {
                assert!(matches!(error, Error::NoSpace(_)), "{error}");
                break;
            }
        }
    }
}
