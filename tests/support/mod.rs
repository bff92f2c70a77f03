//! Helpers of the end-to-end tests.
#![allow(dead_code)] // each test binary uses its own part

pub mod console;
pub mod disk;
pub mod ganeti;
pub mod hives;
pub mod root;
pub mod walk;
pub mod windows;

use std::path::PathBuf;

/// A path that `cargo xtask test` hands to the tests.
pub fn given(name: &str) -> PathBuf {
    std::env::var_os(name).map(PathBuf::from).unwrap_or_else(|| {
        panic!("{name} is not set: this test needs what `cargo xtask test` prepares; run that")
    })
}

/// The pristine Debian image; never write to it.
pub fn debian() -> PathBuf {
    given("SNF_TEST_DEBIAN")
}

/// A tree of Debian 12 with the programs that judge what we write for guests: sshd, netplan, ifupdown,
/// NetworkManager, BusyBox. They are run in it by chroot, in a mount name space of their own.
pub fn guest_tools() -> PathBuf {
    let tree = given("SNF_TEST_CACHE").join("guest-tools-bookworm-1");
    assert!(tree.is_dir(), "{} is missing: `cargo xtask setup` makes it", tree.display());
    tree
}

/// The built pieces, laid out as installed.
pub fn stage() -> PathBuf {
    given("SNF_TEST_STAGE")
}

/// A directory on the cache's file system (images are large, and reflinks or holes survive).
pub fn scratch() -> tempfile::TempDir {
    let directory = tempfile::Builder::new().prefix("snf-test-").tempdir().unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    directory
}
