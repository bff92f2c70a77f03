//! New images, of version 3.

use zerocopy::IntoBytes;

use super::error::{Error, Result};
use super::extensions::{FEATURE_ENTRY, FEATURE_NAMES};
use super::layout::{
    Geometry, HEADER_V3, MAGIC, MAX_L1_BYTES, MAX_REFCOUNT_TABLE_BYTES, RawHeader, RawHeader3,
    incompatible,
};
use super::width;
use crate::file::GrowableDevice;

/// The header with the compression type and its padding, as QEMU writes it.
const HEADER_LENGTH: usize = HEADER_V3 + 8;
/// QEMU's names of the features: kind, bit, name.
const FEATURES: [(u8, u8, &str); 8] = [
    (0, 0, "dirty bit"),
    (0, 1, "corrupt bit"),
    (0, 2, "external data file"),
    (0, 3, "compression type"),
    (0, 4, "extended L2 entries"),
    (1, 0, "lazy refcounts"),
    (2, 0, "bitmaps"),
    (2, 1, "raw external data"),
];

/// The properties of a new image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CreateOptions {
    /// Bytes of a cluster: a power of two from 512 to 2 MiB.
    pub cluster_size: u64,
    /// Bits of a refcount: a power of two from 1 to 64.
    pub refcount_bits: u32,
    /// Whether parts of a cluster (subclusters) are allocated by themselves; clusters of 16 KiB and
    /// more.
    pub extended_l2: bool,
}

impl Default for CreateOptions {
    /// Clusters of 64 KiB, refcounts of 16 bits, no subclusters: as qemu-img.
    fn default() -> Self {
        Self { cluster_size: 65_536, refcount_bits: 16, extended_l2: false }
    }
}

impl CreateOptions {
    /// The same, with clusters of this many bytes.
    #[must_use]
    pub fn cluster_size(mut self, bytes: u64) -> Self {
        self.cluster_size = bytes;
        self
    }

    /// The same, with refcounts of this many bits.
    #[must_use]
    pub fn refcount_bits(mut self, bits: u32) -> Self {
        self.refcount_bits = bits;
        self
    }

    /// The same, with or without subclusters.
    #[must_use]
    pub fn extended_l2(mut self, extended: bool) -> Self {
        self.extended_l2 = extended;
        self
    }

    fn geometry(&self) -> Result<Geometry> {
        let smallest = if self.extended_l2 { 16_384 } else { 512 };
        if !self.cluster_size.is_power_of_two()
            || !(smallest..=2 << 20).contains(&self.cluster_size)
        {
            return Err(Error::Invalid(match self.extended_l2 {
                true => "a cluster with subclusters has 16 KiB to 2 MiB, a power of two",
                false => "a cluster has 512 bytes to 2 MiB, a power of two",
            }));
        }
        if !self.refcount_bits.is_power_of_two() || self.refcount_bits > 64 {
            return Err(Error::Invalid("a refcount has 1, 2, 4, 8, 16, 32 or 64 bits"));
        }
        Ok(Geometry {
            version: 3,
            cluster_bits: self.cluster_size.trailing_zeros(),
            extended: self.extended_l2,
            refcount_order: self.refcount_bits.trailing_zeros(),
        })
    }
}

/// Makes an empty image with a disk of `size` bytes in `file`. The old content of the file is lost. The
/// header is written last, so that a cut leaves no half image.
///
/// # Errors
/// The options are not valid, the disk is too large for them, or the device failed.
pub fn create(file: &dyn GrowableDevice, size: u64, options: &CreateOptions) -> Result<()> {
    let geo = options.geometry()?;
    if !size.is_multiple_of(512) {
        return Err(Error::Invalid("a disk's size must be a multiple of 512 bytes"));
    }
    let cluster_size = geo.cluster_size();
    let l1_size = geo.l1_needed(size);
    if l1_size * 8 > MAX_L1_BYTES {
        let limit = MAX_L1_BYTES / 8 * geo.l2_span();
        return Err(Error::TooLarge {
            what: format!("a disk of {size} bytes"),
            limit: format!("{limit} bytes with clusters of {cluster_size}"),
        });
    }
    let l1_clusters = geo.clusters(l1_size * 8);
    let (mut table_clusters, mut blocks) = (1, 1);
    let total = loop {
        let total = 1 + table_clusters + blocks + l1_clusters;
        let wanted = total.div_ceil(geo.refcounts_per_block());
        let table = geo.clusters(wanted * 8);
        if (table, wanted) == (table_clusters, blocks) {
            break total;
        }
        (table_clusters, blocks) = (table.max(table_clusters), wanted.max(blocks));
    };
    if table_clusters * cluster_size > MAX_REFCOUNT_TABLE_BYTES {
        let what = "the refcount table".to_owned();
        return Err(Error::TooLarge { what, limit: format!("{MAX_REFCOUNT_TABLE_BYTES} bytes") });
    }
    file.set_len(0)?;
    file.set_len(total * cluster_size)?;
    let zeros = vec![0; cluster_size as usize];
    // A block device has old content; an old header must not describe the new tables.
    file.write_at(0, &zeros)?;
    file.flush()?;
    let at = |cluster: u64| cluster * cluster_size;
    let (first_block, first_l1) = (1 + table_clusters, 1 + table_clusters + blocks);
    let mut table: Vec<u64> = (0..blocks).map(|block| at(first_block + block)).collect();
    table.resize((table_clusters * cluster_size / 8) as usize, 0);
    file.write_at(at(1), &super::bytes(&table))?;
    for block in 0..blocks {
        let mut bytes = zeros.clone();
        let used = total.saturating_sub(block * geo.refcounts_per_block());
        for index in 0..used.min(geo.refcounts_per_block()) {
            width::set(&mut bytes, index as usize, geo.refcount_order, 1);
        }
        file.write_at(at(first_block + block), &bytes)?;
    }
    for cluster in first_l1..total {
        file.write_at(at(cluster), &zeros)?;
    }
    file.flush()?;
    let l1_offset = if l1_size == 0 { 0 } else { at(first_l1) };
    file.write_at(0, &header(geo, size, l1_size, l1_offset, at(1), table_clusters))?;
    Ok(file.flush()?)
}

fn header(
    geo: Geometry,
    size: u64,
    l1_size: u64,
    l1_offset: u64,
    table_offset: u64,
    table_clusters: u64,
) -> Vec<u8> {
    let raw = RawHeader {
        magic: MAGIC,
        version: 3.into(),
        backing_file_offset: 0.into(),
        backing_file_size: 0.into(),
        cluster_bits: geo.cluster_bits.into(),
        size: size.into(),
        crypt_method: 0.into(),
        l1_size: (l1_size as u32).into(),
        l1_table_offset: l1_offset.into(),
        refcount_table_offset: table_offset.into(),
        refcount_table_clusters: (table_clusters as u32).into(),
        nb_snapshots: 0.into(),
        snapshots_offset: 0.into(),
    };
    let features = if geo.extended { incompatible::EXTENDED_L2 } else { 0 };
    let raw3 = RawHeader3 {
        incompatible_features: features.into(),
        compatible_features: 0.into(),
        autoclear_features: 0.into(),
        refcount_order: geo.refcount_order.into(),
        header_length: (HEADER_LENGTH as u32).into(),
    };
    let mut bytes = raw.as_bytes().to_vec();
    bytes.extend(raw3.as_bytes());
    bytes.resize(HEADER_LENGTH, 0);
    bytes.extend(FEATURE_NAMES.to_be_bytes());
    bytes.extend(((FEATURES.len() * FEATURE_ENTRY) as u32).to_be_bytes());
    for (kind, bit, name) in FEATURES {
        let start = bytes.len();
        bytes.extend([kind, bit]);
        bytes.extend(name.as_bytes());
        bytes.resize(start + FEATURE_ENTRY, 0);
    }
    // The end of the extensions: exactly the end of the smallest cluster.
    bytes.extend([0; 8]);
    bytes
}
