//! FixPartitionTable: the partition table uses the whole disk.

use super::{DiskContext, Needs, Run, Task, TaskError};

pub(super) static TASK: Task = Task {
    name: "FixPartitionTable",
    number: 10,
    summary: "enlarge the last partition to the end of the disk and add the swap partition",
    needs: Needs::Disk,
    applies: |_| true,
    run: Run::Disk(run),
};

fn run(context: &mut DiskContext<'_>) -> Result<(), TaskError> {
    let wanted = context.plan.properties.swap()?;
    let entropy = context.entropy;
    let Some(plan) = context.storage.fix_partition_table(wanted.as_ref(), entropy)? else {
        context.info("the disk has no partition table");
        return Ok(());
    };
    let lines: Vec<String> = plan.describe().lines().map(str::to_owned).collect();
    let notes = plan.notes().to_vec();
    for line in lines {
        context.info(format!("partition table: {line}"));
    }
    for note in notes {
        context.info(format!("partition table: {note}"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use snf_fs::{BlockDevice, MemoryDevice};
    use snf_partition::{TYPE_LINUX, fresh_mbr};

    use super::*;
    use crate::event::Event;
    use crate::plan::Plan;
    use crate::random::{Clock, Entropy};
    use crate::storage::Storage;

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
        let mut context = DiskContext::new(&plan, storage, &entropy, &clock, &mut events);
        TASK.run_on_disk(&mut context).unwrap();
        assert!(context.storage.is_dirty());
        assert_eq!(context.disk().unwrap().volumes.len(), 2);
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
    fn a_wrong_swap_property_is_named() {
        let mut plan = Plan::default();
        plan.properties.set("SWAP", "512");
        let (entropy, clock, mut events) = (Entropy::seeded(1), Clock::fixed(0), Vec::new());
        let storage = Storage::new(device(), Vec::new());
        let mut context = DiskContext::new(&plan, storage, &entropy, &clock, &mut events);
        let error = TASK.run_on_disk(&mut context).unwrap_err().to_string();
        assert!(error.contains("SWAP"), "{error}");
    }
}
