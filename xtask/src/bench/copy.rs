//! Laying images onto disks, beside the tools that people copy images with. All of them end with the
//! image on stable storage, begin with cold caches, and take turns, so that a machine that is busy
//! for a while is busy for all.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{Bench, ROUNDS, Turn, goal, row, take_turns};
use crate::demo::create_command;
use crate::util::{Result, output, run, shell, text};

/// Size of the dense image; `SNF_BENCH_DENSE_MIB` makes it smaller for a quick look, and `SNF_BENCH_ONLY`
/// leaves out the tables without these words in their head ("sparse", "onto a loop device").
const DENSE_MIB: u64 = 4096;

pub fn bench(bench: &Bench) -> Result<()> {
    // Made before anything is timed.
    bench.stage()?;
    let images = Images::new(bench)?;
    for disk in [Disk::File, Disk::Loop] {
        for (name, image) in [("sparse", &images.sparse), ("dense", &images.dense)] {
            raw(bench, disk, name, image)?;
        }
        for (name, image) in &images.qcow2 {
            qcow2(bench, disk, name, image)?;
        }
    }
    overhead(bench)
}

struct Images {
    sparse: PathBuf,
    dense: PathBuf,
    qcow2: Vec<(&'static str, PathBuf)>,
}

impl Images {
    fn new(bench: &Bench) -> Result<Self> {
        let mib = std::env::var("SNF_BENCH_DENSE_MIB").ok().and_then(|mib| mib.parse().ok());
        let dense = bench.work.join("dense.raw");
        // Bytes that no file system or host can make smaller.
        let script = r#"openssl enc -aes-128-ctr -nosalt -pass pass:bench </dev/zero 2>/dev/null |
            dd of="$1" bs=1M count="$2" iflag=fullblock status=none; sync "$1""#;
        shell(script, &[&text(&dense), &mib.unwrap_or(DENSE_MIB).to_string()])?;
        let mut qcow2 = Vec::new();
        for (name, options) in
            [("plain", "-W"), ("zlib", "-c"), ("zstd", "-c -o compression_type=zstd")]
        {
            let path = bench.work.join(format!("{name}.qcow2"));
            let script = "qemu-img convert -f raw -O qcow2 $3 \"$1\" \"$2\"; sync \"$2\"";
            shell(script, &[&text(&bench.image), &text(&path), options])?;
            qcow2.push((name, path));
        }
        Ok(Self { sparse: bench.image.clone(), dense, qcow2 })
    }
}

/// The targets of the images.
#[derive(Clone, Copy)]
enum Disk {
    File,
    Loop,
}

impl Disk {
    fn name(self) -> &'static str {
        match self {
            Self::File => "a file",
            Self::Loop => "a loop device",
        }
    }
}

/// A fresh disk of the size of the image; gone when dropped.
struct Fresh {
    file: String,
    device: Option<String>,
}

impl Fresh {
    fn new(bench: &Bench, disk: Disk, size: u64) -> Result<Self> {
        let file = bench.path("disk.raw");
        shell("rm -f \"$1\"; truncate -s \"$2\" \"$1\"", &[&file, &size.to_string()])?;
        let mut fresh = Self { file, device: None };
        if matches!(disk, Disk::Loop) {
            let device = shell("losetup -f --show \"$1\"", &[&fresh.file])?;
            fresh.device = Some(device.trim().to_owned());
        }
        Ok(fresh)
    }

    fn path(&self) -> &str {
        self.device.as_deref().unwrap_or(&self.file)
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        if let Some(device) = &self.device {
            let _ = shell("losetup -d \"$1\"", &[device]);
        }
        let _ = std::fs::remove_file(&self.file);
    }
}

/// Somebody who copies: a name, and how.
type Contender<'a> = (&'a str, &'a dyn Fn(&Fresh) -> Result<()>);

/// Lets all of them copy in turn, checks what they copied once, and prints and gives the medians,
/// beside the first one's.
fn race(
    bench: &Bench,
    disk: Disk,
    size: u64,
    what: &str,
    contenders: &[Contender<'_>],
    check: &dyn Fn(&Fresh) -> Result<()>,
) -> Result<Vec<f64>> {
    let what = format!("{what} onto {}", disk.name());
    if std::env::var("SNF_BENCH_ONLY").is_ok_and(|words| !what.contains(&words)) {
        return Ok(Vec::new());
    }
    super::head(&what);
    let prepare = || {
        let fresh = Fresh::new(bench, disk, size)?;
        shell("sync; echo 3 >/proc/sys/vm/drop_caches", &[])?;
        Ok(fresh)
    };
    let mut actions: Vec<_> = contenders
        .iter()
        .map(|(_, action)| {
            |fresh: &Fresh| {
                action(fresh)?;
                shell("sync \"$1\"", &[fresh.path()]).map(drop)
            }
        })
        .collect();
    let mut turns: Vec<Turn<'_, Fresh>> = actions.iter_mut().map(|way| way as _).collect();
    let times = take_turns(&prepare, &mut turns, &|round, number, fresh| {
        let name = contenders[number].0;
        let result = if round == 0 { check(fresh) } else { Ok(()) };
        result.map_err(|error| format!("{name} copied wrongly: {error}"))
    })?;
    for ((name, _), seconds) in contenders.iter().zip(&times) {
        row(name, *seconds, times[0]);
    }
    Ok(times)
}

/// Compares ours, the last time, with the fastest of the others.
fn judge(times: &[f64]) {
    // None were taken of a table that is left out.
    if let [others @ .., ours] = times {
        let fastest = others.iter().copied().fold(f64::INFINITY, f64::min);
        goal("create, of the fastest other", ours / fastest, 1.0);
    }
}

fn length(path: &Path) -> Result<u64> {
    let metadata = std::fs::metadata(path);
    metadata.map(|m| m.len()).map_err(|e| format!("cannot look at {}: {e}", path.display()))
}

/// `create` without the VM: the whole process, from the environment to the exit status.
fn ours(bench: &Bench, image: &Path, disk: &Fresh) -> Result<()> {
    let stage = bench.stage()?;
    let mut create = create_command(image, stage, &bench.work, Path::new(disk.path()), "")?;
    run(create.env("OSP_IMG_PROPERTIES", r#"{"EXCLUDE_ALL_TASKS":"yes"}"#))
}

fn raw(bench: &Bench, disk: Disk, name: &str, image: &Path) -> Result<()> {
    let size = length(image)?;
    let from = text(image);
    let dd = |disk: &Fresh| {
        let script = "dd if=\"$1\" of=\"$2\" oflag=direct bs=4M conv=notrunc status=none";
        shell(script, &[&from, disk.path()]).map(|_| ())
    };
    let cp =
        |disk: &Fresh| shell("cp --sparse=always \"$1\" \"$2\"", &[&from, disk.path()]).map(|_| ());
    let qemu = |disk: &Fresh| {
        let script = "qemu-img convert -n -W -f raw -O raw \"$1\" \"$2\"";
        shell(script, &[&from, disk.path()]).map(|_| ())
    };
    let create = |disk: &Fresh| ours(bench, image, disk);
    let check = |disk: &Fresh| {
        shell("cmp -n \"$3\" \"$1\" \"$2\"", &[&from, disk.path(), &size.to_string()]).map(|_| ())
    };
    let what = format!("raw, {name}, {} MiB", size >> 20);
    let contenders: [Contender<'_>; 4] = [
        ("dd oflag=direct bs=4M", &dd),
        ("cp --sparse=always", &cp),
        ("qemu-img convert -n -W", &qemu),
        ("create without the VM", &create),
    ];
    let times = race(bench, disk, size, &what, &contenders, &check)?;
    judge(&times);
    if let ("sparse", [dd, .., ours]) = (name, times.as_slice()) {
        goal("create, of dd", ours / dd, 1.0 / 3.0);
    }
    Ok(())
}

fn qcow2(bench: &Bench, disk: Disk, name: &str, image: &Path) -> Result<()> {
    let from = text(image);
    let reference = text(&bench.image);
    let qemu = |disk: &Fresh| {
        let script = "qemu-img convert -n -f qcow2 -O raw \"$1\" \"$2\"";
        shell(script, &[&from, disk.path()]).map(|_| ())
    };
    let create = |disk: &Fresh| ours(bench, image, disk);
    let check = |disk: &Fresh| shell("cmp \"$1\" \"$2\"", &[&reference, disk.path()]).map(|_| ());
    let contenders: [Contender<'_>; 2] =
        [("qemu-img convert -n", &qemu), ("create without the VM", &create)];
    let what = format!("qcow2, {name}, {} MiB", length(image)? >> 20);
    judge(&race(bench, disk, length(&bench.image)?, &what, &contenders, &check)?);
    Ok(())
}

/// The whole `create` without the copy's time and the VM's: QEMU is a stand-in that says SUCCESS.
fn overhead(bench: &Bench) -> Result<()> {
    let stand_in = bench.file("qemu", STAND_IN)?;
    std::fs::set_permissions(&stand_in, std::fs::Permissions::from_mode(0o755))
        .map_err(|e| format!("cannot make {stand_in} executable: {e}"))?;
    // QEMU runs as nobody.
    shell("chmod 755 \"$1\"", &[&text(&bench.work)])?;
    super::head("create but for the copy and the VM");
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let fresh = Fresh::new(bench, Disk::File, length(&bench.image)?)?;
        let more = format!("HELPER_ACCEL=\"tcg\"\nHELPER_QEMU=\"{stand_in}\"\n");
        let disk = Path::new(fresh.path());
        let mut create = create_command(&bench.image, bench.stage()?, &bench.work, disk, &more)?;
        shell("sync", &[])?;
        let start = Instant::now();
        let said = output(&mut create)?;
        let whole = start.elapsed().as_secs_f64();
        let copy = seconds(&said, " of it data, in ")?;
        let machine = seconds(&said, "the helper VM ended with SUCCESS after ")?;
        // The rest of the copy in the disk's cache.
        let flush = seconds(&said, "the disk was flushed in ")?;
        times.push((whole - copy - machine - flush, whole));
    }
    times.sort_by(|one, two| one.0.total_cmp(&two.0));
    let (rest, whole) = times[ROUNDS / 2];
    row("create with a stand-in for QEMU", whole, whole);
    row("of it neither copy nor VM", rest, whole);
    goal("milliseconds of it neither copy nor VM", rest * 1e3, 50.0);
    Ok(())
}

/// Says SUCCESS on the second serial line and ends.
const STAND_IN: &str = r#"#!/bin/bash
for argument; do
    case $argument in socket,id=serial1,fd=*) echo SUCCESS >&"${argument##*=}";; esac
done
"#;

/// The number of seconds that the log tells after some words, once or more often.
fn seconds(log: &str, words: &str) -> Result<f64> {
    let numbers = log.split(words).skip(1).map(|rest| rest.split(' ').next()?.parse::<f64>().ok());
    numbers
        .sum::<Option<f64>>()
        .filter(|_| log.contains(words))
        .ok_or_else(|| format!("create did not tell the seconds after {words:?}:\n{log}"))
}
