//! `img_id`: where an image is, and how it is encoded.
//!
//! The encoding is said (`#format=`, `#compression=`) or follows from the name's ending; the bytes
//! of an image never choose it, because whoever made the image chose the bytes.

use std::path::PathBuf;

use snf_storage::foreign::Foreign;

use crate::image::error::SourceError;
use crate::limits::URL_BYTES;

/// The place of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// No image: the disk's own content is customized.
    Null,
    /// Beneath IMAGE_DIR.
    Local(String),
    /// Anywhere on this node.
    File(PathBuf),
    /// On a web server.
    Http(String),
    /// A place of another scheme, which none of our own back-ends reads.
    Foreign(String),
}

impl Location {
    /// The one of our own back-ends that serves it.
    pub fn own_backend(&self) -> Option<&'static str> {
        match self {
            Self::Null => Some("null"),
            Self::Local(_) => Some("local"),
            Self::File(_) => Some("file"),
            Self::Http(_) => Some("network"),
            Self::Foreign(_) => None,
        }
    }
}

/// How the disk's bytes are packed into a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Container {
    /// As they are.
    #[default]
    Raw,
    /// QEMU's copy-on-write format, version 2 or 3.
    Qcow2,
    /// A format that QEMU's storage daemon opens, for `snf-customize deploy` only.
    Foreign(Foreign),
}

/// How the file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// .xz
    Xz,
    /// RFC 8878.
    Zstd,
    /// bzip2.
    Bzip2,
}

/// The checksum of the stored bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// SHA-256.
    Sha256([u8; 32]),
    /// SHA-512.
    Sha512(Box<[u8; 64]>),
}

/// A parsed `img_id`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageId {
    /// The id without its options, as back-ends get it.
    pub place: String,
    /// Its place.
    pub location: Location,
    /// The format of the file.
    pub container: Container,
    /// How the file is compressed.
    pub compression: Compression,
    /// The checksum of the file as it is stored, when one was given.
    pub checksum: Option<Checksum>,
}

/// The name of an image as messages and logs may show it: without what a URL may hold of
/// passwords (user part, query) and without the checksum.
pub fn display(id: &str) -> String {
    let id = id.split_once('#').map_or(id, |(start, _)| start);
    if id.len() > URL_BYTES {
        return format!("{}...", id.chars().take(40).collect::<String>());
    }
    let Some((scheme, rest)) = id.split_once("://") else { return id.to_owned() };
    let rest = rest.split_once('?').map_or(rest, |(start, _)| start);
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

impl std::str::FromStr for ImageId {
    type Err = SourceError;

    fn from_str(id: &str) -> Result<Self, SourceError> {
        let wrong = |problem: String| SourceError::Id { id: display(id), problem };
        let (place, options) = split_options(id);
        let location = location(place).map_err(wrong)?;
        let name = match &location {
            Location::Null => "",
            Location::Local(name) => name,
            Location::File(path) => path.to_str().unwrap_or_default(),
            Location::Http(url) => url.split(['?', '#']).next().unwrap_or_default(),
            Location::Foreign(_) => place.split(['?', '#']).next().unwrap_or_default(),
        };
        let (mut container, mut compression) = by_name(name);
        let mut checksum = None;
        for (key, value) in options {
            match (key, value) {
                ("sha256", value) => {
                    let digest = hex::<32>(value)
                        .ok_or_else(|| wrong("sha256 must be 64 hexadecimal digits".into()))?;
                    checksum = Some(Checksum::Sha256(digest));
                }
                ("sha512", value) => {
                    let digest = hex::<64>(value)
                        .ok_or_else(|| wrong("sha512 must be 128 hexadecimal digits".into()))?;
                    checksum = Some(Checksum::Sha512(Box::new(digest)));
                }
                ("format", "raw") => container = Container::Raw,
                ("format", "qcow2") => container = Container::Qcow2,
                ("format", name) if Foreign::from_name(name).is_some() => {
                    container = Foreign::from_name(name).map_or(container, Container::Foreign);
                }
                ("compression", "none") => compression = Compression::None,
                ("compression", "gz") => compression = Compression::Gzip,
                ("compression", "xz") => compression = Compression::Xz,
                ("compression", "zst") => compression = Compression::Zstd,
                ("compression", "bz2") => compression = Compression::Bzip2,
                ("format", _) => {
                    return Err(wrong("format is raw, qcow2, vmdk, vhdx, vhd or vdi".into()));
                }
                _ => return Err(wrong("compression is none, gz, xz, zst or bz2".into())),
            }
        }
        Ok(Self { place: place.to_owned(), location, container, compression, checksum })
    }
}

/// Splits `PLACE#key=value&key=value`. A `#` that does not begin such a list belongs to the name.
fn split_options(id: &str) -> (&str, Vec<(&str, &str)>) {
    const KEYS: [&str; 4] = ["sha256", "sha512", "format", "compression"];
    if let Some((place, list)) = id.rsplit_once('#') {
        let options: Option<Vec<_>> =
            list.split('&').map(|o| o.split_once('=').filter(|(k, _)| KEYS.contains(k))).collect();
        if let Some(options) = options {
            return (place, options);
        }
    }
    (id, Vec::new())
}

fn location(place: &str) -> Result<Location, String> {
    if place.is_empty() {
        return Err("it is empty; name an image beneath IMAGE_DIR, a URL, or null".into());
    }
    if place.len() > URL_BYTES {
        return Err(format!("it is longer than {URL_BYTES} bytes"));
    }
    if place.chars().any(char::is_control) {
        return Err("it has control characters in it".into());
    }
    if place == "null" {
        return Ok(Location::Null);
    }
    let Some((scheme, rest)) = place.split_once("://") else {
        return Ok(Location::Local(place.to_owned()));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "null" => Ok(Location::Null),
        "local" if rest.is_empty() => Err("local:// needs a name".into()),
        "local" => Ok(Location::Local(rest.to_owned())),
        "file" => match rest.strip_prefix("localhost").unwrap_or(rest) {
            path if path.starts_with('/') => Ok(Location::File(path.into())),
            _ => Err("a file URL is file:///ABSOLUTE/PATH".into()),
        },
        "http" | "https" if !rest.is_empty() => Ok(Location::Http(place.to_owned())),
        "http" | "https" => Err("the URL has no host".into()),
        other if !other.is_empty() => Ok(Location::Foreign(other.to_owned())),
        _ => Err("it begins with ://".into()),
    }
}

/// The message for a scheme that nobody serves.
pub fn no_source(scheme: &str) -> String {
    format!(
        "there is no image source {scheme}://; use a name beneath IMAGE_DIR, local://, file://, \
         http://, https://, null, or what a back-end of this node knows"
    )
}

/// The encoding by the name's ending.
fn by_name(name: &str) -> (Container, Compression) {
    let lower = name.to_ascii_lowercase();
    let endings = [
        (".gz", Compression::Gzip),
        (".xz", Compression::Xz),
        (".zst", Compression::Zstd),
        (".zstd", Compression::Zstd),
        (".bz2", Compression::Bzip2),
    ];
    let found = endings.iter().find_map(|(ending, how)| Some((lower.strip_suffix(ending)?, *how)));
    let (stem, compression) = found.unwrap_or((&lower, Compression::None));
    let container = match stem.rsplit_once('.') {
        Some((_, "qcow2")) => Container::Qcow2,
        Some((_, ending)) => Foreign::from_name(ending).map_or(Container::Raw, Container::Foreign),
        None => Container::Raw,
    };
    (container, compression)
}

/// A digest in hexadecimal digits.
pub(super) fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = [0; N];
    for (n, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * n..2 * n + 2)?, 16).ok()?;
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(id: &str) -> Result<ImageId, String> {
        id.parse().map_err(|e: SourceError| e.to_string())
    }

    #[test]
    fn ids() {
        let local = |name: &str| Location::Local(name.into());
        for (id, location, container, compression) in [
            ("debian", local("debian"), Container::Raw, Compression::None),
            ("local://sub/debian.raw", local("sub/debian.raw"), Container::Raw, Compression::None),
            ("a.qcow2", local("a.qcow2"), Container::Qcow2, Compression::None),
            ("a.VHD", local("a.VHD"), Container::Foreign(Foreign::Vhd), Compression::None),
            ("a.vdi#format=raw", local("a.vdi"), Container::Raw, Compression::None),
            ("a#format=vmdk", local("a"), Container::Foreign(Foreign::Vmdk), Compression::None),
            ("a.qcow2#format=raw", local("a.qcow2"), Container::Raw, Compression::None),
            ("a.RAW.ZST", local("a.RAW.ZST"), Container::Raw, Compression::Zstd),
            ("a.img.gz", local("a.img.gz"), Container::Raw, Compression::Gzip),
            ("a.xz", local("a.xz"), Container::Raw, Compression::Xz),
            ("a.bz2#compression=none", local("a.bz2"), Container::Raw, Compression::None),
            ("file:///a/b", Location::File("/a/b".into()), Container::Raw, Compression::None),
            ("file://localhost/a", Location::File("/a".into()), Container::Raw, Compression::None),
            ("null", Location::Null, Container::Raw, Compression::None),
            ("a.qcow2.xz", local("a.qcow2.xz"), Container::Qcow2, Compression::Xz),
            (
                "http://h/a.qcow2",
                Location::Http("http://h/a.qcow2".into()),
                Container::Qcow2,
                Compression::None,
            ),
            (
                "pithos://u/c/disk",
                Location::Foreign("pithos".into()),
                Container::Raw,
                Compression::None,
            ),
            (
                "https://u:p@h/x.raw.bz2?token=1",
                Location::Http("https://u:p@h/x.raw.bz2?token=1".into()),
                Container::Raw,
                Compression::Bzip2,
            ),
        ] {
            let found = parse(id).unwrap();
            assert_eq!(found.location, location, "{id}");
            assert_eq!((found.container, found.compression), (container, compression), "{id}");
            assert_eq!(
                (found.place.as_str(), found.checksum),
                (id.split('#').next().unwrap(), None)
            );
        }
        assert_eq!(parse("a#b").unwrap().location, local("a#b"));
        let sum = "00".repeat(31) + "fF";
        let found = parse(&format!("a#sha256={sum}&format=qcow2")).unwrap();
        assert!(matches!(found.checksum, Some(Checksum::Sha256(d)) if d[31] == 0xff));
        assert_eq!(found.container, Container::Qcow2);
    }

    #[test]
    fn refusals() {
        for (id, why) in [
            ("", "it is empty"),
            ("a\nb", "control characters"),
            ("://x", "it begins with ://"),
            ("file://x/y", "file:///ABSOLUTE/PATH"),
            ("http://", "has no host"),
            ("local://", "needs a name"),
            ("a#sha256=12", "64 hexadecimal digits"),
            ("a#format=qed", "format is raw, qcow2, vmdk"),
            ("a#compression=lzo", "compression is"),
        ] {
            let error = parse(id).unwrap_err();
            assert!(error.contains(why), "{id:?}: {error}");
        }
    }

    #[test]
    fn secrets_of_urls_are_not_shown() {
        assert_eq!(display("https://u:p@h:1/x?token=1#sha256=2"), "https://h:1/x");
        assert_eq!(display("debian#format=raw"), "debian");
        let error = parse("gopher://u:p@h/x#format=x").unwrap_err();
        assert!(!error.contains("u:p"), "{error}");
    }
}
