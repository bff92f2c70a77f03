//! `--enable`, `--disable`, `--mask`, `--unmask` and `--default-target`: what `systemctl --root` does, and
//! for the first two what OpenRC's and SysV's tools do.

use serde::{Deserialize, Serialize};
use snf_fs::error::display_name;
use snf_fs::{Attributes, FileType, Tree};

use super::place::PARENTS;
use super::sysv;
use super::{Act, Action, BadEdit, How, Verb};
use crate::ask::properties::OsFamily;
use crate::guest::Guest;
use crate::guest::init::Init;
use crate::guest::systemd::{self, CONFIG, Found, Link, UnitError, UnitName};
use crate::task::{Needs, Session, TaskError};

/// Makes the value and the option of an edit of one unit.
macro_rules! edit_of_unit {
    ($(#[$doc:meta])* $kind:ident, $name:literal, $metavar:literal, $help:literal, $run:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
        #[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
        #[serde(deny_unknown_fields)]
        pub struct $kind {
            /// The name of the unit or service.
            #[cfg_attr(feature = "cli", schemars(with = "String"))]
            unit: UnitName,
        }

        impl $kind {
            fn parse(text: &str, _: How) -> Result<Action, BadEdit> {
                let unit = UnitName::new(text).map_err(|error| BadEdit::new(error.to_string()))?;
                Ok(Action::$kind(Self { unit }))
            }
        }

        impl Act for $kind {
            const VERBS: &'static [Verb] = &[Verb {
                name: $name,
                metavar: $metavar,
                help: $help,
                follows: false,
                parse: Self::parse,
            }];
            const NEEDS: Needs = Needs::System(&[OsFamily::Linux]);

            fn check(&self) -> Result<(), BadEdit> {
                Ok(())
            }

            fn subject(&self) -> String {
                self.unit.to_string()
            }

            fn run(
                &self,
                guest: &mut Guest,
                session: &mut Session<'_>,
            ) -> Result<(), TaskError> {
                $run(&self.unit, guest, session)
            }
        }
    };
}

edit_of_unit!(
    /// A unit that starts from the next boot on.
    Enable,
    "enable",
    "UNIT",
    "Start a service (or another unit) at boot: the links of its [Install] section, as systemctl enable \
     makes them; a link in the runlevel default (OpenRC) or in rcN.d (SysV).",
    enable
);
edit_of_unit!(
    /// A unit that does not start by itself any more.
    Disable,
    "disable",
    "UNIT",
    "Do not start a service (or another unit) at boot any more.",
    disable
);
edit_of_unit!(
    /// A unit that cannot be started.
    Mask,
    "mask",
    "UNIT",
    "Make it impossible to start a unit of systemd, by hand or by another unit.",
    mask
);
edit_of_unit!(
    /// A unit that can be started again.
    Unmask,
    "unmask",
    "UNIT",
    "Take back --mask.",
    unmask
);
edit_of_unit!(
    /// The target that the guest boots into.
    DefaultTarget,
    "default-target",
    "TARGET",
    "Boot into this target of systemd, such as multi-user.target or graphical.target.",
    default_target
);

fn enable(unit: &UnitName, guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    match Init::of(guest)? {
        Init::Systemd => {}
        Init::OpenRc => return sysv::openrc_add(&script(unit, "OpenRC")?, &mut guest.tree),
        Init::Sysv => return sysv::enable(&script(unit, "SysV init")?, &mut guest.tree),
        Init::Unknown => return Err(unknown(unit)),
    }
    let plan = match systemd::enable(&guest.tree, unit) {
        // A script of old, for which systemd makes a unit.
        Err(UnitError::Missing(_)) if sysv::has_script(unit, &guest.tree)? => {
            return sysv::enable(unit.stem(), &mut guest.tree);
        }
        other => other?,
    };
    plan.warnings.iter().for_each(|warning| session.warn(warning));
    if plan.links.is_empty() {
        session.warn(format!(
            "--enable {unit} has no effect: it has no [Install] section, so it starts when another unit \
             needs it"
        ));
        return Ok(());
    }
    let mut made = false;
    for link in &plan.links {
        made |= make(&mut guest.tree, link)?;
    }
    if !made {
        session.warn(format!("--enable {unit} changes nothing: it is enabled already"));
    }
    let wanted: Vec<&str> =
        plan.links.iter().filter_map(|link| link.path.strip_suffix(&format!("/{unit}"))).collect();
    let graphical = format!("{CONFIG}/graphical.target.wants");
    if !wanted.is_empty() && wanted.iter().all(|dir| *dir == graphical) {
        let target = booted_target(&guest.tree)?;
        if target.as_ref().is_some_and(|target| target.as_str() != "graphical.target") {
            session.warn(format!(
                "--enable {unit}: only graphical.target starts it, and this guest boots into {}",
                target.map_or_else(String::new, |target| target.to_string())
            ));
        }
    }
    Ok(())
}

fn disable(unit: &UnitName, guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    match Init::of(guest)? {
        Init::Systemd => {}
        Init::OpenRc => return sysv::openrc_delete(&script(unit, "OpenRC")?, &mut guest.tree),
        Init::Sysv => return sysv::disable(&script(unit, "SysV init")?, &mut guest.tree),
        Init::Unknown => return Err(unknown(unit)),
    }
    let tree = &mut guest.tree;
    let links = systemd::disable(tree, unit)?;
    let missing = systemd::find(tree, unit)? == Found::Nothing
        && match unit.template() {
            Some(template) => systemd::find(tree, &template)? == Found::Nothing,
            None => true,
        };
    if missing && links.is_empty() {
        if sysv::has_script(unit, tree)? {
            return sysv::disable(unit.stem(), tree);
        }
        return Err(UnitError::Missing(unit.to_string()).into());
    }
    let mut idle = links.is_empty();
    for link in links {
        tree.unlink(&link)?;
        // A directory of links without links says nothing.
        let dir = link.rsplit_once('/').map_or("", |(dir, _)| dir);
        if dir != CONFIG && tree.read_dir(dir)?.is_empty() {
            tree.rmdir(dir)?;
        }
    }
    if let Some(path) = systemd::pulled_in(tree, unit)? {
        idle = false;
        session.warn(format!(
            "--disable {unit} has no effect: {path} starts it all the same; use --mask"
        ));
    }
    if unit.suffix() == "service" {
        for kind in ["socket", "timer", "path"] {
            let trigger = unit.sibling(kind);
            if !systemd::disable(tree, &trigger)?.is_empty() {
                idle = false;
                session.warn(format!("--disable {unit}: {trigger} can still start it"));
            }
        }
    }
    if idle {
        session.warn(format!("--disable {unit} changes nothing: it is not enabled"));
    }
    Ok(())
}

fn mask(unit: &UnitName, guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    only_systemd("mask", unit, guest)?;
    let path = format!("{CONFIG}/{unit}");
    let found = systemd::find(&guest.tree, unit)?;
    let in_config = match guest.tree.lstat(&path) {
        Ok(stat) => Some(stat.file_type),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error.into()),
    };
    match (found, in_config) {
        (Found::Masked(at), _) if at == path.as_bytes() => {
            session.warn(format!("--mask {unit} changes nothing: it is masked already"));
            return Ok(());
        }
        (_, Some(FileType::Symlink)) => {
            let target = display_name(&guest.tree.read_link(&path)?);
            return Err(TaskError::Request(format!(
                "{path} is a link to {target}; --delete it first, or mask that unit"
            )));
        }
        (_, Some(_)) => {
            return Err(TaskError::Request(format!(
                "{path} is the unit's own file, which a mask would hide; --delete or --disable it"
            )));
        }
        (Found::Nothing, None) if unit.template().is_none() => {
            session.warn(format!("--mask {unit}: the guest has no such unit"));
        }
        _ => {}
    }
    make(&mut guest.tree, &Link { path, target: b"/dev/null".to_vec() }).map(drop)
}

fn unmask(unit: &UnitName, guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
    only_systemd("unmask", unit, guest)?;
    match systemd::find(&guest.tree, unit)? {
        Found::Masked(path) if path.starts_with(CONFIG.as_bytes()) => {
            Ok(guest.tree.unlink(path)?)
        }
        Found::Masked(path) => Err(TaskError::Request(format!(
            "{} masks it, and belongs to a package; a unit file of your own in {CONFIG} wins over it",
            display_name(&path)
        ))),
        _ => {
            session.warn(format!("--unmask {unit} has no effect: it is not masked"));
            Ok(())
        }
    }
}

fn default_target(
    unit: &UnitName,
    guest: &mut Guest,
    session: &mut Session<'_>,
) -> Result<(), TaskError> {
    // A target without its suffix is what people type.
    let unit = match unit.suffix() {
        "service" => {
            UnitName::new(&format!("{}.target", unit.stem())).unwrap_or_else(|_| unit.clone())
        }
        _ => unit.clone(),
    };
    only_systemd("default-target", &unit, guest)?;
    if unit.suffix() != "target" {
        return Err(TaskError::Request(format!("{unit} is no target")));
    }
    let (_, target) = systemd::file_of(&guest.tree, &unit)?;
    let path = format!("{CONFIG}/default.target");
    match guest.tree.lstat(&path) {
        Ok(stat) if stat.file_type == FileType::Symlink => {
            if guest.tree.read_link(&path)? == target {
                session.warn(format!(
                    "--default-target {unit} changes nothing: the guest boots into it already"
                ));
                return Ok(());
            }
            guest.tree.unlink(&path)?;
        }
        Err(error) if error.is_not_found() => {}
        Ok(_) => return Err(TaskError::Request(format!("{path} is no symbolic link"))),
        Err(error) => return Err(error.into()),
    }
    make(&mut guest.tree, &Link { path, target }).map(drop)
}

/// The target that the guest boots into.
fn booted_target(tree: &Tree) -> Result<Option<UnitName>, TaskError> {
    for dir in [CONFIG, "/usr/lib/systemd/system", "/lib/systemd/system"] {
        match tree.read_link(format!("{dir}/default.target")) {
            Ok(target) => {
                let name = target.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
                return Ok(std::str::from_utf8(name)
                    .ok()
                    .and_then(|name| UnitName::new(name).ok()));
            }
            Err(error) if error.is_not_found() => {}
            Err(snf_fs::Error::WrongType(..)) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}

/// Makes a link, unless it is there: says whether it was made.
fn make(tree: &mut Tree, link: &Link) -> Result<bool, TaskError> {
    let Link { path, target } = link;
    match tree.lstat(path) {
        Ok(stat) if stat.file_type == FileType::Symlink => {
            let there = tree.read_link(path)?;
            let lead = |target: &[u8]| {
                let dir = path.rsplit_once('/').map_or("", |(dir, _)| dir).as_bytes();
                let full = if target.starts_with(b"/") {
                    target.to_vec()
                } else {
                    [dir, b"/", target].concat()
                };
                tree.resolve(full).ok().map(|found| found.path)
            };
            if there == *target || (lead(&there).is_some() && lead(&there) == lead(target)) {
                return Ok(false);
            }
            return Err(TaskError::Request(format!(
                "{path} is a link to {} already; --disable that first",
                display_name(&there)
            )));
        }
        Ok(_) => return Err(TaskError::Request(format!("{path} exists and is no link"))),
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    let dir = path.rsplit_once('/').map_or("/", |(dir, _)| dir);
    tree.mkdir_all(dir, PARENTS)?;
    tree.symlink(path, target, Attributes { mode: 0o777, uid: 0, gid: 0 })?;
    Ok(true)
}

fn only_systemd(verb: &str, unit: &UnitName, guest: &Guest) -> Result<(), TaskError> {
    match Init::of(guest)? {
        Init::Systemd => Ok(()),
        _ => Err(TaskError::Request(format!(
            "{unit}: this guest does not start with systemd, and --{verb} means nothing to others"
        ))),
    }
}

/// The name of the script that stands for a service.
fn script(unit: &UnitName, init: &str) -> Result<String, TaskError> {
    if unit.suffix() != "service" {
        return Err(TaskError::Request(format!(
            "{unit}: this guest starts with {init}, which has services only"
        )));
    }
    Ok(unit.stem().to_owned())
}

fn unknown(unit: &UnitName) -> TaskError {
    TaskError::Request(format!(
        "{unit}: the guest has neither systemd nor OpenRC nor SysV init, so it is not known how its \
         services start"
    ))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guest, fails, parse, runs};

    const SSH: &str = "[Unit]\n[Install]\nWantedBy=multi-user.target\nAlias=sshd.service\n";

    fn guest() -> Guest {
        let mut guest = Guest::debian();
        for (name, text) in [
            ("ssh.service", SSH),
            ("ssh.socket", "[Install]\nWantedBy=sockets.target\n"),
            ("static.service", "[Service]\n"),
            ("getty@.service", "[Install]\nWantedBy=getty.target\nDefaultInstance=tty1\n"),
            ("bare@.service", "[Install]\nWantedBy=multi-user.target\n"),
            (
                "pair.service",
                "[Install]\nWantedBy=multi-user.target\nAlso=ssh.socket none.service\n",
            ),
            ("desk.service", "[Install]\nWantedBy=graphical.target\n"),
            ("multi-user.target", "[Unit]\n"),
            ("graphical.target", "[Unit]\n"),
        ] {
            guest.write(&format!("/usr/lib/systemd/system/{name}"), text);
        }
        guest.symlink("/usr/lib/systemd/system/other.service", "ssh.service");
        guest.symlink("/usr/lib/systemd/system/default.target", "multi-user.target");
        guest
    }

    fn link(guest: &mut Guest, path: &str) -> Option<String> {
        let path = format!("/etc/systemd/system/{path}");
        guest.tree().read_link(path).ok().map(|target| String::from_utf8(target).unwrap())
    }

    #[test]
    fn units_are_switched_on_and_off() {
        let mut guest = guest();
        let file = Some("/usr/lib/systemd/system/ssh.service".to_owned());
        runs(&mut guest, "enable", "ssh");
        assert_eq!(link(&mut guest, "multi-user.target.wants/ssh.service"), file);
        assert_eq!(link(&mut guest, "sshd.service"), file);
        assert!(guest.warnings().is_empty(), "{:?}", guest.warnings());
        runs(&mut guest, "enable", "ssh.service");
        runs(&mut guest, "enable", "sshd");
        runs(&mut guest, "disable", "ssh");
        assert_eq!(link(&mut guest, "sshd.service"), None);
        assert!(!guest.tree().exists("/etc/systemd/system/multi-user.target.wants").unwrap());
        runs(&mut guest, "disable", "ssh");
        let warnings = guest.warnings();
        assert!(warnings[0].contains("ssh.service changes nothing: it is enabled already"));
        let last = warnings.last().unwrap();
        assert!(last.contains("ssh.service changes nothing: it is not enabled"), "{last}");
        assert!(fails(&mut guest, "enable", "none").contains("no unit none.service"));
        assert!(fails(&mut guest, "disable", "none").contains("no unit none.service"));
        runs(&mut guest, "enable", "other");
        assert_eq!(link(&mut guest, "multi-user.target.wants/ssh.service"), file);
    }

    #[test]
    fn templates_have_instances() {
        let mut guest = guest();
        let file = Some("/usr/lib/systemd/system/getty@.service".to_owned());
        runs(&mut guest, "enable", "getty@");
        runs(&mut guest, "enable", "getty@ttyS0.service");
        assert_eq!(link(&mut guest, "getty.target.wants/getty@tty1.service"), file);
        assert_eq!(link(&mut guest, "getty.target.wants/getty@ttyS0.service"), file);
        assert!(fails(&mut guest, "enable", "bare@").contains("such as bare@x.service"));
        runs(&mut guest, "disable", "getty@tty1");
        assert_eq!(link(&mut guest, "getty.target.wants/getty@tty1.service"), None);
        assert_eq!(link(&mut guest, "getty.target.wants/getty@ttyS0.service"), file);
        runs(&mut guest, "disable", "getty@");
        assert_eq!(link(&mut guest, "getty.target.wants/getty@ttyS0.service"), None);
    }

    #[test]
    fn edits_without_effect_are_said() {
        let mut guest = guest();
        runs(&mut guest, "enable", "static");
        assert!(guest.warnings()[0].contains("no [Install] section"));
        runs(&mut guest, "enable", "pair");
        assert!(guest.warnings()[1].contains("none.service"));
        assert!(link(&mut guest, "sockets.target.wants/ssh.socket").is_some());
        runs(&mut guest, "enable", "desk");
        assert!(guest.warnings()[2].contains("boots into multi-user.target"));
        runs(&mut guest, "disable", "ssh");
        assert!(guest.warnings()[3].contains("ssh.socket can still start it"));
        guest.mkdir("/usr/lib/systemd/system/sysinit.target.wants");
        guest.symlink(
            "/usr/lib/systemd/system/sysinit.target.wants/static.service",
            "../static.service",
        );
        runs(&mut guest, "disable", "static");
        assert!(guest.warnings()[4].contains("use --mask"));
    }

    #[test]
    fn masks() {
        let mut guest = guest();
        runs(&mut guest, "mask", "ssh");
        runs(&mut guest, "mask", "ssh");
        assert_eq!(link(&mut guest, "ssh.service").as_deref(), Some("/dev/null"));
        assert!(fails(&mut guest, "enable", "ssh").contains("--unmask it first"));
        runs(&mut guest, "unmask", "ssh");
        assert_eq!(link(&mut guest, "ssh.service"), None);
        runs(&mut guest, "unmask", "ssh");
        assert!(guest.warnings()[0].contains("masked already"));
        assert!(guest.warnings()[1].contains("not masked"));
        runs(&mut guest, "mask", "none");
        assert!(guest.warnings()[2].contains("no such unit"));
        guest.write("/etc/systemd/system/own.service", "[Unit]\n");
        assert!(fails(&mut guest, "mask", "own").contains("own file"));
    }

    #[test]
    fn the_target_to_boot_into() {
        let mut guest = guest();
        runs(&mut guest, "default-target", "graphical");
        let target = Some("/usr/lib/systemd/system/graphical.target".to_owned());
        assert_eq!(link(&mut guest, "default.target"), target);
        runs(&mut guest, "default-target", "multi-user.target");
        assert!(fails(&mut guest, "default-target", "none.target").contains("no unit"));
        assert!(fails(&mut guest, "default-target", "ssh.socket").contains("no target"));
        for bad in ["a/b", "../x", "a b"] {
            assert!(parse("enable", bad).is_err());
        }
    }

    #[test]
    fn openrc_and_scripts() {
        let mut guest = Guest::empty();
        guest.write("/etc/os-release", "ID=alpine\n");
        guest.write("/sbin/openrc-run", "");
        guest.write("/etc/init.d/sshd", "#!/sbin/openrc-run\n");
        guest.mkdir("/etc/runlevels");
        guest.mkdir("/etc/runlevels/default");
        runs(&mut guest, "enable", "sshd");
        assert_eq!(
            guest.tree().read_link("/etc/runlevels/default/sshd").unwrap(),
            b"/etc/init.d/sshd"
        );
        runs(&mut guest, "disable", "sshd");
        assert!(guest.tree().lstat("/etc/runlevels/default/sshd").is_err());
        assert!(fails(&mut guest, "enable", "none").contains("no service none"));
        assert!(fails(&mut guest, "enable", "x.timer").contains("services only"));
        assert!(fails(&mut guest, "mask", "sshd").contains("does not start with systemd"));
    }

    #[test]
    fn scripts_of_old() {
        let mut guest = Guest::empty();
        let header = "#!/bin/sh\n### BEGIN INIT INFO\n# Default-Start: 2 3 4 5\n# Default-Stop: 0 1 6\n### END INIT INFO\n";
        guest.write("/etc/init.d/cron", header);
        guest.write("/etc/init.d/old", "#!/bin/sh\n# chkconfig: 35 64 36\n");
        for level in ["0", "1", "2", "3", "4", "5", "6"] {
            guest.mkdir(&format!("/etc/rc{level}.d"));
        }
        runs(&mut guest, "enable", "cron");
        runs(&mut guest, "enable", "old");
        let mut links = |level: &str| -> Vec<String> {
            let entries = guest.tree().read_dir(format!("/etc/rc{level}.d")).unwrap();
            entries.into_iter().map(|entry| String::from_utf8(entry.name).unwrap()).collect()
        };
        assert_eq!(links("3"), ["S01cron", "S64old"]);
        assert_eq!(links("2"), ["K36old", "S01cron"]);
        assert_eq!(links("6"), ["K01cron", "K36old"]);
        runs(&mut guest, "disable", "cron");
        let entries = guest.tree().read_dir("/etc/rc3.d").unwrap();
        assert_eq!(entries[0].name, b"K01cron");
        assert_eq!(guest.tree().read_link("/etc/rc3.d/K01cron").unwrap(), b"../init.d/cron");
    }
}
