//! The whole of [`snf_image::customize`] on ext4 images that mke2fs made, judged by e2fsck and
//! debugfs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use snf_fs::{BlockDevice, FileDevice};
use snf_image::customize::{CustomizeError, Mode, Report, customize};
use snf_image::event::Event;
use snf_image::failure::sentence;
use snf_image::inspect::inspect;
use snf_image::plan::{Password, PersonalityFile, Plan, Who};
use snf_image::properties::Properties;
use snf_image::random::{Clock, Entropy};
use snf_image::secret::Secret;
use snf_image::task::TaskId;

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBxx me@home";
const MIB: u64 = 1 << 20;

fn command(program: &str, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap_or_else(|error| panic!("{program} is needed for this test: {error}"));
    let text = [output.stdout, output.stderr].concat();
    (output.status.code().unwrap_or(-1), String::from_utf8_lossy(&text).into_owned())
}

/// Runs a program that must succeed.
fn run(program: &str, arguments: &[&str]) -> String {
    let (code, text) = command(program, arguments);
    assert_eq!(code, 0, "{program} {arguments:?}: {text}");
    text
}

/// A directory with the files of a small Debian.
fn debian_tree(dir: &Path) {
    for (path, mode, text) in [
        ("etc/os-release", 0o644, "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian 12\"\n"),
        (
            "etc/passwd",
            0o644,
            "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1000::/home/ann:/bin/sh\n",
        ),
        ("etc/group", 0o644, "root:x:0:\nshadow:x:42:\nann:x:1000:\n"),
        ("etc/shadow", 0o640, "root:*:19000:0:99999:7:::\nann:!:19000:0:99999:7:::\n"),
        ("etc/hostname", 0o644, "image\n"),
        ("etc/hosts", 0o644, "127.0.0.1\tlocalhost\n127.0.1.1\timage\n"),
        ("etc/machine-id", 0o444, "0123456789abcdef0123456789abcdef\n"),
        ("etc/ssh/sshd_config", 0o644, "Include /etc/ssh/sshd_config.d/*.conf\n"),
        ("etc/ssh/ssh_host_ed25519_key", 0o600, "old\n"),
        ("etc/ssh/ssh_host_ed25519_key.pub", 0o644, "old\n"),
        ("usr/lib/systemd/systemd", 0o755, "\x7fELF"),
        ("usr/sbin/sshd", 0o755, "\x7fELF"),
        ("bin/sh", 0o755, "\x7fELF"),
        ("bin/bash", 0o755, "\x7fELF"),
        ("srv/big", 0o644, &"untouched ".repeat(100_000)),
    ] {
        let path = dir.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
    for name in ["root", "dev", "proc", "run", "var", "boot/efi", "home/ann"] {
        fs::create_dir_all(dir.join(name)).unwrap();
    }
    fs::create_dir_all(dir.join("opt/real")).unwrap();
    symlink("/opt/real", dir.join("opt/link")).unwrap();
}

/// An ext4 image of `dir`.
fn mke2fs(image: &Path, dir: Option<&Path>, size: u64, uuid: &str) {
    File::create(image).unwrap().set_len(size).unwrap();
    let image = image.to_str().unwrap();
    let mut arguments = vec!["-q", "-F", "-t", "ext4", "-U", uuid, "-L", "test"];
    if let Some(dir) = dir {
        arguments.extend(["-d", dir.to_str().unwrap()]);
    }
    arguments.push(image);
    run("mke2fs", &arguments);
}

const ROOT_UUID: &str = "11111111-2222-4333-8444-555555555555";
const VAR_UUID: &str = "11111111-2222-4333-8444-666666666666";

struct Image {
    dir: tempfile::TempDir,
    path: PathBuf,
}

impl Image {
    /// A bare ext4 file system whose tree `change` has its way with first.
    fn bare(change: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        debian_tree(&tree);
        change(&tree);
        let path = dir.path().join("image");
        mke2fs(&path, Some(&tree), 64 * MIB, ROOT_UUID);
        Self { dir, path }
    }

    /// The same in partition 2 of a GPT, `/var` in partition 3 and an EFI system partition.
    fn gpt() -> Self {
        let fstab = format!(
            "UUID={ROOT_UUID} / ext4 errors=remount-ro 0 1\nUUID={VAR_UUID} /var ext4 defaults 0 2\n\
             PARTLABEL=esp /boot/efi vfat umask=0077 0 1\n/dev/sr0 /media/cdrom0 udf,iso9660 user,noauto\n"
        );
        let mut image = Self::bare(|tree| fs::write(tree.join("etc/fstab"), fstab).unwrap());
        let var = image.dir.path().join("var");
        mke2fs(&var, None, 32 * MIB, VAR_UUID);
        let disk = image.dir.path().join("disk");
        File::create(&disk).unwrap().set_len(128 * MIB).unwrap();
        let target = disk.to_str().unwrap();
        run(
            "sgdisk",
            &[
                "-n",
                "1:2048:+8M",
                "-t",
                "1:ef00",
                "-c",
                "1:esp",
                "-n",
                "2:20480:+64M",
                "-n",
                "3:0:+32M",
                target,
            ],
        );
        let esp = image.dir.path().join("esp");
        File::create(&esp).unwrap().set_len(8 * MIB).unwrap();
        run("mkfs.vfat", &[esp.to_str().unwrap()]);
        let file = OpenOptions::new().write(true).open(&disk).unwrap();
        for (part, sector) in [(&esp, 2048), (&image.path, 20480), (&var, 20480 + 131_072)] {
            file.write_all_at(&fs::read(part).unwrap(), sector * 512).unwrap();
        }
        image.path = disk;
        image
    }

    fn device(&self) -> Arc<dyn BlockDevice> {
        let file = OpenOptions::new().read(true).write(true).open(&self.path).unwrap();
        Arc::new(FileDevice::from_file(file).unwrap())
    }

    fn customize(&self, plan: &Plan, mode: Mode) -> Result<(Report, Vec<Event>), CustomizeError> {
        let mut events = Vec::new();
        let clock = Clock::fixed(86_400 * 20_000);
        let mut entropy = Entropy::seeded(7);
        customize(self.device(), plan, &mut entropy, &clock, &mut events, mode)
            .map(|report| (report, events))
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(&self.path).unwrap()
    }

    /// The bare image of a partition (or the disk itself), checked by e2fsck.
    fn part(&self, sector: u64, size: u64) -> PathBuf {
        let path = self.dir.path().join(format!("part-{sector}"));
        let mut bytes = vec![0; size as usize];
        File::open(&self.path).unwrap().read_exact_at(&mut bytes, sector * 512).unwrap();
        fs::write(&path, bytes).unwrap();
        let image = path.to_str().unwrap();
        let (code, text) = command("timeout", &["-s", "KILL", "60", "e2fsck", "-fn", image]);
        assert_eq!(code, 0, "{text}");
        path
    }
}

fn debugfs(image: &Path, request: &str) -> String {
    // debugfs exits with 0 whatever happens, and greets on its standard error.
    let output = Command::new("/usr/sbin/debugfs").args(["-R", request]).arg(image).output();
    String::from_utf8_lossy(&output.expect("debugfs is needed for this test").stdout).into_owned()
}

fn cat(image: &Path, path: &str) -> String {
    debugfs(image, &format!("cat {path}"))
}

fn full_plan() -> Plan {
    let file = |path: &str, owner: Option<&str>, mode| PersonalityFile {
        path: path.into(),
        contents: Secret::new(format!("content of {path}\n")),
        owner: owner.map(str::to_owned),
        group: None,
        mode,
        origin: "img_personality".into(),
        keep_existing: false,
    };
    // The disk's layout is tests/growth.rs's business.
    let mut properties = Properties::default();
    properties.set("EXCLUDE_TASK_FixPartitionTable", "yes");
    properties.set("EXCLUDE_FILESYSTEMRESIZE_TASKS", "yes");
    Plan {
        properties,
        hostname: Some("vm1".into()),
        passwords: vec![(Who::Default, Password::Clear(Secret::new("secret")))],
        auth_keys: vec![(Who::Named("ann".into()), KEY.into())],
        personality: vec![
            file("/etc/new/dir/file", Some("ann"), Some(0o640)),
            file("/opt/link/file", None, None),
            file("/var/lib/file", None, Some(0o600)),
        ],
        ..Plan::default()
    }
}

/// FAT has no owners and modes: what root makes goes there, and nothing else.
#[test]
fn a_file_goes_to_the_efi_system_partition() {
    let image = Image::gpt();
    let mut plan = full_plan();
    plan.auth_keys.clear();
    plan.personality.truncate(1);
    let file = &mut plan.personality[0];
    (file.path, file.owner, file.mode) = ("/boot/efi/EFI/own/start.nsh".into(), None, None);
    image.customize(&plan, Mode::Commit).unwrap();
    let esp = image.dir.path().join("esp-after");
    let mut bytes = vec![0; 8 * MIB as usize];
    File::open(&image.path).unwrap().read_exact_at(&mut bytes, MIB).unwrap();
    fs::write(&esp, bytes).unwrap();
    let esp = esp.to_str().unwrap();
    run("fsck.fat", &["-n", esp]);
    let (code, text) = command("mtype", &["-i", esp, "::/EFI/own/start.nsh"]);
    assert_eq!((code, text.as_str()), (0, "content of /etc/new/dir/file\n"));

    plan.personality[0].owner = Some("ann".into());
    let before = image.bytes();
    let error = sentence(&image.customize(&plan, Mode::Commit).unwrap_err());
    assert!(error.contains("FAT"), "{error}");
    assert!(image.bytes() == before);
}

#[test]
fn everything_on_a_gpt_disk() {
    let image = Image::gpt();
    let before = image.bytes();
    let (report, _) = image.customize(&full_plan(), Mode::DryRun).unwrap();
    assert!(image.bytes() == before, "a dry run wrote to the disk");
    let expected: Vec<&str> = report.changes.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(
        expected,
        [
            "/etc/hostname",
            "/etc/hosts",
            "/etc/machine-id",
            "/etc/new",
            "/etc/new/dir",
            "/etc/new/dir/file",
            "/etc/shadow",
            "/etc/ssh/ssh_host_ed25519_key",
            "/etc/ssh/ssh_host_ed25519_key.pub",
            "/home/ann/.ssh",
            "/home/ann/.ssh/authorized_keys",
            "/opt/real/file",
            "/var/lib",
            "/var/lib/file",
        ]
    );

    let (report, events) = image.customize(&full_plan(), Mode::Commit).unwrap();
    assert_eq!((report.root_partition, report.system.as_str()), (Some(2), "Debian 12"));
    let mounts: Vec<&str> = report.file_systems.iter().map(|fs| fs.mounted_on.as_str()).collect();
    assert_eq!(mounts, ["/var", "/"]);
    assert!(events.contains(&Event::TaskEnd(TaskId::EnforcePersonality)));

    let root = image.part(20480, 64 * MIB);
    let var = image.part(20480 + 131_072, 32 * MIB);
    assert_eq!(cat(&root, "/etc/hostname"), "vm1\n");
    assert_eq!(cat(&root, "/etc/hosts"), "127.0.0.1\tlocalhost\n127.0.1.1\tvm1\n");
    let shadow = cat(&root, "/etc/shadow");
    assert!(shadow.starts_with("root:$y$j9T$") && shadow.contains(":20000:0:99999:7:::\nann:!:"));
    assert_eq!(cat(&root, "/home/ann/.ssh/authorized_keys"), format!("{KEY}\n"));
    assert_eq!(cat(&root, "/opt/real/file"), "content of /opt/link/file\n");
    assert_eq!(cat(&var, "/lib/file"), "content of /var/lib/file\n");
    let stat = debugfs(&root, "stat /etc/new/dir/file");
    assert!(stat.contains("Mode:  0640") && stat.contains("User:  1000"), "{stat}");
    let stat = debugfs(&root, "stat /home/ann/.ssh");
    assert!(stat.contains("Mode:  0700") && stat.contains("User:  1000"), "{stat}");
    assert_eq!(cat(&root, "/srv/big"), "untouched ".repeat(100_000));

    // OpenSSH reads the key and finds the fingerprint that was told.
    let key = image.dir.path().join("key");
    fs::write(&key, cat(&root, "/etc/ssh/ssh_host_ed25519_key")).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let told = run("ssh-keygen", &["-lf", key.to_str().unwrap()]);
    assert_eq!(report.fingerprints.len(), 1);
    assert!(told.contains(&report.fingerprints[0].fingerprint) && told.contains("root@vm1"));

    // The other partition and the table keep their bytes.
    let after = image.bytes();
    assert!(before[..20480 * 512] == after[..20480 * 512]);
    let end = (20480 + 131_072 + 65_536) * 512;
    assert!(before[end..] == after[end..]);

    // A second run has nothing to do but what is random by nature.
    let (again, _) = image.customize(&full_plan(), Mode::DryRun).unwrap();
    let changed: Vec<&str> = again.changes.iter().map(|change| change.path.as_str()).collect();
    assert!(changed.is_empty(), "the same seed gives the same files: {changed:?}");
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let image = Image::bare(|_| {});
    let copy = image.dir.path().join("copy");
    fs::copy(&image.path, &copy).unwrap();
    image.customize(&full_plan(), Mode::Commit).unwrap();
    let first = image.bytes();
    fs::copy(&copy, &image.path).unwrap();
    image.customize(&full_plan(), Mode::Commit).unwrap();
    assert!(first == image.bytes());
    image.part(0, 64 * MIB);
}

#[test]
fn hostile_guests_are_refused_and_left_alone() {
    let passwords = || Plan {
        passwords: vec![(Who::Default, Password::Hash(Secret::new("$6$salt$0123456789")))],
        auth_keys: vec![(Who::Default, KEY.into())],
        ..full_plan()
    };
    type Change = fn(&Path);
    let cases: [(&str, Change, &str); 7] = [
        (
            "/etc leads to itself",
            |tree| {
                fs::rename(tree.join("etc"), tree.join("old")).unwrap();
                symlink("/../../../../etc", tree.join("etc")).unwrap();
            },
            "no operating system was found (the disk (ext4, label test): it has no directory /etc and no Windows)",
        ),
        (
            "/root/.ssh leads to /dev",
            |tree| symlink("/dev", tree.join("root/.ssh")).unwrap(),
            "ChangePassword: the authorized keys of root would go to /dev/authorized_keys",
        ),
        (
            "a loop",
            |tree| {
                fs::remove_file(tree.join("etc/hostname")).unwrap();
                symlink("hosts", tree.join("etc/hostname")).unwrap();
                fs::remove_file(tree.join("etc/hosts")).unwrap();
                symlink("hostname", tree.join("etc/hosts")).unwrap();
            },
            "AssignHostname: /etc/hostname: too many levels of symbolic links",
        ),
        (
            "no second field in shadow",
            |tree| fs::write(tree.join("etc/shadow"), "rooter:*:1::::::\nroot\n").unwrap(),
            "ChangePassword: the line of \"root\" in /etc/shadow has no second field",
        ),
        (
            "a directory in place of shadow",
            |tree| {
                fs::remove_file(tree.join("etc/shadow")).unwrap();
                fs::create_dir(tree.join("etc/shadow")).unwrap();
            },
            "ChangePassword: /etc/shadow: is a directory",
        ),
        (
            "a fifo in place of passwd",
            |tree| {
                fs::remove_file(tree.join("etc/passwd")).unwrap();
                run("mkfifo", &[tree.join("etc/passwd").to_str().unwrap()]);
            },
            "ChangePassword: /etc/passwd: not a regular file",
        ),
        (
            "a shadow of 20 MiB",
            |tree| fs::write(tree.join("etc/shadow"), vec![b'x'; 20 << 20]).unwrap(),
            "ChangePassword: /etc/shadow: 20971520 bytes, which is more than",
        ),
    ];
    for (name, change, expected) in cases {
        let image = Image::bare(change);
        let before = image.bytes();
        let error = sentence(&image.customize(&passwords(), Mode::Commit).unwrap_err());
        assert!(error.starts_with(expected), "{name}: {error}");
        assert_eq!(error.lines().count(), 1, "{name}: {error}");
        assert!(image.bytes() == before, "{name}: the disk changed");
    }
}

#[test]
fn a_line_of_5000_characters_is_no_trouble() {
    let line = format!("x{}:*:19000::::::\n", "y".repeat(5000));
    let text = format!("{line}root:*:19000:0:99999:7:::\nann:!:1::::::");
    let image = Image::bare(|tree| fs::write(tree.join("etc/shadow"), &text).unwrap());
    image.customize(&full_plan(), Mode::Commit).unwrap();
    let shadow = cat(&image.part(0, 64 * MIB), "/etc/shadow");
    assert!(shadow.starts_with(&line) && shadow.ends_with(":20000:0:99999:7:::\nann:!:1::::::"));
}

#[test]
fn inspect_tells_what_is_there() {
    let image = Image::gpt();
    let before = image.bytes();
    let inspection = inspect(&[image.device()], &[], &Properties::default()).unwrap();
    assert!(image.bytes() == before);
    assert_eq!(inspection.table.as_deref(), Some("GPT"));
    let verdicts: Vec<&str> = inspection.volumes.iter().map(|v| v.verdict.as_str()).collect();
    let no_root = "it has no directory /etc and no Windows";
    assert_eq!(verdicts, [no_root, "Debian 12", no_root]);
    let guest = inspection.guest.unwrap();
    assert_eq!(guest.hostname.as_deref(), Some("image"));
    assert_eq!(guest.machine_id, "0123456789abcdef0123456789abcdef");
    let mounts: Vec<&str> = guest.mounts.iter().map(|mount| mount.path.as_str()).collect();
    assert_eq!(mounts, ["/", "/var", "/boot/efi"]);
    let users: Vec<&str> = guest.users.iter().map(|user| user.name.as_str()).collect();
    assert_eq!(users, ["root", "ann"]);
    assert!(inspection.warnings.is_empty(), "{:?}", inspection.warnings);
}

/// Sets an SELinux label without the kernel, which may have a say of its own.
fn set_label(image: &Path, path: &str, label: &str) {
    let request = format!("ea_set {path} security.selinux {label}\\000");
    run("debugfs", &["-w", "-R", &request, image.to_str().unwrap()]);
}

fn label(image: &Path, path: &str) -> String {
    let text = debugfs(image, &format!("ea_get {path} security.selinux"));
    text.rsplit('"').nth(1).unwrap_or_default().trim_end_matches("\\000").to_owned()
}

#[test]
fn labels_are_kept_and_given() {
    let image = Image::bare(|tree| {
        let files = tree.join("etc/selinux/targeted/contexts/files");
        fs::create_dir_all(&files).unwrap();
        fs::write(tree.join("etc/selinux/config"), "SELINUX=enforcing\n").unwrap();
        fs::write(
            files.join("file_contexts"),
            "/etc/.*\tsystem_u:object_r:etc_t:s0\n/etc/new(/.*)?\tsystem_u:object_r:new_t:s0\n\
             /home/[^/]+/\\.ssh(/.*)?\tsystem_u:object_r:ssh_home_t:s0\n",
        )
        .unwrap();
    });
    for (path, label) in [
        ("/etc", "system_u:object_r:etc_t:s0"),
        ("/etc/shadow", "system_u:object_r:shadow_t:s0"),
        ("/etc/ssh/ssh_host_ed25519_key", "system_u:object_r:sshd_key_t:s0"),
        ("/home/ann", "system_u:object_r:user_home_dir_t:s0"),
        ("/opt/real", "system_u:object_r:usr_t:s0"),
    ] {
        set_label(&image.path, path, label);
    }
    let (report, _) = image.customize(&full_plan(), Mode::Commit).unwrap();
    assert!(report.changes.iter().all(|change| change.path != "/.autorelabel"));
    let image = image.part(0, 64 * MIB);
    for (path, expected) in [
        ("/etc/shadow", "shadow_t"),
        ("/etc/ssh/ssh_host_ed25519_key", "sshd_key_t"),
        ("/etc/new/dir/file", "new_t"),
        ("/home/ann/.ssh", "ssh_home_t"),
        ("/home/ann/.ssh/authorized_keys", "ssh_home_t"),
        // The policy of this test says nothing of it: as its directory.
        ("/opt/real/file", "usr_t"),
    ] {
        let found = label(&image, path);
        assert_eq!(found, format!("system_u:object_r:{expected}:s0"), "{path}");
    }
}

#[test]
fn interfaces_are_configured() {
    use snf_image::network::{Ipv4, Ipv6, Mac, Nic};
    let image = Image::bare(|tree| {
        fs::create_dir_all(tree.join("etc/network")).unwrap();
        fs::create_dir_all(tree.join("sbin")).unwrap();
        fs::write(tree.join("sbin/ifup"), "").unwrap();
        fs::write(tree.join("etc/network/interfaces"), "auto eth0\niface eth0 inet dhcp\n")
            .unwrap();
    });
    let nic = Nic::new(0, Mac([0xaa, 0, 0, 0, 0, 1]), Ipv4::Dhcp, Ipv6::None);
    let plan = Plan { nics: vec![nic], ..full_plan() };
    image.customize(&plan, Mode::Commit).unwrap();
    let text = cat(&image.part(0, 64 * MIB), "/etc/network/interfaces");
    assert!(
        text.contains("\nauto mac/aa:00:00:00:00:01=snf-nic0\niface snf-nic0 inet dhcp\n")
            && !text.contains("eth0")
            // The instance has no IPv6, so none is taken from routers either.
            && text.ends_with("/accept_ra 2>/dev/null || true\n"),
        "{text}"
    );
}
