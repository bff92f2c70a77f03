//! How a request travels: as Ganeti's rules, or as a document of the command line; and what the host
//! prepares for it.

pub mod prepare;
pub mod request;
pub mod rules;
pub mod wire;
