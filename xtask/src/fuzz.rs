//! `cargo xtask fuzz --hours N`: the fuzzers for a night. What they learn and what they find is kept in the
//! cache, outside the checkout, so that the next night goes on from there.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::setup::cache;
use crate::util::{Result, checkout, command, have, output, run_visible, step, text};

/// Test binaries with a stable harness: package and name. They share the time by themselves.
const HARNESSES: &[(&str, &str)] = &[
    ("snf-fs", "fuzz_ext"),
    ("snf-fs", "fuzz_ntfs"),
    ("snf-partition", "hostile"),
    ("snf-container", "all"),
    ("snf-volume", "fuzz_volume"),
    ("snf-image", "fuzz_hives"),
    ("snf-image", "fuzz_texts"),
    ("snf-image-host", "fuzz_helper"),
];

/// Runs for `hours`: half the time the stable harnesses with damage of a new seed, half the targets of
/// cargo-fuzz. Without a nightly toolchain or cargo-fuzz the harnesses have all of it, and that is
/// said.
pub fn fuzz(hours: &str) -> Result<()> {
    let hours: f64 = hours
        .parse()
        .ok()
        .filter(|hours| (0.01..=1000.0).contains(hours))
        .ok_or(format!("--hours is '{hours}', which is no number from 0.01 to 1000"))?;
    crate::setup::packages()?;
    let seconds = hours * 3600.0;
    let guided = have("cargo-fuzz") && nightly();
    let stable = if guided { seconds / 2.0 } else { seconds };
    if !guided {
        eprintln!(
            "  note: no cargo-fuzz or no nightly toolchain (cargo install cargo-fuzz --locked): only the \
             stable harnesses run"
        );
    }
    harnesses(stable)?;
    if guided { targets(seconds / 2.0) } else { Ok(()) }
}

fn nightly() -> bool {
    output(&mut command("rustup", ["toolchain", "list"]))
        .is_ok_and(|list| list.lines().any(|line| line.starts_with("nightly")))
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
    step("inputs to start from", || {
        run_visible(
            command(env!("CARGO"), ["run", "--release", "--example", "seeds", "--"])
                .arg(place.join("corpus"))
                .current_dir(&fuzz),
        )
    })?;
    // One target's finding does not keep the others from running.
    let mut found = Vec::new();
    for name in &names {
        let corpus = place.join("corpus").join(name);
        let artifacts = place.join("artifacts").join(name);
        for dir in [&corpus, &artifacts] {
            fs::create_dir_all(dir)
                .map_err(|error| format!("cannot make {}: {error}", dir.display()))?;
        }
        let run = step(&format!("the target {name}"), || {
            run_visible(
                command("cargo", ["+nightly", "fuzz", "run", "-s", "none", name, &text(&corpus)])
                    .args(["--", &format!("-max_total_time={each:.0}")])
                    .arg(format!("-artifact_prefix={}/", artifacts.display()))
                    // Cargo sets these for us; the other toolchain must not inherit them.
                    .env_remove("RUSTUP_TOOLCHAIN")
                    .env_remove("CARGO")
                    .current_dir(&fuzz),
            )
        });
        if run.is_err() {
            found.push(format!("{name} ({})", artifacts.display()));
        }
    }
    if found.is_empty() { Ok(()) } else { Err(format!("found something: {}", found.join(", "))) }
}
