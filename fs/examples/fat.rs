//! Shows what is in a FAT volume, and writes a file to it: `fat IMAGE [PATH TEXT]`.

mod common;

use snf_fs::fat::{Fat, Options};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let request = common::Request::read("fat")?;
    let fs = Fat::open(request.device.clone(), Options { now: request.now })?;
    request.run(fs)
}
