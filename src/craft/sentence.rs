//! An error as a sentence for a person.

use std::error::Error;

/// An error with all its causes, as one sentence. No error of this library repeats its cause; one
/// of another crate may, and then the cause is not told again.
pub fn sentence(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let part = cause.to_string();
        if !text.contains(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        next = cause.source();
    }
    text
}
