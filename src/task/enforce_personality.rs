//! EnforcePersonality: files that the user wants in the guest. Last, so that they win.

use snf_fs::error::display_name;
use snf_fs::{Attributes, Stat};

use super::{
    FileError, Guest, Needs, Session, Task, TaskError, TaskId, Work, hidden_at_boot, windows,
};
use crate::ask::plan::PersonalityFile;
use crate::guest::accounts::Accounts;

pub(super) static TASK: Task = Task {
    id: TaskId::EnforcePersonality,
    summary: "write the files of the personality, with their owners and modes",
    applies: |plan| !plan.personality.is_empty(),
    work: Work::guest(Needs::Files, run).beginning(begin),
};

/// Mode of a file that the request gives none.
const DEFAULT_MODE: u16 = 0o440;
/// Mode of directories that are missing on the way.
const PARENT_MODE: u16 = 0o750;

/// A personality of more files than this may not fit into one transaction of a small journal.
const MANY: usize = 32;

fn run(guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    if guest.is_windows() {
        return windows::personality::enforce(guest, session);
    }
    let plan = session.plan;
    let mut accounts = Accounts::default();
    plan.personality.iter().try_for_each(|file| {
        enforce(guest, session, file, &mut accounts)
            .map_err(|error| FileError::of(&file.origin, error))
    })
}

/// Writes the files of a large personality before the other tasks, so that, if the journal makes
/// several transactions of the run, passwords and keys are in the last one. Files of `/etc` wait
/// for their turn, because the other tasks read and write there. [`TASK`] itself comes last all
/// the same and finds most of its work done.
fn begin(guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    let plan = session.plan;
    if plan.personality.len() <= MANY || guest.is_windows() {
        return Ok(());
    }
    let mut accounts = Accounts::default();
    for file in &plan.personality {
        let canonical = guest.tree.resolve_missing(file.path.as_bytes())?;
        if canonical.starts_with(b"/etc/") || hidden_at_boot(&canonical).is_some() {
            continue;
        }
        enforce(guest, session, file, &mut accounts)
            .map_err(|error| FileError::of(&file.origin, error))?;
        guest.tree.seal()?;
    }
    Ok(())
}

fn enforce(
    guest: &mut Guest,
    session: &mut Session<'_>,
    file: &PersonalityFile,
    accounts: &mut Accounts,
) -> Result<(), TaskError> {
    let path = file.path.as_bytes();
    if !path.starts_with(b"/") || path.ends_with(b"/") || path.contains(&0) {
        return Err(TaskError::request(format!(
            "\"{}\" is not the absolute path of a file",
            display_name(path)
        )));
    }
    let existing = guest.tree.stat_optional(path)?;
    let keep: Option<&Stat> = existing.as_ref().filter(|_| file.keep_existing);
    let uid = match &file.owner {
        Some(name) => accounts.user(guest, name)?,
        None => keep.map_or(0, |stat| stat.uid),
    };
    let gid = match &file.group {
        Some(name) => accounts.group(guest, name)?,
        None => keep.map_or(0, |stat| stat.gid),
    };
    let mode = file.mode.or(keep.map(|stat| stat.mode)).unwrap_or(DEFAULT_MODE);
    if mode > 0o7777 {
        return Err(TaskError::request(format!("the mode {mode:o} (octal) is more than 7777")));
    }
    if let Some(meant) = file.mode.and_then(meant_in_octal) {
        session.warn(format!(
            "{}: the mode {mode} of {} is a decimal number, and makes {mode:04o}; write \
             \"0{mode}\" if {meant:04o} is meant",
            file.origin,
            display_name(path)
        ));
    }

    let canonical = guest.tree.resolve_missing(path)?;
    if let Some(dir) = hidden_at_boot(&canonical) {
        let shown = display_name(&canonical);
        session.warn(format!("{shown} will be hidden when the guest mounts {dir}"));
    }
    if existing.is_none()
        && let Some(slash) = canonical.iter().rposition(|byte| *byte == b'/')
        && slash > 0
    {
        guest.tree.mkdir_all(&canonical[..slash], Attributes { mode: PARENT_MODE, uid, gid })?;
    }
    guest.tree.write(path, file.contents.expose(), Attributes { mode, uid, gid })?;
    // In this order, because a change of owner may take set-id bits away.
    guest.tree.chown(path, uid, gid)?;
    guest.tree.chmod(path, mode)?;
    Ok(())
}

/// The mode that a number is in octal digits, where that is one that people give and the number itself is
/// not.
fn meant_in_octal(mode: u16) -> Option<u16> {
    let octal = u16::from_str_radix(&mode.to_string(), 8).ok()?;
    (is_usual(octal) && !is_usual(mode)).then_some(octal)
}

/// Whether a mode is one that people give: no special bits, its owner may read, and neither the group nor
/// the others may do what those before them may not, or do anything without reading.
fn is_usual(mode: u16) -> bool {
    let [owner, group, others] = [mode >> 6, mode >> 3 & 7, mode & 7];
    let reads = |class: u16| class == 0 || class & 4 != 0;
    owner <= 7
        && owner & 4 != 0
        && [(owner, group), (group, others)].iter().all(|(more, less)| more & less == *less)
        && reads(group)
        && reads(others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_digits_of_a_decimal_number() {
        for octal in ["400", "440", "444", "600", "640", "644", "700", "750", "755", "777"] {
            let meant = u16::from_str_radix(octal, 8).unwrap();
            assert_eq!(meant_in_octal(octal.parse().unwrap()), Some(meant), "{octal}");
            assert_eq!(meant_in_octal(meant), None, "{meant}");
        }
    }
    use crate::craft::secret::Secret;
    use crate::craft::sentence::sentence;
    use crate::task::testing::Guest;

    fn file(path: &str, contents: &str) -> PersonalityFile {
        PersonalityFile {
            path: path.into(),
            contents: Secret::new(contents),
            owner: None,
            group: None,
            mode: None,
            origin: "img_personality[0]".into(),
            keep_existing: false,
        }
    }

    fn owned(path: &str, owner: &str, group: &str, mode: u16) -> PersonalityFile {
        PersonalityFile {
            owner: Some(owner.into()),
            group: Some(group.into()),
            mode: Some(mode),
            ..file(path, "x")
        }
    }

    fn enforce(guest: &mut Guest, files: Vec<PersonalityFile>) -> Result<(), String> {
        guest.plan.personality = files;
        guest.run(&TASK).map_err(|error| sentence(&error))
    }

    #[test]
    fn owners_modes_and_parents() {
        let mut guest = Guest::debian();
        guest.symlink("/link", "/etc");
        enforce(
            &mut guest,
            vec![
                owned("/srv/a/b/file", "ann", "shadow", 0o4755),
                file("/link/motd", "hello"),
                owned("/etc/numbers", "77", "78", 0o600),
            ],
        )
        .unwrap();
        assert_eq!(guest.attributes("/srv/a/b/file"), (0o4755, 1000, 42));
        assert_eq!(guest.attributes("/srv/a"), (0o750, 1000, 42));
        assert_eq!(guest.attributes("/etc/motd"), (0o440, 0, 0));
        assert_eq!(guest.read("/etc/motd"), "hello");
        assert_eq!(guest.attributes("/etc/numbers"), (0o600, 77, 78));
        assert!(guest.changed().contains(&"/etc/motd".to_owned()));
    }

    #[test]
    fn existing_files() {
        let mut guest = Guest::debian();
        let kept = PersonalityFile { keep_existing: true, ..file("/etc/shadow", "new") };
        enforce(&mut guest, vec![kept.clone()]).unwrap();
        assert_eq!(guest.attributes("/etc/shadow"), (0o640, 0, 42));
        enforce(&mut guest, vec![PersonalityFile { mode: Some(0o600), ..kept }]).unwrap();
        assert_eq!(guest.attributes("/etc/shadow"), (0o600, 0, 42));
        enforce(&mut guest, vec![file("/etc/shadow", "newer")]).unwrap();
        assert_eq!(guest.attributes("/etc/shadow"), (0o440, 0, 0));
    }

    #[test]
    fn without_a_system() {
        let mut guest = Guest::empty();
        enforce(&mut guest, vec![owned("/d/x", "root", "0", 0o400)]).unwrap();
        assert_eq!(guest.attributes("/d/x"), (0o400, 0, 0));
        let error = enforce(&mut guest, vec![owned("/x", "ann", "0", 0)]).unwrap_err();
        assert_eq!(error, "img_personality[0]: the image has no user \"ann\"");
    }

    #[test]
    fn many_files_begin_early() {
        let mut guest = Guest::debian();
        let mut files: Vec<PersonalityFile> =
            (0..40).map(|n| file(&format!("/srv/{n}"), "x")).collect();
        files.push(file("/etc/late", "x"));
        guest.plan.personality = files;
        let early = Task { work: Work::guest(Needs::Files, begin), ..TASK };
        guest.run(&early).unwrap();
        assert_eq!(guest.changed().len(), 41);
        assert!(!guest.tree().exists("/etc/late").unwrap());
        guest.run(&TASK).unwrap();
        assert_eq!(guest.changed().len(), 42);
        guest.renew();
        guest.plan.personality.truncate(30);
        guest.run(&early).unwrap();
        assert!(guest.changed().is_empty());
    }

    #[test]
    fn what_cannot_be() {
        let mut guest = Guest::debian();
        guest.symlink("/etc/loop", "/etc/loop");
        guest.symlink("/etc/up", "../../../../../../new");
        for (path, part) in [
            ("/etc/hostname/x", "/etc/hostname: not a directory"),
            ("/etc/loop/x", "too many levels"),
            ("/etc/loop", "too many levels"),
            ("/etc", "is a directory"),
            ("etc/x", "not the absolute path"),
            ("/etc/", "not the absolute path"),
            ("/none/../../x", "no such file"),
        ] {
            let error = enforce(&mut guest, vec![file(path, "")]).unwrap_err();
            assert!(error.contains(part), "{path}: {error}");
        }
        enforce(&mut guest, vec![file("/etc/up", "in")]).unwrap();
        assert_eq!(guest.read("/new"), "in");
        enforce(&mut guest, vec![file("/dev/x", "")]).unwrap();
        assert!(guest.warnings()[0].contains("/dev/x will be hidden"));
        let error = enforce(&mut guest, vec![owned("/x", "u", "g", 0o10000)]).unwrap_err();
        assert!(error.contains("no user"), "{error}");
    }
}
