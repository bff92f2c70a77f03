//! The volumes of a disk as a tree, for a person.

use snf_image::guest::disk::VolumeSummary;
use snf_image::inspect::Inspection;

use crate::output::{size, table};

/// `, GPT 1234-…`, or `, no partition table`.
pub(crate) fn table_text(table: Option<&str>, id: Option<&str>) -> String {
    match (table, id) {
        (Some(table), Some(id)) => format!(", {table} {id}"),
        (Some(table), None) => format!(", {table}"),
        (None, _) => ", no partition table".to_owned(),
    }
}

/// One line for each volume, below the disk or the group that it belongs to.
pub(crate) fn page(found: &Inspection) -> String {
    let mut rows = Vec::new();
    let mut text = String::new();
    let disks = found.volumes.iter().map(|volume| volume.disk).max().unwrap_or(1);
    for disk in 1..=disks.max(1) {
        if let Some(summary) = found.disks.iter().find(|summary| summary.disk == disk) {
            text.push_str(&table(&rows));
            rows.clear();
            let table = table_text(summary.table.as_deref(), summary.disk_id.as_deref());
            text.push_str(&format!("disk {disk}: {}{table}\n", size(summary.size)));
        }
        let on_disk = |volume: &VolumeSummary| volume.disk == disk && volume.lies_in.is_empty();
        for (index, volume) in found.volumes.iter().enumerate().filter(|(_, v)| on_disk(v)) {
            rows.push(row(volume, short(volume), 0));
            encrypted(found, index, 1, &mut rows);
        }
    }
    text.push_str(&table(&rows));
    for group in &found.groups {
        let on: Vec<&str> = group
            .physical_volumes
            .iter()
            .map(|index| index.and_then(|index| found.volumes.get(index)))
            .map(|volume| volume.map_or("a missing disk", |volume| volume.place.as_str()))
            .collect();
        text.push_str(&format!(
            "volume group {}: {}, {} free, on {}\n",
            group.name,
            size(group.size),
            size(group.free),
            on.join(", ")
        ));
        let mut rows = Vec::new();
        for (index, volume) in found.volumes.iter().enumerate() {
            let name = volume.place.strip_prefix("logical volume ");
            let name = name.and_then(|name| name.strip_prefix(&group.name)?.strip_prefix('/'));
            if let Some(name) = name {
                rows.push(row(volume, name.to_owned(), 0));
                encrypted(found, index, 1, &mut rows);
            }
        }
        text.push_str(&table(&rows));
    }
    text
}

/// The content of the LUKS container in a volume.
fn encrypted(found: &Inspection, container: usize, depth: usize, rows: &mut Vec<Vec<String>>) {
    for (index, volume) in found.volumes.iter().enumerate() {
        if volume.layer == "luks" && volume.lies_in == [container] {
            rows.push(row(volume, "open".to_owned(), depth));
            // A container lies before what is in it, so this ends.
            if index > container {
                encrypted(found, index, depth + 1, rows);
            }
        }
    }
}

fn short(volume: &VolumeSummary) -> String {
    volume.number.map_or_else(|| "-".to_owned(), |number| number.to_string())
}

fn row(volume: &VolumeSummary, name: String, depth: usize) -> Vec<String> {
    let label = volume.label.as_deref().filter(|label| !label.is_empty());
    let mut verdict = volume.verdict.clone();
    if let Some(free) = volume.free {
        verdict.push_str(&format!(", {} free", size(free)));
    }
    vec![
        format!("{}{name}", "  ".repeat(depth)),
        size(volume.size),
        volume.kind.clone().unwrap_or_else(|| "-".to_owned()),
        label.unwrap_or("-").to_owned(),
        verdict,
    ]
}
