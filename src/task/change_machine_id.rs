//! ChangeMachineId: every clone gets an identity of its own: the id, the seed of its random numbers, no
//! addresses that DHCP gave the template.

use snf_fs::error::display_name;
use snf_fs::{Attributes, FileType};

use super::configure_network::forget_leases;
use super::{Guest, LINUX, Needs, Session, Task, TaskError, TaskId, Work, hidden_at_boot};
use crate::ask::plan::MachineId;
use crate::guest::glob;

pub(super) static TASK: Task = Task {
    id: TaskId::ChangeMachineId,
    summary: "give /etc/machine-id, and the copy that D-Bus keeps, a fresh id",
    applies: |plan| plan.machine_id != MachineId::Keep,
    work: Work::guest(Needs::System(LINUX), run),
};

const MACHINE_ID: &str = "/etc/machine-id";
const DBUS_ID: &str = "/var/lib/dbus/machine-id";

fn run(guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    let content = match &session.plan.machine_id {
        MachineId::Keep => return Ok(()),
        MachineId::Empty => String::new(),
        MachineId::Uninitialized => "uninitialized\n".to_owned(),
        MachineId::Given(id) => {
            check(id)?;
            format!("{id}\n")
        }
        MachineId::New => format!("{}\n", fresh(session)),
    };
    let resolved = match guest.tree.resolve(MACHINE_ID) {
        Ok(resolved) => resolved,
        Err(error) if error.is_not_found() => {
            return Err(TaskError::request(format!(
                "{MACHINE_ID} is a symbolic link into a directory that does not exist"
            )));
        }
        Err(error) => return Err(error.into()),
    };
    if let Some(dir) = hidden_at_boot(&resolved.path) {
        session.warn(format!(
            "{MACHINE_ID} is {}, which the guest makes anew at each boot ({dir}); it was left alone",
            display_name(&resolved.path)
        ));
    } else if resolved.stat.is_some()
        || guest.has_systemd()?
        || matches!(session.plan.machine_id, MachineId::Given(_))
    {
        let attributes = Attributes { mode: 0o444, uid: 0, gid: 0 };
        guest.tree.write(MACHINE_ID, content.as_bytes(), attributes)?;
    }
    // The copy is a symbolic link in most systems of today; where it is a file it must be the same
    // id, and D-Bus takes an empty file for a broken one.
    let copy = match guest.tree.lstat(DBUS_ID) {
        Ok(stat) => stat.file_type == FileType::Regular,
        Err(error) if error.is_not_found() => false,
        Err(error) => return Err(error.into()),
    };
    // It would not be one for D-Bus, either.
    let is_none = content.is_empty() || session.plan.machine_id == MachineId::Uninitialized;
    if copy && is_none {
        guest.tree.unlink(DBUS_ID)?;
    } else if copy {
        let attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };
        guest.tree.write(DBUS_ID, content.as_bytes(), attributes)?;
    }
    renew_seeds(guest, session)?;
    forget_leases(guest)?;
    warn_of_command_line(guest, session)
}

/// Files from which a guest makes its first random numbers; two guests must not share one.
const SEEDS: [&str; 5] = [
    "/var/lib/systemd/random-seed",
    "/var/lib/urandom/random-seed",
    "/var/lib/misc/random-seed",
    "/var/lib/random-seed",
    "/var/lib/seedrng/seed.credit",
];
const SEED_BYTES: u64 = 4096;

/// A fresh seed for a fresh id; in all other cases none, and the guest makes it at the next boot.
fn renew_seeds(guest: &mut Guest, session: &Session<'_>) -> Result<(), TaskError> {
    for path in SEEDS {
        let stat = match guest.tree.lstat(path) {
            Ok(stat) if stat.file_type == FileType::Regular => stat,
            Ok(_) => continue,
            Err(error) if error.is_not_found() => continue,
            Err(error) => return Err(error.into()),
        };
        if session.plan.machine_id != MachineId::New {
            guest.tree.unlink(path)?;
            continue;
        }
        let mut entropy = session.entropy.derive(path);
        let blocks = stat.size.clamp(512, SEED_BYTES).div_ceil(32);
        let seed: Vec<u8> = (0..blocks).flat_map(|_| entropy.bytes::<32>()).collect();
        guest.tree.write(path, &seed, Attributes { mode: 0o600, uid: 0, gid: 0 })?;
    }
    Ok(())
}

/// Files that hold the kernel's command line.
const COMMAND_LINES: [&str; 6] = [
    "/etc/kernel/cmdline",
    "/etc/default/grub",
    "/boot/grub/grub.cfg",
    "/boot/grub2/grub.cfg",
    "/boot/loader/entries/*.conf",
    "/efi/loader/entries/*.conf",
];

/// An id on the kernel's command line is stronger than the file.
fn warn_of_command_line(guest: &Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    for pattern in COMMAND_LINES {
        for path in glob::expand(&guest.tree, pattern.as_bytes())? {
            if !guest.tree.is_file(&path)? {
                continue;
            }
            let text = guest.tree.read(&path, crate::guest::CONFIG_MAX)?;
            let key = b"systemd.machine_id=";
            if text.windows(key.len()).any(|part| part == key) {
                session.warn(format!(
                    "{} gives the kernel systemd.machine_id=, which is stronger than {MACHINE_ID}; \
                     remove it there",
                    display_name(&path)
                ));
            }
        }
    }
    Ok(())
}

/// Whether a text can be a machine id, or why not.
fn check(id: &str) -> Result<(), TaskError> {
    let digits = id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !digits || id.bytes().all(|byte| byte == b'0') {
        return Err(TaskError::request(format!(
            "\"{}\" is not a machine id: 32 hexadecimal digits in lower case, not all of them 0",
            id.escape_debug()
        )));
    }
    Ok(())
}

/// A random UUID (version 4) without hyphens, as systemd makes it.
fn fresh(session: &Session<'_>) -> String {
    let mut bytes: [u8; 16] = session.entropy.derive("machine-id").bytes();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::testing::Guest;

    #[test]
    fn a_fresh_id_in_both_places() {
        let mut guest = Guest::debian();
        guest.write(DBUS_ID, "0123456789abcdef0123456789abcdef\n");
        guest.run(&TASK).unwrap();
        let id = guest.read(MACHINE_ID);
        assert!(check(id.trim_end()).is_ok() && id.len() == 33 && &id[12..13] == "4", "{id}");
        assert_ne!(id, "0123456789abcdef0123456789abcdef\n");
        assert_eq!(guest.read(DBUS_ID), id);
    }

    #[test]
    fn links_and_missing_files() {
        let mut guest = Guest::debian();
        guest.mkdir("/var/lib/dbus");
        guest.symlink(DBUS_ID, MACHINE_ID);
        guest.tree().unlink(MACHINE_ID).unwrap();
        guest.run(&TASK).unwrap();
        assert_eq!(guest.attributes(MACHINE_ID), (0o444, 0, 0));
        assert_eq!(guest.tree().lstat(DBUS_ID).unwrap().file_type, FileType::Symlink);
        let mut guest = Guest::empty();
        guest.mkdir("/etc");
        guest.run(&TASK).unwrap();
        assert!(guest.changed().is_empty() || guest.changed() == ["/etc"]);
        let mut guest = Guest::debian();
        guest.tree().unlink(MACHINE_ID).unwrap();
        guest.mkdir("/run");
        guest.symlink(MACHINE_ID, "/run/machine-id");
        guest.run(&TASK).unwrap();
        assert!(guest.warnings()[0].contains("/run/machine-id"));
        assert!(!guest.tree().exists("/run/machine-id").unwrap());
    }

    #[test]
    fn what_else_tells_clones_apart() {
        let mut guest = Guest::debian();
        guest.write(SEEDS[0], &"x".repeat(512));
        guest.write("/var/lib/dhcp/dhclient.leases", "lease\n");
        guest.write("/boot/grub/grub.cfg", "linux /vmlinuz systemd.machine_id=1\n");
        guest.run(&TASK).unwrap();
        let seed = guest.tree().read(SEEDS[0], 9999).unwrap();
        assert!(seed.len() == 512 && seed != [b'x'; 512]);
        assert!(!guest.tree().exists("/var/lib/dhcp/dhclient.leases").unwrap());
        assert!(guest.warnings()[0].contains("/boot/grub/grub.cfg gives the kernel"));
        guest.plan.machine_id = MachineId::Uninitialized;
        guest.write(DBUS_ID, "x");
        guest.run(&TASK).unwrap();
        assert_eq!(guest.read(MACHINE_ID), "uninitialized\n");
        for gone in [SEEDS[0], DBUS_ID] {
            assert!(!guest.tree().exists(gone).unwrap());
        }
        // An id that is given is not lost where nothing has asked for one yet.
        let mut guest = Guest::empty();
        guest.mkdir("/etc");
        guest.plan.machine_id = MachineId::Given("0123456789abcdef0123456789abcdee".into());
        guest.run(&TASK).unwrap();
        assert_eq!(guest.read(MACHINE_ID), "0123456789abcdef0123456789abcdee\n");
    }

    #[test]
    fn other_requests() {
        let mut guest = Guest::debian();
        guest.write(DBUS_ID, "x");
        guest.plan.machine_id = MachineId::Empty;
        guest.run(&TASK).unwrap();
        assert_eq!(guest.read(MACHINE_ID), "");
        assert!(!guest.tree().exists(DBUS_ID).unwrap());
        guest.plan.machine_id = MachineId::Given("0123456789abcdef0123456789abcdee".into());
        guest.run(&TASK).unwrap();
        assert_eq!(guest.read(MACHINE_ID), "0123456789abcdef0123456789abcdee\n");
        for bad in ["", "0123", "0123456789ABCDEF0123456789ABCDEF", &"0".repeat(32)] {
            guest.plan.machine_id = MachineId::Given(bad.into());
            assert!(guest.fail(&TASK).contains("not a machine id"));
        }
        guest.plan.machine_id = MachineId::New;
        guest.tree().unlink(MACHINE_ID).unwrap();
        guest.mkdir(MACHINE_ID);
        assert_eq!(guest.fail(&TASK), "/etc/machine-id: is a directory");
    }
}
