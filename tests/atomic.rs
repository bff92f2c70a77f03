//! A whole run on a disk whose power is cut or that fails: partition table, growth, files, in one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod deployed;

use std::io;
use std::sync::{Arc, Mutex};

use deployed::*;
use snf_fs::ext::{Ext, Options};
use snf_fs::testing::{Event, RecordingDevice};
use snf_fs::{BlockDevice, DeviceError, FileSystem, MemoryDevice};
use snf_image::customize::Mode;
use snf_image::disk_adapter::DiskAdapter;
use snf_image::plan::{Password, PersonalityFile, Plan, Who};
use snf_image::secret::Secret;

/// The root partition as the disk's table has it.
fn root_of(disk: &[u8], number: u32, what: &str) -> Vec<u8> {
    let device = MemoryDevice::new(disk.to_vec());
    let table = snf_partition::read(&DiskAdapter(&device))
        .unwrap_or_else(|error| panic!("{what}: {error}"))
        .unwrap_or_else(|| panic!("{what}: no table"));
    let (start, size) = table.byte_range(table.partition(number).unwrap());
    disk[start as usize..(start + size) as usize].to_vec()
}

/// Remembers every write.
struct Recorder {
    device: MemoryDevice,
    writes: Mutex<Vec<(u64, Vec<u8>)>>,
}

impl BlockDevice for Recorder {
    fn len(&self) -> u64 {
        self.device.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.device.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        self.writes.lock().unwrap().push((offset, buf.to_vec()));
        self.device.write_at(offset, buf)
    }
    fn flush(&self) -> Result<(), DeviceError> {
        self.device.flush()
    }
}

/// A cut after any write leaves a partition table and, in the root partition as the table then
/// has it, a file system that e2fsck puts in order, with the old or the new content.
#[test]
fn a_cut_at_any_write_leaves_a_working_disk() {
    for layout in [Layout::Gpt, Layout::Logical] {
        let image = Image::new(layout, 90);
        let before = image.bytes();
        let recorder = Arc::new(Recorder {
            device: MemoryDevice::new(before.clone()),
            writes: Mutex::default(),
        });
        customize_on(recorder.clone(), Vec::new(), &plan(Some("6:16")), Mode::Commit).unwrap();
        let writes = std::mem::take(&mut *recorder.writes.lock().unwrap());
        let mut disk = before;
        let mut seen = (false, false);
        for (index, (offset, bytes)) in writes.iter().enumerate() {
            let range = *offset as usize..*offset as usize + bytes.len();
            disk[range].copy_from_slice(bytes);
            let table = snf_partition::read(&DiskAdapter(&MemoryDevice::new(disk.clone())))
                .unwrap_or_else(|error| panic!("{layout:?} after write {index}: {error}"))
                .unwrap();
            let (start, size) = table.byte_range(table.partition(image.number.unwrap()).unwrap());
            // e2fsck takes its time: every write of the table, then every sixteenth.
            if index > 12 && index % 16 != 0 && index + 3 < writes.len() {
                continue;
            }
            let path = image.dir.path().join("cut");
            write_sparse(&path, &disk[start as usize..(start + size) as usize]);
            let name = path.to_str().unwrap();
            let (code, text) = fsck("-fy", name);
            assert!(code == 0 || code == 1, "{layout:?} after write {index}: {text}");
            let (code, text) = fsck("-fn", name);
            assert_eq!(code, 0, "{layout:?} after write {index}: {text}");
            match cat(name, "/etc/hostname").as_str() {
                "image\n" => seen.0 = true,
                "grown\n" => seen.1 = true,
                other => panic!("{layout:?} after write {index}: {other:?}"),
            }
        }
        assert_eq!(seen, (true, true), "{layout:?}");
    }
}

/// Fails at the n-th write.
struct Failing {
    device: MemoryDevice,
    left: Mutex<u32>,
}

impl BlockDevice for Failing {
    fn len(&self) -> u64 {
        self.device.len()
    }
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DeviceError> {
        self.device.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, buf: &[u8]) -> Result<(), DeviceError> {
        let mut left = self.left.lock().unwrap();
        if *left == 0 {
            let source = io::Error::from_raw_os_error(5);
            return Err(DeviceError { operation: "write", offset, length: buf.len(), source });
        }
        *left -= 1;
        self.device.write_at(offset, buf)
    }
    fn flush(&self) -> Result<(), DeviceError> {
        Ok(())
    }
}

#[test]
fn a_write_that_fails_is_an_error_and_the_table_stays_readable() {
    let image = Image::new(Layout::Gpt, 100);
    let before = image.bytes();
    for count in 0..8 {
        let device = Arc::new(Failing {
            device: MemoryDevice::new(before.clone()),
            left: Mutex::new(count),
        });
        let error =
            customize_on(device.clone(), Vec::new(), &plan(None), Mode::Commit).unwrap_err();
        assert!(error.to_string().contains("error 5"), "{error}");
        assert!(snf_partition::read(&DiskAdapter(&device.device)).unwrap().is_some());
    }
}

fn file(path: String, contents: &str) -> PersonalityFile {
    PersonalityFile {
        path,
        contents: Secret::new(contents),
        owner: None,
        group: None,
        mode: None,
        origin: "img_personality".into(),
        keep_existing: false,
    }
}

/// A run that does not fit into the journal: passwords and keys are in its last transaction, so
/// whoever finds them there finds everything else.
#[test]
fn a_split_run_has_passwords_and_keys_in_its_last_part() {
    let journal = ["-t", "ext4", "-b", "1024", "-J", "size=1", "-N", "4096"];
    let image = Image::made_with(Layout::Mbr, 64, &journal);
    let number = image.number.unwrap();
    let bytes = image.bytes();
    // Wherever the boundary between two parts falls.
    for count in [390, 900] {
        let mut plan = Plan {
            passwords: vec![(Who::Default, Password::Hash(Secret::new("$6$salt$hash")))],
            auth_keys: vec![(Who::Default, "ssh-ed25519 AAAA key".into())],
            ..plan(None)
        };
        plan.properties.set("EXCLUDE_TASK_FixPartitionTable", "yes");
        // A directory each, so that each costs metadata; the last one in /etc.
        let paths = (0..count).map(|n| format!("/srv/{n}/file"));
        plan.personality = paths.map(|path| file(path, "content\n")).collect();
        plan.personality.push(file("/etc/late".into(), "content\n"));
        let device = Arc::new(RecordingDevice::new(bytes.clone()));
        let (report, _) = customize_on(device.clone(), Vec::new(), &plan, Mode::Commit).unwrap();
        let parts = report.file_systems[0].transactions;
        assert!(parts > 1, "{count}: {parts}");
        let events = device.events();
        let mut states = Vec::new();
        for cut in 1..=events.len() {
            if cut < events.len() && events[cut - 1] != Event::Flush {
                continue;
            }
            let what = format!("{count} files, after {cut} of {}", events.len());
            let root = root_of(&device.prefix(cut), number, &what);
            let fs = Ext::open(Arc::new(MemoryDevice::new(root)), Options::default()).unwrap();
            let has = |path: &str, text: &str| {
                let found = path
                    .split('/')
                    .try_fold(fs.root(), |dir, name| fs.lookup(dir, name.as_bytes()).unwrap());
                found.is_some_and(|node| {
                    let mut bytes = vec![0; 4096];
                    let n = fs.read(node, 0, &mut bytes).unwrap();
                    String::from_utf8_lossy(&bytes[..n]).contains(text)
                })
            };
            // Some of them and the last ones.
            let names = (0..count).filter(|n| n % 13 == 0 || n + 40 > count);
            let files = names.clone().filter(|n| has(&format!("srv/{n}/file"), "content")).count();
            let all = names.count();
            let late = has("etc/late", "content") && has("etc/hostname", "grown");
            let shadow = has("etc/shadow", "$6$salt$hash");
            let keys = has("root/.ssh/authorized_keys", "ssh-ed25519 AAAA key");
            assert_eq!(shadow, keys, "{what}");
            assert!(!shadow || late && files == all, "{what}: {files} files, late {late}");
            states.push((files, shadow));
        }
        states.dedup();
        assert_eq!(states.first(), Some(&(0, false)), "{count}");
        assert!(states.last().unwrap().1, "{count}");
        assert_eq!(states.len(), parts as usize + 1, "{count}: {states:?}");
        write_sparse(&image.path, &device.to_vec());
        image.root();
    }
}
