//! A hive in memory: its base block, bins and cells.

use std::collections::BTreeMap;

use snf_fs::Timestamp;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::error::{HiveError, LogProblem, Result};
use super::format::{
    BaseBlock, CELL_HEADER, CellSize, HiveBin, KEY_COMP_NAME, KEY_HIVE_ENTRY, KEY_NO_DELETE,
    KeyNode, KeySecurity, NONE, PAGE,
};
use super::name::Name;

/// The largest hive that is read: Windows itself stops at 2 GiB, and no hive of an image comes
/// near this.
pub(super) const SIZE_MAX: usize = 1 << 30;

/// A time as Windows counts: units of 100 ns since 1601.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct FileTime(pub u64);

impl From<Timestamp> for FileTime {
    fn from(time: Timestamp) -> Self {
        const TO_1970: i128 = 11_644_473_600;
        let units =
            (i128::from(time.seconds) + TO_1970) * 10_000_000 + i128::from(time.nanoseconds / 100);
        Self(u64::try_from(units).unwrap_or(0))
    }
}

/// A key of a hive: where its node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub(super) u32);

/// A registry hive in memory.
pub struct Hive {
    /// The whole file.
    pub(super) data: Vec<u8>,
    /// Start and size of each hive bin.
    pub(super) bins: Vec<(u32, u32)>,
    /// Free cells: offset and size.
    pub(super) free: BTreeMap<u32, u32>,
    /// One bit for every 8 bytes: whether an allocated cell begins there.
    starts: Vec<u64>,
    /// The format's minor version.
    pub(super) minor: u32,
    pub(super) changed: bool,
    /// The time that changes carry.
    pub(super) now: FileTime,
}

impl std::fmt::Debug for Hive {
    /// Without its bytes: a hive may hold password hashes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hive({} bytes, version 1.{})", self.data.len(), self.minor)
    }
}

impl Hive {
    /// Reads a hive that was closed cleanly; `now` is the time that changes carry.
    pub fn open(data: Vec<u8>, now: FileTime) -> Result<Self> {
        let base = base_block(&data)?;
        if !base.is_intact() {
            return Err(HiveError::base("the checksum is wrong"));
        }
        let (primary, secondary) =
            (base.primary_sequence_number.get(), base.secondary_sequence_number.get());
        if primary != secondary {
            let reason = LogProblem::NotGiven;
            return Err(HiveError::Dirty { primary, secondary, reason });
        }
        Self::parse(data, now)
    }

    /// Reads a hive whose base block has been found good.
    pub(super) fn parse(data: Vec<u8>, now: FileTime) -> Result<Self> {
        let base = base_block(&data)?;
        let (major, minor) = (base.major_version.get(), base.minor_version.get());
        if major != 1 || !(2..=6).contains(&minor) {
            return Err(HiveError::Unsupported {
                what: format!("a registry hive of version {major}.{minor}"),
                remedy: "those of Windows 2000 to 11 are (1.3 to 1.6)",
            });
        }
        if base.file_type.get() != 0 || base.file_format.get() != 1 {
            return Err(HiveError::base("it is not that of a hive's primary file"));
        }
        let mut hive = Self {
            data,
            bins: Vec::new(),
            free: BTreeMap::new(),
            starts: Vec::new(),
            minor,
            changed: false,
            now,
        };
        hive.scan(base.hive_bins_data_size.get())?;
        let root = Key(base.root_cell_offset.get());
        hive.node(root)?;
        Ok(hive)
    }

    /// Walks all bins and cells.
    fn scan(&mut self, size: u32) -> Result<()> {
        let available = self.data.len().saturating_sub(PAGE);
        if size == 0 || !(size as usize).is_multiple_of(PAGE) || size as usize > available {
            return Err(HiveError::base(format!(
                "hive bins of {size} bytes in a file that has {available} for them"
            )));
        }
        self.starts = vec![0; (size as usize).div_ceil(8 * 64)];
        let mut at = 0;
        while at < size {
            let header: HiveBin = self.read_at("hive bin", at)?;
            let length = header.size.get();
            if header.signature != *b"hbin" || header.offset.get() != at {
                return Err(HiveError::cell("hive bin", at, "no bin begins there"));
            }
            if length == 0 || !(length as usize).is_multiple_of(PAGE) || length > size - at {
                return Err(HiveError::cell("hive bin", at, format!("its size is {length}")));
            }
            self.bins.push((at, length));
            self.scan_bin(at, length)?;
            at += length;
        }
        Ok(())
    }

    fn scan_bin(&mut self, bin: u32, length: u32) -> Result<()> {
        let end = bin + length;
        let mut at = bin + size_of::<HiveBin>() as u32;
        while at < end {
            let header: CellSize = self.read_at("cell", at)?;
            let signed = header.size.get();
            let size = signed.unsigned_abs();
            if size < 8 || !size.is_multiple_of(8) || size > end - at {
                return Err(HiveError::cell("cell", at, format!("its size is {signed}")));
            }
            if signed < 0 {
                self.mark(at, true);
            } else {
                self.free.insert(at, size);
            }
            at += size;
        }
        Ok(())
    }

    /// Notes that an allocated cell begins, or no longer begins, at an offset.
    pub(super) fn mark(&mut self, offset: u32, begins: bool) {
        let (word, bit) = ((offset / 512) as usize, 1u64 << (offset / 8 % 64));
        if word >= self.starts.len() {
            self.starts.resize(word + 1, 0);
        }
        if begins {
            self.starts[word] |= bit;
        } else {
            self.starts[word] &= !bit;
        }
    }

    fn begins(&self, offset: u32) -> bool {
        let word = self.starts.get((offset / 512) as usize);
        offset.is_multiple_of(8) && word.is_some_and(|word| word & 1 << (offset / 8 % 64) != 0)
    }

    /// A structure at an offset of the hive bins data.
    pub(super) fn read_at<T: FromBytes + KnownLayout + Immutable + Unaligned>(
        &self,
        structure: &'static str,
        offset: u32,
    ) -> Result<T> {
        let rest = self.data.get(PAGE + offset as usize..).unwrap_or_default();
        match T::read_from_prefix(rest) {
            Ok((value, _)) => Ok(value),
            Err(_) => Err(HiveError::cell(structure, offset, "it is beyond the hive's end")),
        }
    }

    /// The content of an allocated cell, without its size field.
    pub(super) fn cell(&self, structure: &'static str, offset: u32) -> Result<&[u8]> {
        let range = self.cell_range(structure, offset)?;
        Ok(self.data.get(range).unwrap_or_default())
    }

    pub(super) fn cell_mut(&mut self, structure: &'static str, offset: u32) -> Result<&mut [u8]> {
        let range = self.cell_range(structure, offset)?;
        self.changed = true;
        Ok(self.data.get_mut(range).unwrap_or_default())
    }

    fn cell_range(&self, structure: &'static str, offset: u32) -> Result<std::ops::Range<usize>> {
        if !self.begins(offset) {
            return Err(HiveError::cell(structure, offset, "no allocated cell begins there"));
        }
        let header: CellSize = self.read_at(structure, offset)?;
        let start = PAGE + offset as usize;
        let end = start + header.size.get().unsigned_abs() as usize;
        Ok(start + CELL_HEADER..end)
    }

    /// The head of a record in a cell, whose signature must be right.
    pub(super) fn record<T: FromBytes + KnownLayout + Immutable + Unaligned>(
        &self,
        structure: &'static str,
        offset: u32,
        signature: [u8; 2],
    ) -> Result<T> {
        let cell = self.cell(structure, offset)?;
        if !cell.starts_with(&signature) {
            let detail = format!("its signature is not {}", String::from_utf8_lossy(&signature));
            return Err(HiveError::cell(structure, offset, detail));
        }
        match T::read_from_prefix(cell) {
            Ok((value, _)) => Ok(value),
            Err(_) => Err(HiveError::cell(structure, offset, "its cell is too small for it")),
        }
    }

    /// Writes the head of a record back.
    pub(super) fn put<T: IntoBytes + Immutable>(
        &mut self,
        structure: &'static str,
        offset: u32,
        record: &T,
    ) -> Result<()> {
        let cell = self.cell_mut(structure, offset)?;
        match cell.get_mut(..size_of::<T>()) {
            Some(place) => {
                place.copy_from_slice(record.as_bytes());
                Ok(())
            }
            None => Err(HiveError::cell(structure, offset, "its cell is too small for it")),
        }
    }

    /// The root key.
    pub fn root(&self) -> Key {
        // Checked when the hive was opened.
        Key(base_block(&self.data).map_or(NONE, |base| base.root_cell_offset.get()))
    }

    /// The format's minor version: 3 to 6.
    pub fn minor_version(&self) -> u32 {
        self.minor
    }

    /// Whether anything changed since the hive was read.
    pub fn is_changed(&self) -> bool {
        self.changed
    }

    /// The file's bytes. If something changed, sequence numbers, time and checksum are those
    /// of a hive that was closed cleanly after one more write, so that its logs count as old.
    pub fn finish(mut self) -> Vec<u8> {
        if !self.changed {
            return self.data;
        }
        if let Ok(mut base) = base_block(&self.data) {
            let number = base.primary_sequence_number.get().wrapping_add(1);
            base.primary_sequence_number.set(number);
            base.secondary_sequence_number.set(number);
            base.last_written_timestamp.set(self.now.0);
            self.put_base(&mut base);
        }
        self.data
    }

    /// Writes the base block with its checksum.
    pub(super) fn put_base(&mut self, base: &mut BaseBlock) {
        base.checksum.set(base.computed_checksum());
        self.data[..512].copy_from_slice(base.as_bytes());
    }

    /// A hive with nothing but a root key, of a minor version (3, 5 or 6) and with the security
    /// descriptor (self-relative form) that its keys are to have.
    pub fn create(name: &str, minor: u32, descriptor: &[u8], now: FileTime) -> Result<Self> {
        let mut data = vec![0; PAGE * 2];
        let mut base = BaseBlock::read_from_bytes(&data[..512])
            .map_err(|_| HiveError::base("it cannot be made"))?;
        base.signature = *b"regf";
        base.primary_sequence_number.set(1);
        base.secondary_sequence_number.set(1);
        base.last_written_timestamp.set(now.0);
        base.major_version.set(1);
        base.minor_version.set(minor);
        base.file_format.set(1);
        base.root_cell_offset.set(NONE);
        base.hive_bins_data_size.set(PAGE as u32);
        base.clustering_factor.set(1);
        let stored = super::name::utf16_bytes(&name.encode_utf16().take(31).collect::<Vec<_>>());
        base.file_name[..stored.len()].copy_from_slice(&stored);
        let mut bin = HiveBin::read_from_bytes(&data[PAGE..PAGE + 32])
            .map_err(|_| HiveError::base("it cannot be made"))?;
        bin.signature = *b"hbin";
        bin.size.set(PAGE as u32);
        bin.timestamp.set(now.0);
        data[PAGE..PAGE + 32].copy_from_slice(bin.as_bytes());
        let room = (PAGE - 32) as i32;
        data[PAGE + 32..PAGE + 36].copy_from_slice(&room.to_le_bytes());
        let mut hive = Self {
            data,
            bins: Vec::new(),
            free: BTreeMap::new(),
            starts: Vec::new(),
            minor,
            changed: true,
            now,
        };
        hive.scan(PAGE as u32)?;
        let security = hive.new_security(descriptor)?;
        let (bytes, latin) = Name::from(name).stored();
        let mut node = KeyNode::read_from_bytes(&[0; size_of::<KeyNode>()])
            .map_err(|_| HiveError::base("it cannot be made"))?;
        node.signature = *b"nk";
        let compressed = if latin { KEY_COMP_NAME } else { 0 };
        node.flags.set(KEY_HIVE_ENTRY | KEY_NO_DELETE | compressed);
        node.last_written_timestamp.set(now.0);
        for place in [
            &mut node.parent,
            &mut node.subkeys_list_offset,
            &mut node.volatile_subkeys_list_offset,
            &mut node.key_values_list_offset,
            &mut node.class_name_offset,
        ] {
            place.set(NONE);
        }
        node.key_security_offset.set(security);
        node.key_name_length.set(bytes.len() as u16);
        let root = hive.new_cell(&[node.as_bytes(), &bytes].concat())?;
        base.root_cell_offset.set(root);
        base.hive_bins_data_size.set(hive.bins_size());
        hive.put_base(&mut base);
        Ok(hive)
    }

    /// A security item of its own, for the root of a new hive.
    fn new_security(&mut self, descriptor: &[u8]) -> Result<u32> {
        let mut item = KeySecurity::read_from_bytes(&[0; size_of::<KeySecurity>()])
            .map_err(|_| HiveError::base("it cannot be made"))?;
        item.signature = *b"sk";
        item.reference_count.set(1);
        item.security_descriptor_size.set(descriptor.len() as u32);
        let offset = self.new_cell(&[item.as_bytes(), descriptor].concat())?;
        item.flink.set(offset);
        item.blink.set(offset);
        self.put("key security", offset, &item)?;
        Ok(offset)
    }

    /// Size of all hive bins.
    pub(super) fn bins_size(&self) -> u32 {
        self.bins.last().map_or(0, |(start, size)| start + size)
    }
}

/// The base block of a file that is long enough to be a hive and says that it is one.
pub(super) fn base_block(data: &[u8]) -> Result<BaseBlock> {
    if data.len() > SIZE_MAX {
        return Err(HiveError::Unsupported {
            what: format!("a registry hive of {} bytes", data.len()),
            remedy: "none of Windows' own is larger than 1 GiB",
        });
    }
    let Ok((base, _)) = BaseBlock::read_from_prefix(data) else {
        return Err(HiveError::base(format!("the file has only {} bytes", data.len())));
    };
    if base.signature != *b"regf" {
        return Err(HiveError::base("the file is no registry hive: it does not begin with regf"));
    }
    Ok(base)
}
