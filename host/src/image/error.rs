//! Errors of images.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::backend::BackendError;
use crate::node::cancel::Cancelled;

/// Why something is not fetched.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No file URL is allowed, or none of this place.
    #[error(
        "files of this node may not be read: {} is in no place that IMAGE_FILES lists in \
         /etc/default/snf-image", .0.display()
    )]
    File(PathBuf),
    /// The address is special.
    #[error(
        "the host {host} has the {kind} address {address}, and IMAGE_HOSTS in \
         /etc/default/snf-image lists neither"
    )]
    Address {
        /// The host as it was asked for.
        host: String,
        /// Its address.
        address: IpAddr,
        /// The kind of its range.
        kind: &'static str,
    },
    /// The back-end is disabled.
    #[error("the back-end {0} is disabled on this node")]
    Disabled(&'static str),
}

/// Why an image cannot be opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The id is not one any source understands.
    #[error("img_id {id:?}: {problem}")]
    Id {
        /// The id.
        id: String,
        /// The problem, and the valid values.
        problem: String,
    },
    /// The image cannot be opened or read.
    #[error("cannot read the image {name}{}", at(*.offset))]
    Io {
        /// The image, as it was asked for.
        name: String,
        /// The byte where it happened.
        offset: Option<u64>,
        /// The system's error.
        source: io::Error,
    },
    /// The image is not what it should be.
    #[error("the image {name} {problem}")]
    Bad {
        /// The image.
        name: String,
        /// The problem with it.
        problem: String,
    },
    /// A qcow2 image that is damaged, or uses what cannot be read.
    #[error("the qcow2 image {name} cannot be used")]
    Qcow2 {
        /// The image, as it was asked for.
        name: String,
        /// The problem with it.
        source: snf_container::qcow2::Error,
    },
    /// An image of another maker that the storage daemon does not read.
    #[error("the image {name} cannot be used")]
    Foreign {
        /// The image, as it was asked for.
        name: String,
        /// The problem with it.
        source: snf_storage::foreign::ForeignError,
    },
    /// The node's policy forbids it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A back-end that is asked for images.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// A signal came.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
}

impl SourceError {
    /// An image without a byte.
    pub(crate) fn empty(name: &str) -> Self {
        Self::Bad { name: name.to_owned(), problem: "is empty".into() }
    }
}

fn at(offset: Option<u64>) -> String {
    offset.map(|at| format!(" at byte {at}")).unwrap_or_default()
}
