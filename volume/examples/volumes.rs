//! Lists the volume groups and LUKS containers of images or devices: `volumes IMAGE...`

use std::fs::File;
use std::sync::Arc;

use snf_fs::{BlockDevice, FileDevice};
use snf_volume::luks::{self, Luks};
use snf_volume::{lvm, signature};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut devices: Vec<Arc<dyn BlockDevice>> = Vec::new();
    let paths: Vec<String> = std::env::args().skip(1).collect();
    for path in &paths {
        devices.push(Arc::new(FileDevice::from_file(File::open(path)?)?));
    }
    for (path, device) in paths.iter().zip(&devices) {
        if luks::is_luks(&**device)? {
            let container = Luks::open(device.clone())?;
            let (version, slots) = (container.version(), container.key_slots());
            println!("{path}: LUKS{version}, UUID {}, {slots} key slots", container.uuid());
        } else if let Some(foreign) = signature::identify(&**device)? {
            println!("{path}: {}; {}", foreign.name, foreign.remedy.unwrap_or_default());
        }
    }
    let found = lvm::scan(&devices);
    for group in &found.groups {
        println!("group {}, metadata {}", group.name(), group.sequence());
        for pv in group.physical_volumes() {
            let place = pv.device.and_then(|index| paths.get(index));
            let place = place.map_or("missing", String::as_str);
            println!("  {}: {} bytes, {} free, {place}", pv.id, pv.size, pv.free);
        }
        for lv in group.logical_volumes() {
            let refusal = lv.refusal.map(|refusal| format!(", {refusal}")).unwrap_or_default();
            println!("  {}: {} bytes, {}{refusal}", lv.paths[0], lv.size, lv.layout);
        }
    }
    for problem in &found.problems {
        let path = paths.get(problem.device).map_or("?", String::as_str);
        println!("{path}: {}", problem.error);
    }
    Ok(())
}
