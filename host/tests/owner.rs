//! One owner of a disk: whoever comes second is refused, and the disk is as it was. Needs root,
//! loop devices and qemu-utils.

use std::fs::{self, File, OpenOptions};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::lab::{Lab, StandIn};
use crate::common::node::{Node, ended, running_vm, signal, sparse, wait_for};
use snf_claim::{Purpose, claim};
use snf_image_host::node::cancel::Cancel;
use snf_image_host::node::log;
use snf_image_host::scripts::rename::rename;
use snf_image_host::scripts::transfer::{export, import};

fn open(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).open(path).unwrap()
}

/// `create` is refused with these words and leaves the disk alone.
fn refused(lab: &Lab, why: &str) {
    let mut runner = StandIn::new();
    let error = log::chain(&lab.run(&mut runner).unwrap_err());
    assert!(error.contains("is busy") && error.contains(why), "{why}: {error}");
    assert_eq!(runner.runs, 0);
    assert!(lab.untouched(), "{why}: the disk was touched");
}

#[test]
fn whoever_has_the_disk() {
    let mut lab = Lab::new();
    // Another run of ours: snf-customize claims in the same way.
    let other = open(&lab.disk());
    claim(&other, Purpose::Write).unwrap();
    refused(&lab, "another snf-image or snf-customize");
    drop(other);

    let socket = lab.dir.path().join("socket");
    let mut holder = Command::new("qemu-nbd")
        .args(["-f", "raw", "-t", "-k"])
        .args([&socket, &lab.disk()])
        .spawn()
        .expect("this test needs qemu-nbd (qemu-utils)");
    // The socket is there before the disk is open and locked; an answer comes after that.
    let address = format!("nbd+unix:///?socket={}", socket.display());
    wait_for("qemu-nbd", || {
        let asked = Command::new("qemu-img").args(["info", &address]).output().unwrap();
        asked.status.success().then_some(())
    });
    refused(&lab, "most likely a running virtual machine");
    holder.kill().unwrap();
    holder.wait().unwrap();

    let disk = lab.disk();
    // Another test may take the device that was free a moment ago.
    let device = wait_for("a loop device", || {
        let made = Command::new("losetup").args(["-f", "--show"]).arg(&disk).output().unwrap();
        let device = String::from_utf8(made.stdout).unwrap().trim().to_owned();
        (made.status.success() && !device.is_empty()).then_some(device)
    });
    refused(&lab, &format!("attached to {device}"));
    let hard = lab.dir.path().join("hard");
    fs::hard_link(&disk, &hard).unwrap();
    lab.set("DISK_0_PATH", hard.to_str().unwrap());
    refused(&lab, &format!("attached to {device}"));
    assert!(Command::new("losetup").args(["-d", &device]).status().unwrap().success());

    // A second disk that is in use costs nothing either.
    let second = lab.dir.path().join("second");
    sparse(&second, 1 << 20);
    lab.set("DISK_COUNT", "2");
    lab.set("DISK_1_PATH", second.to_str().unwrap());
    let other = open(&second);
    claim(&other, Purpose::Write).unwrap();
    refused(&lab, "another snf-image");
    lab.set("DISK_1_PATH", disk.to_str().unwrap());
    refused(&lab, "another snf-image");
    lab.set("DISK_COUNT", "1");
    lab.run(&mut StandIn::new()).unwrap();
}

#[test]
fn the_other_scripts() {
    let mut lab = Lab::new();
    let disk = lab.disk().display().to_string();
    for (name, value) in [
        ("EXPORT_DEVICE", disk.as_str()),
        ("IMPORT_DEVICE", &disk),
        ("OLD_INSTANCE_NAME", "old.example.test"),
    ] {
        lab.set(name, value);
    }
    lab.config.rename_hostname = true;
    let (env, cancel) = (lab.env(), Cancel::new());
    let other = open(&lab.disk());
    claim(&other, Purpose::Write).unwrap();
    let busy = |error: &dyn std::error::Error| {
        let text = log::chain(error);
        assert!(text.contains("is busy"), "{text}");
    };
    busy(&rename(&env, &lab.config, &cancel, &mut StandIn::new()).unwrap_err());
    busy(&export(&env, &lab.config, &cancel, &mut Vec::new()).unwrap_err());
    let input = Box::new(std::io::repeat(0));
    busy(&import(&env, &lab.config, &cancel, input).unwrap_err());
    assert!(lab.untouched());
    drop(other);
    // A virtual machine may run on what is exported.
    let mut out = Vec::new();
    export(&env, &lab.config, &cancel, &mut out).unwrap();
    assert!(out == lab.bytes());
}

/// The claim holds until the VM has ended, and ends with it.
#[test]
fn for_the_whole_run() {
    let node = Node::new();
    let disk = node.path("disk");
    sparse(&disk, 4 << 20);
    fs::write(node.path("images/small"), vec![b'x'; 1 << 20]).unwrap();
    node.vm_sleeps(true);
    let first = node.create("one.example.test", "small", &disk).spawn().unwrap();
    running_vm(&node);
    let second = node.create("two.example.test", "small", &disk).output().unwrap();
    let log = ended(&second, Some(1));
    assert!(log.contains("is busy: another snf-image or snf-customize"), "{log}");
    // The first step of snf-customize.
    assert!(claim(&open(&disk), Purpose::Write).is_err());
    signal(&first, "TERM");
    ended(&first.wait_with_output().unwrap(), Some(1));
    node.assert_nothing_left();
    node.vm_sleeps(false);
    let third = node.create("three.example.test", "small", &disk).stdout(Stdio::null()).output();
    ended(&third.unwrap(), Some(0));
}
