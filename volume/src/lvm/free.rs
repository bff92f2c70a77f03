//! The free extents of the physical volumes.

use super::model::Model;
use super::segment::Kind;

/// Free runs of one physical volume: first extent and number, in order.
pub(crate) type Runs = Vec<(u64, u64)>;

/// The free runs of each physical volume, in the order of the model.
pub(crate) fn free(model: &Model) -> Vec<Runs> {
    let mut used: Vec<Runs> = vec![Vec::new(); model.pvs.len()];
    let segments = model.lvs.iter().flat_map(|lv| &lv.segments);
    for segment in segments {
        let Kind::Striped { areas, .. } = &segment.kind else { continue };
        for area in areas {
            if let Some((index, _)) = model.pv(&area.target) {
                used[index].push((area.extent, segment.area_extents()));
            }
        }
    }
    let gaps = |(mut used, extents): (Runs, u64)| {
        used.sort_unstable();
        let mut free = Vec::new();
        let mut next = 0;
        for (start, count) in used {
            if start > next {
                free.push((next, start.min(extents).saturating_sub(next)));
            }
            next = next.max(start.saturating_add(count));
        }
        if next < extents {
            free.push((next, extents - next));
        }
        free.retain(|(_, count)| *count > 0);
        free
    };
    used.into_iter().zip(model.pvs.iter().map(|pv| pv.extents)).map(gaps).collect()
}
