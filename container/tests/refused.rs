//! Images that are refused, each with a sentence that says what and what to do; bitmaps.

use std::path::{Path, PathBuf};
use std::process::Command;

use snf_container::GrowableFile;
use snf_container::qcow2::{Error, Options, Qcow2};
use snf_fs::BlockDevice;

use crate::support::{
    Place, assert_clean, assert_same, open_file, qemu_img, qemu_io, read_all, text,
};

fn open(path: &Path, options: Options) -> Result<Qcow2, Error> {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    Qcow2::open(GrowableFile::new(file).unwrap(), options)
}

fn image(place: &Place, options: &[&str]) -> PathBuf {
    let path = place.path("image");
    let args = [&["create", "-q", "-f", "qcow2"], options, &[text(&path), "1M"]].concat();
    qemu_img(&args);
    path
}

/// Sets bits in the header's `incompatible_features` (72), or other fields.
fn patch(path: &Path, at: usize, bytes: &[u8]) {
    let mut all = std::fs::read(path).unwrap();
    all[at..at + bytes.len()].copy_from_slice(bytes);
    std::fs::write(path, all).unwrap();
}

/// Every row of "refused" in docs/containers.md.
#[test]
fn what_is_refused_is_named() {
    let place = Place::new();
    let path = image(&place, &[]);
    let refused = |path: &Path, words: &str| {
        for options in [Options::read_only(), Options::writable()] {
            let said = open(path, options).unwrap_err().to_string();
            assert!(said.contains(words), "{said}");
        }
    };
    patch(&path, 32, &2u32.to_be_bytes());
    refused(&path, "is encrypted (LUKS); decrypt it with qemu-img convert");
    patch(&path, 32, &1u32.to_be_bytes());
    refused(&path, "is encrypted (AES); decrypt it");
    let data = format!("data_file={}", text(&place.path("data")));
    let path = image(&place, &["-o", &data]);
    refused(&path, "keeps its data in an external data file");
    let path = image(&place, &[]);
    patch(&path, 79, &[2]);
    refused(&path, "is marked corrupt; repair it with qemu-img check -r all");
    patch(&path, 79, &[4]);
    refused(&path, "external data file");
    // Bit 3 without a compression type.
    patch(&path, 79, &[8]);
    refused(&path, "compression_type 0 contradicts the feature bit");
    patch(&path, 104, &[9]);
    refused(&path, "compresses with the unknown method 9");
    let path = image(&place, &[]);
    patch(&path, 76, &[1]);
    refused(&path, "needs the unknown feature \"no name\" (incompatible bit 24)");
    // The first name in the table becomes that of bit 24.
    let bytes = std::fs::read(&path).unwrap();
    let table = bytes.windows(4).position(|four| four == [0x68, 0x03, 0xf8, 0x57]).unwrap();
    patch(&path, table + 9, &[24]);
    refused(&path, "needs the unknown feature \"dirty bit\" (incompatible bit 24)");
    patch(&path, 4, &4u32.to_be_bytes());
    refused(&path, "is qcow2 of version 4");
    patch(&path, 0, b"QFI?");
    refused(&path, "not a qcow2 image");
    std::fs::write(&path, b"QFI").unwrap();
    refused(&path, "not a qcow2 image");
}

/// An image as QEMU leaves it when it is killed: its refcounts are out of date.
#[test]
fn a_dirty_image_is_read_and_not_changed() {
    let place = Place::new();
    let path = image(&place, &["-o", "lazy_refcounts=on"]);
    let args = ["-f", "qcow2", "-c", "write -P 5 0 512k", "-c", "flush", "-c", "sigraise 9"];
    let status = Command::new("qemu-io").args(args).arg(&path).output().unwrap().status;
    assert!(!status.success());
    assert_eq!(std::fs::read(&path).unwrap()[79] & 1, 1);
    let said = open(&path, Options::writable()).unwrap_err().to_string();
    assert_eq!(said, "is marked dirty; repair it with qemu-img check -r all");
    let disk = open_file(&path, Options::read_only());
    assert!(read_all(&disk)[..512 << 10].iter().all(|byte| *byte == 5));
    qemu_img(&["check", "-q", "-f", "qcow2", "-r", "all", text(&path)]);
    let disk = open_file(&path, Options::writable());
    disk.write_at(0, &[6; 100]).unwrap();
    disk.flush().unwrap();
    assert_clean(&path);
}

fn bitmap(path: &Path, name: &str) -> String {
    let output = qemu_img(&["info", "-f", "qcow2", "--output", "json", text(path)]);
    let said = String::from_utf8(output.stdout).unwrap().replace([' ', '\n'], "");
    let at = said.find(&format!("\"name\":\"{name}\"")).unwrap_or_else(|| panic!("{said}"));
    // The flags come before or after the name within the same object.
    let start = said[..at].rfind("{\"").unwrap();
    let end = at + said[at..].find('}').unwrap();
    said[start..end].to_owned()
}

#[test]
fn bitmaps_that_missed_changes_say_so() {
    let place = Place::new();
    let path = image(&place, &["-o", "cluster_size=4096"]);
    for name in ["follows", "rests"] {
        qemu_img(&["bitmap", "-f", "qcow2", "--add", text(&path), name]);
    }
    qemu_io(&path, &["write -P 1 0 100k"]);
    qemu_img(&["bitmap", "-f", "qcow2", "--disable", text(&path), "rests"]);
    assert!(!bitmap(&path, "follows").contains("in-use"));
    let disk = open_file(&path, Options::writable());
    // Looking changes nothing.
    assert!(disk.check().unwrap().is_clean());
    disk.flush().unwrap();
    assert!(!bitmap(&path, "follows").contains("in-use"));
    disk.write_at(300_000, &[2; 10_000]).unwrap();
    assert!(bitmap(&path, "follows").contains("in-use"));
    disk.flush().unwrap();
    assert!(disk.check().unwrap().is_clean());
    let said = disk.grow(2 << 20).unwrap_err().to_string();
    assert!(said.contains("has bitmaps"), "{said}");
    drop(disk);
    assert!(!bitmap(&path, "rests").contains("in-use"));
    assert_clean(&path);
    let mut model = vec![0; 1 << 20];
    model[..100 << 10].fill(1);
    model[300_000..310_000].fill(2);
    assert_same(&place.content(&path), &model, "bitmaps");
}

/// Bits of features that nobody knows and that a change must clear.
#[test]
fn unknown_autoclear_bits_are_cleared_before_a_change() {
    let place = Place::new();
    let path = image(&place, &[]);
    patch(&path, 88, &[0x80, 0, 0, 0, 0, 0, 0, 1]);
    let disk = open_file(&path, Options::writable());
    assert_eq!(std::fs::read(&path).unwrap()[88], 0x80);
    disk.write_at(0, &[1]).unwrap();
    assert_eq!(std::fs::read(&path).unwrap()[88..96], [0; 8]);
    disk.flush().unwrap();
    assert_clean(&path);
}
