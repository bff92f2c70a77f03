//! Completion in the shell: the program itself is asked what could stand at the cursor. It knows the values
//! of options, operations of sysprep, and paths in the image that the command line names.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use clap::{Arg, Command, CommandFactory};
use clap_complete::engine::{
    ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter,
};
use clap_complete::env::CompleteEnv;
use snf_fs::FileType;
use snf_image::files::{self, Files};
use snf_image::task::prepare_system::OPERATIONS;

use crate::args::{BackingArg, Cli, Stack, Wrapping};
use crate::disk::{self, Access};
use crate::signals::Progress;

/// More names of one directory are not shown.
const NAMES_MAX: usize = 1000;
/// The sources of a password.
const SELECTORS: [&str; 5] = ["file:", "stdin", "prompt", "random", "hash:"];

/// Answers a shell that asks, and ends then; does nothing otherwise.
pub(crate) fn answer() {
    if std::env::var_os("COMPLETE").is_some() {
        CompleteEnv::with_factory(command).complete();
    }
}

/// The command line with what completes its values, which follows from the names of the values.
fn command() -> Command {
    Cli::command().mut_subcommands(|sub| sub.mut_args(with_completer))
}

fn with_completer(arg: Arg) -> Arg {
    let Some(name) = arg.get_value_names().and_then(|names| names.first()).map(|n| n.to_string())
    else {
        return arg;
    };
    match name.as_str() {
        "SELECTOR" => arg.add(ArgValueCompleter::new(|typed: &OsStr| selectors("", typed))),
        "NAME:SELECTOR" | "CONTAINER:SELECTOR" => arg.add(ArgValueCompleter::new(after_colon)),
        "USER:file:PATH" => arg.add(ArgValueCompleter::new(key_file)),
        "LIST" => arg.add(ArgValueCompleter::new(operations)),
        _ if name.starts_with("GUESTPATH") => arg.add(ArgValueCompleter::new(guest_paths)),
        _ if name.contains('|') => {
            let words: Vec<String> = name
                .split('|')
                .filter(|word| word.chars().all(|c| c.is_ascii_lowercase()))
                .map(str::to_owned)
                .collect();
            arg.add(ArgValueCompleter::new(move |typed: &OsStr| {
                beginning(words.iter().map(String::as_str), typed)
            }))
        }
        _ => arg,
    }
}

/// Those words that begin as what was typed.
fn beginning<'a>(words: impl Iterator<Item = &'a str>, typed: &OsStr) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    words.filter(|word| word.starts_with(&*typed)).map(CompletionCandidate::new).collect()
}

/// Selectors after `before`, and the paths of `file:`.
fn selectors(before: &str, typed: &OsStr) -> Vec<CompletionCandidate> {
    let text = typed.to_string_lossy();
    if let Some(path) = text.strip_prefix("file:") {
        return local(&format!("{before}file:"), path);
    }
    let found = beginning(SELECTORS.into_iter(), typed).into_iter();
    found.map(|candidate| candidate.add_prefix(before)).collect()
}

fn local(before: &str, path: &str) -> Vec<CompletionCandidate> {
    let found = PathCompleter::any().complete(OsStr::new(path)).into_iter();
    found.map(|candidate| candidate.add_prefix(before)).collect()
}

fn after_colon(typed: &OsStr) -> Vec<CompletionCandidate> {
    let text = typed.to_string_lossy();
    match text.split_once(':') {
        Some((name, rest)) => selectors(&format!("{name}:"), OsStr::new(rest)),
        None => Vec::new(),
    }
}

fn key_file(typed: &OsStr) -> Vec<CompletionCandidate> {
    let text = typed.to_string_lossy();
    let Some((user, rest)) = text.split_once(':') else { return Vec::new() };
    match rest.strip_prefix("file:") {
        Some(path) => local(&format!("{user}:file:"), path),
        None => beginning(["file:"].into_iter(), OsStr::new(rest))
            .into_iter()
            .map(|candidate| candidate.add_prefix(format!("{user}:")))
            .collect(),
    }
}

fn operations(typed: &OsStr) -> Vec<CompletionCandidate> {
    let text = typed.to_string_lossy();
    let (before, last) = text.rsplit_once(',').map_or(("", &*text), |(b, l)| (b, l));
    let before = if before.is_empty() { String::new() } else { format!("{before},") };
    let (dash, last) = last.strip_prefix('-').map_or(("", last), |rest| ("-", rest));
    let names = OPERATIONS.iter().map(|operation| operation.name).chain(["defaults", "all"]);
    let found = beginning(names, OsStr::new(last)).into_iter();
    found.map(|candidate| candidate.add_prefix(format!("{before}{dash}"))).collect()
}

/// The words of the command line that is being completed: the shell passes them after `--`.
fn words() -> Vec<OsString> {
    std::env::args_os().skip_while(|word| word != "--").skip(1).collect()
}

/// The disk among them: the first word after the command that is a file or block device.
fn disk_of(words: &[OsString]) -> Option<PathBuf> {
    words.iter().skip(2).map(PathBuf::from).find(|path| {
        std::fs::metadata(path)
            .is_ok_and(|found| found.is_file() || found.file_type().is_block_device())
    })
}

fn guest_paths(typed: &OsStr) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    disk_of(&words()).and_then(|disk| below(&disk, &typed)).unwrap_or_default()
}

/// The paths on a disk that begin as what was typed. Nothing is told of what goes wrong: the shell shows
/// no errors.
fn below(disk: &Path, typed: &str) -> Option<Vec<CompletionCandidate>> {
    let wrapping = Wrapping { format: None, backing: BackingArg::Refuse };
    let (stack, progress) = (Stack::default(), Progress::default());
    let disks = disk::open_all(disk, &stack, wrapping, Access::Read, &progress).ok()?;
    let mut events = Vec::new();
    let guest = files::open(&disks.devices(), &[], Files::Guest, &mut events).ok()?;
    let typed = if typed.is_empty() { "/" } else { typed };
    let (dir, name) = typed.rsplit_once('/')?;
    let mut found = Vec::new();
    let entries = guest.tree.read_dir(if dir.is_empty() { "/" } else { dir }).ok()?;
    for entry in entries {
        // A name that is no text, or that commands a terminal, is not typed.
        let Ok(text) = String::from_utf8(entry.name) else { continue };
        if text == "."
            || text == ".."
            || !text.starts_with(name)
            || text.chars().any(char::is_control)
        {
            continue;
        }
        let path = format!("{dir}/{text}");
        let stat = guest.tree.stat(&path);
        let slash = if stat.is_ok_and(|s| s.file_type == FileType::Directory) { "/" } else { "" };
        found.push(CompletionCandidate::new(format!("{path}{slash}")));
        if found.len() == NAMES_MAX {
            break;
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(candidates: Vec<CompletionCandidate>) -> Vec<String> {
        candidates.iter().map(|c| c.get_value().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn values_are_known() {
        command().debug_assert();
        assert_eq!(values(selectors("", OsStr::new("st"))), ["stdin"]);
        assert_eq!(values(after_colon(OsStr::new("ann:ra"))), ["ann:random"]);
        assert_eq!(values(key_file(OsStr::new("ann:f"))), ["ann:file:"]);
        let found = values(operations(OsStr::new("defaults,-mach")));
        assert_eq!(found, ["defaults,-machine-id"]);
    }
}
