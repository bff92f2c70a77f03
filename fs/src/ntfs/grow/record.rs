//! One record of the MFT, changed in place.

use crate::error::{Error, Result};
use crate::ntfs::check::raw::{
    Attribute, Body, Mapping, Reader, Run, attributes, encode_runs, fix, le16, le32, unfix,
};
use crate::num::to_u64;

/// A record of a system file that has all its attributes in it.
pub(super) struct Record {
    /// Its number.
    pub number: u64,
    /// Without update sequence.
    bytes: Vec<u8>,
    /// Byte on the volume.
    place: u64,
}

impl Record {
    /// Reads one of the first records, which holds all its attributes.
    pub(super) fn read(reader: &Reader<'_>, number: u64) -> Result<Self> {
        let record = Self::read_part(reader, number)?;
        let list = attributes(&record.bytes, &mut |_, _| {});
        if list.iter().any(|attribute| attribute.kind == 0x20) {
            return Err(Error::unsupported(
                format!("enlarging a volume whose MFT record {number} has an attribute list"),
                "enlarge the volume in Windows",
            ));
        }
        Ok(record)
    }

    /// Reads one of the first records, which lie in the first run of the MFT. Others may continue it.
    pub(super) fn read_part(reader: &Reader<'_>, number: u64) -> Result<Self> {
        let geometry = reader.geometry;
        let base = geometry.mft * geometry.cluster;
        let mut mft = Self { number: 0, bytes: reader.bytes(base, geometry.record)?, place: base };
        unfix(&mut mft.bytes, b"FILE").map_err(|text| mft.corrupt(&text))?;
        let (runs, _) = mft.runs_of(0x80, &[])?;
        let mut stream = crate::ntfs::check::raw::Stream::new(u64::MAX);
        stream.extend(&runs);
        let offset = number * to_u64(geometry.record);
        let (place, rest) = match stream.place(offset, geometry.cluster) {
            Some((Some(place), rest)) => (place, rest),
            _ => return Err(mft.corrupt("its first run is too short")),
        };
        if rest < to_u64(geometry.record) {
            return Err(Error::unsupported(
                format!("MFT record {number} in two pieces"),
                "enlarge the volume in Windows",
            ));
        }
        if place + to_u64(geometry.record) > geometry.clusters * geometry.cluster {
            return Err(mft.corrupt("it leaves the volume"));
        }
        let mut record = Self { number, bytes: reader.bytes(place, geometry.record)?, place };
        unfix(&mut record.bytes, b"FILE").map_err(|text| record.corrupt(&text))?;
        let mut problem = None;
        attributes(&record.bytes, &mut |_, text| problem = Some(text));
        if let Some(text) = problem {
            return Err(record.corrupt(&text));
        }
        if le16(&record.bytes, 22) & 1 == 0 {
            return Err(record.corrupt("it is not in use"));
        }
        Ok(record)
    }

    /// An error about this record.
    pub(super) fn corrupt(&self, text: &str) -> Error {
        Error::corrupt("MFT record", format!("record {}", self.number), text)
    }

    fn find(&self, kind: u32, name: &[u16]) -> Result<Attribute> {
        attributes(&self.bytes, &mut |_, _| {})
            .into_iter()
            .find(|attribute| attribute.kind == kind && attribute.name == name)
            .ok_or_else(|| self.corrupt(&format!("it has no attribute {kind:#x}")))
    }

    fn mapping(&self, kind: u32, name: &[u16]) -> Result<(usize, Mapping)> {
        let attribute = self.find(kind, name)?;
        match attribute.body {
            Body::Mapped(mapping) => Ok((attribute.at, mapping)),
            Body::Resident(_) => Err(self.corrupt(&format!("its attribute {kind:#x} is resident"))),
        }
    }

    fn runs_of(&self, kind: u32, name: &[u16]) -> Result<(Vec<Run>, u64)> {
        self.mapping(kind, name).map(|(_, mapping)| (mapping.runs, mapping.size))
    }

    /// Runs and size of a non-resident attribute.
    pub(super) fn runs(&self, kind: u32, name: &[u16]) -> Result<(Vec<Run>, u64)> {
        self.runs_of(kind, name)
    }

    /// ValidDataLength of a non-resident attribute.
    pub(super) fn initialized(&self, kind: u32, name: &[u16]) -> Result<u64> {
        self.mapping(kind, name).map(|(_, mapping)| mapping.initialized)
    }

    /// Gives a non-resident attribute other runs and sizes.
    pub(super) fn set_runs(
        &mut self,
        kind: u32,
        name: &[u16],
        runs: &[Run],
        cluster: u64,
        size: u64,
        initialized: u64,
    ) -> Result<()> {
        let (at, mapping) = self.mapping(kind, name)?;
        let mut new = self.with_pairs(at, runs)?;
        let total: u64 = runs.iter().map(|run| run.count).sum();
        // A value that was valid to its end is so again.
        let initialized = if mapping.initialized == mapping.size { size } else { initialized };
        let fields = [(24, total - 1), (40, total * cluster), (48, size), (56, initialized)];
        for (field, value) in fields {
            new[field..field + 8].copy_from_slice(&value.to_le_bytes());
        }
        if self.replace(at, &new)? {
            return Ok(());
        }
        Err(Error::unsupported(
            format!("enlarging a volume whose MFT record {} is full", self.number),
            "enlarge the volume in Windows",
        ))
    }

    /// Gives the first `count` clusters of `$DATA` another place, from cluster `lcn` on. Whether the
    /// record had room for that; it stays as it was where it had not.
    pub(super) fn replace_start(&mut self, count: u64, lcn: u64) -> Result<bool> {
        let (at, mapping) = self.mapping(0x80, &[])?;
        let mut runs = vec![Run { lcn: Some(lcn), count }];
        let mut skip = count;
        for run in &mapping.runs {
            let gone = skip.min(run.count);
            skip -= gone;
            if gone < run.count {
                runs.push(Run { lcn: run.lcn.map(|lcn| lcn + gone), count: run.count - gone });
            }
        }
        if skip > 0 {
            return Ok(false);
        }
        let new = self.with_pairs(at, &runs)?;
        self.replace(at, &new)
    }

    /// The non-resident attribute at byte `at` with other runs.
    fn with_pairs(&self, at: usize, runs: &[Run]) -> Result<Vec<u8>> {
        let header = usize::from(le16(&self.bytes, at + 32));
        if header > self.length(at)? {
            return Err(self.corrupt("its mapping pairs are outside of the attribute"));
        }
        let mut new = self.bytes[at..at + header].to_vec();
        new.extend(encode_runs(runs));
        new.resize(new.len().next_multiple_of(8), 0);
        let length = u32::try_from(new.len()).unwrap_or(u32::MAX);
        new[4..8].copy_from_slice(&length.to_le_bytes());
        Ok(new)
    }

    /// Bytes in use.
    fn used(&self) -> usize {
        usize::try_from(le32(&self.bytes, 24)).unwrap_or(usize::MAX)
    }

    /// Bytes of the attribute at byte `at`.
    fn length(&self, at: usize) -> Result<usize> {
        let length = usize::try_from(le32(&self.bytes, at + 4)).unwrap_or(usize::MAX);
        match at.checked_add(length) {
            Some(end) if end <= self.used() => Ok(length),
            _ => Err(self.corrupt("its mapping pairs are outside of the attribute")),
        }
    }

    /// Puts an attribute in the place of the one at byte `at`; whether there is room for it.
    fn replace(&mut self, at: usize, new: &[u8]) -> Result<bool> {
        let (length, used) = (self.length(at)?, self.used());
        let used_now = used - length + new.len();
        if used_now > self.bytes.len() {
            return Ok(false);
        }
        let rest = self.bytes[at + length..used].to_vec();
        self.bytes[at..at + new.len()].copy_from_slice(new);
        self.bytes[at + new.len()..used_now].copy_from_slice(&rest);
        if used_now < used {
            self.bytes[used_now..used].fill(0);
        }
        let used_now = u32::try_from(used_now).unwrap_or(u32::MAX);
        self.bytes[24..28].copy_from_slice(&used_now.to_le_bytes());
        Ok(true)
    }

    /// Changes the value of a resident attribute without a name.
    pub(super) fn change_value(&mut self, kind: u32, change: impl FnOnce(&mut [u8])) -> Result<()> {
        let attribute = self.find(kind, &[])?;
        let Body::Resident(value) = &attribute.body else {
            return Err(self.corrupt(&format!("its attribute {kind:#x} is not resident")));
        };
        let from = attribute.at + usize::from(le16(&self.bytes, attribute.at + 20));
        change(&mut self.bytes[from..from + value.len()]);
        Ok(())
    }

    /// The value of a resident attribute without a name.
    pub(super) fn value(&self, kind: u32) -> Result<Vec<u8>> {
        match self.find(kind, &[])?.body {
            Body::Resident(value) => Ok(value),
            Body::Mapped(_) => {
                Err(self.corrupt(&format!("its attribute {kind:#x} is not resident")))
            }
        }
    }

    /// The bytes as they are to be written.
    pub(super) fn next_bytes(&mut self) -> Vec<u8> {
        let mut bytes = self.bytes.clone();
        fix(&mut bytes);
        // The update sequence number that was used is the last one.
        let at = usize::from(le16(&bytes, 4));
        self.bytes[at..at + 2].copy_from_slice(&bytes[at..at + 2]);
        bytes
    }

    /// Writes it, and its copy in `$MFTMirr` where it has one. Nothing may lead to them meanwhile.
    pub(super) fn write(&mut self, reader: &Reader<'_>) -> Result<()> {
        let geometry = reader.geometry;
        let bytes = self.next_bytes();
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        // The mirror holds four records, or as many as fill a large cluster.
        if self.number < 4.max(geometry.cluster / length) {
            let copy = geometry.mirror * geometry.cluster + self.number * length;
            reader.device().write_at(copy, &bytes)?;
        }
        reader.device().write_at(self.place, &bytes)?;
        Ok(())
    }
}
