//! `--write`: a file with this content.

use serde::{Deserialize, Serialize};
use snf_fs::{FileType, Stat, Tree};

use super::flag;
use super::place::{self, Spot};
use super::source::PlainText;
use super::{Access, Act, Action, BadEdit, GuestPath, How, Mode, Source, Verb};
use crate::craft::secret::Secret;
use crate::guest::Guest;
use crate::task::{Session, TaskError};

/// A file with this content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(try_from = "Fields", into = "Fields")]
pub struct Write {
    path: GuestPath,
    source: Source,
    access: Access,
    follow: bool,
}

/// The same as a document has it.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Fields {
    /// Its path in the guest.
    path: GuestPath,
    /// The content as text.
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<PlainText>,
    /// The content in base64.
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<Secret>,
    /// The file that has the content, beside the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    /// A user of the guest, by name or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    owner: Option<String>,
    /// A group of the guest, by name or number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    /// Permissions, in octal as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<Mode>,
    /// The mode of a new file where `mode` says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    new_mode: Option<Mode>,
    /// Whether a symbolic link at the end of the path is followed.
    #[serde(default = "flag::yes", skip_serializing_if = "flag::is_yes")]
    follow: bool,
}

impl TryFrom<Fields> for Write {
    type Error = BadEdit;

    fn try_from(fields: Fields) -> Result<Self, BadEdit> {
        let Fields { path, text, base64, file, owner, group, mode, new_mode, follow } = fields;
        let source = match (text, base64, file) {
            (Some(text), None, None) => Source::Inline(text.0, new_mode),
            (None, Some(bytes), None) => Source::Inline(bytes, new_mode),
            (None, None, Some(file)) => Source::File(file.into()),
            _ => return Err(BadEdit::new("one of text, base64 and file is needed, and only one")),
        };
        let path = GuestPath::file(path.as_str())?;
        let access = Access { owner, group, mode }.checked()?;
        Ok(Self { path, source, access, follow })
    }
}

impl From<Write> for Fields {
    fn from(write: Write) -> Self {
        let Write { path, source, access: Access { owner, group, mode }, follow } = write;
        let (mut text, mut base64, mut file, mut new_mode) = (None, None, None, None);
        match source {
            Source::Inline(content, mode) => {
                new_mode = mode;
                match std::str::from_utf8(content.expose()) {
                    Ok(_) => text = Some(PlainText(content)),
                    Err(_) => base64 = Some(content),
                }
            }
            Source::File(path) => file = Some(path.to_string_lossy().into_owned()),
        }
        Self { path, text, base64, file, owner, group, mode, new_mode, follow }
    }
}

impl Write {
    /// Reads `PATH:file:LOCAL[:owner=…]` and `PATH:text:CONTENT`.
    fn parse(text: &str, how: How) -> Result<Action, BadEdit> {
        let form = "GUESTPATH:file:PATH[:owner=...,group=...,mode=...] or GUESTPATH:text:CONTENT";
        let (file, inline) = (text.find(":file:"), text.find(":text:"));
        let (path, source, access) = match (file, inline) {
            (Some(at), other) if other.is_none_or(|other| at < other) => {
                let (local, access) = Access::split(&text[at + 6..])?;
                if local.is_empty() {
                    return Err(BadEdit::new(format!(
                        "{}: the path after file: is empty",
                        text[..at].escape_debug()
                    )));
                }
                (&text[..at], Source::File(local.into()), access)
            }
            (_, Some(at)) => {
                Access::refuse_in_content(&text[at + 6..])?;
                let content = Secret::new(&text.as_bytes()[at + 6..]);
                (&text[..at], Source::Inline(content, None), Access::default())
            }
            // A text that does not parse is not repeated: it may be a secret.
            _ => return Err(BadEdit::new(format!("the argument is not of the form {form}"))),
        };
        let path = GuestPath::file(path)?;
        Ok(Action::Write(Self { path, source, access, follow: how.follow }))
    }

    /// Reads `LOCAL:PATH`.
    fn parse_upload(text: &str, how: How) -> Result<Action, BadEdit> {
        let form = || BadEdit::form(text, "LOCAL:GUESTPATH (such as motd.txt:/etc/motd)");
        let at = text.find(":/").ok_or_else(form)?;
        let (local, path) = (&text[..at], &text[at + 1..]);
        if local.is_empty() {
            return Err(form());
        }
        let (path, access) = Access::split(path)?;
        Ok(Action::Write(Self {
            path: GuestPath::file(path)?,
            source: Source::File(local.into()),
            access,
            follow: how.follow,
        }))
    }
}

impl Act for Write {
    const VERBS: &'static [Verb] = &[
        Verb {
            name: "write",
            metavar: "GUESTPATH:file:PATH[:owner=,group=,mode=]",
            help: "Write a file into the guest: GUESTPATH:file:PATH, or GUESTPATH:text:CONTENT. \
                   Owner, group and mode (octal) that are not given stay those of an existing \
                   file; a new one is root's, with the local file's permissions (0644 for text).",
            follows: true,
            parse: Self::parse,
        },
        Verb {
            name: "upload",
            metavar: "PATH:GUESTPATH[:owner=,group=,mode=]",
            help: "Write a local file into the guest, as --write GUESTPATH:file:PATH does.",
            follows: true,
            parse: Self::parse_upload,
        },
    ];

    fn check(&self) -> Result<(), BadEdit> {
        // [`Fields`] has checked it.
        Ok(())
    }

    fn subject(&self) -> String {
        self.path.to_string()
    }

    fn sources(&mut self) -> Vec<&mut Source> {
        vec![&mut self.source]
    }

    fn run(&self, guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
        let Spot { path, existing } = place::to_write(guest, session, &self.path, self.follow)?;
        let mut opened = self.source.open()?;
        if guest.is_windows() && !self.access.is_empty() {
            session.warn(format!(
                "{}: owner, group and mode have no effect: on Windows a file has the permissions \
                 of its directory",
                self.path
            ));
        }
        let kept = existing.as_ref().filter(|stat| stat.file_type == FileType::Regular);
        if !self.access.is_empty() {
            place::warn_unowned(guest, session, &path, &self.path, "owner, group and mode have");
        }
        let wanted = self.access.on(guest, kept, opened.mode)?;
        if existing.as_ref().is_some_and(|stat| stat.file_type == FileType::Symlink) {
            guest.tree.unlink(&path)?;
        }
        place::make_parents(&mut guest.tree, &path)?;
        guest.tree.write_from(&path, &mut opened.reader, wanted)?;
        if !guest.is_windows() {
            guest.tree.chown(&path, wanted.uid, wanted.gid)?;
            // After the owner, because a change of owner may take set-id bits away.
            guest.tree.chmod(&path, wanted.mode)?;
            if let Some(stat) = kept {
                drop_privileges(&mut guest.tree, &path, stat, self.access.mode.is_some())?;
            }
        }
        Ok(())
    }
}

/// New content must not run with the rights that the old one had: set-id bits go, as they do when
/// a running system writes, unless the request gave a mode; capabilities go always.
///
/// # Errors
/// Errors of the tree.
pub(super) fn drop_privileges(
    tree: &mut Tree,
    path: &[u8],
    before: &Stat,
    mode_given: bool,
) -> Result<(), TaskError> {
    const CAPABILITY: &[u8] = b"security.capability";
    if before.mode & 0o6000 != 0 && !mode_given {
        // Without the right to execute for the group, the bit means locking, not another group.
        let group = if before.mode & 0o010 == 0 { 0 } else { 0o2000 };
        tree.chmod(path, before.mode & !(0o4000 | group))?;
    }
    if tree.xattr(path, CAPABILITY)?.is_some() {
        tree.set_xattr(path, CAPABILITY, None)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guest, fails, parse, runs};
    use super::*;

    #[test]
    fn forms() {
        for good in ["/a b:file:/x:y:owner=me,mode=4755,group=7", "/a:file:b:c", "/a:text:b:file:c"]
        {
            let action = parse("write", good).unwrap();
            let text = serde_json::to_string(&action).unwrap();
            assert_eq!(serde_json::from_str::<Action>(&text).unwrap(), action, "{text}");
        }
        for bad in
            ["/a", "a:file:b", "/a:file:", "/a/:file:b", "/a:file:b:mode=9", "/a:file:b:owner="]
        {
            assert!(parse("write", bad).is_err(), "{bad}");
        }
        assert_eq!(parse("upload", "b:/a").unwrap(), parse("write", "/a:file:b").unwrap());
        assert!(!parse("write", "/a:hunter2").unwrap_err().to_string().contains("hunter2"));
        for bad in [
            r#"{"write": {"path": "/a"}}"#,
            r#"{"write": {"path": "/a", "text": "x", "file": "y"}}"#,
            r#"{"write": {"path": "/a", "text": "x", "colour": 1}}"#,
            r#"{"write": {"path": "a", "text": "x"}}"#,
        ] {
            assert!(serde_json::from_str::<Action>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn new_files_have_what_people_expect() {
        let mut guest = Guest::debian();
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("script");
        std::fs::write(&script, "#!/bin/sh\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&script, mode).unwrap();
        runs(&mut guest, "write", &format!("/usr/local/bin/x:file:{}", script.display()));
        assert_eq!(guest.attributes("/usr/local/bin/x"), (0o755, 0, 0));
        assert_eq!(guest.attributes("/usr/local/bin"), (0o755, 0, 0));
        runs(&mut guest, "write", "/etc/motd:text:hello");
        assert_eq!(guest.attributes("/etc/motd"), (0o644, 0, 0));
        assert_eq!(guest.read("/etc/motd"), "hello");
        runs(&mut guest, "write", "/etc/shadow:text:x");
        assert_eq!(guest.attributes("/etc/shadow"), (0o640, 0, 42));
    }

    #[test]
    fn privileges_go_with_the_content() {
        let mut guest = Guest::debian();
        for (before, after) in [(0o6755, 0o755), (0o2745, 0o2745), (0o4644, 0o644)] {
            guest.write("/usr/bin/x", "old");
            guest.tree().chmod("/usr/bin/x", before).unwrap();
            let cap = Some(&b"cap"[..]);
            guest.tree().set_xattr("/usr/bin/x", b"security.capability", cap).unwrap();
            runs(&mut guest, "write", "/usr/bin/x:text:new");
            assert_eq!(guest.attributes("/usr/bin/x").0, after, "{before:o}");
            assert!(guest.tree().xattrs("/usr/bin/x").unwrap().is_empty());
        }
    }

    #[test]
    fn a_link_is_replaced_when_it_is_not_to_be_followed() {
        let mut guest = Guest::debian();
        guest.symlink("/etc/localtime", "/usr/share/zoneinfo/UTC");
        let Action::Write(write) = parse("write", "/etc/localtime:text:x").unwrap() else {
            panic!()
        };
        guest.edit(Action::Write(Write { follow: false, ..write })).unwrap();
        assert_eq!(guest.tree().lstat("/etc/localtime").unwrap().file_type, FileType::Regular);
        assert!(!guest.tree().exists("/usr/share/zoneinfo").unwrap());
        assert!(fails(&mut guest, "write", "/etc:text:x").contains("is a directory"));
    }
}
