//! qcow2 images as qemu-img makes them, and damaged ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use snf_image_host::disk::target::Target;
use snf_image_host::image::copy::{Settle, copy_image};
use snf_image_host::image::source::qcow2::Qcow2Image;
use snf_image_host::image::source::{ImageReader, Part, SourceError};
use snf_image_host::node::cancel::Cancel;
use snf_image_host::node::log;

fn qemu_img(args: &[&str]) {
    let out = Command::new("qemu-img").args(args).output().expect("qemu-img must be installed");
    assert!(out.status.success(), "{args:?}: {out:?}");
}

/// A raw disk with holes, text, numbers and noise.
fn raw(path: &Path, size: u64) {
    let file = File::create(path).unwrap();
    file.set_len(size).unwrap();
    let mut noise = 12345u32;
    let mut block = |kind: u32| -> Vec<u8> {
        (0..100_000u32)
            .map(|n| match kind {
                0 => b"some text that compresses well "[n as usize % 31],
                1 => n as u8,
                _ => {
                    noise ^= noise << 13;
                    noise ^= noise >> 17;
                    noise ^= noise << 5;
                    noise as u8
                }
            })
            .collect()
    };
    for (n, at) in (0..).zip([0, 130_000, 3_000_000, 5_111_808, 9_000_001]) {
        let data = block(n % 3);
        let room = size.saturating_sub(at).min(data.len() as u64) as usize;
        file.write_all_at(&data[..room], at).unwrap();
    }
    file.write_all_at(b"end", size - 3).unwrap();
}

fn read(path: &Path) -> Result<Vec<u8>, SourceError> {
    let mut image = Qcow2Image::new(File::open(path).unwrap(), "x")?;
    let size = image.size().unwrap();
    let mut all = Vec::new();
    let mut buf = vec![0; 4 << 20];
    loop {
        match image.next(&mut buf)? {
            Part::Data(n) => all.extend_from_slice(&buf[..n]),
            Part::Zero(n) => all.resize(all.len() + usize::try_from(n).unwrap(), 0),
            Part::End => break,
        }
        assert!(all.len() as u64 <= size && size < 1 << 32);
    }
    assert_eq!(all.len() as u64, size);
    Ok(all)
}

#[test]
fn what_qemu_img_writes() {
    let dir = tempfile::tempdir().unwrap();
    let (source, image) = (dir.path().join("raw"), dir.path().join("image"));
    let disk = dir.path().join("disk");
    for size in [10 << 20, (9 << 20) + 512] {
        raw(&source, size);
        let expected = fs::read(&source).unwrap();
        for options in [
            &["-o", "compat=0.10"][..],
            &["-o", "compat=1.1"],
            &["-o", "cluster_size=512"],
            &["-o", "cluster_size=2M"],
            &["-c"],
            &["-c", "-o", "compat=0.10"],
            &["-c", "-o", "cluster_size=4k"],
            &["-c", "-o", "cluster_size=2M"],
            &["-c", "-o", "compression_type=zstd"],
            &["-c", "-o", "compression_type=zstd,cluster_size=2M"],
            &["-o", "preallocation=metadata"],
            &["-o", "lazy_refcounts=on"],
            &["-o", "extended_l2=on"],
            &["-c", "-o", "extended_l2=on"],
        ] {
            let paths = [source.to_str().unwrap(), image.to_str().unwrap()];
            qemu_img(&[&["convert", "-f", "raw", "-O", "qcow2"], options, &paths].concat());
            assert!(read(&image).unwrap() == expected, "{size} {options:?}");
            // And laid onto a file, in pieces that the copy chooses.
            File::create(&disk).unwrap().set_len(size).unwrap();
            let qcow2 = Box::new(Qcow2Image::new(File::open(&image).unwrap(), "x").unwrap());
            let mut target = Target::open(&disk).unwrap();
            let cancel = Cancel::new();
            copy_image(qcow2, &mut target, 0, Settle::Now, &cancel, &mut |_, _| {}).unwrap();
            assert!(fs::read(&disk).unwrap() == expected, "copied: {size} {options:?}");
        }
    }
    let path = image.to_str().unwrap();
    qemu_img(&["create", "-q", "-f", "qcow2", path, "1G"]);
    let mut empty = Qcow2Image::new(File::open(&image).unwrap(), "x").unwrap();
    assert_eq!(empty.next(&mut [0; 65536]).unwrap(), Part::Zero(1 << 30));
}

#[test]
fn other_files_are_never_opened() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let path = image.to_str().unwrap();
    let error = || log::chain(&read(&image).unwrap_err());
    fs::write(dir.path().join("base"), vec![1; 1 << 20]).unwrap();
    let base = dir.path().join("base");
    qemu_img(&["create", "-q", "-f", "qcow2", "-b", base.to_str().unwrap(), "-F", "raw", path]);
    assert!(error().contains("has a backing file, which is never opened"), "{}", error());
    let data = format!("data_file={}", dir.path().join("data").display());
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", &data, path, "1M"]);
    assert!(error().contains("keeps its data in an external data file"), "{}", error());
    fs::write(&image, vec![0; 1000]).unwrap();
    assert!(error().contains("is not a qcow2 image"), "{}", error());
    fs::write(&image, b"").unwrap();
    assert!(error().contains("is not a qcow2 image"), "{}", error());
}

#[test]
fn damage_is_an_error_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let (source, image) = (dir.path().join("raw"), dir.path().join("image"));
    raw(&source, 1 << 20);
    for options in [&["-o", "cluster_size=4k"][..], &["-c", "-o", "compression_type=zstd"], &["-c"]]
    {
        let paths = [source.to_str().unwrap(), image.to_str().unwrap()];
        qemu_img(&[&["convert", "-f", "raw", "-O", "qcow2"], options, &paths].concat());
        let good = fs::read(&image).unwrap();
        let mut state = 88172645463325252u64;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut refused = 0;
        for round in 0..400 {
            let mut bytes = good.clone();
            if round % 4 == 0 {
                bytes.truncate(random() as usize % good.len());
            } else {
                // The header and tables, or anywhere.
                let area = if round % 2 == 0 { 112 } else { good.len() };
                for _ in 0..1 + random() % 4 {
                    let at = random() as usize % area;
                    bytes[at] = random() as u8;
                }
            }
            fs::write(&image, &bytes).unwrap();
            let Ok(mut found) = Qcow2Image::new(File::open(&image).unwrap(), "x") else {
                refused += 1;
                continue;
            };
            let mut buf = vec![0; 4 << 20];
            // A damaged size may be huge: the reader must get through it in few steps.
            for _ in 0..10_000 {
                match found.next(&mut buf) {
                    Ok(Part::End) => break,
                    Ok(_) => {}
                    Err(_) => {
                        refused += 1;
                        break;
                    }
                }
            }
        }
        assert!(refused > 100, "{refused}");
    }
}
