//! The texts that the host reads from outside, to be damaged: the stable harness (`fuzz_helper.rs`) and the
//! targets of cargo-fuzz share it.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use snf_image_host::disk::storage::{self, NbdClient};
use snf_image_host::helper::kernel::{BzImage, has_pvh_entry};
use snf_image_host::helper::modules::without_signature;
use snf_image_host::helper::protocol::{LogReader, MonitorReader, ResultReader};
use snf_image_host::helper::qmp::Qmp;
use snf_image_host::helper::unpack::{Compression, unpack};
use snf_image_host::node::cancel::Cancel;

use crate::choices::Choices;
use crate::mutate::mutate;
use crate::run::{Outcome, Target};

/// The most that an unpacker may give.
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

/// A peer that has said all of `bytes`, and then listens without a word or is gone.
fn peer(bytes: &[u8]) -> UnixStream {
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let bytes = bytes.to_vec();
    // Answers that come before the questions are answers all the same. The end comes after the last
    // byte, so that nobody waits for more.
    std::thread::spawn(move || {
        let _ = theirs.write_all(&bytes);
        let _ = theirs.shutdown(std::net::Shutdown::Write);
        let _ = theirs.read_to_end(&mut Vec::new());
    });
    ours
}

/// QEMU's monitor: all that a run says to it.
fn qmp(bytes: &[u8]) -> bool {
    let (cancel, deadline) = (Cancel::new(), Instant::now() + Duration::from_secs(20));
    let talk = |mut qmp: Qmp<'_>| {
        qmp.ask("stop", &serde_json::json!({}))?;
        qmp.wait_for("query-migrate", "completed", "failed")?;
        qmp.has_stopped();
        Ok(())
    };
    match Qmp::open(peer(bytes), deadline, &cancel).and_then(talk) {
        Ok(()) => false,
        Err(error) => !error.to_string().is_empty(),
    }
}

/// A storage daemon: reading, writing, zeroing, flushing.
fn nbd(bytes: &[u8]) -> bool {
    let talk = |mut client: NbdClient| {
        let _ = (client.read_only(), client.size());
        let mut buf = [0; 8];
        client.read(0, &mut buf)?;
        client.write(4096, &buf)?;
        client.write_zeroes(0, 4096, client.fast_zero())?;
        client.flush()
    };
    let cancel = Cancel::new();
    match storage::connect(peer(bytes), "disk", &cancel).and_then(talk) {
        Ok(()) => false,
        Err(error) => !error.to_string().is_empty(),
    }
}

/// The answer of a good storage daemon.
fn nbd_talk() -> Vec<u8> {
    let option = |kind: u32, data: &[u8]| {
        let length = u32::try_from(data.len()).unwrap();
        let heads = [0x0003_e889_u32, 0x0455_65a9, 7, kind, length].map(u32::to_be_bytes);
        [&heads.concat()[..], data].concat()
    };
    let reply = |handle: u64| {
        let heads = [0x6744_6698_u32, 0].map(u32::to_be_bytes);
        [&heads.concat()[..], &handle.to_be_bytes()].concat()
    };
    let export = [&[0, 0][..], &(1_u64 << 30).to_be_bytes(), &0x0845_u16.to_be_bytes()].concat();
    [
        &b"NBDMAGICIHAVEOPT\0\x03"[..],
        &option(3, &export),
        &option(3, b"\0\x01disk"),
        &option(1, b""),
        &reply(1),
        b"content.",
        &reply(2),
        &reply(3),
        &reply(4),
    ]
    .concat()
}

const QMP_TALK: &[u8] = b"{\"QMP\": {\"version\": {\"qemu\": {\"major\": 7}}, \"capabilities\": [\"oob\"]}}\r\n\
    {\"return\": {}}\r\n{\"event\": \"STOP\", \"timestamp\": {\"seconds\": 1, \"microseconds\": 2}}\r\n\
    {\"return\": {}}\r\n{\"return\": {\"status\": \"active\", \"ram\": {\"transferred\": 5}}}\r\n\
    {\"return\": {\"status\": \"completed\"}}\r\n";

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

/// Kernels and modules.
pub fn packed() -> Vec<Box<dyn Target>> {
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
    out
}

/// Peers that talk: the init in the VM, QEMU's monitor, a storage daemon.
pub fn peers() -> Vec<Box<dyn Target>> {
    let talk = b"\x20SNF-IMAGE-HELPER 1\nTASK_START: AddSwap\nWARNING: one\nSTDERR: 2\na\nb\n\
                 TASK_END: AddSwap\nREPORT {}\nSUCCESS\n";
    let input =
        |name: &str, bytes: &[u8], read| Input { name: name.into(), bytes: bytes.into(), read };
    vec![
        Box::new(Quiet(Box::new(input("Lines", talk, |bytes| lines(bytes) & false)))),
        Box::new(input("Qmp", QMP_TALK, qmp)),
        Box::new(input("Nbd", &nbd_talk(), nbd)),
    ]
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
