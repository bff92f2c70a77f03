//! Growth: judged by lvm2, cut at every write, and with devices that fail.
use std::sync::Arc;

use crate::support::Disks;
use snf_fs::testing::{Fault, FaultDevice, RecordingDevice};
use snf_fs::{BlockDevice, MemoryDevice};
use snf_volume::lvm::{Change, Extent, Stamp, VolumeGroup, scan};
use snf_volume::{Error, Refusal};

const EXTENT: u64 = 4 << 20;

fn stamp() -> Stamp {
    Stamp { description: "grown \"offline\"".into(), host: "builder".into(), time: 1_800_000_000 }
}

fn group(devices: &[Arc<dyn BlockDevice>]) -> VolumeGroup {
    let mut found = scan(devices);
    assert!(found.problems.is_empty() && found.groups.len() == 1, "{found:?}");
    found.groups.remove(0)
}

fn grow_all(change: &mut Change, group: &VolumeGroup) -> u64 {
    group.physical_volumes().iter().map(|pv| change.grow_pv(&pv.id).unwrap()).sum()
}

fn grow(devices: &[Arc<dyn BlockDevice>], name: &str, to: Extent) -> Result<u64, Error> {
    let group = group(devices);
    let mut change = Change::new(&group)?;
    grow_all(&mut change, &group);
    let size = change.extend(name, to)?;
    assert_eq!(change.commit(&stamp())?.open(name)?.len(), size);
    Ok(size)
}

/// `lvs` on sizes and segments.
fn segments(disks: &Disks, volume: &str) -> Vec<String> {
    let report = disks.lvm(&["lvs", "--segments", "--noheadings", "-o", "seg_pe_ranges", volume]);
    let mut report: String = report.lines().map(|line| format!("{}\n", line.trim())).collect();
    for (index, name) in disks.loops.iter().enumerate() {
        report = report.replace(name, &format!("disk{index}"));
    }
    report.lines().map(str::to_owned).collect()
}

#[test]
fn lvm2_goes_on_after_us_and_we_after_lvm2() {
    let mut disks = Disks::new(&[64]);
    disks.group("rl", &[]);
    disks.lvcreate(&["-n", "root", "-l", "5", "rl"]);
    disks.lvcreate(&["-n", "home", "-l", "2", "rl"]);
    disks.lvm(&["lvchange", "--addtag", "kept", "rl/root"]);
    disks.resize(0, 128);
    // Everything in the group is free for root, but it does not lie in one run.
    assert_eq!(grow(&disks.devices(), "root", Extent::To(10 * EXTENT - 5)).unwrap(), 10 * EXTENT);
    disks.check("rl");
    assert_eq!(segments(&disks, "rl/root"), ["disk0:0-4", "disk0:7-11"]);
    disks.lvm(&["lvextend", "-l", "+3", "rl/root"]);
    assert_eq!(segments(&disks, "rl/root"), ["disk0:0-4", "disk0:7-14"]);
    disks.check("rl");
    let size = grow(&disks.devices(), "root", Extent::AllFree).unwrap();
    assert_eq!(size, 29 * EXTENT);
    assert_eq!(segments(&disks, "rl/root"), ["disk0:0-4", "disk0:7-30"]);
    disks.check("rl");
    let report = disks.lvm(&[
        "vgs",
        "--noheadings",
        "--units",
        "b",
        "--nosuffix",
        "-o",
        "vg_size,vg_free,vg_seqno",
    ]);
    let sequence = group(&disks.devices()).sequence();
    let fields: Vec<String> = report.split_whitespace().map(str::to_owned).collect();
    assert_eq!(fields, [(31 * EXTENT).to_string(), "0".into(), sequence.to_string()]);
    assert_eq!(disks.lvm(&["lvs", "--noheadings", "-o", "lv_tags", "rl/root"]).trim(), "kept");
    let report =
        disks.lvm(&["pvs", "--noheadings", "--units", "b", "--nosuffix", "-o", "dev_size,pv_size"]);
    assert_eq!(report.split_whitespace().next(), Some((128u64 << 20).to_string().as_str()));
    // Nothing is left to be done: nothing is written.
    let before = disks.contents();
    assert_eq!(grow(&disks.devices(), "root", Extent::AllFree).unwrap(), size);
    assert!(before == disks.contents());
    let error = grow(&disks.devices(), "root", Extent::To(size + 1)).unwrap_err();
    assert!(matches!(error, Error::NoSpace { wanted: 1, free: 0, .. }), "{error}");
    let error = grow(&disks.devices(), "root", Extent::To(EXTENT)).unwrap_err();
    assert!(error.to_string().contains("is not shrunk"), "{error}");
    // lvm2 can take it apart again.
    disks.lvm(&["lvreduce", "-f", "-l", "5", "rl/root"]);
    disks.check("rl");
}

#[test]
fn an_area_at_the_end_moves() {
    let mut disks = Disks::new(&[64, 64]);
    disks.group("vg", &["--metadatacopies", "2"]);
    disks.lvcreate(&["-n", "a", "-l", "3", "vg", &disks.loops[0]]);
    disks.resize(0, 100);
    let size = grow(&disks.devices(), "a", Extent::AllFree).unwrap();
    disks.check("vg");
    // 98 MiB between the two areas are 24 extents, the other disk has 15.
    assert_eq!(size, (24 + 15) * EXTENT);
    let report = disks.lvm(&["pvs", "--noheadings", "-o", "pv_mda_count,pv_mda_used_count"]);
    assert_eq!(report.split_whitespace().collect::<Vec<_>>(), ["2"; 4]);
    // A copy at the end is whole: the one at the front is not needed.
    disks.devices()[0].write_at(4096, &[0; 512]).unwrap();
    disks.devices()[1].write_at(4096, &[0; 512]).unwrap();
    let found = scan(&disks.devices());
    assert_eq!(found.groups[0].open("a").unwrap().len(), size);
    // The next change repairs what is damaged.
    disks.resize(1, 80);
    let found = scan(&disks.devices());
    let mut change = Change::new(&found.groups[0]).unwrap();
    assert!(grow_all(&mut change, &found.groups[0]) > 0);
    change.commit(&stamp()).unwrap();
    disks.check("vg");
    // One MiB more is too little for the area to move: old and new place would overlap.
    disks.resize(1, 81);
    let group = group(&disks.devices());
    assert_eq!(grow_all(&mut Change::new(&group).unwrap(), &group), 0);
}

#[test]
fn striped_volumes_and_several_disks() {
    let mut disks = Disks::new(&[64, 64, 64]);
    disks.group("vg", &[]);
    disks.lvcreate(&[
        "-n",
        "s",
        "-i",
        "2",
        "-I",
        "64k",
        "-l",
        "6",
        "vg",
        &disks.loops[0],
        &disks.loops[1],
    ]);
    disks.lvcreate(&["-n", "x", "-l", "1", "vg", &disks.loops[1]]);
    disks.resize(1, 80);
    assert_eq!(grow(&disks.devices(), "s", Extent::To(9 * EXTENT)).unwrap(), 10 * EXTENT);
    disks.check("vg");
    assert_eq!(segments(&disks, "vg/s"), ["disk0:0-2 disk1:0-2", "disk0:3-4 disk1:4-5"]);
    assert_eq!(grow(&disks.devices(), "s", Extent::AllFree).unwrap(), 30 * EXTENT);
    disks.check("vg");
    assert_eq!(segments(&disks, "vg/s"), ["disk0:0-2 disk1:0-2", "disk0:3-14 disk1:4-15"]);
    // x goes on after s on its own disk, then on the third one.
    assert_eq!(grow(&disks.devices(), "x", Extent::AllFree).unwrap(), 19 * EXTENT);
    assert_eq!(segments(&disks, "vg/x"), ["disk1:3-3", "disk1:16-18", "disk2:0-14"]);
    disks.check("vg");
}

#[test]
fn policies_and_flags() {
    let disks = Disks::new(&[64, 64]);
    disks.group("vg", &[]);
    disks.lvcreate(&["-n", "a", "-l", "2", "vg", &disks.loops[0]]);
    disks.lvcreate(&["-n", "b", "-l", "2", "vg", &disks.loops[0]]);
    let size = |alloc: &str| {
        disks.try_lvm(&["lvchange", "--alloc", alloc, "vg/a"]);
        let group = group(&disks.devices());
        Change::new(&group).unwrap().extend("a", Extent::AllFree).unwrap() / EXTENT
    };
    assert_eq!((size("contiguous"), size("cling"), size("normal")), (2, 13, 28));
    disks.lvm(&["pvchange", "-xn", &disks.loops[0]]);
    assert_eq!(size("normal"), 17);
    disks.lvm(&["vgchange", "-xn", "vg"]);
    let refusal = Change::new(&group(&disks.devices())).unwrap_err().refusal().cloned();
    assert_eq!(refusal, Some(Refusal::NotResizeable));
    let found = scan(&disks.devices()[..1]);
    let refusal = Change::new(&found.groups[0]).unwrap_err().refusal().cloned();
    assert_eq!(refusal, Some(Refusal::NotResizeable));
    disks.lvm(&["vgchange", "-xy", "vg"]);
    let found = scan(&disks.devices()[..1]);
    let refusal = Change::new(&found.groups[0]).unwrap_err().refusal().cloned();
    assert!(matches!(refusal, Some(Refusal::MissingPv(_))), "{refusal:?}");
}

#[test]
fn many_changes_go_around_the_ring() {
    let mut disks = Disks::new(&[64]);
    disks.lvm(&["pvcreate", "--metadatasize", "8k", "--dataalignment", "64k", &disks.loops[0]]);
    disks.lvm(&["vgcreate", "-s", "128k", "vg", &disks.loops[0]]);
    disks.lvcreate(&["-n", "a", "-l", "1", "vg"]);
    disks.resize(0, 96);
    let devices = disks.devices();
    for extents in 2..120 {
        grow(&devices, "a", Extent::To(extents * (128 << 10))).unwrap();
        if extents % 20 == 0 {
            disks.check("vg");
            disks.lvm(&["lvchange", "--addtag", &format!("t{extents}"), "vg/a"]);
        }
    }
    disks.check("vg");
    assert!(group(&devices).sequence() > 110);
}

/// Every cut leaves the old group or the new one, to us and to lvm2.
#[test]
fn power_cuts() {
    let mut disks = Disks::new(&[16, 16]);
    let loops: Vec<&str> = disks.loops.iter().map(String::as_str).collect();
    let create =
        ["pvcreate", "--metadatacopies", "2", "--metadatasize", "64k", "--dataalignment", "64k"];
    disks.lvm(&[&create[..], &loops].concat());
    disks.lvm(&[&["vgcreate", "-s", "128k", "vg"], &loops[..]].concat());
    disks.lvcreate(&["-n", "a", "-l", "9", "vg", &disks.loops[0]]);
    let old = group(&disks.devices()).open("a").unwrap().len();
    let sequence = group(&disks.devices()).sequence();
    disks.resize(0, 24);
    let contents = disks.contents();
    // One recorder over both disks, so that the order between them is recorded, too.
    let split = contents[0].len();
    let both = contents.concat();
    let recorder = Arc::new(RecordingDevice::new(both));
    let window = |start: usize, size: usize| {
        let device: Arc<dyn BlockDevice> = recorder.clone();
        let slice = snf_fs::Slice::new(device, start as u64, size as u64).unwrap();
        Arc::new(slice) as Arc<dyn BlockDevice>
    };
    let devices = [window(0, split), window(split, contents[1].len())];
    let new = grow(&devices, "a", Extent::AllFree).unwrap();
    assert!(new > old);
    let events = recorder.events().len();
    let mut seen = [0, 0];
    let mut judged = 0;
    for count in 0..=events {
        let mut cuts = vec![recorder.prefix(count)];
        cuts.extend((0..12).map(|seed| recorder.cut(count, seed * 977 + count as u64, true)));
        for (number, bytes) in cuts.into_iter().enumerate() {
            let parts = [bytes[..split].to_vec(), bytes[split..].to_vec()];
            let memory = |bytes: &Vec<u8>| {
                Arc::new(MemoryDevice::new(bytes.clone())) as Arc<dyn BlockDevice>
            };
            let found = scan(&[memory(&parts[0]), memory(&parts[1])]);
            let group = &found.groups[0];
            let size = group.open("a").unwrap().len();
            assert!(size == old || size == new, "{size} after {count} events");
            assert_eq!(group.sequence() - sequence, u64::from(size == new));
            seen[usize::from(size == new)] += 1;
            // A growth after the cut works.
            let again = [memory(&parts[0]), memory(&parts[1])];
            let found = scan(&again);
            let mut change = Change::new(&found.groups[0]).unwrap();
            grow_all(&mut change, &found.groups[0]);
            assert_eq!(change.extend("a", Extent::AllFree).unwrap(), new, "after {count} events");
            change.commit(&stamp()).unwrap();
            if number == count % 13 {
                let cut = Disks::of(&parts);
                let report = cut.lvm(&["vgs", "--noheadings", "-o", "vg_seqno", "vg"]);
                assert_eq!(report.trim(), group.sequence().to_string(), "after {count} events");
                judged += 1;
            }
        }
    }
    assert!(seen[0] > 50 && seen[1] > 12, "{seen:?}");
    assert_eq!(judged, events + 1);
}

#[test]
fn devices_that_fail() {
    let mut disks = Disks::new(&[16]);
    disks.lvm(&[
        "pvcreate",
        "--metadatacopies",
        "2",
        "--metadatasize",
        "64k",
        "--dataalignment",
        "64k",
        &disks.loops[0],
    ]);
    disks.lvm(&["vgcreate", "-s", "128k", "vg", &disks.loops[0]]);
    disks.lvcreate(&["-n", "a", "-l", "9", "vg"]);
    let old = group(&disks.devices()).open("a").unwrap().len();
    disks.resize(0, 24);
    let bytes = disks.contents().remove(0);
    let run = |fault: Fault| {
        let memory: Arc<dyn BlockDevice> = Arc::new(MemoryDevice::new(bytes.clone()));
        let device = Arc::new(FaultDevice::new(memory.clone(), fault));
        let devices = [device.clone() as Arc<dyn BlockDevice>];
        let found = scan(&devices);
        let result = match found.groups.first() {
            None => Ok(0),
            Some(group) => Change::new(group).and_then(|mut change| {
                change.grow_pv(&group.physical_volumes()[0].id)?;
                let size = change.extend("a", Extent::AllFree)?;
                change.commit(&stamp()).map(|_| size)
            }),
        };
        (result, found.problems.len(), scan(&[memory]).groups[0].open("a").unwrap().len(), device)
    };
    let (result, _, new, device) = run(Fault::None);
    assert_eq!(result.unwrap(), new);
    for fault in device.counts().faults() {
        let (result, problems, size, _) = run(fault);
        assert!(size == old || size == new, "{fault:?}: {size}");
        match fault {
            // A text that cannot be read is a problem that is told, and another one counts.
            Fault::Read(_) => assert!(result.is_err() || problems > 0 || size == new, "{fault:?}"),
            _ => assert!(matches!(result, Err(Error::Device(_))), "{fault:?}"),
        }
    }
}
