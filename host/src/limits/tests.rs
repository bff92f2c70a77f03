//! One more than each bound allows is refused.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::*;
use crate::backend::{Backends, Kind, Settings};
use crate::disk::storage;
use crate::helper::qmp::Qmp;
use crate::image::fetch::{self, FetchError};
use crate::image::policy::Policy;
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
        // Whoever takes the greeting goes on to log in.
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
            let unpack = crate::helper::unpack::unpack;
            let kernel = unpack(crate::helper::unpack::Compression::Zstd, &frame, 1 << 20).is_ok();
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
