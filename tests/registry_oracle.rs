//! Registry hives of a real Windows: read by us and by hivex, edited by us, and read by both
//! again. The hives come from `cargo xtask setup`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::support;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use snf_image::registry::{FileTime, Hive, HiveError, Key, REG_BINARY, utf16_units};

use crate::support::hives::{closed, hive};

const NOW: FileTime = FileTime(133_000_000_000_000_000);

/// Prints a line for each key and value: path, then name, type and data, all in hexadecimal.
const HIVEX: &str = r#"
import hivex, sys
h = hivex.Hivex(sys.argv[1])
text = lambda s: s.encode("utf-16-le", "surrogatepass").hex()
waiting = [(h.root(), "")]
while waiting:
    node, path = waiting.pop()
    print(path)
    for value in h.node_values(node):
        kind, data = h.value_value(value)
        print(path, "=" + text(h.value_key(value)), kind, data.hex())
    for child in h.node_children(node):
        waiting.append((child, path + "/" + text(h.node_name(child))))
"#;

fn by_hivex(path: &Path) -> Vec<String> {
    let output = Command::new("/usr/bin/python3").arg("-c").arg(HIVEX).arg(path).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "hivex: {errors}");
    sorted(String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned))
}

fn sorted(lines: impl Iterator<Item = String>) -> Vec<String> {
    let mut lines: Vec<String> = lines.collect();
    lines.sort();
    lines
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn wide(units: &[u16]) -> String {
    units.iter().flat_map(|unit| unit.to_le_bytes()).map(|byte| format!("{byte:02x}")).collect()
}

fn by_us(hive: &Hive) -> Vec<String> {
    let mut lines = Vec::new();
    let mut waiting: Vec<(Key, String)> = vec![(hive.root(), String::new())];
    while let Some((key, path)) = waiting.pop() {
        lines.push(path.clone());
        assert!(!hive.security(key).unwrap().is_empty());
        for value in hive.values(key).unwrap() {
            let name = wide(value.name.units());
            lines.push(format!("{path} ={name} {} {}", value.data_type, hexadecimal(&value.data)));
        }
        for subkey in hive.subkeys(key).unwrap() {
            let name = wide(hive.name(subkey).unwrap().units());
            waiting.push((subkey, format!("{path}/{name}")));
        }
    }
    sorted(lines.into_iter())
}

/// The differences beside the lines that are expected to differ.
fn difference(a: &[String], b: &[String]) -> Vec<String> {
    let (a, b): (BTreeSet<&String>, BTreeSet<&String>) = (a.iter().collect(), b.iter().collect());
    a.symmetric_difference(&b)
        .map(|line| {
            line.chars()
                .take(70)
                .chain(['~'])
                .chain(line.chars().skip(line.len().saturating_sub(60)))
                .collect()
        })
        .collect()
}

#[test]
fn hivex_reads_the_same() {
    let scratch = support::scratch();
    for (name, keys) in [
        ("SAM", 60),
        ("SECURITY", 50),
        ("SYSTEM", 10_000),
        ("NTUSER.DAT", 500),
        ("UsrClass.dat", 500),
    ] {
        let path = scratch.path().join(name);
        let data = closed(hive(name));
        fs::write(&path, &data).unwrap();
        let ours = by_us(&Hive::open(data, NOW).unwrap());
        assert!(ours.len() > keys, "{name}: {} lines", ours.len());
        let theirs = by_hivex(&path);
        assert!(ours == theirs, "{name}: {:#?}", difference(&ours, &theirs));
    }
}

#[test]
fn hivex_reads_what_we_changed_and_nothing_else() {
    let scratch = support::scratch();
    for name in ["SAM", "SYSTEM", "NTUSER.DAT", "UsrClass.dat"] {
        let path = scratch.path().join(name);
        let mut hive = Hive::open(closed(hive(name)), NOW).unwrap();
        let before = by_us(&hive);
        let root = hive.root();
        let key = hive.create_path(root, "snf-image\\Größe\\日本").unwrap();
        // hivex reads a value of 16345 to 16348 bytes from the first segment alone, with the
        // padding after its 16344; our own tests have that size.
        let large: Vec<u8> = (0..50_000u32).map(|n| n as u8).collect();
        for size in [0, 3, 4, 5, 200, 16344, 16349, 50_000] {
            hive.set_value(key, &format!("v{size}"), REG_BINARY, &large[..size]).unwrap();
        }
        hive.set_text(key, "", "text").unwrap();
        let many = hive.create_key(root, "many").unwrap();
        for number in 0..700 {
            hive.create_key(many, &format!("k{}", number * 7919 % 700)).unwrap();
        }
        let data = hive.finish();
        fs::write(&path, &data).unwrap();
        let mut hive = Hive::open(data, NOW).unwrap();
        let after = by_us(&hive);
        let theirs = by_hivex(&path);
        assert!(after == theirs, "{name}: {:#?}", difference(&after, &theirs));
        let changed = difference(&before, &after);
        // The keys: three, the one of the many, and those; the values: nine.
        assert_eq!(changed.len(), 3 + 1 + 700 + 9, "{name}");

        for size in [0, 3, 4, 5, 200, 16344, 16349, 50_000] {
            hive.delete_value(key, &format!("v{size}")).unwrap();
        }
        hive.set_value(key, "", REG_BINARY, &large).unwrap();
        fs::write(&path, hive.finish()).unwrap();
        let hive = Hive::open(fs::read(&path).unwrap(), NOW).unwrap();
        assert!(by_us(&hive) == by_hivex(&path), "{name}");
        assert_eq!(hive.values(key).unwrap().len(), 1);
    }
}

#[test]
fn every_value_can_be_rewritten() {
    let scratch = support::scratch();
    let path = scratch.path().join("UsrClass.dat");
    let mut hive = Hive::open(hive("UsrClass.dat"), NOW).unwrap();
    let mut waiting = vec![hive.root()];
    let mut count = 0;
    while let Some(key) = waiting.pop() {
        waiting.extend(hive.subkeys(key).unwrap());
        for value in hive.values(key).unwrap() {
            let Ok(name) = String::from_utf16(value.name.units()) else { continue };
            let mut data = value.data;
            data.extend_from_slice(b"longer than before");
            hive.set_value(key, &name, value.data_type, &data).unwrap();
            data.truncate(data.len() / 2);
            hive.set_value(key, &name, value.data_type, &data).unwrap();
            count += 1;
        }
    }
    assert!(count > 500, "{count}");
    fs::write(&path, hive.finish()).unwrap();
    let hive = Hive::open(fs::read(&path).unwrap(), NOW).unwrap();
    let (ours, theirs) = (by_us(&hive), by_hivex(&path));
    assert!(ours == theirs, "{:#?}", difference(&ours, &theirs));
}

#[test]
fn hives_of_a_running_windows_are_refused() {
    for name in ["SYSTEM", "SOFTWARE"] {
        let error = Hive::open_with_logs(hive(name), &[], NOW).unwrap_err();
        assert!(matches!(error, HiveError::Dirty { .. }), "{error}");
    }
}

#[test]
fn the_version_of_windows_is_in_it() {
    let hive = Hive::open(closed(hive("SOFTWARE")), NOW).unwrap();
    let key = hive.key("Microsoft\\Windows NT\\CurrentVersion").unwrap().unwrap();
    let product = hive.text(key, "ProductName").unwrap().unwrap();
    assert!(product.starts_with("Windows"), "{product}");
    let hive = Hive::open(closed(self::hive("SYSTEM")), NOW).unwrap();
    let lsa = hive.key("ControlSet001\\Control\\Lsa\\JD").unwrap().unwrap();
    let class = hive.class_name(lsa).unwrap().unwrap();
    assert_eq!(class.units().len(), 8);
    assert_eq!(utf16_units(b"a\0"), [0x61]);
}
