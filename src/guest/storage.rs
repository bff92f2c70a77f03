//! The disks of the instance, with what has no journal of its own held in memory: partition
//! tables and swap signatures.

use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;

use snf_fs::{BlockDevice, DeviceError, MemoryDevice, Overlay};
use snf_partition::{Carry, GrowRequest, Guid, HEAD, Move, SwapRequest, Table, Target, swap};

use crate::ask::properties::Swap;
use crate::craft::random::Entropy;
use crate::guest::disk_adapter::DiskAdapter;
use crate::guest::mounter::Mounter;
use crate::guest::stack::StackError;

/// Why a table or a swap area was not changed.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The partition table.
    #[error(transparent)]
    Partition(#[from] snf_partition::Error),
    /// The disks cannot be opened.
    #[error(transparent)]
    Stack(#[from] StackError),
    /// The disk.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The `SWAP` property does not suit the instance.
    #[error("{0}")]
    Swap(String),
}

/// A swap area that is ready, or was already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwapArea {
    /// Its UUID.
    pub uuid: String,
    /// Its place, for messages.
    pub place: String,
    /// Whether it was there before.
    pub kept: bool,
}

/// The disks of the instance. Nothing is written before [`Storage::commit`].
pub struct Storage {
    image: Arc<Overlay>,
    others: Vec<Arc<Overlay>>,
    members: Vec<Arc<Overlay>>,
    table: Option<snf_partition::Plan>,
    mounter: Option<Arc<dyn Mounter>>,
}

impl Default for Storage {
    /// A disk without a byte, for guests that are in no disk.
    fn default() -> Self {
        Self::new(Arc::new(MemoryDevice::new(Vec::new())), Vec::new())
    }
}

impl Storage {
    /// The disk that holds the image, and the instance's further disks in their order.
    pub fn new(image: Arc<dyn BlockDevice>, others: Vec<Arc<dyn BlockDevice>>) -> Self {
        let others = overlays(others);
        let image = Arc::new(Overlay::new(image));
        Self { image, others, members: Vec::new(), table: None, mounter: None }
    }

    /// With further disks that hold parts of the guest, such as a physical volume of its group.
    pub fn with_members(mut self, members: Vec<Arc<dyn BlockDevice>>) -> Self {
        self.members = overlays(members);
        self
    }

    /// With somebody who opens the file systems of the image that no engine knows.
    pub fn with_mounter(mut self, mounter: Option<Arc<dyn Mounter>>) -> Self {
        self.mounter = mounter;
        self
    }

    /// For a run that does not write: contents that would go to free blocks of the disk at once go
    /// to a temporary file of no name, or wait in memory where there is no place for one (as in the helper
    /// VM, whose requests are small).
    pub fn keep_apart(&self) {
        let path = std::env::temp_dir().join(format!(".snf-image-{}", std::process::id()));
        let mut options = std::fs::File::options();
        let options = options.read(true).write(true).create_new(true).mode(0o600);
        let nameless =
            options.open(&path).and_then(|file| std::fs::remove_file(&path).map(|()| file));
        match nameless {
            Ok(file) => self.image.keep_apart(file),
            Err(_) => self.image.hold_free(),
        }
    }

    /// The opener of file systems that no engine knows.
    pub fn mounter(&self) -> Option<&dyn Mounter> {
        self.mounter.as_deref()
    }

    /// The disk that holds the image, as it will be: what file systems are opened on. Before the
    /// commit writes to it stay in memory, after it they reach the disk.
    pub fn image(&self) -> Arc<dyn BlockDevice> {
        self.image.clone()
    }

    /// All disks that the guest lies on, the image's first, as they will be: see
    /// [`Storage::image`].
    pub fn disks(&self) -> Vec<Arc<dyn BlockDevice>> {
        let members = self.members.iter().map(|member| member.clone() as _);
        std::iter::once(self.image()).chain(members).collect()
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Overlay>> {
        self.others.iter().chain(&self.members).chain([&self.image])
    }

    /// The change of the partition table, after [`Storage::fix_partition_table`].
    pub fn table(&self) -> Option<&snf_partition::Plan> {
        self.table.as_ref()
    }

    /// The partition table as it will be; `None`: the disk has none.
    pub fn read_table(&self) -> Result<Option<Table>, StorageError> {
        Ok(snf_partition::read(&DiskAdapter(&*self.image))?)
    }

    /// Makes the partition table use the whole disk: the target grows, what may move makes room for
    /// it and takes its content along, and, when `wanted` names a partition, a swap partition is
    /// added. `None`: the disk has no table.
    pub fn fix_partition_table(
        &mut self,
        wanted: Option<&Swap>,
        target: Target,
        movable: Vec<(u32, Carry)>,
        entropy: &Entropy,
    ) -> Result<Option<&snf_partition::Plan>, StorageError> {
        let disk = DiskAdapter(&*self.image);
        let Some(table) = snf_partition::read(&disk)? else { return Ok(None) };
        let swap = match wanted {
            Some(&Swap::Partition { number, mebibytes: mib }) => {
                let guid = Guid::from_random(entropy.derive("swap partition").bytes());
                Some(SwapRequest { number, mib, guid })
            }
            Some(Swap::Disk(_)) | None => None,
        };
        let plan = snf_partition::plan_grow(&table, &GrowRequest { swap, target, movable })?;
        for step in plan.moves() {
            self.carry(step, table.sector_size)?;
        }
        self.image.flush()?;
        plan.write(&disk)?;
        Ok(Some(self.table.insert(plan)))
    }

    /// Takes the content of a partition to its new place. The boot sector of FAT and NTFS says where
    /// the partition begins, for the code in it.
    fn carry(&self, step: &Move, sector_size: u32) -> Result<(), StorageError> {
        let bytes = |sectors: u64| sectors.saturating_mul(sector_size.into());
        let (from, to) = (bytes(step.before.start), bytes(step.after.start));
        let length = match step.carry {
            Carry::Whole => bytes(step.before.size),
            Carry::Head => bytes(step.before.size).min(HEAD),
        };
        self.image.copy(from, to, length)?;
        let mut sector = [0; 512];
        if length < sector.len() as u64 {
            return Ok(());
        }
        self.image.read_at(from, &mut sector)?;
        // BPB_HiddSec of FAT's specification, HiddenSectors of NTFS: 32 bits in both.
        const HIDDEN: std::ops::Range<usize> = 28..32;
        let hidden = |start: u64| (start as u32).to_le_bytes();
        let is_one = sector[510..] == [0x55, 0xaa] && matches!(sector[0], 0xe9 | 0xeb);
        if is_one && sector[HIDDEN] == hidden(step.before.start) {
            self.image.write_at(to + HIDDEN.start as u64, &hidden(step.after.start))?;
        }
        Ok(())
    }

    /// Writes a swap signature to the partition or the disk that `wanted` names. An area that is
    /// there stays, with its UUID, so that a second run changes nothing.
    pub fn make_swap(&self, wanted: &Swap, entropy: &Entropy) -> Result<SwapArea, StorageError> {
        let (device, start, size, place) = match wanted {
            Swap::Partition { number, .. } => {
                let (start, size) = self.swap_partition(*number)?;
                (&self.image, start, size, format!("partition {number}"))
            }
            Swap::Disk(letter) => {
                let device = self.other(*letter)?;
                (device, 0, device.len(), format!("disk {letter}"))
            }
        };
        let mut page = vec![0; swap::PAGE_SIZE as usize];
        if size >= swap::PAGE_SIZE {
            device.read_at(start, &mut page)?;
        }
        if let Some(area) = swap::parse(&page)
            && area.size <= size
            && area.uuid.bytes().any(|byte| !matches!(byte, b'0' | b'-'))
        {
            return Ok(SwapArea { uuid: area.uuid, place, kept: true });
        }
        let uuid = swap::uuid_from_random(entropy.derive("swap area").bytes());
        device.write_at(start, &swap::first_page(size, uuid, b"")?)?;
        device.flush()?;
        Ok(SwapArea { uuid: swap::uuid_text(&uuid), place, kept: false })
    }

    /// First byte and size of the swap partition.
    fn swap_partition(&self, number: u32) -> Result<(u64, u64), StorageError> {
        let table = snf_partition::read(&DiskAdapter(&*self.image))?.ok_or_else(|| {
            StorageError::Swap(format!(
                "SWAP names partition {number}, and the disk has no partition table"
            ))
        })?;
        match table.partition(number) {
            Some(partition) if partition.partition_type.is_linux_swap() => {
                Ok(table.byte_range(partition))
            }
            Some(partition) => Err(StorageError::Swap(format!(
                "SWAP names partition {number}, which is of type {} and not of type Linux swap; it \
                 is left alone",
                partition.partition_type
            ))),
            None => Err(StorageError::Swap(format!(
                "SWAP names partition {number}, which the disk does not have; the task \
                 FixPartitionTable, which adds it, must not be excluded"
            ))),
        }
    }

    /// The disk with a letter; `a` is the one that holds the image.
    fn other(&self, letter: char) -> Result<&Arc<Overlay>, StorageError> {
        let index = u32::from(letter).checked_sub(u32::from('a')).unwrap_or(u32::MAX) as usize;
        if index == 0 {
            return Err(StorageError::Swap(
                "SWAP names disk a, which holds the image itself; name another disk, or ask for a \
                 partition with NUMBER:MIB"
                    .to_owned(),
            ));
        }
        self.others.get(index - 1).ok_or_else(|| {
            StorageError::Swap(format!(
                "SWAP names disk {letter}, and the instance has {} disk{}; add one, or ask for a \
                 partition with NUMBER:MIB",
                self.others.len() + 1,
                if self.others.is_empty() { "" } else { "s" }
            ))
        })
    }

    /// Whether anything waits for the commit.
    pub fn is_dirty(&self) -> bool {
        self.all().any(|disk| disk.held() > 0)
    }

    /// The first failure of a disk to read, if there was one before the commit. A task may have taken
    /// it for damage in a partition that is none of its business; no run goes on with a failing disk.
    pub fn check_reads(&self) -> Result<(), DeviceError> {
        self.all().try_for_each(|disk| disk.check_reads())
    }

    /// Writes what was held: first the other disks' swap areas, then what belongs on further disks
    /// of the guest, then the partition table. The file systems are committed after this: a
    /// partition larger than its file system works.
    pub fn commit(&self) -> Result<(), DeviceError> {
        self.all().try_for_each(|disk| disk.commit())
    }
}

fn overlays(devices: Vec<Arc<dyn BlockDevice>>) -> Vec<Arc<Overlay>> {
    devices.into_iter().map(|device| Arc::new(Overlay::new(device))).collect()
}

#[cfg(test)]
mod tests {
    use snf_partition::{TYPE_LINUX, fresh_mbr};

    use super::*;

    fn disk(size: usize, partition_end: u64) -> Arc<MemoryDevice> {
        let device = Arc::new(MemoryDevice::new(vec![0; size]));
        let plan = fresh_mbr(partition_end, 512, TYPE_LINUX, 7).unwrap();
        for (offset, bytes) in plan.stages().iter().flatten() {
            device.write_at(*offset, bytes).unwrap();
        }
        device
    }

    #[test]
    fn growth_and_swap_wait_for_the_commit_and_come_once() {
        let device = disk(64 << 20, 16 << 20);
        let before = device.to_vec();
        let entropy = Entropy::seeded(1);
        let wanted = Swap::Partition { number: 2, mebibytes: 8 };
        let mut storage = Storage::new(device.clone(), Vec::new());
        let plan = storage
            .fix_partition_table(Some(&wanted), Target::Number(1), vec![], &entropy)
            .unwrap()
            .unwrap();
        assert_eq!(plan.added().unwrap().size, 16384);
        let area = storage.make_swap(&wanted, &entropy).unwrap();
        assert!(!area.kept && storage.is_dirty());
        assert_eq!(device.to_vec(), before);
        storage.commit().unwrap();
        let after = device.to_vec();
        let table = snf_partition::read(&DiskAdapter(&*device)).unwrap().unwrap();
        let (start, size) = table.byte_range(table.partition(2).unwrap());
        assert_eq!(size, 8 << 20);
        let page = &after[start as usize..start as usize + 4096];
        assert_eq!(swap::parse(page).unwrap().uuid, area.uuid);

        let mut storage = Storage::new(device.clone(), Vec::new());
        let plan = storage
            .fix_partition_table(Some(&wanted), Target::Number(1), vec![], &entropy)
            .unwrap()
            .unwrap();
        assert!(plan.is_empty(), "{}", plan.describe());
        let again = storage.make_swap(&wanted, &Entropy::seeded(2)).unwrap();
        assert_eq!(again, SwapArea { kept: true, ..area });
        assert!(!storage.is_dirty());
    }

    #[test]
    fn another_disk_as_swap() {
        let other = Arc::new(MemoryDevice::new(vec![0xee; 1 << 20]));
        let storage = Storage::new(disk(64 << 20, 64 << 20), vec![other.clone()]);
        let entropy = Entropy::seeded(1);
        let area = storage.make_swap(&Swap::Disk('b'), &entropy).unwrap();
        storage.commit().unwrap();
        assert_eq!(swap::parse(&other.to_vec()).unwrap().uuid, area.uuid);
        for (letter, expected) in [('a', "holds the image"), ('c', "has 2 disks")] {
            let error = storage.make_swap(&Swap::Disk(letter), &entropy).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn swap_never_overwrites_another_partition() {
        let storage = Storage::new(disk(64 << 20, 64 << 20), Vec::new());
        for (number, expected) in [(1, "left alone"), (2, "does not have")] {
            let wanted = Swap::Partition { number, mebibytes: 8 };
            let error = storage.make_swap(&wanted, &Entropy::seeded(1)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let mut bare = Storage::new(Arc::new(MemoryDevice::new(vec![0; 1 << 20])), Vec::new());
        assert!(
            bare.fix_partition_table(None, Target::Last, vec![], &Entropy::seeded(1))
                .unwrap()
                .is_none()
        );
    }
}
