//! A guest in memory, for the tests of the tasks.

use snf_fs::{Attributes, MemoryFs, Tree};

use super::{Session, Task, TaskError, Work};
use crate::ask::event::Event;
use crate::ask::plan::Plan;
use crate::craft::random::{Clock, Entropy};
use crate::guest::disk::{Disk, Volume};
use crate::guest::distro::Distro;
use crate::guest::storage::Storage;
use crate::guest::windows::{Windows, fixture, pe};
use crate::guest::{self, OsFamily};

pub(crate) const DIR: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0 };
pub(crate) const FILE: Attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };

/// The parts of a [`guest::Guest`] and a [`Session`], kept between tasks.
pub(crate) struct Guest {
    tree: Option<Tree>,
    volumes: Vec<Volume>,
    pub(crate) storage: Storage,
    pub(crate) plan: Plan,
    pub(crate) events: Vec<Event>,
    pub(crate) distro: Distro,
    pub(crate) windows: Option<Windows>,
    pub(crate) answer: Option<Vec<u8>>,
    pub(crate) hidden: Vec<(Vec<u8>, String)>,
    pub(crate) fingerprints: Vec<super::Fingerprint>,
}

impl Guest {
    /// Nothing but a root directory.
    pub(crate) fn empty() -> Self {
        Self {
            tree: Some(Tree::new(Box::new(MemoryFs::new()))),
            volumes: Vec::new(),
            storage: Storage::default(),
            plan: Plan::default(),
            events: Vec::new(),
            distro: Distro::default(),
            windows: None,
            answer: None,
            hidden: Vec::new(),
            fingerprints: Vec::new(),
        }
    }

    /// The files that a small Debian has.
    pub(crate) fn debian() -> Self {
        let mut guest = Self::empty();
        let os_release = "ID=debian\nVERSION_ID=\"12\"\nPRETTY_NAME=\"Debian GNU/Linux 12\"\n";
        guest.distro = Distro::from_os_release(os_release);
        for (path, text) in [
            ("/etc/os-release", os_release),
            (
                "/etc/passwd",
                "root:x:0:0:root:/root:/bin/bash\nann:x:1000:1001:Ann:/home/ann:/bin/sh\n",
            ),
            ("/etc/group", "root:x:0:\nshadow:x:42:\nann:x:1001:\n"),
            ("/etc/shadow", "root:*:19000:0:99999:7:::\nann:!:19000:0:99999:7:::\n"),
            ("/etc/hostname", "image\n"),
            ("/etc/hosts", "127.0.0.1\tlocalhost\n127.0.1.1\timage.example.org\timage\n"),
            ("/etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
            ("/usr/lib/systemd/systemd", ""),
            ("/usr/sbin/sshd", ""),
            ("/bin/bash", ""),
            ("/bin/sh", ""),
            ("/etc/ssh/sshd_config", "# Debian\nUsePAM yes\n"),
            ("/dev/null-dir", ""),
        ] {
            guest.write(path, text);
        }
        guest.mkdir("/home");
        guest.mkdir("/root");
        guest.tree().chmod("/root", 0o700).unwrap();
        guest.tree().mkdir("/home/ann", Attributes { mode: 0o755, uid: 1000, gid: 1001 }).unwrap();
        guest.tree().chown("/etc/shadow", 0, 42).unwrap();
        guest.tree().chmod("/etc/shadow", 0o640).unwrap();
        guest.tree().commit().unwrap();
        guest.renew();
        guest
    }

    /// A generalized Windows Server 2022.
    pub(crate) fn windows() -> Self {
        let state = Some("IMAGE_STATE_GENERALIZE_RESEAL_TO_OOBE");
        Self::windows_of(&fixture::system(), &fixture::software(false, state))
    }

    /// A Windows with these hives.
    pub(crate) fn windows_of(system: &[u8], software: &[u8]) -> Self {
        let mut guest = Self::empty();
        guest.mkdir("/Windows/System32/config");
        let sam = fixture::sam(false);
        for (path, bytes) in [
            ("ntoskrnl.exe", pe::executable(0x8664).as_slice()),
            ("config/SYSTEM", system),
            ("config/SOFTWARE", software),
            ("config/SAM", &sam),
        ] {
            guest.tree().write(format!("/Windows/System32/{path}"), bytes, FILE).unwrap();
        }
        guest.tree().commit().unwrap();
        guest.renew();
        guest.windows = Windows::detect(guest.tree()).unwrap();
        guest
    }

    /// Forgets which files changed so far.
    pub(crate) fn renew(&mut self) {
        let root = self.tree.take().unwrap().into_file_systems().remove(0);
        self.tree = Some(Tree::new(root));
    }

    pub(crate) fn tree(&mut self) -> &mut Tree {
        self.tree.as_mut().unwrap()
    }

    pub(crate) fn volume(&mut self, volume: Volume) {
        self.volumes.push(volume);
    }

    pub(crate) fn mkdir(&mut self, path: &str) {
        self.tree().mkdir_all(path, DIR).unwrap();
    }

    pub(crate) fn write(&mut self, path: &str, text: &str) {
        let (dir, _) = path.rsplit_once('/').unwrap();
        self.mkdir(&format!("{dir}/"));
        self.tree().write(path, text.as_bytes(), FILE).unwrap();
    }

    pub(crate) fn symlink(&mut self, path: &str, target: &str) {
        self.tree().symlink(path, target.as_bytes(), FILE).unwrap();
    }

    pub(crate) fn read(&mut self, path: &str) -> String {
        String::from_utf8(self.tree().read(path, 1 << 20).unwrap()).unwrap()
    }

    /// Mode, owner and group of what a path leads to.
    pub(crate) fn attributes(&mut self, path: &str) -> (u16, u32, u32) {
        let stat = self.tree().stat(path).unwrap();
        (stat.mode, stat.uid, stat.gid)
    }

    /// The canonical paths that changed.
    pub(crate) fn changed(&mut self) -> Vec<String> {
        self.tree().changes().iter().map(|change| change.display()).collect()
    }

    pub(crate) fn warnings(&self) -> Vec<&str> {
        fn text(event: &Event) -> Option<&str> {
            match event {
                Event::Warning(text) => Some(text),
                _ => None,
            }
        }
        self.events.iter().filter_map(text).collect()
    }

    /// Runs one task.
    pub(crate) fn run(&mut self, task: &Task) -> Result<(), TaskError> {
        self.with(|guest, session| match task.work {
            Work::Guest(work) => work.run(guest, session),
            Work::Mount => Ok(guest.mount(&mut session.report)?),
            Work::Edits => crate::edit::run(guest, session),
            Work::Disk(_) => panic!("{} works on a disk", task.id),
        })
    }

    /// Mounts what fstab names.
    pub(crate) fn mount(&mut self) -> snf_fs::Result<()> {
        self.with(|guest, session| guest.mount(&mut session.report))
    }

    pub(crate) fn with<T>(
        &mut self,
        work: impl FnOnce(&mut guest::Guest, &mut Session<'_>) -> T,
    ) -> T {
        let entropy = Entropy::seeded(1);
        let clock = Clock::fixed(86_400 * 20_000);
        let mut guest = guest::Guest {
            tree: self.tree.take().unwrap(),
            disk: Disk::of_volumes(std::mem::take(&mut self.volumes)),
            root: 0,
            family: Some(self.windows.as_ref().map_or(OsFamily::Linux, Windows::family)),
            distro: self.distro.clone(),
            windows: self.windows.clone(),
            answer: self.answer.take(),
            hidden: std::mem::take(&mut self.hidden),
        };
        let storage = std::mem::take(&mut self.storage);
        let mut session = Session::new(&self.plan, &entropy, &clock, storage, &mut self.events);
        session.new_users = crate::edit::new_users(&self.plan);
        let result = work(&mut guest, &mut session);
        self.storage = session.storage;
        self.fingerprints = session.report.fingerprints;
        self.distro = guest.distro;
        self.answer = guest.answer;
        self.hidden = guest.hidden;
        self.volumes = guest.disk.volumes;
        self.tree = Some(guest.tree);
        result
    }

    /// Runs a task that must fail, and gives its sentence.
    pub(crate) fn fail(&mut self, task: &Task) -> String {
        crate::craft::sentence::sentence(&self.run(task).unwrap_err())
    }
}
