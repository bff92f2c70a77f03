//! Shows what is in an ext2, ext3 or ext4 file system, and writes a file to it: `ext IMAGE [PATH TEXT]`.

use std::error::Error;
use std::fs::File;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use snf_fs::ext::{Ext, Options};
use snf_fs::{Attributes, FileDevice, Timestamp, Tree};

/// The time that changed files get.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp { seconds: since.as_secs() as i64, nanoseconds: since.subsec_nanos() }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let Some(image) = arguments.next() else { return Err("ext IMAGE [PATH TEXT]".into()) };
    let change = arguments.next().zip(arguments.next());
    let file = File::options().read(true).write(change.is_some()).open(image)?;
    let device = Arc::new(FileDevice::from_file(file)?);
    let mut tree =
        Tree::new(Box::new(Ext::open(device, Options { now: now(), ..Options::default() })?));

    for (_, info) in tree.mounts() {
        let info = info?;
        println!(
            "{} {:?}: {} of {} bytes free",
            info.kind.name(),
            info.label,
            info.free,
            info.size
        );
    }
    for entry in tree.read_dir("/")? {
        println!("  {}", snf_fs::text::display_name(&entry.name));
    }
    if let Some((path, text)) = change {
        let attributes = Attributes { mode: 0o644, uid: 0, gid: 0 };
        tree.write(&path, text.as_bytes(), attributes)?;
        for (_, report) in tree.commit()? {
            println!("wrote {} blocks of metadata", report.metadata_blocks);
        }
    }
    Ok(())
}
