//! The parameter disk: an ext2 image in memory that only its descriptor leads to.

use std::fs::File;
use std::io;

use rustix::fs::{MemfdFlags, Mode, SealFlags};
use snf_fs::Timestamp;
use snf_fs::ext::mkfs::{Ext2Spec, NewFile, format_ext2};
use zeroize::Zeroizing;

/// Size of the parameter disk: that of a floppy.
pub const FLOPPY_SIZE: usize = 1440 * 1024;
/// Larger ones, for parameters that a floppy cannot hold. They reach the helper as a virtio disk.
const LARGER_SIZES: [usize; 2] = [4 << 20, 16 << 20];

/// Why the parameter disk could not be made.
#[derive(Debug, thiserror::Error)]
pub enum FloppyError {
    /// The parameters do not fit, or the file system cannot be made.
    #[error(
        "the parameters do not fit onto the largest parameter disk of 16 MiB; shorten img_personality or cloud_userdata"
    )]
    Format(#[from] snf_fs::Error),
    /// The system gave no memory file.
    #[error("cannot make the parameter disk")]
    Io(#[from] io::Error),
}

/// Makes the parameter disk with these files (name, content), each of mode 0600. It has no name
/// in any file system: when the last descriptor is closed it is gone, on every path. It is sealed,
/// so nobody who gets it can change it. If 1440 KiB are too little it is larger.
pub fn build(files: &[(&str, &[u8])], now: Timestamp, uuid: [u8; 16]) -> Result<File, FloppyError> {
    let files: Vec<NewFile<'_>> =
        files.iter().map(|(name, content)| NewFile { name, content, mode: 0o600 }).collect();
    let mut sizes = LARGER_SIZES.into_iter();
    let mut image = Zeroizing::new(vec![0u8; FLOPPY_SIZE]);
    loop {
        match format_ext2(&mut image, &files, &Ext2Spec { now, uuid, label: "snf-rules" }) {
            Ok(()) => break,
            Err(error @ snf_fs::Error::NoSpace(_)) => match sizes.next() {
                Some(size) => image = Zeroizing::new(vec![0u8; size]),
                None => return Err(error.into()),
            },
            Err(error) => return Err(error.into()),
        }
    }
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let memory =
        rustix::fs::memfd_create("snf-image-parameters", flags).map_err(io::Error::from)?;
    rustix::fs::fchmod(&memory, Mode::RUSR | Mode::WUSR).map_err(io::Error::from)?;
    let file = File::from(memory);
    std::os::unix::fs::FileExt::write_all_at(&file, &image, 0)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, seals).map_err(io::Error::from)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn debugfs_reads_it_and_nobody_writes_it() {
        let rules = vec![b'x'; 900_000];
        let file =
            build(&[("rules", &rules), ("unattend.xml", b"<a/>")], Timestamp::default(), [7; 16])
                .unwrap();
        assert_eq!(file.metadata().unwrap().len(), 1_474_560);
        assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
        assert!(file.write_at(b"x", 0).is_err());
        let mut image = vec![0; FLOPPY_SIZE];
        file.read_exact_at(&mut image, 0).unwrap();
        let disk = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(disk.path(), &image).unwrap();
        let out = std::process::Command::new("debugfs")
            .args(["-R", "cat rules"])
            .arg(disk.path())
            .output()
            .unwrap();
        assert!(out.stdout == rules);
        let out = std::process::Command::new("timeout")
            .args(["-s", "KILL", "60", "e2fsck", "-fn"])
            .arg(disk.path())
            .output()
            .unwrap();
        assert!(out.status.success(), "{out:?}");
    }

    #[test]
    fn too_much_is_a_sentence() {
        let larger =
            build(&[("rules", &vec![1; FLOPPY_SIZE])], Timestamp::default(), [0; 16]).unwrap();
        assert_eq!(larger.metadata().unwrap().len(), 4 << 20);
        let error = build(&[("rules", &vec![1; 16 << 20])], Timestamp::default(), [0; 16])
            .unwrap_err()
            .to_string();
        assert!(error.contains("do not fit"), "{error}");
    }
}
