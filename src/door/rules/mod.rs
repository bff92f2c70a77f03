//! The parameter file on the floppy: `export SNF_IMAGE_NAME=VALUE` lines in bash's own quoting.
//!
//! The host writes it and the helper reads it; each side also works with the original's other
//! half. It is data: nothing here ever runs a shell.

mod parser;
mod plan;
mod variables;
mod writer;

pub use parser::ParseError;
pub use plan::RulesError;
pub use variables::{MAX_SIZE, PREFIX, Rules, Value, WriteError};
pub use writer::quote;

#[cfg(test)]
mod tests;
