//! `snf-customize --vm`, as nobody, with QEMU (TCG): the same edit as without, and XFS and btrfs
//! by the helper's kernel. Judged by the kernel's mount, xfs_repair and btrfs check.
//! Needs root (to make and judge the images), QEMU and what `cargo xtask test` prepares.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use support::disk::{Loop, Mount, copy, partition, run};
use support::{scratch, stage};

const PASSWORD: &str = "pass w0rd'\"$&%`";
const NOBODY: &str = "65534";

/// Fills a small Debian-like tree.
fn fill(root: &Path, fstab: &str) {
    for directory in ["etc/ssh", "bin", "root", "home/admin", "var/lib/dbus", "srv"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for (name, text, mode) in [
        ("etc/os-release", "ID=debian\nVERSION_ID=12\nPRETTY_NAME=\"Debian 12 on test\"\n", 0o644),
        (
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/bash\nadmin:x:1000:1000::/home/admin:/bin/sh\n",
            0o644,
        ),
        ("etc/shadow", "root:*:19000:0:99999:7:::\nadmin:!:19000:0:99999:7:::\n", 0o640),
        ("etc/group", "root:x:0:\nshadow:x:42:\nadmin:x:1000:\n", 0o644),
        ("etc/hostname", "template\n", 0o644),
        ("etc/hosts", "127.0.0.1 localhost\n127.0.1.1 template\n", 0o644),
        ("etc/machine-id", "00112233445566778899aabbccddeeff\n", 0o444),
        ("etc/ssh/ssh_host_ed25519_key", "old private\n", 0o600),
        ("etc/ssh/ssh_host_ed25519_key.pub", "ssh-ed25519 old\n", 0o644),
        ("etc/ssh/sshd_config", "PermitRootLogin yes\n", 0o644),
        ("etc/fstab", fstab, 0o644),
        ("srv/untouched", "as it was\n", 0o604),
    ] {
        fs::write(root.join(name), text).unwrap();
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    run("chown", &["0:42", &root.join("etc/shadow").to_string_lossy()]);
    run("chown", &["-R", "1000:1000", &root.join("home/admin").to_string_lossy()]);
    let label = "system_u:object_r:shadow_t:s0";
    run("setfattr", &["-n", "security.selinux", "-v", label, &text(&root.join("etc/shadow"))]);
    run("setfacl", &["-m", "u:1000:r", &text(&root.join("etc/hosts"))]);
    // A way out of the image, if somebody followed it.
    std::os::unix::fs::symlink("/../../../../tmp", root.join("srv/out")).unwrap();
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// An image of `size` MiB with one GPT partition that ends 64 MiB before it, made by `mkfs`.
fn image(dir: &Path, mkfs: &[&str], size: u64) -> PathBuf {
    let path = dir.join("disk.raw");
    fs::File::create(&path).unwrap().set_len((size - 64) << 20).unwrap();
    run("sgdisk", &["-n", "1:2048:0", "-t", "1:8300", &text(&path)]);
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(size << 20).unwrap();
    let (start, length) = partition(&path, 1);
    let device = Loop::new(&path, start, length, false);
    let (program, arguments) = mkfs.split_first().unwrap();
    run(program, &[arguments, &[device.device.as_str()]].concat());
    path
}

fn mounted(path: &Path, options: &str) -> (Loop, tempfile::TempDir) {
    let (start, length) = partition(path, 1);
    let device = Loop::new(path, start, length, options.starts_with("ro"));
    let directory = tempfile::tempdir().unwrap();
    run("mount", &["-o", options, &device.device, &text(directory.path())]);
    (device, directory)
}

fn unmount(mount: &(Loop, tempfile::TempDir)) {
    run("umount", &[&text(mount.1.path())]);
}

/// The installed pieces where nobody can reach them, and settings for a machine whose KVM may
/// only look as if it worked.
fn installed() -> &'static Path {
    static INSTALLED: OnceLock<tempfile::TempDir> = OnceLock::new();
    INSTALLED
        .get_or_init(|| {
            let dir = scratch();
            for name in ["bin", "helper"] {
                run("cp", &["-r", &text(&stage().join(name)), &text(dir.path())]);
            }
            let config = "HELPER_ACCEL=tcg\nHELPER_SOFT_TIMEOUT=300\n";
            fs::write(dir.path().join("config"), config).unwrap();
            run("chmod", &["-R", "a+rX", &text(dir.path())]);
            dir
        })
        .path()
}

/// Runs snf-customize as nobody, with the password on its standard input and the clock standing
/// still.
fn customize(disk: &Path, arguments: &[&str]) -> Output {
    run("chown", &[NOBODY, &text(disk)]);
    let directory = disk.parent().unwrap();
    if directory != Path::new("/dev") {
        run("chown", &[NOBODY, &text(directory)]);
    }
    let program = installed().join("bin/snf-customize");
    let mut child = Command::new("setpriv")
        .args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups", "--no-new-privs"])
        .arg(program)
        .args(["apply", &text(disk)])
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin")
        .env("SNF_IMAGE_CONFIG", installed().join("config"))
        .env("SOURCE_DATE_EPOCH", "1700000000")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let _ = child.stdin.take().unwrap().write_all(format!("{PASSWORD}\n").as_bytes());
    let output = child.wait_with_output().unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    println!("{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn vm_arguments() -> Vec<String> {
    vec!["--vm".to_owned(), "--helper".to_owned(), text(&installed().join("helper"))]
}

fn in_vm(disk: &Path, arguments: &[&str]) -> Output {
    let vm = vm_arguments();
    let vm: Vec<&str> = vm.iter().map(String::as_str).collect();
    customize(disk, &[&vm, arguments].concat())
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The request for every guest below.
fn wishes(dir: &Path) -> Vec<String> {
    fs::write(dir.join("motd"), "hello\n").unwrap();
    let motd = dir.join("motd");
    [
        "--root-password=stdin",
        "--hostname=web1.example.test",
        "--machine-id=new",
        "--host-keys=new",
        "--properties={\"PASSWD_HASHING_METHOD\":\"sha512\"}",
        &format!("--write=/etc/motd:file:{}:owner=admin,mode=0640", motd.display()),
        &format!("--write=/srv/out/evil:file:{}", motd.display()),
        "--json",
    ]
    .map(str::to_owned)
    .to_vec()
}

/// The guest after [`wishes`], as the kernel shows it.
fn assert_customized(root: &Path, output: &Output) {
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    let mode = |name: &str| {
        let stat = fs::symlink_metadata(root.join(name)).unwrap();
        (stat.mode() & 0o7777, stat.uid(), stat.gid())
    };
    let shadow = read("etc/shadow");
    let hash = shadow.lines().next().unwrap().split(':').nth(1).unwrap().to_owned();
    let made = run("perl", &["-e", "print crypt($ARGV[0], $ARGV[1])", PASSWORD, &hash]);
    assert_eq!(made, hash, "the password is the one that was given");
    assert_eq!(shadow.lines().nth(1), Some("admin:!:19000:0:99999:7:::"));
    assert_eq!(mode("etc/shadow"), (0o640, 0, 42));
    let label = run(
        "getfattr",
        &[
            "--absolute-names",
            "--only-values",
            "-n",
            "security.selinux",
            &text(&root.join("etc/shadow")),
        ],
    );
    assert_eq!(label.trim_end_matches('\0'), "system_u:object_r:shadow_t:s0");
    let acl = run("getfacl", &["-cn", "--absolute-names", &text(&root.join("etc/hosts"))]);
    assert!(acl.contains("user:1000:r--"), "{acl}");
    assert_eq!(read("etc/hostname"), "web1.example.test\n");
    assert!(read("etc/hosts").contains("web1"));
    assert_ne!(read("etc/machine-id"), "00112233445566778899aabbccddeeff\n");
    assert_eq!(mode("etc/machine-id").0, 0o444);
    assert_eq!((read("etc/motd").as_str(), mode("etc/motd")), ("hello\n", (0o640, 1000, 0)));
    assert!(read("etc/ssh/ssh_host_ed25519_key").starts_with("-----BEGIN OPENSSH PRIVATE KEY"));
    assert_eq!(mode("etc/ssh/ssh_host_ed25519_key"), (0o600, 0, 0));
    assert_eq!((read("srv/untouched").as_str(), mode("srv/untouched").0), ("as it was\n", 0o604));
    assert_eq!(read("tmp/evil"), "hello\n", "the link leads to the image's own /tmp");
    let left = run("find", &[&text(root), "-name", ".snf-image*"]);
    assert_eq!(left, "", "nothing temporary is left");

    let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["result"], "done");
    assert_eq!(document["report"]["system"], "Debian 12 on test");
    let print = document["report"]["fingerprints"][0]["fingerprint"].as_str().unwrap();
    let said = run("ssh-keygen", &["-lf", &text(&root.join("etc/ssh/ssh_host_ed25519_key.pub"))]);
    assert!(said.contains(print), "{said} {print}");
}

#[test]
fn xfs() {
    let dir = scratch();
    let path = image(dir.path(), &["mkfs.xfs", "-q", "-L", "root"], 448);
    let mount = mounted(&path, "rw");
    fill(mount.1.path(), "LABEL=root / xfs defaults 0 1\n");
    fs::create_dir(mount.1.path().join("tmp")).unwrap();
    unmount(&mount);
    drop(mount);
    let before = fs::read(&path).unwrap();

    let wishes = wishes(dir.path());
    let wishes: Vec<&str> = wishes.iter().map(String::as_str).collect();
    // Without the VM: the same edit by our own engine, on a copy.
    let copy = dir.path().join("copy");
    run("cp", &["--sparse=always", &text(&path), &text(&copy)]);
    let offline = customize(&copy, &wishes);
    assert_eq!(offline.status.code(), Some(0), "{}", stderr(&offline));
    let (start, length) = partition(&copy, 1);
    let device = Loop::new(&copy, start, length, true);
    run("xfs_repair", &["-n", &device.device]);
    drop(device);
    let mount = Mount::at(&copy, start, length, true);
    assert_customized(&mount.path, &offline);
    drop(mount);
    fs::remove_file(&copy).unwrap();
    // A dry run and a refusal leave the disk byte for byte as it was.
    let dry = in_vm(&path, &[&wishes[..], &["--dry-run"]].concat());
    assert_eq!(dry.status.code(), Some(0), "{}", stderr(&dry));
    let wrong = in_vm(&path, &["--user-password=ghost:stdin", "--hostname=x"]);
    assert_eq!(wrong.status.code(), Some(1), "{}", stderr(&wrong));
    assert!(stderr(&wrong).contains("ghost"), "{}", stderr(&wrong));
    assert!(before == fs::read(&path).unwrap(), "the disk has changed");

    let output = in_vm(&path, &wishes);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let (start, length) = partition(&path, 1);
    let device = Loop::new(&path, start, length, true);
    run("xfs_repair", &["-n", &device.device]);
    drop(device);
    let mount = Mount::at(&path, start, length, true);
    assert_customized(&mount.path, &output);
}

#[test]
fn xfs_that_was_not_shut_down_cleanly() {
    let dir = scratch();
    let path = image(dir.path(), &["mkfs.xfs", "-q"], 448);
    let mount = mounted(&path, "rw");
    fill(mount.1.path(), "");
    run("xfs_io", &["-xc", "shutdown -f", &text(mount.1.path())]);
    unmount(&mount);
    drop(mount);
    let before = fs::read(&path).unwrap();
    let output = in_vm(&path, &["--hostname=x"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("was not shut down cleanly"), "{}", stderr(&output));
    assert!(before == fs::read(&path).unwrap(), "the disk has changed");
}

#[test]
fn btrfs_that_was_not_shut_down_cleanly() {
    let dir = scratch();
    let path = image(dir.path(), &["mkfs.btrfs", "-q"], 448);
    let mount = mounted(&path, "rw");
    fill(mount.1.path(), "");
    run("sync", &[]);
    fs::write(mount.1.path().join("late"), "x").unwrap();
    fs::File::open(mount.1.path().join("late")).unwrap().sync_all().unwrap();
    let cut = dir.path().join("cut.raw");
    run("cp", &["--sparse=always", &text(&path), &text(&cut)]);
    unmount(&mount);
    let before = fs::read(&cut).unwrap();
    let output = in_vm(&cut, &["--hostname=x"]);
    assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
    assert!(stderr(&output).contains("was not shut down cleanly"), "{}", stderr(&output));
    assert!(before == fs::read(&cut).unwrap(), "the disk has changed");
}

/// Makes the subvolumes, fills `root` and says what the guest's fstab says.
fn btrfs_guest(path: &Path, subvolumes: &[&str], root: &str, fstab: &str, default: bool) {
    let mount = mounted(path, "rw,subvolid=5");
    let top = mount.1.path();
    for name in subvolumes {
        run("btrfs", &["subvolume", "create", &text(&top.join(name))]);
    }
    fill(&top.join(root), fstab);
    fs::create_dir_all(top.join(root).join("tmp")).unwrap();
    if default {
        run("btrfs", &["subvolume", "set-default", &text(&top.join(root))]);
    }
    unmount(&mount);
}

fn assert_btrfs(path: &Path, subvolume: &str, output: &Output) {
    assert_eq!(output.status.code(), Some(0), "{}", stderr(output));
    let (start, length) = partition(path, 1);
    let device = Loop::new(path, start, length, true);
    run("btrfs", &["check", "--readonly", &device.device]);
    drop(device);
    let mount = mounted(path, &format!("ro,subvol={subvolume}"));
    assert_customized(mount.1.path(), output);
    unmount(&mount);
}

#[test]
fn btrfs_as_ubuntu_lays_it_out() {
    let dir = scratch();
    let path = image(dir.path(), &["mkfs.btrfs", "-q", "-L", "root"], 448);
    let fstab =
        "LABEL=root / btrfs defaults,subvol=@ 0 1\nLABEL=root /home btrfs subvol=@home 0 2\n";
    btrfs_guest(&path, &["@", "@home", "@old"], "@", fstab, false);
    // An older copy of the system beside it, whose fstab names the other.
    let mount = mounted(&path, "rw,subvolid=5");
    fill(&mount.1.path().join("@old"), fstab);
    fs::create_dir(mount.1.path().join("@home/admin")).unwrap();
    run("chown", &["1000:1000", &text(&mount.1.path().join("@home/admin"))]);
    unmount(&mount);
    drop(mount);
    let key = dir.path().join("key.pub");
    fs::write(
        &key,
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2bLbRL0fQkzq3o3TRgEZHJqUGzUMfhC5e0LhbHnVqS one\n",
    )
    .unwrap();
    let key = format!("--ssh-key=admin:file:{}", key.display());
    let wishes = wishes(dir.path());
    let mut wishes: Vec<&str> = wishes.iter().map(String::as_str).collect();
    wishes.push(&key);
    let output = in_vm(&path, &wishes);
    assert_btrfs(&path, "@", &output);
    let mount = mounted(&path, "ro,subvolid=5");
    let top = mount.1.path();
    // The key went to the home that the guest will see, not to the directory below it.
    let keys = top.join("@home/admin/.ssh/authorized_keys");
    assert!(fs::read_to_string(&keys).unwrap().contains("AAAAIJ2bLbRL0"));
    assert_eq!(fs::metadata(&keys).unwrap().uid(), 1000);
    assert!(!top.join("@/home/admin/.ssh").exists());
    assert_eq!(fs::read_to_string(top.join("@old/etc/hostname")).unwrap(), "template\n");
    unmount(&mount);
}

#[test]
fn btrfs_as_opensuse_lays_it_out() {
    let dir = scratch();
    let path = image(dir.path(), &["mkfs.btrfs", "-q"], 448);
    let mount = mounted(&path, "rw,subvolid=5");
    run("btrfs", &["subvolume", "create", &text(&mount.1.path().join("@"))]);
    fs::create_dir_all(mount.1.path().join("@/.snapshots/1")).unwrap();
    unmount(&mount);
    drop(mount);
    let root = "@/.snapshots/1/snapshot";
    btrfs_guest(&path, &[root], root, "/dev/vda1 / btrfs defaults 0 0\n", true);
    let wishes = wishes(dir.path());
    let output = in_vm(&path, &wishes.iter().map(String::as_str).collect::<Vec<_>>());
    assert_btrfs(&path, root, &output);
}

#[test]
fn the_same_edit_gives_the_same_image_with_and_without_the_vm() {
    let dir = scratch();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fill(&tree, "/dev/vda1 / ext4 defaults 0 1\n");
    let path = dir.path().join("ext4.raw");
    fs::File::create(&path).unwrap().set_len(64 << 20).unwrap();
    run("mke2fs", &["-q", "-q", "-F", "-t", "ext4", "-d", &text(&tree), &text(&path)]);
    let twin = dir.path().join("twin.raw");
    copy(&path, &twin);
    fs::write(dir.path().join("motd"), "hello\n").unwrap();
    let wishes = wishes(dir.path());
    // A link out of a bare image without /tmp leads nowhere.
    let wishes = wishes.iter().map(String::as_str).filter(|wish| !wish.contains("/srv/out"));
    let wishes: Vec<&str> = wishes.chain(["--seed=7"]).collect();
    let run_both = |arguments: &[&str]| {
        let vm = vm_arguments();
        let vm: Vec<&str> = vm.iter().map(String::as_str).collect();
        let one = customize(&path, arguments);
        let two = customize(&twin, &[&vm, arguments].concat());
        (one, two)
    };
    let (one, two) = run_both(&wishes);
    assert_eq!((one.status.code(), two.status.code()), (Some(0), Some(0)), "{}", stderr(&two));
    assert!(fs::read(&path).unwrap() == fs::read(&twin).unwrap(), "the images differ");
    let report = |output: &Output| {
        let mut document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let mut report = document["report"].take();
        for name in ["tasks", "open_milliseconds", "commit_milliseconds"] {
            report[name].take();
        }
        (report, document["warnings"].take())
    };
    assert_eq!(report(&one), report(&two));

    // Damage has the same code through both doors.
    for disk in [&path, &twin] {
        use std::os::unix::fs::FileExt;
        let file = fs::OpenOptions::new().write(true).open(disk).unwrap();
        file.write_all_at(&[0xff; 64], 1024 + 104).unwrap();
    }
    let (one, two) = run_both(&["--hostname=x"]);
    assert_eq!(one.status.code(), two.status.code());
    assert_ne!(one.status.code(), Some(0));
}

/// A device with a table that counts in sectors of 4096 bytes.
struct Device4096(String);

impl Drop for Device4096 {
    fn drop(&mut self) {
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

#[test]
fn a_disk_with_sectors_of_4096_bytes() {
    const START: u64 = 1 << 20;
    const SIZE: u64 = 64 << 20;
    let dir = scratch();
    let path = dir.path().join("disk.raw");
    fs::File::create(&path).unwrap().set_len(SIZE + 2 * START).unwrap();
    let device =
        Device4096(run("losetup", &["-f", "--show", "-b", "4096", &text(&path)]).trim().to_owned());
    run("sgdisk", &["-n", "1:256:16639", "-t", "1:8300", &device.0]);
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    fill(&tree, "/dev/vda1 / ext4 defaults 0 1\n");
    let root = Loop::new(&path, START, SIZE, false);
    run("mke2fs", &["-q", "-q", "-F", "-t", "ext4", "-d", &text(&tree), &root.device]);
    drop(root);
    let output = in_vm(Path::new(&device.0), &["--hostname=sectors.example.test"]);
    run("chown", &["0", &device.0]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    drop(device);
    let mount = Mount::at(&path, START, SIZE, true);
    let hostname = fs::read_to_string(mount.path.join("etc/hostname")).unwrap();
    assert_eq!(hostname, "sectors.example.test\n");
}

#[test]
fn a_helper_that_is_not_there() {
    let dir = scratch();
    let path = dir.path().join("disk.raw");
    fs::File::create(&path).unwrap().set_len(1 << 20).unwrap();
    let before = fs::read(&path).unwrap();
    let output = customize(&path, &["--vm", "--helper", "/nonexistent", "--hostname=x"]);
    assert_eq!(output.status.code(), Some(10));
    assert!(stderr(&output).contains("the helper is not built"), "{}", stderr(&output));
    assert!(stderr(&output).contains("--helper"), "{}", stderr(&output));
    assert!(before == fs::read(&path).unwrap());
    let usage = customize(&path, &["--helper", "/x", "--hostname=x"]);
    assert_eq!(usage.status.code(), Some(2));
}
