//! A guest that is open: its root is known and its file systems are one tree.

use snf_fs::Tree;
use snf_fs::error::display_name;

use super::OsFamily;
use super::detect::{DetectError, NotRoot, find_root};
use super::disk::{Content, Disk};
use super::distro::{Distro, value};
use super::windows::Windows;
use crate::ask::event::{Event, EventSink};
use crate::ask::properties::Properties;
use crate::craft::sentence::sentence;

/// Files of configuration are read up to this size in bytes.
pub(crate) const CONFIG_MAX: u64 = 16 << 20;

/// A guest: its files, and what is known of its system.
pub struct Guest {
    /// Its files.
    pub tree: Tree,
    /// Its disk.
    pub disk: Disk,
    /// The index of the root's volume on the disk.
    pub root: usize,
    /// Its system; `None` when it was not recognised and need not be.
    pub family: Option<OsFamily>,
    /// Its distribution.
    pub distro: Distro,
    /// Its Windows, where it is one.
    pub windows: Option<Windows>,
    /// Mount points over which the running guest has something that is not opened here, each with a few
    /// words that say so: what is written below them will be hidden.
    pub(crate) hidden: Vec<(Vec<u8>, String)>,
    /// Its answer file's path, once a task has installed one or found the image's own.
    pub(crate) answer: Option<Vec<u8>>,
}

impl Guest {
    /// Finds the root, opens it and mounts what `/etc/fstab` names.
    ///
    /// This is for looking at a guest: a file system that cannot be mounted is a warning.
    ///
    /// # Errors
    /// When no root is found.
    pub fn open(
        disk: Disk,
        properties: &Properties,
        events: &mut dyn EventSink,
    ) -> Result<Self, Box<Refused>> {
        let mut guest = Self::find(disk, properties, true)?;
        if let Err(error) = guest.mount(events) {
            events.event(Event::Warning(sentence(&error)));
        }
        Ok(guest)
    }

    /// Finds the root and opens it; nothing else is mounted yet. `needs_os` says whether the
    /// system has to be known.
    ///
    /// # Errors
    /// When no root is found.
    pub fn find(
        mut disk: Disk,
        properties: &Properties,
        needs_os: bool,
    ) -> Result<Self, Box<Refused>> {
        let root = match find_root(&mut disk, properties, needs_os) {
            Ok(root) => root,
            Err(error) => return Err(Box::new(Refused { disk, error })),
        };
        let volume = &mut disk.volumes[root.volume];
        let fs = match std::mem::replace(&mut volume.content, Content::Mounted) {
            Content::Open(fs) => fs,
            content => {
                let place = volume.place();
                volume.content = content;
                let error = DetectError::NotEditable { place };
                return Err(Box::new(Refused { disk, error }));
            }
        };
        let volume = &mut disk.volumes[root.volume];
        let (views, read_only) = (std::mem::take(&mut volume.views), volume.read_only.clone());
        let mut tree = Tree::new(fs);
        if let Some(reason) = read_only {
            tree.forbid_changes(reason);
        }
        for (path, view) in views {
            if let Err(error) = tree.mount(path, view, None) {
                let (place, reason) = (volume.place(), NotRoot::unreadable(error));
                let error = DetectError::Unusable { place, reason };
                return Err(Box::new(Refused { disk, error }));
            }
        }
        Ok(Self {
            tree,
            disk,
            root: root.volume,
            family: root.family,
            distro: root.distro,
            windows: root.windows,
            hidden: Vec::new(),
            answer: None,
        })
    }

    /// The number of the root partition; `None` for a disk without a table.
    pub fn root_partition(&self) -> Option<u32> {
        self.disk.volumes.get(self.root).and_then(|volume| volume.number)
    }

    /// Whether this is a Windows.
    pub fn is_windows(&self) -> bool {
        self.family.is_some_and(OsFamily::is_windows)
    }

    /// A configuration file of the guest, or `None` when it has none.
    ///
    /// # Errors
    /// When the path leads to something other than a file, or cannot be read.
    pub fn config(&self, path: &str) -> snf_fs::Result<Option<Vec<u8>>> {
        self.tree.read_optional(path, CONFIG_MAX)
    }

    /// The host name that the guest has now: the first word of `/etc/hostname`, or of where older
    /// and other systems keep it.
    ///
    /// # Errors
    /// As [`Guest::config`].
    pub fn hostname(&self) -> snf_fs::Result<Option<String>> {
        for path in ["/etc/hostname", "/etc/HOSTNAME"] {
            let text = self.config(path)?.unwrap_or_default();
            let line = text
                .split(|byte| *byte == b'\n')
                .map(<[u8]>::trim_ascii)
                .find(|line| !line.is_empty() && !line.starts_with(b"#"));
            if let Some(line) = line {
                return Ok(Some(display_name(&line[..line.len().min(255)])));
            }
        }
        for (path, key) in [
            ("/etc/sysconfig/network", "HOSTNAME"),
            ("/etc/conf.d/hostname", "hostname"),
            ("/etc/rc.conf", "HOSTNAME"),
        ] {
            let text = self.config(path)?.unwrap_or_default();
            let name = value(&String::from_utf8_lossy(&text), key);
            if let Some(name) = name.filter(|name| !name.is_empty()) {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Whether the guest boots with systemd.
    ///
    /// # Errors
    /// When a directory on the way cannot be read.
    pub fn has_systemd(&self) -> snf_fs::Result<bool> {
        for path in ["/usr/lib/systemd/systemd", "/lib/systemd/systemd", "/bin/systemd"] {
            if self.tree.exists(path)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether cloud-init is in the guest and not switched off.
    ///
    /// # Errors
    /// As [`Guest::has_systemd`].
    pub fn has_cloud_init(&self) -> snf_fs::Result<bool> {
        Ok(self.tree.exists("/etc/cloud/cloud.cfg")?
            && !self.tree.exists("/etc/cloud/cloud-init.disabled")?)
    }
}

/// A disk in which no guest was found.
pub struct Refused {
    /// The disk; each of its volumes says why it is not the root.
    pub disk: Disk,
    /// Why.
    pub error: DetectError,
}
