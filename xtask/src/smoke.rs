//! Each command of the release build, once. The tests run a build for development: clap checks the
//! options there in another way, so a command can fail in the one and work in the other.

use std::path::Path;

use crate::stage::Stage;
use crate::util::{Result, command, output, text};

/// The commands that read, on a real image: `IMAGE` stands for its path.
const COMMANDS: &[&[&str]] = &[
    &["--help"],
    &["--version"],
    &["--list-tasks"],
    &["--plan-schema"],
    &["help"],
    &["completions", "bash"],
    &["inspect", "IMAGE"],
    &["inspect", "IMAGE", "--json"],
    &["check", "IMAGE"],
    &["ls", "IMAGE", "/etc"],
    &["cat", "IMAGE", "/etc/hostname"],
    &["tar-out", "IMAGE", "/etc/ssh", "-"],
    &["df", "IMAGE"],
    &["find", "IMAGE", "/etc/ssh"],
    &["stat", "IMAGE", "/etc/passwd"],
    &["fingerprints", "IMAGE"],
    &["diff", "IMAGE", "IMAGE"],
    &["--list-operations"],
    &["sysprep", "IMAGE", "--dry-run"],
    &["apply", "IMAGE", "--dry-run", "--hostname", "smoke"],
    &["apply", "IMAGE", "--dry-run", "--diff", "--mkdir", "/srv/smoke"],
    &["apply", "IMAGE", "--print-plan", "--hostname", "smoke"],
];

/// The commands that have a page of help.
const PAGES: &[&str] = &[
    "apply",
    "sysprep",
    "deploy",
    "inspect",
    "check",
    "ls",
    "cat",
    "get",
    "tar-out",
    "df",
    "find",
    "stat",
    "fingerprints",
    "diff",
    "completions",
];

/// Runs all of them.
///
/// # Errors
/// One that does not end with 0, with its message.
pub fn smoke(stage: &Stage, image: &Path) -> Result<()> {
    let image = text(image);
    let run = |words: &[&str]| {
        let words = words.iter().map(|word| if *word == "IMAGE" { image.as_str() } else { *word });
        output(&mut command(&text(&stage.customize), words)).map(|_| ())
    };
    COMMANDS.iter().try_for_each(|words| run(words))?;
    PAGES.iter().try_for_each(|page| run(&[page, "--help"]))
}
