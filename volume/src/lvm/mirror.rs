//! The state of a RAID 1 volume's legs, from the superblocks in their metadata volumes
//! (Documentation/admin-guide/device-mapper/dm-raid.rst).

use zerocopy::byteorder::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, KnownLayout};

use super::map::Map;
use crate::Result;

const MAGIC: u32 = 0x6452_6d44;

/// The beginning of the superblock, up to the fields that say which legs are whole.
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct OnDisk {
    magic: U32,
    _features: U32,
    devices: U32,
    /// The leg's own number.
    position: U32,
    /// Counts the changes of state.
    events: U64,
    /// A bit for each leg that failed.
    failed: U64,
    /// Sectors that are rebuilt; all ones when it is done.
    recovered: U64,
}

/// A leg's superblock, or that it has none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    events: u64,
    failed: u64,
    rebuilt: bool,
    /// Number of legs and own number.
    place: (u32, u32),
}

impl Superblock {
    /// Reads it; `None` when the metadata volume was never used.
    pub(crate) fn read(map: &Map) -> Result<Option<Self>> {
        let mut bytes = [0; size_of::<OnDisk>()];
        if map.length() < bytes.len() as u64 {
            return Ok(None);
        }
        map.read(0, &mut bytes)?;
        let Ok(found) = OnDisk::ref_from_bytes(&bytes) else { return Ok(None) };
        Ok((found.magic.get() == MAGIC).then(|| Self {
            events: found.events.get(),
            failed: found.failed.get(),
            rebuilt: found.recovered.get() == u64::MAX,
            place: (found.devices.get(), found.position.get()),
        }))
    }
}

/// The first leg whose content is whole. Volumes that were never active have no superblock at
/// all; the kernel makes all legs equal to the first one when it starts them.
pub(crate) fn whole_leg(legs: &[Option<Superblock>]) -> Option<usize> {
    let Some(newest) = legs.iter().flatten().max_by_key(|leg| leg.events) else {
        return (!legs.is_empty()).then_some(0);
    };
    legs.iter().enumerate().position(|(index, leg)| {
        leg.is_some_and(|leg| {
            let failed = index < 64 && newest.failed >> index & 1 == 1;
            // Numbers that do not agree with the text are those of some other volume.
            let ours = leg.place == (legs.len() as u32, index as u32);
            ours && leg.rebuilt && !failed && leg.events == newest.events
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(index: u32, events: u64) -> Superblock {
        Superblock { events, failed: 0, rebuilt: true, place: (2, index) }
    }

    #[test]
    fn the_leg_that_is_whole() {
        assert_eq!(whole_leg(&[]), None);
        assert_eq!(whole_leg(&[None, None]), Some(0));
        assert_eq!(whole_leg(&[Some(leg(0, 5)), Some(leg(1, 5))]), Some(0));
        assert_eq!(whole_leg(&[None, Some(leg(1, 5))]), Some(1));
        assert_eq!(whole_leg(&[Some(leg(0, 4)), Some(leg(1, 5))]), Some(1));
        let rebuilding = Superblock { rebuilt: false, ..leg(0, 5) };
        assert_eq!(whole_leg(&[Some(rebuilding), Some(leg(1, 5))]), Some(1));
        let knows = Superblock { failed: 1, ..leg(1, 5) };
        assert_eq!(whole_leg(&[Some(leg(0, 5)), Some(knows)]), Some(1));
        assert_eq!(whole_leg(&[Some(rebuilding), Some(leg(1, 4))]), None);
        assert_eq!(whole_leg(&[Some(leg(1, 5)), Some(leg(0, 5))]), None);
    }
}
