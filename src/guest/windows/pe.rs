//! The processor that a program of Windows is for, from its PE header.

/// A processor that Windows runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Architecture {
    /// 32 bits.
    X86,
    /// 64 bits.
    Amd64,
    /// ARM of 64 bits.
    Arm64,
}

impl Architecture {
    /// The name that answer files use.
    pub fn name(self) -> &'static str {
        match self {
            Self::X86 => "x86",
            Self::Amd64 => "amd64",
            Self::Arm64 => "arm64",
        }
    }
}

/// The place in which an executable keeps the offset of its PE header.
const LFANEW: usize = 0x3c;

/// The processor of the executable that begins with these bytes.
pub(super) fn architecture(head: &[u8]) -> Option<Architecture> {
    if !head.starts_with(b"MZ") {
        return None;
    }
    let offset: [u8; 4] = head.get(LFANEW..LFANEW + 4)?.try_into().ok()?;
    let header = head.get(usize::try_from(u32::from_le_bytes(offset)).ok()?..)?;
    let machine: [u8; 2] = header.strip_prefix(b"PE\0\0")?.get(..2)?.try_into().ok()?;
    match u16::from_le_bytes(machine) {
        0x014c => Some(Architecture::X86),
        0x8664 => Some(Architecture::Amd64),
        0xaa64 => Some(Architecture::Arm64),
        _ => None,
    }
}

/// The beginning of an executable, for tests.
#[cfg(test)]
pub(crate) fn executable(machine: u16) -> Vec<u8> {
    let mut head = vec![0; 0x80];
    head[..2].copy_from_slice(b"MZ");
    head[LFANEW] = 0x80;
    head.extend_from_slice(b"PE\0\0");
    head.extend_from_slice(&machine.to_le_bytes());
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines() {
        assert_eq!(architecture(&executable(0x8664)), Some(Architecture::Amd64));
        assert_eq!(architecture(&executable(0x14c)), Some(Architecture::X86));
        assert_eq!(architecture(&executable(0xaa64)), Some(Architecture::Arm64));
        assert_eq!(architecture(&executable(0x0200)), None);
        assert_eq!(architecture(b"\x7fELF"), None);
        let mut head = executable(0x8664);
        head[LFANEW + 3] = 0xff;
        assert_eq!(architecture(&head), None);
        assert_eq!(architecture(&executable(0x8664)[..0x84]), None);
    }
}
