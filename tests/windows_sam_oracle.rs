//! Passwords that were set in the SAM of a real Windows, in both forms, read by impacket. The hives
//! come from `cargo xtask setup`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use crate::support;
use std::fs;
use std::path::Path;
use std::process::Command;

use crate::support::hives::{closed, hive};
use snf_image::guest::windows::sam::{BootKey, accounts, set_password};
use snf_image::random::Entropy;
use snf_image::registry::{FileTime, Hive};
use snf_image::secret::Secret;

const NOW: FileTime = FileTime(133_000_000_000_000_000);

/// Prints NAME:RID:NTHASH of each user, then the hash of each password given.
const DUMP: &str = r#"
import sys
from impacket.examples.secretsdump import LocalOperations, SAMHashes
from impacket.ntlm import compute_nthash
sam, system, *passwords = sys.argv[1:]
SAMHashes(sam, LocalOperations(system).getBootKey(), isRemote=False).dump()
for password in passwords:
    print("=" + compute_nthash(password).hex())
"#;

/// Gives a SAM the form of Windows 10 1607 and later: its key and the users' hashes (none) in AES.
const TO_AES: &str = r#"
import struct, sys
import hivex
from Cryptodome.Cipher import AES
from impacket.examples.secretsdump import LocalOperations
sam, system = sys.argv[1:]
boot = LocalOperations(system).getBootKey()
h = hivex.Hivex(sam, write=True)
def find(path):
    node = h.root()
    for name in path.split("\\"):
        node = h.node_get_child(node, name)
    return node
def value(node, name):
    kind, data = h.value_value(h.node_get_value(node, name))
    return {"key": name, "t": kind, "value": data}
domain = find("SAM\\Domains\\Account")
f = value(domain, "F")
salt, key = bytes(range(16)), bytes(range(100, 116))
data = AES.new(boot, AES.MODE_CBC, salt).encrypt(key + bytes([16] * 16))
f["value"] = f["value"][:0x68] + struct.pack("<LLLL", 2, 64, 0, 32) + salt + data
h.node_set_value(domain, f)
for user in h.node_children(find("SAM\\Domains\\Account\\Users")):
    if h.node_name(user) == "Names":
        continue
    v = value(user, "V")
    table, rest = bytearray(v["value"][:204]), v["value"][204:]
    for entry in (13, 14):
        struct.pack_into("<LL", table, entry * 12, len(rest), 24)
        rest += struct.pack("<HHL", 1, 2, 0) + bytes(16)
    v["value"] = bytes(table) + rest
    h.node_set_value(user, v)
h.commit(None)
"#;

fn python(script: &str, arguments: &[&str]) -> String {
    let mut command = Command::new("/usr/bin/python3");
    let output = command.arg("-c").arg(script).args(arguments).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The hashes that impacket finds, by user, and those of the passwords.
fn dump(sam: &Path, system: &Path, passwords: &[&str]) -> (Vec<(String, String)>, Vec<String>) {
    let mut arguments = vec![sam.to_str().unwrap(), system.to_str().unwrap()];
    arguments.extend(passwords);
    let text = python(DUMP, &arguments);
    let users = text.lines().filter(|line| line.ends_with(":::")).map(|line| {
        let parts: Vec<&str> = line.split(':').collect();
        (parts[0].to_owned(), parts[3].to_owned())
    });
    let hashes = text.lines().filter_map(|line| line.strip_prefix('=').map(str::to_owned));
    (users.collect(), hashes.collect())
}

#[test]
fn impacket_reads_the_passwords() {
    let scratch = support::scratch();
    let system = support::given("SNF_TEST_CACHE").join("hives/SYSTEM");
    let boot_key = BootKey::read(&Hive::open(closed(hive("SYSTEM")), NOW).unwrap()).unwrap();
    let passwords = ["Geheim 1!", "pä$$wörd€😀", &"x".repeat(127)];
    for aes in [false, true] {
        let path = scratch.path().join(format!("SAM-{aes}"));
        fs::write(&path, hive("SAM")).unwrap();
        if aes {
            python(TO_AES, &[path.to_str().unwrap(), system.to_str().unwrap()]);
        }
        let before = dump(&path, &system, &[]).0;
        let mut sam = Hive::open(fs::read(&path).unwrap(), NOW).unwrap();
        let users = accounts(&sam).unwrap();
        let names: Vec<&str> = users.iter().map(|user| user.name.as_str()).collect();
        assert_eq!(names, ["Administrator", "Guest", "gold_administrator"]);
        for (user, password) in users.iter().zip(passwords) {
            let mut entropy = Entropy::seeded(user.rid.into());
            let password = Secret::new(password);
            set_password(&mut sam, &boot_key, user.rid, &password, &mut entropy, NOW).unwrap();
        }
        fs::write(&path, sam.finish()).unwrap();
        let (after, hashes) = dump(&path, &system, &passwords);
        let found: Vec<&str> = after.iter().map(|(_, hash)| hash.as_str()).collect();
        assert_eq!(found, hashes, "aes: {aes}");
        assert_ne!(after, before);
        let users = accounts(&Hive::open(fs::read(&path).unwrap(), NOW).unwrap()).unwrap();
        assert!(users.iter().all(|user| user.password == Some(true) && !user.disabled));
    }
}
