//! PID 1 of the helper VM with the faults that tests ask for. It is never shipped.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    snf_helper_init::main()
}
