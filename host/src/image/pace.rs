//! An end for servers that send a byte now and then.

use std::io::{self, Read};
use std::time::{Duration, Instant};

/// Time over which the rate of an image is averaged.
const WINDOW: Duration = Duration::from_secs(60);

/// Measures how fast a server sends: only the time spent waiting for it counts, and not the time
/// that a slow disk takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    min_rate: u64,
    /// The most time for all of it.
    patience: Duration,
    /// The time so far, of this window and of all.
    waited: Duration,
    waited_in_all: Duration,
    bytes: u64,
}

impl Pace {
    pub(crate) fn new(min_rate: u64, patience: Duration) -> Self {
        let (waited, waited_in_all) = (Duration::ZERO, Duration::ZERO);
        Self { min_rate, patience, waited, waited_in_all, bytes: 0 }
    }

    /// Counts bytes and the time that they took.
    ///
    /// # Errors
    ///
    /// It took too long.
    pub(crate) fn add(&mut self, bytes: u64, waited: Duration) -> io::Result<()> {
        self.waited += waited;
        self.waited_in_all += waited;
        if self.waited_in_all > self.patience {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "the server takes too long: FETCH_IMAGE_TIMEOUT allows {} s of waiting for the \
                     whole image",
                    self.patience.as_secs()
                ),
            ));
        }
        self.bytes = self.bytes.saturating_add(bytes);
        if self.waited < WINDOW {
            return Ok(());
        }
        let needed = self.min_rate.saturating_mul(self.waited.as_secs());
        if self.bytes < needed {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!(
                    "the server is too slow: {} bytes in {} s of waiting, and FETCH_MIN_RATE asks \
                     for {} a second",
                    self.bytes,
                    self.waited.as_secs(),
                    self.min_rate
                ),
            ));
        }
        (self.waited, self.bytes) = (Duration::ZERO, 0);
        Ok(())
    }
}

/// A reader that must be fast enough.
pub struct Paced<R> {
    inner: R,
    pace: Pace,
}

impl<R: Read> Paced<R> {
    /// Ends with an error when `inner` gives fewer than `min_rate` bytes a second, or when all waiting
    /// for it takes longer than `patience`.
    pub fn new(inner: R, min_rate: u64, patience: Duration) -> Self {
        Self { inner, pace: Pace::new(min_rate, patience) }
    }
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let started = Instant::now();
        let n = self.inner.read(buf)?;
        if n > 0 {
            self.pace.add(n as u64, started.elapsed())?;
        }
        Ok(n)
    }
}

/// A reader with an end in time.
pub struct Timed<R> {
    inner: R,
    deadline: Instant,
}

impl<R: Read> Timed<R> {
    /// Ends with an error at the first read after `deadline`. One read must not wait for ever.
    pub fn new(inner: R, deadline: Instant) -> Self {
        Self { inner, deadline }
    }
}

impl<R: Read> Read for Timed<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        left(self.deadline)?;
        self.inner.read(buf)
    }
}

/// The time until `deadline`.
///
/// # Errors
///
/// It has passed.
pub fn left(deadline: Instant) -> io::Result<Duration> {
    left_at(Instant::now(), deadline)
}

/// The time from `now` until `deadline`.
pub(crate) fn left_at(now: Instant, deadline: Instant) -> io::Result<Duration> {
    match deadline.checked_duration_since(now).filter(|left| !left.is_zero()) {
        Some(left) => Ok(left),
        None => Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "it takes longer than FETCH_TIMEOUT allows",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_now_and_then_is_too_slow() {
        let second = Duration::from_secs(1);
        let new = || Pace::new(1000, Duration::from_secs(3600));
        let mut slow = new();
        let failed = (0..60).map(|_| slow.add(999, second)).find_map(Result::err).unwrap();
        assert!(failed.to_string().contains("too slow: 59940 bytes in 60 s"), "{failed}");
        let mut good = new();
        assert!((0..600).all(|_| good.add(1000, second).is_ok()));
        // A start in a hurry does not pay for the rest.
        let mut tired = new();
        tired.add(1 << 40, WINDOW).unwrap();
        assert!((0..60).any(|_| tired.add(1, second).is_err()));
        // Fast enough, and without an end.
        let mut endless = Pace::new(0, Duration::from_secs(100));
        assert!((0..100).all(|_| endless.add(1 << 30, second).is_ok()));
        let failed = endless.add(1 << 30, second).unwrap_err();
        assert!(failed.to_string().contains("FETCH_IMAGE_TIMEOUT allows 100 s"), "{failed}");
    }

    #[test]
    fn a_deadline() {
        let mut text = String::new();
        let later = Instant::now() + Duration::from_secs(60);
        Timed::new(&b"abc"[..], later).read_to_string(&mut text).unwrap();
        assert_eq!(text, "abc");
        let error = Timed::new(&b"abc"[..], Instant::now()).read_to_string(&mut text).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
