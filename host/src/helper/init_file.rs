//! Whether a file can be the init of a helper: PID 1 of an initramfs that holds nothing else.

use std::fmt;

use snf_image::wire::{PROTOCOL_VERSION, init_mark};

use crate::limits::INIT_BYTES;

/// Why a file cannot be the init.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InitProblem {
    /// Not an ELF file of this machine.
    #[error("it is not an x86_64 program")]
    NotAProgram,
    /// Headers that point outside of the file.
    #[error("it is damaged")]
    Damaged,
    /// It wants a dynamic linker.
    #[error(
        "it is dynamically linked; build it for x86_64-unknown-linux-musl, or with \
         RUSTFLAGS='-C target-feature=+crt-static'"
    )]
    Dynamic,
    /// It has a symbol table.
    #[error("it is not stripped; build it with --profile helper, or use strip on it")]
    Unstripped,
    /// It is far larger than ours.
    #[error("it has {}, more than {}; build it with --profile helper", Mib(*.0), Mib(INIT_BYTES))]
    TooLarge(usize),
    /// Some other program, or ours of another version.
    #[error("it is not the init of this version of snf-image (protocol {PROTOCOL_VERSION})")]
    NotOurs,
}

/// Bytes as MiB.
struct Mib(usize);

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} MiB", self.0 as f64 / f64::from(1 << 20))
    }
}

/// Looks at a file.
///
/// # Errors
/// Says why it cannot be the init.
pub(crate) fn init_problem(elf: &[u8]) -> Result<(), InitProblem> {
    /// `PT_INTERP` and `SHT_SYMTAB` of <elf.h>.
    const PT_INTERP: u32 = 3;
    const SHT_SYMTAB: u32 = 2;
    /// Offset of `e_machine`, and `EM_X86_64`.
    const MACHINE: (usize, u16) = (18, 62);
    if !elf.starts_with(b"\x7fELF\x02\x01") || u16_at(elf, MACHINE.0) != Some(MACHINE.1) {
        return Err(InitProblem::NotAProgram);
    }
    // e_phoff, e_phentsize, e_phnum, p_type; e_shoff, e_shentsize, e_shnum, sh_type.
    if has(elf, [32, 54, 56], 0, PT_INTERP).ok_or(InitProblem::Damaged)? {
        return Err(InitProblem::Dynamic);
    }
    if has(elf, [40, 58, 60], 4, SHT_SYMTAB).ok_or(InitProblem::Damaged)? {
        return Err(InitProblem::Unstripped);
    }
    if elf.len() > INIT_BYTES {
        return Err(InitProblem::TooLarge(elf.len()));
    }
    let mark = init_mark();
    if !elf.windows(mark.len()).any(|window| window == mark.as_bytes()) {
        return Err(InitProblem::NotOurs);
    }
    Ok(())
}

/// Whether a table of headers, whose offset, size and number are said at these offsets, has a header
/// whose word at `at` is `wanted`. `None`: the table is not in the file.
fn has(elf: &[u8], header: [usize; 3], at: usize, wanted: u32) -> Option<bool> {
    let [offset, size, count] = header;
    let offset = usize::try_from(u64_at(elf, offset)?).ok()?;
    let (size, count) = (usize::from(u16_at(elf, size)?), usize::from(u16_at(elf, count)?));
    for n in 0..count {
        let header = offset.checked_add(n.checked_mul(size)?)?;
        if u32_at(elf, header.checked_add(at)?)? == wanted {
            return Some(true);
        }
    }
    Some(false)
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn only_our_own_static_stripped_small_init_will_do() {
        assert_eq!(init_problem(b"#!/bin/sh"), Err(InitProblem::NotAProgram));
        assert_eq!(init_problem(&fs::read("/bin/cat").unwrap()), Err(InitProblem::Dynamic));
        let mut elf = vec![0; 128];
        elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
        elf[18] = 62;
        assert_eq!(init_problem(&elf), Err(InitProblem::NotOurs));
        elf.extend_from_slice(init_mark().as_bytes());
        assert_eq!(init_problem(&elf), Ok(()));

        let large = [elf.as_slice(), &vec![0; INIT_BYTES]].concat();
        let problem = init_problem(&large).unwrap_err().to_string();
        assert!(problem.starts_with("it has 8.0 MiB, more than 8.0 MiB; build it"), "{problem}");

        let mut unstripped = elf.clone();
        // One section header of 64 bytes at offset 64, a symbol table.
        unstripped[40] = 64;
        unstripped[58] = 64;
        unstripped[60] = 1;
        unstripped[64 + 4] = 2;
        assert_eq!(init_problem(&unstripped), Err(InitProblem::Unstripped));

        elf[56] = 1;
        elf[32..40].copy_from_slice(&[0xff; 8]);
        assert_eq!(init_problem(&elf), Err(InitProblem::Damaged));
    }
}
