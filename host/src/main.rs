//! The Ganeti OS scripts as one multi-call binary.

fn main() -> std::process::ExitCode {
    std::process::ExitCode::from(snf_image_host::scripts::cli::run(std::env::args_os()))
}
