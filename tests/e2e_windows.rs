//! Windows images on NTFS: customized offline and through `create` and a helper VM, and read back by
//! ntfs-3g, hivex, impacket and Python's XML parser. Needs root, QEMU and what `cargo xtask test`
//! prepares. No Windows is started: there is none to be had.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use support::disk::{self, run};
use support::ganeti::{config, log_of, script};
use support::windows::{NtfsMount, TERMINAL_SERVER, make_volume, python, value};
use support::{scratch, stage};

const PASSWORD: &str = "pass w0rd'\"$&%`^|<>!";
const GENERALIZED: &str = "IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE";
const COMPLETE: &str = "IMAGE_STATE_COMPLETE";
/// The line for `net user`, caret by caret.
const ARGUMENT: &str = "^\"pass w0rd'\\^\"$^&%%`^^^|^<^>!^\"";

fn customize(arguments: &[&str]) -> Output {
    Command::new(stage().join("bin/snf-customize")).args(arguments).output().unwrap()
}

fn customized(arguments: &[&str]) -> String {
    let output = customize(arguments);
    let log = log_of(&output);
    assert!(output.status.success(), "{arguments:?}: {}\n{log}", output.status);
    assert!(!log.contains(PASSWORD));
    log
}

/// Prints the text of a setting of the pass specialize.
const SETTING: &str = r#"
import sys
import xml.etree.ElementTree as ET
NS = "{urn:schemas-microsoft-com:unattend}"
for settings in ET.parse(sys.argv[1]).getroot().findall(NS + "settings"):
    for found in settings.iter(NS + sys.argv[2]):
        print(settings.get("pass"), found.text)
"#;

fn setting(answer: &Path, name: &str) -> String {
    python(SETTING, &[&answer.to_string_lossy(), name]).trim().to_owned()
}

/// The state of a generalized image after a run with PASSWORD.
fn assert_prepared(volume: &NtfsMount, name: &str) {
    let answer = volume.path.join("Windows/Panther/unattend.xml");
    assert_eq!(setting(&answer, "ComputerName"), format!("specialize {name}"));
    assert!(setting(&answer, "Path").contains("snf-image\\run.cmd"));
    let password = volume.text("Windows/Setup/Scripts/snf-image/password.cmd");
    assert!(password.contains(&format!("net user ^\"Administrator^\" {ARGUMENT} ")), "{password}");
    let restore = volume.text("Windows/Setup/Scripts/snf-image/remote-desktop.cmd");
    assert!(restore.contains("/d 0 /f"), "{restore}");
    let complete = volume.text("Windows/Setup/Scripts/setupcomplete.CMD");
    assert!(complete.ends_with(")\r\n@echo own\r\n"), "{complete}");
    let system = volume.path.join("Windows/System32/config/SYSTEM");
    assert_eq!(value(&system, TERMINAL_SERVER, "fDenyTSConnections"), "01000000");
    assert_eq!(volume.text("Windows/System32/library399.dll"), "MZ");
}

fn check(image: &Path) {
    let log = log_of(&customize(&["check", &image.to_string_lossy()]));
    let output = customize(&["check", &image.to_string_lossy()]);
    assert!(output.status.success(), "{log}");
}

#[test]
fn a_generalized_image_offline() {
    let directory = scratch();
    let image = directory.path().join("windows.ntfs");
    make_volume(&image, 200, GENERALIZED);
    let shown = image.to_string_lossy().into_owned();
    let password = directory.path().join("password");
    fs::write(&password, PASSWORD).unwrap();
    let text = directory.path().join("readme.txt");
    fs::write(&text, "for you\r\n").unwrap();
    let found = customized(&["inspect", &shown]);
    for part in
        ["Windows 8.1 Enterprise Evaluation (amd64)", "generalized  yes", "gold_administrator"]
    {
        assert!(found.contains(part), "{part}\n{found}");
    }
    let who = format!("Administrator:file:{}", password.display());
    let what = format!("C:\\users\\public\\desktop\\Read Me.txt:file:{}", text.display());
    let arguments = [
        "apply",
        &shown,
        "--hostname",
        "vm-1.example.test",
        "--user-password",
        &who,
        "--write",
        &what,
        "--time-zone",
        "W. Europe Standard Time",
    ];
    let before = disk::hash_range(&image, 0, 200 << 20);
    customized(&[&arguments[..], &["--dry-run"]].concat());
    assert_eq!(disk::hash_range(&image, 0, 200 << 20), before);
    let log = customized(&arguments);
    assert!(log.contains("/Windows/System32/config/SYSTEM"), "{log}");
    check(&image);
    run("ntfsfix", &["-n", &shown]);
    {
        let volume = NtfsMount::at(&image, 0, 200 << 20, true);
        assert_prepared(&volume, "vm-1");
        assert_eq!(volume.text("Users/Public/Desktop/Read Me.txt"), "for you\r\n");
        let answer = volume.path.join("Windows/Panther/unattend.xml");
        assert_eq!(setting(&answer, "TimeZone"), "specialize W. Europe Standard Time");
    }
    // Once more: nothing is left to do.
    assert!(customized(&arguments).contains("nothing changed"));
    let output = customize(&["apply", &shown, "--hostname", "a-name-that-is-too-long"]);
    let log = log_of(&output);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert!(log.contains("has 23 characters, and Windows takes no more than 15"), "{log}");
}

/// Prints NAME:HASH of each user, and the hash of the password.
const DUMP: &str = r#"
import sys
from impacket.examples.secretsdump import LocalOperations, SAMHashes
from impacket.ntlm import compute_nthash
config, password = sys.argv[1:]
SAMHashes(config + "/SAM", LocalOperations(config + "/SYSTEM").getBootKey(), isRemote=False).dump()
print("=" + compute_nthash(password).hex())
"#;

#[test]
fn an_image_in_use_gets_its_password_in_sam() {
    let directory = scratch();
    let image = directory.path().join("windows.ntfs");
    make_volume(&image, 200, COMPLETE);
    let shown = image.to_string_lossy().into_owned();
    let password = directory.path().join("password");
    fs::write(&password, PASSWORD).unwrap();
    let who = format!("GOLD_administrator:file:{}", password.display());
    let arguments = ["apply", &shown, "--user-password", &who];
    let before = disk::hash_range(&image, 0, 200 << 20);
    let output = customize(&arguments);
    let log = log_of(&output);
    assert!(!output.status.success() && log.contains("not generalized"), "{log}");
    assert_eq!(disk::hash_range(&image, 0, 200 << 20), before);
    customized(&[&arguments[..], &["--offline-password"]].concat());
    check(&image);
    let volume = NtfsMount::at(&image, 0, 200 << 20, true);
    let config = volume.path.join("Windows/System32/config");
    let dump = python(DUMP, &[&config.to_string_lossy(), PASSWORD]);
    let hash = dump.lines().find_map(|line| line.strip_prefix('=')).unwrap();
    let user = dump.lines().find(|line| line.starts_with("gold_administrator:")).unwrap();
    assert_eq!(user.split(':').nth(3), Some(hash));
    assert_eq!(value(&config.join("SYSTEM"), TERMINAL_SERVER, "fDenyTSConnections"), "00000000");
}

#[test]
fn ntfsdump_through_create() {
    let directory = scratch();
    let image = directory.path().join("windows.ntfsdump");
    make_volume(&image, 200, GENERALIZED);
    let target = directory.path().join("disk0.raw");
    fs::File::create(&target).unwrap().set_len(512 << 20).unwrap();
    let output = script(
        "create",
        &config(directory.path()),
        &target,
        &[
            ("OSP_IMG_ID", &format!("file://{}", image.display())),
            ("OSP_IMG_FORMAT", "ntfsdump"),
            ("OSP_IMG_PASSWD", PASSWORD),
            ("OSP_OS_PRODUCT_KEY", "AAAAA-BBBBB-CCCCC-DDDDD-EEEEE"),
            ("OSP_IMG_PROPERTIES", r#"{"OFFLINE_NTFSRESIZE_NOCHECK": "yes"}"#),
        ],
    );
    let log = log_of(&output);
    assert!(output.status.success(), "create: {}\n{log}", output.status);
    assert!(!log.contains(PASSWORD) && !log.contains("AAAAA-"), "{log}");
    check(&target);
    let (start, size) = disk::partition(&target, 1);
    assert_eq!((start, size), (1 << 20, 511 << 20));
    let volume = NtfsMount::at(&target, start, size, true);
    assert_prepared(&volume, "vm1");
    let answer = volume.path.join("Windows/Panther/unattend.xml");
    assert_eq!(setting(&answer, "ProductKey"), "specialize AAAAA-BBBBB-CCCCC-DDDDD-EEEEE");
    assert_eq!(setting(&answer, "TimeZone"), "specialize GMT Standard Time");
    let blocks = run("stat", &["-f", "-c", "%b %S", &volume.path.to_string_lossy()]);
    let numbers: Vec<u64> = blocks.split_whitespace().map(|n| n.parse().unwrap()).collect();
    assert!(numbers[0] * numbers[1] > 500 << 20, "{blocks}");
}

#[test]
fn a_gpt_disk_through_create() {
    let directory = scratch();
    let volume = directory.path().join("windows.ntfs");
    make_volume(&volume, 200, GENERALIZED);
    let image = directory.path().join("windows.raw");
    fs::File::create(&image).unwrap().set_len(320 << 20).unwrap();
    let shown = image.to_string_lossy().into_owned();
    run(
        "sgdisk",
        &[
            "-n",
            "1:2048:+64M",
            "-t",
            "1:ef00",
            "-n",
            "2:0:+16M",
            "-t",
            "2:0c01",
            "-n",
            "3:0:+200M",
            "-t",
            "3:0700",
            "-c",
            "3:Basic data partition",
            &shown,
        ],
    );
    let (esp, esp_size) = disk::partition(&image, 1);
    let file = directory.path().join("esp");
    fs::File::create(&file).unwrap().set_len(esp_size).unwrap();
    run("mkfs.vfat", &["-F", "32", &file.to_string_lossy()]);
    let place = |source: &Path, start: u64| {
        let seek = format!("seek={}", start >> 20);
        let (from, to) = (format!("if={}", source.display()), format!("of={shown}"));
        run("dd", &[&from, &to, "bs=1M", &seek, "conv=notrunc,sparse", "status=none"]);
    };
    place(&file, esp);
    place(&volume, disk::partition(&image, 3).0);
    let answer = directory.path().join("answer.xml");
    fs::write(
        &answer,
        "<unattend xmlns=\"urn:schemas-microsoft-com:unattend\"><!-- given -->\
         <settings pass=\"oobeSystem\"/></unattend>",
    )
    .unwrap();
    let target = directory.path().join("disk0.raw");
    fs::File::create(&target).unwrap().set_len(512 << 20).unwrap();
    let output = script(
        "create",
        &config(directory.path()),
        &target,
        &[
            ("OSP_IMG_ID", &format!("file://{}", image.display())),
            ("OSP_IMG_FORMAT", "diskdump"),
            ("OSP_IMG_PASSWD", PASSWORD),
            ("OSP_OS_ANSWER_FILE", &format!("file://{}", answer.display())),
            ("OSP_IMG_PROPERTIES", r#"{"OSFAMILY": "windows"}"#),
            (
                "OSP_IMG_PERSONALITY",
                r#"[{"path": "C:\\Users\\new\\x.txt", "contents": "eA==", "owner": "root"}]"#,
            ),
        ],
    );
    let log = log_of(&output);
    assert!(output.status.success(), "create: {}\n{log}", output.status);
    run("sgdisk", &["-v", &target.to_string_lossy()]);
    let before = disk::hash_range(&image, esp, esp_size);
    assert_eq!(disk::hash_range(&target, esp, esp_size), before, "the EFI partition is as it was");
    check(&target);
    let (start, size) = disk::partition(&target, 3);
    assert!(start + size > 510 << 20, "the partition has grown");
    let volume = NtfsMount::at(&target, start, size, true);
    assert_prepared(&volume, "vm1");
    assert!(volume.text("Windows/Panther/unattend.xml").contains("<!-- given -->"));
    assert!(volume.text("Windows/Setup/Scripts/snf-image/extend.cmd").contains("diskpart"));
    assert_eq!(volume.text("Users/new/x.txt"), "x");
}
