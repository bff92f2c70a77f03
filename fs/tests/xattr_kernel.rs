//! Extended attributes and ACLs: what the kernel sets we read and keep, what we set the kernel
//! reads, e2fsck agrees with every hash, count and checksum.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::oracle::{Disk, at, commit, compare, shell};
use snf_fs::{Attributes, Error, FileSystem, FileType};

const FILE: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };

const SHAPES: &[(&str, &str)] = &[
    ("debian 12", "-t ext4 -O metadata_csum,64bit,^orphan_file,^metadata_csum_seed"),
    ("debian 13", "-t ext4 -O metadata_csum,64bit,orphan_file,metadata_csum_seed"),
    ("no checksums 1k", "-t ext4 -O ^metadata_csum -b 1024"),
    ("small inodes", "-t ext3 -I 128"),
    ("ext2 1k", "-t ext2 -b 1024"),
    ("inline_data", "-t ext4 -O inline_data"),
    ("bigalloc", "-t ext4 -O bigalloc -C 16384"),
];

fn get(fs: &dyn FileSystem, path: &str, name: &str) -> Option<Vec<u8>> {
    let list = fs.xattrs(at(fs, path)).unwrap();
    list.into_iter().find(|(found, _)| found == name.as_bytes()).map(|(_, value)| value)
}

#[test]
fn set_change_remove() {
    for (what, args) in SHAPES {
        let disk = Disk::make(args, 48);
        let mut fs = disk.open();
        let root = fs.root();
        let file = fs.create(root, b"file", FILE).unwrap();
        fs.replace(file, b"content\n").unwrap();
        // Fill the inode and then the block, in sizes that are and are not aligned.
        for i in 0..12usize {
            let value: Vec<u8> = (0..i * 13 % 50).map(|j| (i * j) as u8).collect();
            fs.set_xattr(file, format!("user.name{i}").as_bytes(), Some(&value)).unwrap();
        }
        // Version 2: cap_net_bind_service, effective.
        let mut capability = [0; 20];
        capability[..5].copy_from_slice(&[1, 0, 0, 2, 0]);
        capability[5] = 4;
        fs.set_xattr(file, b"security.selinux", Some(b"system_u:object_r:etc_t:s0\0")).unwrap();
        fs.set_xattr(file, b"security.capability", Some(&capability)).unwrap();
        fs.set_xattr(file, b"trusted.overlay.opaque", Some(b"y")).unwrap();
        commit(&mut fs);
        disk.fsck(what);
        compare(&disk, what);

        let mut fs = disk.open();
        for i in (0..12).step_by(2) {
            fs.set_xattr(file, format!("user.name{i}").as_bytes(), None).unwrap();
        }
        fs.set_xattr(file, b"user.name1", Some(b"")).unwrap();
        fs.set_xattr(file, b"user.name3", Some(&[9; 300])).unwrap();
        fs.set_xattr(file, b"user.not there", None).unwrap();
        fs.replace(file, b"other content\n").unwrap();
        commit(&mut fs);
        disk.fsck(what);
        compare(&disk, what);
        assert_eq!(get(&fs, "file", "user.name3").unwrap(), [9; 300]);

        // More than fits is refused and changes nothing.
        let before = fs.xattrs(file).unwrap();
        let result = fs.set_xattr(file, b"user.too large", Some(&[1; 5000]));
        assert!(matches!(result, Err(Error::NoSpace(_))), "{what}: {result:?}");
        assert_eq!(fs.xattrs(file).unwrap(), before);

        for (name, _) in before {
            fs.set_xattr(file, &name, None).unwrap();
        }
        commit(&mut fs);
        assert!(fs.xattrs(file).unwrap().is_empty());
        disk.fsck(what);
        compare(&disk, what);
    }
}

#[test]
fn blocks_that_inodes_share() {
    for (what, args) in SHAPES {
        let disk = Disk::make(args, 48);
        let mount = disk.mount("user_xattr");
        shell(
            &mount.at,
            "for i in 1 2 3 4; do echo $i > f$i
             setfattr -n user.a -v $(printf 'v%.0s' $(seq 400)) f$i
             setfattr -n user.b -v $(printf 'w%.0s' $(seq 200)) f$i; done",
        );
        drop(mount);
        let mut fs = disk.open();
        let f1 = at(&fs, "f1");
        fs.set_xattr(f1, b"user.a", Some(b"mine now")).unwrap();
        fs.set_xattr(f1, b"user.c", Some(&[3; 350])).unwrap();
        let root = fs.root();
        fs.unlink(root, b"f2").unwrap();
        let f3 = at(&fs, "f3");
        fs.set_xattr(f3, b"user.a", None).unwrap();
        fs.set_xattr(f3, b"user.b", None).unwrap();
        commit(&mut fs);
        disk.fsck(what);
        compare(&disk, what);
        assert_eq!(get(&fs, "f4", "user.a").unwrap(), vec![b'v'; 400]);
    }
}

fn large_values(disk: &Disk, what: &str) {
    let mut fs = disk.open();
    let root = fs.root();
    let node = fs.create(root, b"ours", FILE).unwrap();
    fs.set_xattr(node, b"user.large", Some(&[7; 60_000])).unwrap();
    fs.set_xattr(node, b"user.small", Some(b"small")).unwrap();
    fs.set_xattr(node, b"user.changed", Some(&[8; 9000])).unwrap();
    fs.set_xattr(node, b"user.changed", Some(&[9; 9001])).unwrap();
    fs.chown(node, 1234, 5678).unwrap();
    commit(&mut fs);
    disk.fsck(what);
    assert_eq!(get(&fs, "ours", "user.large").unwrap(), [7; 60_000]);
    fs.set_xattr(node, b"user.large", None).unwrap();
    let gone = fs.create(root, b"gone", FILE).unwrap();
    fs.set_xattr(gone, b"user.large", Some(&[1; 8000])).unwrap();
    commit(&mut fs);
    fs.unlink(root, b"gone").unwrap();
    commit(&mut fs);
    disk.fsck(what);
}

#[test]
fn values_in_inodes_of_their_own() {
    for args in [
        "-t ext4 -O ea_inode",
        "-t ext4 -O ea_inode,^metadata_csum -b 1024",
        "-t ext4 -O ea_inode,bigalloc -C 16384",
    ] {
        let disk = Disk::make(args, 48);
        let mount = disk.mount("user_xattr");
        let value = vec![b'k'; 20_000];
        for name in ["kernel", "shared", "goes"] {
            std::fs::write(mount.path(name), name).unwrap();
            let set = |attribute: &str| {
                let flags = rustix::fs::XattrFlags::empty();
                rustix::fs::setxattr(mount.path(name), attribute, &value, flags).unwrap();
            };
            set("user.large");
            set("user.more");
        }
        drop(mount);
        disk.fsck(args);
        compare(&disk, args);
        let mut fs = disk.open();
        let root = fs.root();
        fs.unlink(root, b"goes").unwrap();
        let node = at(&fs, "kernel");
        fs.set_xattr(node, b"user.large", None).unwrap();
        fs.set_xattr(node, b"user.new", Some(b"x")).unwrap();
        commit(&mut fs);
        disk.fsck(args);
        compare(&disk, args);
        large_values(&disk, args);
        compare(&disk, args);
    }
    // Few kernels are built with quota; e2fsck counts it anyway.
    let args = "-t ext4 -O ea_inode,quota,project -I 256";
    let disk = Disk::make(args, 48);
    large_values(&disk, args);
}

#[test]
fn acls() {
    for (what, args) in SHAPES {
        let disk = Disk::make(args, 48);
        let mount = disk.mount("acl");
        shell(
            &mount.at,
            "mkdir d; setfacl -d -m u:1000:rwx,g:50:r-x,o::--- d; chmod 2755 d; echo > f
             setfacl -m u:7:rw,m::rw f",
        );
        drop(mount);
        let mut fs = disk.open();
        let d = at(&fs, "d");
        let made = fs.create(d, b"made", Attributes { mode: 0o640, uid: 5, gid: 6 }).unwrap();
        let dir = fs.mkdir(d, b"dir", Attributes { mode: 0o755, uid: 5, gid: 6 }).unwrap();
        fs.symlink(d, b"link", b"made", FILE).unwrap();
        let f = at(&fs, "f");
        fs.chmod(f, 0o600).unwrap();
        let stat = fs.stat(made).unwrap();
        assert_eq!((stat.mode, stat.uid, stat.gid), (0o640, 5, 6), "{what}");
        assert_eq!(fs.stat(dir).unwrap().mode, 0o2755, "{what}");
        assert_eq!(fs.stat(dir).unwrap().file_type, FileType::Directory);
        // Copied from one file to another, as a rename-over would want it.
        let acl = get(&fs, "f", "system.posix_acl_access").unwrap();
        let root = fs.root();
        let copy = fs.create(root, b"copy", FILE).unwrap();
        fs.set_xattr(copy, b"system.posix_acl_access", Some(&acl)).unwrap();
        assert_eq!(fs.stat(copy).unwrap().mode, 0o600);
        assert!(fs.set_xattr(copy, b"system.posix_acl_default", Some(&acl)).is_err());
        assert!(fs.set_xattr(copy, b"system.posix_acl_access", Some(b"no")).is_err());
        commit(&mut fs);
        disk.fsck(what);
        compare(&disk, what);
        let mount = disk.mount("ro,acl");
        shell(
            &mount.at,
            "getfacl -n d/made | grep -q 'user:1000:rwx\t*#effective:r--'
             getfacl -n d/dir | grep -q 'default:user:1000:rwx'
             getfacl -n f | grep -q 'mask::---'; getfacl -n copy | grep -q 'user:7:rw-'",
        );
    }
}

/// Inodes of a file system that was ext3 with large inodes: nothing after the first 128 bytes.
#[test]
fn inodes_without_an_extra_part() {
    let disk = Disk::make("-t ext3 -I 256", 48);
    let mount = disk.mount("rw");
    shell(&mount.at, "echo > old");
    drop(mount);
    let output = std::process::Command::new("debugfs")
        .args(["-w", "-R", "set_inode_field old extra_isize 0"])
        .arg(&disk.path)
        .output()
        .unwrap();
    assert!(output.status.success());
    let mut fs = disk.open();
    let old = at(&fs, "old");
    assert!(fs.xattrs(old).unwrap().is_empty());
    fs.chmod(old, 0o600).unwrap();
    commit(&mut fs);
    disk.fsck("extra_isize 0");
    fs.set_xattr(old, b"security.selinux", Some(b"system_u:object_r:etc_t:s0")).unwrap();
    fs.replace(old, b"new").unwrap();
    commit(&mut fs);
    disk.fsck("extra_isize used");
    compare(&disk, "extra_isize used");
}
