//! `create` with a stand-in for the helper VM: everything but QEMU is real.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::Path;

use crate::common::lab::{Lab, StandIn};
use snf_image::crypt::Method;
use snf_image::plan::Password;
use snf_image_host::node::cancel::Cancel;
use snf_image_host::node::log;
use snf_image_host::scripts::rename::rename;

#[test]
fn a_whole_disk() {
    let lab = Lab::new();
    let mut runner = StandIn::new();
    lab.run(&mut runner).unwrap();
    let bytes = lab.bytes();
    assert_eq!(bytes.len(), 8 << 20, "the file keeps its length");
    assert_eq!(&bytes[..4], b"abc\0");
    assert_eq!(&bytes[4096..4106], b"customized");
    assert_eq!(&bytes[700_000..700_003], b"def");
    assert_eq!(&bytes[1 << 20..(1 << 20) + 5], b"tail!");
    assert!(!bytes.contains(&0xaa), "old bytes shine through");
    let rules = &runner.rules;
    assert_eq!(rules.text("HOSTNAME"), Some("inst1.example.test"));
    assert_eq!(rules.text("TYPE"), Some("diskdump"));
    assert!(rules.get("PASSWD").is_none());
    assert_eq!(rules.text("NIC_0_MAC"), Some("aa:00:00:00:00:01"));
    assert_eq!(rules.text("DHCP_TAGS"), Some("auto dhcp nfdhcpd"));
    assert_eq!(rules.devices(), ["/dev/vda"]);
    assert!(rules.get("PROPERTY_OSFAMILY").is_none());
    assert!(rules.text("PASSWD_HASH").unwrap().starts_with("$6$"));
}

#[test]
fn the_password_itself_goes_to_a_windows_only() {
    for (format, family, clear) in [
        ("diskdump", "", false),
        ("diskdump", "linux", false),
        ("diskdump", "freebsd", false),
        ("diskdump", "windows", true),
        ("extdump", "", false),
        ("ntfsdump", "", true),
    ] {
        let mut lab = Lab::new();
        lab.set("OSP_IMG_FORMAT", format);
        lab.set("OSP_IMG_PASSWD", "T0pSecret-in-clear");
        lab.set("OSP_IMG_PROPERTIES", &format!(r#"{{"OSFAMILY": "{family}", "USERS": "root u"}}"#));
        if family.is_empty() {
            lab.set("OSP_IMG_PROPERTIES", r#"{"USERS": "root u"}"#);
        }
        let mut runner = StandIn::new();
        lab.run(&mut runner).unwrap();
        let found = runner.floppy.windows(18).any(|window| window == b"T0pSecret-in-clear");
        assert_eq!(found, clear, "{format} {family}: on the parameter disk");
        let hashes = runner.rules.array("PREPARED_PASSWD_HASHES");
        assert_eq!(hashes.is_empty(), clear, "{format} {family}");
        // The helper's half reads hashes for both users.
        let plan = runner.rules.plan().unwrap();
        let [(_, Password::Hashes(hashes))] = &plan.passwords[..] else {
            assert!(clear);
            continue;
        };
        assert!(Method::Sha512.pick(hashes, 1).is_some());
    }
}

#[test]
fn a_bare_file_system_gets_a_partition() {
    for (format, family, kind) in [("extdump", "linux", 0x83), ("ntfsdump", "windows", 7)] {
        let mut lab = Lab::new();
        lab.set("OSP_IMG_FORMAT", format);
        let mut runner = StandIn::new();
        lab.run(&mut runner).unwrap();
        let bytes = lab.bytes();
        assert_eq!(&bytes[510..512], [0x55, 0xaa]);
        assert_eq!((bytes[446], bytes[450]), (0x80, kind));
        let start = 1 << 20;
        assert_eq!(&bytes[start..start + 3], b"abc");
        assert_eq!(&bytes[start + (1 << 20)..start + (1 << 20) + 5], b"tail!");
        assert!(bytes[512..4096].iter().all(|b| *b == 0) && !bytes[4106..].contains(&0xaa));
        assert_eq!(runner.rules.text("PROPERTY_OSFAMILY"), Some(family));
        assert_eq!(runner.rules.text("PROPERTY_ROOT_PARTITION"), Some("1"));
    }
}

#[test]
fn refused_before_the_first_byte() {
    type Change = fn(&mut Lab, &mut StandIn);
    let table: &[(&str, Change)] = &[
        ("needs 1048581 bytes", |lab, _| {
            fs::write(lab.disk(), vec![0xaa; 1 << 20]).unwrap();
        }),
        ("img_format: it is none of", |lab, _| lab.set("OSP_IMG_FORMAT", "tar")),
        ("img_format: it is not set", |lab, _| lab.set("OSP_IMG_FORMAT", "")),
        ("the password has 600 bytes", |lab, _| lab.set("OSP_IMG_PASSWD", &"x".repeat(600))),
        ("img_id: it is not set", |lab, _| lab.vars.retain(|(n, _)| n != "OSP_IMG_ID")),
        ("no OS parameters were given", |lab, _| {
            lab.vars.retain(|(n, _)| !n.starts_with("OSP_"));
        }),
        ("does not exist", |lab, _| lab.set("OSP_IMG_ID", "nothing")),
        ("leads out of IMAGE_DIR", |lab, _| lab.set("OSP_IMG_ID", "../disk")),
        ("leads out of IMAGE_DIR", |lab, _| lab.set("OSP_IMG_ID", "/etc/passwd")),
        ("no image source pithos", |lab, _| lab.set("OSP_IMG_ID", "pithos://x/y")),
        ("no disk", |lab, _| lab.set("DISK_COUNT", "0")),
        ("read-only", |lab, _| lab.set("DISK_0_ACCESS", "ro")),
        ("DISK_0_PATH is not set", |lab, _| lab.set("DISK_0_PATH", "")),
        ("the scheme sheepdog: is not supported", |lab, _| {
            lab.set("DISK_0_PATH", "");
            lab.set("DISK_0_URI", "sheepdog:x");
        }),
        ("NIC_0_IP is \"2001:db8::5\", which is not an address of the network", |lab, _| {
            lab.set("NIC_0_IP", "2001:db8::5");
            lab.set("NIC_0_NETWORK_NAME", "n6");
            lab.set("NIC_0_NETWORK_SUBNET", "2001:db8::/64");
        }),
        ("DISK_1_PATH", |lab, _| lab.set("DISK_COUNT", "2")),
        ("cannot open the disk /nonexistent", |lab, _| {
            lab.set("DISK_COUNT", "2");
            lab.set("DISK_1_PATH", "/nonexistent");
        }),
        ("OS_API_VERSION", |lab, _| lab.set("OS_API_VERSION", "5")),
        ("helper is not built", |_, runner| runner.missing = true),
        ("do not fit onto", |lab, _| {
            let file = format!(r#"[{{"path":"/x","contents":"{}"}}]"#, "QUFB".repeat(4_400_000));
            lab.set("OSP_IMG_PERSONALITY", &file);
        }),
    ];
    for (why, change) in table {
        let mut lab = Lab::new();
        let mut runner = StandIn::new();
        change(&mut lab, &mut runner);
        let error = log::chain(&lab.run(&mut runner).unwrap_err());
        assert!(error.contains(why), "{why}: {error}");
        assert!(!error.contains("$ecret"), "{error}");
        assert_eq!(runner.runs, 0);
        assert!(lab.bytes().iter().all(|b| *b == 0xaa), "{why}: the disk was touched");
    }
}

#[test]
fn the_helper_decides() {
    let lab = Lab::new();
    let mut runner = StandIn::new();
    runner.fail = Some("the user mallory does not exist");
    let error = lab.run(&mut runner).unwrap_err();
    assert_eq!(error.to_string(), "the user mallory does not exist");
    assert_eq!(error.public(), "the user mallory does not exist");
}

#[test]
fn null_customizes_what_is_there_and_everything_can_be_excluded() {
    let mut lab = Lab::new();
    lab.set("OSP_IMG_ID", "null");
    let mut runner = StandIn::new();
    lab.run(&mut runner).unwrap();
    let bytes = lab.bytes();
    assert_eq!(bytes.iter().filter(|b| **b != 0xaa).count(), 10);
    assert_eq!(runner.flush_later, Some(false), "what was there before is worth keeping");
    let lab = Lab::new();
    let mut runner = StandIn::new();
    lab.run(&mut runner).unwrap();
    assert_eq!(runner.flush_later, Some(true), "the disk is flushed once, at the end");
    let mut lab = Lab::new();
    lab.set("OSP_IMG_PROPERTIES", r#"{"exclude_all_tasks": true}"#);
    let mut runner = StandIn::new();
    runner.missing = true;
    lab.run(&mut runner).unwrap();
    assert_eq!(runner.runs, 0);
    assert_eq!(&lab.bytes()[..3], b"abc");
}

#[test]
fn parameters_of_the_configuration_and_of_a_url() {
    let mut lab = Lab::new();
    let json = lab.dir.path().join("config.json");
    fs::write(&json, r#"{"img_id": "small", "img_format": "extdump", "img_passwd": "of the url"}"#)
        .unwrap();
    lab.vars.retain(|(n, _)| !n.starts_with("OSP_"));
    lab.set("OSP_CONFIG_URL", &format!("file://{}", json.display()));
    let error = log::chain(&lab.run(&mut StandIn::new()).unwrap_err());
    assert!(error.contains("config_url") && error.contains("IMAGE_FILES"), "{error}");
    lab.config.image_files = format!("{} /nonexistent", lab.dir.path().display()).parse().unwrap();
    lab.set("OSP_IMG_FORMAT", "diskdump");
    lab.config.parameters.insert("img_passwd".into(), snf_image::secret::Secret::new("ours"));
    lab.config
        .parameters
        .insert("inst_properties".into(), snf_image::secret::Secret::new(r#"{"USERS":"user"}"#));
    let mut runner = StandIn::new();
    lab.run(&mut runner).unwrap();
    assert_eq!(runner.rules.text("TYPE"), Some("diskdump"));
    let script = "print crypt($ARGV[0], $ARGV[1])";
    let hash = runner.rules.text("PASSWD_HASH").unwrap();
    let perl = std::process::Command::new("perl").args(["-e", script, "of the url", hash]).output();
    assert_eq!(String::from_utf8(perl.unwrap().stdout).unwrap(), hash);
    assert_eq!(runner.rules.text("INST_PROPERTIES"), Some(r#"{"USERS":"user"}"#));
    fs::write(&json, r#"{"img_size": "small"}"#).unwrap();
    let error = lab.run(&mut runner).unwrap_err().to_string();
    assert!(error.contains("img_size"), "{error}");
    lab.set("OSP_CONFIG_URL", "file:///nonexistent/x");
    let error = log::chain(&lab.run(&mut runner).unwrap_err());
    assert!(error.contains("config_url") && error.contains("does not exist"), "{error}");
}

#[test]
fn several_disks_and_read_only_ones() {
    let mut lab = Lab::new();
    for (n, access) in [(1, "ro"), (2, "rw")] {
        let path = lab.dir.path().join(format!("disk{n}"));
        fs::write(&path, vec![n as u8; 4096]).unwrap();
        lab.set(&format!("DISK_{n}_PATH"), &path.display().to_string());
        lab.set(&format!("DISK_{n}_ACCESS"), access);
    }
    lab.set("DISK_COUNT", "3");
    let mut runner = StandIn::new();
    lab.run(&mut runner).unwrap();
    assert_eq!(runner.disks, 2);
    assert_eq!(runner.rules.devices(), ["/dev/vda", "/dev/vdb"]);
    assert_eq!(fs::read(lab.dir.path().join("disk1")).unwrap(), vec![1; 4096]);
}

#[test]
fn every_way_that_ganeti_attaches_a_disk() {
    for frontend in ["paravirtual", "ide", "scsi-hd", "scsi-block", "scsi-generic", "sd", ""] {
        let mut lab = Lab::new();
        lab.set("DISK_0_FRONTEND_TYPE", frontend);
        lab.set("INSTANCE_HV_disk_type", frontend);
        let mut runner = StandIn::new();
        lab.run(&mut runner).unwrap();
        // The helper has its own bus, whatever the instance has.
        assert_eq!(runner.rules.devices(), ["/dev/vda"], "{frontend}");
    }
}

#[test]
fn compressed_images_and_checksums() {
    let lab = Lab::new();
    let images = lab.dir.path().join("images");
    for (program, ending) in [("gzip", "gz"), ("xz", "xz"), ("zstd", "zst"), ("bzip2", "bz2")] {
        let status = std::process::Command::new("sh")
            .arg("-c")
            .arg(format!("{program} -c small >small.{ending}"))
            .current_dir(&images)
            .status()
            .unwrap();
        assert!(status.success());
        let sum = sha256(&images.join(format!("small.{ending}")));
        for id in [format!("small.{ending}"), format!("local://small.{ending}#sha256={sum}")] {
            let mut lab2 = Lab::new();
            fs::copy(
                images.join(format!("small.{ending}")),
                lab2.dir.path().join(format!("images/small.{ending}")),
            )
            .unwrap();
            lab2.set("OSP_IMG_ID", &id);
            lab2.run(&mut StandIn::new()).unwrap();
            let bytes = lab2.bytes();
            assert_eq!(&bytes[1 << 20..(1 << 20) + 5], b"tail!", "{id}");
            assert!(!bytes.contains(&0xaa));
            // One byte more at the end: the checksum covers the whole file.
            let path = lab2.dir.path().join(format!("images/small.{ending}"));
            let mut file = fs::read(&path).unwrap();
            file.push(0);
            fs::write(&path, file).unwrap();
            if id.contains("sha256") {
                let mut runner = StandIn::new();
                assert!(lab2.run(&mut runner).is_err(), "{id}");
                assert_eq!(runner.runs, 0, "customized in spite of a wrong checksum");
            }
        }
    }
    let sum = sha256(&images.join("small"));
    let mut lab = Lab::new();
    lab.set("OSP_IMG_ID", &format!("small#sha256={sum}"));
    lab.run(&mut StandIn::new()).unwrap();
    lab.set("OSP_IMG_ID", &format!("small#sha256={}", "0".repeat(64)));
    let error = lab.run(&mut StandIn::new()).unwrap_err();
    let text = snf_image_host::node::log::chain(&error);
    assert!(text.contains("SHA-256") && text.contains(&sum), "{text}");
}

#[test]
fn containers_that_arrive_as_streams() {
    let lab = Lab::new();
    let images = lab.dir.path().join("images");
    let shell = |command: &str| {
        let mut shell = std::process::Command::new("sh");
        let out = shell.arg("-c").arg(command).current_dir(&images).output().unwrap();
        assert!(out.status.success(), "{command}: {out:?}");
    };
    shell("truncate -s 2M small && qemu-img convert -c -O qcow2 small small.qcow2");
    shell("xz -k small.qcow2 && zstd -q small.qcow2 && head -c 70000 small.qcow2 >cut.qcow2");
    let sum = sha256(&images.join("small.qcow2.zst"));
    for id in ["small.qcow2.xz".to_owned(), format!("small.qcow2.zst#sha256={sum}")] {
        let mut lab = Lab::new();
        lab.config.image_dir = images.clone();
        lab.set("OSP_IMG_ID", &id);
        lab.run(&mut StandIn::new()).unwrap();
        let bytes = lab.bytes();
        assert_eq!(&bytes[1 << 20..(1 << 20) + 5], b"tail!", "{id}");
        assert!(!bytes.contains(&0xaa), "{id}");
    }
    for (id, why) in [
        (format!("small.qcow2.zst#sha256={}", "0".repeat(64)), "should be"),
        ("small#compression=none&format=qcow2".to_owned(), "is not a qcow2 image"),
        ("small.qcow2.xz#compression=gz".to_owned(), "cannot read the image"),
    ] {
        let mut lab = Lab::new();
        lab.config.image_dir = images.clone();
        lab.set("OSP_IMG_ID", &id);
        let error = snf_image_host::node::log::chain(&lab.run(&mut StandIn::new()).unwrap_err());
        assert!(error.contains(why), "{id}: {error}");
        assert!(lab.untouched(), "{id}");
    }
    // An image that cannot fit is not even fetched, and a folder that is not there is named.
    shell("qemu-img create -q -f qcow2 large.qcow2 1G && gzip large.qcow2");
    let mut lab = Lab::new();
    lab.config.image_dir = images.clone();
    lab.set("OSP_IMG_ID", "large.qcow2.gz");
    let error = lab.run(&mut StandIn::new()).unwrap_err().to_string();
    assert!(error.contains("holds a disk of 1073741824 bytes"), "{error}");
    lab.set("OSP_IMG_ID", "small.qcow2.xz");
    lab.config.spool_dir = "/nonexistent".into();
    let error = lab.run(&mut StandIn::new()).unwrap_err().to_string();
    assert!(error.contains("/nonexistent (SPOOL_DIR)") && lab.untouched(), "{error}");
}

fn sha256(path: &Path) -> String {
    let out = std::process::Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(out.stdout).unwrap()[..64].to_owned()
}

#[test]
fn rename_does_what_it_is_told_to_and_again() {
    let mut lab = Lab::new();
    lab.set("OLD_INSTANCE_NAME", "old.example.test");
    let mut runner = StandIn::new();
    for _ in 0..2 {
        rename(&lab.env(), &lab.config, &Cancel::new(), &mut runner).unwrap();
    }
    assert!(runner.runs == 0 && lab.untouched());
    lab.config.rename_hostname = true;
    rename(&lab.env(), &lab.config, &Cancel::new(), &mut runner).unwrap();
    assert_eq!(runner.rules.text("HOSTNAME"), Some("inst1.example.test"));
    assert!(runner.rules.get("PASSWD").is_none());
    assert!(runner.rules.text("PROPERTIES").unwrap().contains("EXCLUDE_TASK_CHANGEPASSWORD"));
    lab.vars.retain(|(n, _)| n != "OLD_INSTANCE_NAME");
    let error =
        rename(&lab.env(), &lab.config, &Cancel::new(), &mut runner).unwrap_err().to_string();
    assert!(error.contains("OLD_INSTANCE_NAME"), "{error}");
}

/// Files of the node: only below the places that the admin lists, and none when the back-end is
/// disabled, for every parameter that is a URL.
#[test]
fn files_of_the_node() {
    let shown = |lab: &Lab, path: &str| format!("file://{}/{path}", lab.dir.path().display());
    for parameter in ["OSP_IMG_ID", "OSP_CONFIG_URL", "OSP_OS_ANSWER_FILE"] {
        let mut lab = Lab::new();
        lab.set("OSP_IMG_PROPERTIES", r#"{"OSFAMILY":"windows"}"#);
        let listed = lab.dir.path().join("listed");
        fs::create_dir(&listed).unwrap();
        fs::copy(lab.dir.path().join("images/small"), listed.join("small")).unwrap();
        fs::write(lab.dir.path().join("secret"), "s").unwrap();
        std::os::unix::fs::symlink("../secret", listed.join("out")).unwrap();
        let refused = |lab: &Lab, why: &str| {
            let error = log::chain(&lab.run(&mut StandIn::new()).unwrap_err());
            assert!(error.contains(why), "{parameter}: {why}: {error}");
            assert!(lab.untouched(), "{parameter}: {why}: the disk was touched");
        };
        lab.set(parameter, &shown(&lab, "listed/small"));
        refused(&lab, "IMAGE_FILES");
        lab.config.image_files = listed.display().to_string().parse().unwrap();
        for (path, why) in [
            ("secret", "in no place that IMAGE_FILES lists"),
            ("listed-too", "in no place that IMAGE_FILES lists"),
            ("listed/../secret", "leads out of the place that IMAGE_FILES lists"),
            ("listed/out", "leads out of the place that IMAGE_FILES lists"),
        ] {
            lab.set(parameter, &shown(&lab, path));
            refused(&lab, why);
        }
        let disabled = lab.config.backends_dir.join("src/file.disabled");
        fs::create_dir_all(disabled.parent().unwrap()).unwrap();
        fs::write(disabled, "").unwrap();
        lab.set(parameter, &shown(&lab, "listed/small"));
        refused(&lab, "the back-end file is disabled");
        fs::write(lab.config.backends_dir.join("src/network.disabled"), "").unwrap();
        for url in ["http://127.0.0.1:9/x", "https://127.0.0.1:9/x"] {
            lab.set(parameter, url);
            refused(&lab, "the back-end network is disabled");
        }
        if parameter != "OSP_IMG_ID" {
            lab.set(parameter, "ftp://127.0.0.1:9/x");
            refused(&lab, "the back-end network is disabled");
        }
    }
    let mut lab = Lab::new();
    lab.set("OSP_IMG_ID", &shown(&lab, "images/small"));
    lab.config.image_files = "/".parse().unwrap();
    lab.run(&mut StandIn::new()).unwrap();
}

#[test]
fn the_helper_is_no_image() {
    let mut lab = Lab::new();
    lab.config.helper_dir = lab.config.image_dir.join("helper");
    fs::create_dir(&lab.config.helper_dir).unwrap();
    fs::write(lab.config.helper_dir.join("snapshot-1"), vec![1; 4096]).unwrap();
    fs::hard_link(lab.config.helper_dir.join("snapshot-1"), lab.config.image_dir.join("link"))
        .unwrap();
    for id in ["helper/snapshot-1", "local://helper/../helper/snapshot-1", "link"] {
        lab.set("OSP_IMG_ID", id);
        let error = lab.run(&mut StandIn::new()).unwrap_err().to_string();
        assert!(error.contains("it is a file of the helper VM"), "{id}: {error}");
        assert!(lab.untouched());
    }
}

#[test]
fn an_empty_image_is_refused() {
    let mut lab = Lab::new();
    let images = lab.config.image_dir.clone();
    fs::write(images.join("raw"), "").unwrap();
    for (program, args) in [
        ("gzip", &["-k", "raw"][..]),
        ("xz", &["-k", "raw"]),
        ("zstd", &["-q", "raw"]),
        ("qemu-img", &["create", "-q", "-f", "qcow2", "none.qcow2", "0"]),
        ("gzip", &["-k", "none.qcow2"]),
    ] {
        let made = std::process::Command::new(program).args(args).current_dir(&images).status();
        assert!(made.unwrap().success(), "{program}");
    }
    lab.set("OSP_IMG_PROPERTIES", r#"{"exclude_all_tasks": true}"#);
    for format in ["diskdump", "extdump"] {
        lab.set("OSP_IMG_FORMAT", format);
        for id in ["raw", "raw.gz", "raw.xz", "raw.zst", "none.qcow2", "none.qcow2.gz"] {
            lab.set("OSP_IMG_ID", id);
            let error = lab.run(&mut StandIn::new()).unwrap_err().to_string();
            assert!(error.contains("is empty"), "{id}: {error}");
            assert!(lab.untouched(), "{id}: the disk was touched");
        }
    }
}

/// Files that root runs or obeys must be root's.
#[test]
fn what_others_may_change_is_refused() {
    use std::os::unix::fs::PermissionsExt;
    type Change = fn(&mut Lab, std::path::PathBuf);
    let table: &[(&str, Change)] = &[
        ("HELPER_DIR", |lab, path| lab.config.helper_dir = path.parent().unwrap().into()),
        ("HELPER_QEMU", |lab, path| lab.config.helper_qemu = Some(path)),
        ("STORAGE_DAEMON", |lab, path| lab.config.storage_daemon = Some(path)),
        ("PROGRESS_MONITOR", |lab, path| lab.config.progress_monitor = Some(path)),
        ("UNATTEND", |lab, path| lab.config.unattend = Some(path)),
    ];
    for (key, change) in table {
        let mut lab = Lab::new();
        let dir = lab.dir.path().join("node");
        fs::create_dir(&dir).unwrap();
        let path = dir.join("file");
        fs::write(&path, "#!/bin/sh\n").unwrap();
        let mode = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
        };
        mode(&path, 0o755);
        change(&mut lab, path.clone());
        for (place, bad, good) in [(&path, 0o757, 0o755), (&dir, 0o775, 0o755)] {
            mode(place, bad);
            let error = log::chain(&lab.run(&mut StandIn::new()).unwrap_err());
            let expected = format!("{key} is refused: others than root may change it");
            assert!(error.contains(&expected) && error.contains("chmod go-w it"), "{error}");
            assert!(lab.untouched());
            let found =
                snf_image_host::scripts::check::check(Ok(lab.config.clone()), &Cancel::new());
            assert!(found.iter().any(|finding| finding.to_string().contains(&expected)));
            mode(place, good);
        }
        lab.run(&mut StandIn::new()).unwrap();
    }
}
