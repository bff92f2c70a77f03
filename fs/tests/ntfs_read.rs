//! The NTFS engine's reading against ntfs-3g's mount.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::ntfs_support;
use crate::ntfs_support::walk::{Seen, through_mount, through_us};
use crate::ntfs_support::{Image, fill};
use snf_fs::ntfs::Ntfs;
use snf_fs::{Error, FileSystem, Kind};

/// Clusters and sectors of every kind.
const VOLUMES: [(&str, u64); 6] = [
    ("-c 4096", 100),
    ("-c 512", 60),
    ("-c 1024", 60),
    ("-c 65536", 200),
    ("-s 4096 -c 4096", 100),
    ("-c 2097152", 900),
];

#[test]
fn a_walk_sees_what_the_mount_shows() {
    for (args, mib) in VOLUMES {
        let image = Image::make(args, mib);
        let mount = image.mount();
        fill(&mount, 400);
        let theirs = through_mount(&mount.at);
        drop(mount);
        let ntfs = Ntfs::open(image.device()).unwrap();
        let ours = through_us(&ntfs);
        for (path, seen) in &theirs {
            let name = String::from_utf8_lossy(path);
            match (seen, ours.get(path)) {
                // A junction to elsewhere and a link in Interix' form are looked at below.
                (Seen::Other, Some(_)) => {}
                (seen, Some(other)) => assert!(seen == other, "{args}: {name}: {seen:?} {other:?}"),
                (_, None) => panic!("{args}: {name} is missing"),
            }
        }
        assert_eq!(ours.len(), theirs.len(), "{args}");
        let count = |kind: fn(&Seen) -> bool| ours.values().filter(|seen| kind(seen)).count();
        assert!(count(|seen| matches!(seen, Seen::File { .. })) > 400);
        assert!(count(|seen| matches!(seen, Seen::Directory)) > 40);
    }
}

#[test]
fn streams_names_and_identity() {
    let image = Image::make("-c 4096 -L Fässchen", 60);
    let mount = image.mount();
    fill(&mount, 5);
    let large = ntfs_support::stream(&mount.path("streams"), "user.large");
    drop(mount);
    let ntfs = Ntfs::open(image.device()).unwrap();
    let info = ntfs.info().unwrap();
    assert_eq!((info.kind, info.label.as_str(), info.block_size), (Kind::Ntfs, "Fässchen", 4096));
    let uuid = image.tool("blkid", &["-p", "-s", "UUID", "-o", "value"]);
    assert_eq!(uuid.trim(), info.uuid);
    let text = image.tool("ntfsinfo", &["-m"]);
    let free = text.lines().find(|line| line.contains("Free Clusters")).unwrap();
    let free = free.split(['\t', ' ', '(']).filter_map(|word| word.parse::<u64>().ok()).next();
    assert_eq!(Some(info.free / 4096), free, "{text}");

    let root = ntfs.root();
    let streams = ntfs.lookup(root, b"STREAMS").unwrap().unwrap();
    let mut list = ntfs.streams(streams).unwrap();
    list.sort();
    assert_eq!(list, [(b"large".to_vec(), 50_000), (b"small".to_vec(), 8)]);
    let mut bytes = vec![0; 60_000];
    assert_eq!(ntfs.read_stream(streams, b"large", 0, &mut bytes).unwrap(), 50_000);
    assert_eq!(bytes[..50_000], large);
    assert!(ntfs.read_stream(streams, b"none", 0, &mut bytes).unwrap_err().is_not_found());

    let short = ntfs.lookup(root, b"alongn~1.tex").unwrap();
    assert!(short.is_some());
    assert_eq!(short, ntfs.lookup(root, b"a long name with a short one.text").unwrap());
    assert_eq!(ntfs.stat(short.unwrap()).unwrap().links, 1);
    let links = ntfs.lookup(root, b"links").unwrap().unwrap();
    assert_eq!(ntfs.stat(links).unwrap().links, 31);
    // The system's own files are not part of the tree.
    assert_eq!(ntfs.lookup(root, b"$MFT").unwrap(), None);
    assert_eq!(ntfs.lookup(root, b"no such name").unwrap(), None);
    assert_eq!(ntfs.lookup(root, b"\xff").unwrap(), None);
    let file = ntfs.lookup(root, b"file 1").unwrap().unwrap();
    assert!(matches!(ntfs.lookup(file, b"x"), Err(Error::NotADirectory(_))));
    assert!(matches!(ntfs.read(root, 0, &mut bytes), Err(Error::IsADirectory(_))));
}
