//! Reading a disk: `ls`, `cat`, `get`, `tar-out`, `df`, `find`, `stat`, `fingerprints` and `diff`. None of
//! them writes a byte to it.

mod archive;
mod args;
mod cat;
mod df;
mod diff;
mod find;
mod fingerprints;
mod get;
mod ls;
mod names;
mod opened;
mod stat;
mod stream;
mod time;

pub(crate) use args::Look;

use std::io::{self, IsTerminal};
use std::path::Path;

use crate::exit::{Exit, Failure};
use crate::output;
use crate::selector::io_problem;
use crate::spinner::Spinner;

/// Runs one of the reading commands.
pub(crate) fn run(look: &Look) -> Exit {
    // Output that goes to the terminal as it is read needs no line that says so.
    let silent = matches!(look, Look::Get(_)) || !io::stdout().is_terminal();
    let spinner = Spinner::start("reading the disk", silent && !crate::output::is_quiet());
    let result = match look {
        Look::Ls(args) => ls::run(args),
        Look::Cat(args) => cat::run(args),
        Look::Get(args) => get::run(args),
        Look::TarOut(args) => archive::run(args),
        Look::Df(args) => df::run(args),
        Look::Find(args) => find::run(args),
        Look::Stat(args) => stat::run(args),
        Look::Fingerprints(args) => fingerprints::run(args),
        Look::Diff(args) => diff::run(args),
    };
    drop(spinner);
    result.unwrap_or_else(|failure| output::fail(&failure))
}

/// An error on the way from a guest's files to the person.
#[derive(Debug)]
enum Trouble {
    /// The guest's file system said it.
    Guest(snf_fs::Error),
    /// Reading is over, and this is why.
    Ended(Failure),
    /// Standard output takes nothing more; what is to be said of it is noted.
    Lost,
}

impl From<snf_fs::Error> for Trouble {
    fn from(error: snf_fs::Error) -> Self {
        Self::Guest(error)
    }
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Ended(failure)
    }
}

impl Trouble {
    /// A failed write of standard output: the run ends, and its exit code says it.
    fn output(error: io::Error) -> Self {
        output::note_stream(error);
        Self::Lost
    }

    /// A failed write of a local file.
    fn local(path: &Path, error: &io::Error) -> Self {
        Self::Ended(local_failure(path, error))
    }
}

/// The failure that an error of a local file is, which was to be written.
fn local_failure(path: &Path, error: &io::Error) -> Failure {
    use io::ErrorKind::{AlreadyExists, IsADirectory, NotADirectory, NotFound, PermissionDenied};
    let shown = path.display();
    let exit = match error.kind() {
        AlreadyExists | IsADirectory | NotADirectory | NotFound | PermissionDenied => Exit::Input,
        _ => Exit::Failed,
    };
    let problem = match path.parent() {
        Some(parent) if error.kind() == NotFound && !parent.as_os_str().is_empty() => {
            format!("there is no directory {}", parent.display())
        }
        _ => io_problem(error),
    };
    Failure::new(exit, format!("cannot write {shown}: {problem}"))
}
