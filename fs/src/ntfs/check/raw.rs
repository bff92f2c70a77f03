//! The shapes on disk, read without trusting any of them: the boot sector, update sequences, run
//! lists and attributes. The caller hears of each fault and goes on with the rest.

use std::cell::Cell;

use crate::device::BlockDevice;
use crate::error::{Error, Result};
use crate::num::{to_u8, to_u64, to_usize};

/// Update sequence numbers protect pieces of this size, whatever the sector size is.
pub const STRIDE: usize = 512;
/// The end mark of a record's attributes.
pub const END: u32 = 0xffff_ffff;
/// The part of a file reference that is the record's number; the rest is its sequence number.
pub const RECORD_MASK: u64 = 0xffff_ffff_ffff;

pub(crate) fn le16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}

pub(crate) fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

pub(crate) fn le64(bytes: &[u8], at: usize) -> u64 {
    u64::from(le32(bytes, at)) | u64::from(le32(bytes, at + 4)) << 32
}

/// UTF-16 code units of a name.
pub(crate) fn units(bytes: &[u8]) -> Vec<u16> {
    bytes.chunks_exact(2).map(|b| u16::from_le_bytes([b[0], b[1]])).collect()
}

/// A name for a message: text where it is text, escaped where it could forge lines.
pub(crate) fn shown(name: &[u16]) -> String {
    crate::error::display_name(String::from_utf16_lossy(name).as_bytes())
}

/// The facts of the boot sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// BytesPerSector.
    pub sector: u64,
    /// Bytes of a cluster.
    pub cluster: u64,
    /// NumberSectors: the sectors of the volume, the backup boot sector not among them.
    pub sectors: u64,
    /// Whole clusters of the volume.
    pub clusters: u64,
    /// Bytes of an MFT record.
    pub record: usize,
    /// Bytes of an index block, as the boot sector has it.
    pub index: usize,
    /// MftStartLcn.
    pub mft: u64,
    /// Mft2StartLcn.
    pub mirror: u64,
    /// SerialNumber.
    pub serial: u64,
}

impl Geometry {
    /// Reads the first 512 bytes of a volume on a device of `length` bytes.
    pub fn parse(boot: &[u8], length: u64) -> Result<Self> {
        let bad = |detail: String| Err(Error::corrupt("boot sector", "byte 0", detail));
        if boot.len() < 512 || &boot[3..11] != b"NTFS    " {
            return bad("it does not say NTFS".to_owned());
        }
        let sector = u64::from(le16(boot, 11));
        if !sector.is_power_of_two() || !(256..=4096).contains(&sector) {
            return bad(format!("sectors of {sector} bytes"));
        }
        let code = boot[13];
        let factor =
            if code > 128 { 1u64.checked_shl(256 - u32::from(code)) } else { Some(code.into()) };
        let cluster = factor.and_then(|factor| factor.checked_mul(sector)).unwrap_or(0);
        if !cluster.is_power_of_two() || !(256..=2 << 20).contains(&cluster) {
            return bad(format!("SectorsPerCluster is {code}"));
        }
        let unit = |code: u8| match code.cast_signed() {
            0 => 0,
            positive @ 1.. => u64::from(positive.unsigned_abs()) * cluster,
            negative => 1u64.checked_shl(negative.unsigned_abs().into()).unwrap_or(0),
        };
        let (record, index) = (unit(boot[64]), unit(boot[68]));
        for (what, size) in [("MFT records", record), ("index blocks", index)] {
            if !size.is_power_of_two() || !(512..=65_536).contains(&size) {
                return bad(format!("{what} of {size} bytes"));
            }
        }
        let sectors = le64(boot, 40);
        if sectors.checked_mul(sector).is_none_or(|bytes| bytes > length) {
            return bad(format!(
                "{sectors} sectors of {sector} bytes do not fit on the {length} bytes there are"
            ));
        }
        let clusters = sectors * sector / cluster;
        let (mft, mirror) = (le64(boot, 48), le64(boot, 56));
        if mft >= clusters || mirror >= clusters {
            return bad(format!("the MFT or its mirror lies beyond the {clusters} clusters"));
        }
        let (record, index, serial) = (to_usize(record), to_usize(index), le64(boot, 72));
        Ok(Self { sector, cluster, sectors, clusters, record, index, mft, mirror, serial })
    }
}

/// Undoes the update sequence of a record or index block.
pub fn unfix(bytes: &mut [u8], magic: &[u8; 4]) -> Result<(), String> {
    if !bytes.starts_with(magic) {
        return Err(format!("it begins with {}", bytes[..4.min(bytes.len())].escape_ascii()));
    }
    let (at, count) = (usize::from(le16(bytes, 4)), usize::from(le16(bytes, 6)));
    if count != bytes.len() / STRIDE + 1 || at + 2 * count > STRIDE - 2 || at % 2 != 0 {
        return Err(format!("its update sequence is {count} numbers at byte {at}"));
    }
    for piece in 1..count {
        let end = piece * STRIDE - 2;
        if bytes[end..end + 2] != bytes[at..at + 2] {
            return Err(format!("piece {} of 512 bytes is not of the last write", piece - 1));
        }
        bytes.copy_within(at + 2 * piece..at + 2 * piece + 2, end);
    }
    Ok(())
}

/// Applies a fresh update sequence to bytes that [`unfix`] returned.
pub fn fix(bytes: &mut [u8]) {
    let (at, count) = (usize::from(le16(bytes, 4)), usize::from(le16(bytes, 6)));
    // 0 and 0xffff are never used.
    let number = match le16(bytes, at) {
        0xfffe.. => 1,
        number => number + 1,
    };
    bytes[at..at + 2].copy_from_slice(&number.to_le_bytes());
    for piece in 1..count {
        let end = piece * STRIDE - 2;
        bytes.copy_within(end..end + 2, at + 2 * piece);
        bytes[end..end + 2].copy_from_slice(&number.to_le_bytes());
    }
}

/// Clusters that follow each other, or a hole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The first cluster; `None` for a hole.
    pub lcn: Option<u64>,
    /// How many, at least 1.
    pub count: u64,
}

/// Reads mapping pairs up to their end mark.
pub fn parse_runs(bytes: &[u8]) -> Result<Vec<Run>, String> {
    let (mut runs, mut at, mut lcn, mut total) = (Vec::new(), 0, 0i64, 0u64);
    loop {
        let Some(&head) = bytes.get(at) else { return Err("it has no end".to_owned()) };
        if head == 0 {
            return Ok(runs);
        }
        let (sizes, offsets) = (usize::from(head & 15), usize::from(head >> 4));
        let Some(body) = bytes.get(at + 1..at + 1 + sizes + offsets) else {
            return Err(format!("the pair {head:#04x} runs past the attribute"));
        };
        if sizes == 0 || sizes > 8 || offsets > 8 {
            return Err(format!("a pair begins with {head:#04x}"));
        }
        let count = signed(&body[..sizes]);
        total = match u64::try_from(count).ok().and_then(|count| total.checked_add(count)) {
            Some(total) if count > 0 && total < 1 << 62 => total,
            _ => return Err(format!("a run of {count} clusters")),
        };
        let mut run = Run { lcn: None, count: count.unsigned_abs() };
        if offsets > 0 {
            lcn = lcn.wrapping_add(signed(&body[sizes..]));
            let Ok(first) = u64::try_from(lcn) else { return Err(format!("cluster {lcn}")) };
            run.lcn = Some(first);
        }
        runs.push(run);
        at += 1 + sizes + offsets;
    }
}

fn signed(bytes: &[u8]) -> i64 {
    let fill = if bytes.last().is_some_and(|&byte| byte >= 128) { 0xff } else { 0 };
    let mut wide = [fill; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    i64::from_le_bytes(wide)
}

/// Mapping pairs of runs, with their end mark.
pub fn encode_runs(runs: &[Run]) -> Vec<u8> {
    let (mut out, mut last) = (Vec::new(), 0i64);
    let short = |value: i64| {
        let bytes = value.to_le_bytes();
        let mut length = 8;
        while length > 1 && signed(&bytes[..length - 1]) == value {
            length -= 1;
        }
        bytes[..length].to_vec()
    };
    for run in runs {
        let count = short(run.count.cast_signed());
        let offset =
            run.lcn.map_or(Vec::new(), |lcn| short((lcn.cast_signed()).wrapping_sub(last)));
        last = run.lcn.map_or(last, |lcn| lcn.cast_signed());
        out.push(to_u8(count.len()) | to_u8(offset.len()) << 4);
        out.extend(count);
        out.extend(offset);
    }
    out.push(0);
    out
}

/// A non-resident attribute's part in one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// LowestVcn.
    pub lowest: u64,
    /// HighestVcn.
    pub highest: i64,
    /// The runs of this part.
    pub runs: Vec<Run>,
    /// AllocatedLength; means something in the first part only, as the next three.
    pub allocated: u64,
    /// FileSize.
    pub size: u64,
    /// ValidDataLength.
    pub initialized: u64,
    /// TotalAllocated of sparse and compressed attributes.
    pub total: u64,
}

/// The place of an attribute's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// In the record.
    Resident(Vec<u8>),
    /// In clusters.
    Mapped(Mapping),
}

/// One attribute of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// TypeCode.
    pub kind: u32,
    /// Name, empty for most.
    pub name: Vec<u16>,
    /// Flags: 1 compressed, 0x4000 encrypted, 0x8000 sparse.
    pub flags: u16,
    /// Instance: unique in its record.
    pub id: u16,
    /// Byte in the record where it begins.
    pub at: usize,
    /// Its value.
    pub body: Body,
}

/// The attributes of a record whose update sequence is undone. `say` is told what is wrong, as a
/// finding's code and its words.
pub fn attributes(record: &[u8], say: &mut dyn FnMut(&'static str, String)) -> Vec<Attribute> {
    let mut out: Vec<Attribute> = Vec::new();
    let used = to_usize(le32(record, 24));
    let mut at = usize::from(le16(record, 20));
    if at % 8 != 0 || at < 42 || used > record.len() || used < 24 {
        say("record-header", format!("attributes from byte {at}, {used} bytes used"));
        return out;
    }
    loop {
        if at + 4 > record.len() {
            say("attribute-length", "the attributes run off the record".to_owned());
            return out;
        }
        let kind = le32(record, at);
        if kind == END {
            break;
        }
        let length = to_usize(le32(record, at + 4));
        let Some(bytes) = record.get(at..at.saturating_add(length)) else {
            say("attribute-length", format!("attribute {kind:#x} has {length} bytes"));
            return out;
        };
        if length < 24 || !length.is_multiple_of(8) {
            say("attribute-length", format!("attribute {kind:#x} has {length} bytes"));
            return out;
        }
        match attribute(bytes, at, kind) {
            Ok(attribute) => out.push(attribute),
            Err((code, text)) => say(code, format!("attribute {kind:#x}: {text}")),
        }
        at += length;
    }
    // Some writers count the end mark as four bytes, Windows as eight.
    if used != at + 8 && used != at + 4 {
        say("record-header", format!("{used} bytes are used, and the attributes end at byte {at}"));
    }
    if out.windows(2).any(|pair| pair[0].kind > pair[1].kind) {
        say("attribute-order", "the attributes are not in the order of their types".to_owned());
    }
    let mut ids: Vec<u16> = out.iter().map(|attribute| attribute.id).collect();
    ids.sort_unstable();
    if ids.windows(2).any(|pair| pair[0] == pair[1]) {
        say("attribute-id", "two attributes have the same instance number".to_owned());
    }
    if ids.last().is_some_and(|&last| last >= le16(record, 40)) {
        say("attribute-id", format!("the next instance number is {}", le16(record, 40)));
    }
    out
}

fn attribute(bytes: &[u8], at: usize, kind: u32) -> Result<Attribute, (&'static str, String)> {
    let (length, offset) = (2 * usize::from(bytes[9]), usize::from(le16(bytes, 10)));
    let name = match bytes.get(offset..offset + length) {
        Some(name) => units(name),
        None => return Err(("attribute-length", "its name is not in it".to_owned())),
    };
    let body = match bytes[8] {
        0 => {
            let (length, offset) = (to_usize(le32(bytes, 16)), usize::from(le16(bytes, 20)));
            match bytes.get(offset..offset.saturating_add(length)) {
                Some(value) => Body::Resident(value.to_vec()),
                None => {
                    return Err((
                        "attribute-length",
                        format!("its value of {length} bytes at {offset} is not in it"),
                    ));
                }
            }
        }
        1 if bytes.len() >= 64 => {
            let pairs = bytes.get(usize::from(le16(bytes, 32))..).unwrap_or(&[]);
            let runs = parse_runs(pairs).map_err(|text| ("run-list", text))?;
            let mapping = Mapping {
                lowest: le64(bytes, 16),
                highest: le64(bytes, 24).cast_signed(),
                allocated: le64(bytes, 40),
                size: le64(bytes, 48),
                initialized: le64(bytes, 56),
                total: if bytes.len() >= 72 { le64(bytes, 64) } else { 0 },
                runs,
            };
            let covered: u64 = mapping.runs.iter().map(|run| run.count).sum();
            let claimed =
                mapping.highest.wrapping_add(1).wrapping_sub(mapping.lowest.cast_signed());
            if i64::try_from(covered) != Ok(claimed) || mapping.lowest >= 1 << 62 {
                return Err((
                    "run-list",
                    format!(
                        "{covered} clusters for the VCNs {} to {}",
                        mapping.lowest, mapping.highest
                    ),
                ));
            }
            Body::Mapped(mapping)
        }
        form => return Err(("attribute-length", format!("its form is {form}"))),
    };
    Ok(Attribute { kind, name, flags: le16(bytes, 12), id: le16(bytes, 14), at, body })
}

/// The runs of a whole stream, to be read at any offset.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// First VCN, first cluster or hole, and count of each run.
    pieces: Vec<(u64, Option<u64>, u64)>,
    clusters: u64,
    /// FileSize.
    pub size: u64,
}

impl Stream {
    /// An empty one of `size` bytes, to which runs are added.
    pub fn new(size: u64) -> Self {
        Self { size, ..Self::default() }
    }

    /// Adds runs at the end.
    pub fn extend(&mut self, runs: &[Run]) {
        for run in runs {
            self.pieces.push((self.clusters, run.lcn, run.count));
            self.clusters = self.clusters.saturating_add(run.count);
        }
    }

    /// Clusters that it covers, holes among them.
    pub fn clusters(&self) -> u64 {
        self.clusters
    }

    /// The place of byte `offset` on the volume, and how many bytes follow it there. `None` beyond the
    /// end; a hole has no place.
    pub fn place(&self, offset: u64, cluster: u64) -> Option<(Option<u64>, u64)> {
        let vcn = offset / cluster;
        let index = self.pieces.partition_point(|piece| piece.0 <= vcn).checked_sub(1)?;
        let (first, lcn, count) = self.pieces[index];
        let within = offset - first * cluster;
        let rest = count.checked_mul(cluster)?.checked_sub(within).filter(|&rest| rest > 0)?;
        Some((lcn.and_then(|lcn| lcn.checked_mul(cluster)?.checked_add(within)), rest))
    }
}

/// The device with a limit on how much is read in all, so that structures of a hostile volume that
/// share their clusters end in an error and not in hours.
pub struct Reader<'a> {
    device: &'a dyn BlockDevice,
    /// The volume's shape.
    pub geometry: Geometry,
    budget: Cell<u64>,
}

impl<'a> Reader<'a> {
    /// Reads the boot sector.
    pub fn open(device: &'a dyn BlockDevice) -> Result<Self> {
        let mut boot = [0; 512];
        if device.len() < 512 {
            return Err(Error::corrupt("boot sector", "byte 0", "the volume is too small for one"));
        }
        device.read_at(0, &mut boot)?;
        let geometry = Geometry::parse(&boot, device.len())?;
        // An honest volume's metadata is read once, some of it twice.
        let volume = geometry.sectors * geometry.sector;
        let budget = Cell::new(volume.saturating_mul(3).saturating_add(64 << 20));
        Ok(Self { device, geometry, budget })
    }

    /// The device.
    pub fn device(&self) -> &'a dyn BlockDevice {
        self.device
    }

    fn spend(&self, bytes: u64) -> Result<()> {
        match self.budget.get().checked_sub(bytes) {
            Some(rest) => {
                self.budget.set(rest);
                Ok(())
            }
            None => Err(Error::corrupt(
                "volume",
                "many places",
                "its structures share so many clusters that checking them would not end",
            )),
        }
    }

    /// Reads the device.
    pub fn bytes(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        self.spend(to_u64(length))?;
        let mut out = vec![0; length];
        self.device.read_at(offset, &mut out)?;
        Ok(out)
    }

    /// Reads a stream; `None` when it does not reach so far or leaves the volume.
    pub fn stream(&self, stream: &Stream, offset: u64, length: usize) -> Result<Option<Vec<u8>>> {
        self.spend(to_u64(length))?;
        let limit = self.geometry.clusters * self.geometry.cluster;
        let mut out = vec![0; length];
        let mut done = 0;
        while done < length {
            let Some((place, rest)) = stream.place(offset + to_u64(done), self.geometry.cluster)
            else {
                return Ok(None);
            };
            let count = to_usize(rest.min(to_u64(length - done)));
            if let Some(place) = place {
                if place.checked_add(to_u64(count)).is_none_or(|end| end > limit) {
                    return Ok(None);
                }
                self.device.read_at(place, &mut out[done..done + count])?;
            }
            done += count;
        }
        Ok(Some(out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_come_back_from_their_pairs() {
        let run = |lcn, count| Run { lcn, count };
        for runs in [
            vec![],
            vec![run(Some(0), 1)],
            vec![run(Some(127), 127), run(Some(128), 128), run(Some(3), 32_768)],
            vec![run(None, 1 << 40), run(Some(1 << 39), 5), run(None, 1), run(Some(1), 255)],
        ] {
            assert_eq!(parse_runs(&encode_runs(&runs)).unwrap(), runs);
        }
        for bad in
            [&[][..], &[0x11, 1], &[0x10, 1, 0], &[0x01, 0, 0], &[0x11, 1, 0x80, 0], &[0x19; 20]]
        {
            assert!(parse_runs(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn update_sequences_come_and_go() {
        let mut bytes: Vec<u8> = (0..1024u32).map(|i| (i * 7) as u8).collect();
        bytes[..8].copy_from_slice(b"FILE\x30\0\x03\0");
        bytes[48..50].copy_from_slice(&0xfffeu16.to_le_bytes());
        let before = bytes.clone();
        fix(&mut bytes);
        assert_eq!(le16(&bytes, 510), 1);
        unfix(&mut bytes, b"FILE").unwrap();
        assert_eq!(bytes[56..], before[56..]);
        fix(&mut bytes);
        bytes[1023] ^= 1;
        assert!(unfix(&mut bytes, b"FILE").unwrap_err().contains("piece 1"));
    }
}
