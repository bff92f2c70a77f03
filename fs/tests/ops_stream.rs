//! Contents longer than memory, further names and device nodes: written by us, judged by e2fsck and
//! the kernel.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use crate::oracle::{Disk, NOW, shell};
use snf_fs::ext::{Ext, Options};
use snf_fs::testing::Random;
use snf_fs::{Attributes, Error, FileDevice, FileType, Overlay, Tree};

const FILE: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };

/// A content of so many bytes, in pieces of odd lengths; it may fail at its end.
struct Noise {
    random: Random,
    left: usize,
    fails: bool,
}

impl Noise {
    fn new(left: usize) -> Self {
        Self { random: Random(7), left, fails: false }
    }
}

impl Read for Noise {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && self.fails {
            return Err(io::Error::other("the archive ends"));
        }
        let count = buf.len().min(self.left).min(100_003);
        buf[..count].iter_mut().for_each(|byte| *byte = self.random.next_u64() as u8);
        self.left -= count;
        Ok(count)
    }
}

/// The tree on a disk whose own writes wait, and what holds them.
fn open(disk: &Disk) -> (Tree, Arc<Overlay>) {
    let file = File::options().read(true).write(true).open(&disk.path).unwrap();
    let overlay = Arc::new(Overlay::new(Arc::new(FileDevice::from_file(file).unwrap())));
    let fs = Ext::open(overlay.clone(), Options { now: NOW, seed: 7 }).unwrap();
    (Tree::new(Box::new(fs)), overlay)
}

/// The output of a script.
fn said(dir: &Path, script: &str) -> String {
    let output = Command::new("bash").args(["-euc", script]).current_dir(dir).output().unwrap();
    assert!(output.status.success(), "{script}");
    String::from_utf8(output.stdout).unwrap()
}

/// A disk as the kernel sees it.
fn seen(disk: &Disk) -> String {
    let mount = disk.mount("ro");
    said(
        &mount.at,
        "find . -printf '%P %y %m %U %G %n %s %l\\n' | sort; find . -type f -exec sha256sum {} + | sort",
    )
}

#[test]
fn long_contents_go_to_free_blocks_and_are_nobodys_before_the_commit() {
    for (options, mib) in [
        ("-t ext4 -b 4096", 64),
        ("-t ext4 -b 1024", 64),
        ("-t ext2 -b 1024", 64),
        ("-t ext4 -O bigalloc,inline_data -C 16384", 64),
        ("-t ext3 -b 4096", 64),
    ] {
        let disk = Disk::make(options, mib);
        {
            let mount = disk.mount("rw");
            shell(&mount.at, "head -c 3000000 /dev/zero > old; echo short > short; ln short two");
        }
        let before = seen(&disk);
        let (mut tree, overlay) = open(&disk);
        let sizes = [9_000_001, 0, 1, 5000, 1 << 20];
        for (number, size) in sizes.into_iter().enumerate() {
            let path = format!("/new{number}");
            tree.write_from(path, &mut Noise::new(size), FILE).unwrap();
        }
        tree.write_from("/old", &mut Noise::new(4_000_000), FILE).unwrap();
        assert_eq!(overlay.held(), 0, "{options}");
        let mut broken = Noise { fails: true, ..Noise::new(3_000_000) };
        let error = tree.write_from("/broken", &mut broken, FILE).unwrap_err();
        assert!(matches!(error, Error::Content(path, _) if path == "/broken"));
        // It was made before its content failed; a run ends there.
        tree.unlink("/broken").unwrap();
        disk.fsck(options);
        assert_eq!(seen(&disk), before, "{options}: before the commit");

        let mut part = vec![0; 4096];
        Noise::new(9_000_001).read_exact(&mut part).unwrap();
        assert_eq!(tree.read_range("/new0", 0, 4096).unwrap(), part, "{options}");
        overlay.commit().unwrap();
        tree.commit().unwrap();
        drop(tree);
        disk.fsck(options);
        let mount = disk.mount("ro");
        for (name, size) in [("old", 4_000_000), ("new0", 9_000_001), ("new3", 5000)] {
            let mut wanted = Vec::new();
            Noise::new(size).read_to_end(&mut wanted).unwrap();
            assert!(std::fs::read(mount.at.join(name)).unwrap() == wanted, "{options}: {name}");
        }
        assert_eq!(std::fs::metadata(mount.at.join("new1")).unwrap().len(), 0);
    }
}

#[test]
fn names_and_nodes_are_what_the_kernel_makes() {
    let ours = Disk::make("-t ext4", 64);
    let kernels = Disk::make("-t ext4", 64);
    {
        let mount = kernels.mount("rw");
        shell(
            &mount.at,
            "mkdir d; echo x > d/x; ln d/x y; ln -s d/x s; ln s d/s
             mknod d/null c 1 3; mknod d/big b 259 70000; mkfifo -m 600 d/pipe
             chmod 666 d/null; chmod 600 d/big; chown 7:8 d/null",
        );
    }
    let (mut tree, overlay) = open(&ours);
    let dir = Attributes { mode: 0o755, ..FILE };
    tree.mkdir("/d", dir).unwrap();
    tree.write("/d/x", b"x\n", FILE).unwrap();
    tree.link("/d/x", "/y").unwrap();
    tree.symlink("/s", b"d/x", Attributes { mode: 0o777, ..FILE }).unwrap();
    tree.link("/s", "/d/s").unwrap();
    let null = Attributes { mode: 0o666, uid: 7, gid: 8 };
    tree.mknod("/d/null", FileType::CharDevice, Some((1, 3)), null).unwrap();
    let private = Attributes { mode: 0o600, ..FILE };
    tree.mknod("/d/big", FileType::BlockDevice, Some((259, 70_000)), private).unwrap();
    tree.mknod("/d/pipe", FileType::Fifo, None, private).unwrap();
    for (path, file_type, number) in [
        ("/d/null", FileType::Fifo, None),
        ("/n", FileType::CharDevice, None),
        ("/n", FileType::Regular, None),
        ("/n", FileType::BlockDevice, Some((5000, 1))),
    ] {
        assert!(tree.mknod(path, file_type, number, FILE).is_err(), "{path} {file_type:?}");
    }
    assert!(matches!(tree.link("/d", "/e"), Err(Error::IsADirectory(_))));
    assert!(matches!(tree.link("/d/x", "/y"), Err(Error::Exists(_))));
    overlay.commit().unwrap();
    tree.commit().unwrap();
    drop(tree);
    ours.fsck("names");
    assert_eq!(seen(&ours), seen(&kernels));
    let numbers = |disk: &Disk| {
        let mount = disk.mount("ro");
        said(&mount.at, "stat -c '%n %F %t %T' d/*")
    };
    assert_eq!(numbers(&ours), numbers(&kernels));
}
