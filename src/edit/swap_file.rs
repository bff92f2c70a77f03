//! `--swap`: a swap file, and its line in fstab.

use std::io::Read;

use serde::{Deserialize, Serialize};
use snf_fs::{Attributes, Kind};
use snf_partition::swap;

use super::{Act, Action, BadEdit, How, Verb, text};
use crate::ask::properties::OsFamily;
use crate::guest::Guest;
use crate::guest::init::Init;
use crate::guest::services;
use crate::task::{Needs, Session, TaskError};

const FSTAB: &str = "/etc/fstab";
/// The largest file: more than any kernel uses of it is a mistake.
const SIZE_MAX: u64 = 1 << 40;

/// A swap file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct SwapFile {
    /// Its size (`512M`).
    size: Size,
}

/// The size of a swap file in bytes, as text with a unit of 1024 (`512M`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(schemars::JsonSchema))]
#[serde(try_from = "String", into = "String")]
struct Size {
    bytes: u64,
    text: String,
}

impl TryFrom<String> for Size {
    type Error = BadEdit;

    fn try_from(text: String) -> Result<Self, BadEdit> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let shift = match unit.strip_suffix("iB").unwrap_or(unit) {
            "K" | "k" => Some(10),
            "M" | "m" => Some(20),
            "G" | "g" => Some(30),
            _ => None,
        };
        let bytes = number.parse::<u64>().ok().zip(shift);
        let bytes = bytes.and_then(|(number, shift)| number.checked_mul(1 << shift));
        let Some(bytes) = bytes else {
            return Err(BadEdit::form(&text, "NUMBER with K, M or G for units of 1024 (512M)"));
        };
        let bytes = bytes / swap::PAGE_SIZE * swap::PAGE_SIZE;
        if !(10 * swap::PAGE_SIZE..=SIZE_MAX).contains(&bytes) {
            return Err(BadEdit::new(format!(
                "a swap file has 40K at least and 1024G at most, not {text}"
            )));
        }
        Ok(Self { bytes, text })
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.text
    }
}

impl SwapFile {
    fn parse(text: &str, _: How) -> Result<Action, BadEdit> {
        Ok(Action::Swap(Self { size: text.to_owned().try_into()? }))
    }
}

impl Act for SwapFile {
    const VERBS: &'static [Verb] = &[Verb {
        name: "swap",
        metavar: "SIZE",
        help: "Make a swap file of this size (512M, 2G; units of 1024), /swapfile, which is used at \
               boot.",
        follows: false,
        parse: Self::parse,
    }];
    const NEEDS: Needs = Needs::System(&[OsFamily::Linux]);

    fn check(&self) -> Result<(), BadEdit> {
        // The types of the fields have checked them.
        Ok(())
    }

    fn subject(&self) -> String {
        self.size.text.clone()
    }

    fn run(&self, guest: &mut Guest, session: &mut Session<'_>) -> Result<(), TaskError> {
        // The root of an ostree is not the guest's own.
        let ostree =
            guest.disk.volumes.get(guest.root).is_some_and(|root| root.deployment.is_some());
        let path = if ostree { "/var/swapfile" } else { "/swapfile" };
        let tree = &guest.tree;
        if tree.exists(path)? {
            return Err(TaskError::request(format!(
                "the guest has {path} already; --delete it first for another one"
            )));
        }
        let dir = path.rsplit_once('/').map_or("/", |(dir, _)| dir);
        let info = tree.file_system(if dir.is_empty() { "/" } else { dir }).map(|fs| fs.info());
        let Some(info) = info.transpose()? else {
            return Err(TaskError::request(format!("the file system of {path} is not open")));
        };
        if info.kind == Kind::Btrfs {
            return Err(TaskError::request(
                "a swap file on btrfs must be laid out in a way of its own; have it made at the first \
                 boot: --firstboot-command 'btrfs filesystem mkswapfile --size 2g /swapfile && swapon \
                 /swapfile'",
            ));
        }
        if !matches!(info.kind, Kind::Ext2 | Kind::Ext3 | Kind::Ext4 | Kind::Xfs) {
            return Err(TaskError::request(format!(
                "{path} would be on a file system that holds no swap file; it must be ext2, ext3, \
                 ext4 or XFS"
            )));
        }
        if self.size.bytes > info.free {
            return Err(TaskError::request(format!(
                "the file system of {path} has {} MiB free; grow it with --size, or take a smaller file",
                info.free >> 20
            )));
        }
        let uuid = swap::uuid_from_random(session.entropy.derive("swap file").bytes());
        let head = swap::first_page(self.size.bytes, uuid, b"")
            .map_err(crate::guest::storage::StorageError::from)?;
        // Zeros that are written: a kernel swaps to no holes.
        let rest = std::io::repeat(0).take(self.size.bytes - swap::PAGE_SIZE);
        let attributes = Attributes { mode: 0o600, uid: 0, gid: 0 };
        guest.tree.write_from(path, &mut head.as_slice().chain(rest), attributes)?;
        guest.tree.chmod(path, 0o600)?;
        let old = guest.config(FSTAB)?.unwrap_or_default();
        let line = format!("{path} none swap sw 0 0");
        let names = |line: &[u8]| {
            let mut words = line.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
            words.next() == Some(path.as_bytes())
        };
        if !text::lines(&old).any(names) {
            let new = text::with_line(&old, line.as_bytes());
            guest.tree.write(FSTAB, &new, Attributes { mode: 0o644, uid: 0, gid: 0 })?;
        }
        if Init::of(guest)? == Init::OpenRc && !services::is_enabled(&guest.tree, "swap")? {
            session.warn(format!(
                "--swap {}: the guest's service swap is off; --enable swap switches it on",
                self.size.text
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Guest, fails, parse};

    #[test]
    fn sizes() {
        for good in ["40K", "512M", "2G", "1GiB", "1024G"] {
            assert!(parse("swap", good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "1",
            "1X",
            "0M",
            "4K",
            "-1G",
            "1025G",
            "99999999999999999999G",
            "18014398509481985K",
        ] {
            assert!(parse("swap", bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn other_file_systems_are_refused() {
        // The tests of the command line have those that take one.
        let mut guest = Guest::debian();
        assert!(fails(&mut guest, "swap", "1M").contains("no swap file"));
        guest.write("/swapfile", "");
        assert!(fails(&mut guest, "swap", "1M").contains("has /swapfile already"));
    }
}
