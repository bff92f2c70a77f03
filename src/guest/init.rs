//! The program that starts a guest's services.

use snf_fs::Result;

use super::Guest;

/// The program that starts the services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Init {
    /// systemd.
    Systemd,
    /// OpenRC (Alpine, Gentoo).
    OpenRc,
    /// Links in `rcN.d` (SysV init).
    Sysv,
    /// None of these.
    Unknown,
}

impl Init {
    /// The one that is in force: what `/sbin/init` leads to, where several are installed.
    ///
    /// # Errors
    /// Errors of the tree.
    pub fn of(guest: &Guest) -> Result<Self> {
        let tree = &guest.tree;
        let has = |paths: &[&str]| -> Result<bool> {
            paths.iter().try_fold(false, |found, path| Ok(found || tree.exists(path)?))
        };
        let systemd = guest.has_systemd()?;
        let openrc = has(&["/sbin/openrc-run", "/usr/sbin/openrc-run", "/usr/bin/openrc-run"])?;
        let sysv = has(&["/etc/rc2.d", "/etc/rc.d/rc3.d"])? && has(&["/etc/init.d"])?;
        let init = tree.resolve("/sbin/init").ok().map(|found| found.path).unwrap_or_default();
        let by_systemd = init.ends_with(b"/systemd");
        Ok(match (systemd, openrc, sysv) {
            (true, false, _) => Self::Systemd,
            (true, true, _) if by_systemd => Self::Systemd,
            (_, true, _) => Self::OpenRc,
            (_, _, true) => Self::Sysv,
            _ => Self::Unknown,
        })
    }
}
