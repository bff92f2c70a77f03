//! The content of a metadata text, with types: a group, its physical volumes and its logical volumes.

use std::collections::BTreeMap;

use super::segment::{Kind, Segment, printable};
use super::text::{Item, Section};
use super::{Id, SECTOR};
use crate::{Error, Refusal, Result};

/// Sizes are given in sectors and computed in bytes: 2^54 sectors are 2^63 bytes.
const MAX_SECTORS: u64 = 1 << 54;

/// A physical volume.
#[derive(Clone, Debug)]
pub(crate) struct Pv {
    /// Its name in the text (`pv0`).
    pub(crate) key: String,
    pub(crate) id: Id,
    /// Sector of the first extent.
    pub(crate) first_extent: u64,
    pub(crate) extents: u64,
    pub(crate) allocatable: bool,
    /// lvm2 noted that it is missing.
    pub(crate) missing: bool,
}

/// A logical volume.
#[derive(Clone, Debug)]
pub(crate) struct Lv {
    pub(crate) name: String,
    pub(crate) id: Id,
    pub(crate) visible: bool,
    pub(crate) writable: bool,
    /// A flag that is not understood or forbids use.
    pub(crate) flag: Option<Refusal>,
    /// In the order of their extents, without a hole.
    pub(crate) segments: Vec<Segment>,
}

impl Lv {
    pub(crate) fn extents(&self) -> u64 {
        self.segments.last().map_or(0, |segment| segment.start + segment.count)
    }
}

/// A group.
#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) name: String,
    pub(crate) id: Id,
    pub(crate) sequence: u64,
    pub(crate) extent_sectors: u64,
    pub(crate) resizeable: bool,
    pub(crate) writable: bool,
    /// The reason to refuse all its volumes.
    pub(crate) refusal: Option<Refusal>,
    pub(crate) pvs: Vec<Pv>,
    pub(crate) lvs: Vec<Lv>,
    /// Index of each logical volume by name.
    by_name: BTreeMap<String, usize>,
    /// Volumes that must not be opened because of a snapshot or a thin volume elsewhere.
    entangled: BTreeMap<String, Refusal>,
}

/// The section of the group in a text: the only section at the top.
pub(crate) fn group_section(root: &Section) -> Result<(&str, &Section)> {
    let corrupt = |detail| Error::corrupt("metadata text", "its top level", detail);
    let mut sections = root.sections();
    let group = sections.next().ok_or_else(|| corrupt("it describes no volume group"))?;
    if sections.next().is_some() {
        return Err(corrupt("it describes more than one volume group"));
    }
    Ok(group)
}

/// Sequence number of a text's group.
pub(crate) fn sequence(section: &Section) -> Option<u64> {
    section.integer("seqno").and_then(|number| u64::try_from(number).ok())
}

/// Identifier of a section.
pub(crate) fn id(section: &Section) -> Option<Id> {
    section.str("id").and_then(Id::parse)
}

/// Names go into paths of a guest: the characters that lvm2 allows, and no other.
fn is_name(name: &str) -> bool {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"+_.-".contains(&byte);
    !name.is_empty()
        && name.len() <= 127
        && name.bytes().all(good)
        && !name.starts_with('-')
        && name != "."
        && name != ".."
}

/// The strings of an array of flags.
fn flags<'a>(section: &'a Section, key: &str) -> impl Iterator<Item = &'a str> {
    section.array(key).unwrap_or_default().iter().filter_map(|value| value.as_str())
}

impl Model {
    /// Reads the whole text.
    ///
    /// # Errors
    /// [`Error::Corrupt`], where the text contradicts itself.
    pub(crate) fn parse(root: &Section) -> Result<Self> {
        let (name, group) = group_section(root)?;
        let corrupt = |detail: &str| {
            let place = format!("volume group {}", printable(name));
            Error::corrupt("metadata text", place, detail)
        };
        if !is_name(name) {
            return Err(corrupt("its name is malformed"));
        }
        let extent_sectors = group.integer("extent_size").and_then(|n| u64::try_from(n).ok());
        let extent_sectors = extent_sectors
            .filter(|size| (1..=1 << 32).contains(size))
            .ok_or_else(|| corrupt("extent_size is missing or out of range"))?;
        let mut model = Self {
            name: name.to_owned(),
            id: id(group).ok_or_else(|| corrupt("id is missing or malformed"))?,
            sequence: sequence(group).ok_or_else(|| corrupt("seqno is missing or malformed"))?,
            extent_sectors,
            resizeable: flags(group, "status").any(|flag| flag == "RESIZEABLE"),
            writable: flags(group, "status").any(|flag| flag == "WRITE")
                || flags(group, "flags").any(|flag| flag == "WRITE_LOCKED"),
            refusal: group_refusal(group),
            pvs: Vec::new(),
            lvs: Vec::new(),
            by_name: BTreeMap::new(),
            entangled: BTreeMap::new(),
        };
        for (key, section) in group.section("physical_volumes").iter().flat_map(|s| s.sections()) {
            model.pvs.push(parse_pv(key, section, extent_sectors)?);
        }
        let mut ids: Vec<_> = model.pvs.iter().map(|pv| pv.id).collect();
        let mut keys: Vec<_> = model.pvs.iter().map(|pv| pv.key.as_str()).collect();
        ids.sort_unstable();
        keys.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1])
            || keys.windows(2).any(|pair| pair[0] == pair[1])
        {
            return Err(corrupt("it lists a physical volume twice"));
        }
        for (name, section) in group.section("logical_volumes").iter().flat_map(|s| s.sections()) {
            let lv = parse_lv(name, section)?;
            model.entangle(&lv, section);
            if model.by_name.insert(lv.name.clone(), model.lvs.len()).is_some() {
                return Err(corrupt("it lists a logical volume twice"));
            }
            model.lvs.push(lv);
        }
        Ok(model)
    }

    pub(crate) fn lv(&self, name: &str) -> Option<&Lv> {
        self.by_name.get(name).and_then(|index| self.lvs.get(*index))
    }

    pub(crate) fn pv(&self, key: &str) -> Option<(usize, &Pv)> {
        self.pvs.iter().enumerate().find(|(_, pv)| pv.key == key)
    }

    /// `volume group rl`.
    pub(crate) fn subject(&self) -> String {
        format!("volume group {}", self.name)
    }

    /// `logical volume rl/root`.
    pub(crate) fn lv_subject(&self, name: &str) -> String {
        format!("logical volume {}/{name}", self.name)
    }

    /// Notes which other volumes a volume depends on in a way that forbids to write them.
    fn entangle(&mut self, lv: &Lv, section: &Section) {
        for segment in &lv.segments {
            if let Kind::Snapshot { origin, store } = &segment.kind {
                self.entangled.insert(origin.clone(), Refusal::SnapshotOrigin);
                self.entangled.insert(store.clone(), Refusal::Snapshot);
            }
        }
        for (_, segment) in section.sections() {
            if let Some(origin) = segment.str("external_origin") {
                self.entangled.insert(origin.to_owned(), Refusal::ExternalOrigin);
            }
        }
    }

    /// The reason not to open a volume, apart from what lies below its segments.
    pub(crate) fn own_refusal(&self, lv: &Lv) -> Option<Refusal> {
        let entangled = self.entangled.get(&lv.name).cloned();
        let kind = lv.segments.iter().find_map(|segment| match &segment.kind {
            Kind::Refused(refusal) => Some(refusal.clone()),
            Kind::Snapshot { .. } => Some(Refusal::Snapshot),
            _ => None,
        });
        self.refusal.clone().or_else(|| lv.flag.clone()).or(entangled).or(kind)
    }
}

fn group_refusal(group: &Section) -> Option<Refusal> {
    let format = group.str("format").unwrap_or("lvm2");
    if format != "lvm2" {
        return Some(Refusal::MetadataFormat(printable(format)));
    }
    let shared = group.str("lock_type").is_some_and(|kind| !matches!(kind, "none" | ""));
    if shared {
        return Some(Refusal::Clustered);
    }
    flags(group, "status").find_map(|flag| match flag {
        "RESIZEABLE" | "READ" | "WRITE" => None,
        "EXPORTED" => Some(Refusal::Exported),
        "CLUSTERED" | "SHARED" => Some(Refusal::Clustered),
        "PVMOVE" => Some(Refusal::PvMove),
        other => Some(Refusal::Flag(printable(other))),
    })
}

fn parse_pv(key: &str, section: &Section, extent_sectors: u64) -> Result<Pv> {
    let corrupt = |detail: &str| {
        let place = format!("physical volume {}", printable(key));
        Error::corrupt("metadata text", place, detail)
    };
    let number = |key: &str| {
        let number = section.integer(key).and_then(|number| u64::try_from(number).ok());
        number.filter(|number| *number <= MAX_SECTORS)
    };
    let first_extent = number("pe_start").ok_or_else(|| corrupt("pe_start is malformed"))?;
    let extents = number("pe_count")
        .filter(|count| *count <= u64::from(u32::MAX))
        .ok_or_else(|| corrupt("pe_count is malformed"))?;
    let end = extents.checked_mul(extent_sectors).and_then(|size| size.checked_add(first_extent));
    if end.is_none_or(|end| end > MAX_SECTORS) {
        return Err(corrupt("its extents end beyond all bounds"));
    }
    Ok(Pv {
        key: key.to_owned(),
        id: id(section).ok_or_else(|| corrupt("id is missing or malformed"))?,
        first_extent,
        extents,
        allocatable: flags(section, "status").any(|flag| flag == "ALLOCATABLE"),
        missing: flags(section, "status")
            .chain(flags(section, "flags"))
            .any(|flag| flag == "MISSING"),
    })
}

fn parse_lv(name: &str, section: &Section) -> Result<Lv> {
    let corrupt = |detail: &str| {
        let place = format!("logical volume {}", printable(name));
        Error::corrupt("metadata text", place, detail)
    };
    if !is_name(name) {
        return Err(corrupt("its name is malformed"));
    }
    let mut segments = Vec::new();
    for (_, segment) in section.sections().filter(|(key, _)| is_segment(key)) {
        segments.push(Segment::parse(segment).map_err(|detail| corrupt(&detail))?);
    }
    segments.sort_by_key(|segment| segment.start);
    let declared = section.integer("segment_count");
    if declared != i64::try_from(segments.len()).ok() {
        return Err(corrupt("segment_count is not the number of segments"));
    }
    let mut next = 0;
    for segment in &segments {
        if segment.start != next {
            return Err(corrupt("its segments overlap or leave a hole"));
        }
        next += segment.count;
    }
    if next == 0 || next > u64::from(u32::MAX) {
        return Err(corrupt("its number of extents is out of range"));
    }
    let status = || flags(section, "status");
    let flag = status().find_map(|flag| match flag {
        "READ" | "WRITE" | "VISIBLE" | "FIXED_MINOR" | "NOTSYNCED" | "REBUILD" | "WRITEMOSTLY" => {
            None
        }
        "PVMOVE" | "LOCKED" => Some(Refusal::PvMove),
        other => Some(Refusal::Flag(printable(other))),
    });
    Ok(Lv {
        name: name.to_owned(),
        id: id(section).ok_or_else(|| corrupt("id is missing or malformed"))?,
        visible: status().any(|flag| flag == "VISIBLE"),
        writable: status().any(|flag| flag == "WRITE")
            || flags(section, "flags").any(|flag| flag == "WRITE_LOCKED"),
        flag,
        segments,
    })
}

/// Whether a key of a logical volume names a segment.
pub(crate) fn is_segment(key: &str) -> bool {
    key.strip_prefix("segment")
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The section of a logical volume, to be changed.
pub(crate) fn lv_section_mut<'a>(root: &'a mut Section, lv: &str) -> Option<&'a mut Section> {
    group_section_mut(root)?.section_mut("logical_volumes")?.section_mut(lv)
}

/// The section of the group, to be changed.
pub(crate) fn group_section_mut(root: &mut Section) -> Option<&mut Section> {
    root.entries.iter_mut().find_map(|(_, item)| match item {
        Item::Section(section) => Some(section),
        _ => None,
    })
}

/// Bytes of a number of sectors that [`MAX_SECTORS`] bounds.
pub(crate) fn bytes(sectors: u64) -> u64 {
    sectors * SECTOR
}

#[cfg(test)]
mod tests {
    use super::super::text_parse::parse;
    use super::*;

    /// A group with one volume; `group` and `lv` are their status arrays, `more` goes into the group.
    fn text(group: &str, lv: &str, more: &str) -> String {
        let id = "a".repeat(32);
        format!(
            "vg {{\nid = \"{id}\"\nseqno = 7\nstatus = [{group}]\nextent_size = 8\n{more}\n\
             physical_volumes {{\npv0 {{\nid = \"{id}\"\nstatus = [\"ALLOCATABLE\"]\npe_start = 2048\n\
             pe_count = 10\n}}\n}}\nlogical_volumes {{\nlv {{\nid = \"{id}\"\nstatus = [{lv}]\n\
             segment_count = 1\nsegment1 {{\nstart_extent = 0\nextent_count = 4\ntype = \"striped\"\n\
             stripe_count = 1\nstripes = [\"pv0\", 0]\n}}\n}}\n}}\n}}\n"
        )
    }

    fn refusal(group: &str, lv: &str, more: &str) -> Option<Refusal> {
        let model = Model::parse(&parse(text(group, lv, more).as_bytes()).unwrap()).unwrap();
        model.own_refusal(model.lv("lv").unwrap())
    }

    #[test]
    fn flags_and_their_refusals() {
        let usual = "\"RESIZEABLE\", \"READ\", \"WRITE\"";
        let lv = "\"READ\", \"WRITE\", \"VISIBLE\"";
        assert_eq!(refusal(usual, lv, ""), None);
        assert_eq!(refusal("\"EXPORTED\"", lv, ""), Some(Refusal::Exported));
        assert_eq!(refusal("\"CLUSTERED\"", lv, ""), Some(Refusal::Clustered));
        assert_eq!(refusal(usual, lv, "lock_type = \"sanlock\""), Some(Refusal::Clustered));
        assert_eq!(refusal(usual, lv, "lock_type = \"none\""), None);
        assert_eq!(
            refusal(usual, lv, "format = \"lvm1\""),
            Some(Refusal::MetadataFormat("lvm1".into()))
        );
        assert_eq!(refusal("\"NEWS\"", lv, ""), Some(Refusal::Flag("NEWS".into())));
        assert_eq!(refusal(usual, "\"READ\", \"NEWS\"", ""), Some(Refusal::Flag("NEWS".into())));
        assert_eq!(refusal(usual, "\"READ\", \"LOCKED\"", ""), Some(Refusal::PvMove));
    }

    #[test]
    fn texts_that_contradict_themselves() {
        let good = text("\"WRITE\"", "\"READ\"", "");
        for (from, to) in [
            ("seqno = 7", "seqno = -7"),
            ("extent_size = 8", "extent_size = 0"),
            ("pe_count = 10", "pe_count = 99999999999"),
            ("pe_start = 2048", "pe_start = 9223372036854775807"),
            ("segment_count = 1", "segment_count = 2"),
            ("start_extent = 0", "start_extent = 1"),
            ("extent_count = 4", "extent_count = 0"),
            ("lv {", "../lv {"),
            ("vg {", "a {\n}\nvg {"),
        ] {
            assert!(good.contains(from));
            let root = parse(good.replace(from, to).as_bytes()).unwrap();
            assert!(Model::parse(&root).is_err(), "{to}");
        }
    }
}
