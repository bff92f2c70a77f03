//! The packages that are installed, as the databases of dpkg, apk and pacman have them.

use serde::Serialize;
use snf_fs::error::display_name;
use snf_fs::text::is_hidden;
use snf_fs::{Error, Result, Tree};

/// A database is read up to this size in bytes.
const DATABASE_MAX: u64 = 64 << 20;
/// So many packages are listed; no system has so many.
const PACKAGES_MAX: usize = 100_000;
/// A name or version is cut after so many characters.
const FIELD_MAX: usize = 200;

/// The packages of a guest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Packages {
    /// Those that are installed, by name.
    pub installed: Vec<Package>,
    /// Why they are not listed, where there are some that cannot be read here.
    pub unread: Option<String>,
}

/// One installed package.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its architecture, as the distribution calls it; may be empty.
    pub architecture: String,
}

impl Packages {
    /// Reads the database of this package manager.
    ///
    /// # Errors
    /// When it is damaged, or longer than any that was seen.
    pub(super) fn of(tree: &Tree, manager: &str, database: &str) -> Result<Self> {
        let mut installed = match manager {
            "dpkg" if tree.is_dir(database)? => status_directory(tree, database)?,
            "dpkg" | "opkg" => status(&text(tree, database)?),
            "apk" => apk(&text(tree, database)?),
            "pacman" => pacman(tree, database)?,
            other => {
                let unread = format!("the database of {other} ({database}) is not read here");
                return Ok(Self { installed: Vec::new(), unread: Some(unread) });
            }
        };
        installed.truncate(PACKAGES_MAX);
        installed.sort();
        Ok(Self { installed, unread: None })
    }
}

fn text(tree: &Tree, path: &str) -> Result<String> {
    Ok(String::from_utf8_lossy(&tree.read(path, DATABASE_MAX)?).into_owned())
}

/// A field of a database: it goes into messages.
fn field(text: &str) -> String {
    text.trim().chars().filter(|&c| !is_hidden(c)).take(FIELD_MAX).collect()
}

/// Paragraphs of dpkg: those whose status says that the package is installed.
fn status(text: &str) -> Vec<Package> {
    let mut all = Vec::new();
    for paragraph in text.split("\n\n") {
        let mut package = Package::default();
        // Distroless images have paragraphs without a status, one in each file.
        let mut installed = true;
        for line in paragraph.lines() {
            // Lines that begin with a blank go on with the field before.
            let Some((name, value)) = line.split_once(':') else { continue };
            match name {
                "Package" => package.name = field(value),
                "Version" => package.version = field(value),
                "Architecture" => package.architecture = field(value),
                "Status" => installed = value.split_whitespace().last() == Some("installed"),
                _ => {}
            }
        }
        if installed && !package.name.is_empty() {
            all.push(package);
        }
    }
    all
}

/// Distroless images: one file a package.
fn status_directory(tree: &Tree, path: &str) -> Result<Vec<Package>> {
    let mut all = Vec::new();
    for entry in tree.read_dir(path)?.into_iter().take(PACKAGES_MAX) {
        let name = [path.as_bytes(), b"/", &entry.name].concat();
        if tree.is_file(&name)? && !entry.name.ends_with(b".md5sums") {
            all.extend(status(&String::from_utf8_lossy(&tree.read(&name, 1 << 20)?)));
        }
    }
    Ok(all)
}

/// Paragraphs of apk, a letter for each field.
fn apk(text: &str) -> Vec<Package> {
    let paragraphs = text.split("\n\n").map(|paragraph| {
        let mut package = Package::default();
        for line in paragraph.lines() {
            match line.split_once(':') {
                Some(("P", value)) => package.name = field(value),
                Some(("V", value)) => package.version = field(value),
                Some(("A", value)) => package.architecture = field(value),
                _ => {}
            }
        }
        package
    });
    paragraphs.filter(|package| !package.name.is_empty()).collect()
}

/// A directory `NAME-VERSION-RELEASE` for each package, with its fields in `desc`.
fn pacman(tree: &Tree, path: &str) -> Result<Vec<Package>> {
    let mut all = Vec::new();
    for entry in tree.read_dir(path)?.into_iter().take(PACKAGES_MAX) {
        let desc = [path.as_bytes(), b"/", &entry.name, b"/desc"].concat();
        let text = match tree.read_optional(&desc, 1 << 20) {
            Ok(Some(text)) => String::from_utf8_lossy(&text).into_owned(),
            Ok(None) | Err(Error::NotADirectory(_)) => continue,
            Err(error) => return Err(error),
        };
        let value = |name: &str| {
            let mut lines = text.lines().skip_while(|line| *line != name);
            lines.next();
            lines.next().map(field).unwrap_or_default()
        };
        let package = Package {
            name: value("%NAME%"),
            version: value("%VERSION%"),
            architecture: value("%ARCH%"),
        };
        if package.name.is_empty() {
            let text = format!("{} names no package", display_name(&desc));
            return Err(Error::Invalid(text));
        }
        all.push(package);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use snf_fs::{Attributes, MemoryFs};

    use super::*;

    const FILE: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };

    fn names(packages: &Packages) -> Vec<String> {
        let all = packages.installed.iter();
        all.map(|p| format!("{} {} {}", p.name, p.version, p.architecture)).collect()
    }

    #[test]
    fn databases() {
        let mut tree = Tree::new(Box::new(MemoryFs::new()));
        tree.mkdir_all("/l/bash-5.2-1", FILE).unwrap();
        let dpkg = "Package: vim\nStatus: deinstall ok config-files\nVersion: 1\n\n\
                    Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2\n\
                    Description: x\n Package: y\n\n";
        tree.write("/status", dpkg.as_bytes(), FILE).unwrap();
        let packages = Packages::of(&tree, "dpkg", "/status").unwrap();
        assert_eq!(names(&packages), ["bash 5.2 amd64"]);
        let apk = "C:Q1\nP:musl\nV:1.2-r1\nA:x86_64\nF:lib\n\nP:busybox\nV:1.36\nA:x86_64\n\n";
        tree.write("/apk", apk.as_bytes(), FILE).unwrap();
        let packages = Packages::of(&tree, "apk", "/apk").unwrap();
        assert_eq!(names(&packages), ["busybox 1.36 x86_64", "musl 1.2-r1 x86_64"]);
        tree.write("/l/ALPM_DB_VERSION", b"9\n", FILE).unwrap();
        let desc = "%NAME%\nbash\n\n%VERSION%\n5.2-1\n\n%ARCH%\nx86_64\n";
        tree.write("/l/bash-5.2-1/desc", desc.as_bytes(), FILE).unwrap();
        let packages = Packages::of(&tree, "pacman", "/l").unwrap();
        assert_eq!(names(&packages), ["bash 5.2-1 x86_64"]);
        let packages = Packages::of(&tree, "rpm", "/var/lib/rpm").unwrap();
        assert!(packages.unread.unwrap().contains("/var/lib/rpm"));
        assert!(Packages::of(&tree, "apk", "/none").is_err());
    }
}
