//! Shows the partition table of a disk image, and what its growth would change: `table IMAGE`.

use std::error::Error;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use snf_partition::{Disk, GrowRequest, plan_grow, read};

/// An image file with sectors of 512 bytes.
struct Image {
    file: File,
    len: u64,
}

impl Disk for Image {
    fn len(&self) -> u64 {
        self.len
    }
    fn sector_size(&self) -> u32 {
        512
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(buf, offset)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> io::Result<()> {
        self.file.write_all_at(buf, offset)
    }
    fn flush(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let Some(path) = std::env::args().nth(1) else { return Err("table IMAGE".into()) };
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let disk = Image { file, len };
    let Some(table) = read(&disk)? else {
        println!("there is no partition table");
        return Ok(());
    };
    println!("{}", table.kind);
    for partition in &table.partitions {
        println!("{partition:?}");
    }
    println!("{}", plan_grow(&table, &GrowRequest::default())?.describe());
    Ok(())
}
