//! A disk that is open for reading, and its files.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use snf_fs::Tree;
use snf_image::ask::luks_key::LuksKey;
use snf_image::customize::CustomizeError;
use snf_image::failure::{Family, sentence};
use snf_image::files::{self, Files};
use snf_image::guest::Guest;

use super::Trouble;
use super::args::{Place, Source};
use crate::disk::{self, Access, Disks};
use crate::exit::{Exit, Failure};
use crate::luks::KeySpec;
use crate::output::{Listener, warning_line};
use crate::selector::Inputs;
use crate::signals::Progress;

/// A disk and the files on it.
pub(super) struct Opened {
    disks: Disks,
    /// The guest, or the file system that was named.
    pub(super) guest: Guest,
}

impl Opened {
    /// Opens the disk that the arguments name.
    pub(super) fn new(source: &Source) -> Result<Self, Failure> {
        Self::at(&source.disk, &source.place, &keys(&source.place)?)
    }

    /// Opens a disk.
    pub(super) fn at(path: &Path, place: &Place, keys: &[LuksKey]) -> Result<Self, Failure> {
        let progress = Progress::default();
        let disks = disk::open_all(path, &place.stack, place.wrapping, Access::Read, &progress)?;
        let files = match (&place.partition, &place.root_partition) {
            (Some(volume), _) => Files::Partition(&volume.0),
            (None, Some(volume)) => Files::GuestOn(&volume.0),
            (None, None) => Files::Guest,
        };
        let mut listener = Listener::default();
        match files::open(&disks.devices(), keys, files, &mut listener) {
            Ok(guest) => Ok(Self { disks, guest }),
            Err(error) => {
                let exit = disks.judge(Exit::of(&error));
                Err(Failure::new(exit, refusal(path, &error)))
            }
        }
    }

    /// The files.
    pub(super) fn tree(&self) -> &Tree {
        &self.guest.tree
    }

    /// The failure that an error of the guest's file system is.
    pub(super) fn failure(&self, error: &snf_fs::Error) -> Failure {
        Failure::new(self.disks.judge(Family::of_fs(error).into()), sentence(error))
    }

    /// The end of a command after a walk. The end of the run tells that the output was lost.
    pub(super) fn end(&self, result: Result<(), Trouble>) -> Result<(), Failure> {
        match result {
            Ok(()) | Err(Trouble::Lost) => Ok(()),
            Err(Trouble::Guest(error)) => Err(self.failure(&error)),
            Err(Trouble::Ended(failure)) => Err(failure),
        }
    }
}

fn refusal(path: &Path, error: &CustomizeError) -> String {
    let text = sentence(error);
    match error {
        CustomizeError::Detect(reason) if reason.is_absence() && reason.names_files() => format!(
            "{}: {text}; to read one of them as it is, name it with --partition",
            path.display()
        ),
        _ => format!("{}: {text}", path.display()),
    }
}

/// The keys of the containers, read once for all disks of a command.
pub(super) fn keys(place: &Place) -> Result<Vec<LuksKey>, Failure> {
    let mut inputs = Inputs::default();
    let specs = KeySpec::parse_all(&place.stack.luks_key)?;
    let keys = KeySpec::read_all(&specs, &mut inputs)?;
    inputs.warnings.iter().for_each(|warning| warning_line(warning));
    Ok(keys)
}

/// The bytes of a guest path on the command line.
pub(super) fn bytes(path: &std::ffi::OsStr) -> &[u8] {
    path.as_bytes()
}
