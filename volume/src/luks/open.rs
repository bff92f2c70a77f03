//! Containers: read the header, try the key slots, make the device.

use std::sync::Arc;

use snf_fs::BlockDevice;
use zeroize::Zeroizing;

use super::cipher::{IV_UNIT, Spec};
use super::device::LuksDevice;
use super::hash::Hash;
use super::kdf::{Kdf, Key, Limits, empty_key};
use super::{MAGIC, header1, header2, split};
use crate::{Error, Refusal, Result};

/// Most bytes of a key.
pub(crate) const MAX_KEY: usize = 64;
/// Most stripes of a key slot. cryptsetup always makes 4,000.
pub(crate) const MAX_STRIPES: usize = 8000;

/// Whether the device begins with a header of LUKS. A second header of LUKS2 alone does not count:
/// it stays behind when a container is overwritten with a file system. [`Luks::open`] takes it.
///
/// # Errors
/// [`Error::Device`].
pub fn is_luks(device: &dyn BlockDevice) -> Result<bool> {
    let mut magic = [0; MAGIC.len()];
    if device.len() < magic.len() as u64 {
        return Ok(false);
    }
    device.read_at(0, &mut magic)?;
    Ok(magic == MAGIC || magic == *header1::REENCRYPTING)
}

/// A key slot: what turns a passphrase into the container's key.
pub(crate) struct Slot {
    pub(crate) kdf: Result<Kdf, Refusal>,
    /// Bytes of the key that encrypts the key material.
    pub(crate) area_key: usize,
    pub(crate) area_cipher: Result<Spec, Refusal>,
    /// First byte of the key material.
    pub(crate) area: u64,
    pub(crate) stripes: usize,
    pub(crate) stripe_hash: Result<Hash, Refusal>,
    /// Bytes of the container's key.
    pub(crate) key: usize,
    /// The number of the digest that proves the key.
    pub(crate) digests: Vec<usize>,
}

/// How the container's key is recognised.
pub(crate) struct Digest {
    pub(crate) kdf: Result<Kdf, Refusal>,
    pub(crate) value: Vec<u8>,
}

/// The encrypted data.
#[derive(Clone, Debug)]
pub(crate) struct Data {
    pub(crate) offset: u64,
    /// Bytes; `None` goes on to the end of the device.
    pub(crate) size: Option<u64>,
    pub(crate) sector: usize,
    pub(crate) cipher: Spec,
    /// Number of the first sector for the initialisation vector.
    pub(crate) iv_offset: u64,
}

/// The facts that both versions of the header have.
pub(crate) struct Header {
    pub(crate) version: u16,
    pub(crate) uuid: String,
    pub(crate) label: String,
    /// In the order in which they are tried.
    pub(crate) slots: Vec<Slot>,
    pub(crate) digests: Vec<Digest>,
    pub(crate) data: Result<Data, Refusal>,
    /// LUKS2: the first or the second header is damaged, and the other one counts.
    pub(crate) damage: Option<Error>,
}

/// A LUKS container that is still locked.
///
/// ```no_run
/// # fn open(disk: std::sync::Arc<dyn snf_fs::BlockDevice>) -> snf_volume::Result<()> {
/// use snf_volume::luks::{Limits, Luks};
///
/// let container = Luks::open(disk)?;
/// println!("{} has {} key slots", container.uuid(), container.key_slots());
/// let content = container.unlock(b"a passphrase", &Limits::default())?;
/// # Ok(())
/// # }
/// ```
pub struct Luks {
    device: Arc<dyn BlockDevice>,
    header: Header,
}

impl std::fmt::Debug for Luks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Luks")
            .field("version", &self.header.version)
            .field("uuid", &self.header.uuid)
            .finish_non_exhaustive()
    }
}

impl Luks {
    /// Reads the header. A container with features that are not supported can be opened here, so
    /// that it is listed; [`Luks::unlock`] refuses it.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is no header; [`Error::Corrupt`] and [`Error::Json`] when no
    /// header is whole; [`Error::Refused`] for versions other than 1 and 2; [`Error::Device`].
    pub fn open(device: Arc<dyn BlockDevice>) -> Result<Self> {
        let mut start = [0; 8];
        if device.len() >= 8 {
            device.read_at(0, &mut start)?;
        }
        let header = if start.starts_with(header1::REENCRYPTING) {
            return Err(Error::refused("the LUKS container", Refusal::Reencryption));
        } else if !start.starts_with(&MAGIC) {
            if !header2::second_exists(&*device)? {
                return Err(Error::NotFound("LUKS header".into()));
            }
            header2::read(&*device)?
        } else {
            match u16::from_be_bytes([start[6], start[7]]) {
                1 => header1::read(&*device)?,
                2 => header2::read(&*device)?,
                // The version of a damaged first header says nothing.
                _ if header2::second_exists(&*device)? => header2::read(&*device)?,
                other => {
                    let refusal = Refusal::LuksVersion(other);
                    return Err(Error::refused("the LUKS container", refusal));
                }
            }
        };
        Ok(Self { device, header })
    }

    /// 1 or 2.
    pub fn version(&self) -> u16 {
        self.header.version
    }

    /// The UUID as the header has it.
    pub fn uuid(&self) -> &str {
        &self.header.uuid
    }

    /// The label; empty for LUKS1 and for containers without one.
    pub fn label(&self) -> &str {
        &self.header.label
    }

    /// The name that an installer's crypttab gives to the open container: `luks-UUID`.
    pub fn usual_name(&self) -> String {
        format!("luks-{}", self.header.uuid)
    }

    /// Key slots in use.
    pub fn key_slots(&self) -> usize {
        self.header.slots.len()
    }

    /// The damage of one header of LUKS2 while the other one is whole.
    pub fn damage(&self) -> Option<&Error> {
        self.header.damage.as_ref()
    }

    /// The feature for which the container will not be unlocked with any key.
    pub fn refusal(&self) -> Option<&Refusal> {
        self.header.data.as_ref().err()
    }

    fn subject(&self) -> String {
        format!("LUKS container {}", self.header.uuid)
    }

    /// Tries the secret (a passphrase, or the bytes of a key file) with every key slot.
    ///
    /// # Errors
    /// [`Error::WrongKey`]; [`Error::Refused`] when a feature is not supported or when a slot that
    /// might fit costs more than `limits`; [`Error::Corrupt`]; [`Error::Device`].
    pub fn unlock(&self, secret: &[u8], limits: &Limits) -> Result<LuksDevice> {
        let data = self.header.data.clone();
        let data = data.map_err(|refusal| Error::refused(self.subject(), refusal))?;
        let mut failure = None;
        for slot in &self.header.slots {
            match self.try_slot(slot, secret, limits) {
                Ok(Some(key)) => {
                    let cipher = data.cipher.with_key(&key);
                    let cipher =
                        cipher.map_err(|refusal| Error::refused(self.subject(), refusal))?;
                    return LuksDevice::new(self.device.clone(), &data, cipher);
                }
                Ok(None) => {}
                Err(error @ Error::Device(_)) => return Err(error),
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        Err(failure.unwrap_or_else(|| Error::WrongKey(self.subject())))
    }

    /// The container's key, if the secret is that of this slot.
    fn try_slot(&self, slot: &Slot, secret: &[u8], limits: &Limits) -> Result<Option<Key>> {
        let refused = |refusal: &Refusal| Error::refused(self.subject(), refusal.clone());
        let kdf = slot.kdf.as_ref().map_err(refused)?;
        let hash = *slot.stripe_hash.as_ref().map_err(refused)?;
        let spec = slot.area_cipher.as_ref().map_err(refused)?;
        let size = slot.key * slot.stripes;
        // At most MAX_KEY * MAX_STRIPES bytes: half a MiB.
        let mut material = Zeroizing::new(vec![0; size.next_multiple_of(IV_UNIT as usize)]);
        let end = slot.area.checked_add(material.len() as u64);
        if end.is_none_or(|end| end > self.device.len()) {
            let position = format!("byte {}", slot.area);
            return Err(Error::corrupt("key slot", position, "it lies beyond the end"));
        }
        let mut area_key = empty_key(slot.area_key);
        kdf.derive(secret, limits, &mut area_key)?;
        let cipher = spec.with_key(&area_key).map_err(|refusal| refused(&refusal))?;
        self.device.read_at(slot.area, &mut material)?;
        cipher.decrypt(&mut material, IV_UNIT as usize, 0);
        let key = split::merge(&material[..size], slot.key, hash);
        for digest in slot.digests.iter().filter_map(|index| self.header.digests.get(*index)) {
            let kdf = digest.kdf.as_ref().map_err(refused)?;
            let mut value = empty_key(digest.value.len());
            kdf.derive(&key, limits, &mut value)?;
            // The digest is no secret, so the time of the comparison tells nothing.
            if *value == digest.value {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }
}
