//! `cargo xtask bench [TOPIC...]`: our times beside those of the tools people use today, in one run on
//! one machine. Ratios are what counts. A topic is a file beside this one.

mod copy;
mod create;
mod customize;
mod disks;
mod ext;
mod helper;
mod ntfs;

use std::cell::OnceCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::stage::{Stage, stage};
use crate::util::{Result, shell, text};

/// How often each thing is timed; the median counts.
const ROUNDS: usize = 5;

/// A topic's measurements.
type Topic = fn(&Bench) -> Result<()>;

/// The topics of `bench TOPIC`, in the order in which `bench` runs all of them.
const TOPICS: &[(&str, Topic)] = &[
    ("customize", customize::bench),
    ("disks", disks::bench),
    ("create", create::bench),
    ("copy", copy::bench),
    ("helper", helper::bench),
    ("ext", ext::bench),
    ("ntfs", ntfs::bench),
];

/// Shared by the topics.
struct Bench {
    /// The 2 GiB Debian image of `cargo xtask setup`: not to be written to.
    image: PathBuf,
    /// An empty directory, gone after the topic.
    work: PathBuf,
    stage: OnceCell<Stage>,
}

/// Measures the topics that are named, all without names.
pub fn bench(names: &[&str]) -> Result<()> {
    let known: Vec<&str> = TOPICS.iter().map(|(name, _)| *name).collect();
    if let Some(name) = names.iter().find(|name| !known.contains(name)) {
        return Err(format!("bench knows no topic `{name}`: it has {}", known.join(", ")));
    }
    let image = crate::setup()?;
    let work = crate::setup::cache()?.join("bench");
    let mut bench = Bench { image, work, stage: OnceCell::new() };
    println!("{}", machine());
    for (name, topic) in TOPICS {
        if names.is_empty() || names.contains(name) {
            bench.empty_work()?;
            let result = topic(&bench);
            let _ = fs::remove_dir_all(&bench.work);
            result?;
        }
    }
    Ok(())
}

impl Bench {
    fn empty_work(&mut self) -> Result<()> {
        let _ = fs::remove_dir_all(&self.work);
        fs::create_dir_all(&self.work)
            .map_err(|e| format!("cannot make {}: {e}", self.work.display()))
    }

    /// All of it built and laid out, when first asked for.
    fn stage(&self) -> Result<&Stage> {
        if let Some(stage) = self.stage.get() {
            return Ok(stage);
        }
        let made = stage()?;
        Ok(self.stage.get_or_init(|| made))
    }

    /// A path in the work directory.
    fn path(&self, name: &str) -> String {
        text(&self.work.join(name))
    }

    /// A file in the work directory.
    fn file(&self, name: &str, content: &str) -> Result<String> {
        let path = self.path(name);
        fs::write(&path, content).map_err(|e| format!("cannot write {path}: {e}"))?;
        Ok(path)
    }
}

/// The line that says where the figures come from.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let models: Vec<&str> = cpus.lines().filter(|line| line.starts_with("model name")).collect();
    let model = models.first().and_then(|line| line.split_once(": ")).map_or("?", |(_, name)| name);
    let load = read("/proc/loadavg");
    format!(
        "\n{} x {model}, Linux {}, load {}",
        models.len(),
        read("/proc/sys/kernel/osrelease").trim(),
        load.split(' ').next().unwrap_or("?")
    )
}

/// The head of a table.
fn head(what: &str) {
    println!("\n{:<58} {:>9} {:>7}", format!("{what} (median of {ROUNDS})"), "seconds", "ratio");
}

/// A line of a table: seconds, and how many times as long as `base`.
fn row(what: &str, seconds: f64, base: f64) {
    println!("{what:<58} {seconds:>9.4} {:>7.2}", seconds / base);
}

/// One of several ways to do the same thing, with what was prepared for it.
type Turn<'a, T> = &'a mut dyn FnMut(&T) -> Result<()>;

/// The medians of the seconds of several ways to do the same thing, each after `prepare`. They take
/// turns, so that what else the machine does meets all of them, and another one begins each round: a
/// storage that still digests what the one before wrote meets all of them, too. `after` sees,
/// untimed, what each left: it gets the numbers of the round and of the way.
fn take_turns<T>(
    prepare: &dyn Fn() -> Result<T>,
    ways: &mut [Turn<'_, T>],
    after: &dyn Fn(usize, usize, &T) -> Result<()>,
) -> Result<Vec<f64>> {
    let mut times = vec![Vec::new(); ways.len()];
    for round in 0..ROUNDS {
        for turn in 0..ways.len() {
            let number = (round + turn) % ways.len();
            let way = &mut ways[number];
            let prepared = prepare()?;
            let start = Instant::now();
            way(&prepared)?;
            times[number].push(start.elapsed().as_secs_f64());
            after(round, number, &prepared)?;
        }
    }
    let median = |mut times: Vec<f64>| {
        times.sort_by(f64::total_cmp);
        times[ROUNDS / 2]
    };
    Ok(times.into_iter().map(median).collect())
}

/// One of several ways to do the same thing.
type Way<'a> = &'a mut dyn FnMut() -> Result<()>;

/// The medians of several ways for which nothing but their time counts.
fn medians<const N: usize>(
    prepare: &dyn Fn() -> Result<()>,
    ways: [Way<'_>; N],
) -> Result<[f64; N]> {
    let mut ways = ways.map(|way| move |(): &()| way());
    let mut turns = ways.each_mut().map(|way| way as Turn<'_, ()>);
    let times = take_turns(prepare, &mut turns, &|_, _, ()| Ok(()))?;
    times.try_into().map_err(|_| "a way has no time".to_owned())
}

/// The median of one way alone.
fn median(prepare: &dyn Fn() -> Result<()>, mut way: impl FnMut() -> Result<()>) -> Result<f64> {
    medians(prepare, [&mut way]).map(|[seconds]| seconds)
}

/// A line that compares a ratio with the figure that we hold ourselves to.
fn goal(what: &str, ratio: f64, most: f64) {
    let verdict = if ratio <= most { "met" } else { "MISSED" };
    println!("  goal: {what}: {ratio:.2}, at most {most:.2}: {verdict}");
}

/// A fresh copy of an image, on the disk.
fn copy_image(from: &Path, to: &str) -> Result<()> {
    shell("cp --sparse=always --reflink=auto \"$1\" \"$2\"; sync \"$2\"", &[&text(from), to])
        .map(|_| ())
}
