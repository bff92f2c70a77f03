//! Finds the groups on a set of devices.

use std::collections::BTreeMap;
use std::sync::Arc;

use snf_fs::BlockDevice;

use super::area::{Area, check_place};
use super::group::{Member, Slot, VolumeGroup};
use super::label::Label;
use super::model::{Model, group_section, id, sequence};
use super::text::Section;
use super::{Id, text_parse};
use crate::{Error, Result};

/// Something that is wrong with one device, or with a group that was found on it. Groups whose
/// metadata is whole elsewhere are found all the same.
#[derive(Debug)]
pub struct Problem {
    /// The index of the device.
    pub device: usize,
    /// The problem.
    pub error: Error,
}

/// The result of [`scan`].
#[derive(Debug, Default)]
pub struct Scan {
    /// The groups, by identifier.
    pub groups: Vec<VolumeGroup>,
    /// Devices with a physical volume that belongs to no group: index and identifier.
    pub orphans: Vec<(usize, Id)>,
    /// Damage that was met.
    pub problems: Vec<Problem>,
}

impl Scan {
    /// The only group of this name.
    ///
    /// # Errors
    /// [`Error::NotFound`], or [`Error::Invalid`] when several groups have it.
    pub fn group(&self, name: &str) -> Result<&VolumeGroup> {
        let mut found = self.groups.iter().filter(|group| group.name() == name);
        match (found.next(), found.next()) {
            (Some(group), None) => Ok(group),
            (None, _) => Err(Error::NotFound(format!("volume group {name}"))),
            _ => Err(Error::Invalid(format!("several volume groups have the name {name}"))),
        }
    }
}

/// Whether the device has a label of LVM2 among its first sectors, whole or not.
///
/// # Errors
/// [`Error::Device`].
pub fn is_physical_volume(device: &dyn BlockDevice) -> Result<bool> {
    match Label::read(device) {
        Ok(label) => Ok(label.is_some()),
        Err(error @ Error::Device(_)) => Err(error),
        Err(_) => Ok(true),
    }
}

/// The newest text of a group.
struct Candidate {
    sequence: u64,
    root: Section,
    /// The device it was read from.
    device: usize,
}

/// Looks for physical volumes on `devices` and puts their groups together. Devices without a
/// label are passed over. Of several texts of one group the one with the highest sequence number
/// counts, whichever device it is on.
///
/// ```
/// use std::sync::Arc;
/// use snf_fs::{BlockDevice, MemoryDevice};
///
/// let disk: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::new(vec![0; 1 << 20]));
/// let scan = snf_volume::lvm::scan(&[disk]);
/// assert!(scan.groups.is_empty() && scan.problems.is_empty());
/// ```
pub fn scan(devices: &[Arc<dyn BlockDevice>]) -> Scan {
    let mut scan = Scan::default();
    let mut members: Vec<(Member, Option<Id>)> = Vec::new();
    let mut texts = Texts::default();
    for (index, device) in devices.iter().enumerate() {
        let label = match Label::read(&**device) {
            Ok(Some(label)) => label,
            Ok(None) => continue,
            Err(error) => {
                scan.problems.push(Problem { device: index, error });
                continue;
            }
        };
        let mut member = Member { index, device: device.clone(), label, areas: Vec::new() };
        let mut group = None;
        for place in member.label.metadata.clone() {
            let found = Area::read(&**device, place).and_then(|area| {
                let text = texts.look(&**device, index, &area)?;
                group = group.or(text);
                Ok(area)
            });
            match found {
                Ok(area) => member.areas.push(area),
                Err(error) => {
                    // A damaged area is written anew by the next change.
                    if check_place(&**device, place).is_ok() {
                        member.areas.push(Area::fresh(place));
                    }
                    scan.problems.push(Problem { device: index, error });
                }
            }
        }
        members.push((member, group));
    }
    let mut taken = vec![false; members.len()];
    for candidate in texts.newest.into_values() {
        match assemble(&candidate.root, &members, &mut taken) {
            Ok(group) => scan.groups.push(group),
            Err(error) => scan.problems.push(Problem { device: candidate.device, error }),
        }
    }
    for ((member, group), taken) in members.iter().zip(taken) {
        if taken {
            continue;
        }
        match group {
            None => scan.orphans.push((member.index, member.label.id)),
            Some(group) => {
                let detail = format!("the newest metadata of group {group} does not list it");
                let position = format!("physical volume {}", member.label.id);
                let error = Error::corrupt("metadata text", position, detail);
                scan.problems.push(Problem { device: member.index, error });
            }
        }
    }
    scan
}

/// The texts that were read so far.
#[derive(Default)]
struct Texts {
    newest: BTreeMap<Id, Candidate>,
    /// Groups by checksum and size of their texts, so that copies are parsed once.
    seen: BTreeMap<(u32, u64), Id>,
}

impl Texts {
    /// Reads the text of an area and keeps it if it is the newest of its group. Gives the group.
    fn look(&mut self, device: &dyn BlockDevice, index: usize, area: &Area) -> Result<Option<Id>> {
        let Some(fingerprint) = area.fingerprint().filter(|_| !area.ignored) else {
            return Ok(None);
        };
        if let Some(group) = self.seen.get(&fingerprint) {
            return Ok(Some(*group));
        }
        let Some(bytes) = area.read_text(device)? else { return Ok(None) };
        let root = text_parse::parse(&bytes)?;
        let (_, section) = group_section(&root)?;
        let (Some(id), Some(sequence)) = (id(section), sequence(section)) else {
            let place = format!("the area at byte {}", area.place.offset);
            return Err(Error::corrupt("metadata text", place, "id or seqno is missing"));
        };
        self.seen.insert(fingerprint, id);
        let newer = self.newest.get(&id).is_none_or(|known| known.sequence < sequence);
        if newer {
            self.newest.insert(id, Candidate { sequence, root, device: index });
        }
        Ok(Some(id))
    }
}

fn assemble(
    root: &Section,
    members: &[(Member, Option<Id>)],
    taken: &mut [bool],
) -> Result<VolumeGroup> {
    let model = Model::parse(root)?;
    let mut slots = Vec::with_capacity(model.pvs.len());
    for pv in &model.pvs {
        let mut slot = Slot::Missing;
        for ((member, group), taken) in members.iter().zip(&mut *taken) {
            // A physical volume with a text of its own belongs to that text's group.
            let ours = group.is_none_or(|group| group == model.id);
            if member.label.id != pv.id || !ours {
                continue;
            }
            *taken = true;
            slot = match slot {
                Slot::Missing => Slot::Present(member.clone()),
                _ => Slot::Duplicate,
            };
        }
        slots.push(slot);
    }
    Ok(VolumeGroup { model, root: root.clone(), slots })
}
