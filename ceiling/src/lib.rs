//! A ceiling for the memory of a process, and an end with a sentence where memory runs out.
//!
//! Rust ends a process that gets no memory by `abort`: with a signal, a core dump and a message of
//! its own. A program whose allocator is a [`Ceiling`] ends with the exit code [`EXIT`] and one
//! sentence instead, and takes no more than its ceiling, whatever an image makes it ask for.
//!
//! Only Rust's own allocations are counted. Memory of libraries in C and maps of files are not.
//!
//! [`output_was_closed`] tells the other fact that Rust's run time hides from `main`.
#![deny(unsafe_code)]

mod alloc;
mod start;

pub use start::output_was_closed;

use std::io::{Cursor, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// The exit code where memory runs out, as of a defect.
pub const EXIT: i32 = 70;

/// The allocator of a program.
#[derive(Debug)]
pub struct Ceiling {
    prefix: &'static str,
    before: &'static str,
    after: &'static str,
    most: AtomicUsize,
    used: AtomicUsize,
    writing: AtomicBool,
}

impl Ceiling {
    /// An allocator that gives `most` bytes. The sentence begins with `prefix` and ends with
    /// `before`, or with `after` once the program has begun to write.
    pub const fn new(
        most: usize,
        prefix: &'static str,
        before: &'static str,
        after: &'static str,
    ) -> Self {
        Self {
            prefix,
            before,
            after,
            most: AtomicUsize::new(most),
            used: AtomicUsize::new(0),
            writing: AtomicBool::new(false),
        }
    }

    /// Sets another ceiling, in bytes.
    pub fn set(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// The bytes that are in use now.
    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Says that the disk is written from here on.
    pub fn begin_writing(&self) {
        self.writing.store(true, Ordering::Relaxed);
    }

    /// Counts bytes, or ends the process where they are too many.
    fn take(&self, bytes: usize) {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        let most = self.most.load(Ordering::Relaxed);
        if before.saturating_add(bytes) > most {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            self.end(bytes, Some(most));
        }
    }

    fn give(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Says that there is no memory, and ends the process. It allocates nothing and takes no lock.
    fn end(&self, bytes: usize, most: Option<usize>) -> ! {
        let mut line = [0; 320];
        let mut text = Cursor::new(&mut line[..]);
        let used = self.used();
        let state = if self.writing.load(Ordering::Relaxed) { self.after } else { self.before };
        // A line that is too long for the buffer is cut.
        let _ = match most {
            Some(most) => write!(
                text,
                "{}there is no memory for {bytes} bytes more: {used} bytes are in use, and {most} are \
                 the most that this program takes{state}",
                self.prefix
            ),
            None => write!(
                text,
                "{}there is no memory for {bytes} bytes more: {used} bytes are in use, and the system \
                 gives no more{state}",
                self.prefix
            ),
        };
        let length = (text.position() as usize).min(line.len() - 1);
        line[length] = b'\n';
        // Nobody may be there to read it.
        let _ = rustix::io::write(rustix::stdio::stderr(), &line[..=length]);
        alloc::end(EXIT)
    }
}
