//! The kernel modules that the helper needs, in the order of loading, unpacked when the helper
//! is built: at run time PID 1 hands them to the kernel one by one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::unpack::{Compression, UnpackError, read_file, unpack};
use crate::limits::{MODULE_BYTES, MODULES};

/// Why the modules cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ModulesError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The kernel lacks a driver.
    #[error(
        "the kernel {release} has no {names} (neither built in nor as a module under {root}); \
         use another kernel, such as Debian's linux-image-cloud-amd64"
    )]
    Missing {
        /// `uname -r`.
        release: String,
        /// The missing drivers.
        names: String,
        /// The folder that was searched.
        root: PathBuf,
    },
    /// The modules need more and more of each other.
    #[error(
        "the drivers of the kernel {release} need more than {MODULES} modules; use another kernel"
    )]
    TooMany {
        /// `uname -r`.
        release: String,
    },
    /// A module is damaged.
    #[error("the module {path} cannot be used: {problem}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
}

/// A module, ready for the kernel.
#[derive(Clone, Debug)]
pub struct Module {
    /// Its name, with underscores.
    pub name: String,
    /// The ELF object.
    pub content: Vec<u8>,
}

/// The modules of one kernel.
#[derive(Debug)]
pub struct ModuleTree {
    root: PathBuf,
    release: String,
    files: BTreeMap<String, PathBuf>,
    builtin: BTreeSet<String>,
}

impl ModuleTree {
    /// Reads the lists of `/lib/modules/RELEASE`. If depmod has not run (a kernel package that
    /// was unpacked only), the tree itself is the list.
    pub fn open(root: &Path, release: &str) -> Result<Self, ModulesError> {
        let mut files = BTreeMap::new();
        match read_list(&root.join("modules.dep")) {
            Ok(text) => {
                for path in text.lines().filter_map(|l| Some(l.split_once(':')?.0)) {
                    // Either relative to here or absolute (an administrator's own module).
                    files.insert(module_name(path), root.join(path));
                }
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(source) => {
                return Err(ModulesError::Read { path: root.join("modules.dep"), source });
            }
        }
        if files.is_empty() {
            walk(&root.join("kernel"), 0, &mut files);
        }
        let path = root.join("modules.builtin");
        let builtin = match read_list(&path) {
            Ok(text) => text.lines().map(module_name).collect(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(source) => return Err(ModulesError::Read { path, source }),
        };
        Ok(Self { root: root.to_owned(), release: release.to_owned(), files, builtin })
    }

    /// Whether the kernel has this driver in any form.
    pub fn has(&self, name: &str) -> bool {
        self.builtin.contains(name) || self.files.contains_key(name)
    }

    /// The modules that `wanted` need, dependencies first; drivers that are built in need none.
    /// All that is missing is named in one error.
    pub fn closure(&self, wanted: &[&str]) -> Result<Vec<Module>, ModulesError> {
        let missing: Vec<&str> = wanted.iter().copied().filter(|name| !self.has(name)).collect();
        if !missing.is_empty() {
            return Err(ModulesError::Missing {
                release: self.release.clone(),
                names: missing.join(", "),
                root: self.root.clone(),
            });
        }
        let mut out = Vec::new();
        let mut seen = BTreeSet::new();
        for name in wanted {
            self.add(name, &mut seen, &mut out)?;
        }
        Ok(out)
    }

    fn add(
        &self,
        name: &str,
        seen: &mut BTreeSet<String>,
        out: &mut Vec<Module>,
    ) -> Result<(), ModulesError> {
        if self.builtin.contains(name) || !seen.insert(name.to_owned()) {
            return Ok(());
        }
        if seen.len() > MODULES {
            return Err(ModulesError::TooMany { release: self.release.clone() });
        }
        let Some(path) = self.files.get(name) else {
            return Err(ModulesError::Missing {
                release: self.release.clone(),
                names: name.to_owned(),
                root: self.root.clone(),
            });
        };
        let content = self.read(path)?;
        let info = modinfo(&content).ok_or_else(|| ModulesError::Damaged {
            path: path.clone(),
            problem: "it is not a kernel module for x86_64 (no .modinfo section)".to_owned(),
        })?;
        let mut softdeps = Vec::new();
        for (key, value) in info {
            match key.as_str() {
                "depends" => {
                    for name in value.split(',').filter(|n| !n.is_empty()) {
                        self.add(&name.replace('-', "_"), seen, out)?;
                    }
                }
                "softdep" => softdeps.push(value),
                "vermagic" if value.split(' ').next() != Some(&self.release) => {
                    return Err(ModulesError::Damaged {
                        path: path.clone(),
                        problem: format!(
                            "it was built for kernel {value:?}, not for {}",
                            self.release
                        ),
                    });
                }
                _ => {}
            }
        }
        // `pre: a b post: c`: what should be there before, if it exists at all.
        for softdep in softdeps {
            let before = softdep.split("post:").next().unwrap_or_default();
            for name in before.split_whitespace().filter(|w| *w != "pre:") {
                let name = name.replace('-', "_");
                if self.files.contains_key(&name) {
                    self.add(&name, seen, out)?;
                }
            }
        }
        out.push(Module { name: name.to_owned(), content });
        Ok(())
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, ModulesError> {
        let bytes = read_file(path, MODULE_BYTES as u64)
            .map_err(|source| ModulesError::Read { path: path.to_owned(), source })?;
        let compression = match path.extension().and_then(|e| e.to_str()) {
            Some("xz") => Compression::Xz,
            Some("zst") => Compression::Zstd,
            Some("gz") => Compression::Gzip,
            _ => return Ok(bytes),
        };
        unpack(compression, &bytes, MODULE_BYTES).map_err(|e: UnpackError| ModulesError::Damaged {
            path: path.to_owned(),
            problem: e.to_string(),
        })
    }
}

/// A module without the signature that is appended to it: a kernel that does not insist on
/// signatures would still hash the whole module to check one. The layout is `struct
/// module_signature` of include/linux/module_signature.h, after the signature itself and before
/// the magic string.
pub fn without_signature(mut module: Vec<u8>) -> Vec<u8> {
    const MAGIC: &[u8] = b"~Module signature appended~\n";
    const STRUCT: usize = 12;
    let signature = || {
        let rest = module.strip_suffix(MAGIC)?;
        let (rest, module_signature) = rest.split_last_chunk::<STRUCT>()?;
        let (_, sig_len) = module_signature.split_last_chunk::<4>()?;
        rest.len().checked_sub(u32::from_be_bytes(*sig_len) as usize)
    };
    if let Some(length) = signature() {
        module.truncate(length);
    }
    module
}

/// A list of depmod's.
fn read_list(path: &Path) -> io::Result<String> {
    let bytes = read_file(path, MODULE_BYTES as u64)?;
    String::from_utf8(bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it is no text"))
}

/// `kernel/drivers/char/hw_random/virtio-rng.ko.xz` is `virtio_rng`.
fn module_name(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    let stem = file.split_once(".ko").map_or(file, |(stem, _)| stem);
    stem.replace('-', "_")
}

fn walk(directory: &Path, depth: usize, files: &mut BTreeMap<String, PathBuf>) {
    if depth > 16 {
        return;
    }
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let Ok(file_type) = entry.file_type() else { continue };
        let path = entry.path();
        if file_type.is_dir() {
            walk(&path, depth + 1, files);
        } else if let Some(name) = path.file_name().and_then(|n| n.to_str())
            && name.contains(".ko")
        {
            files.insert(module_name(name), path);
        }
    }
}

/// The `key=value` strings of an ELF object's `.modinfo` section.
fn modinfo(elf: &[u8]) -> Option<Vec<(String, String)>> {
    let u16_at = |o: usize| Some(u16::from_le_bytes(*elf.get(o..)?.first_chunk()?));
    let u32_at = |o: usize| Some(u32::from_le_bytes(*elf.get(o..)?.first_chunk()?));
    let u64_at = |o: usize| usize::try_from(u64::from_le_bytes(*elf.get(o..)?.first_chunk()?)).ok();
    // 64-bit, little-endian, e_machine x86-64.
    if elf.get(..6)? != [0x7f, b'E', b'L', b'F', 2, 1] || u16_at(18)? != 62 {
        return None;
    }
    let e_shoff = u64_at(40)?;
    let (e_shentsize, e_shnum) = (usize::from(u16_at(58)?), usize::from(u16_at(60)?));
    let e_shstrndx = usize::from(u16_at(62)?);
    let header = |n: usize| e_shoff.checked_add(n.checked_mul(e_shentsize)?);
    let content = |n: usize| {
        let (sh_offset, sh_size) =
            (u64_at(header(n)?.checked_add(24)?)?, u64_at(header(n)?.checked_add(32)?)?);
        elf.get(sh_offset..sh_offset.checked_add(sh_size)?)
    };
    let names = content(e_shstrndx)?;
    for n in 0..e_shnum {
        let sh_name = u32_at(header(n)?)? as usize;
        if !names.get(sh_name..)?.starts_with(b".modinfo\0") {
            continue;
        }
        let strings = content(n)?.split(|&b| b == 0);
        let pairs = strings.filter_map(|s| {
            let (key, value) = std::str::from_utf8(s).ok()?.split_once('=')?;
            Some((key.to_owned(), value.to_owned()))
        });
        return Some(pairs.collect());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_kernel() {
        for path in ["kernel/a/virtio-rng.ko", "/x/virtio_rng.ko.xz", "virtio-rng.ko.zst"] {
            assert_eq!(module_name(path), "virtio_rng");
        }
    }

    #[test]
    fn only_a_whole_signature_is_cut_off() {
        let signed = [
            &b"module"[..],
            b"signature",
            &[0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 9],
            b"~Module signature appended~\n",
        ]
        .concat();
        assert_eq!(without_signature(signed.clone()), b"module");
        let mut wrong = signed.clone();
        wrong[26] = 99;
        for kept in [b"module".to_vec(), signed[..signed.len() - 1].to_vec(), wrong] {
            assert_eq!(without_signature(kept.clone()), kept);
        }
    }

    #[test]
    fn everything_that_is_missing_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("modules.builtin"), "kernel/drivers/virtio/virtio_pci.ko\n")
            .unwrap();
        let tree = ModuleTree::open(dir.path(), "6.1-test").unwrap();
        assert!(tree.closure(&["virtio_pci"]).unwrap().is_empty());
        let error = tree.closure(&["virtio_blk", "virtio_pci", "virtio_rng"]).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("6.1-test has no virtio_blk, virtio_rng"), "{text}");
    }

    #[test]
    fn a_damaged_module_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("kernel/drivers")).unwrap();
        let path = dir.path().join("kernel/drivers/floppy.ko.xz");
        fs::write(&path, b"no xz").unwrap();
        let tree = ModuleTree::open(dir.path(), "6.1").unwrap();
        assert!(tree.has("floppy"));
        assert!(matches!(tree.closure(&["floppy"]), Err(ModulesError::Damaged { .. })));
        fs::remove_file(&path).unwrap();
        fs::write(dir.path().join("kernel/drivers/floppy.ko"), b"\x7fELF\x02\x01").unwrap();
        let tree = ModuleTree::open(dir.path(), "6.1").unwrap();
        assert!(matches!(tree.closure(&["floppy"]), Err(ModulesError::Damaged { .. })));
    }
}
