//! The crypt itself is judged by impacket in `tests/windows_sam_oracle.rs`.

use super::super::fixture;
use super::*;

const NOW: FileTime = FileTime(133_000_000_000_000_000);

fn open(data: Vec<u8>) -> Hive {
    Hive::open(data, NOW).unwrap()
}

fn boot_key() -> BootKey {
    BootKey::read(&open(fixture::system())).unwrap()
}

fn set(sam: &mut Hive, rid: u32) -> Result<Changed, String> {
    let (password, mut entropy) = (Secret::new("geheim"), Entropy::seeded(1));
    set_password(sam, &boot_key(), rid, &password, &mut entropy, NOW)
        .map_err(|error| error.to_string())
}

#[test]
fn users_and_their_state() {
    for aes in [false, true] {
        let mut sam = open(fixture::sam(aes));
        let found = accounts(&sam).unwrap();
        let names: Vec<(&str, u32)> = found.iter().map(|a| (a.name.as_str(), a.rid)).collect();
        assert_eq!(names, [("Administrator", 500), ("Guest", 501), ("Ännchen", 1001)]);
        assert!(found[0].disabled && !found[2].disabled);
        assert!(found.iter().all(|account| account.password == Some(false)));
        assert_eq!(set(&mut sam, 500), Ok(Changed { enabled: true }));
        assert_eq!(set(&mut sam, 1001), Ok(Changed { enabled: false }));
        let again = accounts(&open(sam.finish())).unwrap();
        assert!(!again[0].disabled);
        let passwords: Vec<Option<bool>> = again.iter().map(|a| a.password).collect();
        assert_eq!(passwords, [Some(true), Some(false), Some(true)]);
    }
}

#[test]
fn what_is_missing_is_named() {
    let mut sam = open(fixture::sam(false));
    assert!(set(&mut sam, 77).unwrap_err().contains("Users\\0000004D"));
    // A SAM of another system.
    let key = sam.key(DOMAIN).unwrap().unwrap();
    let mut f = sam.value(key, "F").unwrap().unwrap();
    f.data[0x70] ^= 1;
    sam.set_value(key, "F", f.data_type, &f.data).unwrap();
    assert!(set(&mut sam, 500).unwrap_err().contains("the hives are of two systems"));
    f.data[0x68] = 9;
    sam.set_value(key, "F", f.data_type, &f.data).unwrap();
    assert!(set(&mut sam, 500).unwrap_err().contains("revision of its key (it is 9)"));
    let empty = Hive::create("SAM", 3, &[1; 20], NOW).unwrap();
    assert_eq!(
        accounts(&empty).unwrap_err().to_string(),
        "SAM has no usable key SAM\\Domains\\Account\\Users\\Names"
    );
    assert!(BootKey::read(&empty).unwrap_err().to_string().contains("SYSTEM has no usable key"));
}
