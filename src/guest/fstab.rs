//! `/etc/fstab`: which file systems the guest has, and where.

use snf_fs::error::display_name;

/// The device field of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `UUID=` or `/dev/disk/by-uuid/`.
    Uuid(String),
    /// `LABEL=` or `/dev/disk/by-label/`.
    Label(String),
    /// `PARTUUID=` or `/dev/disk/by-partuuid/`.
    PartUuid(String),
    /// `PARTLABEL=` or `/dev/disk/by-partlabel/`.
    PartLabel(String),
    /// A device file that is partition N of some disk: `/dev/vda1`, `/dev/nvme0n1p1`,
    /// `/dev/disk/by-path/…-part1`.
    Partition {
        /// The partition's number.
        number: u32,
        /// The disk's letter, counted from 0, where the name has one.
        disk: Option<u32>,
    },
    /// Something else, such as a logical volume.
    Other(String),
}

/// One file system of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its device.
    pub source: Source,
    /// Its mount point.
    pub target: Vec<u8>,
    /// Its type; `auto` and lists are possible.
    pub fs_type: String,
    /// Mount options.
    pub options: Vec<String>,
    /// The line, from 1.
    pub line: usize,
}

/// A subvolume that an entry names by its number only.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("subvolid={0} cannot be followed; name the subvolume with subvol=")]
pub struct ByNumber(String);

impl Entry {
    /// Whether the entry has this option.
    pub fn has_option(&self, option: &str) -> bool {
        self.options.iter().any(|o| o == option)
    }

    /// The value of an option like `subvol=@home`.
    pub fn option(&self, name: &str) -> Option<&str> {
        self.options.iter().find_map(|o| o.strip_prefix(name)?.strip_prefix('='))
    }

    /// The path of the btrfs subvolume that is meant; empty for the tree that holds them all.
    pub fn subvolume(&self) -> Option<Result<&str, ByNumber>> {
        match (self.option("subvol"), self.option("subvolid")) {
            (Some(path), _) => Some(Ok(path.trim_matches('/'))),
            (None, Some("0" | "5")) => Some(Ok("")),
            (None, Some(number)) => Some(Err(ByNumber(number.to_owned()))),
            (None, None) => None,
        }
    }

    /// The source as the table spells it, safe to print.
    pub fn source_text(&self) -> String {
        match &self.source {
            Source::Uuid(value) => format!("UUID={value}"),
            Source::Label(value) => format!("LABEL={value}"),
            Source::PartUuid(value) => format!("PARTUUID={value}"),
            Source::PartLabel(value) => format!("PARTLABEL={value}"),
            Source::Partition { number, .. } => format!("partition {number}"),
            Source::Other(value) => value.clone(),
        }
    }
}

/// Types that hold no files of the image: kernel interfaces, memory, network.
const SKIPPED_TYPES: &[&str] = &[
    "swap",
    "proc",
    "sysfs",
    "tmpfs",
    "ramfs",
    "devtmpfs",
    "devpts",
    "cgroup",
    "cgroup2",
    "debugfs",
    "tracefs",
    "securityfs",
    "configfs",
    "efivarfs",
    "bpf",
    "pstore",
    "mqueue",
    "hugetlbfs",
    "autofs",
    "fusectl",
    "binfmt_misc",
    "usbfs",
    "nfsd",
    "rpc_pipefs",
    "selinuxfs",
    "overlay",
    "aufs",
    "unionfs",
    "none",
    "bind",
    "ignore",
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "ncpfs",
    "afs",
    "9p",
    "virtiofs",
    "ceph",
    "glusterfs",
    "lustre",
    "ocfs2",
    "gfs2",
    "sshfs",
    "davfs",
    "iso9660",
    "udf",
    "udf,iso9660",
    "iso9660,udf",
    "squashfs",
    "cramfs",
    "vboxsf",
    "vmhgfs",
];

/// Options that say the entry is not a file system of its own or not mounted at boot.
const SKIPPED_OPTIONS: &[&str] = &["bind", "rbind", "loop", "_netdev"];
/// The option of what is mounted by hand only.
const BY_HAND: &str = "noauto";
/// The option of what is mounted when somebody looks into it, `noauto` or not.
const AT_ACCESS: &str = "x-systemd.automount";

/// The entries that name a file system on a disk, in the order in which they can be mounted:
/// a path before the paths below it. The root's own entry is among them.
pub fn parse(content: &[u8]) -> Vec<Entry> {
    let lines = content.split(|byte| *byte == b'\n').enumerate();
    let mut entries: Vec<Entry> =
        lines.filter_map(|(index, line)| entry(line, index + 1)).collect();
    // Sorted by depth; of two entries for one path the later one covers the earlier.
    entries.sort_by_key(|entry| depth(&entry.target));
    entries
}

fn depth(path: &[u8]) -> usize {
    path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).count()
}

/// A mount point over which something comes that is no file system of a disk, or none that is opened
/// with the root: memory, the network, another directory, or at the first access only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cover {
    /// The mount point.
    pub target: Vec<u8>,
    /// The mounted file system, in a few words (`tmpfs`, `nfs`).
    pub what: String,
    /// The line, from 1.
    pub line: usize,
}

/// The entries that [`parse`] passes over and that hide what lies below their mount points once the guest
/// runs.
pub fn covers(content: &[u8]) -> Vec<Cover> {
    let lines = content.split(|byte| *byte == b'\n').enumerate();
    lines.filter_map(|(index, line)| cover(line, index + 1)).collect()
}

fn cover(line: &[u8], number: usize) -> Option<Cover> {
    if entry(line, number).is_some() {
        return None;
    }
    let mut fields =
        line.split(|byte| matches!(byte, b' ' | b'\t' | b'\r')).filter(|field| !field.is_empty());
    let source = fields.next().filter(|source| !source.starts_with(b"#"))?;
    let target = unescape(fields.next()?);
    let fs_type = String::from_utf8_lossy(fields.next().unwrap_or(b"auto")).into_owned();
    let options = String::from_utf8_lossy(fields.next().unwrap_or(b"defaults")).into_owned();
    let has = |wanted: &str| options.split(',').any(|option| option == wanted);
    if !target.starts_with(b"/")
        || target.iter().all(|byte| *byte == b'/')
        || fs_type == "swap"
        || fs_type == "ignore"
        || (has("noauto") && !has("x-systemd.automount"))
    {
        return None;
    }
    let what = if has("bind") || has("rbind") {
        format!("the directory {}", display_name(&unescape(source)))
    } else {
        fs_type
    };
    Some(Cover { target, what, line: number })
}

/// An entry for a unit of systemd, from its `What=`, `Where=`, `Type=` and `Options=`: `None` for what is no
/// file system of a disk.
pub(super) fn of_unit(what: &str, target: &[u8], fs_type: &str, options: &str) -> Option<Entry> {
    let options: Vec<String> = options.split(',').map(|option| option.trim().to_owned()).collect();
    if SKIPPED_TYPES.contains(&fs_type)
        || fs_type.starts_with("fuse")
        || options.iter().any(|option| ["bind", "rbind", "loop", "_netdev"].contains(&&**option))
    {
        return None;
    }
    let source = source_of(what.as_bytes())?;
    Some(Entry { source, target: target.to_vec(), fs_type: fs_type.to_owned(), options, line: 0 })
}

fn entry(line: &[u8], number: usize) -> Option<Entry> {
    let mut fields =
        line.split(|byte| matches!(byte, b' ' | b'\t' | b'\r')).filter(|field| !field.is_empty());
    let source = fields.next().filter(|source| !source.starts_with(b"#"))?;
    let target = unescape(fields.next()?);
    let fs_type = String::from_utf8_lossy(fields.next().unwrap_or(b"auto")).into_owned();
    let options = String::from_utf8_lossy(fields.next().unwrap_or(b"defaults")).into_owned();
    let options: Vec<String> = options.split(',').map(str::to_owned).collect();
    if !target.starts_with(b"/")
        || SKIPPED_TYPES.contains(&fs_type.as_str())
        || fs_type.starts_with("fuse")
        || options.iter().any(|option| SKIPPED_OPTIONS.contains(&option.as_str()))
        || (options.iter().any(|option| option == BY_HAND)
            && !options.iter().any(|option| option == AT_ACCESS))
    {
        return None;
    }
    let source = source_of(&unescape(source))?;
    Some(Entry { source, target, fs_type, options, line: number })
}

/// Octal escapes: `\040` is a blank.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) =
            (first, after)
        {
            out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = tail;
            continue;
        }
        out.push(*first);
        rest = after;
    }
    out
}

/// udev writes other than plain characters in link names as `\x20`.
fn unescape_udev(name: &str) -> String {
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if let (b'\\', [b'x', high, low, tail @ ..]) = (first, after) {
            let digit = |byte: &u8| char::from(*byte).to_digit(16);
            if let (Some(high), Some(low)) = (digit(high), digit(low)) {
                out.push((high << 4 | low) as u8);
                rest = tail;
                continue;
            }
        }
        out.push(*first);
        rest = after;
    }
    String::from_utf8_lossy(&out).into_owned()
}

pub(super) fn source_of(field: &[u8]) -> Option<Source> {
    let text = String::from_utf8_lossy(field).into_owned();
    if let Some((tag, value)) = text.split_once('=')
        && !tag.contains('/')
    {
        let value = value.trim_matches(|c| c == '"' || c == '\'').to_owned();
        return Some(match tag.to_ascii_uppercase().as_str() {
            "UUID" => Source::Uuid(value),
            "LABEL" => Source::Label(value),
            "PARTUUID" => Source::PartUuid(value),
            "PARTLABEL" => Source::PartLabel(value),
            _ => Source::Other(display_name(field)),
        });
    }
    let Some(device) = text.strip_prefix("/dev/") else {
        // `host:/export`, `//server/share`, `none`, a file: nothing on this disk.
        return None;
    };
    if let Some((directory, name)) = device.strip_prefix("disk/").and_then(|d| d.split_once('/')) {
        let name = unescape_udev(name);
        return Some(match directory {
            "by-uuid" => Source::Uuid(name),
            "by-label" => Source::Label(name),
            "by-partuuid" => Source::PartUuid(name),
            "by-partlabel" => Source::PartLabel(name),
            // The name of a logical volume may end as if it were a partition's.
            "by-id" if name.starts_with("dm-name-") || name.starts_with("dm-uuid-") => {
                Source::Other(display_name(field))
            }
            _ => match name.rsplit_once("-part").and_then(|(_, n)| n.parse().ok()) {
                Some(number) => Source::Partition { number, disk: None },
                None => Source::Other(display_name(field)),
            },
        });
    }
    if ["sr", "scd", "cdrom", "dvd", "cdrw", "fd", "floppy"].iter().any(|prefix| {
        device.strip_prefix(prefix).is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
    }) {
        return None;
    }
    Some(partition_device(device).unwrap_or_else(|| Source::Other(display_name(field))))
}

/// `vda1`, `xvda1`, `sda12`, `nvme0n1p2`, `mmcblk0p1`.
fn partition_device(device: &str) -> Option<Source> {
    let digits = device.bytes().rev().take_while(u8::is_ascii_digit).count();
    let (name, number) = device.split_at(device.len() - digits);
    let number = number.parse().ok()?;
    for prefix in ["sd", "hd", "vd", "xvd", "ubd"] {
        let letters = name.strip_prefix(prefix).unwrap_or_default();
        if (1..=3).contains(&letters.len()) && letters.bytes().all(|b| b.is_ascii_lowercase()) {
            let index =
                letters.bytes().fold(0, |index, byte| index * 26 + u32::from(byte - b'a') + 1);
            return Some(Source::Partition { number, disk: Some(index - 1) });
        }
    }
    let disk = name.strip_suffix('p')?;
    let is_disk = |prefix: &str, separator: char| {
        disk.strip_prefix(prefix).is_some_and(|rest| {
            !rest.is_empty() && rest.chars().all(|c| c.is_ascii_digit() || c == separator)
        })
    };
    (is_disk("nvme", 'n') || is_disk("mmcblk", '0'))
        .then_some(Source::Partition { number, disk: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Option<Source> {
        entry(format!("{text} /x ext4 defaults 0 1").as_bytes(), 1).map(|entry| entry.source)
    }

    #[test]
    fn sources() {
        let partition = |number, disk| Some(Source::Partition { number, disk });
        assert_eq!(source("UUID=\"ab-CD\""), Some(Source::Uuid("ab-CD".into())));
        assert_eq!(source("LABEL=my\\040root"), Some(Source::Label("my root".into())));
        assert_eq!(source("/dev/disk/by-uuid/abc"), Some(Source::Uuid("abc".into())));
        assert_eq!(source("/dev/disk/by-label/my\\x20root"), Some(Source::Label("my root".into())));
        assert_eq!(source("PARTUUID=0a-01"), Some(Source::PartUuid("0a-01".into())));
        assert_eq!(source("/dev/disk/by-partlabel/x"), Some(Source::PartLabel("x".into())));
        assert_eq!(source("/dev/disk/by-id/ata-Q_1-part3"), partition(3, None));
        assert_eq!(source("/dev/disk/by-path/pci-0:0-part12"), partition(12, None));
        assert_eq!(source("/dev/sda1"), partition(1, Some(0)));
        assert_eq!(source("/dev/vdb15"), partition(15, Some(1)));
        assert_eq!(source("/dev/xvdaa2"), partition(2, Some(26)));
        assert_eq!(source("/dev/nvme0n1p7"), partition(7, None));
        assert_eq!(source("/dev/mmcblk0p2"), partition(2, None));
        for other in [
            "/dev/mapper/vg-root",
            "/dev/disk/by-id/dm-name-a-b-part1",
            "/dev/vg/root",
            "/dev/md0",
            "/dev/sda",
            "ID=x",
        ] {
            assert_eq!(source(other), Some(Source::Other(other.into())), "{other}");
        }
        for none in ["/dev/sr0", "/dev/cdrom", "/dev/fd0", "host:/export", "//srv/share", "#x"] {
            assert_eq!(source(none), None, "{none}");
        }
    }

    #[test]
    fn tables() {
        let entries = parse(
            b"# comment\n\nUUID=3 /a/b/c ext4 defaults,nofail\nUUID=1\t/ ext4 errors=remount-ro 0 1\n\
              UUID=2 /a\\040b auto\nproc /proc proc defaults 0 0\nUUID=9 none swap sw 0 0\n\
              UUID=8 /mnt ext4 noauto 0 0\n/srv /export none bind 0 0\nbroken\n/dev/sda2 \n\
              tmpfs /tmp tmpfs size=\xff 0 0\nUUID=7 swap swap\ns:/x /n nfs4 _netdev 0 0\r\n",
        );
        let seen: Vec<_> =
            entries.iter().map(|e| (display_name(&e.target), e.line, e.source_text())).collect();
        assert_eq!(
            seen,
            [
                ("/".into(), 4, "UUID=1".into()),
                ("/a b".into(), 5, "UUID=2".into()),
                ("/a/b/c".into(), 3, "UUID=3".to_string()),
            ]
        );
        assert!(entries[2].has_option("nofail") && !entries[0].has_option("nofail"));
        assert_eq!(entries[1].fs_type, "auto");
        assert!(parse(b"").is_empty() && parse(&[0xff; 5000]).is_empty());
    }
}
