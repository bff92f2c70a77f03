//! Helpers of all tests: QEMU's tools, a model of the disk, random changes.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use snf_container::GrowableFile;
use snf_container::qcow2::{Options, Qcow2};
use snf_fs::BlockDevice;
use snf_fs::testing::Random;
use tempfile::TempDir;

/// Runs a program that must succeed.
pub fn run(program: &str, args: &[&str]) -> Output {
    let output = Command::new(program).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{program} {args:?}: {}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    output
}

pub fn qemu_img(args: &[&str]) -> Output {
    run("qemu-img", args)
}

/// Runs commands of qemu-io on an image.
pub fn qemu_io(image: &Path, commands: &[&str]) {
    let mut args = vec!["-f", "qcow2"];
    for command in commands {
        args.extend(["-c", command]);
    }
    args.push(text(image));
    let output = run("qemu-io", &args);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(!said.contains("failed"), "{commands:?}: {said}");
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The result of `qemu-img check`.
#[derive(Debug, PartialEq, Eq, Clone, Copy, PartialOrd, Ord)]
pub enum Judgement {
    Clean,
    Leaks,
    Broken,
}

pub fn judge(image: &Path) -> (Judgement, String) {
    let args = ["check", "-f", "qcow2", text(image)];
    let output = Command::new("qemu-img").args(args).output().unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    let judgement = match output.status.code() {
        Some(0) => Judgement::Clean,
        Some(3) => Judgement::Leaks,
        _ => Judgement::Broken,
    };
    (judgement, said)
}

pub fn assert_clean(image: &Path) {
    let (judgement, said) = judge(image);
    assert_eq!(judgement, Judgement::Clean, "{said}");
}

/// A directory for one test.
pub struct Place(TempDir);

impl Place {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
    /// Writes a file.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        std::fs::write(self.path(name), bytes).unwrap();
        self.path(name)
    }
    /// The disk in an image, as qemu-img reads it.
    pub fn content(&self, image: &Path) -> Vec<u8> {
        self.convert(image, &[])
    }
    /// The disk of a snapshot.
    pub fn snapshot(&self, image: &Path, name: &str) -> Vec<u8> {
        self.convert(image, &["-l", name])
    }
    fn convert(&self, image: &Path, more: &[&str]) -> Vec<u8> {
        let raw = self.path("converted.raw");
        let mut args = vec!["convert", "-f", "qcow2", "-O", "raw"];
        args.extend(more);
        args.extend([text(image), text(&raw)]);
        qemu_img(&args);
        std::fs::read(raw).unwrap()
    }
}

pub fn open_file(path: &Path, options: Options) -> Qcow2 {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    Qcow2::open(GrowableFile::new(file).unwrap(), options).unwrap()
}

pub fn read_all(disk: &dyn BlockDevice) -> Vec<u8> {
    let mut bytes = vec![0xee; disk.len() as usize];
    disk.read_at(0, &mut bytes).unwrap();
    bytes
}

/// The first difference; whole disks in a message help nobody.
pub fn assert_same(found: &[u8], expected: &[u8], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: length");
    if let Some(at) = (0..found.len()).find(|at| found[*at] != expected[*at]) {
        panic!("{what}: byte {at} is {:#04x}, expected {:#04x}", found[at], expected[at]);
    }
}

/// A disk with runs of data, of equal bytes and of zeros.
pub fn pattern(size: usize, seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut bytes = vec![0; size];
    let mut at = 0;
    while at < size {
        let length = (1 + random.below(200)) * 512;
        let end = (at + length).min(size);
        match random.below(3) {
            0 => {}
            1 => bytes[at..end].fill(1 + random.below(255) as u8),
            _ => noise(&mut bytes[at..end], &mut random),
        }
        at = end;
    }
    bytes
}

pub fn noise(bytes: &mut [u8], random: &mut Random) {
    for chunk in bytes.chunks_mut(8) {
        let word = random.next_u64().to_le_bytes();
        chunk.copy_from_slice(&word[..chunk.len()]);
    }
}

/// A change to a disk.
#[derive(Clone, Debug)]
pub enum Change {
    Write(u64, Vec<u8>),
    Discard(u64, u64),
    Flush,
}

impl Change {
    pub fn random(random: &mut Random, size: usize, cluster: usize) -> Self {
        let most = match random.below(4) {
            0 => 600,
            1 => cluster,
            2 => 3 * cluster,
            _ => 100,
        };
        let mut start = random.below(size);
        let mut length = 1 + random.below(most);
        if random.below(3) == 0 {
            start -= start % cluster;
            length = length.next_multiple_of(cluster);
        }
        length = length.min(size - start);
        match random.below(12) {
            0..=1 => Self::Discard(start as u64, length as u64),
            2 => Self::Flush,
            3 => Self::Write(start as u64, vec![0; length]),
            _ => {
                let mut data = vec![0; length];
                noise(&mut data, random);
                Self::Write(start as u64, data)
            }
        }
    }

    /// The same with whole sectors, as file systems write: a device writes one wholly or not at all,
    /// so that it is old or new after a cut. The disk's size is a multiple of 512.
    pub fn in_sectors(self) -> Self {
        match self {
            Self::Write(at, mut data) => {
                data.resize(data.len().next_multiple_of(512), 0x5a);
                Self::Write(at - at % 512, data)
            }
            Self::Discard(at, length) => Self::Discard(at - at % 512, length.next_multiple_of(512)),
            Self::Flush => Self::Flush,
        }
    }

    pub fn model(&self, model: &mut [u8]) {
        match self {
            Self::Write(at, data) => {
                model[*at as usize..*at as usize + data.len()].copy_from_slice(data);
            }
            Self::Discard(at, length) => model[*at as usize..(*at + *length) as usize].fill(0),
            Self::Flush => {}
        }
    }

    pub fn apply(&self, disk: &Qcow2) {
        match self {
            Self::Write(at, data) => disk.write_at(*at, data).unwrap(),
            Self::Discard(at, length) => disk.discard(*at, *length).unwrap(),
            Self::Flush => disk.flush().unwrap(),
        }
    }
}

/// `count` random changes to the disk and the model; now and then a part is compared.
pub fn change_both(disk: &Qcow2, model: &mut [u8], random: &mut Random, count: usize) {
    let cluster = disk.cluster_size() as usize;
    for number in 0..count {
        let change = Change::random(random, model.len(), cluster);
        change.apply(disk);
        change.model(model);
        if number % 8 == 0 {
            let at = random.below(model.len());
            let length = (1 + random.below(2 * cluster)).min(model.len() - at);
            let mut part = vec![0; length];
            disk.read_at(at as u64, &mut part).unwrap();
            assert_same(&part, &model[at..at + length], &format!("change {number} at {at}"));
        }
    }
}

/// Our own checker and QEMU's find nothing; the content is that of the model for both.
pub fn assert_whole(place: &Place, image: &Path, model: &[u8], what: &str) {
    let disk = open_file(image, Options::read_only());
    let report = disk.check().unwrap();
    assert!(report.is_clean(), "{what}: {report:?}");
    assert_same(&read_all(&disk), model, what);
    // Parts that are said to be zeros are, and the parts cover the disk.
    let mut at = 0;
    while at < model.len() {
        let extent = disk.extent(at as u64, (model.len() - at) as u64).unwrap();
        let end = at + extent.length as usize;
        assert!(extent.length > 0 && end <= model.len(), "{what}: {extent:?} at {at}");
        let zero = model[at..end].iter().all(|byte| *byte == 0);
        assert!(zero || !extent.zero, "{what}: {extent:?} at {at}");
        at = end;
    }
    let (judgement, said) = judge(image);
    assert_eq!(judgement, Judgement::Clean, "{what}: {said}");
    assert_same(&place.content(image), model, &format!("{what}, by qemu-img"));
}
