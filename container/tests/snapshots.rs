//! Internal snapshots keep their content whatever becomes of the disk.

use snf_container::qcow2::Options;
use snf_fs::BlockDevice;
use snf_fs::testing::Random;

use crate::support::{
    Place, assert_same, assert_whole, change_both, open_file, pattern, qemu_img, qemu_io, text,
};

#[test]
fn snapshots_keep_their_content() {
    for (number, options) in [
        "compat=0.10,cluster_size=4096",
        "cluster_size=512",
        "cluster_size=65536",
        "extended_l2=on,cluster_size=16384",
        "cluster_size=4096,refcount_bits=4",
    ]
    .into_iter()
    .enumerate()
    {
        for compressed in [false, true] {
            let place = Place::new();
            let mut model = pattern(900_096, number as u64);
            let raw = place.file("raw", &model);
            let image = place.path("image");
            let mut args = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", options];
            if compressed {
                args.push("-c");
            }
            if compressed && options.ends_with("refcount_bits=4") {
                continue;
            }
            args.extend([text(&raw), text(&image)]);
            qemu_img(&args);
            let mut random = Random(number as u64);
            let mut kept = Vec::new();
            for name in ["one", "two", "three"] {
                qemu_img(&["snapshot", "-c", name, text(&image)]);
                kept.push((name, model.clone()));
                let disk = open_file(&image, Options::writable());
                let names: Vec<_> =
                    disk.snapshots().unwrap().into_iter().map(|snapshot| snapshot.name).collect();
                assert_eq!(names, kept.iter().map(|(name, _)| *name).collect::<Vec<_>>());
                change_both(&disk, &mut model, &mut random, 40);
                disk.flush().unwrap();
                drop(disk);
                assert_whole(&place, &image, &model, options);
                for (name, content) in &kept {
                    assert_same(&place.snapshot(&image, name), content, name);
                }
            }
            // QEMU goes on with it: a snapshot goes, one comes back.
            qemu_img(&["snapshot", "-d", "two", text(&image)]);
            assert_whole(&place, &image, &model, options);
            qemu_img(&["snapshot", "-a", "one", text(&image)]);
            let mut model = kept.swap_remove(0).1;
            assert_whole(&place, &image, &model, options);
            let disk = open_file(&image, Options::writable());
            change_both(&disk, &mut model, &mut random, 40);
            disk.flush().unwrap();
            assert_whole(&place, &image, &model, options);
            assert_same(&place.snapshot(&image, "three"), &kept[0].1, "three");
        }
    }
}

#[test]
fn nothing_is_lost_when_a_disk_is_zeroed_under_a_snapshot() {
    let place = Place::new();
    let image = place.path("image");
    qemu_img(&["create", "-q", "-f", "qcow2", "-o", "cluster_size=4096", text(&image), "1M"]);
    qemu_io(&image, &["write -P 7 0 1M"]);
    qemu_img(&["snapshot", "-c", "all", text(&image)]);
    let disk = open_file(&image, Options::writable());
    disk.discard(0, 1 << 20).unwrap();
    disk.flush().unwrap();
    drop(disk);
    assert_whole(&place, &image, &vec![0; 1 << 20], "zeroed");
    assert_same(&place.snapshot(&image, "all"), &vec![7; 1 << 20], "all");
}
