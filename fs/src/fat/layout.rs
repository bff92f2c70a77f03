//! Structures of FAT on disk, with the names of their fields as Microsoft's specification has
//! them. All numbers are little-endian.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::units::Cluster;

/// The BIOS parameter block, with which every boot sector begins.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct BootSector {
    pub jmp_boot: [u8; 3],
    pub oem_name: [u8; 8],
    pub byts_per_sec: U16,
    pub sec_per_clus: u8,
    pub rsvd_sec_cnt: U16,
    pub num_fats: u8,
    pub root_ent_cnt: U16,
    pub tot_sec16: U16,
    pub media: u8,
    pub fat_sz16: U16,
    pub sec_per_trk: U16,
    pub num_heads: U16,
    pub hidd_sec: U32,
    pub tot_sec32: U32,
    /// [`Fat32`] first with FAT32, [`Identity`] at once with FAT12 and FAT16.
    pub rest: [u8; 474],
    pub signature: [u8; 2],
}

/// The fields that FAT32 has after the BIOS parameter block.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Fat32 {
    pub fat_sz32: U32,
    pub ext_flags: U16,
    pub fs_ver: U16,
    pub root_clus: U32,
    pub fs_info: U16,
    pub bk_boot_sec: U16,
    pub reserved: [u8; 12],
}

/// The identity of the volume.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct Identity {
    pub drv_num: u8,
    /// Its lowest bit says "not cleanly unmounted".
    pub reserved1: u8,
    pub boot_sig: u8,
    pub vol_id: U32,
    pub vol_lab: [u8; 11],
    pub fil_sys_type: [u8; 8],
}

/// FSInfo, a sector with a count of free clusters that other drivers believe.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct FsInfo {
    pub lead_sig: [u8; 4],
    pub reserved1: [u8; 480],
    pub struc_sig: [u8; 4],
    pub free_count: U32,
    pub nxt_free: U32,
    pub reserved2: [u8; 12],
    pub trail_sig: [u8; 4],
}

/// An entry of a directory.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned,
)]
#[repr(C)]
pub(super) struct ShortEntry {
    pub name: [u8; 11],
    pub attr: u8,
    pub nt_res: u8,
    pub crt_time_tenth: u8,
    pub crt_time: U16,
    pub crt_date: U16,
    pub lst_acc_date: U16,
    pub fst_clus_hi: U16,
    pub wrt_time: U16,
    pub wrt_date: U16,
    pub fst_clus_lo: U16,
    pub file_size: U32,
}

/// An entry with thirteen units of a long name.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct LongEntry {
    pub ord: u8,
    pub name1: [U16; 5],
    pub attr: u8,
    pub kind: u8,
    pub chksum: u8,
    pub name2: [U16; 6],
    pub fst_clus_lo: U16,
    pub name3: [U16; 2],
}

const _: () = {
    assert!(size_of::<BootSector>() == 512);
    assert!(size_of::<Fat32>() == 28);
    assert!(size_of::<Identity>() == 26);
    assert!(size_of::<FsInfo>() == 512);
    assert!(size_of::<ShortEntry>() == 32);
    assert!(size_of::<LongEntry>() == 32);
};

impl ShortEntry {
    /// The first cluster, 0 for none.
    pub(super) fn cluster(&self) -> Cluster {
        let [a, b] = self.fst_clus_lo.to_bytes();
        let [c, d] = self.fst_clus_hi.to_bytes();
        Cluster::new(u32::from_le_bytes([a, b, c, d]))
    }

    /// Sets the first cluster.
    pub(super) fn set_cluster(&mut self, cluster: Cluster) {
        let [a, b, c, d] = cluster.get().to_le_bytes();
        self.fst_clus_lo = U16::from_bytes([a, b]);
        self.fst_clus_hi = U16::from_bytes([c, d]);
    }
}

impl LongEntry {
    /// All units of the part.
    pub(super) fn units(&self) -> [u16; 13] {
        let all = self.name1.iter().chain(&self.name2).chain(&self.name3);
        let mut out = [0; 13];
        out.iter_mut().zip(all).for_each(|(to, from)| *to = from.get());
        out
    }

    /// Sets all units of the part.
    pub(super) fn set_units(&mut self, units: [u16; 13]) {
        let all = self.name1.iter_mut().chain(&mut self.name2).chain(&mut self.name3);
        all.zip(units).for_each(|(to, from)| *to = from.into());
    }
}
