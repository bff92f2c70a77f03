//! `cargo xtask`: what a developer runs.

mod bench;
mod deb;
mod debian;
mod demo;
mod errors;
mod fuzz;
mod ganeti;
mod layers;
mod layouts;
mod linked;
mod policy;
mod publish;
mod setup;
mod smoke;
mod stage;
mod test;
mod util;

use std::process::ExitCode;

use util::{Result, command};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  demo    build all, deploy a real Debian image through `create`, customize another offline
  test    run every test (installs what they need)
          --quick: those that need no root, no virtual machine and no Debian tree
  fuzz    --hours N: the fuzzers for N hours; what they learn is kept in the cache
  bench   measure against other tools, in one run; TOPIC... for a part of it:
          customize, create, copy, helper, ext, ntfs
  stage   only build, and lay out as an installed system would have it (target/stage)
  deb     a Debian package of it all (in the target directory)
  ganeti  the OS provider under a real one-node Ganeti cluster; PACKAGE: one that `deb` has made
  setup   only install what the tests need and build the Debian images

All but test --quick needs root: as an ordinary user the commands run themselves through sudo.
Slow things are kept in $SNF_IMAGE_CACHE (default /var/cache/snf-image).";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let names: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let action: Box<dyn FnOnce() -> Result<()>> = match names.as_slice() {
        ["test"] => Box::new(test::test),
        ["fuzz", "--hours", hours] => Box::new(|| fuzz::fuzz(hours)),
        ["test", "--quick"] => Box::new(test::quick),
        ["demo"] => Box::new(demo::demo),
        ["bench", topics @ ..] => Box::new(|| bench::bench(topics)),
        ["stage"] => Box::new(|| stage::stage().map(|stage| println!("{}", stage.root.display()))),
        ["deb"] => Box::new(|| deb::deb().map(|package| println!("{}", package.display()))),
        ["ganeti", package @ ..] if package.len() < 2 => {
            let package = package.first().map(std::path::PathBuf::from);
            Box::new(move || ganeti::ganeti(package))
        }
        ["setup"] => Box::new(|| setup().and_then(|_| ganeti::prepare())),
        ["help" | "-h" | "--help"] => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    };
    let needs_root = !matches!(names.as_slice(), ["test", "--quick"]);
    let result = match needs_root && !rustix::process::geteuid().is_root() {
        true => through_sudo(&names),
        false => action(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Loop mounts, QEMU as another user and apt need root. The person's own toolchain is used, and
/// a target directory of its own keeps files of root out of theirs.
fn through_sudo(arguments: &[&str]) -> Result<()> {
    let this = std::env::current_exe().map_err(|e| format!("cannot find xtask itself: {e}"))?;
    let mut all = vec!["env".to_owned()];
    for name in ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "SNF_IMAGE_CACHE"] {
        if let Ok(value) = std::env::var(name) {
            all.push(format!("{name}={value}"));
        }
    }
    all.push(format!("CARGO_TARGET_DIR={}", util::checkout().join("target/root").display()));
    all.push(util::text(&this));
    all.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    util::run_visible(command("sudo", all).stdin(std::process::Stdio::inherit()))
}

/// Packages, kernels, images.
fn setup() -> Result<std::path::PathBuf> {
    setup::packages()?;
    setup::static_target()?;
    setup::kernel("cloud-amd64")?;
    setup::kernel("amd64")?;
    setup::kernel("6.12-cloud-amd64")?;
    for release in ["bullseye", "trixie"] {
        setup::kernel_of(release, "cloud-amd64")?;
        setup::kernel_of(release, "amd64")?;
    }
    setup::hives()?;
    setup::guest_tools()?;
    layouts::lvm("bookworm")?;
    layouts::logical_swap("bookworm")?;
    debian::image("bookworm")
}
