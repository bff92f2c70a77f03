//! What can go wrong with an image.

use std::io;

use super::policy::Refusal;
use crate::backend::BackendError;
use crate::node::cancel::Cancelled;

/// Why an image cannot be opened or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SourceError {
    /// The id is not one any source understands.
    #[error("img_id {id:?}: {problem}")]
    Id {
        /// The id.
        id: String,
        /// What is wrong and what is valid.
        problem: String,
    },
    /// The image cannot be opened or read.
    #[error("cannot read the image {name}{}: {source}", at(*.offset))]
    Io {
        /// The image, as it was asked for.
        name: String,
        /// Where.
        offset: Option<u64>,
        /// What the system said.
        source: io::Error,
    },
    /// The image is not what it should be.
    #[error("the image {name} {problem}")]
    Bad {
        /// The image.
        name: String,
        /// What is wrong with it.
        problem: String,
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

fn at(offset: Option<u64>) -> String {
    offset.map(|at| format!(" at byte {at}")).unwrap_or_default()
}
