//! Files made by the kernel (holes, preallocation, odd writes) read the same here, and files changed
//! here read the same in the kernel.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Image, Random, content, run};
use snf_fs::ext::internals::map;

/// A loop mount that goes away with the value.
struct Mount {
    dir: tempfile::TempDir,
}

impl Mount {
    fn new(image: &Path) -> Self {
        let dir = tempfile::TempDir::new().unwrap();
        let (code, text) =
            run(Command::new("mount").args(["-o", "loop"]).arg(image).arg(dir.path()));
        assert_eq!(code, Some(0), "this test mounts an image and needs root: {text}");
        Self { dir }
    }
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A child that another test is just starting may hold a file of it for a moment.
        let mut said = String::new();
        for _ in 0..100 {
            let (code, text) = run(Command::new("umount").arg(self.dir.path()));
            if code == Some(0) {
                return;
            }
            said = text;
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("umount: {said}");
    }
}

fn fallocate(path: &Path, mode: &[&str], offset: u64, len: u64) {
    // Block maps know no preallocation; the file is just written then.
    run(Command::new("fallocate")
        .args(mode)
        .args(["-o", &offset.to_string(), "-l"])
        .arg(len.to_string())
        .arg(path));
}

#[test]
fn the_kernel_and_we_agree() {
    for args in [
        "-t ext4",
        "-t ext4 -b 1024 -J size=1",
        "-t ext3 -b 1024 -J size=1",
        "-t ext2 -b 2048",
        "-t ext4 -O inline_data -I 256",
        "-t ext4 -b 1024 -C 16384 -O bigalloc -J size=4",
        "-t ext4 -b 4096 -C 32768 -O bigalloc,^has_journal",
    ] {
        let image = Image::make(args, 96, &[]);
        let names: Vec<String> = (0..9).map(|i| format!("k{i}")).collect();
        let mut random = Random(args.len() as u64);
        {
            let mount = Mount::new(&image.path);
            for (which, name) in names.iter().enumerate() {
                let path = mount.path(name);
                let file = File::create(&path).unwrap();
                let reach = [100, 50_000, 3_000_000][which % 3];
                for _ in 0..12 {
                    let at = random.below(reach);
                    let len = random.below(reach / 4);
                    match random.below(6) {
                        0 => fallocate(&path, &["-n"], at, len + 1),
                        1 => fallocate(&path, &[], at, len + 1),
                        2 => fallocate(&path, &["-p"], at, len + 1),
                        3 => file.set_len(at).unwrap(),
                        _ => file.write_all_at(&random.bytes(len as usize), at).unwrap(),
                    }
                    if random.below(3) == 0 {
                        file.sync_all().unwrap();
                    }
                }
            }
        }
        // The kernel itself leaves extent trees that e2fsck would make smaller.
        image.fsck_errors(args);
        for round in 0..2 {
            let mut expected = Vec::new();
            {
                let mount = Mount::new(&image.path);
                expected.extend(names.iter().map(|name| std::fs::read(mount.path(name)).unwrap()));
            }
            let mut vol = image.open();
            for (name, bytes) in names.iter().zip(&mut expected) {
                let mut inode = vol.live_inode(image.ino(name)).unwrap();
                assert!(content(&vol, &inode) == *bytes, "{args}: {name} differs in round {round}");
                let op = random.below(4);
                match op {
                    0 | 1 => {
                        let len = random.below(40_000) as usize;
                        let more = random.bytes(len);
                        map::append(&mut vol, &mut inode, &more).unwrap();
                        bytes.extend_from_slice(&more);
                    }
                    2 => {
                        let size = random.below(bytes.len() as u64 + 9_000);
                        map::truncate(&mut vol, &mut inode, size).unwrap();
                        bytes.resize(size as usize, 0);
                    }
                    _ => {
                        let len = random.below(90_000) as usize;
                        *bytes = random.bytes(len);
                        map::replace(&mut vol, &mut inode, bytes).unwrap();
                    }
                }
                vol.write_inode(&inode).unwrap();
            }
            snf_fs::ext::internals::journal::commit(&mut vol).unwrap();
            image.fsck_errors(&format!("{args} round {round}"));
            let mount = Mount::new(&image.path);
            for (name, bytes) in names.iter().zip(&expected) {
                let path = mount.path(name);
                let found = std::fs::read(&path).unwrap();
                let at = found.iter().zip(bytes).position(|(a, b)| a != b);
                assert!(
                    found == *bytes,
                    "{args}: the kernel reads {} bytes of {name}, {} expected; first other byte {at:?}",
                    found.len(),
                    bytes.len()
                );
                // And on with the kernel from here.
                let file = File::options().write(true).open(&path).unwrap();
                let at = random.below(bytes.len() as u64 + 20_000);
                file.write_all_at(&random.bytes(3_000), at).unwrap();
                if random.below(3) == 0 {
                    fallocate(&path, &["-n"], at, 40_000);
                }
            }
        }
        image.fsck_errors(args);
    }
}
