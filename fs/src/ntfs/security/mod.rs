//! Security descriptors: what is in one, what a new file inherits, and `$Secure`, which keeps each
//! one once for the whole volume.
//!
//! Source: MS-DTYP, sections 2.4 (structures) and 2.5.3.4 (inheritance).

mod descriptor;
mod inherit;
mod secure;
#[cfg(test)]
mod tests;

pub use self::descriptor::Descriptor;
pub use self::inherit::inherit;
pub use self::secure::{SecureIndex, SecureStore, descriptor, intern};
