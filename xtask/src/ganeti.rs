//! `cargo xtask ganeti`: the OS provider under a real one-node Ganeti cluster.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::setup::{cache, kernel};
use crate::util::{Result, checkout, command, output, run, shell, step, text};

const SECRET: &str = "seCret-17-word";
const PRIVATE_KEY_COMMENT: &str = "private-lab-comment";
const NODE: &str = "node1.example.test";

/// Brings the cluster up, runs the whole life of instances on it, and takes it down.
pub fn ganeti() -> Result<()> {
    crate::setup()?;
    let lab = Lab { dir: cache()?.join("ganeti-lab") };
    let (program, init) = step("building the host part and the helper's init", build)?;
    step("bringing up Ganeti (minutes the first time)", || lab.script("up.sh"))?;
    let result = lab.all(&program, &init);
    let down = step("taking Ganeti down", || lab.script("down.sh"));
    result.and(down)
}

/// The program and the helper's init.
fn build() -> Result<(PathBuf, PathBuf)> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| checkout().join("target"), PathBuf::from);
    let cargo = |arguments: &[&str]| run(command(env!("CARGO"), arguments).current_dir(checkout()));
    cargo(&["build", "--quiet", "-p", "snf-image-host"])?;
    let musl = "x86_64-unknown-linux-musl";
    cargo(&["build", "--quiet", "-p", "snf-helper-init", "--profile", "helper", "--target", musl])?;
    let init = target.join(musl).join("helper/snf-helper-init");
    Ok((target.join("debug/snf-image-host"), init))
}

struct Lab {
    dir: PathBuf,
}

fn fail<T>(text: impl Into<String>) -> Result<T> {
    Err(text.into())
}

impl Lab {
    fn script(&self, name: &str) -> Result<()> {
        let path = checkout().join("xtask/ganeti").join(name);
        run(Command::new(path).env("LAB", &self.dir).stdin(std::process::Stdio::null()))
    }

    fn root(&self, path: &str) -> PathBuf {
        self.dir.join("root").join(path.trim_start_matches('/'))
    }

    fn enter(&self, arguments: &[&str]) -> Command {
        command(&text(&self.dir.join("enter")), arguments)
    }

    /// A command in the lab that must succeed, without a warning of Ganeti's.
    fn gnt(&self, arguments: &[&str]) -> Result<String> {
        let mut all = arguments.join(" ");
        all.push_str(" 2>&1");
        let said = output(&mut self.enter(&["sh", "-c", &all]))?;
        if said.contains("WARNING") {
            return fail(format!("`{all}` warned:\n{said}"));
        }
        Ok(said)
    }

    /// A command that must fail and say `why`.
    fn gnt_fails(&self, arguments: &[&str], why: &str) -> Result<()> {
        match self.gnt(arguments) {
            Ok(_) => fail(format!("`{}` should have failed", arguments.join(" "))),
            Err(said) if said.contains(why) => Ok(()),
            Err(said) => fail(format!("the error should say {why:?}:\n{said}")),
        }
    }

    fn all(&self, program: &Path, init: &Path) -> Result<()> {
        step("installing the OS directory", || self.install(program, init))?;
        step("gnt-os diagnose, gnt-os info", || self.diagnose())?;
        step("add (extdump; private and secret parameters)", || self.add_extdump())?;
        step("reinstall: stored parameters, none, new ones", || self.reinstall())?;
        step("rename", || self.rename())?;
        step("export and import", || self.export_import())?;
        step("add (diskdump)", || self.add_diskdump())?;
        step("a failing verify and a failing create", || self.failures())?;
        step("remove; nothing is left behind", || self.remove())
    }

    fn install(&self, program: &Path, init: &Path) -> Result<()> {
        let kernel = kernel("cloud-amd64")?;
        shell(
            r#"
            program=$1 root=$2
            install -D -m 755 "$program" "$root/usr/bin/snf-image-host"
            strip "$root/usr/bin/snf-image-host"
            mkdir -p "$root/var/lib/snf-image/helper" "$root/srv/ganeti/os"
            "$program" update-helper --dir "$root/var/lib/snf-image/helper" --root "$3" --init "$4"
            printf 'HELPER_ACCEL=tcg\nHELPER_SOFT_TIMEOUT=300\n' >"$root/etc/default/snf-image"
            rm -rf "$root/srv/ganeti/os/snf-image"
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
            rm -f "$images/mini.ext4" "$images/mini.raw"
            truncate -s 48M "$images/mini.ext4"
            mke2fs -q -t ext4 -d "$tree" "$images/mini.ext4"
            truncate -s 60M "$images/mini.raw"
            echo '2048,,L,*' | sfdisk -q "$images/mini.raw"
            dd if="$images/mini.ext4" of="$images/mini.raw" bs=1M seek=1 conv=notrunc status=none
            "#,
            &[&text(program), &text(&self.dir.join("root")), &text(&kernel.root), &text(init)],
        )?;
        self.gnt(&["snf-image-host install-os /srv/ganeti/os/snf-image default"])?;
        Ok(())
    }

    fn diagnose(&self) -> Result<()> {
        let said = self.gnt(&["gnt-os diagnose && gnt-os info && gnt-os list"])?;
        for wanted in
            ["global status: valid", "variants: default", "img_personality", "snf-image+default"]
        {
            if !said.contains(wanted) {
                return fail(format!("Ganeti does not show {wanted:?}:\n{said}"));
            }
        }
        Ok(())
    }

    fn add(&self, instance: &str, parameters: &str) -> [String; 3] {
        let _ = self;
        [
            "gnt-instance add -t file --disk 0:size=128m -o snf-image+default".to_owned(),
            parameters.to_owned(),
            format!(
                "-n {NODE} -H kvm --no-nics --no-ip-check --no-name-check --no-start \
                 --no-wait-for-sync {instance}.example.test"
            ),
        ]
    }

    fn add_ok(&self, instance: &str, parameters: &str) -> Result<String> {
        let all = self.add(instance, parameters);
        self.gnt(&all.each_ref().map(String::as_str))
    }

    /// The first disk's file of an instance.
    fn disk(&self, instance: &str) -> Result<PathBuf> {
        let dir = self.root(&format!("srv/ganeti/file-storage/{instance}.example.test"));
        let entry = fs::read_dir(&dir).ok().and_then(|mut all| all.next()?.ok());
        entry.map(|e| e.path()).ok_or_else(|| format!("no disk in {}", dir.display()))
    }

    /// A file inside an instance's first partition.
    fn guest_file(&self, instance: &str, path: &str) -> Result<String> {
        let disk = self.disk(instance)?;
        let size = fs::metadata(&disk).map_err(|e| e.to_string())?.len();
        if size != 128 << 20 {
            return fail(format!("the disk of {instance} is {size} bytes long, not 128 MiB"));
        }
        let device = format!("{}?offset=1048576", disk.display());
        let said = output(&mut command("debugfs", ["-R", &format!("cat {path}"), &device]))?;
        // debugfs says nothing with its exit status.
        if said.is_empty() { fail(format!("{instance} has no {path}")) } else { Ok(said) }
    }

    fn check_guest(&self, instance: &str, password: bool) -> Result<()> {
        let hostname = self.guest_file(instance, "/etc/hostname")?;
        if hostname.trim() != "inst1" && hostname.trim() != "inst1.example.test" {
            return fail(format!("the host name in {instance} is {hostname:?}"));
        }
        let shadow = self.guest_file(instance, "/etc/shadow")?;
        if shadow.starts_with("root:$") != password {
            return fail(format!("the password of {instance} is not what was asked for: {shadow}"));
        }
        self.guest_file(instance, "/etc/ssh/ssh_host_ed25519_key.pub").map(drop)
    }

    fn add_extdump(&self) -> Result<()> {
        let key = format!("'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVyNvJ0 {PRIVATE_KEY_COMMENT}'");
        self.add_ok(
            "inst1",
            &format!(
                "-O img_id=mini.ext4,img_format=extdump --os-parameters-private auth_keys={key} \
                 --os-parameters-secret img_passwd={SECRET}"
            ),
        )?;
        self.check_guest("inst1", true)?;
        let keys = self.guest_file("inst1", "/root/.ssh/authorized_keys")?;
        if !keys.contains(PRIVATE_KEY_COMMENT) {
            return fail(format!("the key is not in authorized_keys: {keys}"));
        }
        self.nothing_left()
    }

    fn reinstall(&self) -> Result<()> {
        let reinstall = "gnt-instance reinstall -f";
        // Ganeti 3.0 still passes the stored parameters this once, and forgets them.
        self.gnt(&[reinstall, "inst1.example.test"])?;
        self.check_guest("inst1", false)?;
        self.gnt_fails(&[reinstall, "inst1.example.test"], "no OS parameters were given")?;
        self.gnt(&[reinstall, "-O img_id=mini.ext4,img_format=extdump", "inst1.example.test"])?;
        self.check_guest("inst1", false)
    }

    fn rename(&self) -> Result<()> {
        self.gnt(&[
            "gnt-instance rename --force --no-ip-check --no-name-check inst1.example.test inst2.example.test",
        ])?;
        self.check_guest("inst2", false)
    }

    fn export_import(&self) -> Result<()> {
        self.gnt(&["gnt-backup export -n", NODE, "inst2.example.test"])?;
        self.gnt(&[
            "gnt-backup import -n",
            NODE,
            "--src-node=node1.example.test --src-dir=/var/lib/ganeti/export/inst2.example.test \
             -t file --no-ip-check --no-name-check inst3.example.test",
        ])?;
        let (one, two) = (self.disk("inst2")?, self.disk("inst3")?);
        run(&mut command("cmp", [one, two]))?;
        self.gnt(&["gnt-backup remove inst2.example.test"])?;
        Ok(())
    }

    fn add_diskdump(&self) -> Result<()> {
        self.add_ok("inst1", "-O img_id=mini.raw,img_format=diskdump")?;
        self.check_guest("inst1", false)?;
        self.gnt(&["gnt-instance remove -f --shutdown-timeout=1 inst1.example.test"])?;
        Ok(())
    }

    fn failures(&self) -> Result<()> {
        let wrong = self.add("inst1", "-O img_id=mini.ext4,img_format=tar");
        self.gnt_fails(&wrong.each_ref().map(String::as_str), "img_format")?;
        let wrong = self.add(
            "inst1",
            &format!(
                "-O 'img_id=mini.ext4,img_format=extdump,img_properties={{\"USERS\":\"mallory\"}}' \
                 --os-parameters-secret img_passwd={SECRET}"
            ),
        );
        self.gnt_fails(&wrong.each_ref().map(String::as_str), "mallory")?;
        self.gnt(&["gnt-instance remove -f --shutdown-timeout=1 inst1.example.test"])?;
        let wrong = self.add("inst1", "-O img_id=../../etc/passwd,img_format=diskdump");
        self.gnt_fails(&wrong.each_ref().map(String::as_str), "leads out of IMAGE_DIR")?;
        self.gnt(&["gnt-instance remove -f --shutdown-timeout=1 inst1.example.test"])?;
        Ok(())
    }

    fn remove(&self) -> Result<()> {
        for instance in ["inst2", "inst3"] {
            let name = format!("{instance}.example.test");
            self.gnt(&["gnt-instance remove -f --shutdown-timeout=1", &name])?;
        }
        self.nothing_left()
    }

    /// No loop device, process, temporary file or secret of ours.
    fn nothing_left(&self) -> Result<()> {
        let lab = text(&self.dir);
        let said = output(&mut command("losetup", ["-a"]))?;
        if said.contains(&lab) || said.contains("/srv/ganeti") {
            return fail(format!("a loop device is left behind: {said}"));
        }
        let processes = self.gnt(&["ps -eo args"])?;
        if processes.contains("qemu-system") || processes.contains("snf-image") {
            return fail(format!("a process is left behind:\n{processes}"));
        }
        let found = self.gnt(&["find /tmp /var/tmp -type f"])?;
        if found.contains("snf") {
            return fail(format!("a temporary file is left behind:\n{found}"));
        }
        for secret in [SECRET, PRIVATE_KEY_COMMENT] {
            // The private parameter may lie in Ganeti's own configuration, the secret one nowhere.
            let found = self.gnt(&["grep -rl", secret, "/var/log /tmp /var/tmp /run || true"])?;
            if !found.trim().is_empty() {
                return fail(format!("{secret:?} is in {found}"));
            }
        }
        Ok(())
    }
}
