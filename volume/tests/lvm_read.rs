//! Groups that lvm2 made, read and written by this crate. The places of extents are computed anew
//! here from the report of `lvs`.
use crate::support::Disks;
use snf_fs::BlockDevice;
use snf_volume::lvm::{Change, Extent, Scan, VolumeGroup, scan};
use snf_volume::{Error, Refusal};

const EXTENT: u64 = 4 << 20;
/// First byte of the extents, as pvcreate lays them out.
const DATA: u64 = 1 << 20;

/// Sixteen bytes that differ for every place.
fn pattern(volume: usize, offset: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&(offset ^ 0x5a5a).to_le_bytes());
    bytes[8..].copy_from_slice(&(volume as u64 + 1).to_le_bytes());
    bytes
}

/// The place of each byte of a volume, from lvm2's report: disk and byte.
fn place(disks: &Disks, group: &str, volume: &str, offset: u64) -> (usize, u64) {
    let report = disks.lvm(&[
        "lvs",
        "--segments",
        "--noheadings",
        "--separator",
        ";",
        "--units",
        "b",
        "--nosuffix",
        "-o",
        "seg_start_pe,seg_size_pe,stripes,stripe_size,seg_pe_ranges",
        &format!("{group}/{volume}"),
    ]);
    for line in report.lines() {
        let fields: Vec<&str> = line.trim().split(';').collect();
        let number = |index: usize| fields[index].parse::<u64>().unwrap();
        let (start, size, stripes, stripe) = (number(0), number(1), number(2), number(3));
        if !(start * EXTENT..(start + size) * EXTENT).contains(&offset) {
            continue;
        }
        let within = offset - start * EXTENT;
        let (area, inside) = if stripes == 1 {
            (0, within)
        } else {
            let row = within / stripe;
            (row % stripes, row / stripes * stripe + within % stripe)
        };
        let range = fields[4].split(' ').nth(area as usize).unwrap();
        let (device, extents) = range.split_once(':').unwrap();
        let first: u64 = extents.split('-').next().unwrap().parse().unwrap();
        let disk = disks.loops.iter().position(|name| name == device).unwrap();
        return (disk, DATA + first * EXTENT + inside);
    }
    panic!("{offset} is in no segment of {report}");
}

fn only(found: &Scan) -> &VolumeGroup {
    assert!(found.problems.is_empty(), "{:?}", found.problems);
    let [group] = found.groups.as_slice() else { panic!("{found:?}") };
    group
}

#[test]
fn linear_and_striped_volumes_lie_where_lvm2_says() {
    let disks = Disks::new(&[100, 80, 64]);
    disks.group("rl", &[]);
    disks.lvcreate(&["-n", "root", "-l", "5", "rl", &disks.loops[0]]);
    disks.lvcreate(&["-n", "swap", "-l", "3", "rl", &disks.loops[0]]);
    disks.lvm(&["lvextend", "-l", "+12", "rl/root", &disks.loops[0]]);
    disks.lvm(&["lvextend", "-l", "+4", "rl/root", &disks.loops[2]]);
    disks.lvcreate(&[
        "-n",
        "two",
        "-i",
        "2",
        "-I",
        "64k",
        "-l",
        "8",
        "rl",
        &disks.loops[1],
        &disks.loops[2],
    ]);
    disks.lvcreate(&["-n", "gap", "-l", "2", "rl", &disks.loops[1]]);
    disks.lvm(&["lvextend", "-i", "2", "-l", "+4", "rl/two", &disks.loops[1], &disks.loops[2]]);
    disks.lvcreate(&["-n", "my-data", "-l", "1", "rl"]);

    let devices = disks.devices();
    let found = scan(&devices);
    let group = only(&found);
    let volumes = group.logical_volumes();
    let layouts: Vec<_> = volumes.iter().map(|lv| (lv.name.as_str(), lv.layout)).collect();
    assert_eq!(
        layouts,
        [
            ("root", "linear"),
            ("swap", "linear"),
            ("two", "striped"),
            ("gap", "linear"),
            ("my-data", "linear")
        ]
    );
    assert_eq!(volumes[4].paths[0], "/dev/mapper/rl-my--data");
    let report = disks.lvm(&[
        "lvs",
        "--noheadings",
        "--units",
        "b",
        "--nosuffix",
        "-o",
        "lv_size,lv_uuid,lv_dm_path",
    ]);
    for (line, lv) in report.lines().zip({
        let mut sorted = volumes.clone();
        sorted.sort_by(|a, b| a.name.cmp(&b.name));
        sorted
    }) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(fields, [lv.size.to_string(), lv.id.to_string(), lv.paths[0].clone()]);
    }
    let report = disks.lvm(&[
        "pvs",
        "--noheadings",
        "--units",
        "b",
        "--nosuffix",
        "-o",
        "pv_uuid,pv_size,pv_free",
    ]);
    // lvm2 sorts by the name of the device, and the kernel chooses the numbers of loop devices.
    let fields = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let mut theirs: Vec<_> = report.lines().map(fields).collect();
    let mut ours: Vec<_> = group
        .physical_volumes()
        .iter()
        .map(|pv| vec![pv.id.to_string(), pv.size.to_string(), pv.free.to_string()])
        .collect();
    theirs.sort();
    ours.sort();
    assert_eq!(theirs, ours);

    for (index, lv) in volumes.iter().enumerate() {
        let volume = group.open(&lv.name).unwrap();
        assert_eq!(volume.len(), lv.size);
        // One write over everything, so that runs cross stripes, segments and disks.
        let mut bytes = vec![0; lv.size as usize];
        for (number, chunk) in bytes.chunks_mut(16).enumerate() {
            chunk.copy_from_slice(&pattern(index, number as u64 * 16));
        }
        volume.write_at(0, &bytes).unwrap();
        volume.flush().unwrap();
    }
    let mut random = snf_fs::testing::Random(7);
    for (index, lv) in volumes.iter().enumerate() {
        let volume = group.open(&lv.name).unwrap();
        for _ in 0..24 {
            let offset = random.below(lv.size as usize / 16) as u64 * 16;
            let (disk, at) = place(&disks, "rl", &lv.name, offset);
            let mut seen = [0; 16];
            devices[disk].read_at(at, &mut seen).unwrap();
            assert_eq!(seen, pattern(index, offset), "{} at {offset}", lv.name);
        }
        let mut back = vec![0; lv.size as usize - 5];
        volume.read_at(5, &mut back).unwrap();
        for (number, chunk) in back[11..].chunks(16).enumerate() {
            assert_eq!(chunk, pattern(index, number as u64 * 16 + 16));
        }
        assert!(volume.read_at(lv.size - 1, &mut [0; 2]).is_err());
    }
    disks.check("rl");
}

/// Sections of logical volumes that need device-mapper to be made.
fn lv(name: &str, status: &str, segment: &str) -> String {
    // An identifier of the volume's own: letters of its name, filled up.
    let id: String = name
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .chain("x".repeat(32).chars())
        .take(32)
        .collect();
    format!(
        "{name} {{\nid = \"{id}\"\nstatus = [\"READ\", \"WRITE\"{status}]\nsegment_count = 1\n\
         segment1 {{\nstart_extent = 0\n{segment}\n}}\n}}\n"
    )
}

fn on_pv(name: &str, pv: usize, first: u64, count: u64) -> String {
    let segment = format!(
        "extent_count = {count}\ntype = \"striped\"\nstripe_count = 1\nstripes = [\"pv{pv}\", {first}]"
    );
    lv(name, "", &segment)
}

const VISIBLE: &str = ", \"VISIBLE\"";

#[test]
fn mirrored_volumes() {
    let disks = Disks::new(&[64, 64]);
    disks.group("vg", &[]);
    let text = [
        on_pv("r_rmeta_0", 0, 0, 1),
        on_pv("r_rmeta_1", 1, 0, 1),
        on_pv("r_rimage_0", 0, 1, 3),
        on_pv("r_rimage_1", 1, 1, 3),
        lv(
            "r",
            VISIBLE,
            "extent_count = 3\ntype = \"raid1\"\ndevice_count = 2\nregion_size = 4096\nraids = [\"r_rmeta_0\", \"r_rimage_0\", \"r_rmeta_1\", \"r_rimage_1\"]",
        ),
        on_pv("m_mlog", 0, 4, 1),
        on_pv("m_mimage_0", 0, 5, 2),
        on_pv("m_mimage_1", 1, 5, 2),
        lv(
            "m",
            VISIBLE,
            "extent_count = 2\ntype = \"mirror\"\nmirror_count = 2\nmirror_log = \"m_mlog\"\nregion_size = 4096\nmirrors = [\"m_mimage_0\", 0, \"m_mimage_1\", 0]",
        ),
    ];
    disks.restore("vg", &text.concat());
    disks.check("vg");

    let devices = disks.devices();
    let found = scan(&devices);
    let group = only(&found);
    let names: Vec<_> =
        group.logical_volumes().into_iter().map(|lv| (lv.name, lv.layout)).collect();
    assert_eq!(names, [("r".into(), "raid1"), ("m".into(), "mirror")]);
    assert!(matches!(
        group.open("r_rimage_0"),
        Err(Error::Refused { refusal: Refusal::Hidden, .. })
    ));
    for (name, first) in [("r", 1), ("m", 5)] {
        let volume = group.open(name).unwrap();
        volume.write_at(EXTENT - 3, b"across").unwrap();
        let mut seen = [0; 6];
        volume.read_at(EXTENT - 3, &mut seen).unwrap();
        assert_eq!(&seen, b"across");
        for device in &devices {
            device.read_at(DATA + (first + 1) * EXTENT - 3, &mut seen).unwrap();
            assert_eq!(&seen, b"across");
        }
    }
    for name in ["r", "m"] {
        let error = Change::new(group).unwrap().extend(name, Extent::AllFree).unwrap_err();
        assert_eq!(error.refusal(), Some(&Refusal::GrowMirror));
    }
    // The first leg failed once and is out of date.
    let superblock = |position: u32, events: u64, failed: u64| {
        let mut bytes = vec![0; 512];
        bytes[..4].copy_from_slice(&0x6452_6d44u32.to_le_bytes());
        bytes[8..12].copy_from_slice(&2u32.to_le_bytes());
        bytes[12..16].copy_from_slice(&position.to_le_bytes());
        bytes[16..24].copy_from_slice(&events.to_le_bytes());
        bytes[24..32].copy_from_slice(&failed.to_le_bytes());
        bytes[32..40].fill(0xff);
        bytes
    };
    devices[0].write_at(DATA, &superblock(0, 3, 0)).unwrap();
    devices[1].write_at(DATA, &superblock(1, 4, 1)).unwrap();
    devices[1].write_at(DATA + EXTENT, b"newer").unwrap();
    let mut seen = [0; 5];
    group.open("r").unwrap().read_at(0, &mut seen).unwrap();
    assert_eq!(&seen, b"newer");
    devices[0].write_at(DATA, &superblock(0, 5, 2)).unwrap();
    devices[0].write_at(DATA + EXTENT, b"first").unwrap();
    group.open("r").unwrap().read_at(0, &mut seen).unwrap();
    assert_eq!(&seen, b"first");
    devices[0].write_at(DATA, &superblock(0, 5, 3)).unwrap();
    assert_eq!(group.open("r").unwrap_err().refusal(), Some(&Refusal::NoWholeLeg));
}

#[test]
fn everything_else_is_listed_and_refused_by_name() {
    let disks = Disks::new(&[128]);
    disks.group("vg", &[]);
    let thin = "extent_count = 2\ntype = \"thin\"\nthin_pool = \"pool\"\ntransaction_id = 0\ndevice_id = 1";
    let text = [
        on_pv("pool_tmeta", 0, 0, 1),
        on_pv("pool_tdata", 0, 1, 2),
        lv(
            "pool",
            VISIBLE,
            "extent_count = 2\ntype = \"thin-pool\"\nmetadata = \"pool_tmeta\"\npool = \"pool_tdata\"\ntransaction_id = 1\nchunk_size = 128\ndiscards = \"passdown\"\nzero_new_blocks = 1",
        ),
        lv("thin", VISIBLE, &format!("{thin}\nexternal_origin = \"ext\"")),
        lv(
            "ext",
            "",
            "extent_count = 2\ntype = \"striped\"\nstripe_count = 1\nstripes = [\"pv0\", 20]",
        )
        .replace("\"READ\", \"WRITE\"", "\"READ\", \"VISIBLE\""),
        on_pv("origin", 0, 3, 2).replace("\"WRITE\"", "\"WRITE\", \"VISIBLE\""),
        on_pv("snap", 0, 5, 1),
        lv(
            "snapshot0",
            "",
            "extent_count = 2\ntype = \"snapshot\"\nchunk_size = 8\norigin = \"origin\"\ncow_store = \"snap\"",
        ),
        on_pv("plain", 0, 10, 2).replace("\"WRITE\"", "\"WRITE\", \"VISIBLE\""),
    ];
    disks.restore("vg", &text.concat());
    disks.check("vg");
    let found = scan(&disks.devices());
    let group = only(&found);
    let refusal = |name: &str| group.open(name).unwrap_err().refusal().cloned();
    assert_eq!(refusal("pool"), Some(Refusal::Thin));
    assert_eq!(refusal("thin"), Some(Refusal::Thin));
    assert_eq!(refusal("ext"), Some(Refusal::ExternalOrigin));
    assert_eq!(refusal("origin"), Some(Refusal::SnapshotOrigin));
    for lv in group.logical_volumes() {
        assert_eq!(
            lv.refusal,
            group.open(&lv.name).err().and_then(|e| e.refusal().cloned()),
            "{}",
            lv.name
        );
    }
    assert!(group.open("plain").is_ok());
    assert!(matches!(group.open("none"), Err(Error::NotFound(_))));
    let told = group.open("thin").unwrap_err().to_string();
    assert_eq!(
        told,
        "logical volume vg/thin is thinly provisioned (LVM thin), which is not supported; edit it in a running system"
    );
}

#[test]
fn states_of_groups() {
    let disks = Disks::new(&[64, 64]);
    disks.group("vg", &[]);
    disks.lvcreate(&["-n", "a", "-l", "2", "vg", &disks.loops[0]]);
    disks.lvcreate(&["-n", "b", "-l", "2", "vg", &disks.loops[1]]);
    // One of two disks.
    let devices = disks.devices();
    let found = scan(&devices[..1]);
    let group = only(&found);
    assert!(group.open("a").is_ok());
    let missing = group.open("b").unwrap_err();
    assert!(matches!(missing.refusal(), Some(Refusal::MissingPv(_))), "{missing}");
    assert_eq!(group.logical_volumes()[1].refusal.as_ref(), missing.refusal());
    assert_eq!(group.physical_volumes()[1].device, None);
    // The same disk twice.
    let twice = scan(&[devices[0].clone(), devices[0].clone(), devices[1].clone()]);
    let error = only(&twice).open("a").unwrap_err();
    assert_eq!(error.refusal(), Some(&Refusal::Duplicate));
    assert!(only(&twice).open("b").is_ok());

    disks.lvm(&["lvchange", "-pr", "vg/a"]);
    let found = scan(&devices);
    let volume = only(&found).open("a").unwrap();
    assert!(volume.is_read_only());
    assert!(volume.write_at(0, b"x").is_err());
    disks.lvm(&["vgexport", "vg"]);
    let found = scan(&devices);
    assert_eq!(only(&found).open("a").unwrap_err().refusal(), Some(&Refusal::Exported));
    disks.lvm(&["vgimport", "vg"]);
    disks.lvm(&["vgchange", "--systemid", "elsewhere", "-y", "vg"]);
    let found = scan(&devices);
    assert!(!only(&found).open("b").unwrap().is_read_only());
}

#[test]
fn orphans_and_other_devices() {
    let disks = Disks::new(&[64, 64]);
    disks.lvm(&["pvcreate", &disks.loops[0]]);
    let found = scan(&disks.devices());
    assert!(found.groups.is_empty() && found.problems.is_empty());
    assert_eq!(found.orphans.len(), 1);
    assert!(snf_volume::lvm::is_physical_volume(&*disks.devices()[0]).unwrap());
    assert!(!snf_volume::lvm::is_physical_volume(&*disks.devices()[1]).unwrap());
}

#[test]
fn one_area_is_damaged_the_other_counts() {
    let disks = Disks::new(&[64, 64]);
    disks.group("vg", &["--metadatacopies", "2"]);
    disks.lvcreate(&["-n", "a", "-l", "2", "vg"]);
    let devices = disks.devices();
    for at in [4096, 4096 + 4, 4096 + 0x28] {
        let mut byte = [0];
        devices[0].read_at(at, &mut byte).unwrap();
        devices[0].write_at(at, &[byte[0] ^ 1]).unwrap();
        let found = scan(&devices);
        assert_eq!((found.groups.len(), found.problems.len()), (1, 1));
        assert!(found.groups[0].open("a").is_ok());
        devices[0].write_at(at, &byte).unwrap();
    }
    // Only the second disk's last area is left.
    for (device, at) in [(0, 4096), (1, 4096), (0, 63 << 20)] {
        devices[device].write_at(at, &[0; 512]).unwrap();
    }
    let found = scan(&devices);
    assert_eq!((found.groups.len(), found.problems.len()), (1, 3));
    assert!(found.groups[0].open("a").is_ok());
}
