//! The header: read, checked, and written again as one sector.

use snf_fs::BlockDevice;
use snf_fs::error::display_name;
use zerocopy::{FromBytes, IntoBytes};

use super::error::{Error, Result};
use super::extensions::Extensions;
use super::layout::{
    Geometry, HEADER_V2, HEADER_V3, MAGIC, MAX_BACKING_NAME, MAX_L1_BYTES, RawHeader, RawHeader3,
    SECTOR, incompatible,
};

/// The header of an open image.
#[derive(Clone, Debug)]
pub(crate) struct Header {
    pub(crate) raw: RawHeader,
    /// Only version 3 has these.
    pub(crate) raw3: Option<RawHeader3>,
    pub(crate) geometry: Geometry,
    /// Whether compressed clusters are zstd (otherwise deflate).
    pub(crate) zstd: bool,
    /// The name of the backing file, as it is.
    pub(crate) backing_name: Option<Vec<u8>>,
    /// The first sector of the file as it was read: what is not a known field stays.
    sector: Vec<u8>,
}

/// The size of the disk in an image that begins with `start`, before the rest of it is there;
/// `None` when it is no qcow2 image. Nothing else of the header is checked.
pub fn virtual_size(start: &[u8]) -> Option<u64> {
    let (raw, _) = RawHeader::ref_from_prefix(start).ok()?;
    (raw.magic == MAGIC).then(|| raw.size.get())
}

impl Header {
    /// Reads and checks the header and its extensions.
    pub(crate) fn read(file: &dyn BlockDevice) -> Result<(Self, Extensions)> {
        let mut sector = vec![0; SECTOR as usize];
        let there = file.len().min(SECTOR) as usize;
        file.read_at(0, &mut sector[..there])?;
        if there < 4 || sector[..4] != MAGIC {
            return Err(Error::NotQcow2);
        }
        let cut_off = || Error::corrupt("header", 0, "the file ends within it");
        let (raw, rest) = RawHeader::read_from_prefix(&sector).map_err(|_| cut_off())?;
        let version = raw.version.get();
        if !matches!(version, 2 | 3) {
            return Err(Error::unsupported(
                format!("is qcow2 of version {version}, and only 2 and 3 are known"),
                "convert it with qemu-img convert -O qcow2",
            ));
        }
        let raw3 = match version {
            3 => Some(RawHeader3::read_from_prefix(rest).map_err(|_| cut_off())?.0),
            _ => None,
        };
        let length = raw3.as_ref().map_or(HEADER_V2 as u64, |raw3| raw3.header_length.get().into());
        let needed = if version == 3 { HEADER_V3 } else { HEADER_V2 };
        if there < needed {
            return Err(cut_off());
        }
        let cluster_bits = raw.cluster_bits.get();
        if !(9..=21).contains(&cluster_bits) {
            let detail = format!("cluster_bits is {cluster_bits}; 9 to 21 are valid");
            return Err(Error::corrupt("header", 20, detail));
        }
        if length < needed as u64 || length > 1 << cluster_bits || !length.is_multiple_of(8) {
            return Err(Error::corrupt("header", 100, format!("header_length is {length}")));
        }
        let first = first_cluster(file, 1 << cluster_bits)?;
        let backing_offset = raw.backing_file_offset.get();
        let end = match backing_offset {
            0 => first.len() as u64,
            offset => offset.min(first.len() as u64),
        };
        let extensions = Extensions::parse(&first[..end as usize], length)?;
        let zstd = check_features(&raw, raw3.as_ref(), &sector, length, &extensions)?;
        let refcount_order = raw3.as_ref().map_or(4, |raw3| raw3.refcount_order.get());
        if refcount_order > 6 {
            let detail = format!("refcount_order is {refcount_order}; 0 to 6 are valid");
            return Err(Error::corrupt("header", 96, detail));
        }
        let extended = raw3
            .as_ref()
            .is_some_and(|raw3| raw3.incompatible_features.get() & incompatible::EXTENDED_L2 != 0);
        if extended && cluster_bits < 14 {
            let detail = format!("cluster_bits is {cluster_bits}; extended L2 entries need 14");
            return Err(Error::corrupt("header", 20, detail));
        }
        let geometry = Geometry { version, cluster_bits, extended, refcount_order };
        check_tables(&raw, geometry, file.len())?;
        let backing_name = backing_name(&raw, &first)?;
        Ok((Self { raw, raw3, geometry, zstd, backing_name, sector }, extensions))
    }

    /// Bits of `incompatible_features`; version 2 has none.
    pub(crate) fn incompatible(&self) -> u64 {
        self.raw3.as_ref().map_or(0, |raw3| raw3.incompatible_features.get())
    }

    /// Bits of `autoclear_features`; version 2 has none.
    pub(crate) fn autoclear(&self) -> u64 {
        self.raw3.as_ref().map_or(0, |raw3| raw3.autoclear_features.get())
    }

    /// Writes the known fields. They lie in one sector, which a cut leaves old or new.
    pub(crate) fn write(&mut self, file: &dyn BlockDevice) -> Result<()> {
        self.sector[..HEADER_V2].copy_from_slice(self.raw.as_bytes());
        if let Some(raw3) = &self.raw3 {
            self.sector[HEADER_V2..HEADER_V3].copy_from_slice(raw3.as_bytes());
        }
        Ok(file.write_at(0, &self.sector)?)
    }

    /// The name of the backing file for messages.
    pub(crate) fn backing_for_people(&self) -> String {
        display_name(self.backing_name.as_deref().unwrap_or_default())
    }
}

/// The first cluster, or as much of it as there is.
fn first_cluster(file: &dyn BlockDevice, cluster_size: u64) -> Result<Vec<u8>> {
    let mut first = vec![0; file.len().min(cluster_size) as usize];
    file.read_at(0, &mut first)?;
    Ok(first)
}

/// Refuses by name what cannot be handled; whether compressed clusters are zstd.
fn check_features(
    raw: &RawHeader,
    raw3: Option<&RawHeader3>,
    sector: &[u8],
    header_length: u64,
    extensions: &Extensions,
) -> Result<bool> {
    const DECRYPT: &str = "decrypt it with qemu-img convert";
    match raw.crypt_method.get() {
        0 => {}
        1 => return Err(Error::unsupported("is encrypted (AES)", DECRYPT)),
        2 => return Err(Error::unsupported("is encrypted (LUKS)", DECRYPT)),
        n => return Err(Error::unsupported(format!("is encrypted (method {n})"), DECRYPT)),
    }
    let Some(raw3) = raw3 else { return Ok(false) };
    let features = raw3.incompatible_features.get();
    let known = incompatible::DIRTY
        | incompatible::CORRUPT
        | incompatible::DATA_FILE
        | incompatible::COMPRESSION_TYPE
        | incompatible::EXTENDED_L2;
    if features & !known != 0 {
        let bit = (features & !known).trailing_zeros();
        let name = extensions.feature_name(0, bit as u8).unwrap_or_else(|| "no name".to_owned());
        return Err(Error::unsupported(
            format!("needs the unknown feature \"{name}\" (incompatible bit {bit})"),
            "convert it with the qemu-img that made it",
        ));
    }
    if features & incompatible::CORRUPT != 0 {
        return Err(Error::Marked { mark: "corrupt" });
    }
    if features & incompatible::DATA_FILE != 0 {
        return Err(Error::unsupported(
            "keeps its data in an external data file, which is never opened",
            "convert it with qemu-img convert -O qcow2",
        ));
    }
    // A field of one byte after the fixed header: absent means 0.
    let method = if header_length > HEADER_V3 as u64 { sector[HEADER_V3] } else { 0 };
    match (features & incompatible::COMPRESSION_TYPE != 0, method) {
        (false, 0) => Ok(false),
        (true, 1) => Ok(true),
        (true, 0) | (false, _) => {
            let detail = format!("compression_type {method} contradicts the feature bit");
            Err(Error::corrupt("header", HEADER_V3 as u64, detail))
        }
        (true, _) => Err(Error::unsupported(
            format!("compresses with the unknown method {method}"),
            "convert it with qemu-img convert -O qcow2",
        )),
    }
}

/// The level 1 table is long enough, not too long, and within the file.
fn check_tables(raw: &RawHeader, geometry: Geometry, file_size: u64) -> Result<()> {
    let (size, entries) = (raw.size.get(), u64::from(raw.l1_size.get()));
    let needed = geometry.l1_needed(size);
    if needed > entries || entries * 8 > MAX_L1_BYTES {
        let detail = format!(
            "the level 1 table has {entries} entries for {size} bytes: {needed} are needed, and at \
             most {} are read",
            MAX_L1_BYTES / 8
        );
        return Err(Error::corrupt("header", 36, detail));
    }
    let offset = raw.l1_table_offset.get();
    let inside = offset.checked_add(entries * 8).is_some_and(|end| end <= file_size);
    if entries > 0 && (!geometry.is_aligned(offset) || offset == 0 || !inside) {
        let detail = format!("the level 1 table at {offset} is not within the file");
        return Err(Error::corrupt("header", 40, detail));
    }
    Ok(())
}

fn backing_name(raw: &RawHeader, first: &[u8]) -> Result<Option<Vec<u8>>> {
    let (offset, length) = (raw.backing_file_offset.get(), raw.backing_file_size.get());
    if offset == 0 {
        return Ok(None);
    }
    if length == 0 || length > MAX_BACKING_NAME {
        return Err(Error::corrupt("header", 16, format!("backing_file_size is {length}")));
    }
    usize::try_from(offset)
        .ok()
        .and_then(|start| first.get(start..start.checked_add(length as usize)?))
        .map(|name| Some(name.to_vec()))
        .ok_or_else(|| {
            Error::corrupt("header", 8, "the backing file's name is not in the first cluster")
        })
}
