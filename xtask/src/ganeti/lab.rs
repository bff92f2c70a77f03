//! A one-node Ganeti cluster: up, down, and questions to it. The scripts are in `xtask/ganeti`.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup::{Kernel, cache};
use crate::util::{Result, checkout, command, output, run, shell, step, text};

/// The only node.
pub const NODE: &str = "node1.example.test";
/// Size of the first disk of every instance: Ganeti moves all of it in an export.
pub const DISK_MIB: u64 = 80;
/// Seconds that any one command may take.
const PATIENCE: &str = "600";

/// A running cluster. It ends when this is dropped, and when this process dies.
pub struct Lab {
    /// Logs, and the command that runs others inside.
    dir: PathBuf,
    /// The cluster's file system, seen from here.
    root: PathBuf,
    up: bool,
}

/// An error of one sentence.
pub fn fail<T>(text: impl Into<String>) -> Result<T> {
    Err(text.into())
}

/// The packages of the cluster's own root; slow the first time.
pub fn tree() -> Result<PathBuf> {
    // The number goes up when root.sh makes something else.
    let tree = cache()?.join("ganeti-root-2");
    if !tree.is_dir() {
        step("installing Ganeti into a Debian tree (once; some minutes)", || {
            script("root.sh", &[&text(&tree)])
        })?;
    }
    Ok(tree)
}

fn script(name: &str, arguments: &[&str]) -> Result<()> {
    run(&mut command(&text(&checkout().join("xtask/ganeti").join(name)), arguments))
}

impl Lab {
    /// Brings a cluster up.
    pub fn up() -> Result<Self> {
        let tree = tree()?;
        let dir = shell("mktemp -d /tmp/snf-ganeti.XXXXXX", &[])?;
        let mut lab = Self { dir: dir.trim().into(), root: PathBuf::new(), up: true };
        script("up.sh", &[&text(&tree), &text(&lab.dir)])?;
        let pid = fs::read_to_string(lab.dir.join("init.pid")).map_err(|e| e.to_string())?;
        lab.root = format!("/proc/{}/root", pid.trim()).into();
        Ok(lab)
    }

    /// Takes it down; an error when something of it stays.
    pub fn down(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        if !std::mem::take(&mut self.up) {
            return Ok(());
        }
        let down = script("down.sh", &[&text(&self.dir)]);
        let _ = fs::remove_dir_all(&self.dir);
        down
    }

    /// A path of the cluster, seen from here.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// Writes a file of the cluster.
    pub fn write(&self, path: &str, content: &str) -> Result<()> {
        fs::write(self.path(path), content).map_err(|e| format!("cannot write {path}: {e}"))
    }

    fn enter(&self, line: &str) -> Command {
        command(
            &text(&self.dir.join("enter")),
            ["timeout", "-k", "10", PATIENCE, "sh", "-c", &format!("{line} 2>&1")],
        )
    }

    /// A command line that must succeed, without a warning of Ganeti's.
    pub fn good(&self, line: &str) -> Result<String> {
        let said = output(&mut self.enter(line))?;
        if said.contains("WARNING") {
            return fail(format!("`{line}` warned:\n{said}"));
        }
        Ok(said)
    }

    /// A command line that must succeed and warn of `why`: what Ganeti makes of some failures.
    pub fn warns(&self, line: &str, why: &str) -> Result<()> {
        let said = output(&mut self.enter(line))?;
        if said.contains("WARNING") && said.contains(why) {
            return Ok(());
        }
        fail(format!("`{line}` should warn of {why:?}:\n{said}"))
    }

    /// A command line that must end with status 1 and say `why`.
    pub fn bad(&self, line: &str, why: &str) -> Result<()> {
        let result = self.enter(line).output().map_err(|e| e.to_string())?;
        let said = String::from_utf8_lossy(&result.stdout);
        if result.status.code() != Some(1) {
            return fail(format!("`{line}` ended with {}, not with 1:\n{said}", result.status));
        }
        if !said.contains(why) {
            return fail(format!("`{line}` should say {why:?}:\n{said}"));
        }
        Ok(())
    }

    /// Puts a kernel, a progress monitor and small images where a node has them, and installs the
    /// package: its script makes the helper VM from the kernel.
    pub fn install(&self, package: &Path, kernel: &Kernel) -> Result<()> {
        let script = r#"
            package=$1 kernel=$2 modules=$3 root=$4
            cp "$package" "$root/root/snf-image.deb"
            mkdir -p "$root/boot" "$root/lib/modules" "$root/var/lib/snf-image" "$root/usr/local/bin"
            cp "$kernel" "$root/boot/"
            cp -r "$modules" "$root/lib/modules/"
            printf '#!/bin/sh\nexec cat >>"/var/log/monitor-$1"\n' >"$root/usr/local/bin/monitor"
            chmod 755 "$root/usr/local/bin/monitor"
            tree=$(mktemp -d)
            trap 'rm -rf "$tree"' EXIT
            mkdir -p "$tree/etc/ssh" "$tree/root" "$tree/var/log" "$tree/usr/bin"
            printf 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n' >"$tree/etc/os-release"
            echo 12.5 >"$tree/etc/debian_version"
            echo root:x:0:0:root:/root:/bin/bash >"$tree/etc/passwd"
            echo 'root:*:19000:0:99999:7:::' >"$tree/etc/shadow"
            echo root:x:0: >"$tree/etc/group"
            echo old >"$tree/etc/hostname"
            printf '127.0.0.1 localhost\n127.0.1.1 old\n' >"$tree/etc/hosts"
            echo '/dev/vda1 / ext4 defaults 0 1' >"$tree/etc/fstab"
            : >"$tree/etc/machine-id"
            : >"$tree/etc/ssh/sshd_config"
            images="$root/var/lib/snf-image"
            truncate -s 48M "$images/mini.ext4"
            mke2fs -q -t ext4 -d "$tree" "$images/mini.ext4"
            truncate -s 60M "$images/mini.raw"
            echo '2048,,L,*' | sfdisk -q "$images/mini.raw"
            dd if="$images/mini.ext4" of="$images/mini.raw" bs=1M seek=1 conv=notrunc,sparse status=none
            qemu-img convert -O qcow2 -c -o compression_type=zstd "$images/mini.raw" "$images/mini.qcow2"
            # One with cloud-init's own settings.
            mkdir -p "$tree/var/lib/cloud" "$tree/run"
            cp -r "$root/etc/cloud" "$tree/etc/"
            truncate -s 48M "$images/cloud.ext4"
            mke2fs -q -t ext4 -d "$tree" "$images/cloud.ext4"
            # Hostile ones: a file system that is damaged where it matters, and a disk that wants
            # a file of the node's as its backing file.
            cp --sparse=always "$images/mini.ext4" "$images/hostile.ext4"
            debugfs -w -R 'sif / block[0] 0xfffffff0' "$images/hostile.ext4" 2>/dev/null
            debugfs -w -R 'sif / flags 0' "$images/hostile.ext4" 2>/dev/null
            qemu-img create -q -f qcow2 -F raw -b /etc/shadow -u "$images/hostile.qcow2" 60M
            "#;
        let paths = [package, &kernel.image(), &kernel.modules(), &self.root];
        shell(script, &paths.map(text).each_ref().map(String::as_str))?;
        self.good("dpkg -i /root/snf-image.deb")?;
        self.configure("")?;
        self.good("snf-image-host check").map(drop)
    }

    /// Takes the package out again.
    pub fn purge(&self) -> Result<()> {
        self.good("dpkg --purge snf-image")?;
        let traces =
            "find / -xdev -name '*snf-image*' -not -path '/proc/*' -not -path '/var/log/*'";
        let left = self.good(&format!("rm -r /var/lib/snf-image /root/snf-image.deb; {traces}"))?;
        if left.trim().is_empty() { Ok(()) } else { fail(format!("the package leaves {left}")) }
    }

    /// Writes the node's configuration, with further lines at its end.
    pub fn configure(&self, more: &str) -> Result<()> {
        let basis =
            "HELPER_ACCEL=tcg\nHELPER_SOFT_TIMEOUT=300\nPROGRESS_MONITOR=/usr/local/bin/monitor\n";
        self.write("/etc/default/snf-image", &format!("{basis}{more}"))
    }

    /// The `gnt-instance add` of an instance with one disk, with these OS parameters.
    pub fn add(&self, instance: &str, parameters: &str) -> String {
        let _ = self;
        format!(
            "gnt-instance add -t file --disk 0:size={DISK_MIB}m -o snf-image+default {parameters} -n {NODE} \
             -H kvm --no-nics --no-ip-check --no-name-check --no-start --no-wait-for-sync \
             {instance}.example.test"
        )
    }

    /// Removes an instance.
    pub fn remove(&self, instance: &str) -> Result<()> {
        let line = "gnt-instance remove -f --shutdown-timeout=1";
        self.good(&format!("{line} {instance}.example.test")).map(drop)
    }

    /// The file of an instance's disk.
    pub fn disk(&self, instance: &str, number: usize) -> Result<PathBuf> {
        let dir = self.path(&format!("srv/ganeti/file-storage/{instance}.example.test"));
        let ending = format!(".file.disk{number}");
        let found = fs::read_dir(&dir).ok().and_then(|all| {
            all.filter_map(|entry| Some(entry.ok()?.path()))
                .find(|path| text(path).ends_with(&ending))
        });
        found.ok_or_else(|| format!("no disk {number} in {}", dir.display()))
    }

    /// The first bytes of an instance's first disk.
    pub fn first_bytes(&self, instance: &str) -> Result<[u8; 4096]> {
        let mut bytes = [0; 4096];
        let disk = fs::File::open(self.disk(instance, 0)?).map_err(|e| e.to_string())?;
        disk.read_exact_at(&mut bytes, 0).map_err(|e| e.to_string())?;
        Ok(bytes)
    }

    /// A file inside an instance's first partition.
    pub fn guest_file(&self, instance: &str, path: &str) -> Result<String> {
        let disk = self.disk(instance, 0)?;
        let size = fs::metadata(&disk).map_err(|e| e.to_string())?.len();
        if size != DISK_MIB << 20 {
            return fail(format!(
                "the disk of {instance} is {size} bytes long, not {DISK_MIB} MiB"
            ));
        }
        let device = format!("{}?offset=1048576", disk.display());
        let said = output(&mut command("debugfs", ["-R", &format!("cat {path}"), &device]))?;
        // debugfs says nothing with its exit status.
        if said.is_empty() { fail(format!("{instance} has no {path}")) } else { Ok(said) }
    }

    /// Has the node's cloud-init read the seed in an instance's first partition; gives the user data.
    pub fn seed(&self, instance: &str, mac: &str) -> Result<String> {
        let script = fs::read_to_string(checkout().join("xtask/ganeti/seed.py"));
        self.write("/root/seed.py", &script.map_err(|e| format!("cannot read seed.py: {e}"))?)?;
        let disk = self.disk(instance, 0)?;
        let dump = format!("rdump /etc /var /run {}", self.path("root/guest").display());
        let device = format!("{}?offset=1048576", disk.display());
        let here = self.path("root/guest");
        fs::create_dir(&here).map_err(|e| format!("cannot make {}: {e}", here.display()))?;
        run(&mut command("debugfs", ["-R", &dump, &device]))?;
        let name = format!("{instance}.example.test");
        let said = self.good(&format!("python3 /root/seed.py /root/guest {name} {mac}"))?;
        self.good("rm -r /root/seed.py /root/guest /run/blkid")?;
        Ok(said)
    }

    /// The newest log of Ganeti's whose name begins so.
    pub fn log(&self, start: &str) -> Result<String> {
        let dir = self.path("var/log/ganeti/os");
        let names = fs::read_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let newest = names
            .filter_map(|entry| entry.ok())
            .filter(|entry| entry.file_name().to_string_lossy().starts_with(start))
            .max_by_key(|entry| entry.metadata().and_then(|m| m.modified()).ok());
        let newest = newest.ok_or_else(|| format!("Ganeti kept no log {start}*"))?;
        // Ganeti cannot show a text that is not UTF-8.
        fs::read_to_string(newest.path()).map_err(|e| format!("{}: {e}", newest.path().display()))
    }

    /// No loop device, process or temporary file of ours; of the words none in any file that
    /// `places` (directories) hold.
    pub fn nothing_left(&self, words: &[(&str, &str)]) -> Result<()> {
        let backing = shell("stat -c %Hd:%Ld \"$1\"", &[&text(&self.path("srv"))])?;
        let loops = output(&mut command("losetup", ["-n", "-O", "NAME,BACK-MAJ:MIN,BACK-FILE"]))?;
        if loops.contains(&format!(" {} ", backing.trim())) {
            return fail(format!("a loop device is left behind:\n{loops}"));
        }
        let processes = self.good("ps -eo args")?;
        let ours = |line: &&str| {
            ["qemu", "snf-image", "/usr/local/bin/monitor"].iter().any(|name| line.contains(name))
        };
        if let Some(line) = processes.lines().find(ours) {
            return fail(format!("a process is left behind: {line}"));
        }
        let found = self.good("find /tmp /var/tmp /dev/shm /run -newer /srv/started -type f")?;
        let ganetis =
            |line: &&str| !line.starts_with("/run/ganeti") && !line.starts_with("/run/lock");
        if let Some(line) = found.lines().find(ganetis) {
            return fail(format!("a temporary file is left behind: {line}"));
        }
        for (word, places) in words {
            let found = self.good(&format!("grep -rlF -e {word} {places} || true"))?;
            if !found.trim().is_empty() {
                return fail(format!("{word:?} is in {found}"));
            }
        }
        Ok(())
    }

    /// From now on new files count as left behind.
    pub fn started(&self) -> Result<()> {
        self.write("/srv/started", "")
    }

    /// The messages of an instance that reached the progress monitor.
    pub fn progress(&self, instance: &str) -> Result<String> {
        let path = self.path(&format!("var/log/monitor-{instance}.example.test"));
        fs::read_to_string(&path).map_err(|e| format!("the progress monitor heard nothing: {e}"))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("error: {error}");
        }
    }
}

/// Whether two files are the same bytes.
pub fn same(one: &Path, two: &Path) -> Result<()> {
    run(&mut command("cmp", [one, two]))
}
