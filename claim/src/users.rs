//! Users of a disk that take no lock.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, makedev};

use crate::{Busy, lock, sys};

/// A mount table larger than this is cut off.
const MAX_MOUNTS: usize = 16 << 20;

/// Devices that are looked at below one disk.
const BELOW: usize = 64;

/// The user of the disk: a loop device, a mounted file system, a device made of it, or whoever has what
/// it lies on. `None` when nobody is found; locks of the disk itself are not looked at.
pub fn user_of(disk: &Metadata) -> Option<Busy> {
    Machine::this().user_of(disk)
}

/// The files in which a machine tells the use of its devices.
struct Machine {
    sys: PathBuf,
    dev: PathBuf,
    mounts: PathBuf,
}

impl Machine {
    fn this() -> Self {
        Self { sys: "/sys".into(), dev: "/dev".into(), mounts: "/proc/self/mountinfo".into() }
    }

    fn user_of(&self, disk: &Metadata) -> Option<Busy> {
        if let Some(device) = self.loop_device(disk, None) {
            return Some(Busy::Loop(device));
        }
        if disk.file_type().is_block_device() { self.user_of_device(disk.rdev()) } else { None }
    }

    fn user_of_device(&self, device: u64) -> Option<Busy> {
        let family = self.family(device);
        if let Some(place) = self.mount_point(&family) {
            return Some(Busy::Mounted(place));
        }
        let holder = family.iter().find_map(|device| self.holder(*device)).map(Busy::Part);
        holder.or_else(|| self.user_below(device))
    }

    /// The loop device that shows this file or device, other than `but`.
    fn loop_device(&self, disk: &Metadata, but: Option<&OsStr>) -> Option<PathBuf> {
        for entry in fs::read_dir(self.sys.join("block")).ok()?.flatten() {
            let name = entry.file_name();
            let is_loop = name.to_str().is_some_and(|name| name.starts_with("loop"));
            if !is_loop || but == Some(&name) {
                continue;
            }
            // The file is there only while something is attached.
            let Some(backing) = backing_file(&entry.path()) else { continue };
            let device = self.dev.join(&name);
            if shows(&device, disk).unwrap_or_else(|| is_at(&backing, disk)) {
                return Some(device);
            }
        }
        None
    }

    /// The numbers of a device, its partitions, and the disk it is a partition of.
    fn family(&self, device: u64) -> Vec<u64> {
        let mut out = vec![device];
        let Some(place) = self.place(device) else { return out };
        out.extend(parent_of(&place).as_deref().and_then(number_of));
        let entries = fs::read_dir(&place).into_iter().flatten().flatten();
        out.extend(
            entries
                .map(|entry| entry.path())
                .filter(|path| path.join("partition").exists())
                .filter_map(|path| number_of(&path)),
        );
        out
    }

    /// The folder of a device in sysfs.
    fn place(&self, device: u64) -> Option<PathBuf> {
        let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
        fs::canonicalize(self.sys.join(format!("dev/block/{major}:{minor}"))).ok()
    }

    /// A device that is made of this one.
    fn holder(&self, device: u64) -> Option<String> {
        let entry = fs::read_dir(self.place(device)?.join("holders")).ok()?.flatten().next()?;
        let name = entry.file_name().to_string_lossy().into_owned();
        match fs::read_to_string(entry.path().join("dm/name")) {
            Ok(mapped) => Some(format!("{name} (/dev/mapper/{})", mapped.trim_end())),
            Err(_) => Some(name),
        }
    }

    /// The users of a device that this one is made of, or of the file that it shows. The kernel lets nobody
    /// mount such a device; a lock, or a second loop device on the same file, it does not mind.
    fn user_below(&self, device: u64) -> Option<Busy> {
        let mut todo: Vec<PathBuf> = self.place(device).into_iter().collect();
        let mut seen = BTreeSet::new();
        while let Some(place) = todo.pop() {
            if seen.len() >= BELOW || !seen.insert(place.clone()) {
                continue;
            }
            let disk = parent_of(&place);
            let whole = disk.as_ref().unwrap_or(&place);
            if let Some(backing) = backing_file(whole) {
                let own = self.dev.join(whole.file_name()?);
                let found = fs::metadata(&backing).ok().filter(|found| {
                    // The path may be another file's by now.
                    shows(&own, found).unwrap_or(true)
                });
                if let Some(found) = found {
                    if let Some(other) = self.loop_device(&found, whole.file_name()) {
                        return Some(Busy::Twin(backing, other));
                    }
                    if is_locked(&backing) {
                        return Some(Busy::Below(backing));
                    }
                    if found.file_type().is_block_device() {
                        todo.extend(self.place(found.rdev()));
                    }
                }
            }
            let slaves = fs::read_dir(whole.join("slaves")).into_iter().flatten().flatten();
            for slave in slaves.filter_map(|entry| fs::canonicalize(entry.path()).ok()) {
                let disk = parent_of(&slave);
                for device in [Some(&slave), disk.as_ref()].into_iter().flatten() {
                    let node = self.dev.join(device.file_name()?);
                    if is_locked(&node) {
                        return Some(Busy::Below(node));
                    }
                }
                todo.push(slave);
            }
        }
        None
    }

    /// The mount point of a file system on one of these devices.
    fn mount_point(&self, devices: &[u64]) -> Option<PathBuf> {
        use std::io::Read;
        let mut text = Vec::new();
        let table = File::open(&self.mounts).ok()?;
        table.take(MAX_MOUNTS as u64).read_to_end(&mut text).ok()?;
        find_mount(&String::from_utf8_lossy(&text), |number, source| {
            // btrfs has a number of its own, of major 0; its source names one of its devices.
            // Elsewhere the number counts, because the name may be another device's by now.
            let of_source = || {
                rustix::fs::major(number) == 0
                    && source.starts_with("/dev/")
                    && fs::metadata(source).is_ok_and(|found| {
                        found.file_type().is_block_device() && devices.contains(&found.rdev())
                    })
            };
            devices.contains(&number) || of_source()
        })
    }
}

/// The file or device that a loop device shows, as its folder in sysfs names it.
fn backing_file(place: &Path) -> Option<PathBuf> {
    let text = fs::read(place.join("loop/backing_file")).ok()?;
    Some(OsStr::from_bytes(text.strip_suffix(b"\n").unwrap_or(&text)).into())
}

/// The folder of the disk that a partition is on; `None` for what is no partition.
fn parent_of(place: &Path) -> Option<PathBuf> {
    place.join("partition").exists().then(|| place.parent().map(Path::to_owned)).flatten()
}

/// Opens a device or file to be asked something, whatever its state.
fn look_at(path: &Path) -> Option<File> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).ok()?;
    OpenOptions::new().read(true).custom_flags(flags).open(path).ok()
}

fn is_locked(path: &Path) -> bool {
    look_at(path).is_some_and(|file| lock::is_locked(&file))
}

/// Whether a loop device shows this disk; `None` when it cannot be asked.
fn shows(device: &Path, disk: &Metadata) -> Option<bool> {
    let info = sys::loop_info(&look_at(device)?).ok()?;
    let same_file = info.lo_device == disk.dev() && info.lo_inode == disk.ino();
    let same_device = disk.file_type().is_block_device() && info.lo_rdevice == disk.rdev();
    Some(same_file || same_device)
}

/// The next best for somebody who may not open loop devices: whether the path of the backing file
/// leads to the disk.
fn is_at(path: &Path, disk: &Metadata) -> bool {
    fs::metadata(path).is_ok_and(|found| {
        let same_file = found.dev() == disk.dev() && found.ino() == disk.ino();
        let both = found.file_type().is_block_device() && disk.file_type().is_block_device();
        same_file || (both && found.rdev() == disk.rdev())
    })
}

/// The device number of a folder in sysfs.
fn number_of(place: &Path) -> Option<u64> {
    parse_number(fs::read_to_string(place.join("dev")).ok()?.trim())
}

fn parse_number(text: &str) -> Option<u64> {
    let (major, minor) = text.split_once(':')?;
    Some(makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// The mount point of the first line whose device number and source are those of the disk
/// (proc_pid_mountinfo(5)).
fn find_mount(table: &str, ours: impl Fn(u64, &str) -> bool) -> Option<PathBuf> {
    table.lines().find_map(|line| {
        let (start, end) = line.split_once(" - ")?;
        let mut fields = start.split(' ');
        let number = parse_number(fields.nth(2)?)?;
        let place = fields.nth(1)?;
        let source = unescape(end.split(' ').nth(1)?);
        ours(number, &source).then(|| PathBuf::from(unescape(place)))
    })
}

/// The kernel writes blanks, tabs, line ends and backslashes as `\040`, three octal digits.
fn unescape(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let octal = match bytes.get(at + 1..at + 4) {
            Some(&[a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7']) if byte == b'\\' => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        at += if octal.is_some() { 4 } else { 1 };
        out.push(octal.unwrap_or(byte));
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const TABLE: &str = "\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
36 22 0:31 / /mnt/a\\040b rw - btrfs /dev/sdb\\0401 rw
37 22 7:3 / /loop rw,nosuid shared:2 master:1 - ext4 /dev/loop3 rw
broken line
38 22 x:y / /q rw - ext4 none rw
";

    #[test]
    fn mounts() {
        let find = |number| find_mount(TABLE, |found, _| found == number);
        assert_eq!(find(makedev(8, 1)), Some("/".into()));
        assert_eq!(find(makedev(7, 3)), Some("/loop".into()));
        assert_eq!(find(makedev(8, 2)), None);
        let by_source = find_mount(TABLE, |_, source| source == "/dev/sdb 1");
        assert_eq!(by_source, Some("/mnt/a b".into()));
        assert_eq!(unescape("a\\134b\\0\\999"), "a\\b\\0\\999");
    }

    #[test]
    fn a_plain_file_has_no_user() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(user_of(&file.metadata().unwrap()), None);
    }

    /// A machine as sysfs shows it: a disk sdb of two partitions, on the first of them md0; a volume
    /// dm-0 on the disk sdc; a volume dm-1 on dm-0; a loop device that shows a file.
    fn machine(dir: &Path) -> Machine {
        let machine =
            Machine { sys: dir.join("sys"), dev: dir.join("dev"), mounts: dir.join("no") };
        let devices = dir.join("sys/devices");
        let block = dir.join("sys/block");
        fs::create_dir_all(&machine.dev).unwrap();
        fs::create_dir_all(&block).unwrap();
        fs::create_dir_all(dir.join("sys/dev/block")).unwrap();
        for (name, number) in [
            ("sdb", "8:16"),
            ("sdb/sdb1", "8:17"),
            ("sdb/sdb2", "8:18"),
            ("sdc", "8:32"),
            ("md0", "9:0"),
            ("dm-0", "253:0"),
            ("dm-1", "253:1"),
            ("loop7", "7:7"),
            ("loop7/loop7p1", "259:1"),
        ] {
            let place = devices.join(name);
            fs::create_dir_all(place.join("holders")).unwrap();
            fs::create_dir_all(place.join("slaves")).unwrap();
            fs::write(place.join("dev"), format!("{number}\n")).unwrap();
            symlink(&place, dir.join("sys/dev/block").join(number)).unwrap();
            match name.split_once('/') {
                Some(_) => fs::write(place.join("partition"), "1\n").unwrap(),
                None => symlink(&place, block.join(name)).unwrap(),
            }
            File::create(machine.dev.join(place.file_name().unwrap())).unwrap();
        }
        for (below, above) in [("sdb/sdb1", "md0"), ("sdc", "dm-0"), ("dm-0", "dm-1")] {
            let (below, above) = (devices.join(below), devices.join(above));
            symlink(&above, below.join("holders").join(above.file_name().unwrap())).unwrap();
            symlink(&below, above.join("slaves").join(below.file_name().unwrap())).unwrap();
        }
        for (name, mapped) in [("dm-0", "vg-root"), ("dm-1", "secret")] {
            fs::create_dir(devices.join(name).join("dm")).unwrap();
            fs::write(devices.join(name).join("dm/name"), format!("{mapped}\n")).unwrap();
        }
        fs::create_dir(devices.join("loop7/loop")).unwrap();
        let file = dir.join("file with\nlines");
        File::create(&file).unwrap();
        fs::write(
            devices.join("loop7/loop/backing_file"),
            [file.as_os_str().as_bytes(), b"\n"].concat(),
        )
        .unwrap();
        machine
    }

    #[test]
    fn holders_of_a_disk_and_its_partitions() {
        let dir = tempfile::tempdir().unwrap();
        let machine = machine(dir.path());
        let part = |name: &str| Some(Busy::Part(name.to_owned()));
        let user = |major, minor| machine.user_of_device(makedev(major, minor));
        // The disk and the partition have a user; the other partition has none.
        assert_eq!(user(8, 16), part("md0"));
        assert_eq!(user(8, 17), part("md0"));
        assert_eq!(user(8, 18), None);
        assert_eq!(user(8, 32), part("dm-0 (/dev/mapper/vg-root)"));
        assert_eq!(user(253, 0), part("dm-1 (/dev/mapper/secret)"));
        assert_eq!(user(253, 1), None);
        assert_eq!(user(9, 0), None);
        // A whole disk that multipath holds: its partitions are taken, too.
        let sdb = dir.path().join("sys/devices/sdb");
        symlink(dir.path().join("sys/devices/dm-1"), sdb.join("holders/dm-1")).unwrap();
        assert_eq!(user(8, 18), part("dm-1 (/dev/mapper/secret)"));
        assert_eq!(user(1, 1), None, "unknown to sysfs");
    }

    /// A virtual machine that has the disk below, and not the volume itself.
    #[test]
    fn locks_of_what_a_device_is_made_of() {
        let dir = tempfile::tempdir().unwrap();
        let machine = machine(dir.path());
        let user = |major, minor| machine.user_of_device(makedev(major, minor));
        for (name, (major, minor)) in
            [("sdc", (253, 1)), ("sdb", (9, 0)), ("sdb1", (9, 0)), ("dm-0", (253, 1))]
        {
            let below = machine.dev.join(name);
            let file = OpenOptions::new().read(true).write(true).open(&below).unwrap();
            crate::lock::bytes(&file, crate::Purpose::Write).unwrap();
            assert_eq!(user(major, minor), Some(Busy::Below(below)), "{name}");
            drop(file);
            assert_eq!(user(major, minor), None, "{name}");
        }
        let file = dir.path().join("file with\nlines");
        let open = OpenOptions::new().read(true).write(true).open(&file).unwrap();
        crate::lock::bytes(&open, crate::Purpose::Read).unwrap();
        assert_eq!(user(7, 7), Some(Busy::Below(file.clone())));
        // A partition of it, too.
        assert_eq!(user(259, 1), Some(Busy::Below(file.clone())));
        drop(open);
        assert_eq!(user(7, 7), None);
        assert_eq!(
            machine.user_of(&fs::metadata(&file).unwrap()),
            Some(Busy::Loop(machine.dev.join("loop7")))
        );
    }

    /// Devices that name each other are looked at once.
    #[test]
    fn a_circle_ends() {
        let dir = tempfile::tempdir().unwrap();
        let machine = machine(dir.path());
        let devices = dir.path().join("sys/devices");
        symlink(devices.join("dm-1"), devices.join("dm-0/slaves/dm-1")).unwrap();
        assert_eq!(machine.user_of_device(makedev(253, 1)), None);
    }
}
