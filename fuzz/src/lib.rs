//! Shared by the targets, which are those of the stable harnesses (`fs/tests/fuzz_ext.rs`,
//! `fs/tests/fuzz_ntfs.rs`, `fs/tests/fuzz_others.rs`, `partition/tests/hostile.rs`, `container/tests/hostile.rs`,
//! `volume/tests/fuzz_volume.rs`, `host/tests/fuzz_helper.rs`, `tests/fuzz_hives.rs`,
//! `tests/fuzz_texts.rs`), with the fuzzer's bytes in place of a seed. The first byte chooses the image, the rest is what is damaged and how.

// As the stable harnesses see them: at the root of their crate.
#[path = "../../partition/tests/common/mod.rs"]
mod common;
/// qcow2 images.
#[path = "../../container/tests"]
mod container {
    pub mod hostile;
    #[allow(dead_code)]
    mod support;
}
#[path = "../../fs/tests/fuzz/mod.rs"]
mod fuzz;
#[path = "../../tests/hive_fuzz/mod.rs"]
mod hive_fuzz;
#[path = "../../host/tests/host_fuzz/mod.rs"]
mod host_fuzz;
#[path = "../../fs/tests/journal_support/mod.rs"]
mod journal_support;
#[path = "../../fs/tests/ntfs_fuzz/mod.rs"]
mod ntfs_fuzz;
#[path = "../../fs/tests/ntfs_support/mod.rs"]
mod ntfs_support;
#[path = "../../fs/tests/btrfs_support/mod.rs"]
mod btrfs_support;
#[path = "../../fs/tests/oracle/mod.rs"]
mod oracle;
#[path = "../../fs/tests/others_fuzz/mod.rs"]
mod others_fuzz;
#[path = "../../fs/tests/xfs_support/mod.rs"]
mod xfs_support;
#[path = "../../fs/tests/support/mod.rs"]
mod support;
#[path = "../../partition/tests/tables/mod.rs"]
mod tables;
#[path = "../../tests/text_fuzz/mod.rs"]
mod text_fuzz;
/// LVM and LUKS.
#[path = "../../volume/tests"]
mod volume {
    pub mod hostile;
    mod support;
}

pub(crate) use fuzz::{choices, device, mutate, run};

use std::sync::OnceLock;

use choices::Choices;
use fuzz::area::{self, Area};
use ntfs_fuzz::Part;
use others_fuzz::Kind;
use run::{Most, Target};

/// The names of all targets, as in `fuzz_targets/`, and how the stable harnesses call theirs.
pub const TARGETS: &[(&str, &str)] = &[
    ("walk", "Walk"),
    ("xattr", "Xattr"),
    ("htree", "Htree"),
    ("edit", "Edit"),
    ("grow", "Grow"),
    ("journal", "Journal"),
    ("mbr", "Mbr"),
    ("ebr", "Ebr"),
    ("gpt", "Gpt"),
    ("ntfs_walk", "NtfsWalk"),
    ("ntfs_index", "NtfsIndex"),
    ("ntfs_edit", "NtfsEdit"),
    ("ntfs_grow", "NtfsGrow"),
    ("ntfs_check", "NtfsCheck"),
    ("xfs", "Xfs"),
    ("btrfs", "Btrfs"),
    ("fat", "Fat"),
    ("regf", "Regf"),
    ("text", "Text"),
    ("qcow2", "cluster_size"),
    ("lvm", "Lvm"),
    ("luks", "Luks"),
    ("packed", "Packed"),
    ("kernel", "Kernel"),
    ("lines", "Lines"),
    ("qmp", "Qmp"),
    ("nbd", "Nbd"),
];

fn targets(prefix: &str) -> Vec<Box<dyn Target>> {
    let area = Area::ALL.into_iter().find(|area| format!("{area:?}") == prefix);
    let part = Part::ALL.into_iter().find(|part| format!("{part:?}") == prefix);
    let kind = Kind::ALL.into_iter().find(|kind| format!("{kind:?}") == prefix);
    let mut all = match (area, part, prefix) {
        (Some(area), ..) => area::targets(&[area]),
        (_, Some(part), _) => ntfs_fuzz::targets(&[part]),
        _ if kind.is_some() => others_fuzz::targets(kind.as_slice()),
        (.., "Journal") => fuzz::journal::targets(),
        (.., "Regf") => hive_fuzz::targets(),
        (.., "Text") => text_fuzz::targets(),
        (.., "cluster_size") => container::hostile::targets(),
        (.., "Lvm") => volume::hostile::lvm::targets(),
        (.., "Luks") => volume::hostile::luks::targets(),
        (.., "Packed" | "Kernel") => host_fuzz::packed(),
        (.., "Lines" | "Qmp" | "Nbd") => host_fuzz::peers(),
        _ => tables::targets(),
    };
    all.retain(|target| target.name().starts_with(prefix));
    assert!(!all.is_empty(), "no target is called {prefix}");
    all
}

/// One input of a fuzzer, within the limits of the stable harness. The images are made at the first.
pub fn one(prefix: &str, data: &[u8]) {
    static TARGETS: OnceLock<Vec<Box<dyn Target>>> = OnceLock::new();
    let targets = TARGETS.get_or_init(|| targets(prefix));
    let mut choices = Choices::of_bytes(data);
    let target = &targets[choices.below(targets.len())];
    run::round(target.as_ref(), &mut choices, &mut Most::default());
}

/// Inputs to start from: what `count` seeds decide for each image of a target.
pub fn seeds(prefix: &str, count: u64) -> Vec<Vec<u8>> {
    let targets = targets(prefix);
    let mut out = Vec::new();
    for (index, target) in targets.iter().enumerate() {
        for seed in 0..count {
            let mut choices = Choices::of_seed(seed * 1_000 + index as u64).recorded();
            run::round(target.as_ref(), &mut choices, &mut Most::default());
            let mut bytes = vec![index as u8];
            bytes.extend(choices.spent());
            out.push(bytes);
        }
    }
    out
}
