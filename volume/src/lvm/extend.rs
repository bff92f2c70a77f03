//! Extents for a logical volume that grows, and the segments that take them in.

use super::change::Extent;
use super::free::{self, Runs};
use super::group::VolumeGroup;
use super::model::{Model, is_segment, lv_section_mut};
use super::segment::Kind;
use super::text::{Item, Section, Value};
use crate::{Error, Refusal, Result};

/// The physical volumes that a volume may take extents from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Policy {
    /// Only directly after its end.
    Contiguous,
    /// Only from the physical volumes that it ends on.
    Cling,
    Normal,
}

/// The end of a volume: how its last segment is laid out.
struct Tail {
    /// Physical volume and the extent after the last one, for each stripe.
    ends: Vec<(usize, u64)>,
    stripe_sectors: u64,
}

/// New extents: for each stripe a physical volume and the first extent there.
struct Piece {
    areas: Vec<(usize, u64)>,
    /// Extents of each area.
    count: u64,
}

/// Extends a volume in the tree and in the model.
pub(super) fn extend(group: &mut VolumeGroup, name: &str, to: Extent) -> Result<()> {
    // Opening it checks all that could be wrong with it.
    group.open(name)?;
    let subject = group.model.lv_subject(name);
    let lv = group.visible(name)?;
    let tail =
        tail(&group.model, lv).ok_or_else(|| Error::refused(&*subject, Refusal::GrowMirror))?;
    let stripes = tail.ends.len() as u64;
    let present = lv.extents();
    let most = u64::from(u32::MAX) - present;
    let wanted = match to {
        Extent::AllFree => None,
        Extent::To(size) => {
            let extents = size.div_ceil(group.extent_size());
            let more = extents.checked_sub(present).ok_or_else(|| {
                let now = present * group.extent_size();
                Error::Invalid(format!("{subject} has {now} bytes already; it is not shrunk"))
            })?;
            Some(more.next_multiple_of(stripes))
        }
    };
    let policy = policy(group, name);
    let mut free = free::free(&group.model);
    for (runs, pv) in free.iter_mut().zip(&group.model.pvs) {
        if !pv.allocatable {
            runs.clear();
        }
    }
    let limit = wanted.unwrap_or(most / stripes * stripes);
    let pieces = allocate(&tail, policy, &mut free, limit / stripes);
    let found: u64 = pieces.iter().map(|piece| piece.count * stripes).sum();
    if let Some(wanted) = wanted.filter(|wanted| found < *wanted) {
        return Err(Error::NoSpace { subject, wanted, free: found });
    }
    let keys: Vec<String> = group.model.pvs.iter().map(|pv| pv.key.clone()).collect();
    let corrupt = || Error::corrupt("metadata text", subject.clone(), "a segment is not found");
    let section = lv_section_mut(&mut group.root, name).ok_or_else(corrupt)?;
    let mut tail = tail;
    for piece in pieces {
        add(section, &mut tail, &piece, &keys).ok_or_else(corrupt)?;
    }
    group.model = Model::parse(&group.root)?;
    Ok(())
}

fn policy(group: &VolumeGroup, lv: &str) -> Policy {
    let (_, section) = match group.root.sections().next() {
        Some(found) => found,
        None => return Policy::Normal,
    };
    let own = section.section("logical_volumes").and_then(|lvs| lvs.section(lv));
    let own = own.and_then(|lv| lv.str("allocation_policy")).filter(|own| *own != "inherit");
    match own.or(section.str("allocation_policy")) {
        Some("contiguous") => Policy::Contiguous,
        Some("cling" | "cling_by_tags") => Policy::Cling,
        _ => Policy::Normal,
    }
}

/// The end of a striped or linear volume.
fn tail(model: &Model, lv: &super::model::Lv) -> Option<Tail> {
    let last = lv.segments.last()?;
    let Kind::Striped { areas, stripe_sectors } = &last.kind else { return None };
    let count = last.area_extents();
    let end =
        |area: &super::segment::StripeArea| Some((model.pv(&area.target)?.0, area.extent + count));
    let ends = areas.iter().map(end).collect::<Option<_>>()?;
    Some(Tail { ends, stripe_sectors: *stripe_sectors })
}

/// Takes up to `wanted` extents for each stripe.
fn allocate(tail: &Tail, policy: Policy, free: &mut [Runs], wanted: u64) -> Vec<Piece> {
    let mut ends = tail.ends.clone();
    let mut pieces = Vec::new();
    let mut left = wanted;
    while left > 0 {
        let mut areas: Vec<(usize, u64)> = Vec::with_capacity(ends.len());
        let mut count = left;
        for (pv, end) in &ends {
            let elsewhere = policy == Policy::Normal && ends.len() == 1;
            let Some((pv, start, length)) = choose(free, *pv, *end, policy, elsewhere) else {
                return pieces;
            };
            // Two stripes on one physical volume would be given the same run.
            if areas.iter().any(|(taken, _)| *taken == pv) {
                return pieces;
            }
            areas.push((pv, start));
            count = count.min(length);
        }
        for (pv, start) in &areas {
            take(&mut free[*pv], *start, count);
        }
        ends = areas.iter().map(|(pv, start)| (*pv, start + count)).collect();
        left -= count;
        pieces.push(Piece { areas, count });
    }
    pieces
}

/// The run to go on with: directly after the end, else the first of the same physical volume, else
/// the first of any.
fn choose(
    free: &[Runs],
    pv: usize,
    end: u64,
    policy: Policy,
    elsewhere: bool,
) -> Option<(usize, u64, u64)> {
    let own = free.get(pv)?;
    let of = |pv: usize, run: &(u64, u64)| (pv, run.0, run.1);
    if let Some(run) = own.iter().find(|(start, _)| *start == end) {
        return Some(of(pv, run));
    }
    if policy == Policy::Contiguous {
        return None;
    }
    if let Some(run) = own.first() {
        return Some(of(pv, run));
    }
    let mut others = free.iter().enumerate().filter(|_| elsewhere);
    others.find_map(|(pv, runs)| runs.first().map(|run| of(pv, run)))
}

/// Takes `count` extents from the front of the run that begins at `start`.
fn take(runs: &mut Runs, start: u64, count: u64) {
    for run in runs.iter_mut().filter(|run| run.0 == start) {
        *run = (run.0 + count, run.1 - count);
    }
    runs.retain(|(_, count)| *count > 0);
}

/// Adds a piece at the end of the volume's section: into the last segment where it goes on
/// directly, else as a new one.
fn add(section: &mut Section, tail: &mut Tail, piece: &Piece, keys: &[String]) -> Option<()> {
    let stripes = piece.areas.len() as u64;
    let (last, start, count) = last_segment(section)?;
    let merged = piece.areas == tail.ends;
    if merged {
        section.section_mut(&last)?.set_integer("extent_count", count + piece.count * stripes);
    } else {
        let number = section.integer("segment_count")? + 1;
        let name = format!("segment{number}");
        if section.get(&name).is_some() {
            return None;
        }
        let mut segment = Section::default();
        segment.set_integer("start_extent", start + count);
        segment.set_integer("extent_count", piece.count * stripes);
        segment.set_str("type", "striped");
        segment.set_integer("stripe_count", stripes);
        if stripes > 1 {
            segment.set_integer("stripe_size", tail.stripe_sectors);
        }
        let mut values = Vec::new();
        for (pv, extent) in &piece.areas {
            values.push(Value::Text(keys.get(*pv)?.clone().into_bytes()));
            values.push(Value::Integer(i64::try_from(*extent).ok()?));
        }
        segment.set("stripes", Item::Array(values));
        section.set_integer("segment_count", u64::try_from(number).ok()?);
        section.set(&name, Item::Section(segment));
    }
    tail.ends = piece.areas.iter().map(|(pv, start)| (*pv, start + piece.count)).collect();
    Some(())
}

/// Key, first extent and extents of the segment that comes last.
fn last_segment(section: &Section) -> Option<(String, u64, u64)> {
    let segments = section.sections().filter(|(key, _)| is_segment(key));
    let numbers = segments.filter_map(|(key, segment)| {
        let start = u64::try_from(segment.integer("start_extent")?).ok()?;
        let count = u64::try_from(segment.integer("extent_count")?).ok()?;
        Some((key.to_owned(), start, count))
    });
    numbers.max_by_key(|(_, start, _)| *start)
}
