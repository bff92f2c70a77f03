//! OFFLINE_NTFSRESIZE and OFFLINE_NTFSRESIZE_NOCHECK: a Windows image on a larger disk, in one run of
//! [`snf_image::customize`], judged by ntfsresize, ntfsfix, ntfs-3g and the checker, and with the power
//! cut at every write.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::deployed::{MIB, command, customize_on, write_sparse};
use crate::support::disk::{Loop, run};
use crate::support::scratch;
use crate::support::windows::NtfsMount;
use snf_fs::ntfs::Ntfs;
use snf_fs::ntfs::check::{Report, check};
use snf_fs::testing::RecordingDevice;
use snf_fs::{BlockDevice, FileDevice, FileSystem, MemoryDevice, Slice};
use snf_image::customize::Mode;
use snf_image::disk_adapter::DiskAdapter;
use snf_image::failure::sentence;
use snf_image::plan::Plan;
use snf_image::registry::{FileTime, Hive};

/// Bytes of the image's partition, and of the disk that it is put on.
const VOLUME: u64 = 16 * MIB;
const DISK: u64 = 40 * MIB;
const START: u64 = MIB;

/// A hive with these keys; each value is a number or a text.
fn hive(name: &str, values: &[(&str, &str, Result<u32, &str>)]) -> Vec<u8> {
    let mut hive = Hive::create(name, 5, &[1; 20], FileTime(1)).unwrap();
    for (path, name, value) in values {
        let key = hive.create_path(hive.root(), path).unwrap();
        match value {
            Ok(number) => hive.set_number(key, name, *number).unwrap(),
            Err(text) => hive.set_text(key, name, text).unwrap(),
        }
    }
    hive.finish()
}

/// A generalized Windows, as small as one can be, made once.
fn volume() -> &'static [u8] {
    static BYTES: OnceLock<Vec<u8>> = OnceLock::new();
    BYTES.get_or_init(|| {
        let directory = scratch();
        let image = directory.path().join("volume");
        File::create(&image).unwrap().set_len(VOLUME).unwrap();
        run("mkntfs", &["-q", "-F", "-Q", "-f", "-p", "2048", &image.to_string_lossy()]);
        let mount = NtfsMount::at(&image, 0, VOLUME, false);
        let write = |path: &str, bytes: &[u8]| {
            let path = mount.path.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        };
        let mut kernel = vec![0; 4096];
        kernel[..2].copy_from_slice(b"MZ");
        kernel[0x3c] = 0xf8;
        kernel[0xf8..0xfe].copy_from_slice(b"PE\0\0\x64\x86");
        write("Windows/System32/ntoskrnl.exe", &kernel);
        let state = "IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE";
        let current = "Microsoft\\Windows NT\\CurrentVersion";
        let setup = "Microsoft\\Windows\\CurrentVersion\\Setup\\State";
        let software = [
            (current, "CurrentMajorVersionNumber", Ok(10)),
            (current, "ProductName", Err("Windows Server 2022")),
            (setup, "ImageState", Err(state)),
        ];
        let server = "ControlSet001\\Control\\Terminal Server";
        let system = [
            ("Select", "Current", Ok(1)),
            ("Select", "Default", Ok(1)),
            (server, "fDenyTSConnections", Ok(0)),
            ("Setup", "SystemSetupInProgress", Ok(0)),
        ];
        write("Windows/System32/config/SOFTWARE", &hive("SOFTWARE", &software));
        write("Windows/System32/config/SYSTEM", &hive("SYSTEM", &system));
        for number in 0..40usize {
            write(&format!("kept/file {number}"), &vec![number as u8; number * 777]);
        }
        drop(mount);
        fs::read(&image).unwrap()
    })
}

/// The image on its larger disk: a file, and where the volume's partition is.
fn disk(directory: &Path, label: &str) -> PathBuf {
    let path = directory.join(format!("{label}.raw"));
    let file = File::create(&path).unwrap();
    file.set_len(START + VOLUME + MIB).unwrap();
    let shown = path.to_string_lossy();
    let kind = if label == "dos" { "7" } else { "EBD0A0A2-B9E5-4433-87C0-68B6B72699C7" };
    let script = format!("label: {label}\\nstart=2048, size={}, type={kind}\\n", VOLUME / 512);
    run("sh", &["-c", &format!("printf '{script}' | sfdisk -q '{shown}'")]);
    let volume = volume();
    for (index, chunk) in volume.chunks(1 << 16).enumerate() {
        if chunk.iter().any(|byte| *byte != 0) {
            file.write_all_at(chunk, START + ((index as u64) << 16)).unwrap();
        }
    }
    file.set_len(DISK).unwrap();
    path
}

fn device(path: &Path) -> Arc<dyn BlockDevice> {
    let file = File::options().read(true).write(true).open(path).unwrap();
    Arc::new(FileDevice::from_file(file).unwrap())
}

fn plan(property: &str) -> Plan {
    let mut plan = Plan { hostname: Some("vm1".into()), ..Plan::default() };
    plan.properties.set(property, "yes");
    plan
}

/// The first partition.
fn partition(disk: Arc<dyn BlockDevice>) -> Slice {
    let table = snf_partition::read(&DiskAdapter(&*disk)).unwrap().unwrap();
    let (start, size) = table.byte_range(table.partition(1).unwrap());
    Slice::new(disk, start, size).unwrap()
}

fn checked(disk: Arc<dyn BlockDevice>) -> Report {
    check(&partition(disk)).unwrap()
}

fn codes(report: &Report) -> Vec<&str> {
    report.counts.keys().copied().collect()
}

fn kept(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(root.join("kept")).unwrap().map(|entry| entry.unwrap());
    entries
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .collect()
}

fn expected() -> BTreeMap<String, Vec<u8>> {
    (0..40usize).map(|n| (format!("file {n}"), vec![n as u8; n * 777])).collect()
}

#[test]
fn the_volume_fills_its_grown_partition() {
    let directory = scratch();
    for label in ["dos", "gpt"] {
        for (property, marked) in
            [("OFFLINE_NTFSRESIZE", true), ("OFFLINE_NTFSRESIZE_NOCHECK", false)]
        {
            let what = format!("{label} {property}");
            let path = disk(directory.path(), label);
            let before = fs::read(&path).unwrap();
            let wanted = plan(property);
            let (dry, _) = customize_on(device(&path), vec![], &wanted, Mode::DryRun).unwrap();
            assert!(fs::read(&path).unwrap() == before, "{what}: a dry run wrote to the disk");
            let (report, events) =
                customize_on(device(&path), vec![], &wanted, Mode::Commit).unwrap();
            assert_eq!(dry.changes, report.changes, "{what}");
            let said = format!("{events:?}");
            let size = DISK - START - 2048 * 512;
            assert!(said.contains(&format!("is enlarged from {} to ", VOLUME - 4096)), "{said}");
            assert_eq!(said.contains("marked for a check"), marked, "{said}");

            let part = partition(device(&path));
            assert_eq!(part.len(), size, "{what}");
            let (mut first, mut last) = (vec![0; 512], vec![0; 512]);
            part.read_at(0, &mut first).unwrap();
            part.read_at(size - 512, &mut last).unwrap();
            assert!(first == last, "{what}: the copy of the boot sector");
            let sectors = u64::from_le_bytes(first[40..48].try_into().unwrap());
            assert_eq!(sectors, size / 512 - 1, "{what}");
            let report = checked(device(&path));
            let found = if marked { vec!["volume-dirty"] } else { vec![] };
            assert_eq!(codes(&report), found, "{what}: {:?}", report.findings);

            let part = Loop::new(&path, START, size, false);
            let said = run("ntfsfix", &["-n", &part.device]);
            assert!(said.contains("was processed successfully"), "{what}: {said}");
            let (code, said) = command("ntfsresize", &["-i", &part.device]);
            if marked {
                // A volume with the mark is not changed any more, neither by us nor by ntfsresize.
                assert!(code != 0 && said.contains("chkdsk"), "{what}: {said}");
                let other = Plan { hostname: Some("vm2".into()), ..plan(property) };
                let error = customize_on(device(&path), vec![], &other, Mode::Commit).unwrap_err();
                assert!(sentence(&error).contains("chkdsk"), "{what}: {error}");
                run("ntfsfix", &["-d", &part.device]);
            }
            let said = run("ntfsresize", &["-i", "-f", &part.device]);
            // It counts the sector of the copy.
            let bytes = (size - 512) / 4096 * 4096 + 512;
            assert!(
                said.contains(&format!("Current volume size: {bytes} bytes")),
                "{what}: {said}"
            );
            drop(part);
            assert_eq!(codes(&checked(device(&path))), [""; 0], "{what}");
            let mount = NtfsMount::at(&path, START, size, false);
            assert_eq!(kept(&mount.path), expected(), "{what}");
            assert!(!mount.path.join("Windows/Setup/Scripts/snf-image/extend.cmd").exists());
            let answer = mount.text("Windows/Panther/unattend.xml");
            assert!(answer.contains("<ComputerName>vm1</ComputerName>"), "{answer}");
            // The room is really there.
            fs::write(mount.path.join("large"), vec![7; 20 << 20]).unwrap();
            drop(mount);
            assert_eq!(codes(&checked(device(&path))), [""; 0], "{what}: after ntfs-3g");
            // A second run finds nothing to do.
            let (again, _) = customize_on(device(&path), vec![], &wanted, Mode::Commit).unwrap();
            assert!(again.changes.is_empty(), "{what}: {:?}", again.changes);
        }
    }
}

/// The content of what nobody asked to change.
fn kept_by_us(disk: Arc<dyn BlockDevice>) -> Result<Vec<Vec<u8>>, snf_fs::Error> {
    let fs = Ntfs::open(Arc::new(partition(disk)))?;
    let dir = fs.lookup(fs.root(), b"kept")?.unwrap();
    let read = |number: usize| {
        let node = fs.lookup(dir, format!("file {number}").as_bytes())?.unwrap();
        let mut bytes = vec![0; fs.stat(node)?.size as usize];
        assert_eq!(fs.read(node, 0, &mut bytes)?, bytes.len());
        Ok(bytes)
    };
    (0..40).map(read).collect()
}

/// Partition table, edits and growth: whatever reached the disk, the table is whole, the volume in the
/// partition asks for a check or needs none, the files are there (but for a torn index block, which
/// that check makes anew), and what is whole again takes the same run once more.
#[test]
fn a_cut_at_any_write_leaves_the_files_and_a_run_that_can_be_repeated() {
    let directory = scratch();
    let path = disk(directory.path(), "dos");
    let wanted = plan("OFFLINE_NTFSRESIZE_NOCHECK");
    let recorder = Arc::new(RecordingDevice::new(fs::read(&path).unwrap()));
    customize_on(recorder.clone(), vec![], &wanted, Mode::Commit).unwrap();
    assert!(checked(Arc::new(MemoryDevice::new(recorder.to_vec()))).findings.is_empty());
    let files: Vec<Vec<u8>> = (0..40usize).map(|n| vec![n as u8; n * 777]).collect();
    let events = recorder.events().len();
    assert!((20..300).contains(&events), "{events}");
    let (mut whole, mut asked) = (0, 0);
    for count in 0..=events {
        for torn in [false, true] {
            if torn && count % 3 != 0 {
                continue;
            }
            let cut = recorder.cut(count, count as u64 * 2 + u64::from(torn), torn);
            let what = format!("cut {count} of {events}, torn {torn}");
            if !torn && count % 9 == 0 {
                write_sparse(&path, &cut);
            }
            let cut: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::new(cut));
            let report = checked(cut.clone());
            let found = codes(&report);
            // The mark is in the mirror first, and bits beyond the old end mean nothing. Before the
            // edit's switch its clusters and records are taken already, and nothing uses them yet.
            let harmless = [
                "mft-mirror",
                "bitmap-tail",
                "record-fixup",
                "boot-backup",
                "bitmap-leak",
                "mft-bitmap",
            ];
            let marked = found.contains(&"volume-dirty");
            let early = found.iter().all(|code| harmless.contains(code));
            assert!(marked || early, "{what}: {found:?}");
            whole += u32::from(found.is_empty());
            asked += u32::from(marked);
            match kept_by_us(cut) {
                Ok(seen) => assert!(seen == files, "{what}"),
                // Half an index block, which a check makes anew from the records.
                Err(error) => assert!(
                    torn && marked && sentence(&error).contains("INDX block"),
                    "{what}: {error}"
                ),
            }
            if torn || count % 9 != 0 {
                continue;
            }
            let size = partition(device(&path)).len();
            if !found.is_empty() {
                let part = Loop::new(&path, START, size, false);
                run("ntfsfix", &["-d", &part.device]);
            }
            assert_eq!(kept(&NtfsMount::at(&path, START, size, true).path), expected(), "{what}");
            // ntfsfix does not mend indexes and bitmaps as chkdsk does: only a volume that is
            // whole then is gone on with.
            if checked(device(&path)).findings.is_empty() {
                customize_on(device(&path), vec![], &wanted, Mode::Commit).unwrap();
                assert_eq!(partition(device(&path)).len(), DISK - START - 2048 * 512, "{what}");
                assert_eq!(codes(&checked(device(&path))), [""; 0], "{what}");
            }
        }
    }
    assert!(whole > 4 && asked > 10, "{whole} {asked}");
}

#[test]
fn a_volume_that_may_not_grow_is_refused_before_anything_is_written() {
    let directory = scratch();
    let path = disk(directory.path(), "gpt");
    fs::write(NtfsMount::at(&path, START, VOLUME, false).path.join("hiberfil.sys"), b"hibr")
        .unwrap();
    let before = fs::read(&path).unwrap();
    for property in ["OFFLINE_NTFSRESIZE", "OFFLINE_NTFSRESIZE_NOCHECK"] {
        // Also where nothing else is to be changed.
        let mut wanted = Plan::default();
        wanted.properties.set(property, "yes");
        for task in ["InstallUnattend", "AssignHostname", "DisableRemoteDesktopConnections"] {
            wanted.properties.set(&format!("EXCLUDE_TASK_{task}"), "yes");
        }
        for wanted in [&wanted, &plan(property)] {
            let error = customize_on(device(&path), vec![], wanted, Mode::Commit).unwrap_err();
            let text = sentence(&error);
            assert!(text.contains("hiberfil.sys") && text.contains("shut it down"), "{text}");
            assert!(fs::read(&path).unwrap() == before, "{property}");
        }
    }
}
