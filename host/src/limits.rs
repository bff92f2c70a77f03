//! The bounds of what a tenant, the network, QEMU or a back-end may make the host take, with their
//! reasons. Those of the library are in [`snf_image::limits`].

use snf_image::limits::{Limit, limit};

/// A URL, and an image id.
pub const URL_BYTES: usize = 4096;
/// A text that a URL leads to (`config_url`, `os_answer_file`).
pub const TEXT_BYTES: u64 = 1 << 20;
/// A configuration file.
pub const CONFIG_BYTES: u64 = 1 << 20;
/// A list of checksums beside an image.
pub const SUMS_BYTES: u64 = 1 << 20;
/// Disks of an instance, and its network interfaces.
pub const DEVICES: usize = 64;
/// The window of a zstd stream, as a power of two.
pub const ZSTD_WINDOW_LOG: u32 = 27;
/// A reply of an FTP server.
pub const FTP_REPLY_BYTES: u64 = 16 << 10;
/// A message of QEMU's monitor.
pub const QMP_BYTES: usize = 64 << 10;
/// A text of an NBD server.
pub const NBD_TEXT_BYTES: u32 = snf_storage::nbd::TEXT_BYTES;
/// Replies of an NBD server to one option.
pub const NBD_REPLIES: usize = snf_storage::nbd::REPLIES;
/// The answer of a back-end to a question.
pub const ANSWER_BYTES: usize = 4096;
/// The dictionary of an xz stream, as its header codes it (96 MiB): an even number n stands for 2 to
/// the power of n/2 + 12 bytes, the odd one after it for half as much again.
pub const XZ_DICTIONARY_CODE: u32 = 29;
/// Memory that a header may make the decompressor of xz and lzma take, in KiB: enough for that.
pub const XZ_MEMORY_KIB: u32 = 100 << 10;
/// A kernel or initramfs file that the helper is built from, packed.
pub const KERNEL_FILE_BYTES: u64 = 256 << 20;
/// A kernel, unpacked.
pub const KERNEL_BYTES: usize = 512 << 20;
/// A kernel module, packed or unpacked, and the kernel's list of modules.
pub const MODULE_BYTES: usize = 64 << 20;
/// Modules of one helper.
pub const MODULES: usize = 256;
/// The init of a helper.
pub const INIT_BYTES: usize = 8 << 20;
/// Redirects of one request.
pub const REDIRECTS: u32 = 10;
/// Seconds for all of a text that a URL leads to (FETCH_TIMEOUT's default).
pub const TEXT_SECONDS: u64 = 60;
/// Seconds of waiting for all of an image (FETCH_IMAGE_TIMEOUT's default).
pub const IMAGE_SECONDS: u64 = 86_400;
/// Microseconds of waiting for each byte of an image (FETCH_MIN_RATE's default of 10,000 a second).
pub const BYTE_MICROSECONDS: u64 = 100;
/// Seconds of silence of a web server.
pub const SILENCE_SECONDS: u64 = 30;
/// Seconds until a web server takes a connection, and until its name is found.
pub const CONNECT_SECONDS: u64 = 15;

/// All of them.
pub const LIMITS: &[Limit] = &[
    limit("URL", URL_BYTES as u64, "bytes", "web servers take no longer ones"),
    limit("text of a URL", TEXT_BYTES, "bytes", "it would not fit onto the parameter disk"),
    limit("configuration", CONFIG_BYTES, "bytes", "it is a page of text"),
    limit("list of checksums", SUMS_BYTES, "bytes", "a line for each of some 10,000 images"),
    limit("devices", DEVICES as u64, "disks or interfaces", "Ganeti gives sixteen of each"),
    limit(
        "window of zstd",
        ZSTD_WINDOW_LOG as u64,
        "bits of its size in bytes",
        "128 MiB, as `zstd --long` makes it; it is held in memory",
    ),
    limit("reply of an FTP server", FTP_REPLY_BYTES, "bytes", "a greeting may be a page of text"),
    limit("message of QEMU", QMP_BYTES as u64, "bytes", "its greeting has some hundred bytes"),
    limit("text of an NBD server", NBD_TEXT_BYTES as u64, "bytes", "the protocol's own bound"),
    limit("replies of an NBD server", NBD_REPLIES as u64, "replies", "there are five kinds"),
    limit(
        "dictionary of xz",
        XZ_DICTIONARY_CODE as u64,
        "as the header codes it",
        "96 MiB, as `xz -9` needs 64; it is held in memory",
    ),
    limit(
        "dictionary of lzma",
        (XZ_MEMORY_KIB >> 10) as u64 - 1,
        "MiB",
        "only kernels are packed so; as much as xz may take",
    ),
    limit(
        "kernel file",
        KERNEL_FILE_BYTES,
        "bytes",
        "it is held in memory; Debian's have 12 MiB, and a device named by mistake has no end",
    ),
    limit(
        "kernel",
        KERNEL_BYTES as u64,
        "bytes",
        "it is held in memory; an unpacked one has some 50 MiB",
    ),
    limit("module file", MODULE_BYTES as u64, "bytes", "the largest drivers have some MiB"),
    limit("module", MODULE_BYTES as u64, "bytes, unpacked", "the largest drivers have some MiB"),
    limit(
        "modules",
        MODULES as u64,
        "modules",
        "each is read by every run; those that the helper needs come to some 40",
    ),
    limit("init", INIT_BYTES as u64, "bytes", "each run reads it; ours has under 3 MiB"),
    limit("redirects", REDIRECTS as u64, "redirects", "what browsers follow is twice as much"),
    limit("time for a text", TEXT_SECONDS * 1000 - 1, "milliseconds", "it has 1 MiB at most"),
    limit(
        "time for an image",
        IMAGE_SECONDS,
        "seconds",
        "1 TiB at 100 Mbit/s takes a day; a run holds its disk meanwhile",
    ),
    limit(
        "time for a byte of an image",
        BYTE_MICROSECONDS,
        "microseconds",
        "10,000 bytes a second, less than a modem; a slower server only holds the run",
    ),
    limit("silence", SILENCE_SECONDS, "seconds", "TCP has repeated a lost packet by then"),
    limit("time to connect", CONNECT_SECONDS, "seconds", "three attempts of TCP"),
    limit("answer of a back-end", ANSWER_BYTES as u64, "bytes", "it is a number or a yes"),
];

#[cfg(test)]
mod tests;
