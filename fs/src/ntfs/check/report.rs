//! The checker's report.

use std::collections::BTreeMap;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something that Windows puts up with.
    Warning,
    /// A structure contradicts itself or another one.
    Error,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// The kind of finding, in a word that does not change.
    pub code: &'static str,
    /// The place (`record 5`, `directory 5`).
    pub place: String,
    /// The finding in words.
    pub detail: String,
}

/// Findings that are kept of each kind; all are counted.
const KEPT: u64 = 15;

/// The outcome of a check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The first findings of each kind.
    pub findings: Vec<Finding>,
    /// How many there were of each kind.
    pub counts: BTreeMap<&'static str, u64>,
    /// Findings that are errors, in all.
    pub errors: u64,
    /// Findings that are warnings, in all.
    pub warnings: u64,
    /// Files and directories, system files among them.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Entries of directories.
    pub entries: u64,
    /// Clusters in use.
    pub clusters: u64,
}

impl Report {
    /// Whether there is no error; warnings do not count.
    pub fn is_clean(&self) -> bool {
        self.errors == 0
    }

    pub(crate) fn error(&mut self, code: &'static str, place: String, detail: String) {
        self.errors += 1;
        self.keep(Severity::Error, code, place, detail);
    }

    pub(crate) fn warn(&mut self, code: &'static str, place: String, detail: String) {
        self.warnings += 1;
        self.keep(Severity::Warning, code, place, detail);
    }

    fn keep(&mut self, severity: Severity, code: &'static str, place: String, detail: String) {
        let count = self.counts.entry(code).or_default();
        *count += 1;
        if *count <= KEPT {
            self.findings.push(Finding { severity, code, place, detail });
        }
    }
}
