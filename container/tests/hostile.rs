//! Hostile images: good ones with damaged headers, tables, refcounts and snapshot tables, put
//! through everything. No panic, no more memory or reads than promised. `SNF_FUZZ_SECONDS=120` is for
//! all harnesses of the checkout together: this one takes a tenth of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use snf_container::qcow2::{Options, Qcow2};
use snf_container::{GrowableDevice, GrowableFile, MemoryFile};
use snf_fs::{BlockDevice, DeviceError};

use crate::choices::Choices;
use crate::run::{Outcome, Target};
// Not the root's: the targets of cargo-fuzz have this file in another place.
use super::support::{Place, pattern, qemu_img, qemu_io, text};

/// Bytes of cache for L2 tables and for refcount blocks each: the images are small.
const CACHE: u64 = 1 << 20;
/// A file of a test that a hostile image made this long holds something it should not.
const MOST_FILE: u64 = 64 << 20;

/// A file that counts reads and does not grow without end. It is none in memory, so that only the
/// engine's memory is measured.
struct Counting {
    file: GrowableFile,
    reads: AtomicU64,
}

impl BlockDevice for Counting {
    fn len(&self) -> u64 {
        self.file.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.file.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        self.file.write_at(offset, buf)
    }
    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

impl GrowableDevice for Counting {
    fn set_len(&self, size: u64) -> Result<(), DeviceError> {
        if size > MOST_FILE {
            return Err(DeviceError {
                operation: "grow to",
                offset: size,
                length: 0,
                source: std::io::Error::from_raw_os_error(28),
            });
        }
        self.file.set_len(size)
    }
}

struct Image {
    name: String,
    bytes: Vec<u8>,
    /// The places of the tables: offsets of clusters worth damaging.
    tables: Vec<usize>,
}

impl Image {
    fn new(options: &str, compressed: bool, snapshots: usize) -> Self {
        let place = Place::new();
        let raw = place.file("raw", &pattern(300_032, 5));
        let image = place.path("image");
        let mut args = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", options];
        if compressed {
            args.push("-c");
        }
        args.extend([text(&raw), text(&image)]);
        qemu_img(&args);
        for number in 0..snapshots {
            qemu_img(&["snapshot", "-c", &format!("snapshot {number}"), text(&image)]);
            qemu_io(&image, &["write -P 9 4k 60k"]);
        }
        // A disk with bitmaps does not grow: one image has some.
        if options.contains("refcount_bits=64") {
            qemu_img(&["bitmap", "-f", "qcow2", "--add", text(&image), "bitmap"]);
        }
        let bytes = std::fs::read(&image).unwrap();
        let word = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        let mut tables = vec![0, word(40), word(48)];
        tables.extend((snapshots > 0).then(|| word(64)));
        let offset = |at: usize| word(at) & 0x00ff_ffff_ffff_fe00;
        for first in [word(40), word(48)] {
            let entries = (0..8).map(|entry| offset(first + entry * 8));
            tables.extend(entries.filter(|offset| *offset > 0 && *offset < bytes.len()));
        }
        if snapshots > 0 {
            tables.push(word(word(64)));
        }
        let name = format!("{options} compressed={compressed} snapshots={snapshots}");
        Self { name, bytes, tables }
    }

    /// A value that an attacker would choose.
    fn value(&self, choices: &mut Choices<'_>) -> u64 {
        let table = self.tables[choices.below(self.tables.len())] as u64;
        match choices.below(12) {
            0 => 0,
            1 => u64::MAX,
            2 => 1 << choices.below(64),
            3 => self.bytes.len() as u64,
            4 => (self.bytes.len() as u64).next_multiple_of(65_536),
            5 | 6 => table,
            7 => table | 1 << 63,
            8 => table | 1 << 62 | (choices.number(1) << 54),
            9 => choices.number(2),
            10 => choices.number(1) << choices.below(56),
            _ => choices.number(8),
        }
    }

    fn damage(&self, choices: &mut Choices<'_>) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        for _ in 0..1 + choices.below(4) {
            let table = self.tables[choices.below(self.tables.len())];
            let span = if table == 0 { 112 } else { 512 };
            let width = [1, 2, 4, 8, 8, 8][choices.below(6)];
            let at = table + choices.below(span / width) * width;
            let value = self.value(choices).to_be_bytes();
            if let Some(place) = bytes.get_mut(at..at + width) {
                place.copy_from_slice(&value[8 - width..]);
            }
        }
        if choices.below(16) == 0 {
            bytes.truncate(choices.below(bytes.len()));
        }
        bytes
    }

    /// Everything that can be done with an image; whether something was refused.
    fn exercise(bytes: Vec<u8>, choices: &mut Choices<'_>) -> Outcome {
        let file = GrowableFile::new(tempfile::tempfile().unwrap()).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        file.write_at(0, &bytes).unwrap();
        drop(bytes);
        let file = Arc::new(Counting { file, reads: AtomicU64::new(0) });
        let mut noticed = false;
        let mut note = |failed: bool| noticed |= failed;
        for options in [Options::read_only(), Options::writable()] {
            let writable = options.writable;
            let disk = match Qcow2::open(file.clone(), options.cache(CACHE)) {
                Ok(disk) => disk,
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    note(true);
                    continue;
                }
            };
            note(disk.snapshots().is_err());
            note(disk.check().map_or(true, |report| !report.is_clean()));
            let size = disk.len();
            let mut buf = vec![0; 4096];
            // In order, as a copy does it; a damaged size may be huge.
            let mut at = 0;
            for _ in 0..64 {
                match disk.read_extent(at, &mut buf) {
                    Ok(extent) if extent.length == 0 => break,
                    Ok(extent) => at += extent.length,
                    Err(_) => {
                        note(true);
                        break;
                    }
                }
            }
            assert!(at <= size);
            for _ in 0..12 {
                let at = match choices.below(4) {
                    0 => choices.number(8) % size.max(1),
                    _ => choices.number(4) % size.clamp(1, 300_032),
                };
                let length = size.saturating_sub(at).min(4096) as usize;
                note(disk.read_at(at, &mut buf[..length]).is_err());
                if writable {
                    let part = &buf[..length];
                    note(match choices.below(4) {
                        0 => disk.discard(at, length as u64).is_err(),
                        1 => disk.write_at(at, &vec![0; length]).is_err(),
                        _ => {
                            let changed: Vec<u8> = part.iter().map(|byte| byte ^ 0x35).collect();
                            disk.write_at(at, &changed).is_err()
                        }
                    });
                }
            }
            if writable {
                note(disk.flush().is_err());
                // Refused for good images, too.
                let _ = disk.grow(size.saturating_add(1 << 20) / 512 * 512);
                note(disk.discard(0, size.min(1 << 20)).is_err());
                note(disk.flush().is_err());
                note(disk.check().is_err());
            }
        }
        Outcome { reads: file.reads.load(Ordering::Relaxed), noticed }
    }
}

impl Target for Image {
    fn name(&self) -> String {
        self.name.clone()
    }
    fn round(&self, choices: &mut Choices<'_>) -> Outcome {
        let bytes = self.damage(choices);
        Self::exercise(bytes, choices)
    }
    fn cache(&self) -> usize {
        2 * CACHE as usize
    }
    fn check_undamaged(&self) {
        let disk = Qcow2::open(MemoryFile::new(self.bytes.clone()), Options::writable()).unwrap();
        assert!(disk.check().unwrap().is_clean(), "{}", self.name);
    }
}

/// Good images of every kind.
pub fn targets() -> Vec<Box<dyn Target>> {
    [
        ("cluster_size=512", false, 2),
        ("cluster_size=4096", true, 1),
        ("cluster_size=4096,compat=0.10", true, 2),
        ("cluster_size=65536,refcount_bits=64", false, 1),
        ("cluster_size=16384,extended_l2=on,refcount_bits=8", true, 1),
        ("cluster_size=65536,compression_type=zstd", true, 0),
    ]
    .into_iter()
    .map(|(options, compressed, snapshots)| {
        Box::new(Image::new(options, compressed, snapshots)) as Box<dyn Target>
    })
    .collect()
}

#[test]
fn damaged_images_are_refused_or_used_safely() {
    crate::run::run_all(&targets(), crate::run::seconds(10), 400);
}
