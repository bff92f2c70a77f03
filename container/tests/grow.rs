//! New images, and disks that grow.

use std::sync::Arc;

use snf_container::qcow2::{CreateOptions, Error, Options, Qcow2, create};
use snf_container::{GrowableFile, MemoryFile};
use snf_fs::BlockDevice;
use snf_fs::testing::Random;

use crate::support::{
    Place, assert_whole, change_both, open_file, pattern, qemu_img, qemu_io, read_all, text,
};

fn new_image(place: &Place, size: u64, options: &CreateOptions) -> std::path::PathBuf {
    let path = place.file("new", b"what was there before");
    let file = std::fs::File::options().read(true).write(true).open(&path).unwrap();
    create(&GrowableFile::new(file).unwrap(), size, options).unwrap();
    path
}

#[test]
fn new_images_of_every_geometry() {
    for cluster in [512u64, 4096, 65_536, 2 << 20] {
        for bits in [1, 8, 16, 64] {
            for extended in [false, true] {
                if extended && cluster < 16_384 {
                    continue;
                }
                let options = CreateOptions::default()
                    .cluster_size(cluster)
                    .refcount_bits(bits)
                    .extended_l2(extended);
                let place = Place::new();
                let image = new_image(&place, 5_000_192, &options);
                let mut model = vec![0; 5_000_192];
                assert_whole(&place, &image, &model, &format!("{options:?}"));
                let disk = open_file(&image, Options::writable());
                change_both(&disk, &mut model, &mut Random(bits.into()), 50);
                disk.flush().unwrap();
                assert_whole(&place, &image, &model, &format!("{options:?}"));
            }
        }
    }
}

#[test]
fn large_and_impossible_sizes() {
    let memory = Arc::new(MemoryFile::new(Vec::new()));
    let options = CreateOptions::default();
    for size in [0, 512, 1 << 40, 1 << 44] {
        create(&memory, size, &options).unwrap();
        let disk = Qcow2::open(memory.clone(), Options::writable()).unwrap();
        assert_eq!(disk.len(), size);
        if size > 512 {
            disk.write_at(size - 5, b"hello").unwrap();
        }
        assert!(disk.check().unwrap().is_clean());
    }
    assert!(matches!(create(&memory, 1 << 60, &options), Err(Error::TooLarge { .. })));
    assert!(matches!(create(&memory, 511, &options), Err(Error::Invalid(_))));
    let small = options.cluster_size(256);
    assert!(matches!(create(&memory, 512, &small), Err(Error::Invalid(_))));
}

/// The refcount table of an image with small clusters fills up and moves, several times.
#[test]
fn the_refcount_table_grows() {
    for bits in [16, 64] {
        let options = CreateOptions::default().cluster_size(512).refcount_bits(bits);
        let place = Place::new();
        let size = 24 << 20;
        let image = new_image(&place, size, &options);
        let mut model = pattern(size as usize, 4);
        let disk = open_file(&image, Options::writable());
        for (number, piece) in model.chunks(1 << 20).enumerate() {
            disk.write_at((number << 20) as u64, piece).unwrap();
        }
        disk.flush().unwrap();
        assert_whole(&place, &image, &model, "filled");
        change_both(&disk, &mut model, &mut Random(1), 100);
        disk.flush().unwrap();
        assert_whole(&place, &image, &model, "changed");
    }
}

#[test]
fn disks_grow() {
    for (options, from, to) in [
        ("cluster_size=512", 20_480u64, 30_208u64),
        ("cluster_size=512", 20_480, 9 << 20),
        ("cluster_size=4096", 1_000_448, 1_000_960),
        ("cluster_size=65536", 1_000_448, 200 << 20),
        ("cluster_size=65536,compat=0.10", 1_000_448, 90 << 20),
        ("cluster_size=16384,extended_l2=on", 1_000_448, 70 << 20),
        ("cluster_size=65536", 0, 70 << 20),
    ] {
        let place = Place::new();
        let mut model = pattern(from as usize, from);
        let image = place.path("image");
        if from == 0 {
            qemu_img(&["create", "-q", "-f", "qcow2", "-o", options, text(&image), "0"]);
        } else {
            let raw = place.file("raw", &model);
            let args = ["convert", "-f", "raw", "-O", "qcow2", "-o", options];
            qemu_img(&[&args[..], &[text(&raw), text(&image)]].concat());
        }
        let disk = open_file(&image, Options::writable());
        disk.grow(to).unwrap();
        assert_eq!(disk.len(), to);
        drop(disk);
        model.resize(to as usize, 0);
        assert_whole(&place, &image, &model, &format!("{options} {from} {to}"));
        let disk = open_file(&image, Options::writable());
        disk.write_at(to - 4096, &[7; 4096]).unwrap();
        disk.flush().unwrap();
        model[to as usize - 4096..].fill(7);
        assert_whole(&place, &image, &model, options);
        assert!(matches!(disk.grow(from), Err(Error::Invalid(_))));
        assert!(matches!(disk.grow(to + 1), Err(Error::Invalid(_))));
        assert!(matches!(disk.grow(1 << 62), Err(Error::TooLarge { .. })));
    }
}

/// Bytes of the last cluster beyond the disk's end do not come to light.
#[test]
fn old_bytes_beyond_the_end_are_not_seen() {
    let place = Place::new();
    let image = place.path("image");
    qemu_img(&["create", "-q", "-f", "qcow2", text(&image), "64k"]);
    qemu_io(&image, &["write -P 3 0 64k"]);
    // The size in the header, nothing else: 10 KiB.
    let mut bytes = std::fs::read(&image).unwrap();
    bytes[24..32].copy_from_slice(&10_240u64.to_be_bytes());
    std::fs::write(&image, bytes).unwrap();
    let disk = open_file(&image, Options::writable());
    disk.grow(64 << 10).unwrap();
    let found = read_all(&disk);
    assert!(found[..10_240].iter().all(|byte| *byte == 3));
    assert!(found[10_240..].iter().all(|byte| *byte == 0));
}

#[test]
fn snapshots_and_growth() {
    let place = Place::new();
    let image = place.path("image");
    qemu_img(&["create", "-q", "-f", "qcow2", text(&image), "1M"]);
    qemu_io(&image, &["write -P 3 0 1M"]);
    qemu_img(&["snapshot", "-c", "small", text(&image)]);
    let disk = open_file(&image, Options::writable());
    disk.grow(600 << 20).unwrap();
    disk.write_at(599 << 20, &[4; 100]).unwrap();
    disk.flush().unwrap();
    let mut model = vec![0; 600 << 20];
    model[..1 << 20].fill(3);
    model[599 << 20..(599 << 20) + 100].fill(4);
    assert_whole(&place, &image, &model, "grown");
    let old = place.path("old");
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", "compat=0.10", text(&old), "1M"]);
    qemu_img(&["snapshot", "-c", "small", text(&old)]);
    let disk = open_file(&old, Options::writable());
    let refused = disk.grow(2 << 20).unwrap_err().to_string();
    assert!(refused.contains("version 2 with snapshots"), "{refused}");
}
