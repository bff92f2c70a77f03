//! SELinuxAutorelabel: new files get the label that the guest's policy gives them. Only where the
//! policy's list of labels is not in the image is the guest told to relabel everything at its
//! first boot, which takes long.

use snf_fs::{Attributes, Error, FileType};

use super::{Guest, Needs, Session, Task, TaskError, TaskId, Work};
use crate::guest::OsFamily;
use crate::guest::selinux::{self, FileContexts, State};

pub(super) static TASK: Task = Task {
    id: TaskId::SELinuxAutorelabel,
    summary: "on guests with SELinux: have new files labelled at boot, where they cannot be labelled now",
    applies: |_| true,
    work: Work::guest(Needs::Files, run),
};

const AUTORELABEL: &str = "/.autorelabel";

/// Has new files labelled as the guest's policy says, whichever tasks make them.
pub(crate) fn install(guest: &mut Guest) -> Result<(), TaskError> {
    if let Some(contexts) = contexts(guest)? {
        guest.tree.set_labeler(Box::new(move |path: &[u8], file_type: FileType| {
            contexts.label(std::str::from_utf8(path).ok()?, file_type)
        }));
    }
    Ok(())
}

/// The policy's labels, where the guest uses SELinux and has them.
fn contexts(guest: &Guest) -> Result<Option<FileContexts>, TaskError> {
    match state(guest)? {
        State::Off => Ok(None),
        State::On(policy) => Ok(FileContexts::read(&guest.tree, &policy)?),
    }
}

/// Whether the guest uses SELinux. Files without a system do not, and what cannot be a
/// configuration (a directory, a link that leads nowhere) is none.
fn state(guest: &Guest) -> Result<State, TaskError> {
    if guest.family != Some(OsFamily::Linux) {
        return Ok(State::Off);
    }
    match selinux::state(&guest.tree) {
        Err(
            Error::SymlinkLoop(_)
            | Error::NotADirectory(_)
            | Error::IsADirectory(_)
            | Error::WrongType(..)
            | Error::Invalid(_),
        ) => Ok(State::Off),
        other => Ok(other?),
    }
}

fn run(guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    let State::On(policy) = state(guest)? else { return Ok(()) };
    if FileContexts::read(&guest.tree, &policy)?.is_some()
        && guest.tree.xattr("/etc", selinux::XATTR)?.is_some()
    {
        return Ok(());
    }
    if guest.tree.lstat(AUTORELABEL).is_err_and(|error| error.is_not_found()) {
        guest.tree.write(AUTORELABEL, b"", Attributes { mode: 0o644, uid: 0, gid: 0 })?;
        session.warn(
            "the guest will relabel all its files at the first boot, which takes long, because the \
             image does not have the labels of its SELinux policy",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::testing::{FILE, Guest};

    fn red_hat() -> Guest {
        let mut guest = Guest::debian();
        guest.write("/etc/selinux/config", "SELINUX=enforcing\nSELINUXTYPE=targeted\n");
        guest.tree().commit().unwrap();
        guest.renew();
        guest
    }

    #[test]
    fn without_selinux_nothing_happens() {
        let mut guest = Guest::debian();
        guest.run(&TASK).unwrap();
        assert!(guest.changed().is_empty());
        guest.mkdir("/etc/selinux/config");
        guest.renew();
        guest.run(&TASK).unwrap();
        assert!(guest.changed().is_empty());
    }

    #[test]
    fn a_policy_makes_relabelling_unnecessary() {
        let mut guest = red_hat();
        guest.run(&TASK).unwrap();
        assert_eq!(guest.changed(), [AUTORELABEL]);

        let mut guest = red_hat();
        let base = "/etc/selinux/targeted/contexts/files/file_contexts";
        guest.write(base, "/.* u:r:default_t:s0\n/etc/motd u:r:motd_t:s0\n/skip/.* <<none>>\n");
        guest.mkdir("/skip");
        for dir in ["/etc", "/skip"] {
            guest.tree().set_xattr(dir, selinux::XATTR, Some(b"u:r:etc_t:s0\0")).unwrap();
        }
        guest.tree().commit().unwrap();
        guest.renew();
        guest.run(&TASK).unwrap();
        assert!(guest.changed().is_empty());
        let installing =
            Task { work: Work::guest(Needs::Files, |guest, _| install(guest)), ..TASK };
        guest.run(&installing).unwrap();
        for (path, expected) in [
            ("/etc/motd", &b"u:r:motd_t:s0\0"[..]),
            ("/etc/new", b"u:r:default_t:s0\0"),
            // The policy has no label here, so the file gets that of its directory.
            ("/skip/x", b"u:r:etc_t:s0\0"),
        ] {
            guest.tree().write(path, b"", FILE).unwrap();
            assert_eq!(guest.tree().xattr(path, selinux::XATTR).unwrap().unwrap(), expected);
        }
    }
}
