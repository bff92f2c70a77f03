//! Trees in memory against a sorted map, and hostile ones.

use std::collections::{BTreeMap, BTreeSet};

use super::collate::name_key;
use super::*;
use crate::ntfs::fixup;
use crate::testing::Random;

/// An index in memory, whose blocks go through update sequences as on disk.
pub(in crate::ntfs) struct Store {
    root: Vec<u8>,
    root_room: usize,
    blocks: Vec<Option<Vec<u8>>>,
    most: usize,
    unit: u64,
}

impl Store {
    pub(in crate::ntfs) fn new(rule: u32, block: u32, root_room: usize) -> Self {
        let indexed = if rule == collate::FILE_NAME { 0x30 } else { 0 };
        let root = empty_root(indexed, rule, block, 1);
        Self { root, root_room, blocks: Vec::new(), most: usize::MAX, unit: 1 }
    }
    fn used(&self) -> BTreeSet<Vcn> {
        let all = self.blocks.iter().enumerate();
        all.filter(|(_, b)| b.is_some()).map(|(i, _)| Vcn(i as u64 * self.unit)).collect()
    }
}

impl<T: IndexStore> IndexStore for &mut T {
    fn place(&self) -> String {
        (**self).place()
    }
    fn root(&self) -> Result<Vec<u8>> {
        (**self).root()
    }
    fn set_root(&mut self, value: &[u8]) -> Result<bool> {
        (**self).set_root(value)
    }
    fn read_block(&self, vcn: Vcn) -> Result<Vec<u8>> {
        (**self).read_block(vcn)
    }
    fn write_block(&mut self, vcn: Vcn, block: &[u8]) -> Result<()> {
        (**self).write_block(vcn, block)
    }
    fn allocate_block(&mut self) -> Result<Vcn> {
        (**self).allocate_block()
    }
    fn free_block(&mut self, vcn: Vcn) -> Result<()> {
        (**self).free_block(vcn)
    }
}

impl IndexStore for Store {
    fn place(&self) -> String {
        "test".to_owned()
    }
    fn root(&self) -> Result<Vec<u8>> {
        Ok(self.root.clone())
    }
    fn set_root(&mut self, value: &[u8]) -> Result<bool> {
        if value.len() > self.root_room {
            return Ok(false);
        }
        self.root = value.to_vec();
        Ok(true)
    }
    fn read_block(&self, vcn: Vcn) -> Result<Vec<u8>> {
        let block = self.blocks.get((vcn.0 / self.unit) as usize).and_then(Clone::clone);
        let mut block = block
            .ok_or_else(|| Error::corrupt("INDX block", format!("VCN {vcn}"), "not in use"))?;
        fixup::apply(&mut block, b"INDX").map_err(|text| Error::corrupt("INDX block", "", text))?;
        Ok(block)
    }
    fn write_block(&mut self, vcn: Vcn, block: &[u8]) -> Result<()> {
        let mut block = block.to_vec();
        fixup::protect(&mut block).unwrap();
        self.blocks[(vcn.0 / self.unit) as usize] = Some(block);
        Ok(())
    }
    fn allocate_block(&mut self) -> Result<Vcn> {
        assert!(self.root.len() <= 56, "the root makes room first");
        if self.used().len() >= self.most {
            return Err(Error::NoSpace("test".to_owned()));
        }
        let at = self.blocks.iter().position(Option::is_none).unwrap_or(self.blocks.len());
        self.blocks.resize(self.blocks.len().max(at + 1), None);
        self.blocks[at] = Some(Vec::new());
        Ok(Vcn(at as u64 * self.unit))
    }
    fn free_block(&mut self, vcn: Vcn) -> Result<()> {
        let block = self.blocks.get_mut((vcn.0 / self.unit) as usize).and_then(Option::take);
        block.map(|_| ()).ok_or_else(|| Error::corrupt("$BITMAP", format!("VCN {vcn}"), "free"))
    }
}

/// The content of the tree; its shape is checked: every block in use is reached, none is empty, and
/// all leaves are equally deep.
pub(in crate::ntfs) fn contents(store: &Store, upcase: &UpCase) -> Vec<Entry> {
    let context = Context::open(store, upcase).unwrap();
    let mut out = Vec::new();
    let mut depths = BTreeSet::new();
    let mut seen = BTreeSet::new();
    fn node(
        context: &Context<'_, Store>,
        places: &Places<'_>,
        depth: usize,
        (out, depths, seen): (&mut Vec<Entry>, &mut BTreeSet<usize>, &mut BTreeSet<Vcn>),
    ) {
        assert!(depth == 0 || places.len() > 1, "a block without entries");
        let entries = node::Node::from_views(places).entries;
        for (index, (_, child)) in places.iter().enumerate() {
            match child {
                Some(vcn) => {
                    assert!(seen.insert(*vcn));
                    let block = context.block(*vcn).unwrap();
                    let places = context.block_places(*vcn, &block).unwrap();
                    node(context, &places, depth + 1, (&mut *out, &mut *depths, &mut *seen));
                }
                None => {
                    depths.insert(depth);
                }
            }
            if let Some((entry, _)) = entries.get(index) {
                out.push(entry.clone());
            }
        }
    }
    node(&context, &context.root_places().unwrap(), 0, (&mut out, &mut depths, &mut seen));
    assert_eq!(seen, store.used());
    assert_eq!(depths.len(), 1, "leaves at different depths");
    let order = |pair: &[Entry]| context.collation.compare(pair[0].key(), pair[1].key()).is_lt();
    assert!(out.windows(2).all(order), "keys out of order");
    let mut walked = Vec::new();
    walk(store, upcase, &mut |view| {
        walked.push((view.key().to_vec(), view.reference()));
        Ok(true)
    })
    .unwrap();
    assert!(walked.iter().map(|w| &w.0[..]).eq(out.iter().map(Entry::key)));
    assert_eq!(is_empty(store, upcase).unwrap(), out.is_empty());
    let pick = out.len() / 3;
    if let Some(from) = out.get(pick).filter(|entry| context.collation.takes(entry.key())) {
        let mut rest = 0;
        walk_from(store, upcase, from.key(), &mut |view| {
            assert_eq!(view.key(), out[pick + rest].key());
            rest += 1;
            Ok(true)
        })
        .unwrap();
        assert_eq!(rest, out.len() - pick);
    }
    out
}

fn file_key(name: &[u16], tail: u8) -> Vec<u8> {
    let mut key = name_key(name);
    key[0] = tail;
    key
}

fn random_name(random: &mut Random, longest: usize) -> Vec<u16> {
    let length = 1 + random.below(longest);
    let letters: Vec<u16> = "aAbBcßÄä_".encode_utf16().collect();
    // The first ones differ little, so that names meet.
    (0..length).map(|_| letters[random.below(letters.len())]).collect()
}

#[test]
fn directories_against_a_sorted_map() {
    let upcase = UpCase::unicode();
    for (seed, block, root_room, longest, unit) in [
        (1, 4096, 500, 12, 1),
        (2, 4096, 300, 255, 8),
        (3, 1024, 56, 60, 1),
        (4, 2048, 3800, 200, 4),
        (5, 512, 200, 20, 1),
        (6, 1024, 4000, 40, 2),
    ] {
        let mut random = Random(seed);
        let mut store = Store::new(collate::FILE_NAME, block, root_room);
        store.unit = unit;
        let mut model: BTreeMap<(Vec<u16>, Vec<u16>), u64> = BTreeMap::new();
        for round in 0..3000u64 {
            // It grows, shrinks to nothing and grows again.
            let grow = [70, 20, 80, 15][(round / 750) as usize];
            let full = |name: &[u16]| (upcase.fold_name(name), name.to_vec());
            let mut name = random_name(&mut random, longest);
            if random.below(2) == 0 && !model.is_empty() {
                name = model.keys().nth(random.below(model.len())).unwrap().1.clone();
            }
            let key = file_key(&name, 1);
            if random.below(100) < grow {
                let result = insert(&mut store, &upcase, &Entry::file(round, &key));
                if let std::collections::btree_map::Entry::Vacant(e) = model.entry(full(&name)) {
                    result.unwrap();
                    e.insert(round);
                } else {
                    assert!(matches!(result, Err(Error::Exists(_))));
                }
            } else {
                if random.below(4) == 0 {
                    let change = Entry::file(round, &[&key[..], &[7; 5]].concat());
                    let had = replace(&mut store, &upcase, &change).unwrap();
                    assert_eq!(had, model.contains_key(&full(&name)));
                    if had {
                        model.insert(full(&name), round);
                    }
                    continue;
                }
                let removed = remove(&mut store, &upcase, &key).unwrap();
                assert_eq!(removed.map(|e| e.reference()), model.remove(&full(&name)));
            }
            let found = find_name(&store, &upcase, &name).unwrap().map(|e| e.reference());
            let exact = model.get(&full(&name)).copied();
            assert!(exact.is_none() || found == exact);
            assert_eq!(found.is_some(), model.keys().any(|(folded, _)| *folded == full(&name).0));
            let exactly = lookup(&store, &upcase, &key).unwrap().map(|e| e.reference());
            assert_eq!(exactly, exact);
            if round % 50 == 0 {
                let all = contents(&store, &upcase);
                assert!(all.iter().map(Entry::reference).eq(model.values().copied()));
            }
        }
        for (_, name) in std::mem::take(&mut model).into_keys() {
            assert!(remove(&mut store, &upcase, &file_key(&name, 0)).unwrap().is_some());
        }
        assert!(contents(&store, &upcase).is_empty());
        assert!(store.used().is_empty(), "an empty index has no blocks");
    }
}

#[test]
fn want_of_room_changes_nothing() {
    let upcase = UpCase::unicode();
    for most in [0, 1, 2, 5, 20] {
        let mut random = Random(most as u64);
        let mut store = Store::new(collate::FILE_NAME, 1024, 200);
        store.most = most;
        let mut refused = 0;
        while refused < 50 {
            let before = (store.root.clone(), store.blocks.clone());
            let name = random_name(&mut random, 50);
            match insert(&mut store, &upcase, &Entry::file(1, &file_key(&name, 0))) {
                Ok(()) => continue,
                Err(Error::Exists(_)) => {}
                Err(Error::NoSpace(_)) => refused += 1,
                Err(other) => panic!("{other}"),
            }
            assert_eq!(before.0, store.root);
            let blocks = store.blocks.iter().filter(|block| block.is_some());
            assert!(blocks.eq(before.1.iter().filter(|block| block.is_some())));
        }
        contents(&store, &upcase);
    }
    let mut store = Store::new(collate::FILE_NAME, 512, 200);
    let long = Entry::file(1, &file_key(&[97; 255], 0));
    assert!(matches!(insert(&mut store, &upcase, &long), Err(Error::Invalid(_))));
}

#[test]
fn views_keep_data_and_tail() {
    let upcase = UpCase::unicode();
    for rule in [collate::ULONG, collate::SECURITY_HASH, collate::ULONGS, collate::BINARY] {
        let mut store = Store::new(rule, 4096, 300);
        let key = |n: u32| match rule {
            collate::ULONG => n.to_le_bytes().to_vec(),
            collate::SECURITY_HASH => [(n % 7).to_le_bytes(), n.to_le_bytes()].concat(),
            _ => [(n % 5).to_le_bytes(), n.to_le_bytes(), [9; 4]].concat(),
        };
        for n in 0..1000u32 {
            let n = n.wrapping_mul(0x9e37_79b1);
            let entry = Entry::view(&key(n), &n.to_le_bytes(), b"I\0I\0");
            insert(&mut store, &upcase, &entry).unwrap();
        }
        for entry in contents(&store, &upcase) {
            let n = u32::from_le_bytes(entry.data().try_into().unwrap());
            assert_eq!(entry.key(), key(n));
            assert_eq!(entry, Entry::view(&key(n), &n.to_le_bytes(), b"I\0I\0"));
        }
        assert!(find_name(&store, &upcase, &[97]).is_err());
        assert!(
            insert(&mut store, &upcase, &Entry::view(&[1; 3], &[], &[])).is_err() != (rule == 0)
        );
    }
}

#[test]
fn hostile_trees_end_in_errors() {
    let upcase = UpCase::unicode();
    let mut random = Random(77);
    let mut good = Store::new(collate::FILE_NAME, 512, 200);
    for n in 0..60u64 {
        let name = random_name(&mut random, 20);
        let _ = insert(&mut good, &upcase, &Entry::file(n, &file_key(&name, 0)));
    }
    let mut errors = 0;
    for _ in 0..20_000 {
        let mut store = Store {
            root: good.root.clone(),
            blocks: good.blocks.clone(),
            ..Store::new(collate::FILE_NAME, 512, 200)
        };
        for _ in 0..1 + random.below(3) {
            let count = store.blocks.len() + 1;
            let at = random.below(count);
            let target = match store.blocks.get_mut(at) {
                Some(Some(block)) => block,
                _ => &mut store.root,
            };
            let place = random.below(target.len());
            // Small numbers are lengths, flags and VCNs.
            target[place] = match random.below(3) {
                0 => random.below(16) as u8,
                1 => target[place] ^ 1 << random.below(8),
                _ => random.next_u64() as u8,
            };
        }
        let name = random_name(&mut random, 20);
        let key = file_key(&name, 0);
        let mut steps = 0;
        let walked = walk(&store, &upcase, &mut |_| {
            steps += 1;
            Ok(true)
        });
        assert!(steps < 2000);
        errors += usize::from(walked.is_err());
        let _ = find_name(&store, &upcase, &name);
        let _ = insert(&mut store, &upcase, &Entry::file(9, &key));
        let _ = lookup(&store, &upcase, &key);
        let mut some = Vec::new();
        let _ = walk(&good, &upcase, &mut |view| {
            some.push(view.key().to_vec());
            Ok(true)
        });
        for _ in 0..4 {
            let _ = remove(&mut store, &upcase, &some[random.below(some.len())]);
        }
    }
    assert!(errors > 1000, "{errors}");
    let mut looped = Store::new(collate::FILE_NAME, 512, 200);
    looped.blocks = vec![None];
    let own = node::Node { entries: Vec::new(), last: Some(Vcn(0)) };
    looped.write_block(Vcn(0), &own.to_block(Vcn(0), 512, None)).unwrap();
    looped.root = own.to_root(&root_header(&looped, &looped.root).unwrap());
    for error in [
        walk(&looped, &upcase, &mut |_| Ok(true)).unwrap_err(),
        find_name(&looped, &upcase, &[97]).unwrap_err(),
        insert(&mut looped, &upcase, &Entry::file(1, &file_key(&[97], 0))).unwrap_err(),
    ] {
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
    }
}
