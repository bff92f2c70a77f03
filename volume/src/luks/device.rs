//! An unlocked container as a block device.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use snf_fs::{BlockDevice, DeviceError};

use super::cipher::{Cipher, IV_UNIT};
use super::open::Data;
use crate::{Error, Result};

/// Most bytes that are encrypted and written at once.
const CHUNK: usize = 256 << 10;

/// The content of a LUKS container, in the clear. Parts of sectors are read, changed and written
/// back. A container whose size is dynamic grows with its device.
pub struct LuksDevice {
    device: Arc<dyn BlockDevice>,
    offset: u64,
    size: Option<u64>,
    sector: usize,
    cipher: Cipher,
    iv_offset: u64,
    /// Held while part of a sector is changed.
    partial: Mutex<()>,
}

impl std::fmt::Debug for LuksDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LuksDevice")
            .field("offset", &self.offset)
            .field("size", &self.size)
            .field("sector", &self.sector)
            .finish_non_exhaustive()
    }
}

impl LuksDevice {
    pub(crate) fn new(device: Arc<dyn BlockDevice>, data: &Data, cipher: Cipher) -> Result<Self> {
        if data.offset > device.len() {
            let position = format!("byte {}", data.offset);
            return Err(Error::corrupt("LUKS header", position, "the data lie beyond the end"));
        }
        Ok(Self {
            device,
            offset: data.offset,
            size: data.size,
            sector: data.sector,
            cipher,
            iv_offset: data.iv_offset,
            partial: Mutex::new(()),
        })
    }

    /// First byte of the encrypted data on the device below.
    pub fn data_offset(&self) -> u64 {
        self.offset
    }

    /// Whether the container ends where its device ends, so that it grows with it.
    pub fn is_dynamic(&self) -> bool {
        self.size.is_none()
    }

    fn number(&self, offset: u64) -> u64 {
        self.iv_offset.wrapping_add(offset / IV_UNIT)
    }

    /// Reads whole sectors.
    fn read_sectors(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.device.read_at(self.offset + offset, buf)?;
        self.cipher.decrypt(buf, self.sector, self.number(offset));
        Ok(())
    }

    /// Encrypts whole sectors in place and writes them; `free` says that nothing refers to what is
    /// there ([`BlockDevice::write_free`]).
    fn write_sectors(&self, offset: u64, buf: &mut [u8], free: bool) -> Result<(), DeviceError> {
        self.cipher.encrypt(buf, self.sector, self.number(offset));
        match free {
            true => self.device.write_free(self.offset + offset, buf),
            false => self.device.write_at(self.offset + offset, buf),
        }
    }

    fn write(&self, offset: u64, buf: &[u8], free: bool) -> Result<(), DeviceError> {
        self.check("write", offset, buf.len())?;
        let _guard = self.partial.lock().unwrap_or_else(PoisonError::into_inner);
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let (within, count, whole) = self.step(at, buf.len() - done);
            let part = &buf[done..done + count];
            if whole {
                self.write_sectors(at, &mut part.to_vec(), free)?;
            } else {
                // The rest of the sector may be in use.
                let start = at - within as u64;
                let mut sector = vec![0; self.sector];
                self.read_sectors(start, &mut sector)?;
                sector[within..within + count].copy_from_slice(part);
                self.write_sectors(start, &mut sector, false)?;
            }
            done += count;
        }
        Ok(())
    }

    fn check(
        &self,
        operation: &'static str,
        offset: u64,
        length: usize,
    ) -> Result<(), DeviceError> {
        match offset.checked_add(length as u64) {
            Some(end) if end <= self.len() => Ok(()),
            _ => {
                let source =
                    io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end of the container");
                Err(DeviceError { operation, offset, length, source })
            }
        }
    }

    /// How much from `offset` on can be handled at once: `None` for part of a sector, with where
    /// in it the part begins and its length.
    fn step(&self, offset: u64, left: usize) -> (usize, usize, bool) {
        let within = (offset % self.sector as u64) as usize;
        if within == 0 && left >= self.sector {
            (0, (left / self.sector * self.sector).min(CHUNK), true)
        } else {
            (within, left.min(self.sector - within), false)
        }
    }
}

impl BlockDevice for LuksDevice {
    fn len(&self) -> u64 {
        let sector = self.sector as u64;
        let rest = self.device.len().saturating_sub(self.offset) / sector * sector;
        self.size.map_or(rest, |size| size.min(rest))
    }

    fn sector_size(&self) -> u32 {
        // 512 to 4096.
        self.device.sector_size().max(self.sector as u32)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.check("read", offset, buf.len())?;
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            let (within, count, whole) = self.step(at, buf.len() - done);
            let part = &mut buf[done..done + count];
            if whole {
                self.read_sectors(at, part)?;
            } else {
                let mut sector = vec![0; self.sector];
                self.read_sectors(at - within as u64, &mut sector)?;
                part.copy_from_slice(&sector[within..within + count]);
            }
            done += count;
        }
        Ok(())
    }

    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        self.write(offset, buf, false)
    }

    fn write_free(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        self.write(offset, buf, true)
    }

    fn flush(&self) -> Result<(), DeviceError> {
        self.device.flush()
    }
}
