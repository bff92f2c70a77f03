//! The packages of the crates that others can use by themselves.

use crate::util::{Result, command, run_visible, step};

/// Crates that could be published as they are.
const CRATES: [&str; 2] = ["snf-fs", "snf-partition"];

/// Packs each crate and builds it from its package.
/// Nothing is uploaded. Cargo packs what is committed, and refuses a crate with other changes.
pub fn publish() -> Result<()> {
    for name in CRATES {
        step(&format!("packing {name} (cargo publish --dry-run)"), || {
            run_visible(&mut command(
                env!("CARGO"),
                ["publish", "--quiet", "--dry-run", "--locked", "--package", name],
            ))
        })?;
    }
    Ok(())
}
