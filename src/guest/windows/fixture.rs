//! Small hives of a Windows, for tests.

use super::sam::fixture as sam_fixture;
use crate::guest::windows::registry::{FileTime, Hive, Key};

const NOW: FileTime = FileTime(130_000_000_000_000_000);
/// The key in the class names of `fixture::system`.
pub(crate) const CLASSES: [(&str, &str); 4] =
    [("JD", "00010203"), ("Skew1", "04050607"), ("GBG", "08090a0b"), ("Data", "0c0d0e0f")];

fn hive(name: &str) -> Hive {
    Hive::create(name, 5, &[1; 20], NOW).unwrap()
}

fn key(hive: &mut Hive, path: &str) -> Key {
    hive.create_path(hive.root(), path).unwrap()
}

/// SYSTEM, with remote desktop allowed.
pub(crate) fn system() -> Vec<u8> {
    let mut hive = hive("SYSTEM");
    let select = key(&mut hive, "Select");
    hive.set_number(select, "Current", 1).unwrap();
    hive.set_number(select, "Default", 1).unwrap();
    for (name, class) in CLASSES {
        let part = key(&mut hive, &format!("ControlSet001\\Control\\Lsa\\{name}"));
        hive.set_class_name(part, class).unwrap();
    }
    let server = key(&mut hive, "ControlSet001\\Control\\Terminal Server");
    hive.set_number(server, "fDenyTSConnections", 0).unwrap();
    let name = key(&mut hive, "ControlSet001\\Control\\ComputerName\\ComputerName");
    hive.set_text(name, "ComputerName", "WIN-IMAGE").unwrap();
    key(&mut hive, "Setup");
    hive.finish()
}

/// SYSTEM of a Windows XP that comes up in its mini-setup.
pub(crate) fn system_with_mini_setup() -> Vec<u8> {
    let mut hive = Hive::open(system(), NOW).unwrap();
    let setup = key(&mut hive, "Setup");
    hive.set_number(setup, "SystemSetupInProgress", 1).unwrap();
    hive.set_text(setup, "CmdLine", "setup -newsetup -mini").unwrap();
    hive.finish()
}

/// SOFTWARE of a Windows Server 2022, or of an XP where `legacy` says so; `state` is its
/// `ImageState`.
pub(crate) fn software(legacy: bool, state: Option<&str>) -> Vec<u8> {
    let mut hive = hive("SOFTWARE");
    let current = key(&mut hive, "Microsoft\\Windows NT\\CurrentVersion");
    if legacy {
        hive.set_text(current, "ProductName", "Microsoft Windows XP").unwrap();
        hive.set_text(current, "CurrentVersion", "5.1").unwrap();
        hive.set_text(current, "CurrentBuildNumber", "2600").unwrap();
    } else {
        hive.set_text(current, "ProductName", "Windows Server 2022 Standard").unwrap();
        hive.set_text(current, "EditionID", "ServerStandard").unwrap();
        hive.set_text(current, "CurrentVersion", "6.3").unwrap();
        hive.set_number(current, "CurrentMajorVersionNumber", 10).unwrap();
        hive.set_number(current, "CurrentMinorVersionNumber", 0).unwrap();
        hive.set_text(current, "CurrentBuildNumber", "20348").unwrap();
    }
    for (zone, index) in [("GMT Standard Time", 85), ("GTB Standard Time", 130)] {
        let zone =
            key(&mut hive, &format!("Microsoft\\Windows NT\\CurrentVersion\\Time Zones\\{zone}"));
        hive.set_number(zone, "Index", index).unwrap();
    }
    if let Some(state) = state {
        let setup = key(&mut hive, "Microsoft\\Windows\\CurrentVersion\\Setup\\State");
        hive.set_text(setup, "ImageState", state).unwrap();
    }
    hive.finish()
}

/// SAM with a disabled Administrator, a Guest and a user with a name beyond ASCII; none has a
/// password.
pub(crate) fn sam(aes: bool) -> Vec<u8> {
    let mut hive = hive("SAM");
    let domain = key(&mut hive, "SAM\\Domains\\Account");
    hive.set_value(domain, "F", 3, &sam_fixture::domain_f(aes)).unwrap();
    for (name, rid) in [("Administrator", 500), ("Guest", 501), ("Ännchen", 1001)] {
        let user = key(&mut hive, &format!("SAM\\Domains\\Account\\Users\\{rid:08X}"));
        let mut f = vec![0; 80];
        f[0x38] = if rid < 1000 { 0x11 } else { 0x10 };
        hive.set_value(user, "F", 3, &f).unwrap();
        hive.set_value(user, "V", 3, &sam_fixture::user_v(name, aes)).unwrap();
        let name = key(&mut hive, &format!("SAM\\Domains\\Account\\Users\\Names\\{name}"));
        hive.set_value(name, "", rid, &[]).unwrap();
    }
    hive.finish()
}
