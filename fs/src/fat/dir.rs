//! Directories: entries of 32 bytes.

use std::ops::Range;

use zerocopy::{FromBytes, transmute};

use super::layout::{LongEntry, ShortEntry};
use super::name;
use super::units::Cluster;
use crate::filesystem::Timestamp;
use crate::num::{to_u8, to_u16};

/// DIR_Attr.
pub(super) const READ_ONLY: u8 = 0x01;
pub(super) const VOLUME_ID: u8 = 0x08;
pub(super) const DIRECTORY: u8 = 0x10;
pub(super) const ARCHIVE: u8 = 0x20;
/// All the lower four: an entry of a long name.
pub(super) const LONG_NAME: u8 = 0x0f;
/// Bytes of an entry.
pub(super) const ENTRY: usize = 32;
/// The first byte of an entry that is free.
const FREE: u8 = 0xe5;
/// Entries of the longest long name, and the short one.
const MOST_SLOTS: usize = 21;

/// One file or directory in a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The long name, or what the short one shows.
    pub(super) name: Vec<u16>,
    /// DIR_Name.
    pub(super) short: [u8; 11],
    /// DIR_Attr.
    pub(super) attributes: u8,
    /// The first cluster, 0 for none.
    pub(super) cluster: Cluster,
    /// DIR_FileSize.
    pub(super) size: u32,
    /// Its entries of 32 bytes, those of the long name among them; the last one is the short one.
    pub(super) slots: Range<usize>,
    /// The last of them as it is on disk.
    pub(super) raw: ShortEntry,
}

impl Entry {
    pub(super) fn is_directory(&self) -> bool {
        self.attributes & DIRECTORY != 0
    }

    /// The slot of the short entry, of which the node's number is made.
    pub(super) fn slot(&self) -> usize {
        self.slots.end - 1
    }
}

/// All entries of a directory; those of volume labels, `.` and `..` are left out.
pub(super) fn parse(bytes: &[u8]) -> Vec<Entry> {
    let mut out = Vec::new();
    let mut long = Long::default();
    for (slot, raw) in bytes.chunks_exact(ENTRY).enumerate() {
        match raw[0] {
            0 => break,
            FREE => {
                long = Long::default();
                continue;
            }
            _ => {}
        }
        if raw[11] & 0x3f == LONG_NAME {
            if let Ok(part) = LongEntry::read_from_bytes(raw) {
                long.take(slot, &part);
            }
            continue;
        }
        let found = std::mem::take(&mut long);
        let Ok(raw) = ShortEntry::read_from_bytes(raw) else { break };
        if raw.attr & VOLUME_ID != 0 || raw.name[0] == b'.' {
            continue;
        }
        let (short, attributes) = (raw.name, raw.attr);
        let (name, first) = match found.finish(slot, &short) {
            Some((name, first)) => (name, first),
            None => (name::shown(&short, raw.nt_res), slot),
        };
        let (cluster, size) = (raw.cluster(), raw.file_size.get());
        out.push(Entry { name, short, attributes, cluster, size, slots: first..slot + 1, raw });
    }
    out
}

/// A long name while its entries, last part first, are read.
#[derive(Default)]
struct Long {
    /// Slot of the first entry, the number of entries, and those still to come.
    first: usize,
    left: usize,
    sum: u8,
    parts: Vec<[u16; name::UNITS]>,
}

impl Long {
    fn take(&mut self, slot: usize, part: &LongEntry) {
        let number = usize::from(part.ord & 0x3f);
        if part.ord & 0x40 != 0 {
            *self = Self { first: slot, left: number, sum: part.chksum, parts: Vec::new() };
        }
        let expected = number > 0 && number == self.left && part.chksum == self.sum;
        if !expected || number >= MOST_SLOTS || slot != self.first + self.parts.len() {
            *self = Self::default();
            return;
        }
        self.parts.push(part.units());
        self.left -= 1;
    }

    /// The name, if all of it was there and it belongs to the short name at `slot`.
    fn finish(self, slot: usize, short: &[u8; 11]) -> Option<(Vec<u16>, usize)> {
        let whole = self.left == 0 && !self.parts.is_empty();
        if !whole || slot != self.first + self.parts.len() || self.sum != name::checksum(short) {
            return None;
        }
        let mut name: Vec<u16> = self.parts.iter().rev().flatten().copied().collect();
        let end = name.iter().position(|&unit| unit == 0).unwrap_or(name.len());
        name.truncate(end);
        let bad = name.is_empty() || name.len() > 255 || name.contains(&u16::from(b'/'));
        (!bad).then_some((name, self.first))
    }
}

/// The label of the volume that a root directory has.
pub(super) fn label(bytes: &[u8]) -> Option<[u8; 11]> {
    let entries = bytes.chunks_exact(ENTRY).take_while(|raw| raw[0] != 0);
    let is_label =
        |raw: &&[u8]| raw[0] != FREE && raw[11] & 0x3f != LONG_NAME && raw[11] & VOLUME_ID != 0;
    entries.into_iter().find(is_label).map(|raw| std::array::from_fn(|index| raw[index]))
}

/// The place of `count` free entries in a row. `avoid` has slots that are free but not to be used;
/// slots after the last entry are free. `None` where the directory must become longer: then
/// the second value says from which slot on.
pub(super) fn room(
    bytes: &[u8],
    count: usize,
    avoid: &dyn Fn(usize) -> bool,
) -> (Option<usize>, usize) {
    let total = bytes.len() / ENTRY;
    let end = bytes.chunks_exact(ENTRY).position(|raw| raw[0] == 0).unwrap_or(total);
    let mut run = 0;
    for slot in 0..total {
        let free = slot >= end || bytes[slot * ENTRY] == FREE;
        run = if free && !avoid(slot) { run + 1 } else { 0 };
        if run == count {
            return (Some(slot + 1 - count), end);
        }
    }
    (None, total - run)
}

/// Writes entries from `slot` on. Slots after the end of the directory stay hidden.
pub(super) fn put(bytes: &mut [u8], slot: usize, entries: &[[u8; ENTRY]]) {
    let total = bytes.len() / ENTRY;
    let end = bytes.chunks_exact(ENTRY).position(|raw| raw[0] == 0).unwrap_or(total);
    let after = slot + entries.len();
    // A gap before the new entries would hide them.
    for gap in end..slot {
        bytes[gap * ENTRY] = FREE;
    }
    for (index, entry) in entries.iter().enumerate() {
        let at = (slot + index) * ENTRY;
        bytes[at..at + ENTRY].copy_from_slice(entry);
    }
    if after > end && after < total {
        bytes[after * ENTRY..].fill(0);
    }
}

/// Frees entries.
pub(super) fn erase(bytes: &mut [u8], slots: Range<usize>) {
    for slot in slots {
        bytes[slot * ENTRY] = FREE;
    }
}

/// A short entry that is new.
pub(super) fn new_entry(short: &[u8; 11], attributes: u8, now: Timestamp) -> ShortEntry {
    let mut raw: ShortEntry = transmute!([0u8; ENTRY]);
    raw.name = *short;
    raw.attr = attributes;
    let (date, time) = to_dos(now);
    raw.crt_date = date.into();
    raw.crt_time = time.into();
    raw.set_times(Some(now), Some(now));
    raw
}

/// An entry as it is on disk.
pub(super) fn bytes_of(raw: ShortEntry) -> [u8; ENTRY] {
    transmute!(raw)
}

impl ShortEntry {
    /// Sets the day of the last access and the time of the last write.
    pub(super) fn set_times(&mut self, accessed: Option<Timestamp>, written: Option<Timestamp>) {
        if let Some(accessed) = accessed {
            self.lst_acc_date = to_dos(accessed).0.into();
        }
        if let Some(written) = written {
            let (date, time) = to_dos(written);
            self.wrt_date = date.into();
            self.wrt_time = time.into();
        }
    }

    /// Last access and last write.
    pub(super) fn times(&self) -> (Timestamp, Timestamp) {
        let written = from_dos(self.wrt_date.get(), self.wrt_time.get());
        (from_dos(self.lst_acc_date.get(), 0), written)
    }
}

/// Days from 1970-01-01 to the first day of a year of the common calendar.
fn days_before(year: i64) -> i64 {
    let past = year - 1;
    365 * (year - 1970) + (past / 4 - 492) - (past / 100 - 19) + (past / 400 - 4)
}

const MONTHS: [i64; 12] = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

fn days_of(month: usize, year: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    MONTHS[month] + i64::from(month == 1 && leap)
}

/// Date and time as FAT has them, in UTC: 1980 to 2107, every other second.
fn to_dos(time: Timestamp) -> (u16, u16) {
    let first = days_before(1980) * 86_400;
    let last = days_before(2108) * 86_400 - 1;
    let seconds = time.seconds.clamp(first, last);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let mut year = 1980 + (days - days_before(1980)) / 366;
    while days_before(year + 1) <= days {
        year += 1;
    }
    let (mut day, mut month) = (days - days_before(year), 0);
    while day >= days_of(month, year) {
        day -= days_of(month, year);
        month += 1;
    }
    let date = (year - 1980) << 9 | (i64::from(to_u8(month)) + 1) << 5 | (day + 1);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    let time = hour << 11 | minute << 5 | (second % 60 / 2);
    (to_u16(date), to_u16(time))
}

/// The point in time that date and time of FAT mean; the begin of 1980 where they mean none.
fn from_dos(date: u16, time: u16) -> Timestamp {
    let year = 1980 + i64::from(date >> 9);
    let month = usize::from(date >> 5 & 15).clamp(1, 12) - 1;
    let day = i64::from(date & 31).max(1) - 1;
    let days: i64 = days_before(year) + (0..month).map(|m| days_of(m, year)).sum::<i64>() + day;
    let (hour, minute) = (i64::from(time >> 11), i64::from(time >> 5 & 63));
    let seconds = days * 86_400 + hour * 3600 + minute * 60 + 2 * i64::from(time & 31);
    Timestamp { seconds, nanoseconds: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_go_there_and_back() {
        let at = |seconds| Timestamp { seconds, nanoseconds: 0 };
        // 2000-02-29 12:34:56, 2026-11-26 00:00:00, 2107-12-31 23:59:58, 1980-01-01.
        for seconds in [951_827_696, 1_795_651_200, 4_354_819_198, 315_532_800] {
            let (date, time) = to_dos(at(seconds));
            assert_eq!(from_dos(date, time), at(seconds), "{seconds}");
        }
        assert_eq!(to_dos(at(951_827_696)), (20 << 9 | 2 << 5 | 29, 12 << 11 | 34 << 5 | 28));
        assert_eq!(to_dos(at(0)), to_dos(at(315_532_800)));
        assert_eq!(to_dos(at(i64::MAX)).0, 127 << 9 | 12 << 5 | 31);
        for date in 0..=u16::MAX {
            let _ = from_dos(date, date.rotate_left(7));
        }
    }

    #[test]
    fn entries_are_found_among_wrecks() {
        let now = Timestamp::default();
        let name: Vec<u16> = "a long name of two.parts".encode_utf16().collect();
        let short = *b"ALONGN~1PAR";
        let mut entries = name::long_entries(&name, &short);
        entries.push(bytes_of(new_entry(&short, ARCHIVE, now)));
        let mut bytes = vec![0; 32 * ENTRY];
        put(&mut bytes, 3, &entries);
        let found = parse(&bytes);
        assert_eq!((found.len(), &found[0].name, found[0].slots.clone()), (1, &name, 3..6));
        assert_eq!(room(&bytes, 3, &|_| false).0, Some(0));
        assert_eq!(room(&bytes, 4, &|_| false).0, Some(6));
        assert_eq!(room(&bytes, 27, &|_| false), (None, 6));
        assert_eq!(room(&bytes, 3, &|slot| slot < 2).0, Some(6));
        // Half of a long name, or one of another short name, does not count.
        for (at, value) in
            [(3 * ENTRY, 0x43), (4 * ENTRY, 0xe5), (5 * ENTRY, b'B'), (4 * ENTRY + 13, 0)]
        {
            let mut wreck = bytes.clone();
            wreck[at] = value;
            let found = parse(&wreck);
            assert_eq!((found.len(), found[0].slots.clone()), (1, 5..6), "{at}");
            assert_ne!(found[0].name, name);
        }
        erase(&mut bytes, 3..6);
        assert!(parse(&bytes).is_empty());
        let mut random = crate::testing::Random(1);
        for _ in 0..2000 {
            let noise: Vec<u8> = (0..512).map(|_| random.next_u64() as u8).collect();
            let _ = (parse(&noise), label(&noise), room(&noise, 3, &|_| false));
        }
    }
}
