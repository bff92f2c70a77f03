//! The parts of a Linux guest, each with its evidence: a path, and the text there.

use serde::Serialize;
use snf_fs::error::display_name;
use snf_fs::{Result, Tree};

use crate::guest::distro::{self, Distro, Family};
use crate::guest::init::Init;
use crate::guest::sshd::SshdConfig;
use crate::guest::{Guest, glob, selinux, services};
use crate::task::network_stack;

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fact {
    /// The answer, in a word or a few.
    pub value: String,
    /// The path at which the guest says so.
    pub evidence: String,
}

impl Fact {
    fn new(value: impl Into<String>, evidence: impl Into<String>) -> Option<Self> {
        Some(Self { value: value.into(), evidence: evidence.into() })
    }
}

/// The parts of a Linux guest; `None` where it does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// The family of its distribution: `debian`, `redhat`, ...
    pub family: Option<Fact>,
    /// `x86_64`, `aarch64`, ...
    pub architecture: Option<Fact>,
    /// The program that starts the services: `systemd`, `openrc`, `sysv`, `busybox`, ...
    pub init: Option<Fact>,
    /// The program that configures the network: `netplan`, `networkd`, ...
    pub network: Option<Fact>,
    /// `enforcing`, `permissive`, `off`.
    pub selinux: Option<Fact>,
    /// `on`, `off`, `not installed`, or what is wrong with its configuration.
    pub sshd: Option<Fact>,
    /// `dpkg`, `rpm`, `apk`, `pacman`, ...
    pub package_manager: Option<Fact>,
    /// How it boots: `uefi`, `bios`, `uefi and bios`, with the boot loader.
    pub boot: Option<Fact>,
}

impl Facts {
    /// Asks the guest; what cannot be read becomes a problem and the rest stands.
    pub(super) fn of(guest: &Guest, problems: &mut Vec<snf_fs::Error>) -> Self {
        let mut keep = |result: Result<Option<Fact>>| {
            result.unwrap_or_else(|error| {
                problems.push(error);
                None
            })
        };
        Self {
            family: keep(family(guest)),
            architecture: keep(architecture(&guest.tree)),
            init: keep(init(guest)),
            network: keep(network(guest)),
            selinux: keep(selinux_state(&guest.tree)),
            sshd: keep(sshd(&guest.tree)),
            package_manager: keep(package_manager(&guest.tree)),
            boot: keep(boot(guest)),
        }
    }

    /// The answers by their names, in the order of the fields.
    pub fn named(&self) -> [(&'static str, Option<&Fact>); 8] {
        [
            ("family", self.family.as_ref()),
            ("architecture", self.architecture.as_ref()),
            ("init", self.init.as_ref()),
            ("network", self.network.as_ref()),
            ("SELinux", self.selinux.as_ref()),
            ("sshd", self.sshd.as_ref()),
            ("packages", self.package_manager.as_ref()),
            ("boot", self.boot.as_ref()),
        ]
    }
}

/// The first of these paths that is there.
fn first<'a>(tree: &Tree, paths: &[&'a str]) -> Result<Option<&'a str>> {
    for path in paths {
        if tree.exists(path)? {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn family(guest: &Guest) -> Result<Option<Fact>> {
    let Some(path) = Distro::source(&guest.tree)? else { return Ok(None) };
    let name = match guest.distro.family {
        Family::Other => return Ok(None),
        family => format!("{family:?}").to_lowercase(),
    };
    Ok(Fact::new(name, path))
}

/// The machine of the first program that is there, by its ELF header.
fn architecture(tree: &Tree) -> Result<Option<Fact>> {
    const PROGRAMS: [&str; 6] =
        ["/bin/sh", "/usr/bin/env", "/sbin/init", "/bin/bash", "/bin/busybox", "/usr/bin/sh"];
    for path in PROGRAMS {
        // A link that leads nowhere in the image, or something that is no file, says nothing.
        if !tree.is_file(path).unwrap_or(false) {
            continue;
        }
        let header = tree.read_range(path, 0, 20)?;
        if header.len() < 20 || !header.starts_with(b"\x7fELF") {
            continue;
        }
        let number = [header[18], header[19]];
        let little = header[5] == 1;
        let number = if little { u16::from_le_bytes(number) } else { u16::from_be_bytes(number) };
        let wide = header[4] == 2;
        let name = match (number, wide, little) {
            (3, ..) => "i386",
            (62, true, _) => "x86_64",
            (62, false, _) => "x32",
            (40, ..) => "arm",
            (183, ..) => "aarch64",
            (243, true, _) => "riscv64",
            (243, false, _) => "riscv32",
            (21, _, true) => "ppc64le",
            (21, _, false) => "ppc64",
            (20, ..) => "ppc",
            (22, ..) => "s390x",
            (8, true, true) => "mips64el",
            (8, false, true) => "mipsel",
            (8, true, false) => "mips64",
            (8, false, false) => "mips",
            (258, ..) => "loongarch64",
            (2 | 18 | 43, ..) => "sparc",
            _ => "unknown",
        };
        return Ok(Fact::new(name, format!("the ELF header of {path} (machine {number})")));
    }
    Ok(None)
}

fn init(guest: &Guest) -> Result<Option<Fact>> {
    let tree = &guest.tree;
    let leads = tree.resolve("/sbin/init").ok().map(|found| display_name(&found.path));
    let evidence = match &leads {
        Some(path) if path != "/sbin/init" => format!("/sbin/init leads to {path}"),
        _ => "/sbin/init".to_owned(),
    };
    let found = Init::of(guest)?;
    let by_path = |part: &str| leads.as_ref().is_some_and(|path| path.ends_with(part));
    Ok(match found {
        Init::Systemd => {
            let paths = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/bin/systemd"];
            let own = first(tree, &paths)?.unwrap_or_default();
            Fact::new("systemd", if by_path("/systemd") { evidence } else { own.to_owned() })
        }
        Init::OpenRc => {
            let paths = ["/sbin/openrc-run", "/usr/sbin/openrc-run", "/usr/bin/openrc-run"];
            Fact::new("openrc", first(tree, &paths)?.unwrap_or_default())
        }
        Init::Sysv => {
            Fact::new("sysv", first(tree, &["/etc/rc2.d", "/etc/rc.d/rc3.d"])?.unwrap_or_default())
        }
        Init::Unknown if by_path("/busybox") => Fact::new("busybox", evidence),
        Init::Unknown => match first(
            tree,
            &[
                "/sbin/procd",
                "/etc/runit/1",
                "/usr/bin/runit",
                "/etc/rc.d/rc.S",
                "/sbin/dinit",
                "/bin/s6-svscan",
            ],
        )? {
            Some(path @ "/sbin/procd") => Fact::new("procd", path),
            Some(path @ "/etc/rc.d/rc.S") => Fact::new("bsd-style", path),
            Some(path @ "/sbin/dinit") => Fact::new("dinit", path),
            Some(path @ "/bin/s6-svscan") => Fact::new("s6", path),
            Some(path) => Fact::new("runit", path),
            None => None,
        },
    })
}

fn network(guest: &Guest) -> Result<Option<Fact>> {
    let found = network_stack(guest)?;
    Ok(found.and_then(|(name, evidence)| Fact::new(name, evidence)))
}

fn selinux_state(tree: &Tree) -> Result<Option<Fact>> {
    const CONFIG: &str = "/etc/selinux/config";
    let Some(text) = tree.read_optional(CONFIG, 1 << 20)? else {
        return Ok(Fact::new("off", format!("there is no {CONFIG}")));
    };
    let text = String::from_utf8_lossy(&text);
    let said = distro::value(&text, "SELINUX").unwrap_or_default();
    let evidence = format!("SELINUX={said} in {CONFIG}");
    Ok(match selinux::state(tree)? {
        selinux::State::Off => Fact::new("off", evidence),
        selinux::State::On(policy) => {
            Fact::new(format!("{} ({policy})", said.to_ascii_lowercase()), evidence)
        }
    })
}

fn sshd(tree: &Tree) -> Result<Option<Fact>> {
    const PROGRAMS: [&str; 5] = [
        "/usr/sbin/sshd",
        "/usr/bin/sshd",
        "/usr/lib/ssh/sshd",
        "/usr/sbin/dropbear",
        "/usr/bin/dropbear",
    ];
    let Some(program) = first(tree, &PROGRAMS)? else {
        return Ok(Fact::new("not installed", "no sshd and no dropbear"));
    };
    let config = SshdConfig::read(tree)?;
    if let Some(problem) = config.broken.filter(|_| !program.ends_with("dropbear")) {
        return Ok(Fact::new("does not start", problem));
    }
    for service in ["ssh", "sshd", "dropbear"] {
        if services::is_enabled(tree, service)? {
            return Ok(Fact::new("on", format!("{program}, service {service}")));
        }
    }
    for socket in ["sockets.target.wants/ssh.socket", "sockets.target.wants/sshd.socket"] {
        let path = format!("/etc/systemd/system/{socket}");
        if tree.lstat(&path).is_ok() {
            return Ok(Fact::new("on", format!("{program}, {path}")));
        }
    }
    Ok(Fact::new("off", format!("{program}, and no service that is switched on")))
}

fn package_manager(tree: &Tree) -> Result<Option<Fact>> {
    const DATABASES: [(&str, &[&str]); 9] = [
        ("dpkg", &["/var/lib/dpkg/status", "/var/lib/dpkg/status.d"]),
        ("rpm", &["/usr/lib/sysimage/rpm", "/var/lib/rpm"]),
        ("apk", &["/lib/apk/db/installed", "/usr/lib/apk/db/installed"]),
        ("pacman", &["/var/lib/pacman/local"]),
        ("portage", &["/var/db/pkg"]),
        ("pkgtools", &["/var/lib/pkgtools/packages", "/var/log/packages"]),
        ("xbps", &["/var/db/xbps"]),
        ("opkg", &["/usr/lib/opkg/status", "/var/lib/opkg/status"]),
        ("nix", &["/nix/var/nix/db"]),
    ];
    for (name, paths) in DATABASES {
        if let Some(path) = first(tree, paths)? {
            return Ok(Fact::new(name, path));
        }
    }
    Ok(None)
}

fn boot(guest: &Guest) -> Result<Option<Fact>> {
    let tree = &guest.tree;
    let exists = |path: &str| tree.exists(path).unwrap_or(false);
    let any = |patterns: &[&str]| -> Result<Option<String>> {
        for pattern in patterns {
            if let Ok(found) = glob::expand_links(tree, pattern.as_bytes())
                && let Some(path) = found.first()
            {
                return Ok(Some(display_name(path)));
            }
        }
        Ok(None)
    };
    let efi = any(&["/boot/efi/EFI/*", "/efi/EFI/*", "/boot/EFI/*"])?;
    let esp = guest.disk.volumes.iter().find(|volume| volume.partition_type.contains("EFI"));
    let bios = any(&[
        "/boot/grub/i386-pc",
        "/boot/grub2/i386-pc",
        "/boot/syslinux/ldlinux.sys",
        "/boot/extlinux*",
        "/boot/ldlinux.sys",
        "/etc/lilo.conf",
    ])?;
    let loader = if exists("/boot/loader/entries")
        || exists("/efi/loader/loader.conf")
        || exists("/boot/efi/loader/loader.conf")
    {
        Some("boot loader specification")
    } else if exists("/boot/grub/grub.cfg") || exists("/boot/grub2/grub.cfg") {
        Some("grub")
    } else if exists("/boot/grub/menu.lst") || exists("/boot/grub/grub.conf") {
        Some("grub legacy")
    } else if exists("/boot/extlinux/extlinux.conf") || exists("/boot/extlinux.conf") {
        Some("extlinux")
    } else if exists("/etc/lilo.conf") {
        Some("lilo")
    } else {
        None
    };
    let (uefi, uefi_evidence) = match (&efi, esp) {
        (Some(path), _) => (true, path.clone()),
        (None, Some(volume)) => (true, format!("{} is an EFI system partition", volume.place())),
        (None, None) => (false, String::new()),
    };
    let method = match (uefi, bios.is_some()) {
        (true, true) => "uefi and bios",
        (true, false) => "uefi",
        (false, true) => "bios",
        // A loader without its place, or a kernel that the hypervisor loads.
        (false, false) if loader.is_some() => "unknown",
        (false, false) => return Ok(None),
    };
    let evidence: Vec<String> =
        [Some(uefi_evidence).filter(|text| !text.is_empty()), bios].into_iter().flatten().collect();
    let evidence = if evidence.is_empty() { "/boot".to_owned() } else { evidence.join(", ") };
    let value = match loader {
        Some(loader) => format!("{method} ({loader})"),
        None => method.to_owned(),
    };
    Ok(Fact::new(value, evidence))
}
