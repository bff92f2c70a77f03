//! Whether the guest makes host keys by itself at its next boot.

use super::super::{Guest, TaskError};
use crate::guest::glob;

/// Units and scripts that distributions start sshd or make keys with.
const PLACES: [&str; 8] = [
    "/etc/systemd/system/*ssh*",
    "/etc/systemd/system/*.d/*.conf",
    "/usr/lib/systemd/system/*ssh*",
    "/lib/systemd/system/*ssh*",
    "/etc/init.d/*ssh*",
    "/etc/init.d/dropbear",
    "/etc/rc.d/rc.sshd",
    "/etc/sv/sshd/run",
];
/// Scripts of other names that run at each boot.
const SCRIPTS: [&str; 2] = ["/etc/rc.local", "/etc/rc.d/rc.local"];
/// Words by which a unit or script makes keys.
const MAKERS: [&[u8]; 5] =
    [b"ssh-keygen", b"sshd-keygen", b"sshd-gen-keys", b"dropbearkey", b"DROPBEAR_EXTRA_ARGS=\"-R"];
const UNIT_BYTES: u64 = 1 << 20;

pub(super) fn makes_keys(guest: &Guest) -> Result<bool, TaskError> {
    // cloud-init makes those that are missing.
    if guest.has_cloud_init()? {
        return Ok(true);
    }
    let mut paths: Vec<Vec<u8>> = SCRIPTS.iter().map(|path| path.as_bytes().to_vec()).collect();
    for pattern in PLACES {
        paths.extend(glob::expand(&guest.tree, pattern.as_bytes())?);
    }
    for path in paths {
        let is_small = guest.tree.stat_optional(&path)?.is_some_and(|stat| {
            stat.file_type == snf_fs::FileType::Regular && stat.size <= UNIT_BYTES
        });
        if !is_small {
            continue;
        }
        let text = guest.tree.read(&path, UNIT_BYTES)?;
        let makes = |line: &[u8]| {
            !line.trim_ascii_start().starts_with(b"#")
                && MAKERS.iter().any(|word| line.windows(word.len()).any(|part| part == *word))
        };
        if text.split(|byte| *byte == b'\n').any(makes) {
            return Ok(true);
        }
    }
    Ok(false)
}
