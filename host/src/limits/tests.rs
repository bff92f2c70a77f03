//! One more than each bound allows is refused.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::backend::{Backends, Kind, Settings};
use crate::disk::storage;
use crate::helper::init_file::{InitProblem, init_problem};
use crate::helper::kernel::{BzImage, KernelError};
use crate::helper::modules::ModuleTree;
use crate::helper::qmp::Qmp;
use crate::helper::unpack::{Compression as Packed, unpack};
use crate::image::fetch::{self, FetchError};
use crate::image::pace::{self, Pace};
use crate::image::policy::Policy;
use crate::image::source::http;
use crate::image::source::id::{Compression, ImageId};
use crate::image::source::packed::decompress;
use crate::image::source::sums;
use crate::node::cancel::Cancel;
use crate::node::config::Config;
use crate::node::env::Environment;

/// A folder, and a configuration that may read its files and ask this machine.
fn lab() -> (tempfile::TempDir, Config) {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        image_files: dir.path().display().to_string().parse().unwrap(),
        image_hosts: "127.0.0.1".parse().unwrap(),
        backends_dir: dir.path().join("backends"),
        ..Config::default()
    };
    (dir, config)
}

fn file(dir: &Path, name: &str, content: &[u8]) -> String {
    std::fs::write(dir.join(name), content).unwrap();
    format!("file://{}", dir.join(name).display())
}

/// A text from a server that says these lines, one after each line that it hears.
fn ftp_answers(first: &[u8]) -> bool {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    let first = first.to_vec();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        let _ = stream.write_all(&first);
        let mut line = String::new();
        // A server that takes the greeting goes on to log in.
        BufReader::new(stream).read_line(&mut line).unwrap_or(0) > 0
    });
    let (_dir, config) = lab();
    let _ = fetch::small(&format!("ftp://127.0.0.1:{port}/x"), &Policy::of(&config).unwrap());
    thread.join().unwrap()
}

/// The option replies of an NBD server, each with its kind and data.
fn nbd_takes(replies: &[(u32, Vec<u8>)]) -> bool {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut bytes = b"NBDMAGICIHAVEOPT\0\x01".to_vec();
    for (kind, data) in replies {
        bytes.extend(0x0003_e889_0455_65a9_u64.to_be_bytes());
        bytes.extend(7_u32.to_be_bytes());
        bytes.extend(kind.to_be_bytes());
        bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend(data);
    }
    std::thread::spawn(move || {
        let _ = theirs.write_all(&bytes);
        let _ = theirs.read_to_end(&mut Vec::new());
    });
    storage::connect(ours, "disk", &Cancel::new()).is_ok()
}

fn export_info() -> (u32, Vec<u8>) {
    (3, [&[0, 0][..], &(1_u64 << 20).to_be_bytes(), &[0, 1]].concat())
}

/// The output of a program for some bytes.
fn packed(program: &[&str], content: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program[0])
        .args(&program[1..])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("this test needs {}: {error}", program[0]));
    child.stdin.take().unwrap().write_all(content).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    output.stdout
}

/// A stream of xz's whose header asks for a dictionary of this size.
fn xz_with_dictionary(code: u8) -> Vec<u8> {
    let mut stream = packed(&["xz", "-c", "-0"], b"abc");
    // After the 12 bytes of the stream's header: size, flags, LZMA2 and the size of its properties,
    // the dictionary, padding, CRC-32.
    assert_eq!(stream[12..16], [2, 0, 0x21, 1]);
    stream[16] = code;
    let mut crc = flate2::Crc::new();
    crc.update(&stream[12..20]);
    stream[20..24].copy_from_slice(&crc.sum().to_le_bytes());
    stream
}

fn gzip_of_zeros(count: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let piece = vec![0; 1 << 20];
    let mut left = count;
    while left > 0 {
        let these = left.min(piece.len());
        encoder.write_all(&piece[..these]).unwrap();
        left -= these;
    }
    encoder.finish().unwrap()
}

/// An ELF file whose only section is `.modinfo`, which holds its own name, too.
fn module(info: &str) -> Vec<u8> {
    let content = format!(".modinfo\0{info}");
    let mut elf = vec![0; 128];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    // e_machine, e_shoff, e_shentsize, e_shnum; sh_offset and sh_size of the section.
    elf[18] = 62;
    elf[40] = 64;
    elf[58] = 64;
    elf[60] = 1;
    elf[64 + 24] = 128;
    elf[64 + 32..64 + 40].copy_from_slice(&(content.len() as u64).to_le_bytes());
    elf.extend(content.as_bytes());
    elf
}

/// Whether a text is reached after so many redirects.
fn redirected(many: usize, policy: &Policy) -> bool {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for number in 0..=many {
            let Ok((mut stream, _)) = server.accept() else { return };
            let mut reader = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                if reader.read_line(&mut line).unwrap_or(0) == 0 {
                    break;
                }
            }
            let head = match number < many {
                true => format!("302 Found\r\nLocation: /{}\r\nContent-Length: 0", number + 1),
                false => "200 OK\r\nContent-Length: 2".to_owned(),
            };
            let body = if number < many { "" } else { "{}" };
            let answer = format!("HTTP/1.1 {head}\r\nConnection: close\r\n\r\n{body}");
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    fetch::small(&format!("http://127.0.0.1:{port}/0"), policy).is_ok()
}

/// Whether `amount` of what the limit bounds is taken.
fn takes(limit: &Limit, amount: u64) -> bool {
    let many = usize::try_from(amount).unwrap();
    let (dir, config) = lab();
    let policy = Policy::of(&config).unwrap();
    match limit.of {
        "URL" => {
            let url = format!("file:///{}", "x".repeat(many - 8));
            let id = url.parse::<ImageId>().is_ok();
            let fetched = fetch::small(&url, &policy).unwrap_err();
            let text = !matches!(fetched, FetchError::Url(_));
            assert_eq!(id, text, "img_id and texts differ");
            id
        }
        "text of a URL" => {
            fetch::small(&file(dir.path(), "text", &vec![b' '; many]), &policy).is_ok()
        }
        "configuration" => {
            file(dir.path(), "config", &vec![b'\n'; many]);
            Config::load(Some(&dir.path().join("config")), None).is_ok()
        }
        "list of checksums" => {
            file(dir.path(), "SHA256SUMS", &vec![b'\n'; many]);
            sums::beside(dir.path(), "image").is_ok()
        }
        "devices" => {
            let variable = |name: &str, value: String| (name.into(), value.into());
            let mut all = vec![
                variable("DISK_COUNT", many.to_string()),
                variable("NIC_COUNT", many.to_string()),
            ];
            all.extend((0..many).map(|n| variable(&format!("DISK_{n}_PATH"), "/x".into())));
            let env = Environment::from_vars(all);
            assert_eq!(env.disks().is_ok(), env.nic_variables().is_ok());
            env.disks().is_ok()
        }
        "window of zstd" => {
            // A frame without content and with this window.
            let window = u8::try_from((amount - 10) << 3).unwrap();
            let frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, window, 1, 0, 0];
            let kernel = unpack(Packed::Zstd, &frame, 1 << 20).is_ok();
            let mut image = decompress(std::io::Cursor::new(frame), Compression::Zstd).unwrap();
            let image = image.read_to_end(&mut Vec::new()).is_ok();
            assert_eq!(image, kernel, "images and kernels differ");
            image
        }
        "reply of an FTP server" => {
            let reply = [b"220 ", &vec![b'x'; many - 6][..], b"\r\n"].concat();
            ftp_answers(&reply)
        }
        "message of QEMU" => {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let greeting =
                format!("{{\"QMP\": {{}}}}{}\n{{\"return\": 0}}\n", " ".repeat(many - 11));
            std::thread::spawn(move || {
                let _ = theirs.write_all(greeting.as_bytes());
                let _ = theirs.read_to_end(&mut Vec::new());
            });
            let deadline = Instant::now() + Duration::from_secs(30);
            Qmp::open(ours, deadline, &Cancel::new()).is_ok()
        }
        "text of an NBD server" => nbd_takes(&[(3, vec![9; many]), export_info(), (1, Vec::new())]),
        "replies of an NBD server" => {
            let mut replies = vec![export_info(); many - 1];
            replies.push((1, Vec::new()));
            nbd_takes(&replies)
        }
        "dictionary of xz" => {
            let code = u8::try_from(amount).unwrap();
            let stream = xz_with_dictionary(code);
            let kernel = unpack(Packed::Xz, &stream, 1 << 20).is_ok();
            let mut image = decompress(std::io::Cursor::new(stream), Compression::Xz).unwrap();
            let image = image.read_to_end(&mut Vec::new()).is_ok();
            assert_eq!(image, kernel, "images and kernels differ");
            image
        }
        "dictionary of lzma" => {
            let size = u32::try_from(amount << 20).unwrap();
            let mut stream = packed(&["xz", "-c", "--format=lzma"], b"abc");
            stream[1..5].copy_from_slice(&size.to_le_bytes());
            unpack(Packed::Lzma, &stream, 1 << 20).is_ok()
        }
        "kernel file" => {
            let path = dir.path().join("vmlinuz");
            std::fs::File::create(&path).unwrap().set_len(amount).unwrap();
            // It is none, which is seen when it has been read.
            !matches!(BzImage::read(&path).unwrap_err(), KernelError::Read { .. })
        }
        "kernel" => unpack(Packed::Gzip, &gzip_of_zeros(many), KERNEL_BYTES).is_ok(),
        "module file" | "module" => {
            let (name, content) = match limit.of {
                "module" => ("m.ko.gz", gzip_of_zeros(many)),
                _ => ("m.ko", vec![0; many]),
            };
            std::fs::create_dir(dir.path().join("kernel")).unwrap();
            std::fs::write(dir.path().join("kernel").join(name), content).unwrap();
            let tree = ModuleTree::open(dir.path(), "1").unwrap();
            // It is none, which is seen when it has been read.
            let error = tree.closure(&["m"]).unwrap_err();
            crate::node::log::chain(&error).contains("not a kernel module")
        }
        "modules" => {
            std::fs::create_dir(dir.path().join("kernel")).unwrap();
            for number in 1..=many {
                let next = if number < many { format!("m{}", number + 1) } else { String::new() };
                let path = dir.path().join(format!("kernel/m{number}.ko"));
                std::fs::write(path, module(&format!("depends={next}\0"))).unwrap();
            }
            ModuleTree::open(dir.path(), "1").unwrap().closure(&["m1"]).is_ok()
        }
        "init" => {
            let mut elf = vec![0; many];
            elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
            elf[18] = 62;
            match init_problem(&elf).unwrap_err() {
                InitProblem::TooLarge(_) => false,
                InitProblem::NotOurs => true,
                other => panic!("{other}"),
            }
        }
        "redirects" => redirected(many, &policy),
        "time for a text" => {
            let now = Instant::now();
            pace::left_at(now + Duration::from_millis(amount), now + policy.patience).is_ok()
        }
        "time for an image" => {
            let mut pace = Pace::new(0, policy.image_patience);
            pace.add(1, Duration::from_secs(amount)).is_ok()
        }
        "time for a byte of an image" => {
            let mut pace = Pace::new(policy.min_rate, policy.image_patience);
            pace.add(60_000_000 / amount, Duration::from_secs(60)).is_ok()
        }
        "silence" => Duration::from_secs(amount) <= http::times(&policy).0,
        "time to connect" => Duration::from_secs(amount) <= http::times(&policy).1,
        "answer of a back-end" => {
            let source = dir.path().join("backends/src");
            std::fs::create_dir_all(&source).unwrap();
            let script = format!("#!/bin/sh\nhead -c {many} /dev/zero | tr '\\0' ' '\n");
            std::fs::write(source.join("10-lots"), script).unwrap();
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(source.join("10-lots"), mode).unwrap();
            let backends = Backends::read(&Settings::of(&config), Kind::Source).unwrap();
            backends.choose("lots://x", None, &Cancel::new()).is_ok()
        }
        other => panic!("no case for the limit of {other}"),
    }
}

#[test]
fn each_bound_holds_and_is_no_lower() {
    for limit in LIMITS {
        assert!(takes(limit, limit.most), "{}: {} {}", limit.of, limit.most, limit.unit);
        assert!(!takes(limit, limit.most + 1), "{}: one more than {}", limit.of, limit.most);
        assert!(!limit.why.is_empty() && !limit.unit.is_empty());
    }
}
