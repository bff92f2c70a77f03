//! The keys of a document: the long names of the options of `apply`.

use clap::{Arg, ArgAction, CommandFactory};
use snf_image::edit::verbs;

use crate::args::Cli;

/// The list of edits.
pub(super) const EDITS: &str = "edits";
/// The image's properties: a table in a document, JSON on the command line.
pub(super) const PROPERTIES: &str = "properties";

/// Options that are no part of what a request asks for: they say how one run goes, and on which disk. A plan is the same
/// whether it is tried, shown or done.
const OF_A_RUN: &[&str] = &[
    "connect",
    "diff",
    "domain",
    "dry-run",
    "file",
    "help",
    "helper",
    "json",
    "print-plan",
    "quiet",
    "verbose",
    "vm",
];

/// How edits of the command line are made; in a document each edit says it itself (`follow`).
const OF_EDITS: &str = "no-follow";

/// Options whose value may be a number in a document. Any other number is a mistake.
const NUMBERS: &[&str] = &["grow", "root-partition", "seed", "size"];

/// A key of a document, and the option that it stands for.
#[derive(Clone, Debug)]
pub(super) struct Key {
    /// The option's long name.
    pub(super) name: String,
    /// Clap's name for it.
    pub(super) id: String,
    /// The option's help text.
    pub(super) help: String,
    /// The values that it can have, where they can be listed.
    pub(super) values: Vec<String>,
    pub(super) kind: Kind,
}

/// The values of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Yes or no.
    Flag,
    /// One text or number.
    One,
    /// A list of texts.
    Many,
}

impl Key {
    fn of(arg: &Arg) -> Option<Self> {
        let name = arg.get_long()?.to_owned();
        if OF_A_RUN.contains(&&*name) || name == OF_EDITS || verbs().any(|verb| verb.name == name) {
            return None;
        }
        let kind = match arg.get_action() {
            ArgAction::SetTrue => Kind::Flag,
            ArgAction::Append => Kind::Many,
            _ => Kind::One,
        };
        let values = match kind {
            Kind::Flag => Vec::new(),
            _ => arg.get_possible_values().iter().map(|v| v.get_name().to_owned()).collect(),
        };
        let help = arg.get_long_help().or(arg.get_help()).map(ToString::to_string);
        let id = arg.get_id().to_string();
        Some(Self { name, id, help: help.unwrap_or_default(), values, kind })
    }

    /// Whether its value may be a number.
    pub(super) fn takes_number(&self) -> bool {
        NUMBERS.contains(&&*self.name)
    }

    /// Whether it may be said more than once.
    pub(super) fn is_many(&self) -> bool {
        self.kind == Kind::Many
    }
}

/// All keys, in the order of the help text.
pub(super) fn all() -> Vec<Key> {
    let command = Cli::command();
    let apply = command.find_subcommand("apply").into_iter();
    apply.flat_map(|apply| apply.get_arguments().filter_map(Key::of)).collect()
}
