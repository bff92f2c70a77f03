//! Running commands, and saying what is being done and how long it took.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// An error is one sentence for the person at the terminal.
pub type Result<T> = std::result::Result<T, String>;

/// A command with arguments.
pub fn command<I, S>(program: &str, arguments: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null());
    command
}

fn describe(command: &Command) -> String {
    let mut text = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        let _ = write!(text, " {}", argument.to_string_lossy());
    }
    text
}

/// Runs a command whose output nobody needs unless it fails.
pub fn run(command: &mut Command) -> Result<()> {
    output(command).map(|_| ())
}

/// Runs a command and returns its standard output; on failure the error has the last lines of
/// what it said.
pub fn output(command: &mut Command) -> Result<String> {
    let result = command
        .output()
        .map_err(|error| format!("cannot start `{}`: {error}", describe(command)))?;
    if result.status.success() {
        return Ok(String::from_utf8_lossy(&result.stdout).into_owned());
    }
    let mut said = String::from_utf8_lossy(&result.stdout).into_owned();
    said.push_str(&String::from_utf8_lossy(&result.stderr));
    let tail: Vec<&str> = said.lines().rev().take(15).collect();
    let tail: Vec<&str> = tail.into_iter().rev().collect();
    Err(format!("`{}` failed ({}):\n{}", describe(command), result.status, tail.join("\n")))
}

/// Runs a command that talks to the person itself.
pub fn run_visible(command: &mut Command) -> Result<()> {
    let status = command
        .status()
        .map_err(|error| format!("cannot start `{}`: {error}", describe(command)))?;
    if status.success() {
        return Ok(());
    }
    Err(format!("`{}` failed ({status})", describe(command)))
}

/// Runs a shell script under `set -eu` with positional arguments.
pub fn shell(script: &str, arguments: &[&str]) -> Result<String> {
    let script = format!("set -eu\n{script}");
    let mut all = vec!["-c", &script, "sh"];
    all.extend(arguments);
    output(&mut command("sh", all)).map_err(|error| {
        // The script itself is long and in the source; what it said is what matters.
        let said = error.split_once("failed (").map_or(error.as_str(), |(_, rest)| rest);
        format!("set-up script failed ({said}")
    })
}

/// Steps that are done, and how long each took.
static DONE: Mutex<Vec<(String, Duration)>> = Mutex::new(Vec::new());

/// Does one step and says how long it took, now and in [`print_times`].
pub fn step<T>(what: &str, action: impl FnOnce() -> Result<T>) -> Result<T> {
    eprintln!("  .. {what}");
    let start = Instant::now();
    let result = action();
    let took = start.elapsed();
    let end = if result.is_ok() { "ok" } else { "FAILED" };
    eprintln!("  {end} {what} ({:.1} s)", took.as_secs_f64());
    if let Ok(mut done) = DONE.lock() {
        done.push((what.to_owned(), took));
    }
    result
}

/// Prints what each step took, and the time since `start`. (A step may be part of another one.)
pub fn print_times(start: Instant) {
    let Ok(done) = DONE.lock() else { return };
    eprintln!("\n  time of each stage:");
    for (what, took) in done.iter() {
        eprintln!("  {:>8.1} s  {what}", took.as_secs_f64());
    }
    eprintln!("  {:>8.1} s  in all", start.elapsed().as_secs_f64());
}

/// Whether a program is on the PATH.
pub fn have(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(Into::into))
        .any(|directory| directory.join(program).is_file())
}

/// A path as text for an argument list.
pub fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// The directory of the checkout.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_path_buf)
}

/// The folder in which cargo builds: relative to the checkout, or absolute.
pub fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from)
}
