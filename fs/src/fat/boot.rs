//! The boot sector's BIOS parameter block: where everything is.

use std::mem::offset_of;

use zerocopy::{FromBytes, transmute};

use super::layout::{BootSector, Fat32, Identity};
use super::units::{Cluster, VolumeByte};
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::num::{to_u32, to_u64, to_usize};

/// Entries of a table that is kept in memory as a whole: 8 Mi clusters.
const MOST_CLUSTERS: u32 = 8 << 20;
/// FATs with fewer clusters than this have 12 bits for each.
const FAT12_BELOW: u32 = 4085;

/// How many bits of the table a cluster has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Width {
    Fat12,
    Fat16,
    Fat32,
}

impl Width {
    pub(super) fn bits(self) -> u64 {
        match self {
            Self::Fat12 => 12,
            Self::Fat16 => 16,
            Self::Fat32 => 32,
        }
    }
}

/// The facts of the boot sector, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    pub(super) width: Width,
    /// BPB_BytsPerSec.
    pub(super) sector: u64,
    /// Bytes of a cluster.
    pub(super) cluster: usize,
    /// First byte of the first table.
    pub(super) table: VolumeByte,
    /// Bytes of one table.
    pub(super) table_size: u64,
    /// BPB_NumFATs.
    pub(super) tables: u64,
    /// The one table in use where they do not mirror each other (BPB_ExtFlags).
    pub(super) active: Option<u64>,
    /// First byte and bytes of the root directory of FAT12 and FAT16.
    pub(super) fixed_root: Option<(VolumeByte, usize)>,
    /// First cluster of the root directory of FAT32; none with FAT12 and FAT16.
    pub(super) root_cluster: Cluster,
    /// First byte of cluster 2.
    pub(super) data: VolumeByte,
    /// The cluster after the last one.
    pub(super) end: Cluster,
    /// BPB_FSInfo, as a byte on the volume.
    pub(super) info: Option<VolumeByte>,
    /// BS_VolID.
    pub(super) serial: u32,
    /// BS_VolLab.
    pub(super) label: [u8; 11],
    /// The byte of the boot sector whose lowest bit says "not cleanly unmounted".
    pub(super) state: VolumeByte,
    /// Bytes of the whole volume.
    pub(super) size: u64,
}

impl Geometry {
    pub(super) fn read(device: &dyn BlockDevice) -> Result<Self> {
        let bad = |detail: String| Err(Error::corrupt("FAT boot sector", "byte 0", detail));
        if device.len() < 512 {
            return bad(format!("the volume has {} bytes", device.len()));
        }
        let mut boot = [0; 512];
        device.read_at(0, &mut boot)?;
        Self::parse(&boot, device.len())
    }

    pub(super) fn parse(boot: &[u8; 512], length: u64) -> Result<Self> {
        let bad = |detail: String| Err(Error::corrupt("FAT boot sector", "byte 0", detail));
        let boot: BootSector = transmute!(*boot);
        if boot.signature != [0x55, 0xaa] || !matches!(boot.jmp_boot[0], 0xeb | 0xe9) {
            return bad("it is none of FAT".to_owned());
        }
        let (sector, per_cluster) =
            (u64::from(boot.byts_per_sec.get()), u64::from(boot.sec_per_clus));
        if !sector.is_power_of_two() || !(512..=4096).contains(&sector) {
            return bad(format!("BPB_BytsPerSec is {sector}"));
        }
        if !per_cluster.is_power_of_two() || sector * per_cluster > 256 << 10 {
            return bad(format!("BPB_SecPerClus is {per_cluster}"));
        }
        let (reserved, tables) = (u64::from(boot.rsvd_sec_cnt.get()), u64::from(boot.num_fats));
        let roots = u64::from(boot.root_ent_cnt.get());
        let sectors = match boot.tot_sec16.get() {
            0 => u64::from(boot.tot_sec32.get()),
            few => u64::from(few),
        };
        let is_32 = boot.fat_sz16.get() == 0;
        // FAT12 and FAT16 have what identifies the volume where FAT32 has fields of its own.
        let Ok((large, after)) = Fat32::read_from_prefix(&boot.rest) else {
            return bad("it is too short".to_owned());
        };
        let identity = if is_32 { after } else { &boot.rest[..] };
        let Ok((identity, _)) = Identity::read_from_prefix(identity) else {
            return bad("it is too short".to_owned());
        };
        let table_sectors = match is_32 {
            true => u64::from(large.fat_sz32.get()),
            false => u64::from(boot.fat_sz16.get()),
        };
        if reserved == 0 || !(1..=4).contains(&tables) || table_sectors == 0 {
            return bad(format!(
                "{tables} tables of {table_sectors} sectors after {reserved} reserved ones"
            ));
        }
        if sectors * sector > length {
            return bad(format!(
                "{sectors} sectors of {sector} bytes, and {length} bytes are there"
            ));
        }
        let root_sectors = (32 * roots).div_ceil(sector);
        let first_data = reserved + tables * table_sectors + root_sectors;
        let Some(data_sectors) = sectors.checked_sub(first_data).filter(|&count| count > 0) else {
            return bad(format!("{sectors} sectors, and the data begin at the {first_data}th"));
        };
        let clusters = to_u32((data_sectors / per_cluster).min(u64::from(u32::MAX)));
        let width = match (is_32, clusters) {
            (true, _) => Width::Fat32,
            (false, ..FAT12_BELOW) => Width::Fat12,
            _ => Width::Fat16,
        };
        // A table too short for all clusters makes those at the end unusable.
        let table_size = table_sectors * sector;
        let most = (table_size * 8 / width.bits()).saturating_sub(2);
        let clusters = to_u32(u64::from(clusters).min(most));
        let limit = if width == Width::Fat16 { 0xfff5 } else { MOST_CLUSTERS };
        if clusters == 0 || clusters > limit {
            return Err(Error::unsupported(
                format!("a FAT volume of {clusters} clusters"),
                format!("volumes of 1 to {limit} clusters can be edited"),
            ));
        }
        let end = Cluster::new(clusters + Cluster::FIRST.get());
        let root_cluster = match is_32 {
            true => Cluster::new(large.root_clus.get() & 0x0fff_ffff),
            false => Cluster::NONE,
        };
        if is_32 && !root_cluster.is_before(end) {
            return bad(format!("BPB_RootClus is {root_cluster}, of {clusters} clusters"));
        }
        if is_32 && large.fs_ver.get() != 0 {
            return Err(Error::unsupported(
                format!("FAT32 of version {:#x}", large.fs_ver.get()),
                "version 0 is known",
            ));
        }
        let flags = if is_32 { large.ext_flags.get() } else { 0 };
        let active = (flags & 0x80 != 0).then_some(u64::from(flags & 15));
        if active.is_some_and(|active| active >= tables) {
            return bad(format!("BPB_ExtFlags is {flags:#x}, and there are {tables} tables"));
        }
        let root_at = VolumeByte::new((reserved + tables * table_sectors) * sector);
        let info = Some(u64::from(large.fs_info.get()))
            .filter(|&at| is_32 && at > 0 && at < reserved)
            .map(|at| VolumeByte::new(at * sector));
        Ok(Self {
            width,
            sector,
            cluster: to_usize(sector * per_cluster),
            table: VolumeByte::new(reserved * sector),
            table_size,
            tables,
            active,
            fixed_root: (!is_32).then_some((root_at, 32 * to_usize(roots))),
            root_cluster,
            data: VolumeByte::new(first_data * sector),
            end,
            info,
            serial: identity.vol_id.get(),
            label: identity.vol_lab,
            state: VolumeByte::new(to_u64(
                offset_of!(BootSector, rest)
                    + if is_32 { size_of::<Fat32>() } else { 0 }
                    + offset_of!(Identity, reserved1),
            )),
            size: sectors * sector,
        })
    }

    /// First byte of a cluster.
    pub(super) fn place(&self, cluster: Cluster) -> VolumeByte {
        let before = cluster.get().saturating_sub(Cluster::FIRST.get());
        self.data + u64::from(before) * to_u64(self.cluster)
    }

    /// First byte of each table that is written.
    pub(super) fn table_copies(&self) -> Vec<VolumeByte> {
        let all = (0..self.tables).filter(|&index| self.active.is_none_or(|one| one == index));
        all.map(|index| self.table + index * self.table_size).collect()
    }
}
