//! HELPER_DEBUG, seen from the host: a socket that leads to the helper's shell on serial 4.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::Duration;

/// How long a VM stays up after a failure, if nobody ends it.
pub(super) const DEBUG_LIMIT: Duration = Duration::from_secs(3600);

/// A listening socket in a directory of its own that only its owner may enter. It is gone with
/// this value.
pub(super) struct DebugSocket {
    directory: tempfile::TempDir,
    /// The descriptor that QEMU inherits.
    pub(super) listener: UnixListener,
}

impl DebugSocket {
    /// Makes one, in `/run` where we may.
    pub(super) fn make() -> io::Result<Self> {
        let place = if rustix::process::geteuid().is_root() {
            PathBuf::from("/run")
        } else {
            std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
        };
        let directory = tempfile::Builder::new()
            .prefix("snf-image-debug-")
            .permissions(std::fs::Permissions::from_mode(0o700))
            .tempdir_in(place)?;
        let listener = UnixListener::bind(directory.path().join("shell"))?;
        Ok(Self { directory, listener })
    }

    /// The words for the person once the VM waits.
    pub(super) fn how_to_attach(&self) -> String {
        format!(
            "HELPER_DEBUG: the run failed and the helper VM stays up for at most {} minutes. Its \
             shell: socat - UNIX-CONNECT:{} (press Enter; `help` lists the commands, `poweroff` ends \
             the VM)",
            DEBUG_LIMIT.as_secs() / 60,
            self.directory.path().join("shell").display()
        )
    }
}
