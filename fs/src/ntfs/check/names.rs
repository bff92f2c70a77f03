//! Directories against the names that files say they have.

use std::collections::BTreeSet;

use super::index::{self, Entry, Upcase};
use super::inodes::{FileName, Files};
use super::raw::{RECORD_MASK, Reader, le32, le64, shown, units};
use super::records::Mft;
use super::report::Report;
use crate::error::Result;
use crate::num::to_u64;

/// FileAttributes bit of a directory in `$FILE_NAME`.
const DIRECTORY: u32 = 0x1000_0000;
/// The first record that is not one of the system's own.
const FIRST_USER: u64 = 24;

/// The name of a directory's index.
pub fn i30() -> Vec<u16> {
    units(b"$\0I\x003\x000\0")
}

/// A name as an index has it: the directory, the file, the name itself.
type Indexed = BTreeSet<(u64, u64, Vec<u16>, u8)>;

/// Checks every directory and every name.
pub fn check(
    reader: &Reader<'_>,
    mft: &Mft,
    files: &Files,
    upcase: &Upcase,
    report: &mut Report,
) -> Result<()> {
    let mut indexed = Indexed::new();
    for (&number, inode) in &files.inodes {
        let is_directory = inode.indexes.contains(&i30());
        if is_directory != inode.directory && (is_directory || number >= 5) {
            let text = if is_directory {
                "it has the index of a directory and not the flag"
            } else {
                "it has the flag of a directory and no index"
            };
            report.error("directory-flag", format!("record {number}"), text.to_owned());
        }
        if is_directory {
            report.directories += 1;
            let entries = index::walk(reader, files, number, &i30(), upcase, report)?;
            report.entries += to_u64(entries.len());
            for entry in &entries {
                directory_entry(mft, files, number, entry, &mut indexed, report);
            }
        }
    }
    for (&number, inode) in &files.inodes {
        names(mft, number, inode, &indexed, report);
    }
    report.files = to_u64(files.inodes.len());
    Ok(())
}

fn directory_entry(
    mft: &Mft,
    files: &Files,
    directory: u64,
    entry: &Entry,
    indexed: &mut Indexed,
    report: &mut Report,
) {
    let Some(key) = FileName::parse(&entry.key) else {
        let text = format!("a key of {} bytes is no $FILE_NAME", entry.key.len());
        report.error("entry-name", format!("directory {directory}"), text);
        return;
    };
    let place = || format!("directory {directory} entry {}", shown(&key.name));
    let target = entry.reference & RECORD_MASK;
    let Some(inode) = files.inodes.get(&target) else {
        report.error("entry-dangling", place(), format!("record {target} is not in use"));
        return;
    };
    if !mft.is_live(entry.reference) {
        let text = format!("record {target} is of another file by now");
        report.error("entry-sequence", place(), text);
        return;
    }
    if key.parent != mft.reference(directory) {
        let text = format!("it says it is in directory {}", key.parent & RECORD_MASK);
        report.error("entry-parent", place(), text);
    }
    if !inode.names.contains(&key) {
        report.error("entry-name", place(), format!("record {target} has no such name"));
    }
    let flag = le32(&entry.key, 56) & DIRECTORY != 0;
    if flag != inode.directory {
        let text =
            format!("it says that record {target} is {} directory", if flag { "a" } else { "no" });
        report.error("entry-flags", place(), text);
    }
    if let Some(size) = inode.size
        && target >= FIRST_USER
        && !inode.directory
        && size != le64(&entry.key, 48)
    {
        // Windows brings these up to date when it pleases.
        let text = format!("it says {} bytes, the file has {size}", le64(&entry.key, 48));
        report.warn("entry-size", place(), text);
    }
    if !indexed.insert((directory, target, key.name.clone(), key.space)) {
        report.error("entry-twice", place(), "it is there twice".to_owned());
    }
}

fn names(
    mft: &Mft,
    number: u64,
    inode: &super::inodes::Inode,
    indexed: &Indexed,
    report: &mut Report,
) {
    let place = || format!("record {number}");
    if !inode.names.is_empty() && usize::from(inode.links) != inode.names.len() {
        let text = format!("its link count is {}, it has {} names", inode.links, inode.names.len());
        report.error("link-count", place(), text);
    }
    if inode.names.is_empty() && number >= FIRST_USER {
        report.error("nameless", place(), "it is in use and has no name".to_owned());
    }
    for name in &inode.names {
        let parent = name.parent & RECORD_MASK;
        if !mft.is_live(name.parent) {
            let text = format!("directory {parent} of its name {} is gone", shown(&name.name));
            report.error("parent", place(), text);
        } else if !indexed.contains(&(parent, number, name.name.clone(), name.space)) {
            let text = format!("its name {} is missing in directory {parent}", shown(&name.name));
            report.error("name-unindexed", place(), text);
        }
    }
    // A DOS name stands beside the Windows name that it is short for.
    for name in inode.names.iter().filter(|name| name.space == 2) {
        if !inode.names.iter().any(|other| other.space == 1 && other.parent == name.parent) {
            let text = format!("its DOS name {} belongs to no other name", shown(&name.name));
            report.error("dos-name", place(), text);
        }
    }
}
