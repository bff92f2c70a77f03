//! Shows what is in an ext2, ext3 or ext4 file system, and writes a file to it: `ext IMAGE [PATH TEXT]`.

mod common;

use snf_fs::ext::{Ext, Options};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let request = common::Request::read("ext")?;
    let options = Options { now: request.now, ..Options::default() };
    let fs = Ext::open(request.device.clone(), options)?;
    request.run(fs)
}
