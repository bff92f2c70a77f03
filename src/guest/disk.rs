//! The image's disks: their partition tables, and each volume on them with its content. A volume
//! is a partition, a disk without a table, the content of a LUKS container or a logical volume.
//! [`super::stack`] finds them.

use std::sync::Arc;

use snf_fs::btrfs::Btrfs;
use snf_fs::error::display_name;
use snf_fs::ext::{Ext, Options};
use snf_fs::fat::{self, Fat};
use snf_fs::ntfs::Ntfs;
use snf_fs::xfs::{self, Xfs};
use snf_fs::{BlockDevice, Error, FileSystem, Info};
use snf_volume::lvm::VolumeGroup;

use super::mounter::{Foreign, Mounter};
use super::probe::{self, Probe};
use super::stack::{Sources, StackError};
use crate::craft::random::{Clock, Entropy};

pub use super::summary::{DiskSummary, GroupSummary, VolumeSummary};

/// The content of a volume.
pub enum Content {
    /// A file system that one of our engines has open.
    Open(Box<dyn FileSystem>),
    /// The file system is part of the guest's tree now.
    Mounted,
    /// A file system or container that no engine handles.
    Foreign(&'static str),
    /// A file system of a kind that we handle, which cannot be opened, and why.
    Broken(Arc<Error>),
    /// A volume that cannot be opened: a logical volume of a kind that is refused, or damage.
    Closed(Arc<snf_volume::Error>),
    /// A physical volume of a group, or an open LUKS container: what is in it are volumes of their
    /// own.
    Container {
        /// Its kind, as `blkid` names it.
        kind: &'static str,
        /// Its role in the stack: `a physical volume of the group rl`.
        role: String,
    },
    /// The container of the logical partitions.
    Extended,
    /// Zeros.
    Empty,
    /// Nothing that has a known signature.
    Unknown,
}

impl Content {
    pub(super) fn broken(error: impl Into<Error>) -> Self {
        Self::Broken(Arc::new(error.into()))
    }
}

/// The layer of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layer {
    /// A disk without a partition table.
    Disk,
    /// A partition.
    Partition,
    /// The content of the LUKS container with this UUID.
    Luks(String),
    /// A logical volume.
    Logical {
        /// The name of its group.
        group: String,
        /// Its name in the group.
        name: String,
    },
}

/// A partition, the whole of a disk without a table, or what lies in one.
pub struct Volume {
    /// The partition's number; `None` for all that is no partition.
    pub number: Option<u32>,
    /// Its type.
    pub layer: Layer,
    /// The disk that it lies on, or begins on: 0 is the disk that holds the image.
    pub disk: usize,
    /// The volumes that it lies in: their indices among the disk's volumes.
    pub below: Vec<usize>,
    /// Its bytes; none in tests that bring a file system only.
    pub device: Option<Arc<dyn BlockDevice>>,
    /// The paths of device files that a guest has for it, as far as they are known without it.
    pub paths: Vec<String>,
    /// Why it must not be changed, if so.
    pub read_only: Option<String>,
    /// The path of the ostree deployment in it that is the root, if that is so.
    pub deployment: Option<String>,
    /// Views of its file system that belong on directories of the root.
    pub(super) views: Vec<(&'static str, Box<dyn FileSystem>)>,
    /// Whether the layer below gives it a size of its own, so that it does not grow with what it lies in.
    pub fixed: bool,
    /// First byte on the disk; `None` when it does not lie there in the clear and in one piece.
    pub run: Option<u64>,
    /// First byte of a partition on its disk; 0 for other volumes.
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
    /// Free bytes of its file system, when it was opened.
    pub free: Option<u64>,
    /// The content.
    pub content: Content,
    /// The verdict of the search for the root: the system, or why it is not the root.
    pub verdict: String,
    /// Whether its file system grew: that waits for a commit of its own where nothing mounts it.
    pub grown: bool,
}

/// A volume group, and the volumes that are its physical volumes.
pub struct Group {
    /// The group, with its metadata.
    pub group: VolumeGroup,
    /// For each physical volume of the group its index among the disk's volumes; `None` where it
    /// is missing.
    pub members: Vec<Option<usize>>,
}

/// The disk that holds the image, the guest's further disks, and all volumes on them.
pub struct Disk {
    /// `GPT`, `MBR`, or `None` for a bare file system.
    pub table: Option<String>,
    /// The disk's identifier, as `blkid` prints `PTUUID`.
    pub disk_id: Option<String>,
    /// Size in bytes.
    pub size: u64,
    /// The guest's further disks.
    pub more: Vec<DiskSummary>,
    /// Partitions by number, or the one volume of a disk without a table, disk by disk; then what
    /// lies in containers.
    pub volumes: Vec<Volume>,
    /// The volume groups.
    pub groups: Vec<Group>,
    /// Warnings of the readers of tables and metadata.
    pub warnings: Vec<String>,
}

impl Volume {
    /// A volume around an open file system; for tests and for callers with an engine of their own.
    pub fn open(number: Option<u32>, fs: Box<dyn FileSystem>) -> Self {
        let mut volume = Self::new(number, 0, 0);
        volume.set_open(fs);
        volume
    }

    pub(super) fn new(number: Option<u32>, start: u64, size: u64) -> Self {
        Self {
            number,
            layer: if number.is_some() { Layer::Partition } else { Layer::Disk },
            disk: 0,
            below: Vec::new(),
            device: None,
            paths: Vec::new(),
            read_only: None,
            deployment: None,
            views: Vec::new(),
            fixed: false,
            run: Some(start),
            start,
            size,
            partition_type: String::new(),
            name: String::new(),
            partuuid: None,
            uuid: None,
            label: None,
            kind: None,
            free: None,
            content: Content::Unknown,
            verdict: String::new(),
            grown: false,
        }
    }

    fn set_open(&mut self, fs: Box<dyn FileSystem>) {
        if let Ok(Info { kind, uuid, label, size, free, .. }) = fs.info() {
            self.free = Some(free);
            self.kind = Some(kind.name().to_owned());
            self.uuid = Some(uuid).filter(|uuid| !uuid.is_empty());
            self.label = Some(label).filter(|label| !label.is_empty());
            if self.size == 0 {
                self.size = size;
            }
        }
        self.content = Content::Open(fs);
    }

    /// `partition 3`, `the disk`, `logical volume rl/root`.
    pub fn place(&self) -> String {
        let disk = self.disk + 1;
        match (&self.layer, self.number) {
            (Layer::Logical { group, name }, _) => format!("logical volume {group}/{name}"),
            (Layer::Luks(uuid), _) => format!("LUKS container {uuid}"),
            (_, Some(number)) if disk == 1 => format!("partition {number}"),
            (_, Some(number)) => format!("partition {number} of disk {disk}"),
            (_, None) if disk == 1 => "the disk".into(),
            (_, None) => format!("disk {disk}"),
        }
    }

    /// Whether a person may mean this volume by a name: a logical volume by `rl/root` or the path of
    /// its device file, the content of a LUKS container by its UUID.
    pub fn answers_to(&self, name: &str) -> bool {
        let same = |a: &str| a.eq_ignore_ascii_case(name.strip_prefix("luks-").unwrap_or(name));
        self.paths.iter().any(|path| path == name)
            || match &self.layer {
                Layer::Logical { group, name: own } => {
                    name.strip_prefix(group.as_str()).and_then(|rest| rest.strip_prefix('/'))
                        == Some(own.as_str())
                }
                Layer::Luks(uuid) => same(uuid),
                Layer::Disk | Layer::Partition => false,
            }
    }

    /// The content in a few words.
    pub fn describe(&self) -> String {
        let mut text = match &self.content {
            Content::Open(_) | Content::Mounted => {
                self.kind.clone().unwrap_or_else(|| "a file system".into())
            }
            Content::Foreign(kind) | Content::Container { kind, .. } => (*kind).to_owned(),
            Content::Closed(_) => "not opened".into(),
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
    /// Reads the table and looks into every partition, LUKS containers without a key left closed.
    /// Damage inside a partition is that partition's matter, a damaged table is an error.
    ///
    /// # Errors
    /// When the partition table cannot be read.
    pub fn open(
        device: &Arc<dyn BlockDevice>,
        entropy: &Entropy,
        clock: &Clock,
    ) -> Result<Self, StackError> {
        Self::open_with(&Sources::of(std::slice::from_ref(device), entropy, clock))
    }

    /// Opens whatever the sources hold.
    ///
    /// # Errors
    /// When a partition table cannot be read, or a key is of no use.
    pub fn open_with(sources: &Sources<'_>) -> Result<Self, StackError> {
        super::stack::open(sources)
    }

    /// A disk of volumes that are open already.
    pub fn of_volumes(volumes: Vec<Volume>) -> Self {
        let table = volumes.iter().any(|v| v.number.is_some()).then(|| "GPT".to_owned());
        Self { table, volumes, ..Self::empty() }
    }

    pub(super) fn empty() -> Self {
        Self {
            table: None,
            disk_id: None,
            size: 0,
            more: Vec::new(),
            volumes: Vec::new(),
            groups: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// The index of the image's partition with a number.
    pub fn by_number(&self, number: u32) -> Option<usize> {
        self.on_disk(0, number)
    }

    /// The index of the partition with a number on one of the disks.
    pub fn on_disk(&self, disk: usize, number: u32) -> Option<usize> {
        let wanted = |volume: &Volume| volume.disk == disk && volume.number == Some(number);
        self.volumes.iter().position(wanted)
    }

    /// For each volume whether it is, or lies in, the volume with an index.
    pub fn within(&self, container: usize) -> Vec<bool> {
        let mut within = vec![false; self.volumes.len()];
        // A volume comes after those that it lies in.
        for (index, volume) in self.volumes.iter().enumerate() {
            let below = &volume.below;
            within[index] = index == container
                || below.iter().any(|&below| within.get(below).copied().unwrap_or(false));
        }
        within
    }

    /// A summary of each volume.
    pub fn summary(&self) -> Vec<VolumeSummary> {
        self.volumes.iter().map(VolumeSummary::of).collect()
    }
}

/// Finds out what a volume holds, and opens it where an engine can.
pub(super) fn look(
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
            let mut stream = entropy.derive(&match (volume.disk, volume.number, &volume.layer) {
                (0, number, Layer::Disk | Layer::Partition) => {
                    format!("ext {}", number.unwrap_or(0))
                }
                _ => format!("ext {}", volume.place()),
            });
            let seed = u64::from_le_bytes(stream.bytes());
            let options = Options { now: clock.now(), seed };
            Ext::open(device, options).map(|ext| Box::new(ext) as _)
        }
        probe::FAT => {
            Fat::open(device, fat::Options { now: clock.now() }).map(|fat| Box::new(fat) as _)
        }
        probe::NTFS => Ntfs::open(device).map(|ntfs| Box::new(ntfs.at(clock.now())) as _),
        // In the helper VM its kernel opens it.
        probe::BTRFS if mounter.is_none() => match Btrfs::open(device, clock.now()) {
            // The kernel may know it.
            Err(Error::Unsupported { .. }) => return,
            opened => opened.map(|btrfs| Box::new(btrfs) as _),
        },
        // Inside the helper VM its kernel does it, where it can: it knows the disk's partitions only.
        probe::XFS if mounter.is_none() || volume.disk != 0 || volume.run.is_none() => {
            let mut stream = entropy.derive(&format!("xfs {}", volume.place()));
            let seed = u64::from_le_bytes(stream.bytes());
            match Xfs::open(device, xfs::Options { now: clock.now(), seed }) {
                // The helper's kernel can change file systems that the engine only reads: that is offered.
                Ok(xfs) if xfs.why_read_only().is_some() => return,
                opened => opened.map(|xfs| Box::new(xfs) as _),
            }
        }
        kind => {
            // The mounter knows the image's disk only, and no other layer of the stack.
            let (0, Some(start)) = (volume.disk, volume.run) else { return };
            let foreign = Foreign {
                kind,
                start,
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
