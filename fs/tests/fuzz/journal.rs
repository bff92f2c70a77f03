//! Damage to journals and to growth's own structures (superblock, descriptors, the resize inode), with
//! right checksums, before replay, growth and commit.

use std::sync::Arc;

use super::choices::Choices;
use super::device::Patched;
use super::mutate::mutate;
use super::run::{Outcome, Target};
use crate::journal_support::*;
use snf_fs::ext::internals::checksum::crc32c;
use snf_fs::ext::internals::grow::{device_blocks, grow};
use snf_fs::ext::internals::journal::format::Form;
use snf_fs::ext::internals::journal::{commit, open_replayed, open_volume};
use snf_fs::ext::internals::units::{FsBlock, Ino};
use snf_fs::{BlockDevice, Error};

/// An image and the bytes worth hitting: place, length and what they are.
struct Corpus {
    name: String,
    bytes: Arc<Vec<u8>>,
    places: Vec<(u64, usize, Kind)>,
    form: Form,
    seed: u32,
    metadata_csum: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Superblock,
    JournalSuperblock,
    /// A descriptor or revoke block of the log.
    Tail,
    Commit,
    Descriptor(u32),
    Inode(u32),
    Plain,
}

fn form(image: &[u8]) -> Form {
    let at = journal_offset(image);
    let incompat = u32::from_be_bytes(image[at + 0x28..at + 0x2C].try_into().unwrap());
    Form {
        block_size: 1024,
        wide: incompat & 2 != 0,
        v3: incompat & 0x10 != 0,
        v2: incompat & 8 != 0,
        v1: image[at + 0x27] & 1 != 0,
        seed: crc32c(!0, &image[at + 0x30..at + 0x40]),
    }
}

/// The places of descriptors and of the inodes of journal and resizing, from the undamaged image.
fn places(image: &[u8]) -> (Vec<(u64, usize, Kind)>, u32, bool) {
    let device: Arc<dyn BlockDevice> = Arc::new(Patched::new(Arc::new(image.to_vec())));
    let (vol, _) = open_replayed(device, options()).unwrap();
    let mut out = vec![(1024, 1024, Kind::Superblock); 6];
    for group in vol.sb.groups() {
        let (block, at) = vol.descriptor_position(group);
        let size = vol.sb.desc_size() as usize;
        out.push((block.byte(1024) + at as u64, size, Kind::Descriptor(group.get())));
    }
    for ino in [7, 8] {
        let (block, at) = vol.inode_position(Ino::new(ino)).unwrap();
        let size = vol.sb.inode_size() as usize;
        out.push((block.byte(1024) + at as u64, size, Kind::Inode(ino)));
    }
    let resize = vol.read_inode(Ino::new(7)).unwrap();
    let double = u32::from_le_bytes(resize.raw.i_block[52..56].try_into().unwrap());
    if double != 0 {
        out.push((u64::from(double) * 1024, 1024, Kind::Plain));
    }
    (out, vol.sb.checksum_seed(), vol.sb.has_metadata_csum())
}

/// Images with a dirty journal (a commit of ours cut after the point of no return, one of debugfs
/// with revoke records), and clean ones with room to grow.
pub fn targets() -> Vec<Box<dyn Target>> {
    let dir = scratch();
    let mut out: Vec<Box<dyn Target>> = Vec::new();
    for flavour in FLAVOURS.iter().filter(|flavour| !flavour.name.contains("fast")) {
        let Committed { old, device, .. } = committed(dir.path(), flavour, 4096);
        let cut = (0..=device.events().len())
            .map(|count| device.prefix(count))
            .find(|image| image[journal_offset(image) + 0x1C..][..4] != [0; 4])
            .unwrap();
        let (mut hit, seed, metadata_csum) = places(&cut);
        hit.retain(|place| matches!(place.2, Kind::Superblock | Kind::Inode(8)));
        for (index, block) in cut.chunks(1024).enumerate() {
            if !block.starts_with(&[0xC0, 0x3B, 0x39, 0x98, 0, 0, 0]) {
                continue;
            }
            let kind = match block[7] {
                1 | 5 => Kind::Tail,
                2 => Kind::Commit,
                _ => Kind::JournalSuperblock,
            };
            hit.extend([(index as u64 * 1024, 1024, kind); 6]);
        }
        out.push(Box::new(Corpus {
            name: format!("{} dirty", flavour.name),
            form: form(&cut),
            bytes: Arc::new(cut),
            places: hit,
            seed,
            metadata_csum,
        }));
        let mut room = old;
        let (places, seed, metadata_csum) = places(&room);
        room.resize(30 << 20, 0x5A);
        out.push(Box::new(Corpus {
            name: format!("{} with room", flavour.name),
            form: form(&room),
            bytes: Arc::new(room),
            places,
            seed,
            metadata_csum,
        }));
    }
    out
}

impl Corpus {
    fn damaged(&self, choices: &mut Choices<'_>) -> Arc<Patched> {
        let device = Patched::new(self.bytes.clone());
        for _ in 0..=choices.below(3) {
            let (at, length, kind) = self.places[choices.below(self.places.len())];
            let mut bytes = device.bytes(at, length);
            for _ in 0..=choices.below(3) {
                mutate(&mut bytes, choices);
            }
            if choices.below(10) != 9 {
                self.seal(kind, &mut bytes);
            }
            device.write_at(at, &bytes).unwrap();
        }
        Arc::new(device)
    }

    fn seal(&self, kind: Kind, bytes: &mut [u8]) {
        match kind {
            Kind::JournalSuperblock => {
                bytes[0xFC..0x100].fill(0);
                let sum = crc32c(!0, bytes).to_be_bytes();
                bytes[0xFC..0x100].copy_from_slice(&sum);
            }
            Kind::Tail => self.form.seal_tail(bytes),
            Kind::Commit if self.form.has_csum() => {
                let sum = self.form.commit_checksum(bytes).to_be_bytes();
                bytes[16..20].copy_from_slice(&sum);
            }
            Kind::Superblock if self.metadata_csum => {
                let sum = crc32c(!0, &bytes[..1020]).to_le_bytes();
                bytes[1020..].copy_from_slice(&sum);
            }
            Kind::Descriptor(group) if self.metadata_csum => {
                bytes[0x1E..0x20].fill(0);
                let sum = crc32c(crc32c(self.seed, &group.to_le_bytes()), bytes).to_le_bytes();
                bytes[0x1E..0x20].copy_from_slice(&sum[..2]);
            }
            Kind::Inode(ino) if self.metadata_csum => {
                let crc = crc32c(crc32c(self.seed, &ino.to_le_bytes()), &bytes[0x64..0x68]);
                bytes[0x7C..0x7E].fill(0);
                bytes[0x82..0x84].fill(0);
                let sum = crc32c(crc, bytes).to_le_bytes();
                bytes[0x7C..0x7E].copy_from_slice(&sum[..2]);
                bytes[0x82..0x84].copy_from_slice(&sum[2..]);
            }
            _ => {}
        }
    }
}

/// Replays, looks, grows, commits, opens again; whether anything was refused.
fn exercise(device: &Arc<Patched>) -> bool {
    let shared: Arc<dyn BlockDevice> = device.clone();
    let Ok((mut vol, _)) = open_volume(shared.clone(), options()) else { return true };
    for n in 0..vol.sb.blocks_count().min(300) {
        let _ = vol.store.read(FsBlock::new(n));
    }
    let mut refused = false;
    let wanted = device_blocks(&vol).max(vol.sb.blocks_count());
    match grow(&mut vol, wanted) {
        Ok(_) => {}
        Err(Error::Device(error)) => panic!("no device is at fault: {error}"),
        Err(_) => refused = true,
    }
    match commit(&mut vol) {
        Ok(_) => {
            drop(vol);
            // We must be able to open the committed image again.
            if let Err(error) = open_volume(shared, options()) {
                panic!("committed, and now: {error}");
            }
        }
        Err(Error::Device(error)) => panic!("no device is at fault: {error}"),
        Err(_) => refused = true,
    }
    refused
}

impl Target for Corpus {
    fn name(&self) -> String {
        format!("Journal {}", self.name)
    }

    fn round(&self, choices: &mut Choices<'_>) -> Outcome {
        let device = self.damaged(choices);
        let noticed = exercise(&device);
        Outcome { reads: device.reads(), noticed }
    }

    fn cache(&self) -> usize {
        snf_fs::ext::internals::store::CACHE_BYTES
    }

    fn check_undamaged(&self) {
        let pristine = Arc::new(Patched::new(self.bytes.clone()));
        assert!(!exercise(&pristine), "{}: undamaged", self.name);
    }
}
