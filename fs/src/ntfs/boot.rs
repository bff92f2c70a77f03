//! The boot sector: how large the volume and its units are, and where the MFT begins.

use zerocopy::FromBytes;

use super::layout::BootSector;
use super::units::Lcn;
use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::num::{to_u32, to_usize};

/// The volume's shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes of a sector.
    pub sector: u32,
    /// Bytes of a cluster.
    pub cluster: u64,
    /// Clusters of the volume.
    pub clusters: u64,
    /// Bytes of the volume, the backup boot sector not among them.
    pub size: u64,
    /// Bytes of an MFT record.
    pub record: usize,
    /// First cluster of the MFT.
    pub mft_lcn: Lcn,
    /// First cluster of the MFT's mirror.
    pub mirror_lcn: Lcn,
    /// The volume's serial number.
    pub serial: u64,
}

fn corrupt(detail: String) -> Error {
    Error::corrupt("boot sector", "byte 0", detail)
}

/// A count of units (positive), or the power of two of a size in bytes (negative).
fn coded(code: u8, unit: u64) -> Option<u64> {
    match code.cast_signed() {
        0 => None,
        count @ 1.. => u64::from(count.unsigned_abs()).checked_mul(unit),
        power => 1u64.checked_shl(u32::from(power.unsigned_abs())),
    }
}

impl Geometry {
    /// Reads the first sector of a volume.
    pub fn read(device: &dyn BlockDevice) -> Result<Self> {
        if device.len() < 512 {
            return Err(corrupt(format!("the device has only {} bytes", device.len())));
        }
        let mut bytes = [0; 512];
        device.read_at(0, &mut bytes)?;
        Self::parse(&bytes, device.len())
    }

    /// Parses a boot sector on a device of `length` bytes.
    pub fn parse(bytes: &[u8; 512], length: u64) -> Result<Self> {
        let boot = BootSector::read_from_bytes(bytes).map_err(|_| corrupt("512 bytes".into()))?;
        if &boot.oem != b"NTFS    " {
            return Err(corrupt(format!(
                "it says \"{}\" where \"NTFS    \" is expected",
                boot.oem.escape_ascii()
            )));
        }
        let sector = u64::from(boot.bytes_per_sector.get());
        if !sector.is_power_of_two() || !(512..=4096).contains(&sector) {
            return Err(corrupt(format!("BytesPerSector is {sector}")));
        }
        // More than 128 sectors are written as the power of two, negated.
        let code = boot.sectors_per_cluster;
        let count = match code {
            0..=128 => Some(u64::from(code)),
            _ => 1u64.checked_shl(256 - u32::from(code)),
        };
        let cluster = count.and_then(|count| count.checked_mul(sector)).unwrap_or(0);
        if !cluster.is_power_of_two() || !(512..=2 << 20).contains(&cluster) {
            return Err(corrupt(format!("SectorsPerCluster is {code}")));
        }
        let record = coded(boot.clusters_per_file_record_segment, cluster).unwrap_or(0);
        if !record.is_power_of_two() || !(1024..=4096).contains(&record) || record < sector {
            return Err(corrupt(format!(
                "ClustersPerFileRecordSegment is {}: MFT records of {record} bytes",
                boot.clusters_per_file_record_segment
            )));
        }
        let sectors = boot.number_sectors.get();
        let size = sectors.checked_mul(sector).filter(|&size| size <= length);
        let Some(size) = size else {
            return Err(corrupt(format!(
                "{sectors} sectors of {sector} bytes, and the device has {length} bytes"
            )));
        };
        let clusters = size / cluster;
        let mft_lcn = Lcn(boot.mft_start_lcn.get());
        let mirror_lcn = Lcn(boot.mft2_start_lcn.get());
        for (what, lcn) in [("MftStartLcn", mft_lcn), ("Mft2StartLcn", mirror_lcn)] {
            if lcn.0 >= clusters || lcn.byte(cluster) + record > size {
                return Err(corrupt(format!("{what} is {lcn}, of {clusters} clusters")));
            }
        }
        Ok(Self {
            sector: to_u32(sector),
            cluster,
            clusters,
            size,
            record: to_usize(record),
            mft_lcn,
            mirror_lcn,
            serial: boot.serial_number.get(),
        })
    }

    /// How many clusters `bytes` take.
    pub fn clusters_for(&self, bytes: u64) -> u64 {
        bytes.div_ceil(self.cluster)
    }
}
