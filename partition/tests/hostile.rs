//! Hostile tables: good ones mutated at random (checksums repaired, so that the mutations get past
//! them), and one corruption at a time with the error that must name it. `SNF_FUZZ_SECONDS=120` is
//! for all harnesses of the checkout together: this one takes fifteen hundredths of it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../fs/tests/fuzz/choices.rs"]
#[allow(dead_code)]
mod choices;
mod common;
#[path = "../../fs/tests/fuzz/memory.rs"]
mod memory;
#[path = "../../fs/tests/fuzz/run.rs"]
#[allow(dead_code)]
mod run;
mod tables;

use choices::Choices;
use snf_partition::{Disk, GrowRequest, MemoryDisk, plan_grow, read};
use tables::{gpt, logical, repair_checksums};

#[test]
fn mutated_tables_are_refused_or_used_safely() {
    run::run_all(&tables::targets(), run::seconds(15), 4000);
}

/// Found by the fuzzer: the empty extended partition was enlarged for a logical one in the other.
#[test]
fn an_empty_extended_partition_behind_the_one_in_use() {
    let disk = logical();
    disk.write_at(446 + 4, &[0x0f]).unwrap();
    disk.write_at(446 + 8, &116_362u32.to_le_bytes()).unwrap();
    let disk = disk.resized(disk.len() + (16 << 20));
    let table = read(&disk).unwrap().unwrap();
    let plan = plan_grow(&table, &GrowRequest::default()).unwrap();
    assert!(plan.grown().is_none(), "{}", plan.describe());
    plan.write(&disk).unwrap();
    let after = read(&disk).unwrap().unwrap();
    assert_eq!(after.partition(7), table.partition(7));
    assert!(after.partition(1).unwrap().end() > table.partition(1).unwrap().end());
}

#[test]
fn sectors_of_noise() {
    let mut choices = Choices::of_seed(4);
    for _ in 0..2000 {
        let disk = MemoryDisk::new(1 << 20, if choices.below(2) == 0 { 512 } else { 4096 });
        for sector in [0, 1, 2, 8, 2047] {
            let mut noise: Vec<u8> = (0..512).map(|_| choices.number(1) as u8).collect();
            if choices.below(4) != 0 {
                noise[510..].copy_from_slice(&[0x55, 0xaa]);
            }
            disk.write_at(sector * 512, &noise).unwrap();
        }
        if let Ok(Some(table)) = read(&disk) {
            assert!(table.partitions.iter().all(|p| p.end() <= table.disk_sectors));
        }
    }
}

#[test]
fn tiny_disks_and_odd_sector_sizes() {
    for size in [0, 1, 511, 512, 513, 1024, 1536, 4096, 8192, 40_000] {
        for sector_size in [512, 4096] {
            let disk = MemoryDisk::new(size, sector_size);
            assert!(read(&disk).unwrap().is_none());
            if size >= 512 {
                disk.write_at(510, &[0x55, 0xaa]).unwrap();
                if let Some(table) = read(&disk).unwrap() {
                    let plan = plan_grow(&table, &GrowRequest::default()).unwrap();
                    assert!(plan.is_empty());
                }
                disk.write_at(446, &[0, 0, 1, 0, 0xee, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]).unwrap();
                assert!(read(&disk).is_err() || size < 2 * u64::from(sector_size));
            }
        }
    }
    for sector_size in [0, 1, 520, 65536, u32::MAX] {
        assert!(read(&MemoryDisk::new(1 << 20, sector_size)).is_err());
    }
}

/// One change of a good table with logical partitions, and what the error must say.
#[test]
fn each_corruption_of_an_mbr_is_named() {
    let record = |n: u64| 446 + 16 * n;
    let ebr = |lba: u64, n: u64, field: u64| lba * 512 + 446 + 16 * n + field;
    let cases: &[(&str, u64, &[u8], &[&str])] = &[
        ("indicator", record(0), &[0x7f], &["MBR", "record 1", "0x7f"]),
        ("start 0", record(0) + 8, &[0; 4], &["MBR", "record 1", "sector 0"]),
        ("beyond the disk", record(1) + 12, &[0xff; 4], &["MBR", "record 2", "131072 sectors"]),
        ("overlap", record(0) + 12, &2049u32.to_le_bytes(), &["MBR", "partition 2", "overlaps"]),
        ("EBR signature", 8192 * 512 + 510, &[0, 0], &["EBR", "sector 8192", "signature"]),
        ("EBR loop", ebr(8192, 1, 8), &[0; 4], &["EBR", "sector 4096", "comes back"]),
        (
            "EBR link to itself",
            ebr(8192, 1, 8),
            &4096u32.to_le_bytes(),
            &["EBR", "sector 8192", "comes back"],
        ),
        ("EBR link outside", ebr(4096, 1, 8), &[0xff; 4], &["EBR", "sector 4096", "outside"]),
        ("logical outside", ebr(8192, 0, 12), &[0xff; 4], &["EBR", "sector 8192", "not within"]),
        ("logical on its EBR", ebr(8192, 0, 8), &[0; 4], &["EBR", "sector 8192", "not within"]),
        (
            "logical overlap",
            ebr(4096, 0, 12),
            &6000u32.to_le_bytes(),
            &["EBR", "lies within logical partition 5"],
        ),
        ("two logicals", ebr(8192, 1, 4), &[0x83], &["EBR", "sector 8192", "two logical"]),
        ("two links", ebr(8192, 0, 4), &[0x05], &["EBR", "sector 8192", "two links"]),
    ];
    let good = logical();
    assert!(read(&good).unwrap().is_some());
    for (name, offset, bytes, expected) in cases {
        let disk = good.resized(good.len());
        disk.write_at(*offset, bytes).unwrap();
        let error = read(&disk).expect_err(name).to_string();
        for part in *expected {
            assert!(error.contains(part), "{name}: {part:?} is not in {error:?}");
        }
    }
}

#[test]
fn a_chain_of_too_many_links() {
    let disk = MemoryDisk::new(1 << 30, 512);
    let entry = |os_type: u8, start: u32, size: u32| {
        let mut bytes = vec![0, 0, 0, 0, os_type, 0, 0, 0];
        bytes.extend(start.to_le_bytes());
        bytes.extend(size.to_le_bytes());
        bytes
    };
    disk.write_at(446, &entry(5, 2048, 1_000_000)).unwrap();
    disk.write_at(510, &[0x55, 0xaa]).unwrap();
    for i in 0..200u32 {
        let at = u64::from(2048 + i * 4) * 512;
        disk.write_at(at + 446, &entry(0x83, 1, 2)).unwrap();
        disk.write_at(at + 462, &entry(5, (i + 1) * 4, 4)).unwrap();
        disk.write_at(at + 510, &[0x55, 0xaa]).unwrap();
    }
    let error = read(&disk).unwrap_err().to_string();
    assert!(error.contains("more than 128 links"), "{error}");
}

/// One field of both GPT copies, checksums right, and what the error must say.
#[test]
fn each_corruption_of_a_gpt_is_named() {
    let max = u64::MAX.to_le_bytes();
    let cases: &[(&str, bool, u64, &[u8], &str)] = &[
        ("signature", true, 0, b"EFI TRAP", "no signature"),
        ("header size", true, 12, &91u32.to_le_bytes(), "header size is 91"),
        ("header size", true, 12, &513u32.to_le_bytes(), "header size is 513"),
        ("my_lba", true, 24, &7u64.to_le_bytes(), "it is in sector 7"),
        ("first_usable", true, 40, &max, "usable sectors"),
        ("last_usable", true, 48, &max, "usable sectors"),
        ("entries at", true, 72, &max, "the entries would be in sectors"),
        ("entries on the header", true, 72, &1u64.to_le_bytes(), "the entries would be"),
        ("no entries", true, 80, &[0; 4], "it has 0 entries"),
        ("many entries", true, 80, &[0xff; 4], "it has 4294967295 entries"),
        ("entry size", true, 84, &129u32.to_le_bytes(), "an entry has 129 bytes"),
        ("entry size", true, 84, &[0; 4], "an entry has 0 bytes"),
        ("start after end", false, 32, &5000u64.to_le_bytes(), "partition entry 1"),
        ("end beyond the disk", false, 40, &max, "partition entry 1"),
        ("on the table", false, 32, &2u64.to_le_bytes(), "covers the table itself"),
        ("overlap", false, 40, &9000u64.to_le_bytes(), "overlaps partition 1"),
    ];
    let good = gpt();
    let last = good.len() - 512;
    for (name, header, field, bytes, expected) in cases {
        let disk = good.resized(good.len());
        let places = if *header { [512, last] } else { [1024, last - 32 * 512] };
        for place in places {
            disk.write_at(place + field, bytes).unwrap();
        }
        repair_checksums(&disk);
        let error = read(&disk).expect_err(name).to_string();
        assert!(error.contains(expected) && error.contains("GPT"), "{name}: {error}");
    }
    let disk = good.resized(good.len());
    disk.write_at(0, &[0; 512]).unwrap();
    let error = read(&disk).unwrap_err().to_string();
    assert!(error.contains("protective MBR"), "{error}");
}
