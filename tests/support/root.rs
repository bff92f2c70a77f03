//! The guest's root file system on a disk, as our own engine reads it.

use std::sync::Arc;

use snf_fs::ext::{Ext, Options};
use snf_fs::{BlockDevice, FileSystem, Overlay, Slice};
use snf_image::disk_adapter::DiskAdapter;

/// The first byte and the length of a partition, as the disk's table has it now; the whole disk
/// without a table or number.
pub fn place(disk: &dyn BlockDevice, number: Option<u32>, what: &str) -> (u64, u64) {
    let table = snf_partition::read(&DiskAdapter(disk)).unwrap_or_else(|e| panic!("{what}: {e}"));
    match (table, number) {
        (Some(table), Some(number)) => table.byte_range(table.partition(number).unwrap()),
        _ => (0, disk.len()),
    }
}

/// The content of `/etc/hostname` in the root partition of a disk, its journal replayed in memory.
pub fn hostname(disk: &Arc<Overlay>, number: Option<u32>, what: &str) -> String {
    let (start, size) = place(&**disk, number, what);
    let slice = Arc::new(Slice::new(disk.clone(), start, size).unwrap());
    let fs = Ext::open(slice, Options::default()).unwrap_or_else(|e| panic!("{what}: {e}"));
    let etc = fs.lookup(fs.root(), b"etc").unwrap().unwrap();
    let node = fs.lookup(etc, b"hostname").unwrap().unwrap();
    let mut bytes = vec![0; 20];
    let length = fs.read(node, 0, &mut bytes).unwrap();
    String::from_utf8_lossy(&bytes[..length]).into_owned()
}
