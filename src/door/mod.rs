//! The ways of a request: Ganeti's rules, and the document of the command line. And the host's
//! preparations for it.

pub mod lay;
pub mod passwords;
pub mod prepare;
pub mod request;
pub mod rules;
pub mod wire;
