//! `cargo xtask test`: every test there is.

use crate::setup::cache;
use crate::util::{Result, command, run_visible, step, text};

/// Seconds that the fuzz harnesses in `cargo test` run for, all together: they share it out.
const FUZZ_SECONDS: &str = "120";

/// Installs what is needed, builds, checks style, runs unit, oracle and end-to-end tests.
pub fn test() -> Result<()> {
    let image = crate::setup()?;
    step("checking the format (cargo fmt)", || {
        run_visible(&mut command(env!("CARGO"), ["fmt", "--all", "--check"]))
    })?;
    step("checking for lints (cargo clippy)", || {
        run_visible(&mut command(
            env!("CARGO"),
            ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"],
        ))
    })?;
    crate::publish::publish()?;
    // A crate by itself, so that no build needs libFuzzer; that it still fits is seen here.
    step("checking the targets of cargo-fuzz", || {
        run_visible(
            command(env!("CARGO"), ["clippy", "--quiet", "--all-targets", "--locked"])
                .args(["--manifest-path", "fuzz/Cargo.toml", "--target-dir", "target/fuzz"])
                .args(["--", "-D", "warnings"]),
        )
    })?;
    let cache = cache()?;
    let stage = crate::stage::stage()?;
    let tests = run_visible(
        command(env!("CARGO"), ["test", "--workspace", "--no-fail-fast"])
            .env("SNF_TEST_CACHE", text(&cache))
            .env("SNF_TEST_DEBIAN", text(&image))
            .env("SNF_TEST_STAGE", text(&stage.root))
            .env(
                "SNF_FUZZ_SECONDS",
                std::env::var("SNF_FUZZ_SECONDS").as_deref().unwrap_or(FUZZ_SECONDS),
            ),
    );
    // Whatever became of them: one run shows all that is wrong.
    let ganeti = crate::deb::pack(&stage).and_then(|package| crate::ganeti::life(&package));
    if let (Err(_), Err(error)) = (&tests, &ganeti) {
        eprintln!("error: {error}");
    }
    tests.and(ganeti)
}
