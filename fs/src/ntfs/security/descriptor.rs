//! Self-relative security descriptors, taken apart and put together.

use crate::num::{to_u8, to_u16, to_u32, to_usize};

/// Bytes of SECURITY_DESCRIPTOR_RELATIVE before its parts.
const HEADER: usize = 20;
/// Bytes of an ACL before its entries.
const ACL_HEADER: usize = 8;
/// SE_DACL_PRESENT.
pub const DACL_PRESENT: u16 = 0x0004;
/// SE_SACL_PRESENT.
pub const SACL_PRESENT: u16 = 0x0010;
/// SE_DACL_AUTO_INHERITED.
pub const DACL_AUTO_INHERITED: u16 = 0x0400;
/// SE_SACL_AUTO_INHERITED.
pub const SACL_AUTO_INHERITED: u16 = 0x0800;
/// SE_SELF_RELATIVE.
pub const SELF_RELATIVE: u16 = 0x8000;

/// A security identifier, as its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sid(Vec<u8>);

impl Sid {
    /// `S-1-AUTHORITY-SUB-SUB...`, at most 15 subauthorities.
    pub fn new(authority: u8, subs: &[u32]) -> Self {
        let subs = &subs[..subs.len().min(15)];
        let mut bytes = vec![1, to_u8(subs.len()), 0, 0, 0, 0, 0, authority];
        bytes.extend(subs.iter().flat_map(|sub| sub.to_le_bytes()));
        Self(bytes)
    }

    /// S-1-5-18, the local system.
    pub fn system() -> Self {
        Self::new(5, &[18])
    }

    /// S-1-5-32-544, the group Administrators.
    pub fn administrators() -> Self {
        Self::new(5, &[32, 544])
    }

    /// S-1-3-0, who stands for the owner of what is made.
    pub fn creator_owner() -> Self {
        Self::new(3, &[0])
    }

    /// S-1-3-1, who stands for the group of what is made.
    pub fn creator_group() -> Self {
        Self::new(3, &[1])
    }

    /// The identifier that begins at the first of `bytes`.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let bad =
            || format!("a security identifier begins with {:02x?}", &bytes[..bytes.len().min(8)]);
        match bytes {
            [1, count @ 0..=15, ..] => {
                let length = 8 + 4 * usize::from(*count);
                bytes.get(..length).map(|sid| Self(sid.to_vec())).ok_or_else(bad)
            }
            _ => Err(bad()),
        }
    }

    /// Its bytes on disk.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Display for Sid {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let authority =
            self.0[2..8].iter().fold(0u64, |number, &byte| number << 8 | u64::from(byte));
        write!(out, "S-1-{authority}")?;
        for sub in self.0[8..].chunks_exact(4) {
            write!(out, "-{}", u32::from_le_bytes([sub[0], sub[1], sub[2], sub[3]]))?;
        }
        Ok(())
    }
}

/// One entry of an access control list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ace {
    /// AceType.
    pub kind: u8,
    /// AceFlags.
    pub flags: u8,
    /// The bytes after the header: for most types an access mask and a security identifier.
    pub body: Vec<u8>,
}

impl Ace {
    /// An entry of a type that has a mask and an identifier.
    pub fn new(kind: u8, flags: u8, mask: u32, sid: &Sid) -> Self {
        Self { kind, flags, body: [&mask.to_le_bytes()[..], sid.as_bytes()].concat() }
    }

    /// Whether an access mask and an identifier are at the begin of the body.
    fn is_plain(&self) -> bool {
        // Allow, deny, audit, alarm; their callback forms; label, attribute, policy and trust.
        matches!(self.kind, 0..=3 | 9 | 10 | 13 | 14 | 0x11..=0x14)
    }

    /// The access mask.
    pub fn mask(&self) -> u32 {
        self.body.get(..4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
    }

    /// The same entry with another access mask.
    pub fn with_mask(mut self, mask: u32) -> Self {
        if let Some(place) = self.body.get_mut(..4) {
            place.copy_from_slice(&mask.to_le_bytes());
        }
        self
    }

    /// The identifier, of types that have it in the usual place.
    pub fn sid(&self) -> Option<Sid> {
        self.is_plain().then(|| self.body.get(4..)).flatten().and_then(|b| Sid::parse(b).ok())
    }

    /// The same entry for another identifier.
    pub fn with_sid(mut self, sid: &Sid) -> Self {
        if let Some(old) = self.sid() {
            let _ = self.body.splice(4..4 + old.as_bytes().len(), sid.as_bytes().iter().copied());
        }
        self
    }

    fn size(&self) -> usize {
        (4 + self.body.len()).next_multiple_of(4)
    }
}

/// An access control list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    /// AclRevision: 2, or 4 where there are object entries.
    pub revision: u8,
    /// Its entries, in their order.
    pub aces: Vec<Ace>,
}

impl Acl {
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let header = bytes.get(..ACL_HEADER).ok_or("an access control list has no header")?;
        let word = |at: usize| usize::from(u16::from_le_bytes([header[at], header[at + 1]]));
        let (size, count) = (word(2), word(4));
        let list = bytes
            .get(ACL_HEADER..size)
            .ok_or_else(|| format!("an access control list of {size} bytes"))?;
        let (mut aces, mut at) = (Vec::new(), 0);
        for _ in 0..count {
            let bad = || format!("an access control list has no {count} entries");
            let ace = list.get(at..at + 4).ok_or_else(bad)?;
            let size = usize::from(u16::from_le_bytes([ace[2], ace[3]]));
            let body = list.get(at + 4..at + size).filter(|body| size >= 8 && body.len() % 4 == 0);
            let body = body.ok_or_else(|| format!("an access control entry of {size} bytes"))?;
            let entry = Ace { kind: ace[0], flags: ace[1], body: body.to_vec() };
            if entry.is_plain() {
                Sid::parse(entry.body.get(4..).unwrap_or(&[]))?;
            }
            aces.push(entry);
            at += size;
        }
        Ok(Self { revision: header[0], aces })
    }

    /// Its bytes; `None` when they would be more than a list can have.
    fn to_bytes(&self) -> Option<Vec<u8>> {
        let size = ACL_HEADER + self.aces.iter().map(Ace::size).sum::<usize>();
        let mut out = vec![self.revision, 0];
        out.extend(u16::try_from(size).ok()?.to_le_bytes());
        out.extend(u16::try_from(self.aces.len()).ok()?.to_le_bytes());
        out.extend([0, 0]);
        for ace in &self.aces {
            let end = out.len() + ace.size();
            out.extend([ace.kind, ace.flags]);
            out.extend(to_u16(ace.size()).to_le_bytes());
            out.extend_from_slice(&ace.body);
            out.resize(end, 0);
        }
        Some(out)
    }
}

/// A security descriptor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Descriptor {
    /// Control.
    pub control: u16,
    /// The owner.
    pub owner: Option<Sid>,
    /// The primary group.
    pub group: Option<Sid>,
    /// The system's list: audits and labels.
    pub sacl: Option<Acl>,
    /// The rights. `None` with DACL_PRESENT set: everyone may do all.
    pub dacl: Option<Acl>,
}

impl Descriptor {
    /// Takes a self-relative descriptor apart. The error says what is wrong with it.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let header = bytes
            .get(..HEADER)
            .ok_or_else(|| format!("a security descriptor of {} bytes", bytes.len()))?;
        let control = u16::from_le_bytes([header[2], header[3]]);
        if header[0] != 1 || control & SELF_RELATIVE == 0 {
            return Err(format!("a security descriptor begins with {:02x?}", &header[..4]));
        }
        let part = |at: usize| {
            let b = &header[at..at + 4];
            match to_usize(u32::from_le_bytes([b[0], b[1], b[2], b[3]])) {
                0 => Ok(None),
                from if from >= HEADER && from < bytes.len() => Ok(Some(&bytes[from..])),
                from => Err(format!("a part of a security descriptor is at byte {from}")),
            }
        };
        let list = |at: usize, bit: u16| match part(at)?.filter(|_| control & bit != 0) {
            Some(list) => Acl::parse(list).map(Some),
            None => Ok(None),
        };
        Ok(Self {
            control,
            owner: part(4)?.map(Sid::parse).transpose()?,
            group: part(8)?.map(Sid::parse).transpose()?,
            sacl: list(12, SACL_PRESENT)?,
            dacl: list(16, DACL_PRESENT)?,
        })
    }

    /// Puts it together as Windows lays it out: lists first, then owner and group. `None` where it
    /// would be larger than a descriptor can be.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let mut out = vec![0; HEADER];
        out[0] = 1;
        out[2..4].copy_from_slice(&(self.control | SELF_RELATIVE).to_le_bytes());
        let lists = [(12, &self.sacl), (16, &self.dacl)];
        for (at, list) in lists {
            if let Some(list) = list {
                let from = to_u32(out.len());
                out[at..at + 4].copy_from_slice(&from.to_le_bytes());
                out.extend(list.to_bytes()?);
            }
        }
        for (at, sid) in [(4, &self.owner), (8, &self.group)] {
            if let Some(sid) = sid {
                let from = to_u32(out.len());
                out[at..at + 4].copy_from_slice(&from.to_le_bytes());
                out.extend_from_slice(sid.as_bytes());
            }
        }
        (out.len() <= 0x1_0000).then_some(out)
    }
}
