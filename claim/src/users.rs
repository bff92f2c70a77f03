//! Users of a disk that take no lock.

use std::fs::{self, File, Metadata, OpenOptions};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, makedev};

use crate::{Busy, sys};

/// A mount table larger than this is cut off.
const MAX_MOUNTS: usize = 16 << 20;

/// The user of the disk: a loop device, a mounted file system, or a device made of it. `None` when
/// nobody is found; locks are not looked at.
pub fn user_of(disk: &Metadata) -> Option<Busy> {
    if let Some(device) = loop_device(disk) {
        return Some(Busy::Loop(device));
    }
    if !disk.file_type().is_block_device() {
        return None;
    }
    let family = family(disk.rdev());
    if let Some(place) = mount_point(&family) {
        return Some(Busy::Mounted(place));
    }
    family.iter().find_map(|device| holder(*device)).map(Busy::Part)
}

/// The loop device that shows this file or device.
fn loop_device(disk: &Metadata) -> Option<PathBuf> {
    for entry in fs::read_dir("/sys/block").ok()?.flatten() {
        let name = entry.file_name();
        if !name.to_str().is_some_and(|name| name.starts_with("loop")) {
            continue;
        }
        // The file is there only while something is attached.
        let Ok(backing) = fs::read_to_string(entry.path().join("loop/backing_file")) else {
            continue;
        };
        let device = Path::new("/dev").join(&name);
        if shows(&device, disk).unwrap_or_else(|| is_at(backing.trim_end_matches('\n'), disk)) {
            return Some(device);
        }
    }
    None
}

/// Whether a loop device shows this disk; `None` when it cannot be asked.
fn shows(device: &Path, disk: &Metadata) -> Option<bool> {
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).ok()?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(device).ok()?;
    let info = sys::loop_info(&file).ok()?;
    let same_file = info.lo_device == disk.dev() && info.lo_inode == disk.ino();
    let same_device = disk.file_type().is_block_device() && info.lo_rdevice == disk.rdev();
    Some(same_file || same_device)
}

/// The next best for somebody who may not open loop devices: whether the path of the backing file
/// leads to the disk.
fn is_at(path: &str, disk: &Metadata) -> bool {
    fs::metadata(path).is_ok_and(|found| {
        let same_file = found.dev() == disk.dev() && found.ino() == disk.ino();
        let both = found.file_type().is_block_device() && disk.file_type().is_block_device();
        same_file || (both && found.rdev() == disk.rdev())
    })
}

/// The numbers of a device, its partitions, and the disk it is a partition of.
fn family(device: u64) -> Vec<u64> {
    let mut out = vec![device];
    let Ok(place) = fs::canonicalize(in_sysfs(device)) else { return out };
    if place.join("partition").exists() {
        out.extend(place.parent().and_then(number_of));
    }
    let entries = fs::read_dir(&place).into_iter().flatten().flatten();
    out.extend(
        entries
            .map(|entry| entry.path())
            .filter(|path| path.join("partition").exists())
            .filter_map(|path| number_of(&path)),
    );
    out
}

fn in_sysfs(device: u64) -> PathBuf {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    format!("/sys/dev/block/{major}:{minor}").into()
}

/// The device number of a folder in sysfs.
fn number_of(place: &Path) -> Option<u64> {
    parse_number(fs::read_to_string(place.join("dev")).ok()?.trim())
}

fn parse_number(text: &str) -> Option<u64> {
    let (major, minor) = text.split_once(':')?;
    Some(makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// A device that is made of this one.
fn holder(device: u64) -> Option<String> {
    let entry = fs::read_dir(in_sysfs(device).join("holders")).ok()?.flatten().next()?;
    Some(entry.file_name().to_string_lossy().into_owned())
}

/// The mount point of a file system on one of these devices.
fn mount_point(devices: &[u64]) -> Option<PathBuf> {
    use std::io::Read;
    let mut text = Vec::new();
    let table = File::open("/proc/self/mountinfo").ok()?;
    table.take(MAX_MOUNTS as u64).read_to_end(&mut text).ok()?;
    find_mount(&String::from_utf8_lossy(&text), |number, source| {
        // btrfs has a number of its own, of major 0; its source names one of its devices. Elsewhere
        // the number counts, because the name may be another device's by now.
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
}
