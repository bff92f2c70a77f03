//! The header of LUKS1: 592 bytes, big-endian.

use snf_fs::BlockDevice;
use zerocopy::byteorder::big_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::cipher::Spec;
use super::hash::Hash;
use super::kdf::Kdf;
use super::open::{Data, Digest, Header, MAX_KEY, MAX_STRIPES, Slot};
use crate::{Error, Refusal, Result};

/// cryptsetup-reencrypt puts this in place of the magic while it works.
pub(crate) const REENCRYPTING: &[u8; 6] = b"LUKS\xde\xad";
const SECTOR: u64 = 512;
/// The state of a key slot in use.
const ACTIVE: u32 = 0x00ac_71f3;

#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct OnDisk {
    magic: [u8; 6],
    version: U16,
    cipher: [u8; 32],
    mode: [u8; 32],
    hash: [u8; 32],
    /// Sector where the data begins.
    payload: U32,
    key_bytes: U32,
    digest: [u8; 20],
    digest_salt: [u8; 32],
    digest_rounds: U32,
    uuid: [u8; 40],
    slots: [OnDiskSlot; 8],
}

#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct OnDiskSlot {
    state: U32,
    rounds: U32,
    salt: [u8; 32],
    /// Sector of the key material.
    material: U32,
    stripes: U32,
}

const _: () = assert!(size_of::<OnDisk>() == 592);

pub(crate) fn read(device: &dyn BlockDevice) -> Result<Header> {
    let corrupt = |detail: String| Error::corrupt("LUKS1 header", "byte 0", detail);
    let mut bytes = [0; size_of::<OnDisk>()];
    if device.len() < bytes.len() as u64 {
        return Err(corrupt("the device ends in it".into()));
    }
    device.read_at(0, &mut bytes)?;
    let header = OnDisk::ref_from_bytes(&bytes).map_err(|_| corrupt("too short".into()))?;
    let key = header.key_bytes.get() as usize;
    if key == 0 || key > MAX_KEY {
        return Err(corrupt(format!("a key of {key} bytes")));
    }
    let (cipher, mode) = (super::field(&header.cipher), super::field(&header.mode));
    let spec = Spec::parse(&format!("{cipher}-{mode}"));
    let hash = Hash::parse(&super::field(&header.hash));
    let mut slots = Vec::new();
    for slot in header.slots.iter().filter(|slot| slot.state.get() == ACTIVE) {
        let stripes = slot.stripes.get() as usize;
        if stripes == 0 || stripes > MAX_STRIPES {
            return Err(corrupt(format!("a key slot of {stripes} stripes")));
        }
        let kdf = |hash| Kdf::Pbkdf2 { hash, rounds: slot.rounds.get(), salt: slot.salt.to_vec() };
        slots.push(Slot {
            kdf: hash.clone().map(kdf),
            area_key: key,
            area_cipher: spec.clone(),
            area: u64::from(slot.material.get()) * SECTOR,
            stripes,
            stripe_hash: hash.clone(),
            key,
            digests: vec![0],
        });
    }
    let kdf = |hash| Kdf::Pbkdf2 {
        hash,
        rounds: header.digest_rounds.get(),
        salt: header.digest_salt.to_vec(),
    };
    let digest = Digest { kdf: hash.map(kdf), value: header.digest.to_vec() };
    let payload = u64::from(header.payload.get()) * SECTOR;
    let data = match spec {
        _ if payload == 0 => Err(Refusal::Detached),
        Err(refusal) => Err(refusal),
        Ok(cipher) => Ok(Data { offset: payload, size: None, sector: 512, cipher, iv_offset: 0 }),
    };
    Ok(Header {
        version: 1,
        uuid: super::field(&header.uuid),
        label: String::new(),
        slots,
        digests: vec![digest],
        data,
        damage: None,
    })
}
