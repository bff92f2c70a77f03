//! The errors of an answer file.

/// Why an answer file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// Not a text in any encoding that Windows writes.
    #[error("it is not UTF-8 at byte {at}, nor UTF-16")]
    NotText {
        /// The first byte that is not UTF-8.
        at: usize,
    },
    /// UTF-16 with a lone surrogate.
    #[error("it is UTF-16 with half a character in it")]
    HalfCharacter,
    /// The XML parser does not take it.
    #[error("line {line}")]
    Xml {
        /// The line, from 1.
        line: usize,
        /// The parser's message.
        #[source]
        source: quick_xml::Error,
    },
    /// XML that is not in an answer file.
    #[error("line {line}: {problem}")]
    Markup {
        /// The line, from 1.
        line: usize,
        /// The markup found.
        problem: &'static str,
    },
    /// The text ends too early.
    #[error("it ends within the element {element}")]
    Unfinished {
        /// The element that is open.
        element: String,
    },
    /// No element at all.
    #[error("it has no element")]
    Empty,
    /// Another kind of document.
    #[error("its root element is {found}, not unattend")]
    Root {
        /// The root element.
        found: String,
    },
    /// A document without the namespace of answer files.
    #[error("its root element does not name the namespace {namespace}")]
    Namespace {
        /// The namespace.
        namespace: &'static str,
    },
    /// An edit lost its place: a defect of this library.
    #[error("{what} is not where it was put")]
    Moved {
        /// The element that the edit looked for.
        what: &'static str,
    },
    /// A password that XML cannot hold.
    #[error("a password is not UTF-8 text")]
    Password,
}
