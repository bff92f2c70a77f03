//! Why an edit makes no sense, before any disk is looked at.

/// An argument or a field of a document that makes no sense. The text begins with the value or the
/// field; whoever shows it names the option or the place in the document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadEdit(String);

impl BadEdit {
    pub(super) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// A value that has not the form that is wanted.
    pub(super) fn form(text: &str, form: &str) -> Self {
        Self(format!("'{}' is not of the form {form}", text.escape_debug()))
    }
}
