//! Our path resolution against the kernel's own: random trees full of symbolic links, looked up
//! with `openat2(RESOLVE_IN_ROOT)` on a real directory and with [`Tree`] on a copy in memory.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, open, openat2};
use rustix::io::Errno;
use snf_fs::error::Error;
use snf_fs::{Attributes, MemoryFs, Tree};

const ANY: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0 };
const NAMES: [&str; 6] = ["a", "b", "c", "l", "m", "f"];

/// A small generator: the same numbers every time.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) % bound
    }

    fn path(&mut self, absolute: bool) -> String {
        let mut path = String::from(if absolute { "/" } else { "" });
        for index in 0..=self.below(5) {
            if index > 0 {
                path.push_str(["/", "/", "/", "//"][self.below(4) as usize]);
            }
            path.push_str(match self.below(10) {
                0 => "..",
                1 => ".",
                _ => NAMES[self.below(6) as usize],
            });
        }
        if self.below(5) == 0 {
            path.push('/');
        }
        path
    }
}

/// Makes the same random tree on disk and in memory.
fn make(random: &mut Random, root: &Path, tree: &mut Tree) {
    let mut dirs = vec![String::new()];
    for _ in 0..25 {
        let dir = dirs[random.below(dirs.len() as u64) as usize].clone();
        let path = format!("{dir}/{}", NAMES[random.below(6) as usize]);
        let real = root.join(&path[1..]);
        if fs::symlink_metadata(&real).is_ok() {
            continue;
        }
        match random.below(5) {
            0 | 1 => {
                fs::create_dir(&real).unwrap();
                tree.mkdir(&path, ANY).unwrap();
                dirs.push(path);
            }
            2 => {
                fs::write(&real, path.as_bytes()).unwrap();
                tree.write(&path, path.as_bytes(), ANY).unwrap();
            }
            _ => {
                let absolute = random.below(3) == 0;
                let target = random.path(absolute);
                std::os::unix::fs::symlink(&target, &real).unwrap();
                tree.symlink(&path, target.as_bytes(), ANY).unwrap();
            }
        }
    }
}

/// The canonical path below the root, or the kernel's error.
fn kernel(root: &OwnedFd, top: &Path, path: &str, follow: bool) -> Result<String, Errno> {
    let mut flags = OFlags::PATH | OFlags::CLOEXEC;
    if !follow {
        flags |= OFlags::NOFOLLOW;
    }
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let file = openat2(root, path, flags, Mode::empty(), resolve)?;
    let real = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap();
    let below = real.strip_prefix(top).expect("the kernel stays below the root");
    Ok(format!("/{}", below.to_str().unwrap()))
}

fn ours(tree: &Tree, path: &str, follow: bool) -> Result<String, Errno> {
    let result = if follow {
        tree.resolve(path).and_then(|resolved| match resolved.stat {
            Some(_) => Ok(resolved.path),
            None => Err(Error::NotFound(path.into())),
        })
    } else {
        tree.resolve_link(path)
    };
    result.map(|path| String::from_utf8(path).unwrap()).map_err(|error| match error {
        Error::NotFound(_) => Errno::NOENT,
        Error::NotADirectory(_) => Errno::NOTDIR,
        Error::SymlinkLoop(_) => Errno::LOOP,
        Error::NameTooLong(_) => Errno::NAMETOOLONG,
        other => panic!("{path}: {other}"),
    })
}

#[test]
fn the_kernel_goes_the_same_way() {
    let mut random = Random(1);
    let mut seen = [0; 4];
    for _ in 0..60 {
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().canonicalize().unwrap();
        let mut tree = Tree::new(Box::new(MemoryFs::new()));
        make(&mut random, &top, &mut tree);
        let root = open(&top, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        for _ in 0..400 {
            let path = random.path(true);
            let follow = random.below(2) == 0;
            let expected = kernel(&root, &top, &path, follow);
            assert_eq!(ours(&tree, &path, follow), expected, "{path} in {}", top.display());
            seen[match expected {
                Ok(_) => 0,
                Err(Errno::NOENT) => 1,
                Err(Errno::NOTDIR) => 2,
                Err(_) => 3,
            }] += 1;
        }
    }
    // The trees were of some use.
    assert!(seen.iter().all(|count| *count > 100), "{seen:?}");
}
