//! Whether a disk was truly customized, judged by the partition and file system tools.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;

use crate::{DISK_SIZE, HOSTNAME, MIB, MOTD, Place, Result, during};

/// The root file system is the second partition.
const ROOT: u64 = 2;

/// The fault of the work on the disk, if there is one. An error outside that is one of the
/// bench.
pub(crate) fn customized(place: &Place) -> Result<Result<()>> {
    let path = place.disk_path();
    let disk = File::open(&path).map_err(during(format!("open {}", path.display())))?;
    let mut entry = [0; 128];
    // The entries of a GPT begin with the third sector; from 32 on there are first and last sector.
    disk.read_exact_at(&mut entry, 2 * 512 + (ROOT - 1) * 128).map_err(during("read the GPT"))?;
    let byte = |at: usize| {
        let sector = entry[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        sector.saturating_mul(512)
    };
    let (start, end) = (byte(32), byte(40).saturating_add(512));
    let path = path.display().to_string();
    let table = said("sgdisk", &["-v", &path])?;
    if !table.contains("No problems found") {
        let words = table.trim().replace('\n', " / ");
        return Ok(Err(format!("sgdisk finds fault with the partition table: {words}")));
    }
    if !(DISK_SIZE - 2 * MIB..=DISK_SIZE).contains(&end) || start >= end {
        return Ok(Err(format!(
            "the root partition has the bytes {start} to {end} of {DISK_SIZE}"
        )));
    }
    let root = format!("{path}?offset={start}");
    let mut superblock = [0; 32];
    disk.read_exact_at(&mut superblock, start + 1024).map_err(during("read the superblock"))?;
    let word =
        |at: usize| superblock[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes));
    // s_blocks_count_lo and s_log_block_size.
    let size = u64::from(word(4)) << 10 << word(24).min(6);
    // An end of a block group that is too small for its own tables is left out.
    if !((end - start).saturating_sub(2 * MIB)..=end - start).contains(&size) {
        return Ok(Err(format!("the file system has {size} of {} bytes", end - start)));
    }
    let checked = run("e2fsck", &["-fn", &root])?;
    if !checked.status.success() {
        let words = String::from_utf8_lossy(&checked.stdout).trim().replace('\n', " / ");
        return Ok(Err(format!("e2fsck finds fault with the root file system: {words}")));
    }
    for (file, wanted) in [
        ("/etc/hostname", HOSTNAME),
        ("/etc/hosts", HOSTNAME),
        ("/etc/motd", MOTD),
        ("/etc/shadow", "root:$"),
        ("/root/.ssh/authorized_keys", "ssh-ed25519 "),
        ("/etc/ssh/ssh_host_rsa_key.pub", HOSTNAME),
        ("/etc/ssh/ssh_host_ecdsa_key.pub", HOSTNAME),
        ("/etc/ssh/ssh_host_ed25519_key.pub", HOSTNAME),
    ] {
        if !said("debugfs", &["-R", &format!("cat {file}"), &root])?.contains(wanted) {
            return Ok(Err(format!("{file} does not say {:?}", wanted.trim())));
        }
    }
    // The template has a password too: a new one has another hash.
    let shadow = |of: &str| said("debugfs", &["-R", "cat /etc/shadow", of]);
    if shadow(&root)? == shadow(&format!("{}?offset={start}", place.image.display()))? {
        return Ok(Err("the passwords are those of the image".to_owned()));
    }
    Ok(Ok(()))
}

fn run(program: &str, arguments: &[&str]) -> Result<std::process::Output> {
    Command::new(program).args(arguments).output().map_err(during(format!("run {program}")))
}

fn said(program: &str, arguments: &[&str]) -> Result<String> {
    let output = run(program, arguments)?;
    Ok([output.stdout, output.stderr]
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .concat())
}
