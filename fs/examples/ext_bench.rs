//! Measures the ext engine on a real image: `ext_bench IMAGE [START_BYTE]`. Nothing is written to
//! the image; the edit is committed to a copy in memory.
//!
//! Prints, for opening and replacing /etc/shadow, the blocks read and written, and for a walk that
//! reads every file, the time and the rate.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use snf_fs::ext::{Ext, Options};
use snf_fs::{BlockDevice, DeviceError, FileDevice, FileSystem, FileType, NodeId, Slice};

/// Counts what passes, and keeps writes to itself (512-byte sectors).
struct Counting {
    below: Slice,
    written: Mutex<BTreeMap<u64, [u8; 512]>>,
    reads: AtomicU64,
    read_bytes: AtomicU64,
    writes: AtomicU64,
    write_bytes: AtomicU64,
    flushes: AtomicU64,
}

impl BlockDevice for Counting {
    fn len(&self) -> u64 {
        self.below.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.read_bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
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
        self.write_bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
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
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().expect("an image");
    let start = arguments.next().map_or(0, |word| word.parse().unwrap());
    let device = Arc::new(FileDevice::from_file(File::open(path).unwrap()).unwrap());
    let size = device.len() - start;
    let counting = Arc::new(Counting {
        below: Slice::new(device, start, size).unwrap(),
        written: Mutex::default(),
        reads: AtomicU64::new(0),
        read_bytes: AtomicU64::new(0),
        writes: AtomicU64::new(0),
        write_bytes: AtomicU64::new(0),
        flushes: AtomicU64::new(0),
    });
    let report = |what: &str, since: Instant| {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        println!(
            "{what}: {:?}; {} reads of {} KiB, {} writes of {} KiB, {} flushes",
            since.elapsed(),
            take(&counting.reads),
            take(&counting.read_bytes) / 1024,
            take(&counting.writes),
            take(&counting.write_bytes) / 1024,
            take(&counting.flushes),
        );
    };

    let since = Instant::now();
    let mut fs = Ext::open(counting.clone(), Options::default()).unwrap();
    report("open", since);
    if let Some(shadow) = find(&fs, "etc/shadow") {
        let since = Instant::now();
        let mut content = vec![0; fs.stat(shadow).unwrap().size as usize];
        fs.read(shadow, 0, &mut content).unwrap();
        content.extend_from_slice(b"new:*:1:0:99999:7:::\n");
        fs.replace(shadow, &content).unwrap();
        report("look up, read and replace /etc/shadow", since);
        let since = Instant::now();
        println!("{:?}", fs.commit().unwrap());
        report("commit", since);
    }

    let since = Instant::now();
    let mut hash = DefaultHasher::new();
    let (mut nodes, mut bytes) = (0u64, 0u64);
    let mut buf = vec![0; 1 << 20];
    let mut todo = vec![fs.root()];
    while let Some(dir) = todo.pop() {
        for entry in fs.readdir(dir).unwrap() {
            nodes += 1;
            let stat = fs.stat(entry.node).unwrap();
            match stat.file_type {
                FileType::Directory => todo.push(entry.node),
                FileType::Regular => {
                    let mut offset = 0;
                    while offset < stat.size {
                        let n = fs.read(entry.node, offset, &mut buf).unwrap();
                        hash.write(&buf[..n]);
                        offset += n as u64;
                    }
                    bytes += offset;
                }
                _ => {}
            }
        }
    }
    let seconds = since.elapsed().as_secs_f64();
    report("walk and hash", since);
    println!(
        "{nodes} nodes, {} MiB, {:.0} MiB/s, hash {:x}",
        bytes >> 20,
        bytes as f64 / seconds / f64::from(1 << 20),
        hash.finish()
    );
}
