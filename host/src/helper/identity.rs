//! The user that QEMU runs as: HELPER_USER, or a number of its own for each run.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::FlockOperation;
use rustix::process::{Gid, Uid};

use super::HelperError;
use crate::node::users;

/// Holds a lock file for each number of HELPER_UID_RANGE that is in use.
const LOCKS: &str = "/run/snf-image-uids";

/// Whether QEMU may run as this user.
///
/// # Errors
/// There is no such user, or it is root by another name.
pub fn check_user(user: &str) -> Result<(), HelperError> {
    Identity::of_user(user).map(drop)
}

/// Whom a child runs as.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) uid: Uid,
    pub(super) gid: Gid,
    pub(super) groups: Vec<Gid>,
    /// Nobody else runs as this number as long as the lock is held.
    lock: Option<File>,
}

impl Identity {
    /// Looks a user up by name or number in the node's passwd file. Root is refused by its number,
    /// whatever its name.
    pub(super) fn of_user(user: &str) -> Result<Self, HelperError> {
        let found = users::find(user).map_err(HelperError::system("read /etc/passwd"))?;
        let (uid, gid) = found.ok_or_else(|| HelperError::NoSuchUser(user.to_owned()))?;
        if uid == 0 {
            return Err(HelperError::RootUser(user.to_owned()));
        }
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        Ok(Self { uid, gid, groups: Vec::new(), lock: None })
    }

    /// A number of the range that no other run uses.
    pub(super) fn of_range(range: &RangeInclusive<u32>) -> Result<Self, HelperError> {
        Self::of_range_in(Path::new(LOCKS), range)
    }

    fn of_range_in(locks: &Path, range: &RangeInclusive<u32>) -> Result<Self, HelperError> {
        let system = || {
            HelperError::system(format!("lock a number of HELPER_UID_RANGE in {}", locks.display()))
        };
        if *range.start() == 0 || *range.end() == u32::MAX {
            return Err(HelperError::RootUser(format!("{}-{}", range.start(), range.end())));
        }
        match DirBuilder::new().mode(0o700).create(locks) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(system()(e)),
            _ => {}
        }
        let metadata = fs::symlink_metadata(locks).map_err(system())?;
        if !metadata.is_dir() || metadata.uid() != rustix::process::geteuid().as_raw() {
            return Err(system()(io::Error::other("it is not a directory of ours")));
        }
        for number in range.clone() {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(locks.join(number.to_string()))
                .map_err(system())?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    return Ok(Self {
                        uid: Uid::from_raw(number),
                        gid: Gid::from_raw(number),
                        groups: Vec::new(),
                        lock: Some(file),
                    });
                }
                Err(rustix::io::Errno::AGAIN) => {}
                Err(e) => return Err(system()(e.into())),
            }
        }
        Err(HelperError::NoFreeUser(*range.start(), *range.end()))
    }

    /// Adds the group that may use /dev/kvm. Says whether the identity can open it then.
    pub(super) fn allow_kvm(&mut self) -> bool {
        let Ok(node) = fs::metadata("/dev/kvm") else { return false };
        if node.mode() & 0o006 == 0o006 {
            return true;
        }
        if node.mode() & 0o060 == 0o060 && node.gid() != 0 {
            self.groups.push(Gid::from_raw(node.gid()));
            return true;
        }
        node.uid() == self.uid.as_raw()
    }

    /// The lock on the number, to be held as long as QEMU runs.
    pub(super) fn take_lock(&mut self) -> Option<File> {
        self.lock.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_refused_by_any_name() {
        for user in ["root", "0"] {
            assert!(matches!(Identity::of_user(user), Err(HelperError::RootUser(_))), "{user}");
        }
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(
            Identity::of_range_in(dir.path(), &(0..=5)),
            Err(HelperError::RootUser(_))
        ));
    }

    #[test]
    fn each_run_has_a_number_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let locks = dir.path().join("uids");
        let take = || Identity::of_range_in(&locks, &(70000..=70001));
        let (one, two) = (take().unwrap(), take().unwrap());
        assert_eq!((one.uid.as_raw(), two.uid.as_raw()), (70000, 70001));
        assert!(matches!(take(), Err(HelperError::NoFreeUser(70000, 70001))));
        drop(one);
        assert_eq!(take().unwrap().gid.as_raw(), 70000);
    }
}
