//! SELinuxAutorelabel: new files get the label that the guest's policy gives them. Only where the
//! policy's list of labels is not in the image is the guest told to relabel everything at its
//! first boot, which takes long.

use snf_fs::{Attributes, Error, FileType};

use super::{Context, Needs, Run, Task, TaskError};
use crate::guest::OsFamily;
use crate::guest::selinux::{self, FileContexts, State};

pub(super) static TASK: Task = Task {
    name: "SELinuxAutorelabel",
    number: 50,
    summary: "have the guest relabel its files at boot, where new files cannot get their labels now",
    needs: Needs::Files,
    applies: |_| true,
    run: Run::Guest(run),
};

const AUTORELABEL: &str = "/.autorelabel";

/// Has new files labelled as the guest's policy says, whichever tasks make them.
pub(crate) fn install(context: &mut Context<'_>) -> Result<(), TaskError> {
    if let Some(contexts) = contexts(context)? {
        context.tree.set_labeler(Box::new(move |path: &[u8], file_type: FileType| {
            contexts.label(std::str::from_utf8(path).ok()?, file_type)
        }));
    }
    Ok(())
}

/// The policy's labels, where the guest uses SELinux and has them.
fn contexts(context: &Context<'_>) -> Result<Option<FileContexts>, TaskError> {
    match state(context)? {
        State::Off => Ok(None),
        State::On(policy) => Ok(FileContexts::read(&context.tree, &policy)?),
    }
}

/// Whether the guest uses SELinux. Files without a system do not, and what cannot be a
/// configuration (a directory, a link that leads nowhere) is none.
fn state(context: &Context<'_>) -> Result<State, TaskError> {
    if context.family != Some(OsFamily::Linux) {
        return Ok(State::Off);
    }
    match selinux::state(&context.tree) {
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

fn run(context: &mut Context<'_>) -> Result<(), TaskError> {
    let State::On(policy) = state(context)? else { return Ok(()) };
    if FileContexts::read(&context.tree, &policy)?.is_some()
        && context.tree.xattr("/etc", selinux::XATTR)?.is_some()
    {
        return Ok(());
    }
    if context.tree.lstat(AUTORELABEL).is_err_and(|error| error.is_not_found()) {
        context.tree.write(AUTORELABEL, b"", Attributes { mode: 0o644, uid: 0, gid: 0 })?;
        context.info(
            "the guest will relabel its files at the first boot, because the image does not have \
             the labels of its SELinux policy",
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
        let installing = Task { run: Run::Guest(install), ..TASK };
        guest.run(&installing).unwrap();
        for (path, expected) in [
            ("/etc/motd", &b"u:r:motd_t:s0\0"[..]),
            ("/etc/new", b"u:r:default_t:s0\0"),
            // Where the policy has no label the directory's is as good as any.
            ("/skip/x", b"u:r:etc_t:s0\0"),
        ] {
            guest.tree().write(path, b"", FILE).unwrap();
            assert_eq!(guest.tree().xattr(path, selinux::XATTR).unwrap().unwrap(), expected);
        }
    }
}
