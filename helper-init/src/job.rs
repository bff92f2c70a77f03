//! The job itself: from the parameter disk to the customised image.

use std::sync::Arc;

use snf_fs::BlockDevice;
use snf_fs::ext::{Options, Volume};
use snf_image::event::{Event, EventSink};

use crate::worker::Disks;

pub(crate) fn run(
    parameters: Arc<dyn BlockDevice>,
    disks: &Disks,
    events: &mut dyn EventSink,
) -> Result<(), String> {
    Volume::open(parameters, Options::default()).map_err(|e| format!("cannot read the parameter disk: {e}"))?;
    events.event(Event::Info(format!("disks: {:?}", disks.keys())));
    events.event(Event::TaskStart("Temporary"));
    let disk = disks.get("/dev/vda").ok_or("no /dev/vda")?;
    let mut b = [0; 512];
    disk.read_at(0, &mut b).map_err(|e| e.to_string())?;
    disk.write_at(0, b"edited").map_err(|e| e.to_string())?;
    disk.flush().map_err(|e| e.to_string())?;
    events.event(Event::TaskEnd("Temporary"));
    Ok(())
}
