//! Whether a volume was left as it should be.

use super::record::Record;
use crate::error::{Error, Result};
use crate::ntfs::check::raw::{Reader, Stream, le16, unfix};
use crate::num::to_u64;

const LOG: u64 = 2;
const VOLUME: u64 = 3;
/// No restart page is larger.
const PAGE: usize = 4096;

fn refuse(what: &str) -> Error {
    Error::ReadOnly(format!(
        "{what}; start and shut down the image's Windows once, without fast startup (shutdown /s /f \
         /t 0), or run chkdsk /f on it"
    ))
}

/// Refuses a volume that is marked for a check, or whose log has something to be replayed: what is
/// changed under such a log is lost or worse.
pub(super) fn must_be_clean(reader: &Reader<'_>) -> Result<()> {
    let value = Record::read(reader, VOLUME)?.value(0x70)?;
    if value.len() < 12 {
        return Err(Error::corrupt("$VOLUME_INFORMATION", "record 3", "it is too short"));
    }
    let (version, flags) = ((value[8], value[9]), le16(&value, 10));
    if version != (3, 1) && version != (3, 0) {
        return Err(Error::unsupported(
            format!("NTFS {}.{}", version.0, version.1),
            "enlarge the volume in the system that made it",
        ));
    }
    if flags & 1 != 0 {
        return Err(refuse("NTFS is marked for a check (dirty)"));
    }
    if flags & 0x2 != 0 {
        return Err(refuse("Windows wants to resize its $LogFile first"));
    }
    if log_in_use(reader)? {
        return Err(refuse(
            "the $LogFile of NTFS was not closed (Windows is hibernated, or was not shut down)",
        ));
    }
    Ok(())
}

/// Whether the newest restart page of `$LogFile` says that a client is using it.
fn log_in_use(reader: &Reader<'_>) -> Result<bool> {
    let record = Record::read(reader, LOG)?;
    let (runs, size) = record.runs(0x80, &[])?;
    let mut stream = Stream::new(size);
    stream.extend(&runs);
    let mut newest: Option<(u64, bool)> = None;
    for page in 0..2u64 {
        let at = page * to_u64(PAGE);
        if at + to_u64(PAGE) > size {
            break;
        }
        let Some(mut bytes) = reader.stream(&stream, at, PAGE)? else {
            return Err(record.corrupt("its $DATA leaves the volume"));
        };
        if bytes.iter().all(|&byte| byte == 0xff) {
            // Emptied: by mkntfs, ntfs-3g or a repair.
            continue;
        }
        if unfix(&mut bytes, b"RSTR").is_err() {
            // The other page counts; when neither can be read, the log cannot be trusted.
            newest = newest.or(Some((0, true)));
            continue;
        }
        let area = usize::from(le16(&bytes, 24));
        let lsn = crate::ntfs::check::raw::le64(&bytes, area);
        let (client, flags) = (le16(&bytes, area + 12), le16(&bytes, area + 14));
        let used = client != 0xffff && flags & 2 == 0;
        if newest.is_none_or(|(other, _)| lsn >= other) {
            newest = Some((lsn, used));
        }
    }
    Ok(newest.is_some_and(|(_, used)| used))
}
