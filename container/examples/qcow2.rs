//! Shows a qcow2 image and checks it: `qcow2 IMAGE`.

use std::error::Error;
use std::fs::File;

use snf_container::GrowableFile;
use snf_container::qcow2::{Options, Qcow2};
use snf_fs::BlockDevice;

fn main() -> Result<(), Box<dyn Error>> {
    let Some(image) = std::env::args().nth(1) else { return Err("qcow2 IMAGE".into()) };
    let disk = Qcow2::open(GrowableFile::new(File::open(image)?)?, Options::read_only())?;
    println!("a disk of {} bytes, clusters of {}", disk.len(), disk.cluster_size());
    let (mut at, mut data) = (0, 0);
    while at < disk.len() {
        let extent = disk.extent(at, disk.len() - at)?;
        if !extent.zero {
            data += extent.length;
        }
        at += extent.length;
    }
    println!("{data} bytes may hold data");
    for snapshot in disk.snapshots()? {
        println!("snapshot {} ({})", snapshot.name, snapshot.id);
    }
    let report = disk.check()?;
    println!("{} errors, {} leaked clusters", report.errors, report.leaks);
    for finding in &report.findings {
        println!("byte {}: {}", finding.offset, finding.problem);
    }
    Ok(())
}
