//! Small guests for the tests of the command line tool: made by mke2fs, judged by e2fsck and read
//! back by debugfs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, dead_code)]

pub mod volumes;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use assert_cmd::cargo::CommandCargoExt;
use tempfile::TempDir;

/// A directory with an image in it.
pub struct Guest {
    pub dir: TempDir,
    pub image: PathBuf,
}

/// The first byte of the second partition of [`Guest::on_gpt`].
pub const GPT_OFFSET: u64 = 4096 * 512;

/// The old password's hash: SHA-512 of "old".
pub const OLD_HASH: &str = "$6$saltsalt$abcdefghijklmnopqrstuvwxyz";

impl Guest {
    /// A bare ext4 with the files that a small Debian has.
    pub fn debian() -> Self {
        Self::debian_with(|_| {})
    }

    /// The same, its tree changed by `edit` before the image is made of it.
    pub fn debian_with(edit: impl FnOnce(&Path)) -> Self {
        let tree = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str, mode: u32| {
            let path = tree.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        };
        let os_release = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nID=debian\nVERSION_ID=\"12\"\n";
        write("usr/lib/os-release", os_release, 0o644);
        write(
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin\nann:x:1000:1000:Ann:/home/ann:/bin/bash\n",
            0o644,
        );
        write("etc/group", "root:x:0:\ndaemon:x:1:\nshadow:x:42:\nann:x:1000:\n", 0o644);
        write(
            "etc/shadow",
            &format!(
                "root:{OLD_HASH}:19000:0:99999:7:::\ndaemon:*:19000:0:99999:7:::\nann:!:19000:0:99999:7:::\n"
            ),
            0o640,
        );
        write("etc/hostname", "image\n", 0o644);
        write("etc/hosts", "127.0.0.1\tlocalhost\n127.0.1.1\timage\n", 0o644);
        write("etc/machine-id", "0123456789abcdef0123456789abcdef\n", 0o444);
        write("etc/fstab", "# empty\n", 0o644);
        write("etc/login.defs", "ENCRYPT_METHOD YESCRYPT\n", 0o644);
        write("etc/ssh/sshd_config", "UsePAM yes\n", 0o644);
        for name in ["rsa", "ecdsa", "ed25519"] {
            write(&format!("etc/ssh/ssh_host_{name}_key"), "old private\n", 0o600);
            write(&format!("etc/ssh/ssh_host_{name}_key.pub"), "old public\n", 0o644);
        }
        write("etc/motd", "welcome\n", 0o644);
        write("usr/sbin/sshd", "", 0o755);
        write("bin/bash", "", 0o755);
        write("usr/lib/systemd/systemd", "", 0o755);
        write("home/ann/.profile", "\n", 0o644);
        for dir in ["root", "bin", "sbin", "var/lib/dbus", "tmp", "dev", "proc", "sys", "run"] {
            fs::create_dir_all(tree.path().join(dir)).unwrap();
        }
        symlink("../usr/lib/os-release", tree.path().join("etc/os-release")).unwrap();
        edit(tree.path());
        Self::from_tree(tree.path(), "64M")
    }

    /// A bare ext4 with nothing but `lost+found`.
    pub fn empty() -> Self {
        Self::from_tree(tempfile::tempdir().unwrap().path(), "16M")
    }

    /// A disk of 160 MiB with a GPT, a small first partition, and this guest's file system as the
    /// second one.
    pub fn on_gpt(&self) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("disk.raw");
        fs::File::create(&image).unwrap().set_len(160 << 20).unwrap();
        let mut sfdisk = Command::new("sfdisk")
            .args(["--quiet", "--no-reread"])
            .arg(&image)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("this test needs sfdisk (fdisk)");
        let table = "label: gpt\nstart=2048, size=2048\nstart=4096, size=131072\n";
        std::io::Write::write_all(&mut sfdisk.stdin.take().unwrap(), table.as_bytes()).unwrap();
        assert!(sfdisk.wait().unwrap().success());
        let mut disk = fs::OpenOptions::new().write(true).open(&image).unwrap();
        std::io::Seek::seek(&mut disk, std::io::SeekFrom::Start(GPT_OFFSET)).unwrap();
        std::io::Write::write_all(&mut disk, &self.bytes()).unwrap();
        Self { dir, image }
    }

    /// An ext4 of this size with the files of a directory.
    pub fn from_tree(tree: &Path, size: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("disk.raw");
        let output = Command::new("mke2fs")
            .args(["-q", "-F", "-t", "ext4", "-E", "root_owner=0:0", "-d"])
            .arg(tree)
            .arg(&image)
            .arg(size)
            .env("E2FSPROGS_FAKE_TIME", "1700000000")
            .output()
            .expect("this test needs mke2fs (e2fsprogs)");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self { dir, image }
    }

    /// Writes a file beside the image and gives its path.
    pub fn file(&self, name: &str, content: &str) -> String {
        let path = self.dir.path().join(name);
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// The image's bytes.
    pub fn bytes(&self) -> Vec<u8> {
        fs::read(&self.image).unwrap()
    }

    /// Runs `apply` on it.
    pub fn apply(&self, options: &[&str]) -> Run {
        let mut command = snf_customize();
        command.arg("apply").arg(&self.image).args(options);
        Run::of(&mut command)
    }

    /// The content of a guest file, as debugfs reads it.
    pub fn cat(&self, path: &str) -> String {
        String::from_utf8_lossy(&self.debugfs(&format!("cat {path}")).stdout).into_owned()
    }

    /// The output of debugfs for a guest file.
    pub fn stat(&self, path: &str) -> String {
        String::from_utf8_lossy(&self.debugfs(&format!("stat {path}")).stdout).into_owned()
    }

    fn debugfs(&self, request: &str) -> Output {
        Command::new("debugfs")
            .args(["-R", request])
            .arg(&self.image)
            .output()
            .expect("this test needs debugfs (e2fsprogs)")
    }

    /// e2fsck has nothing to say.
    pub fn check(&self) {
        let output = Command::new("timeout")
            .args(["-s", "KILL", "60", "e2fsck", "-fn"])
            .arg(&self.image)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

/// How a run ended.
#[derive(Debug)]
pub struct Run {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Run {
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap();
        Self {
            // A signal would be a defect.
            code: output.status.code().expect("ended by a signal"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// It ended with this code, and the last line of standard error has this in it.
    #[track_caller]
    pub fn fails(&self, code: i32, part: &str) {
        assert_eq!(self.code, code, "{self:?}");
        let last = self.stderr.lines().last().unwrap_or_default();
        assert!(last.starts_with("error: ") && last.contains(part), "{part}: {self:?}");
    }

    /// It ended well.
    #[track_caller]
    pub fn works(&self) -> &Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }

    /// The last line of standard output.
    pub fn last_line(&self) -> &str {
        self.stdout.lines().last().unwrap_or_default()
    }
}

/// The program.
pub fn snf_customize() -> Command {
    let mut command = Command::cargo_bin("snf-customize").unwrap();
    command.env_remove("SOURCE_DATE_EPOCH");
    command
}
