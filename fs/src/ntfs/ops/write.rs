//! Operations that change something.

use super::super::attribute::Attribute;
use super::super::file_name::FileName;
use super::super::filetime::to_filetime;
use super::super::index;
use super::super::inode::Inode;
use super::super::layout::{
    DATA, FILE_NAME, INDEX_ROOT, REPARSE_POINT, STANDARD_INFORMATION, StandardInformation,
    attribute_flags, file_attributes, record_flags, records,
};
use super::super::save::UNNUMBERED;
use super::super::tree::{self, I30, Reader};
use super::super::units::RecordNumber;
use super::super::volume::Volume;
use super::names::{add_name, leave_indexes, refresh_entries, remove_name, touch, windows_name};
use super::owner::inherited_id;
use super::read::{self, directory, find, is_hidden};
use crate::error::{Error, Result, display_name};
use crate::filesystem::Times;
use zerocopy::IntoBytes;

/// The deepest tree that is followed upwards.
const MAX_DEPTH: usize = 10_000;
/// The stream in which WOF keeps what it compressed.
const WOF_STREAM: &str = "WofCompressedData";

/// A file or directory to be changed: none of the system's own.
fn changeable(volume: &Volume, number: RecordNumber) -> Result<Inode> {
    let inode = volume.inode(number)?;
    let of_the_system = number < records::FIRST_USER
        || inode.names()?.iter().any(|name| name.parent().number() == records::EXTEND);
    if of_the_system && number != records::ROOT {
        return Err(Error::Invalid(format!("MFT record {number} is one of NTFS' own files")));
    }
    Ok((*inode).clone())
}

fn not_found(name: &[u8]) -> Error {
    Error::NotFound(display_name(name))
}

/// Makes an empty file or directory.
pub fn make(
    volume: &mut Volume,
    dir: RecordNumber,
    name: &[u8],
    is_directory: bool,
) -> Result<RecordNumber> {
    let wide = windows_name(name)?;
    changeable(volume, dir)?;
    let parent = directory(volume, dir)?;
    if find(volume, &parent, name)?.is_some() {
        return Err(Error::Exists(display_name(name)));
    }
    let security_id = inherited_id(volume, &parent, is_directory)?.into();
    let record = volume.allocate_record(None)?;
    let now = to_filetime(volume.now).into();
    let information = StandardInformation {
        creation_time: now,
        last_modification_time: now,
        last_change_time: now,
        last_access_time: now,
        file_attributes: if is_directory { 0 } else { file_attributes::ARCHIVE }.into(),
        security_id,
        ..StandardInformation::default()
    };
    let content = if is_directory {
        let reader = Reader::new(volume, &parent, &I30);
        let head = index::root_header(&reader, &tree::root(&parent, &I30)?)?;
        let root = index::empty_root(
            FILE_NAME,
            head.CollationRule.get(),
            head.BytesPerIndexBuffer.get(),
            head.BlocksPerIndexBuffer,
        );
        Attribute::resident(INDEX_ROOT, &I30, root)
    } else {
        Attribute::resident(DATA, &[], Vec::new())
    };
    let standard = Attribute::resident(STANDARD_INFORMATION, &[], information.as_bytes().to_vec());
    let mut inode = Inode {
        number: record.number,
        sequence: record.head.sequence_number.get(),
        links: 0,
        flags: record_flags::IN_USE | if is_directory { record_flags::DIRECTORY } else { 0 },
        attributes: vec![standard, content],
        extensions: Vec::new(),
        list: None,
    };
    inode.attributes.iter_mut().for_each(|attribute| attribute.instance = UNNUMBERED);
    add_name(volume, &mut inode, dir, wide)?;
    volume.save(&mut inode)?;
    Ok(inode.number)
}

/// A regular file whose content is to change.
fn writable_file(volume: &Volume, number: RecordNumber) -> Result<Inode> {
    let inode = changeable(volume, number)?;
    if inode.is_directory() {
        return Err(Error::IsADirectory(format!("MFT record {number}")));
    }
    if read::stat(volume, number)?.file_type != crate::filesystem::FileType::Regular {
        return Err(Error::WrongType(format!("MFT record {number}"), "not a regular file"));
    }
    if inode.data().is_some_and(Attribute::is_encrypted) {
        return Err(Error::unsupported(
            format!("changing a file that is encrypted (EFS, MFT record {number})"),
            "decrypt it in Windows",
        ));
    }
    Ok(inode)
}

fn content_changed(volume: &mut Volume, inode: &mut Inode) -> Result<()> {
    touch(volume, inode, true)?;
    let mut information = inode.standard_information()?;
    let mut attributes = information.file_attributes.get() | file_attributes::ARCHIVE;
    let flags = inode.data().map_or(0, |data| data.flags);
    if flags & attribute_flags::COMPRESSED == 0 {
        attributes &= !file_attributes::COMPRESSED;
    }
    if flags & attribute_flags::SPARSE == 0 {
        attributes &= !file_attributes::SPARSE_FILE;
    }
    if !inode.is_reparse_point() {
        attributes &= !file_attributes::REPARSE_POINT;
    }
    information.file_attributes = attributes.into();
    inode.set_standard_information(&information);
    refresh_entries(volume, inode)?;
    volume.save(inode)
}

/// Takes the reparse point from a file whose content it keeps elsewhere: it gets a new one.
fn bring_home(volume: &mut Volume, inode: &mut Inode) -> Result<()> {
    if read::hidden_content(volume, inode)?.is_none() {
        return Ok(());
    }
    leave_indexes(volume, inode, false)?;
    let stream: Vec<u16> = WOF_STREAM.encode_utf16().collect();
    for (type_code, name) in [(REPARSE_POINT, &[][..]), (DATA, &stream)] {
        if let Some(attribute) = inode.remove(type_code, name) {
            volume.release_value(&attribute)?;
        }
    }
    Ok(())
}

/// Replaces the content of a file. Its alternate data streams stay.
pub fn replace(volume: &mut Volume, number: RecordNumber, content: &[u8]) -> Result<()> {
    let mut inode = writable_file(volume, number)?;
    bring_home(volume, &mut inode)?;
    volume.set_value(&mut inode, DATA, &[], content)?;
    content_changed(volume, &mut inode)
}

/// Adds to the end of a file.
pub fn append(volume: &mut Volume, number: RecordNumber, content: &[u8]) -> Result<()> {
    let mut inode = writable_file(volume, number)?;
    let thin = attribute_flags::COMPRESSED | attribute_flags::SPARSE;
    let data = read::regular(volume, &inode)?;
    if data.flags & thin != 0 {
        // It becomes an ordinary file.
        let mut whole = volume.whole_value(data, THIN_MAX)?;
        whole.extend_from_slice(content);
        volume.set_value(&mut inode, DATA, &[], &whole)?;
    } else {
        volume.append_value(&mut inode, DATA, &[], content)?;
    }
    content_changed(volume, &mut inode)
}

/// The longest compressed or sparse file that is added to: all of it is in memory then.
const THIN_MAX: u64 = 256 << 20;

/// Sets times.
pub fn set_times(volume: &mut Volume, number: RecordNumber, times: Times) -> Result<()> {
    let mut inode = changeable(volume, number)?;
    touch(volume, &mut inode, false)?;
    let mut information = inode.standard_information()?;
    if let Some(time) = times.atime {
        information.last_access_time = to_filetime(time).into();
    }
    if let Some(time) = times.mtime {
        information.last_modification_time = to_filetime(time).into();
    }
    inode.set_standard_information(&information);
    refresh_entries(volume, &mut inode)?;
    volume.save(&mut inode)
}

/// The file that a name names, and the name.
fn named(volume: &Volume, dir: RecordNumber, name: &[u8]) -> Result<(Inode, FileName)> {
    changeable(volume, dir)?;
    let parent = directory(volume, dir)?;
    let found = find(volume, &parent, name)?.filter(|(reference, _)| !is_hidden(dir, *reference));
    let (reference, key) = found.ok_or_else(|| not_found(name))?;
    volume.referenced(reference)?;
    Ok((changeable(volume, reference.number())?, key))
}

/// Removes a name of a file, which goes with its last one.
pub fn unlink(volume: &mut Volume, dir: RecordNumber, name: &[u8]) -> Result<()> {
    let (inode, key) = named(volume, dir, name)?;
    // A junction is a directory on disk, and goes as the link that it looks like.
    if inode.is_directory()
        && read::stat(volume, inode.number)?.file_type == crate::filesystem::FileType::Directory
    {
        return Err(Error::IsADirectory(display_name(name)));
    }
    drop_name(volume, inode, dir, &key)
}

/// Removes an empty directory.
pub fn rmdir(volume: &mut Volume, dir: RecordNumber, name: &[u8]) -> Result<()> {
    let (inode, key) = named(volume, dir, name)?;
    if read::stat(volume, inode.number)?.file_type != crate::filesystem::FileType::Directory {
        return Err(Error::NotADirectory(display_name(name)));
    }
    if !index::is_empty(&Reader::new(volume, &inode, &I30), &volume.upcase)? {
        return Err(Error::NotEmpty(display_name(name)));
    }
    drop_name(volume, inode, dir, &key)
}

fn drop_name(
    volume: &mut Volume,
    mut inode: Inode,
    dir: RecordNumber,
    key: &FileName,
) -> Result<()> {
    remove_name(volume, &mut inode, dir, key)?;
    if inode.attributes.iter().any(|attribute| attribute.type_code == FILE_NAME) {
        touch(volume, &mut inode, false)?;
        refresh_entries(volume, &mut inode)?;
        return volume.save(&mut inode);
    }
    leave_indexes(volume, &inode, true)?;
    for attribute in inode.attributes.iter().chain(&inode.list) {
        volume.release_value(attribute)?;
    }
    for &number in inode.extensions.iter().chain([&inode.number]) {
        volume.release_record(number)?;
    }
    Ok(())
}

/// Moves a name, replacing what has the new one.
pub fn rename(
    volume: &mut Volume,
    from_dir: RecordNumber,
    from: &[u8],
    to_dir: RecordNumber,
    to: &[u8],
) -> Result<()> {
    let wide = windows_name(to)?;
    let (inode, key) = named(volume, from_dir, from)?;
    changeable(volume, to_dir)?;
    let target_dir = directory(volume, to_dir)?;
    if inode.is_directory() && is_above(volume, inode.number, to_dir)? {
        return Err(Error::Invalid(format!(
            "{}: a directory cannot be moved into itself",
            display_name(from)
        )));
    }
    if let Some((reference, other)) = find(volume, &target_dir, to)? {
        if reference.number() == inode.number {
            let own = from_dir == to_dir
                && (volume.upcase.same(&other.name, &key.name)
                    || other.namespace() == super::super::file_name::Namespace::Dos);
            if !own || other.name == wide {
                return Ok(());
            }
        } else {
            let is_directory = |number: RecordNumber| -> Result<bool> {
                Ok(read::stat(volume, number)?.file_type == crate::filesystem::FileType::Directory)
            };
            match (is_directory(inode.number)?, is_directory(reference.number())?) {
                (true, true) => rmdir(volume, to_dir, to)?,
                (false, false) => unlink(volume, to_dir, to)?,
                (true, false) => return Err(Error::NotADirectory(display_name(to))),
                (false, true) => return Err(Error::IsADirectory(display_name(to))),
            }
        }
    }
    // The replaced file may have been another name of this very file's directory: read it again.
    let (mut inode, key) = named(volume, from_dir, from)?;
    remove_name(volume, &mut inode, from_dir, &key)?;
    add_name(volume, &mut inode, to_dir, wide)?;
    touch(volume, &mut inode, false)?;
    refresh_entries(volume, &mut inode)?;
    volume.save(&mut inode)
}

/// Whether `number` is `dir` or a directory above it.
fn is_above(volume: &Volume, number: RecordNumber, dir: RecordNumber) -> Result<bool> {
    let mut at = dir;
    for _ in 0..MAX_DEPTH {
        if at == number {
            return Ok(true);
        }
        if at == records::ROOT {
            return Ok(false);
        }
        let inode = directory(volume, at)?;
        match inode.names()?.first() {
            Some(name) => at = name.parent().number(),
            None => return Err(inode.corrupt("it has no name")),
        }
    }
    Err(Error::corrupt("directory", format!("record {dir}"), "it does not lead to the root"))
}
