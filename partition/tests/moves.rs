//! Partitions that make room for the one before them: tables that sfdisk and sgdisk made, what those
//! say afterwards, and the power cut at every write.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::common::{ImageDisk, dump, run};
use snf_partition::{
    Carry, Disk, GrowRequest, HEAD, Obstacle, Partition, Plan, Target, plan_grow, read,
};

/// A disk of 100 MiB with this table, whose partitions hold their numbers; then it has 400 MiB.
fn disk(script: &str) -> ImageDisk {
    let disk = ImageDisk::new(100, 512);
    run("sfdisk", &["-q", disk.str()], script);
    disk.put(100, b"boot code");
    let table = read(&disk).unwrap().unwrap();
    for partition in table.partitions.iter().filter(|p| !p.is_extended()) {
        let (start, size) = table.byte_range(partition);
        let text = vec![partition.number as u8; (size as usize).min(200_000)];
        disk.put(start, &text);
        disk.put(start + size - 7, &text[..7]);
    }
    disk.resize(400);
    disk
}

fn request(target: u32, movable: &[(u32, Carry)]) -> GrowRequest {
    GrowRequest { swap: None, target: Target::Number(target), movable: movable.to_vec() }
}

/// The writes of a plan, those of the content first.
fn writes(disk: &ImageDisk, plan: &Plan) -> Vec<(u64, Vec<u8>)> {
    let mut writes = Vec::new();
    for step in plan.moves() {
        let size = match step.carry {
            Carry::Whole => step.before.size * 512,
            Carry::Head => HEAD.min(step.before.size * 512),
        };
        let mut done = 0;
        while done < size {
            let piece = (size - done).min(64 << 10);
            let bytes = disk.bytes(step.before.start * 512 + done, piece as usize);
            writes.push((step.after.start * 512 + done, bytes));
            done += piece;
        }
    }
    writes.extend(plan.stages().iter().flatten().cloned());
    writes
}

/// Each partition begins and ends with its number, where the table says that it is.
fn check_content(disk: &ImageDisk, partitions: &[Partition], heads: &[u32], grown: u32) {
    for partition in partitions.iter().filter(|p| !p.is_extended()) {
        let number = partition.number as u8;
        let (start, size) = (partition.start * 512, partition.size * 512);
        assert_eq!(disk.bytes(start, 60_000), vec![number; 60_000], "{partition:?}");
        if !heads.contains(&partition.number) && partition.number != grown {
            assert_eq!(disk.bytes(start + size - 7, 7), vec![number; 7], "{partition:?}");
        }
    }
}

/// Writes the plan up to every point, and then all of it.
fn go(disk: &ImageDisk, request: &GrowRequest) -> Plan {
    let Target::Number(target) = request.target else { panic!() };
    let before = read(disk).unwrap().unwrap();
    let plan = plan_grow(&before, request).unwrap();
    let heads: Vec<u32> =
        request.movable.iter().filter(|(_, c)| *c == Carry::Head).map(|(n, _)| *n).collect();
    let writes = writes(disk, &plan);
    let copy = disk.duplicate();
    for (count, (offset, bytes)) in writes.iter().enumerate() {
        let found = read(&copy).unwrap().expect("a table after a cut").partitions;
        for partition in found.iter().filter(|p| !p.is_extended()) {
            assert!(
                before.partitions.contains(partition) || plan.partitions().contains(partition),
                "after {count} writes: {partition:?}"
            );
        }
        check_content(&copy, &found, &heads, target);
        copy.put(*offset, bytes);
    }
    for (offset, bytes) in &writes {
        disk.put(*offset, bytes);
    }
    plan.verify(disk).unwrap();
    assert_eq!(disk.bytes(100, 9), b"boot code");
    let after = read(disk).unwrap().unwrap();
    check_content(disk, &after.partitions, &heads, target);
    assert_eq!(after.partitions.len(), before.partitions.len());
    for old in before.partitions.iter().filter(|p| !p.is_extended()) {
        let new = after.partition(old.number).unwrap();
        let same = Partition { start: old.start, size: old.size, ..new.clone() };
        assert_eq!(same, *old, "only the place changes");
        assert!(new.size == old.size || new.number == target);
        assert_eq!((new.start - old.start) % 2048, 0);
    }
    let said = run("sfdisk", &["-V", disk.str()], "");
    assert!(said.contains("No errors detected."), "{said}");
    assert!(!said.contains("overlap") && !said.contains("error:"), "{said}");
    let again = plan_grow(&after, request).unwrap();
    assert!(again.is_empty() && again.moves().is_empty(), "{}", again.describe());
    assert_eq!(again.obstacle(), None);
    plan
}

/// Debian's installer: the root, and swap in an extended partition whose first sector is its EBR.
#[test]
fn debian_with_logical_swap() {
    let disk = disk(
        "label: dos\nlabel-id: 0x12345678\n1: start=2048, size=100352, type=83, bootable\n\
         2: start=104446, size=98306, type=5\n5: start=104448, size=98304, type=82\n",
    );
    let plan = go(&disk, &request(1, &[(5, Carry::Head)]));
    let end = 400 * 2048 - 2048;
    let swap = plan.partitions().iter().find(|p| p.number == 5).unwrap();
    assert_eq!(swap.end(), end);
    assert_eq!(plan.grown().unwrap().1.end(), swap.start - 2, "the root reaches to the EBR");
    assert!(dump(&disk)[0].contains("label: dos"));
}

#[test]
fn everything_logical() {
    let disk = disk(
        "label: dos\n1: start=2048, size=20480, type=83\n2: start=22528, size=160000, type=f\n\
         5: start=24576, size=40960, type=83\n6: start=67584, size=20480, type=82\n\
         7: start=90112, size=20480, type=83\n",
    );
    let plan = go(&disk, &request(5, &[(6, Carry::Head), (7, Carry::Whole)]));
    assert_eq!(plan.grown().unwrap().1.number, 5);
    assert_eq!(plan.moves().len(), 2);
}

#[test]
fn a_primary_after_the_extended_one() {
    let disk = disk(
        "label: dos\n1: start=2048, size=20480, type=83\n2: start=22528, size=60000, type=5\n\
         5: start=24576, size=20480, type=83\n6: start=47104, size=20480, type=82\n\
         3: start=90112, size=20480, type=27\n",
    );
    let movable = [(3, Carry::Whole), (6, Carry::Head)];
    go(&disk, &request(5, &movable));
    let movable = [(3, Carry::Whole), (6, Carry::Head), (5, Carry::Whole)];
    disk.resize(900);
    let before = read(&disk).unwrap().unwrap();
    // A partition that grew before is too long now to be moved.
    let plan = plan_grow(&before, &request(1, &movable[..2])).unwrap();
    assert_eq!(plan.obstacle(), Some(&Obstacle::Fixed(vec![5])));
    assert!(plan.grown().is_none() && plan.moves().is_empty());
}

/// The layout of Windows with the recovery partition last, and an EFI system partition after that.
#[test]
fn windows_with_recovery_last() {
    let disk = disk(
        "label: gpt\nstart=2048, size=20480, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\n\
         start=22528, size=4096, type=E3C9E316-0B5C-4DB8-817D-F92DF00215AE\n\
         start=26624, size=61440, type=EBD0A0A2-B9E5-4433-87C0-68B6B72699C7, name=\"Basic\"\n\
         start=88064, size=40960, type=DE94BBA4-06D1-4D40-A16A-BFD50179D6AC, name=\"Recovery\", \
         attrs=\"RequiredPartition GUID:63\"\n\
         start=129024, size=20480, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\n",
    );
    let before = dump(&disk);
    let plan = go(&disk, &request(3, &[(4, Carry::Whole), (5, Carry::Whole)]));
    assert_eq!(plan.grown().unwrap().1.number, 3);
    let said = run("sgdisk", &["-v", disk.str()], "");
    assert!(said.contains("No problems found."), "{said}");
    let after = dump(&disk);
    let of = |dump: &[String]| -> Vec<String> {
        let lines = dump.iter().filter(|line| line.contains("start="));
        lines.map(|line| line.split("type=").nth(1).unwrap().to_owned()).collect()
    };
    assert_eq!(of(&before), of(&after), "type, GUID, name and attributes");
}

#[test]
fn too_little_room_to_move_safely() {
    let disk =
        disk("label: gpt\nstart=2048, size=61440, type=L\nstart=63488, size=81920, type=L\n");
    disk.resize(100);
    let table = read(&disk).unwrap().unwrap();
    let plan = plan_grow(&table, &request(1, &[(2, Carry::Whole)])).unwrap();
    let Some(Obstacle::NoRoom { missing }) = plan.obstacle() else { panic!("{}", plan.describe()) };
    assert!(plan.moves().is_empty() && plan.grown().is_none());
    // With what is missing it works; and swap moves over itself.
    let swap = plan_grow(&table, &request(1, &[(2, Carry::Head)])).unwrap();
    assert_eq!(swap.moves().len(), 1);
    disk.resize(100 + missing.div_ceil(1 << 20));
    go(&disk, &request(1, &[(2, Carry::Whole)]));
}

#[test]
fn a_gap_is_used_without_moving_anything() {
    let disk =
        disk("label: gpt\nstart=2048, size=20480, type=L\nstart=63488, size=81920, type=L\n");
    let table = read(&disk).unwrap().unwrap();
    let plan = plan_grow(&table, &request(1, &[])).unwrap();
    assert_eq!(plan.grown().unwrap().1.end(), 63488);
    assert_eq!(plan.obstacle(), Some(&Obstacle::Fixed(vec![2])));
    assert!(disk.len() > 0);
}
