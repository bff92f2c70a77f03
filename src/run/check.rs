//! Looking for damage in the file systems of an image, without changing it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Serialize;
use snf_fs::error::display_name;
use snf_fs::ntfs::check::{Severity, check as check_ntfs};
use snf_fs::{BlockDevice, Error, FileSystem, FileType, NodeId};

use crate::ask::luks_key::LuksKey;
use crate::craft::random::{Clock, Entropy};
use crate::craft::sentence::sentence;
use crate::guest::disk::{Content, Disk, Volume};
use crate::guest::stack::Sources;
use crate::run::customize::CustomizeError;

/// Problems of one volume that are listed; all are counted.
const FINDINGS_MAX: usize = 200;
/// Places of a file at which it is read, so that its map is seen and not every byte.
const PROBES_MAX: u64 = 4096;
/// Bytes between these places in files that are not huge.
const PROBE_STEP: u64 = 1 << 20;

/// The findings on a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiskCheck {
    /// Each partition, or the one volume of a disk without a table.
    pub volumes: Vec<VolumeCheck>,
    /// Warnings of the partition table's reader.
    pub warnings: Vec<String>,
}

/// The findings in one volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct VolumeCheck {
    /// The words for it: `partition 3`, `the disk`, `logical volume rl/root`.
    pub place: String,
    /// The partition's number; none for what is no partition.
    pub number: Option<u32>,
    /// Kind of file system or container.
    pub kind: Option<String>,
    /// Whether it was looked at: file systems with an engine of ours are.
    pub checked: bool,
    /// Contradictions, in all.
    pub errors: u64,
    /// Problems that the system tolerates, in all.
    pub warnings: u64,
    /// Files and directories.
    pub files: u64,
    /// The first of the contradictions and warnings.
    pub findings: Vec<FindingText>,
}

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FindingText {
    /// `error` or `warning`.
    pub severity: &'static str,
    /// The kind of problem, in a word that does not change.
    pub code: &'static str,
    /// Its place.
    pub place: String,
    /// The value found.
    pub detail: String,
}

impl VolumeCheck {
    fn error(&mut self, code: &'static str, place: impl Into<String>, detail: impl Into<String>) {
        self.errors += 1;
        self.keep("error", code, place.into(), detail.into());
    }

    fn keep(&mut self, severity: &'static str, code: &'static str, place: String, detail: String) {
        if self.findings.len() < FINDINGS_MAX {
            self.findings.push(FindingText { severity, code, place, detail });
        }
    }
}

/// Checks the NTFS and ext2/3/4 file systems on `disks`, of which the first is the image's. Damage is told in the result; an error is
/// only what keeps from looking at all: the partition table, or a disk that cannot be read.
pub fn check(
    disks: &[Arc<dyn BlockDevice>],
    keys: &[LuksKey],
) -> Result<DiskCheck, CustomizeError> {
    // Nothing random is kept and nothing is written.
    let (entropy, clock) = (Entropy::seeded(0), Clock::fixed(0));
    let sources = Sources { keys, ..Sources::of(disks, &entropy, &clock) };
    let opened = Disk::open_with(&sources)?;
    let warnings = opened.warnings.clone();
    let volumes = opened.volumes.iter().map(check_volume).collect();
    Ok(DiskCheck { volumes, warnings })
}

fn check_volume(volume: &Volume) -> VolumeCheck {
    let mut out = VolumeCheck {
        place: volume.place(),
        number: volume.number,
        kind: volume.kind.clone(),
        ..VolumeCheck::default()
    };
    let ntfs = volume.kind.as_deref() == Some("ntfs");
    match (&volume.content, &volume.device) {
        (_, Some(device)) if ntfs => ntfs_volume(&**device, &mut out),
        (Content::Open(fs), _) => match fs.subvolume(b"") {
            Ok(Some(whole)) => walk(&*whole, &mut out),
            Ok(None) => walk(&**fs, &mut out),
            Err(error) => {
                out.checked = true;
                out.error("unreadable", volume.place(), error.to_string());
            }
        },
        (Content::Broken(problem), _) => {
            out.checked = true;
            out.error("unreadable", volume.place(), sentence(&**problem));
        }
        (Content::Closed(problem), _) if problem.refusal().is_none() => {
            out.checked = true;
            out.error("unreadable", volume.place(), sentence(&**problem));
        }
        _ => {}
    }
    out
}

fn ntfs_volume(device: &dyn BlockDevice, out: &mut VolumeCheck) {
    out.checked = true;
    match check_ntfs(device) {
        Ok(report) => {
            out.errors = report.errors;
            out.warnings = report.warnings;
            out.files = report.files;
            for finding in report.findings {
                let severity = match finding.severity {
                    Severity::Warning => "warning",
                    Severity::Error => "error",
                };
                out.keep(severity, finding.code, finding.place, finding.detail);
            }
        }
        Err(error) => out.error("unreadable", "the volume", sentence(&error)),
    }
}

/// Visits every name and node through an engine's reader, which checks what it meets: checksums,
/// pointers, lengths.
fn walk(fs: &dyn FileSystem, out: &mut VolumeCheck) {
    out.checked = true;
    let root = fs.root();
    let mut names: BTreeMap<NodeId, u32> = BTreeMap::new();
    let mut seen = BTreeSet::from([root]);
    let mut todo = vec![(String::new(), root)];
    while let Some((path, dir)) = todo.pop() {
        let entries = match fs.readdir(dir) {
            Ok(entries) => entries,
            Err(error) => {
                out.error("directory", shown(&path), sentence(&error));
                continue;
            }
        };
        for entry in entries {
            let child = format!("{path}/{}", display_name(&entry.name));
            match fs.lookup(dir, &entry.name) {
                Ok(Some(node)) if node == entry.node => {}
                Ok(_) => out.error("lookup", &child, "it is listed and cannot be found by name"),
                Err(error) => out.error("lookup", &child, sentence(&error)),
            }
            let count = names.entry(entry.node).or_default();
            *count += 1;
            if *count > 1 {
                continue;
            }
            match node(fs, entry.node) {
                Ok(FileType::Directory) if seen.insert(entry.node) => {
                    todo.push((child, entry.node));
                }
                Ok(_) => {}
                Err(error) => out.error("node", &child, sentence(&error)),
            }
        }
    }
    for (&node, &count) in &names {
        if let Ok(stat) = fs.stat(node)
            && stat.file_type != FileType::Directory
            && stat.links != count
        {
            let text = format!("its link count is {}, it has {count} names", stat.links);
            out.error("link-count", format!("node {}", node.0), text);
        }
    }
    out.files = names.len() as u64;
}

fn shown(path: &str) -> &str {
    if path.is_empty() { "/" } else { path }
}

/// Looks at everything that one node has.
fn node(fs: &dyn FileSystem, node: NodeId) -> Result<FileType, Error> {
    let stat = fs.stat(node)?;
    fs.xattrs(node)?;
    match stat.file_type {
        FileType::Symlink => {
            fs.read_link(node)?;
        }
        FileType::Regular if stat.size > 0 => {
            let step = PROBE_STEP.max(stat.size / PROBES_MAX);
            let mut byte = [0];
            let mut at = 0;
            while at < stat.size {
                fs.read(node, at, &mut byte)?;
                at = at.saturating_add(step);
            }
            fs.read(node, stat.size - 1, &mut byte)?;
        }
        _ => {}
    }
    Ok(stat.file_type)
}
