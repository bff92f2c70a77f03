# The boot code of the MBR that goes in front of a bare file system (GNU as, 16 bit).
# It starts the active partition's own boot sector, as every generic MBR does:
#   as --32 -o boot_code.o boot_code.s && objcopy -O binary -j .text boot_code.o boot_code.bin
# A test assembles this file and compares it with the bytes in boot_code.rs.
        .code16
        .text
        .set    LOADED, 0x7c00          # the BIOS puts us here, and the next stage wants to be here
        .set    OURS, 0x0600            # so we move here
        .set    TABLE, OURS + 446       # first partition record
        .set    VBR_SIGNATURE, LOADED + 510
origin:
        cli
        xorw    %ax, %ax
        movw    %ax, %ss
        movw    $LOADED, %sp
        movw    %ax, %ds
        movw    %ax, %es
        sti
        cld
        movw    $LOADED, %si
        movw    $OURS, %di
        movw    $256, %cx
        rep movsw
        ljmp    $0, $(OURS + (moved - origin))
moved:
        movw    $TABLE, %si             # DL: the drive, from the BIOS; nothing below changes it
        movw    $4, %cx
find_active:
        testb   $0x80, (%si)
        jnz     active
        addw    $16, %si
        loop    find_active
        movw    $(OURS + (no_active - origin)), %si
        jmp     fail
active:
        pushw   %si
        movb    $0x41, %ah              # are there INT 13h extensions?
        movw    $0x55aa, %bx
        int     $0x13
        popw    %si
        jc      no_lba
        cmpw    $0xaa55, %bx
        jne     no_lba
        pushl   $0                      # disk address packet: LBA, high half
        pushl   8(%si)                  # LBA: the record's first sector
        pushw   $0                      # segment
        pushw   $LOADED                 # offset
        pushw   $1                      # sectors
        pushw   $16                     # size of the packet
        movw    %si, %di
        movw    %sp, %si
        movb    $0x42, %ah              # extended read
        pushw   %di
        int     $0x13
        popw    %di
        jc      read_error
        addw    $16, %sp
        movw    %di, %si                # boot sectors may expect DS:SI at their record
        cmpw    $0xaa55, VBR_SIGNATURE
        jne     no_system
        ljmp    $0, $LOADED
no_lba:
read_error:
        movw    $(OURS + (unreadable - origin)), %si
        jmp     fail
no_system:
        movw    $(OURS + (not_bootable - origin)), %si
fail:
        lodsb
        testb   %al, %al
        jz      stop
        movb    $0x0e, %ah              # teletype
        movw    $7, %bx
        int     $0x10
        jmp     fail
stop:
        hlt
        jmp     stop
no_active:
        .asciz  "No active partition\r\n"
unreadable:
        .asciz  "Cannot read the active partition\r\n"
not_bootable:
        .asciz  "The active partition is not bootable\r\n"
