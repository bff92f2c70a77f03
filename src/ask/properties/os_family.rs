//! The families of operating systems.

/// The operating systems that OSFAMILY names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OsFamily {
    /// Any Linux.
    Linux,
    /// Windows Vista, Server 2008 and later.
    Windows,
    /// Windows XP and Server 2003.
    WindowsLegacy,
    /// FreeBSD.
    FreeBsd,
    /// NetBSD.
    NetBsd,
    /// OpenBSD.
    OpenBsd,
}

impl OsFamily {
    /// Every family.
    pub const ALL: [Self; 6] = [
        Self::Linux,
        Self::Windows,
        Self::WindowsLegacy,
        Self::FreeBsd,
        Self::NetBsd,
        Self::OpenBsd,
    ];

    /// Whether this is a Windows, of whatever age.
    pub fn is_windows(self) -> bool {
        matches!(self, Self::Windows | Self::WindowsLegacy)
    }

    /// The family's own name, for sentences.
    pub fn title(self) -> &'static str {
        match self {
            Self::Linux => "Linux",
            Self::Windows => "Windows",
            Self::WindowsLegacy => "Windows XP or Server 2003",
            Self::FreeBsd => "FreeBSD",
            Self::NetBsd => "NetBSD",
            Self::OpenBsd => "OpenBSD",
        }
    }

    /// The name that the property uses.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linux => "linux",
            Self::Windows => "windows",
            Self::WindowsLegacy => "windows-legacy",
            Self::FreeBsd => "freebsd",
            Self::NetBsd => "netbsd",
            Self::OpenBsd => "openbsd",
        }
    }
}
