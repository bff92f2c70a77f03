//! Damaged LUKS headers.

use std::sync::{Arc, OnceLock};

use snf_fs::BlockDevice;
use snf_volume::luks::{Limits, Luks};

use super::super::support::luks::{Container, PBKDF2, SECRET, seal};
use super::damage_text;
use crate::choices::Choices;
use crate::device::Patched;
use crate::mutate::mutate;
use crate::run::{Outcome, Target};

/// The part that is damaged.
#[derive(Clone, Copy, Debug)]
enum Part {
    Luks1Header,
    Luks2Header,
    Luks2Text,
}

struct Damaged(Part);

pub fn targets() -> Vec<Box<dyn Target>> {
    let all = [Part::Luks1Header, Part::Luks2Header, Part::Luks2Text];
    all.map(|part| Box::new(Damaged(part)) as _).into()
}

/// The limits of a header here: milliseconds, and 8 MiB.
const LIMITS: Limits =
    Limits { argon2_memory: 8 << 10, argon2_work: 32 << 10, pbkdf2_rounds: 5_000 };

fn base(version: u16) -> &'static Arc<Vec<u8>> {
    static ONE: OnceLock<Arc<Vec<u8>>> = OnceLock::new();
    static TWO: OnceLock<Arc<Vec<u8>>> = OnceLock::new();
    let read = |container: Container| Arc::new(std::fs::read(&container.path).unwrap());
    if version == 1 {
        ONE.get_or_init(|| {
            read(Container::new(4, &["--type", "luks1", "--pbkdf-force-iterations", "1000"]))
        })
    } else {
        TWO.get_or_init(|| {
            let container = Container::new(18, &[&["--type", "luks2"], PBKDF2].concat());
            let other = container.key_file("other", b"another");
            let argon2 = [
                "luksAddKey",
                "--pbkdf",
                "argon2id",
                "--pbkdf-memory",
                "64",
                "--pbkdf-parallel",
                "1",
                "--pbkdf-force-iterations",
                "4",
            ];
            container.cryptsetup(&argon2, &[other.to_str().unwrap()]);
            read(container)
        })
    }
}

impl Damaged {
    fn version(&self) -> u16 {
        if matches!(self.0, Part::Luks1Header) { 1 } else { 2 }
    }

    fn damage(&self, disk: &Patched, choices: &mut Choices<'_>) {
        let times = 1 + choices.below(3);
        match self.0 {
            Part::Luks1Header => {
                let mut header = disk.bytes(0, 592);
                for _ in 0..times {
                    let from = 8 + choices.below(300);
                    mutate(&mut header[from..], choices);
                }
                disk.write_at(0, &header).unwrap();
            }
            Part::Luks2Header => {
                let mut header = disk.bytes(0, 16384);
                for _ in 0..times {
                    // Magic, version, size, sequence number, checksum's name, offset. Salt and
                    // padding, the most part, mean nothing.
                    let from = [0, 6, 8, 16, 72, 256][choices.below(6)];
                    mutate(&mut header[from..from + 8], choices);
                }
                seal(&mut header);
                disk.write_at(0, &header).unwrap();
            }
            Part::Luks2Text => {
                let mut header = disk.bytes(0, 16384);
                let mut text = header[4096..].to_vec();
                text.truncate(text.iter().position(|byte| *byte == 0).unwrap());
                for _ in 0..times {
                    damage_text(&mut text, choices);
                }
                text.resize(16384 - 4096, 0);
                header[4096..].copy_from_slice(&text);
                seal(&mut header);
                disk.write_at(0, &header).unwrap();
            }
        }
    }
}

fn exercise(device: Arc<Patched>) -> usize {
    let Ok(luks) = Luks::open(device.clone()) else { return 9 };
    let mut refused = usize::from(luks.damage().is_some());
    for secret in [SECRET, b"another", b"wrong"] {
        let Ok(content) = luks.unlock(secret, &LIMITS) else {
            refused += 1;
            continue;
        };
        let size = content.len();
        let mut buf = [0; 5000];
        for at in [0, size / 3, size.saturating_sub(5000)] {
            refused += usize::from(content.read_at(at, &mut buf).is_err());
            refused += usize::from(content.write_at(at, &buf).is_err());
        }
        assert!(content.read_at(size, &mut [0]).is_err());
    }
    refused
}

impl Target for Damaged {
    fn name(&self) -> String {
        format!("{:?}", self.0)
    }
    fn round(&self, choices: &mut Choices<'_>) -> Outcome {
        let disk = Arc::new(Patched::new(base(self.version()).clone()));
        self.damage(&disk, choices);
        // One secret is wrong, and the second one of LUKS1.
        let usual = if self.version() == 1 { 2 } else { 1 };
        let noticed = exercise(disk.clone()) > usual;
        Outcome { reads: disk.reads(), noticed }
    }
    fn check_undamaged(&self) {
        let disk = Arc::new(Patched::new(base(self.version()).clone()));
        assert_eq!(exercise(disk), if self.version() == 1 { 2 } else { 1 });
    }
}
