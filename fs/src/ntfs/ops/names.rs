//! Names: given to files, taken away, and the copies of sizes and times that directories keep
//! beside them.

use super::super::attribute::{Attribute, Body};
use super::super::file_name::{FileName, Namespace};
use super::super::filetime::to_filetime;
use super::super::index::{self, Entry, View};
use super::super::inode::Inode;
use super::super::layout::{
    FILE_NAME, FileNameHeader, INDEX_ROOT, REPARSE_POINT, Reference, file_attributes, records,
};
use super::super::save::UNNUMBERED;
use super::super::tree::{Editor, I30, Reader};
use super::super::units::RecordNumber;
use super::super::volume::Volume;
use crate::error::{Error, Result, display_name};
use crate::shortname::{is_short, short_name};
use crate::utf16::{NAME_MAX, check_windows_name, to_utf16};

/// Entries of a directory that are looked at to see whether the volume makes short names.
const SAMPLE: usize = 4096;

/// A name as Windows takes it.
pub fn windows_name(name: &[u8]) -> Result<Vec<u16>> {
    let wide = to_utf16(name)?;
    if wide.len() > NAME_MAX {
        return Err(Error::NameTooLong(display_name(name)));
    }
    match check_windows_name(&wide) {
        Ok(()) => Ok(wide),
        Err(why) => Err(Error::Invalid(format!("{}: {why}", display_name(name)))),
    }
}

/// Notes that a file's content or names changed.
pub fn touch(volume: &Volume, inode: &mut Inode, content: bool) -> Result<()> {
    let mut information = inode.standard_information()?;
    let now = to_filetime(volume.now).into();
    information.last_change_time = now;
    if content {
        information.last_modification_time = now;
    }
    inode.set_standard_information(&information);
    Ok(())
}

/// Brings what a name repeats of its file up to date.
fn refresh(volume: &Volume, inode: &Inode, name: &mut FileName) -> Result<()> {
    let information = inode.standard_information()?;
    let head = &mut name.head;
    head.creation_time = information.creation_time;
    head.last_modification_time = information.last_modification_time;
    head.last_change_time = information.last_change_time;
    head.last_access_time = information.last_access_time;
    let is_directory = inode.is_directory();
    let data = inode.data().filter(|_| !is_directory);
    head.allocated_length = data.map_or(0, |data| data.allocated(&volume.geometry)).into();
    head.file_size = data.map_or(0, Attribute::size).into();
    let directory = if is_directory { file_attributes::DIRECTORY } else { 0 };
    let attributes = information.file_attributes.get();
    if head.file_attributes.get() & file_attributes::REPARSE_POINT != 0
        && attributes & file_attributes::REPARSE_POINT == 0
    {
        head.reparse_tag = 0.into();
    }
    head.file_attributes = (attributes | directory).into();
    Ok(())
}

/// Whether directories of this volume have short names beside long ones: the root has, or this one.
fn makes_short_names(volume: &mut Volume, dir: &Inode) -> Result<bool> {
    if let Some(&known) = volume.space.short_names.get(&dir.number) {
        return Ok(known);
    }
    let found = has_short_names(volume, dir)?;
    volume.space.short_names.insert(dir.number, found);
    Ok(found)
}

fn has_short_names(volume: &Volume, dir: &Inode) -> Result<bool> {
    let root = volume.inode(records::ROOT)?;
    for inode in [&*root, dir] {
        let (mut seen, mut found) = (0, false);
        let mut look = |entry: View<'_>| {
            let of_a_user = Reference(entry.reference()).number() >= records::FIRST_USER;
            let name = FileName::parse(entry.key()).filter(|_| of_a_user);
            found |= name.is_some_and(|name| name.namespace() == Namespace::Dos);
            seen += 1;
            Ok(!found && seen < SAMPLE)
        };
        index::walk(&Reader::new(volume, inode, &I30), &volume.upcase, &mut look)?;
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Gives a file a name in a directory, and a short one where the volume makes those. The directory
/// is saved, the file is not.
pub fn add_name(
    volume: &mut Volume,
    inode: &mut Inode,
    dir: RecordNumber,
    name: Vec<u16>,
) -> Result<()> {
    let mut parent = (*super::read::directory(volume, dir)?).clone();
    let mut names = Vec::new();
    if is_short(&name) {
        names.push((name, Namespace::Both));
    } else {
        let short = if makes_short_names(volume, &parent)? {
            let reader = Reader::new(volume, &parent, &I30);
            short_name(&name, |short| {
                Ok(index::find_name(&reader, &volume.upcase, short)?.is_some())
            })?
        } else {
            None
        };
        // A Win32 name belongs to a DOS name: without one, ntfs-3g finds no way to remove it. Posix is
        // what ntfs-3g and Linux give to single names, and Windows to further hard links.
        let single = short.is_none();
        names.push((name, if single { Namespace::Posix } else { Namespace::Win32 }));
        names.extend(short.map(|short| (short, Namespace::Dos)));
    }
    for (name, namespace) in names {
        let mut name = FileName { head: empty_head(&parent), name };
        name.set_namespace(namespace);
        refresh(volume, inode, &mut name)?;
        let key = name.to_bytes();
        let mut attribute = Attribute::resident(FILE_NAME, &[], key.clone());
        attribute.instance = UNNUMBERED;
        inode.attributes.push(attribute);
        inode.links = inode.links.checked_add(1).ok_or_else(|| {
            Error::NoSpace(format!("the file in MFT record {} has 65535 names", inode.number))
        })?;
        let entry = Entry::file(inode.reference().0, &key);
        edit(volume, &mut parent, &I30, |editor, upcase| index::insert(editor, upcase, &entry))?;
    }
    touch(volume, &mut parent, true)?;
    refresh_entries(volume, &mut parent)?;
    volume.save(&mut parent)
}

fn empty_head(parent: &Inode) -> FileNameHeader {
    FileNameHeader {
        parent_directory: parent.reference().0.into(),
        creation_time: 0.into(),
        last_modification_time: 0.into(),
        last_change_time: 0.into(),
        last_access_time: 0.into(),
        allocated_length: 0.into(),
        file_size: 0.into(),
        file_attributes: 0.into(),
        reparse_tag: 0.into(),
        file_name_length: 0,
        flags: 0,
    }
}

/// Changes an index of a file, which is not saved.
pub fn edit<T>(
    volume: &mut Volume,
    inode: &mut Inode,
    name: &[u16],
    work: impl FnOnce(&mut Editor<'_>, &crate::utf16::UpCase) -> Result<T>,
) -> Result<T> {
    let upcase = volume.upcase.clone();
    let mut editor = Editor::new(volume, inode, name);
    let done = work(&mut editor, &upcase)?;
    editor.finish()?;
    Ok(done)
}

/// Takes a name from a file, and the short or long one that belongs to it. The directory is saved,
/// the file is not.
pub fn remove_name(
    volume: &mut Volume,
    inode: &mut Inode,
    dir: RecordNumber,
    name: &FileName,
) -> Result<()> {
    let mut parent = (*super::read::directory(volume, dir)?).clone();
    let own = parent.reference();
    let partner = match name.namespace() {
        Namespace::Win32 => Some(Namespace::Dos),
        Namespace::Dos => Some(Namespace::Win32),
        Namespace::Posix | Namespace::Both => None,
    };
    let mut gone = Vec::new();
    inode.attributes.retain(|attribute| {
        let parsed = (attribute.type_code == FILE_NAME)
            .then(|| attribute.value().and_then(|value| FileName::parse(value)))
            .flatten();
        match parsed {
            Some(other)
                if other.parent() == own
                    && (other.name == name.name || Some(other.namespace()) == partner) =>
            {
                gone.push(other);
                false
            }
            _ => true,
        }
    });
    if gone.is_empty() {
        return Err(inode.corrupt(format!("it has no name in directory {dir}, which names it")));
    }
    for name in gone {
        let key = name.to_bytes();
        let removed =
            edit(volume, &mut parent, &I30, |editor, upcase| index::remove(editor, upcase, &key))?;
        match removed {
            Some(entry) if entry.reference() == inode.reference().0 => {}
            _ => return Err(inode.corrupt(format!("one of its names is not in directory {dir}"))),
        }
        inode.links = inode.links.saturating_sub(1);
    }
    touch(volume, &mut parent, true)?;
    refresh_entries(volume, &mut parent)?;
    volume.save(&mut parent)
}

/// Brings the names of a file, and the entries of the directories that they are in, up to date. The
/// file is not saved.
pub fn refresh_entries(volume: &mut Volume, inode: &mut Inode) -> Result<()> {
    // The root is in itself, and nobody looks at that entry.
    if inode.number == records::ROOT {
        return Ok(());
    }
    let reference = inode.reference();
    let mut changed = Vec::new();
    for index in 0..inode.attributes.len() {
        let attribute = &inode.attributes[index];
        if attribute.type_code != FILE_NAME {
            continue;
        }
        let Some(mut name) = attribute.value().and_then(|value| FileName::parse(value)) else {
            return Err(inode.corrupt("its $FILE_NAME cannot be read"));
        };
        refresh(volume, inode, &mut name)?;
        let value = name.to_bytes();
        changed.push((name.parent(), value.clone()));
        inode.attributes[index].body = Body::Resident(value);
    }
    for (parent, key) in changed {
        let mut dir = (*volume.referenced(parent)?).clone();
        if !dir.is_directory() || dir.find(INDEX_ROOT, &I30).is_none() {
            return Err(inode.corrupt(format!("record {} is no directory", dir.number)));
        }
        let entry = Entry::file(reference.0, &key);
        let found =
            edit(volume, &mut dir, &I30, |editor, upcase| index::replace(editor, upcase, &entry))?;
        if !found {
            let text = format!("one of its names is not in directory {}", dir.number);
            return Err(inode.corrupt(text));
        }
        volume.save(&mut dir)?;
    }
    Ok(())
}

/// Takes what `$Extend` has of a file that goes: the entry of its reparse point and that of its
/// object id.
pub fn leave_indexes(volume: &mut Volume, inode: &Inode, all: bool) -> Result<()> {
    if let Some(point) = inode.find(REPARSE_POINT, &[]) {
        let mut key = vec![0; 4];
        volume.read_content(point, 0, &mut key)?;
        key.extend(inode.reference().0.to_le_bytes());
        leave(volume, "$Reparse", "$R", &key)?;
    }
    let id = inode.find(super::super::layout::OBJECT_ID, &[]).and_then(Attribute::value);
    if let Some(key) = id.and_then(|id| id.get(..16)).filter(|_| all) {
        leave(volume, "$ObjId", "$O", key)?;
    }
    Ok(())
}

fn leave(volume: &mut Volume, file: &str, name: &str, key: &[u8]) -> Result<()> {
    let extend = volume.inode(records::EXTEND)?;
    let Some((reference, _)) = super::read::find(volume, &extend, file.as_bytes())? else {
        return Ok(());
    };
    let mut inode = (*volume.referenced(reference)?).clone();
    let name: Vec<u16> = name.encode_utf16().collect();
    if inode.find(INDEX_ROOT, &name).is_none() {
        return Ok(());
    }
    edit(volume, &mut inode, &name, |editor, upcase| index::remove(editor, upcase, key))?;
    volume.save(&mut inode)
}
