//! Damaged registry hives and logs: base block, bins, cells and log entries, with right checksums and
//! hashes, before they are read, peeked into, edited and closed. The stable harness (`fuzz_hives.rs`)
//! and the target of cargo-fuzz (`fuzz/` in the checkout) share it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::cell::Cell;

use snf_image::registry::{FileTime, Hive, Peek, REG_BINARY, Result};

use crate::choices::Choices;
use crate::mutate::mutate;
use crate::run::{Outcome, Target};

const NOW: FileTime = FileTime(133_000_000_000_000_000);
/// A self-relative descriptor without owner and lists.
const DESCRIPTOR: [u8; 20] = [1, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
/// The offset of the bins.
const BINS: usize = 4096;
/// Keys that a walk looks at: a damaged hive may have a key below itself.
const MOST_KEYS: usize = 3_000;

/// The calls on the damaged one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Everything read.
    Read,
    /// Single values looked up where they lie.
    Peek,
    /// Values and keys made, changed and removed; what was closed must open again.
    Edit,
    /// Replayed from a log in the new format.
    Log,
}

/// A hive, and a log that belongs to it.
struct Corpus {
    part: Part,
    minor: u32,
    hive: Vec<u8>,
    /// Byte and length of each structure.
    places: Vec<(usize, usize)>,
    log: Vec<u8>,
}

/// One of everything: lists of all lengths, values in themselves, in a cell and in segments.
fn full(minor: u32) -> Vec<u8> {
    let mut hive = Hive::create("FUZZ", minor, &DESCRIPTOR, NOW).unwrap();
    let many = hive.create_path(hive.root(), "many").unwrap();
    for number in 0..530 {
        hive.create_key(many, &format!("key{number}")).unwrap();
    }
    let deep = hive.create_path(hive.root(), "ControlSet001\\Control\\Größe").unwrap();
    hive.set_class_name(deep, "class").unwrap();
    for size in [0, 3, 9, 300, 17_000, 40_000] {
        hive.set_value(deep, &format!("v{size}"), REG_BINARY, &vec![3; size]).unwrap();
    }
    hive.set_text(deep, "text", "a text").unwrap();
    hive.set_number(deep, "number", 7).unwrap();
    // Removed values leave free cells.
    hive.delete_value(deep, "v300").unwrap();
    hive.finish()
}

fn number(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Base block, bins and cells.
fn places(hive: &[u8]) -> Vec<(usize, usize)> {
    let mut out = vec![(0, 256); 4];
    let mut bin = BINS;
    while bin < hive.len() {
        out.push((bin, 32));
        let end = bin + number(hive, bin + 8) as usize;
        let mut cell = bin + 32;
        while cell < end {
            let size = (number(hive, cell) as i32).unsigned_abs() as usize;
            // The data of values is long, and nothing in it can be wrong.
            out.push((cell, size.min(512)));
            cell += size;
        }
        bin = end;
    }
    out
}

/// XOR-32 over the first 508 bytes, with the two values that are avoided.
fn seal(base: &mut [u8]) {
    let sum = base[..508].chunks_exact(4).fold(0, |sum, word| sum ^ number(word, 0));
    let sum = match sum {
        0 => 1,
        u32::MAX => u32::MAX - 1,
        sum => sum,
    };
    base[508..512].copy_from_slice(&sum.to_le_bytes());
}

/// Marvin32 under the key of registry logs.
fn marvin(data: &[u8]) -> u64 {
    let (mut low, mut high) = (0x884d_ef82_u32, 0xc555_4e7a_u32);
    let mut padded = data.to_vec();
    padded.push(0x80);
    padded.resize(padded.len().next_multiple_of(4), 0);
    let words: Vec<u32> = padded.chunks_exact(4).map(|word| number(word, 0)).chain([0]).collect();
    for word in words {
        low = low.wrapping_add(word);
        high ^= low;
        low = low.rotate_left(20).wrapping_add(high);
        high = high.rotate_left(9) ^ low;
        low = low.rotate_left(27).wrapping_add(high);
        high = high.rotate_left(19);
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Hashes of the log entry at 512, which is as long as the log is.
fn seal_log(log: &mut [u8]) {
    let hash = marvin(&log[552..]);
    log[536..544].copy_from_slice(&hash.to_le_bytes());
    let hash = marvin(&log[512..544]);
    log[544..552].copy_from_slice(&hash.to_le_bytes());
}

/// A log whose entry has some pages of the hive as they are, and the hive marked as not closed.
fn with_log(hive: &mut [u8]) -> Vec<u8> {
    let sequence = number(hive, 4) + 1;
    hive[4..8].copy_from_slice(&sequence.to_le_bytes());
    seal(hive);
    let mut log = hive[..512].to_vec();
    log[28..32].copy_from_slice(&6u32.to_le_bytes());
    seal(&mut log);
    let pages: Vec<u32> = (0..6).map(|page| page * 4096).collect();
    let mut body = Vec::new();
    for page in &pages {
        body.extend(page.to_le_bytes());
        body.extend(4096u32.to_le_bytes());
    }
    for page in pages.iter().map(|page| BINS + *page as usize) {
        body.extend_from_slice(&hive[page..page + 4096]);
    }
    body.resize((40 + body.len()).next_multiple_of(512) - 40, 0);
    log.extend(b"HvLE");
    let bins = (hive.len() - BINS) as u32;
    for word in [body.len() as u32 + 40, 0, sequence, bins, pages.len() as u32, 0, 0, 0, 0] {
        log.extend(word.to_le_bytes());
    }
    log.extend(body);
    seal_log(&mut log);
    log
}

/// Reads everything; the number of refusals.
fn look(hive: &Hive) -> usize {
    let mut refused = 0;
    let mut note = |failed: bool| refused += usize::from(failed);
    let (mut waiting, mut seen) = (vec![hive.root()], 0);
    while let Some(key) = waiting.pop() {
        seen += 1;
        if seen > MOST_KEYS {
            break;
        }
        note(hive.name(key).is_err());
        note(hive.class_name(key).is_err());
        note(hive.security(key).is_err());
        note(hive.last_written(key).is_err());
        match hive.values(key) {
            Ok(values) => values.iter().for_each(|value| {
                let _ = (value.text(), value.number());
            }),
            Err(_) => note(true),
        }
        match hive.subkeys(key) {
            Ok(keys) => waiting.extend(keys.into_iter().take(MOST_KEYS)),
            Err(_) => note(true),
        }
    }
    refused
}

/// Looks up what is there, and what is not; refusals and reads.
fn peek(data: &[u8]) -> (usize, u64) {
    let reads = Cell::new(0);
    let read = |offset: u64, length: usize| {
        reads.set(reads.get() + 1);
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(data.len());
        Ok(data[start..start.saturating_add(length).min(data.len())].to_vec())
    };
    let Ok(peek) = Peek::open(read) else { return (1, reads.get()) };
    let mut refused = 0;
    for path in ["", "many", "many\\key7", "many\\none", "controlset001\\CONTROL\\größe"] {
        let Ok(Some(key)) = peek.key(path) else {
            refused += 1;
            continue;
        };
        refused += usize::from(peek.subkeys(&key).is_err());
        for name in ["text", "number", "v0", "v9", "v17000", "v40000", "none"] {
            refused += usize::from(peek.value(&key, name).is_err());
        }
    }
    (refused, reads.get())
}

/// Changes all kinds of things, closes and opens again.
fn edit(data: Vec<u8>) -> usize {
    let Ok(mut hive) = Hive::open(data, NOW) else { return 1 };
    let mut refused = 0;
    let mut note = |result: Result<()>| refused += usize::from(result.is_err());
    let root = hive.root();
    let paths = ["many", "many\\key7", "ControlSet001\\Control\\Größe"];
    let mut keys: Vec<_> = paths.iter().filter_map(|path| hive.key(path).ok().flatten()).collect();
    keys.push(root);
    for key in keys {
        for name in ["v0", "v9", "v17000", "v40000", "text", "new"] {
            for size in [2, 60, 20_000] {
                note(hive.set_value(key, name, REG_BINARY, &vec![1; size]));
            }
        }
        for name in ["v9", "v40000", "number", "new"] {
            note(hive.delete_value(key, name).map(|_| ()));
        }
        for number in 0..20 {
            note(hive.create_path(key, &format!("new{number}\\below")).map(|_| ()));
        }
        note(hive.set_class_name(key, "another class"));
    }
    refused += look(&hive);
    // A hive that was closed must open again.
    match Hive::open(hive.finish(), NOW) {
        Ok(hive) => refused + look(&hive),
        Err(error) => panic!("closed, and now: {error}"),
    }
}

impl Corpus {
    fn new(part: Part, minor: u32) -> Self {
        let mut hive = full(minor);
        let places = places(&hive);
        let log = if part == Part::Log { with_log(&mut hive) } else { Vec::new() };
        Self { part, minor, hive, places, log }
    }

    /// Of the undamaged one: a key that is not there, and two values that are too long to be looked up
    /// so.
    fn refusals(&self) -> usize {
        if self.part == Part::Peek { 3 } else { 0 }
    }

    fn exercise(&self, hive: Vec<u8>, log: Vec<u8>) -> (usize, u64) {
        match self.part {
            Part::Peek => peek(&hive),
            Part::Edit => (edit(hive), 0),
            Part::Read => (Hive::open(hive, NOW).map_or(1, |hive| look(&hive)), 0),
            Part::Log => match Hive::open_with_logs(hive, &[log], NOW) {
                Ok((hive, _)) => (look(&hive), 0),
                Err(_) => (1, 0),
            },
        }
    }
}

impl Target for Corpus {
    fn name(&self) -> String {
        format!("Regf {:?} 1.{}", self.part, self.minor)
    }

    fn round(&self, choices: &mut Choices<'_>) -> Outcome {
        let (mut hive, mut log) = (self.hive.clone(), self.log.clone());
        for _ in 0..=choices.below(4) {
            if self.part == Part::Log && choices.below(2) == 0 {
                // The head of the entry and its references to pages, or a page.
                let at = [512, 512, 552, 1024][choices.below(4)];
                mutate(&mut log[at..at + 64], choices);
                continue;
            }
            let (at, size) = self.places[choices.below(self.places.len())];
            match choices.below(4) {
                // A reference to something else that is there.
                0 => {
                    let (to, _) = self.places[choices.below(self.places.len())];
                    let at = at + choices.below(size.min(96) / 4) * 4;
                    let to = (to as u32).wrapping_sub(BINS as u32);
                    hive[at..at + 4].copy_from_slice(&to.to_le_bytes());
                }
                _ => mutate(&mut hive[at..at + size], choices),
            }
        }
        if choices.below(16) == 15 {
            hive.truncate(choices.below(self.hive.len()).max(512));
        }
        if choices.below(16) < 15 {
            seal(&mut hive);
            if self.part == Part::Log {
                seal_log(&mut log);
            }
        }
        let (refused, reads) = self.exercise(hive, log);
        Outcome { reads, noticed: refused > self.refusals() }
    }

    fn check_undamaged(&self) {
        let (refused, _) = self.exercise(self.hive.clone(), self.log.clone());
        assert_eq!(refused, self.refusals(), "{}", self.name());
    }
}

/// Every part, on hives of Windows 2000 to XP and of later ones.
pub fn targets() -> Vec<Box<dyn Target>> {
    let mut out: Vec<Box<dyn Target>> = Vec::new();
    for part in [Part::Read, Part::Peek, Part::Edit, Part::Log] {
        for minor in [3, 5] {
            out.push(Box::new(Corpus::new(part, minor)));
        }
    }
    out
}
