//! The change journal in `$Extend`, which no other program makes for us.

use std::process::Command;
use std::sync::Arc;

use super::super::check::check;
use super::super::layout::{DATA, records};
use super::names::{add_name, remove_name};
use super::*;
use crate::device::MemoryDevice;
use crate::testing::Random;

const ANY: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };

fn empty_volume() -> Arc<MemoryDevice> {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(16 << 20).unwrap();
    let output = Command::new("mkntfs").args(["-q", "-F", "-f"]).arg(file.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    Arc::new(MemoryDevice::new(std::fs::read(file.path()).unwrap()))
}

/// Moves a file to `$Extend`, as Windows makes it there.
fn to_extend(fs: &mut Ntfs, name: &str) {
    let root = records::ROOT;
    let volume = &mut fs.volume;
    let node = read::lookup(volume, root, name.as_bytes()).unwrap().unwrap();
    let mut inode = (*volume.inode(node).unwrap()).clone();
    let dir = read::directory(volume, root).unwrap();
    let (_, key) = read::find(volume, &dir, name.as_bytes()).unwrap().unwrap();
    remove_name(volume, &mut inode, root, &key).unwrap();
    let wide: Vec<u16> = name.encode_utf16().collect();
    add_name(volume, &mut inode, records::EXTEND, wide).unwrap();
    volume.save(&mut inode).unwrap();
}

#[test]
fn the_change_journal_stays_as_it_is() {
    let device = empty_volume();
    let mut fs = Ntfs::open(device.clone()).unwrap();
    let root = fs.root();
    let journal: Vec<u8> = {
        let mut random = Random(4);
        (0..200_000).map(|_| random.next_u64() as u8).collect()
    };
    let node = write::make(&mut fs.volume, records::ROOT, b"UsnJrnl", false).unwrap();
    let mut inode = (*fs.volume.inode(node).unwrap()).clone();
    for (name, content) in [("$J", &journal[..]), ("$Max", &journal[..32])] {
        let name: Vec<u16> = name.encode_utf16().collect();
        fs.volume.set_value(&mut inode, DATA, &name, content).unwrap();
    }
    fs.volume.save(&mut inode).unwrap();
    to_extend(&mut fs, "UsnJrnl");
    let file = fs.create(root, b"file", ANY).unwrap();
    fs.commit().unwrap();
    let report = check(&*device).unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);

    let mut fs = Ntfs::open(device.clone()).unwrap();
    let record = fs.volume.inode(node).unwrap();
    fs.replace(file, &journal).unwrap();
    for number in 0..300 {
        fs.create(root, format!("new {number}").as_bytes(), ANY).unwrap();
    }
    fs.unlink(root, b"new 7").unwrap();
    // It is not part of the tree, and none of ours to change.
    assert!(fs.readdir(root).unwrap().iter().all(|entry| entry.node != NodeId(records::EXTEND.0)));
    for error in [
        fs.replace(NodeId(node.0), b"").unwrap_err(),
        fs.unlink(NodeId(records::EXTEND.0), b"UsnJrnl").unwrap_err(),
        fs.create(NodeId(records::EXTEND.0), b"new", ANY).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Invalid(_)), "{error:?}");
    }
    fs.commit().unwrap();
    let fs = Ntfs::open(device.clone()).unwrap();
    let after = fs.volume.inode(node).unwrap();
    assert!(after.sequence == record.sequence && after.attributes == record.attributes);
    let mut bytes = vec![0; journal.len() + 1];
    assert_eq!(fs.read_stream(NodeId(node.0), b"$J", 0, &mut bytes).unwrap(), journal.len());
    assert!(bytes[..journal.len()] == journal);
    let report = check(&*device).unwrap();
    assert!(report.findings.is_empty(), "{:#?}", report.findings);
}
