//! Hostile tables: good ones mutated at random (checksums repaired, so that the mutations get past
//! them), and one corruption at a time with the error that must name it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::{ImageDisk, run};
use snf_partition::{Disk, GrowRequest, Guid, MemoryDisk, SwapRequest, Table, plan_grow, read};

/// Most bytes that reading a table may take: two entry arrays in two sector sizes, and EBRs.
const MOST_READ: u64 = 8 << 20;

/// Counts what is read.
struct Counting {
    disk: MemoryDisk,
    read: AtomicU64,
}

impl Disk for Counting {
    fn len(&self) -> u64 {
        self.disk.len()
    }
    fn sector_size(&self) -> u32 {
        self.disk.sector_size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.disk.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.disk.write_at(offset, buf)
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// xorshift64*: the same mutations at every run.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
    /// A number of the kind that breaks arithmetic.
    fn interesting(&mut self, disk_sectors: u64) -> u64 {
        let base = [
            0,
            1,
            2,
            disk_sectors,
            u64::from(u32::MAX),
            1 << 31,
            1 << 63,
            u64::MAX,
            2048,
            128,
            self.next(),
            self.next() % disk_sectors.max(1),
        ];
        let pick = base[self.below(base.len() as u64) as usize];
        pick.wrapping_add(self.below(5)).wrapping_sub(2)
    }
}

const MIB: u64 = 64;

fn image(tool: &str, args: &[&str], script: &str) -> MemoryDisk {
    let disk = ImageDisk::new(MIB, 512);
    let mut args = args.to_vec();
    args.push(disk.str());
    run(tool, &args, script);
    MemoryDisk::from_bytes(&disk.bytes(0, (MIB << 20) as usize), 512)
}

fn logical() -> MemoryDisk {
    image(
        "sfdisk",
        &[],
        "label: dos\n1: start=2048, size=2048, type=83\n2: start=4096, size=100000, type=5\n\
         5: start=6144, size=2048, type=83\n6: start=10240, size=2048, type=83\n\
         7: start=20480, size=20480, type=83\n",
    )
}

fn gpt() -> MemoryDisk {
    image("sgdisk", &["-n", "1:2048:4095", "-n", "2:8192:65535", "-n", "5:65536:0"], "")
}

fn get(disk: &MemoryDisk, offset: u64, length: usize) -> Vec<u8> {
    let mut buf = vec![0; length];
    disk.read_at(offset, &mut buf).unwrap();
    buf
}

/// Makes the checksums of both GPT copies right again, as far as their fields allow.
fn repair_checksums(disk: &MemoryDisk) {
    let last = disk.len() / 512 - 1;
    for lba in [1, last] {
        let mut header = get(disk, lba * 512, 512);
        let field =
            |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let array = u64::from_le_bytes(header[72..80].try_into().unwrap());
        let length = u64::from(field(&header, 80)) * u64::from(field(&header, 84));
        let offset = array.checked_mul(512).filter(|o| {
            length <= 1 << 20 && o.checked_add(length).is_some_and(|end| end <= disk.len())
        });
        if let Some(offset) = offset {
            let crc = crc32fast::hash(&get(disk, offset, length as usize));
            header[88..92].copy_from_slice(&crc.to_le_bytes());
        }
        let size = (field(&header, 12) as usize).clamp(92, 512);
        header[16..20].fill(0);
        let crc = crc32fast::hash(&header[..size]);
        header[16..20].copy_from_slice(&crc.to_le_bytes());
        disk.write_at(lba * 512, &header).unwrap();
    }
}

/// Whatever was read must be safe to use and to grow; whatever is grown must read back.
fn exercise(disk: MemoryDisk, rng: &mut Rng) -> bool {
    let size = match rng.below(4) {
        0 => disk.len(),
        1 => disk.len() - rng.below(8 << 20),
        _ => disk.len() + rng.below(64 << 20),
    };
    let counting = Counting { disk: disk.resized(size), read: AtomicU64::new(0) };
    let result = read(&counting);
    let bytes = counting.read.load(Ordering::Relaxed);
    assert!(bytes <= MOST_READ, "{bytes} bytes read");
    let table: Table = match result {
        Ok(Some(table)) => table,
        Ok(None) => return false,
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty() && text.len() < 1000 && !text.contains('\n'), "{text}");
            return false;
        }
    };
    assert!(table.partitions.len() <= 8192 + 128);
    for partition in &table.partitions {
        assert!(partition.size > 0 && partition.start > 0);
        assert!(partition.end() <= table.disk_sectors);
    }
    let swap = SwapRequest {
        number: rng.below(9) as u32,
        mib: rng.interesting(64),
        guid: Guid::from_random([7; 16]),
    };
    for request in [GrowRequest::default(), GrowRequest { swap: Some(swap) }] {
        let copy = counting.disk.resized(size);
        match plan_grow(&table, &request) {
            Ok(plan) => {
                let described = plan.describe();
                plan.write(&copy).unwrap_or_else(|error| panic!("{error}\n{described}{table:?}"));
                for old in &table.partitions {
                    let new = plan.partitions().iter().find(|p| p.number == old.number).unwrap();
                    assert_eq!(new.start, old.start);
                }
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    true
}

/// Mutates tables for some seconds or rounds, whichever ends first. SNF_FUZZ_SECONDS makes it as
/// long as one likes.
fn fuzz(original: &MemoryDisk, seed: u64, places: &[(u64, u64)], checksums: bool) {
    let seconds = std::env::var("SNF_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok());
    let until = Instant::now() + Duration::from_secs(seconds.unwrap_or(3));
    let rounds = if seconds.is_some() { u64::MAX } else { 4000 };
    let mut rng = Rng(seed);
    let mut readable = 0;
    let mut done = 0;
    while done < rounds && Instant::now() < until {
        let disk = original.resized(original.len());
        for _ in 0..=rng.below(4) {
            let (start, length) = places[rng.below(places.len() as u64) as usize];
            let width = [1, 2, 4, 8][rng.below(4) as usize];
            // Fields are aligned; unaligned writes hit two.
            let at = start + rng.below(length / width) * width;
            let value = rng.interesting(disk.len() / 512).to_le_bytes();
            disk.write_at(at, &value[..width as usize]).unwrap();
        }
        if checksums {
            repair_checksums(&disk);
        }
        readable += u64::from(exercise(disk, &mut rng));
        done += 1;
    }
    assert!(
        readable > done / 50,
        "{readable} of {done} tables were readable: too few to test growth"
    );
}

#[test]
fn mutated_mbr_and_ebrs() {
    let disk = logical();
    // The EBRs are in sectors 4096, 8192 and 18432.
    let mut places = vec![(446, 66)];
    for ebr in [4096, 8192, 18432] {
        places.push((ebr * 512 + 446, 66));
    }
    fuzz(&disk, 1, &places, false);
}

#[test]
fn mutated_gpt_behind_its_checksums() {
    let disk = gpt();
    let end = disk.len();
    let places = [(446, 66), (512, 92), (1024, 640), (end - 512, 92), (end - 33 * 512, 640)];
    fuzz(&disk, 2, &places, true);
    fuzz(&disk, 3, &places, false);
}

#[test]
fn sectors_of_noise() {
    let mut rng = Rng(4);
    for _ in 0..2000 {
        let disk = MemoryDisk::new(1 << 20, if rng.below(2) == 0 { 512 } else { 4096 });
        for sector in [0, 1, 2, 8, 2047] {
            let mut noise: Vec<u8> = (0..512).map(|_| rng.next() as u8).collect();
            if rng.below(4) != 0 {
                noise[510..].copy_from_slice(&[0x55, 0xaa]);
            }
            disk.write_at(sector * 512, &noise).unwrap();
        }
        let _ = exercise_read(&disk);
    }
}

fn exercise_read(disk: &MemoryDisk) -> bool {
    read(disk).is_ok_and(|table| table.is_some())
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
        ("start behind end", false, 32, &5000u64.to_le_bytes(), "partition entry 1"),
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
