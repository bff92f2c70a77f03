//! `--file`: documents that say what the options of `apply` can, and `--print-plan`, which writes one.
//!
//! The keys of a document are the long names of the options, taken from the definition of the command
//! line, and its values go through the same readers: a new option is a new key without a line here.
//! Edits are values of [`snf_image::edit::Action`], which follow from the table of verbs.

mod keys;
mod print;
mod read;
mod schema;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, CommandFactory, FromArgMatches};
use snf_image::edit::Edit;

use crate::args::{Apply, Cli, Command};
use crate::exit::Failure;
use crate::output;

pub(crate) use print::plan;
pub(crate) use schema::schema;

/// The parts of documents beside options.
#[derive(Clone, Debug, Default)]
pub(crate) struct Planned {
    /// Edits, which come before those of the command line.
    pub(crate) edits: Vec<Edit>,
    /// Whether one of the documents was standard input, which is at its end then.
    pub(crate) stdin: bool,
    /// The options of the whole request by their keys, where they are to be printed.
    options: Vec<(String, serde_json::Value)>,
}

/// The places on the command line of the options that a secret comes from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order(Vec<(&'static str, Vec<usize>)>);

impl Order {
    /// The options whose selectors read standard input, by clap's names.
    const OPTIONS: [&str; 4] = ["root_password", "user_password", "product_key", "luks_key"];

    fn of(matches: &ArgMatches) -> Self {
        let places = |id| matches.indices_of(id).into_iter().flatten().collect();
        Self(Self::OPTIONS.map(|id| (id, places(id))).into())
    }

    /// The place of an option's value, counted from 0 among those of the same option; those of which
    /// nothing is known come last.
    pub(crate) fn of_value(&self, id: &str, nth: usize) -> usize {
        let places = self.0.iter().find(|(name, _)| *name == id);
        places.and_then(|(_, places)| places.get(nth)).copied().unwrap_or(usize::MAX)
    }
}

/// Why there is no request.
#[derive(Debug)]
pub(crate) enum Ended {
    /// The command line is wrong, or asks for help.
    Clap(clap::Error),
    /// A document is wrong.
    Document(Failure),
}

impl From<clap::Error> for Ended {
    fn from(error: clap::Error) -> Self {
        Self::Clap(error)
    }
}

impl From<Failure> for Ended {
    fn from(failure: Failure) -> Self {
        Self::Document(failure)
    }
}

/// Reads the command line, and the documents that it names.
pub(crate) fn command_line(mut words: Vec<OsString>) -> Result<Cli, Ended> {
    let matches = Cli::command().try_get_matches_from(&words)?;
    let Some((name, sub)) = matches.subcommand() else {
        return Ok(Cli::from_arg_matches(&matches)?);
    };
    let files: Vec<PathBuf> =
        sub.try_get_many("file").ok().flatten().into_iter().flatten().cloned().collect();
    // Commands without these options give nothing; only builds with debug assertions say that it is
    // no option of theirs.
    let flag = |id| sub.try_get_one::<bool>(id).ok().flatten().copied().unwrap_or(false);
    let prints = flag("print_plan");
    if files.is_empty() && !prints {
        let mut cli = Cli::from_arg_matches(&matches)?;
        if let Some(apply) = cli.apply_mut() {
            apply.order = Order::of(sub);
        }
        return Ok(cli);
    }
    let said = documents(&files, sub).inspect_err(|failure| {
        if flag("json") {
            let disk = sub.get_one::<PathBuf>("disk").cloned().unwrap_or_default();
            output::Document::new(name, &disk).finish(failure.exit, &failure.message);
        }
    })?;
    // Nothing but flags can stand before the command's name.
    let at = words.iter().position(|word| word == name).map_or(words.len(), |at| at + 1);
    words.splice(at..at, said.words);
    let matches = Cli::command().try_get_matches_from(&words)?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    if let (Some(apply), Some((name, sub))) = (cli.apply_mut(), matches.subcommand()) {
        apply.order = Order::of(sub);
        let options = if prints { print::options(name, sub)? } else { Vec::new() };
        apply.planned = Planned { edits: said.edits, stdin: said.stdin, options };
    }
    Ok(cli)
}

/// All documents as one.
#[derive(Default)]
struct Said {
    /// Options, as words of the command line.
    words: Vec<OsString>,
    edits: Vec<Edit>,
    stdin: bool,
}

/// Reads all documents. An option that can be given once is given once, wherever.
fn documents(files: &[PathBuf], sub: &ArgMatches) -> Result<Said, Failure> {
    let mut said = Said::default();
    let mut owners: Vec<(String, &Path)> = Vec::new();
    for file in files {
        if is_stdin(file) {
            if said.stdin {
                return Err(Failure::usage("--file - is given twice"));
            }
            said.stdin = true;
        }
        let found = read::document(file)?;
        for option in found.options {
            let key = &option.key;
            if !key.is_many() {
                let shown = file.display();
                if sub.value_source(&key.id) == Some(clap::parser::ValueSource::CommandLine) {
                    let text = format!("{shown} says {0}, and so does --{0}", key.name);
                    return Err(Failure::usage(text));
                }
                if let Some((_, other)) = owners.iter().find(|(name, _)| *name == key.name) {
                    let (name, other) = (&key.name, other.display());
                    return Err(Failure::usage(format!("both {other} and {shown} say {name}")));
                }
                owners.push((key.name.clone(), file));
            }
            said.words.extend(option.words);
        }
        said.edits.extend(found.edits);
    }
    Ok(said)
}

/// Whether a document is standard input.
fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

impl Cli {
    /// The options of `apply`, of a command that has them.
    fn apply_mut(&mut self) -> Option<&mut Apply> {
        match self.command.as_mut()? {
            Command::Apply(apply) => Some(apply),
            Command::Sysprep(sysprep) => Some(&mut sysprep.apply),
            Command::Deploy(deploy) => Some(&mut deploy.apply),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
