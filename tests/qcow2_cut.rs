//! A whole run on a qcow2 image whose power is cut at any write of the file: at worst leaked
//! clusters, and the guest is old or new.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use snf_container::qcow2::{Options, Qcow2};
use snf_container::{GrowableDevice, MemoryFile};
use snf_fs::testing::Random;
use snf_fs::{BlockDevice, DeviceError, MemoryDevice, Overlay};
use snf_image::customize::Mode;

use crate::deployed::*;
use crate::support::root::{hostname, place};

#[derive(Clone)]
enum Event {
    Write(u64, Vec<u8>),
    Grow(u64),
    Flush,
}

/// A file in memory that remembers what was done to it.
struct Recorder {
    before: Vec<u8>,
    now: MemoryFile,
    events: Mutex<Vec<Event>>,
}

impl Recorder {
    fn new(bytes: Vec<u8>) -> Self {
        Self { before: bytes.clone(), now: MemoryFile::new(bytes), events: Mutex::default() }
    }

    fn note(&self, event: Event) {
        self.events.lock().unwrap().push(event);
    }

    /// The file after a cut after `count` events: what was flushed is there, and of the rest each
    /// sector with a chance of `keep` in four.
    fn cut(&self, count: usize, keep: usize, random: &mut Random) -> Vec<u8> {
        let events = self.events.lock().unwrap();
        let events = &events[..count];
        let durable = events.iter().rposition(|event| matches!(event, Event::Flush)).unwrap_or(0);
        let mut bytes = self.before.clone();
        for (index, event) in events.iter().enumerate() {
            match event {
                Event::Flush => {}
                Event::Grow(size) => bytes.resize(*size as usize, 0),
                Event::Write(offset, data) => {
                    // As on a raw disk, ext relies on its superblock's two sectors going together.
                    let piece = if data.len() <= 1024 { 1024 } else { 512 };
                    for (number, sector) in data.chunks(piece).enumerate() {
                        if index < durable || random.below(4) < keep {
                            let at = *offset as usize + number * piece;
                            bytes[at..at + sector.len()].copy_from_slice(sector);
                        }
                    }
                }
            }
        }
        bytes
    }
}

impl BlockDevice for Recorder {
    fn len(&self) -> u64 {
        self.now.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.now.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        self.note(Event::Write(offset, buf.to_vec()));
        self.now.write_at(offset, buf)
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.note(Event::Flush);
        Ok(())
    }
}

impl GrowableDevice for Recorder {
    fn set_len(&self, size: u64) -> Result<(), DeviceError> {
        self.note(Event::Grow(size));
        self.now.set_len(size)
    }
}

/// A file in memory that takes so many writes, flushes and changes of its length, and no more.
struct Failing {
    now: MemoryFile,
    left: AtomicU64,
}

impl Failing {
    fn take(&self, operation: &'static str, offset: u64) -> Result<(), DeviceError> {
        let take = |left: u64| left.checked_sub(1);
        let found = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take);
        let source = || std::io::Error::from_raw_os_error(5);
        found.map(drop).map_err(|_| DeviceError { operation, offset, length: 0, source: source() })
    }
}

impl BlockDevice for Failing {
    fn len(&self) -> u64 {
        self.now.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.now.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        self.take("write", offset).and_then(|()| self.now.write_at(offset, buf))
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.take("flush", 0)
    }
}

impl GrowableDevice for Failing {
    fn set_len(&self, size: u64) -> Result<(), DeviceError> {
        self.take("grow to", size).and_then(|()| self.now.set_len(size))
    }
}

/// The host name of the guest in an image.
fn name_in(image: &[u8], number: Option<u32>, what: &str) -> String {
    let file = MemoryFile::new(image.to_vec());
    let disk = Qcow2::open(file, Options::writable()).unwrap_or_else(|e| panic!("{what}: {e}"));
    hostname(&Arc::new(Overlay::new(Arc::new(disk))), number, what)
}

#[test]
fn a_cut_at_any_write_leaves_at_worst_leaks_and_an_old_or_new_guest() {
    for (layout, options, compressed, snapshot) in [
        (Layout::Gpt, "cluster_size=65536", false, false),
        (Layout::Bare, "cluster_size=4096", true, true),
    ] {
        let image = Image::new(layout, 64);
        let path = image.dir.path().join("image.qcow2");
        let name = path.to_str().unwrap();
        let convert = ["convert", "-f", "raw", "-O", "qcow2", "-o", options];
        let packed: &[&str] = if compressed { &["-c"] } else { &[] };
        run("qemu-img", &[&convert[..], packed, &[image.str(), name]].concat());
        if snapshot {
            run("qemu-img", &["snapshot", "-c", "kept", name]);
        }
        let file = Arc::new(Recorder::new(std::fs::read(&path).unwrap()));
        let disk = Arc::new(Qcow2::open(file.clone(), Options::writable()).unwrap());
        customize_on(disk.clone(), Vec::new(), &plan(None), Mode::Commit).unwrap();
        disk.flush().unwrap();
        let count = file.events.lock().unwrap().len();
        assert!(count > 20, "{count} events");
        let mut random = Random(11);
        let mut seen = (false, false);
        // Every write of a short run, and of a long one about seventy and the last ones.
        let step = count / 70 + 1;
        for at in (0..=count).filter(|at| at.is_multiple_of(step) || at + 8 > count) {
            // All, nothing and a part of what was not flushed.
            for keep in [4, 0, 2] {
                let what = format!("{options}: cut after {at} of {count}, keep {keep}");
                let cut = file.cut(at, keep, &mut random);
                match name_in(&cut, image.number, &what).as_str() {
                    "image\n" => seen.0 = true,
                    "grown\n" => seen.1 = true,
                    other => panic!("{what}: {other:?}"),
                }
                // The judges take their time.
                if !(at / step + keep).is_multiple_of(3) && at + 8 < count {
                    continue;
                }
                write_sparse(&path, &cut);
                let (code, text) = command("qemu-img", &["check", "-f", "qcow2", name]);
                assert!(code == 0 || code == 3, "{what}: {text}");
                if (at / step).is_multiple_of(9) {
                    judge_guest(&image, name, &what);
                }
            }
        }
        assert_eq!(seen, (true, true), "{options}");
    }
}

#[test]
fn a_failure_at_any_write_is_told_and_leaves_an_old_or_new_guest() {
    let image = Image::new(Layout::Gpt, 64);
    let path = image.dir.path().join("image.qcow2");
    let name = path.to_str().unwrap();
    run("qemu-img", &["convert", "-c", "-f", "raw", "-O", "qcow2", image.str(), name]);
    let bytes = std::fs::read(&path).unwrap();
    let attempt = |budget: u64| {
        let now = MemoryFile::new(bytes.clone());
        let file = Arc::new(Failing { now, left: AtomicU64::new(budget) });
        let disk = Arc::new(Qcow2::open(file.clone(), Options::writable()).unwrap());
        let done = customize_on(disk.clone(), Vec::new(), &plan(None), Mode::Commit).is_ok();
        let done = done && disk.flush().is_ok();
        drop(disk);
        (done, file.now.to_vec(), budget - file.left.load(Ordering::SeqCst))
    };
    let (done, _, count) = attempt(1 << 40);
    assert!(done && count > 20, "{count} writes");
    let step = count / 60 + 1;
    let mut seen = (false, false);
    for budget in (0..count).filter(|at| at.is_multiple_of(step) || at + 8 > count) {
        let what = format!("write {budget} of {count} fails");
        let (done, after, _) = attempt(budget);
        assert!(!done, "{what}, and nobody said so");
        match name_in(&after, image.number, &what).as_str() {
            "image\n" => seen.0 = true,
            "grown\n" => seen.1 = true,
            other => panic!("{what}: {other:?}"),
        }
        if (budget / step).is_multiple_of(4) || budget + 4 > count {
            write_sparse(&path, &after);
            let (code, text) = command("qemu-img", &["check", "-f", "qcow2", name]);
            assert!(code == 0 || code == 3, "{what}: {text}");
            judge_guest(&image, name, &what);
        }
    }
    assert!(seen.0);
}

/// e2fsck puts the guest in order, and then has nothing to say.
fn judge_guest(image: &Image, name: &str, what: &str) {
    let raw = image.dir.path().join("raw");
    let raw = raw.to_str().unwrap();
    run("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", name, raw]);
    let bytes = std::fs::read(raw).unwrap();
    let (start, size) = place(&MemoryDevice::new(bytes.clone()), image.number, what);
    let part = image.dir.path().join("part");
    write_sparse(&part, &bytes[start as usize..(start + size) as usize]);
    let part = part.to_str().unwrap();
    let (code, text) = fsck("-fy", part);
    assert!(code == 0 || code == 1, "{what}: {text}");
    let (code, text) = fsck("-fn", part);
    assert_eq!(code, 0, "{what}: {text}");
}
