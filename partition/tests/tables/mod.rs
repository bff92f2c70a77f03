//! Damaged partition tables: what is damaged, how, and what the damaged one is put through. The stable
//! harness (`hostile.rs`) and the targets of cargo-fuzz (`fuzz/` in the checkout) share it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use snf_partition::{
    Carry, Change, Disk, GrowRequest, Guid, MemoryDisk, SwapRequest, Table, plan_grow, read,
};

use crate::choices::Choices;
use crate::common::{ImageDisk, run};
use crate::run::{Outcome, Target};

/// Most bytes that reading a table may take: two entry arrays in two sector sizes, and EBRs.
const MOST_READ: u64 = 8 << 20;

/// Counts what is read.
struct Counting {
    disk: MemoryDisk,
    bytes: AtomicU64,
    reads: AtomicU64,
}

impl Disk for Counting {
    fn len(&self) -> u64 {
        self.disk.len()
    }
    fn sector_size(&self) -> u32 {
        self.disk.sector_size()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.reads.fetch_add(1, Ordering::Relaxed);
        self.disk.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.disk.write_at(offset, buf)
    }
    fn flush(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Sectors of the images: 64 MiB of 512 bytes.
const SECTORS: u64 = 131_072;

fn image(tool: &str, args: &[&str], script: &str) -> MemoryDisk {
    let disk = ImageDisk::new(SECTORS / 2048, 512);
    let mut args = args.to_vec();
    args.push(disk.str());
    run(tool, &args, script);
    MemoryDisk::from_bytes(&disk.bytes(0, (SECTORS * 512) as usize), 512)
}

/// A table with an extended partition and three logical ones; its EBRs are in sectors 4096, 8192
/// and 18432.
pub fn logical() -> MemoryDisk {
    image(
        "sfdisk",
        &[],
        "label: dos\n1: start=2048, size=2048, type=83\n2: start=4096, size=100000, type=5\n\
         5: start=6144, size=2048, type=83\n6: start=10240, size=2048, type=83\n\
         7: start=20480, size=20480, type=83\n",
    )
}

fn primary() -> MemoryDisk {
    let script = "label: dos\n1: start=2048, size=2048, type=83\n2: start=4096, size=2048, type=82\n\
                  4: start=8192, size=20480, type=83, bootable\n";
    image("sfdisk", &[], script)
}

/// Three partitions with gaps.
pub fn gpt() -> MemoryDisk {
    image("sgdisk", &["-n", "1:2048:4095", "-n", "2:8192:65535", "-n", "5:65536:0"], "")
}

/// A number of the kind that breaks arithmetic.
fn interesting(choices: &mut Choices<'_>, disk_sectors: u64) -> u64 {
    let base = match choices.below(12) {
        0 => 0,
        1 => 1,
        2 => 2,
        3 => disk_sectors,
        4 => u64::from(u32::MAX),
        5 => 1 << 31,
        6 => 1 << 63,
        7 => u64::MAX,
        8 => 2048,
        9 => 128,
        10 => choices.number(8),
        _ => choices.number(8) % disk_sectors.max(1),
    };
    base.wrapping_add(choices.below(5) as u64).wrapping_sub(2)
}

fn get(disk: &MemoryDisk, offset: u64, length: usize) -> Vec<u8> {
    let mut buf = vec![0; length];
    disk.read_at(offset, &mut buf).unwrap();
    buf
}

/// Makes the checksums of both GPT copies right again, as far as their fields allow.
pub fn repair_checksums(disk: &MemoryDisk) {
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

/// Every table that was read must be safe to use and to grow; every grown one must read back. Reads, and
/// whether the table was refused.
fn exercise(disk: &MemoryDisk, choices: &mut Choices<'_>) -> Outcome {
    let size = match choices.below(4) {
        0 => disk.len(),
        1 => disk.len() - choices.below(8 << 20) as u64,
        _ => disk.len() + choices.below(64 << 20) as u64,
    };
    let counting =
        Counting { disk: disk.resized(size), bytes: AtomicU64::new(0), reads: AtomicU64::new(0) };
    let result = read(&counting);
    let (bytes, reads) = (&counting.bytes, &counting.reads);
    let (bytes, reads) = (bytes.load(Ordering::Relaxed), reads.load(Ordering::Relaxed));
    assert!(bytes <= MOST_READ, "{bytes} bytes read");
    let table: Table = match result {
        Ok(Some(table)) => table,
        Ok(None) => return Outcome { reads, noticed: true },
        Err(error) => {
            let text = error.to_string();
            assert!(!text.is_empty() && text.len() < 1000 && !text.contains('\n'), "{text}");
            return Outcome { reads, noticed: true };
        }
    };
    assert!(table.partitions.len() <= 8192 + 128);
    for partition in &table.partitions {
        assert!(partition.size > 0 && partition.start > 0);
        assert!(partition.end() <= table.disk_sectors);
    }
    let swap = SwapRequest {
        number: choices.below(9) as u32,
        mib: interesting(choices, 64),
        guid: Guid::from_random([7; 16]),
    };
    let first = table.partitions.first();
    let first = first.map_or(Default::default(), |p| snf_partition::Target::Number(p.number));
    let movable: Vec<(u32, Carry)> =
        table.partitions.iter().map(|p| (p.number, Carry::Whole)).collect();
    let last = GrowRequest { swap: Some(swap), ..GrowRequest::default() };
    let moving = GrowRequest { target: first, movable, ..GrowRequest::default() };
    for request in [GrowRequest::default(), last, moving] {
        let copy = counting.disk.resized(size);
        match plan_grow(&table, &request) {
            Ok(plan) => {
                let described = plan.describe();
                plan.write(&copy).unwrap_or_else(|error| panic!("{error}\n{described}{table:?}"));
                for old in &table.partitions {
                    let new = plan.partitions().iter().find(|p| p.number == old.number).unwrap();
                    let moves = plan.changes().iter().any(|change| {
                        matches!(change, Change::Move { after, .. } if after.number == old.number)
                    });
                    assert!(moves || new.start == old.start);
                    assert!(!moves || new.size == old.size);
                }
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
    Outcome { reads, noticed: false }
}

/// A good table, and where it is hit.
pub struct TableTarget {
    name: &'static str,
    original: MemoryDisk,
    /// Place and length in bytes.
    places: Vec<(u64, u64)>,
    /// Whether checksums are made right again.
    checksums: bool,
}

impl Target for TableTarget {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn round(&self, choices: &mut Choices<'_>) -> Outcome {
        let disk = self.original.resized(self.original.len());
        for _ in 0..=choices.below(4) {
            let (start, length) = self.places[choices.below(self.places.len())];
            let width = [1, 2, 4, 8][choices.below(4)];
            // Fields are aligned; unaligned writes hit two.
            let at = start + choices.below(length as usize / width) as u64 * width as u64;
            let value = interesting(choices, SECTORS).to_le_bytes();
            disk.write_at(at, &value[..width]).unwrap();
        }
        if self.checksums {
            repair_checksums(&disk);
        }
        exercise(&disk, choices)
    }

    fn check_undamaged(&self) {
        assert!(read(&self.original).unwrap().is_some(), "{}", self.name);
    }
}

/// Primary partitions, logical ones in their chain of EBRs, and GPT with right checksums and without.
pub fn targets() -> Vec<Box<dyn Target>> {
    let ebrs = [4096, 8192, 18432].map(|sector| (sector * 512 + 446, 66));
    let gpt = gpt();
    let end = gpt.len();
    let both = vec![(446, 66), (512, 92), (1024, 640), (end - 512, 92), (end - 33 * 512, 640)];
    let target = |name, original, places, checksums| -> Box<dyn Target> {
        Box::new(TableTarget { name, original, places, checksums })
    };
    vec![
        target("Mbr", primary(), vec![(446, 66)], false),
        target("Ebr", logical(), std::iter::once((446, 66)).chain(ebrs).collect(), false),
        target("Gpt with right checksums", gpt.resized(end), both.clone(), true),
        target("Gpt with wrong checksums", gpt, both, false),
    ]
}
