//! Reading a file from its device without the page cache: quicker for an image that is not in it, as the
//! device fills large buffers by itself, and it leaves the node's memory to the node's machines.

use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

use rustix::fs::{Advice, OFlags, SeekFrom};
use rustix::io::{Errno, ReadWriteFlags};

use crate::disk::buffer::{ALIGNMENT, align_down};

/// So many places of the file are looked at to tell whether it is in the page cache.
const SAMPLES: u64 = 16;

/// A second opening of a file, with O_DIRECT.
pub struct DirectFile(File);

impl DirectFile {
    /// Opens the file once more. `None` where it is better read as usual: when most of it is in the page
    /// cache, and on file systems that lie on no block device of this node (a server's are quicker when
    /// they read ahead) or know no such reads.
    pub fn open(file: &File, size: u64) -> Option<Self> {
        let metadata = file.metadata().ok()?;
        let on_device = metadata.is_file() && rustix::fs::major(metadata.dev()) != 0;
        if !on_device || mostly_cached(file, size) {
            return None;
        }
        let flags = i32::try_from(OFlags::DIRECT.bits()).ok()?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        OpenOptions::new().read(true).custom_flags(flags).open(path).ok().map(Self)
    }

    /// Fills as much of `buf`, from its start, as can be had in whole blocks; zero bytes when that is
    /// none of it. EINVAL when the file system wants yet another alignment.
    pub fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let whole = align_down(buf.len() as u64);
        let aligned =
            offset.is_multiple_of(ALIGNMENT as u64) && buf.as_ptr().align_offset(ALIGNMENT) == 0;
        if !aligned || whole == 0 {
            return Ok(0);
        }
        let whole = whole as usize;
        self.0.read_exact_at(&mut buf[..whole], offset)?;
        Ok(whole)
    }
}

/// Whether most of the data is in the page cache; also when the file system does not tell.
fn mostly_cached(file: &File, size: u64) -> bool {
    // The probe itself reads pages that are not cached: keep it small.
    let _ = rustix::fs::fadvise(file, 0, None, Advice::Random);
    let (mut cached, mut away) = (0, 0);
    for place in (0..SAMPLES).filter_map(|sample| sample_place(file, size, sample)) {
        let mut byte = [0];
        let mut byte = [IoSliceMut::new(&mut byte)];
        match rustix::io::preadv2(file, &mut byte, place, ReadWriteFlags::NOWAIT) {
            Err(Errno::AGAIN) => away += 1,
            _ => cached += 1,
        }
    }
    let _ = rustix::fs::fadvise(file, 0, None, Advice::Normal);
    cached >= away
}

/// A place of data in or after the given part of the file, another one each time: what was looked at
/// once is in the cache the next time. `None` where only a hole follows.
fn sample_place(file: &File, size: u64, sample: u64) -> Option<u64> {
    let part = (size / SAMPLES).max(1);
    let random = RandomState::new().build_hasher().finish();
    let at = part * sample + random % part;
    let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
        Ok(start) if start > at => start,
        Err(Errno::NXIO) => return None,
        _ => return Some(at),
    };
    let end = rustix::fs::seek(file, SeekFrom::Hole(start)).unwrap_or(size);
    Some(start + random % end.saturating_sub(start).max(1))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::disk::buffer::AlignedBuffer;
    use std::io::Write;
    use std::time::Duration;

    /// Drops a file from the page cache. Pages that somebody just looks at stay: they are asked again.
    pub(in crate::image::source) fn evict(file: &File) {
        file.sync_data().unwrap();
        for _ in 0..500 {
            rustix::fs::fadvise(file, 0, None, Advice::DontNeed).unwrap();
            if !on_device(file) || !mostly_cached(file, file.metadata().unwrap().len()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the file does not leave the page cache");
    }

    pub(in crate::image::source) fn on_device(file: &File) -> bool {
        rustix::fs::major(file.metadata().unwrap().dev()) != 0
    }

    #[test]
    fn reads_whole_blocks_of_what_is_not_cached() {
        let mut file = tempfile::tempfile().unwrap();
        let bytes: Vec<u8> = (0..1_000_001u32).map(|n| (n % 251) as u8).collect();
        file.write_all(&bytes).unwrap();
        assert!(DirectFile::open(&file, bytes.len() as u64).is_none(), "it was just written");
        evict(&file);
        let Some(direct) = DirectFile::open(&file, bytes.len() as u64) else {
            assert!(!on_device(&file), "a file system on a device reads directly");
            return;
        };
        let mut buffer = AlignedBuffer::new(10_000).unwrap();
        assert_eq!(direct.read_at(buffer.as_mut_slice(), 4096).unwrap(), 8192);
        assert!(buffer.as_slice()[..8192] == bytes[4096..12_288]);
        assert_eq!(direct.read_at(buffer.as_mut_slice(), 4097).unwrap(), 0);
        assert_eq!(direct.read_at(&mut buffer.as_mut_slice()[1..], 4096).unwrap(), 0);
        assert_eq!(direct.read_at(&mut buffer.as_mut_slice()[..4095], 4096).unwrap(), 0);
    }
}
