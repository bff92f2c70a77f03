//! `cargo xtask ganeti`: the OS provider under a real one-node Ganeti cluster.

mod lab;

use std::fs;
use std::path::{Path, PathBuf};

use crate::deb;
use crate::setup::kernel;
use crate::util::{Result, command, output, run, step, text};
use lab::{DISK_MIB, Lab, NODE, fail, same};

const SECRET: &str = "seCret-17-word";
const PRIVATE_KEY_COMMENT: &str = "private-lab-comment";
/// The places where a secret parameter must never be found, and those where not even a private one may be.
const EVERYWHERE: &str = "/var /etc /run /tmp /dev/shm /root";
const LOGS: &str = "/var/log /tmp /dev/shm";

/// Builds the package unless there is one, and runs all of it.
pub fn ganeti(package: Option<PathBuf>) -> Result<()> {
    crate::setup()?;
    life(&package.map_or_else(deb::deb, Ok)?)
}

/// Makes what is slow the first time.
pub fn prepare() -> Result<()> {
    lab::tree().map(drop)
}

/// Brings a cluster up, runs the whole life of instances on it with the package that is given, and
/// takes it down.
pub fn life(package: &Path) -> Result<()> {
    let lab = step("bringing up Ganeti", Lab::up)?;
    let result = all(&lab, package);
    let down = step("taking Ganeti down", || lab.down());
    result.and(down)
}

fn all(lab: &Lab, package: &Path) -> Result<()> {
    let kernel = kernel("cloud-amd64")?;
    step("installing the package", || lab.install(package, &kernel))?;
    step("gnt-os diagnose, info, list", || diagnose(lab))?;
    lab.started()?;
    step("add (extdump; private and secret parameters)", || add_extdump(lab))?;
    step("reinstall: stored parameters, none, new ones", || reinstall(lab))?;
    step("rename, without and with the host name", || rename(lab))?;
    step("add (diskdump, two disks), export, import", || export_import(lab))?;
    step("a truncated export", || truncated(lab))?;
    step("add with user data: cloud-init reads the seed", || cloud_init(lab))?;
    step("failing verify, failing create, hostile images", || failures(lab))?;
    step("remove; nothing is left behind", || remove(lab))?;
    step("purging the package", || lab.purge())
}

fn diagnose(lab: &Lab) -> Result<()> {
    let said = lab.good("gnt-os diagnose && gnt-os info && gnt-os list")?;
    for wanted in
        ["global status: valid", "variants: default", "img_personality", "snf-image+default"]
    {
        if !said.contains(wanted) {
            return fail(format!("Ganeti does not show {wanted:?}:\n{said}"));
        }
    }
    Ok(())
}

/// The state of every customized instance: its name, or the one it had before; the password when
/// one was given; keys of its own.
fn check_guest(lab: &Lab, instance: &str, hostname: &str, password: bool) -> Result<()> {
    let found = lab.guest_file(instance, "/etc/hostname")?;
    if ![hostname, &format!("{hostname}.example.test")].contains(&found.trim()) {
        return fail(format!("the host name in {instance} is {found:?}"));
    }
    let shadow = lab.guest_file(instance, "/etc/shadow")?;
    let hash = shadow.strip_prefix("root:").and_then(|rest| rest.split(':').next());
    if password {
        let script = "exit(crypt($ARGV[0], $ARGV[1]) ne $ARGV[1])";
        run(&mut command("perl", ["-e", script, SECRET, hash.unwrap_or_default()]))
            .map_err(|_| format!("the password of {instance} is not the one given: {shadow}"))?;
    } else if hash != Some("*") {
        return fail(format!("{instance} has a password nobody asked for: {shadow}"));
    }
    lab.guest_file(instance, "/etc/ssh/ssh_host_ed25519_key.pub").map(drop)
}

fn add_extdump(lab: &Lab) -> Result<()> {
    let key = format!("'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGVyNvJ0 {PRIVATE_KEY_COMMENT}'");
    lab.good(&lab.add(
        "inst1",
        &format!(
            "-O img_id=mini.ext4,img_format=extdump --os-parameters-private auth_keys={key} \
             --os-parameters-secret img_passwd={SECRET}"
        ),
    ))?;
    check_guest(lab, "inst1", "inst1", true)?;
    let keys = lab.guest_file("inst1", "/root/.ssh/authorized_keys")?;
    if !keys.contains(PRIVATE_KEY_COMMENT) {
        return fail(format!("the key is not in authorized_keys: {keys}"));
    }
    let table = lab.first_bytes("inst1")?;
    if table[510..512] != [0x55, 0xaa] || (table[446], table[450]) != (0x80, 0x83) {
        return fail("the disk of inst1 has no bootable Linux partition");
    }
    let log = lab.log("add-snf-image+default-inst1")?;
    for wanted in ["copying", "HELPER: task ChangePassword", "ended with SUCCESS"] {
        if !log.contains(wanted) {
            return fail(format!("Ganeti's log does not tell {wanted:?}:\n{log}"));
        }
    }
    let progress = lab.progress("inst1")?;
    for wanted in ["image-copy-progress", "\"task-start\"", "the instance was deployed"] {
        if !progress.contains(wanted) {
            return fail(format!("the progress monitor did not hear {wanted:?}:\n{progress}"));
        }
    }
    nothing_left(lab)
}

fn reinstall(lab: &Lab) -> Result<()> {
    let reinstall = "gnt-instance reinstall -f";
    let key = || lab.guest_file("inst1", "/etc/ssh/ssh_host_ed25519_key.pub");
    let first = key()?;
    // Ganeti 3.0 still passes the stored parameters this once, and forgets them.
    lab.good(&format!("{reinstall} inst1.example.test"))?;
    check_guest(lab, "inst1", "inst1", false)?;
    if key()? == first {
        return fail("a reinstalled instance has its old host key");
    }
    lab.bad(&format!("{reinstall} inst1.example.test"), "no OS parameters were given")?;
    let parameters = "-O img_id=mini.qcow2,img_format=diskdump";
    lab.good(&format!(
        "{reinstall} {parameters} --os-parameters-secret img_passwd={SECRET} inst1.example.test"
    ))?;
    check_guest(lab, "inst1", "inst1", true)?;
    nothing_left(lab)
}

fn rename(lab: &Lab) -> Result<()> {
    let rename = |old: &str, new: &str| {
        let options = "--force --no-ip-check --no-name-check";
        lab.good(&format!("gnt-instance rename {options} {old}.example.test {new}.example.test"))
    };
    let key = |instance: &str| lab.guest_file(instance, "/etc/ssh/ssh_host_ed25519_key");
    let before = key("inst1")?;
    rename("inst1", "inst2")?;
    check_guest(lab, "inst2", "inst1", true)?;
    lab.configure("RENAME_HOSTNAME=yes\n")?;
    rename("inst2", "inst3")?;
    lab.configure("")?;
    check_guest(lab, "inst3", "inst3", true)?;
    if key("inst3")? != before {
        return fail("rename changed more than the host name");
    }
    for (old, wanted) in
        [("inst1", "the disk is left as it is"), ("inst2", "changing the host name")]
    {
        let log = lab.log(&format!("rename-snf-image+default-{old}"))?;
        if !log.contains(wanted) {
            return fail(format!("Ganeti's log does not tell {wanted:?}:\n{log}"));
        }
    }
    lab.remove("inst3")?;
    nothing_left(lab)
}

const EXPORTS: &str = "/var/lib/ganeti/export";

fn import(instance: &str) -> String {
    format!(
        "gnt-backup import -n {NODE} --src-node={NODE} --src-dir={EXPORTS}/inst2.example.test -t file \
         --no-ip-check --no-name-check {instance}.example.test"
    )
}

fn export_import(lab: &Lab) -> Result<()> {
    let add = lab.add("inst2", "--disk 1:size=24m -O img_id=mini.raw,img_format=diskdump");
    lab.good(&add)?;
    check_guest(lab, "inst2", "inst2", false)?;
    // The second disk is nobody's but the instance's.
    let second = lab.disk("inst2", 1)?;
    let data: Vec<u8> = (0..24u32 << 18).flat_map(|n| (n / 1000).to_le_bytes()).collect();
    fs::write(&second, &data).map_err(|e| e.to_string())?;
    lab.good(&format!("gnt-backup export -n {NODE} inst2.example.test"))?;
    lab.good(&import("inst3"))?;
    for disk in [0, 1] {
        same(&lab.disk("inst2", disk)?, &lab.disk("inst3", disk)?)?;
    }
    for (log, done) in [
        ("export-snf-image+default-inst2", "exported"),
        ("import-snf-image+default-inst3", "imported"),
    ] {
        let said = lab.log(&format!("{log}.example.test-disk0"))?;
        let wanted = format!("{done} {} bytes", DISK_MIB << 20);
        if !said.contains(&wanted) {
            return fail(format!("Ganeti's log does not tell {wanted:?}:\n{said}"));
        }
    }
    for (instance, what) in [("inst2", "disk-export-progress"), ("inst3", "disk-import-progress")] {
        let heard = lab.progress(instance)?;
        for disk in [0, 1] {
            let done = |line: &&str| {
                line.contains(what)
                    && line.contains(&format!("\"disk\":{disk},"))
                    && line.contains("\"progress\":100.0")
            };
            if heard.lines().filter(done).count() != 1 {
                return fail(format!("the monitor did not hear {what} of disk {disk}:\n{heard}"));
            }
        }
    }
    // Neither holds the zeros of the other.
    let script = "du --block-size=1M \"$1\" | cut -f 1";
    let stored = crate::util::shell(script, &[&text(&lab.disk("inst3", 0)?)])?;
    if stored.trim().parse::<u64>().is_ok_and(|mib| mib > 40) {
        return fail(format!("the imported disk takes {} MiB: zeros were stored", stored.trim()));
    }
    lab.remove("inst3")?;
    nothing_left(lab)
}

fn truncated(lab: &Lab) -> Result<()> {
    let dir = format!("{EXPORTS}/inst2.example.test");
    lab.good(&format!("for f in $(find {dir} -type f -size +60M); do truncate -s 30M $f; done"))?;
    // Ganeti itself makes a warning of it.
    lab.warns(&import("inst3"), "the export is truncated")?;
    lab.remove("inst3")?;
    lab.remove("inst2")?;
    lab.good("gnt-backup remove inst2.example.test")?;
    nothing_left(lab)
}

fn cloud_init(lab: &Lab) -> Result<()> {
    const MAC: &str = "aa:00:00:12:34:56";
    let add = lab.add("inst1", "-O img_id=cloud.ext4,img_format=extdump,cloud_userdata=$data");
    let add = add.replace("--no-nics", &format!("--net 0:mac={MAC},link=br0"));
    lab.good(&format!("data=$(printf '#cloud-config\\nfqdn: x\\n' | base64); {add}"))?;
    let data = lab.seed("inst1", MAC)?;
    if data.trim() != "#cloud-config\nfqdn: x" {
        return fail(format!("cloud-init reads the user data {data:?}"));
    }
    lab.remove("inst1")?;
    nothing_left(lab)
}

fn failures(lab: &Lab) -> Result<()> {
    lab.bad(&lab.add("inst1", "-O img_id=mini.ext4,img_format=tar"), "img_format")?;
    // Ganeti leaves an instance that failed and its disk, so each is removed.
    let secret = format!("--os-parameters-secret img_passwd={SECRET}");
    let mallory = "-O 'img_id=mini.ext4,img_format=extdump,img_properties={\"USERS\":\"mallory\"}'";
    lab.bad(&lab.add("inst1", &format!("{mallory} {secret}")), "mallory")?;
    if !lab.guest_file("inst1", "/etc/shadow")?.starts_with("root:*:") {
        return fail("a failed customization changed the disk");
    }
    nothing_left(lab)?;
    lab.remove("inst1")?;
    let hostile = format!("-O img_id=hostile.ext4,img_format=extdump {secret}");
    lab.bad(&lab.add("inst1", &hostile), "corrupt")?;
    nothing_left(lab)?;
    lab.remove("inst1")?;
    for (parameters, why) in [
        ("-O img_id=hostile.qcow2,img_format=diskdump", "has a backing file"),
        ("-O img_id=../../etc/passwd,img_format=diskdump", "leads out of IMAGE_DIR"),
    ] {
        lab.bad(&lab.add("inst1", parameters), why)?;
        let disk = text(&lab.disk("inst1", 0)?);
        let used = output(&mut command("stat", ["-c", "%b", &disk]))?;
        if used.trim() != "0" {
            return fail(format!("{why}: the disk was written to ({} blocks)", used.trim()));
        }
        lab.remove("inst1")?;
    }
    Ok(())
}

fn remove(lab: &Lab) -> Result<()> {
    let left = lab.good("gnt-instance list --no-headers -o name; ls /srv/ganeti/file-storage")?;
    if left.contains("inst") {
        return fail(format!("an instance is left: {left}"));
    }
    nothing_left(lab)
}

fn nothing_left(lab: &Lab) -> Result<()> {
    // Ganeti itself keeps private parameters in its configuration, secret ones nowhere.
    lab.nothing_left(&[(SECRET, EVERYWHERE), (PRIVATE_KEY_COMMENT, LOGS)])
}
