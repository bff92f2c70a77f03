//! Linux' own NTFS driver (ntfs3) and the engine see the same: on a volume that ntfs-3g filled and we
//! edited, and on what ntfs3 then made of it. In a virtual machine, because no kernel of Debian 12 has
//! that driver.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::ntfs_support::edit::{ANY, at, edit, open};
use crate::ntfs_support::linux::through_ntfs3;
use crate::ntfs_support::walk::{Seen, Walk, through_mount, through_us};
use crate::ntfs_support::{Image, fill};
use snf_fs::FileSystem;
use snf_fs::testing::Random;

/// Files that a tar archive keeps, and both show alike: no reparse points, whose targets ntfs3 writes in its
/// own way, no halves of surrogate pairs, which it has no form for, and times only in seconds.
fn comparable(walk: &Walk) -> Walk {
    let alike = walk.iter().filter(|(path, seen)| {
        let half = path.windows(5).any(|window| window == b"half ");
        !half && matches!(seen, Seen::File { .. } | Seen::Directory)
    });
    let alike = alike.map(|(path, seen)| {
        let mut seen = seen.clone();
        if let Seen::File { mtime, .. } = &mut seen {
            mtime.1 = 0;
        }
        (path.clone(), seen)
    });
    alike.collect()
}

fn same(theirs: &Walk, ours: &Walk, what: &str) {
    let (theirs, ours) = (comparable(theirs), comparable(ours));
    for (path, seen) in &ours {
        let other = theirs.get(path);
        assert!(
            other == Some(seen),
            "{what}: {}: {seen:?} {other:?}",
            String::from_utf8_lossy(path)
        );
    }
    assert!(theirs.len() == ours.len(), "{what}: ntfs3 shows more than we do");
    assert!(ours.len() > 300, "{what}: {}", ours.len());
}

/// In the root of the volume.
const EDIT: &str = r#"
    mkdir -p linux/a/b/c
    i=0; while [ $i -lt 300 ]; do echo "file $i" > "linux/a/written by ntfs3, number $i"; i=$((i + 1)); done
    rm "linux/a/written by ntfs3, number 7"
    i=0; for file in large/*; do i=$((i + 1)); [ $((i % 3)) = 0 ] || rm "$file"; done
    head -c 3000000 /dev/urandom > "file 6"
    echo more >> "file 5"
    mv "ours 0/ours 1" linux/moved
    mv "file 2" "linux/Größe 日本"
    rm -r "level 0/level 1""#;

#[test]
fn ntfs3_and_the_engine_agree() {
    let volumes = ["-c 4096", "-s 4096 -c 4096"].map(|args| {
        let image = Image::make(args, 120);
        fill(&image.mount(), 200);
        let mut fs = open(&image);
        edit(&mut fs, &mut Random(9));
        let node = fs.create(fs.root(), "by us \u{1f600}".as_bytes(), ANY).unwrap();
        fs.replace(node, b"content").unwrap();
        fs.commit().unwrap();
        (args, image, through_us(&fs))
    });
    let dir = tempfile::tempdir().unwrap();
    let images: Vec<&Image> = volumes.iter().map(|(_, image, _)| image).collect();
    let trees = through_ntfs3(&images, EDIT, dir.path());
    for ((args, image, ours), [before, after]) in volumes.iter().zip(trees) {
        same(&through_mount(&before), ours, &format!("{args}: as we wrote it"));
        image.must_be_clean(&format!("{args}: after ntfs3"));
        image.fix_finds_nothing(args);
        let fs = open(image);
        at(&fs, "linux/moved");
        same(&through_mount(&after), &through_us(&fs), &format!("{args}: as ntfs3 wrote it"));
    }
}
