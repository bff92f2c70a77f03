//! The Ganeti OS scripts as one multi-call binary.

use snf_ceiling::Ceiling;
use snf_image::limits::MEMORY_BYTES;

/// An image can make this program ask for much memory: there is an end to it, as to the node's memory.
#[global_allocator]
static MEMORY: Ceiling = Ceiling::new(MEMORY_BYTES, "snf-image: error: ", "", "");

fn main() -> std::process::ExitCode {
    snf_image_host::node::defect::catch();
    std::process::ExitCode::from(snf_image_host::scripts::cli::run(std::env::args_os()))
}
