//! The whole engine under power cuts: a customization through `FileSystem`, stopped at every write.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use crate::journal_support::*;
use snf_fs::ext::Ext;
use snf_fs::ext::internals::units::{FsBlock, GroupNo, Ino};
use snf_fs::testing::{Fault, FaultDevice, RecordingDevice};
use snf_fs::{Attributes, BlockDevice, Error, FileSystem, MemoryDevice, NodeId, Result};

const ROOT: Attributes = Attributes { mode: 0o600, uid: 0, gid: 0 };

fn find(ext: &Ext, path: &str) -> Result<Option<NodeId>> {
    let mut node = ext.root();
    for name in path.split('/') {
        let Some(next) = ext.lookup(node, name.as_bytes())? else { return Ok(None) };
        node = next;
    }
    Ok(Some(node))
}

fn walk(ext: &Ext, path: &str) -> Option<NodeId> {
    find(ext, path).unwrap()
}

fn content(ext: &Ext, path: &str) -> Option<Vec<u8>> {
    let node = walk(ext, path)?;
    let mut bytes = vec![0; ext.stat(node).unwrap().size as usize];
    assert_eq!(ext.read(node, 0, &mut bytes).unwrap(), bytes.len());
    Some(bytes)
}

fn shadow() -> Vec<u8> {
    b"root:$y$salt$hash:20000:0:99999:7:::\n".repeat(150)
}

fn change(ext: &mut Ext) -> Result<()> {
    let etc = ext.lookup(ext.root(), b"etc")?.unwrap();
    let node = ext.lookup(etc, b"shadow")?.unwrap();
    ext.replace(node, &shadow())?;
    let hostname = ext.create(etc, b"hostname", ROOT)?;
    ext.append(hostname, b"guest\n")?;
    let root = ext.mkdir(ext.root(), b"root", ROOT)?;
    let ssh = ext.mkdir(root, b".ssh", ROOT)?;
    let keys = ext.create(ssh, b"authorized_keys", ROOT)?;
    ext.append(keys, &b"ssh-ed25519 AAAA\n".repeat(500))?;
    ext.set_xattr(keys, b"security.selinux", Some(b"system_u:object_r:ssh_home_t:s0\0"))?;
    let home = find(ext, "home/user")?.unwrap();
    for n in 10..14 {
        ext.unlink(home, format!("file-{n}").as_bytes())?;
    }
    ext.rename(home, b"file-20", etc, b"moved")?;
    ext.symlink(etc, b"link", b"/etc/hostname", ROOT)?;
    Ok(())
}

/// The files that the customization changed, each as it is: all must be old or all new.
fn state(ext: &Ext) -> Vec<bool> {
    vec![
        content(ext, "etc/shadow").unwrap() == shadow(),
        content(ext, "etc/hostname").is_some_and(|c| c == b"guest\n"),
        content(ext, "root/.ssh/authorized_keys").is_some_and(|c| c.len() == 8500),
        (10..14).all(|n| walk(ext, &format!("home/user/file-{n}")).is_none()),
        walk(ext, "etc/moved").is_some() && walk(ext, "home/user/file-20").is_none(),
        walk(ext, "etc/link").is_some(),
    ]
}

fn untouched(ext: &Ext, what: &str) {
    for n in (0..40).filter(|n| !(10..14).contains(n) && *n != 20) {
        let want = format!("file {n}\n").repeat(1 + n * 40);
        let got = content(ext, &format!("home/user/file-{n}"));
        assert!(got.is_some_and(|got| got == want.as_bytes()), "{what}: file-{n}");
    }
    assert_eq!(content(ext, "etc/passwd").unwrap(), b"root:x:0:0:root:/root:/bin/bash\n");
}

fn ext(bytes: Vec<u8>) -> Ext {
    Ext::open(Arc::new(MemoryDevice::new(bytes)), options()).unwrap()
}

/// The states that a power cut can leave: every prefix of the writes, and for each one in which what was not
/// flushed was lost or reordered (and with `torn`, written in part). Each image once.
fn cuts<'d>(
    device: &'d RecordingDevice,
    name: &'d str,
    torn: bool,
) -> impl Iterator<Item = (Vec<u8>, String)> + 'd {
    let events = device.events().len();
    let mut seen = HashSet::new();
    let all = (0..=events).flat_map(|count| [None, Some(count as u64)].map(|seed| (count, seed)));
    all.filter_map(move |(count, seed)| {
        let image = match seed {
            None => device.prefix(count),
            Some(seed) => device.cut(count, seed, torn),
        };
        seen.insert(digest(&image))
            .then(|| (image, format!("{name} after {count} of {events}, {seed:?}")))
    })
}

fn digest(image: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(image);
    hasher.finish()
}

#[test]
fn a_customization_is_whole_or_not_at_all() {
    let dir = scratch();
    for flavour in [&FLAVOURS[0], &FLAVOURS[2], &FLAVOURS[4]] {
        let old = make(dir.path(), flavour, 6144, 1024);
        let device = Arc::new(RecordingDevice::new(old));
        let mut engine = Ext::open(device.clone(), options()).unwrap();
        change(&mut engine).unwrap();
        let report = engine.commit().unwrap();
        assert_eq!(report.transactions, 1);
        let after = device.to_vec();
        assert_clean(dir.path(), &after, flavour.name);
        assert_eq!(state(&ext(after)), [true; 6]);
        for (image, what) in cuts(&device, flavour.name, true) {
            // Our own view of the unrepaired image, then that after e2fsck.
            let before = state(&ext(image.clone()));
            let repaired = ext(repair(dir.path(), &image, &what));
            let after = state(&repaired);
            assert_eq!(before, after, "{what}");
            assert!(after == [true; 6] || after == [false; 6], "{what}: {after:?}");
            untouched(&repaired, &what);
        }
    }
}

#[test]
fn a_cut_in_ext2_loses_nothing_old() {
    let dir = scratch();
    let flavour = Flavour { name: "ext2", args: &["-t", "ext2"], journal: (0, 0) };
    let old = make(dir.path(), &flavour, 6144, 1024);
    let old_shadow = content(&ext(old.clone()), "etc/shadow").unwrap();
    let device = Arc::new(RecordingDevice::new(old));
    let mut engine = Ext::open(device.clone(), options()).unwrap();
    change(&mut engine).unwrap();
    engine.commit().unwrap();
    assert_clean(dir.path(), &device.to_vec(), "ext2");
    for (image, what) in cuts(&device, "ext2", false) {
        let repaired = ext(repair(dir.path(), &image, &what));
        untouched(&repaired, &what);
        let got = content(&repaired, "etc/shadow").unwrap();
        assert!(got == old_shadow || got == shadow(), "{what}");
    }
}

#[test]
fn every_fault_is_an_error_and_the_image_as_before_or_recoverable() {
    let dir = scratch();
    for flavour in [FLAVOURS[3], Flavour { name: "ext2", args: &["-t", "ext2"], journal: (0, 0) }] {
        let mut old = make(dir.path(), &flavour, 6144, 1024);
        old.resize(18 << 20, 0xA5);
        let attempt = |fault| {
            let memory = Arc::new(MemoryDevice::new(old.clone()));
            let device = Arc::new(FaultDevice::new(memory.clone(), fault));
            let shared: Arc<dyn BlockDevice> = device.clone();
            let result = Ext::open(shared, options()).and_then(|mut engine| {
                engine.grow(None)?;
                change(&mut engine)?;
                engine.commit()
            });
            (result.map(|_| ()), memory.to_vec(), device)
        };
        let (result, _, device) = attempt(Fault::None);
        result.unwrap();
        let mut seen = HashSet::from([digest(&old)]);
        for fault in device.counts().faults() {
            let what = format!("{} {fault:?}", flavour.name);
            let (result, image, _) = attempt(fault);
            assert!(matches!(result, Err(Error::Device(_))), "{what}: {result:?}");
            if seen.insert(digest(&image)) {
                let repaired = ext(repair(dir.path(), &image, &what));
                untouched(&repaired, &what);
                if flavour.name != "ext2" {
                    let state = state(&repaired);
                    assert!(state == [true; 6] || state == [false; 6], "{what}: {state:?}");
                }
            }
        }
        assert!(seen.len() > 10, "{}: {}", flavour.name, seen.len());
    }
}

#[test]
fn a_growth_is_whole_or_not_at_all() {
    let dir = scratch();
    let meta_bg = Flavour {
        name: "into meta_bg",
        args: &["-t", "ext4", "-O", "^resize_inode"],
        journal: (0, 0),
    };
    let ext2 = Flavour { name: "ext2", args: &["-t", "ext2"], journal: (0, 0) };
    for flavour in [FLAVOURS[0], FLAVOURS[4], meta_bg, ext2] {
        let mut old = make(dir.path(), &flavour, 9000, 1024);
        old.resize(26 << 20, 0xA5);
        let device = Arc::new(RecordingDevice::new(old));
        let mut engine = Ext::open(device.clone(), options()).unwrap();
        let report = engine.grow(None).unwrap();
        assert_eq!(report.new_blocks, 26 << 10);
        change(&mut engine).unwrap();
        engine.commit().unwrap();
        assert_clean(dir.path(), &device.to_vec(), flavour.name);
        let mut sizes = std::collections::BTreeSet::new();
        for (image, what) in cuts(&device, flavour.name, flavour.name != "ext2") {
            let repaired = ext(repair(dir.path(), &image, &what));
            untouched(&repaired, &what);
            let size = repaired.info().unwrap().size >> 10;
            sizes.insert(size);
            assert!(size == 9000 || size == 26 << 10, "{what}: {size}");
            if flavour.name != "ext2" {
                let state = state(&repaired);
                assert!(state == [true; 6] || state == [false; 6], "{what}: {state:?}");
                assert!(size > 9000 || state == [false; 6], "{what}");
            }
        }
        assert_eq!(sizes.len(), 2, "{}", flavour.name);
    }
}

/// The journal's own map counts as the journal: an indirect block of it that lies in the room for
/// descriptors, or in a block that the bitmap calls free, is never overwritten.
#[test]
fn a_map_of_the_journal_in_the_wrong_place_is_refused() {
    let dir = scratch();
    let mut image = make(dir.path(), &FLAVOURS[0], 4096, 1024);
    let (vol, _) = open(image.clone());
    let reserved = vol.descriptor_position(GroupNo::FIRST).0.get() + 1;
    let group = vol.group(GroupNo::FIRST).unwrap();
    let bitmap = vol.read_block(group.block_bitmap()).unwrap();
    let free = (0..8192u64)
        .find(|bit| bitmap[*bit as usize / 8] >> (bit % 8) & 1 == 0)
        .map(|bit| bit + 1)
        .unwrap();
    let (block, at) = vol.inode_position(Ino::new(8)).unwrap();
    let pointer = block.byte(1024) as usize + at + 40 + 12 * 4;
    let old = u32::from_le_bytes(image[pointer..pointer + 4].try_into().unwrap()) as usize;
    image.resize(30 << 20, 0);
    for (target, says) in [(reserved, "descriptors lie in it"), (free, "to its map")] {
        let mut bytes = image.clone();
        bytes.copy_within(old * 1024..(old + 1) * 1024, target as usize * 1024);
        bytes[pointer..pointer + 4].copy_from_slice(&(target as u32).to_le_bytes());
        let device = Arc::new(RecordingDevice::new(bytes));
        let (mut vol, _) = open_on(device.clone());
        if target == reserved {
            snf_fs::ext::internals::grow::grow(&mut vol, 30 << 10).unwrap();
        } else {
            vol.store.write_data(FsBlock::new(target), vec![0; 1024]).unwrap();
        }
        let error = snf_fs::ext::internals::journal::commit(&mut vol).unwrap_err();
        assert!(matches!(error, Error::Corrupt { structure: "journal", .. }), "{error}");
        assert!(error.to_string().contains(says), "{error}");
        assert!(device.events().is_empty(), "nothing is written before the refusal");
    }
}
