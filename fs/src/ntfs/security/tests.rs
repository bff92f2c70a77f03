//! Descriptors of Windows' own, inheritance by table, and `$Secure` in memory.

use super::descriptor::{Ace, Acl, Sid};
use super::*;
use crate::error::{Error, Result};
use crate::ntfs::index::collate;
use crate::ntfs::index::tests::{Store, contents};
use crate::testing::Random;
use crate::utf16::UpCase;

const OI: u8 = 1;
const CI: u8 = 2;
const NP: u8 = 4;
const IO: u8 = 8;
const INH: u8 = 16;

fn users() -> Sid {
    Sid::new(5, &[32, 545])
}

fn parent(aces: Vec<Ace>) -> Descriptor {
    let dacl = Some(Acl { revision: 2, aces });
    Descriptor {
        control: 0x8004,
        owner: Some(Sid::system()),
        group: Some(Sid::system()),
        dacl,
        sacl: None,
    }
}

fn made(aces: Vec<Ace>, is_directory: bool) -> Vec<(u8, u32, String)> {
    let child = inherit(&parent(aces), is_directory);
    // It is one that can be written and read.
    let bytes = child.to_bytes().unwrap();
    assert_eq!(Descriptor::parse(&bytes).unwrap(), child);
    assert_eq!(child.owner, Some(Sid::administrators()));
    let dacl = child.dacl.unwrap();
    dacl.aces.iter().map(|ace| (ace.flags, ace.mask(), ace.sid().unwrap().to_string())).collect()
}

#[test]
fn inheritance_by_table() {
    let rights = 0x0012_00a9;
    let ace = |flags| Ace::new(0, flags, rights, &users());
    let same = |flags| (flags, rights, "S-1-5-32-545".to_owned());
    // Flags of the parent's entry, those of a file's, those of a directory's.
    let table: [(u8, Option<u8>, Option<u8>); 8] = [
        (0, None, None),
        (OI, Some(INH), Some(OI | IO | INH)),
        (CI, None, Some(CI | INH)),
        (OI | CI, Some(INH), Some(OI | CI | INH)),
        (OI | CI | IO, Some(INH), Some(OI | CI | INH)),
        (OI | CI | NP, Some(INH), Some(INH)),
        (OI | NP, Some(INH), None),
        (OI | CI | INH, Some(INH), Some(OI | CI | INH)),
    ];
    for (flags, file, directory) in table {
        for (is_directory, expected) in [(false, file), (true, directory)] {
            let own = made(vec![ace(flags)], is_directory);
            match expected {
                Some(flags) => assert_eq!(own, [same(flags)], "{flags:#x} {is_directory}"),
                // Nothing is passed on: the system and the administrators.
                None => assert_eq!(
                    own,
                    [(0, 0x1f01ff, "S-1-5-18".into()), (0, 0x1f01ff, "S-1-5-32-544".into())]
                ),
            }
        }
    }
}

#[test]
fn the_creator_and_generic_rights_become_concrete() {
    let creator = Ace::new(0, OI | CI | IO, 0x1000_0000, &Sid::creator_owner());
    assert_eq!(made(vec![creator.clone()], false), [(INH, 0x1f01ff, "S-1-5-32-544".into())]);
    assert_eq!(
        made(vec![creator], true),
        [
            (INH, 0x1f01ff, "S-1-5-32-544".into()),
            (INH | OI | CI | IO, 0x1000_0000, "S-1-3-0".into()),
        ]
    );
    let group = Ace::new(0, CI | NP, 0x8000_0000, &Sid::creator_group());
    assert_eq!(made(vec![group], true), [(INH, 0x0012_0089, "S-1-5-18".into())]);
    let read = Ace::new(1, OI | CI, 0xa000_0000, &users());
    assert_eq!(
        made(vec![read], true),
        [
            (INH, 0x0012_00a9, "S-1-5-32-545".into()),
            (INH | OI | CI | IO, 0xa000_0000, "S-1-5-32-545".into()),
        ]
    );
}

#[test]
fn labels_and_entries_of_unknown_types_are_passed_on_as_they_are() {
    let label = Ace::new(0x11, OI | CI, 3, &Sid::new(16, &[0x3000]));
    let object = Ace { kind: 5, flags: OI | CI, body: vec![7; 40] };
    let mut dir = parent(vec![object.clone()]);
    dir.sacl = Some(Acl { revision: 2, aces: vec![label.clone()] });
    let child = inherit(&dir, false);
    assert_eq!(child.control, 0x8c14);
    assert_eq!(child.sacl.unwrap().aces, [Ace { flags: INH, ..label }]);
    assert_eq!(child.dacl.unwrap().aces, [Ace { flags: INH, ..object }]);
}

#[test]
fn hostile_descriptors_are_errors() {
    let aces = vec![
        Ace::new(0, OI, 1, &users()),
        Ace::new(9, CI, 2, &Sid::system()),
        Ace { kind: 6, flags: 0, body: vec![1; 20] },
    ];
    let good = parent(aces).to_bytes().unwrap();
    let mut random = Random(6);
    let mut errors = 0;
    for _ in 0..50_000 {
        let mut bad = good.clone();
        for _ in 0..1 + random.below(3) {
            let at = random.below(bad.len());
            bad[at] = random.next_u64() as u8;
        }
        bad.truncate(1 + random.below(bad.len()));
        match Descriptor::parse(&bad) {
            Ok(parsed) => {
                let child = inherit(&parsed, random.below(2) == 0);
                assert_eq!(Descriptor::parse(&child.to_bytes().unwrap()).unwrap(), child);
            }
            Err(_) => errors += 1,
        }
    }
    assert!(errors > 1000);
    let many = vec![Ace::new(0, OI, 1, &users()); 5000];
    assert_eq!(parent(many).to_bytes(), None, "no list is larger than 64 KiB");
}

struct Secure {
    sii: Store,
    sdh: Store,
    sds: Vec<u8>,
}

impl SecureStore for Secure {
    type Index<'a> = &'a mut Store;
    fn index(&mut self, which: SecureIndex) -> Result<&mut Store> {
        Ok(match which {
            SecureIndex::Sii => &mut self.sii,
            SecureIndex::Sdh => &mut self.sdh,
        })
    }
    fn read_sds(&mut self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let part = self.sds.get(offset as usize..offset as usize + buf.len());
        buf.copy_from_slice(part.ok_or_else(|| Error::corrupt("$SDS", "", "beyond its end"))?);
        Ok(())
    }
    fn write_sds(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let end = offset as usize + bytes.len();
        self.sds.resize(self.sds.len().max(end), 0);
        self.sds[offset as usize..end].copy_from_slice(bytes);
        Ok(())
    }
}

#[test]
fn every_descriptor_is_kept_once_and_twice() {
    let upcase = UpCase::unicode();
    let mut secure = Secure {
        sii: Store::new(collate::ULONG, 4096, 300),
        sdh: Store::new(collate::SECURITY_HASH, 4096, 300),
        sds: Vec::new(),
    };
    let mut random = Random(12);
    let mut known: Vec<(u32, Vec<u8>)> = Vec::new();
    for round in 0..1200u32 {
        let count = 1 + random.below(40);
        let ace = |n: usize| Ace::new(0, 0, n as u32, &Sid::new(5, &[21, round, n as u32]));
        let bytes = parent((0..count).map(ace).collect()).to_bytes().unwrap();
        let id = intern(&mut secure, &upcase, &bytes).unwrap();
        assert_eq!(id, 0x100 + round);
        known.push((id, bytes));
        let (id, bytes) = &known[random.below(known.len())];
        assert_eq!(intern(&mut secure, &upcase, bytes).unwrap(), *id);
        assert_eq!(descriptor(&mut secure, &upcase, *id).unwrap().as_ref(), Some(bytes));
    }
    assert!(secure.sds.len() > 0x10_0000, "more than one piece");
    let by_id = contents(&secure.sii, &upcase);
    assert_eq!((by_id.len(), contents(&secure.sdh, &upcase).len()), (1200, 1200));
    for entry in by_id {
        let number = |at: usize| {
            let b = &entry.data()[at..at + 4];
            u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize
        };
        let (offset, length) = (number(8), number(16));
        assert_eq!(offset >> 18 & 1, 0, "in a copy's piece");
        assert_eq!(offset >> 18, (offset + length - 1) >> 18, "in two pieces");
        let copy = offset + 0x4_0000;
        assert_eq!(secure.sds[offset..offset + length], secure.sds[copy..copy + length]);
    }
    assert_eq!(descriptor(&mut secure, &upcase, 7).unwrap(), None);
    assert!(intern(&mut secure, &upcase, b"no descriptor").is_err());
    secure.sds[30] ^= 1;
    assert!(descriptor(&mut secure, &upcase, 0x100).is_err());
}
