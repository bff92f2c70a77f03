//! Installed kernels: finding one, and unpacking its bzImage to the ELF file within, which QEMU
//! can start directly (PVH) without the time that real-mode set-up and decompression take.

use std::cmp::Ordering;
use std::fs;
use std::path::{Path, PathBuf};

use super::unpack::{Compression, UnpackError, read_file, unpack};
use crate::limits::{KERNEL_BYTES, KERNEL_FILE_BYTES};

/// An installed kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// `uname -r`.
    pub release: String,
    /// The bzImage.
    pub image: PathBuf,
    /// Its modules.
    pub modules: PathBuf,
}

/// Why no kernel can be had.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// Nothing installed.
    #[error(
        "no kernel with modules found: looked for {boot}/vmlinuz-VERSION with \
         {modules}/VERSION; install linux-image-cloud-amd64 or linux-image-amd64, or use --kernel and --modules"
    )]
    NoneInstalled {
        /// The folder that was searched for kernels.
        boot: String,
        /// The folder that was searched for modules.
        modules: String,
    },
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// Not a bzImage, or an old one.
    #[error("{path} is not a Linux kernel for x86_64 that can be unpacked: {problem}")]
    NotAKernel {
        /// The file.
        path: PathBuf,
        /// The defect.
        problem: String,
    },
    /// The payload cannot be unpacked.
    #[error("cannot unpack the kernel {path}")]
    Unpack {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: UnpackError,
    },
}

/// Finds the newest kernel under `root` that has modules.
pub fn newest(root: &Path) -> Result<Kernel, KernelError> {
    let boot = root.join("boot");
    let mut kernels = Vec::new();
    for entry in fs::read_dir(&boot).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(release) = name.to_str().and_then(|n| n.strip_prefix("vmlinuz-")) else {
            continue;
        };
        let modules = modules_directory(root, release);
        if modules.join("kernel").is_dir() {
            kernels.push(Kernel { release: release.to_owned(), image: entry.path(), modules });
        }
    }
    kernels.into_iter().max_by(|a, b| compare_versions(&a.release, &b.release)).ok_or_else(|| {
        KernelError::NoneInstalled {
            boot: boot.display().to_string(),
            modules: root.join("lib/modules").display().to_string(),
        }
    })
}

/// The folder of the modules of a release: packages from Debian trixie on have them in `/usr/lib`.
pub fn modules_directory(root: &Path, release: &str) -> PathBuf {
    let [usual, merged] = ["lib/modules", "usr/lib/modules"].map(|d| root.join(d).join(release));
    if merged.is_dir() && !usual.is_dir() { merged } else { usual }
}

/// Compares versions: runs of digits as numbers, the rest as text.
fn compare_versions(a: &str, b: &str) -> Ordering {
    fn pieces(version: &str) -> Vec<(u64, String)> {
        let mut out = vec![];
        for piece in version.split(|c: char| !c.is_ascii_alphanumeric()) {
            let digits = piece.bytes().take_while(u8::is_ascii_digit).count();
            let (number, text) = piece.split_at(digits);
            out.push((number.parse().unwrap_or(0), text.to_owned()));
        }
        out
    }
    pieces(a).cmp(&pieces(b)).then_with(|| a.cmp(b))
}

/// A bzImage in memory. Field names follow `Documentation/arch/x86/boot.rst`.
#[derive(Debug)]
pub struct BzImage {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl BzImage {
    /// Reads a kernel and checks its header.
    pub fn read(path: &Path) -> Result<Self, KernelError> {
        let bytes = read_file(path, KERNEL_FILE_BYTES)
            .map_err(|source| KernelError::Read { path: path.to_owned(), source })?;
        let image = Self { path: path.to_owned(), bytes };
        if image.field::<2>(0x1fe) != Some([0x55, 0xaa]) || image.field(0x202) != Some(*b"HdrS") {
            return Err(image.wrong("there is no boot header (HdrS)"));
        }
        let version = image.field(0x206).map_or(0, u16::from_le_bytes);
        if version < 0x0208 {
            return Err(
                image.wrong(&format!("boot protocol {version:#06x}, wanted 0x0208 or later"))
            );
        }
        Ok(image)
    }

    fn wrong(&self, problem: &str) -> KernelError {
        KernelError::NotAKernel { path: self.path.clone(), problem: problem.to_owned() }
    }

    fn field<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.bytes.get(offset..)?.first_chunk().copied()
    }

    /// The file as it is.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The release (`uname -r`), from the header's kernel_version string.
    pub fn release(&self) -> Option<String> {
        let kernel_version = usize::from(u16::from_le_bytes(self.field(0x20e)?));
        let text = self.bytes.get(kernel_version.checked_add(0x200)?..)?;
        let end = text.iter().take(256).position(|&b| b == b' ' || b == 0)?;
        Some(std::str::from_utf8(text.get(..end)?).ok()?.to_owned())
    }

    /// Unpacks the ELF file within.
    pub fn unpack(&self) -> Result<Vec<u8>, KernelError> {
        let setup_sects = match self.field::<1>(0x1f1).map_or(0, |f| f[0]) {
            0 => 4,
            n => usize::from(n),
        };
        let word = |offset| self.field(offset).map_or(0, |f| u32::from_le_bytes(f) as usize);
        let (payload_offset, payload_length) = (word(0x248), word(0x24c));
        let payload = payload_offset
            .checked_add((setup_sects + 1) * 512)
            .and_then(|start| Some(start..start.checked_add(payload_length)?))
            .and_then(|range| self.bytes.get(range))
            .ok_or_else(|| self.wrong("the payload lies outside of the file"))?;
        let compression = Compression::of(payload)
            .ok_or_else(|| self.wrong("the payload is compressed in an unknown way"))?;
        // Most compressors get the unpacked size appended by the kernel's build.
        let end = if compression == Compression::Gzip {
            payload.len()
        } else {
            payload.len().saturating_sub(4)
        };
        let elf = unpack(compression, payload.get(..end).unwrap_or(payload), KERNEL_BYTES)
            .map_err(|source| KernelError::Unpack { path: self.path.clone(), source })?;
        if !elf.starts_with(b"\x7fELF") {
            return Err(self.wrong("the payload is not an ELF file"));
        }
        Ok(elf)
    }
}

/// Whether an ELF kernel has a PVH entry point.
pub fn has_pvh_entry(elf: &[u8]) -> bool {
    pvh_entry(elf).is_some()
}

/// The physical address of an ELF kernel's PVH entry point: in a note of the name `Xen` and type 18
/// (XEN_ELFNOTE_PHYS32_ENTRY).
pub fn pvh_entry(elf: &[u8]) -> Option<u32> {
    const PT_NOTE: u32 = 4;
    let u16_at = |o: usize| Some(u16::from_le_bytes(*elf.get(o..)?.first_chunk()?));
    let u32_at = |o: usize| Some(u32::from_le_bytes(*elf.get(o..)?.first_chunk()?));
    let u64_at = |o: usize| Some(u64::from_le_bytes(*elf.get(o..)?.first_chunk()?));
    // 64-bit, little-endian.
    if elf.get(..6)? != [0x7f, b'E', b'L', b'F', 2, 1] {
        return None;
    }
    let e_phoff = usize::try_from(u64_at(32)?).ok()?;
    let (e_phentsize, e_phnum) = (usize::from(u16_at(54)?), usize::from(u16_at(56)?));
    for n in 0..e_phnum {
        let header = e_phoff.checked_add(n.checked_mul(e_phentsize)?)?;
        if u32_at(header)? != PT_NOTE {
            continue;
        }
        let p_offset = usize::try_from(u64_at(header.checked_add(8)?)?).ok()?;
        let p_filesz = usize::try_from(u64_at(header.checked_add(32)?)?).ok()?;
        let mut notes = elf.get(p_offset..p_offset.checked_add(p_filesz)?)?;
        while notes.len() >= 12 {
            let word = |o: usize| Some(u32::from_le_bytes(*notes.get(o..)?.first_chunk()?));
            let (name_size, desc_size) = (word(0)? as usize, word(4)? as usize);
            let name = notes.get(12..12_usize.checked_add(name_size)?)?;
            let next = 12 + name_size.checked_next_multiple_of(4)?;
            if name == b"Xen\0" && word(8)? == 18 {
                return word(next);
            }
            notes = notes.get(next.checked_add(desc_size.checked_next_multiple_of(4)?)?..)?;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        let mut versions = ["6.1.0-9-amd64", "6.1.0-56-amd64", "5.10.0-99-amd64", "6.12.1-amd64"];
        versions.sort_by(|a, b| compare_versions(a, b));
        assert_eq!(
            versions,
            ["5.10.0-99-amd64", "6.1.0-9-amd64", "6.1.0-56-amd64", "6.12.1-amd64"]
        );
    }

    #[test]
    fn the_newest_kernel_with_modules_is_found() {
        let root = tempfile::tempdir().unwrap();
        let error = newest(root.path()).unwrap_err().to_string();
        assert!(error.contains("install linux-image"), "{error}");
        fs::create_dir_all(root.path().join("boot")).unwrap();
        for (release, modules) in [("6.1.0-9-x", true), ("6.1.0-10-x", true), ("6.9", false)] {
            fs::write(root.path().join(format!("boot/vmlinuz-{release}")), "").unwrap();
            if modules {
                let dir = root.path().join(format!("lib/modules/{release}/kernel"));
                fs::create_dir_all(dir).unwrap();
            }
        }
        assert_eq!(newest(root.path()).unwrap().release, "6.1.0-10-x");
    }

    #[test]
    fn junk_is_not_a_kernel() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("vmlinuz");
        for content in [vec![], vec![0; 4096], b"\x7fELF".to_vec()] {
            fs::write(&path, content).unwrap();
            assert!(matches!(BzImage::read(&path), Err(KernelError::NotAKernel { .. })));
        }
        let mut header = vec![0; 0x400];
        header[0x1fe..0x200].copy_from_slice(&[0x55, 0xaa]);
        header[0x202..0x206].copy_from_slice(b"HdrS");
        header[0x206..0x208].copy_from_slice(&0x20f_u16.to_le_bytes());
        header[0x248..0x250].copy_from_slice(&[0xff; 8]);
        fs::write(&path, &header).unwrap();
        let error = BzImage::read(&path).unwrap().unpack().unwrap_err();
        assert!(error.to_string().contains("outside"), "{error}");
        assert!(!has_pvh_entry(&header) && !has_pvh_entry(b"\x7fELF\x02\x01"));
    }
}
