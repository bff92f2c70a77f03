//! Authorized keys: appended where sshd looks for them, with the owner and modes it insists on.

use snf_fs::Attributes;
use snf_fs::error::display_name;

use super::super::{Guest, Session, TaskError, hidden_at_boot};
use super::reach::{GrantedKeys, who};
use crate::guest::CONFIG_MAX;
use crate::guest::passwd::User;
use crate::guest::sshd::{PatternError, SshdConfig};

/// Homes of accounts that nobody logs in to.
const NO_HOMES: [&[u8]; 4] = [b"/nonexistent", b"/dev/null", b"/var/empty", b"/run/sshd"];

/// Adds the lines of `lines` that the user does not have yet.
pub(super) fn add(
    guest: &mut Guest,
    session: &mut Session<'_>,
    sshd: &SshdConfig,
    user: &User,
    lines: &str,
) -> Result<GrantedKeys, TaskError> {
    let name = display_name(&user.name);
    let lines = check(lines).map_err(|source| TaskError::Keys { user: name.clone(), source })?;
    for line in lines.iter().filter(|line| !line.starts_with('#') && key_of(line).is_none()) {
        let start: String = line.chars().take(20).collect();
        session.warn(format!(
            "among the authorized keys for {name}, \"{}...\" does not look like a line of \
             authorized_keys (a key type, then the key in base64); it was written as it is",
            start.escape_debug()
        ));
    }
    let home = home(user)?;
    let real_home =
        guest.tree.resolve_missing(if home.is_empty() { b"/" } else { home.as_slice() })?;
    let (path, canonical) = place(guest, session, sshd, user, &home)?;
    let in_home = below(&real_home, &canonical);
    let mut old = None;
    if let Some(stat) = guest.tree.stat_optional(&canonical)? {
        if user.uid != 0 && in_home && stat.links > 1 {
            return Err(TaskError::request(format!(
                "{} has {} names (hard links), so the keys of {name} would be those of others, too; \
                 make it a file of its own",
                display_name(&canonical),
                stat.links
            )));
        }
        old = Some(guest.tree.read(&canonical, CONFIG_MAX)?);
    }
    // The owner of the home chose its links: they must lead into the home.
    if user.uid != 0 && below(&home, &path) && !in_home {
        return Err(TaskError::request(format!(
            "the authorized keys of {name} would go to {}, because a symbolic link in {} leads out \
             of it; remove the link",
            display_name(&canonical),
            display_name(&home)
        )));
    }

    make_directories(guest, user, &home, &real_home, &canonical)?;
    let new = merged(old.as_deref().unwrap_or_default(), &lines);
    if in_home {
        let attributes = Attributes { mode: 0o600, uid: user.uid, gid: user.gid };
        guest.tree.write(&canonical, &new, attributes)?;
        guest.tree.chown(&canonical, user.uid, user.gid)?;
        guest.tree.chmod(&canonical, 0o600)?;
        if old.is_none() {
            label(guest, &canonical)?;
        }
    } else {
        // Elsewhere the file is the administrator's: one that is there keeps owner and mode, and
        // a new one is root's, readable for sshd when it has become the user.
        guest.tree.write(&canonical, &new, Attributes { mode: 0o644, uid: 0, gid: 0 })?;
    }
    let has_command = lines.iter().any(|line| line.contains("command=\""));
    Ok(GrantedKeys { file: canonical, home: real_home, has_command })
}

/// The path of the user's keys, and where it leads to.
fn place(
    guest: &Guest,
    session: &mut Session<'_>,
    sshd: &SshdConfig,
    user: &User,
    home: &[u8],
) -> Result<(Vec<u8>, Vec<u8>), TaskError> {
    let name = display_name(&user.name);
    let openwrt = dropbear_of_openwrt(guest, user)?;
    let path = match openwrt {
        Some(path) => path,
        None => {
            let settings = sshd.settings(&who(guest, user)?, false);
            match settings.keys_path(&user.name, user.uid, home) {
                Ok(path) => path,
                Err(error @ PatternError::None) => {
                    session.warn(format!(
                        "{error}; those of {name} were written to .ssh/authorized_keys all the same"
                    ));
                    [home, b"/.ssh/authorized_keys"].concat()
                }
                Err(error) => {
                    return Err(TaskError::request(format!(
                        "{error}; the keys of {name} cannot be written"
                    )));
                }
            }
        }
    };
    let canonical = guest.tree.resolve_missing(&path)?;
    if let Some(dir) = hidden_at_boot(&canonical) {
        return Err(TaskError::request(format!(
            "the authorized keys of {name} would go to {}, because {} leads there; the guest \
             mounts something else on {dir}, so they would be lost",
            display_name(&canonical),
            display_name(&path)
        )));
    }
    Ok((path, canonical))
}

/// OpenWrt's dropbear reads root's keys in a place of its own.
fn dropbear_of_openwrt(guest: &Guest, user: &User) -> Result<Option<Vec<u8>>, TaskError> {
    let ours = user.uid == 0
        && guest.tree.exists("/etc/openwrt_release")?
        && guest.tree.is_dir("/etc/dropbear")?;
    Ok(ours.then(|| b"/etc/dropbear/authorized_keys".to_vec()))
}

/// The home directory, without slashes at its end.
fn home(user: &User) -> Result<Vec<u8>, TaskError> {
    let mut home = user.home.clone();
    if !home.starts_with(b"/") {
        return Err(TaskError::request(format!(
            "the home directory of {} is \"{}\" in /etc/passwd, which is no absolute path; \
             authorized keys need one",
            display_name(&user.name),
            display_name(&home)
        )));
    }
    while home.ends_with(b"/") {
        home.pop();
    }
    let is_none = |none: &&[u8]| home == *none || below(none, &home);
    if NO_HOMES.iter().any(is_none) {
        return Err(TaskError::request(format!(
            "the home directory of {} is {} in /etc/passwd, so the user has none; authorized keys \
             need one",
            display_name(&user.name),
            display_name(&home)
        )));
    }
    Ok(home)
}

/// Whether `path` is strictly below `dir`, both canonical. The root has an empty or `/` form.
fn below(dir: &[u8], path: &[u8]) -> bool {
    let dir = dir.strip_suffix(b"/").unwrap_or(dir);
    path.strip_prefix(dir).is_some_and(|rest| rest.starts_with(b"/") && rest.len() > 1)
}

/// Makes what is missing above the file. In the home the directory belongs to the user and is
/// closed to others; elsewhere it belongs to root and sshd must be able to pass.
fn make_directories(
    guest: &mut Guest,
    user: &User,
    home: &[u8],
    real_home: &[u8],
    file: &[u8],
) -> Result<(), TaskError> {
    let dir = match file.iter().rposition(|byte| *byte == b'/') {
        Some(0) | None => return Ok(()),
        Some(slash) => &file[..slash],
    };
    let system = Attributes { mode: 0o755, uid: 0, gid: 0 };
    if !below(real_home, file) {
        guest.tree.mkdir_all(dir, system)?;
        return Ok(());
    }
    let private = Attributes { mode: 0o700, uid: user.uid, gid: user.gid };
    if !home.is_empty() && !guest.tree.exists(real_home)? {
        if let Some(slash) = real_home.iter().rposition(|byte| *byte == b'/').filter(|at| *at > 0) {
            guest.tree.mkdir_all(&real_home[..slash], system)?;
        }
        guest.tree.mkdir(real_home, private)?;
    }
    if below(real_home, dir) {
        let made = guest.tree.mkdir_all(dir, private)? > 0;
        guest.tree.chown(dir, user.uid, user.gid)?;
        guest.tree.chmod(dir, 0o700)?;
        if made {
            label(guest, dir)?;
        }
    }
    Ok(())
}

/// Labels keys in a home with their own SELinux type, if the guest has labels.
fn label(guest: &mut Guest, path: &[u8]) -> Result<(), TaskError> {
    const NAME: &[u8] = b"security.selinux";
    let Some(old) = guest.tree.xattr(path, NAME)? else { return Ok(()) };
    let text = String::from_utf8_lossy(&old).into_owned();
    let mut fields: Vec<&str> = text.split(':').collect();
    if fields.len() >= 3 {
        let ends_with_zero = fields.len() == 3 && fields[2].ends_with('\0');
        fields[2] = if ends_with_zero { "ssh_home_t\0" } else { "ssh_home_t" };
        guest.tree.set_xattr(path, NAME, Some(fields.join(":").as_bytes()))?;
    }
    Ok(())
}

/// Why a text cannot be lines of `authorized_keys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// The wrong half of a key pair.
    #[error("this is a private key; give the public one (.pub)")]
    Private,
    /// No text file has one.
    #[error("there is a zero byte in them")]
    ZeroByte,
}

/// The lines of a request, or why they cannot be authorized keys.
fn check(text: &str) -> Result<Vec<&str>, KeysError> {
    if text.contains("PRIVATE KEY-----") {
        return Err(KeysError::Private);
    }
    if text.contains('\0') {
        return Err(KeysError::ZeroByte);
    }
    let lines: Vec<&str> =
        text.split(['\n', '\r']).map(str::trim).filter(|line| !line.is_empty()).collect();
    Ok(lines)
}

/// Options, type and key of a line, without its comment: what makes two lines the same.
fn key_of(line: &str) -> Option<String> {
    let line = line.trim();
    let is_type = |word: &str| {
        ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-", "webauthn-sk-", "rsa-sha2-"]
            .iter()
            .any(|prefix| word.starts_with(prefix))
    };
    let mut start = 0;
    let mut quoted = false;
    let mut previous = ' ';
    // Options may have blanks between quotation marks.
    for (at, c) in line.char_indices().chain([(line.len(), ' ')]) {
        if c == '"' && previous != '\\' {
            quoted = !quoted;
        }
        if c.is_whitespace() && !quoted {
            if is_type(line.get(start..at)?) {
                let blob = line.get(at..)?.split_whitespace().next()?;
                // Every key begins with the length of its type's name: three bytes 0.
                let base64 = blob.starts_with("AAAA")
                    && blob.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b));
                return base64.then(|| format!("{} {blob}", &line[..at]));
            }
            start = at + c.len_utf8();
        }
        previous = c;
    }
    None
}

/// The file with the lines that are not in it yet, appended.
fn merged(old: &[u8], lines: &[&str]) -> Vec<u8> {
    let text = String::from_utf8_lossy(old);
    let identity = |line: &str| key_of(line).unwrap_or_else(|| line.trim().to_owned());
    let mut seen: std::collections::BTreeSet<String> = text.lines().map(identity).collect();
    let mut out = old.to_vec();
    for line in lines {
        if seen.insert(identity(line)) {
            if !out.is_empty() && !out.ends_with(b"\n") {
                out.push(b'\n');
            }
            out.extend_from_slice(line.as_bytes());
            out.push(b'\n');
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::TASK;
    use super::*;
    use crate::ask::plan::Who;
    use crate::task::testing::{DIR, Guest};

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBxx me@home";
    const OTHER: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABgQDx you";
    const ROOT_FILE: &str = "/root/.ssh/authorized_keys";

    fn with_keys(guest: &mut Guest, user: &str, keys: &str) {
        guest.plan.auth_keys = vec![(Who::Named(user.into()), keys.into())];
    }

    #[test]
    fn made_with_owner_and_modes() {
        let mut guest = Guest::debian();
        with_keys(&mut guest, "ann", &format!("{KEY}\r\n\n{OTHER}"));
        guest.run(&TASK).unwrap();
        let path = "/home/ann/.ssh/authorized_keys";
        assert_eq!(guest.read(path), format!("{KEY}\n{OTHER}\n"));
        assert_eq!(guest.attributes(path), (0o600, 1000, 1001));
        assert_eq!(guest.attributes("/home/ann/.ssh"), (0o700, 1000, 1001));
        assert_eq!(guest.attributes("/home/ann"), (0o755, 1000, 1001));
        guest.renew();
        guest.run(&TASK).unwrap();
        assert!(guest.changed().is_empty());
    }

    #[test]
    fn appended_without_doubles() {
        let mut guest = Guest::debian();
        let old = format!("# mine\n{}", KEY.replace("me@home", "other comment"));
        guest.write(ROOT_FILE, &old);
        guest.tree().chmod("/root/.ssh", 0o777).unwrap();
        let options = format!("command=\"echo a\",no-pty {KEY}");
        with_keys(&mut guest, "root", &format!("{KEY}\n{options}\n{OTHER}\n{OTHER} again\n"));
        guest.run(&TASK).unwrap();
        assert_eq!(guest.read(ROOT_FILE), format!("{old}\n{options}\n{OTHER}\n"));
        assert_eq!(guest.attributes(ROOT_FILE), (0o600, 0, 0));
        assert_eq!(guest.attributes("/root/.ssh"), (0o700, 0, 0));
    }

    #[test]
    fn where_sshd_looks() {
        let mut guest = Guest::debian();
        guest.write("/etc/ssh/sshd_config", "AuthorizedKeysFile /etc/keys/%u/list\n");
        with_keys(&mut guest, "ann", KEY);
        guest.run(&TASK).unwrap();
        assert_eq!(guest.attributes("/etc/keys/ann/list"), (0o644, 0, 0));
        assert_eq!(guest.attributes("/etc/keys/ann"), (0o755, 0, 0));
        // One that is there keeps owner and mode.
        guest.tree().chown("/etc/keys/ann/list", 0, 42).unwrap();
        guest.tree().chmod("/etc/keys/ann/list", 0o640).unwrap();
        with_keys(&mut guest, "ann", OTHER);
        guest.run(&TASK).unwrap();
        assert_eq!(guest.attributes("/etc/keys/ann/list"), (0o640, 0, 42));
        let warning = "/etc/keys/ann/list cannot be read by ann";
        assert!(guest.warnings().last().unwrap().contains(warning));
        // Never a file of all users; the user's own comes after it.
        guest.write("/etc/ssh/sshd_config", "AuthorizedKeysFile /etc/keys/all .ssh/mine\n");
        guest.run(&TASK).unwrap();
        assert_eq!(guest.attributes("/home/ann/.ssh/mine"), (0o600, 1000, 1001));
        guest.write("/etc/ssh/sshd_config", "AuthorizedKeysFile /etc/keys/all\n");
        assert!(guest.fail(&TASK).contains("\"/etc/keys/all\", one file for all users"));
        let by_group = "Match Group ann\nAuthorizedKeysFile /etc/keys/%u\n";
        guest.write("/etc/ssh/sshd_config", by_group);
        guest.tree().unlink("/etc/keys/ann/list").unwrap();
        guest.tree().rmdir("/etc/keys/ann").unwrap();
        guest.run(&TASK).unwrap();
        assert_eq!(guest.attributes("/etc/keys/ann"), (0o644, 0, 0));
        guest.events.clear();
        guest.write("/etc/ssh/sshd_config", "AuthorizedKeysFile none\n");
        guest.run(&TASK).unwrap();
        assert!(guest.warnings()[0].contains("AuthorizedKeysFile none"));
        assert!(guest.tree().exists("/home/ann/.ssh/authorized_keys").unwrap());
        guest.write("/etc/ssh/sshd_config", "AuthorizedKeysFile /k/%x\n");
        assert!(guest.fail(&TASK).contains("\"/k/%x\""));
    }

    #[test]
    fn missing_homes_are_made() {
        let mut guest = Guest::debian();
        guest.write("/etc/passwd", "bob:x:7:8::/srv/homes/bob/:/bin/sh\nd:x:9:9::/:/bin/sh\n");
        with_keys(&mut guest, "bob", KEY);
        guest.run(&TASK).unwrap();
        assert_eq!(guest.attributes("/srv/homes"), (0o755, 0, 0));
        assert_eq!(guest.attributes("/srv/homes/bob"), (0o700, 7, 8));
        with_keys(&mut guest, "d", KEY);
        guest.run(&TASK).unwrap();
        assert_eq!(guest.attributes("/.ssh"), (0o700, 9, 9));
        assert_eq!(guest.attributes("/"), (0o755, 0, 0));
    }

    #[test]
    fn hostile_homes() {
        let mut guest = Guest::debian();
        guest.symlink("/root/.ssh", "/dev");
        with_keys(&mut guest, "root", KEY);
        let error = guest.fail(&TASK);
        assert!(error.contains("/dev/authorized_keys") && error.contains("lost"), "{error}");
        assert_eq!(guest.changed(), ["/root/.ssh"]);

        // A link out of the home of another user than root is refused.
        let mut guest = Guest::debian();
        guest.symlink("/home/ann/.ssh", "../../../../../../etc");
        with_keys(&mut guest, "ann", KEY);
        assert!(guest.fail(&TASK).contains("would go to /etc/authorized_keys"));
        let mut guest = Guest::debian();
        guest.tree().mkdir("/home/ann/.ssh", DIR).unwrap();
        guest.symlink("/home/ann/.ssh/authorized_keys", "/etc/passwd");
        with_keys(&mut guest, "ann", KEY);
        assert!(guest.fail(&TASK).contains("would go to /etc/passwd"));
        // Root made root's own links.
        let mut guest = Guest::debian();
        guest.symlink("/root/.ssh", "/etc/ssh");
        with_keys(&mut guest, "root", KEY);
        guest.run(&TASK).unwrap();
        assert_eq!(guest.attributes("/etc/ssh/authorized_keys"), (0o644, 0, 0));
        assert_eq!(guest.attributes("/etc/ssh"), (0o755, 0, 0));

        let mut guest = Guest::debian();
        guest.symlink("/home/ann/.ssh", ".ssh");
        with_keys(&mut guest, "ann", KEY);
        assert!(guest.fail(&TASK).contains("too many levels"));
        guest.write("/etc/passwd", "ann:x:1:1::home:/bin/sh\n");
        assert!(guest.fail(&TASK).contains("no absolute path"));
    }

    #[test]
    fn openwrt_and_homes_that_are_none() {
        let mut guest = Guest::debian();
        guest.write("/etc/openwrt_release", "");
        guest.mkdir("/etc/dropbear");
        with_keys(&mut guest, "root", KEY);
        guest.run(&TASK).unwrap();
        assert!(guest.read("/etc/dropbear/authorized_keys").starts_with("ssh-ed25519"));
        guest.write("/etc/passwd", "d:x:9:9::/nonexistent:/bin/sh\n");
        with_keys(&mut guest, "d", KEY);
        assert!(guest.fail(&TASK).contains("/nonexistent in /etc/passwd, so the user has none"));
    }

    #[test]
    fn odd_lines_are_written_and_said() {
        let mut guest = Guest::debian();
        with_keys(&mut guest, "root", "future-type BBBB\n");
        guest.run(&TASK).unwrap();
        assert_eq!(guest.read(ROOT_FILE), "future-type BBBB\n");
        assert!(guest.warnings()[0].contains("\"future-type BBBB...\""));
    }

    #[test]
    fn labels() {
        let mut guest = Guest::debian();
        let label = Some(&b"system_u:object_r:admin_home_t:s0\0"[..]);
        guest.tree().set_xattr("/root", b"security.selinux", label).unwrap();
        with_keys(&mut guest, "root", KEY);
        guest.run(&TASK).unwrap();
        for path in ["/root/.ssh", ROOT_FILE] {
            let label = guest.tree().xattr(path, b"security.selinux").unwrap().unwrap();
            assert_eq!(label, b"system_u:object_r:ssh_home_t:s0\0");
        }
    }

    #[test]
    fn lines() {
        assert!(check("-----BEGIN OPENSSH PRIVATE KEY-----\nx").unwrap_err() == KeysError::Private);
        assert!(check("ssh-rsa AAAA\0AAAA").unwrap_err() == KeysError::ZeroByte);
        for bad in
            ["hello world", "ssh-rsa", "ssh-rsa short", "command=\"ssh-rsa AAAAB3NzaC1yc2E\"", ""]
        {
            assert_eq!(key_of(bad), None, "{bad}");
        }
        assert!(key_of("ssh-ed25519 AAAAC3Nz one's@example").is_some());
        assert!(key_of("cert-authority ssh-rsa AAAAB3Nz").is_some());
        assert_eq!(check("\n# note\n\n").unwrap(), ["# note"]);
        let quoted = format!("environment=\"A=\\\"ssh-x \\\"\",no-pty {KEY}");
        assert!(key_of(&quoted).unwrap().ends_with("AAAAIBxx"));
    }
}
