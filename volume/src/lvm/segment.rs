//! A segment of a logical volume: a run of its extents and where they lie.

use super::text::{Section, Value};
use crate::Refusal;

/// Most stripes or legs of a segment; device-mapper's RAID has at most 253.
const MAX_AREAS: usize = 256;

/// The place of a stripe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StripeArea {
    /// Name of the physical volume in the text (`pv0`), or of a logical volume.
    pub(crate) target: String,
    /// First extent there.
    pub(crate) extent: u64,
}

/// How a segment maps its extents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Over one area (linear) or several.
    Striped { areas: Vec<StripeArea>, stripe_sectors: u64 },
    /// RAID 1: pairs of metadata and data volumes.
    Raid1 { legs: Vec<(String, String)> },
    /// The older mirror: data volumes; the first is the one that others are made equal to.
    Mirror { legs: Vec<String> },
    /// A snapshot's record: its origin and the volume that holds it.
    Snapshot { origin: String, store: String },
    /// Anything else is refused, and with this.
    Refused(Refusal),
}

/// A segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// First extent of the logical volume.
    pub(crate) start: u64,
    /// Extents of the logical volume.
    pub(crate) count: u64,
    pub(crate) kind: Kind,
}

impl Segment {
    /// From a section `segmentN`; an error is a sentence on what is wrong.
    pub(crate) fn parse(section: &Section) -> Result<Self, String> {
        let number = |key: &str| {
            let found = section.integer(key).and_then(|number| u64::try_from(number).ok());
            found.ok_or_else(|| format!("{key} is missing or not a number"))
        };
        let (start, count) = (number("start_extent")?, number("extent_count")?);
        let bounded = count > 0 && count <= u64::from(u32::MAX) && start <= u64::from(u32::MAX);
        if !bounded {
            return Err(format!("{count} extents from {start}"));
        }
        let kind = match section.str("type").unwrap_or_default() {
            "striped" | "linear" => striped(section, count)?,
            "raid1" => Kind::Raid1 { legs: raid_legs(section)? },
            "mirror" => mirror(section)?,
            "snapshot" => Kind::Snapshot {
                origin: section.str("origin").unwrap_or_default().to_owned(),
                store: section
                    .str("cow_store")
                    .or(section.str("merging_store"))
                    .unwrap_or_default()
                    .to_owned(),
            },
            other => Kind::Refused(refusal(other)),
        };
        Ok(Self { start, count, kind })
    }

    /// Extents of each area.
    pub(crate) fn area_extents(&self) -> u64 {
        match &self.kind {
            Kind::Striped { areas, .. } => self.count / areas.len().max(1) as u64,
            _ => self.count,
        }
    }
}

/// The reason to refuse a segment type. Flags follow its name after a plus sign.
fn refusal(kind: &str) -> Refusal {
    let plain = kind.split('+').next().unwrap_or_default();
    match plain {
        "thin" | "thin-pool" => Refusal::Thin,
        "cache" | "cache-pool" => Refusal::Cache,
        "writecache" => Refusal::WriteCache,
        "vdo" | "vdo-pool" => Refusal::Vdo,
        "integrity" => Refusal::Integrity,
        raid if raid.starts_with("raid") => Refusal::RaidLevel(printable(raid)),
        _ => Refusal::SegmentType(printable(kind)),
    }
}

/// A word of the disk for a message: short and without control characters.
pub(crate) fn printable(word: &str) -> String {
    word.chars().filter(|c| !c.is_control()).take(64).collect()
}

fn pairs(values: &[Value]) -> Result<Vec<(String, u64)>, String> {
    if values.is_empty() || !values.len().is_multiple_of(2) || values.len() / 2 > MAX_AREAS {
        return Err("its list of areas is malformed".into());
    }
    let pair = |pair: &[Value]| match pair {
        [name, Value::Integer(extent)] => {
            let name = name.as_str().ok_or("an area has no name")?;
            let extent = u64::try_from(*extent).map_err(|_| "an area begins before extent 0")?;
            Ok((name.to_owned(), extent))
        }
        _ => Err("its list of areas is malformed".to_owned()),
    };
    values.chunks(2).map(pair).collect()
}

fn striped(section: &Section, count: u64) -> Result<Kind, String> {
    let areas = pairs(section.array("stripes").unwrap_or_default())?;
    if section.integer("stripe_count") != i64::try_from(areas.len()).ok() {
        return Err("stripe_count is not the number of stripes".into());
    }
    let stripe_sectors = u64::try_from(section.integer("stripe_size").unwrap_or(0)).unwrap_or(0);
    if areas.len() > 1 {
        if !stripe_sectors.is_power_of_two() || stripe_sectors > 1 << 32 {
            return Err(format!("stripes of {stripe_sectors} sectors"));
        }
        if !count.is_multiple_of(areas.len() as u64) {
            return Err("its extents are not a multiple of its stripes".into());
        }
    }
    let areas = areas.into_iter().map(|(target, extent)| StripeArea { target, extent }).collect();
    Ok(Kind::Striped { areas, stripe_sectors })
}

fn raid_legs(section: &Section) -> Result<Vec<(String, String)>, String> {
    let names = section.array("raids").unwrap_or_default();
    if names.is_empty() || !names.len().is_multiple_of(2) || names.len() / 2 > MAX_AREAS {
        return Err("its list of legs is malformed".into());
    }
    let legs = names.chunks(2).map(|pair| match pair {
        [meta, data] => Some((meta.as_str()?.to_owned(), data.as_str()?.to_owned())),
        _ => None,
    });
    legs.collect::<Option<_>>().ok_or_else(|| "a leg has no name".into())
}

fn mirror(section: &Section) -> Result<Kind, String> {
    let legs = pairs(section.array("mirrors").unwrap_or_default())?;
    if legs.iter().any(|(_, extent)| *extent != 0) {
        return Err("a leg does not begin at its volume's first extent".into());
    }
    Ok(Kind::Mirror { legs: legs.into_iter().map(|(name, _)| name).collect() })
}

#[cfg(test)]
mod tests {
    use super::super::text_parse::parse;
    use super::*;

    fn of(rest: &str) -> Result<Kind, String> {
        let text = format!("start_extent = 0\nextent_count = 4\n{rest}");
        Segment::parse(&parse(text.as_bytes()).unwrap()).map(|segment| segment.kind)
    }

    #[test]
    fn every_refused_type_has_its_name() {
        for (kind, expected) in [
            ("thin", Refusal::Thin),
            ("thin-pool", Refusal::Thin),
            ("cache", Refusal::Cache),
            ("cache+CACHE_USES_CACHEVOL", Refusal::Cache),
            ("cache-pool", Refusal::Cache),
            ("writecache", Refusal::WriteCache),
            ("vdo", Refusal::Vdo),
            ("vdo-pool", Refusal::Vdo),
            ("integrity", Refusal::Integrity),
            ("raid5_ls", Refusal::RaidLevel("raid5_ls".into())),
            ("raid0", Refusal::RaidLevel("raid0".into())),
            ("error", Refusal::SegmentType("error".into())),
        ] {
            assert_eq!(of(&format!("type = \"{kind}\"")), Ok(Kind::Refused(expected)), "{kind}");
        }
    }

    #[test]
    fn malformed_segments() {
        for text in [
            "type = \"striped\"",
            "type = \"striped\"\nstripe_count = 2\nstripes = [\"pv0\", 0]",
            "type = \"striped\"\nstripe_count = 1\nstripes = [\"pv0\", -1]",
            "type = \"striped\"\nstripe_count = 1\nstripes = [0, \"pv0\"]",
            "type = \"striped\"\nstripe_count = 2\nstripe_size = 3\nstripes = [\"a\", 0, \"b\", 0]",
            "type = \"striped\"\nstripe_count = 3\nstripe_size = 8\nstripes = [\"a\", 0, \"b\", 0, \"c\", 0]",
            "type = \"raid1\"\nraids = [\"a\"]",
            "type = \"mirror\"\nmirrors = [\"a\", 1]",
        ] {
            assert!(of(text).is_err(), "{text}");
        }
    }
}
