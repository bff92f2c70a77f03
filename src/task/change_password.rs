//! ChangePassword: passwords and authorized keys of users that the guest has.

mod cloud_user;
mod keys;
mod method;

use std::collections::BTreeSet;

use snf_fs::Attributes;
use snf_fs::error::display_name;

use self::cloud_user::CloudUser;
pub use self::keys::KeysError;
use super::{Guest, LINUX_AND_WINDOWS, Needs, Session, Task, TaskError, TaskId, Work, windows};
use crate::ask::plan::{Password, Who};
use crate::craft::crypt;
use crate::craft::secret::Secret;
use crate::guest::passwd::{self, EditError, User};
use crate::guest::sshd_config::SshdConfig;

pub(super) static TASK: Task = Task {
    id: TaskId::ChangePassword,
    summary: "set passwords and add authorized keys",
    applies: |plan| !plan.passwords.is_empty() || !plan.auth_keys.is_empty(),
    work: Work::guest(Needs::System(LINUX_AND_WINDOWS), run),
};

const PASSWD: &str = "/etc/passwd";
const SHADOW: &str = "/etc/shadow";

fn run(guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    if guest.is_windows() {
        return windows::passwords::change(guest, session);
    }
    let plan = session.plan;
    let passwd = guest.config(PASSWD)?.ok_or_else(|| {
        TaskError::request(format!("the image has no {PASSWD}, so it has no users"))
    })?;
    let mut changed = BTreeSet::new();
    let mut cloud = CloudUser::of(guest, session)?;
    for (who, password) in &plan.passwords {
        for name in names(session, who)? {
            // A hash made beforehand has one salt: it is for one user.
            let prepared = changed.is_empty() && *who == Who::Default;
            if cloud.is_yet_to_be_made(&passwd, &name) {
                cloud.password = Some(hash_of(guest, session, &name, password, prepared)?);
                changed.insert(name.into_bytes());
                continue;
            }
            let user = find(&passwd, &name)?;
            set_password(guest, session, &user, password, prepared)?;
            cloud.keeps_password |= cloud.is(&name);
            changed.insert(user.name);
        }
    }
    let sshd = SshdConfig::read(&guest.tree)?;
    let mut with_keys = BTreeSet::new();
    for (who, lines) in &plan.auth_keys {
        for name in names(session, who)? {
            if cloud.is_yet_to_be_made(&passwd, &name) {
                cloud.keys.extend(lines.lines().map(str::trim).map(str::to_owned));
                with_keys.insert(name.into_bytes());
                continue;
            }
            let user = find(&passwd, &name)?;
            keys::add(guest, session, &sshd, &user, lines)?;
            cloud.root_has_keys |= user.uid == 0;
            with_keys.insert(user.name);
        }
    }
    cloud.write(guest, session)?;
    warn_of_sshd(guest, session, &sshd, &passwd, &changed, &with_keys)
}

/// The users that a request means.
fn names(session: &Session<'_>, who: &Who) -> Result<Vec<String>, TaskError> {
    match who {
        Who::Named(name) => Ok(vec![name.clone()]),
        Who::Default => {
            let users = session.plan.properties.users()?.unwrap_or_else(|| vec!["root"]);
            Ok(users.into_iter().map(str::to_owned).collect())
        }
    }
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

fn set_password(
    guest: &mut Guest,
    session: &mut Session<'_>,
    user: &User,
    password: &Password,
    prepared: bool,
) -> Result<(), TaskError> {
    let shown = display_name(&user.name);
    let hash = hash_of(guest, session, &shown, password, prepared)?;
    let Some(shadow) = guest.config(SHADOW)? else {
        return edit_passwd(guest, user, hash.expose());
    };
    let shadow = Secret::new(shadow);
    let edited =
        passwd::set_shadow(shadow.expose(), &user.name, hash.expose(), session.clock.days());
    let edited = Secret::new(edited.map_err(|error| edit_error(error, &shown, SHADOW))?);
    guest.tree.write(SHADOW, edited.expose(), Attributes { mode: 0o600, uid: 0, gid: 0 })?;
    // Only an "x" sends the login to the shadow file.
    if user.password != b"x" {
        edit_passwd(guest, user, b"x")?;
    }
    Ok(())
}

/// The hash to store.
fn hash_of(
    guest: &Guest,
    session: &Session<'_>,
    user: &str,
    password: &Password,
    prepared: bool,
) -> Result<Secret, TaskError> {
    Ok(match password {
        Password::Hash(hash) => hash.clone(),
        Password::Clear(clear) => {
            let method = method::choose(guest, session)?;
            match session.plan.prepared.hash(method).filter(|_| prepared) {
                Some(hash) => hash.clone(),
                None => {
                    let mut entropy = session.entropy.derive(&format!("salt {user}"));
                    crypt::hash(method, clear, &mut entropy)
                        .map_err(|source| TaskError::Crypt { user: user.to_owned(), source })?
                }
            }
        }
    })
}

fn edit_passwd(guest: &mut Guest, user: &User, field: &[u8]) -> Result<(), TaskError> {
    let passwd = guest.config(PASSWD)?.unwrap_or_default();
    let edited = passwd::set_passwd(&passwd, &user.name, field)
        .map_err(|error| edit_error(error, &display_name(&user.name), PASSWD))?;
    guest.tree.write(PASSWD, &edited, Attributes { mode: 0o644, uid: 0, gid: 0 })?;
    Ok(())
}

fn edit_error(error: EditError, user: &str, file: &str) -> TaskError {
    TaskError::request(match error {
        EditError::NoSuchUser => format!(
            "the user \"{user}\" is in {PASSWD}, but not in {file}; \
             pwconv, run in the guest, would mend that"
        ),
        EditError::Malformed => format!("the line of \"{user}\" in {file} has no second field"),
        EditError::BadValue => {
            format!(
                "the hash for \"{user}\" has a colon or a line break in it; give one line of crypt(3)"
            )
        }
    })
}

/// Says when a password that was set will not be of use over ssh.
fn warn_of_sshd(
    guest: &mut Guest,
    session: &mut Session<'_>,
    sshd: &SshdConfig,
    passwd: &[u8],
    changed: &BTreeSet<Vec<u8>>,
    with_keys: &BTreeSet<Vec<u8>>,
) -> Result<(), TaskError> {
    if changed.is_empty() {
        return Ok(());
    }
    let is_no = |value: &Option<String>| value.as_deref() == Some("no");
    let no_passwords = is_no(&sshd.password_authentication) && is_no(&sshd.kbd_interactive);
    for name in changed.iter().filter(|_| sshd.present) {
        if with_keys.contains(name) {
            continue;
        }
        let is_root = passwd::find_user(passwd, name).is_some_and(|user| user.uid == 0);
        let root_login = sshd.permit_root_login.as_deref().unwrap_or("prohibit-password");
        let shown = display_name(name);
        if is_root && root_login != "yes" {
            session.warn(format!(
                "the password of {shown} works on the console, but not over ssh: \
                 PermitRootLogin is {root_login}"
            ));
        } else if no_passwords {
            session.warn(format!(
                "the password of {shown} works on the console, but not over ssh: \
                 PasswordAuthentication is no"
            ));
        }
    }
    if guest.has_cloud_init()? && !super::initialize_datasource::seeded(session)? {
        session.warn(
            "cloud-init is in the image and may lock or change passwords at boot \
             (lock_passwd, disable_root, ssh_pwauth in /etc/cloud)",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::testing::{FILE, Guest};

    const HASH: &str = "$6$salt$0123456789";

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
    fn users_must_exist() {
        let mut guest = Guest::debian();
        for name in ["roo", "r.ot", "rooter", "", "root:x", "+", "a\nb"] {
            with_hash(&mut guest, named(name));
            let error = guest.fail(&TASK);
            assert!(error.contains("no user") && error.contains("root, ann"), "{error}");
            assert_eq!(error.lines().count(), 1);
        }
        guest.write(SHADOW, "ann:*:1::::::\nrooter:*:1::::::\n");
        guest.renew();
        with_hash(&mut guest, Who::Default);
        let error = guest.fail(&TASK);
        assert!(error.starts_with("the user \"root\" is in /etc/passwd, but not in /etc/shadow"));
        assert!(guest.changed().is_empty());
    }

    #[test]
    fn guests_without_shadow() {
        let mut guest = Guest::debian();
        guest.tree().unlink(SHADOW).unwrap();
        with_hash(&mut guest, Who::Default);
        guest.run(&TASK).unwrap();
        assert!(guest.read(PASSWD).starts_with(&format!("root:{HASH}:0:0:")));
        guest.write(SHADOW, "root:*:1::::::\n");
        guest.run(&TASK).unwrap();
        assert!(guest.read(PASSWD).starts_with("root:x:0:0:"));
        assert_eq!(guest.read(SHADOW), format!("root:{HASH}:20000::::::\n"));
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
