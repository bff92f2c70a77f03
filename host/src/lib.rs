//! The Ganeti OS provider: the scripts `create`, `export`, `import`, `rename` and `verify`, and
//! what they need on the node.
//!
//! The folders are layers. [`scripts`] is the top: one file for each command. It uses
//! [`backend`] (programs of the admin), [`helper`] (the VM), [`image`] (where images come from),
//! [`disk`] (where they go) and [`node`] (environment, configuration, log, signals).
#![deny(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

pub mod backend;
pub mod disk;
pub mod helper;
pub mod image;
pub mod limits;
pub mod node;
pub mod scripts;
#[allow(unsafe_code)]
mod sys;
