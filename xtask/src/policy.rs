//! The rules for the whole build: licences and doubles (`deny.toml`), the oldest compiler, the docs.

use std::path::PathBuf;

use serde_json::Value;

use crate::setup::cache;
use crate::util::{Result, checkout, command, have, output, run, run_visible, step, text};

/// The cargo-deny that `deny.toml` was written for.
const CARGO_DENY: &str = "0.20.2";

/// Licences, crates that may not come in, crates in two versions, and where they come from.
///
/// Known faults in crates are not looked up: their database is no package of a registry.
/// `cargo deny check advisories` does it where it can be fetched.
pub fn deny() -> Result<()> {
    let program = cargo_deny()?;
    step("checking licences, doubles and sources (cargo deny)", || {
        run(command(&text(&program), ["--workspace", "check", "bans", "licenses", "sources"])
            .current_dir(checkout()))
    })
}

/// The program, built once into the cache.
fn cargo_deny() -> Result<PathBuf> {
    let root = cache()?.join("tools").join(format!("cargo-deny-{CARGO_DENY}"));
    let program = root.join("bin/cargo-deny");
    if !program.is_file() {
        // Without optimisation it builds in half the time, and its work here takes a second.
        step("building cargo-deny (once, some minutes)", || {
            run(command(
                env!("CARGO"),
                ["install", "--quiet", "--debug", "--locked", "cargo-deny", "--version"],
            )
            .args([CARGO_DENY, "--root", &text(&root)])
            .env_remove("CARGO_TARGET_DIR"))
        })?;
    }
    Ok(program)
}

/// The compiler that `rust-version` names builds everything, where it is installed. Clippy refuses
/// newer parts of the standard library in any case (`incompatible_msrv`), and no dependency asks for
/// a newer compiler.
pub fn oldest_compiler() -> Result<()> {
    let metadata = output(
        command(env!("CARGO"), ["metadata", "--format-version", "1"]).current_dir(checkout()),
    )?;
    let metadata: Value = serde_json::from_str(&metadata)
        .map_err(|error| format!("cargo metadata is no JSON: {error}"))?;
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    let wanted = |package: &Value| package["rust_version"].as_str().map(str::to_owned);
    let oldest = packages
        .iter()
        .find(|package| package["name"] == "snf-image")
        .and_then(wanted)
        .ok_or("the package snf-image has no rust-version")?;
    let newer: Vec<String> = packages
        .iter()
        .filter(|package| wanted(package).is_some_and(|version| number(&version) > number(&oldest)))
        .map(|package| format!("{} {}", package["name"], package["version"]))
        .collect();
    if !newer.is_empty() {
        return Err(format!("these need a compiler newer than {oldest}: {}", newer.join(", ")));
    }
    let installed = have("rustup")
        && output(&mut command("rustup", ["toolchain", "list"]))
            .is_ok_and(|list| list.lines().any(|line| line.starts_with(&oldest)));
    if !installed {
        eprintln!(
            "  note: no Rust {oldest} (the oldest that is meant to build this) is installed: only the \
             dependencies' own words and clippy's were checked"
        );
        return Ok(());
    }
    step(&format!("building with the oldest compiler, Rust {oldest}"), || {
        run_visible(
            command("rustup", ["run", &oldest, "cargo", "check", "--quiet", "--workspace"])
                .args(["--target-dir", "target/oldest"])
                .env_remove("RUSTUP_TOOLCHAIN")
                .current_dir(checkout()),
        )
    })
}

/// Major and minor number of a version like `1.88` or `1.88.0`.
fn number(version: &str) -> (u32, u32) {
    let mut parts = version.split('.').map(|part| part.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// The documentation of the API builds without a warning.
pub fn docs() -> Result<()> {
    step("building the API's documentation (cargo doc)", || {
        run_visible(
            command(env!("CARGO"), ["doc", "--quiet", "--workspace", "--no-deps"])
                .env("RUSTDOCFLAGS", "-D warnings")
                .current_dir(checkout()),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn versions() {
        assert!(number("1.88") == number("1.88.1") && number("1.100.0") > number("1.88"));
    }
}
