//! Copying inside one file system: where it can share blocks (XFS, Btrfs), or where the server that
//! holds it can copy (NFS 4.2, SMB), no byte of the image needs to pass through this machine's memory.

use std::fs::File;
use std::os::unix::fs::MetadataExt;

use rustix::io::Errno;

use crate::disk::buffer::{align_down, align_up};
use crate::node::cancel::{Cancel, Cancelled};

/// File systems (`f_type` of statfs(2)) for which copy_file_range(2) does better than reading and
/// writing. Elsewhere the kernel would do just that, and not leave out zeros.
const KINDS: [u64; 5] = [
    0x5846_5342, // XFS
    0x9123_683e, // Btrfs
    0x6969,      // NFS
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB 2
];
/// A signal is seen after each piece of this size.
const PIECE: u64 = 64 << 20;

/// Whether both files lie on one file system that copies by itself.
pub(crate) fn can(from: &File, to: &File) -> bool {
    let device = |file: &File| file.metadata().ok().map(|m| m.dev());
    device(from) == device(to)
        && rustix::fs::fstatfs(to).is_ok_and(|found| KINDS.contains(&(found.f_type as u64)))
}

/// Copies `size` bytes of `from` to `offset` of `to`. The holes of `from` are handed to `zero`, as
/// start and end in `to`. False when the file system refuses; then nothing can be said of what lies
/// there.
pub(crate) fn copy<E: From<Cancelled>>(
    from: &File,
    to: &File,
    offset: u64,
    size: u64,
    cancel: &Cancel,
    mut zero: impl FnMut(u64, u64) -> Result<(), E>,
) -> Result<bool, E> {
    let mut at = 0;
    while at < size {
        cancel.check()?;
        let start = match rustix::fs::seek(from, rustix::fs::SeekFrom::Data(at)) {
            Ok(found) => align_down(found).clamp(at, size),
            Err(Errno::NXIO) => size,
            Err(_) => return Ok(false),
        };
        zero(offset + at, offset + start)?;
        at = start;
        let end = match rustix::fs::seek(from, rustix::fs::SeekFrom::Hole(at)) {
            Ok(found) => align_up(found).min(size),
            Err(Errno::NXIO) => size,
            Err(_) => return Ok(false),
        };
        while at < end {
            cancel.check()?;
            let (mut source, mut target) = (at, offset + at);
            let length = (end - at).min(PIECE) as usize;
            match rustix::fs::copy_file_range(
                from,
                Some(&mut source),
                to,
                Some(&mut target),
                length,
            ) {
                Ok(0) => return Ok(false),
                Ok(done) => at += done as u64,
                Err(Errno::INTR) => {}
                Err(_) => return Ok(false),
            }
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    #[test]
    fn data_and_holes_arrive() {
        let (from, to) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        from.set_len(3_000_001).unwrap();
        from.write_all_at(&[7; 9000], 1 << 20).unwrap();
        from.write_all_at(&[8], 3_000_000).unwrap();
        to.write_all_at(&[0xaa; 5_000_000], 0).unwrap();
        let zero = |start: u64, end: u64| {
            to.write_all_at(&vec![0; (end - start) as usize], start).unwrap();
            Ok::<(), Cancelled>(())
        };
        let offset = 1 << 20;
        assert_eq!(copy(&from, &to, offset, 3_000_001, &Cancel::new(), zero), Ok(true));
        let (mut expected, mut found) = (vec![0; 3_000_001], vec![0; 3_000_001]);
        from.read_exact_at(&mut expected, 0).unwrap();
        to.read_exact_at(&mut found, offset).unwrap();
        assert!(found == expected);
        let mut rest = [0; 2];
        to.read_exact_at(&mut rest, offset + 3_000_001).unwrap();
        to.read_exact_at(&mut rest[1..], offset - 1).unwrap();
        assert_eq!(rest, [0xaa; 2], "the bytes around are not ours");
    }

    #[test]
    fn a_signal_and_a_refusal() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 9000], 0).unwrap();
        let cancel = Cancel::new();
        let none = |_, _| Ok::<(), Cancelled>(());
        // The same file, onto itself: the kernel refuses.
        assert_eq!(copy(&file, &file, 10, 9000, &cancel, none), Ok(false));
        cancel.request(15);
        assert_eq!(copy(&file, &file, 10, 9000, &cancel, none), Err(Cancelled(15)));
    }
}
