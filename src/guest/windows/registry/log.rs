//! Replaying the transaction logs of a hive that was not closed cleanly.

use std::collections::BTreeMap;

use zerocopy::FromBytes;

use super::error::{HiveError, LogProblem, Result};
use super::format::{BaseBlock, DirtyPageReference, HiveBin, LogEntry, PAGE};
use super::hive::{FileTime, Hive, SIZE_MAX, base_block};
use super::marvin;

const SECTOR: usize = 512;
/// File types of a log in the old format, and of one in the new.
const OLD_LOG: [u32; 2] = [1, 2];
const NEW_LOG: u32 = 6;
/// The most that a hive may grow by when its logs are replayed, beside the bytes that they hold: a
/// new bin is
/// in them as a whole, or nearly so. A log that claims more would only fill memory.
const GROWTH_SLACK: usize = 16 << 20;

/// The repair of a hive before it could be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// Nothing: it was closed cleanly.
    None,
    /// So many entries of logs in the new format, or the one of a log in the old one, were
    /// applied.
    Replayed(u32),
}

impl Hive {
    /// Reads a hive, with what its logs (`.LOG`, `.LOG1`, `.LOG2`: those that there are) have
    /// that it lacks. A log that is none, or empty, is passed over; a hive that needs its logs
    /// and cannot be mended with them is refused.
    pub fn open_with_logs(
        mut data: Vec<u8>,
        logs: &[Vec<u8>],
        now: FileTime,
    ) -> Result<(Self, Recovery)> {
        let mut base = base_block(&data)?;
        let intact = base.is_intact();
        let (primary, secondary) =
            (base.primary_sequence_number.get(), base.secondary_sequence_number.get());
        if intact && primary == secondary {
            return Ok((Self::parse(data, now)?, Recovery::None));
        }
        let dirty = |reason| HiveError::Dirty { primary, secondary, reason };
        let logs: Vec<(BaseBlock, &[u8])> = logs.iter().filter_map(|log| valid_log(log)).collect();
        if logs.is_empty() {
            return Err(dirty(LogProblem::None));
        }
        let held: usize = logs.iter().map(|(_, log)| log.len()).sum();
        let most = data.len().saturating_add(held).saturating_add(GROWTH_SLACK);
        let is_new = |log: &&(BaseBlock, &[u8])| log.0.file_type.get() == NEW_LOG;
        let count = if logs.iter().any(|log| is_new(&log)) {
            let new: Vec<_> = logs.iter().filter(is_new).collect();
            if !intact {
                // The older of the two logs has the state that the entries build on.
                let oldest = new.iter().min_by_key(|log| log.0.primary_sequence_number.get());
                if let Some((block, _)) = oldest {
                    base = restored(block);
                }
            }
            replay_new(&mut data, &mut base, new.iter().map(|log| log.1), most).map_err(dirty)?
        } else {
            replay_old(&mut data, &mut base, intact, &logs, most).map_err(dirty)?
        };
        base.file_type.set(0);
        let mut hive = {
            base.checksum.set(base.computed_checksum());
            let bytes: &[u8] = zerocopy::IntoBytes::as_bytes(&base);
            data[..SECTOR].copy_from_slice(bytes);
            Self::parse(data, now)?
        };
        hive.changed = true;
        Ok((hive, Recovery::Replayed(count)))
    }
}

/// Whether a hive was not closed cleanly, so that its logs are needed to open it.
pub fn needs_logs(data: &[u8]) -> bool {
    base_block(data).is_ok_and(|base| {
        !base.is_intact() || base.primary_sequence_number != base.secondary_sequence_number
    })
}

/// The base block of a log, and the log, where it is one.
fn valid_log(log: &[u8]) -> Option<(BaseBlock, &[u8])> {
    let (base, _) = BaseBlock::read_from_prefix(log).ok()?;
    let known = base.file_type.get() == NEW_LOG || OLD_LOG.contains(&base.file_type.get());
    (base.is_intact() && known).then_some((base, log))
}

/// The base block of a primary file, from a log's copy of it.
fn restored(block: &BaseBlock) -> BaseBlock {
    let mut base = block.clone();
    base.file_type.set(0);
    base
}

/// An entry that is whole: its head, and its pages with where each goes.
struct Entry<'a> {
    head: LogEntry,
    pages: Vec<(u32, &'a [u8])>,
}

/// Applies the entries that are newer than the primary file, in order and without a gap.
fn replay_new<'a>(
    data: &mut Vec<u8>,
    base: &mut BaseBlock,
    logs: impl Iterator<Item = &'a [u8]>,
    most: usize,
) -> Result<u32, LogProblem> {
    let from = base.primary_sequence_number.get();
    let mut entries = BTreeMap::new();
    for log in logs {
        for entry in entries_of(log) {
            let number = entry.head.sequence_number.get();
            if number >= from {
                entries.entry(number).or_insert(entry);
            }
        }
    }
    let mut expected = None;
    let mut count = 0;
    for (number, entry) in entries {
        if expected.is_some_and(|expected| expected != number) {
            break;
        }
        let size = entry.head.hive_bins_data_size.get() as usize;
        enlarge(data, PAGE + size, most)?;
        for (offset, page) in entry.pages {
            let start = PAGE + offset as usize;
            data[start..start + page.len()].copy_from_slice(page);
        }
        base.hive_bins_data_size.set(size as u32);
        base.flags.set(entry.head.flags.get());
        base.primary_sequence_number.set(number);
        base.secondary_sequence_number.set(number);
        expected = number.checked_add(1);
        count += 1;
    }
    match count {
        0 => Err(LogProblem::NoEntry),
        count => Ok(count),
    }
}

/// Makes a hive as long as a log says, which has at most `most` bytes then.
fn enlarge(data: &mut Vec<u8>, length: usize, most: usize) -> Result<(), LogProblem> {
    if length > most {
        return Err(LogProblem::Long(length));
    }
    if data.len() < length {
        data.resize(length, 0);
    }
    Ok(())
}

/// The whole entries at the beginning of a log.
fn entries_of(log: &[u8]) -> Vec<Entry<'_>> {
    let mut entries: Vec<Entry<'_>> = Vec::new();
    let mut at = SECTOR;
    while let Some(entry) = log.get(at..).and_then(entry_of) {
        let number = entry.head.sequence_number.get();
        // Later entries are left from earlier rounds.
        let last = entries.last().map(|last| last.head.sequence_number.get());
        if last.is_some_and(|last| last.checked_add(1) != Some(number)) {
            break;
        }
        at += entry.head.size.get() as usize;
        entries.push(entry);
    }
    entries
}

fn entry_of(log: &[u8]) -> Option<Entry<'_>> {
    let (head, _) = LogEntry::read_from_prefix(log).ok()?;
    let size = head.size.get() as usize;
    let bins = head.hive_bins_data_size.get() as usize;
    let good = head.signature == *b"HvLE"
        && size.is_multiple_of(SECTOR)
        && size >= SECTOR
        && bins != 0
        && bins.is_multiple_of(PAGE)
        && bins <= SIZE_MAX - PAGE;
    let entry = log.get(..size).filter(|_| good)?;
    let hashes = head.hash_2.get() == marvin::hash(&entry[..32])
        && head.hash_1.get() == marvin::hash(&entry[40..]);
    if !hashes {
        return None;
    }
    let count = head.dirty_pages_count.get() as usize;
    let width = size_of::<DirtyPageReference>();
    let references = entry.get(40..count.checked_mul(width)?.checked_add(40)?)?;
    let mut at = 40 + references.len();
    let mut pages = Vec::new();
    for reference in references.chunks_exact(width) {
        let reference = DirtyPageReference::read_from_bytes(reference).ok()?;
        let (offset, length) = (reference.offset.get(), reference.size.get() as usize);
        let page = entry.get(at..at.checked_add(length)?)?;
        if (offset as usize).checked_add(length)? > bins {
            return None;
        }
        pages.push((offset, page));
        at += length;
    }
    Some(Entry { head, pages })
}

/// Applies the log in the old format whose time is the primary file's.
fn replay_old(
    data: &mut Vec<u8>,
    base: &mut BaseBlock,
    intact: bool,
    logs: &[(BaseBlock, &[u8])],
    most: usize,
) -> Result<u32, LogProblem> {
    let time = if intact {
        base.last_written_timestamp.get()
    } else {
        let bin = data.get(PAGE..).and_then(|rest| HiveBin::read_from_prefix(rest).ok());
        bin.map(|(bin, _)| bin.timestamp.get()).unwrap_or_default()
    };
    let log = logs.iter().find(|(block, _)| {
        block.primary_sequence_number == block.secondary_sequence_number
            && block.last_written_timestamp.get() == time
    });
    let Some((block, log)) = log else {
        return Err(LogProblem::OtherTime);
    };
    let size = block.hive_bins_data_size.get() as usize;
    if size == 0 || !size.is_multiple_of(PAGE) || size > SIZE_MAX - PAGE {
        return Err(LogProblem::NoHive);
    }
    let start = SECTOR * (block.clustering_factor.get().clamp(1, 8) as usize);
    let vector =
        log.get(start..).filter(|rest| rest.starts_with(b"DIRT")).ok_or(LogProblem::Short)?;
    let bitmap = vector.get(4..4 + size.div_ceil(SECTOR * 8)).ok_or(LogProblem::Short)?;
    let mut at = start + (4 + bitmap.len()).next_multiple_of(start);
    enlarge(data, PAGE + size, most)?;
    for page in 0..size / SECTOR {
        if bitmap[page / 8] & 1 << (page % 8) == 0 {
            continue;
        }
        let content = log.get(at..at + SECTOR).ok_or(LogProblem::Short)?;
        let place = PAGE + page * SECTOR;
        data[place..place + SECTOR].copy_from_slice(content);
        at += SECTOR;
    }
    *base = restored(block);
    Ok(1)
}
