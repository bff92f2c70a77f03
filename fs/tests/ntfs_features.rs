//! Features that other file systems do not have: short names, junctions, and those that the engine does not
//! make.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::ntfs_support::edit::{ANY, at, open};
use crate::ntfs_support::{Image, Mount, junction};
use snf_fs::{Error, FileSystem, Tree};

fn text_of(path: &std::path::Path, attribute: &str) -> Option<String> {
    let mut value = vec![0; 1000];
    let count = rustix::fs::lgetxattr(path, attribute, &mut value[..]).ok()?;
    Some(String::from_utf8_lossy(&value[..count]).into_owned())
}

#[test]
fn short_names_are_made_where_the_volume_makes_them() {
    for with in [true, false] {
        let image = Image::make("-c 4096", 20);
        let mount = image.mount();
        for dir in ["with", "without"] {
            std::fs::create_dir(mount.path(dir)).unwrap();
        }
        if with {
            let old = mount.path("with/a long name with a short one.text");
            std::fs::write(&old, b"").unwrap();
            mount.set(&old, "system.ntfs_dos_name", b"ALONGN~1.TEX");
        }
        drop(mount);
        let mut fs = open(&image);
        let dir = at(&fs, "with");
        for name in ["a long name like the other.text", "Größe der Welt.conf", "SHORT.TXT"] {
            fs.create(dir, name.as_bytes(), ANY).unwrap();
        }
        let found = |fs: &dyn FileSystem, short: &str, long: &str| {
            let (short, long) = (
                fs.lookup(dir, short.as_bytes()).unwrap(),
                fs.lookup(dir, long.as_bytes()).unwrap(),
            );
            short.is_some() && short == long
        };
        assert_eq!(found(&fs, "alongn~2.tex", "a long name like the other.text"), with);
        // Listed are long names only.
        assert_eq!(fs.readdir(dir).unwrap().len(), 3 + usize::from(with));
        fs.commit().unwrap();
        drop(fs);
        image.must_be_clean("short names");
        image.fix_finds_nothing("short names");
        let mount = image.mount();
        let short =
            |name: &str| text_of(&mount.path(&format!("with/{name}")), "system.ntfs_dos_name");
        let made = short("a long name like the other.text");
        assert_eq!(made.as_deref(), with.then_some("ALONGN~2.TEX"));
        assert_eq!(short("Größe der Welt.conf").is_some(), with);
        assert_eq!(mount.path("with/ALONGN~2.TEX").exists(), with);
        drop(mount);
        // The short name goes with the long one.
        let mut fs = open(&image);
        fs.unlink(dir, b"a long name like the other.text").unwrap();
        assert_eq!(fs.lookup(dir, b"ALONGN~2.TEX").unwrap(), None);
        fs.commit().unwrap();
        image.must_be_clean("a short name less");
    }
}

#[test]
fn junctions_and_links_lead_inside_the_image() {
    let image = Image::make("-c 4096", 20);
    let mount = image.mount();
    std::fs::create_dir_all(mount.path("Users/real/docs")).unwrap();
    std::fs::write(mount.path("Users/real/docs/leaf"), b"leaf").unwrap();
    for (name, target) in [
        ("inside", "C:\\Users\\real"),
        ("outside", "D:\\Users\\real"),
        ("loop", "C:\\loop"),
        ("up", "C:\\..\\..\\Users\\real"),
    ] {
        std::fs::create_dir(mount.path(name)).unwrap();
        mount.set(&mount.path(name), "system.ntfs_reparse_data", &junction(target));
    }
    drop(mount);
    let mut tree = Tree::new(Box::new(open(&image)));
    assert_eq!(tree.read("/inside/docs/leaf", 100).unwrap(), b"leaf");
    assert_eq!(tree.read("/up/docs/leaf", 100).unwrap(), b"leaf");
    assert!(tree.read("/outside/docs/leaf", 100).is_err());
    assert!(tree.read("/loop/docs/leaf", 100).is_err());
    tree.write("/inside/docs/new", b"through the junction", ANY).unwrap();
    tree.commit().unwrap();
    image.must_be_clean("junctions");
    let through = std::fs::read(image.mount().path("Users/real/docs/new")).unwrap();
    assert_eq!(through, b"through the junction");
}

#[test]
fn what_is_not_made_is_refused_by_name() {
    let image = Image::make("-c 4096", 20);
    let mount: Mount = image.mount();
    std::fs::write(mount.path("file"), b"").unwrap();
    drop(mount);
    let before = std::fs::read(&image.path).unwrap();
    let mut fs = open(&image);
    let (root, file) = (fs.root(), at(&fs, "file"));
    let error = fs.symlink(root, b"link", b"file", ANY).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    assert!(error.to_string().contains("symbolic link (link) on NTFS"), "{error}");
    let error = fs.set_xattr(file, b"user.x", Some(b"y")).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
    assert!(error.to_string().contains("user.x"), "{error}");
    assert!(!fs.is_dirty());
    fs.commit().unwrap();
    drop(fs);
    assert!(std::fs::read(&image.path).unwrap() == before);
}
