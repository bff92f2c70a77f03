//! Deciding which partition grows and what after it may move. Nothing is written here, and nothing
//! is enlarged whose content does not grow with it.

use std::sync::Arc;

use snf_fs::{BlockDevice, DeviceError, Kind, Slice};
use snf_partition::{Carry, Partition, PartitionType, Table, Target};

use crate::ask::plan::{Grow, Growth};
use crate::ask::properties::Properties;
use crate::craft::sentence::sentence;
use crate::guest::detect::{DetectError, find_root};
use crate::guest::disk::{Content, Disk, Layer, Volume};
use crate::guest::probe::{self, Probe};

/// A partition of more bytes is not copied to another place.
const MOVED_MAX: u64 = 4 << 30;

/// The volume that grows, and the partitions that may move for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// The partition's number; `None`: the disk has no table, and its file system grows.
    pub number: Option<u32>,
    /// The partition in the words of a person (`partition 1 (ext4)`).
    pub place: String,
    /// The volume in the partition (or disk) that grows with it: LUKS, a logical volume.
    pub within: Option<Layer>,
    /// The partitions that may be moved, and how.
    pub movable: Vec<(u32, Carry)>,
    /// Those that may not, and why.
    pub fixed: Vec<(u32, &'static str)>,
}

/// Why the content of a partition keeps its size.
#[derive(Debug, thiserror::Error)]
pub enum Fixed {
    /// Nothing enlarges FAT.
    #[error("FAT file systems keep their size")]
    Fat,
    /// The container is locked.
    #[error(transparent)]
    Closed(Arc<snf_volume::Error>),
    /// A file system of the kernel's.
    #[error("nothing here opens this file system; --vm does")]
    NeedsVm,
    /// Another content, by its name.
    #[error("nothing enlarges {0}")]
    Foreign(&'static str),
    /// The file system is damaged.
    #[error(transparent)]
    Broken(Arc<snf_fs::Error>),
    /// An extended partition.
    #[error("it contains the logical partitions")]
    Extended,
    /// Nobody knows.
    #[error("its content is not known")]
    Unknown,
    /// A LUKS container whose header has a number for its size.
    #[error("the header of the LUKS container on {0} gives it a fixed size")]
    Header(String),
    /// A second disk.
    #[error("it lies on another disk")]
    OtherDisk,
}

/// Why nothing grows.
#[derive(Debug, thiserror::Error)]
pub enum NoGrowth {
    /// A partition was named that is not there.
    #[error("the disk has no partition {number}; it has {there}")]
    Missing {
        /// The number.
        number: u32,
        /// Those that are there.
        there: String,
    },
    /// The content of the partition does not grow.
    #[error("{place} does not grow")]
    Content {
        /// The partition, and its content.
        place: String,
        /// Why.
        #[source]
        reason: Fixed,
    },
    /// A logical volume was named that is not there.
    #[error("the disk has no logical volume {group}/{name}")]
    MissingLogical {
        /// The name of the group.
        group: String,
        /// The volume's own.
        name: String,
    },
    /// Nobody knows which one is meant.
    #[error("no partition grows: {last}, and no root was found that could")]
    NoRoot {
        /// The last partition, and why it does not grow.
        last: String,
        /// Why no root was found.
        #[source]
        problem: DetectError,
    },
    /// There is no partition at all.
    #[error("the disk has no partition that could grow")]
    Nothing,
}

impl Choice {
    /// The target of a plan for the table.
    pub fn target(&self) -> Target {
        self.number.map_or(Target::Nothing, Target::Number)
    }

    fn of(
        disk: &Disk,
        (index, base): (usize, usize),
        growth: &Growth,
        table: Option<&Table>,
    ) -> Self {
        let volume = &disk.volumes[index];
        let mut choice = Self {
            number: disk.volumes[base].number,
            place: shown(volume),
            within: (index != base).then(|| volume.layer.clone()),
            movable: Vec::new(),
            fixed: Vec::new(),
        };
        let partitions = table.map_or(&[][..], |table| &table.partitions);
        for partition in partitions.iter().filter(|p| !p.is_extended()) {
            let Some(index) = disk.by_number(partition.number) else { continue };
            let volume = &disk.volumes[index];
            match carry(partition, volume, growth) {
                Ok(carry) => choice.movable.push((partition.number, carry)),
                Err(reason) => choice.fixed.push((partition.number, reason)),
            }
        }
        choice
    }

    /// The index of the volume that grows.
    pub fn volume(&self, disk: &Disk) -> Option<usize> {
        let whole = |volume: &Volume| volume.disk == 0 && volume.layer == Layer::Disk;
        if let Some(layer) = &self.within {
            return disk.volumes.iter().position(|volume| volume.layer == *layer);
        }
        match self.number {
            Some(number) => disk.by_number(number),
            None => disk.volumes.iter().position(whole),
        }
    }

    /// The reasons of the partitions with these numbers, in one clause.
    pub fn reasons(&self, numbers: &[u32]) -> String {
        let of = self.fixed.iter().filter(|(number, _)| numbers.contains(number));
        let list: Vec<String> =
            of.map(|(number, reason)| format!("partition {number} {reason}")).collect();
        list.join(", ")
    }
}

/// Decides which partition grows. `skip` is the swap partition that the request itself adds or has
/// added.
///
/// # Errors
/// [`NoGrowth`] when none does.
pub fn choose(
    disk: &mut Disk,
    table: Option<&Table>,
    growth: &Growth,
    properties: &Properties,
    skip: Option<u32>,
) -> Result<Choice, NoGrowth> {
    let index = match &growth.what {
        Grow::Partition(number) => named(disk, *number)?,
        Grow::Logical { group, name } => logical(disk, group, name)?,
        Grow::Root => root(disk, properties, "nothing else was named")?,
        Grow::Last => match last(table, skip).and_then(|number| disk.by_number(number)) {
            None if disk.table.is_some() => return Err(NoGrowth::Nothing),
            None => 0,
            Some(index) => match grows(&disk.volumes[index]) {
                Ok(()) if !is_ntfs(&disk.volumes[index]) => index,
                // Only the system's own NTFS volume is enlarged.
                found => {
                    let volume = &disk.volumes[index];
                    let reason = match found {
                        Ok(()) => "is not the root".to_owned(),
                        Err(reason) => sentence(&reason),
                    };
                    let last = format!("{}, the last one, does not grow ({reason})", shown(volume));
                    root(disk, properties, &last)?
                }
            },
        },
    };
    let base = base(disk, index)?;
    // Only the command line goes into what `create` leaves to the guest.
    let index = if growth.is_insisted_on() { index } else { base };
    if let Some(fixed) = fixed(disk, index, base) {
        let place = disk.volumes.get(index).map_or_else(String::new, shown);
        let below = fixed.below.first().and_then(|below| disk.volumes.get(*below));
        let below = below.map_or_else(|| fixed.place(), Volume::place);
        return Err(NoGrowth::Content { place, reason: Fixed::Header(below) });
    }
    let Some(volume) = disk.volumes.get(index) else { return Err(NoGrowth::Nothing) };
    if let Err(reason) = grows(volume) {
        return Err(NoGrowth::Content { place: shown(volume), reason });
    }
    Ok(Choice::of(disk, (index, base), growth, table))
}

/// The choice where it needs no look into the file systems: the last partition holds one that grows,
/// and nothing is after it but the swap partition of the request. `opens` tells whether somebody
/// opens XFS and btrfs.
///
/// # Errors
/// When the disk cannot be read.
pub fn choose_last(
    device: &Arc<dyn BlockDevice>,
    table: &Table,
    skip: Option<u32>,
    opens: bool,
) -> Result<Option<Choice>, DeviceError> {
    let Some(number) = last(Some(table), skip) else { return Ok(None) };
    let kind = |number: u32| -> Result<Option<&'static str>, DeviceError> {
        let Some(partition) = table.partition(number) else { return Ok(None) };
        let (start, size) = table.byte_range(partition);
        Ok(match probe::probe(&Slice::new(device.clone(), start, size)?)? {
            Probe::Known(signature) => Some(signature.kind),
            Probe::Empty => Some("empty"),
            Probe::Unknown => None,
        })
    };
    let name = match kind(number)? {
        Some(name @ (probe::EXT | "LVM2_member" | "crypto_LUKS" | "empty")) => name,
        Some(name @ ("xfs" | "btrfs")) if opens => name,
        _ => return Ok(None),
    };
    let mut choice = Choice {
        number: Some(number),
        place: format!("partition {number} ({name})"),
        within: None,
        movable: Vec::new(),
        fixed: Vec::new(),
    };
    for partition in table.partitions.iter().filter(|p| Some(p.number) == skip) {
        match kind(partition.number)? {
            Some("swap" | "empty") => choice.movable.push((partition.number, Carry::Head)),
            _ => return Ok(None),
        }
    }
    Ok(Some(choice))
}

/// The number of the partition that lies last, beside one.
fn last(table: Option<&Table>, skip: Option<u32>) -> Option<u32> {
    let candidates = table?.partitions.iter().filter(|p| !p.is_extended());
    let last = candidates.filter(|p| Some(p.number) != skip).max_by_key(|p| p.start);
    last.map(|partition| partition.number)
}

fn named(disk: &Disk, number: u32) -> Result<usize, NoGrowth> {
    disk.by_number(number).ok_or_else(|| {
        let there: Vec<String> = disk.volumes.iter().map(Volume::place).collect();
        NoGrowth::Missing { number, there: there.join(", ") }
    })
}

/// The first volume on the way from one down to its partition that keeps its size.
fn fixed(disk: &Disk, index: usize, base: usize) -> Option<&Volume> {
    let mut index = index;
    while index != base {
        let volume = disk.volumes.get(index)?;
        if volume.fixed {
            return Some(volume);
        }
        // As `base` goes.
        let earlier = volume.below.iter().copied().filter(|below| *below < index);
        let ours = earlier.filter(|below| disk.volumes.get(*below).is_some_and(|v| v.disk == 0));
        index = ours.max_by_key(|below| disk.volumes.get(*below).map(|v| v.start))?;
    }
    None
}

/// The partition (or the disk) that a volume lies in: of several, the one that is last.
fn base(disk: &Disk, index: usize) -> Result<usize, NoGrowth> {
    let mut base = index;
    // Each step leads to an earlier volume.
    while let Some(volume) = disk.volumes.get(base) {
        let earlier = volume.below.iter().copied().filter(|below| *below < base);
        let ours = earlier.filter(|below| disk.volumes.get(*below).is_some_and(|v| v.disk == 0));
        let Some(below) = ours.max_by_key(|below| disk.volumes.get(*below).map(|v| v.start)) else {
            break;
        };
        base = below;
    }
    let (Some(volume), Some(found)) = (disk.volumes.get(index), disk.volumes.get(base)) else {
        return Err(NoGrowth::Nothing);
    };
    if found.disk != 0 || !matches!(found.layer, Layer::Partition | Layer::Disk) {
        return Err(NoGrowth::Content { place: shown(volume), reason: Fixed::OtherDisk });
    }
    Ok(base)
}

fn logical(disk: &Disk, group: &str, name: &str) -> Result<usize, NoGrowth> {
    let wanted = Layer::Logical { group: group.to_owned(), name: name.to_owned() };
    disk.volumes
        .iter()
        .position(|volume| volume.layer == wanted)
        .ok_or_else(|| NoGrowth::MissingLogical { group: group.to_owned(), name: name.to_owned() })
}

fn root(disk: &mut Disk, properties: &Properties, last: &str) -> Result<usize, NoGrowth> {
    match find_root(disk, properties, false) {
        Ok(root) => Ok(root.volume),
        Err(problem) => Err(NoGrowth::NoRoot { last: last.to_owned(), problem }),
    }
}

/// `partition 1 (ext4, label root)`.
fn shown(volume: &Volume) -> String {
    format!("{} ({})", volume.place(), volume.describe())
}

fn is_ntfs(volume: &Volume) -> bool {
    volume.kind.as_deref() == Some(Kind::Ntfs.name())
}

/// Whether the content of a volume can use more room, now or later in the guest.
fn grows(volume: &Volume) -> Result<(), Fixed> {
    match &volume.content {
        Content::Open(_) | Content::Mounted if volume.kind.as_deref() == Some(probe::FAT) => {
            Err(Fixed::Fat)
        }
        Content::Open(_) | Content::Mounted => Ok(()),
        // The guest's own tools go on from there.
        Content::Foreign("LVM2_member" | "crypto_LUKS") | Content::Container { .. } => Ok(()),
        Content::Closed(error) => Err(Fixed::Closed(error.clone())),
        Content::Foreign("xfs" | "btrfs") => Err(Fixed::NeedsVm),
        Content::Foreign(kind) => Err(Fixed::Foreign(kind)),
        Content::Broken(error) => Err(Fixed::Broken(error.clone())),
        Content::Extended => Err(Fixed::Extended),
        Content::Empty => Ok(()),
        Content::Unknown => Err(Fixed::Unknown),
    }
}

/// How a partition is moved, or why it must stay.
fn carry(partition: &Partition, volume: &Volume, growth: &Growth) -> Result<Carry, &'static str> {
    if growth.no_move {
        return Err("is left in place, as --no-move says");
    }
    match partition.partition_type {
        PartitionType::Mbr(0xa5 | 0xa6 | 0xa9) => return Err("has a table of its own in it"),
        PartitionType::Mbr(0x42) => return Err("is a dynamic disk of Windows"),
        _ => {}
    }
    match partition.partition_type.name() {
        Some("BIOS boot") => return Err("holds the boot loader, which is found by its sectors"),
        Some("Windows LDM metadata" | "Windows LDM data") => {
            return Err("is a dynamic disk of Windows");
        }
        _ => {}
    }
    if volume.kind.as_deref() == Some("swap") {
        return Ok(Carry::Head);
    }
    if volume.size > MOVED_MAX {
        return Err("has more than 4 GiB, which is not moved");
    }
    Ok(Carry::Whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use snf_fs::MemoryFs;

    fn volume(number: u32, kind: &str, content: Content) -> Volume {
        let mut volume = Volume::open(Some(number), Box::new(MemoryFs::new()));
        volume.kind = Some(kind.to_owned());
        volume.content = content;
        volume
    }

    #[test]
    fn what_grows() {
        let open = || Content::Open(Box::new(MemoryFs::new()));
        for (kind, content, expected) in [
            ("ext4", open(), None),
            ("vfat", open(), Some("keep their size")),
            ("LVM2_member", Content::Foreign("LVM2_member"), None),
            ("swap", Content::Foreign("swap"), Some("nothing enlarges swap")),
            ("", Content::Empty, None),
            ("", Content::Unknown, Some("not known")),
        ] {
            let found = grows(&volume(1, kind, content)).err().map(|error| error.to_string());
            match (&found, expected) {
                (None, None) => {}
                (Some(text), Some(part)) => assert!(text.contains(part), "{text}"),
                _ => panic!("{kind}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_number_that_is_not_there_is_named() {
        let mut disk = Disk::of_volumes(vec![volume(1, "ext4", Content::Empty)]);
        let growth = Growth { what: Grow::Partition(3), no_move: false };
        let error = choose(&mut disk, None, &growth, &Properties::default(), None).unwrap_err();
        assert_eq!(error.to_string(), "the disk has no partition 3; it has partition 1");
    }
}
