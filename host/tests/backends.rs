//! External back-ends: programs that know further places for images and disks.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::common::lab::{Lab, StandIn};
use snf_image_host::backend::{Kind, survey};
use snf_image_host::node::cancel::Cancel;
use snf_image_host::node::log;

/// A program in `src` or `dst`.
fn program(lab: &Lab, kind: Kind, name: &str, text: &str) -> PathBuf {
    let dir = lab.config.backends_dir.join(kind.folder());
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
    path
}

/// A source of `store://NAME`: files in the lab's images; `stream` is what gives the image.
fn store(lab: &Lab, name: &str, size: &str, stream: &str) {
    let text = format!(
        "images={}\ncase $1 in\n-p) case $2 in store://*) echo yes;; *) exit 1;; esac;;\n\
         -s) file=$images/${{2#store://}}; {size};;\n*) file=$images/${{1#store://}}; {stream};;\nesac",
        lab.config.image_dir.display()
    );
    program(lab, Kind::Source, name, &text);
}

const SIZE: &str = "stat -L -c %s \"$file\"";
const STREAM: &str = "cat \"$file\"";

fn laid(lab: &Lab) -> bool {
    let bytes = lab.bytes();
    &bytes[..3] == b"abc" && &bytes[1 << 20..(1 << 20) + 5] == b"tail!" && !bytes.contains(&0xaa)
}

#[test]
fn a_source_streams() {
    for (size, stream) in [
        (SIZE, STREAM),
        // The size may be unknown, and answers may come in pieces.
        ("", "head -c 700000 $file; sleep 0.2; tail -c +700001 $file; echo words >&2"),
    ] {
        let mut lab = Lab::new();
        store(&lab, "store", if size.is_empty() { ":" } else { size }, stream);
        lab.set("OSP_IMG_ID", "store://small");
        lab.run(&mut StandIn::new()).unwrap();
        assert!(laid(&lab));
    }
    // The name tells the format of the stream, as everywhere.
    let mut lab = Lab::new();
    store(&lab, "store", SIZE, STREAM);
    let images = lab.config.image_dir.display().to_string();
    let made = std::process::Command::new("sh")
        .args([
            "-c",
            &format!("cd {images} && gzip -k small && qemu-img convert -O qcow2 small s.qcow2"),
        ])
        .status();
    assert!(made.unwrap().success());
    lab.set("OSP_IMG_ID", "store://small.gz");
    lab.run(&mut StandIn::new()).unwrap();
    assert!(laid(&lab));
    lab.set("OSP_IMG_ID", "store://s.qcow2");
    lab.run(&mut StandIn::new()).unwrap();
    assert!(laid(&lab));
}

#[test]
fn what_a_source_does_wrong_is_said() {
    for (size, stream, why) in [
        ("exit 3", STREAM, "cannot tell the size"),
        ("echo many", STREAM, "no number of bytes"),
        (
            SIZE,
            "echo no such image >&2; exit 4",
            "failed: exit code 4; its last words: no such image",
        ),
        (SIZE, "head -c 5000 $file; kill -9 $$", "failed: signal 9"),
        (SIZE, "head -c 5000 $file", "ended after 5000 of the 1048581 bytes"),
        (SIZE, "cat $file $file", "sends more than the 1048581 bytes"),
        (SIZE, "cat $file; exit 1", "failed: exit code 1"),
        (SIZE, "head -c 5000 $file; sleep 60", "has sent nothing for 1 s (BACKEND_TIMEOUT)"),
        (SIZE, "cat $file; exec 1>&-; sleep 60", "has not ended for 1 s (BACKEND_TIMEOUT)"),
        ("sleep 60", STREAM, "has sent nothing for 1 s"),
    ] {
        let mut lab = Lab::new();
        lab.config.backend_timeout = Duration::from_secs(1);
        store(&lab, "store", size, stream);
        lab.set("OSP_IMG_ID", "store://small");
        let started = Instant::now();
        let mut runner = StandIn::new();
        let error = log::chain(&lab.run(&mut runner).unwrap_err());
        assert!(error.contains("the back-end store") && error.contains(why), "{why}: {error}");
        assert_eq!((runner.runs, error.lines().count()), (0, 1));
        assert!(started.elapsed() < Duration::from_secs(40), "{why}");
    }
}

#[test]
fn the_order_and_who_is_out_of_it() {
    let asks_all =
        "[ \"$1\" != -p ] || { echo yes; exit; }; [ \"$1\" != -s ] || exit 0; printf abc";
    let mut lab = Lab::new();
    let run = |lab: &Lab| lab.run(&mut StandIn::new()).map_err(|error| log::chain(&error));
    // Ours come first among equals.
    program(&lab, Kind::Source, "greedy", asks_all);
    run(&lab).unwrap();
    assert!(laid(&lab));
    // Another priority puts a program before them.
    program(&lab, Kind::Source, "70-greedy", asks_all);
    run(&lab).unwrap();
    assert!(!laid(&lab));
    fs::remove_file(lab.config.backends_dir.join("src/70-greedy")).unwrap();
    // A disabled one of ours is not asked, and what nobody serves is an error.
    let disable = |lab: &Lab, name: &str| {
        fs::write(lab.config.backends_dir.join(format!("src/{name}.disabled")), "").unwrap();
    };
    disable(&lab, "local");
    run(&lab).unwrap();
    assert!(!laid(&lab));
    disable(&lab, "50-greedy");
    assert!(run(&lab).unwrap_err().contains("the back-end local is disabled on this node"));
    lab.set("OSP_IMG_ID", "store://x");
    assert!(run(&lab).unwrap_err().contains("there is no image source store://"));
    assert_eq!(
        survey(&lab.config.backends_dir, Kind::Source).unwrap(),
        ["null", "file", "network"]
    );
    let open = program(&lab, Kind::Source, "90-open", asks_all);
    fs::set_permissions(&open, PermissionsExt::from_mode(0o777)).unwrap();
    assert!(run(&lab).unwrap_err().contains("others than root may change it"));
    assert!(survey(&lab.config.backends_dir, Kind::Source).is_err());
    program(&lab, Kind::Source, "90-open", "echo perhaps");
    assert!(run(&lab).unwrap_err().contains("answers -p with \"perhaps\""));
}

#[test]
fn the_environment_holds_no_secret() {
    let mut lab = Lab::new();
    let out = lab.dir.path().join("seen");
    store(
        &lab,
        "store",
        SIZE,
        &format!("env >{0}; cat /proc/$$/cmdline >>{0}; {STREAM}", out.display()),
    );
    lab.set("OSP_IMG_ID", "store://small#sha256=x");
    assert!(lab.run(&mut StandIn::new()).is_err());
    lab.set("OSP_IMG_ID", "store://small");
    lab.run(&mut StandIn::new()).unwrap();
    let seen = String::from_utf8_lossy(&fs::read(&out).unwrap()).into_owned();
    assert!(seen.contains("IMAGE_DIR=") && seen.contains("store://small"), "{seen}");
    assert!(!seen.contains("$ecret") && !seen.contains("OSP_") && !seen.contains("INSTANCE_"));
}

/// A destination of `shelf:FILE`, which it writes beneath the lab.
fn shelf(lab: &Lab, name: &str, how: &str) {
    let text = format!(
        "if [ \"$1\" = -p ]; then case $2 in shelf:*) exit 0;; *) exit 1;; esac; fi\n\
         file={}/${{1#shelf:}}; {how}",
        lab.dir.path().display()
    );
    program(lab, Kind::Destination, name, &text);
}

#[test]
fn a_destination_gets_all_of_it() {
    for format in ["diskdump", "extdump"] {
        let mut lab = Lab::new();
        shelf(&lab, "60-shelf", "cat >\"$file\"");
        lab.vars.retain(|(name, _)| name != "DISK_0_PATH");
        lab.set("DISK_0_URI", "shelf:out");
        lab.set("DISK_0_SIZE", "8");
        lab.set("OSP_IMG_FORMAT", format);
        lab.set("OSP_IMG_PROPERTIES", r#"{"EXCLUDE_ALL_TASKS": "yes"}"#);
        lab.run(&mut StandIn::new()).unwrap();
        let found = fs::read(lab.dir.path().join("out")).unwrap();
        let image = fs::read(lab.config.image_dir.join("small")).unwrap();
        let start = if format == "extdump" { 1 << 20 } else { 0 };
        assert!(found[start..] == image[..], "{format}");
        assert!(start == 0 || (found[510..512] == [0x55, 0xaa] && found[450] == 0x83));
    }
    // The disk has a path, too: the program writes, and the VM gets the path.
    let mut lab = Lab::new();
    let text = "[ \"$1\" = -p ] && exit 0; exec dd of=\"$1\" bs=64k conv=notrunc status=none";
    program(&lab, Kind::Destination, "51-dd", text);
    lab.set("DISK_0_SIZE", "8");
    let mut runner = StandIn::new();
    lab.run(&mut runner).unwrap();
    let bytes = lab.bytes();
    assert!(&bytes[..3] == b"abc" && &bytes[4096..4106] == b"customized" && runner.runs == 1);
}

#[test]
fn what_a_destination_does_wrong_is_said() {
    for (how, size, why) in [
        ("exit 7", "8", "stopped reading before the image had ended (exit code 7"),
        ("head -c 5 >/dev/null; echo full >&2; exit 1", "8", "full"),
        ("cat >/dev/null; exit 3", "8", "failed: exit code 3"),
        ("sleep 60", "8", "has read nothing for 1 s"),
        ("cat >/dev/null; sleep 60", "8", "has not ended for 1 s"),
        ("cat >/dev/null", "1", "needs 1048581 bytes"),
    ] {
        let mut lab = Lab::new();
        lab.config.backend_timeout = Duration::from_secs(1);
        shelf(&lab, "shelf", how);
        lab.vars.retain(|(name, _)| name != "DISK_0_PATH");
        fs::write(lab.config.backends_dir.join("dst/qemu.disabled"), "").unwrap();
        lab.set("DISK_0_URI", "shelf:out");
        lab.set("DISK_0_SIZE", size);
        let mut runner = StandIn::new();
        let error = log::chain(&lab.run(&mut runner).unwrap_err());
        assert!(error.contains(why), "{why}: {error}");
        assert_eq!(runner.runs, 0);
    }
    let mut lab = Lab::new();
    shelf(&lab, "shelf", "cat >/dev/null");
    fs::write(lab.config.backends_dir.join("dst/local.disabled"), "").unwrap();
    let error = lab.run(&mut StandIn::new()).unwrap_err().to_string();
    assert!(error.contains("the back-end local for disks is disabled"), "{error}");
    assert!(lab.untouched());
    lab.set("OSP_IMG_ID", "null");
    let cancel = Cancel::new();
    cancel.request(15);
    assert!(
        snf_image_host::scripts::create::create(
            &lab.env(),
            &lab.config,
            &cancel,
            &mut StandIn::new()
        )
        .is_err()
    );
}
