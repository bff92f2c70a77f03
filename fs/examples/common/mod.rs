//! The same work of the examples `ext`, `ntfs` and `fat` on different file systems.

use std::error::Error;
use std::fs::File;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use snf_fs::{Attributes, FileDevice, FileSystem, Timestamp, Tree};

/// The command line: `IMAGE [PATH TEXT]`.
pub struct Request {
    /// The image, open for writing if there is something to write.
    pub device: Arc<FileDevice>,
    /// The time that changed files get.
    pub now: Timestamp,
    change: Option<(String, String)>,
}

impl Request {
    /// Reads the command line of the example `name` and opens the image.
    pub fn read(name: &str) -> Result<Self, Box<dyn Error>> {
        let mut arguments = std::env::args().skip(1);
        let Some(image) = arguments.next() else {
            return Err(format!("{name} IMAGE [PATH TEXT]").into());
        };
        let change = arguments.next().zip(arguments.next());
        let file = File::options().read(true).write(change.is_some()).open(image)?;
        let since = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let now =
            Timestamp { seconds: since.as_secs().try_into()?, nanoseconds: since.subsec_nanos() };
        Ok(Self { device: Arc::new(FileDevice::from_file(file)?), now, change })
    }

    /// Shows the root directory, and writes the file.
    pub fn run(self, fs: impl FileSystem + 'static) -> Result<(), Box<dyn Error>> {
        let mut tree = Tree::new(Box::new(fs));
        for (_, info) in tree.mounts() {
            let info = info?;
            let (kind, label) = (info.kind.name(), &info.label);
            println!("{kind} {label:?}: {} of {} bytes free", info.free, info.size);
        }
        for entry in tree.read_dir("/")? {
            println!("  {}", snf_fs::text::display_name(&entry.name));
        }
        if let Some((path, text)) = self.change {
            let attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };
            tree.write(&path, text.as_bytes(), attributes)?;
            for (_, report) in tree.commit()? {
                println!("wrote {} blocks of metadata", report.metadata_blocks);
            }
        }
        Ok(())
    }
}
