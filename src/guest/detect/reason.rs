//! Why a volume is not the root, and why none was chosen.

use std::sync::Arc;

use snf_fs::Error;

use crate::ask::properties::PropertyError;
use crate::craft::sentence::sentence;
use crate::guest::disk::Content;
use crate::guest::distro::Distro;
use crate::guest::mounter::needs_helper;
use crate::guest::ostree::NoDeployment;
use crate::guest::probe::unwrapping;

/// Why no root was chosen.
#[derive(Debug, thiserror::Error)]
pub enum DetectError {
    /// `OSFAMILY` or `ROOT_PARTITION` has a value that it cannot have.
    #[error(transparent)]
    Property(#[from] PropertyError),
    /// The partition does not exist.
    #[error("the disk has no {wanted}, which was asked for; it has {there}")]
    NoSuchPartition {
        /// The place that was asked for: a partition with its number, or a volume with its name.
        wanted: String,
        /// The volumes that exist.
        there: String,
    },
    /// The partition that was named cannot be used.
    #[error("{place}, which was asked for, cannot be used")]
    Unusable {
        /// The one that is meant.
        place: String,
        /// Why.
        #[source]
        reason: NotRoot,
    },
    /// The partition that was named holds files, and no system is recognised in them.
    #[error(
        "{place}, which was asked for, cannot be the root (if it is a system all the same, set the \
         property OSFAMILY)"
    )]
    Unrecognised {
        /// The one that is meant.
        place: String,
        /// Why.
        #[source]
        reason: NotRoot,
    },
    /// Nothing looks like the root of a system.
    #[error("{}", none_text(.tried))]
    None {
        /// The volumes, each with the reason.
        tried: Vec<Tried>,
    },
    /// Several volumes look like roots.
    #[error(
        "more than one operating system was found ({found}); name the one to customize with \
         ROOT_PARTITION or --root-partition"
    )]
    Several {
        /// The volumes and their systems.
        found: String,
    },
    /// The root was found, and another part of the run has its file system.
    #[error("{place} holds no file system that can be edited")]
    NotEditable {
        /// The one that is meant.
        place: String,
    },
}

impl DetectError {
    /// Whether the disk simply holds no system, or more than one: nothing is damaged, nothing was
    /// asked for that is not there, and the disk is no file in another format.
    pub fn is_absence(&self) -> bool {
        match self {
            Self::None { tried } => tried.iter().all(|tried| {
                let reason = &tried.reason;
                reason.cause().is_none()
                    && reason.closed().is_none_or(|error| error.refusal().is_some())
                    && !matches!(reason, NotRoot::NotRaw { .. })
            }),
            Self::Several { .. } => true,
            _ => false,
        }
    }

    /// Whether one of the volumes can be named, because it holds files.
    pub fn names_files(&self) -> bool {
        match self {
            Self::None { tried } => tried.iter().any(Tried::can_be_named),
            Self::Several { .. } => true,
            _ => false,
        }
    }

    /// The errors of file systems that kept a volume from being the root.
    pub fn causes(&self) -> impl Iterator<Item = &Error> {
        self.reasons().filter_map(NotRoot::cause)
    }

    /// The errors that kept volumes from being opened.
    pub fn closed(&self) -> impl Iterator<Item = &snf_volume::Error> {
        self.reasons().filter_map(NotRoot::closed)
    }

    fn reasons(&self) -> impl Iterator<Item = &NotRoot> {
        let (one, several): (Option<&NotRoot>, &[Tried]) = match self {
            Self::Unusable { reason, .. } | Self::Unrecognised { reason, .. } => {
                (Some(reason), &[])
            }
            Self::None { tried } => (None, tried),
            _ => (None, &[]),
        };
        one.into_iter().chain(several.iter().map(|tried| &tried.reason))
    }
}

/// A volume in which no system was found.
#[derive(Debug)]
pub struct Tried {
    /// `partition 3`, or `the disk`.
    pub place: String,
    /// Its content, in a few words.
    pub content: String,
    /// Why it is not the root.
    pub reason: NotRoot,
}

impl Tried {
    /// Whether a person may name it as the root: it holds files.
    fn can_be_named(&self) -> bool {
        matches!(self.reason, NotRoot::NoEtc | NotRoot::Incomplete(_))
    }
}

fn usr_text(distro: &Distro) -> String {
    let name = if distro.name.is_empty() { "a system" } else { &distro.name };
    match distro.id.as_str() {
        "flatcar" | "coreos" => format!(
            "the /usr of {name}, which never changes; its root is empty before the first boot, so \
             give settings as an Ignition configuration"
        ),
        _ => format!("the /usr of {name}, whose root is on another volume"),
    }
}

fn none_text(tried: &[Tried]) -> String {
    if let [Tried { place, reason: reason @ NotRoot::NotRaw { .. }, .. }] = tried {
        return format!("{place} is {reason}");
    }
    let text = format!("no operating system was found ({})", tried_text(tried));
    match tried.iter().any(Tried::can_be_named) {
        true => format!(
            "{text}; if one of these is the root, name it with ROOT_PARTITION or --root-partition"
        ),
        false => text,
    }
}

fn tried_text(tried: &[Tried]) -> String {
    if tried.is_empty() {
        return "the partition table is empty".into();
    }
    let parts = tried.iter().map(|Tried { place, content, reason }| {
        format!("{place} ({content}): {}", sentence(reason))
    });
    parts.collect::<Vec<_>>().join("; ")
}

/// Why a volume is not the root of a system.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotRoot {
    /// Swap space.
    #[error("swap space")]
    Swap,
    /// An encrypted container.
    #[error("LUKS, and no key was given for it: give one with --luks-key")]
    Encrypted,
    /// A container of logical volumes that belongs to no group.
    #[error("an LVM physical volume without a volume group that can be read")]
    LogicalVolumes,
    /// A container: what is in it are volumes of their own.
    #[error("{0}")]
    Container(String),
    /// The `/usr` of a system whose root is elsewhere.
    #[error("{}", usr_text(.0))]
    Usr(Box<Distro>),
    /// A physical root of ostree in which no deployment was chosen.
    #[error(transparent)]
    Deployment(#[from] NoDeployment),
    /// A root of bootc's composefs back end.
    #[error(
        "bootc keeps this system as composefs images without ostree, which is not edited here; \
         put the change into the container image, or use user data at the first boot"
    )]
    Composefs,
    /// A volume that cannot be opened.
    #[error("it cannot be opened")]
    Closed(#[source] Arc<snf_volume::Error>),
    /// A file system that only the helper VM can edit.
    #[error("{0}, which only the kernel of the helper VM can edit: use --vm")]
    NeedsHelper(&'static str),
    /// A disk image in another format, or a compressed file.
    #[error("a {kind} file and no raw disk: {remedy}")]
    NotRaw {
        /// The format.
        kind: &'static str,
        /// The command that makes a raw disk of it.
        remedy: &'static str,
    },
    /// A file system or container that nobody here handles.
    #[error("{0}, which cannot be edited")]
    Foreign(&'static str),
    /// A file system that cannot be opened.
    #[error("it cannot be opened")]
    Broken(#[source] Arc<Error>),
    /// A file system that opens, and whose files cannot be read.
    #[error("it cannot be read")]
    Unreadable(#[source] Arc<Error>),
    /// The container of the logical partitions.
    #[error("it only contains the logical partitions")]
    Extended,
    /// Never written.
    #[error("nothing but zeros")]
    Empty,
    /// Another part of the run has it.
    #[error("it is in use")]
    InUse,
    /// No known signature.
    #[error("no file system that is known here")]
    Unknown,
    /// Files, but no system.
    #[error("it has no directory /etc and no Windows")]
    NoEtc,
    /// Files that look like a system's, but not enough of them.
    #[error("it has /etc, but none of {}", .0.join(", "))]
    Incomplete(Vec<&'static str>),
    /// Several subvolumes with a system.
    #[error(
        "several of its subvolumes hold a system ({0}); make the right one the default \
         (btrfs subvolume set-default)"
    )]
    Subvolumes(String),
}

impl NotRoot {
    pub(in crate::guest) fn unreadable(error: Error) -> Self {
        Self::Unreadable(Arc::new(error))
    }

    /// The file system's error that caused it, if there is one.
    pub fn cause(&self) -> Option<&Error> {
        match self {
            Self::Broken(error) | Self::Unreadable(error) => Some(error),
            _ => None,
        }
    }

    /// The error for which the volume stayed closed, if that is why.
    pub fn closed(&self) -> Option<&snf_volume::Error> {
        match self {
            Self::Closed(error) => Some(error),
            _ => None,
        }
    }

    pub(super) fn of(content: &Content) -> Self {
        match content {
            Content::Foreign("swap") => Self::Swap,
            Content::Foreign("crypto_LUKS") => Self::Encrypted,
            Content::Foreign("LVM2_member") => Self::LogicalVolumes,
            Content::Foreign(kind) if needs_helper(kind) => Self::NeedsHelper(kind),
            Content::Foreign(kind) => match unwrapping(kind) {
                Some(remedy) => Self::NotRaw { kind, remedy },
                None => Self::Foreign(kind),
            },
            Content::Broken(error) => Self::Broken(error.clone()),
            Content::Closed(error) => Self::Closed(error.clone()),
            Content::Container { role, .. } => Self::Container(role.clone()),
            Content::Extended => Self::Extended,
            Content::Empty => Self::Empty,
            Content::Mounted => Self::InUse,
            Content::Open(_) | Content::Unknown => Self::Unknown,
        }
    }
}
