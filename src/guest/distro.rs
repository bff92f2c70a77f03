//! The distribution of a Linux guest: `os-release`, or the older release files.

use snf_fs::{Result, Tree};

/// A release file has a page of text.
const FILE_MAX: u64 = 1 << 20;

/// Distributions that keep their configuration alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Family {
    /// Debian, Ubuntu and their derivatives.
    Debian,
    /// Red Hat, CentOS, Fedora, Alma, Rocky, Amazon, Oracle.
    RedHat,
    /// SUSE and openSUSE.
    Suse,
    /// Arch and its derivatives.
    Arch,
    /// Gentoo.
    Gentoo,
    /// Slackware.
    Slackware,
    /// Alpine.
    Alpine,
    /// Anything else.
    #[default]
    Other,
}

/// The guest's description of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distro {
    /// The family.
    pub family: Family,
    /// `ID` of os-release (`debian`), or the family's name for older systems; may be empty.
    pub id: String,
    /// `VERSION_ID` of os-release, or what the release file says; may be empty.
    pub version: String,
    /// `PRETTY_NAME` of os-release or the release file's first line; may be empty.
    pub name: String,
}

/// The paths of `os-release`, best first.
pub const OS_RELEASE: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];

/// Release files of before os-release.
pub const RELEASE_FILES: [(&str, Family); 9] = [
    ("/etc/redhat-release", Family::RedHat),
    ("/etc/fedora-release", Family::RedHat),
    ("/etc/centos-release", Family::RedHat),
    ("/etc/SuSE-release", Family::Suse),
    ("/etc/gentoo-release", Family::Gentoo),
    ("/etc/slackware-version", Family::Slackware),
    ("/etc/arch-release", Family::Arch),
    ("/etc/alpine-release", Family::Alpine),
    ("/etc/debian_version", Family::Debian),
];

impl Distro {
    /// Asks the guest; `None` when there is nothing that says so.
    pub fn detect(tree: &Tree) -> Result<Option<Self>> {
        for path in OS_RELEASE {
            if let Some(text) = read(tree, path)? {
                return Ok(Some(Self::from_os_release(&String::from_utf8_lossy(&text))));
            }
        }
        for (path, family) in RELEASE_FILES {
            if let Some(text) = read(tree, path)? {
                let text = String::from_utf8_lossy(&text);
                let line = clean(text.lines().next().unwrap_or_default());
                let is_version = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
                let version = line.split_whitespace().find(is_version).unwrap_or_default();
                let (id, version) = (format!("{family:?}").to_lowercase(), version.to_owned());
                return Ok(Some(Self { family, id, version, name: line }));
            }
        }
        Ok(None)
    }

    /// Asks a file system that is the `/usr` of a guest; `None` when it is none.
    pub(super) fn of_usr(tree: &Tree) -> Result<Option<Self>> {
        let path = "/lib/os-release";
        if !tree.is_file(path).unwrap_or(false) || !tree.is_dir("/share").unwrap_or(false) {
            return Ok(None);
        }
        let text = tree.read_optional(path, FILE_MAX)?;
        Ok(text.map(|text| Self::from_os_release(&String::from_utf8_lossy(&text))))
    }

    /// From the text of os-release.
    pub fn from_os_release(text: &str) -> Self {
        let id = value(text, "ID").unwrap_or_default().to_lowercase();
        let like = value(text, "ID_LIKE").unwrap_or_default().to_lowercase();
        let family = std::iter::once(id.as_str())
            .chain(like.split_whitespace())
            .map(family_of)
            .find(|family| *family != Family::Other)
            .unwrap_or_default();
        Self {
            family,
            id,
            version: value(text, "VERSION_ID").unwrap_or_default(),
            name: value(text, "PRETTY_NAME").or_else(|| value(text, "NAME")).unwrap_or_default(),
        }
    }

    /// Major and minor version, as far as they are numbers.
    pub fn version_number(&self) -> Option<(u32, u32)> {
        let mut parts = self.version.split('.');
        let major = parts.next()?.parse().ok()?;
        Some((major, parts.next().and_then(|minor| minor.parse().ok()).unwrap_or(0)))
    }
}

fn read(tree: &Tree, path: &str) -> Result<Option<Vec<u8>>> {
    if tree.is_file(path)? { tree.read_optional(path, FILE_MAX) } else { Ok(None) }
}

fn family_of(id: &str) -> Family {
    match id {
        "debian" | "ubuntu" | "raspbian" | "kali" | "linuxmint" | "devuan" | "pop" | "mx" => {
            Family::Debian
        }
        "rhel" | "fedora" | "centos" | "rocky" | "almalinux" | "ol" | "amzn" | "scientific"
        | "eurolinux" | "mageia" | "openeuler" | "cloudlinux" => Family::RedHat,
        "suse" | "opensuse" | "sles" | "sled" | "sle_hpc" | "sles_sap" => Family::Suse,
        id if id.starts_with("opensuse") => Family::Suse,
        "arch" | "archlinux" | "manjaro" | "endeavouros" => Family::Arch,
        "gentoo" => Family::Gentoo,
        "slackware" => Family::Slackware,
        "alpine" => Family::Alpine,
        _ => Family::Other,
    }
}

/// One line without control characters and of a sane length: it goes into messages.
fn clean(line: &str) -> String {
    line.trim().chars().filter(|&c| !snf_fs::text::is_hidden(c)).take(200).collect()
}

/// The value of `KEY=value` in a file of shell assignments, quotes and backslashes taken off.
pub fn value(text: &str, key: &str) -> Option<String> {
    text.lines().rev().find_map(|line| {
        let (name, value) = line.trim().split_once('=')?;
        (name == key).then(|| clean(&unquote(value)))
    })
}

fn unquote(value: &str) -> String {
    let value = value.trim();
    if let Some(inner) = value.strip_prefix('\'') {
        return inner.split('\'').next().unwrap_or_default().to_owned();
    }
    let (inner, quoted) = match value.strip_prefix('"') {
        Some(inner) => (inner, true),
        None => (value, false),
    };
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '"' if quoted => break,
            '#' if !quoted && out.ends_with(' ') => break,
            '\\' => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use snf_fs::{Attributes, MemoryFs};

    #[test]
    fn os_release() {
        let debian = Distro::from_os_release(
            "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n",
        );
        assert_eq!(debian.family, Family::Debian);
        assert_eq!(debian.version_number(), Some((12, 0)));
        assert_eq!(debian.name, "Debian GNU/Linux 12 (bookworm)");
        let rocky = Distro::from_os_release("ID=\"new\"\nID_LIKE=\"rhel centos fedora\"\n");
        assert_eq!((rocky.family, rocky.id.as_str()), (Family::RedHat, "new"));
        let leap = Distro::from_os_release("ID='opensuse-leap'\nVERSION_ID=15.6\n");
        assert_eq!((leap.family, leap.version_number()), (Family::Suse, Some((15, 6))));
        let hostile = Distro::from_os_release("ID=\"a\\\"b\nPRETTY_NAME=x\x1b[2Jy\n=\nVERSION_ID");
        assert_eq!((hostile.id.as_str(), hostile.name.as_str()), ("a\"b", "x[2Jy"));
        assert_eq!(hostile.family, Family::Other);
    }

    #[test]
    fn release_files() {
        let mut tree = Tree::new(Box::new(MemoryFs::new()));
        assert_eq!(Distro::detect(&tree).unwrap(), None);
        let attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };
        tree.mkdir("/etc", attributes).unwrap();
        tree.write("/etc/debian_version", b"7.11\n", attributes).unwrap();
        assert_eq!(Distro::detect(&tree).unwrap().unwrap().version, "7.11");
        tree.write("/etc/redhat-release", b"CentOS release 6.5 (Final)\n", attributes).unwrap();
        let centos = Distro::detect(&tree).unwrap().unwrap();
        assert_eq!((centos.family, centos.version_number()), (Family::RedHat, Some((6, 5))));
        tree.mkdir("/etc/os-release", attributes).unwrap();
        assert_eq!(Distro::detect(&tree).unwrap(), Some(centos));
    }
}
