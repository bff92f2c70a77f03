//! Shows what is in an NTFS volume, and writes a file to it: `ntfs IMAGE [PATH TEXT]`.

mod common;

use snf_fs::ntfs::Ntfs;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let request = common::Request::read("ntfs")?;
    let fs = Ntfs::open(request.device.clone())?.at(request.now);
    request.run(fs)
}
