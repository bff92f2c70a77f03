//! Writing a changed group, in an order that a power cut survives.

use super::area::Area;
use super::group::{Member, Slot, VolumeGroup};
use super::label::Place;
use super::model::Model;
use super::text_parse;
use crate::{Error, Result};

/// A metadata area that moves to the new end of its device.
#[derive(Clone)]
pub(super) struct Relocated {
    /// The physical volume.
    pub(super) pv: usize,
    /// The area as it was.
    pub(super) old: Area,
    /// Its new place.
    pub(super) place: Place,
}

impl std::fmt::Debug for Relocated {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "area of {} to {:?}", self.pv, self.place)
    }
}

/// Writes the group.
pub(super) fn commit(mut group: VolumeGroup, relocated: &[Relocated]) -> Result<VolumeGroup> {
    let text = group.root.to_bytes();
    // The text is read back before it is written: a fault of the writer must not reach a disk.
    group.root = text_parse::parse(&text)?;
    group.model = Model::parse(&group.root)?;

    // All places are found before anything is written.
    let mut copies = Vec::new();
    for moved in relocated {
        let Some(member) = group.slots.get_mut(moved.pv).and_then(present_mut) else { continue };
        let device = member.device.clone();
        let Some(area) = member.areas.last_mut() else { continue };
        *area = Area::fresh(moved.place);
        // The copy holds the present text until the new one is committed.
        let present = moved.old.read_text(&*device).ok().flatten();
        if let Some(present) = &present {
            *area = area.with_text(present)?;
        }
        area.ignored = moved.old.ignored;
        copies.push((device, area.clone(), present));
    }
    let mut written = 0;
    for member in group.slots.iter_mut().filter_map(present_mut) {
        for area in member.areas.iter_mut().filter(|area| !area.ignored) {
            *area = area.with_text(&text)?;
            written += 1;
        }
    }
    if written == 0 {
        return Err(Error::Invalid(format!("{} has no metadata area", group.model.subject())));
    }

    for (device, copy, present) in copies {
        if let Some(present) = present {
            copy.write_text(&*device, &present)?;
        }
        copy.write_header(&*device)?;
        device.flush()?;
    }
    for member in group.slots.iter().filter_map(present) {
        member.label.write(&*member.device)?;
        for area in member.areas.iter().filter(|area| !area.ignored) {
            area.write_text(&*member.device, &text)?;
        }
    }
    for member in group.slots.iter().filter_map(present) {
        member.device.flush()?;
    }
    for member in group.slots.iter().filter_map(present) {
        for area in member.areas.iter().filter(|area| !area.ignored) {
            area.write_header(&*member.device)?;
            member.device.flush()?;
        }
    }
    Ok(group)
}

fn present(slot: &Slot) -> Option<&Member> {
    match slot {
        Slot::Present(member) => Some(member),
        _ => None,
    }
}

fn present_mut(slot: &mut Slot) -> Option<&mut Member> {
    match slot {
        Slot::Present(member) => Some(member),
        _ => None,
    }
}
