//! Names of users and groups, kinds and modes, as `ls` writes them.

use std::collections::HashMap;

use snf_fs::error::display_name;
use snf_fs::{FileType, Stat};
use snf_image::guest::{Guest, passwd};

/// The names of the guest's users and groups.
#[derive(Default)]
pub(super) struct Names {
    users: HashMap<u32, String>,
    groups: HashMap<u32, String>,
}

impl Names {
    /// From the guest's own files. A guest without them has numbers only.
    pub(super) fn of(guest: &Guest) -> Self {
        let read = |path| guest.config(path).ok().flatten().unwrap_or_default();
        let (passwd, group) = (read("/etc/passwd"), read("/etc/group"));
        let mut names = Self::default();
        for user in passwd::users(&passwd) {
            names.users.entry(user.uid).or_insert_with(|| display_name(&user.name));
        }
        for (name, gid) in passwd::groups(&group) {
            names.groups.entry(gid).or_insert_with(|| display_name(name));
        }
        names
    }

    /// The name of a user, if the guest has one for the number.
    pub(super) fn user(&self, uid: u32) -> Option<&str> {
        self.users.get(&uid).map(String::as_str)
    }

    /// The name of a group, likewise.
    pub(super) fn group(&self, gid: u32) -> Option<&str> {
        self.groups.get(&gid).map(String::as_str)
    }

    /// The number of a user by name or number.
    pub(super) fn user_number(&self, name: &str) -> Option<u32> {
        let by_name = self.users.iter().find(|(_, known)| *known == name).map(|(uid, _)| *uid);
        by_name.or_else(|| name.parse().ok())
    }
}

/// The word for a kind, in plain text and in JSON.
pub(super) fn kind(file_type: FileType) -> &'static str {
    match file_type {
        FileType::Regular => "file",
        FileType::Directory => "directory",
        FileType::Symlink => "symlink",
        FileType::CharDevice => "character device",
        FileType::BlockDevice => "block device",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
    }
}

/// The letter for a kind, as `ls -l` begins a line.
pub(super) fn letter(file_type: FileType) -> char {
    match file_type {
        FileType::Regular => '-',
        FileType::Directory => 'd',
        FileType::Symlink => 'l',
        FileType::CharDevice => 'c',
        FileType::BlockDevice => 'b',
        FileType::Fifo => 'p',
        FileType::Socket => 's',
    }
}

/// `-rwsr-xr-t`.
pub(super) fn mode(stat: &Stat) -> String {
    let mut text = String::from(letter(stat.file_type));
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = stat.mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (bits & 1 != 0, stat.mode & special != 0) {
            (true, true) => letter,
            (false, true) => letter.to_ascii_uppercase(),
            (true, false) => 'x',
            (false, false) => '-',
        });
    }
    text
}

#[cfg(test)]
mod tests {
    use snf_fs::{NodeId, Timestamp};

    use super::*;

    #[test]
    fn modes_are_those_of_ls() {
        let stat = |file_type, mode| Stat {
            node: NodeId(1),
            file_type,
            mode,
            uid: 0,
            gid: 0,
            links: 1,
            size: 0,
            blocks: 0,
            device: None,
            atime: Timestamp::default(),
            mtime: Timestamp::default(),
            ctime: Timestamp::default(),
        };
        for (file_type, bits, text) in [
            (FileType::Regular, 0o644, "-rw-r--r--"),
            (FileType::Directory, 0o1777, "drwxrwxrwt"),
            (FileType::Regular, 0o4755, "-rwsr-xr-x"),
            (FileType::Regular, 0o6640, "-rwSr-S---"),
            (FileType::Symlink, 0o777, "lrwxrwxrwx"),
        ] {
            assert_eq!(mode(&stat(file_type, bits)), text);
        }
    }
}
