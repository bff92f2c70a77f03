//! Everything that goes wrong around a deployment: the right exit status, one sentence, nothing left over,
//! no bytes of one instance on the disk of another.
#![cfg(feature = "network")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use crate::common::node::{MARK_AT, Node, ended, noise, running_vm, signal, sparse, wait_for};
use snf_image_host::disk::target::Target;
use snf_image_host::image::copy::{Settle, copy_image};
use snf_image_host::image::source::raw::RawImage;
use snf_image_host::node::cancel::Cancel;

/// The most time that a signal takes to end a deployment, on a machine that is busy with other tests.
const SOON: Duration = Duration::from_secs(20);

/// How a server fails.
#[derive(Clone, Copy, PartialEq)]
enum Fails {
    /// It takes the request and says nothing.
    Mute,
    /// It stops within the body and keeps the connection.
    Stalls,
    /// It dies within the body: later connections are refused.
    Dies,
}

/// Answers with the head of a file of 32 MiB and some of it. The receiver hears of each request
/// that has got all it will get.
fn server(fails: Fails) -> (String, Receiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept() {
            let _ = answer(&mut stream, fails);
            let _ = sender.send(());
            if fails == Fails::Dies {
                return;
            }
            open.push(stream);
        }
    });
    (address, receiver)
}

fn answer(stream: &mut TcpStream, fails: Fails) -> std::io::Result<()> {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte)? > 0 {
        request.push(byte[0]);
    }
    if fails == Fails::Mute {
        return Ok(());
    }
    stream.write_all(
        b"HTTP/1.1 200 OK\r\nContent-Length: 33554432\r\nAccept-Ranges: bytes\r\nETag: \"x\"\r\n\r\n",
    )?;
    stream.write_all(&noise(1, 9 << 20))
}

#[test]
fn signals_before_and_within_the_copy() {
    // The head of the image's answer, the text that config_url leads to, the middle of the image.
    for (variable, fails) in [
        ("OSP_IMG_ID", Fails::Mute),
        ("OSP_CONFIG_URL", Fails::Mute),
        ("OSP_IMG_ID", Fails::Stalls),
    ] {
        for name in ["TERM", "INT", "HUP", "KILL"] {
            let node = Node::new();
            let disk = node.path("disk");
            fs::write(&disk, vec![0xaa; 40 << 20]).unwrap();
            let (address, asked) = server(fails);
            let mut create = node.create("inst1", "image", &disk);
            let child = create.env(variable, format!("http://{address}/x")).spawn().unwrap();
            asked.recv_timeout(Duration::from_secs(60)).expect("nobody asked the server");
            let started = Instant::now();
            signal(&child, name);
            let out = child.wait_with_output().unwrap();
            assert!(started.elapsed() < SOON, "{variable} {name}");
            let log = ended(&out, if name == "KILL" { None } else { Some(1) });
            if name != "KILL" {
                let last = log.lines().last().unwrap_or_default();
                assert!(last.contains("stopped by signal"), "{variable} {name}: {log}");
            }
            node.assert_nothing_left();
            let bytes = fs::read(&disk).unwrap();
            assert_eq!(bytes.len(), 40 << 20);
            if fails == Fails::Mute {
                assert!(bytes.iter().all(|byte| *byte == 0xaa), "the disk was touched");
            }
        }
    }
}

#[test]
fn signals_within_the_vm() {
    for name in ["TERM", "INT", "HUP", "KILL"] {
        let node = Node::new();
        let disk = node.path("disk");
        sparse(&disk, 8 << 20);
        fs::write(node.path("images/small"), noise(2, 1 << 20)).unwrap();
        node.vm_sleeps(true);
        // A monitor that does not look at the end of its input ends with us, too.
        let monitor = node.program("monitor", "#!/bin/sh\nwhile :; do sleep 1; done\n");
        node.configure(&format!("PROGRESS_MONITOR=\"{}\"\n", monitor.display()));
        let child = node.create("inst1", "small", &disk).spawn().unwrap();
        let vm = running_vm(&node);
        let started = Instant::now();
        signal(&child, name);
        let out = child.wait_with_output().unwrap();
        assert!(started.elapsed() < SOON, "{name}");
        let log = ended(&out, if name == "KILL" { None } else { Some(1) });
        if name != "KILL" {
            let last = log.lines().last().unwrap_or_default();
            assert!(last.contains("stopped by signal"), "{name}: {log}");
        }
        wait_for("the end of the VM", || {
            let stat = fs::read_to_string(format!("/proc/{vm}/stat"));
            stat.map_or(true, |stat| stat.contains(") Z ")).then_some(())
        });
        node.assert_nothing_left();
    }
}

/// A file system of its own; gone when dropped.
struct Mount(tempfile::TempDir);

impl Mount {
    fn tmpfs(size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let options = format!("size={size}");
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &options, "tmpfs"])
            .arg(dir.path())
            .status();
        assert!(mount.unwrap().success(), "this test must run as root");
        Self(dir)
    }

    /// A file system of `mib` MiB on a file.
    fn on_a_file(mkfs: &[&str], mib: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(mib << 20).unwrap();
        let run = |command: &mut Command| assert!(command.status().unwrap().success());
        run(Command::new(mkfs[0]).args(&mkfs[1..]).arg(image.path()));
        // The file has no name any more once this ends, and goes with the mount.
        run(Command::new("mount").args(["-o", "loop"]).arg(image.path()).arg(dir.path()));
        Self(dir)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let busy = || !Command::new("umount").arg(self.0.path()).status().unwrap().success();
        for _ in 0..50 {
            if !busy() {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn a_full_disk() {
    let node = Node::new();
    fs::write(node.path("images/large"), noise(3, 48 << 20)).unwrap();
    for mount in [Mount::tmpfs("16m"), Mount::on_a_file(&["mke2fs", "-q", "-F", "-t", "ext4"], 32)]
    {
        // The disk is sparse: that there is no room for it is only seen when it is written.
        let disk = mount.0.path().join("disk");
        sparse(&disk, 64 << 20);
        let out = node.create("inst1", "large", &disk).output().unwrap();
        let log = ended(&out, Some(1));
        let last = log.lines().last().unwrap_or_default();
        assert!(last.contains("its storage is full"), "{log}");
        assert!(last.contains("/disk at byte "), "{log}");
        assert_eq!(fs::metadata(&disk).unwrap().len(), 64 << 20);
        node.assert_nothing_left();
    }
}

#[test]
fn blocks_are_shared_where_they_can_be() {
    let mount = Mount::on_a_file(&["mkfs.xfs", "-q", "-m", "reflink=1"], 320);
    let (image, disk) = (mount.0.path().join("image"), mount.0.path().join("disk"));
    // Not a whole number of blocks, and holes that the disk had old bytes in.
    let size = (9 << 20) + 777;
    sparse(&image, size);
    let file = fs::File::options().write(true).open(&image).unwrap();
    file.write_all_at(&noise(6, 3 << 20), 0).unwrap();
    file.write_all_at(&noise(7, (2 << 20) + 777), 7 << 20).unwrap();
    let image_bytes = fs::read(&image).unwrap();
    for offset in [0, 1 << 20] {
        fs::write(&disk, vec![0xaa; 16 << 20]).unwrap();
        let source = RawImage::new(fs::File::open(&image).unwrap(), "x").unwrap();
        let mut target = Target::open(&disk).unwrap();
        let report = copy_image(
            Box::new(source),
            &mut target,
            offset,
            Settle::Now,
            &Cancel::new(),
            &mut |_, _| {},
        );
        assert_eq!(report.unwrap().size, size);
        let mut expected = vec![0xaa; offset as usize];
        expected.extend(&image_bytes);
        expected.resize(16 << 20, 0);
        assert!(fs::read(&disk).unwrap() == expected, "{offset}");
        let map = Command::new("filefrag").arg("-v").arg(&disk).output().unwrap();
        assert!(String::from_utf8_lossy(&map.stdout).contains("shared"), "{offset}: {map:?}");
    }
}

#[test]
fn monitors_that_die_or_do_not_listen() {
    let node = Node::new();
    fs::write(node.path("images/small"), noise(4, 1 << 20)).unwrap();
    for (text, warns) in [
        ("exit 1", true),
        ("head -n 1 >/dev/null; exit 0", false),
        ("exec sleep 1000", false),
        ("kill -9 $$", true),
    ] {
        let disk = node.path("disk");
        sparse(&disk, 8 << 20);
        let monitor = node.program("monitor", &format!("#!/bin/sh\n{text}\n"));
        node.configure(&format!("PROGRESS_MONITOR=\"{}\"\n", monitor.display()));
        let started = Instant::now();
        let out = node.create("inst1", "small", &disk).output().unwrap();
        assert!(started.elapsed() < SOON, "{text}");
        let log = ended(&out, Some(0));
        // Whether a message is sent after its end is up to chance: more than one warning is not.
        let count = log.matches("does not listen any more").count();
        assert!(
            count <= 1 && (count == 1 || !warns || !log.contains("[MONITOR]")),
            "{text}: {log}"
        );
        let bytes = fs::read(&disk).unwrap();
        assert!(bytes[MARK_AT..].starts_with(b"customized as inst1\n"), "{text}");
        node.assert_nothing_left();
    }
}

#[test]
fn a_bar_on_a_terminal_and_quiet_logs() {
    let node = Node::new();
    fs::write(node.path("images/image"), noise(8, 40 << 20)).unwrap();
    let disk = node.path("disk");
    sparse(&disk, 64 << 20);
    let mut create = node.create("inst1", "image", &disk);
    let log = ended(&create.output().unwrap(), Some(0));
    assert!(!log.contains('\r'), "{log}");
    assert!(log.matches("image-copy-progress").count() <= 2 && log.lines().count() < 12, "{log}");
    // script(1) gives it a terminal.
    let line = format!("exec {} create", create.get_program().display());
    let mut script = Command::new("script");
    script.args(["-qec", &line, "/dev/null"]).env_clear().stdin(Stdio::null());
    script.envs(create.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let out = script.output().expect("script must be installed (bsdutils)");
    let shown = String::from_utf8(out.stdout).unwrap();
    assert!(out.status.success(), "{shown}");
    assert!(shown.contains("\r[====") && shown.contains("100 % of 40 MiB"), "{shown}");
    assert!(!shown.contains("image-copy-progress"), "{shown}");
}

#[test]
fn servers_that_die() {
    let node = Node::new();
    let disk = node.path("disk");
    let refused = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().to_string()
    };
    for (address, touched) in [(refused, false), (server(Fails::Dies).0, true)] {
        fs::write(&disk, vec![0xaa; 40 << 20]).unwrap();
        let id = format!("http://someone:secret@{address}/image?token=secret");
        let out = node.create("inst1", &id, &disk).output().unwrap();
        let log = ended(&out, Some(1));
        let last = log.lines().last().unwrap_or_default();
        assert!(last.contains(&format!("cannot read the image http://{address}/image")), "{log}");
        assert!(!log.contains("secret"), "{log}");
        let same = fs::read(&disk).unwrap().iter().all(|byte| *byte == 0xaa);
        assert_eq!(same, !touched, "{log}");
        node.assert_nothing_left();
    }
}

#[test]
fn twenty_at_once() {
    const SIZE: usize = 3 << 20;
    let node = Node::new();
    for n in 0..20 {
        fs::write(node.path(&format!("images/image{n}")), noise(100 + n, SIZE)).unwrap();
        fs::write(node.path(&format!("disk{n}")), vec![0xaa; 8 << 20]).unwrap();
    }
    let all: Vec<_> = (0..20)
        .map(|n| {
            let (image, disk) = (format!("image{n}"), node.path(&format!("disk{n}")));
            node.create(&format!("inst{n}"), &image, &disk).spawn().unwrap()
        })
        .collect();
    for (n, child) in all.into_iter().enumerate() {
        let log = ended(&child.wait_with_output().unwrap(), Some(0));
        assert!(log.contains(&format!("copying image{n} to ")), "{log}");
        let mut expected = noise(100 + n as u64, SIZE);
        let mark = format!("customized as inst{n}\n");
        expected[MARK_AT..MARK_AT + mark.len()].copy_from_slice(mark.as_bytes());
        expected.resize(8 << 20, 0);
        assert!(fs::read(node.path(&format!("disk{n}"))).unwrap() == expected, "inst{n}");
    }
    node.assert_nothing_left();
}

/// Peak memory in KiB of a command that must succeed.
fn peak(command: &Command) -> u64 {
    let script = "import resource, subprocess, sys\n\
        subprocess.run(sys.argv[1:], check=True, stderr=subprocess.DEVNULL)\n\
        print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)";
    let mut python = Command::new("python3");
    python.args(["-c", script]).arg(command.get_program()).args(command.get_args()).env_clear();
    python.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let out = python.stdin(Stdio::null()).output().expect("python3 must be installed");
    assert!(out.status.success(), "{out:?}");
    String::from_utf8(out.stdout).unwrap().trim().parse().unwrap()
}

#[test]
fn memory_does_not_grow_with_the_image() {
    let node = Node::new();
    let images = node.path("images");
    let raw = images.join("large");
    // 1 TiB, 80 MiB of it data that hardly compresses, and text that does.
    sparse(&raw, 1 << 40);
    let file = fs::File::options().write(true).open(&raw).unwrap();
    for n in 0..80 {
        file.write_all_at(&noise(n, 1 << 20), n * (1 << 33)).unwrap();
    }
    let shell = |script: &str| {
        let status = Command::new("sh").args(["-ec", script]).current_dir(&images).status();
        assert!(status.unwrap().success(), "{script}");
    };
    shell("qemu-img convert -f raw -O qcow2 large plain.qcow2");
    shell("qemu-img convert -f raw -O qcow2 -c -o compression_type=zstd large packed.qcow2");
    // A compressed stream holds its zeros: 96 MiB are as telling as 1 TiB.
    fs::write(images.join("part"), b"text that packers are quick with".repeat(3 << 20)).unwrap();
    shell("gzip -1 -c part >part.gz; zstd -q -19 part -o part.zst; xz -0 -c part >part.xz");
    for (id, size) in [
        ("large", 1 << 40),
        ("plain.qcow2", 1 << 40),
        ("packed.qcow2", 1 << 40),
        ("part.gz", 128 << 20),
        ("part.zst", 128 << 20),
        ("part.xz", 128 << 20),
    ] {
        let disk = node.path("disk");
        sparse(&disk, size);
        let mut create = node.create("inst1", id, &disk);
        let kib = peak(create.env("OSP_IMG_PASSWD", "hashing takes memory, too"));
        println!("{id}: {} MiB", kib >> 10);
        assert!(kib < 64 << 10, "{id}: {kib} KiB");
        assert!(allocated(&disk) < 200 << 20);
    }
}

fn allocated(path: &Path) -> u64 {
    std::os::unix::fs::MetadataExt::blocks(&fs::metadata(path).unwrap()) * 512
}
