//! The only unsafe code of this crate: the allocator's own interface, and the end of the process.
//!
//! Review. Every block is passed on to the system's allocator with the layout that the caller gave,
//! so what the caller promises is what [`System`] needs. The counter is changed beside that and
//! decides only whether the process goes on. No method unwinds: where memory runs out the process
//! ends. No method allocates, and none takes a lock.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};

use super::Ceiling;

// SAFETY: see the review above: the system's allocator does the work, with unchanged layouts.
unsafe impl GlobalAlloc for Ceiling {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.take(layout.size());
        // SAFETY: the caller promises that the layout is not empty.
        let at = unsafe { System.alloc(layout) };
        self.check(at, layout.size())
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        self.take(layout.size());
        // SAFETY: the caller promises that the layout is not empty.
        let at = unsafe { System.alloc_zeroed(layout) };
        self.check(at, layout.size())
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        self.give(layout.size());
        // SAFETY: the caller promises that `at` is a block of this layout. It came from `System`,
        // because all methods take blocks from there.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let (more, less) = (size.saturating_sub(layout.size()), layout.size().saturating_sub(size));
        self.take(more);
        // SAFETY: the caller promises that `at` is a block of this layout, that `size` is not 0 and
        // that it does not overflow with the alignment. The block came from `System`.
        let new = unsafe { System.realloc(at, layout, size) };
        let new = self.check(new, size);
        self.give(less);
        new
    }
}

impl Ceiling {
    /// Ends the process when the system gave no block.
    fn check(&self, at: *mut u8, size: usize) -> *mut u8 {
        if at.is_null() {
            self.end(size, None);
        }
        at
    }
}

/// Ends the process at once: no destructor and no handler runs, which might need memory.
pub(super) fn end(code: i32) -> ! {
    // SAFETY: _exit(2) takes any number, touches no memory of ours and does not return.
    unsafe { libc::_exit(code) }
}
