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
    limit("answer of a back-end", ANSWER_BYTES as u64, "bytes", "it is a number or a yes"),
];

#[cfg(test)]
mod tests;
