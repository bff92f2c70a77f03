//! Walks over a whole ext file system and reads everything: `walk IMAGE [BYTE-OFFSET BYTES]`. For
//! timing, and for a quick look at whether an image can be read.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs::File;
use std::sync::Arc;
use std::time::Instant;

use snf_fs::ext::{Ext, Options};
use snf_fs::{BlockDevice, FileDevice, FileSystem, FileType, Slice};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().expect("an image");
    let number = |text: Option<String>| text.map(|text| text.parse::<u64>().expect("a number"));
    let device = FileDevice::from_file(File::open(path).unwrap()).unwrap();
    let offset = number(arguments.next()).unwrap_or(0);
    let length = number(arguments.next()).unwrap_or(device.len() - offset);
    let device = Slice::new(Arc::new(device), offset, length).unwrap();
    let started = Instant::now();
    let fs = Ext::open(Arc::new(device), Options::default()).unwrap();
    let opened = started.elapsed();
    let mut todo = vec![fs.root()];
    let mut buf = vec![0; 1 << 20];
    let (mut nodes, mut bytes, mut attributes) = (0u64, 0u64, 0u64);
    while let Some(node) = todo.pop() {
        nodes += 1;
        attributes += fs.xattrs(node).unwrap().len() as u64;
        match fs.stat(node).unwrap().file_type {
            FileType::Directory => {
                todo.extend(fs.readdir(node).unwrap().into_iter().map(|entry| entry.node));
            }
            FileType::Regular => {
                let mut offset = 0;
                loop {
                    let count = fs.read(node, offset, &mut buf).unwrap();
                    offset += count as u64;
                    if count < buf.len() {
                        break;
                    }
                }
                bytes += offset;
            }
            FileType::Symlink => bytes += fs.read_link(node).unwrap().len() as u64,
            _ => {}
        }
    }
    println!(
        "{nodes} nodes, {attributes} attributes, {} MiB; opened in {opened:?}, walked in {:?}",
        bytes >> 20,
        started.elapsed()
    );
}
