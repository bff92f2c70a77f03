//! Writing a document: all that was asked for, by documents and options together.

use clap::ArgMatches;
use clap::parser::ValueSource;
use serde_json::{Map, Value};
use snf_image::edit::Edit;

use super::keys::{self, EDITS, Kind, PROPERTIES};
use crate::args::Apply;
use crate::exit::Failure;

/// The options that were given to a command, by their keys.
pub(super) fn options(
    command: &str,
    matches: &ArgMatches,
) -> Result<Vec<(String, Value)>, Failure> {
    if command == "deploy" {
        return Err(Failure::usage(
            "--print-plan is for apply and sysprep: a plan says what becomes of a disk, and not where \
             the disk comes from",
        ));
    }
    let mut options = Vec::new();
    if let Ok(Some(operations)) = matches.try_get_one::<String>("operations") {
        options.push(("sysprep".to_owned(), operations.as_str().into()));
    }
    for key in keys::all() {
        if matches.value_source(&key.id) != Some(ValueSource::CommandLine) {
            continue;
        }
        let raw = matches.get_raw(&key.id).into_iter().flatten();
        let texts: Vec<&str> =
            raw.map(|value| value.to_str()).collect::<Option<_>>().ok_or_else(|| {
                Failure::usage(format!("--{}: the value is not text, as a plan is", key.name))
            })?;
        let value = match (key.kind, texts.first()) {
            (Kind::Flag, _) => Value::Bool(true),
            (Kind::Many, _) => texts.into(),
            (Kind::One, None) => continue,
            (Kind::One, Some(text)) if key.name == PROPERTIES => {
                // Looked at before: it is an object.
                serde_json::from_str(text).unwrap_or(Value::Null)
            }
            (Kind::One, Some(text)) => (*text).into(),
        };
        options.push((key.name, value));
    }
    one_reads_stdin(&options)?;
    Ok(options)
}

/// A document keeps no order between its keys, and lines of standard input go to the selectors in their order.
fn one_reads_stdin(options: &[(String, Value)]) -> Result<(), Failure> {
    let reads = |value: &Value| {
        let text = value.as_str().unwrap_or_default();
        text == "stdin" || text.ends_with(":stdin")
    };
    let mut names = options.iter().filter(|(_, value)| match value {
        Value::Array(values) => values.iter().any(reads),
        value => reads(value),
    });
    match (names.next(), names.next()) {
        (Some((first, _)), Some((second, _))) => Err(Failure::usage(format!(
            "--print-plan: --{first} and --{second} both read standard input, and a plan keeps no order \
             between them; use file:PATH for one"
        ))),
        _ => Ok(()),
    }
}

/// The document: JSON, or TOML.
///
/// # Errors
/// When a value cannot be written.
pub(crate) fn plan(args: &Apply, edits: &[Edit]) -> Result<String, Failure> {
    let fail = |error: &dyn std::fmt::Display| {
        Failure::usage(format!("--print-plan: the plan cannot be written: {error}"))
    };
    let edits: Vec<Value> = edits
        .iter()
        .map(|edit| serde_json::to_value(&edit.action))
        .collect::<Result<_, _>>()
        .map_err(|error| fail(&error))?;
    let options = &args.planned.options;
    if args.json {
        let mut object: Map<String, Value> = options.iter().cloned().collect();
        if !edits.is_empty() {
            object.insert(EDITS.to_owned(), edits.into());
        }
        return Ok(format!("{:#}\n", Value::Object(object)));
    }
    let mut text = String::new();
    // A table begins with a line of its own, and all after it belongs to it.
    for (key, value) in options {
        text.push_str(&format!("{key} = {}\n", inline(value).map_err(|error| fail(&error))?));
    }
    for edit in &edits {
        text.push_str(&format!("\n[[{EDITS}]]\n"));
        for (kind, fields) in edit.as_object().into_iter().flatten() {
            text.push_str(&format!("{kind} = {}\n", inline(fields).map_err(|error| fail(&error))?));
        }
    }
    Ok(text)
}

/// A value of TOML on one line.
fn inline(value: &Value) -> Result<String, toml::ser::Error> {
    Ok(toml::Value::try_from(value)?.to_string())
}
