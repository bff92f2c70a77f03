//! One damage at a time, with the error that must name it, and what is not touched meanwhile.

use std::path::Path;
use std::sync::Arc;

use snf_container::qcow2::{Options, Qcow2};
use snf_container::{GrowableDevice, GrowableFile, MemoryFile};
use snf_fs::BlockDevice;

use crate::support::{Place, qemu_img, qemu_io, text};

const COPIED: u64 = 1 << 63;

/// An image of 64 KiB clusters with a snapshot, in memory.
struct Image(Vec<u8>);

impl Image {
    fn new() -> Self {
        let place = Place::new();
        let path = place.path("image");
        qemu_img(&["create", "-q", "-f", "qcow2", text(&path), "2G"]);
        qemu_io(&path, &["write -P 1 0 256k", "write -P 2 1G 64k"]);
        qemu_img(&["snapshot", "-c", "kept", text(&path)]);
        qemu_io(&path, &["write -P 3 0 128k"]);
        Self(std::fs::read(path).unwrap())
    }

    fn word(&self, at: u64) -> u64 {
        let at = at as usize;
        u64::from_be_bytes(self.0[at..at + 8].try_into().unwrap())
    }

    fn set(&mut self, at: u64, bytes: &[u8]) {
        self.0[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    }

    fn set_word(&mut self, at: u64, word: u64) {
        self.set(at, &word.to_be_bytes());
    }

    fn l1(&self) -> u64 {
        self.word(40)
    }

    /// The first L2 table.
    fn l2(&self) -> u64 {
        self.word(self.l1()) & !COPIED
    }

    fn refcount_block(&self) -> u64 {
        self.word(self.word(48))
    }

    fn open(&self, options: Options) -> Result<(Arc<MemoryFile>, Qcow2), String> {
        let file = Arc::new(MemoryFile::new(self.0.clone()));
        let chain = |error: snf_container::qcow2::Error| error.to_string();
        Qcow2::open(file.clone(), options).map(|disk| (file, disk)).map_err(chain)
    }

    fn refused(&self, words: &str) {
        let said = self.open(Options::writable()).map(|_| ()).unwrap_err();
        assert!(said.contains(words), "{said}");
    }

    /// Opens, and the write of 4 KiB at `at` is refused with these words; nothing is written.
    fn write_refused(&self, at: u64, words: &str) {
        let (file, disk) = self.open(Options::writable()).unwrap();
        let said = disk.write_at(at, &[9; 4096]).unwrap_err().source.to_string();
        assert!(said.contains(words), "{said}");
        drop(disk);
        assert!(file.to_vec()[..self.0.len()] == self.0, "something was written");
    }
}

#[test]
fn tables_that_overlap() {
    let good = Image::new();
    good.open(Options::writable()).unwrap();
    let mut image = Image::new();
    // The L1 table where the refcount table is.
    let table = image.word(48);
    image.set_word(40, table);
    image.refused("two of the image's own tables share this cluster");
    // Two entries with one L2 table.
    let mut image = Image::new();
    let first = image.word(image.l1());
    image.set_word(image.l1() + 8, first);
    image.refused("two of the image's own tables share this cluster");
    // An L2 table that is a refcount block.
    let mut image = Image::new();
    let block = image.refcount_block();
    image.set_word(image.l1() + 16, block | COPIED);
    image.refused("two of the image's own tables share this cluster");
    // Two refcount blocks in one cluster.
    let mut image = Image::new();
    image.set_word(image.word(48) + 8, block);
    image.refused("two of the image's own tables share this cluster");
    // Reading such an image ends.
    let mut image = Image::new();
    let l1 = image.l1();
    image.set_word(l1, l1 | COPIED);
    let (_, disk) = image.open(Options::read_only()).unwrap();
    let mut buf = vec![0; 1 << 20];
    let _ = disk.read_at(0, &mut buf);
    assert!(disk.check().unwrap().errors > 0);
}

#[test]
fn guest_data_that_is_a_table() {
    for table in [0u64, 1, 2, 3, 4] {
        let mut image = Image::new();
        let target = match table {
            0 => image.word(48),
            1 => image.refcount_block(),
            2 => image.l1(),
            3 => image.word(64),
            _ => image.l2(),
        };
        image.set_word(image.l2(), target | COPIED);
        image.write_refused(0, "share this cluster");
        let (_, disk) = image.open(Options::writable()).unwrap();
        assert!(disk.discard(0, 65_536).unwrap_err().to_string().contains("share this cluster"));
    }
}

#[test]
fn refcount_games() {
    // Everything is free: nothing is allocated over the image's tables.
    let mut image = Image::new();
    let block = image.refcount_block();
    image.set(block, &[0; 65_536]);
    image.write_refused(1 << 29, "refcount is 0; run qemu-img check -r all");
    // The active L2 table's refcount is 0.
    let mut image = Image::new();
    let l2 = image.l2();
    image.set(block + l2 / 65_536 * 2, &[0, 0]);
    image.write_refused(200_000, "run qemu-img check -r all");
    // A cluster's refcount is 0: it is not given up twice.
    let mut image = Image::new();
    let data = image.word(image.l2()) & !COPIED;
    image.set(block + data / 65_536 * 2, &[0, 0]);
    image.write_refused(0, "too low a refcount");
    let report = image.open(Options::read_only()).unwrap().1.check().unwrap();
    assert!(report.errors >= 1, "{report:?}");
    assert!(report.findings.iter().any(|finding| finding.offset == data), "{report:?}");
    // A cluster with the flag COPIED that a snapshot has, too, is not overwritten.
    let mut image = Image::new();
    let entry = image.l2() + 3 * 8;
    let shared = image.word(entry);
    assert_eq!(shared & COPIED, 0);
    image.set_word(entry, shared | COPIED);
    let (file, disk) = image.open(Options::writable()).unwrap();
    disk.write_at(3 * 65_536, &[7; 4096]).unwrap();
    disk.flush().unwrap();
    let at = shared as usize;
    assert!(file.to_vec()[at..at + 65_536].iter().all(|byte| *byte == 1));
}

#[test]
fn sizes_and_places_beyond_the_end() {
    let end = Image::new().0.len() as u64;
    let mut image = Image::new();
    image.set(36, &u32::MAX.to_be_bytes());
    image.refused("the level 1 table has 4294967295 entries");
    let mut image = Image::new();
    image.set_word(24, u64::MAX / 2);
    image.refused("are needed");
    let mut image = Image::new();
    image.set_word(40, end - 8);
    image.refused("is not within the file");
    let mut image = Image::new();
    image.set(56, &u32::MAX.to_be_bytes());
    image.refused("the refcount table has 4294967295 clusters");
    let mut image = Image::new();
    image.set_word(image.word(48), end.next_multiple_of(65_536) + 65_536);
    image.refused("no block can be there");
    let mut image = Image::new();
    image.set_word(64, end.next_multiple_of(65_536));
    image.refused("snapshot table");
    let mut image = Image::new();
    image.set(60, &u32::MAX.to_be_bytes());
    image.refused("4294967295 snapshots");
    let mut image = Image::new();
    image.set(60, &9999u32.to_be_bytes());
    image.refused("snapshot table");
    let mut image = Image::new();
    let table = image.word(64);
    image.set(table + 36, &u32::MAX.to_be_bytes());
    image.refused("is too long or ends beyond the file");
    let mut image = Image::new();
    image.set(table + 8, &u32::MAX.to_be_bytes());
    image.refused("has its L1 table at");
    // Data beyond the end is an error where it is read, not before.
    let mut image = Image::new();
    image.set_word(image.l2(), (end.next_multiple_of(65_536) * 16) | COPIED);
    let (_, disk) = image.open(Options::read_only()).unwrap();
    let said = disk.read_at(0, &mut [0; 512]).unwrap_err().source.to_string();
    assert!(said.contains("truncated or damaged"), "{said}");
    disk.read_at(65_536, &mut [0; 512]).unwrap();
}

/// The most that one thread had in memory, in bytes, while it worked.
fn peak(work: impl FnOnce()) -> usize {
    crate::memory::start();
    work();
    crate::memory::peak()
}

fn sparse(place: &Place) -> (std::path::PathBuf, GrowableFile) {
    let path = place.file("sparse", b"");
    let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    (path, GrowableFile::new(file).unwrap())
}

#[test]
fn memory_is_bounded_whatever_the_size() {
    let place = Place::new();
    let (path, file) = sparse(&place);
    let options = snf_container::qcow2::CreateOptions::default();
    snf_container::qcow2::create(&file, 16 << 40, &options).unwrap();
    let used = peak(|| {
        let disk = Qcow2::open(file, Options::writable().cache(4 << 20)).unwrap();
        // Each write needs an L2 table of its own.
        for number in 0..1500u64 {
            disk.write_at(number * (8 << 30) + 70_000, &[number as u8 | 1; 512]).unwrap();
        }
        disk.discard(0, 4 << 40).unwrap();
        disk.flush().unwrap();
    });
    assert!(used < (64 << 20) + (8 << 20), "{} MiB", used >> 20);
    assert_judged_clean(&path);
}

/// An L1 table of 32 MiB, all of it the image's own word, in a file with holes.
#[test]
fn the_largest_l1_table() {
    let place = Place::new();
    let (path, file) = sparse(&place);
    let options = snf_container::qcow2::CreateOptions::default().cluster_size(512);
    snf_container::qcow2::create(&file, 128 << 30, &options).unwrap();
    let used = peak(|| {
        let disk = Qcow2::open(file, Options::writable().cache(4 << 20)).unwrap();
        for number in 0..2000u64 {
            disk.write_at(number * (60 << 20), &[7; 512]).unwrap();
        }
        disk.flush().unwrap();
        assert!(disk.check().unwrap().is_clean());
    });
    assert!(used < (64 << 20) + (8 << 20), "{} MiB", used >> 20);
    assert_judged_clean(&path);
}

fn assert_judged_clean(path: &Path) {
    crate::support::assert_clean(path);
    // GrowableDevice is the crate's face for other files, too.
    let file: Arc<dyn GrowableDevice> =
        Arc::new(GrowableFile::new(std::fs::File::open(path).unwrap()).unwrap());
    assert!(Qcow2::open(file, Options::read_only()).is_ok());
}
