//! Making room after a partition: all that is after it moves to the end of the disk, by the same
//! distance, so that gaps and alignment stay as they are.

use std::fmt;

use crate::mbr_grow;
use crate::table::{Partition, Raw, Table};

/// How the content of a partition gets to its new place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carry {
    /// All of it is copied.
    Whole,
    /// The first [`HEAD`] bytes are: the rest means nothing, as in a swap area.
    Head,
}

/// Bytes of the beginning of a swap area that are carried: the first page of every page size.
pub const HEAD: u64 = 64 << 10;

/// A partition that moves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// As it is.
    pub before: Partition,
    /// As it will be: only its start differs.
    pub after: Partition,
    /// How its content gets there.
    pub carry: Carry,
}

/// Why the partitions after the one that grows stay where they are.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Obstacle {
    /// These partitions must not be moved.
    Fixed(Vec<u32>),
    /// The moved bytes would be written over bytes that are still needed: the disk must be larger by this many
    /// bytes.
    NoRoom {
        /// Bytes that are missing.
        missing: u64,
    },
    /// The extended partition is laid out in a way that is not moved.
    Chain,
    /// A logical swap partition is to be added as well.
    LogicalSwap,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(numbers) => {
                let list: Vec<String> = numbers.iter().map(u32::to_string).collect();
                let (noun, verb) =
                    if numbers.len() == 1 { ("partition", "is") } else { ("partitions", "are") };
                write!(f, "{noun} {} {verb} after it", list.join(" and "))
            }
            Self::NoRoom { missing } => write!(
                f,
                "the partitions after it cannot be moved without being written over; make the \
                 disk larger by {} MiB more",
                missing.div_ceil(1 << 20)
            ),
            Self::Chain => f.write_str(
                "the logical partitions after it are not in the order of their chain of EBRs; \
                 sort them with fdisk",
            ),
            Self::LogicalSwap => f.write_str(
                "a logical swap partition is to be added after partitions that would have to \
                 move; use a number from 1 to 4",
            ),
        }
    }
}

/// The distance by which things move, in sectors.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Shift {
    /// How far.
    pub(crate) delta: u64,
    /// Everything from this sector on moves.
    pub(crate) from: u64,
    /// The partitions that move, extended ones included.
    pub(crate) numbers: Vec<u32>,
}

impl Shift {
    pub(crate) fn moves(&self, number: u32) -> bool {
        self.numbers.contains(&number)
    }
}

/// Everything after a partition.
pub(crate) struct Following<'a> {
    /// Partitions and whole extended partitions, by position.
    pub(crate) partitions: Vec<&'a Partition>,
    /// The first sector that something after it uses: an EBR, a partition or a container.
    pub(crate) first: u64,
    /// The sector after the last one.
    pub(crate) end: u64,
}

/// The partitions after `target`; `None` when there are none.
pub(crate) fn following<'a>(table: &'a Table, target: &Partition) -> Option<Following<'a>> {
    let mut partitions: Vec<&Partition> =
        table.partitions.iter().filter(|p| p.start >= target.end()).collect();
    partitions.sort_by_key(|p| (p.start, p.number));
    let first = partitions.first()?.start;
    let end = partitions.iter().map(|p| p.end()).max()?;
    let ebrs = mbr_grow::ebr_sectors(table).filter(|lba| *lba >= target.end());
    Some(Following { first: ebrs.min().map_or(first, |ebr| ebr.min(first)), partitions, end })
}

/// Moves everything in `following` so that it ends at `end` at most.
pub(crate) fn shift(
    table: &Table,
    target: &Partition,
    following: &Following<'_>,
    end: u64,
    movable: &[(u32, Carry)],
    alignment: u64,
) -> Result<Shift, Obstacle> {
    let delta = end.saturating_sub(following.end) / alignment * alignment;
    let numbers: Vec<u32> = following.partitions.iter().map(|p| p.number).collect();
    let shift = Shift { delta, from: target.end(), numbers };
    if delta == 0 {
        return Ok(shift);
    }
    let carried = |p: &Partition| movable.iter().find(|(n, _)| *n == p.number).map(|(_, c)| *c);
    let data = || following.partitions.iter().filter(|p| !p.is_extended());
    let fixed: Vec<u32> = data().filter(|p| carried(p).is_none()).map(|p| p.number).collect();
    if !fixed.is_empty() {
        return Err(Obstacle::Fixed(fixed));
    }
    if !chain_is_in_order(table, &shift) {
        return Err(Obstacle::Chain);
    }
    // The bytes that are needed until the new table is in force.
    let head = HEAD / u64::from(table.sector_size);
    let mut needed: Vec<(u64, u64)> = data()
        .map(|p| match carried(p) {
            Some(Carry::Head) => (p.start, p.start + p.size.min(head)),
            _ => (p.start, p.end()),
        })
        .collect();
    let ebrs = mbr_grow::ebr_sectors(table).filter(|lba| *lba >= shift.from);
    needed.extend(ebrs.map(|lba| (lba, lba + 1)));
    let clash = needed
        .iter()
        .any(|(start, end)| needed.iter().any(|(a, b)| start + delta < *b && *a < end + delta));
    if clash {
        let span = following.end - following.first;
        let missing = span.saturating_sub(delta).max(alignment) * u64::from(table.sector_size);
        return Err(Obstacle::NoRoom { missing });
    }
    Ok(shift)
}

/// Whether each logical partition moves exactly when its EBR does.
fn chain_is_in_order(table: &Table, shift: &Shift) -> bool {
    let Raw::Mbr(raw) = &table.raw else { return true };
    raw.ebrs.iter().all(|ebr| {
        let moves = ebr.lba >= shift.from;
        let data = ebr.data.is_none_or(|(_, number)| shift.moves(number) == moves);
        // A link from what moves to what stays would have to point backwards.
        let link = ebr.link.is_none_or(|(_, target)| !moves || target >= shift.from);
        data && link
    })
}
