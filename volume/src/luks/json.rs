//! The JSON text of a LUKS2 header: key slots, digests, segments.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::cipher::{IV_UNIT, Spec};
use super::hash::Hash;
use super::kdf::Kdf;
use super::open::{Data, Digest, Header, MAX_KEY, MAX_STRIPES, Slot};
use super::printable;
use crate::{Error, Refusal, Result};

/// The specification has at most 32 key slots; other lists are not longer in practice.
const MAX_OBJECTS: usize = 64;
/// Most bytes of a salt or digest.
const MAX_SALT: usize = 1024;

#[derive(Deserialize)]
struct Text {
    keyslots: BTreeMap<String, KeySlot>,
    segments: BTreeMap<String, Segment>,
    digests: BTreeMap<String, TextDigest>,
    #[serde(default)]
    config: Config,
}

#[derive(Deserialize, Default)]
struct Config {
    #[serde(default)]
    requirements: Option<Requirements>,
}

#[derive(Deserialize)]
struct Requirements {
    #[serde(default)]
    mandatory: Vec<String>,
}

#[derive(Deserialize)]
struct KeySlot {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    key_size: usize,
    #[serde(default)]
    priority: Option<u8>,
    #[serde(default)]
    af: Option<Splitter>,
    #[serde(default)]
    area: Option<Area>,
    #[serde(default)]
    kdf: Option<TextKdf>,
}

#[derive(Deserialize)]
struct Splitter {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    stripes: usize,
    #[serde(default)]
    hash: String,
}

#[derive(Deserialize)]
struct Area {
    #[serde(rename = "type")]
    kind: String,
    offset: String,
    #[serde(default)]
    encryption: String,
    #[serde(default)]
    key_size: usize,
}

#[derive(Deserialize)]
struct TextKdf {
    #[serde(rename = "type")]
    kind: String,
    salt: String,
    #[serde(default)]
    hash: String,
    #[serde(default)]
    iterations: u32,
    #[serde(default)]
    time: u32,
    #[serde(default)]
    memory: u32,
    #[serde(default)]
    cpus: u32,
}

#[derive(Deserialize)]
struct TextDigest {
    #[serde(rename = "type")]
    kind: String,
    keyslots: Vec<String>,
    segments: Vec<String>,
    #[serde(default)]
    hash: String,
    #[serde(default)]
    iterations: u32,
    salt: String,
    digest: String,
}

#[derive(Deserialize)]
struct Segment {
    #[serde(rename = "type")]
    kind: String,
    offset: String,
    #[serde(default)]
    size: String,
    #[serde(default)]
    iv_tweak: Option<String>,
    #[serde(default)]
    encryption: String,
    #[serde(default)]
    sector_size: u64,
    #[serde(default)]
    integrity: Option<serde::de::IgnoredAny>,
    #[serde(default)]
    flags: Vec<String>,
}

fn corrupt(position: impl Into<String>, detail: impl Into<String>) -> Error {
    Error::corrupt("LUKS2 metadata", position, detail)
}

/// Reads the text. `header_size` is that of one header, `device_size` that of the device.
pub(crate) fn parse(text: &[u8], header_size: u64, device_size: u64) -> Result<Header> {
    let text: Text = serde_json::from_slice(text).map_err(Error::Json)?;
    for (name, count) in [
        ("keyslots", text.keyslots.len()),
        ("segments", text.segments.len()),
        ("digests", text.digests.len()),
    ] {
        if count > MAX_OBJECTS {
            return Err(corrupt(name, format!("{count} objects; {MAX_OBJECTS} are read")));
        }
    }
    let data = data(&text, header_size, device_size)?;
    // Only a digest of the segment that is used tells its key.
    let segment = text.segments.keys().next().cloned().unwrap_or_default();
    let mut digests = Vec::new();
    let mut of_slot: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (name, digest) in text.digests.iter().filter(|(_, d)| d.segments.contains(&segment)) {
        for slot in &digest.keyslots {
            of_slot.entry(slot).or_default().push(digests.len());
        }
        digests.push(parse_digest(name, digest)?);
    }
    let mut slots = Vec::new();
    for (name, slot) in &text.keyslots {
        // Priority 0 is for slots that are used only when they are named.
        let priority = slot.priority.unwrap_or(1);
        let Some(digests) = of_slot.get(name.as_str()).filter(|_| priority > 0) else { continue };
        if slot.kind == "luks2" {
            slots.push((u8::MAX - priority, parse_slot(name, slot, digests.clone())?));
        }
    }
    slots.sort_by_key(|(order, _)| *order);
    Ok(Header {
        version: 2,
        uuid: String::new(),
        label: String::new(),
        slots: slots.into_iter().map(|(_, slot)| slot).collect(),
        digests,
        data,
        damage: None,
    })
}

/// The one segment with the data, or the reason why it is refused.
fn data(text: &Text, header_size: u64, device_size: u64) -> Result<Result<Data, Refusal>> {
    let mut requirements = text.config.requirements.iter().flat_map(|all| &all.mandatory);
    if let Some(requirement) = requirements.next() {
        return Ok(Err(match requirement.as_str() {
            name if name.contains("reencrypt") => Refusal::Reencryption,
            name if name.contains("opal") => Refusal::Opal,
            name => Refusal::Requirement(printable(name)),
        }));
    }
    let reencrypts = text.keyslots.values().any(|slot| slot.kind == "reencrypt")
        || text.segments.values().any(|s| s.flags.iter().any(|flag| flag.starts_with("backup")));
    if reencrypts {
        return Ok(Err(Refusal::Reencryption));
    }
    let mut segments = text.segments.iter();
    let (Some((name, segment)), None) = (segments.next(), segments.next()) else {
        return Ok(Err(Refusal::Segments(format!("of {} segments", text.segments.len()))));
    };
    match segment.kind.as_str() {
        "crypt" => {}
        kind if kind.contains("opal") => return Ok(Err(Refusal::Opal)),
        kind => return Ok(Err(Refusal::Segments(printable(kind)))),
    }
    if segment.integrity.is_some() {
        return Ok(Err(Refusal::LuksIntegrity));
    }
    let position = || format!("segment {}", printable(name));
    let offset = number(&segment.offset).ok_or_else(|| corrupt(position(), "offset"))?;
    if offset == 0 {
        return Ok(Err(Refusal::Detached));
    }
    let sector = segment.sector_size;
    if !(512..=4096).contains(&sector) || !sector.is_power_of_two() {
        return Err(corrupt(position(), format!("sectors of {sector} bytes")));
    }
    let size = match segment.size.as_str() {
        "dynamic" => None,
        size => Some(number(size).ok_or_else(|| corrupt(position(), "size"))?),
    };
    let end = offset.checked_add(size.unwrap_or(0));
    let fits = offset.is_multiple_of(IV_UNIT)
        && offset >= 2 * header_size
        && size.is_none_or(|size| size.is_multiple_of(sector))
        && end.is_some_and(|end| end <= device_size);
    if !fits {
        return Err(corrupt(position(), format!("{size:?} bytes at {offset}")));
    }
    let iv_offset = match segment.iv_tweak.as_deref() {
        None => 0,
        Some(tweak) => number(tweak).ok_or_else(|| corrupt(position(), "iv_tweak"))?,
    };
    Ok(Spec::parse(&segment.encryption).map(|cipher| Data {
        offset,
        size,
        // 512 to 4096.
        sector: sector as usize,
        cipher,
        iv_offset,
    }))
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn decode(position: &str, text: &str) -> Result<Vec<u8>> {
    if text.len() > MAX_SALT * 2 {
        return Err(corrupt(printable(position), "a salt or digest is too long"));
    }
    STANDARD.decode(text).map_err(|_| corrupt(printable(position), "it is not base64"))
}

fn parse_digest(name: &str, digest: &TextDigest) -> Result<Digest> {
    let value = decode(name, &digest.digest)?;
    let salt = decode(name, &digest.salt)?;
    if value.len() < 16 {
        return Err(corrupt(format!("digest {}", printable(name)), "it is too short"));
    }
    let kdf = match digest.kind.as_str() {
        "pbkdf2" => Hash::parse(&digest.hash).map(|hash| Kdf::Pbkdf2 {
            hash,
            rounds: digest.iterations,
            salt,
        }),
        other => Err(Refusal::Hash(printable(other))),
    };
    Ok(Digest { kdf, value })
}

fn parse_slot(name: &str, slot: &KeySlot, digests: Vec<usize>) -> Result<Slot> {
    let position = || format!("key slot {}", printable(name));
    let missing = || corrupt(position(), "af, area or kdf is missing");
    let (Some(af), Some(area), Some(kdf)) = (&slot.af, &slot.area, &slot.kdf) else {
        return Err(missing());
    };
    let sizes = (1..=MAX_KEY).contains(&slot.key_size)
        && (1..=MAX_KEY).contains(&area.key_size)
        && (1..=MAX_STRIPES).contains(&af.stripes);
    if !sizes || af.kind != "luks1" || area.kind != "raw" {
        let detail = format!(
            "keys of {} and {} bytes, {} stripes, types {} and {}",
            slot.key_size,
            area.key_size,
            af.stripes,
            printable(&af.kind),
            printable(&area.kind)
        );
        return Err(corrupt(position(), detail));
    }
    let salt = decode(name, &kdf.salt)?;
    let argon2 = |id| {
        Ok(Kdf::Argon2 {
            id,
            time: kdf.time,
            memory: kdf.memory,
            lanes: kdf.cpus,
            salt: salt.clone(),
        })
    };
    let kdf = match kdf.kind.as_str() {
        "pbkdf2" => Hash::parse(&kdf.hash).map(|hash| Kdf::Pbkdf2 {
            hash,
            rounds: kdf.iterations,
            salt: salt.clone(),
        }),
        "argon2i" => argon2(false),
        "argon2id" => argon2(true),
        other => Err(Refusal::Hash(printable(other))),
    };
    Ok(Slot {
        kdf,
        area_key: area.key_size,
        area_cipher: Spec::parse(&area.encryption),
        area: number(&area.offset).ok_or_else(|| corrupt(position(), "area offset"))?,
        stripes: af.stripes,
        stripe_hash: Hash::parse(&af.hash),
        key: slot.key_size,
        digests,
    })
}
