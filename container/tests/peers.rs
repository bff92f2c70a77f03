//! imago, another implementation, reads what we wrote and writes what we read. It refuses zstd
//! clusters and extended L2 entries.

use imago::file::File;
use imago::qcow2::Qcow2 as Imago;
use imago::{FormatAccess, FormatDriverBuilder, PermissiveImplicitOpenGate};
use snf_container::qcow2::Options;
use snf_fs::BlockDevice;
use snf_fs::testing::Random;

use crate::support::{
    Place, assert_same, assert_whole, change_both, open_file, pattern, qemu_img, text,
};

fn imago(path: &std::path::Path, write: bool) -> FormatAccess<File> {
    let builder = Imago::<File>::builder_path(path).write(write);
    FormatAccess::new(builder.open(PermissiveImplicitOpenGate::default()).unwrap())
}

#[test]
fn imago_and_we_take_turns() {
    for (options, compressed) in [
        ("cluster_size=512", true),
        ("cluster_size=4096,compat=0.10", false),
        ("cluster_size=65536", true),
        ("cluster_size=65536,refcount_bits=1", false),
        ("cluster_size=4096,refcount_bits=64", true),
    ] {
        let place = Place::new();
        let mut model = pattern(900_096, 11);
        let raw = place.file("raw", &model);
        let image = place.path("image");
        let mut args = vec!["convert", "-f", "raw", "-O", "qcow2", "-o", options];
        if compressed {
            args.push("-c");
        }
        args.extend([text(&raw), text(&image)]);
        qemu_img(&args);
        let mut random = Random(7);
        for turn in 0..3u8 {
            let disk = open_file(&image, Options::writable());
            change_both(&disk, &mut model, &mut random, 30);
            disk.flush().unwrap();
            drop(disk);
            let other = imago(&image, true);
            let mut found = vec![0; model.len()];
            other.read(&mut found[..], 0).unwrap();
            assert_same(&found, &model, &format!("{options}, by imago"));
            for _ in 0..20 {
                let at = random.below(model.len() - 9000);
                let length = 1 + random.below(9000);
                model[at..at + length].fill(turn + 1);
                other.write(&model[at..at + length], at as u64).unwrap();
            }
            other.flush().unwrap();
            drop(other);
            assert_whole(&place, &image, &model, options);
        }
    }
}
