//! LVM2: physical volumes, volume groups and logical volumes, without device-mapper.
//!
//! [`scan`] looks at a set of devices and gives the groups it finds. A [`VolumeGroup`] lists its
//! volumes and opens one as a [`LogicalVolume`]. A [`Change`] enlarges physical and logical volumes
//! and commits the new metadata in an order that a power cut survives.
//!
//! The format has no formal specification. The facts here come from `lvm2`'s manual pages and from
//! observed disks; every one of them is held against Debian's `lvm2` tools in the tests.
//!
//! Byte order on disk is little-endian. The text counts sectors of 512 bytes and extents.

mod area;
mod change;
mod checksum;
mod commit;
mod extend;
mod free;
mod group;
mod id;
mod label;
mod map;
mod mirror;
mod model;
mod names;
mod scan;
mod segment;
mod text;
mod text_parse;

pub use change::{Change, Extent, Stamp};
pub use group::{LvSummary, PvSummary, VolumeGroup};
pub use id::Id;
pub use map::LogicalVolume;
pub use names::{dm_name, dm_uuid, guest_paths};
pub use scan::{Problem, Scan, is_physical_volume, scan};

/// Bytes of a sector, the unit of sizes in the metadata.
pub(crate) const SECTOR: u64 = 512;
