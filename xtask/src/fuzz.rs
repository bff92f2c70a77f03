//! `cargo xtask fuzz --hours N`: the fuzzers for a night. Their corpus and their findings are kept in the
//! cache, outside the checkout, so that the next night goes on from there.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::setup::cache;
use crate::util::{Result, checkout, command, run_visible, step, text};

/// Test binaries with a stable harness: package and name. They share the time by themselves.
const HARNESSES: &[(&str, &str)] = &[
    ("snf-fs", "fuzz_ext"),
    ("snf-fs", "fuzz_ntfs"),
    ("snf-fs", "fuzz_others"),
    ("snf-partition", "hostile"),
    ("snf-container", "all"),
    ("snf-volume", "fuzz_volume"),
    ("snf-image", "fuzz_hives"),
    ("snf-image", "fuzz_texts"),
    ("snf-image-host", "fuzz_helper"),
];

/// The coverage that libFuzzer steers by, from the compiler of the project: only sanitizers would need
/// a nightly one, and these crates are Rust without unsafe code.
const COVERAGE: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];

/// Runs for `hours`: half the time the stable harnesses with damage of a new seed, half the targets of
/// `fuzz/`, which libFuzzer guides.
pub fn fuzz(hours: &str) -> Result<()> {
    let hours: f64 = hours
        .parse()
        .ok()
        .filter(|hours| (0.01..=1000.0).contains(hours))
        .ok_or(format!("--hours is '{hours}', which is no number from 0.01 to 1000"))?;
    crate::setup::packages()?;
    let seconds = hours * 3600.0;
    // One half's finding does not keep the other from running.
    let harnesses = harnesses(seconds / 2.0);
    targets(seconds / 2.0)?;
    harnesses
}

fn harnesses(seconds: f64) -> Result<()> {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_secs());
    for (package, test) in HARNESSES {
        step(&format!("{test} with seed {seed}"), || {
            run_visible(
                command(env!("CARGO"), ["test", "--release", "-p", package, "--test", test])
                    .args(["--", "--nocapture"])
                    .env("SNF_FUZZ_SECONDS", format!("{seconds:.0}"))
                    .env("SNF_FUZZ_SEED", seed.to_string())
                    // Numbers that overflow are a finding.
                    .env("CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS", "true")
                    .env("CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS", "true")
                    .args(["--target-dir", "target/fuzz"])
                    .current_dir(checkout()),
            )
        })?;
    }
    Ok(())
}

/// The machine that targets are built for.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// Every target of `fuzz/`, each for the same time.
fn targets(seconds: f64) -> Result<()> {
    let place = cache()?.join("fuzz");
    let fuzz = checkout().join("fuzz");
    let entries = fs::read_dir(fuzz.join("fuzz_targets"))
        .map_err(|error| format!("cannot list the targets: {error}"))?;
    let mut names: Vec<String> = entries
        .filter_map(|entry| Some(entry.ok()?.path().file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort_unstable();
    let each = (seconds / names.len().max(1) as f64).max(1.0);
    let built = checkout().join("target/guided");
    let cargo = |what: &[&str]| {
        let mut cargo = command(env!("CARGO"), what);
        // With a target named, build scripts and macros stay as they are.
        cargo.args(["--release", "--target", TRIPLE, "--target-dir", &text(&built)]);
        cargo.current_dir(&fuzz);
        cargo
    };
    step("inputs to start from", || {
        let mut seeds = cargo(&["run", "--example", "seeds"]);
        run_visible(seeds.arg("--").arg(place.join("corpus")))
    })?;
    step("the targets", || {
        let mut build = cargo(&["build", "--bins"]);
        run_visible(build.env("RUSTFLAGS", COVERAGE.join(" ")))
    })?;
    let mut found = Vec::new();
    for name in &names {
        let corpus = place.join("corpus").join(name);
        let artifacts = place.join("artifacts").join(name);
        for dir in [&corpus, &artifacts] {
            fs::create_dir_all(dir)
                .map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        }
        let program = built.join(TRIPLE).join("release").join(name);
        let run = step(&format!("the target {name}"), || {
            run_visible(
                command(&text(&program), [&corpus])
                    .arg(format!("-max_total_time={each:.0}"))
                    .arg(format!("-artifact_prefix={}/", artifacts.display()))
                    // The harness has limits of its own, which name what they found.
                    .args(["-timeout=120", "-rss_limit_mb=4096", "-print_final_stats=1"])
                    .current_dir(&fuzz),
            )
        });
        if run.is_err() {
            found.push(format!("{name} ({})", artifacts.display()));
        }
    }
    if found.is_empty() { Ok(()) } else { Err(format!("found something: {}", found.join(", "))) }
}
