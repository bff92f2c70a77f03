//! The rows of docs/xfs.md: an image for each.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use crate::oracle::shell;
use crate::xfs_support::{Image, OPTIONS, compare};
use snf_fs::xfs::Xfs;
use snf_fs::{Attributes, Error, FileSystem, MemoryDevice};

/// The proof of a row.
enum How {
    /// mkfs.xfs options: read and written.
    Yes(&'static [&'static str]),
    /// mkfs.xfs options: read; the reason for the refusal to write.
    ReadOnly(&'static [&'static str], &'static str),
    /// Bits set in a field of the superblock (offset, value): read; the reason for the refusal.
    FieldReadOnly(usize, u32, &'static str),
    /// The same: refused, with the reason.
    FieldRefused(&'static [(usize, u32)], &'static str),
    /// Shown by another test.
    Elsewhere,
}

const RO_COMPAT: usize = 212;
const INCOMPAT: usize = 216;
const LOG_INCOMPAT: usize = 220;

const ROWS: &[(&str, How)] = &[
    ("version 5 (checksums)", How::Yes(&[""])),
    ("version 4", How::ReadOnly(&["-m crc=0"], "version 4")),
    ("`finobt`", How::Yes(&["-m finobt=1", "-m finobt=0,inobtcount=0"])),
    ("`rmapbt`", How::Yes(&["-m rmapbt=1", "-m rmapbt=1,reflink=0"])),
    ("`reflink`", How::Yes(&["-m reflink=0"])),
    ("`inobtcount`", How::Yes(&["-m inobtcount=0"])),
    ("`sparse` inodes", How::Yes(&["-i sparse=0"])),
    ("`bigtime`", How::Yes(&["-m bigtime=0"])),
    ("`nrext64`", How::Yes(&["-i nrext64=1"])),
    ("`ftype`", How::ReadOnly(&["-m crc=0 -n ftype=0"], "version 4")),
    (
        "block sizes 1k to 64k",
        How::Yes(&["-b size=1024", "-b size=2048", "-b size=8192", "-b size=65536"]),
    ),
    ("block size 512", How::ReadOnly(&["-m crc=0 -b size=512"], "version 4")),
    ("blocks of directories larger than blocks", How::Yes(&["-n size=16384"])),
    ("sector sizes 512 and 4096", How::Yes(&["-s size=4096"])),
    ("inode sizes 512 to 2048", How::Yes(&["-i size=1024", "-i size=2048"])),
    ("log stripe unit", How::Yes(&["-l su=4096", "-l su=32768"])),
    ("quotas", How::Elsewhere),
    ("project quota directories", How::Elsewhere),
    ("log that waits for its replay", How::Elsewhere),
    ("`ascii-ci`", How::ReadOnly(&["-n version=ci"], "ascii-ci")),
    ("`parent` (parent pointers)", How::FieldReadOnly(INCOMPAT, 0x80, "parent pointers")),
    ("`needsrepair`", How::FieldRefused(&[(INCOMPAT, 0x10)], "needsrepair")),
    (
        "`metadir`, `zoned`, unknown incompat",
        How::FieldRefused(&[(INCOMPAT, 0x100), (INCOMPAT, 0x200), (INCOMPAT, 1 << 30)], ""),
    ),
    ("unknown ro_compat, unknown log features", How::FieldReadOnly(RO_COMPAT, 1 << 20, "0x100000")),
    ("external log", How::FieldRefused(&[(48, 0), (52, 0)], "log on another device")),
    ("real-time device", How::FieldRefused(&[(28, 7)], "real-time")),
];

#[test]
fn the_table_has_the_same_rows() {
    let text = include_str!("../../docs/xfs.md");
    let rows: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| feature"))
        .map(|line| line.split(" | ").next().unwrap().trim_start_matches("| "))
        .collect();
    let tested: Vec<&str> = ROWS.iter().map(|(name, _)| *name).collect();
    assert_eq!(rows, tested);
}

fn change(fs: &mut Xfs) -> Result<(), Error> {
    let attributes = Attributes { mode: 0o750, uid: 3, gid: 4 };
    let dir = fs.mkdir(fs.root(), b"made", attributes)?;
    for i in 0..120 {
        let node = fs.create(dir, format!("file-{i}").as_bytes(), attributes)?;
        fs.replace(node, &vec![i as u8; i * 50])?;
        fs.set_xattr(node, b"user.x", Some(&vec![1; i * 4]))?;
    }
    fs.symlink(dir, b"short", b"target", attributes)?;
    fs.symlink(dir, b"long", &[b'x'; 900], attributes)?;
    for i in (0..120).step_by(3) {
        fs.unlink(dir, format!("file-{i}").as_bytes())?;
    }
    fs.rename(dir, b"file-1", fs.root(), b"moved")?;
    fs.commit()?;
    Ok(())
}

/// An image of which fields of the superblock say something else.
fn with_field(image: &[u8], fields: &[(usize, u32)]) -> Result<Xfs, Error> {
    Xfs::open(Arc::new(MemoryDevice::new(with_bits(image, fields))), OPTIONS)
}

fn with_bits(image: &[u8], fields: &[(usize, u32)]) -> Vec<u8> {
    let mut bytes = image.to_vec();
    for (at, bits) in fields {
        let place = &mut bytes[*at..*at + 4];
        let old = u32::from_be_bytes(place.try_into().unwrap());
        // A place of the log is cleared, a flag is set.
        let new = if *bits == 0 { 0 } else { old | bits };
        place.copy_from_slice(&new.to_be_bytes());
    }
    bytes[224..228].fill(0);
    let crc = crc32c(&bytes[..512]);
    bytes[224..228].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0u32;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0x82F6_3B78 } else { crc >> 1 };
        }
    }
    !crc
}

fn refused(mut fs: Xfs, why: &str) {
    let attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };
    assert!(fs.readdir(fs.root()).is_ok());
    let error = fs.create(fs.root(), b"x", attributes).unwrap_err();
    assert!(matches!(error, Error::ReadOnly(_)) && error.to_string().contains(why), "{error}");
    assert!(!fs.is_dirty());
}

#[test]
fn every_row_holds() {
    let plain = Image::make("", 32).bytes();
    for (row, how) in ROWS {
        match how {
            How::Yes(shapes) => {
                for args in *shapes {
                    // mkfs.xfs makes the logs of such small ones too small for the kernel.
                    let (mib, log) = if args.contains("65536") { (256, 40) } else { (64, 16) };
                    let log = format!("{args} -d agcount=2 -l size={log}m");
                    let image = Image::make(&log, mib);
                    let mut fs = image.open();
                    change(&mut fs).unwrap_or_else(|error| panic!("{row}, {args}: {error}"));
                    drop(fs);
                    image.check(&format!("{row}, {args}"));
                    compare(&image, &format!("{row}, {args}"));
                }
            }
            How::ReadOnly(shapes, why) => {
                for args in *shapes {
                    refused(Image::make(args, 64).open(), why);
                }
            }
            How::FieldReadOnly(at, bits, why) => {
                refused(with_field(&plain, &[(*at, *bits)]).unwrap(), why);
            }
            How::FieldRefused(fields, why) => {
                for field in fields.chunks(if why.is_empty() { 1 } else { fields.len() }) {
                    let Err(error) = with_field(&plain, field) else { panic!("{row}: opened") };
                    assert!(matches!(error, Error::Unsupported { .. }), "{row}: {error}");
                    assert!(error.to_string().contains(why), "{row}: {error}");
                }
            }
            How::Elsewhere => {}
        }
    }
    refused(with_field(&plain, &[(LOG_INCOMPAT, 4)]).unwrap(), "log features");
}

/// A commit takes the bits away that say that usage was counted: the kernel counts again. (No kernel of
/// the tests has quotas: bits of the superblock stand for them.)
#[test]
fn quotas_are_counted_again() {
    let image = Image::make("", 32).bytes();
    let device = Arc::new(MemoryDevice::new(with_bits(&image, &[(176, 0x07FF_0000)])));
    let mut fs = Xfs::open(device.clone(), OPTIONS).unwrap();
    fs.create(fs.root(), b"x", Attributes { mode: 0o644, uid: 0, gid: 0 }).unwrap();
    fs.commit().unwrap();
    let after = device.to_vec();
    let bits = u16::from_be_bytes(after[176..178].try_into().unwrap());
    assert_eq!(bits, 0x07FF & !0x0524, "{bits:#x}");
}

/// A project directory hands its project down.
#[test]
fn projects_are_handed_down() {
    let image = Image::make("", 64);
    let mount = image.mount("rw");
    shell(&mount.at, "mkdir p; xfs_io -c 'chproj 42' -c 'chattr +P' p");
    drop(mount);
    let mut fs = image.open();
    let dir = fs.lookup(fs.root(), b"p").unwrap().unwrap();
    let attributes = Attributes { mode: 0o755, uid: 7, gid: 7 };
    fs.create(dir, b"new", attributes).unwrap();
    fs.mkdir(dir, b"sub", attributes).unwrap();
    fs.commit().unwrap();
    drop(fs);
    image.check("projects");
    let mount = image.mount("rw");
    shell(
        &mount.at,
        "for i in new sub; do xfs_io -r -c lsproj p/$i | grep -w 42; done; xfs_io -r -c lsattr p/sub | grep P",
    );
}
