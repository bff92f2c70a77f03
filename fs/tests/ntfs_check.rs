//! The NTFS checker against volumes that mkntfs made and ntfs-3g filled.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::ntfs_support::{Image, count, fill};

/// mkntfs's options, MiB, and files in one directory.
const MATRIX: &[(&str, u64, usize)] = &[
    ("-c 4096", 64, 3_000),
    ("-c 512", 64, 400),
    ("-c 1024", 64, 200),
    ("-c 16384", 64, 200),
    ("-c 65536", 96, 200),
    ("-c 2097152", 900, 100),
    ("-s 4096 -c 4096", 64, 400),
    ("-s 4096 -c 65536", 96, 100),
];

#[test]
fn volumes_that_ntfs_3g_filled_are_clean_and_hold_what_it_shows() {
    for &(args, mib, many) in MATRIX {
        let image = Image::make(args, mib);
        let empty = image.must_be_clean(args);
        let before = count(&image.mount().at, 0);
        let mount = image.mount();
        let after = fill(&mount, many);
        drop(mount);
        let full = image.must_be_clean(args);
        assert_eq!(full.files - empty.files, after.files - before.files, "{args}");
        assert_eq!(full.entries - empty.entries, after.names - before.names, "{args}");
        assert_eq!(full.directories - empty.directories, after.directories, "{args}");
        image.fix_finds_nothing(args);
    }
}
