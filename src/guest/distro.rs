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

/// The file of the Linux Standard Base.
pub const LSB_RELEASE: &str = "/etc/lsb-release";

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
        if let Some(text) = read(tree, LSB_RELEASE)?
            && let Some(found) = Self::from_lsb_release(&String::from_utf8_lossy(&text))
        {
            return Ok(Some(found));
        }
        for (path, family) in RELEASE_FILES {
            if let Some(text) = read(tree, path)? {
                return Ok(Some(Self::from_release_file(family, &String::from_utf8_lossy(&text))));
            }
        }
        Ok(None)
    }

    /// The file that says what [`Distro::detect`] finds.
    ///
    /// # Errors
    /// Errors of the tree.
    pub fn source(tree: &Tree) -> Result<Option<&'static str>> {
        for path in OS_RELEASE {
            if tree.is_file(path)? {
                return Ok(Some(path));
            }
        }
        if let Some(text) = read(tree, LSB_RELEASE)?
            && Self::from_lsb_release(&String::from_utf8_lossy(&text)).is_some()
        {
            return Ok(Some(LSB_RELEASE));
        }
        for (path, _) in RELEASE_FILES {
            if tree.is_file(path)? {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// From the text of `lsb-release`; `None` where it names no distribution, as on Red Hat's systems.
    fn from_lsb_release(text: &str) -> Option<Self> {
        let name = value(text, "DISTRIB_ID").filter(|name| !name.is_empty())?;
        let id = name.to_lowercase().replace(' ', "-");
        let version = value(text, "DISTRIB_RELEASE").unwrap_or_default();
        let described = value(text, "DISTRIB_DESCRIPTION").filter(|text| !text.is_empty());
        let name = described.unwrap_or_else(|| format!("{name} {version}").trim().to_owned());
        Some(Self { family: family_of(&id), id, version, name })
    }

    /// From the text of a release file: some are a sentence, some a bare version, and Arch's is empty.
    fn from_release_file(family: Family, text: &str) -> Self {
        let line = clean(text.lines().next().unwrap_or_default());
        let is_version = |word: &&str| word.starts_with(|c: char| c.is_ascii_digit());
        let found = line.split_whitespace().find(is_version).unwrap_or_default();
        // SUSE says it on a line of its own, too.
        let mut version = value_spaced(text, "VERSION").unwrap_or_else(|| found.to_owned());
        let title = match family {
            Family::Debian => "Debian GNU/Linux",
            Family::Alpine => "Alpine Linux",
            Family::Arch => "Arch Linux",
            Family::Slackware => "Slackware",
            Family::Gentoo => "Gentoo",
            Family::RedHat => "Red Hat",
            Family::Suse => "SUSE Linux",
            Family::Other => "",
        };
        let bare = line.is_empty() || line == found || !line.contains(char::is_whitespace);
        if family == Family::Debian && version.is_empty() {
            // `bookworm/sid`: there is no number yet.
            version = line.clone();
        }
        let name = if bare { format!("{title} {line}").trim().to_owned() } else { line };
        Self { family, id: format!("{family:?}").to_lowercase(), version, name }
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

/// The value of `KEY = value`, with blanks around the sign.
fn value_spaced(text: &str, key: &str) -> Option<String> {
    text.lines().find_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| clean(value))
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

    /// Systems of before os-release: the name, its version, and the file that says so.
    #[test]
    fn systems_without_os_release() {
        let attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };
        for (path, text, family, version, name) in [
            ("/etc/debian_version", "5.0.1\n", Family::Debian, "5.0.1", "Debian GNU/Linux 5.0.1"),
            (
                "/etc/debian_version",
                "bookworm/sid\n",
                Family::Debian,
                "bookworm/sid",
                "Debian GNU/Linux bookworm/sid",
            ),
            ("/etc/arch-release", "", Family::Arch, "", "Arch Linux"),
            ("/etc/alpine-release", "3.19.0\n", Family::Alpine, "3.19.0", "Alpine Linux 3.19.0"),
            (
                "/etc/slackware-version",
                "Slackware 15.0\n",
                Family::Slackware,
                "15.0",
                "Slackware 15.0",
            ),
            (
                "/etc/gentoo-release",
                "Gentoo Base System release 2.14\n",
                Family::Gentoo,
                "2.14",
                "Gentoo Base System release 2.14",
            ),
            (
                "/etc/SuSE-release",
                "openSUSE 11.4 (x86_64)\nVERSION = 11.4\nCODENAME = Celadon\n",
                Family::Suse,
                "11.4",
                "openSUSE 11.4 (x86_64)",
            ),
            (
                "/etc/redhat-release",
                "CentOS release 5.11 (Final)\n",
                Family::RedHat,
                "5.11",
                "CentOS release 5.11 (Final)",
            ),
            (
                "/etc/lsb-release",
                "DISTRIB_ID=Ubuntu\nDISTRIB_RELEASE=10.04\nDISTRIB_DESCRIPTION=\"Ubuntu 10.04.4 LTS\"\n",
                Family::Debian,
                "10.04",
                "Ubuntu 10.04.4 LTS",
            ),
        ] {
            let mut tree = Tree::new(Box::new(MemoryFs::new()));
            tree.mkdir("/etc", attributes).unwrap();
            tree.write(path, text.as_bytes(), attributes).unwrap();
            let found = Distro::detect(&tree).unwrap().unwrap();
            let all = (found.family, found.version.as_str(), found.name.as_str());
            assert_eq!(all, (family, version, name), "{path}");
            assert_eq!(Distro::source(&tree).unwrap(), Some(path));
        }
        // Red Hat's lsb-release names nothing.
        let mut tree = Tree::new(Box::new(MemoryFs::new()));
        tree.mkdir("/etc", attributes).unwrap();
        tree.write("/etc/lsb-release", b"LSB_VERSION=base-4.0\n", attributes).unwrap();
        assert_eq!(Distro::detect(&tree).unwrap(), None);
    }
}
