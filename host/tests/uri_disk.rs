//! Disks that have only a URI: through QEMU's storage daemon.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::common::lab::{Lab, StandIn};
use snf_image_host::disk::storage::RemoteDisk;
use snf_image_host::node::cancel::Cancel;
use snf_image_host::node::env::Environment;
use snf_image_host::scripts::rename::rename;
use snf_image_host::scripts::transfer::{export, import};

const DAEMON: &str = "qemu-storage-daemon";

/// An NBD server of somebody else's over a file.
struct Server(Child, PathBuf);

impl Server {
    fn new(dir: &Path, disk: &Path) -> Self {
        let socket = dir.join("server");
        let child = Command::new(DAEMON)
            .args(["--blockdev", &format!("driver=file,node-name=d,filename={}", disk.display())])
            .args(["--nbd-server", &format!("addr.type=unix,addr.path={}", socket.display())])
            .args(["--export", "type=nbd,id=e,node-name=d,name=their name,writable=on"])
            .spawn()
            .expect("qemu-storage-daemon must be there (qemu-system-common)");
        let limit = Instant::now() + Duration::from_secs(60);
        while !socket.exists() {
            assert!(Instant::now() < limit, "the server does not start");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self(child, socket)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn only_uri(lab: &mut Lab, uri: &str) {
    lab.vars.retain(|(name, _)| name != "DISK_0_PATH");
    lab.set("DISK_0_URI", uri);
    lab.set("DISK_0_ACCESS", "userspace");
}

fn check(lab: &Lab) {
    let bytes = lab.bytes();
    assert_eq!(bytes.len(), 8 << 20, "the file keeps its length");
    assert_eq!(&bytes[..4], b"abc\0");
    assert_eq!(&bytes[4096..4106], b"customized");
    assert_eq!(&bytes[700_000..700_003], b"def");
    assert_eq!(&bytes[1 << 20..(1 << 20) + 5], b"tail!");
    assert!(!bytes.contains(&0xaa), "old bytes shine through");
}

#[test]
fn create_and_rename() {
    let mut lab = Lab::new();
    let uri = format!("file:{},format=raw", lab.disk().display());
    only_uri(&mut lab, &uri);
    let mut runner = StandIn::new();
    lab.run(&mut runner).unwrap();
    assert_eq!((runner.runs, runner.disks), (1, 1));
    check(&lab);
    lab.set("OLD_INSTANCE_NAME", "old");
    lab.config.rename_hostname = true;
    rename(&lab.env(), &lab.config, &Cancel::new(), &mut runner).unwrap();
    assert_eq!(runner.runs, 2);

    let mut lab = Lab::new();
    let server = Server::new(lab.dir.path(), &lab.disk());
    only_uri(&mut lab, &format!("nbd:unix:{}:exportname=their name", server.1.display()));
    // A second disk behind a URI, and one that is to be left alone.
    let (second, third) = (lab.dir.path().join("second"), lab.dir.path().join("third"));
    fs::write(&second, vec![2; 8192]).unwrap();
    fs::write(&third, vec![3; 8192]).unwrap();
    lab.set("DISK_COUNT", "3");
    lab.set("DISK_1_URI", &format!("file:{}", third.display()));
    lab.set("DISK_1_ACCESS", "ro");
    lab.set("DISK_2_URI", &format!("file:{}", second.display()));
    let mut runner = StandIn::new();
    lab.run(&mut runner).unwrap();
    assert_eq!(runner.disks, 2);
    check(&lab);
    assert_eq!(&fs::read(&second).unwrap()[4096..4106], b"customized");
    assert_eq!(fs::read(&third).unwrap(), vec![3; 8192]);
    assert!(children().is_empty(), "a storage daemon is left: {:?}", children());
}

/// Storage daemons that are children of this process.
fn children() -> Vec<String> {
    let us = format!("\nPPid:\t{}\n", std::process::id());
    let statuses = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("status")).ok());
    // The server of the test itself has a name for its socket; ours have a descriptor.
    statuses
        .filter(|status| status.contains(&us) && status.contains("qemu-storage"))
        .filter(|status| {
            let pid = status.split("\nPid:\t").nth(1).and_then(|rest| rest.lines().next());
            let line = fs::read_to_string(format!("/proc/{}/cmdline", pid.unwrap_or("0")));
            line.is_ok_and(|line| line.contains("\"type\":\"fd\"") && line.contains("/second"))
        })
        .collect()
}

#[test]
fn export_and_import() {
    let lab = Lab::new();
    let socket = lab.dir.path().join("server");
    let uris = [
        format!("file:{}", lab.disk().display()),
        format!("nbd+unix:///their%20name?socket={}", socket.display()),
    ];
    let mut server: Option<Server> = None;
    let mut dump: Vec<u8> = (0..8 << 20).map(|n: u32| (n / 4096 % 251) as u8).collect();
    dump[1 << 20..5 << 20].fill(0);
    for uri in &uris {
        fs::write(lab.disk(), vec![0xaa; 8 << 20]).unwrap();
        // QEMU locks a file that it writes: one daemon at a time.
        server = server
            .or_else(|| uri.starts_with("nbd").then(|| Server::new(lab.dir.path(), &lab.disk())));
        let env = |prefix: &str| {
            Environment::from_vars([
                (format!("{prefix}_DISK_URI").into(), uri.into()),
                ("DISK_0_SIZE".into(), "8".into()),
            ])
        };
        let input = std::io::Cursor::new(dump.clone());
        import(&env("IMPORT"), &lab.config, &Cancel::new(), Box::new(input)).unwrap();
        assert!(lab.bytes() == dump, "{uri}");
        let mut out = Vec::new();
        export(&env("EXPORT"), &lab.config, &Cancel::new(), &mut out).unwrap();
        assert!(out == dump, "{uri}");
        let input = std::io::Cursor::new(dump[..5 << 20].to_vec());
        let error = import(&env("IMPORT"), &lab.config, &Cancel::new(), Box::new(input));
        assert!(error.unwrap_err().to_string().contains("truncated"), "{uri}");
    }
}

#[test]
fn what_cannot_be_opened_is_said() {
    let open = |uri: &str| {
        RemoteDisk::open(Path::new(DAEMON), uri, &Cancel::new()).map(drop).unwrap_err().to_string()
    };
    let error = open("file:/nonexistent/disk");
    assert!(error.contains("/nonexistent/disk") && error.contains("No such file"), "{error}");
    assert_eq!(error.lines().count(), 1);
    let error = open("nbd:unix:/nonexistent/socket");
    assert!(error.contains("/nonexistent/socket"), "{error}");
    assert!(open("ceph:x").contains("the scheme ceph: is not supported"));
    let program = Path::new("/nonexistent/daemon");
    let error = RemoteDisk::open(program, "file:/x", &Cancel::new()).map(drop).unwrap_err();
    assert!(error.to_string().contains("install qemu-system-common"), "{error}");
    // A program that says nothing: a signal ends the wait.
    let dir = tempfile::tempdir().unwrap();
    let deaf = dir.path().join("deaf");
    fs::write(&deaf, "#!/bin/sh\nexec sleep 60\n").unwrap();
    fs::set_permissions(&deaf, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let cancel = Cancel::new();
    cancel.request(15);
    let started = Instant::now();
    assert!(RemoteDisk::open(&deaf, "file:/x", &cancel).is_err());
    assert!(started.elapsed() < Duration::from_secs(30));
}
