//! XFS under power cuts and failing devices: the kernel replays our transaction or finds the old
//! state, never a mixture, and xfs_repair finds nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;

use crate::oracle::shell;
use crate::xfs_support::{Image, OPTIONS, compare, memory};
use snf_fs::testing::{Fault, FaultDevice, RecordingDevice};
use snf_fs::xfs::Xfs;
use snf_fs::{Attributes, BlockDevice, Error, FileSystem, MemoryDevice, NodeId, Result};

const ROOT: Attributes = Attributes { mode: 0o600, uid: 0, gid: 0 };

fn find(fs: &Xfs, path: &str) -> Result<Option<NodeId>> {
    let mut node = fs.root();
    for name in path.split('/') {
        let Some(next) = fs.lookup(node, name.as_bytes())? else { return Ok(None) };
        node = next;
    }
    Ok(Some(node))
}

fn content(fs: &Xfs, path: &str) -> Option<Vec<u8>> {
    let node = find(fs, path).unwrap()?;
    let mut bytes = vec![0; fs.stat(node).unwrap().size as usize];
    assert_eq!(fs.read(node, 0, &mut bytes).unwrap(), bytes.len());
    Some(bytes)
}

fn shadow() -> Vec<u8> {
    b"root:$y$salt$hash:20000:0:99999:7:::\n".repeat(150)
}

fn make(args: &str) -> Image {
    let image = Image::make(args, 24);
    let mount = image.mount("rw");
    shell(
        &mount.at,
        "mkdir -p etc home/user; echo root:x:0:0:root:/root:/bin/bash > etc/passwd; \
         echo root:old > etc/shadow; \
         for i in $(seq 0 39); do for n in $(seq 0 $((i * 20))); do echo file $i; done \
         > home/user/file-$i; done; cp --reflink=auto home/user/file-12 home/user/shared",
    );
    drop(mount);
    image
}

fn change(fs: &mut Xfs) -> Result<()> {
    let etc = fs.lookup(fs.root(), b"etc")?.unwrap();
    let node = fs.lookup(etc, b"shadow")?.unwrap();
    fs.replace(node, &shadow())?;
    let hostname = fs.create(etc, b"hostname", ROOT)?;
    fs.append(hostname, b"guest\n")?;
    let root = fs.mkdir(fs.root(), b"root", ROOT)?;
    let ssh = fs.mkdir(root, b".ssh", ROOT)?;
    let keys = fs.create(ssh, b"authorized_keys", ROOT)?;
    fs.append(keys, &b"ssh-ed25519 AAAA\n".repeat(500))?;
    fs.set_xattr(keys, b"security.selinux", Some(b"system_u:object_r:ssh_home_t:s0\0"))?;
    let home = find(fs, "home/user")?.unwrap();
    for n in 10..14 {
        fs.unlink(home, format!("file-{n}").as_bytes())?;
    }
    fs.rename(home, b"file-20", etc, b"moved")?;
    fs.symlink(etc, b"link", b"/etc/hostname", ROOT)?;
    Ok(())
}

/// The effects of the change, one by one: all must be old or all new.
fn state(fs: &Xfs) -> Vec<bool> {
    vec![
        content(fs, "etc/shadow").unwrap() == shadow(),
        content(fs, "etc/hostname").is_some_and(|c| c == b"guest\n"),
        content(fs, "root/.ssh/authorized_keys").is_some_and(|c| c.len() == 8500),
        (10..14).all(|n| content(fs, &format!("home/user/file-{n}")).is_none()),
        content(fs, "etc/moved").is_some() && content(fs, "home/user/file-20").is_none(),
        find(fs, "etc/link").unwrap().is_some(),
    ]
}

fn untouched(fs: &Xfs, what: &str) {
    for n in (0..40).filter(|n| !(10..14).contains(n) && *n != 20) {
        let want = format!("file {n}\n").repeat(1 + n * 20);
        let got = content(fs, &format!("home/user/file-{n}"));
        assert!(got.is_some_and(|got| got == want.as_bytes()), "{what}: file-{n}");
    }
    assert_eq!(content(fs, "etc/passwd").unwrap(), b"root:x:0:0:root:/root:/bin/bash\n");
    assert_eq!(content(fs, "home/user/shared").unwrap(), b"file 12\n".repeat(241));
}

fn digest(image: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(image);
    hasher.finish()
}

/// The state that the kernel finds in an image, and whether it is the new one.
fn recovered(bytes: &[u8], what: &str) -> bool {
    let image = Image::of_bytes(bytes);
    drop(image.mount("rw"));
    image.check(what);
    let fs = image.open();
    untouched(&fs, what);
    let state = state(&fs);
    assert!(state == [true; 6] || state == [false; 6], "{what}: {state:?}");
    state[0]
}

#[test]
fn a_change_is_whole_or_not_at_all() {
    for (args, seeds) in [("-m rmapbt=1", 1), ("-b size=1024 -m reflink=0", 1)] {
        let old = make(args).bytes();
        let device = Arc::new(RecordingDevice::new(old));
        let mut fs = Xfs::open(device.clone(), OPTIONS).unwrap();
        change(&mut fs).unwrap();
        let report = fs.commit().unwrap();
        assert_eq!(report.transactions, 1);
        let after = device.to_vec();
        let image = Image::of_bytes(&after);
        image.check(args);
        compare(&image, args);
        assert_eq!(state(&memory(after)), [true; 6]);
        let mut seen = HashSet::new();
        let (mut old_seen, mut new_seen) = (0, 0);
        let events = device.events().len();
        for count in 0..=events {
            let mut images = vec![(device.prefix(count), "all".to_owned())];
            for seed in 0..seeds {
                let seed = (count as u64) << 8 | seed;
                images.push((device.cut(count, seed, false), format!("cut {seed}")));
                images.push((device.torn(count, seed), format!("torn {seed}")));
            }
            for (image, which) in images {
                if seen.insert(digest(&image)) {
                    let what = format!("{args} after {count} of {events}, {which}");
                    if recovered(&image, &what) { new_seen += 1 } else { old_seen += 1 }
                }
            }
        }
        assert!(old_seen > 3 && new_seen > 3, "{args}: {old_seen} old, {new_seen} new");
    }
}

#[test]
fn every_fault_is_an_error_and_leaves_the_old_or_the_new_state() {
    let old = make("").bytes();
    let attempt = |fault| {
        let memory = Arc::new(MemoryDevice::new(old.clone()));
        let device = Arc::new(FaultDevice::new(memory.clone(), fault));
        let shared: Arc<dyn BlockDevice> = device.clone();
        let result = Xfs::open(shared, OPTIONS).and_then(|mut fs| {
            change(&mut fs)?;
            fs.commit()
        });
        (result.map(|_| ()), memory.to_vec(), device)
    };
    let (result, _, device) = attempt(Fault::None);
    result.unwrap();
    let mut seen = HashSet::from([digest(&old)]);
    for fault in device.counts().faults() {
        let what = format!("{fault:?}");
        let (result, image, _) = attempt(fault);
        assert!(matches!(result, Err(Error::Device(_))), "{what}: {result:?}");
        if seen.insert(digest(&image)) {
            recovered(&image, &what);
        }
    }
    assert!(seen.len() > 5, "{}", seen.len());
}

/// The log is a ring: many commits go around it, and the kernel's records between ours.
#[test]
fn the_log_is_followed_around_its_end() {
    let image = make("-b size=1024");
    let log = 24 << 20;
    let mut written = 0;
    let mut round = 0;
    while written < log / 4 {
        let mut fs = image.open();
        let dir = fs.mkdir(fs.root(), format!("dir-{round}").as_bytes(), ROOT).unwrap();
        for i in 0..60 {
            let node =
                fs.create(dir, format!("file-{i}-{}", "z".repeat(90)).as_bytes(), ROOT).unwrap();
            fs.replace(node, b"x").unwrap();
        }
        if round > 2 {
            let gone = format!("dir-{}", round - 3).into_bytes();
            let dir = fs.lookup(fs.root(), &gone).unwrap().unwrap();
            for entry in fs.readdir(dir).unwrap() {
                fs.unlink(dir, &entry.name).unwrap();
            }
            fs.rmdir(fs.root(), &gone).unwrap();
        }
        let report = fs.commit().unwrap();
        written += report.metadata_blocks * 1024;
        round += 1;
        if round % 16 == 0 {
            image.check(&format!("round {round}"));
            let mount = image.mount("rw");
            shell(&mount.at, "echo kernel > kernel");
            drop(mount);
        }
    }
    image.check("at the end");
    compare(&image, "at the end");
}

/// A log that waits for its replay is refused by name, and not touched.
#[test]
fn a_dirty_log_is_refused() {
    let image = make("");
    let mount = image.mount("rw");
    shell(
        &mount.at,
        "for i in $(seq 50); do echo $i > new-$i; done; sync -f .; xfs_io -x -c 'shutdown -f' .",
    );
    drop(mount);
    let before = image.bytes();
    let Err(error) = image.try_open() else { panic!("a dirty log was opened") };
    assert!(matches!(&error, Error::Unsupported { what, .. } if what.contains("log")), "{error}");
    assert!(error.to_string().contains("mount and unmount it once"), "{error}");
    assert!(image.bytes() == before);
}
