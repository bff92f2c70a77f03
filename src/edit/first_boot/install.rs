//! Scripts in their directory, and the service of the guest's init that runs them.

use snf_fs::Attributes;
use snf_fs::error::display_name;

use super::super::place::{PARENTS, make_parents};
use super::super::sysv;
use super::Phase;
use crate::craft::secret::Secret;
use crate::guest::Guest;
use crate::guest::init::Init;
use crate::task::{Session, TaskError};

/// The directory of the scripts, and in it the one of each phase.
const BASE: &str = "/var/lib/snf-image/firstboot";
const RUN: &str = include_str!("run.sh");
const UNITS: &str = "/etc/systemd/system";
const SCRIPTS_MAX: u32 = 9999;

impl Phase {
    /// The name of its directory.
    fn dir(self) -> &'static str {
        match self {
            Self::Early => "early",
            Self::Late => "late",
        }
    }

    /// The name of its service.
    fn service(self) -> &'static str {
        match self {
            Self::Early => "snf-image-firstboot-early",
            Self::Late => "snf-image-firstboot",
        }
    }
}

/// Says what keeps a script from running.
///
/// # Errors
/// When it cannot run at all.
pub(super) fn check(
    guest: &Guest,
    session: &mut Session<'_>,
    name: &str,
    content: &[u8],
) -> Result<(), TaskError> {
    let line = content.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let Some(line) = line.strip_prefix(b"#!") else {
        // A program has no such line.
        if !content.starts_with(b"\x7fELF") {
            session.warn(format!(
                "the script {name} does not begin with #! and its interpreter (#!/bin/sh), so that it \
                 is the guest's /bin/sh that reads it, if it is a script at all"
            ));
        }
        return Ok(());
    };
    if line.ends_with(b"\r") {
        return Err(TaskError::request(format!(
            "the script {name} has the line ends of Windows, so its interpreter would not be found; \
             convert it first (dos2unix)"
        )));
    }
    let program = line.trim_ascii_start().split(|byte| byte.is_ascii_whitespace()).next();
    let program = program.unwrap_or_default();
    if program.starts_with(b"/") && !guest.tree.exists(program)? {
        session.warn(format!(
            "the script {name} is for {}, which is not in the guest",
            display_name(program)
        ));
    }
    Ok(())
}

/// Puts a script after those that are there, and sees to it that they run.
///
/// # Errors
/// When the guest's init is not known, or has no such phase.
pub(super) fn install(
    guest: &mut Guest,
    phase: Phase,
    name: &str,
    content: &Secret,
) -> Result<(), TaskError> {
    start(guest, phase)?;
    let dir = format!("{BASE}/{}", phase.dir());
    guest.tree.mkdir_all("/var/lib/snf-image", PARENTS)?;
    guest.tree.mkdir_all(&dir, Attributes { mode: 0o700, uid: 0, gid: 0 })?;
    put(guest, &format!("{BASE}/run"), RUN.as_bytes(), 0o700)?;
    let number = next_number(guest, &dir)?;
    put(guest, &format!("{dir}/{number:04}-{}", plain(name)), content.expose(), 0o700)
}

/// The number of the next script of a directory.
fn next_number(guest: &Guest, dir: &str) -> Result<u32, TaskError> {
    let numbers =
        guest.tree.read_dir_optional(dir)?.into_iter().filter_map(|entry| {
            std::str::from_utf8(entry.name.get(..4)?).ok()?.parse::<u32>().ok()
        });
    match numbers.max().unwrap_or(0) + 1 {
        number if number > SCRIPTS_MAX => Err(TaskError::request(format!(
            "the guest has {SCRIPTS_MAX} scripts for its first boot already"
        ))),
        number => Ok(number),
    }
}

/// A name that needs no quotes.
fn plain(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    name.chars().take(60).map(plain).collect()
}

/// Has the guest's init start the runner.
fn start(guest: &mut Guest, phase: Phase) -> Result<(), TaskError> {
    match Init::of(guest)? {
        Init::Systemd => systemd(guest, phase),
        Init::OpenRc => openrc(guest, phase),
        Init::Sysv if phase == Phase::Early => Err(TaskError::request(
            "this guest starts with SysV init, whose network has no fixed place; scripts run after it \
             only (--firstboot, --firstboot-command)",
        )),
        Init::Sysv => {
            put(guest, "/etc/init.d/snf-image-firstboot", sysv_script(phase).as_bytes(), 0o755)?;
            sysv::enable(phase.service(), &mut guest.tree)
        }
        Init::Unknown => busybox(guest, phase),
    }
}

fn systemd(guest: &mut Guest, phase: Phase) -> Result<(), TaskError> {
    let order = match phase {
        // A unit before the network cannot wait for all of sysinit.target: in it cloud-init waits
        // for the network.
        Phase::Early => {
            "DefaultDependencies=no\n\
             Wants=network-pre.target\n\
             After=local-fs.target\n\
             Before=network-pre.target shutdown.target\n\
             Conflicts=shutdown.target\n"
        }
        Phase::Late => "Wants=network-online.target\nAfter=network-online.target\n",
    };
    let (dir, service) = (phase.dir(), phase.service());
    let unit = format!(
        "# Written by snf-image.\n\
         [Unit]\n\
         Description=Scripts for the first boot ({dir})\n\
         ConditionDirectoryNotEmpty={BASE}/{dir}\n\
         RequiresMountsFor={BASE} /var/log\n\
         {order}\n\
         [Service]\n\
         Type=oneshot\n\
         ExecStart=/bin/sh {BASE}/run {dir}\n\
         TimeoutStartSec=infinity\n\n\
         [Install]\n\
         WantedBy=multi-user.target\n"
    );
    put(guest, &format!("{UNITS}/{service}.service"), unit.as_bytes(), 0o644)?;
    let wants = format!("{UNITS}/multi-user.target.wants");
    guest.tree.mkdir_all(&wants, PARENTS)?;
    link(guest, &format!("{wants}/{service}.service"), &format!("../{service}.service"))
}

fn openrc(guest: &mut Guest, phase: Phase) -> Result<(), TaskError> {
    let (dir, service) = (phase.dir(), phase.service());
    let (level, order) = match phase {
        Phase::Early => ("boot", "need localmount\n\tbefore net"),
        Phase::Late => {
            ("default", "need localmount\n\tuse net dns\n\tafter net firewall cloud-init")
        }
    };
    let text = format!(
        "#!/sbin/openrc-run\n# Written by snf-image.\n\
         description=\"Scripts for the first boot ({dir})\"\n\n\
         depend() {{\n\t{order}\n}}\n\n\
         start() {{\n\tebegin \"Running the scripts for the first boot\"\n\
         \t/bin/sh {BASE}/run {dir}\n\teend $?\n}}\n"
    );
    put(guest, &format!("/etc/init.d/{service}"), text.as_bytes(), 0o755)?;
    guest.tree.mkdir_all(format!("/etc/runlevels/{level}"), PARENTS)?;
    link(guest, &format!("/etc/runlevels/{level}/{service}"), &format!("/etc/init.d/{service}"))
}

fn sysv_script(phase: Phase) -> String {
    let (dir, service) = (phase.dir(), phase.service());
    format!(
        "#!/bin/sh\n# Written by snf-image: scripts for the first boot.\n\
         # chkconfig: 2345 99 01\n\
         ### BEGIN INIT INFO\n\
         # Provides:          {service}\n\
         # Required-Start:    $remote_fs $network\n\
         # Required-Stop:\n\
         # Default-Start:     2 3 4 5\n\
         # Default-Stop:      0 1 6\n\
         # Short-Description: Scripts for the first boot\n\
         ### END INIT INFO\n\
         case \"$1\" in\n\
         start) /bin/sh {BASE}/run {dir} ;;\n\
         esac\n"
    )
}

/// BusyBox's init with a directory of scripts, as Buildroot sets it up.
fn busybox(guest: &mut Guest, phase: Phase) -> Result<(), TaskError> {
    let inittab = guest.config("/etc/inittab")?.unwrap_or_default();
    let rcs = guest.config("/etc/init.d/rcS")?.unwrap_or_default();
    let inittab = String::from_utf8_lossy(&inittab);
    let sysinit = inittab
        .lines()
        .any(|line| !line.starts_with('#') && line.contains("sysinit:/etc/init.d/rcS"));
    if !sysinit || !String::from_utf8_lossy(&rcs).contains("/etc/init.d/S??*") {
        return Err(TaskError::request(
            "the guest has neither systemd, OpenRC, SysV init nor BusyBox's init with /etc/init.d/S??*, so \
             it is not known how its scripts start",
        ));
    }
    // S40network lies between them.
    let number = if phase == Phase::Early { 39 } else { 99 };
    let path = format!("/etc/init.d/S{number}{}", phase.service());
    put(guest, &path, sysv_script(phase).as_bytes(), 0o755)
}

fn link(guest: &mut Guest, path: &str, target: &str) -> Result<(), TaskError> {
    match guest.tree.unlink(path) {
        Err(error) if !error.is_not_found() => return Err(error.into()),
        _ => {}
    }
    let attributes = Attributes { mode: 0o777, uid: 0, gid: 0 };
    Ok(guest.tree.symlink(path, target.as_bytes(), attributes)?)
}

/// Writes a file: root's, with exactly this mode.
fn put(guest: &mut Guest, path: &str, content: &[u8], mode: u16) -> Result<(), TaskError> {
    make_parents(&mut guest.tree, path.as_bytes())?;
    guest.tree.write(path, content, Attributes { mode, uid: 0, gid: 0 })?;
    guest.tree.chown(path, 0, 0)?;
    Ok(guest.tree.chmod(path, mode)?)
}
