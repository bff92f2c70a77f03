//! PID 1 of the helper VM.
//!
//! The initramfs holds this program and some kernel modules, nothing else. As PID 1 it prepares
//! the VM, has a second process of itself (the worker, unprivileged) do everything that touches
//! data from outside, reports the result on the serial lines and powers off, on every path.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

mod cmdline;
mod debug;
mod device;
mod filter;
mod floppy;
mod job;
mod kernel;
mod modules;
mod pid1;
mod report;
mod serial;
mod shell;
mod snapshot;
mod supervise;
mod worker;

use std::process::ExitCode;

/// What this init is; update-helper looks for it in the file, the host for it on the console.
const BANNER: &str =
    concat!("snf-image-helper ", env!("CARGO_PKG_VERSION"), " (snf-helper-init protocol=1;)");
/// The protocol version in [`BANNER`], for comparison with the host's.
const PROTOCOL: &str = "1";

fn main() -> ExitCode {
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
