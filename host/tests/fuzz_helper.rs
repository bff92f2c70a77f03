//! The harness of `fs/tests/fuzz_ext.rs` for what the host reads from outside while it builds and runs
//! the helper: kernels, compressed modules, and the lines of the virtual machine. The same variables
//! of the environment hold, and it shares their time.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../fs/tests/fuzz/choices.rs"]
#[allow(dead_code)]
mod choices;
#[path = "../../fs/tests/fuzz/memory.rs"]
mod memory;
#[path = "../../fs/tests/fuzz/mutate.rs"]
mod mutate;
#[path = "../../fs/tests/fuzz/run.rs"]
#[allow(dead_code)]
mod run;

use std::io::Write;
use std::process::{Command, Stdio};

use choices::Choices;
use mutate::mutate;
use run::{Outcome, Target};
use snf_image_host::helper::kernel::{BzImage, has_pvh_entry};
use snf_image_host::helper::modules::without_signature;
use snf_image_host::helper::protocol::{LogReader, MonitorReader, ResultReader};
use snf_image_host::helper::unpack::{Compression, unpack};

/// What an unpacker may give.
const LIMIT: usize = 8 << 20;

/// A thing that is read, and a good one of it.
struct Input {
    name: String,
    bytes: Vec<u8>,
    read: fn(&[u8]) -> bool,
}

fn unpacked(bytes: &[u8]) -> bool {
    let Some(compression) = Compression::of(bytes) else { return true };
    match unpack(compression, bytes, LIMIT) {
        Ok(out) => {
            assert!(out.len() <= LIMIT);
            let _ = has_pvh_entry(&out);
            let _ = without_signature(out);
            false
        }
        Err(error) => !error.to_string().is_empty(),
    }
}

fn kernel(bytes: &[u8]) -> bool {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let Ok(image) = BzImage::read(file.path()) else { return true };
    let _ = image.release();
    image.unpack().is_err()
}

/// Lines of the virtual machine, in pieces of all sizes. No line that is told holds a control
/// character.
fn lines(bytes: &[u8]) -> bool {
    let mut refused = false;
    let (mut monitor, mut result, mut log) =
        (MonitorReader::default(), ResultReader::default(), LogReader::default());
    let mut told = Vec::new();
    for (number, piece) in
        bytes.chunks(1 + bytes.first().map_or(0, |&b| usize::from(b))).enumerate()
    {
        refused |= monitor.feed(piece, &mut |message| told.push(format!("{message:?}"))).is_err();
        result.feed(piece);
        log.feed(piece, &mut |line| told.push(line.to_owned()));
        assert!(told.len() < 1_000_000, "piece {number}");
    }
    refused |= monitor.finish().is_err();
    log.finish(&mut |line| told.push(line.to_owned()));
    for line in told {
        assert!(!line.chars().any(|c| c.is_control() && c != '\t'), "{line:?}");
    }
    refused | result.result().is_none()
}

fn through(program: &str, args: &[&str], bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("this test needs {program}: {error}"));
    let mut input = child.stdin.take().unwrap();
    let owned = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&owned));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success() && !output.stdout.is_empty(), "{program}");
    output.stdout
}

/// A boot header before something compressed, as a bzImage has it.
fn bz_image(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0u8; 1024];
    out[0x1f1] = 1;
    out[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
    out[0x202..0x206].copy_from_slice(b"HdrS");
    out[0x206..0x208].copy_from_slice(&0x020fu16.to_le_bytes());
    out[0x20e..0x210].copy_from_slice(&0x100u16.to_le_bytes());
    out[0x300..0x310].copy_from_slice(b"6.1.0-test (x)\0\0");
    out[0x24c..0x250].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(payload);
    out
}

impl Target for Input {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn round(&self, choices: &mut Choices<'_>) -> Outcome {
        let mut bytes = self.bytes.clone();
        for _ in 0..=choices.below(4) {
            // Heads matter more than what follows.
            let start = [0, 0, 0x1f0, choices.below(bytes.len())][choices.below(4)];
            let start = start.min(bytes.len() - 8);
            mutate(&mut bytes[start..], choices);
        }
        if choices.below(8) == 7 {
            bytes.truncate(choices.below(bytes.len()).max(1));
        }
        Outcome { reads: 0, noticed: (self.read)(&bytes) }
    }

    fn cache(&self) -> usize {
        // The dictionaries of xz and lzma are as large as their heads say, up to a bound of theirs.
        200 << 20
    }

    fn check_undamaged(&self) {
        assert!(!(self.read)(&self.bytes), "{}", self.name);
    }
}

fn targets() -> Vec<Box<dyn Target>> {
    let mut elf = b"\x7fELF\x02\x01\x01".to_vec();
    elf.extend(
        (0..60_000u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> (n % 17)).to_le_bytes()),
    );
    let mut out: Vec<Box<dyn Target>> = Vec::new();
    for (program, args) in [
        ("gzip", &["-c"][..]),
        ("xz", &["-c", "--check=crc32"]),
        ("xz", &["-c", "--format=lzma"]),
        ("zstd", &["-c", "-q"]),
        ("bzip2", &["-c"]),
        ("lz4", &["-c", "-l", "-q"]),
        ("lzop", &["-c"]),
    ] {
        let name = format!("{program} {}", args.last().unwrap_or(&""));
        let packed = through(program, args, &elf);
        let kernel_name = format!("Kernel {name}");
        let image = bz_image(&[&packed[..], &[0; 4]].concat());
        out.push(Box::new(Input { name: kernel_name, bytes: image, read: kernel }));
        out.push(Box::new(Input { name: format!("Packed {name}"), bytes: packed, read: unpacked }));
    }
    let talk = b"\x20SNF-IMAGE-HELPER 1\nTASK_START: AddSwap\nWARNING: one\nSTDERR: 2\na\nb\n\
                 TASK_END: AddSwap\nREPORT {}\nSUCCESS\n";
    out.push(Box::new(Input {
        name: "Lines".into(),
        bytes: talk.to_vec(),
        read: |b| lines(b) & false,
    }));
    out
}

#[test]
fn damaged_kernels_and_lines_are_refused_or_survived() {
    let mut targets = targets();
    let lines = targets.pop().unwrap();
    run::run_all(&targets, run::seconds(4), 60);
    run::run_all(&[Box::new(Quiet(lines))], run::seconds(1), 500);
}

/// A target whose damage is often no fault: another warning is a warning.
struct Quiet(Box<dyn Target>);

impl Target for Quiet {
    fn name(&self) -> String {
        self.0.name()
    }
    fn round(&self, choices: &mut Choices<'_>) -> Outcome {
        Outcome { noticed: true, ..self.0.round(choices) }
    }
    fn check_undamaged(&self) {
        self.0.check_undamaged();
    }
}
