//! The rights to a new file: the security descriptor that it inherits, and its place.

use super::super::attribute::{Attribute, Body};
use super::super::inode::Inode;
use super::super::layout::{DATA, SECURITY_DESCRIPTOR, records};
use super::super::mft::end_of;
use super::super::pieces::Step;
use super::super::security::{self, Descriptor, SecureIndex, SecureStore};
use super::super::tree::Editor;
use super::super::volume::Volume;
use crate::error::{Error, Result};
use crate::num::{to_u64, to_usize};

/// `$SDS`.
const SDS: [u16; 4] = [0x24, 0x53, 0x44, 0x53];
const SII: [u16; 4] = [0x24, 0x53, 0x49, 0x49];
const SDH: [u16; 4] = [0x24, 0x53, 0x44, 0x48];
/// Bytes that are written whole.
const SECTOR: u64 = 512;
/// A security descriptor has at most so many bytes.
const DESCRIPTOR_MAX: u64 = 64 << 10;
/// How far beyond its end `$SDS` is written to at most: one piece and its copy.
const JUMP_MAX: u64 = 4 << 18;

/// `$Secure` of a volume.
struct Secure<'v> {
    volume: &'v mut Volume,
    inode: Inode,
}

impl Secure<'_> {
    fn sds(&self) -> Result<&Attribute> {
        self.inode.find(DATA, &SDS).ok_or_else(|| self.inode.corrupt("$Secure has no $SDS"))
    }
}

impl SecureStore for Secure<'_> {
    type Index<'a>
        = Editor<'a>
    where
        Self: 'a;

    fn index(&mut self, which: SecureIndex) -> Result<Editor<'_>> {
        let name = match which {
            SecureIndex::Sii => &SII,
            SecureIndex::Sdh => &SDH,
        };
        Ok(Editor::new(self.volume, &mut self.inode, name))
    }

    fn read_sds(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.volume.read_metadata(self.sds()?, offset, buf)
    }

    fn write_sds(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut sds = self.sds()?.clone();
        let (Body::Mapped(mapping), 0) = (&mut sds.body, sds.flags) else {
            return Err(self.inode.corrupt("$SDS is resident, compressed or sparse"));
        };
        let end = offset.saturating_add(to_u64(bytes.len()));
        let old_size = mapping.size;
        if end > old_size.saturating_add(JUMP_MAX) {
            return Err(self.inode.corrupt(format!("$SDS ends at {old_size}, before {offset}")));
        }
        let have = mapping.runs.clusters();
        let wanted = self.volume.geometry.clusters_for(end).saturating_sub(have);
        let more = self.volume.allocate(wanted, end_of(mapping))?;
        more.iter().for_each(|run| mapping.runs.push(run));
        // From the sector in which it ended, or the one in which the descriptor begins, up to a
        // whole sector after it. All that is in use there is written as it was.
        let from = offset.min(old_size) / SECTOR * SECTOR;
        let to = end.next_multiple_of(SECTOR);
        let mut all = vec![0; to_usize(to - from)];
        let there = to_usize(old_size.saturating_sub(from).min(to - from));
        let runs = mapping.runs.clone();
        self.volume.read_runs(&runs, from, &mut all[..there])?;
        all[to_usize(offset - from)..][..bytes.len()].copy_from_slice(bytes);
        self.volume.write_runs(&runs, from, &all, Step::Fresh)?;
        mapping.size = old_size.max(end);
        mapping.valid = mapping.size;
        if let Some(attribute) = self.inode.find_mut(DATA, &SDS) {
            *attribute = sds;
        }
        Ok(())
    }
}

/// The security id of a new file or directory in `parent`.
pub fn inherited_id(volume: &mut Volume, parent: &Inode, is_directory: bool) -> Result<u32> {
    let own = parent.standard_information()?.security_id.get();
    if let Some(&id) = volume.space.inherited.get(&(own, is_directory)).filter(|_| own != 0) {
        return Ok(id);
    }
    let upcase = volume.upcase.clone();
    let kept = match parent.find(SECURITY_DESCRIPTOR, &[]) {
        Some(attribute) => Some(volume.whole_value(attribute, DESCRIPTOR_MAX)?),
        None => None,
    };
    let inode = (*volume.inode(records::SECURE)?).clone();
    let mut secure = Secure { volume, inode };
    let bytes = match kept {
        Some(bytes) => Some(bytes),
        None => security::descriptor(&mut secure, &upcase, own)?,
    };
    let Some(bytes) = bytes else {
        return Err(parent.corrupt(format!("its security id {own:#x} is not in $Secure")));
    };
    let descriptor = Descriptor::parse(&bytes).map_err(|text| {
        Error::corrupt("security descriptor", format!("record {}", parent.number), text)
    })?;
    let new = security::inherit(&descriptor, is_directory).to_bytes().ok_or_else(|| {
        Error::NoSpace(format!(
            "the rights that record {} gives to new files are too long",
            parent.number
        ))
    })?;
    let id = security::intern(&mut secure, &upcase, &new)?;
    let Secure { volume, mut inode } = secure;
    volume.save(&mut inode)?;
    volume.space.inherited.insert((own, is_directory), id);
    Ok(id)
}
