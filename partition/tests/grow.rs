//! Growing tables that fdisk's and gdisk's tools made, and what those tools say afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::common::{ImageDisk, dump, run, try_run};
use snf_partition::{
    Disk, GrowRequest, Guid, MemoryDisk, Partition, Plan, Role, SwapRequest, TableKind, plan_grow,
    read,
};

fn swap(number: u32, mib: u64) -> GrowRequest {
    GrowRequest {
        swap: Some(SwapRequest { number, mib, guid: Guid::from_random([number as u8; 16]) }),
        ..GrowRequest::default()
    }
}

/// Plans, tries every cut in the writing on a copy in memory, writes, and lets the tools judge.
fn grow(disk: &ImageDisk, request: &GrowRequest) -> Plan {
    let before = read(disk).unwrap().expect("a table");
    let plan = plan_grow(&before, request).unwrap();
    cut_power(disk, &before.partitions, &plan);
    let boot_code = disk.bytes(0, 446);
    plan.write(disk).unwrap();
    assert_eq!(disk.bytes(0, 446), boot_code, "boot code and disk identifier stay");
    let after = read(disk).unwrap().unwrap();
    assert_eq!(after.warnings, Vec::<String>::new());
    for old in &before.partitions {
        let new = after.partition(old.number).unwrap();
        let size = new.size;
        assert!(size >= old.size);
        assert_eq!(Partition { size: old.size, ..new.clone() }, *old, "only the size changes");
    }
    if before.sector_size == 512 {
        let said = run("sfdisk", &["-V", disk.str()], "");
        assert!(said.contains("No errors detected."), "{said}");
        assert!(!said.contains("overlap") && !said.contains("error:"), "{said}");
        if after.kind == TableKind::Gpt {
            let said = run("sgdisk", &["-v", disk.str()], "");
            assert!(said.contains("No problems found."), "{said}");
        }
    } else {
        let said = run("fdisk", &["-b", "4096", disk.str()], "v\nq\n");
        assert!(said.contains("No errors detected."), "{said}");
    }
    let again = plan_grow(&after, request).unwrap();
    assert!(again.is_empty(), "a second run changes nothing: {}", again.describe());
    plan
}

/// After every prefix of the writes the table is readable and the old or the new one, or, for an
/// MBR, one on the way whose partitions are each as before or as planned.
fn cut_power(disk: &ImageDisk, before: &[Partition], plan: &Plan) {
    let writes: Vec<_> = plan.stages().iter().flatten().collect();
    let original = MemoryDisk::new(disk.len(), disk.sector_size());
    // All of it, or, of a huge one, the part where its table is.
    let mut offset = 0;
    while offset < disk.len().min(512 << 20) {
        let bytes = disk.bytes(offset, (disk.len() - offset).min(1 << 20) as usize);
        if bytes.iter().any(|byte| *byte != 0) {
            original.write_at(offset, &bytes).unwrap();
        }
        offset += 1 << 20;
    }
    for count in 0..=writes.len() {
        let copy = original.resized(disk.len());
        for (offset, bytes) in writes.iter().take(count) {
            copy.write_at(*offset, bytes).unwrap();
        }
        let found = read(&copy).unwrap().expect("a table after a cut").partitions;
        for partition in &found {
            assert!(
                before.contains(partition) || plan.partitions().contains(partition),
                "after {count} writes: {partition:?}"
            );
        }
        assert!(found.len() >= before.len());
        if count == writes.len() {
            assert_eq!(found, plan.partitions());
        }
    }
}

/// The lines of two dumps that differ.
fn differences(before: &[String], after: &[String]) -> Vec<(String, String)> {
    assert_eq!(before.len(), after.len());
    before.iter().zip(after).filter(|(a, b)| a != b).map(|(a, b)| (a.clone(), b.clone())).collect()
}

fn mbr(mib: u64, script: &str) -> ImageDisk {
    let disk = ImageDisk::new(mib, 512);
    run("sfdisk", &[disk.str()], &format!("label: dos\nlabel-id: 0x12345678\n{script}"));
    // Boot code that must survive.
    disk.put(0, &[0xeb, 0x63, 0x90]);
    disk.put(100, b"boot code");
    disk
}

const END_400: u64 = 400 * 2048 - 2048;

#[test]
fn mbr_primary_chosen_by_position() {
    // Partition 1 lies after partition 2.
    let disk = mbr(
        100,
        "1: start=40960, size=60000, type=83, bootable\n2: start=2048, size=20000, type=82\n",
    );
    let before = dump(&disk);
    disk.resize(400);
    let plan = grow(&disk, &GrowRequest::default());
    assert_eq!(plan.grown().unwrap().1.end(), END_400);
    assert_eq!(
        differences(&before, &dump(&disk)),
        [(
            "1 : start= 40960, size= 60000, type=83, bootable".to_owned(),
            format!("1 : start= 40960, size= {}, type=83, bootable", END_400 - 40960)
        )]
    );
}

#[test]
fn mbr_logical_with_its_extended_of_each_type() {
    for extended in ["5", "f", "85"] {
        let disk = mbr(
            100,
            &format!(
                "1: start=2048, size=20480, type=83\n2: start=40960, size=100000, type={extended}\n\
                 5: start=43008, size=10000, type=83\n6: start=81920, size=20000, type=83\n\
                 7: start=61440, size=5000, type=82\n"
            ),
        );
        let before = dump(&disk);
        disk.resize(400);
        let plan = grow(&disk, &GrowRequest::default());
        assert_eq!(plan.grown().unwrap().1.number, 6);
        let differences = differences(&before, &dump(&disk));
        assert_eq!(differences.len(), 2, "{differences:?}");
        assert!(differences[0].1.contains(&format!("size= {}", END_400 - 40960)));
        assert!(differences[1].1.contains(&format!("start= 81920, size= {}", END_400 - 81920)));
    }
}

#[test]
fn mbr_empty_extended_at_the_end() {
    let disk = mbr(100, "start=2048, size=20480, type=83\nstart=40960, size=100000, type=5\n");
    disk.resize(400);
    let plan = grow(&disk, &GrowRequest::default());
    assert!(plan.grown().is_none());
    assert_eq!(plan.partitions()[1].end(), END_400);
    let disk = mbr(100, "start=2048, size=20480, type=83\nstart=40960, size=100000, type=5\n");
    disk.resize(400);
    let plan = grow(&disk, &swap(5, 32));
    let added = plan.added().unwrap();
    assert_eq!((added.role, added.size, added.end()), (Role::Logical, 65536, END_400));
}

#[test]
fn mbr_swap_as_primary() {
    let disk = mbr(100, "start=2048, size=200000, type=83, bootable\n");
    disk.resize(400);
    let plan = grow(&disk, &swap(2, 64));
    let added = plan.added().unwrap();
    assert_eq!((added.number, added.size, added.start % 2048), (2, 64 * 2048, 0));
    assert!(added.end() <= END_400 && added.end() > END_400 - 2048);
    assert_eq!(plan.grown().unwrap().1.end(), added.start);
    assert_eq!(added.partuuid.as_deref(), Some("12345678-02"));
    let lines = dump(&disk).join("\n");
    assert!(lines.contains("type=82"), "{lines}");
}

#[test]
fn mbr_swap_as_logical_in_a_new_extended() {
    let disk = mbr(100, "start=2048, size=200000, type=83, bootable\n");
    disk.resize(400);
    let plan = grow(&disk, &swap(5, 64));
    let numbers: Vec<_> = plan.partitions().iter().map(|p| (p.number, p.role)).collect();
    assert_eq!(numbers, [(1, Role::Primary), (2, Role::Extended), (5, Role::Logical)]);
    assert_eq!(plan.partitions()[1].end(), END_400);
    assert_eq!(plan.grown().unwrap().1.end(), plan.partitions()[1].start);
}

#[test]
fn mbr_swap_as_logical_behind_a_logical() {
    let disk = mbr(
        100,
        "1: start=2048, size=20480, type=83\n2: start=40960, size=160000, type=5\n\
         5: start=43008, size=10000, type=83\n6: start=81920, size=20000, type=83\n",
    );
    let before = dump(&disk);
    disk.resize(400);
    let other = disk.duplicate();
    let plan = grow(&disk, &swap(7, 64));
    let added = plan.added().unwrap();
    // The EBR's track lies between the two.
    assert_eq!(plan.grown().unwrap().1.end(), added.start - 2048);
    let after = dump(&disk);
    assert_eq!(after.len(), before.len() + 1);
    assert!(after.last().unwrap().contains("type=82"), "{after:?}");
    // A primary one after the extended partition.
    let plan = grow(&other, &swap(3, 64));
    assert_eq!(plan.added().unwrap().role, Role::Primary);
    assert_eq!(plan.partitions()[1].end(), plan.added().unwrap().start);
}

#[test]
fn mbr_swap_that_cannot_be() {
    let disk = mbr(
        100,
        "1: start=2048, size=20480, type=83\n2: start=40960, size=40960, type=5\n\
         3: start=100000, size=10000, type=83\n5: start=43008, size=10000, type=83\n",
    );
    let table = read(&disk).unwrap().unwrap();
    let error = |request| plan_grow(&table, &request).unwrap_err().to_string();
    assert!(error(swap(1, 10)).contains("already"), "{}", error(swap(1, 10)));
    assert!(error(swap(6, 10)).contains("cannot grow"), "{}", error(swap(6, 10)));
    assert!(error(swap(9, 10)).contains("is 6; ask for that one"), "{}", error(swap(9, 10)));
    for huge in [1000, u64::MAX, u64::MAX / 2048] {
        assert!(error(swap(4, huge)).contains("no room"), "{}", error(swap(4, huge)));
    }
    assert!(error(swap(0, 10)).contains("greater than 0"));
    let full = mbr(
        100,
        "start=2048, size=2048, type=83\nstart=4096, size=2048, type=83\n\
         start=6144, size=2048, type=83\nstart=8192, size=2048, type=83\n",
    );
    let table = read(&full).unwrap().unwrap();
    let error = plan_grow(&table, &swap(5, 10)).unwrap_err().to_string();
    assert!(error.contains("all four records"), "{error}");
}

#[test]
fn mbr_stops_at_two_tebibytes() {
    let disk = mbr(100, "start=2048, size=200000, type=83\n");
    disk.resize(3 << 20);
    let plan = grow(&disk, &GrowRequest::default());
    assert_eq!(plan.grown().unwrap().1.end(), (1 << 32) - 2048);
    assert!(plan.notes()[0].contains("GPT"), "{:?}", plan.notes());
}

fn debian_gpt(mib: u64) -> ImageDisk {
    let disk = ImageDisk::new(mib, 512);
    run(
        "sgdisk",
        &[
            "-n",
            "14:2048:8191",
            "-t",
            "14:ef02",
            "-n",
            "15:8192:+20M",
            "-t",
            "15:ef00",
            "-n",
            "1:65536:0",
            "-c",
            "1:Wurzel ü",
            "-A",
            "1:set:2",
            "-A",
            "1:set:59",
            "-a",
            "1",
            disk.str(),
        ],
        "",
    );
    disk.put(0, b"boot code");
    disk
}

#[test]
fn gpt_grows_and_moves_its_backup() {
    let disk = debian_gpt(100);
    let before = dump(&disk);
    disk.resize(400);
    let plan = grow(&disk, &GrowRequest::default());
    assert_eq!(plan.grown().unwrap().1.end(), END_400);
    let differences = differences(&before, &dump(&disk));
    assert_eq!(differences.len(), 2, "{differences:?}");
    assert!(differences[0].1.starts_with("last-lba: 819166"), "{differences:?}");
    assert!(differences[1].1.contains("size= 751616"), "{differences:?}");
    // The protective MBR covers the disk: type ee, from sector 1, all but one sector.
    assert_eq!(disk.bytes(446 + 8, 8), [1, 0, 0, 0, 0xff, 0x7f, 0x0c, 0]);
    // The backup alone is enough.
    disk.put(512, &[0; 512]);
    assert_eq!(read(&disk).unwrap().unwrap().partitions, plan.partitions());
}

#[test]
fn gpt_swap() {
    let disk = debian_gpt(100);
    disk.resize(400);
    let plan = grow(&disk, &swap(2, 64));
    let added = plan.added().unwrap();
    assert_eq!((added.number, added.size), (2, 64 * 2048));
    assert_eq!(plan.grown().unwrap().1.end(), added.start);
    let said = run("sgdisk", &["-i", "2", disk.str()], "");
    assert!(said.contains("0657FD6D-A4AB-43C4-84E5-0933C84B4F4F (Linux swap)"), "{said}");
    let table = read(&disk).unwrap().unwrap();
    let error = plan_grow(&table, &swap(129, 10)).unwrap_err().to_string();
    assert!(error.contains("1 to 128") || error.contains("no room"), "{error}");
}

#[test]
fn gpt_with_either_copy_damaged() {
    // Same size of disk, and a larger one, with the primary header or its entries destroyed.
    for (size, offset) in [(100, 512), (100, 1024), (400, 512), (400, 1024)] {
        let disk = debian_gpt(100);
        disk.resize(size);
        disk.put(offset, &[0xaa; 100]);
        let plan = grow(&disk, &GrowRequest::default());
        assert!(plan.describe().contains("restore the primary GPT"), "{}", plan.describe());
    }
    // The backup destroyed, the disk as it was.
    let disk = debian_gpt(100);
    disk.put((100 << 20) - 512, &[0; 512]);
    let plan = grow(&disk, &GrowRequest::default());
    assert!(plan.describe().contains("anew"), "{}", plan.describe());
    // Both.
    disk.put((100 << 20) - 512, &[0; 512]);
    disk.put(600, &[1]);
    assert!(read(&disk).is_err());
}

#[test]
fn gpt_on_a_disk_hardly_larger() {
    let disk = debian_gpt(100);
    for sectors in [1, 8, 32, 33, 34] {
        let copy = disk.duplicate();
        copy.file().set_len((100 << 20) + sectors * 512).unwrap();
        let plan = grow(&copy, &GrowRequest::default());
        assert!(plan.grown().is_none(), "less than 2048 sectors stay free as it is");
    }
    // Too small for its partitions and a backup.
    disk.file().set_len((100 << 20) - 20 * 512).unwrap();
    let table = read(&disk).unwrap().unwrap();
    let error = plan_grow(&table, &GrowRequest::default()).unwrap_err().to_string();
    assert!(error.contains("make the disk larger"), "{error}");
}

#[test]
fn gpt_beside_a_hybrid_mbr() {
    let disk = debian_gpt(100);
    run("sgdisk", &["-h", "1", disk.str()], "");
    disk.put(0, b"boot code");
    disk.resize(400);
    let table = read(&disk).unwrap().unwrap();
    let plan = plan_grow(&table, &GrowRequest::default()).unwrap();
    plan.write(&disk).unwrap();
    let said = run("sgdisk", &["-v", disk.str()], "");
    assert!(said.contains("No problems found."), "{said}");
    let mirrored = disk.bytes(446, 64).chunks(16).any(|record| {
        record[4] == 0x83
            && record[8..12] == [0, 0, 1, 0]
            && record[12..16] == 751_616u32.to_le_bytes()
    });
    assert!(mirrored);
}

#[test]
fn sectors_of_4096_bytes() {
    let disk = ImageDisk::new(100, 4096);
    run("fdisk", &["-b", "4096", disk.str()], "g\nn\n1\n\n+20M\nn\n2\n\n\nw\n");
    disk.resize(400);
    let plan = grow(&disk, &swap(3, 64));
    let end = 400 * 256 - 2048;
    assert_eq!(plan.added().unwrap().size, 64 * 256);
    assert!(plan.added().unwrap().end() <= end && plan.added().unwrap().end() > end - 256);

    let disk = ImageDisk::new(100, 4096);
    run("fdisk", &["-b", "4096", disk.str()], "o\nn\np\n1\n\n+20M\nn\ne\n2\n\n\nn\n\n+8M\nw\n");
    disk.resize(400);
    let other = disk.duplicate();
    let plan = grow(&disk, &GrowRequest::default());
    assert_eq!(plan.grown().unwrap().1.end(), end);
    let plan = grow(&other, &swap(6, 64));
    assert_eq!(plan.grown().unwrap().1.end(), plan.added().unwrap().start - 256);
}

#[test]
fn the_kernel_agrees() {
    // partx reads with libblkid, as udev and the installer's tools do.
    let disk = mbr(
        100,
        "1: start=2048, size=20480, type=83\n2: start=40960, size=160000, type=f\n\
         5: start=43008, size=10000, type=83\n",
    );
    disk.resize(400);
    let plan = grow(&disk, &swap(6, 64));
    let (good, said) = try_run("partx", &["-g", "-o", "NR,START,SECTORS,UUID", disk.str()], "");
    assert!(good, "{said}");
    let seen: Vec<Vec<String>> =
        said.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
    let planned: Vec<Vec<String>> = plan
        .partitions()
        .iter()
        .filter(|p| !p.is_extended())
        .map(|p| {
            let uuid = p.partuuid.clone().unwrap();
            vec![p.number.to_string(), p.start.to_string(), p.size.to_string(), uuid]
        })
        .collect();
    for line in &planned {
        assert!(seen.contains(line), "{line:?} is not in {seen:?}");
    }
}
