//! The report that is printed in the end.

use std::fs;
use std::path::{Path, PathBuf};

use crate::original::{self, Original, OriginalRun};
use crate::variants::{Kind, Run, Variant};
use crate::{MIB, Place, Result, best_and_median, during, machines, parameters};

/// Full runs may take this many times as long as an init that powers off at once.
const OVER_OFF: f64 = 1.15;
/// And at most this part of the original's way.
const OF_ORIGINAL: f64 = 0.125;
/// The initramfs, in MiB.
const INITRAMFS: f64 = 3.0;
/// Memory that must be enough for the guest, in MiB.
const MEMORY: u32 = 96;

/// Prints everything.
pub(crate) fn report(
    place: &Place,
    helpers: &[(String, PathBuf)],
    variants: &[Variant],
    original: Option<&Original>,
) -> Result<()> {
    totals(variants, original);
    floors(variants);
    for variant in variants.iter().filter(|variant| variant.kind == Kind::Full) {
        let Some(run) = variant.best() else { continue };
        let (name, time, resident) = (&variant.name, run.end(), run.resident >> 10);
        println!("\n{name}, its best run: {time:.0} ms, QEMU resident {resident} MiB");
        print_steps(&steps(run, firmware(variants, variant)));
    }
    for variant in variants.iter().filter(|variant| variant.kind == Kind::Snapshot) {
        let Some(run) = variant.best() else { continue };
        let (name, time, resident) = (&variant.name, run.end(), run.resident >> 10);
        println!("\n{name}, its best run: {time:.0} ms, QEMU resident {resident} MiB");
        let (hello, last) = (run.hello.unwrap_or_default(), run.last.unwrap_or_default());
        print_steps(&[
            ("QEMU's start, loading".to_owned(), hello),
            ("modules of disks, worker, tasks, commit, power-off".to_owned(), last - hello),
            ("QEMU's end".to_owned(), run.end() - last),
        ]);
    }
    if let Some(run) = original.and_then(Original::best) {
        println!("\n{}, its best run: {:.0} ms", original::NAME, run.seconds * 1000.0);
        print_steps(&original_steps(run));
    }
    println!("\nour aims");
    for (name, directory) in helpers {
        helper_goals(place, name, directory, variants)?;
    }
    match original {
        Some(original) => original_goals(variants, original),
        None => Ok(()),
    }
}

/// Measures of another kind on the same machine.
fn sibling<'a>(variants: &'a [Variant], machine: &str, kind: Kind) -> Option<&'a Variant> {
    let name = format!("{machine}, {}", kind.name());
    variants.iter().find(|variant| variant.name == name)
}

/// When the kernel's first instruction was reached on a variant's machine.
fn firmware(variants: &[Variant], variant: &Variant) -> Option<f64> {
    let (machine, _) = variant.name.rsplit_once(", ")?;
    sibling(variants, machine, Kind::Firmware)?.best()?.first
}

/// The time of the inits that only power off.
fn floors(variants: &[Variant]) {
    let off = variants.iter().filter(|variant| variant.kind == Kind::Off);
    let rows: Vec<_> = off
        .filter_map(|variant| {
            let (run, firmware) = (variant.best()?, firmware(variants, variant)?);
            let last = run.last?;
            Some((&variant.name, firmware, last - firmware, run.end() - last))
        })
        .collect();
    if rows.is_empty() {
        return;
    }
    println!(
        "\n{:<37} {:>9} {:>9} {:>9}",
        "an init that powers off, best run, ms", "firmware", "kernel", "QEMU end"
    );
    for (name, firmware, kernel, end) in rows {
        println!("{name:<37} {firmware:>9.0} {kernel:>9.0} {end:>9.0}");
    }
    if variants.iter().any(|variant| variant.name.contains("microvm")) {
        println!("{}", machines::NO_MICROVM);
    }
}

/// The goals of a helper, on the machine that we start.
fn helper_goals(place: &Place, name: &str, directory: &Path, variants: &[Variant]) -> Result<()> {
    let machine = format!("{name}, pc");
    let of = |kind| sibling(variants, &machine, kind);
    let seconds = |kind| of(kind).and_then(Variant::best).map(|run| run.seconds);
    for kind in [Kind::Snapshot, Kind::Full] {
        if let (Some(full), Some(off)) = (seconds(kind), seconds(Kind::Off)) {
            goal(&format!("{machine}, {} / off", kind.name()), full / off, OVER_OFF);
        }
    }
    let path = machines::file_of(directory, "initramfs")?;
    let size = fs::metadata(&path).map_err(during(format!("read {}", path.display())))?.len();
    goal(&format!("{name}, initramfs in MiB"), size as f64 / MIB as f64, INITRAMFS);
    if let Some(full) = of(Kind::Full).filter(|full| full.failure.is_none()) {
        let verdict = match full.run(place, MEMORY)? {
            Ok(_) => "met".to_owned(),
            Err(error) => format!("MISSED: {error}"),
        };
        println!("  goal: {machine}, full with {MEMORY} MiB of guest memory: {verdict}");
    }
    Ok(())
}

/// Our goals beside the original.
fn original_goals(variants: &[Variant], original: &Original) -> Result<()> {
    let without = original.runs.iter().map(OriginalRun::without_keys);
    let (Some(best), Some((without, _))) = (original.best(), best_and_median(without)) else {
        return Ok(());
    };
    for kind in [Kind::Snapshot, Kind::Full] {
        let ours = sibling(variants, "cloud, pc", kind).and_then(Variant::best);
        let Some(ours) = ours else { continue };
        let name = format!("cloud, pc, {} / the original's way", kind.name());
        goal(&name, ours.seconds / best.seconds, OF_ORIGINAL);
        goal("the same without the original's SSH keys", ours.seconds / without, OF_ORIGINAL);
    }
    let (_, prepared) = parameters()?;
    println!("  (our host makes keys and hashes while it copies the image: {prepared:.2} s today)");
    Ok(())
}

/// The table of whole runs.
fn totals(variants: &[Variant], original: Option<&Original>) {
    println!(
        "\n{:<37} {:>9} {:>9} {:>5} {:>9}",
        "QEMU start to exit, TCG", "best, s", "median", "runs", "/ off"
    );
    for variant in variants {
        let seconds = variant.runs.iter().map(|run| run.seconds);
        let machine = variant.name.rsplit_once(", ").map_or("", |(machine, _)| machine);
        let off = sibling(variants, machine, Kind::Off).filter(|_| variant.kind.customizes());
        let off = off.and_then(Variant::best).map(|run| run.seconds);
        row(&variant.name, seconds, off, variant.failure.as_deref());
    }
    if let Some(original) = original {
        let seconds = original.runs.iter().map(|run| run.seconds);
        row(original::NAME, seconds, None, original.failure.as_deref());
    }
}

fn row(name: &str, seconds: impl Iterator<Item = f64>, off: Option<f64>, failure: Option<&str>) {
    let seconds: Vec<f64> = seconds.collect();
    let runs = seconds.len();
    if let Some((best, median)) = best_and_median(seconds.into_iter()) {
        let ratio = off.map(|off| format!("{:.2}", best / off)).unwrap_or_default();
        println!("{name:<37} {best:>9.3} {median:>9.3} {runs:>5} {ratio:>9}");
    }
    if let Some(failure) = failure {
        println!("{name:<37} FAILED: {failure}");
    }
}

/// The time of a full run, step by step. The VM's own clock says how long its steps took; until the
/// init runs it is not to be trusted (it loses ticks), so what comes before is the time at which
/// the host heard the init's first words.
fn steps(run: &Run, firmware: Option<f64>) -> Vec<(String, f64)> {
    let at = |name: &str| run.marks.iter().find(|(what, _)| what == name).map(|(_, time)| *time);
    // The init says hello between mounting and loading modules.
    let (Some(hello), Some(last), Some(mounts), Some(modules), Some((_, off))) =
        (run.hello, run.last, at("mounts"), at("modules"), run.marks.last())
    else {
        return vec![("(without the init's own times)".to_owned(), run.end())];
    };
    let init = hello - (modules - mounts);
    let mut steps = match firmware {
        Some(firmware) => vec![
            ("QEMU's start, firmware".to_owned(), firmware),
            ("kernel, until it starts the init".to_owned(), init - firmware),
        ],
        None => vec![("QEMU's start, firmware, kernel".to_owned(), init)],
    };
    steps.extend(between(&run.marks));
    steps.push(("these times, result, kernel's end".to_owned(), last - init - (off - mounts)));
    steps.push(("QEMU's end".to_owned(), run.end() - last));
    steps
}

fn original_steps(run: &OriginalRun) -> Vec<(String, f64)> {
    let (Some((_, first)), Some((_, last))) = (run.marks.first(), run.marks.last()) else {
        return Vec::new();
    };
    let mut steps = vec![("kernel and initrd, by their clock".to_owned(), *first)];
    steps.extend(between(&run.marks));
    let rest = run.seconds * 1000.0 - last;
    steps.push(("QEMU, firmware, decompression, end".to_owned(), rest));
    steps
}

/// How long what was marked took; what was marked more than once is summed up.
fn between(marks: &[(String, f64)]) -> Vec<(String, f64)> {
    let mut sums: Vec<(String, f64)> = Vec::new();
    for pair in marks.windows(2) {
        let time = pair[1].1 - pair[0].1;
        match sums.iter_mut().find(|(what, _)| *what == pair[0].0) {
            Some((_, sum)) => *sum += time,
            None => sums.push((pair[0].0.clone(), time)),
        }
    }
    sums
}

fn print_steps(steps: &[(String, f64)]) {
    for (what, time) in steps {
        println!("  {what:<36} {time:>8.1} ms");
    }
}

/// A line that compares a figure with the one that we hold ourselves to.
fn goal(what: &str, figure: f64, most: f64) {
    let verdict = if figure <= most { "met" } else { "MISSED" };
    println!("  goal: {what}: {figure:.3}, at most {most:.3}: {verdict}");
}
