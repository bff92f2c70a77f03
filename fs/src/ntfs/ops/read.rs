//! Looking: names, stat, link targets, streams.

use std::sync::Arc;

use super::super::attribute::Attribute;
use super::super::file_name::{FileName, Namespace};
use super::super::filetime::from_filetime;
use super::super::index::{self, key_name};
use super::super::inode::Inode;
use super::super::layout::{DATA, REPARSE_POINT, Reference, records};
use super::super::reparse::{self, Reparse};
use super::super::tree::{I30, Reader};
use super::super::units::RecordNumber;
use super::super::volume::Volume;
use crate::error::{Error, Result, display_name};
use crate::filesystem::{DirEntry, FileType, NodeId, Stat};
use crate::num::{to_u32, to_u64};
use crate::utf16::{NAME_MAX, to_utf8, to_utf16};

/// A volume is looked at as the one that Windows runs from: links to this drive stay in it.
const DRIVE: u8 = b'C';
/// Bytes of a reparse point at most, as Windows has it.
const REPARSE_MAX: u64 = 16 << 10;
/// The mode that all directories seem to have.
const DIRECTORY_MODE: u16 = 0o755;
/// The mode that all files seem to have.
const FILE_MODE: u16 = 0o644;

/// A directory; anything else is an error.
pub fn directory(volume: &Volume, number: RecordNumber) -> Result<Arc<Inode>> {
    let inode = volume.inode(number)?;
    if !inode.is_directory() {
        return Err(Error::NotADirectory(format!("MFT record {number}")));
    }
    Ok(inode)
}

/// The record that a directory names so, exactly or but for case.
pub fn find(volume: &Volume, dir: &Inode, name: &[u8]) -> Result<Option<(Reference, FileName)>> {
    let Ok(name) = to_utf16(name) else { return Ok(None) };
    if name.len() > NAME_MAX {
        return Err(Error::NameTooLong(display_name(&to_utf8(&name))));
    }
    let entry = index::find_name(&Reader::new(volume, dir, &I30), &volume.upcase, &name)?;
    entry
        .map(|entry| match FileName::parse(entry.key()) {
            Some(key) => Ok((Reference(entry.reference()), key)),
            None => Err(dir.corrupt("an entry of its index has no name")),
        })
        .transpose()
}

/// Whether an entry is one of the system's own files in the root directory.
pub fn is_hidden(dir: RecordNumber, reference: Reference) -> bool {
    dir == records::ROOT && reference.number() < records::FIRST_VISIBLE
}

/// The file that a name names.
pub fn lookup(volume: &Volume, dir: RecordNumber, name: &[u8]) -> Result<Option<RecordNumber>> {
    let dir = directory(volume, dir)?;
    let found =
        find(volume, &dir, name)?.filter(|(reference, _)| !is_hidden(dir.number, *reference));
    match found {
        Some((reference, _)) => Ok(Some(volume.referenced(reference)?.number)),
        None => Ok(None),
    }
}

/// All names in a directory but the short ones.
pub fn readdir(volume: &Volume, dir: RecordNumber) -> Result<Vec<DirEntry>> {
    let dir = directory(volume, dir)?;
    let mut out = Vec::new();
    index::walk(&Reader::new(volume, &dir, &I30), &volume.upcase, &mut |entry| {
        let Some(key) = FileName::parse(entry.key()) else {
            return Err(dir.corrupt("an entry of its index has no name"));
        };
        let reference = Reference(entry.reference());
        if key.namespace() != Namespace::Dos && !is_hidden(dir.number, reference) {
            let name: Vec<u16> = key_name(entry.key()).collect();
            out.push(DirEntry {
                name: to_utf8(&name),
                node: NodeId(reference.number().0),
                file_type: None,
            });
        }
        Ok(true)
    })?;
    Ok(out)
}

/// The reparse point of a file, where it has one.
fn reparse_point(volume: &Volume, inode: &Inode) -> Result<Option<Reparse>> {
    let Some(point) = inode.find(REPARSE_POINT, &[]) else { return Ok(None) };
    let value = volume.whole_value(point, REPARSE_MAX)?;
    reparse::parse(&value)
        .map(Some)
        .map_err(|text| Error::corrupt("reparse point", format!("record {}", inode.number), text))
}

/// The target of a symbolic link or junction; `None` for files that are neither. A target on another
/// volume is shown as Windows has it, and leads nowhere.
fn link_target(volume: &Volume, inode: &Inode) -> Result<Option<Vec<u8>>> {
    Ok(match reparse_point(volume, inode)? {
        Some(Reparse::Link(target)) => {
            Some(target.link_text(DRIVE).unwrap_or_else(|| target.display().into_bytes()))
        }
        _ => None,
    })
}

/// Whether the content of a file is not in its `$DATA`, and which feature keeps it.
pub fn hidden_content(volume: &Volume, inode: &Inode) -> Result<Option<&'static str>> {
    Ok(match reparse_point(volume, inode)? {
        Some(Reparse::Elsewhere(feature)) => Some(feature),
        _ => None,
    })
}

/// The answer of `lstat`. NTFS has no modes, owners and groups of that kind: these are constants.
pub fn stat(volume: &Volume, number: RecordNumber) -> Result<Stat> {
    let inode = volume.inode(number)?;
    let information = inode.standard_information()?;
    let target = match inode.is_reparse_point() {
        true => link_target(volume, &inode)?,
        false => None,
    };
    let (file_type, mode, size) = match &target {
        Some(target) => (FileType::Symlink, 0o777, to_u64(target.len())),
        None if inode.is_directory() => (FileType::Directory, DIRECTORY_MODE, 0),
        None => (FileType::Regular, FILE_MODE, inode.data().map_or(0, Attribute::size)),
    };
    let links = inode.names()?.iter().filter(|name| name.namespace() != Namespace::Dos).count();
    Ok(Stat {
        node: NodeId(number.0),
        file_type,
        mode,
        uid: 0,
        gid: 0,
        links: to_u32(links),
        size,
        blocks: clusters_taken(volume, &inode) * volume.geometry.cluster / 512,
        device: None,
        atime: from_filetime(information.last_access_time.get()),
        mtime: from_filetime(information.last_modification_time.get()),
        ctime: from_filetime(information.last_change_time.get()),
    })
}

fn clusters_taken(volume: &Volume, inode: &Inode) -> u64 {
    let taken = inode.attributes.iter().filter_map(Attribute::mapping);
    // A file's clusters are at most those of the volume, many times over on a hostile one.
    taken
        .map(|mapping| mapping.runs.allocated())
        .fold(0, u64::saturating_add)
        .min(volume.geometry.clusters)
}

/// Reads the unnamed `$DATA` of a regular file.
pub fn read(volume: &Volume, number: RecordNumber, offset: u64, buf: &mut [u8]) -> Result<usize> {
    let inode = volume.inode(number)?;
    let file = regular(volume, &inode)?;
    volume.read_value(file, offset, buf)
}

/// The unnamed `$DATA` of a regular file whose content is what it seems to be.
pub fn regular<'a>(volume: &Volume, inode: &'a Inode) -> Result<&'a Attribute> {
    let place = || format!("MFT record {}", inode.number);
    if inode.is_directory() {
        return Err(Error::IsADirectory(place()));
    }
    if inode.is_reparse_point() {
        if link_target(volume, inode)?.is_some() {
            return Err(Error::WrongType(place(), "not a regular file"));
        }
        if let Some(feature) = hidden_content(volume, inode)? {
            return Err(Error::unsupported(
                format!("reading a file (record {}) kept by {feature}", inode.number),
                "have Windows write it as an ordinary file first",
            ));
        }
    }
    inode.data().ok_or_else(|| inode.corrupt("it has no $DATA"))
}

/// The target of a symbolic link or junction.
pub fn read_link(volume: &Volume, number: RecordNumber) -> Result<Vec<u8>> {
    let inode = volume.inode(number)?;
    link_target(volume, &inode)?
        .ok_or_else(|| Error::WrongType(format!("MFT record {number}"), "not a symbolic link"))
}

/// Names of the alternate data streams of a file or directory, and their sizes.
pub fn streams(volume: &Volume, number: RecordNumber) -> Result<Vec<(Vec<u8>, u64)>> {
    let inode = volume.inode(number)?;
    let named = inode.attributes.iter().filter(|a| a.type_code == DATA && !a.name.is_empty());
    Ok(named.map(|a| (to_utf8(&a.name), a.size())).collect())
}

/// Reads an alternate data stream.
pub fn read_stream(
    volume: &Volume,
    number: RecordNumber,
    name: &[u8],
    offset: u64,
    buf: &mut [u8],
) -> Result<usize> {
    let inode = volume.inode(number)?;
    let wanted = to_utf16(name)?;
    let named = |a: &&Attribute| a.type_code == DATA && volume.upcase.same(&a.name, &wanted);
    let stream = inode.attributes.iter().find(named).filter(|_| !wanted.is_empty());
    let missing = || Error::NotFound(format!("stream {} of record {number}", display_name(name)));
    volume.read_value(stream.ok_or_else(missing)?, offset, buf)
}
