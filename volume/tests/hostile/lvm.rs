//! Damaged LVM.

use std::sync::{Arc, OnceLock};

use snf_fs::BlockDevice;
use snf_volume::lvm::{Change, Extent, Stamp, scan};

use super::super::support::Disks;
use super::damage_text;
use crate::choices::Choices;
use crate::device::Patched;
use crate::mutate::mutate;
use crate::run::{Outcome, Target};

/// The part that is damaged.
#[derive(Clone, Copy, Debug)]
enum Part {
    Label,
    Area,
    Text,
}

struct Lvm(Part);

pub fn targets() -> Vec<Box<dyn Target>> {
    [Part::Label, Part::Area, Part::Text].map(|part| Box::new(Lvm(part)) as _).into()
}

/// A linear volume of two segments, a striped one and a mirrored one.
const VOLUMES: &str = r#"
root { id = "rootxx-xxxx-xxxx-xxxx-xxxx-xxxx-xxxxxx" status = ["READ", "WRITE", "VISIBLE"]
 segment_count = 2
 segment1 { start_extent = 0 extent_count = 9 type = "striped" stripe_count = 1 stripes = ["pv0", 0] }
 segment2 { start_extent = 9 extent_count = 5 type = "striped" stripe_count = 1 stripes = ["pv0", 20] } }
striped { id = "stripe-xxxx-xxxx-xxxx-xxxx-xxxx-xxxxxx" status = ["READ", "WRITE", "VISIBLE"]
 segment_count = 1
 segment1 { start_extent = 0 extent_count = 6 type = "striped" stripe_count = 2 stripe_size = 32
  stripes = ["pv0", 10, "pv1", 0] } }
m_rmeta_0 { id = "rmeta0-xxxx-xxxx-xxxx-xxxx-xxxx-xxxxxx" status = ["READ", "WRITE"] segment_count = 1
 segment1 { start_extent = 0 extent_count = 1 type = "striped" stripe_count = 1 stripes = ["pv0", 30] } }
m_rmeta_1 { id = "rmeta1-xxxx-xxxx-xxxx-xxxx-xxxx-xxxxxx" status = ["READ", "WRITE"] segment_count = 1
 segment1 { start_extent = 0 extent_count = 1 type = "striped" stripe_count = 1 stripes = ["pv1", 30] } }
m_rimage_0 { id = "image0-xxxx-xxxx-xxxx-xxxx-xxxx-xxxxxx" status = ["READ", "WRITE"] segment_count = 1
 segment1 { start_extent = 0 extent_count = 4 type = "striped" stripe_count = 1 stripes = ["pv0", 31] } }
m_rimage_1 { id = "image1-xxxx-xxxx-xxxx-xxxx-xxxx-xxxxxx" status = ["READ", "WRITE"] segment_count = 1
 segment1 { start_extent = 0 extent_count = 4 type = "striped" stripe_count = 1 stripes = ["pv1", 31] } }
m { id = "mirror-xxxx-xxxx-xxxx-xxxx-xxxx-xxxxxx" status = ["READ", "WRITE", "VISIBLE"] segment_count = 1
 segment1 { start_extent = 0 extent_count = 4 type = "raid1" device_count = 2 region_size = 32
  raids = ["m_rmeta_0", "m_rimage_0", "m_rmeta_1", "m_rimage_1"] } }
"#;

/// Two disks with two areas each; the device of the first is larger than its volume.
fn base() -> &'static [Arc<Vec<u8>>; 2] {
    static BASE: OnceLock<[Arc<Vec<u8>>; 2]> = OnceLock::new();
    BASE.get_or_init(|| {
        let mut disks = Disks::new(&[8, 8]);
        let loops: Vec<&str> = disks.loops.iter().map(String::as_str).collect();
        let options = ["--metadatacopies", "2", "--metadatasize", "64k", "--dataalignment", "64k"];
        disks.lvm(&[&["pvcreate"], &options[..], &loops].concat());
        disks.lvm(&[&["vgcreate", "-s", "64k", "vg"], &loops[..]].concat());
        disks.restore("vg", VOLUMES);
        disks.resize(0, 12);
        let [first, second] = disks.contents().try_into().unwrap();
        [Arc::new(first), Arc::new(second)]
    })
}

/// Label, header and text under their checksums, which differ from the usual CRC-32 in the start
/// value and have no final inversion.
fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = 0xf597_a6cfu32;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    crc
}

const AREA: u64 = 4096;

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

fn seal(sector: &mut [u8], at: usize, from: usize) {
    let crc = checksum(&sector[from..]);
    sector[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

impl Lvm {
    fn damage(&self, disk: &Patched, choices: &mut Choices<'_>) {
        let times = 1 + choices.below(3);
        match self.0 {
            Part::Label => {
                let mut sector = disk.bytes(512, 512);
                for _ in 0..times {
                    let from = 20 + choices.below(100);
                    mutate(&mut sector[from..], choices);
                }
                seal(&mut sector, 16, 20);
                disk.write_at(512, &sector).unwrap();
            }
            Part::Area => {
                let mut sector = disk.bytes(AREA, 512);
                for _ in 0..times {
                    let from = 4 + choices.below(72);
                    mutate(&mut sector[from..], choices);
                }
                seal(&mut sector, 0, 4);
                disk.write_at(AREA, &sector).unwrap();
            }
            Part::Text => {
                let mut header = disk.bytes(AREA, 512);
                let (offset, size) = (number(&header, 40), number(&header, 48));
                let mut text = disk.bytes(AREA + offset, size as usize);
                for _ in 0..times {
                    damage_text(&mut text, choices);
                }
                // A higher number, so that this text counts and not that of the other areas.
                let seqno = b"seqno = ";
                if let Some(at) = text.windows(seqno.len()).position(|window| window == seqno) {
                    text.splice(at + seqno.len()..at + seqno.len(), *b"9");
                }
                // The first place in the ring has room for it.
                text.truncate(30_000);
                disk.write_at(AREA + 512, &text).unwrap();
                header[40..48].copy_from_slice(&512u64.to_le_bytes());
                header[48..56].copy_from_slice(&(text.len() as u64).to_le_bytes());
                header[56..60].copy_from_slice(&checksum(&text).to_le_bytes());
                seal(&mut header, 0, 4);
                disk.write_at(AREA, &header).unwrap();
            }
        }
    }
}

/// Everything that can be done; how often it was refused.
fn exercise(devices: &[Arc<dyn BlockDevice>]) -> usize {
    let found = scan(devices);
    let mut refused = found.problems.len() + found.orphans.len();
    for group in &found.groups {
        let pvs = group.physical_volumes();
        refused += pvs.iter().filter(|pv| pv.device.is_none()).count();
        let volumes = group.logical_volumes();
        for lv in &volumes {
            let Ok(volume) = group.open(&lv.name) else {
                refused += 1;
                continue;
            };
            let size = volume.len();
            let mut buf = [0; 1000];
            for at in [0, size / 3, size.saturating_sub(1000)] {
                refused += usize::from(volume.read_at(at, &mut buf).is_err());
                refused += usize::from(volume.write_at(at, &buf).is_err());
            }
            assert!(volume.read_at(size, &mut [0]).is_err());
        }
        let Ok(mut change) = Change::new(group) else {
            refused += 1;
            continue;
        };
        for pv in &pvs {
            refused += usize::from(change.grow_pv(&pv.id).is_err());
        }
        for lv in &volumes {
            refused += usize::from(change.extend(&lv.name, Extent::To(lv.size + 70_000)).is_err());
        }
        for lv in &volumes {
            refused += usize::from(change.extend(&lv.name, Extent::AllFree).is_err());
        }
        let stamp = Stamp { description: "x".into(), host: "x".into(), time: 1 };
        refused += usize::from(change.commit(&stamp).is_err());
    }
    refused
}

impl Target for Lvm {
    fn name(&self) -> String {
        format!("Lvm{:?}", self.0)
    }
    fn round(&self, choices: &mut Choices<'_>) -> Outcome {
        let disks = [0, 1].map(|index| Arc::new(Patched::new(base()[index].clone())));
        let victim = choices.below(2);
        self.damage(&disks[victim], choices);
        let devices = disks.clone().map(|disk| disk as Arc<dyn BlockDevice>);
        let noticed = exercise(&devices) > usual();
        // Once more, with what the growth wrote.
        exercise(&devices);
        Outcome { reads: disks.iter().map(|disk| disk.reads()).sum(), noticed }
    }
    fn check_undamaged(&self) {
        assert!(usual() < 20);
        let devices = [0, 1].map(|index| Arc::new(Patched::new(base()[index].clone())) as _);
        let found = scan(&devices);
        assert!(found.problems.is_empty() && found.groups[0].open("root").is_ok());
    }
}

/// Refusals of an undamaged group: there is no room for all the growth that is asked for.
fn usual() -> usize {
    static USUAL: OnceLock<usize> = OnceLock::new();
    *USUAL.get_or_init(|| {
        exercise(&[0, 1].map(|index| Arc::new(Patched::new(base()[index].clone())) as _))
    })
}
