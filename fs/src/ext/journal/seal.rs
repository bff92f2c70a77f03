//! The end of a transaction, and the amount that it may hold.

use super::find::find;
use crate::error::Result;
use crate::ext::quota;
use crate::ext::volume::Volume;

/// How many blocks of metadata one transaction can have. Callers with more to write call [`seal`]
/// where the file system is consistent. Without a journal there is no limit.
pub fn transaction_capacity(vol: &Volume) -> Result<usize> {
    if !vol.has_journal() {
        return Ok(usize::MAX);
    }
    let opened;
    let area = match &vol.journal.area {
        Some(area) => area,
        None => {
            opened = find(vol)?;
            &opened
        }
    };
    Ok(area.capacity(&area.form))
}

/// Closes the open transaction at a point where the file system is consistent: what comes after it
/// is committed after it.
pub fn seal(vol: &mut Volume) -> Result<()> {
    quota::flush(vol)?;
    vol.store_superblock()?;
    vol.store.seal();
    Ok(())
}
