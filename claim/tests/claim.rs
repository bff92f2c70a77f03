//! The users of a disk, with the real programs. Needs root, loop devices, mount and qemu-utils.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use snf_claim::{Busy, Purpose, claim, claim_among_us, user_of};

fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output();
    let out = out.unwrap_or_else(|error| panic!("this test needs {program}: {error}"));
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(out.status.success(), "{program} {args:?}: {said}");
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn disk(dir: &Path) -> PathBuf {
    let path = dir.join("disk");
    File::create(&path).unwrap().set_len(8 << 20).unwrap();
    path
}

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

struct Loop(String);

impl Loop {
    fn new(path: &Path) -> Self {
        Self(run("losetup", &["--find", "--show", text(path)]))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

/// A mount that goes when this does.
struct Mount(PathBuf);

impl Mount {
    fn new(options: &[&str], what: &str, at: &Path) -> Self {
        run("mount", &[options, &[what, text(at)]].concat());
        Self(at.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn two_of_us() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path());
    let first = open(&path);
    claim(&first, Purpose::Write).unwrap();
    // Another description of the file in the same process is another one, too.
    let second = open(&path);
    assert_eq!(claim(&second, Purpose::Write), Err(Busy::Locked));
    assert_eq!(claim_among_us(&open(&path), Purpose::Read), Err(Busy::Locked));
    drop(second);
    // A descriptor that is closed elsewhere in the process takes no lock along, and a duplicate
    // keeps it.
    drop(File::open(&path).unwrap());
    let duplicate = first.try_clone().unwrap();
    drop(first);
    assert_eq!(claim(&open(&path), Purpose::Write), Err(Busy::Locked));
    drop(duplicate);
    let reader = open(&path);
    claim(&reader, Purpose::Read).unwrap();
    claim(&open(&path), Purpose::Read).unwrap();
    assert_eq!(claim(&open(&path), Purpose::Write), Err(Busy::Locked));
}

/// Every name of a file that a loop device shows.
#[test]
fn a_loop_device_by_device_and_inode() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path());
    let (hard, soft) = (dir.path().join("hard"), dir.path().join("soft"));
    fs::hard_link(&path, &hard).unwrap();
    symlink(&path, &soft).unwrap();
    let bound = dir.path().join("bound");
    File::create(&bound).unwrap();
    let mount = Mount::new(&["--bind"], text(&path), &bound);
    let shows = Loop::new(&path);
    for name in [&path, &hard, &soft, &bound] {
        let found = claim(&open(name), Purpose::Write);
        assert_eq!(found, Err(Busy::Loop(shows.0.clone().into())), "{name:?}");
        claim(&open(name), Purpose::Read).unwrap();
    }
    drop(mount);
    // The name that was attached goes: the path in /sys leads nowhere.
    fs::remove_file(&path).unwrap();
    let found = claim(&open(&hard), Purpose::Write);
    assert_eq!(found, Err(Busy::Loop(shows.0.clone().into())));
    // A loop device on a loop device.
    let second = Loop::new(Path::new(&shows.0));
    let found = claim(&open(Path::new(&shows.0)), Purpose::Write);
    assert_eq!(found, Err(Busy::Loop(second.0.clone().into())));
    drop(second);
    claim(&open(Path::new(&shows.0)), Purpose::Write).unwrap();
    drop(shows);
    claim(&open(&hard), Purpose::Write).unwrap();
}

#[test]
fn a_mounted_file_system_by_its_number() {
    let dir = tempfile::tempdir().unwrap();
    let shows = Loop::new(&disk(dir.path()));
    run("mke2fs", &["-q", &shows.0]);
    let point = dir.path().join("a point");
    fs::create_dir(&point).unwrap();
    let mount = Mount::new(&[], &shows.0, &point);
    // Another node of the same device.
    let number = run("stat", &["-c", "%Hr %Lr", &shows.0]);
    let node = dir.path().join("node");
    let (major, minor) = number.split_once(' ').unwrap();
    run("mknod", &[text(&node), "b", major, minor]);
    for name in [Path::new(&shows.0), &node] {
        assert_eq!(user_of(&fs::metadata(name).unwrap()), Some(Busy::Mounted(point.clone())));
    }
    drop(mount);
    assert_eq!(user_of(&fs::metadata(&node).unwrap()), None);
}

/// The file of a loop device has another user, by whichever name that one knows it.
#[test]
fn the_file_below_a_loop_device() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path());
    let hard = dir.path().join("hard");
    fs::hard_link(&path, &hard).unwrap();
    let first = Loop::new(&path);
    let device = Path::new(&first.0);
    claim(&open(device), Purpose::Write).unwrap();
    let second = Loop::new(&hard);
    let found = claim(&open(device), Purpose::Write);
    assert_eq!(found, Err(Busy::Twin(path.clone(), second.0.clone().into())));
    drop(second);
    let holder = Holder::new(&hard, &[]);
    assert_eq!(claim(&open(device), Purpose::Write), Err(Busy::Below(path.clone())));
    // To look only is no harm.
    claim(&open(device), Purpose::Read).unwrap();
    holder.end();
    // A loop device on that loop device.
    let above = Loop::new(device);
    let holder = Holder::new(&path, &[]);
    let found = claim(&open(Path::new(&above.0)), Purpose::Write);
    assert_eq!(found, Err(Busy::Below(path.clone())));
    holder.end();
    claim(&open(Path::new(&above.0)), Purpose::Write).unwrap();
}

/// A QEMU tool that has the disk until its input ends.
struct Holder(Child, BufReader<ChildStdout>);

impl Holder {
    fn new(path: &Path, more: &[&str]) -> Self {
        let mut child = Command::new("qemu-io")
            .args(["-f", "raw"])
            .args(more)
            .arg(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("this test needs qemu-io (qemu-utils)");
        let mut out = BufReader::new(child.stdout.take().unwrap());
        child.stdin.as_mut().unwrap().write_all(b"length\n").unwrap();
        let mut line = String::new();
        while !line.contains("8 MiB") {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "qemu-io did not open the disk");
        }
        Self(child, out)
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        let _ = self.1.read_to_end(&mut Vec::new());
        assert!(self.0.wait().unwrap().success());
    }
}

#[test]
fn qemu_and_we_see_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = disk(dir.path());
    for more in [&[][..], &["-r"]] {
        let holder = Holder::new(&path, more);
        assert_eq!(claim(&open(&path), Purpose::Write), Err(Busy::Vm), "{more:?}");
        claim(&open(&path), Purpose::Read).unwrap();
        holder.end();
    }
    let ours = open(&path);
    claim(&ours, Purpose::Write).unwrap();
    for more in [&[][..], &["-r"]] {
        let mut qemu = Command::new("qemu-io");
        let out = qemu.args(["-f", "raw", "-c", "length"]).args(more).arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(said.contains("lock"), "{more:?}: {said}");
    }
    drop(ours);
    Holder::new(&path, &[]).end();
}
