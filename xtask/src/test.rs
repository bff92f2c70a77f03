//! `cargo xtask test`: every test there is, or with `--quick` those that any machine can run.

use std::time::Instant;

use crate::policy;
use crate::setup::cache;
use crate::util::{Result, checkout, command, print_times, run_visible, step, text};

/// Seconds that the fuzz harnesses in `cargo test` run for, all together: they share it out.
const FUZZ_SECONDS: &str = "120";

/// The tests of a package that `--quick` runs.
struct Quick {
    package: &'static str,
    /// The target of its unit tests.
    units: &'static [&'static str],
    /// Names of tests in `tests/all.rs`; none of them where this is empty.
    integration: &'static [&'static str],
}

/// Tests that need neither root nor a mount, QEMU, a kernel or a Debian tree. A program that is missing
/// (mke2fs, ssh-keygen, openssl, perl, sgdisk) fails the test that asks for it, by name.
const QUICK: &[Quick] = &[
    Quick { package: "snf-partition", units: &["--lib"], integration: &["fresh", "grow", "read"] },
    Quick {
        package: "snf-fs",
        units: &["--lib"],
        integration: &["fat_engine", "map_hostile", "mkfs_ext2", "quota"],
    },
    Quick {
        package: "snf-image",
        units: &["--lib", "--bins"],
        integration: &["atomic", "cli_", "crypt_oracle", "growth", "rules_bash", "sshkey_oracle"],
    },
    Quick { package: "xtask", units: &["--bins"], integration: &[] },
];

/// Format and lints: they need nothing but the toolchain.
fn style() -> Result<()> {
    step("checking the format (cargo fmt)", || {
        run_visible(&mut command(env!("CARGO"), ["fmt", "--all", "--check"]))
    })?;
    step("checking for lints (cargo clippy)", || {
        run_visible(&mut command(
            env!("CARGO"),
            ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"],
        ))
    })
}

/// The quick tier. It names the tests that it leaves out at the end, so that nobody takes it for all.
pub fn quick() -> Result<()> {
    let start = Instant::now();
    let result = style().and_then(|()| QUICK.iter().try_for_each(Quick::run));
    print_times(start);
    eprintln!(
        "  not run: tests that mount, boot or need a Debian tree; `cargo xtask test` runs all"
    );
    result
}

impl Quick {
    fn cargo(&self, what: &[&str], names: &[&str]) -> Result<()> {
        run_visible(
            command(env!("CARGO"), ["test", "--quiet", "-p", self.package])
                .args(what)
                .arg("--")
                .args(names)
                .current_dir(checkout()),
        )
    }

    fn run(&self) -> Result<()> {
        let package = self.package;
        let integration: &[&str] = match self.integration {
            [] => &[],
            _ => &["--test", "all"],
        };
        step(&format!("building the tests of {package}"), || {
            self.cargo(&[self.units, integration, &["--no-run"]].concat(), &[])
        })?;
        step(&format!("unit tests of {package}"), || self.cargo(self.units, &[]))?;
        if integration.is_empty() {
            return Ok(());
        }
        step(&format!("quick integration tests of {package}"), || {
            self.cargo(integration, self.integration)
        })
    }
}

/// Installs what is needed, builds, checks style, runs unit, oracle and end-to-end tests.
pub fn test() -> Result<()> {
    let start = Instant::now();
    let result = all();
    print_times(start);
    result
}

fn all() -> Result<()> {
    let image = crate::setup()?;
    style()?;
    policy::oldest_compiler()?;
    policy::deny()?;
    policy::docs()?;
    crate::publish::publish()?;
    // A crate by itself, so that no build needs libFuzzer; that it still fits is seen here.
    step("checking the targets of cargo-fuzz", || {
        run_visible(
            command(env!("CARGO"), ["clippy", "--quiet", "--all-targets", "--locked"])
                .args(["--manifest-path", "fuzz/Cargo.toml", "--target-dir", "target/fuzz"])
                .args(["--", "-D", "warnings"]),
        )
    })?;
    // By itself, too: crates that nothing else needs.
    step("reading with readers of other authors", || {
        run_visible(command(env!("CARGO"), ["test", "--quiet", "--locked"]).args([
            "--manifest-path",
            "readers/Cargo.toml",
            "--target-dir",
            "target/readers",
        ]))
    })?;
    let cache = cache()?;
    let stage = crate::stage::stage()?;
    step("running each command of the release build", || crate::smoke::smoke(&stage, &image))?;
    let test = |arguments: &[&str]| {
        let mut test = command(env!("CARGO"), ["test", "--workspace", "--no-fail-fast"]);
        test.args(arguments)
            .env("SNF_TEST_CACHE", text(&cache))
            .env("SNF_TEST_DEBIAN", text(&image))
            .env("SNF_TEST_STAGE", text(&stage.root))
            .env(
                "SNF_FUZZ_SECONDS",
                std::env::var("SNF_FUZZ_SECONDS").as_deref().unwrap_or(FUZZ_SECONDS),
            );
        test
    };
    step("building all tests", || run_visible(&mut test(&["--no-run", "--quiet"])))?;
    let tests = step("running all tests", || run_visible(&mut test(&[])));
    // Even after a failure: one run shows all that is wrong.
    let ganeti = crate::deb::pack(&stage).and_then(|package| {
        step("the life of instances in Ganeti", || crate::ganeti::life(&package))
    });
    if let (Err(_), Err(error)) = (&tests, &ganeti) {
        eprintln!("error: {error}");
    }
    tests.and(ganeti)
}
