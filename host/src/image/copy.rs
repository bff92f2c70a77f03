//! Laying an image onto a disk: reads overlap writes, holes and zero runs are not written where
//! the disk reads zeros without that, and what was on the disk before never shines through.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use crate::disk::buffer::{AlignedBuffer, align_up, is_zero};
use crate::disk::destination::Destination;
use crate::disk::error::TargetError;
use crate::image::source::{ImageReader, Part, SourceError};
use crate::node::cancel::{Cancel, Cancelled};

/// Bytes moved in one go: whole clusters of an image that has to be unpacked, and several huge pages.
const PIECE: usize = 4 << 20;
/// Buffers in flight: one being filled, one being written, the rest waiting. They bound the
/// memory of a copy, whatever the image's size: at most 24 MiB.
const BUFFERS: usize = 6;
/// The same for a plain file. If it lies beside the disk, a reader that hurries ahead only keeps the
/// device from writing: six buffers took a tenth to a fifth longer than two.
const PLAIN_BUFFERS: usize = 2;
/// Zero runs are looked for in units of this size; shorter ones cost more to skip than to write.
const ZERO_UNIT: usize = 64 << 10;

/// Why an image could not be laid onto the disk.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// Nothing was written.
    #[error(
        "the image needs {needed} bytes and the disk {disk} has {available}; make the disk at \
         least {} MiB large (nothing was written)",
        needed.div_ceil(1 << 20)
    )]
    TooLarge {
        /// Bytes from the start of the disk to the end of the image.
        needed: u64,
        /// Size of the disk.
        available: u64,
        /// The disk.
        disk: String,
    },
    /// A stream without a known size did not end in time.
    #[error(
        "the image is larger than the disk {disk} ({available} bytes); the disk is half written"
    )]
    Overflow {
        /// The disk.
        disk: String,
        /// Its size.
        available: u64,
    },
    /// The image ended at another place than it said.
    #[error(
        "the image ended after {found} bytes, {expected} were expected; it is truncated or damaged"
    )]
    WrongSize {
        /// Bytes that came.
        found: u64,
        /// Bytes that were announced.
        expected: u64,
    },
    /// The source failed.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The disk failed.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The buffers could not be had.
    #[error("there is no memory for the buffers of the copy")]
    Memory(#[source] std::io::Error),
    /// A signal came.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The reading thread could not be started.
    #[error("cannot start the reader of the image")]
    NoReader(#[source] std::io::Error),
    /// The reading thread ended without a word.
    #[error("the reader of the image stopped unexpectedly: see the lines above")]
    Reader,
}

/// The result of a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CopyReport {
    /// Size of the image.
    pub size: u64,
    /// Bytes written as data; the rest was zeros.
    pub written: u64,
    /// How long it took, with the flush if it was to settle now.
    pub elapsed: Duration,
}

/// When what was copied is on stable storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    /// Before the copy returns.
    Now,
    /// When the caller flushes the disk, at the latest. Data in the page cache is on its way by then.
    Later,
}

/// Takes `(position, total)` now and then.
pub type Progress<'a> = &'a mut dyn FnMut(u64, Option<u64>);

enum Message {
    Data(AlignedBuffer, usize),
    Zero(u64),
    End,
    Failed(SourceError),
}

/// Fails when the image is known to be too large for the disk.
pub fn check_fits(
    size: Option<u64>,
    offset: u64,
    target: &dyn Destination,
) -> Result<(), CopyError> {
    let needed = offset.saturating_add(size.unwrap_or(0));
    if needed > target.size() {
        return Err(CopyError::TooLarge { needed, available: target.size(), disk: target.name() });
    }
    Ok(())
}

/// Writes the image at `offset` bytes and zeros after it. Nothing is written when the image is known
/// not to fit.
pub fn copy_image(
    image: Box<dyn ImageReader>,
    target: &mut dyn Destination,
    offset: u64,
    settle: Settle,
    cancel: &Cancel,
    progress: Progress<'_>,
) -> Result<CopyReport, CopyError> {
    let started = Instant::now();
    let settle = |target: &mut dyn Destination| match settle {
        Settle::Now => target.flush(),
        Settle::Later => target.begin_flush(),
    };
    let total = image.size();
    check_fits(total, offset, target)?;
    cancel.check()?;
    if let (Some(file), Some(size)) = (image.plain_file(), total)
        && target.share(file, offset, size, cancel)?
    {
        target.zero_tail(offset + size, cancel)?;
        settle(target)?;
        progress(size, total);
        return Ok(CopyReport { size, written: 0, elapsed: started.elapsed() });
    }
    let buffers = if image.plain_file().is_some() { PLAIN_BUFFERS } else { BUFFERS };
    let (full_sender, full) = sync_channel::<Message>(buffers);
    let (free, free_receiver) = sync_channel::<AlignedBuffer>(buffers);
    for _ in 0..buffers {
        let _ = free.send(AlignedBuffer::new(PIECE).map_err(CopyError::Memory)?);
    }
    // Not a scoped thread: a reader that hangs in a system call must not keep us from ending.
    let reader = std::thread::Builder::new()
        .name("image-reader".into())
        .spawn(move || read_all(image, &full_sender, &free_receiver))
        .map_err(CopyError::NoReader)?;
    let mut writer = Writer {
        target,
        start: offset,
        position: offset,
        pending_zero: offset,
        written: 0,
        cancel,
    };
    loop {
        cancel.check()?;
        let message = match full.recv_timeout(Duration::from_millis(100)) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => continue,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(CopyError::Reader);
            }
        };
        match message {
            Message::Data(buffer, length) => {
                writer.data(&buffer, length)?;
                let _ = free.send(buffer);
            }
            Message::Zero(length) => writer.zeros(length)?,
            Message::Failed(error) => return Err(error.into()),
            Message::End => break,
        }
        progress(writer.position - offset, total);
    }
    let _ = reader.join();
    let size = writer.position - offset;
    if let Some(expected) = total.filter(|expected| *expected != size) {
        return Err(CopyError::WrongSize { found: size, expected });
    }
    writer.settle_zeros()?;
    let (end, written) = (writer.position, writer.written);
    target.zero_tail(end, cancel)?;
    settle(target)?;
    if total != Some(size) {
        progress(size, Some(size));
    }
    Ok(CopyReport { size, written, elapsed: started.elapsed() })
}

fn read_all(
    mut image: Box<dyn ImageReader>,
    full: &SyncSender<Message>,
    free: &Receiver<AlignedBuffer>,
) {
    let mut spare = None;
    loop {
        let Some(mut buffer) = spare.take().or_else(|| free.recv().ok()) else { return };
        let message = match image.next(buffer.as_mut_slice()) {
            Ok(Part::Data(length)) => {
                let length = length.min(buffer.as_slice().len());
                Message::Data(buffer, length)
            }
            Ok(Part::Zero(length)) => {
                spare = Some(buffer);
                Message::Zero(length)
            }
            Ok(Part::End) => Message::End,
            Err(error) => Message::Failed(error),
        };
        let last = matches!(message, Message::End | Message::Failed(_));
        if full.send(message).is_err() || last {
            return;
        }
    }
}

struct Writer<'a> {
    target: &'a mut dyn Destination,
    start: u64,
    /// The place of the image's next byte.
    position: u64,
    /// From here to `position` are zeros that were not settled yet.
    pending_zero: u64,
    written: u64,
    cancel: &'a Cancel,
}

impl Writer<'_> {
    fn check_room(&self, length: u64) -> Result<(), CopyError> {
        let available = self.target.size();
        match self.position.checked_add(length) {
            Some(end) if end <= available => Ok(()),
            _ => Err(CopyError::Overflow { disk: self.target.name(), available }),
        }
    }

    fn zeros(&mut self, length: u64) -> Result<(), CopyError> {
        self.check_room(length)?;
        self.position += length;
        Ok(())
    }

    /// Neighbouring zero runs are made zero in one go.
    fn settle_zeros(&mut self) -> Result<(), CopyError> {
        if self.pending_zero < self.position {
            self.target.zero(self.pending_zero, self.position - self.pending_zero, self.cancel)?;
        }
        self.pending_zero = self.position;
        Ok(())
    }

    fn data(&mut self, buffer: &AlignedBuffer, length: usize) -> Result<(), CopyError> {
        self.check_room(length as u64)?;
        let bytes = &buffer.as_slice()[..length];
        let mut at = 0;
        while at < length {
            let zeros = self.run(bytes, at, true);
            self.position += (zeros - at) as u64;
            at = zeros;
            if at == length {
                break;
            }
            let end = self.run(bytes, at, false);
            self.settle_zeros()?;
            self.write(buffer, at, end)?;
            at = end;
        }
        Ok(())
    }

    /// End of the run of zero (or not zero) units that begins at `at`.
    fn run(&self, bytes: &[u8], mut at: usize, zero: bool) -> usize {
        while at < bytes.len() {
            let end = (at + ZERO_UNIT).min(bytes.len());
            if is_zero(&bytes[at..end]) != zero {
                break;
            }
            at = end;
        }
        at
    }

    fn write(&mut self, buffer: &AlignedBuffer, at: usize, end: usize) -> Result<(), CopyError> {
        // The last piece may be ragged. Padding it with zeros keeps the write aligned, and what
        // comes after the image becomes zero anyway.
        let room = self.target.size() - self.position;
        let padded = align_up(end as u64).min(at as u64 + room) as usize;
        let whole = end == padded || padded > buffer.as_slice().len();
        if whole || self.target.in_order() {
            self.target.write(self.position, &buffer.as_slice()[at..end])?;
        } else {
            let mut copy = AlignedBuffer::new(padded - at).map_err(CopyError::Memory)?;
            copy.as_mut_slice()[..end - at].copy_from_slice(&buffer.as_slice()[at..end]);
            self.target.write(self.position, copy.as_slice())?;
        }
        self.written += (end - at) as u64;
        self.position += (end - at) as u64;
        self.pending_zero = self.position;
        debug_assert!(self.position > self.start);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::target::Target;
    use std::io::Write as _;

    /// Gives a list of parts.
    struct Parts {
        parts: std::vec::IntoIter<Result<Vec<u8>, u64>>,
        rest: Option<Vec<u8>>,
        size: Option<u64>,
        fail: bool,
    }

    impl ImageReader for Parts {
        fn size(&self) -> Option<u64> {
            self.size
        }
        fn next(&mut self, buf: &mut [u8]) -> Result<Part, SourceError> {
            // As much as the buffer holds; the rest comes next.
            Ok(match self.rest.take().map(Ok).or_else(|| self.parts.next()) {
                Some(Ok(mut data)) => {
                    let length = data.len().min(buf.len());
                    self.rest = Some(data.split_off(length)).filter(|rest| !rest.is_empty());
                    buf[..length].copy_from_slice(&data);
                    Part::Data(length)
                }
                Some(Err(zeros)) => Part::Zero(zeros),
                None if self.fail => {
                    return Err(SourceError::Bad { name: "x".into(), problem: "broke".into() });
                }
                None => Part::End,
            })
        }
    }

    fn image(parts: Vec<Result<Vec<u8>, u64>>) -> Parts {
        let size = parts
            .iter()
            .map(|part| match part {
                Ok(data) => data.len() as u64,
                Err(zeros) => *zeros,
            })
            .fold(0, u64::saturating_add);
        Parts { parts: parts.into_iter(), rest: None, size: Some(size), fail: false }
    }

    fn old_disk(size: usize) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&vec![0xaa; size]).unwrap();
        file
    }

    fn copy(
        image: Parts,
        disk: &tempfile::NamedTempFile,
        offset: u64,
    ) -> Result<CopyReport, CopyError> {
        let mut target = Target::open(disk.path())?;
        copy_image(
            Box::new(image),
            &mut target,
            offset,
            Settle::Now,
            &Cancel::new(),
            &mut |_, _| {},
        )
    }

    #[test]
    fn every_byte_lands_and_old_ones_go() {
        let disk = old_disk(10 << 20);
        let mut mixed = vec![0u8; 1 << 20];
        mixed[300_000..300_100].fill(5);
        let parts = vec![
            Ok(vec![1; 8192]),
            Err(3 << 20),
            Ok(mixed.clone()),
            Ok(vec![0; 1 << 20]),
            Err(1 << 16),
            Ok(vec![2; 5000]),
        ];
        let mut expected = vec![1; 8192];
        expected.resize(expected.len() + (3 << 20), 0);
        expected.extend_from_slice(&mixed);
        expected.resize(expected.len() + (1 << 20) + (1 << 16), 0);
        expected.resize(expected.len() + 5000, 2);
        let report = copy(image(parts), &disk, 1 << 20).unwrap();
        assert_eq!(report.size, expected.len() as u64);
        assert!(report.written < 100_000, "{}", report.written);
        let found = std::fs::read(disk.path()).unwrap();
        assert_eq!(found.len(), 10 << 20);
        assert!(found[..1 << 20].iter().all(|b| *b == 0xaa), "the bytes before are not ours");
        let end = (1 << 20) + expected.len();
        assert!(found[1 << 20..end] == expected[..]);
        assert!(found[end..].iter().all(|b| *b == 0));
    }

    #[test]
    fn too_large_is_refused_before_the_first_byte() {
        let disk = old_disk(1 << 20);
        let error = copy(image(vec![Ok(vec![1; 4096]), Err(1 << 20)]), &disk, 0).unwrap_err();
        assert!(matches!(error, CopyError::TooLarge { needed: 1_052_672, .. }), "{error}");
        assert!(std::fs::read(disk.path()).unwrap().iter().all(|b| *b == 0xaa));
        let error = copy(image(vec![Err(1 << 20)]), &disk, 1).unwrap_err().to_string();
        assert!(error.contains("at least 2 MiB large (nothing was written)"), "{error}");
    }

    #[test]
    fn streams_without_a_size_and_wrong_sizes() {
        let disk = old_disk(1 << 20);
        let mut unknown = image(vec![Ok(vec![1; 4096]), Err(1 << 20)]);
        unknown.size = None;
        assert!(matches!(copy(unknown, &disk, 0), Err(CopyError::Overflow { .. })));
        let mut short = image(vec![Ok(vec![1; 4096])]);
        short.size = Some(8192);
        assert!(matches!(
            copy(short, &disk, 0),
            Err(CopyError::WrongSize { found: 4096, expected: 8192 })
        ));
        let mut huge = image(vec![Err(u64::MAX), Err(u64::MAX)]);
        huge.size = None;
        assert!(matches!(copy(huge, &disk, 0), Err(CopyError::Overflow { .. })));
        let mut broken = image(vec![Ok(vec![1; 4096])]);
        broken.fail = true;
        assert!(matches!(copy(broken, &disk, 0), Err(CopyError::Source(_))));
        assert_eq!(std::fs::metadata(disk.path()).unwrap().len(), 1 << 20);
    }

    #[test]
    fn a_full_disk_and_an_odd_one() {
        let disk = old_disk(10_001);
        copy(image(vec![Ok(vec![3; 10_001])]), &disk, 0).unwrap();
        assert_eq!(std::fs::read(disk.path()).unwrap(), vec![3; 10_001]);
        copy(image(vec![Ok(vec![4; 9000])]), &disk, 0).unwrap();
        let found = std::fs::read(disk.path()).unwrap();
        assert!(found[..9000].iter().all(|b| *b == 4) && is_zero(&found[9000..]));
        assert_eq!(found.len(), 10_001);
    }
}
