//! Containers of cryptsetup and qemu-img, opened, read and written.
use std::process::Command;
use std::sync::Arc;

use crate::support::luks::{Container, PBKDF2, SECRET, edit_json, feed};
use snf_fs::{BlockDevice, FileDevice};
use snf_volume::luks::{Limits, Luks, LuksDevice, is_luks};
use snf_volume::{Error, Refusal};

fn unlock(container: &Container) -> LuksDevice {
    Luks::open(container.device()).unwrap().unlock(SECRET, &Limits::default()).unwrap()
}

fn refusal(container: &Container) -> Option<Refusal> {
    let luks = Luks::open(container.device()).unwrap();
    let error = luks.unlock(SECRET, &Limits::default()).unwrap_err();
    assert_eq!(luks.refusal(), error.refusal());
    error.refusal().cloned()
}

/// Writes through us in odd pieces and has Python read it; then the other way round is read back.
fn judge(container: &Container, cipher: &str, sector: u64) {
    let device = unlock(container);
    let size = 64 << 10;
    let plain: Vec<u8> = (0..size).map(|n: u64| (n * n % 253) as u8).collect();
    let mut done = 0;
    for piece in [1, 511, 512, 513, 4095, 4096, 4097, 10_000, 32_000].iter().cycle() {
        let end = (done + piece).min(plain.len());
        device.write_at(done as u64, &plain[done..end]).unwrap();
        done = end;
        if done == plain.len() {
            break;
        }
    }
    device.flush().unwrap();
    // Far beyond, where the numbers of sectors matter.
    let far = device.len() / sector * sector - 8192;
    device.write_at(far, &plain[..8192]).unwrap();
    let data = device.data_offset();
    assert!(container.python(cipher, sector, data, 0, size) == plain);
    assert!(container.python(cipher, sector, data, far, 8192) == plain[..8192]);
    let mut back = vec![0; 20_000];
    unlock(container).read_at(777, &mut back).unwrap();
    assert!(back == plain[777..20_777]);
    // Sectors that nobody wrote decrypt to the same as Python has them.
    let mut noise = vec![0; 4096];
    device.read_at(1 << 20, &mut noise).unwrap();
    assert!(container.python(cipher, sector, data, 1 << 20, 4096) == noise);
    assert!(device.read_at(device.len() - 1, &mut [0; 2]).is_err());
    assert!(device.write_at(device.len(), &[0]).is_err());
    container.cryptsetup(&["open", "--test-passphrase"], &[]);
}

#[test]
fn luks1() {
    for (cipher, bits, hash) in [
        ("aes-xts-plain64", "512", "sha256"),
        ("aes-xts-plain64", "256", "sha1"),
        ("aes-cbc-essiv:sha256", "256", "sha512"),
        ("aes-cbc-essiv:sha256", "128", "sha256"),
        ("aes-cbc-plain64", "256", "sha384"),
    ] {
        let container = Container::new(
            8,
            &[
                "--type",
                "luks1",
                "--cipher",
                cipher,
                "--key-size",
                bits,
                "--hash",
                hash,
                "--pbkdf-force-iterations",
                "1000",
            ],
        );
        judge(&container, cipher, 512);
    }
}

#[test]
fn luks2_with_pbkdf2() {
    for (cipher, bits, hash, sector) in [
        ("aes-xts-plain64", "512", "sha256", "512"),
        ("aes-xts-plain64", "512", "sha512", "4096"),
        ("aes-xts-plain64", "256", "sha1", "2048"),
        ("aes-cbc-essiv:sha256", "256", "sha256", "1024"),
    ] {
        let options = [
            "--type",
            "luks2",
            "--cipher",
            cipher,
            "--key-size",
            bits,
            "--hash",
            hash,
            "--sector-size",
            sector,
        ];
        let container = Container::new(20, &[&options[..], PBKDF2].concat());
        judge(&container, cipher, sector.parse().unwrap());
    }
}

#[test]
fn luks2_with_argon2() {
    for (kind, lanes, memory) in [("argon2id", "4", "512"), ("argon2i", "1", "32")] {
        let options = [
            "--type",
            "luks2",
            "--pbkdf",
            kind,
            "--pbkdf-parallel",
            lanes,
            "--pbkdf-memory",
            memory,
            "--pbkdf-force-iterations",
            "4",
        ];
        let container = Container::new(20, &options);
        judge(&container, "aes-xts-plain64", 4096);
        let luks = Luks::open(container.device()).unwrap();
        let little = Limits { argon2_memory: 16, ..Limits::default() };
        let error = luks.unlock(SECRET, &little).unwrap_err();
        let Some(Refusal::Cost(cost)) = error.refusal() else { panic!("{error}") };
        assert!(cost.contains("4 passes of Argon2"), "{cost}");
        let short = Limits { argon2_work: 100, ..Limits::default() };
        assert!(matches!(
            luks.unlock(SECRET, &short).unwrap_err().refusal(),
            Some(Refusal::Cost(_))
        ));
    }
}

#[test]
fn no_encryption_at_all() {
    // cryptsetup wants device-mapper to make such a container.
    let container = Container::new(20, &[&["--type", "luks2"], PBKDF2].concat());
    edit_json(&container.path, |text| {
        let cipher = r#""encryption":"aes-xts-plain64","sector_size""#;
        text.replace(cipher, r#""encryption":"cipher_null-ecb","sector_size""#)
    });
    let device = unlock(&container);
    device.write_at(5, b"clear").unwrap();
    let bytes = std::fs::read(&container.path).unwrap();
    let at = device.data_offset() as usize + 5;
    assert_eq!(&bytes[at..at + 5], b"clear");
}

#[test]
fn key_slots() {
    let container =
        Container::new(20, &[&["--type", "luks2", "--label", "vault"], PBKDF2].concat());
    let other = container.key_file("other", b"\x00binary\nkey\xff");
    let other = other.to_str().unwrap();
    container.cryptsetup(&[&["luksAddKey"], PBKDF2].concat(), &[other]);
    let luks = Luks::open(container.device()).unwrap();
    assert_eq!((luks.version(), luks.key_slots(), luks.label()), (2, 2, "vault"));
    let uuid = container.cryptsetup(&["luksUUID"], &[]);
    assert_eq!(luks.uuid(), uuid.trim());
    assert_eq!(luks.usual_name(), format!("luks-{}", uuid.trim()));
    assert!(luks.unlock(b"\x00binary\nkey\xff", &Limits::default()).is_ok());
    for wrong in [&b""[..], b"correct horse\n", b"Correct horse"] {
        let error = luks.unlock(wrong, &Limits::default()).unwrap_err();
        assert!(matches!(error, Error::WrongKey(_)), "{error}");
    }
    container.cryptsetup(&["luksRemoveKey"], &[]);
    let luks = Luks::open(container.device()).unwrap();
    assert!(matches!(luks.unlock(SECRET, &Limits::default()), Err(Error::WrongKey(_))));
    assert!(luks.unlock(b"\x00binary\nkey\xff", &Limits::default()).is_ok());
    let limits = Limits { pbkdf2_rounds: 999, ..Limits::default() };
    let error = luks.unlock(b"", &limits).unwrap_err();
    assert!(error.to_string().contains("asks for 1000 rounds of PBKDF2"), "{error}");
}

#[test]
fn damaged_headers() {
    let container = Container::new(20, &[&["--type", "luks2"], PBKDF2].concat());
    let good = std::fs::read(&container.path).unwrap();
    let with = |places: &[usize]| {
        let mut bytes = good.clone();
        for place in places {
            bytes[*place] ^= 1;
        }
        std::fs::write(&container.path, bytes).unwrap();
        Luks::open(container.device())
    };
    for place in [0, 7, 100, 460, 4096 + 20, 16384, 16384 + 460, 16384 + 4096 + 20] {
        let luks = with(&[place]).unwrap();
        assert!(luks.damage().is_some(), "{place}");
        assert!(luks.unlock(SECRET, &Limits::default()).is_ok(), "{place}");
        assert_eq!(is_luks(&*container.device()).unwrap(), place != 0);
    }
    assert!(with(&[]).unwrap().damage().is_none());
    let error = with(&[4096 + 20, 16384 + 4096 + 20]).unwrap_err();
    assert!(error.to_string().contains("the checksum is wrong"), "{error}");
    // A damaged key slot is a wrong key, as for cryptsetup.
    let error = with(&[32768 + 100]).unwrap().unlock(SECRET, &Limits::default()).unwrap_err();
    assert!(matches!(error, Error::WrongKey(_)), "{error}");
    // The newer header counts. cryptsetup writes the first one first.
    let mut bytes = good.clone();
    bytes[16384 + 16..16384 + 24].copy_from_slice(&99u64.to_be_bytes());
    bytes[16384 + 24..16384 + 27].copy_from_slice(b"new");
    crate::support::luks::seal(&mut bytes[16384..32768]);
    std::fs::write(&container.path, bytes).unwrap();
    assert_eq!(Luks::open(container.device()).unwrap().label(), "new");
    // Neither is there.
    std::fs::write(&container.path, vec![0; 1 << 20]).unwrap();
    assert!(matches!(Luks::open(container.device()), Err(Error::NotFound(_))));
    assert!(!is_luks(&*container.device()).unwrap());
}

#[test]
fn refused_by_name() {
    let container = Container::new(20, &[&["--type", "luks2"], PBKDF2].concat());
    let good = std::fs::read(&container.path).unwrap();
    let edited = |from: &str, to: &str| {
        std::fs::write(&container.path, &good).unwrap();
        edit_json(&container.path, |text| {
            assert!(text.contains(from), "{text}");
            text.replace(from, to)
        });
        refusal(&container)
    };
    let segment = r#""type":"crypt""#;
    let integrity = r#""type":"crypt","integrity":{"type":"hmac(sha256)","journal_encryption":"none","journal_integrity":"none"}"#;
    assert_eq!(edited(segment, integrity), Some(Refusal::LuksIntegrity));
    assert_eq!(edited(segment, r#""type":"hw-opal-crypt""#), Some(Refusal::Opal));
    assert_eq!(edited(segment, r#""type":"linear""#), Some(Refusal::Segments("linear".into())));
    let backup = r#""type":"crypt","flags":["backup-final"]"#;
    assert_eq!(edited(segment, backup), Some(Refusal::Reencryption));
    let requirement =
        |name: &str| format!(r#""config":{{"requirements":{{"mandatory":["{name}"]}},"#);
    let config = r#""config":{"#;
    assert_eq!(edited(config, &requirement("online-reencrypt-v2")), Some(Refusal::Reencryption));
    assert_eq!(edited(config, &requirement("news")), Some(Refusal::Requirement("news".into())));
    assert_eq!(edited(r#""offset":"16777216""#, r#""offset":"0""#), Some(Refusal::Detached));
    let cipher = r#""encryption":"aes-xts-plain64","sector_size""#;
    let serpent = r#""encryption":"serpent-xts-plain64","sector_size""#;
    assert_eq!(edited(cipher, serpent), Some(Refusal::Cipher("serpent-xts-plain64".into())));
    // A slot with an unknown hash cannot be tried.
    std::fs::write(&container.path, &good).unwrap();
    edit_json(&container.path, |text| text.replace(r#""hash":"sha256""#, r#""hash":"streebog""#));
    let luks = Luks::open(container.device()).unwrap();
    let error = luks.unlock(SECRET, &Limits::default()).unwrap_err();
    assert_eq!(error.refusal(), Some(&Refusal::Hash("streebog".into())));

    let container = Container::new(8, &["--type", "luks1", "--pbkdf-force-iterations", "1000"]);
    let mut bytes = std::fs::read(&container.path).unwrap();
    bytes[4..6].copy_from_slice(b"\xde\xad");
    std::fs::write(&container.path, &bytes).unwrap();
    let error = Luks::open(container.device()).unwrap_err();
    assert_eq!(error.refusal(), Some(&Refusal::Reencryption));
    bytes[4..8].copy_from_slice(b"\xba\xbe\0\x03");
    std::fs::write(&container.path, &bytes).unwrap();
    let error = Luks::open(container.device()).unwrap_err();
    assert_eq!(error.refusal(), Some(&Refusal::LuksVersion(3)));
}

#[test]
fn a_dynamic_container_grows_with_its_device() {
    let container = Container::new(20, &[&["--type", "luks2"], PBKDF2].concat());
    assert_eq!(unlock(&container).len(), 4 << 20);
    assert!(unlock(&container).is_dynamic());
    let file = std::fs::OpenOptions::new().write(true).open(&container.path).unwrap();
    file.set_len((40 << 20) + 1000).unwrap();
    let device = unlock(&container);
    assert_eq!(device.len(), 24 << 20);
    judge(&container, "aes-xts-plain64", 4096);
    edit_json(&container.path, |text| text.replace(r#""size":"dynamic""#, r#""size":"1048576""#));
    assert_eq!(unlock(&container).len(), 1 << 20);
    assert!(!unlock(&container).is_dynamic());
}

/// QEMU has its own code for LUKS1.
#[test]
fn qemu_reads_what_we_wrote() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("q.luks");
    let secret = directory.path().join("secret");
    std::fs::write(&secret, SECRET).unwrap();
    let object = format!("secret,id=s,file={}", secret.display());
    let created = Command::new("qemu-img")
        .args(["create", "-q", "--object", &object, "-f", "luks"])
        .args(["-o", "key-secret=s,iter-time=10"])
        .arg(&path)
        .arg("4M")
        .status()
        .unwrap();
    assert!(created.success());
    let image = format!("driver=luks,key-secret=s,file.filename={}", path.display());
    let io = |command: &str| {
        let mut io = Command::new("qemu-io");
        feed(io.args(["--object", &object, "--image-opts", &image]), command.as_bytes())
    };
    io("write -P 0x5a 1M 64k\n");
    let file = std::fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let device: Arc<dyn BlockDevice> = Arc::new(FileDevice::from_file(file).unwrap());
    let luks = Luks::open(device).unwrap();
    assert_eq!(luks.version(), 1);
    let content = luks.unlock(SECRET, &Limits::default()).unwrap();
    assert_eq!(content.len(), 4 << 20);
    let mut seen = vec![0; 64 << 10];
    content.read_at(1 << 20, &mut seen).unwrap();
    assert!(seen.iter().all(|byte| *byte == 0x5a));
    let plain: Vec<u8> = (0..100_000u32).map(|n| (n % 249) as u8).collect();
    content.write_at(2_000_001, &plain).unwrap();
    content.flush().unwrap();
    let raw = directory.path().join("raw");
    let converted = Command::new("qemu-img")
        .args(["convert", "--object", &object, "--image-opts", &image, "-O", "raw"])
        .arg(&raw)
        .status()
        .unwrap();
    assert!(converted.success());
    let raw = std::fs::read(raw).unwrap();
    let mut all = vec![0; 4 << 20];
    content.read_at(0, &mut all).unwrap();
    assert!(raw == all);
    assert!(raw[2_000_001..2_100_001] == plain);
}
