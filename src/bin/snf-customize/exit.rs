//! The exit codes: one table for `--help`, the documentation and the program itself.

use std::process::ExitCode;

/// How a run ended. Every code is below 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// All was done.
    Done = 0,
    /// Something that was asked for cannot be done on this guest.
    Failed = 1,
    /// The command line makes no sense, in itself or for this disk.
    Usage = 2,
    /// No system was found, or the image is of a kind that is not supported.
    Refused = 3,
    /// The image contradicts itself.
    Corrupt = 4,
    /// The disk cannot be opened or read.
    Device = 5,
    /// Writing failed in the middle, or a run that wrote did not end well.
    Commit = 6,
    /// Somebody else is using the disk.
    Busy = 7,
    /// A local file cannot be used: one with a plan, a password, a key or contents cannot be read or makes no
    /// sense, or one to be written is there already or has no directory.
    Input = 8,
    /// A signal came before anything was written.
    Interrupted = 9,
    /// The helper VM could not be run, or not to its end.
    Vm = 10,
    /// Standard output or standard error could not be written.
    Output = 11,
    /// A defect of this program, or no memory.
    Bug = 70,
}

impl Exit {
    /// Every code with what it means to a script.
    pub(crate) const TABLE: [(Self, &'static str, &'static str); 13] = [
        (Self::Done, "done", "all was done (or, with --dry-run, would have been)"),
        (Self::Failed, "failed", "something cannot be done on this guest; the disk is as it was"),
        (Self::Usage, "usage", "the command line makes no sense (for this disk); disk as it was"),
        (
            Self::Refused,
            "refused",
            "no operating system, or a kind of image that is not supported; the disk is as it was",
        ),
        (Self::Corrupt, "corrupt", "the image contradicts itself; the disk is as it was"),
        (Self::Device, "device", "the disk cannot be opened or read; the disk is as it was"),
        (
            Self::Commit,
            "commit",
            "something was written and the run did not end well: the message says what state the disk is in",
        ),
        (Self::Busy, "busy", "the disk is in use by somebody else; it was not touched"),
        (
            Self::Input,
            "input",
            "a local file (plan, password, key, content, target) cannot be used; disk as it was",
        ),
        (Self::Interrupted, "interrupted", "a signal came before the first write; disk as it was"),
        (Self::Vm, "vm", "the helper VM (--vm) could not be run to its end; disk as it was"),
        (
            Self::Output,
            "output",
            "all was done, and standard output or standard error could not be written",
        ),
        (
            Self::Bug,
            "bug",
            "a defect of this program (please report it), or no memory: the message says which",
        ),
    ];

    /// The word for it, as `--json` has it.
    pub(crate) fn word(self) -> &'static str {
        Self::TABLE.iter().find(|(exit, ..)| *exit == self).map_or("bug", |(_, word, _)| word)
    }

    /// The number.
    pub(crate) fn code(self) -> u8 {
        self as u8
    }

    /// The table as text for `--help`.
    pub(crate) fn help() -> String {
        let mut text = String::from("Exit codes:\n");
        for (exit, _, meaning) in Self::TABLE {
            text.push_str(&format!("  {:>2}  {meaning}\n", exit.code()));
        }
        text
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// An ending that is not good: a code and one sentence.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }

    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub(crate) fn input(message: impl Into<String>) -> Self {
        Self::new(Exit::Input, message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_below_100_and_differ() {
        let mut codes: Vec<u8> = Exit::TABLE.iter().map(|(exit, ..)| exit.code()).collect();
        codes.dedup();
        assert_eq!(codes.len(), Exit::TABLE.len());
        assert!(codes.iter().all(|&code| code < 100));
    }

    #[test]
    fn the_documentation_has_every_code() {
        let page = include_str!("../../../docs/snf-customize.md");
        for (exit, word, _) in Exit::TABLE {
            assert!(page.contains(&format!("| {} | `{word}` |", exit.code())), "{word}");
        }
    }
}
