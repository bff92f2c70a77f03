//! Backing files: never opened unless allowed; read, hidden and never changed when they are.

use std::sync::Arc;

use snf_container::qcow2::{Backing, BackingFormat, DirectoryResolver, Error, Options};
use snf_fs::testing::Random;

use crate::support::{Judgement, assert_clean};
use crate::support::{
    Place, assert_same, change_both, judge, open_file, pattern, qemu_img, read_all, text,
};

fn allowed(place: &Place) -> Options {
    let directory = place.path("x").parent().unwrap().to_owned();
    Options::writable().backing(Backing::Allow(Arc::new(DirectoryResolver::new(directory))))
}

fn refusal(path: &std::path::Path, options: Options) -> Error {
    let file = std::fs::File::open(path).unwrap();
    let file = snf_container::GrowableFile::new(file).unwrap();
    snf_container::qcow2::Qcow2::open(file, options).unwrap_err()
}

/// A base and an image over it, made by qemu-img; the base is longer, shorter or as long.
fn pair(place: &Place, base_size: usize, options: &str, format: &str) -> Vec<u8> {
    let base = pattern(base_size, 9);
    let raw = place.file("base.raw", &base);
    if format == "qcow2" {
        let args = ["convert", "-c", "-f", "raw", "-O", "qcow2", text(&raw)];
        qemu_img(&[&args[..], &[text(&place.path("base.qcow2"))]].concat());
    }
    let name = format!("base.{format}");
    let image = place.path("image");
    let args = ["create", "-q", "-f", "qcow2", "-b", &name, "-F", format, "-o", options];
    qemu_img(&[&args[..], &[text(&image), "1000448"]].concat());
    let mut model = base;
    model.resize(1_000_448, 0);
    model
}

#[test]
fn an_image_cannot_name_a_file_by_itself() {
    let place = Place::new();
    pair(&place, 500_000, "compat=1.1", "raw");
    let error = refusal(&place.path("image"), Options::read_only());
    assert!(error.to_string().contains("opened only with --backing allow"), "{error}");
    assert!(error.to_string().contains("base.raw"), "{error}");
}

#[test]
fn changes_over_a_base() {
    for (options, format) in [
        ("cluster_size=65536", "raw"),
        ("cluster_size=4096", "qcow2"),
        ("cluster_size=4096,compat=0.10", "raw"),
        ("cluster_size=16384,extended_l2=on", "qcow2"),
    ] {
        for base_size in [300_032, 1_000_448, 1_500_160] {
            let place = Place::new();
            let mut model = pair(&place, base_size, options, format);
            let image = place.path("image");
            let base = std::fs::read(place.path(&format!("base.{format}"))).unwrap();
            let mut random = Random(base_size as u64);
            for _ in 0..2 {
                let disk = open_file(&image, allowed(&place));
                assert_same(&read_all(&disk), &model, options);
                change_both(&disk, &mut model, &mut random, 50);
                disk.discard(0, 70_000).unwrap();
                model[..70_000].fill(0);
                snf_fs::BlockDevice::flush(&disk).unwrap();
                assert!(disk.check().unwrap().is_clean());
                drop(disk);
                assert_clean(&image);
                assert_same(&place.content(&image), &model, options);
            }
            // A disk that grows does not show what a longer base has there.
            let disk = open_file(&image, allowed(&place));
            disk.grow(2_000_384).unwrap();
            model.resize(2_000_384, 0);
            assert_same(&read_all(&disk), &model, "grown");
            drop(disk);
            assert_eq!(judge(&image).0, Judgement::Clean);
            assert_same(&place.content(&image), &model, "grown, by qemu-img");
            let after = std::fs::read(place.path(&format!("base.{format}"))).unwrap();
            assert!(after == base, "the base was changed");
        }
    }
}

#[test]
fn a_chain_of_three() {
    let place = Place::new();
    let mut model = pair(&place, 400_384, "cluster_size=4096", "qcow2");
    let top = place.path("top");
    let args = ["create", "-q", "-f", "qcow2", "-b", "image", "-F", "qcow2", text(&top)];
    qemu_img(&args);
    let disk = open_file(&place.path("image"), allowed(&place));
    change_both(&disk, &mut model, &mut Random(3), 30);
    snf_fs::BlockDevice::flush(&disk).unwrap();
    drop(disk);
    let disk = open_file(&top, allowed(&place));
    assert_same(&read_all(&disk), &model, "chain");
    change_both(&disk, &mut model, &mut Random(4), 30);
    snf_fs::BlockDevice::flush(&disk).unwrap();
    drop(disk);
    assert_clean(&top);
    assert_same(&place.content(&top), &model, "chain");
}

#[test]
fn formats_are_said_and_never_guessed() {
    let place = Place::new();
    pair(&place, 300_032, "compat=1.1", "raw");
    let image = place.path("image");
    // The format's extension becomes one that nobody knows.
    let mut bytes = std::fs::read(&image).unwrap();
    let at = bytes.windows(4).position(|four| four == [0xe2, 0x79, 0x2a, 0xca]).unwrap();
    bytes[at] = 0x11;
    std::fs::write(&image, &bytes).unwrap();
    let error = refusal(&image, allowed(&place));
    assert!(matches!(error, Error::BackingFormat { .. }), "{error}");
    let disk = open_file(&image, allowed(&place).backing_format(BackingFormat::Raw));
    assert_eq!(read_all(&disk)[..300_032], std::fs::read(place.path("base.raw")).unwrap());
}

#[test]
fn loops_and_odd_names_are_refused() {
    let place = Place::new();
    let image = place.path("loop");
    qemu_img(&["create", "-q", "-f", "qcow2", text(&image), "1M"]);
    let named = |name: &str| {
        let args = ["rebase", "-u", "-f", "qcow2", "-F", "qcow2", "-b", name, text(&image)];
        qemu_img(&args);
        refusal(&image, allowed(&place))
    };
    for name in ["loop", "nbd://localhost/x", "json:{}", "/dev/null", "not there"] {
        let error = named(name);
        assert!(matches!(error, Error::Backing { .. }), "{name}: {error}");
        assert!(error.to_string().contains(name), "{name}: {error}");
    }
}
