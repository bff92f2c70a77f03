//! `-d DOMAIN`: the disks of a libvirt domain. virsh says whether the domain is shut off, and its
//! document says which disks it has and in which formats.

mod given;
mod virsh;
mod xml;

use std::path::PathBuf;

pub(crate) use given::with_place_for_the_disk;

use crate::args::{Domain, Format, Stack, Wrapping};
use crate::disk::Access;
use crate::exit::{Exit, Failure};
use crate::output::{self, Document};
use snf_storage::foreign::Foreign;
use virsh::Virsh;
use xml::{DiskEntry, Source};

/// The place where a command keeps its disks.
pub(crate) struct Places<'a> {
    pub(crate) disk: &'a mut PathBuf,
    pub(crate) wrapping: &'a mut Wrapping,
    pub(crate) stack: &'a mut Stack,
}

/// Puts the disks of the domain into the place of DISK, where a domain is named.
pub(crate) fn settle(domain: &Domain, access: Access, places: Places<'_>) -> Result<(), Failure> {
    let Some(name) = &domain.name else { return Ok(()) };
    if places.wrapping.format.is_some() {
        return Err(Failure::usage(
            "--format is for DISK and not for -d: libvirt says the format of each disk",
        ));
    }
    let virsh = Virsh::new(domain.connect.as_deref());
    virsh.refuse_elsewhere()?;
    let state = virsh.state(name)?;
    if state.running != "shut off" {
        return Err(Failure::new(
            Exit::Busy,
            format!(
                "-d {name}: the domain is {}; shut it down first (virsh shutdown {name})",
                state.running
            ),
        ));
    }
    if state.saved && access == Access::Write {
        return Err(Failure::new(
            Exit::Busy,
            format!(
                "-d {name}: the domain has a saved state, which goes on with the disks as they are; \
                 start it and shut it down, or drop the state with virsh managedsave-remove {name}"
            ),
        ));
    }
    let entries = xml::disks(&virsh.document(name)?).map_err(|problem| {
        Failure::new(Exit::Device, format!("-d {name}: the document of the domain: {problem}"))
    })?;
    let mut found = Vec::new();
    for entry in entries {
        match usable(&entry, &virsh, access)? {
            Ok(disk) => found.push(disk),
            Err(reason) => places
                .stack
                .notes
                .push(format!("-d {name}: the disk {} is left out: {reason}", entry.target)),
        }
    }
    let mut found = found.into_iter();
    let Some((first, format)) = found.next() else {
        let notes = std::mem::take(&mut places.stack.notes);
        let why = notes.first().cloned();
        return Err(Failure::new(
            Exit::Device,
            why.unwrap_or_else(|| format!("-d {name}: the domain has no disk")),
        ));
    };
    *places.disk = first;
    places.wrapping.format = Some(format);
    let (mut more, formats): (Vec<_>, Vec<_>) = found.unzip();
    more.append(&mut places.stack.more);
    places.stack.more = more;
    places.stack.formats = formats;
    Ok(())
}

/// The path and format of a disk, or why it is left out.
fn usable(
    entry: &DiskEntry,
    virsh: &Virsh<'_>,
    access: Access,
) -> Result<Result<(PathBuf, Format), String>, Failure> {
    if entry.read_only && access == Access::Write {
        return Ok(Err("the domain may only read it".to_owned()));
    }
    if entry.encrypted {
        return Ok(Err("libvirt decrypts it (<encryption>)".to_owned()));
    }
    if entry.sliced {
        return Ok(Err("it is a part of a file (<slices>)".to_owned()));
    }
    let path = match &entry.source {
        Source::Path(path) => PathBuf::from(path),
        Source::Volume { pool, volume } => virsh.volume(pool, volume)?,
        Source::Elsewhere(kind) => {
            return Ok(Err(format!(
                "it is of the type {kind}, and files and block devices are read"
            )));
        }
        Source::Nothing => return Ok(Err("there is nothing in it".to_owned())),
    };
    let format = match entry.format.as_deref() {
        // As libvirt does it, which never guesses.
        None | Some("raw") => Format::Raw,
        Some("qcow2") => Format::Qcow2,
        Some(other) => match Foreign::from_name(other) {
            Some(foreign) => Format::Foreign(foreign),
            None => return Ok(Err(format!("its format {other} is not supported"))),
        },
    };
    Ok(Ok((path, format)))
}

/// Tells a failure that came before the command began.
pub(crate) fn tell(command: &str, disk: &std::path::Path, json: bool, failure: &Failure) -> Exit {
    if json {
        Document::new(command, disk).finish(failure.exit, &failure.message);
    }
    output::fail(failure)
}
