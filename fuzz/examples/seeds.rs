//! Writes inputs to start from into `corpus/TARGET/`, or into another directory that is named:
//! `cargo run --release --example seeds [DIRECTORY]`, in `fuzz/`.

use std::path::{Path, PathBuf};
use std::{fs, io};

/// Inputs for each image of a target.
const COUNT: u64 = 20;

fn main() -> io::Result<()> {
    let corpus = std::env::args_os()
        .nth(1)
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus"), PathBuf::from);
    for (name, prefix) in snf_image_fuzz::TARGETS {
        let dir = corpus.join(name);
        fs::create_dir_all(&dir)?;
        let seeds = snf_image_fuzz::seeds(prefix, COUNT);
        for (index, bytes) in seeds.iter().enumerate() {
            fs::write(dir.join(format!("seed-{index:04}")), bytes)?;
        }
        println!("{name}: {} inputs", seeds.len());
    }
    Ok(())
}
