//! Cut power and failing devices at every write: at worst leaked clusters, each sector of the disk
//! old or new, what was flushed is there, snapshots are whole.

use std::path::Path;
use std::sync::Arc;

use snf_container::qcow2::{CreateOptions, Options, Qcow2, create};
use snf_fs::BlockDevice;
use snf_fs::testing::Random;

use crate::recording::{Event, Fault, Recording};
use crate::support::{
    Change, Judgement, Place, assert_same, judge, noise, pattern, qemu_img, qemu_io, read_all, text,
};

const SIZE: usize = 400_384;

/// The possible content of a sector of the disk after a cut: its content at the last flush, and all that was
/// written since.
struct History {
    /// Disk contents: first the durable one, then after each change.
    states: Vec<Vec<u8>>,
}

impl History {
    fn allows(&self, found: &[u8], what: &str) {
        for (number, sector) in found.chunks(512).enumerate() {
            let range = number * 512..number * 512 + sector.len();
            let known = self.states.iter().any(|state| state[range.clone()] == *sector);
            assert!(known, "{what}: sector {number} is neither old nor new");
        }
    }
}

/// A session: changes, with the number of file events after each.
struct Session {
    changes: Vec<(Change, usize)>,
}

fn image(place: &Place, options: &str, compressed: bool, snapshot: bool) -> (Vec<u8>, Vec<u8>) {
    let model = pattern(SIZE, 3);
    let raw = place.file("raw", &model);
    let image = place.path("image");
    let mut args = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", options];
    if compressed {
        args.push("-c");
    }
    args.extend([text(&raw), text(&image)]);
    qemu_img(&args);
    if snapshot {
        qemu_img(&["snapshot", "-c", "kept", text(&image)]);
        // Some is shared with the snapshot, some is not.
        qemu_io(&image, &["write -P 9 64k 100k"]);
    }
    let bytes = std::fs::read(&image).unwrap();
    (bytes, place.content(&image))
}

fn session(disk: &Qcow2, file: &Recording, seed: u64, count: usize) -> Session {
    let mut random = Random(seed);
    let cluster = disk.cluster_size() as usize;
    let mut changes = Vec::new();
    for number in 0..count {
        let change = match number % 9 {
            8 => Change::Flush,
            _ => Change::random(&mut random, SIZE, cluster.min(16_384)).in_sectors(),
        };
        change.apply(disk);
        changes.push((change, file.count()));
    }
    disk.flush().unwrap();
    changes.push((Change::Flush, file.count()));
    Session { changes }
}

/// The possible states of the disk when the power goes after `count` events.
fn history(before: &[u8], session: &Session, count: usize) -> History {
    let mut now = before.to_vec();
    let mut states = vec![now.clone()];
    for (change, end) in &session.changes {
        let begun_after = *end > count;
        if let (Change::Flush, false) = (change, begun_after) {
            states = vec![now.clone()];
            continue;
        }
        change.model(&mut now);
        states.push(now.clone());
        if begun_after {
            break;
        }
    }
    History { states }
}

fn assert_survives(
    place: &Place,
    bytes: &[u8],
    history: &History,
    snapshot: Option<&[u8]>,
    what: &str,
) {
    let path = place.file("cut", bytes);
    let (judgement, said) = judge(&path);
    assert!(judgement != Judgement::Broken, "{what}: {said}");
    let disk = crate::support::open_file(&path, Options::writable());
    let report = disk.check().unwrap();
    assert_eq!(report.errors, 0, "{what}: {report:?}");
    let leaks = report.leaks > 0;
    assert_eq!(leaks, judgement == Judgement::Leaks, "{what}: {report:?} {said}");
    history.allows(&read_all(&disk), what);
    if let Some(kept) = snapshot {
        assert_same(&place.snapshot(&path, "kept"), kept, what);
    }
}

fn cuts(options: &str, compressed: bool, snapshot: bool, seed: u64, tries: usize) {
    let place = Place::new();
    let (bytes, before) = image(&place, options, compressed, snapshot);
    let kept = snapshot.then(|| place.snapshot(&place.path("image"), "kept"));
    let file = Arc::new(Recording::new(bytes, Fault::None));
    let disk = Qcow2::open(file.clone(), Options::writable()).unwrap();
    let session = session(&disk, &file, seed, 30);
    let total = file.count();
    let mut random = Random(seed);
    for number in 0..tries {
        let count = if number < 2 { total - number } else { random.below(total + 1) };
        let what =
            format!("{options} {compressed} {snapshot} seed {seed}: cut after {count} ({number})");
        let cut = file.cut(count, seed * 1000 + number as u64);
        assert_survives(&place, &cut, &history(&before, &session, count), kept.as_deref(), &what);
    }
}

const KINDS: [(&str, bool, bool); 8] = [
    ("cluster_size=512", false, false),
    ("cluster_size=512", true, true),
    ("cluster_size=4096", false, true),
    ("cluster_size=4096,compat=0.10", true, true),
    ("cluster_size=65536", true, false),
    ("cluster_size=65536", false, true),
    ("cluster_size=16384,extended_l2=on", false, true),
    ("cluster_size=512,refcount_bits=64", false, false),
];

#[test]
fn cut_power_leaves_old_or_new() {
    let tries = std::env::var("SNF_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(25);
    for (number, (options, compressed, snapshot)) in KINDS.into_iter().enumerate() {
        for seed in 0..2 {
            cuts(options, compressed, snapshot, 1 + number as u64 * 10 + seed, tries);
        }
    }
}

/// The session until the first error; a failed change counts as begun.
fn failing(
    bytes: Vec<u8>,
    fault: Fault,
    seed: u64,
    before: &[u8],
) -> (Vec<u8>, History, bool, u64, u64) {
    let file = Arc::new(Recording::new(bytes, fault));
    let disk = Qcow2::open(file.clone(), Options::writable()).unwrap();
    let mut random = Random(seed);
    let cluster = disk.cluster_size() as usize;
    let mut now = before.to_vec();
    let mut states = vec![now.clone()];
    let mut failed = false;
    for number in 0..14 {
        let change = match number {
            6 | 13 => Change::Flush,
            _ => Change::random(&mut random, SIZE, cluster.min(16_384)).in_sectors(),
        };
        let result = match &change {
            Change::Write(at, data) => disk.write_at(*at, data).map_err(|e| e.to_string()),
            Change::Discard(at, length) => disk.discard(*at, *length).map_err(|e| e.to_string()),
            Change::Flush => disk.flush().map_err(|e| e.to_string()),
        };
        change.model(&mut now);
        match (&change, result) {
            (Change::Flush, Ok(())) => states = vec![now.clone()],
            (_, Ok(())) => states.push(now.clone()),
            (_, Err(_)) => {
                states.push(now.clone());
                failed = true;
                // Earlier writes are read as they were, or the image says no.
                let mut bytes = vec![0; SIZE];
                if disk.read_at(0, &mut bytes).is_ok() {
                    History { states: states.clone() }.allows(&bytes, "after a failure");
                }
                let _ = disk.flush();
                break;
            }
        }
    }
    drop(disk);
    (file.to_vec(), History { states }, failed, file.writes(), file.flushes())
}

#[test]
fn a_device_that_fails_at_any_write_or_flush() {
    for (number, (options, compressed, snapshot)) in KINDS.into_iter().enumerate() {
        let place = Place::new();
        let seed = 50 + number as u64;
        let (bytes, before) = image(&place, options, compressed, snapshot);
        let kept = snapshot.then(|| place.snapshot(&place.path("image"), "kept"));
        let (_, _, failed, writes, flushes) = failing(bytes.clone(), Fault::None, seed, &before);
        assert!(!failed && writes > 5 && flushes > 2);
        let step = (writes / 20).max(1);
        let faults = (0..writes).step_by(step as usize).map(Fault::Write);
        for fault in faults.chain((0..flushes).map(Fault::Flush)) {
            let (after, history, failed, ..) = failing(bytes.clone(), fault, seed, &before);
            assert!(failed, "{fault:?}");
            let what = format!("{options}: {fault:?}");
            assert_survives(&place, &after, &history, kept.as_deref(), &what);
        }
    }
}

#[test]
fn a_full_disk_is_an_error_and_the_image_stays_whole() {
    for (number, (options, compressed, snapshot)) in KINDS.into_iter().enumerate() {
        let place = Place::new();
        let (bytes, before) = image(&place, options, compressed, snapshot);
        let length = bytes.len() as u64;
        for more in [0, 4096, 70_000, 200_000] {
            let fault = Fault::Full(length + more);
            let file = Arc::new(Recording::new(bytes.clone(), fault));
            let disk = Qcow2::open(file.clone(), Options::writable()).unwrap();
            let mut random = Random(number as u64);
            let mut data = vec![0; 8192];
            let mut states = vec![before.clone()];
            let mut now = before.clone();
            let mut refused = 0;
            for at in (0..SIZE - 8192).step_by(8192) {
                crate::support::noise(&mut data, &mut random);
                if let Err(error) = disk.write_at(at as u64, &data) {
                    assert_eq!(error.source.raw_os_error(), Some(28), "{error}");
                    refused += 1;
                }
                now[at..at + 8192].copy_from_slice(&data);
                states.push(now.clone());
            }
            assert!(refused > 0 || more > 0 || !snapshot, "{options}");
            // The image goes on: what fitted is there.
            disk.flush().unwrap();
            drop(disk);
            let history = History { states };
            let what = format!("{options}, {more} bytes more");
            assert_survives(&place, &file.to_vec(), &history, None, &what);
        }
    }
}

/// Growth is old or new, too.
#[test]
fn cut_power_while_a_disk_grows() {
    for (options, size) in
        [("cluster_size=512", SIZE), ("cluster_size=512", 32 << 10), ("cluster_size=65536", SIZE)]
    {
        let place = Place::new();
        let model = pattern(size, 8);
        let raw = place.file("raw", &model);
        let path = place.path("image");
        qemu_img(&["convert", "-f", "raw", "-O", "qcow2", "-o", options, text(&raw), text(&path)]);
        let file = Arc::new(Recording::new(std::fs::read(&path).unwrap(), Fault::None));
        let disk = Qcow2::open(file.clone(), Options::writable()).unwrap();
        disk.write_at(100, &[5; 1000]).unwrap();
        disk.grow(12 << 20).unwrap();
        let mut new = model.clone();
        new[100..1100].fill(5);
        new.resize(12 << 20, 0);
        for count in 0..=file.count() {
            for seed in 0..3 {
                assert_grown(&place.file("cut", &file.cut(count, seed)), &model, &new, options);
            }
        }
    }
}

fn assert_grown(path: &Path, old: &[u8], new: &[u8], what: &str) {
    let (judgement, said) = judge(path);
    assert!(judgement != Judgement::Broken, "{what}: {said}");
    let disk = crate::support::open_file(path, Options::writable());
    let found = read_all(&disk);
    if found.len() == new.len() {
        assert_same(&found, new, what);
    } else {
        assert_eq!(found.len(), old.len());
        assert_same(&found[1100..], &old[1100..], what);
    }
}

/// The refcount table fills up and moves while clusters come and go.
#[test]
fn cut_power_while_the_refcount_table_grows() {
    let place = Place::new();
    let new = Recording::new(Vec::new(), Fault::None);
    let options = CreateOptions::default().cluster_size(512).refcount_bits(64);
    create(&new, 6 << 20, &options).unwrap();
    let empty = new.to_vec();
    let file = Arc::new(Recording::new(empty.clone(), Fault::None));
    let disk = Qcow2::open(file.clone(), Options::writable()).unwrap();
    let mut random = Random(5);
    let mut changes = Vec::new();
    for number in 0..56u64 {
        let change = match number % 14 {
            6 | 13 => Change::Flush,
            10 => Change::Discard((number / 14) << 19, 100 << 10),
            _ => {
                let mut data = vec![0; 96 << 10];
                noise(&mut data, &mut random);
                Change::Write(number * (96 << 10), data)
            }
        };
        change.apply(&disk);
        changes.push((change, file.count()));
    }
    assert_ne!(file.to_vec()[48..56], empty[48..56], "the table did not move");
    // Around each write of the header, and elsewhere.
    let mut counts: Vec<usize> = Vec::new();
    for (number, event) in file.events().iter().enumerate() {
        if matches!(event, Event::Write(0, _)) {
            counts.extend(number.saturating_sub(6)..(number + 6).min(file.count()));
        }
    }
    counts.extend((0..30).map(|_| random.below(file.count() + 1)));
    let session = Session { changes };
    let before = vec![0; 6 << 20];
    for count in counts {
        let what = format!("refcount table: cut after {count}");
        let cut = file.cut(count, count as u64);
        assert_survives(&place, &cut, &history(&before, &session, count), None, &what);
    }
}
