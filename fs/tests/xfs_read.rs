//! The XFS reader against the kernel: every kind of structure, in file systems of many shapes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::oracle::{shell, walk_ext};
use crate::xfs_support::{Image, compare, must};
use snf_fs::{Error, FileSystem};
use std::process::Command;

/// Shapes that the kernel mounts.
const SHAPES: &[(&str, u64)] = &[
    ("", 96),
    ("-m rmapbt=1,reflink=1 -i nrext64=1", 96),
    ("-m finobt=0,reflink=0,bigtime=0,inobtcount=0,rmapbt=0 -i sparse=0", 96),
    ("-b size=1024 -m rmapbt=1", 96),
    ("-b size=16384", 128),
    ("-s size=4096 -i size=2048", 96),
    ("-b size=2048 -n size=65536", 96),
    ("-d agcount=8 -i size=1024 -l su=32k", 128),
];

/// Everything that a file system can hold, made by the kernel.
const FILL: &str = r#"
mkdir short block leaf node empty
for i in 1 2 3; do echo $i > short/$i; done
python3 - <<'P'
import os
for d, n in (("block", 40), ("leaf", 300), ("node", 1500)):
    for i in range(n):
        open("%s/entry-%d-%s" % (d, i, "x" * (i % 40)), "w").write(str(i))
for i in range(0, 1500, 7):
    os.unlink("node/entry-%d-%s" % (i, "x" * (i % 40)))
# Every second block: more extents than fit into the inode.
with open("holes", "wb") as f:
    for i in range(600):
        f.seek(i * 131072)
        f.write(b"%d\n" % i * 100)
f = open("few", "wb")
for i in range(5):
    f.seek(i * 1000003)
    f.write(b"piece")
f.close()
for n in (1, 100, 300, 500, 900, 1023):
    os.symlink("t" * n, "link-%d" % n)
os.setxattr("short/1", "user.small", b"value")
os.setxattr("short/1", "security.selinux", b"system_u:object_r:etc_t:s0\0")
os.setxattr("short/1", "trusted.empty", b"")
for i in range(30):
    os.setxattr("short/2", "user.number-%d" % i, b"v" * (i * 9))
for i in range(150):
    os.setxattr("short/3", "user.number-%d" % i, b"w" * (i % 250))
os.setxattr("few", "user.large", bytes(range(256)) * 200)
os.setxattr("few", "user.larger", b"x" * 65536)
os.setxattr("block", "user.of-a-directory", b"d" * 300)
os.chown("short/2", 70000, 3000000000)
os.utime("short/3", ns=(1, 1234567890123456789))
os.utime("few", ns=(-5000000000, -1))
P
mknod device c 250 70000
mknod disk b 8 1
mkfifo pipe
ln few second-name
chmod 4711 short/1
setfacl -m u:1000:rx,g:100:r short/2
setfacl -d -m u:1000:rwx short
xfs_io -f -c "falloc 0 1m" -c "pwrite 100k 5000" unwritten > /dev/null
head -c 300000 /dev/urandom > plain
cp --reflink=auto plain shared
"#;

#[test]
fn every_structure_is_read_as_the_kernel_reads_it() {
    for (args, mib) in SHAPES {
        let image = Image::make(args, *mib);
        let mount = image.mount("rw");
        shell(&mount.at, FILL);
        drop(mount);
        compare(&image, args);
        let info = image.open().info().unwrap();
        let label =
            must(Command::new("blkid").args(["-o", "value", "-s", "UUID"]).arg(&image.path));
        assert_eq!(info.uuid, label.trim(), "{args}");
    }
}

/// This kernel does not mount version 4: mkfs.xfs fills it.
#[test]
fn version_4_is_read() {
    for args in ["-m crc=0", "-m crc=0 -b size=512", "-m crc=0 -n ftype=0 -l version=1"] {
        let dir = tempfile::TempDir::new().unwrap();
        let file = dir.path().join("content");
        let content: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write(&file, &content).unwrap();
        let mut prototype = String::from("/boot\n0 0\nd--755 0 0\n");
        for i in 0..400 {
            prototype.push_str(&format!("file-{i} ---644 {i} 7 {}\n", file.display()));
        }
        prototype.push_str("few d--750 1 2\nlink l--777 0 0 there\n$\n$\n");
        let proto = dir.path().join("proto");
        std::fs::write(&proto, prototype).unwrap();
        let image = Image::make(&format!("{args} -p {}", proto.display()), 400);
        image.check(args);
        let mut xfs = image.open();
        let tree = walk_ext(&xfs);
        assert_eq!(tree.len(), 403, "{args}");
        let node = xfs.lookup(xfs.root(), b"file-77").unwrap().unwrap();
        let mut bytes = vec![0; content.len()];
        assert_eq!(xfs.read(node, 0, &mut bytes).unwrap(), bytes.len());
        assert!(bytes == content, "{args}");
        let link = &tree[b"few/link".as_slice()];
        assert_eq!((&link.link[..], link.mode), (b"there".as_slice(), 0o777), "{args}");
        let error = xfs.replace(node, b"x").unwrap_err();
        assert!(matches!(&error, Error::ReadOnly(why) if why.contains("version 4")), "{error}");
    }
}
