//! Errors: a damaged structure, a feature that is refused by name, a failed device, or a request
//! that cannot be met.

use snf_fs::DeviceError;

/// The result of everything in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a volume could not be opened, read, written or grown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A structure contradicts itself, the device or another structure.
    #[error("corrupt {structure} at {position}: {detail}")]
    Corrupt {
        /// The structure (`label`, `metadata text`, `LUKS2 header`).
        structure: &'static str,
        /// Its place (`byte 4096`, `line 12`, `logical volume root`).
        position: String,
        /// The value that was found and the one that was expected.
        detail: String,
    },
    /// The volume is sound and uses a feature that is not handled.
    #[error("{subject} {refusal}")]
    Refused {
        /// The volume (`logical volume rl/root`).
        subject: String,
        /// The feature. It is a part of the sentence, and so no source.
        refusal: Refusal,
    },
    /// No volume has this name.
    #[error("there is no {0}")]
    NotFound(String),
    /// The group has too few free extents for the request.
    #[error("{subject} needs {wanted} more extents, and {free} are free for it")]
    NoSpace {
        /// The volume that was to grow.
        subject: String,
        /// Extents that were asked for.
        wanted: u64,
        /// Extents that the allocation rules allow.
        free: u64,
    },
    /// The new metadata does not fit beside the old one in a metadata area.
    #[error(
        "the metadata ({needed} bytes) does not fit into the metadata area ({room} bytes free)"
    )]
    NoMetadataSpace {
        /// Bytes of the new text.
        needed: u64,
        /// Bytes of the area that the current text leaves.
        room: u64,
    },
    /// The request makes no sense for this volume.
    #[error("{0}")]
    Invalid(String),
    /// No key slot opens with the passphrase or key file.
    #[error("no key slot of {0} opens with this passphrase or key")]
    WrongKey(String),
    /// The JSON text of a LUKS2 header is not well formed.
    #[error("the JSON text of the LUKS2 header is malformed")]
    Json(#[source] serde_json::Error),
    /// The parameters of Argon2 in a LUKS2 header are out of range.
    #[error("the header's parameters of Argon2 are out of range")]
    Argon2(#[from] argon2::Error),
    /// A device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl Error {
    pub(crate) fn corrupt(
        structure: &'static str,
        position: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        Self::Corrupt { structure, position: position.into(), detail: detail.into() }
    }

    pub(crate) fn refused(subject: impl Into<String>, refusal: Refusal) -> Self {
        Self::Refused { subject: subject.into(), refusal }
    }

    /// The refusal, if that is what this error is.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(refusal),
            _ => None,
        }
    }
}

/// A feature that is refused. `Display` continues a sentence that begins with the volume's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A thin volume or a thin pool.
    #[error(
        "is thinly provisioned (LVM thin), which is not supported; edit it in a running system"
    )]
    Thin,
    /// A cached volume or a cache pool.
    #[error("has a cache (LVM cache), which is not supported; detach it with lvconvert --uncache")]
    Cache,
    /// A volume with a write cache.
    #[error(
        "has a write cache (LVM writecache), which is not supported; detach it with lvconvert --splitcache"
    )]
    WriteCache,
    /// The origin of a snapshot: a write would have to be copied into the snapshot first.
    #[error(
        "is the origin of a snapshot, which is not supported; remove the snapshot with lvremove"
    )]
    SnapshotOrigin,
    /// A snapshot itself.
    #[error("is an LVM snapshot, which is not supported; name its origin instead")]
    Snapshot,
    /// A read-only volume that thin volumes share as their origin.
    #[error("is the external origin of a thin volume, which must not change")]
    ExternalOrigin,
    /// A VDO volume or pool.
    #[error("is compressed or deduplicated (LVM VDO), which is not supported")]
    Vdo,
    /// RAID with dm-integrity below it.
    #[error(
        "has integrity checksums (LVM integrity), which is not supported; remove them with lvconvert --raidintegrity n"
    )]
    Integrity,
    /// A RAID level other than 1.
    #[error("is of the RAID type {0}, which is not supported")]
    RaidLevel(String),
    /// Extents are being moved to another physical volume.
    #[error("is being moved by pvmove, which is not supported; finish it or run pvmove --abort")]
    PvMove,
    /// A segment type that this crate does not know.
    #[error("has a segment of the type {0}, which is not supported")]
    SegmentType(String),
    /// A flag that changes the meaning of the metadata in an unknown way.
    #[error("has the flag {0}, which is not supported")]
    Flag(String),
    /// A part of another volume, such as one leg of a mirror.
    #[error("is a hidden part of another logical volume; name that one")]
    Hidden,
    /// A leg or its state is damaged so that no copy is known to be whole.
    #[error("has no leg that is known to be whole; repair it with lvconvert --repair")]
    NoWholeLeg,
    /// A physical volume is missing.
    #[error("lies on a physical volume that is not among the disks: {0}")]
    MissingPv(String),
    /// The group was exported.
    #[error("is exported; run vgimport first")]
    Exported,
    /// The group is shared by several machines.
    #[error("is shared by a cluster, which is not supported")]
    Clustered,
    /// The group's metadata is of LVM1.
    #[error("has metadata of the format {0}, which is not supported; convert it with vgconvert")]
    MetadataFormat(String),
    /// The group or volume may not be changed.
    #[error("is read-only")]
    ReadOnly,
    /// The group's flags forbid changes of size.
    #[error("is not resizeable; run vgchange --resizeable y first")]
    NotResizeable,
    /// Growth of a mirrored volume.
    #[error(
        "is mirrored and cannot be enlarged offline; run lvextend in the guest, which also mirrors the new part"
    )]
    GrowMirror,
    /// Two devices carry the same identity, as after a copy of a disk.
    #[error("is on two of the disks at once; leave one of them out")]
    Duplicate,
    /// A cipher, mode or key length.
    #[error("uses the cipher {0}, which is not supported")]
    Cipher(String),
    /// A hash function.
    #[error("uses the hash {0}, which is not supported")]
    Hash(String),
    /// A key derivation that costs more than the caller allows.
    #[error("asks for {0}, which is more than is allowed")]
    Cost(String),
    /// Encrypted sectors with authentication tags.
    #[error("has integrity tags (dm-integrity), which is not supported")]
    LuksIntegrity,
    /// The header lies elsewhere.
    #[error("has its data on another device (detached header), which is not supported")]
    Detached,
    /// The container is between two keys.
    #[error("is being reencrypted, which is not supported; finish it with cryptsetup reencrypt")]
    Reencryption,
    /// The disk itself encrypts.
    #[error("is encrypted by the drive (OPAL), which is not supported")]
    Opal,
    /// A requirement that the header states.
    #[error("has the requirement {0}, which is not supported")]
    Requirement(String),
    /// More than one segment, or a kind that is not known.
    #[error("has the segment layout {0}, which is not supported")]
    Segments(String),
    /// Another version of LUKS.
    #[error("is of LUKS version {0}, which is not supported")]
    LuksVersion(u16),
}
