//! Whether a volume was left in a state in which it may be changed. Nothing here changes that
//! state: what is wrong is for Windows to put right.

use zerocopy::FromBytes;

use super::attribute::Attribute;
use super::fixup;
use super::layout::{RestartArea, RestartPage, VOLUME_INFORMATION, records};
use super::ops::find_in_root;
use super::volume::Volume;
use crate::error::{Error, Result};
use crate::num::{to_u64, to_usize};

/// Flags of `$VOLUME_INFORMATION`.
pub(super) const DIRTY: u16 = 0x0001;
/// Work that Windows has still to do when it mounts the volume: resize the log, upgrade, delete the
/// change journal, repair object ids, go on with chkdsk.
const UNFINISHED: u16 = 0x0002 | 0x0004 | 0x0010 | 0x0020 | 0x4000;
/// Byte of the flags in `$VOLUME_INFORMATION`.
pub(super) const FLAGS_AT: usize = 10;
/// RESTART_VOLUME_IS_CLEAN.
const CLEAN: u16 = 0x0002;
/// LFS_NO_CLIENT.
const NO_CLIENT: u16 = 0xffff;
/// System pages of Windows have 4 KiB, on other processors up to 64.
const PAGES: std::ops::RangeInclusive<u32> = 512..=65_536;

fn refuse(what: &str) -> Error {
    Error::ReadOnly(format!(
        "{what}; start the image's Windows and shut it down without fast startup (shutdown /s /f \
         /t 0), or run chkdsk /f on the volume"
    ))
}

impl Volume {
    /// Version and flags of the volume.
    pub(super) fn information(&self) -> Result<((u8, u8), u16)> {
        let volume = self.inode(records::VOLUME)?;
        let value = volume.find(VOLUME_INFORMATION, &[]).and_then(Attribute::value);
        match value.map(Vec::as_slice) {
            Some([_, _, _, _, _, _, _, _, major, minor, low, high, ..]) => {
                Ok(((*major, *minor), u16::from_le_bytes([*low, *high])))
            }
            _ => Err(volume.corrupt("it has no $VOLUME_INFORMATION that can be read")),
        }
    }

    /// Refuses a volume that must not be changed as it is.
    pub fn check_writable(&self) -> Result<()> {
        let (version, flags) = self.information()?;
        if version != (3, 1) && version != (3, 0) {
            return Err(Error::ReadOnly(format!(
                "NTFS {}.{} can be read only; Windows 2000 or newer changes it to a version that can \
                 be written",
                version.0, version.1
            )));
        }
        if flags & DIRTY != 0 {
            return Err(refuse("the volume is marked for a check (dirty)"));
        }
        if flags & UNFINISHED != 0 {
            let text = format!("Windows has not finished with the volume (flags {flags:#06x})");
            return Err(refuse(&text));
        }
        if self.is_hibernated()? {
            return Err(refuse("Windows is hibernated in it (hiberfil.sys)"));
        }
        if self.log_is_open()? {
            return Err(refuse(
                "its $LogFile was not closed: Windows was not shut down, or is hibernated",
            ));
        }
        Ok(())
    }

    /// Whether hiberfil.sys holds a system that will be resumed.
    fn is_hibernated(&self) -> Result<bool> {
        let Some(file) = find_in_root(self, "hiberfil.sys")? else { return Ok(false) };
        let Some(data) = file.data().filter(|data| data.size() >= 4) else { return Ok(false) };
        let mut magic = [0; 4];
        self.read_content(data, 0, &mut magic)?;
        Ok(magic.eq_ignore_ascii_case(b"hibr"))
    }

    /// Whether the newest restart page of `$LogFile` says that a client has it open. An empty log,
    /// which is full of ones, has none.
    fn log_is_open(&self) -> Result<bool> {
        let log = self.inode(records::LOG_FILE)?;
        let Some(data) = log.data() else { return Err(log.corrupt("$LogFile has no $DATA")) };
        let mut newest: Option<(u64, bool)> = None;
        let mut second = 4096;
        for page in 0..2 {
            let at = if page == 0 { 0 } else { second };
            let head = self.log_page(data, at, 512)?;
            let Some(head) = head else { break };
            if head.iter().all(|&byte| byte == 0xff) {
                continue;
            }
            let size = RestartPage::read_from_prefix(&head)
                .map(|(page, _)| page.system_page_size.get())
                .ok()
                .filter(|size| &head[..4] == b"RSTR" && PAGES.contains(size))
                .filter(|size| size.is_power_of_two());
            let bytes = match size {
                Some(size) => self.log_page(data, at, to_usize(size))?,
                None => None,
            };
            let area = bytes.and_then(restart_area);
            let Some(area) = area else {
                // One of the two may be torn; when neither can be read, nothing is known.
                newest = newest.or(Some((0, true)));
                continue;
            };
            second = u64::from(size.unwrap_or(4096));
            let open = area.client_in_use_list.get() != NO_CLIENT && area.flags.get() & CLEAN == 0;
            let lsn = area.current_lsn.get();
            if newest.is_none_or(|(other, _)| lsn >= other) {
                newest = Some((lsn, open));
            }
        }
        Ok(newest.is_some_and(|(_, open)| open))
    }

    fn log_page(&self, data: &Attribute, at: u64, size: usize) -> Result<Option<Vec<u8>>> {
        if at + to_u64(size) > data.size() {
            return Ok(None);
        }
        let mut bytes = vec![0; size];
        self.read_metadata(data, at, &mut bytes)?;
        Ok(Some(bytes))
    }
}

fn restart_area(mut bytes: Vec<u8>) -> Option<RestartArea> {
    fixup::apply(&mut bytes, b"RSTR").ok()?;
    let (page, _) = RestartPage::read_from_prefix(&bytes).ok()?;
    let area = bytes.get(usize::from(page.restart_area_offset.get())..)?;
    RestartArea::read_from_prefix(area).ok().map(|(area, _)| area)
}
