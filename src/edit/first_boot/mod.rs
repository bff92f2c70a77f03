//! `--firstboot` and its kin: scripts that the guest runs once, in their order, when it boots next.
//!
//! Nothing of the guest runs here. Each script goes into a directory of its phase, and a runner that
//! the guest's init starts takes them from there one by one: a script is moved away before it runs, so
//! that it never runs twice, not even if it restarts the machine.

mod install;
mod packages;

use serde::{Deserialize, Serialize};

use super::source::PlainText;
use super::{Act, Action, BadEdit, How, Source, SourceError, Verb, flag};
use crate::ask::properties::OsFamily;
use crate::craft::secret::Secret;
use crate::guest::Guest;
use crate::task::{self, Needs, Session, TaskError};

/// The systems that have a first boot of this kind.
const SYSTEMS: Needs = Needs::System(&[OsFamily::Linux, OsFamily::Windows]);
/// The most that a script may have: it is looked at and may be converted in memory.
const SCRIPT_MAX: u64 = 16 << 20;

/// When a script runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Before the network is configured.
    Early,
    /// When the network is there.
    Late,
}

impl Phase {
    fn of(early: bool) -> Self {
        if early { Self::Early } else { Self::Late }
    }
}

/// A script for the first boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(try_from = "Fields", into = "Fields")]
pub struct FirstBoot {
    source: Source,
    /// Its name in the log.
    name: String,
    early: bool,
}

/// The same as a document has it.
#[derive(Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
struct Fields {
    /// The script as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    text: Option<PlainText>,
    /// The script in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "cli", schemars(with = "Option<String>"))]
    base64: Option<Secret>,
    /// The file that has it, beside the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    file: Option<String>,
    /// Its name in the log; for Windows, with `.ps1` or `.cmd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    /// Whether it runs before the network is configured.
    #[serde(default, skip_serializing_if = "flag::is_no")]
    early: bool,
}

impl TryFrom<Fields> for FirstBoot {
    type Error = BadEdit;

    fn try_from(fields: Fields) -> Result<Self, BadEdit> {
        let Fields { text, base64, file, name, early } = fields;
        let name = name.or_else(|| file.as_deref().map(file_name));
        let source = match (text, base64, file) {
            (Some(text), None, None) => Source::Inline(text.0, None),
            (None, Some(bytes), None) => Source::Inline(bytes, None),
            (None, None, Some(file)) if !file.is_empty() => Source::File(file.into()),
            _ => return Err(BadEdit::new("one of text, base64 and file is needed, and only one")),
        };
        Ok(Self { source, name: name.unwrap_or_else(|| "script".into()), early })
    }
}

impl From<FirstBoot> for Fields {
    fn from(script: FirstBoot) -> Self {
        let FirstBoot { source, name, early } = script;
        let (mut text, mut base64, mut file) = (None, None, None);
        match source {
            Source::Inline(content, _) if std::str::from_utf8(content.expose()).is_ok() => {
                text = Some(PlainText(content));
            }
            Source::Inline(content, _) => base64 = Some(content),
            Source::File(path) => file = Some(path.to_string_lossy().into_owned()),
        }
        Self { text, base64, file, name: Some(name), early }
    }
}

/// The last name of a path.
fn file_name(path: &str) -> String {
    path.rsplit('/').next().unwrap_or_default().to_owned()
}

impl FirstBoot {
    fn read(text: &str, early: bool) -> Result<Action, BadEdit> {
        if text.is_empty() {
            return Err(BadEdit::new("the path of the script is empty"));
        }
        let name = file_name(text);
        Ok(Action::Firstboot(Self { source: Source::File(text.into()), name, early }))
    }

    fn parse(text: &str, _: How) -> Result<Action, BadEdit> {
        Self::read(text, false)
    }

    fn parse_early(text: &str, _: How) -> Result<Action, BadEdit> {
        Self::read(text, true)
    }
}

impl Act for FirstBoot {
    const VERBS: &'static [Verb] = &[
        Verb {
            name: "firstboot",
            metavar: "FILE",
            help: "Run a script once when the guest boots next, when the network is there. Several run \
                   in the order given, whatever becomes of those before; /var/log/snf-image-firstboot.log \
                   in the guest has what they print. On a generalized Windows: a .cmd or .ps1, at the \
                   end of the setup.",
            follows: false,
            parse: Self::parse,
        },
        Verb {
            name: "firstboot-early",
            metavar: "FILE",
            help: "The same before the network is configured (systemd, OpenRC, BusyBox).",
            follows: false,
            parse: Self::parse_early,
        },
    ];
    const NEEDS: Needs = SYSTEMS;

    fn check(&self) -> Result<(), BadEdit> {
        // The types of the fields have checked them.
        Ok(())
    }

    fn subject(&self) -> String {
        match &self.source {
            Source::File(path) => path.display().to_string(),
            Source::Inline(..) => self.name.clone(),
        }
    }

    fn sources(&mut self) -> Vec<&mut Source> {
        vec![&mut self.source]
    }

    fn run(&self, guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
        let mut content = Vec::new();
        let mut opened = self.source.open()?;
        let path = match &self.source {
            Source::File(path) => path.clone(),
            Source::Inline(..) => self.name.clone().into(),
        };
        let fail = |source| SourceError::new("script", &path, source);
        std::io::Read::read_to_end(
            &mut std::io::Read::take(&mut opened.reader, SCRIPT_MAX + 1),
            &mut content,
        )
        .map_err(fail)?;
        if content.len() as u64 > SCRIPT_MAX {
            return Err(TaskError::request(format!(
                "the script {} has more than {} MiB; bring data along with --upload",
                self.name,
                SCRIPT_MAX >> 20
            )));
        }
        if content.trim_ascii().is_empty() {
            let problem = std::io::Error::new(std::io::ErrorKind::InvalidData, "it is empty");
            return Err(fail(problem).into());
        }
        let content = Secret::new(content);
        let phase = Phase::of(self.early);
        if guest.is_windows() {
            only_late(phase)?;
            return task::windows_first_boot(guest, session, &self.name, &content);
        }
        install::check(guest, session, &self.name, content.expose())?;
        install::install(guest, phase, &self.name, &content)
    }
}

/// A command for the first boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FirstBootCommand {
    /// The line for the guest's shell.
    command: Line,
    /// Whether it runs before the network is configured.
    #[serde(default, skip_serializing_if = "flag::is_no")]
    early: bool,
}

/// A command line, which is never empty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
struct Line(String);

impl TryFrom<String> for Line {
    type Error = BadEdit;

    fn try_from(text: String) -> Result<Self, BadEdit> {
        if text.trim().is_empty() || text.contains('\0') {
            return Err(BadEdit::new("the command is empty, or holds a NUL character"));
        }
        Ok(Self(text))
    }
}

impl From<Line> for String {
    fn from(line: Line) -> Self {
        line.0
    }
}

impl FirstBootCommand {
    fn parse(text: &str, _: How) -> Result<Action, BadEdit> {
        let command = text.to_owned().try_into()?;
        Ok(Action::FirstbootCommand(Self { command, early: false }))
    }

    fn parse_early(text: &str, _: How) -> Result<Action, BadEdit> {
        let command = text.to_owned().try_into()?;
        Ok(Action::FirstbootCommand(Self { command, early: true }))
    }
}

impl Act for FirstBootCommand {
    const VERBS: &'static [Verb] = &[
        Verb {
            name: "firstboot-command",
            metavar: "LINE",
            help: "The same with a line for the guest's shell (cmd.exe on Windows).",
            follows: false,
            parse: Self::parse,
        },
        Verb {
            name: "firstboot-early-command",
            metavar: "LINE",
            help: "A line for the shell before the network is configured.",
            follows: false,
            parse: Self::parse_early,
        },
    ];
    const NEEDS: Needs = SYSTEMS;

    fn check(&self) -> Result<(), BadEdit> {
        // The types of the fields have checked them.
        Ok(())
    }

    /// Not the command itself, which may hold a secret.
    fn subject(&self) -> String {
        String::new()
    }

    fn run(&self, guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
        let phase = Phase::of(self.early);
        if guest.is_windows() {
            only_late(phase)?;
            let text = Secret::new(format!("@echo off\n{}\n", self.command.0));
            return task::windows_first_boot(guest, session, "command.cmd", &text);
        }
        let text = Secret::new(format!("#!/bin/sh\n{}\n", self.command.0));
        install::install(guest, phase, "command", &text)
    }
}

/// Packages that the guest's package manager installs at the first boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FirstBootInstall {
    /// Their names, as the guest's package manager knows them.
    packages: packages::Packages,
}

impl FirstBootInstall {
    fn parse(text: &str, _: How) -> Result<Action, BadEdit> {
        let names: Vec<String> = text.split(',').map(str::to_owned).collect();
        Ok(Action::FirstbootInstall(Self { packages: names.try_into()? }))
    }
}

impl Act for FirstBootInstall {
    const VERBS: &'static [Verb] = &[Verb {
        name: "firstboot-install",
        metavar: "PACKAGE[,...]",
        help: "Install packages with the guest's package manager at the first boot, in its place among \
               the scripts.",
        follows: false,
        parse: Self::parse,
    }];
    const NEEDS: Needs = Needs::System(&[OsFamily::Linux]);

    fn check(&self) -> Result<(), BadEdit> {
        // The types of the fields have checked them.
        Ok(())
    }

    fn subject(&self) -> String {
        self.packages.to_string()
    }

    fn run(&self, guest: &mut Guest, _: &mut Session<'_>) -> Result<(), TaskError> {
        let text = packages::script(guest, &self.packages)?;
        install::install(guest, Phase::Late, "install", &Secret::new(text))
    }
}

fn only_late(phase: Phase) -> Result<(), TaskError> {
    match phase {
        Phase::Late => Ok(()),
        Phase::Early => Err(TaskError::request(
            "on Windows scripts run at the end of the setup, and not before the network is configured",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guest, fails, parse, runs};
    use super::*;

    const DIR: &str = "/var/lib/snf-image/firstboot";

    fn script(text: &str) -> (tempfile::TempDir, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set up.sh");
        std::fs::write(&path, text).unwrap();
        let path = path.display().to_string();
        (dir, path)
    }

    #[test]
    fn scripts_keep_their_order() {
        let mut guest = Guest::debian();
        let (_dir, path) = script("#!/bin/bash\necho hi\n");
        runs(&mut guest, "firstboot", &path);
        runs(&mut guest, "firstboot-command", "echo two > /tmp/x");
        runs(&mut guest, "firstboot-early-command", "echo early");
        guest.write("/usr/bin/apt-get", "");
        runs(&mut guest, "firstboot-install", "vim,g++");
        assert_eq!(guest.read(&format!("{DIR}/late/0001-set_up.sh")), "#!/bin/bash\necho hi\n");
        assert_eq!(
            guest.read(&format!("{DIR}/late/0002-command")),
            "#!/bin/sh\necho two > /tmp/x\n"
        );
        assert!(
            guest.read(&format!("{DIR}/late/0003-install")).contains("apt-get install -y vim g++")
        );
        assert_eq!(guest.read(&format!("{DIR}/early/0001-command")), "#!/bin/sh\necho early\n");
        assert_eq!(guest.attributes(&format!("{DIR}/late/0001-set_up.sh")), (0o700, 0, 0));
        assert_eq!(guest.attributes(DIR), (0o700, 0, 0));
        let unit =
            guest.read("/etc/systemd/system/multi-user.target.wants/snf-image-firstboot.service");
        assert!(
            unit.contains("ExecStart=/bin/sh /var/lib/snf-image/firstboot/run late\n"),
            "{unit}"
        );
        let early = "/etc/systemd/system/multi-user.target.wants/snf-image-firstboot-early.service";
        assert!(guest.read(early).contains("Before=network-pre.target"));
        assert!(guest.warnings().is_empty(), "{:?}", guest.warnings());
    }

    #[test]
    fn what_will_not_run_is_said() {
        let mut guest = Guest::debian();
        let (_dir, path) = script("#!/usr/bin/python3\n");
        runs(&mut guest, "firstboot", &path);
        assert!(guest.warnings()[0].contains("/usr/bin/python3, which is not in the guest"));
        let (_dir, path) = script("\n");
        assert!(fails(&mut guest, "firstboot", &path).contains("it is empty"));
        let (_dir, path) = script("echo hi\n");
        runs(&mut guest, "firstboot", &path);
        assert!(guest.warnings()[1].contains("does not begin with #!"), "{:?}", guest.warnings());
        let (_dir, path) = script("#!/bin/sh\r\necho\r\n");
        assert!(fails(&mut guest, "firstboot", &path).contains("line ends of Windows"));
        assert!(fails(&mut guest, "firstboot-install", "vim").contains("no package manager"));
        for (verb, bad) in [
            ("firstboot", ""),
            ("firstboot-command", " "),
            ("firstboot-install", ""),
            ("firstboot-install", "a,,b"),
            ("firstboot-install", "-y"),
            ("firstboot-install", "a b"),
            ("firstboot-install", "$(x)"),
        ] {
            assert!(parse(verb, bad).is_err(), "{verb} {bad}");
        }
        let mut bare = Guest::empty();
        assert!(fails(&mut bare, "firstboot-command", "x").contains("how its scripts start"));
    }

    #[test]
    fn documents() {
        for (verb, text) in [
            ("firstboot-early", "/a/b"),
            ("firstboot-command", "x y"),
            ("firstboot-install", "a,b"),
        ] {
            let action = parse(verb, text).unwrap();
            let text = serde_json::to_string(&action).unwrap();
            assert_eq!(serde_json::from_str::<Action>(&text).unwrap(), action, "{text}");
        }
        for bad in [
            r#"{"firstboot": {}}"#,
            r#"{"firstboot": {"text": "a", "file": "b"}}"#,
            r#"{"firstboot-command": {"command": ""}}"#,
            r#"{"firstboot-install": {"packages": []}}"#,
        ] {
            assert!(serde_json::from_str::<Action>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn other_inits() {
        let mut alpine = Guest::empty();
        alpine.write("/etc/os-release", "ID=alpine\n");
        alpine.write("/sbin/openrc-run", "");
        alpine.write("/sbin/apk", "");
        runs(&mut alpine, "firstboot-install", "bash");
        runs(&mut alpine, "firstboot-early-command", "true");
        let link = alpine.tree().read_link("/etc/runlevels/default/snf-image-firstboot").unwrap();
        assert_eq!(link, b"/etc/init.d/snf-image-firstboot");
        assert!(alpine.tree().lstat("/etc/runlevels/boot/snf-image-firstboot-early").is_ok());
        assert!(alpine.read("/etc/init.d/snf-image-firstboot-early").contains("before net"));
        assert_eq!(alpine.attributes("/etc/init.d/snf-image-firstboot"), (0o755, 0, 0));

        let mut sysv = Guest::empty();
        sysv.mkdir("/etc/init.d");
        for level in 0..=6 {
            sysv.mkdir(&format!("/etc/rc{level}.d"));
        }
        runs(&mut sysv, "firstboot-command", "true");
        assert!(sysv.tree().lstat("/etc/rc3.d/S99snf-image-firstboot").is_ok());
        assert!(fails(&mut sysv, "firstboot-early-command", "x").contains("SysV init"));

        let mut busybox = Guest::empty();
        busybox.write("/etc/inittab", "::sysinit:/etc/init.d/rcS\n");
        busybox.write("/etc/init.d/rcS", "for i in /etc/init.d/S??* ;do $i start; done\n");
        runs(&mut busybox, "firstboot-command", "true");
        assert_eq!(busybox.attributes("/etc/init.d/S99snf-image-firstboot"), (0o755, 0, 0));
    }

    #[test]
    fn windows_runs_them_at_the_end_of_its_setup() {
        let mut guest = Guest::windows();
        runs(&mut guest, "firstboot-command", "echo %TEMP%");
        let (_dir, path) = script("Write-Output hi\n");
        let renamed = path.replace("set up.sh", "x.ps1");
        std::fs::rename(&path, &renamed).unwrap();
        runs(&mut guest, "firstboot", &renamed);
        let dir = "/Windows/Setup/Scripts/snf-image-firstboot";
        assert_eq!(guest.read(&format!("{dir}/0001-command.cmd")), "@echo off\r\necho %TEMP%\r\n");
        assert_eq!(guest.read(&format!("{dir}/0002-x.ps1")), "Write-Output hi\r\n");
        let complete = guest.read("/Windows/Setup/Scripts/SetupComplete.cmd");
        assert_eq!(complete.matches("snf-image-firstboot\\run.cmd\"").count(), 2, "{complete}");
        let (_dir, path) = script("#!/bin/sh\n");
        assert!(fails(&mut guest, "firstboot", &path).contains(".cmd or .ps1"));
        assert!(fails(&mut guest, "firstboot-early-command", "x").contains("end of the setup"));
    }
}
