use zerocopy::IntoBytes;

use super::format::{BaseBlock, DirtyPageReference, LogEntry, PAGE};
use super::hive::base_block;
use super::*;
use crate::craft::random::Entropy;

/// A self-relative descriptor without owner and lists.
const DESCRIPTOR: [u8; 20] = [1, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
const NOW: FileTime = FileTime(133_000_000_000_000_000);

fn empty(minor: u32) -> Hive {
    Hive::create("TEST", minor, &DESCRIPTOR, NOW).unwrap()
}

fn again(hive: Hive) -> Hive {
    Hive::open(hive.finish(), NOW).unwrap()
}

/// Every key and value as lines, to compare hives with; bounded, for hostile ones.
fn tree(hive: &Hive) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut waiting = vec![(hive.root(), String::new())];
    while let Some((key, path)) = waiting.pop() {
        if lines.len() > 100_000 || path.len() > 100_000 {
            break;
        }
        let class = hive.class_name(key)?.unwrap_or_default();
        lines.push(format!("{path} [{class}] {:x?}", hive.security(key)?));
        for value in hive.values(key)? {
            lines.push(format!("{path} {} {} {:x?}", value.name, value.data_type, value.data));
        }
        for subkey in hive.subkeys(key)?.into_iter().rev() {
            waiting.push((subkey, format!("{path}\\{}", hive.name(subkey)?)));
        }
    }
    Ok(lines)
}

#[test]
fn what_is_set_is_read() {
    for minor in [3, 5, 6] {
        let mut hive = empty(minor);
        let key = hive.create_path(hive.root(), "ControlSet001\\Control\\Lsa").unwrap();
        hive.set_class_name(key, "deadbeef").unwrap();
        let big: Vec<u8> = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
        for size in [0, 1, 4, 5, 100, 16344, 16345, 16349, 32688, 400_000] {
            hive.set_value(key, &format!("v{size}"), REG_BINARY, &big[..size]).unwrap();
        }
        hive.set_text(key, "", "default").unwrap();
        hive.set_text(key, "Größe日本", "😀").unwrap();
        hive.set_number(key, "n", 7).unwrap();
        let hive = again(hive);
        let key = hive.key("controlset001\\CONTROL\\lsa").unwrap().unwrap();
        for size in [0, 1, 4, 5, 100, 16344, 16345, 16349, 32688, 400_000] {
            let value = hive.value(key, &format!("V{size}")).unwrap().unwrap();
            assert_eq!(value.data, &big[..size], "{minor} {size}");
        }
        assert_eq!(hive.text(key, "").unwrap().unwrap(), "default");
        assert_eq!(hive.text(key, "grÖßE日本").unwrap().unwrap(), "😀");
        assert_eq!(hive.number(key, "N").unwrap(), Some(7));
        assert_eq!(hive.class_name(key).unwrap(), Some("deadbeef".into()));
        assert_eq!(hive.security(key).unwrap(), DESCRIPTOR);
        assert!(hive.key("nothing").unwrap().is_none());
    }
}

#[test]
fn values_shrink_grow_and_go() {
    let mut entropy = Entropy::seeded(3);
    let mut hive = empty(5);
    let key = hive.create_key(hive.root(), "k").unwrap();
    let mut model = std::collections::BTreeMap::new();
    for _ in 0..3000 {
        let name = format!("v{}", entropy.below(20));
        if entropy.below(4) == 0 {
            assert_eq!(hive.delete_value(key, &name).unwrap(), model.remove(&name).is_some());
        } else {
            let size = [0, 3, 4, 5, 40, 500, 5000, 17_000, 40_000][entropy.below(9) as usize];
            let mut data = vec![0; size];
            entropy.fill(&mut data);
            hive.set_value(key, &name, REG_BINARY, &data).unwrap();
            model.insert(name, data);
        }
    }
    let mut hive = again(hive);
    let key = hive.key("k").unwrap().unwrap();
    let values = hive.values(key).unwrap();
    assert_eq!(values.len(), model.len());
    for value in values {
        assert_eq!(model[&value.name.to_string()], value.data);
    }
    // 20 values of 40,000 bytes at most: what was let go was used again.
    assert!(hive.bins_size() < 3 << 20, "{}", hive.bins_size());
    for name in model.keys() {
        hive.delete_value(key, name).unwrap();
    }
    let hive = again(hive);
    let free: u32 = hive.free.values().sum();
    let used: u32 = hive.bins_size() - 32 * hive.bins.len() as u32 - free;
    assert!(used < 400, "{used} bytes are still in use");
    // Neighbours in a bin are one free cell.
    for (offset, size) in &hive.free {
        let next = offset + size;
        let begins_bin = hive.bins.iter().any(|(bin, _)| bin + 32 == next || *bin == next);
        assert!(begins_bin || !hive.free.contains_key(&next));
    }
}

#[test]
fn subkeys_are_sorted_and_lists_split() {
    for minor in [2, 3, 5] {
        let mut hive = empty(minor);
        let parent = hive.create_key(hive.root(), "p").unwrap();
        let mut entropy = Entropy::seeded(9);
        let mut names = std::collections::BTreeSet::new();
        while names.len() < 1300 {
            let name = entropy.text(b"abcXYZ_0{", 6).to_string().to_lowercase();
            hive.create_key(parent, &name).unwrap();
            names.insert(name);
        }
        let hive = again(hive);
        let parent = hive.key("p").unwrap().unwrap();
        let keys = hive.subkeys(parent).unwrap();
        assert_eq!(keys.len(), names.len());
        let found: Vec<Name> = keys.iter().map(|key| hive.name(*key).unwrap()).collect();
        assert!(found.windows(2).all(|pair| pair[0].compare(&pair[1]).is_lt()), "{minor}");
        for name in &names {
            assert!(hive.subkey(parent, &name.as_str().into()).unwrap().is_some());
        }
        let list = hive.node(parent).unwrap().subkeys_list_offset.get();
        assert!(hive.cell("list", list).unwrap().starts_with(b"ri"));
    }
}

#[test]
fn what_does_not_change_is_not_written() {
    let mut hive = empty(5);
    let root = hive.root();
    hive.set_text(root, "a", "text").unwrap();
    let bytes = hive.finish();
    let mut hive = Hive::open(bytes.clone(), FileTime(5)).unwrap();
    hive.set_text(root, "A", "text").unwrap();
    assert!(!hive.is_changed() && hive.finish() == bytes);
    let mut hive = Hive::open(bytes.clone(), FileTime(5)).unwrap();
    hive.set_text(root, "a", "next").unwrap();
    let (old, new) = (base_block(&bytes).unwrap(), base_block(&hive.finish()).unwrap());
    assert_eq!(old.primary_sequence_number.get() + 1, new.primary_sequence_number.get());
    assert_eq!(new.primary_sequence_number, new.secondary_sequence_number);
    assert_eq!(new.last_written_timestamp.get(), 5);
}

#[test]
fn a_new_key_counts_on_its_parents_security() {
    let mut hive = empty(5);
    let root = hive.root();
    let count = |hive: &Hive| {
        let at = hive.node(hive.root()).unwrap().key_security_offset.get();
        hive.record::<super::format::KeySecurity>("sk", at, *b"sk").unwrap().reference_count.get()
    };
    assert_eq!(count(&hive), 1);
    hive.create_path(root, "a\\b").unwrap();
    hive.create_path(root, "A\\B").unwrap();
    assert_eq!(count(&hive), 3);
    for name in ["", "a\\b", "a\0"] {
        assert!(hive.create_key(root, name).is_err());
    }
    assert!(hive.create_key(root, &"n".repeat(256)).is_err());
}

fn rewrite_base(data: &mut [u8], change: impl FnOnce(&mut BaseBlock)) {
    let mut base = base_block(data).unwrap();
    change(&mut base);
    base.checksum.set(base.computed_checksum());
    data[..512].copy_from_slice(base.as_bytes());
}

/// The place of a page, and its bytes.
type Page = (u32, Vec<u8>);

/// The pages in which two states of a hive differ.
fn difference(old: &[u8], new: &[u8]) -> Vec<Page> {
    let pages = (PAGE..new.len()).step_by(512).filter_map(|at| {
        let page = &new[at..at + 512];
        (old.get(at..at + 512) != Some(page)).then(|| ((at - PAGE) as u32, page.to_vec()))
    });
    pages.collect()
}

/// Old and new state of a hive, and the pages in which they differ.
fn two_states() -> (Vec<u8>, Vec<u8>, Vec<Page>) {
    let mut hive = empty(5);
    let key = hive.create_key(hive.root(), "k").unwrap();
    hive.set_text(key, "a", "old").unwrap();
    let old = hive.finish();
    let mut hive = Hive::open(old.clone(), NOW).unwrap();
    hive.set_value(key, "a", REG_BINARY, &[7; 9000]).unwrap();
    let new = hive.finish();
    let pages = difference(&old, &new);
    (old, new, pages)
}

/// The old state as a Windows leaves it that was not shut down, and the log that leads to the new one.
pub(crate) fn not_closed(old: &[u8], new: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut dirty = old.to_vec();
    rewrite_base(&mut dirty, |base| base.primary_sequence_number.set(10));
    let mut log = old[..512].to_vec();
    rewrite_base(&mut log, |base| {
        base.file_type.set(6);
        base.primary_sequence_number.set(10);
    });
    log.extend(entry(10, (new.len() - PAGE) as u32, &difference(old, new)));
    (dirty, log)
}

fn entry(number: u32, bins: u32, pages: &[Page]) -> Vec<u8> {
    let mut body = Vec::new();
    for (offset, page) in pages {
        let reference =
            DirtyPageReference { offset: (*offset).into(), size: (page.len() as u32).into() };
        body.extend_from_slice(reference.as_bytes());
    }
    body.extend(pages.iter().flat_map(|(_, page)| page));
    body.resize((40 + body.len()).next_multiple_of(512) - 40, 0);
    let mut head = LogEntry {
        signature: *b"HvLE",
        size: (body.len() as u32 + 40).into(),
        flags: 0.into(),
        sequence_number: number.into(),
        hive_bins_data_size: bins.into(),
        dirty_pages_count: (pages.len() as u32).into(),
        hash_1: marvin::hash(&body).into(),
        hash_2: 0.into(),
    };
    head.hash_2.set(marvin::hash(&head.as_bytes()[..32]));
    [head.as_bytes(), &body].concat()
}

#[test]
fn logs_of_the_new_format() {
    let (old, new, pages) = two_states();
    let wanted = tree(&Hive::open(new.clone(), NOW).unwrap()).unwrap();
    let bins = (new.len() - PAGE) as u32;
    let mut dirty = old.clone();
    rewrite_base(&mut dirty, |base| base.primary_sequence_number.set(10));
    let mut log = old[..512].to_vec();
    rewrite_base(&mut log, |base| {
        base.file_type.set(6);
        base.primary_sequence_number.set(10);
    });
    let (first, second) = pages.split_at(pages.len() / 2);
    let stale = entry(3, bins, &[(0, vec![0xee; 512])]);
    let log1 = [&log[..], &entry(10, bins, first)].concat();
    let log2 = [&log[..], &entry(11, bins, second), &stale].concat();

    assert!(matches!(Hive::open(dirty.clone(), NOW), Err(HiveError::Dirty { .. })));
    for logs in [[log1.clone(), log2.clone()], [log2.clone(), log1.clone()]] {
        let (hive, done) = Hive::open_with_logs(dirty.clone(), &logs, NOW).unwrap();
        assert_eq!(done, Recovery::Replayed(2));
        assert_eq!(tree(&hive).unwrap(), wanted);
        let base = base_block(&hive.finish()).unwrap();
        assert_eq!((base.primary_sequence_number.get(), base.file_type.get()), (12, 0));
    }
    // A torn base block comes from the log.
    let mut torn = dirty.clone();
    torn[40..60].fill(0xff);
    let (hive, _) = Hive::open_with_logs(torn, &[log1.clone(), log2], NOW).unwrap();
    assert_eq!(tree(&hive).unwrap(), wanted);
    // A clean hive needs no log.
    let (hive, done) = Hive::open_with_logs(old, std::slice::from_ref(&log1), NOW).unwrap();
    assert!(done == Recovery::None && !hive.is_changed());
    // Found by the fuzzer: a small log that makes the hive 512 MiB long filled memory.
    let bomb = [&log[..], &entry(10, 512 << 20, first)].concat();
    let error = Hive::open_with_logs(dirty.clone(), &[bomb], NOW).unwrap_err().to_string();
    assert!(error.contains("does not hold as much"), "{error}");
    // A damaged first entry, no log, an empty one: refused.
    let mut bad = log1;
    bad[600] ^= 1;
    for logs in [vec![bad], vec![], vec![Vec::new()], vec![log]] {
        let error = Hive::open_with_logs(dirty.clone(), &logs, NOW).unwrap_err().to_string();
        assert!(error.contains("was not closed cleanly"), "{error}");
        assert_eq!(error.lines().count(), 1);
    }
}

#[test]
fn logs_of_the_old_format() {
    let (old, new, pages) = two_states();
    let wanted = tree(&Hive::open(new.clone(), NOW).unwrap()).unwrap();
    let mut log = new[..512].to_vec();
    rewrite_base(&mut log, |base| base.file_type.set(1));
    let bits = (new.len() - PAGE) / 512;
    let mut vector = b"DIRT".to_vec();
    vector.resize(4 + bits.div_ceil(8), 0);
    for (offset, _) in &pages {
        let page = *offset as usize / 512;
        vector[4 + page / 8] |= 1 << (page % 8);
    }
    vector.resize(vector.len().next_multiple_of(512), 0);
    log.extend_from_slice(&vector);
    log.extend(pages.iter().flat_map(|(_, page)| page));
    let mut dirty = old;
    rewrite_base(&mut dirty, |base| base.primary_sequence_number.set(10));
    let (hive, done) =
        Hive::open_with_logs(dirty.clone(), std::slice::from_ref(&log), NOW).unwrap();
    assert_eq!((done, tree(&hive).unwrap()), (Recovery::Replayed(1), wanted));
    log.truncate(log.len() - 512);
    let error = Hive::open_with_logs(dirty.clone(), &[log.clone()], NOW).unwrap_err().to_string();
    assert!(error.contains("cut short"), "{error}");
    rewrite_base(&mut log, |base| base.last_written_timestamp.set(1));
    let error = Hive::open_with_logs(dirty, &[log], NOW).unwrap_err().to_string();
    assert!(error.contains("of another time"), "{error}");
}

/// Reads all of a hive and edits it; the results do not matter, that there is one does.
fn use_all(data: Vec<u8>) -> bool {
    let Ok(mut hive) = Hive::open(data, NOW) else { return false };
    let read = tree(&hive).is_ok();
    let root = hive.root();
    for size in [2, 50, 20_000] {
        let _ = hive.set_value(root, "new", REG_BINARY, &vec![1; size]);
    }
    let _ = hive.create_path(root, "p\\q\\r").map(|key| hive.set_class_name(key, "c"));
    for name in ["v1", "v2", "new"] {
        let _ = hive.delete_value(root, name);
    }
    let _ = Hive::open(hive.finish(), NOW).map(|hive| tree(&hive));
    read
}

#[test]
fn hostile_hives_end_in_a_result() {
    let mut hive = empty(5);
    let root = hive.root();
    for number in 0..520 {
        hive.create_key(root, &format!("key{number}")).unwrap();
    }
    let key = hive.create_path(root, "p\\q").unwrap();
    for size in [0, 3, 9, 17_000, 40_000] {
        hive.set_value(key, &format!("v{size}"), REG_BINARY, &vec![3; size]).unwrap();
        hive.set_value(root, &format!("v{size}"), REG_BINARY, &vec![3; size]).unwrap();
    }
    hive.set_class_name(key, "class").unwrap();
    let good = hive.finish();
    assert!(use_all(good.clone()));
    let mut entropy = Entropy::seeded(11);
    let (mut refused, mut read) = (0, 0);
    for round in 0..1200 {
        let mut bad = good.clone();
        for _ in 0..=entropy.below(4) {
            // Mostly where structures are: the beginnings of cells.
            let at = (entropy.below(bad.len() as u32 / 4) * 4) as usize;
            let at = if at % 4096 > 2000 && round % 2 == 0 { at % 512 } else { at };
            let value = match entropy.below(6) {
                0 => 0,
                1 => u32::MAX,
                2 => entropy.below(good.len() as u32),
                3 => 32 + entropy.below(200) * 8,
                4 => 0x8000_0000 | entropy.below(64),
                _ => u32::from_le_bytes(entropy.bytes()),
            };
            bad[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        if round % 10 == 0 {
            bad.truncate(entropy.below(good.len() as u32) as usize);
        }
        if base_block(&bad).is_ok() {
            rewrite_base(&mut bad, |_| {});
        }
        if use_all(bad) { read += 1 } else { refused += 1 }
    }
    assert!(refused > 100 && read > 100, "{refused} refused, {read} read");
}

#[test]
fn hostile_logs_end_in_a_result() {
    let (mut dirty, new, pages) = two_states();
    rewrite_base(&mut dirty, |base| base.primary_sequence_number.set(10));
    let mut log = new[..512].to_vec();
    rewrite_base(&mut log, |base| base.file_type.set(6));
    let body = entry(10, (new.len() - PAGE) as u32, &pages);
    let mut entropy = Entropy::seeded(5);
    for _ in 0..400 {
        let mut bad = body.clone();
        let at = if entropy.below(2) == 0 { entropy.below(200) } else { 8 * entropy.below(20) };
        bad[at as usize] = entropy.bytes::<1>()[0];
        // With right hashes, so that the code after the check is reached.
        let hash = marvin::hash(&bad[40..]);
        bad[24..32].copy_from_slice(&hash.to_le_bytes());
        let hash = marvin::hash(&bad[..32]);
        bad[32..40].copy_from_slice(&hash.to_le_bytes());
        let log = [&log[..], &bad].concat();
        if let Ok((hive, _)) = Hive::open_with_logs(dirty.clone(), &[log], NOW) {
            let _ = tree(&hive);
        }
    }
}
