//! FixPartitionTable: the partition table uses the whole disk.

use snf_partition::{Error, Obstacle, Table, Target};

use super::{LazyDisk, Session, Task, TaskError, TaskId, Work};
use crate::ask::plan::Grow;
use crate::ask::properties::{PropertyError, Swap};
use crate::craft::sentence::sentence;
use crate::guest::growth::{self, Choice, NoGrowth};
use crate::guest::storage::StorageError;

pub(super) static TASK: Task = Task {
    id: TaskId::FixPartitionTable,
    summary: "give the room of a larger disk to the last partition or the root, and add the swap partition",
    applies: |_| true,
    work: Work::Disk(run),
};

fn run(disk: &mut LazyDisk, session: &mut Session<'_>) -> Result<(), TaskError> {
    let wanted = swap(session)?;
    let Some(table) = session.storage.read_table()? else {
        session.info("the disk has no partition table");
        return Ok(());
    };
    session.tabled = true;
    let choice = choose(disk, Some(&table), session)?;
    // It has the partitions where they were; after this task they may be elsewhere.
    disk.forget();
    let (target, movable) = match &choice {
        Some(choice) => (choice.target(), choice.movable.clone()),
        None => (Target::Nothing, Vec::new()),
    };
    let entropy = session.entropy;
    let plan = match session.storage.fix_partition_table(wanted.as_ref(), target, movable, entropy)
    {
        Ok(Some(plan)) => plan,
        Ok(None) => return Ok(()),
        // A table that is good and cannot use the larger disk is no reason not to deploy; a swap
        // partition that was asked for and cannot be had is, and growth that somebody asked for.
        Err(StorageError::Partition(error @ Error::Invalid(_)))
            if !matches!(wanted, Some(Swap::Partition { .. }))
                && !session.plan.growth.is_insisted_on() =>
        {
            session.warn(format!("the partition table stays as it is: {}", sentence(&error)));
            return Ok(());
        }
        Err(error) => return Err(error.into()),
    };
    let lines: Vec<String> = plan.describe().lines().map(str::to_owned).collect();
    let notes = plan.notes().to_vec();
    let grown = plan.grown().is_some();
    let obstacle = plan.obstacle().cloned();
    let recovery = plan.moves().iter().any(|step| {
        step.after.partition_type.name().is_some_and(|name| name == "Windows recovery")
    });
    for line in lines {
        session.info(format!("partition table: {line}"));
    }
    for note in notes {
        session.info(format!("partition table: {note}"));
    }
    if recovery {
        session.warn(
            "Windows finds its recovery partition by its sectors: run reagentc /disable and \
             reagentc /enable in it once",
        );
    }
    if let (Some(choice), Some(obstacle)) = (&choice, obstacle) {
        blocked(session, choice, &obstacle, grown)?;
    }
    session.growing = choice;
    Ok(())
}

/// The swap space of the request, in a run that makes it.
fn swap(session: &Session<'_>) -> Result<Option<Swap>, PropertyError> {
    let plan = session.plan;
    let made = plan.tasks.contains(TaskId::AddSwap);
    if made { plan.properties.swap() } else { Ok(None) }
}

/// Decides what grows. `None`: nothing does, and that is no error.
///
/// # Errors
/// When somebody asked for growth and it cannot be had.
pub(super) fn choose(
    disk: &mut LazyDisk,
    table: Option<&Table>,
    session: &mut Session<'_>,
) -> Result<Option<Choice>, TaskError> {
    let plan = session.plan;
    let (growth, properties) = (&plan.growth, &plan.properties);
    let skip = match swap(session)? {
        Some(Swap::Partition { number, .. }) => Some(number),
        _ => None,
    };
    if let (Grow::Last, Some(table)) = (&growth.what, table) {
        let (image, opens) = (session.storage.image(), session.storage.mounter().is_some());
        let choice = growth::choose_last(&image, table, skip, opens).map_err(StorageError::from)?;
        if choice.is_some() {
            return Ok(choice);
        }
    }
    let volumes = disk.open(session)?;
    match growth::choose(volumes, table, growth, properties, skip) {
        Ok(choice) => Ok(Some(choice)),
        Err(error) if growth.is_insisted_on() => Err(TaskError::Growth(error)),
        Err(NoGrowth::Nothing) => {
            session.info("the disk has no partition that could grow");
            Ok(None)
        }
        Err(error) => {
            session.warn(sentence(&error));
            Ok(None)
        }
    }
}

/// Tells that what is after the partition keeps it from growing.
fn blocked(
    session: &mut Session<'_>,
    choice: &Choice,
    obstacle: &Obstacle,
    grown: bool,
) -> Result<(), TaskError> {
    let reasons = match obstacle {
        Obstacle::Fixed(numbers) => choice.reasons(numbers),
        other => other.to_string(),
    };
    let so_far = if grown { "grows into the gap after it only" } else { "does not grow" };
    let text = format!("{} {so_far}, because {reasons}", choice.place);
    let growth = &session.plan.growth;
    if growth.is_insisted_on() && !growth.no_move {
        return Err(TaskError::request(text));
    }
    session.warn(text);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use snf_fs::{BlockDevice, MemoryDevice};
    use snf_partition::{TYPE_LINUX, fresh_mbr};

    use super::*;
    use crate::ask::event::Event;
    use crate::ask::plan::Plan;
    use crate::craft::random::{Clock, Entropy};
    use crate::guest::storage::Storage;

    /// A disk of 64 MiB whose one partition ends after 16.
    pub(crate) fn device() -> Arc<dyn BlockDevice> {
        let device = Arc::new(MemoryDevice::new(vec![0; 64 << 20]));
        let plan = fresh_mbr(16 << 20, 512, TYPE_LINUX, 7).unwrap();
        for (offset, bytes) in plan.stages().iter().flatten() {
            device.write_at(*offset, bytes).unwrap();
        }
        device
    }

    #[test]
    fn tells_what_changes() {
        let mut plan = Plan::default();
        plan.properties.set("SWAP", "2:8");
        let (entropy, clock, mut events) = (Entropy::seeded(1), Clock::fixed(0), Vec::new());
        let storage = Storage::new(device(), Vec::new());
        let mut session = Session::new(&plan, &entropy, &clock, storage, &mut events);
        run(&mut LazyDisk::default(), &mut session).unwrap();
        assert!(session.storage.is_dirty());
        assert_eq!(LazyDisk::default().open(&session).unwrap().volumes.len(), 2);
        let said: Vec<String> = events
            .into_iter()
            .map(|event| match event {
                Event::Info(text) => text,
                other => panic!("{other:?}"),
            })
            .collect();
        assert!(said[0].starts_with("partition table: enlarge partition 1 from"), "{said:?}");
        assert!(said[1].contains("add primary partition 2 of type 0x82 (Linux swap)"), "{said:?}");
    }

    #[test]
    fn a_table_that_cannot_grow_is_a_warning() {
        // A GPT whose backup has no room any more, because the disk was cut.
        let device = MemoryDevice::new(vec![0; 8 << 20]);
        let mut record = vec![0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0xff, 0x3f, 0, 0];
        record.resize(64, 0);
        device.write_at(446, &record).unwrap();
        device.write_at(510, &[0x55, 0xaa]).unwrap();
        let (header, entries) = gpt_that_fills(16384);
        device.write_at(1024, &entries).unwrap();
        device.write_at(512, &header).unwrap();
        let (mut plan, entropy, clock) = (Plan::default(), Entropy::seeded(1), Clock::fixed(0));
        let (device, mut events) = (Arc::new(device), Vec::new());
        let storage = Storage::new(device.clone(), Vec::new());
        let mut session = Session::new(&plan, &entropy, &clock, storage, &mut events);
        run(&mut LazyDisk::default(), &mut session).unwrap();
        assert!(
            session.report.warnings[0].contains("make the disk larger"),
            "{:?}",
            session.report.warnings
        );
        assert!(!session.storage.is_dirty());
        plan.properties.set("SWAP", "2:1");
        let storage = Storage::new(device, Vec::new());
        let mut session = Session::new(&plan, &entropy, &clock, storage, &mut events);
        assert!(run(&mut LazyDisk::default(), &mut session).is_err());
    }

    /// A primary GPT with one partition up to the last of `sectors` sectors.
    fn gpt_that_fills(sectors: u64) -> (Vec<u8>, Vec<u8>) {
        let mut entries = vec![0; 128 * 128];
        entries[..16].fill(1);
        entries[16..32].fill(2);
        entries[32..40].copy_from_slice(&2048u64.to_le_bytes());
        entries[40..48].copy_from_slice(&(sectors - 1).to_le_bytes());
        let mut header = vec![0; 92];
        header[..8].copy_from_slice(b"EFI PART");
        header[10] = 1;
        header[12] = 92;
        header[24] = 1;
        header[32..40].copy_from_slice(&(sectors - 1).to_le_bytes());
        header[40] = 34;
        header[48..56].copy_from_slice(&(sectors - 1).to_le_bytes());
        header[72] = 2;
        header[80] = 128;
        header[84] = 128;
        let crc = |bytes: &[u8]| {
            let mut crc = u32::MAX;
            for byte in bytes {
                crc ^= u32::from(*byte);
                for _ in 0..8 {
                    crc = crc >> 1 ^ 0xedb8_8320 & (crc & 1).wrapping_neg();
                }
            }
            !crc
        };
        header[88..92].copy_from_slice(&crc(&entries).to_le_bytes());
        let of_header = crc(&header);
        header[16..20].copy_from_slice(&of_header.to_le_bytes());
        (header, entries)
    }

    #[test]
    fn a_wrong_swap_property_is_named() {
        let mut plan = Plan::default();
        plan.properties.set("SWAP", "512");
        let (entropy, clock, mut events) = (Entropy::seeded(1), Clock::fixed(0), Vec::new());
        let storage = Storage::new(device(), Vec::new());
        let mut session = Session::new(&plan, &entropy, &clock, storage, &mut events);
        let error = run(&mut LazyDisk::default(), &mut session).unwrap_err().to_string();
        assert!(error.contains("SWAP"), "{error}");
    }
}
