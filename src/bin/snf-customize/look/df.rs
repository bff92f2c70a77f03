//! `snf-customize df`.

use serde_json::json;
use snf_fs::Info;
use snf_fs::error::display_name;
use snf_image::guest::disk::Content;

use super::args::Df;
use super::opened::Opened;
use crate::exit::{Exit, Failure};
use crate::output::{self, Document, size, table};

/// Shows the fill of each file system.
pub(super) fn run(args: &Df) -> Result<Exit, Failure> {
    let opened = Opened::new(&args.source)?;
    let mut systems: Vec<(String, Info)> = Vec::new();
    for (path, info) in opened.tree().mounts() {
        systems.push((display_name(path), info.map_err(|error| opened.failure(&error))?));
    }
    // Volumes that the guest does not mount are on the disk all the same.
    for volume in &opened.guest.disk.volumes {
        if let Content::Open(fs) = &volume.content {
            let info = fs.info().map_err(|error| opened.failure(&error))?;
            systems.push((format!("({})", volume.place()), info));
        }
    }
    if args.json {
        let systems: Vec<_> = systems
            .iter()
            .map(|(place, info)| {
                json!({
                    "mounted_on": place.starts_with('/').then_some(place),
                    "kind": info.kind.name(),
                    "uuid": info.uuid,
                    "label": info.label,
                    "size": info.size,
                    "used": info.size.saturating_sub(info.free),
                    "free": info.free,
                })
            })
            .collect();
        let mut document = Document::new("df", &args.source.disk);
        document.set("file_systems", systems);
        document.finish(Exit::Done, "");
        return Ok(Exit::Done);
    }
    let head = ["mounted on", "kind", "size", "used", "free", "use", "UUID"].map(str::to_owned);
    let rows = systems.iter().map(|(place, info)| {
        let used = info.size.saturating_sub(info.free);
        vec![
            place.clone(),
            info.kind.name().to_owned(),
            size(info.size),
            size(used),
            size(info.free),
            format!("{}%", percent(used, info.size)),
            info.uuid.clone(),
        ]
    });
    let rows: Vec<Vec<String>> = std::iter::once(head.to_vec()).chain(rows).collect();
    output::print(&table(&rows));
    Ok(Exit::Done)
}

/// Rounded up, as `df` does.
fn percent(used: u64, size: u64) -> u128 {
    (u128::from(used) * 100).div_ceil(u128::from(size.max(1)))
}
