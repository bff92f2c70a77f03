//! The messages of `snf-image-host lay-image` to `snf-customize deploy`: a JSON document a line.

use serde::{Deserialize, Serialize};

/// A line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// How far the copy is.
    Progress {
        /// Bytes of the image that were read.
        position: u64,
        /// All of them, when that is known.
        total: Option<u64>,
    },
    /// The image is on the target.
    Done {
        /// Its size in bytes.
        size: u64,
        /// Bytes that were written as data; the rest was zeros.
        written: u64,
    },
    /// It is not.
    Failed {
        /// Why, in one sentence.
        message: String,
        /// Whether a signal ended it.
        interrupted: bool,
        /// Whether the target may have been written to.
        wrote: bool,
    },
}

impl Told {
    /// The line, without its end.
    pub fn line(&self) -> String {
        // Numbers and text: nothing in it can fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The document in a line; `None` when it is none.
    pub fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::Told;

    #[test]
    fn lines_arrive() {
        for told in [
            Told::Progress { position: 1, total: None },
            Told::Done { size: 1, written: 2 },
            Told::Failed { message: "a\nb".into(), interrupted: true, wrote: false },
        ] {
            assert!(!told.line().contains('\n'));
            assert_eq!(Told::parse(&told.line()), Some(told));
        }
        assert_eq!(Told::parse("{}"), None);
    }
}
