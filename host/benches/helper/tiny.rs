//! The smallest things that can be started: a kernel that ends at its first instruction, and an
//! init that does nothing but end the VM.

use snf_image_host::helper::kernel::pvh_entry;

use crate::{Result, during};

/// QEMU's exit code after [`ending_kernel`]: the debug exit device makes `2 n + 1` of what it gets.
/// QEMU itself ends with 1 when something is wrong with it.
pub(crate) const ENDING_EXIT: &str = "exit code 85";

/// 32-bit code that puts a line on the first serial port, so that its time can be taken, and ends
/// QEMU by the debug exit port.
const ENDING: [u8; 17] = [
    0x66, 0xba, 0xf8, 0x03, // mov dx, 0x3f8
    0xb0, b'!', 0xee, // mov al, '!'; out dx, al
    0xb0, b'\n', 0xee, // mov al, '\n'; out dx, al
    0xb0, 42, 0xe6, 0xf4, // mov al, 42; out 0xf4, al
    0xf4, 0xeb, 0xfd, // hlt; jmp to the hlt
];

/// The same kernel, as large as it is, with [`ENDING`] where QEMU or the firmware enters it.
/// `None`: it has no PVH entry.
pub(crate) fn ending_kernel(kernel: &[u8]) -> Option<Vec<u8>> {
    let entry = u64::from(pvh_entry(kernel)?);
    let load = segments(kernel, PT_LOAD)
        .find(|segment| segment.p_paddr <= entry && entry - segment.p_paddr < segment.p_filesz)?;
    let at = usize::try_from(load.p_offset + (entry - load.p_paddr)).ok()?;
    let mut out = kernel.to_vec();
    out.get_mut(at..at.checked_add(ENDING.len())?)?.copy_from_slice(&ENDING);
    Some(out)
}

const PT_LOAD: u32 = 1;

/// The used fields of an `Elf64_Phdr`.
struct Segment {
    p_offset: u64,
    p_paddr: u64,
    p_filesz: u64,
}

fn field<const N: usize>(bytes: &[u8], offset: usize) -> Option<[u8; N]> {
    bytes.get(offset..)?.first_chunk().copied()
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    field(bytes, offset).map(u32::from_le_bytes)
}

fn segments(elf: &[u8], wanted: u32) -> impl Iterator<Item = Segment> + '_ {
    let phoff = field(elf, 0x20).map(u64::from_le_bytes).unwrap_or_default();
    let [phentsize, phnum] =
        [0x36, 0x38].map(|at| field(elf, at).map(u16::from_le_bytes).unwrap_or_default());
    (0..phnum).filter_map(move |n| {
        let at = usize::try_from(phoff).ok()? + usize::from(n) * usize::from(phentsize);
        let long = |offset: usize| field(elf, at + offset).map(u64::from_le_bytes);
        (word(elf, at)? == wanted).then_some(())?;
        Some(Segment { p_offset: long(8)?, p_paddr: long(24)?, p_filesz: long(32)? })
    })
}

/// How an init ends the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// `LINUX_REBOOT_CMD_POWER_OFF`.
    PowerOff,
    /// `LINUX_REBOOT_CMD_RESTART`: QEMU runs with `-no-reboot`.
    Restart,
}

/// An initramfs whose init does nothing but end the VM.
pub(crate) fn ending_initramfs(ending: Ending) -> Result<Vec<u8>> {
    let command: u32 = match ending {
        Ending::PowerOff => 0x4321_fedc,
        Ending::Restart => 0x0123_4567,
    };
    let mut code = vec![0xb8];
    code.extend(169_u32.to_le_bytes()); // mov eax, SYS_reboot
    code.push(0xbf);
    code.extend(0xfee1_dead_u32.to_le_bytes()); // mov edi, LINUX_REBOOT_MAGIC1
    code.push(0xbe);
    code.extend(672_274_793_u32.to_le_bytes()); // mov esi, LINUX_REBOOT_MAGIC2
    code.push(0xba);
    code.extend(command.to_le_bytes()); // mov edx, command
    code.extend([0x0f, 0x05, 0xeb, 0xfe]); // syscall; jmp $
    let mut cpio = snf_image_host::helper::cpio::CpioWriter::new();
    cpio.directory("dev", 0o755);
    cpio.char_device("dev/console", 0o600, 5, 1);
    cpio.file("init", 0o755, &elf(&code)).map_err(during("make an initramfs"))?;
    Ok(cpio.finish())
}

/// An x86-64 ELF file of one segment with this code, loaded at 1 MiB.
fn elf(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x10_0000;
    const HEADERS: u64 = 64 + 56;
    let mut out = Vec::new();
    out.extend([0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
    out.extend([0; 8]);
    out.extend(2_u16.to_le_bytes()); // e_type: executable
    out.extend(62_u16.to_le_bytes()); // e_machine: x86-64
    out.extend(1_u32.to_le_bytes());
    out.extend((BASE + HEADERS).to_le_bytes()); // e_entry
    out.extend(64_u64.to_le_bytes()); // e_phoff
    out.extend(0_u64.to_le_bytes());
    out.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        out.extend(half.to_le_bytes());
    }
    let size = HEADERS + code.len() as u64;
    out.extend(PT_LOAD.to_le_bytes());
    out.extend(5_u32.to_le_bytes()); // readable, executable
    for long in [0, BASE, BASE, size, size, 0x1000] {
        out.extend(long.to_le_bytes());
    }
    out.extend(code);
    out
}
