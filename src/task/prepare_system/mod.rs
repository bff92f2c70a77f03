//! PrepareSystem: removes what a clone must not share with its model, as virt-sysprep does. It comes before
//! everything that gives the guest an identity. The operations are in the table; each is a list of paths
//! or a small edit.

mod table;

pub use table::{OPERATIONS, Operation};

use snf_fs::error::display_name;
use snf_fs::tree::{Descend, Visited};
use snf_fs::{Attributes, FileType, Tree};

use super::{Guest, LINUX, Needs, Session, Task, TaskError, TaskId, Work};
use crate::guest::removal::remove;
use crate::guest::{CONFIG_MAX, glob};
use table::Work as Operate;

pub(super) static TASK: Task = Task {
    id: TaskId::PrepareSystem,
    summary: "remove logs, keys, leases and whatever else a clone must not share (sysprep)",
    applies: |plan| !plan.sysprep.is_empty(),
    work: Work::guest(Needs::System(LINUX), run),
};

/// Names of operations that make no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadOperations {
    /// There is none of that name.
    #[error("there is no operation '{}'; --list-operations lists them", .0.escape_debug())]
    Unknown(String),
    /// It is one of virt-sysprep's that is not done here.
    #[error("the operation {0} cannot be done: {1}")]
    Refused(&'static str, &'static str),
    /// Nothing is left to do.
    #[error("no operation is left")]
    Nothing,
}

/// The operations that a list asks for: names with commas between; `defaults` and `all` (that can be done)
/// stand for several, and `-NAME` takes one out again.
///
/// # Errors
/// When a name is unknown, or nothing is left.
pub fn select(text: &str) -> Result<Vec<String>, BadOperations> {
    let mut chosen: Vec<&'static str> = Vec::new();
    let can = |operation: &&Operation| !matches!(operation.work, Operate::Refused(_));
    for (index, word) in text.split(',').map(str::trim).enumerate() {
        let (word, out) = word.strip_prefix('-').map_or((word, false), |word| (word, true));
        let unknown = || BadOperations::Unknown(word.chars().take(60).collect());
        let named: Vec<&Operation> = match word {
            "all" => OPERATIONS.iter().filter(can).collect(),
            "defaults" | "default" => {
                OPERATIONS.iter().filter(|operation| operation.default).collect()
            }
            name => vec![OPERATIONS.iter().find(|known| known.name == name).ok_or_else(unknown)?],
        };
        // A list that begins by taking out begins with the defaults.
        if out && index == 0 {
            chosen =
                OPERATIONS.iter().filter(|known| known.default).map(|known| known.name).collect();
        }
        for operation in named {
            if out {
                chosen.retain(|name| *name != operation.name);
                continue;
            }
            if let Operate::Refused(why) = operation.work {
                return Err(BadOperations::Refused(operation.name, why));
            }
            if !chosen.contains(&operation.name) {
                chosen.push(operation.name);
            }
        }
    }
    if chosen.is_empty() {
        return Err(BadOperations::Nothing);
    }
    Ok(chosen.into_iter().map(str::to_owned).collect())
}

fn run(guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    let plan = session.plan;
    for operation in
        OPERATIONS.iter().filter(|known| plan.sysprep.iter().any(|name| name == known.name))
    {
        operate(operation, guest, session)?;
        guest.tree.seal()?;
    }
    Ok(())
}

fn operate(
    operation: &Operation,
    guest: &mut Guest,
    session: &mut Session<'_>,
) -> Result<(), TaskError> {
    let tree = &mut guest.tree;
    match operation.work {
        Operate::Delete(patterns) => delete(tree, patterns, &[], true)?,
        Operate::DeleteBut(patterns, kept) => delete(tree, patterns, kept, true)?,
        Operate::DeleteFiles(patterns) => delete(tree, patterns, &[], false)?,
        Operate::Empty(patterns) => {
            for path in matching_all(tree, patterns)? {
                empty(tree, &path)?;
            }
        }
        Operate::DropVariables(patterns, names) => {
            for path in matching_all(tree, patterns)? {
                drop_variables(tree, &path, names)?;
            }
        }
        Operate::Touch(path) => {
            if !tree.exists(path)? {
                tree.write(path, b"", Attributes { mode: 0o644, uid: 0, gid: 0 })?;
            }
        }
        Operate::BackupFiles => backup_files(tree)?,
        Operate::MachineId => {
            empty(tree, b"/etc/machine-id")?;
            // An empty copy is broken for D-Bus; a link follows by itself.
            let copy = b"/var/lib/dbus/machine-id";
            if file_type(tree, copy)? == Some(FileType::Regular) {
                tree.unlink(copy)?;
            }
        }
        Operate::HostKeys => {
            delete(
                tree,
                &[
                    "/etc/ssh/*_host_*",
                    "/etc/dropbear/dropbear_*_host_key",
                    "/etc/tinyssh/sshkeydir/*",
                ],
                &[],
                true,
            )?;
            let makes_new = guest.has_cloud_init()? || has_keygen_unit(guest)?;
            let server = guest.tree.exists("/usr/sbin/sshd")?;
            if server && !makes_new && plan_keeps_keys(session) {
                session.warn(
                    "ssh-hostkeys: nothing in this guest makes new host keys at boot, so its SSH server \
                     will not start; add --host-keys new, or take the operation \
                     out of the list with -ssh-hostkeys",
                );
            }
        }
        Operate::CloudNetwork => {
            if guest.has_cloud_init()? {
                let patterns = &[
                    "/etc/netplan/50-cloud-init.yaml",
                    "/etc/network/interfaces.d/50-cloud-init*",
                    "/etc/NetworkManager/system-connections/cloud-init-*.nmconnection",
                    "/etc/systemd/network/10-cloud-init-*.network",
                    "/etc/udev/rules.d/70-cloud-init-*.rules",
                ];
                delete(&mut guest.tree, patterns, &[], true)?;
            }
        }
        Operate::Options | Operate::Refused(_) => {}
    }
    Ok(())
}

/// Whether this run makes no host keys of its own.
fn plan_keeps_keys(session: &Session<'_>) -> bool {
    session.plan.host_keys != crate::ask::plan::HostKeys::New
}

/// Whether a unit of the guest makes host keys that are missing, as on Fedora, SUSE and Arch.
fn has_keygen_unit(guest: &Guest) -> Result<bool, TaskError> {
    for name in
        ["sshd-keygen@.service", "sshd-keygen.service", "sshdgenkeys.service", "ssh-keygen.service"]
    {
        for dir in ["/usr/lib/systemd/system", "/lib/systemd/system", "/etc/systemd/system"] {
            if guest.tree.exists(format!("{dir}/{name}"))? {
                return Ok(true);
            }
        }
    }
    // Alpine's and Gentoo's script calls ssh-keygen -A.
    Ok(guest.tree.exists("/sbin/openrc-run")? && guest.tree.exists("/etc/init.d/sshd")?)
}

fn file_type(tree: &Tree, path: &[u8]) -> Result<Option<FileType>, TaskError> {
    match tree.lstat(path) {
        Ok(stat) => Ok(Some(stat.file_type)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(snf_fs::Error::NotADirectory(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The paths that a pattern names, links taken for themselves. Its last name may match any number of
/// files, those before it as many as [`glob::expand`] takes.
fn matching(tree: &Tree, pattern: &str) -> Result<Vec<Vec<u8>>, TaskError> {
    let (dir, name) = pattern.rsplit_once('/').unwrap_or(("", pattern));
    let mut found = Vec::new();
    for dir in glob::expand(tree, dir.as_bytes())? {
        if !tree.is_dir(&dir)? {
            continue;
        }
        for entry in tree.read_dir(&dir)? {
            if glob::matches(name.as_bytes(), &entry.name) {
                found.push([dir.as_slice(), b"/", &entry.name].concat());
            }
        }
    }
    Ok(found)
}

fn matching_all(tree: &Tree, patterns: &[&str]) -> Result<Vec<Vec<u8>>, TaskError> {
    let mut found = Vec::new();
    for pattern in patterns {
        found.extend(matching(tree, pattern)?);
    }
    found.sort();
    found.dedup();
    Ok(found)
}

fn delete(
    tree: &mut Tree,
    patterns: &[&str],
    kept: &[&str],
    directories: bool,
) -> Result<(), TaskError> {
    for path in matching_all(tree, patterns)? {
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        if kept.iter().any(|kept| kept.as_bytes() == name) {
            continue;
        }
        match file_type(tree, &path)? {
            Some(FileType::Directory) if !directories => {}
            Some(_) => remove(tree, path)?,
            // It was in a directory that is gone already.
            None => {}
        }
    }
    Ok(())
}

/// Empties a file that is there; it keeps its attributes.
fn empty(tree: &mut Tree, path: &[u8]) -> Result<(), TaskError> {
    match tree.stat_optional(path)? {
        Some(stat) if stat.file_type == FileType::Regular && stat.size > 0 => {
            let attributes = Attributes { mode: stat.mode, uid: stat.uid, gid: stat.gid };
            tree.write(path, b"", attributes)?;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn drop_variables(tree: &mut Tree, path: &[u8], names: &[&str]) -> Result<(), TaskError> {
    let Some(stat) = tree.stat_optional(path)?.filter(|stat| stat.file_type == FileType::Regular)
    else {
        return Ok(());
    };
    let content = tree.read(path, CONFIG_MAX)?;
    let sets = |line: &[u8]| {
        let line = line.trim_ascii_start();
        names.iter().any(|name| {
            line.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
        })
    };
    let kept: Vec<&[u8]> =
        content.split_inclusive(|byte| *byte == b'\n').filter(|line| !sets(line)).collect();
    let attributes = Attributes { mode: stat.mode, uid: stat.uid, gid: stat.gid };
    tree.write(path, &kept.concat(), attributes)?;
    Ok(())
}

/// Most copies of editors that are looked for.
const BACKUPS_MAX: usize = 100_000;

fn backup_files(tree: &mut Tree) -> Result<(), TaskError> {
    let mut found: Vec<Vec<u8>> = Vec::new();
    for start in ["/etc", "/root", "/srv", "/tmp", "/var"] {
        if !tree.is_dir(start)? {
            continue;
        }
        tree.visit(start, |visited: &Visited<'_>| {
            let file = visited.stat.file_type == FileType::Regular;
            if file && (visited.path.ends_with(b"~") || visited.path.ends_with(b".bak")) {
                found.push(visited.path.to_vec());
            }
            if found.len() > BACKUPS_MAX {
                let path = display_name(visited.path);
                return Err(TaskError::Request(format!(
                    "{path}: more than {BACKUPS_MAX} copies of editors; leave out the operation backup-files"
                )));
            }
            Ok(Descend::Yes)
        })?;
    }
    found.into_iter().try_for_each(|path| Ok(tree.unlink(path)?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::testing::Guest;
    use super::*;

    fn prepare(guest: &mut Guest, operations: &str) {
        guest.plan.sysprep = select(operations).unwrap();
        guest.with(run).unwrap();
    }

    #[test]
    fn the_table_is_sorted_and_has_virt_sysprep_s_operations() {
        assert!(OPERATIONS.is_sorted_by_key(|operation| operation.name));
        // virt-sysprep 1.48 lists these, with those that are not its defaults.
        let theirs = "abrt-data backup-files bash-history blkid-tab ca-certificates crash-data cron-spool \
            customize dhcp-client-state dhcp-server-state dovecot-data firewall-rules flag-reconfiguration \
            fs-uuids ipa-client kerberos-data kerberos-hostkeytab logfiles lvm-system-devices lvm-uuids \
            machine-id mail-spool net-hostname net-hwaddr net-nmconn pacct-log package-manager-cache pam-data \
            passwd-backups puppet-data-log rh-subscription-manager rhn-systemid rpm-db samba-db-log script \
            smolt-uuid ssh-hostkeys ssh-userdir sssd-db-log tmp-files udev-persistent-net user-account utmp yum-uuid";
        let names: BTreeSet<&str> = OPERATIONS.iter().map(|operation| operation.name).collect();
        for name in theirs.split_whitespace() {
            assert!(names.contains(name), "{name}");
        }
        for operation in OPERATIONS {
            assert!(!operation.default || !matches!(operation.work, Operate::Refused(_)));
        }
    }

    #[test]
    fn lists_of_operations() {
        let defaults = select("defaults").unwrap();
        assert!(defaults.iter().any(|name| name == "logfiles"));
        assert!(!defaults.iter().any(|name| name == "firewall-rules"));
        assert_eq!(select("-logfiles").unwrap().len(), defaults.len() - 1);
        assert_eq!(select("defaults,firewall-rules").unwrap().len(), defaults.len() + 1);
        assert_eq!(select("utmp, utmp").unwrap(), ["utmp"]);
        assert!(select("all").unwrap().len() > defaults.len());
        assert_eq!(select("utmp,-utmp"), Err(BadOperations::Nothing));
        for bad in ["", "none", "utmp,,"] {
            assert!(matches!(select(bad), Err(BadOperations::Unknown(_))), "{bad}");
        }
        assert!(matches!(select("fs-uuids"), Err(BadOperations::Refused("fs-uuids", _))));
    }

    #[test]
    fn what_clones_must_not_share_goes() {
        let mut guest = Guest::debian();
        let gone = [
            "/home/ann/.bash_history",
            "/root/.bash_history",
            "/home/ann/.ssh/authorized_keys",
            "/var/log/syslog.1",
            "/var/log/apt/history.log",
            "/var/log/journal/0123/system.journal",
            "/var/lib/dhcp/dhclient.ens3.leases",
            "/var/lib/NetworkManager/internal-1-ens3.lease",
            "/var/lib/systemd/random-seed",
            "/var/lib/cloud/instance/obj.pkl",
            "/etc/shadow-",
            "/etc/ssh/ssh_host_rsa_key",
            "/etc/udev/rules.d/70-persistent-net.rules",
            "/tmp/.X11-unix/X0",
            "/tmp/a/b",
            "/etc/conf.bak",
            "/var/mail/ann",
            "/var/spool/cron/crontabs/ann",
        ];
        let stays = [
            "/var/log/journal",
            "/var/spool/cron/crontabs",
            "/etc/shadow",
            "/etc/ssh/sshd_config",
            "/home/ann",
            "/usr/share/x.bak",
            "/etc/network/interfaces",
        ];
        for path in gone {
            guest.write(path, "x");
        }
        guest.write("/usr/share/x.bak", "x");
        guest.write("/etc/network/interfaces", "auto lo\n");
        guest.write("/var/lib/dbus/machine-id", "x");
        let ifcfg = "/etc/sysconfig/network-scripts/ifcfg-eth0";
        guest.write(
            ifcfg,
            "DEVICE=eth0\nHWADDR=52:54:00:1:2:3\n HOSTNAME=a\nDHCP_HOSTNAME=b\nHWADDRX=1\n",
        );
        guest.plan.host_keys = crate::ask::plan::HostKeys::Keep;
        prepare(&mut guest, "defaults");
        for path in gone {
            assert!(!guest.tree().exists(path).unwrap(), "{path} is there");
        }
        for path in stays {
            assert!(guest.tree().exists(path).unwrap(), "{path} is gone");
        }
        assert_eq!(guest.tree().read("/etc/machine-id", 100).unwrap(), b"");
        assert!(!guest.tree().exists("/var/lib/dbus/machine-id").unwrap());
        assert_eq!(guest.tree().read(ifcfg, 100).unwrap(), b"DEVICE=eth0\nHWADDRX=1\n");
        assert!(guest.warnings()[0].contains("nothing in this guest makes new host keys"));
        // Once more, and nothing is left to do.
        prepare(&mut guest, "defaults");
    }

    #[test]
    fn links_of_users_lead_nowhere() {
        let mut guest = Guest::debian();
        guest.write("/srv/keep/file", "x");
        guest.symlink("/home/ann/.ssh", "/srv/keep");
        guest.symlink("/tmp", "/srv/keep");
        prepare(&mut guest, "ssh-userdir");
        assert!(guest.tree().lstat("/home/ann/.ssh").is_err());
        assert!(guest.tree().exists("/srv/keep/file").unwrap());
    }
}
