//! The image's disk: its partition table and the content of each partition.

use std::sync::Arc;

use serde::Serialize;
use snf_fs::error::display_name;
use snf_fs::ext::{Ext, Options};
use snf_fs::fat::{self, Fat};
use snf_fs::ntfs::Ntfs;
use snf_fs::{BlockDevice, Error, FileSystem, Info, Slice};

use super::mounter::{Foreign, Mounter};
use super::probe::{self, Probe};
use crate::craft::random::{Clock, Entropy};
use crate::guest::disk_adapter::DiskAdapter;

/// The content of a partition, or of a disk without a table.
pub enum Content {
    /// A file system that one of our engines has open.
    Open(Box<dyn FileSystem>),
    /// The file system is part of the guest's tree now.
    Mounted,
    /// A file system or container that no engine handles.
    Foreign(&'static str),
    /// A file system of a kind that we handle, which cannot be opened, and why.
    Broken(Arc<Error>),
    /// The container of the logical partitions.
    Extended,
    /// Zeros.
    Empty,
    /// Nothing that has a known signature.
    Unknown,
}

impl Content {
    fn broken(error: impl Into<Error>) -> Self {
        Self::Broken(Arc::new(error.into()))
    }
}

/// A partition, or the whole of a disk without a table.
pub struct Volume {
    /// The partition's number; `None` for a disk without a table.
    pub number: Option<u32>,
    /// First byte on the disk.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
    /// The partition's type, in words.
    pub partition_type: String,
    /// GPT's name of the partition; may be empty.
    pub name: String,
    /// `PARTUUID`.
    pub partuuid: Option<String>,
    /// The file system's UUID or serial number.
    pub uuid: Option<String>,
    /// The file system's label.
    pub label: Option<String>,
    /// The kind of file system or container, as far as known.
    pub kind: Option<String>,
    /// The content.
    pub content: Content,
    /// The verdict of the search for the root: the system, or why it is not the root.
    pub verdict: String,
    /// Whether its file system grew: that waits for a commit of its own where nothing mounts it.
    pub grown: bool,
}

/// A disk and its volumes.
pub struct Disk {
    /// `GPT`, `MBR`, or `None` for a bare file system.
    pub table: Option<String>,
    /// The disk's identifier, as `blkid` prints `PTUUID`.
    pub disk_id: Option<String>,
    /// Size in bytes.
    pub size: u64,
    /// Partitions by number, or the one volume of a disk without a table.
    pub volumes: Vec<Volume>,
    /// Warnings of the table's reader.
    pub warnings: Vec<String>,
}

impl Volume {
    /// A volume around an open file system; for tests and for callers with an engine of their own.
    pub fn open(number: Option<u32>, fs: Box<dyn FileSystem>) -> Self {
        let mut volume = Self::new(number, 0, 0);
        volume.set_open(fs);
        volume
    }

    fn new(number: Option<u32>, start: u64, size: u64) -> Self {
        Self {
            number,
            start,
            size,
            partition_type: String::new(),
            name: String::new(),
            partuuid: None,
            uuid: None,
            label: None,
            kind: None,
            content: Content::Unknown,
            verdict: String::new(),
            grown: false,
        }
    }

    fn set_open(&mut self, fs: Box<dyn FileSystem>) {
        if let Ok(Info { kind, uuid, label, size, .. }) = fs.info() {
            self.kind = Some(kind.name().to_owned());
            self.uuid = Some(uuid).filter(|uuid| !uuid.is_empty());
            self.label = Some(label).filter(|label| !label.is_empty());
            if self.size == 0 {
                self.size = size;
            }
        }
        self.content = Content::Open(fs);
    }

    /// `partition 3`, or `the disk`.
    pub fn place(&self) -> String {
        match self.number {
            Some(number) => format!("partition {number}"),
            None => "the disk".into(),
        }
    }

    /// The content in a few words.
    pub fn describe(&self) -> String {
        let mut text = match &self.content {
            Content::Open(_) | Content::Mounted => {
                self.kind.clone().unwrap_or_else(|| "a file system".into())
            }
            Content::Foreign(kind) => (*kind).to_owned(),
            Content::Broken(_) => {
                format!("{}, damaged", self.kind.as_deref().unwrap_or(probe::EXT))
            }
            Content::Extended => "extended partition".into(),
            Content::Empty => "empty".into(),
            Content::Unknown => "unknown content".into(),
        };
        if let Some(label) = &self.label {
            text.push_str(&format!(", label {}", display_name(label.as_bytes())));
        }
        text
    }
}

impl Disk {
    /// Reads the table and looks into every partition. Damage inside a partition is that
    /// partition's matter, a damaged table is an error.
    pub fn open(
        device: &Arc<dyn BlockDevice>,
        entropy: &Entropy,
        clock: &Clock,
    ) -> Result<Self, snf_partition::Error> {
        Self::open_with(device, entropy, clock, None)
    }

    /// Like [`Disk::open`]; what no engine knows is opened by `mounter`, where there is one.
    pub fn open_with(
        device: &Arc<dyn BlockDevice>,
        entropy: &Entropy,
        clock: &Clock,
        mounter: Option<&dyn Mounter>,
    ) -> Result<Self, snf_partition::Error> {
        let table = snf_partition::read(&DiskAdapter(&**device))?;
        let mut disk = Self {
            table: None,
            disk_id: None,
            size: device.len(),
            volumes: Vec::new(),
            warnings: Vec::new(),
        };
        let Some(table) = table else {
            let mut volume = Volume::new(None, 0, device.len());
            look(&mut volume, device.clone(), entropy, clock, mounter);
            disk.volumes.push(volume);
            return Ok(disk);
        };
        disk.table = Some(table.kind.to_string());
        disk.disk_id = table.disk_id.clone();
        disk.warnings = table.warnings.clone();
        for partition in &table.partitions {
            let (start, size) = table.byte_range(partition);
            let mut volume = Volume::new(Some(partition.number), start, size);
            volume.partition_type = partition.partition_type.to_string();
            volume.name = partition.name.clone();
            volume.partuuid = partition.partuuid.clone();
            if partition.is_extended() {
                volume.content = Content::Extended;
            } else {
                match Slice::new(device.clone(), start, size) {
                    Ok(slice) => look(&mut volume, Arc::new(slice), entropy, clock, mounter),
                    Err(error) => volume.content = Content::broken(error),
                }
            }
            disk.volumes.push(volume);
        }
        Ok(disk)
    }

    /// A disk of volumes that are open already.
    pub fn of_volumes(volumes: Vec<Volume>) -> Self {
        let table = volumes.iter().any(|v| v.number.is_some()).then(|| "GPT".to_owned());
        Self { table, disk_id: None, size: 0, volumes, warnings: Vec::new() }
    }

    /// The index of the partition with a number.
    pub fn by_number(&self, number: u32) -> Option<usize> {
        self.volumes.iter().position(|volume| volume.number == Some(number))
    }

    /// A summary of each volume.
    pub fn summary(&self) -> Vec<VolumeSummary> {
        self.volumes.iter().map(VolumeSummary::of).collect()
    }
}

/// A volume in a report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct VolumeSummary {
    /// The partition's number; none for a disk without a table.
    pub number: Option<u32>,
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
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
    fn of(volume: &Volume) -> Self {
        Self {
            number: volume.number,
            start: volume.start,
            size: volume.size,
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

/// Finds out what a volume holds, and opens it where an engine can.
fn look(
    volume: &mut Volume,
    device: Arc<dyn BlockDevice>,
    entropy: &Entropy,
    clock: &Clock,
    mounter: Option<&dyn Mounter>,
) {
    let signature = match probe::probe(&*device) {
        Ok(Probe::Known(signature)) => signature,
        Ok(Probe::Empty) => {
            volume.content = Content::Empty;
            return;
        }
        Ok(Probe::Unknown) => return,
        Err(error) => {
            volume.content = Content::broken(error);
            return;
        }
    };
    volume.kind = Some(signature.kind.to_owned());
    volume.uuid = signature.uuid;
    volume.label = signature.label;
    volume.content = Content::Foreign(signature.kind);
    let opened: Result<Box<dyn FileSystem>, Error> = match signature.kind {
        probe::EXT => {
            let mut stream = entropy.derive(&format!("ext {}", volume.number.unwrap_or(0)));
            let seed = u64::from_le_bytes(stream.bytes());
            let options = Options { now: clock.now(), seed };
            Ext::open(device, options).map(|ext| Box::new(ext) as _)
        }
        probe::FAT => {
            Fat::open(device, fat::Options { now: clock.now() }).map(|fat| Box::new(fat) as _)
        }
        probe::NTFS => Ntfs::open(device).map(|ntfs| Box::new(ntfs.at(clock.now())) as _),
        kind => {
            let foreign = Foreign {
                kind,
                start: volume.start,
                size: volume.size,
                uuid: volume.uuid.as_deref(),
                label: volume.label.as_deref(),
                now: clock.now(),
            };
            match mounter.and_then(|mounter| mounter.open(&foreign)) {
                Some(opened) => opened,
                None => return,
            }
        }
    };
    match opened {
        Ok(fs) => volume.set_open(fs),
        Err(error) => volume.content = Content::broken(error),
    }
}
