//! Each kind of damage that the NTFS checker knows: one field is spoilt, and it must say so by name.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};

use crate::ntfs_support::{Image, fill};
use snf_fs::MemoryDevice;
use snf_fs::ntfs::check::inodes::{Files, Key, Value, assemble};
use snf_fs::ntfs::check::raw::{
    Body, Geometry, Reader, Run, Stream, attributes, encode_runs, fix, parse_runs, unfix,
};
use snf_fs::ntfs::check::records::Mft;
use snf_fs::ntfs::check::{Report, check};

/// A volume in memory whose structures can be found and changed.
#[derive(Clone)]
struct Lab {
    bytes: Vec<u8>,
    geometry: Geometry,
    mft: Stream,
    values: BTreeMap<Key, Value>,
    numbers: BTreeMap<String, u64>,
}

fn utf16(text: &str) -> Vec<u16> {
    text.encode_utf16().collect()
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, value: [u8; N]) {
    bytes[at..at + N].copy_from_slice(&value);
}

fn get16(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn get32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn get64(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The offset of an attribute in a record.
#[track_caller]
fn at(record: &[u8], kind: u32) -> usize {
    let list = attributes(record, &mut |_, _| {});
    let place = list.iter().find(|attribute| attribute.kind == kind).map(|found| found.at);
    place.unwrap_or_else(|| panic!("no {kind:#x} among {list:?}"))
}

/// The offset of a resident attribute's value.
#[track_caller]
fn value(record: &[u8], kind: u32) -> usize {
    let at = at(record, kind);
    at + usize::from(get16(record, at + 20))
}

impl Lab {
    fn new(bytes: Vec<u8>) -> Self {
        let device = MemoryDevice::new(bytes.clone());
        let reader = Reader::open(&device).unwrap();
        let mut report = Report::default();
        let mft = Mft::load(&reader, &mut report).unwrap();
        let Files { inodes, values, .. } = assemble(&reader, &mft, &mut report).unwrap();
        assert!(report.is_clean());
        let numbers = inodes
            .iter()
            .flat_map(|(&number, inode)| {
                inode.names.iter().map(move |name| (String::from_utf16_lossy(&name.name), number))
            })
            .collect();
        Self { bytes, geometry: reader.geometry, mft: mft.stream, values, numbers }
    }

    fn check(&self) -> Report {
        check(&MemoryDevice::new(self.bytes.clone())).unwrap()
    }

    fn number(&self, name: &str) -> u64 {
        self.numbers[name]
    }

    fn place(&self, stream: &Stream, offset: u64) -> usize {
        stream.place(offset, self.geometry.cluster).unwrap().0.unwrap() as usize
    }

    fn record_place(&self, number: u64) -> usize {
        self.place(&self.mft.clone(), number * self.geometry.record as u64)
    }

    /// Changes a record, and its copy where it has one.
    fn record(&mut self, number: u64, change: impl FnOnce(&mut [u8])) {
        let (place, size) = (self.record_place(number), self.geometry.record);
        let mut record = self.bytes[place..place + size].to_vec();
        unfix(&mut record, b"FILE").unwrap();
        change(&mut record);
        fix(&mut record);
        self.bytes[place..place + size].copy_from_slice(&record);
        if number < 4 {
            let mirror = (self.geometry.mirror * self.geometry.cluster) as usize;
            let mirror = mirror + number as usize * size;
            self.bytes[mirror..mirror + size].copy_from_slice(&record);
        }
    }

    fn stream(&self, number: u64, kind: u32, name: &str) -> Stream {
        match &self.values[&(number, kind, utf16(name))] {
            Value::Mapped(stream) => stream.clone(),
            Value::Resident(_) => panic!("{number} {kind:#x} {name} is resident"),
        }
    }

    /// Changes 512 bytes of a stream.
    fn data(
        &mut self,
        number: u64,
        kind: u32,
        name: &str,
        at: u64,
        change: impl FnOnce(&mut [u8]),
    ) {
        let place = self.place(&self.stream(number, kind, name), at);
        change(&mut self.bytes[place..place + 512]);
    }

    /// Changes the first block of an index.
    fn block(&mut self, number: u64, name: &str, change: impl FnOnce(&mut [u8])) {
        let place = self.place(&self.stream(number, 0xa0, name), 0);
        let mut block = self.bytes[place..place + 4096].to_vec();
        unfix(&mut block, b"INDX").unwrap();
        change(&mut block);
        fix(&mut block);
        self.bytes[place..place + 4096].copy_from_slice(&block);
    }

    /// A record that extends another.
    fn extension(&self) -> u64 {
        let size = self.geometry.record;
        let count = self.mft.size / size as u64;
        let is = |number: &u64| {
            let place = self.record_place(*number);
            let record = &self.bytes[place..place + size];
            record.starts_with(b"FILE") && get16(record, 22) & 1 == 1 && get64(record, 32) != 0
        };
        (24..count).find(is).unwrap()
    }
}

/// The offsets of a block's first entry and its second.
fn entries(block: &[u8]) -> (usize, usize) {
    let first = 24 + get32(block, 24) as usize;
    (first, first + usize::from(get16(block, first + 8)))
}

/// Changes the runs of a record's `$DATA`.
fn move_run(record: &mut [u8], change: impl FnOnce(&mut Vec<Run>)) {
    let at = at(record, 0x80);
    let pairs = at + usize::from(get16(record, at + 32));
    let end = at + get32(record, at + 4) as usize;
    let mut runs = parse_runs(&record[pairs..end]).unwrap();
    change(&mut runs);
    let new = encode_runs(&runs);
    record[pairs..end][..new.len()].copy_from_slice(&new);
}

type Spoil = fn(&mut Lab);

const DAMAGE: &[(&str, Spoil)] = &[
    ("boot-copy", |lab| {
        let place = (lab.geometry.sectors * lab.geometry.sector) as usize;
        lab.bytes[place + 100] ^= 1;
    }),
    ("mft-mirror", |lab| {
        let place = (lab.geometry.mirror * lab.geometry.cluster) as usize;
        lab.bytes[place + 1024 + 100] ^= 1;
    }),
    ("mft-runs", |lab| {
        let beyond = lab.geometry.clusters + 5;
        lab.record(0, |record| {
            move_run(record, |runs| runs.last_mut().unwrap().lcn = Some(beyond))
        });
    }),
    ("record-baad", |lab| {
        let place = lab.record_place(lab.number("file 1"));
        put(&mut lab.bytes, place, *b"BAAD");
    }),
    ("record-magic", |lab| {
        let place = lab.record_place(lab.number("file 1"));
        lab.bytes[place] ^= 1;
    }),
    ("record-fixup", |lab| {
        let place = lab.record_place(lab.number("file 1"));
        lab.bytes[place + 510] ^= 1;
    }),
    ("record-header", |lab| {
        lab.record(lab.number("file 1"), |record| put(record, 28, 2048u32.to_le_bytes()));
    }),
    ("record-number", |lab| {
        lab.record(lab.number("file 1"), |record| record[44] ^= 1);
    }),
    ("attribute-length", |lab| {
        lab.record(lab.number("file 1"), |record| record[at(record, 0x30) + 4] ^= 1);
    }),
    ("attribute-order", |lab| {
        lab.record(lab.number("file 1"), |record| record[at(record, 0x10)] = 0xa0);
    }),
    ("attribute-id", |lab| {
        lab.record(lab.number("file 1"), |record| {
            record[at(record, 0x30) + 14] = record[at(record, 0x80) + 14];
        });
    }),
    ("attribute-twice", |lab| {
        lab.record(lab.number("streams"), |record| {
            // The first stream loses its name, and there is an unnamed one.
            let list = attributes(record, &mut |_, _| {});
            let named = list.iter().find(|a| a.kind == 0x80 && !a.name.is_empty()).unwrap();
            record[named.at + 9] = 0;
        });
    }),
    ("run-list", |lab| {
        lab.record(lab.number("file 5"), |record| {
            let at = at(record, 0x80);
            record[at + usize::from(get16(record, at + 32))] = 0xff;
        });
    }),
    ("standard-information", |lab| {
        lab.record(lab.number("file 1"), |record| record[at(record, 0x10)] = 0x11);
    }),
    ("file-name", |lab| {
        lab.record(lab.number("file 1"), |record| record[value(record, 0x30) + 64] = 250);
    }),
    ("extension-base", |lab| {
        lab.record(lab.extension(), |record| record[32] ^= 1);
    }),
    ("attribute-list", |lab| {
        lab.record(lab.extension(), |record| {
            let first = usize::from(get16(record, 20));
            put(record, first + 14, (get16(record, 40) - 1).to_le_bytes());
            put(record, 40, (get16(record, 40) + 1).to_le_bytes());
            record[first + 14] = record[first + 14].wrapping_add(1);
        });
    }),
    ("vcn-gap", |lab| {
        lab.record(lab.number("file 5"), |record| {
            let at = at(record, 0x80);
            put(record, at + 16, 5u64.to_le_bytes());
            put(record, at + 24, (get64(record, at + 24) + 5).to_le_bytes());
        });
    }),
    ("run-beyond", |lab| {
        let last = lab.geometry.clusters - 1;
        lab.record(lab.number("file 5"), |record| {
            move_run(record, |runs| runs[0].lcn = Some(last))
        });
    }),
    ("cross-link", |lab| {
        let mft = lab.geometry.mft;
        lab.record(lab.number("file 5"), |record| move_run(record, |runs| runs[0].lcn = Some(mft)));
    }),
    ("allocated-length", |lab| {
        lab.record(lab.number("file 5"), |record| record[at(record, 0x80) + 41] ^= 0x10);
    }),
    ("file-size", |lab| {
        lab.record(lab.number("file 5"), |record| record[at(record, 0x80) + 52] = 1);
    }),
    ("valid-data-length", |lab| {
        lab.record(lab.number("file 5"), |record| record[at(record, 0x80) + 60] = 1);
    }),
    ("hole", |lab| {
        lab.record(lab.number("sparse"), |record| put(record, at(record, 0x80) + 12, [0, 0]));
    }),
    ("total-allocated", |lab| {
        lab.record(lab.number("sparse"), |record| record[at(record, 0x80) + 66] ^= 1);
    }),
    ("bad-clusters", |lab| {
        lab.record(8, |record| {
            let list = attributes(record, &mut |_, _| {});
            let bad = list.iter().find(|a| matches!(a.body, Body::Mapped(_))).unwrap().at;
            let runs = bad + usize::from(get16(record, bad + 32));
            record[runs + 1] ^= 1;
            put(record, bad + 24, (get64(record, bad + 24) - 1).to_le_bytes());
        });
    }),
    ("index-root", |lab| {
        lab.record(lab.number("level 3"), |record| record[value(record, 0x90) + 8] = 1);
    }),
    ("index-allocation", |lab| {
        lab.record(lab.number("large"), |record| {
            let at = at(record, 0xa0);
            put(record, at + 48, (get64(record, at + 48) + 0x10_0000).to_le_bytes());
        });
    }),
    ("index-header", |lab| {
        lab.block(lab.number("large"), "$I30", |block| put(block, 28, 5000u32.to_le_bytes()));
    }),
    ("index-entry", |lab| {
        lab.block(lab.number("large"), "$I30", |block| block[entries(block).0 + 8] += 1);
    }),
    ("index-tail", |lab| {
        lab.block(lab.number("large"), "$I30", |block| {
            let used = get32(block, 28);
            put(block, 28, (used + 8).to_le_bytes());
        });
    }),
    ("index-child", |lab| {
        lab.record(5, |record| {
            let root = value(record, 0x90);
            let end = root + 16 + get32(record, root + 20) as usize;
            put(record, end - 8, 5_000u64.to_le_bytes());
        });
    }),
    ("index-block", |lab| {
        lab.block(lab.number("large"), "$I30", |block| block[16] ^= 1);
    }),
    ("index-order", |lab| {
        lab.block(lab.number("large"), "$I30", |block| {
            let (first, second) = entries(block);
            let key = first + 16 + 66;
            let other: Vec<u8> = block[second + 16 + 66..second + 16 + 66 + 8].to_vec();
            block[key..key + 8].copy_from_slice(&other);
            put(block, key, (u16::from(b'z')).to_le_bytes());
        });
    }),
    ("index-bitmap", |lab| {
        lab.record(lab.number("large"), |record| record[value(record, 0xb0)] ^= 1);
    }),
    ("directory-flag", |lab| {
        lab.record(lab.number("level 3"), |record| record[22] &= !2);
    }),
    ("entry-name", |lab| {
        lab.block(lab.number("large"), "$I30", |block| {
            // The last letter: the order stays.
            let first = entries(block).0;
            let last = first + 16 + 66 + 2 * usize::from(block[first + 16 + 64]) - 2;
            block[last] ^= 1;
        });
    }),
    ("entry-dangling", |lab| {
        lab.block(lab.number("large"), "$I30", |block| {
            let first = entries(block).0;
            put(block, first + 4, [1, 0]);
        });
    }),
    ("entry-sequence", |lab| {
        lab.block(lab.number("large"), "$I30", |block| block[entries(block).0 + 6] ^= 2);
    }),
    ("entry-parent", |lab| {
        lab.block(lab.number("large"), "$I30", |block| block[entries(block).0 + 16] ^= 1);
    }),
    ("entry-flags", |lab| {
        lab.block(lab.number("large"), "$I30", |block| block[entries(block).0 + 16 + 59] ^= 0x10);
    }),
    ("entry-size", |lab| {
        lab.block(lab.number("large"), "$I30", |block| block[entries(block).0 + 16 + 49] ^= 1);
    }),
    ("entry-twice", |lab| {
        lab.block(lab.number("large"), "$I30", |block| {
            // The second entry becomes the first once more; both are of one length.
            let (first, second) = entries(block);
            let length = second - first;
            assert_eq!(usize::from(get16(block, second + 8)), length);
            block.copy_within(first..second, second);
        });
    }),
    ("link-count", |lab| {
        lab.record(lab.number("links"), |record| record[18] += 1);
    }),
    ("nameless", |lab| {
        lab.record(lab.number("file 1"), |record| record[at(record, 0x30)] = 0x40);
    }),
    ("parent", |lab| {
        lab.record(lab.number("file 1"), |record| record[value(record, 0x30) + 6] ^= 0x55);
    }),
    ("name-unindexed", |lab| {
        lab.record(lab.number("file 1"), |record| record[value(record, 0x30) + 66] ^= 1);
    }),
    ("dos-name", |lab| {
        lab.record(lab.number("file 1"), |record| record[value(record, 0x30) + 65] = 2);
    }),
    ("bitmap", |lab| {
        lab.record(6, |record| {
            let at = at(record, 0x80);
            put(record, at + 48, 8u64.to_le_bytes());
            put(record, at + 56, 8u64.to_le_bytes());
        });
    }),
    ("bitmap-used", |lab| lab.data(6, 0x80, "", 0, |bits| bits[0] &= !1)),
    ("bitmap-leak", |lab| {
        let last = lab.geometry.clusters - 1;
        lab.data(6, 0x80, "", last / 8 / 512 * 512, |bits| {
            bits[(last / 8 % 512) as usize] |= 1 << (last % 8);
        });
    }),
    ("bitmap-tail", |lab| {
        let beyond = lab.geometry.clusters;
        assert!(beyond % 8 != 0);
        lab.data(6, 0x80, "", beyond / 8 / 512 * 512, |bits| {
            bits[(beyond / 8 % 512) as usize] &= !(1 << (beyond % 8));
        });
    }),
    ("mft-bitmap", |lab| {
        let number = lab.number("file 1");
        lab.data(0, 0xb0, "", 0, |bits| bits[number as usize / 8] ^= 1 << (number % 8));
    }),
    ("upcase", |lab| {
        lab.record(10, |record| {
            let at = at(record, 0x80);
            put(record, at + 48, 131_070u64.to_le_bytes());
            put(record, at + 56, 131_070u64.to_le_bytes());
        });
    }),
    ("volume", |lab| {
        lab.record(3, |record| record[at(record, 0x70)] = 0x71);
    }),
    ("volume-dirty", |lab| {
        lab.record(3, |record| record[value(record, 0x70) + 10] |= 1);
    }),
    ("security-descriptor", |lab| lab.data(9, 0x80, "$SDS", 0, |bytes| bytes[4] ^= 1)),
    ("security-hash", |lab| lab.data(9, 0x80, "$SDS", 0, |bytes| bytes[24] ^= 1)),
    ("security-copy", |lab| lab.data(9, 0x80, "$SDS", 0x40000, |bytes| bytes[24] ^= 1)),
    ("security-index", |lab| {
        lab.block(9, "$SDH", |block| {
            let first = entries(block).0;
            let data = first + usize::from(get16(block, first));
            block[data + 4] ^= 0x40;
        });
    }),
    ("security-id", |lab| {
        lab.record(lab.number("file 1"), |record| {
            let value = value(record, 0x10);
            put(record, value + 52, 0x7777u32.to_le_bytes());
        });
    }),
    ("reparse-index", |lab| {
        lab.record(lab.number("junction"), |record| record[value(record, 0xc0)] ^= 9);
    }),
];

#[test]
fn every_kind_of_damage_is_named() {
    let image = Image::make("-c 4096", 24);
    let mount = image.mount();
    fill(&mount, 300);
    drop(mount);
    image.must_be_clean("undamaged");
    let lab = Lab::new(std::fs::read(&image.path).unwrap());
    let mut missed = Vec::new();
    for (code, spoil) in DAMAGE {
        let mut spoilt = lab.clone();
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| spoil(&mut spoilt))).is_err() {
            missed.push(format!("{code}: cannot be made"));
            continue;
        }
        assert!(spoilt.bytes != lab.bytes, "{code}: nothing was changed");
        let report = spoilt.check();
        if !report.findings.iter().any(|finding| finding.code == *code) {
            missed.push(format!("{code}: {:?}", report.findings));
        }
    }
    assert!(missed.is_empty(), "{missed:#?}");
}

#[test]
fn every_code_of_the_sources_is_tested() {
    let dir = concat!(env!("CARGO_MANIFEST_DIR"), "/src/ntfs/check");
    let tested: BTreeSet<&str> = DAMAGE.iter().map(|(code, _)| *code).collect();
    let mut known = BTreeSet::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        for call in ["report.error(", "report.warn(", "self.error(", "say(", "Err(("] {
            for rest in text.split(call).skip(1) {
                let Some(word) = rest.trim_start().strip_prefix('"') else { continue };
                known.insert(word.split('"').next().unwrap().to_owned());
            }
        }
    }
    let lacking: Vec<&String> =
        known.iter().filter(|code| !tested.contains(code.as_str())).collect();
    assert!(known.len() > 40 && lacking.is_empty(), "without a test: {lacking:?}");
}
