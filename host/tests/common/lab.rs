//! The scripts as functions in the test's own process, with a runner of the helper VM that looks at what
//! it is asked for.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use snf_image::rules::Rules;
use snf_image_host::disk::storage::{self, EXPORT};
use snf_image_host::helper::{
    HelperConfig, HelperError, HelperReport, HelperSink, MonitorMessage, VmDisk, VmRequest,
};
use snf_image_host::node::cancel::Cancel;
use snf_image_host::node::config::{Acceleration, Config};
use snf_image_host::node::env::Environment;
use snf_image_host::scripts::create::{CreateError, HelperRunner, create};

/// Looks at what the VM would get.
pub struct StandIn {
    pub fail: Option<&'static str>,
    pub missing: bool,
    pub runs: usize,
    pub rules: Rules,
    /// The parameter disk, byte for byte.
    pub floppy: Vec<u8>,
    pub disks: usize,
    /// Whether flushes of the disk may wait.
    pub flush_later: Option<bool>,
}

impl StandIn {
    pub fn new() -> Self {
        Self {
            fail: None,
            missing: false,
            runs: 0,
            rules: Rules::default(),
            floppy: Vec::new(),
            disks: 0,
            flush_later: None,
        }
    }
}

impl HelperRunner for StandIn {
    fn check(&self, config: &HelperConfig) -> Result<(), HelperError> {
        if self.missing { Err(HelperError::NotBuilt(config.directory.clone())) } else { Ok(()) }
    }

    fn run(
        &mut self,
        _config: &HelperConfig,
        request: &VmRequest,
        _cancel: &Cancel,
        sink: &mut dyn HelperSink,
    ) -> Result<HelperReport, HelperError> {
        self.runs += 1;
        self.disks = request.disks.len();
        self.flush_later = Some(request.flush_later);
        // The floppy is read the way a helper does: as an ext2 file system.
        let dir = tempfile::tempdir().unwrap();
        let floppy = dir.path().join("floppy");
        let mut image = vec![0; 1440 * 1024];
        request.parameters.read_exact_at(&mut image, 0).unwrap();
        fs::write(&floppy, &image).unwrap();
        let out = std::process::Command::new("debugfs")
            .args(["-R", "cat rules"])
            .arg(&floppy)
            .output()
            .unwrap();
        self.rules = Rules::parse(&out.stdout).unwrap();
        self.floppy = image;
        // The disks are written through the descriptors that QEMU would get.
        for disk in &request.disks {
            match disk {
                VmDisk::Open(disk) => disk.write_all_at(b"customized", 4096).unwrap(),
                VmDisk::ReadOnly(_) => panic!("nothing is deployed to a disk that is only read"),
                VmDisk::Remote(daemon) => {
                    let stream = daemon.connect().unwrap();
                    let mut client = storage::connect(stream, EXPORT, &Cancel::new()).unwrap();
                    client.write(4096, b"customized").unwrap();
                    client.flush().unwrap();
                }
            }
        }
        sink.console("a line");
        sink.monitor(MonitorMessage::TaskStart("MountImage".into()));
        match self.fail {
            Some(text) => Err(HelperError::Failed(text.into())),
            None => Ok(HelperReport {
                resumed: false,
                acceleration: Acceleration::Tcg,
                elapsed: Duration::from_secs(1),
            }),
        }
    }
}

pub struct Lab {
    pub dir: tempfile::TempDir,
    pub vars: Vec<(String, String)>,
    pub config: Config,
}

impl Lab {
    /// An image of 1 MiB + 5 bytes and a disk of 8 MiB full of old bytes.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("images")).unwrap();
        let mut image = vec![0; (1 << 20) + 5];
        image[..3].copy_from_slice(b"abc");
        image[700_000..700_003].copy_from_slice(b"def");
        image[1 << 20..].copy_from_slice(b"tail!");
        fs::write(dir.path().join("images/small"), &image).unwrap();
        fs::write(dir.path().join("disk"), vec![0xaa; 8 << 20]).unwrap();
        let mut lab = Self { dir, vars: Vec::new(), config: Config::default() };
        lab.config.image_dir = lab.dir.path().join("images");
        lab.config.backends_dir = lab.dir.path().join("backends");
        for (name, value) in [
            ("OS_API_VERSION", "20"),
            ("INSTANCE_NAME", "inst1.example.test"),
            ("HYPERVISOR", "kvm"),
            ("DISK_COUNT", "1"),
            ("DISK_0_ACCESS", "rw"),
            ("NIC_COUNT", "1"),
            ("NIC_0_MAC", "aa:00:00:00:00:01"),
            ("OSP_IMG_ID", "small"),
            ("OSP_IMG_FORMAT", "diskdump"),
            ("OSP_IMG_PASSWD", "it's a $ecret"),
        ] {
            lab.set(name, value);
        }
        let disk = lab.disk().display().to_string();
        lab.set("DISK_0_PATH", &disk);
        lab
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.vars.retain(|(n, _)| n != name);
        self.vars.push((name.into(), value.into()));
    }

    pub fn disk(&self) -> std::path::PathBuf {
        self.dir.path().join("disk")
    }

    pub fn bytes(&self) -> Vec<u8> {
        fs::read(self.disk()).unwrap()
    }

    pub fn env(&self) -> Environment {
        Environment::from_vars(
            self.vars.iter().map(|(k, v)| (OsString::from(k), OsString::from(v))),
        )
    }

    pub fn run(&self, runner: &mut StandIn) -> Result<(), CreateError> {
        create(&self.env(), &self.config, &Cancel::new(), runner)
    }

    pub fn untouched(&self) -> bool {
        let bytes = self.bytes();
        bytes.len() == 8 << 20 && bytes.iter().all(|b| *b == 0xaa)
    }
}
