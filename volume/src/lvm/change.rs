//! Growth of physical and logical volumes, collected in memory and committed as one change of the
//! metadata.

use super::area::Area;
use super::commit::{self, Relocated};
use super::extend;
use super::group::{Member, Slot, VolumeGroup};
use super::label::Place;
use super::model::{Model, bytes, group_section_mut};
use super::segment::Kind;
use super::text::Section;
use super::{Id, SECTOR};
use crate::{Error, Refusal, Result};

/// A metadata area at the end of a physical volume begins at a multiple of this.
const AREA_ALIGNMENT: u64 = 1 << 20;

/// The author and time of a change: the metadata records them. The caller supplies them, so that a run can
/// be repeated bit for bit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The change in words.
    pub description: String,
    /// The machine's name.
    pub host: String,
    /// Seconds since 1970.
    pub time: u64,
}

/// How far a logical volume grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// To this many bytes, rounded up to whole extents (of a striped volume: to whole rows).
    To(u64),
    /// By all free extents that its allocation policy lets it have.
    AllFree,
}

/// Changes of a group that were not committed yet. Dropped, it leaves the devices as they were.
///
/// ```no_run
/// # fn grow(group: &snf_volume::lvm::VolumeGroup) -> snf_volume::Result<()> {
/// use snf_volume::lvm::{Change, Extent, Stamp};
///
/// let mut change = Change::new(group)?;
/// for pv in group.physical_volumes() {
///     change.grow_pv(&pv.id)?;
/// }
/// change.extend("root", Extent::AllFree)?;
/// let stamp = Stamp { description: "grown".into(), host: "builder".into(), time: 1_800_000_000 };
/// let group = change.commit(&stamp)?;
/// let root = group.open("root")?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Change {
    pub(super) group: VolumeGroup,
    /// Metadata areas that move with the end of their device.
    relocated: Vec<Relocated>,
    changed: bool,
}

impl Change {
    /// Begins a change.
    ///
    /// # Errors
    /// [`Error::Refused`] when the group is exported, shared, read-only, not resizeable or
    /// incomplete, or has a volume whose extents this crate cannot account for.
    pub fn new(group: &VolumeGroup) -> Result<Self> {
        let model = &group.model;
        let refused = |refusal| Err(Error::refused(model.subject(), refusal));
        if let Some(refusal) = model.refusal.clone() {
            return refused(refusal);
        }
        if !model.writable {
            return refused(Refusal::ReadOnly);
        }
        if !model.resizeable {
            return refused(Refusal::NotResizeable);
        }
        // Every copy of the metadata must change, so every physical volume must be there.
        for index in 0..model.pvs.len() {
            if let Err(refusal) = group.member(index) {
                return refused(refusal);
            }
        }
        if let Some(refusal) = opaque(model, &group.root) {
            return refused(refusal);
        }
        Ok(Self { group: group.clone(), relocated: Vec::new(), changed: false })
    }

    /// Enlarges a physical volume to its device. Gives the bytes that its extents gained; 0 when
    /// the device has no room for another extent.
    ///
    /// # Errors
    /// [`Error::NotFound`], and [`Error::Corrupt`] when the device is smaller than its volume.
    pub fn grow_pv(&mut self, id: &Id) -> Result<u64> {
        let index = self.group.model.pvs.iter().position(|pv| pv.id == *id);
        let missing = || Error::NotFound(format!("physical volume {id}"));
        let index = index.ok_or_else(missing)?;
        let pv = self.group.model.pvs.get(index).ok_or_else(missing)?.clone();
        let Some(Slot::Present(member)) = self.group.slots.get(index) else {
            return Err(missing());
        };
        let extent_sectors = self.group.model.extent_sectors;
        let data_end = bytes(pv.first_extent + pv.extents * extent_sectors);
        let size = member.device.len() / SECTOR * SECTOR;
        if data_end > size {
            let detail = format!("its extents end at byte {data_end} of {size}");
            let position = format!("physical volume {id}");
            return Err(Error::corrupt("metadata text", position, detail));
        }
        let (end, relocated) = match last_area(member, data_end) {
            None => (size, None),
            Some(old) => {
                let start = size.saturating_sub(old.place.size) / AREA_ALIGNMENT * AREA_ALIGNMENT;
                // A run that was cut may have moved it already.
                let moves = start != old.place.offset;
                // The area is copied before the old one is given up, so they must not overlap.
                if moves && start < old.place.offset + old.place.size {
                    return Ok(0);
                }
                let place = Place { offset: start, size: old.place.size };
                (start, moves.then_some(Relocated { pv: index, old, place }))
            }
        };
        let extents = (end / SECTOR).saturating_sub(pv.first_extent) / extent_sectors;
        let extents = extents.min(u64::from(u32::MAX));
        if extents <= pv.extents {
            return Ok(0);
        }
        let label = member.label.resized(size, relocated.as_ref().map(|moved| moved.place));
        let section = pv_section(&mut self.group.root, &pv.key).ok_or_else(missing)?;
        section.set_integer("dev_size", size / SECTOR);
        section.set_integer("pe_count", extents);
        self.group.model = Model::parse(&self.group.root)?;
        if let Some(Slot::Present(member)) = self.group.slots.get_mut(index) {
            member.label = label;
            if let (Some(moved), Some(area)) = (&relocated, member.areas.last_mut()) {
                *area = Area::fresh(moved.place);
                area.ignored = moved.old.ignored;
            }
        }
        self.relocated.extend(relocated);
        self.changed = true;
        Ok((extents - pv.extents) * bytes(extent_sectors))
    }

    /// Enlarges a logical volume. Gives its size in bytes afterwards, which is the present one when
    /// nothing is to be done.
    ///
    /// A linear volume first takes the extents directly after its end, then others of the same
    /// physical volume, then those of the others. A striped volume stays on its physical volumes.
    /// The policies `contiguous` and `cling` of the metadata are obeyed.
    ///
    /// # Errors
    /// [`Error::NoSpace`]; [`Error::Refused`] for everything but linear and striped volumes;
    /// [`Error::Invalid`] for a size below the present one.
    pub fn extend(&mut self, name: &str, to: Extent) -> Result<u64> {
        let before = self.group.visible(name)?.extents();
        extend::extend(&mut self.group, name, to)?;
        let after = self.group.visible(name)?.extents();
        self.changed |= after != before;
        Ok(after * self.group.extent_size())
    }

    /// Writes the change to every physical volume and gives the group as it is then.
    ///
    /// The order: areas that move are copied, then the labels name them; the new text goes into
    /// the free part of each ring, then the header of each area names it. A flush separates the
    /// steps. A cut anywhere leaves the old metadata or the new, whole.
    ///
    /// # Errors
    /// [`Error::NoMetadataSpace`] before anything is written. After an [`Error::Device`] the
    /// devices hold the old metadata or the new.
    pub fn commit(mut self, stamp: &Stamp) -> Result<VolumeGroup> {
        if !self.changed {
            return Ok(self.group);
        }
        let sequence = self.group.model.sequence + 1;
        if let Some(section) = group_section_mut(&mut self.group.root) {
            section.set_integer("seqno", sequence);
        }
        let root = &mut self.group.root;
        root.set_str("description", &stamp.description);
        root.set_str("creation_host", &stamp.host);
        root.set_integer("creation_time", stamp.time);
        commit::commit(self.group, &self.relocated)
    }
}

/// The last metadata area, if it lies after the extents.
fn last_area(member: &Member, data_end: u64) -> Option<Area> {
    let last = member.areas.last()?;
    // Areas and places of the label run in parallel unless one of them is out of bounds.
    let whole = member.areas.len() == member.label.metadata.len();
    (whole && last.place.offset >= data_end).then(|| last.clone())
}

fn pv_section<'a>(root: &'a mut Section, key: &str) -> Option<&'a mut Section> {
    group_section_mut(root)?.section_mut("physical_volumes")?.section_mut(key)
}

/// A volume that lies on a physical volume in a way that this crate does not understand: its
/// extents would be taken for free.
fn opaque(model: &Model, root: &Section) -> Option<Refusal> {
    let (_, group) = root.sections().next()?;
    let lvs = group.section("logical_volumes")?;
    for (name, lv) in lvs.sections() {
        for (_, segment) in lv.sections() {
            let kind = segment.str("type").unwrap_or_default();
            if matches!(kind, "striped" | "linear") {
                continue;
            }
            let names_pv = segment.entries.iter().any(|(_, item)| match item {
                super::text::Item::Array(values) => values
                    .iter()
                    .any(|value| value.as_str().is_some_and(|name| model.pv(name).is_some())),
                _ => false,
            });
            if names_pv {
                let moving = name.starts_with("pvmove");
                let kind = super::segment::printable(kind);
                return Some(if moving { Refusal::PvMove } else { Refusal::SegmentType(kind) });
            }
        }
    }
    // A volume in place of a physical one is what pvmove leaves while it runs.
    let moving = model.lvs.iter().any(|lv| {
        lv.segments.iter().any(|segment| match &segment.kind {
            Kind::Striped { areas, .. } => {
                areas.iter().any(|area| model.pv(&area.target).is_none())
            }
            _ => false,
        })
    });
    moving.then_some(Refusal::PvMove)
}
