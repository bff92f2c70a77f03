//! A volume group: what it lists, and its volumes to open.

use std::sync::Arc;

use snf_fs::BlockDevice;

use super::area::Area;
use super::free;
use super::label::Label;
use super::model::{Lv, Model, bytes};
use super::names;
use super::segment::Kind;
use super::text::Section;
use super::{Id, LogicalVolume};
use crate::{Error, Refusal, Result};

/// A device with a physical volume on it.
#[derive(Clone)]
pub(crate) struct Member {
    /// Its index among the devices that were scanned.
    pub(crate) index: usize,
    pub(crate) device: Arc<dyn BlockDevice>,
    pub(crate) label: Label,
    pub(crate) areas: Vec<Area>,
}

/// The device of a physical volume that the text lists.
#[derive(Clone)]
pub(crate) enum Slot {
    Missing,
    Duplicate,
    Present(Member),
}

/// A volume group as its newest whole metadata describes it.
#[derive(Clone)]
pub struct VolumeGroup {
    pub(crate) model: Model,
    /// The text as a tree, with all that this crate does not know.
    pub(crate) root: Section,
    /// One for each physical volume of the model.
    pub(crate) slots: Vec<Slot>,
}

impl std::fmt::Debug for VolumeGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VolumeGroup").field("model", &self.model).finish_non_exhaustive()
    }
}

/// A physical volume in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PvSummary {
    /// Its identifier.
    pub id: Id,
    /// The index of its device among those that were scanned; `None` if it is missing.
    pub device: Option<usize>,
    /// Bytes in extents.
    pub size: u64,
    /// Bytes in free extents.
    pub free: u64,
}

/// A logical volume in a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LvSummary {
    /// Its name in the group.
    pub name: String,
    /// Its identifier.
    pub id: Id,
    /// Bytes.
    pub size: u64,
    /// How it is laid out: `linear`, `striped`, `raid1`, `mirror`, or `other`.
    pub layout: &'static str,
    /// Marked read-only.
    pub read_only: bool,
    /// The reason why it cannot be opened, as far as the listing tells.
    pub refusal: Option<Refusal>,
    /// The paths that a guest has for it, `/dev/mapper/…` first.
    pub paths: [String; 4],
}

impl VolumeGroup {
    /// The group's name.
    pub fn name(&self) -> &str {
        &self.model.name
    }

    /// The group's identifier.
    pub fn id(&self) -> Id {
        self.model.id
    }

    /// The number of the metadata: each change adds one.
    pub fn sequence(&self) -> u64 {
        self.model.sequence
    }

    /// Bytes of an extent.
    pub fn extent_size(&self) -> u64 {
        bytes(self.model.extent_sectors)
    }

    /// The physical volumes.
    pub fn physical_volumes(&self) -> Vec<PvSummary> {
        let free = free::free(&self.model);
        let sum = |(pv, (slot, runs)): (&super::model::Pv, (&Slot, &free::Runs))| PvSummary {
            id: pv.id,
            device: match slot {
                Slot::Present(member) => Some(member.index),
                _ => None,
            },
            size: pv.extents * self.extent_size(),
            free: runs.iter().map(|(_, count)| count * self.extent_size()).sum(),
        };
        self.model.pvs.iter().zip(self.slots.iter().zip(&free)).map(sum).collect()
    }

    /// The logical volumes that a person may name, in the order of the metadata.
    pub fn logical_volumes(&self) -> Vec<LvSummary> {
        let visible = self.model.lvs.iter().filter(|lv| lv.visible);
        visible.map(|lv| self.summary(lv)).collect()
    }

    fn summary(&self, lv: &Lv) -> LvSummary {
        LvSummary {
            name: lv.name.clone(),
            id: lv.id,
            size: lv.extents().saturating_mul(self.extent_size()),
            layout: layout(lv),
            read_only: !(lv.writable && self.model.writable),
            refusal: self.model.own_refusal(lv).or_else(|| self.absent(lv)),
            paths: names::guest_paths((&self.model.name, &self.model.id), (&lv.name, &lv.id)),
        }
    }

    /// The first physical volume below `lv` that is not there.
    fn absent(&self, lv: &Lv) -> Option<Refusal> {
        lv.segments.iter().find_map(|segment| match &segment.kind {
            Kind::Striped { areas, .. } => areas.iter().find_map(|area| {
                let (index, _) = self.model.pv(&area.target)?;
                self.member(index).err()
            }),
            // Legs are striped, so this goes one level down and no further.
            Kind::Raid1 { legs } => self.absent_leg(legs.iter().map(|(_, data)| data)),
            Kind::Mirror { legs } => self.absent_leg(legs.iter()),
            _ => None,
        })
    }

    fn absent_leg<'a>(&self, mut legs: impl Iterator<Item = &'a String>) -> Option<Refusal> {
        legs.find_map(|leg| {
            let leg = self.model.lv(leg)?;
            if layout(leg) == "raid1" || layout(leg) == "mirror" {
                return None;
            }
            self.absent(leg)
        })
    }

    /// Opens a logical volume by its name.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Refused`] when the volume uses something that is not handled
    /// or lies on a missing physical volume; [`Error::Corrupt`]; [`Error::Device`].
    pub fn open(&self, name: &str) -> Result<LogicalVolume> {
        let lv = self.visible(name)?;
        LogicalVolume::open(self, lv)
    }

    pub(crate) fn visible(&self, name: &str) -> Result<&Lv> {
        let lv = self.model.lv(name);
        let lv = lv.ok_or_else(|| Error::NotFound(self.model.lv_subject(name)))?;
        if !lv.visible {
            return Err(Error::refused(self.model.lv_subject(name), Refusal::Hidden));
        }
        Ok(lv)
    }

    /// The device of a physical volume.
    pub(crate) fn member(&self, pv: usize) -> Result<&Member, Refusal> {
        let id = || self.model.pvs.get(pv).map(|pv| pv.id.to_string()).unwrap_or_default();
        if self.model.pvs.get(pv).is_some_and(|pv| pv.missing) {
            return Err(Refusal::MissingPv(id()));
        }
        match self.slots.get(pv) {
            Some(Slot::Present(member)) => Ok(member),
            Some(Slot::Duplicate) => Err(Refusal::Duplicate),
            Some(Slot::Missing) | None => Err(Refusal::MissingPv(id())),
        }
    }
}

fn layout(lv: &Lv) -> &'static str {
    let striped = |kind: &Kind| matches!(kind, Kind::Striped { areas, .. } if areas.len() > 1);
    match lv.segments.first().map(|segment| &segment.kind) {
        Some(Kind::Raid1 { .. }) => "raid1",
        Some(Kind::Mirror { .. }) => "mirror",
        Some(Kind::Striped { .. }) if lv.segments.iter().any(|s| striped(&s.kind)) => "striped",
        Some(Kind::Striped { .. }) => "linear",
        _ => "other",
    }
}
