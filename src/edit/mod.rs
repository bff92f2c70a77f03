//! The edits: what a person does to a guest's files, as values in one ordered list.
//!
//! The command line, a document and Ganeti's parameters make the same list; it runs in the order
//! given, in memory like everything else. Each verb is one file: its value (`Act`), its options
//! ([`Verb`]) with their help texts and how their arguments are read, its work, and its tests. A
//! new verb is such a file, its `mod` line and its line in the table below.

mod access;
mod account;
mod account_files;
mod account_name;
mod add_group;
mod add_user;
mod append_line;
mod chmod;
mod chown;
mod clash;
mod copy;
#[cfg(feature = "cli")]
mod copy_in;
mod delete;
mod error;
mod first_boot;
mod flag;
mod hardlink;
mod keymap;
#[cfg(feature = "cli")]
mod local_xattr;
mod locale;
mod mkdir;
mod mode;
mod no_cloud_init;
mod path;
mod place;
mod relocate;
mod set_line;
mod shell_value;
mod skeleton;
mod source;
mod substitute;
mod sudoers;
mod swap_file;
mod symlink;
mod sysv;
#[cfg(feature = "cli")]
mod tar_in;
#[cfg(test)]
mod testing;
mod text;
mod timezone;
mod touch;
mod truncate;
mod unit;
mod write;

pub use crate::craft::local_file::SourceError;
pub use access::Access;
pub use account_name::AccountName;
pub use clash::clash;
pub use error::BadEdit;
pub use mode::Mode;
pub use path::GuestPath;
pub use source::Source;

use serde::{Deserialize, Serialize};

use crate::ask::plan::Plan;
use crate::guest::Guest;
use crate::guest::accounts::AccountError;
use crate::task::{FileError, Needs, Session, Task, TaskError, Work};

/// An option of the command line that makes an edit.
#[derive(Clone, Copy, Debug)]
pub struct Verb {
    /// Its name, without the dashes.
    pub name: &'static str,
    /// The form of its argument, for the help text; empty where it has none.
    pub metavar: &'static str,
    /// Its effect, in one or two sentences.
    pub help: &'static str,
    /// Whether `--no-follow` means something to it.
    pub follows: bool,
    /// Reads its argument.
    pub parse: fn(&str, How) -> Result<Action, BadEdit>,
}

/// Options of the command line for all its edits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct How {
    /// Whether a symbolic link at the end of a path is followed (not so with `--no-follow`).
    pub follow: bool,
}

/// A kind of edit. Its fields are what a document says of it.
trait Act {
    /// The options that make it.
    const VERBS: &'static [Verb];
    /// The knowledge of the guest that it needs: any files, or a system of a family. With
    /// [`Needs::Where`] it is left out, with a warning, on others.
    const NEEDS: Needs = Needs::Files;

    /// Whether it reads files beside the program when it runs.
    const LOCAL: bool = false;

    /// Whether its fields make sense, which a document can say in any way. A type that checks itself
    /// (such as [`GuestPath`]) need not be looked at again.
    ///
    /// # Errors
    /// The field, and what is wrong with it.
    fn check(&self) -> Result<(), BadEdit>;

    /// Its subject, for messages: most often a path; never a secret.
    fn subject(&self) -> String;

    /// The contents that it takes from elsewhere, to be looked at before the disk is opened.
    fn sources(&mut self) -> Vec<&mut Source> {
        Vec::new()
    }

    /// Whether the files that it reads beside the program (see [`Act::LOCAL`]) are there.
    ///
    /// # Errors
    /// The file that is not, or cannot be used.
    fn look(&self) -> Result<(), SourceError> {
        Ok(())
    }

    /// Does it, in memory.
    ///
    /// # Errors
    /// When this guest cannot be edited as asked.
    fn run(&self, guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError>;
}

/// Makes [`Action`] and what goes through its kinds. One with `if "FEATURE"` is there with that
/// feature only.
macro_rules! actions {
    ($($(#[$doc:meta])* $kind:ident($value:ty) $(if $feature:literal)?),* $(,)?) => {
        /// One edit as a value. In a document its kind is the key and its fields are a table:
        /// `mkdir = {path = "/srv/data"}`.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
        #[serde(rename_all = "kebab-case")]
        #[non_exhaustive]
        pub enum Action {
            $($(#[cfg(feature = $feature)])? $(#[$doc])* $kind($value),)*
        }

        const ALL: &[&[Verb]] = &[$($(#[cfg(feature = $feature)])? <$value as Act>::VERBS),*];

        impl Action {
            /// The knowledge of the guest that it needs.
            pub fn needs(&self) -> Needs {
                match self { $($(#[cfg(feature = $feature)])? Self::$kind(_) => <$value as Act>::NEEDS,)* }
            }

            /// Whether it reads files beside the program when it runs, beyond its sources. Then it
            /// cannot run inside the helper VM.
            pub fn is_local(&self) -> bool {
                match self { $($(#[cfg(feature = $feature)])? Self::$kind(_) => <$value as Act>::LOCAL,)* }
            }

            /// Its name: that of its first option, and its key in a document.
            pub fn name(&self) -> &'static str {
                match self { $($(#[cfg(feature = $feature)])? Self::$kind(_) => <$value as Act>::VERBS[0].name,)* }
            }

            /// Whether its fields make sense. The command line checks its arguments by itself; whoever
            /// takes an edit from a document calls this.
            ///
            /// # Errors
            /// The field, and what is wrong with it.
            pub fn check(&self) -> Result<(), BadEdit> {
                match self { $($(#[cfg(feature = $feature)])? Self::$kind(act) => act.check(),)* }
            }

            /// Its subject, for messages.
            pub fn subject(&self) -> String {
                match self { $($(#[cfg(feature = $feature)])? Self::$kind(act) => act.subject(),)* }
            }

            /// The contents that it takes from elsewhere.
            pub fn sources(&mut self) -> Vec<&mut Source> {
                match self { $($(#[cfg(feature = $feature)])? Self::$kind(act) => act.sources(),)* }
            }

            /// Whether the files that it reads beside the program when it runs are there.
            ///
            /// # Errors
            /// The file that is not, or cannot be used.
            pub fn look(&self) -> Result<(), SourceError> {
                match self { $($(#[cfg(feature = $feature)])? Self::$kind(act) => act.look(),)* }
            }

            fn run(
                &self,
                guest: &mut Guest,
                session: &mut Session<'_>,
            ) -> Result<(), TaskError> {
                match self { $($(#[cfg(feature = $feature)])? Self::$kind(act) => act.run(guest, session),)* }
            }
        }
    };
}

actions! {
    /// Writes a file.
    Write(write::Write),
    /// Copies local files and directories into the guest.
    CopyIn(copy_in::CopyIn) if "cli",
    /// Unpacks a local tar archive.
    TarIn(tar_in::TarIn) if "cli",
    /// Makes a directory.
    Mkdir(mkdir::Mkdir),
    /// Deletes files and directories.
    Delete(delete::Delete),
    /// Moves a file or directory.
    Move(relocate::Relocate),
    /// Copies a file or directory of the guest.
    Copy(copy::Copy),
    /// Makes a symbolic link.
    Symlink(symlink::Symlink),
    /// Gives a file one more name.
    Hardlink(hardlink::Hardlink),
    /// Sets permissions.
    Chmod(chmod::Chmod),
    /// Sets owner and group.
    Chown(chown::Chown),
    /// Makes an empty file, or sets the times of one that exists.
    Touch(touch::Touch),
    /// Empties a file.
    Truncate(truncate::Truncate),
    /// Adds a line to the end of a text.
    AppendLine(append_line::AppendLine),
    /// Replaces what a pattern matches in a text.
    Edit(substitute::Substitute),
    /// Sets the line KEY=VALUE of a text.
    SetLine(set_line::SetLine),
    /// Switches a unit or service on.
    Enable(unit::Enable),
    /// Switches a unit or service off.
    Disable(unit::Disable),
    /// Keeps a unit from ever starting.
    Mask(unit::Mask),
    /// Takes a mask away.
    Unmask(unit::Unmask),
    /// Sets the target that the guest boots into.
    DefaultTarget(unit::DefaultTarget),
    /// Makes a group.
    AddGroup(add_group::AddGroup),
    /// Makes a user.
    AddUser(add_user::AddUser),
    /// Locks a user's password.
    LockUser(account::LockUser),
    /// Unlocks a user's password.
    UnlockUser(account::UnlockUser),
    /// Has a user choose a new password at the next login.
    ExpirePassword(account::ExpirePassword),
    /// Sets the time zone.
    Timezone(timezone::Timezone),
    /// Sets the language of the system.
    Locale(locale::Locale),
    /// Sets the keyboard of the console.
    Keymap(keymap::Keymap),
    /// Makes a swap file.
    Swap(swap_file::SwapFile),
    /// Runs a script at the first boot.
    Firstboot(first_boot::FirstBoot),
    /// Runs a command at the first boot.
    FirstbootCommand(first_boot::FirstBootCommand),
    /// Installs packages at the first boot.
    FirstbootInstall(first_boot::FirstBootInstall),
    /// Keeps cloud-init from running.
    NoCloudInit(no_cloud_init::NoCloudInit),
}

/// All options that make edits, in the order of the help text.
pub fn verbs() -> impl Iterator<Item = &'static Verb> {
    ALL.iter().copied().flatten()
}

/// One edit of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Edit {
    /// Its place in the request, for messages (`--mkdir /srv`, `edits[2] /srv`).
    pub origin: String,
    /// The action.
    pub action: Action,
}

impl Edit {
    /// An edit that the option `name` asked for.
    pub fn of_option(name: &str, action: Action) -> Self {
        Self { origin: format!("--{name} {}", action.subject()).trim_end().to_owned(), action }
    }

    /// The edit that stands at `place` of a document (`plan.toml: edits[2]`).
    ///
    /// # Errors
    /// When its fields make no sense.
    pub fn of_document(place: &str, action: Action) -> Result<Self, BadEdit> {
        action.check()?;
        let origin = format!("{place}: {} {}", action.name(), action.subject());
        Ok(Self { origin: origin.trim_end().to_owned(), action })
    }

    /// Whether it reads a file beside the program.
    pub fn reads_here(&mut self) -> bool {
        self.action.is_local()
            || self.action.sources().iter().any(|source| matches!(source, Source::File(_)))
    }

    /// Whether the edit after it leaves nothing of it: both write the same file.
    pub fn is_undone_by(&self, next: &Self) -> bool {
        matches!((&self.action, &next.action), (Action::Write(_), Action::Write(_)))
            && self.action.subject() == next.action.subject()
    }

    /// Whether a guest whose system is not known will not do.
    pub(crate) fn needs_system(&self) -> bool {
        matches!(self.action.needs(), Needs::System(_))
    }
}

/// The names of all kinds of edits: their keys in a document.
pub fn kinds() -> impl Iterator<Item = &'static str> {
    ALL.iter().filter_map(|verbs| verbs.first()).map(|verb| verb.name)
}

/// Why a JSON list of edits cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum BadList {
    /// It is no list of edits.
    #[error("it is no JSON list of edits such as {{\"mkdir\": {{\"path\": \"/srv\"}}}}: {0}")]
    Json(String),
    /// A field makes no sense.
    #[error("[{number}]: {problem}")]
    Edit {
        /// Its place in the list, from 0.
        number: usize,
        /// The field, and what is wrong.
        problem: BadEdit,
    },
    /// It would read a file of the machine that customizes, and not of whoever asks.
    #[error(
        "[{number}]: {kind} reads a file of the node; give the content itself (write with text or base64)"
    )]
    Local {
        /// Its place in the list, from 0.
        number: usize,
        /// The kind of edit.
        kind: &'static str,
    },
    /// There are too many.
    #[error("it has {0} edits; {LIST_MAX} is the most that is taken")]
    Long(usize),
}

/// The most edits of a list that comes from a tenant.
const LIST_MAX: usize = 1000;

/// The edits of somebody elsewhere: a JSON list, without files of this machine. `origin` is what the list is
/// called.
///
/// # Errors
/// When it is no such list.
pub fn of_json(json: &[u8], origin: &str) -> Result<Vec<Edit>, BadList> {
    let actions: Vec<Action> = serde_json::from_slice(json).map_err(|error| {
        // The parser's own words for a wrong kind of value may show the value.
        let place = format!("line {}, column {}", error.line(), error.column());
        let unknown = [
            "unknown variant",
            "unknown field",
            "missing field",
            "duplicate field",
            "a mode is a text",
        ];
        let text = error.to_string();
        BadList::Json(match unknown.iter().any(|start| text.starts_with(start)) {
            true => text,
            false => place,
        })
    })?;
    if actions.len() > LIST_MAX {
        return Err(BadList::Long(actions.len()));
    }
    let mut edits = Vec::with_capacity(actions.len());
    for (number, action) in actions.into_iter().enumerate() {
        let kind = action.name();
        let mut edit = Edit::of_document(&format!("{origin}[{number}]"), action)
            .map_err(|problem| BadList::Edit { number, problem })?;
        if edit.reads_here() {
            return Err(BadList::Local { number, kind });
        }
        edits.push(edit);
    }
    Ok(edits)
}

/// The edits of a plan, where their task is among those that run.
pub(crate) fn wanted<'a>(tasks: &[&'static Task], plan: &'a Plan) -> &'a [Edit] {
    let run = tasks.iter().any(|task| matches!(task.work, Work::Edits));
    if run { &plan.edits } else { &[] }
}

/// The users that the edits of a plan make. What else is asked for them comes after.
pub(crate) fn new_users(plan: &Plan) -> Vec<String> {
    let name = |edit: &Edit| match &edit.action {
        Action::AddUser(user) => Some(user.subject()),
        _ => None,
    };
    plan.edits.iter().filter_map(name).collect()
}

/// Makes the plan's edits in their order.
///
/// # Errors
/// The error of the first edit that fails, with its place in the request.
pub(crate) fn run(guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    let plan = session.plan;
    for (edit, later) in plan.edits.iter().zip((1..).map(|next| &plan.edits[next..])) {
        if let Needs::Where(families) = edit.action.needs()
            && !guest.family.is_some_and(|family| families.contains(&family))
        {
            session.warn(format!("{} has no effect: it means nothing on this system", edit.origin));
            continue;
        }
        edit.action
            .run(guest, session)
            .map_err(|error| FileError::of(&edit.origin, made_later(error, later)))?;
        guest.tree.seal()?;
    }
    Ok(())
}

/// An error about a user or group that is missing, with a hint where a later edit makes it.
fn made_later(error: TaskError, later: &[Edit]) -> TaskError {
    let TaskError::Account(AccountError::Unknown(missing)) = &error else { return error };
    let makes = |edit: &&Edit| match &edit.action {
        Action::AddUser(user) => user.subject() == missing.name(),
        Action::AddGroup(group) => missing.is_group() && group.subject() == missing.name(),
        _ => false,
    };
    match later.iter().find(makes) {
        Some(edit) => TaskError::request(format!(
            "{missing}; {} comes later, and edits are made in their order: put it first",
            edit.origin
        )),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// The key of an edit in a document is the name of its option.
    #[test]
    fn keys_are_names_of_options() {
        for (verb, text) in [("move", "/a:/b"), ("write", "/a:text:x"), ("set-line", "/a:b=c")] {
            let action = testing::parse(verb, text).unwrap();
            let value = serde_json::to_value(&action).unwrap();
            let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
            assert_eq!((keys, action.name()), (vec![&verb.to_owned()], verb));
        }
    }

    /// A document cannot ask for anything that the command line refuses.
    #[test]
    fn documents_are_checked() {
        for bad in [
            r#"{"lock-user": {"user": "a:b"}}"#,
            r#"{"timezone": {"zone": "../../etc/shadow"}}"#,
            r#"{"delete": {"path": "/"}}"#,
            r#"{"delete": {"path": "/a/.."}}"#,
            r#"{"set-line": {"path": "/a", "key": "b\nc", "value": "d"}}"#,
            r#"{"set-line": {"path": "/a", "key": "b", "value": "d\ne"}}"#,
            r#"{"chown": {"path": "/a"}}"#,
            r#"{"mkdir": {"path": "/a", "owner": ""}}"#,
            r#"{"truncate": {"path": "/a/"}}"#,
            r#"{"copy-in": {"local": "/", "directory": "/a"}}"#,
        ] {
            let action: Action = serde_json::from_str(bad).unwrap();
            let error = action.check().unwrap_err().to_string();
            assert!(!error.is_empty() && !error.ends_with('.'), "{bad}: {error}");
        }
    }

    /// Somebody elsewhere names no file of this machine.
    #[test]
    fn lists_from_elsewhere() {
        let list = r#"[{"write": {"path": "/a", "text": "x"}}, {"delete": {"path": "/b"}}]"#;
        let origins: Vec<String> =
            of_json(list.as_bytes(), "x").unwrap().into_iter().map(|edit| edit.origin).collect();
        assert_eq!(origins, ["x[0]: write /a", "x[1]: delete /b"]);
        for (bad, part) in [
            ("{}", "no JSON list"),
            (r#"[{"mkdri": {}}]"#, "unknown variant `mkdri`"),
            (r#"[{"mkdir": {"path": "/a"}}, {"mkdir": {"path": "/"}, "x": 1}]"#, "no JSON list"),
            (r#"[{"delete": {"path": "/"}}]"#, "[0]: "),
            (r#"[{"write": {"path": "/a", "file": "/etc/shadow"}}]"#, "reads a file of the node"),
            (r#"[{"copy-in": {"local": "/etc", "directory": "/a"}}]"#, "reads a file of the node"),
        ] {
            let error = of_json(bad.as_bytes(), "x").unwrap_err().to_string();
            assert!(error.contains(part), "{bad}: {error}");
        }
        let long = format!("[{}]", vec![r#"{"touch": {"path": "/a"}}"#; LIST_MAX + 1].join(","));
        assert!(of_json(long.as_bytes(), "x").is_err());
    }

    #[test]
    fn the_table_is_sound() {
        let mut names = BTreeSet::new();
        for verb in verbs() {
            assert!(names.insert(verb.name), "{} is there twice", verb.name);
            assert!(verb.help.ends_with('.'), "{}", verb.name);
            if verb.metavar.is_empty() {
                (verb.parse)("", How { follow: true }).unwrap();
                continue;
            }
            let error = (verb.parse)("", How { follow: true }).unwrap_err().to_string();
            assert!(!error.is_empty() && !error.ends_with('.'), "{}: {error}", verb.name);
        }
    }
}
