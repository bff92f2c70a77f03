//! PID 1 of the helper VM: see the library.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    snf_helper_init::main()
}
