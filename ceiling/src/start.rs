//! The state of standard output before `main`.
//!
//! Where a standard descriptor is closed, Rust opens the null device in its place before `main`, for
//! reading and writing. Python's `subprocess.DEVNULL` looks the same from then on, and it is no
//! mistake of the caller. So the look comes earlier: the loader calls the functions of `.init_array`
//! before Rust's own start.
//!
//! Review. The function makes one system call that takes two numbers and touches no memory of ours.
//! It needs nothing of Rust's run time, does not unwind and allocates nothing. The loaders of glibc and
//! musl call each entry of the section once, before `main`, with arguments that a C function may leave
//! unread.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};

/// Whether standard output was closed.
static CLOSED: AtomicBool = AtomicBool::new(false);

/// The entry for the loader.
#[used]
// SAFETY: the section holds pointers to C functions, and this is one; see the review above.
#[unsafe(link_section = ".init_array")]
static LOOK: extern "C" fn() = look;

extern "C" fn look() {
    // SAFETY: F_GETFD takes no third argument and gives a number; EBADF says that it is closed.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    CLOSED.store(flags == -1, Ordering::Relaxed);
}

/// Whether standard output was closed when the program began. What is written then goes nowhere.
pub fn output_was_closed() -> bool {
    // The mention keeps the entry in programs that link this as a library.
    std::hint::black_box(&LOOK);
    CLOSED.load(Ordering::Relaxed)
}
