//! From disks to volumes: partition table or none, LUKS containers, LVM, in any order. Each layer
//! is a block device over block devices, so nothing is copied and what is not looked at is not
//! read.

use std::sync::Arc;

use snf_fs::{BlockDevice, Slice};
use snf_volume::luks::{Limits, Luks};
use snf_volume::lvm::{self, LogicalVolume, VolumeGroup};

use super::disk::{Content, Disk, DiskSummary, Group, Layer, Volume, look};
use super::mounter::Mounter;
use crate::ask::luks_key::LuksKey;
use crate::craft::random::{Clock, Entropy};
use crate::craft::sentence::sentence;
use crate::guest::disk_adapter::DiskAdapter;

/// Most volumes that are looked into; a group can list a hundred thousand.
const VOLUMES_MAX: usize = 2048;
/// How deep containers are opened: LVM in LUKS in LVM in LUKS.
const DEPTH_MAX: usize = 4;

const LUKS: &str = "crypto_LUKS";
const LVM: &str = "LVM2_member";

/// Why the disks cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum StackError {
    /// The partition table of the image's disk.
    #[error("cannot read the partition table")]
    Table(#[from] snf_partition::Error),
    /// The partition table of a further disk.
    #[error("cannot read the partition table of disk {disk}")]
    TableOf {
        /// Its number, from 2 on.
        disk: usize,
        /// The problem of the table.
        #[source]
        source: snf_partition::Error,
    },
    /// A key opens nothing.
    #[error("--luks-key {target}: {place} is not opened with it")]
    Key {
        /// The container that the key was given for.
        target: String,
        /// The volume that holds the container.
        place: String,
        /// Why.
        #[source]
        source: snf_volume::Error,
    },
    /// A key is given for a container that is not there.
    #[error("--luks-key {target}: there is no such LUKS container; {there}")]
    NoContainer {
        /// The container that the key was given for.
        target: String,
        /// The containers that are there.
        there: String,
    },
}

/// The devices to open, and the way to open them.
pub struct Sources<'a> {
    /// The disk that holds the image, and the guest's further disks.
    pub disks: &'a [Arc<dyn BlockDevice>],
    /// The keys of LUKS containers.
    pub keys: &'a [LuksKey],
    /// Opens what no engine knows, where there is one.
    pub mounter: Option<&'a dyn Mounter>,
    /// The source of randomness.
    pub entropy: &'a Entropy,
    /// The time that changes carry.
    pub clock: &'a Clock,
}

impl<'a> Sources<'a> {
    /// These disks, without keys and without a mounter.
    pub fn of(disks: &'a [Arc<dyn BlockDevice>], entropy: &'a Entropy, clock: &'a Clock) -> Self {
        Self { disks, keys: &[], mounter: None, entropy, clock }
    }
}

/// Opens all that is there.
pub(super) fn open(sources: &Sources<'_>) -> Result<Disk, StackError> {
    let mut opening = Opening {
        sources,
        disk: Disk::empty(),
        used: vec![false; sources.keys.len()],
        seen: 0,
        told: Vec::new(),
    };
    for (index, device) in sources.disks.iter().enumerate() {
        opening.disk(index, device)?;
    }
    for _ in 0..DEPTH_MAX {
        let before = opening.disk.volumes.len();
        opening.unlock()?;
        opening.assemble(true);
        if opening.disk.volumes.len() == before {
            // Nothing else will come: groups with missing members show what they have.
            opening.assemble(false);
            if opening.disk.volumes.len() == before {
                break;
            }
        }
    }
    opening.finish()
}

struct Opening<'a> {
    sources: &'a Sources<'a>,
    disk: Disk,
    /// The keys that have opened something.
    used: Vec<bool>,
    /// Volumes before this one have been asked whether they are LUKS containers.
    seen: usize,
    /// Damage that was told already.
    told: Vec<String>,
}

impl Opening<'_> {
    /// Adds the partitions of a disk, or the disk itself where it has no table.
    fn disk(&mut self, index: usize, device: &Arc<dyn BlockDevice>) -> Result<(), StackError> {
        let table = snf_partition::read(&DiskAdapter(&**device)).map_err(|source| match index {
            0 => StackError::Table(source),
            _ => StackError::TableOf { disk: index + 1, source },
        })?;
        let (mut kind, mut id) = (None, None);
        if let Some(table) = &table {
            (kind, id) = (Some(table.kind.to_string()), table.disk_id.clone());
            let named = |warning: &String| match index {
                0 => format!("partition table: {warning}"),
                _ => format!("partition table of disk {}: {warning}", index + 1),
            };
            self.disk.warnings.extend(table.warnings.iter().map(named));
        }
        let size = device.len();
        if index == 0 {
            (self.disk.table, self.disk.disk_id, self.disk.size) = (kind, id, size);
        } else {
            self.disk.more.push(DiskSummary { disk: index + 1, table: kind, disk_id: id, size });
        }
        let Some(table) = table else {
            let mut volume = Volume::new(None, 0, size);
            volume.disk = index;
            self.add(volume, device.clone());
            return Ok(());
        };
        for partition in &table.partitions {
            let (start, size) = table.byte_range(partition);
            let mut volume = Volume::new(Some(partition.number), start, size);
            volume.disk = index;
            volume.partition_type = partition.partition_type.to_string();
            volume.name = partition.name.clone();
            volume.partuuid = partition.partuuid.clone();
            if partition.is_extended() {
                volume.content = Content::Extended;
                self.disk.volumes.push(volume);
                continue;
            }
            match Slice::new(device.clone(), start, size) {
                Ok(slice) => self.add(volume, Arc::new(slice)),
                Err(error) => {
                    volume.content = Content::broken(error);
                    self.disk.volumes.push(volume);
                }
            }
        }
        Ok(())
    }

    /// Looks into a volume and adds it.
    fn add(&mut self, mut volume: Volume, device: Arc<dyn BlockDevice>) {
        let Sources { entropy, clock, mounter, .. } = *self.sources;
        volume.device = Some(device.clone());
        look(&mut volume, device, entropy, clock, mounter);
        self.disk.volumes.push(volume);
    }

    fn holds(&self, index: usize, kind: &str) -> Option<Arc<dyn BlockDevice>> {
        let volume = &self.disk.volumes[index];
        let holds = matches!(volume.content, Content::Foreign(found) if found == kind);
        volume.device.clone().filter(|_| holds)
    }

    /// Opens the LUKS containers that there is a key for, among the volumes that are new.
    fn unlock(&mut self) -> Result<(), StackError> {
        while self.seen < self.disk.volumes.len() {
            let index = self.seen;
            self.seen += 1;
            let Some(device) = self.holds(index, LUKS) else { continue };
            let container = match Luks::open(device) {
                Ok(container) => container,
                Err(error) => {
                    self.disk.volumes[index].content = Content::Closed(Arc::new(error));
                    continue;
                }
            };
            let volume = &mut self.disk.volumes[index];
            volume.uuid = Some(container.uuid().to_owned());
            volume.label = Some(container.label().to_owned()).filter(|label| !label.is_empty());
            if let Some(damage) = container.damage() {
                let text = format!("{}: {}", volume.place(), sentence(damage));
                self.disk.warnings.push(text);
            }
            self.unlock_one(index, &container)?;
        }
        Ok(())
    }

    /// Tries the keys that are given for a container.
    fn unlock_one(&mut self, index: usize, container: &Luks) -> Result<(), StackError> {
        let mut failure = None;
        for (number, key) in self.sources.keys.iter().enumerate() {
            let volume = &self.disk.volumes[index];
            if !names(volume, container.uuid(), key) {
                continue;
            }
            match container.unlock(key.secret.expose(), &Limits::default()) {
                Ok(content) => {
                    self.used[number] = true;
                    let uuid = container.uuid().to_owned();
                    let name = container.usual_name();
                    let mut inner = Volume::new(None, 0, content.len());
                    inner.disk = volume.disk;
                    inner.run = None;
                    inner.below = vec![index];
                    inner.paths = vec![
                        format!("/dev/mapper/{name}"),
                        format!("/dev/disk/by-id/dm-name-{name}"),
                        format!(
                            "/dev/disk/by-id/dm-uuid-CRYPT-LUKS{}-{}-{name}",
                            container.version(),
                            uuid.replace('-', "")
                        ),
                    ];
                    inner.read_only = volume.read_only.clone();
                    inner.fixed = !content.is_dynamic();
                    inner.layer = Layer::Luks(uuid);
                    let role = "an open LUKS container".to_owned();
                    self.disk.volumes[index].content = Content::Container { kind: LUKS, role };
                    self.add(inner, Arc::new(content));
                    return Ok(());
                }
                Err(source) => {
                    self.used[number] = true;
                    let (target, place) = (key.target.clone(), volume.place());
                    failure = failure.or(Some(StackError::Key { target, place, source }));
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Puts the volume groups together and adds the logical volumes of those that are new and, if
    /// `whole`, have all their physical volumes.
    fn assemble(&mut self, whole: bool) {
        // As in lvm2, whose scan_lvs is off: a physical volume inside a logical volume is the
        // matter of a virtual machine that lives there.
        let candidates: Vec<(usize, Arc<dyn BlockDevice>)> = (0..self.disk.volumes.len())
            .filter(|&index| !matches!(self.disk.volumes[index].layer, Layer::Logical { .. }))
            .filter_map(|index| Some((index, self.member(index)?)))
            .collect();
        let devices: Vec<_> = candidates.iter().map(|(_, device)| device.clone()).collect();
        let scan = lvm::scan(&devices);
        for problem in &scan.problems {
            let place = self.disk.volumes[candidates[problem.device].0].place();
            let text = format!("LVM on {place}: {}", sentence(&problem.error));
            if !self.told.contains(&text) {
                self.told.push(text);
            }
        }
        for group in scan.groups {
            let members: Vec<Option<usize>> = group
                .physical_volumes()
                .iter()
                .map(|pv| pv.device.map(|device| candidates[device].0))
                .collect();
            let known = self.disk.groups.iter().any(|known| known.group.id() == group.id());
            if known || whole && members.contains(&None) {
                continue;
            }
            self.logical_volumes(&group, &members);
            for &member in members.iter().flatten() {
                let role = format!("a physical volume of the group {}", group.name());
                self.disk.volumes[member].content = Content::Container { kind: LVM, role };
            }
            self.disk.groups.push(Group { group, members });
        }
    }

    /// The device of a physical volume.
    fn member(&self, index: usize) -> Option<Arc<dyn BlockDevice>> {
        match self.disk.volumes[index].content {
            Content::Container { kind: LVM, .. } => self.disk.volumes[index].device.clone(),
            _ => self.holds(index, LVM),
        }
    }

    fn logical_volumes(&mut self, group: &VolumeGroup, members: &[Option<usize>]) {
        let below: Vec<usize> = members.iter().flatten().copied().collect();
        let Some(&first) = below.first() else { return };
        for summary in group.logical_volumes() {
            if self.disk.volumes.len() >= VOLUMES_MAX {
                self.disk.warnings.push(format!(
                    "volume group {}: only {VOLUMES_MAX} volumes are looked into, the others are \
                     left out",
                    group.name()
                ));
                return;
            }
            let mut volume = Volume::new(None, 0, summary.size);
            volume.layer =
                Layer::Logical { group: group.name().to_owned(), name: summary.name.clone() };
            volume.run = None;
            volume.disk = self.disk.volumes[first].disk;
            volume.below = below.clone();
            volume.paths = summary.paths.to_vec();
            match group.open(&summary.name) {
                Ok(opened) => {
                    self.place_of(&opened, &below, &mut volume);
                    if opened.is_read_only() {
                        volume.read_only = Some(format!("{} is read-only", volume.place()));
                    }
                    self.add(volume, Arc::new(opened));
                }
                Err(error) => {
                    volume.content = Content::Closed(Arc::new(error));
                    self.disk.volumes.push(volume);
                }
            }
        }
    }

    /// Notes which physical volumes a logical volume lies on, and where on the disk, if it lies
    /// there in one piece.
    fn place_of(&self, opened: &LogicalVolume, members: &[usize], volume: &mut Volume) {
        let on = |device: &Arc<dyn BlockDevice>| {
            let same = |&&member: &&usize| {
                let held = self.disk.volumes[member].device.as_ref();
                held.is_some_and(|held| Arc::ptr_eq(held, device))
            };
            members.iter().find(same).copied()
        };
        let below: Vec<usize> = opened.devices().iter().filter_map(&on).collect();
        if let Some(&first) = below.first() {
            volume.disk = self.disk.volumes[first].disk;
            volume.below = below;
        }
        if let Some((device, offset)) = opened.run()
            && let Some(member) = on(device)
            && let Some(start) = self.disk.volumes[member].run
        {
            volume.run = start.checked_add(offset);
        }
    }

    /// No key may have been given in vain.
    fn finish(mut self) -> Result<Disk, StackError> {
        self.disk.warnings.append(&mut self.told);
        let unused = self.used.iter().position(|used| !used);
        let Some(key) = unused.and_then(|unused| self.sources.keys.get(unused)) else {
            return Ok(self.disk);
        };
        let containers = self.disk.volumes.iter().filter(|v| v.kind.as_deref() == Some(LUKS));
        let there: Vec<String> = containers
            .map(|volume| {
                format!("{} in {}", volume.uuid.as_deref().unwrap_or("?"), volume.place())
            })
            .collect();
        let there = match there.is_empty() {
            true => "the disk has none".to_owned(),
            false => format!("there is {}", there.join(", ")),
        };
        Err(StackError::NoContainer { target: key.target.clone(), there })
    }
}

/// Whether a key is meant for the container in this volume.
fn names(volume: &Volume, uuid: &str, key: &LuksKey) -> bool {
    let target = key.target.as_str();
    let bare = target.strip_prefix("luks-").unwrap_or(target);
    let number = (volume.disk == 0).then_some(volume.number).flatten();
    bare.eq_ignore_ascii_case(uuid)
        || number.is_some_and(|number| target.parse() == Ok(number))
        || matches!(volume.layer, Layer::Logical { .. }) && volume.answers_to(target)
}
