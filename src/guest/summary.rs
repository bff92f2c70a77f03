//! The volumes of a disk in a report.

use serde::Serialize;
use snf_fs::error::display_name;

use super::disk::{Group, Layer, Volume};

/// One of the guest's further disks in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiskSummary {
    /// Its number: the disk that holds the image is 1.
    pub disk: usize,
    /// `GPT`, `MBR`; none without a table.
    pub table: Option<String>,
    /// The disk's identifier.
    pub disk_id: Option<String>,
    /// Size in bytes.
    pub size: u64,
}

/// A volume group in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GroupSummary {
    /// Its name.
    pub name: String,
    /// Its identifier.
    pub uuid: String,
    /// Bytes in extents.
    pub size: u64,
    /// Bytes in free extents.
    pub free: u64,
    /// Bytes of an extent.
    pub extent_size: u64,
    /// Its physical volumes: their indices among the volumes; none for one that is missing.
    pub physical_volumes: Vec<Option<usize>>,
}

impl GroupSummary {
    /// The summary of a group.
    pub fn of(group: &Group) -> Self {
        let volumes = group.group.physical_volumes();
        Self {
            name: group.group.name().to_owned(),
            uuid: group.group.id().to_string(),
            size: volumes.iter().map(|pv| pv.size).fold(0, u64::saturating_add),
            free: volumes.iter().map(|pv| pv.free).fold(0, u64::saturating_add),
            extent_size: group.group.extent_size(),
            physical_volumes: group.members.clone(),
        }
    }
}

/// A volume in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VolumeSummary {
    /// The words for it: `partition 3`, `the disk`, `logical volume rl/root`.
    pub place: String,
    /// `disk`, `partition`, `luks` (what is in a container) or `lv`.
    pub layer: &'static str,
    /// The number of its disk, from 1.
    pub disk: usize,
    /// The indices of the volumes that it lies in.
    pub lies_in: Vec<usize>,
    /// The paths that a guest has for it.
    pub paths: Vec<String>,
    /// The partition's number; none for other volumes.
    pub number: Option<u32>,
    /// First byte on its disk; none where it does not lie there in one piece and in the clear.
    pub start: Option<u64>,
    /// Length in bytes.
    pub size: u64,
    /// Free bytes of its file system, as far as known.
    pub free: Option<u64>,
    /// The partition's type.
    pub partition_type: String,
    /// The partition's name.
    pub name: String,
    /// `PARTUUID`.
    pub partuuid: Option<String>,
    /// Kind of file system or container.
    pub kind: Option<String>,
    /// The file system's UUID.
    pub uuid: Option<String>,
    /// The file system's label.
    pub label: Option<String>,
    /// The verdict of the search for the root: the system, or why it is not the root.
    pub verdict: String,
}

impl VolumeSummary {
    /// The summary of a volume.
    pub(super) fn of(volume: &Volume) -> Self {
        Self {
            place: volume.place(),
            layer: match volume.layer {
                Layer::Disk => "disk",
                Layer::Partition => "partition",
                Layer::Luks(_) => "luks",
                Layer::Logical { .. } => "lv",
            },
            disk: volume.disk + 1,
            lies_in: volume.below.clone(),
            paths: volume.paths.clone(),
            number: volume.number,
            start: volume.run,
            size: volume.size,
            free: volume.free,
            partition_type: display_name(volume.partition_type.as_bytes()),
            name: display_name(volume.name.as_bytes()),
            partuuid: volume.partuuid.clone(),
            kind: volume.kind.clone(),
            uuid: volume.uuid.clone(),
            label: volume.label.as_ref().map(|label| display_name(label.as_bytes())),
            verdict: volume.verdict.clone(),
        }
    }
}
