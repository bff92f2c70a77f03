//! The output for persons and scripts.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value, json};
use snf_image::event::{Event, EventSink};
use snf_image::shown;

use crate::exit::{Exit, Failure};
use crate::spinner;

/// Why a page on standard output was lost.
static LOST: Mutex<Option<io::Error>> = Mutex::new(None);
/// Whether a line on standard error was lost although somebody keeps them (the disk is full), or the
/// reader of a list went away.
static UNSAID: AtomicBool = AtomicBool::new(false);

/// Prints a page on standard output, nothing hidden in it. That it cannot be written is told at the
/// end of the run, by [`end`].
pub(crate) fn print(text: &str) {
    print_exactly(&shown::page(text));
}

/// Prints bytes for another program on standard output, as they are.
pub(crate) fn print_exactly(text: &str) {
    let write = || {
        let mut out = open_output()?;
        out.write_all(text.as_bytes())?;
        out.flush()
    };
    note(spinner::aside(write));
}

/// Prints texts of a guest: as they are for another program, with nothing hidden in them for a person.
pub(crate) fn print_texts(text: &str) {
    if io::stdout().is_terminal() { print(text) } else { print_exactly(text) }
}

/// Notes that a page was lost, if it was.
pub(crate) fn note(result: io::Result<()>) {
    if let Err(error) = result {
        LOST.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
    }
}

/// Notes that a list or a file's content could not be written on. A reader that has gone, as `head` has
/// when it has seen enough, is no news to the person: then only the exit code says it.
pub(crate) fn note_stream(error: io::Error) {
    match error.kind() {
        io::ErrorKind::BrokenPipe => UNSAID.store(true, Ordering::Relaxed),
        _ => note(Err(error)),
    }
}

/// Whether something on standard output or standard error was lost so far.
pub(crate) fn is_lost() -> bool {
    LOST.lock().unwrap_or_else(PoisonError::into_inner).is_some() || UNSAID.load(Ordering::Relaxed)
}

/// Standard output for content.
///
/// # Errors
/// [`Exit::Output`] where it is closed.
pub(crate) fn content_output() -> Result<io::StdoutLock<'static>, Failure> {
    open_output().map_err(|error| {
        Failure::new(Exit::Output, format!("cannot write to standard output: {error}"))
    })
}

/// Standard output, unless it was closed before the program began.
fn open_output() -> io::Result<io::StdoutLock<'static>> {
    if snf_ceiling::output_was_closed() {
        return Err(io::Error::other("it is closed"));
    }
    Ok(io::stdout().lock())
}

/// The end of a run. One whose result nobody could be told did not end well.
pub(crate) fn end(exit: Exit) -> Exit {
    let lost = LOST.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(error) = &lost {
        let rest = match exit {
            Exit::Done => "everything else was done".to_owned(),
            _ => format!("all else is as the exit code {} says ({})", exit.code(), exit.word()),
        };
        error_line(&format!("cannot write to standard output: {error}; {rest}"));
    }
    match exit {
        Exit::Done if lost.is_some() || UNSAID.load(Ordering::Relaxed) => Exit::Output,
        other => other,
    }
}

/// Prints one line on standard error.
fn complain(kind: &str, text: &str) {
    let line = format!("{kind}: {}\n", shown::line(text));
    match spinner::aside(|| io::stderr().lock().write_all(line.as_bytes())) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            UNSAID.store(true, Ordering::Relaxed);
        }
        // Nobody reads any more: nobody misses anything.
        Ok(()) | Err(_) => {}
    }
}

/// How much is told: `--quiet`, nothing said, `--verbose`.
static LEVEL: AtomicU8 = AtomicU8::new(NORMAL);
const QUIET: u8 = 0;
const NORMAL: u8 = 1;
const VERBOSE: u8 = 2;

/// Says how much is told.
pub(crate) fn set_level(quiet: bool, verbose: bool) {
    let level = match (quiet, verbose) {
        (true, _) => QUIET,
        (_, true) => VERBOSE,
        _ => NORMAL,
    };
    LEVEL.store(level, Ordering::Relaxed);
}

/// Whether only what must be told is told.
pub(crate) fn is_quiet() -> bool {
    LEVEL.load(Ordering::Relaxed) == QUIET
}

/// A line for those who want to know more.
pub(crate) fn detail(text: &str) {
    if LEVEL.load(Ordering::Relaxed) == VERBOSE {
        complain("note", text);
    }
}

/// A line that says what went wrong.
pub(crate) fn error_line(text: &str) {
    spinner::clear();
    complain("error", text);
}

/// A line that warns.
pub(crate) fn warning_line(text: &str) {
    complain("warning", text);
}

/// Tells a failure that no document belongs to.
pub(crate) fn fail(failure: &Failure) -> Exit {
    error_line(&failure.message);
    failure.exit
}

/// Takes the library's events: warnings are told at once and kept, the rest shows in the summary.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    pub(crate) warnings: Vec<String>,
}

impl Listener {
    /// Tells a warning.
    pub(crate) fn warn(&mut self, text: String) {
        complain("warning", &text);
        self.warnings.push(text);
    }
}

impl EventSink for Listener {
    fn event(&mut self, event: Event) {
        match event {
            Event::Warning(text) => self.warn(text),
            Event::Info(text) => detail(&text),
            Event::TaskStart(task) => {
                let summary = snf_image::task::find(task).summary;
                spinner::say(summary);
                detail(&format!("{task}: {summary}"));
            }
            Event::TaskEnd(_) => spinner::say("writing the changes"),
        }
    }
}

/// The document of `--json`.
pub(crate) struct Document(Map<String, Value>);

impl Document {
    pub(crate) fn new(command: &str, disk: &std::path::Path) -> Self {
        let mut map = Map::new();
        map.insert("program".into(), json!("snf-customize"));
        map.insert("version".into(), json!(env!("CARGO_PKG_VERSION")));
        map.insert("command".into(), json!(command));
        map.insert("disk".into(), json!(disk.to_string_lossy()));
        Self(map)
    }

    pub(crate) fn set(&mut self, field: &str, value: impl Into<Value>) {
        self.0.insert(field.to_owned(), value.into());
    }

    /// How it ended, and out it goes.
    pub(crate) fn finish(mut self, exit: Exit, message: &str) {
        self.set("result", exit.word());
        self.set("exit_code", exit.code());
        self.set("message", message);
        print(&shown::json(&format!("{:#}\n", Value::Object(self.0))));
    }
}

/// Rows in columns as wide as they need to be, two blanks between and two before.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::from(" ");
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!(" {cell:<width$} "));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// A size as a person reads it.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return count(usize::try_from(bytes).unwrap_or(usize::MAX), "byte");
    }
    let mut value = bytes as f64;
    let mut unit = "";
    for name in UNITS {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = name;
    }
    if value.fract() == 0.0 { format!("{value} {unit}") } else { format!("{value:.1} {unit}") }
}

/// `1 file`, `2 files`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!((&*size(1), &*size(12)), ("1 byte", "12 bytes"));
        assert_eq!(size(2 << 30), "2 GiB");
        assert_eq!(size(1536), "1.5 KiB");
    }

    #[test]
    fn tables() {
        let row = |cells: &[&str]| cells.iter().map(|&cell| cell.to_owned()).collect::<Vec<_>>();
        let text = table(&[row(&["a", "bb", "c"]), row(&["aaa", "b"])]);
        assert_eq!(text, "  a    bb  c\n  aaa  b\n");
        assert_eq!(table(&[]), "");
    }
}
