//! PID 1 of the helper VM.
//!
//! The initramfs holds this program and some kernel modules, nothing else. As PID 1 it prepares
//! the VM, has a second process of itself (the worker, unprivileged) do everything that touches
//! data from outside, reports the result on the serial lines and powers off, on every path.
#![deny(unsafe_code)]
#![deny(clippy::undocumented_unsafe_blocks, clippy::multiple_unsafe_ops_per_block)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod clock;
mod cmdline;
mod confine;
mod debug;
mod device;
mod disks;
mod error;
mod faults;
mod filter;
mod floppy;
mod host;
mod job;
mod kernel;
mod kernel_log;
mod lines;
mod modules;
mod pid1;
mod pipe;
mod report;
mod serial;
mod shell;
mod snapshot;
mod supervise;
#[allow(unsafe_code)]
mod sys;
mod worker;

use std::process::ExitCode;

/// Says what this init is. update-helper looks for it in the file, the host for its start
/// ([`snf_image::wire::HELLO`]) on the console.
const BANNER: &str = concat!(
    "snf-image-helper ",
    env!("CARGO_PKG_VERSION"),
    " (snf-helper-init protocol=",
    snf_image::protocol_version!(),
    ";)"
);

/// The whole program. As PID 1 it does not return.
pub fn main() -> ExitCode {
    if std::process::id() == 1 {
        pid1::run();
    }
    let mut arguments = std::env::args().skip(1);
    match arguments.next().as_deref() {
        Some(worker::ARGUMENT) => return worker::run(arguments),
        Some(debug::ARGUMENT) => return debug::shell(arguments),
        Some(kernel::broker::ARGUMENT) => return kernel::broker::main(),
        _ => {}
    }
    eprintln!("{BANNER}\nThis is PID 1 of the helper VM; it does nothing elsewhere.");
    ExitCode::from(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_banner_is_what_the_host_looks_for() {
        assert!(BANNER.starts_with(snf_image::wire::HELLO));
        assert!(BANNER.contains(&snf_image::wire::init_mark()));
    }
}
