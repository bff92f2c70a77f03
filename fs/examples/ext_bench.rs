//! Measures the engines on real images; `cargo xtask bench ext` and `bench ntfs` call it.
//!
//! - `ext_bench edit IMAGE [START_BYTE]`: the blocks of 4 KiB that opening and replacing /etc/shadow
//!   reads and writes. Nothing is written to the image; the edit is committed to a copy in memory.
//! - `ext_bench walk IMAGE [START_BYTE]`: finds, reads and hashes every file.
//! - `ext_bench inject IMAGE [commit]`: ten files put into the directory `d1` of an NTFS volume, as `edit`
//!   does it; with `commit` the image itself gets them, for good.
//! - `ext_bench tree DIRECTORY`: the same with what the kernel has mounted there.
//! - `ext_bench grow IMAGE`: enlarges the bare file system to its file's size, for good.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io::Read as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use snf_fs::ext::{Ext, Options};
use snf_fs::ntfs::Ntfs;
use snf_fs::testing::{Fault, FaultDevice};
use snf_fs::{
    Attributes, BlockDevice, DeviceError, FileDevice, FileSystem, FileType, NodeId, Slice,
};

/// Counts what passes, and keeps writes to itself (512-byte sectors).
struct Counting {
    below: Slice,
    written: Mutex<BTreeMap<u64, [u8; 512]>>,
    reads: AtomicU64,
    read_blocks: AtomicU64,
    writes: AtomicU64,
    write_blocks: AtomicU64,
    flushes: AtomicU64,
}

impl Counting {
    fn new(below: Slice) -> Self {
        Self {
            below,
            written: Mutex::default(),
            reads: AtomicU64::new(0),
            read_blocks: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            write_blocks: AtomicU64::new(0),
            flushes: AtomicU64::new(0),
        }
    }

    fn print(&self, since: Instant) {
        let elapsed = since.elapsed();
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        println!(
            "{} blocks read in {} requests, {} blocks written in {} requests, {} flushes, {elapsed:?}",
            count(&self.read_blocks),
            count(&self.reads),
            count(&self.write_blocks),
            count(&self.writes),
            count(&self.flushes),
        );
    }
}

/// Blocks of 4 KiB that a request touches.
fn blocks(offset: u64, length: usize) -> u64 {
    (offset + length as u64).div_ceil(4096) - offset / 4096
}

impl BlockDevice for Counting {
    fn len(&self) -> u64 {
        self.below.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read_blocks.fetch_add(blocks(offset, buf.len()), Ordering::Relaxed);
        self.below.read_at(offset, buf)?;
        let written = self.written.lock().unwrap();
        let end = offset + buf.len() as u64;
        for (sector, bytes) in written.range(offset / 512..end.div_ceil(512)) {
            for (i, byte) in bytes.iter().enumerate() {
                let at = sector * 512 + i as u64;
                if (offset..end).contains(&at) {
                    buf[(at - offset) as usize] = *byte;
                }
            }
        }
        Ok(())
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        self.writes.fetch_add(1, Ordering::Relaxed);
        self.write_blocks.fetch_add(blocks(offset, buf.len()), Ordering::Relaxed);
        let mut written = self.written.lock().unwrap();
        for (i, sector) in buf.chunks_exact(512).enumerate() {
            written.insert(offset / 512 + i as u64, sector.try_into().unwrap());
        }
        Ok(())
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.flushes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

fn find(fs: &Ext, path: &str) -> Option<NodeId> {
    path.split('/').try_fold(fs.root(), |dir, name| fs.lookup(dir, name.as_bytes()).unwrap())
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["edit", image, start @ ..] => edit(image, start),
        ["walk", image, start @ ..] => walk(image, start),
        ["inject", image] => inject(image),
        ["inject", image, "commit"] => inject_for_good(image),
        ["tree", directory] => tree(Path::new(directory)),
        ["grow", image] => grow(image),
        _ => {
            eprintln!(
                "usage: ext_bench edit|walk IMAGE [START_BYTE] | inject IMAGE [commit] | tree DIRECTORY | grow IMAGE"
            );
            std::process::exit(2);
        }
    }
}

/// The file system that begins at byte `start` of an image.
fn slice(image: &str, start: &[&str]) -> Slice {
    let start = start.first().map_or(0, |word| word.parse().unwrap());
    let device = FileDevice::from_file(File::open(image).unwrap()).unwrap();
    let size = device.len() - start;
    Slice::new(Arc::new(device), start, size).unwrap()
}

fn edit(image: &str, start: &[&str]) {
    let counting = Arc::new(Counting::new(slice(image, start)));
    let since = Instant::now();
    let mut fs = Ext::open(counting.clone(), Options::default()).unwrap();
    let shadow = find(&fs, "etc/shadow").expect("the image has /etc/shadow");
    let mut content = vec![0; fs.stat(shadow).unwrap().size as usize];
    fs.read(shadow, 0, &mut content).unwrap();
    content.extend_from_slice(b"new:*:1:0:99999:7:::\n");
    fs.replace(shadow, &content).unwrap();
    fs.commit().unwrap();
    counting.print(since);
}

fn inject(image: &str) {
    let counting = Arc::new(Counting::new(slice(image, &[])));
    let since = Instant::now();
    ten_files(counting.clone());
    counting.print(since);
}

fn inject_for_good(image: &str) {
    let file = File::options().read(true).write(true).open(image).unwrap();
    ten_files(Arc::new(FileDevice::from_file(file).unwrap()));
}

fn ten_files(device: Arc<dyn BlockDevice>) {
    let mut fs = Ntfs::open(device).unwrap();
    let dir = fs.lookup(fs.root(), b"d1").unwrap().expect("the volume has a directory d1");
    let attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };
    for index in 0..10usize {
        let node = fs.create(dir, format!("injected {index}.conf").as_bytes(), attributes).unwrap();
        fs.replace(node, &vec![b'x'; 1_000 * index]).unwrap();
    }
    fs.commit().unwrap();
}

/// The sum of a walk.
#[derive(Default)]
struct Seen {
    hash: DefaultHasher,
    nodes: u64,
    bytes: u64,
}

impl Seen {
    fn add(&mut self, content: &[u8]) {
        self.hash.write(content);
        self.bytes += content.len() as u64;
    }

    fn print(&self, since: Instant) {
        let seconds = since.elapsed().as_secs_f64();
        println!(
            "{} nodes, {} MiB in {seconds:.3} s, {:.0} MiB/s",
            self.nodes,
            self.bytes >> 20,
            self.bytes as f64 / seconds / f64::from(1 << 20),
        );
    }
}

fn walk(image: &str, start: &[&str]) {
    let since = Instant::now();
    let device = Arc::new(slice(image, start));
    let mut magic = [0; 4];
    device.read_at(3, &mut magic).unwrap();
    let fs: Box<dyn FileSystem> = match &magic {
        b"NTFS" => Box::new(Ntfs::open(device).unwrap()),
        _ => Box::new(Ext::open(device, Options::default()).unwrap()),
    };
    let mut seen = Seen::default();
    let mut buf = vec![0; 1 << 20];
    let mut todo = vec![fs.root()];
    while let Some(dir) = todo.pop() {
        for entry in fs.readdir(dir).unwrap() {
            seen.nodes += 1;
            let stat = fs.stat(entry.node).unwrap();
            match stat.file_type {
                FileType::Directory => todo.push(entry.node),
                FileType::Regular => {
                    let mut offset = 0;
                    while offset < stat.size {
                        let n = fs.read(entry.node, offset, &mut buf).unwrap();
                        seen.add(&buf[..n]);
                        offset += n as u64;
                    }
                }
                _ => {}
            }
        }
    }
    seen.print(since);
}

fn tree(root: &Path) {
    let since = Instant::now();
    let mut seen = Seen::default();
    let mut buf = vec![0; 1 << 20];
    let mut todo = vec![root.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            seen.nodes += 1;
            let kind = path.symlink_metadata().unwrap().file_type();
            if kind.is_dir() {
                todo.push(path);
            } else if kind.is_file() {
                let mut file = File::open(path).unwrap();
                loop {
                    let n = file.read(&mut buf).unwrap();
                    if n == 0 {
                        break;
                    }
                    seen.add(&buf[..n]);
                }
            }
        }
    }
    seen.print(since);
}

fn grow(image: &str) {
    let file = File::options().read(true).write(true).open(image).unwrap();
    let file = Arc::new(FileDevice::from_file(file).unwrap());
    let device = Arc::new(FaultDevice::new(file, Fault::None));
    let mut fs = Ext::open(device.clone(), Options::default()).unwrap();
    let report = fs.grow(None).unwrap();
    fs.commit().unwrap();
    let written = device.counts().bytes_written.load(Ordering::Relaxed);
    println!("{} new groups, {} KiB written", report.new_groups, written >> 10);
}
