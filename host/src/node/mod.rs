//! The base of every script: the environment, the configuration, the log, signals and children.

pub mod address;
pub mod allow;
pub mod cancel;
pub mod config;
pub mod defect;
pub mod edits;
pub mod env;
pub mod harden;
pub mod log;
pub mod monitor;
pub mod parameters;
pub mod percent;
pub mod scrub;
pub mod shellvars;
pub mod trust;
pub mod users;
