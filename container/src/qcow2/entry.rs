//! L2 entries: where the bytes of one guest cluster are.

use super::error::{Error, Result};
use super::layout::{ALL_ZERO, COMPRESSED, COPIED, Geometry, MAX_OFFSET, OFFSET_MASK, SECTOR};

/// The place of the bytes of one guest cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// As they are, or not there, or zeros.
    Plain(Plain),
    /// Compressed, in `size` bytes of the file from `offset`.
    Compressed { offset: u64, size: u64 },
}

/// A standard cluster. Its parts are its 32 subclusters, or it has one part, the whole cluster.
/// A part that is neither present nor zero is read from the backing file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plain {
    /// The cluster in the file, if there is one.
    pub(crate) host: Option<u64>,
    /// The entry says that the refcount is exactly one.
    pub(crate) copied: bool,
    /// Parts whose bytes are in the file, a bit each.
    pub(crate) present: u32,
    /// Parts that read as zeros, a bit each.
    pub(crate) zero: u32,
}

impl Mapping {
    pub(crate) const UNALLOCATED: Self =
        Self::Plain(Plain { host: None, copied: false, present: 0, zero: 0 });
}

/// Understands the entry of guest cluster `cluster`. `second` is the second word of an extended
/// entry.
pub(crate) fn decode(geo: Geometry, cluster: u64, first: u64, second: u64) -> Result<Mapping> {
    let wrong = |detail: &str| {
        let detail = format!("{first:#018x} of guest cluster {cluster}: {detail}");
        Error::corrupt("L2 entry", first & OFFSET_MASK, detail)
    };
    if first & COMPRESSED != 0 {
        let offset_bits = 62 - (geo.cluster_bits - 8);
        let offset = first & ((1 << offset_bits) - 1);
        if offset == 0 || offset >= MAX_OFFSET {
            return Err(wrong("there is no compressed cluster there"));
        }
        let sectors = ((first & !(COPIED | COMPRESSED)) >> offset_bits) + 1;
        return Ok(Mapping::Compressed { offset, size: sectors * SECTOR - offset % SECTOR });
    }
    let offset = first & OFFSET_MASK;
    if !geo.is_aligned(offset) {
        return Err(wrong("the cluster's offset is not a multiple of its size"));
    }
    let host = (offset != 0).then_some(offset);
    let (present, zero) = if geo.extended {
        ((second & 0xffff_ffff) as u32, (second >> 32) as u32)
    } else {
        let zero = geo.version >= 3 && first & ALL_ZERO != 0;
        (u32::from(host.is_some() && !zero), u32::from(zero))
    };
    if present & zero != 0 {
        return Err(wrong("a subcluster is allocated and zero at once"));
    }
    if present != 0 && host.is_none() {
        return Err(wrong("subclusters are allocated in no cluster"));
    }
    let copied = host.is_some() && first & COPIED != 0;
    Ok(Mapping::Plain(Plain { host, copied, present, zero }))
}

/// The two words of an entry; the second is for extended ones only.
pub(crate) fn encode(geo: Geometry, plain: Plain) -> (u64, u64) {
    let mut first = plain.host.unwrap_or(0);
    if plain.host.is_some() && plain.copied {
        first |= COPIED;
    }
    if geo.extended {
        return (first, u64::from(plain.present) | u64::from(plain.zero) << 32);
    }
    if plain.zero != 0 {
        first |= ALL_ZERO;
    }
    (first, 0)
}

/// Clusters of the file that a compressed cluster touches; each has a reference of it.
pub(crate) fn touched(geo: Geometry, offset: u64, size: u64) -> std::ops::RangeInclusive<u64> {
    offset / geo.cluster_size()..=(offset + size.max(1) - 1) / geo.cluster_size()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(cluster_bits: u32, extended: bool) -> Geometry {
        Geometry { version: 3, cluster_bits, extended, refcount_order: 4 }
    }

    #[test]
    fn entries_of_the_specification() {
        let geo = geometry(16, false);
        assert_eq!(decode(geo, 0, 0, 0).unwrap(), Mapping::UNALLOCATED);
        let plain = Plain { host: Some(0x5_0000), copied: true, present: 1, zero: 0 };
        assert_eq!(decode(geo, 0, COPIED | 0x5_0000, 0).unwrap(), Mapping::Plain(plain));
        assert_eq!(encode(geo, plain), (COPIED | 0x5_0000, 0));
        let zero = Plain { host: None, copied: false, present: 0, zero: 1 };
        assert_eq!(decode(geo, 0, 1, 0).unwrap(), Mapping::Plain(zero));
        // 64 KiB: 54 bits of offset, then sectors beyond the first.
        let entry = COMPRESSED | 2 << 54 | 0x1_0123;
        let expected = Mapping::Compressed { offset: 0x1_0123, size: 3 * 512 - 0x123 };
        assert_eq!(decode(geo, 0, entry, 0).unwrap(), expected);
        assert_eq!(touched(geo, 0x1_ff00, 0x200), 1..=2);
        assert!(decode(geo, 0, 0x5_0200, 0).is_err());
        assert!(decode(geo, 0, COMPRESSED, 0).is_err());
    }

    #[test]
    fn subclusters_are_one_or_the_other() {
        let geo = geometry(16, true);
        let plain = Plain { host: Some(0x5_0000), copied: false, present: 3, zero: 4 };
        let (first, second) = encode(geo, plain);
        assert_eq!(decode(geo, 0, first, second).unwrap(), Mapping::Plain(plain));
        assert!(decode(geo, 0, first, 1 | 1 << 32).is_err());
        assert!(decode(geo, 0, 0, 1).is_err());
        assert!(decode(geo, 0, 0, 1 << 32).is_ok());
    }
}
