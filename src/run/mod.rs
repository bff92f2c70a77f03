//! The three verbs: customize, inspect and check; what they report and how they fail.

pub mod check;
pub mod customize;
#[cfg(feature = "cli")]
pub mod diff;
pub mod failure;
pub mod files;
pub mod inspect;
pub mod report;
