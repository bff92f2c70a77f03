//! Deciding how a table uses a larger disk: one partition grows, what is after it may move to the
//! end of the disk, and a swap partition may be added there. Numbers, types, identifiers, names and
//! attributes never change, and the start only of a partition that moves.

use crate::error::{Error, Result};
use crate::guid::Guid;
use crate::plan::Plan;
use crate::relocate::{self, Carry, Move, Obstacle, Shift};
use crate::table::{Partition, Raw, Role, Table, TableKind};
use crate::{gpt_grow, mbr_grow};

/// Sectors that stay free at the end of the disk.
const RESERVED_AT_END: u64 = 2048;
/// The end (exclusive) that a partition of an MBR may have. Records count in 32 bits, and tools
/// that add start and size in 32 bits must not overflow.
const MBR_LIMIT: u64 = (1 << 32) - RESERVED_AT_END;
/// Start of partitions that are added, in bytes: a multiple of this.
const ALIGNMENT: u64 = 1 << 20;

/// A swap partition to add after the last partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SwapRequest {
    /// The number that it is to have; in an MBR from 5 on it is a logical partition.
    pub number: u32,
    /// Its size.
    pub mib: u64,
    /// GPT: its unique GUID. The caller brings it so that all randomness has one source.
    pub guid: Guid,
}

/// The partition that grows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// The one that lies last on the disk.
    #[default]
    Last,
    /// This one.
    Number(u32),
    /// None: only the table itself is made to fit the disk.
    Nothing,
}

/// How a table is to grow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrowRequest {
    /// A swap partition to leave room for and to add.
    pub swap: Option<SwapRequest>,
    /// The partition that grows.
    pub target: Target,
    /// The partitions that may be moved to the end of the disk, when they are after the one that
    /// grows.
    pub movable: Vec<(u32, Carry)>,
}

/// The new places of everything, in sectors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layout {
    /// Number of the partition that grows and its new end.
    pub(crate) last: Option<(u32, u64)>,
    /// Number of the extended partition around it, or to be made, and its new end.
    pub(crate) extended: Option<(u32, u64)>,
    /// The swap partition.
    pub(crate) swap: Option<SwapLayout>,
    /// The partitions that move, and the distance.
    pub(crate) shift: Option<Shift>,
    /// Why nothing moves.
    pub(crate) obstacle: Option<Obstacle>,
    /// Notes for the person.
    pub(crate) notes: Vec<String>,
}

/// The place of the swap partition.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SwapLayout {
    pub(crate) number: u32,
    pub(crate) start: u64,
    pub(crate) size: u64,
    pub(crate) guid: Guid,
    /// Of a logical one: the sector of its EBR.
    pub(crate) ebr: Option<u64>,
    /// Whether an extended partition must be made, which begins at that EBR, and its number.
    pub(crate) new_extended: Option<u32>,
}

/// Plans how `table` uses the whole disk: one partition grows to 2048 sectors before the end of the
/// disk, or to what is after it: the swap partition that is added at the end, and the partitions
/// that are moved there. A GPT's backup moves to the end of the disk, a damaged copy is restored
/// from the other and the protective MBR covers the disk; an MBR's extended partition grows with
/// the logical one in it.
///
/// If something after the partition cannot be moved, it only grows into the gap before that,
/// and [`Plan::obstacle`] says why.
///
/// # Errors
/// [`Error::Invalid`] where the partition does not exist or a swap partition does not fit as asked,
/// [`Error::Unsupported`] where the table has no room for the change.
pub fn plan_grow(table: &Table, request: &GrowRequest) -> Result<Plan> {
    let layout = layout(table, request)?;
    let (shift, obstacle) = (layout.shift.clone(), layout.obstacle.clone());
    let mut plan = match &table.raw {
        Raw::Mbr(raw) => mbr_grow::plan(table, raw, layout),
        Raw::Gpt(raw) => gpt_grow::plan(table, raw, layout),
    }?;
    plan.obstacle = obstacle;
    for before in table.partitions.iter().filter(|p| !p.is_extended()) {
        let after = plan.partitions.iter().find(|p| p.number == before.number);
        let carry = request.movable.iter().find(|(number, _)| *number == before.number);
        if let (Some(after), Some((_, carry)), Some(shift)) = (after, carry, &shift)
            && shift.moves(before.number)
        {
            let (before, after) = (before.clone(), after.clone());
            plan.moves.push(Move { before, after, carry: *carry });
        }
    }
    Ok(plan)
}

fn layout(table: &Table, request: &GrowRequest) -> Result<Layout> {
    let mut layout = Layout::default();
    let mut limit = table.disk_sectors.saturating_sub(RESERVED_AT_END);
    match &table.raw {
        Raw::Gpt(raw) => limit = limit.min(gpt_grow::last_usable(table, raw)? + 1),
        Raw::Mbr(_) if limit > MBR_LIMIT => {
            limit = MBR_LIMIT;
            layout.notes.push(format!(
                "an MBR describes no more than {MBR_LIMIT} sectors of this disk's {}; convert it \
                 to GPT to use the rest",
                table.disk_sectors
            ));
        }
        Raw::Mbr(_) => {}
    }
    let last = table.last_by_position();
    let target = match request.target {
        Target::Last => last,
        Target::Nothing => None,
        Target::Number(number) => {
            let found = table.partition(number).filter(|p| !p.is_extended());
            Some(found.ok_or_else(|| {
                Error::Invalid(format!(
                    "the disk has no partition {number} that can hold a file system"
                ))
            })?)
        }
    };
    let container = extended_at_end(table);
    let mut end = limit;
    let swap = match request.swap {
        Some(swap) if is_there(table, swap)? => {
            layout.notes.push(format!("swap partition {} is there already", swap.number));
            if target.is_some_and(|target| target.number == swap.number) {
                // It has the size that was asked for.
                return Ok(layout);
            }
            None
        }
        other => other,
    };
    if let Some(swap) = swap {
        let placed = place_swap(table, swap, limit, container)?;
        end = placed.ebr.unwrap_or(placed.start);
        if placed.ebr.is_some() {
            let number = placed.new_extended.or(container.map(|extended| extended.number));
            layout.extended = number.map(|number| (number, limit));
        }
        layout.swap = Some(placed);
    }
    let Some(target) = target else {
        if let (Some(extended), None, None) = (container, layout.extended, last) {
            layout.extended = Some((extended.number, end.max(extended.end())));
        }
        return Ok(layout);
    };
    // After the last one there is at most an extended partition with nothing in it.
    match relocate::following(table, target).filter(|_| request.target != Target::Last) {
        Some(following) => make_room(table, request, target, &following, end, &mut layout),
        None => take_the_rest(table, target, container, end, &mut layout),
    }
    Ok(layout)
}

/// Nothing is after the partition: it grows to `end`, and its extended partition with it.
fn take_the_rest(
    table: &Table,
    target: &Partition,
    container: Option<&Partition>,
    end: u64,
    layout: &mut Layout,
) {
    // With two extended partitions, the last logical one may be in the first of them.
    let mut grows =
        container.is_none_or(|extended| target.is_logical() && extended.start <= target.start);
    if target.is_logical() && mbr_grow::after_last_ebr(table) > target.end() {
        grows = false;
        layout.notes.push(format!(
            "logical partition {} cannot grow, because an EBR without a partition is after it; \
             remove that with fdisk",
            target.number
        ));
    }
    if grows && target.end() < end {
        layout.last = Some((target.number, end));
    }
    if let (Some(extended), None) = (container, layout.extended)
        && extended.end() < end
    {
        layout.extended = Some((extended.number, end));
    }
}

/// Something is after the partition: it moves to the end, and the partition grows to it.
fn make_room(
    table: &Table,
    request: &GrowRequest,
    target: &Partition,
    following: &relocate::Following<'_>,
    end: u64,
    layout: &mut Layout,
) {
    let alignment = ALIGNMENT / u64::from(table.sector_size);
    let shift = relocate::shift(table, target, following, end, &request.movable, alignment);
    let shift = match shift {
        Ok(shift) if shift.delta > 0 && layout.swap.is_some_and(|swap| swap.ebr.is_some()) => {
            layout.obstacle = Some(Obstacle::LogicalSwap);
            Shift::default()
        }
        Ok(shift) => shift,
        Err(obstacle) => {
            layout.obstacle = Some(obstacle);
            Shift::default()
        }
    };
    let new_end = following.first + shift.delta;
    if shift.delta == 0 {
        // Less than that is a gap that somebody left on purpose.
        if new_end >= target.end() + alignment {
            layout.last = Some((target.number, new_end));
        }
        return;
    }
    layout.last = Some((target.number, new_end));
    let around = table.partitions.iter().find(|p| {
        target.is_logical() && p.is_extended() && p.start <= target.start && target.end() <= p.end()
    });
    if let Some(extended) = around {
        let followed = following.partitions.iter().any(|p| p.start >= extended.end());
        let grown = if followed { extended.end() + shift.delta } else { end.max(extended.end()) };
        layout.extended = Some((extended.number, grown));
    }
    layout.shift = Some(shift);
}

/// The extended partition, if it is after all other primary partitions.
fn extended_at_end(table: &Table) -> Option<&Partition> {
    table
        .partitions
        .iter()
        .filter(|p| !p.is_logical())
        .max_by_key(|p| p.start)
        .filter(|p| p.is_extended())
}

/// Whether the swap partition was added by an earlier run.
fn is_there(table: &Table, swap: SwapRequest) -> Result<bool> {
    match table.partition(swap.number) {
        None => Ok(false),
        Some(partition) if partition.partition_type.is_linux_swap() => Ok(true),
        Some(partition) => Err(Error::Invalid(format!(
            "SWAP asks for partition {}, and the disk has a partition {} of type {} already; choose \
             a number that is free",
            swap.number, swap.number, partition.partition_type
        ))),
    }
}

fn place_swap(
    table: &Table,
    swap: SwapRequest,
    limit: u64,
    container: Option<&Partition>,
) -> Result<SwapLayout> {
    let too_small = || {
        Error::Invalid(format!(
            "there is no room for a swap partition of {} MiB between the last partition and the \
             end of the disk ({} sectors); make the disk larger or the swap partition smaller",
            swap.mib, table.disk_sectors
        ))
    };
    if swap.number == 0 || swap.mib == 0 {
        return Err(Error::Invalid(
            "SWAP needs a partition number and a size in MiB, both greater than 0".to_owned(),
        ));
    }
    let align = ALIGNMENT / u64::from(table.sector_size);
    let size = swap.mib.checked_mul(align).ok_or_else(too_small)?;
    let start = limit.checked_sub(size).ok_or_else(too_small)? / align * align;
    let mut placed = SwapLayout {
        number: swap.number,
        start,
        size,
        guid: swap.guid,
        ebr: None,
        new_extended: None,
    };
    let mut first_free = table.partitions.iter().map(Partition::end).max().unwrap_or(align);
    if table.kind == TableKind::Mbr && swap.number > 4 {
        check_logical_number(table, swap.number)?;
        let ebr = start.checked_sub(align).ok_or_else(too_small)?;
        let extended = table.partitions.iter().find(|p| p.is_extended());
        match (extended, container) {
            (None, _) => {
                placed.ebr = Some(ebr);
                placed.new_extended = Some(free_record(table)?);
            }
            (Some(extended), None) => {
                return Err(Error::Invalid(format!(
                    "SWAP asks for logical partition {}, and the extended partition {} cannot grow, \
                     because another partition is after it; use a number from 1 to 4",
                    swap.number, extended.number
                )));
            }
            (Some(_), Some(extended)) => {
                let logical = table.partitions.iter().filter(|p| p.is_logical());
                // The extended partition itself may reach further than the partitions in it.
                first_free = logical.map(Partition::end).max().unwrap_or(extended.start + 1);
                first_free = first_free.max(mbr_grow::after_last_ebr(table));
                let empty = mbr_grow::has_empty_first_ebr(table, extended);
                placed.ebr = Some(if empty { extended.start } else { ebr });
                if empty {
                    return if start > extended.start { Ok(placed) } else { Err(too_small()) };
                }
            }
        }
        return if ebr >= first_free { Ok(placed) } else { Err(too_small()) };
    }
    if start < first_free { Err(too_small()) } else { Ok(placed) }
}

/// Logical partitions are numbered as the chain goes: only the next number can be had.
fn check_logical_number(table: &Table, number: u32) -> Result<()> {
    if table.partitions.iter().filter(|p| p.is_extended()).count() > 1 {
        return Err(Error::Unsupported {
            what: "a logical swap partition on a disk with several extended partitions".to_owned(),
            remedy: "use a number from 1 to 4".to_owned(),
        });
    }
    let logical = table.partitions.iter().filter(|p| p.role == Role::Logical).count();
    let next = 5 + u32::try_from(logical).unwrap_or(u32::MAX - 5);
    if number == next {
        return Ok(());
    }
    Err(Error::Invalid(format!(
        "SWAP asks for logical partition {number}, and the next logical partition of this disk is \
         {next}; ask for that one"
    )))
}

/// A record of the MBR that an extended partition can have.
fn free_record(table: &Table) -> Result<u32> {
    (1..=4).find(|number| table.partition(*number).is_none()).ok_or_else(|| {
        Error::Invalid(
            "SWAP asks for a logical partition, and all four records of the MBR are in use by \
             primary partitions, so that there can be no extended one; use SWAP with another disk"
                .to_owned(),
        )
    })
}
