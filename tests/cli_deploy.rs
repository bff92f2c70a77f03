//! `snf-customize deploy`: images of every source onto files and block devices, judged by qemu-img,
//! e2fsck and sgdisk. It needs snf-image-host beside snf-customize.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::cli_support::{Guest, Run, snf_customize};
use crate::deployed::{cat, command, fs_size, fsck, run};

const MIB: u64 = 1 << 20;
const ROOT: u64 = 2048;

/// A disk of 80 MiB with a GPT and a guest's root on it.
fn image(dir: &Path) -> PathBuf {
    let path = dir.join("image.raw");
    File::create(&path).unwrap().set_len(80 * MIB).unwrap();
    let script = format!("label: gpt\\nstart={ROOT}, size={}\\n", 64 * 2048);
    run("sh", &["-c", &format!("printf '{script}' | sfdisk -q {}", path.display())]);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    for (index, chunk) in Guest::debian().bytes().chunks(1 << 16).enumerate() {
        if chunk.iter().any(|byte| *byte != 0) {
            file.write_all_at(chunk, ROOT * 512 + ((index as u64) << 16)).unwrap();
        }
    }
    path
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn tool() -> Command {
    let command = snf_customize();
    let host = Path::new(command.get_program()).with_file_name("snf-image-host");
    assert!(host.exists(), "this test needs snf-image-host: cargo build -p snf-image-host");
    command
}

fn deploy(image: &str, target: &Path, options: &[&str]) -> Run {
    Run::of(tool().arg("deploy").arg(image).arg(target).args(options))
}

#[track_caller]
fn done(run: &Run) {
    assert_eq!(run.code, 0, "{}{}", run.stdout, run.stderr);
}

/// The root is clean, fills its partition and has this name.
#[track_caller]
fn check(raw: &Path, hostname: &str) -> u64 {
    let said = run("sgdisk", &["-v", text(raw)]);
    assert!(said.contains("No problems found."), "{said}");
    let name = format!("{}?offset={}", text(raw), ROOT * 512);
    let (code, said) = fsck("-fn", &name);
    assert_eq!(code, 0, "{said}");
    assert_eq!(cat(&name, "/etc/hostname"), format!("{hostname}\n"));
    fs_size(&name)
}

/// The names in a directory, beside those that belong there.
fn others(dir: &Path, known: &[&str]) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    let names = names.map(|name| name.into_string().unwrap());
    names.filter(|name| !known.contains(&name.as_str())).collect()
}

#[test]
fn a_new_file_appears_when_it_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    let (before, target) = (fs::read(&image).unwrap(), dir.path().join("vm.raw"));
    done(&deploy(text(&image), &target, &[]));
    assert!(fs::read(&target).unwrap() == before, "without options it is a copy");
    assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o777, 0o600);
    let there = deploy(text(&image), &target, &["--size", "300M", "--hostname", "vm"]);
    assert_eq!(there.code, 8, "{}", there.stderr);
    assert!(there.stderr.contains("--overwrite"), "{}", there.stderr);
    assert!(fs::read(&target).unwrap() == before);
    let options = ["--overwrite", "--size", "300M", "--hostname", "vm"];
    let grown = deploy(text(&image), &target, &options);
    done(&grown);
    assert!(grown.stdout.contains("deployed"), "{}", grown.stdout);
    assert_eq!(fs::metadata(&target).unwrap().len(), 300 * MIB);
    assert!(check(&target, "vm") > 280 * MIB);
    assert!(fs::read(&image).unwrap() == before);
    // A run that cannot be done leaves nothing, and the old file as it was.
    let whole = fs::read(&target).unwrap();
    for (place, options, part) in [
        ("no.raw", &["--user-password", "nobody-here:hash:!"][..], "was not made"),
        ("no.raw", &["--format", "raw"], "--target-format"),
        ("no.raw", &["--dry-run"], "--dry-run"),
        ("no.raw", &["--size", "10M"], "only made larger"),
        ("vm.raw", &["--overwrite", "--user-password", "nobody-here:hash:!"], "was not made"),
        ("no/where.raw", &[], "no such file"),
    ] {
        let run = deploy(text(&image), &dir.path().join(place), options);
        assert_ne!(run.code, 0, "{options:?}");
        assert!(run.stderr.to_lowercase().contains(part), "{options:?}: {}", run.stderr);
        assert_eq!(others(dir.path(), &["image.raw", "vm.raw"]), Vec::<String>::new());
        assert!(fs::read(&target).unwrap() == whole);
    }
    // Its own image is no target, under no name; and a text is no disk.
    let link = dir.path().join("link.raw");
    fs::hard_link(&image, &link).unwrap();
    for target in [&image, &link] {
        let run = deploy(text(&image), target, &["--overwrite", "--hostname", "vm"]);
        assert!(run.code == 2 && run.stderr.contains("is the image itself"), "{run:?}");
    }
    fs::remove_file(&link).unwrap();
    assert!(fs::read(&image).unwrap() == before);
    let motd = dir.path().join("motd");
    fs::write(&motd, "hello").unwrap();
    let run = deploy(text(&motd), &dir.path().join("motd.raw"), &[]);
    done(&run);
    assert!(run.stderr.contains("no partition table and no file system"), "{run:?}");
    let size = deploy(text(&image), &dir.path().join("x"), &["--size", "10M"]);
    assert!(size.stderr.contains("image.raw has 80 MiB"), "{size:?}");
    let scheme = deploy("ftp://x/y", &dir.path().join("x"), &[]);
    assert!(scheme.stderr.contains("nothing here reads ftp://"), "{scheme:?}");
    let words = deploy(&format!("{}#foo=bar", text(&image)), &dir.path().join("x"), &[]);
    assert!(words.code == 2 && words.stderr.contains("#foo=bar is no option"), "{words:?}");
    let missing = deploy("/no/such.img", &dir.path().join("x"), &[]);
    assert!(missing.code != 0 && missing.stderr.contains("such.img"), "{}", missing.stderr);
}

#[test]
fn a_cut_download_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    OpenOptions::new().write(true).open(&image).unwrap().set_len(30 * MIB).unwrap();
    let run = Run::of(snf_customize().arg("apply").arg(&image).args(["--hostname", "x"]));
    assert_eq!(run.code, 4, "{run:?}");
    let parts = ["image.raw: ", "50 MiB or more are missing at its end"];
    assert!(parts.iter().all(|part| run.stderr.contains(part)), "{run:?}");
}

#[test]
fn qcow2_and_compressed_images() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    let packed = dir.path().join("image.qcow2");
    run("qemu-img", &["convert", "-c", "-O", "qcow2", text(&image), text(&packed)]);
    let target = dir.path().join("vm.qcow2");
    done(&deploy(text(&packed), &target, &["--size", "2G", "--hostname", "vm"]));
    let (code, said) = command("qemu-img", &["check", "-f", "qcow2", text(&target)]);
    assert_eq!(code, 0, "{said}");
    let flat = dir.path().join("flat.raw");
    run("qemu-img", &["convert", "-f", "qcow2", "-O", "raw", text(&target), text(&flat)]);
    assert_eq!(fs::metadata(&flat).unwrap().len(), 2 << 30);
    assert!(check(&flat, "vm") > 1900 * MIB);
    let raw = dir.path().join("vm.raw");
    done(&deploy(text(&packed), &raw, &["--hostname", "raw"]));
    check(&raw, "raw");
    // The size of what comes out of a .gz is known at its end only.
    run("gzip", &["-1", "-k", text(&image)]);
    let gz = dir.path().join("image.raw.gz");
    let sum = run("sha256sum", &[text(&gz)]);
    let id = format!("{}#sha256={}", text(&gz), sum.split(' ').next().unwrap());
    for (name, format) in [("a", "raw"), ("b", "qcow2")] {
        let target = dir.path().join(name);
        done(&deploy(&id, &target, &["--target-format", format]));
        run("qemu-img", &["compare", "-f", "raw", "-F", format, text(&image), text(&target)]);
    }
    let wrong = format!("{}#sha256={}", text(&gz), "0".repeat(64));
    let refused = deploy(&wrong, &dir.path().join("c"), &[]);
    assert_ne!(refused.code, 0);
    assert!(!dir.path().join("c").exists(), "{}", refused.stderr);
}

/// A server that gives half of an image and then nothing more.
#[test]
fn a_run_that_is_ended_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let image = fs::read(image(dir.path())).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/image.raw", listener.local_addr().unwrap());
    let served = image.clone();
    std::thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            let (mut stream, served) = (stream.unwrap(), served.clone());
            // Each has a thread of its own: the first two never end.
            std::thread::spawn(move || {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request);
                let length = served.len();
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
                let _ = stream.write_all(head.as_bytes());
                let half = if number < 2 { length / 2 } else { length };
                let _ = stream.write_all(&served[..half]);
                if number < 2 {
                    std::thread::sleep(Duration::from_secs(60));
                }
            });
        }
    });
    for signal in ["-KILL", "-TERM"] {
        let target = dir.path().join("vm.raw");
        let mut child = tool()
            .arg("deploy")
            .arg(&url)
            .arg(&target)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        run("kill", &[signal, &child.id().to_string()]);
        let started = Instant::now();
        let status = child.wait().unwrap();
        assert!(!status.success() && started.elapsed() < Duration::from_secs(10));
        assert_eq!(others(dir.path(), &["image.raw"]), Vec::<String>::new(), "{signal}");
    }
    let target = dir.path().join("whole.raw");
    done(&deploy(&url, &target, &[]));
    assert!(fs::read(&target).unwrap() == image);
}

#[test]
fn a_block_device_is_used_whole() {
    let dir = tempfile::tempdir().unwrap();
    let image = image(dir.path());
    let attach = |name: &str, mib: u64| {
        let path = dir.path().join(name);
        fs::write(&path, vec![0xee; (mib * MIB) as usize]).unwrap();
        let device = run("losetup", &["-f", "--show", text(&path)]).trim().to_owned();
        (path, device)
    };
    let (small, device) = attach("small", 60);
    let refused = deploy(text(&image), Path::new(&device), &[]);
    run("losetup", &["-d", &device]);
    assert_eq!(refused.code, 5, "{}", refused.stderr);
    assert!(refused.stderr.contains("nothing was written"), "{}", refused.stderr);
    assert!(fs::read(&small).unwrap().iter().all(|byte| *byte == 0xee));
    let (large, device) = attach("large", 200);
    let wrong = deploy(text(&image), Path::new(&device), &["--size", "300M"]);
    let laid = deploy(text(&image), Path::new(&device), &["--hostname", "dev"]);
    run("losetup", &["-d", &device]);
    assert_eq!(wrong.code, 3, "{}", wrong.stderr);
    done(&laid);
    assert!(check(&large, "dev") > 190 * MIB);
}
