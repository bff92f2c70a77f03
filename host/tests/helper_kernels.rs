//! The helper with every kernel of Debian bullseye, bookworm and trixie, cloud and generic, with
//! modules as they come and compressed in each way that a distribution has.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod vm_support;

use std::fs;
use std::path::Path;
use std::process::Command;

use snf_image_host::helper::update::{self, Built, Options};
use snf_image_host::helper::{ParameterDisk, guest_disk, make_snapshot};
use snf_image_host::node::cancel::Cancel;

use vm_support::*;

/// Builds a helper of the kernel under `root` and has it set a host name.
fn works(root: &Path, hostname: &str) -> Built {
    let directory = tempfile::tempdir().unwrap();
    let built = update::build(&Options {
        directory: directory.path().to_owned(),
        root: Some(root.to_owned()),
        init: Some(init().to_owned()),
        ..Options::default()
    })
    .unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = guest(dir.path());
    let rules = rules(&guest_disk(0), hostname);
    let report = run(&config(directory.path()), open(&path), &rules, &mut Heard::default());
    println!("{}: {:?} {report:?}", root.display(), built.description);
    report.unwrap();
    assert_eq!(read_guest(&path, "etc/hostname").trim(), hostname);
    // And once more from a snapshot.
    make_snapshot(&config(directory.path()), &Cancel::new()).unwrap();
    let path = guest(dir.path());
    let rules = rules.replace(hostname, "again.example.org");
    let report = run(&config(directory.path()), open(&path), &rules, &mut Heard::default());
    assert!(report.unwrap().resumed);
    assert_eq!(read_guest(&path, "etc/hostname").trim(), "again.example.org");
    // The init brings the engines of XFS and btrfs, LVM and LUKS: 4.6 MB on the cloud kernel of bookworm.
    assert!(built.initramfs_size <= 5 << 20, "{} bytes", built.initramfs_size);
    // With the kernel's drivers of file systems, packed.
    assert!((1 << 20..5 << 20).contains(&built.file_systems_size), "{}", built.file_systems_size);
    assert!(built.description.pvh);
    built
}

/// Each kernel and how it starts, with the version that its name begins with.
const KERNELS: [(&str, &str, ParameterDisk); 6] = [
    ("bullseye-cloud-amd64", "5.10.", ParameterDisk::Virtio),
    ("bullseye-amd64", "5.10.", ParameterDisk::Floppy),
    ("cloud-amd64", "6.1.", ParameterDisk::Virtio),
    ("amd64", "6.1.", ParameterDisk::Floppy),
    ("trixie-cloud-amd64", "6.12.", ParameterDisk::Virtio),
    ("trixie-amd64", "6.12.", ParameterDisk::Floppy),
];

#[test]
fn kernels_of_three_debians() {
    for (flavour, version, parameter_disk) in KERNELS {
        let built = works(&kernel_root(flavour), "kernels.example.org");
        let release = &built.description.kernel_release;
        assert!(release.starts_with(version), "{release}");
        assert_eq!(built.description.parameter_disk, parameter_disk, "{flavour}");
    }
}

/// A copy of a kernel with its modules compressed by a program, and without depmod's lists.
fn recompressed(from: &Path, to: &Path, release: &str, command: &[&str], extension: &str) {
    let modules = from.join("lib/modules").join(release);
    let target = to.join("lib/modules").join(release);
    fs::create_dir_all(to.join("boot")).unwrap();
    fs::create_dir_all(&target).unwrap();
    let image = format!("boot/vmlinuz-{release}");
    fs::copy(from.join(&image), to.join(&image)).unwrap();
    fs::copy(modules.join("modules.builtin"), target.join("modules.builtin")).unwrap();
    for part in ["drivers/virtio", "drivers/block", "drivers/char/hw_random"] {
        let directory = target.join("kernel").join(part);
        fs::create_dir_all(&directory).unwrap();
        for entry in fs::read_dir(modules.join("kernel").join(part)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if !name.ends_with(".ko") {
                continue;
            }
            let packed = Command::new(command[0])
                .args(&command[1..])
                .arg(entry.path())
                .output()
                .unwrap_or_else(|e| panic!("{} must be installed: {e}", command[0]));
            assert!(packed.status.success());
            fs::write(directory.join(format!("{name}.{extension}")), packed.stdout).unwrap();
        }
    }
}

#[test]
fn modules_compressed_in_every_way() {
    let root = kernel_root("cloud-amd64");
    let release = fs::read_dir(root.join("lib/modules")).unwrap().next().unwrap().unwrap();
    let release = release.file_name().into_string().unwrap();
    let build = |root: &Path| {
        let directory = tempfile::tempdir().unwrap();
        let built = update::build(&Options {
            directory: directory.path().to_owned(),
            root: Some(root.to_owned()),
            init: Some(init().to_owned()),
            engines_only: true,
            ..Options::default()
        });
        built.unwrap().description
    };
    let plain = build(&root);
    for (command, extension) in [
        (&["zstd", "-q", "-c"][..], "zst"),
        (&["xz", "-c", "--check=crc32", "--lzma2=dict=1MiB"], "xz"),
        (&["gzip", "-c", "-n"], "gz"),
    ] {
        let copy = tempfile::tempdir().unwrap();
        recompressed(&root, copy.path(), &release, command, extension);
        // The same helper, to the byte: only how the modules were stored differs.
        assert_eq!(build(copy.path()), plain, "{extension}");
    }
}

#[test]
fn a_kernel_that_lacks_something_is_named() {
    let root = kernel_root("cloud-amd64");
    let release = fs::read_dir(root.join("lib/modules")).unwrap().next().unwrap().unwrap();
    let release = release.file_name().into_string().unwrap();
    let copy = tempfile::tempdir().unwrap();
    recompressed(&root, copy.path(), &release, &["cat"], "gz");
    let kernel = copy.path().join("lib/modules").join(&release).join("kernel");
    let build = |directory: &Path| {
        update::build(&Options {
            directory: directory.to_owned(),
            root: Some(copy.path().to_owned()),
            init: Some(init().to_owned()),
            ..Options::default()
        })
    };
    let directory = tempfile::tempdir().unwrap();
    // Damaged modules, then missing ones.
    let error = build(directory.path()).unwrap_err().to_string();
    assert!(error.contains(".ko.gz cannot be used"), "{error}");
    fs::remove_file(kernel.join("drivers/block/virtio_blk.ko.gz")).unwrap();
    fs::remove_file(kernel.join("drivers/char/hw_random/virtio-rng.ko.gz")).unwrap();
    let error = build(directory.path()).unwrap_err().to_string();
    assert!(error.contains(&format!("{release} has no virtio_blk, virtio_rng")), "{error}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "nothing was built");
}
