//! Answer files of Windows: `unattend.xml` (Vista and later) and `sysprep.inf` (XP, Server 2003).

mod encoding;
mod error;
pub mod sysprep;
mod unattend;
pub mod xml;

pub use error::AnswerError;
pub use unattend::{AnswerFile, Pass, SHELL_SETUP};
