//! Every kind of image that qemu-img makes: read, changed, checked.

use snf_container::qcow2::Options;
use snf_fs::BlockDevice;
use snf_fs::testing::Random;

use crate::support::{
    Place, assert_same, assert_whole, change_both, open_file, pattern, qemu_img, read_all, text,
};

/// Makes an image of `size` bytes with `options`, reads it, and changes it in `rounds` sessions.
fn work(options: &str, compressed: bool, size: usize, seed: u64) {
    let what = format!("{options} compressed={compressed}");
    let place = Place::new();
    let mut model = pattern(size, seed);
    let raw = place.file("raw", &model);
    let image = place.path("image");
    let mut args = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", options];
    if compressed {
        args.push("-c");
    }
    args.extend([text(&raw), text(&image)]);
    qemu_img(&args);
    let disk = open_file(&image, Options::read_only());
    assert_same(&read_all(&disk), &model, &what);
    assert!(disk.check().unwrap().is_clean(), "{what}");
    assert!(disk.write_at(0, &[1]).is_err());
    drop(disk);
    let mut random = Random(seed);
    for _ in 0..3 {
        let disk = open_file(&image, Options::writable());
        change_both(&disk, &mut model, &mut random, 60);
        disk.flush().unwrap();
        assert!(disk.check().unwrap().is_clean(), "{what}");
        drop(disk);
        assert_whole(&place, &image, &model, &what);
    }
}

#[test]
fn versions_and_cluster_sizes() {
    for (number, cluster) in [512, 1024, 4096, 65_536, 1 << 20, 2 << 20].into_iter().enumerate() {
        let size = (cluster * 5 + 1536).clamp(700_000, 11 << 20) / 512 * 512;
        for (version, compressed) in
            [("0.10", false), ("1.1", false), ("0.10", true), ("1.1", true)]
        {
            let options = format!("compat={version},cluster_size={cluster}");
            work(&options, compressed, size, number as u64);
        }
    }
}

#[test]
fn refcount_widths() {
    for bits in [1, 2, 4, 8, 16, 32, 64] {
        work(&format!("refcount_bits={bits},cluster_size=4096"), false, 1 << 20, bits);
        // A refcount of one bit has no room for compressed clusters that share one.
        let compressed = bits > 4;
        work(&format!("refcount_bits={bits},cluster_size=512"), compressed, 300_032, bits);
    }
}

#[test]
fn zstd_clusters() {
    for cluster in [512, 65_536, 2 << 20] {
        let options = format!("compression_type=zstd,cluster_size={cluster}");
        work(&options, true, (cluster * 4 + 512).max(1 << 20), 5);
    }
}

#[test]
fn subclusters() {
    for cluster in [16_384, 65_536, 1 << 20] {
        for (more, compressed) in [("", false), ("", true), (",compression_type=zstd", true)] {
            let options = format!("extended_l2=on,cluster_size={cluster}{more}");
            work(&options, compressed, cluster * 9 + 1024, 6);
        }
    }
}

#[test]
fn lazy_refcounts_and_preallocation() {
    work("lazy_refcounts=on", false, 3 << 20, 7);
    for how in ["metadata", "falloc", "full"] {
        for more in ["", ",cluster_size=4096", ",extended_l2=on"] {
            work(&format!("preallocation={how}{more}"), false, 2 << 20, 8);
        }
    }
}
