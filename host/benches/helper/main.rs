//! The milliseconds of the helper VM, step by step. Run by `cargo xtask bench helper`, which prepares what it
//! needs and says where in the environment:
//!
//! - `SNF_BENCH_HELPERS`: `NAME=DIR` pairs with commas between, built helpers by name;
//! - `SNF_BENCH_IMAGE`: the Debian image; `SNF_BENCH_WORK`: an empty directory;
//! - `SNF_BENCH_ORIGINAL`: the stand-in for the original's helper (a directory with `vmlinuz`,
//!   `initrd` and `root.img`), or `none`.
//!
//! Two more for who wants less than all of it:
//!
//! - `SNF_BENCH_ONLY`: only what has this text in its name (`cloud, pc`, `microvm`, `original`);
//! - `SNF_BENCH_ROUNDS`: how often each VM is started, 7 without it.
//!
//! All VMs take turns, so that what else the machine does hits all alike; the best of the rounds
//! counts, the median is beside it. A run counts only if it came to the end that it should have:
//! the firmware alone by the exit code that our instructions give, an init that powers off by the
//! kernel's own last words, a customization by SUCCESS and by what is on the disk afterwards. One
//! that did not is reported with its error, and the bench ends with exit code 1.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod check;
mod machines;
mod original;
mod report;
mod tiny;
mod variants;

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use snf_image::prepare::prepare;
use snf_image::random::{Clock, Entropy};
use snf_image::rules::Rules;

use original::Original;

const ROUNDS: usize = 7;
/// The original's way takes long enough to be measured in fewer rounds.
const ORIGINAL_ROUNDS: usize = 3;
/// The guest's new host name.
const HOSTNAME: &str = "bench.example.test";
/// Its new message of the day.
const MOTD: &str = "Deployed by snf-image.\n";
/// The disk of the instance, in bytes.
const DISK_SIZE: u64 = 4 << 30;
const MIB: u64 = 1 << 20;

/// Errors are sentences.
type Result<T> = std::result::Result<T, String>;

/// Says what was being done when something failed.
fn during<E: std::fmt::Display>(action: impl Into<String>) -> impl FnOnce(E) -> String {
    let action = action.into();
    move |error| format!("cannot {action}: {error}")
}

/// Shared by everything here.
struct Place {
    /// A directory for what is made.
    work: PathBuf,
    /// The Debian image; only read.
    image: PathBuf,
    /// The text that names must have, if any.
    only: Option<String>,
}

impl Place {
    fn wants(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| name.contains(only.as_str()))
    }

    /// The path of the disk.
    fn disk_path(&self) -> PathBuf {
        self.work.join("disk.raw")
    }

    /// A fresh disk with the image.
    fn disk(&self) -> Result<File> {
        let path = self.disk_path();
        let copied = Command::new("cp")
            .args(["--sparse=always", "--reflink=auto"])
            .args([&self.image, &path])
            .output()
            .map_err(during("run cp"))?;
        if !copied.status.success() {
            let said = String::from_utf8_lossy(&copied.stderr);
            return Err(format!("cannot copy the image: {}", said.trim()));
        }
        let action = || during(format!("make the disk {}", path.display()));
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(action())?;
        file.set_len(DISK_SIZE).map_err(action())?;
        file.sync_all().map_err(action())?;
        Ok(file)
    }

    /// A disk with nothing on it, for a VM that does not look at it.
    fn empty_disk(&self) -> Result<File> {
        let file = tempfile::tempfile_in(&self.work).map_err(during("make a disk"))?;
        file.set_len(DISK_SIZE).map_err(during("make a disk"))?;
        Ok(file)
    }
}

fn variable(name: &str) -> Result<String> {
    std::env::var(name).map_err(|_| format!("{name} is not set: use cargo xtask bench helper"))
}

fn main() -> ExitCode {
    // `cargo test` builds benches and runs them with --test: nothing to measure then.
    if std::env::args().any(|argument| argument == "--test") {
        return ExitCode::SUCCESS;
    }
    match bench() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench helper: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench() -> Result<()> {
    let place = Place {
        work: variable("SNF_BENCH_WORK")?.into(),
        image: variable("SNF_BENCH_IMAGE")?.into(),
        only: std::env::var("SNF_BENCH_ONLY").ok(),
    };
    let rounds = match std::env::var("SNF_BENCH_ROUNDS") {
        Ok(text) => text
            .parse()
            .ok()
            .filter(|&rounds: &usize| rounds > 0)
            .ok_or_else(|| format!("SNF_BENCH_ROUNDS is {text:?}, not a number from 1"))?,
        Err(_) => ROUNDS,
    };
    fs::set_permissions(&place.work, fs::Permissions::from_mode(0o755))
        .map_err(during(format!("open {} to QEMU's user", place.work.display())))?;
    let mut helpers = Vec::new();
    for pair in variable("SNF_BENCH_HELPERS")?.split(',') {
        let (name, directory) = pair
            .split_once('=')
            .ok_or_else(|| format!("SNF_BENCH_HELPERS has {pair:?} where NAME=DIR is wanted"))?;
        helpers.push((name.to_owned(), PathBuf::from(directory)));
    }
    let mut variants = Vec::new();
    for (name, directory) in &helpers {
        variants.extend(machines::variants(&place, name, directory)?);
    }
    let mut original = match variable("SNF_BENCH_ORIGINAL")?.as_str() {
        "none" => None,
        _ if !place.wants(original::NAME) => None,
        directory => Some(Original::new(&place, Path::new(directory))?),
    };
    if variants.is_empty() && original.is_none() {
        let only = place.only.as_deref().unwrap_or_default();
        return Err(format!("nothing that is measured has {only:?} in its name"));
    }
    for round in 0..rounds {
        println!("round {} of {rounds}", round + 1);
        for variant in &mut variants {
            variant.measure(&place)?;
        }
        if let Some(original) = original.as_mut().filter(|_| round < ORIGINAL_ROUNDS) {
            original.measure(&place)?;
        }
    }
    report::report(&place, &helpers, &variants, original.as_ref())?;
    let failed = variants.iter().filter(|variant| variant.failure.is_some()).count()
        + original.iter().filter(|original| original.failure.is_some()).count();
    match failed {
        0 => Ok(()),
        _ => Err(format!("{failed} of the VMs did not do what they should have; see above")),
    }
}

/// The best and the median of some seconds.
fn best_and_median(seconds: impl Iterator<Item = f64>) -> Option<(f64, f64)> {
    let mut sorted: Vec<f64> = seconds.collect();
    sorted.sort_by(f64::total_cmp);
    Some((*sorted.first()?, *sorted.get(sorted.len() / 2)?))
}

/// The parameter disk for a full customization, with what the host prepares, and the seconds that
/// preparing took.
fn parameters() -> Result<(File, f64)> {
    let mut rules = Rules::default();
    let contents = "RGVwbG95ZWQgYnkgc25mLWltYWdlLgo=";
    let personality = format!(r#"[{{"path":"/etc/motd","contents":"{contents}","mode":420}}]"#);
    let key =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ2bLbRL0fQkzq3o3TRgEZHJqUGzUMfhC5e0LhbHnVqS x\n";
    for (name, value) in [
        ("TYPE", "diskdump"),
        ("HOSTNAME", HOSTNAME),
        ("PASSWD", "bench"),
        ("PROPERTIES", r#"{"OSFAMILY":"linux","ROOT_PARTITION":"2","USERS":"root"}"#),
        ("AUTH_KEYS", key),
        ("NIC_COUNT", "0"),
        ("PERSONALITY", &personality),
    ] {
        rules.set(name, value).map_err(during("write the rules"))?;
    }
    rules.set_array("DEV", ["/dev/vda"]).map_err(during("write the rules"))?;
    let entropy = Entropy::from_os().map_err(during("read entropy"))?;
    let mut plan = rules.plan().map_err(during("read the rules"))?;
    let started = Instant::now();
    snf_image::passwords::hash(&mut plan, &entropy).map_err(during("hash the password"))?;
    let prepared = prepare(&plan, HOSTNAME, &entropy);
    let seconds = started.elapsed().as_secs_f64();
    for (_, password) in &plan.passwords {
        if let snf_image::plan::Password::Hashes(hashes) = password {
            rules.set_hashes(hashes).map_err(during("write the rules"))?;
        }
    }
    prepared.write(&mut rules).map_err(during("write the rules"))?;
    let text = rules.write();
    let now = Clock::system().now();
    let disk = snf_image_host::helper::floppy::build(&[("rules", text.expose())], now, [7; 16])
        .map_err(during("make the parameter disk"))?;
    Ok((disk, seconds))
}
