//! The file systems of the guest's fstab, on top of its root.

use snf_fs::error::display_name;
use snf_fs::{FileSystem, Kind, Tree};

use super::OsFamily;
use super::disk::{Content, Disk, Volume};
use super::distro::Distro;
use super::fstab::{self, Entry, Source};
use super::mounter::needs_helper;
use super::names::{self, NoSource};
use super::opened::Guest;
use crate::ask::event::{Event, EventSink};
use crate::craft::sentence::sentence;

const FSTAB: &str = "/etc/fstab";

impl Guest {
    /// Mounts what `/etc/fstab` names. A file system that cannot be opened is a warning, and its
    /// place is blocked: a path through it is an error that says why.
    ///
    /// # Errors
    /// When the table itself, or a directory on the way to a mount point, cannot be read.
    pub fn mount(&mut self, events: &mut dyn EventSink) -> snf_fs::Result<()> {
        if self.is_windows() {
            return Ok(());
        }
        let text = self.fstab(events)?.unwrap_or_default();
        for entry in fstab::parse(&text) {
            if entry.target.iter().all(|byte| *byte == b'/') {
                continue;
            }
            self.mount_entry(&entry, &format!("{FSTAB} line {}", entry.line), events)?;
        }
        self.mount_beside(&text, events)?;
        // os-release is in /usr, which may have been mounted only now; or not, and then the system
        // stays without a name.
        if self.family == Some(OsFamily::Linux)
            && self.distro == Distro::default()
            && let Ok(Some(distro)) = Distro::detect(&self.tree)
        {
            self.distro = distro;
        }
        Ok(())
    }

    /// The table. A guest without one, or with something else in its place, has nothing to mount.
    fn fstab(&self, events: &mut dyn EventSink) -> snf_fs::Result<Option<Vec<u8>>> {
        match self.config(FSTAB) {
            Err(error @ (snf_fs::Error::NotADirectory(_) | snf_fs::Error::SymlinkLoop(_)))
                if self.family.is_none() =>
            {
                events.event(Event::Info(format!("no fstab: {error}")));
                Ok(None)
            }
            other => other,
        }
    }

    /// Mounts the volume on a directory for its type.
    pub(super) fn mount_volume(&mut self, index: usize, target: &str) -> snf_fs::Result<()> {
        let volume = &mut self.disk.volumes[index];
        let why = format!("{} is mounted there for its type", volume.place());
        match std::mem::replace(&mut volume.content, Content::Mounted) {
            Content::Open(fs) => {
                let read_only = volume.read_only.clone();
                self.tree.mount(target, fs, read_only)
            }
            content => {
                volume.content = content;
                self.tree.block(target, format!("{why}, and it cannot be opened"))
            }
        }
    }

    /// Mounts what an entry names; `place` is where it stands.
    pub(super) fn mount_entry(
        &mut self,
        entry: &Entry,
        place: &str,
        events: &mut dyn EventSink,
    ) -> snf_fs::Result<()> {
        let origin = place;
        let mut warn = |text| events.event(Event::Warning(text));
        let target = display_name(&entry.target);
        let excused = entry.has_option("nofail");
        match self.tree.is_dir(&entry.target) {
            Ok(true) => {}
            Ok(false) if excused => return Ok(()),
            Ok(false) => {
                warn(format!(
                    "{origin}: {target} is not a directory in the image; {} is not mounted",
                    entry.source_text()
                ));
                return Ok(());
            }
            // Below a directory that is blocked: the error of whoever needs it says so.
            Err(snf_fs::Error::Invalid(_)) => return Ok(()),
            Err(error) => return Err(error),
        }
        let what = format!("{origin} mounts {} there", entry.source_text());
        let index = match find(&self.disk, entry, &self.tree) {
            Ok(index) => index,
            Err(reason) => {
                let reason = sentence(&reason);
                if !excused {
                    warn(format!("{target}: {what}, but {reason}"));
                }
                self.tree.block(&entry.target, format!("{what}, but {reason}"))?;
                return Ok(());
            }
        };
        let volume = &mut self.disk.volumes[index];
        let place = volume.place();
        let read_only = volume.read_only.clone();
        let uuid = volume.uuid.clone().unwrap_or_default();
        let content = std::mem::replace(&mut volume.content, Content::Mounted);
        let refusal = match view(entry, content, &place, &self.tree, &uuid) {
            Ok(fs) => {
                self.tree.mount(&entry.target, fs, read_only)?;
                return Ok(());
            }
            Err(refusal) => refusal,
        };
        self.disk.volumes[index].content = refusal.content;
        let reason = format!("{what}, but {}", refusal.reason);
        if !excused && !refusal.expected {
            warn(format!("{target}: {reason}"));
        }
        self.tree.block(&entry.target, reason)?;
        Ok(())
    }
}

/// Why a volume is not mounted, and what is left of it.
struct Refusal {
    content: Content,
    reason: String,
    /// An EFI system partition is in every other image and nothing is ever written to it: no word
    /// of it until somebody tries.
    expected: bool,
}

/// The file system to mount for an entry: the volume's, or the subvolume of it that the entry
/// names. Several subvolumes of one volume are mounted in several places.
fn view(
    entry: &Entry,
    content: Content,
    place: &str,
    tree: &Tree,
    uuid: &str,
) -> Result<Box<dyn FileSystem>, Refusal> {
    let subvolume = entry.subvolume();
    let of_kind = |fs: &dyn FileSystem, kind| fs.info().is_ok_and(|info| info.kind == kind);
    let reason = match (&content, subvolume) {
        (Content::Open(fs), Some(Ok(path))) if of_kind(&**fs, Kind::Btrfs) => {
            match named(&**fs, path, place) {
                Ok(fs) => return Ok(fs),
                Err(reason) => sentence(&reason),
            }
        }
        (Content::Open(fs), Some(Err(reason))) if of_kind(&**fs, Kind::Btrfs) => {
            format!("{place}: {reason}")
        }
        (Content::Mounted, Some(Ok(path))) => {
            let mounted = tree.mounts().into_iter().find_map(|(at, info)| {
                let info = info.ok()?;
                (info.kind == Kind::Btrfs && info.uuid == uuid).then(|| tree.file_system(at))?
            });
            match mounted.map(|fs| named(fs, path, place)) {
                Some(Ok(fs)) => return Ok(fs),
                Some(Err(reason)) => sentence(&reason),
                None => format!("{place} is mounted elsewhere already"),
            }
        }
        (Content::Foreign(kind), _) if needs_helper(kind) => {
            format!("{place} is {kind}, which only the helper VM can edit (--vm)")
        }
        (Content::Foreign("crypto_LUKS"), _) => {
            format!("{place} is encrypted, and no key was given for it (--luks-key)")
        }
        (Content::Foreign(kind), _) => format!("{place} is {kind}, which cannot be edited"),
        (Content::Container { role, .. }, _) => {
            format!("{place} is {role}, and holds no files itself")
        }
        (Content::Broken(error), _) => {
            format!("{place} cannot be opened: {}", sentence(&**error))
        }
        (Content::Closed(error), _) => {
            format!("{place} cannot be opened: {}", sentence(&**error))
        }
        (Content::Mounted, _) => format!("{place} is mounted elsewhere already"),
        (Content::Empty, _) => format!("{place} was never formatted"),
        _ => format!("{place} holds no file system that is known here"),
    };
    match content {
        Content::Open(fs) if !of_kind(&*fs, Kind::Btrfs) || entry.subvolume().is_none() => Ok(fs),
        content => {
            let expected = matches!(content, Content::Foreign(_));
            Err(Refusal { content, reason, expected })
        }
    }
}

/// The subvolume with this path.
fn named(fs: &dyn FileSystem, path: &str, place: &str) -> Result<Box<dyn FileSystem>, NoSource> {
    match fs.subvolume(path.as_bytes()) {
        Ok(Some(view)) => Ok(view),
        Ok(None) => Err(NoSource::NoSubvolume { place: place.to_owned(), path: path.to_owned() }),
        Err(source) => {
            Err(NoSource::Subvolume { place: place.to_owned(), path: path.to_owned(), source })
        }
    }
}

/// The volume that an entry of the guest in `tree` means, or why there is none.
fn find(disk: &Disk, entry: &Entry, tree: &Tree) -> Result<usize, NoSource> {
    let text = entry.source_text();
    let by = |matches: &dyn Fn(&Volume) -> bool| {
        let mut found = (0..disk.volumes.len()).filter(|index| matches(&disk.volumes[*index]));
        match (found.next(), found.next()) {
            (Some(index), None) => Ok(index),
            (None, _) => Err(NoSource::Nothing),
            (Some(first), Some(second)) => Err(NoSource::Twice {
                first: disk.volumes[first].place(),
                second: disk.volumes[second].place(),
            }),
        }
    };
    let same = |a: &Option<String>, b: &str| a.as_ref().is_some_and(|a| a.eq_ignore_ascii_case(b));
    match &entry.source {
        Source::Uuid(uuid) => by(&|volume| same(&volume.uuid, uuid)),
        Source::Label(label) => by(&|volume| volume.label.as_deref() == Some(label)),
        Source::PartUuid(uuid) => by(&|volume| same(&volume.partuuid, uuid)),
        Source::PartLabel(label) => by(&|volume| !label.is_empty() && volume.name == *label),
        // The letter of the builder's disk says nothing about the instance's, but a second disk
        // is not in this image.
        Source::Partition { disk: Some(letter), .. } if *letter as usize > disk.more.len() => {
            Err(NoSource::OtherDisk(text))
        }
        Source::Partition { number, disk: letter } => {
            disk.on_disk(letter.unwrap_or(0) as usize, *number).ok_or(NoSource::NoPartition)
        }
        Source::Other(path) => match names::find(disk, path, tree) {
            Some(found) => found,
            None => by(&|_| false),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::testing::{FILE, Guest};
    use snf_fs::MemoryFs;

    fn with_fstab(fstab: &str) -> Guest {
        let mut guest = Guest::debian();
        guest.write("/etc/fstab", fstab);
        for dir in ["/boot/efi", "/var/log", "/srv", "/home", "/data"] {
            guest.mkdir(dir);
        }
        guest.write("/var/log/covered", "");
        let fs = |uuid: &str, label: &str| MemoryFs::new().with_identity(uuid, label);
        guest.volume(Volume::open(Some(2), Box::new(fs("abcd-01", "logs"))));
        let mut esp = Volume::open(Some(15), Box::new(fs("1234-ABCD", "")));
        esp.content = Content::Foreign("vfat");
        guest.volume(esp);
        let mut twin = Volume::open(Some(5), Box::new(fs("5", "twin")));
        twin.partuuid = Some("0A0B-05".into());
        twin.name = "srv part".into();
        guest.volume(twin);
        guest.volume(Volume::open(Some(6), Box::new(fs("6", "twin"))));
        guest
    }

    #[test]
    fn what_fstab_names_is_mounted() {
        let mut guest = with_fstab(
            "/dev/vda1 / ext4 defaults 0 1\nUUID=ABCD-01 /var/log ext4 defaults\n\
             UUID=1234-ABCD /boot/efi vfat umask=0077\nPARTLABEL=srv\\040part /srv auto ro\n\
             /dev/sda6 /home ext4\n",
        );
        guest.mount().unwrap();
        assert!(guest.warnings().is_empty(), "{:?}", guest.warnings());
        let tree = guest.tree();
        assert!(!tree.exists("/var/log/covered").unwrap());
        tree.write("/var/log/new", b"", FILE).unwrap();
        tree.write("/srv/new", b"", FILE).unwrap();
        tree.write("/home/new", b"", FILE).unwrap();
        let error = tree.write("/boot/efi/x", b"", FILE).unwrap_err().to_string();
        assert_eq!(
            error,
            "/boot/efi: /etc/fstab line 3 mounts UUID=1234-ABCD there, but partition 15 is vfat, \
             which cannot be edited"
        );
    }

    #[test]
    fn what_cannot_be_mounted_is_said_and_blocked() {
        let mut guest = with_fstab(
            "LABEL=twin /srv ext4\nUUID=99 /home ext4 defaults,nofail\n/dev/vdb1 /data ext4\n\
             /dev/mapper/vg-log /var/log ext4\nUUID=5 /none ext4\n",
        );
        guest.mount().unwrap();
        let warnings = guest.warnings().join("\n");
        assert_eq!(guest.warnings().len(), 4, "{warnings}");
        for part in [
            "/srv: /etc/fstab line 1 mounts LABEL=twin there, but both partition 5 and partition 6",
            "of another disk is not part of this image",
            "/var/log: /etc/fstab line 4 mounts /dev/mapper/vg-log there",
            "/none is not a directory in the image",
        ] {
            assert!(warnings.contains(part), "{part}\n{warnings}");
        }
        for path in ["/srv/x", "/home/x", "/data/x", "/var/log/x"] {
            assert!(guest.tree().write(path, b"", FILE).is_err(), "{path}");
        }
        assert!(guest.tree().write("/etc/x", b"", FILE).is_ok());
    }

    #[test]
    fn a_system_whose_name_is_on_another_file_system() {
        let mut guest = Guest::debian();
        guest.write("/etc/fstab", "LABEL=usr /usr ext4\n");
        guest.tree().unlink("/etc/os-release").unwrap();
        guest.symlink("/etc/os-release", "../usr/lib/os-release");
        let mut usr = MemoryFs::new().with_identity("u", "usr");
        let lib = usr.mkdir(usr.root(), b"lib", FILE).unwrap();
        let file = usr.create(lib, b"os-release", FILE).unwrap();
        usr.replace(file, b"ID=alpine\n").unwrap();
        guest.volume(Volume::open(Some(2), Box::new(usr)));
        guest.distro = Distro::default();
        guest.mount().unwrap();
        assert_eq!(guest.distro.id, "alpine");
    }

    #[test]
    fn no_fstab_is_fine() {
        let mut guest = Guest::debian();
        guest.mount().unwrap();
        guest.write("/etc/fstab", "auto\n\u{fffd}\n/dev/vda1 /etc/passwd ext4 0 0\n");
        guest.mount().unwrap();
        assert_eq!(guest.warnings().len(), 1);
    }
}
