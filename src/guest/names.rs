//! The names that a guest has for logical volumes and for the containers of its crypttab.

use snf_fs::Tree;

use super::CONFIG_MAX;
use super::disk::{Disk, Layer};
use super::fstab::{self, Source};

const CRYPTTAB: &str = "/etc/crypttab";

/// Why no file system of the disk is what an entry names.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoSource {
    /// Nothing has that name.
    #[error("no file system of the disk is that")]
    Nothing,
    /// Two volumes have that name.
    #[error("both {first} and {second} are that")]
    Twice { first: String, second: String },
    /// A disk of the machine that built the image.
    #[error("{0} of another disk is not part of this image")]
    OtherDisk(String),
    /// A number that the table does not have.
    #[error("the disk has no such partition")]
    NoPartition,
    /// The table of encrypted volumes leads away from the disk.
    #[error("{file} makes {name} of a device that is not on the disk")]
    NoContainer { file: &'static str, name: String },
    /// The file system is there, the subvolume is not.
    #[error("{place} has no subvolume {path:?}")]
    NoSubvolume { place: String, path: String },
    /// The subvolume is damaged.
    #[error("the subvolume {path:?} of {place} cannot be opened")]
    Subvolume {
        place: String,
        path: String,
        #[source]
        source: snf_fs::Error,
    },
}

/// The volume that the guest in `tree` finds at the path of a device file, or why there is none.
/// `None`: nothing is known by this path.
pub(super) fn find(disk: &Disk, path: &str, tree: &Tree) -> Option<Result<usize, NoSource>> {
    let named = |path: &str| {
        disk.volumes.iter().position(|volume| volume.paths.iter().any(|known| known == path))
    };
    if let Some(index) = named(path) {
        return Some(Ok(index));
    }
    let name = path
        .strip_prefix("/dev/mapper/")
        .or_else(|| path.strip_prefix("/dev/disk/by-id/dm-name-"))?;
    let text = tree.read_optional(CRYPTTAB, CONFIG_MAX).ok()??;
    let source = container_of(&text, name)?;
    let container = match &source {
        Source::Uuid(uuid) => disk.volumes.iter().position(|volume| {
            volume.uuid.as_ref().is_some_and(|found| found.eq_ignore_ascii_case(uuid))
        }),
        Source::Label(label) => {
            disk.volumes.iter().position(|volume| volume.label.as_ref() == Some(label))
        }
        Source::PartUuid(uuid) => disk.volumes.iter().position(|volume| {
            volume.partuuid.as_ref().is_some_and(|found| found.eq_ignore_ascii_case(uuid))
        }),
        Source::PartLabel(label) => disk.volumes.iter().position(|volume| volume.name == *label),
        Source::Partition { number, disk: letter } => {
            disk.on_disk(letter.unwrap_or(0) as usize, *number)
        }
        Source::Other(path) => named(path),
    };
    let Some(container) = container else {
        return Some(Err(NoSource::NoContainer { file: CRYPTTAB, name: name.to_owned() }));
    };
    let inside = disk.volumes.iter().position(|volume| {
        matches!(volume.layer, Layer::Luks(_)) && volume.below.first() == Some(&container)
    });
    Some(match inside {
        Some(index) => Ok(index),
        // The container itself, which says that it is locked.
        None => Ok(container),
    })
}

/// The device that crypttab opens under a name.
fn container_of(text: &[u8], name: &str) -> Option<Source> {
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut fields = line
            .split(|byte| matches!(byte, b' ' | b'\t' | b'\r'))
            .filter(|field| !field.is_empty());
        let found = fields.next().filter(|field| !field.starts_with(b"#"))?;
        let device = fields.next()?;
        if found != name.as_bytes() {
            return None;
        }
        fstab::source_of(device)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_of_crypttab() {
        let text = b"# luks-1 UUID=9\n\nluks-1\tUUID=aB-1 none luks,discard\r\nswap /dev/sda3 /dev/urandom swap\nlv /dev/rl/x\n";
        assert_eq!(container_of(text, "luks-1"), Some(Source::Uuid("aB-1".into())));
        let third = Source::Partition { number: 3, disk: Some(0) };
        assert_eq!(container_of(text, "swap"), Some(third));
        assert_eq!(container_of(text, "lv"), Some(Source::Other("/dev/rl/x".into())));
        assert_eq!(container_of(text, "other"), None);
        assert_eq!(container_of(&[0xff; 100], ""), None);
    }
}
