//! ChangePassword: passwords and authorized keys of users that the guest has.

mod account;
mod cloud_user;
mod keys;
mod method;
mod reach;

use snf_fs::error::display_name;

use self::cloud_user::CloudUser;
pub use self::keys::KeysError;
use self::reach::Granted;
pub(crate) use self::reach::Logins;
use super::{Guest, LINUX_AND_WINDOWS, Needs, Session, Task, TaskError, TaskId, Work, windows};
use crate::ask::plan::{Password, Who};
use crate::craft::crypt;
use crate::craft::secret::Secret;
use crate::guest::passwd::{self, User};
use crate::guest::sshd::SshdConfig;

pub(super) static TASK: Task = Task {
    id: TaskId::ChangePassword,
    summary: "set passwords and add authorized keys",
    applies: |plan| {
        !plan.passwords.is_empty() || !plan.auth_keys.is_empty() || plan.cloud_user.is_some()
    },
    work: Work::guest(Needs::System(LINUX_AND_WINDOWS), run),
};

const PASSWD: &str = "/etc/passwd";

fn run(guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    if guest.is_windows() {
        if let Some(name) = &session.plan.cloud_user {
            return Err(TaskError::request(format!(
                "--cloud-user {name} is for guests with cloud-init, and this is a Windows"
            )));
        }
        return windows::passwords::change(guest, session);
    }
    let later = session.new_users.clone();
    let cloud = change(guest, session, |name| !later.iter().any(|new| new == name))?;
    cloud.warn_of_request(guest, session)
}

/// Sets the password and adds the keys that the plan has for a user whom an edit has just made.
///
/// # Errors
/// As the task itself.
pub(crate) fn of_new_user(
    guest: &mut Guest,
    session: &mut Session<'_>,
    new: &str,
) -> Result<(), TaskError> {
    if TASK.will_run(session.plan)? {
        change(guest, session, |name| name == new)?;
    }
    Ok(())
}

/// Does what is asked for the users that `concerns` takes.
fn change(
    guest: &mut Guest,
    session: &mut Session<'_>,
    concerns: impl Fn(&str) -> bool,
) -> Result<CloudUser, TaskError> {
    let plan = session.plan;
    let passwd = guest.config(PASSWD)?.ok_or_else(|| {
        TaskError::request(format!("the image has no {PASSWD}, so it has no users"))
    })?;
    let mut granted = Granted::default();
    let mut users: Vec<User> = Vec::new();
    let mut cloud = CloudUser::of(guest, session)?;
    for (who, password) in &plan.passwords {
        for (place, name) in names(session, who)?.into_iter().enumerate() {
            if !concerns(&name) {
                continue;
            }
            if cloud.is_yet_to_be_made(&passwd, &name) {
                cloud.password = Some(hash_of(guest, session, &name, password, place)?);
                continue;
            }
            let user = find(&passwd, &name)?;
            if set_password(guest, session, &user, password, place)? {
                cloud.keeps_password |= cloud.is(&name);
                granted.passwords.insert(user.name.clone());
            }
            users.push(user);
        }
    }
    let sshd = SshdConfig::read(&guest.tree)?;
    for (who, lines) in &plan.auth_keys {
        for name in names(session, who)? {
            if !concerns(&name) {
                continue;
            }
            if cloud.is_yet_to_be_made(&passwd, &name) {
                cloud.keys.extend(lines.lines().map(str::trim).map(str::to_owned));
                continue;
            }
            let user = find(&passwd, &name)?;
            let keys = keys::add(guest, session, &sshd, &user, lines)?;
            cloud.root_has_keys |= user.uid == 0;
            granted.keys.insert(user.name.clone(), keys);
            users.push(user);
        }
    }
    cloud.write(guest, session)?;
    cloud.warn(guest, session, &granted)?;
    let logins = Logins { users, granted };
    match &mut session.logins {
        // Edits and files that come later may open the door, or shut it.
        Some(later) => later.push(logins),
        None => reach::warn(guest, session, &sshd, &logins)?,
    }
    Ok(cloud)
}

/// Says of the passwords and keys that were set what keeps their users out: after the last edit.
///
/// # Errors
/// Errors of the tree.
pub(crate) fn tell_logins(guest: &Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    let logins = session.logins.take().unwrap_or_default();
    if logins.is_empty() {
        return Ok(());
    }
    let sshd = SshdConfig::read(&guest.tree)?;
    for mut logins in logins {
        logins.without_deleted_keys(guest, session)?;
        reach::warn(guest, session, &sshd, &logins)?;
    }
    Ok(())
}

/// The users that a request means.
fn names(session: &Session<'_>, who: &Who) -> Result<Vec<String>, TaskError> {
    let users = who.users(&session.plan.properties)?;
    Ok(users.into_iter().map(str::to_owned).collect())
}

fn find(passwd: &[u8], name: &str) -> Result<User, TaskError> {
    passwd::find_user(passwd, name.as_bytes()).ok_or_else(|| {
        TaskError::request(format!(
            "the image has no user \"{}\"; {PASSWD} has {}",
            display_name(name.as_bytes()),
            passwd::list_users(passwd, 30)
        ))
    })
}

/// Sets a password; gives whether it can be used: a hash may lock the account.
fn set_password(
    guest: &mut Guest,
    session: &mut Session<'_>,
    user: &User,
    password: &Password,
    place: usize,
) -> Result<bool, TaskError> {
    if let (Password::Clear(clear), Some(old)) = (password, account::hash_of(guest, user)?) {
        let method = method::choose(guest, session)?;
        if crypt::is_hash_of(method, clear, old.expose()) {
            return Ok(true);
        }
    }
    let shown = display_name(&user.name);
    let hash = hash_of(guest, session, &shown, password, place)?;
    account::set_hash(guest, session, user, &hash)?;
    Ok(!hash.expose().starts_with(b"!") && !hash.expose().starts_with(b"*"))
}

/// The hash to store, for the user of this place in the request.
fn hash_of(
    guest: &Guest,
    session: &Session<'_>,
    user: &str,
    password: &Password,
    place: usize,
) -> Result<Secret, TaskError> {
    Ok(match password {
        Password::Hash(hash) => hash.clone(),
        Password::Clear(clear) => {
            let method = method::choose(guest, session)?;
            let mut entropy = session.entropy.derive(&format!("salt {user}"));
            crypt::hash(method, clear, &mut entropy)
                .map_err(|source| TaskError::Crypt { user: user.to_owned(), source })?
        }
        Password::Hashes(hashes) => {
            let method = method::choose(guest, session)?;
            method.pick(hashes, place).cloned().ok_or_else(|| {
                TaskError::request(format!(
                    "the image hashes passwords by {}, and there is no such hash of the password of \
                     {user}: it may be too long for this method; choose a shorter one or another \
                     PASSWD_HASHING_METHOD",
                    method.name()
                ))
            })?
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::testing::{FILE, Guest};

    const HASH: &str = "$6$salt$0123456789";
    const SHADOW: &str = "/etc/shadow";

    fn with_hash(guest: &mut Guest, who: Who) {
        guest.plan.passwords = vec![(who, Password::Hash(Secret::new(HASH)))];
    }

    fn named(name: &str) -> Who {
        Who::Named(name.into())
    }

    #[test]
    fn one_field_and_the_date() {
        let mut guest = Guest::debian();
        with_hash(&mut guest, named("ann"));
        guest.run(&TASK).unwrap();
        assert_eq!(
            guest.read(SHADOW),
            format!("root:*:19000:0:99999:7:::\nann:{HASH}:20000:0:99999:7:::\n")
        );
        assert_eq!(guest.attributes(SHADOW), (0o640, 0, 42));
        assert_eq!(guest.changed(), [SHADOW]);
        assert!(guest.warnings().is_empty());
    }

    #[test]
    fn clear_text_is_hashed_as_the_image_does() {
        let mut guest = Guest::debian();
        guest.plan.passwords = vec![(Who::Default, Password::Clear(Secret::new("secret")))];
        guest.run(&TASK).unwrap();
        let shadow = guest.read(SHADOW);
        assert!(shadow.starts_with("root:$y$j9T$"), "{shadow}");
        assert!(guest.warnings()[0].contains("PermitRootLogin is prohibit-password"));
        guest.plan.properties.set("PASSWD_HASHING_METHOD", "sha512");
        guest.plan.properties.set("USERS", "ann root");
        guest.run(&TASK).unwrap();
        let shadow = guest.read(SHADOW);
        assert!(shadow.starts_with("root:$6$") && shadow.contains("\nann:$6$"), "{shadow}");
        let salt = |line: &str| line.split('$').nth(2).unwrap().to_owned();
        let salts: Vec<String> = shadow.lines().map(salt).collect();
        assert_ne!(salts[0], salts[1]);
    }

    #[test]
    fn hashes_made_elsewhere_are_chosen_as_the_image_does() {
        let mut guest = Guest::debian();
        guest.plan.properties.set("USERS", "ann root");
        let hashes = ["$6$a", "$y$a", "$6$r", "$y$r"].map(Secret::new);
        guest.plan.passwords = vec![(Who::Default, Password::Hashes(hashes.to_vec()))];
        guest.run(&TASK).unwrap();
        assert_eq!(
            guest.read(SHADOW),
            "root:$y$r:20000:0:99999:7:::\nann:$y$a:20000:0:99999:7:::\n"
        );
        guest.plan.properties.set("PASSWD_HASHING_METHOD", "blowfish");
        let error = guest.fail(&TASK);
        assert!(error.contains("by blowfish, and there is no such hash of the password of ann"));
    }

    #[test]
    fn users_must_exist() {
        let mut guest = Guest::debian();
        for name in ["roo", "r.ot", "rooter", "", "root:x", "+", "a\nb"] {
            with_hash(&mut guest, named(name));
            let error = guest.fail(&TASK);
            assert!(error.contains("no user") && error.contains("root, ann"), "{error}");
            assert_eq!(error.lines().count(), 1);
        }
    }

    #[test]
    fn what_is_missing_of_shadow_is_made() {
        let mut guest = Guest::debian();
        guest.write(SHADOW, "ann:*:1::::::\n+::::::::\n");
        with_hash(&mut guest, Who::Default);
        guest.run(&TASK).unwrap();
        assert_eq!(
            guest.read(SHADOW),
            format!("ann:*:1::::::\nroot:{HASH}:20000:0:99999:7:::\n+::::::::\n")
        );
        // Without a file, and with a hash that everybody could read.
        let mut guest = Guest::debian();
        guest.tree().unlink(SHADOW).unwrap();
        guest.write(PASSWD, "root:$6$old$hash:0:0::/root:/bin/bash\nann:x:5:5::/:/bin/sh\n");
        with_hash(&mut guest, Who::Default);
        guest.run(&TASK).unwrap();
        assert!(guest.read(PASSWD).starts_with("root:x:0:0:"));
        assert_eq!(guest.read(SHADOW), format!("root:{HASH}:20000:0:99999:7:::\n"));
        assert_eq!(guest.attributes(SHADOW), (0o640, 0, 42));
        guest.write("/etc/group", "root:x:0:\n");
        guest.tree().unlink(SHADOW).unwrap();
        guest.run(&TASK).unwrap();
        assert_eq!(guest.attributes(SHADOW), (0o600, 0, 0));
    }

    #[test]
    fn a_shadow_file_for_each_user() {
        let mut guest = Guest::debian();
        guest.tree().unlink(SHADOW).unwrap();
        guest.write("/etc/tcb/root/shadow", "root:*:1::::::\n");
        with_hash(&mut guest, Who::Default);
        guest.run(&TASK).unwrap();
        assert_eq!(guest.read("/etc/tcb/root/shadow"), format!("root:{HASH}:20000::::::\n"));
        with_hash(&mut guest, named("ann"));
        assert!(guest.fail(&TASK).contains("there is no /etc/tcb/ann/shadow"));
    }

    #[test]
    fn a_second_run_keeps_the_hash_of_the_same_password() {
        let mut guest = Guest::debian();
        guest.plan.passwords = vec![(named("ann"), Password::Clear(Secret::new("secret")))];
        guest.run(&TASK).unwrap();
        let hash = guest.read(SHADOW);
        guest.renew();
        guest.run(&TASK).unwrap();
        assert!(guest.changed().is_empty(), "{:?}", guest.changed());
        // Locked, or of another method: made anew.
        for odd in [hash.replace("$y$", "!$y$"), hash.replace("$y$j9T$", "$6$")] {
            guest.write(SHADOW, &odd);
            guest.renew();
            guest.run(&TASK).unwrap();
            assert_eq!(guest.changed(), [SHADOW]);
        }
    }

    #[test]
    fn what_keeps_a_user_out_is_said() {
        let said = |files: &[(&str, &str)], hash: bool, keys: bool| {
            let mut guest = Guest::debian();
            files.iter().for_each(|(path, text)| guest.write(path, text));
            if hash {
                with_hash(&mut guest, named("ann"));
            }
            if keys {
                guest.plan.auth_keys =
                    vec![(named("ann"), "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBxx me\n".into())];
            }
            guest.run(&TASK).unwrap();
            guest.warnings().join("\n")
        };
        let sshd = |text| [("/etc/ssh/sshd_config", text)];
        for (files, hash, keys, expected) in [
            (
                sshd("DenyUsers ann\n"),
                true,
                true,
                "the keys of ann will not let ann in over ssh: DenyUsers names ann\nthe password of ann works on the console, but not over ssh: DenyUsers names ann",
            ),
            (sshd("PasswordAuthentication no\n"), true, true, ""),
            (sshd("AllowGroups wheel ann\n"), true, true, ""),
            (sshd("PasswordAuthentication no\n"), true, false, "PasswordAuthentication is no"),
            (sshd("UsePAM no\n"), false, true, "the account is locked and sshd works without PAM"),
            (
                sshd("Match Group ann\nPubkeyAuthentication no\n"),
                false,
                true,
                "PubkeyAuthentication is no",
            ),
            (
                [("/etc/shadow", "ann:*:1:0:9:7::19999:\n")],
                true,
                false,
                "the password of ann will let nobody in: the account expired",
            ),
            ([("/etc/shadow", "ann:*:1:0:9:7::20001:\n")], true, true, ""),
            (
                [("/etc/nologin", "")],
                true,
                true,
                "the password and the keys of ann will let nobody in: /etc/nologin",
            ),
            (
                [("/etc/passwd", "ann:x:1000:1001::/home/ann:/usr/sbin/nologin\n")],
                false,
                true,
                "the login shell is /usr/sbin/nologin",
            ),
            (
                [("/etc/passwd", "ann:x:1000:1001::/home/ann:/bin/zsh\n")],
                true,
                false,
                "/bin/zsh is not in the image",
            ),
        ] {
            let said = said(&files, hash, keys);
            assert!(
                said.contains(expected) && said.is_empty() == expected.is_empty(),
                "{files:?}: {said}"
            );
        }
        // A hash that locks needs no way in.
        let mut guest = Guest::debian();
        guest.write("/etc/ssh/sshd_config", "PasswordAuthentication no\n");
        guest.plan.passwords = vec![(named("ann"), Password::Hash(Secret::new("!")))];
        guest.run(&TASK).unwrap();
        assert!(guest.warnings().is_empty());
    }

    #[test]
    fn hostile_guests() {
        let mut guest = Guest::debian();
        with_hash(&mut guest, Who::Default);
        let long = format!("x{}:*:1\n", "y".repeat(5000));
        guest.write(SHADOW, &format!("{long}root:*:1::::::\nbad\n::\n"));
        guest.run(&TASK).unwrap();
        let expected = format!("{long}root:{HASH}:20000::::::\nbad\n::\n");
        assert_eq!(guest.read(SHADOW), expected);
        guest.plan.passwords =
            vec![(Who::Default, Password::Hash(Secret::new("a:b\nroot2::0:0:")))];
        assert!(guest.fail(&TASK).contains("has a colon or a line break"));
        with_hash(&mut guest, Who::Default);
        guest.tree().unlink(SHADOW).unwrap();
        guest.mkdir(SHADOW);
        assert_eq!(guest.fail(&TASK), "/etc/shadow: is a directory");
        guest.tree().unlink(PASSWD).unwrap();
        assert!(guest.fail(&TASK).contains("no users"));
        guest.tree().symlink(PASSWD, b"/etc/passwd", FILE).unwrap();
        assert!(guest.fail(&TASK).contains("too many levels"));
    }

    #[test]
    fn nothing_secret_is_printed() {
        let mut guest = Guest::debian();
        guest.plan.passwords = vec![(Who::Default, Password::Clear(Secret::new("hunter2")))];
        guest.run(&TASK).unwrap();
        assert!(!format!("{:?}{:?}", guest.events, guest.plan).contains("hunter2"));
    }
}
