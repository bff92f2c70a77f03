//! The boot code of a fresh MBR: what `boot_code.s`, which explains it, assembles to.

/// Machine code, 16 bit, to be loaded at 0x7c00.
#[rustfmt::skip]
const CODE: [u8; 139] = [
    // origin:
    0xfa, // cli
    0x31, 0xc0, // xor ax,ax
    0x8e, 0xd0, // mov ss,ax
    0xbc, 0x00, 0x7c, // mov sp,0x7c00
    0x8e, 0xd8, // mov ds,ax
    0x8e, 0xc0, // mov es,ax
    0xfb, // sti
    0xfc, // cld
    0xbe, 0x00, 0x7c, // mov si,0x7c00
    0xbf, 0x00, 0x06, // mov di,0x600
    0xb9, 0x00, 0x01, // mov cx,0x100
    0xf3, 0xa5, // rep movs WORD PTR es:[di],WORD PTR ds:[si]
    0xea, 0x1e, 0x06, 0x00, 0x00, // jmp 0x0:0x61e
    // moved:
    0xbe, 0xbe, 0x07, // mov si,0x7be
    0xb9, 0x04, 0x00, // mov cx,0x4
    // find_active:
    0xf6, 0x04, 0x80, // test BYTE PTR [si],0x80
    0x75, 0x0a, // jne active
    0x83, 0xc6, 0x10, // add si,0x10
    0xe2, 0xf6, // loop find_active
    0xbe, 0x8b, 0x06, // mov si,0x68b
    0xeb, 0x47, // jmp fail
    // active:
    0x56, // push si
    0xb4, 0x41, // mov ah,0x41
    0xbb, 0xaa, 0x55, // mov bx,0x55aa
    0xcd, 0x13, // int 0x13
    0x5e, // pop si
    0x72, 0x34, // jb no_lba
    0x81, 0xfb, 0x55, 0xaa, // cmp bx,0xaa55
    0x75, 0x2e, // jne no_lba
    0x66, 0x6a, 0x00, // pushd 0x0
    0x66, 0xff, 0x74, 0x08, // push DWORD PTR [si+0x8]
    0x6a, 0x00, // push 0x0
    0x68, 0x00, 0x7c, // push 0x7c00
    0x6a, 0x01, // push 0x1
    0x6a, 0x10, // push 0x10
    0x89, 0xf7, // mov di,si
    0x89, 0xe6, // mov si,sp
    0xb4, 0x42, // mov ah,0x42
    0x57, // push di
    0xcd, 0x13, // int 0x13
    0x5f, // pop di
    0x72, 0x12, // jb no_lba
    0x83, 0xc4, 0x10, // add sp,0x10
    0x89, 0xfe, // mov si,di
    0x81, 0x3e, 0xfe, 0x7d, 0x55, 0xaa, // cmp WORD PTR ds:0x7dfe,0xaa55
    0x75, 0x0a, // jne no_system
    0xea, 0x00, 0x7c, 0x00, 0x00, // jmp 0x0:0x7c00
    // no_lba:
    0xbe, 0xa1, 0x06, // mov si,0x6a1
    0xeb, 0x03, // jmp fail
    // no_system:
    0xbe, 0xc4, 0x06, // mov si,0x6c4
    // fail:
    0xac, // lods al,BYTE PTR ds:[si]
    0x84, 0xc0, // test al,al
    0x74, 0x09, // je stop
    0xb4, 0x0e, // mov ah,0xe
    0xbb, 0x07, 0x00, // mov bx,0x7
    0xcd, 0x10, // int 0x10
    0xeb, 0xf2, // jmp fail
    // stop:
    0xf4, // hlt
    0xeb, 0xfd, // jmp stop
];

/// Its last words when it cannot go on, in the order in which the code expects the texts.
const MESSAGES: &[u8] = b"No active partition\r\n\0\
      Cannot read the active partition\r\n\0\
      The active partition is not bootable\r\n\0";

/// The boot code area of an MBR, up to the disk identifier.
pub(crate) fn boot_code() -> [u8; 440] {
    let mut area = [0; 440];
    let length = CODE.len() + MESSAGES.len();
    area[..CODE.len()].copy_from_slice(&CODE);
    area[CODE.len()..length].copy_from_slice(MESSAGES);
    area
}

const _: () = assert!(CODE.len() + MESSAGES.len() <= 440);

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::boot_code;

    /// The bytes are what the assembler makes of the source beside this file.
    #[test]
    fn matches_its_source() {
        let dir = tempfile::tempdir().unwrap();
        let (object, binary) = (dir.path().join("code.o"), dir.path().join("code.bin"));
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/src/boot_code.s");
        let run = |command: &mut Command| {
            assert!(command.status().expect("binutils are needed by this test").success());
        };
        run(Command::new("as").arg("--32").arg("-o").arg(&object).arg(source));
        run(Command::new("objcopy")
            .args(["-O", "binary", "-j", ".text"])
            .arg(&object)
            .arg(&binary));
        let assembled = std::fs::read(&binary).unwrap();
        assert_eq!(boot_code()[..assembled.len()], assembled);
        assert!(boot_code()[assembled.len()..].iter().all(|byte| *byte == 0));
    }
}
