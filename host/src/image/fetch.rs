//! Small texts from URLs: what `config_url` and `os_answer_file` lead to.

use std::io::{self, Read};
use std::path::Path;
use std::time::Instant;

use snf_image::secret::Secret;

use crate::image::ftp;
use crate::image::local;
use crate::image::pace::Timed;
use crate::image::policy::Policy;
use crate::image::source::id::{self, Location};
use crate::image::source::{SourceError, http};
use crate::limits::{TEXT_BYTES, URL_BYTES};

/// Why a text could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// Not a URL we fetch.
    #[error(
        "{0:?} is not a URL that can be fetched; use http://, https://, ftp:// or file:///PATH"
    )]
    Url(String),
    /// It cannot be read.
    #[error("cannot read {url}")]
    Io {
        /// The URL, without passwords.
        url: String,
        /// The cause.
        source: io::Error,
    },
    /// A local file cannot be opened.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// It is too large.
    #[error("{0} is larger than 1 MiB")]
    TooLarge(String),
    /// It is not UTF-8.
    #[error("it is not UTF-8 text")]
    NotText,
}

/// Reads the text at a URL. It may hold passwords, so it is a secret.
///
/// # Errors
///
/// The policy forbids it, or it cannot be read, is too large or takes too long.
pub fn small(url: &str, policy: &Policy) -> Result<Secret, FetchError> {
    let shown = id::display(url);
    if url.len() > URL_BYTES {
        return Err(FetchError::Url(shown));
    }
    let deadline = Instant::now() + policy.patience;
    if url.get(..6).is_some_and(|scheme| scheme.eq_ignore_ascii_case("ftp://")) {
        let io_error = |source| FetchError::Io { url: shown.clone(), source };
        return read_bounded(ftp::open(url, policy).map_err(io_error)?, &shown);
    }
    // The same grammar as for images, so that `file:` and `http:` mean the same everywhere.
    let location = url.parse::<id::ImageId>().map(|id| id.location);
    match location {
        Ok(Location::File(path)) => {
            read_bounded(policy.open_file(&path)?, &path.display().to_string())
        }
        Ok(Location::Http(url)) => {
            let io_error = |source| FetchError::Io { url: shown.clone(), source };
            let body = http::open_small(&url, policy.clone()).map_err(io_error)?;
            read_bounded(Timed::new(body, deadline), &shown)
        }
        _ => Err(FetchError::Url(shown)),
    }
}

/// A file of the node that the admin named.
///
/// # Errors
///
/// It cannot be read, or is too large.
pub fn small_file(path: &Path) -> Result<Secret, FetchError> {
    read_bounded(local::open_file_url(path)?, &path.display().to_string())
}

fn read_bounded(reader: impl Read, shown: &str) -> Result<Secret, FetchError> {
    let mut bytes = Vec::new();
    reader
        .take(TEXT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| FetchError::Io { url: shown.to_owned(), source })?;
    if bytes.len() as u64 > TEXT_BYTES {
        return Err(FetchError::TooLarge(shown.to_owned()));
    }
    Ok(Secret::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_refusals() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{}").unwrap();
        let url = format!("file://{}", file.path().display());
        let config = |files: &str| crate::node::config::Config {
            image_files: files.parse().unwrap(),
            image_hosts: "127.0.0.1".parse().unwrap(),
            backends_dir: "/nonexistent".into(),
            ..Default::default()
        };
        let dir = file.path().parent().unwrap().display();
        let policy = Policy::of(&config(&format!("{dir} /nonexistent /dev"))).unwrap();
        let closed = Policy::of(&config("")).unwrap();
        let error = small(&url, &closed).unwrap_err().to_string();
        assert!(error.contains("IMAGE_FILES"), "{error}");
        let small = |url: &str| small(url, &policy);
        assert_eq!(small(&url).unwrap().expose(), b"{}");
        std::fs::write(file.path(), vec![b' '; 1_048_577]).unwrap();
        assert!(small(&url).unwrap_err().to_string().contains("larger than 1 MiB"));
        for (url, why) in [
            ("debian", "is not a URL"),
            ("ftp://127.0.0.1:1/y", "cannot read ftp://127.0.0.1:1/y"),
            ("file:///nonexistent", "does not exist"),
            ("file:///dev/zero", "is not a plain file"),
        ] {
            let error = small(url).unwrap_err().to_string();
            assert!(error.contains(why), "{url}: {error}");
        }
    }
}
