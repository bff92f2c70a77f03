//! The one system call that has no safe wrapper.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;

use rustix::ioctl::{Getter, Opcode, ioctl};

/// `LOOP_GET_STATUS64` (linux/loop.h).
const LOOP_GET_STATUS64: Opcode = 0x4C05;

/// `struct loop_info64` (linux/loop.h).
#[repr(C)]
#[allow(dead_code)]
pub(crate) struct LoopInfo64 {
    /// Device of the file system that the backing file is on.
    pub(crate) lo_device: u64,
    /// Inode of the backing file.
    pub(crate) lo_inode: u64,
    /// Device number of the backing file, when it is a device.
    pub(crate) lo_rdevice: u64,
    lo_offset: u64,
    lo_sizelimit: u64,
    lo_number: u32,
    lo_encrypt_type: u32,
    lo_encrypt_key_size: u32,
    lo_flags: u32,
    lo_file_name: [u8; 64],
    lo_crypt_name: [u8; 64],
    lo_encrypt_key: [u8; 32],
    lo_init: [u64; 2],
}

const _: () = assert!(size_of::<LoopInfo64>() == 232);

/// The file that a loop device shows.
pub(crate) fn loop_info(device: &File) -> io::Result<LoopInfo64> {
    // SAFETY: the kernel fills one `struct loop_info64`, whose size is asserted above; every bit
    // pattern is a valid value of it. On a device of another kind the call fails.
    let call = unsafe { Getter::<LOOP_GET_STATUS64, LoopInfo64>::new() };
    // SAFETY: as above; the descriptor is open.
    Ok(unsafe { ioctl(device, call) }?)
}
