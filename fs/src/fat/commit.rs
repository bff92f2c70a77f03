//! Writing what waits, in an order that a cut cannot make lose old data.

use zerocopy::{IntoBytes, transmute};

use super::layout::FsInfo;
use super::units::Cluster;
use super::volume::Volume;
use crate::error::Result;
use crate::filesystem::CommitReport;
use crate::num::to_u64;

/// FSI_LeadSig, FSI_StrucSig: what the sector with the count of free clusters begins with.
const LEAD: [u8; 4] = *b"RRaA";
const STRUCT: [u8; 4] = *b"rrAa";

impl Volume {
    pub(super) fn is_dirty(&self) -> bool {
        self.table.is_changed() || !self.clusters.is_empty() || self.root.is_some()
    }

    fn write_table(&mut self) -> Result<u64> {
        let mut count = 0;
        let changes = self.table.take_changes(self.geometry.sector);
        for copy in self.geometry.table_copies() {
            for (at, bytes) in &changes {
                self.device.write_at((copy + *at).get(), bytes)?;
                count += 1;
            }
        }
        self.device.flush()?;
        Ok(count)
    }

    /// Sets the mark "not cleanly unmounted", and gives the byte that was there.
    fn mark(&self) -> Result<u8> {
        let (mut state, at) = ([0], self.geometry.state.get());
        self.device.read_at(at, &mut state)?;
        self.device.write_at(at, &[state[0] | 1])?;
        self.device.flush()?;
        Ok(state[0])
    }

    /// The count of free clusters, a hint that other drivers believe.
    fn write_info(&self) -> Result<()> {
        let Some(at) = self.geometry.info else { return Ok(()) };
        let mut sector = [0; size_of::<FsInfo>()];
        self.device.read_at(at.get(), &mut sector)?;
        let mut info: FsInfo = transmute!(sector);
        if info.lead_sig != LEAD || info.struc_sig != STRUCT {
            return Ok(());
        }
        info.free_count = self.table.free().into();
        Ok(self.device.write_at(at.get(), info.as_bytes())?)
    }

    pub(super) fn commit(&mut self) -> Result<CommitReport> {
        let mut report = CommitReport::default();
        if !self.is_dirty() {
            return Ok(report);
        }
        let state = self.mark()?;
        // Clusters that nothing points to yet.
        let numbers = self.clusters.keys().copied();
        let (new, old): (Vec<Cluster>, Vec<Cluster>) =
            numbers.partition(|&one| self.table.is_new(one));
        for cluster in &new {
            self.device.write_at(self.geometry.place(*cluster).get(), &self.clusters[cluster])?;
        }
        self.device.flush()?;
        report.data_blocks = to_u64(new.len());
        report.metadata_blocks += self.write_table()?;
        for cluster in &old {
            self.device.write_at(self.geometry.place(*cluster).get(), &self.clusters[cluster])?;
        }
        if let (Some(root), Some((at, _))) = (&self.root, self.geometry.fixed_root) {
            self.device.write_at(at.get(), root)?;
        }
        self.device.flush()?;
        report.metadata_blocks += to_u64(old.len()) + u64::from(self.root.is_some());
        // Now nothing points to what was replaced.
        self.table.free_released();
        report.metadata_blocks += self.write_table()?;
        self.write_info()?;
        self.device.write_at(self.geometry.state.get(), &[state])?;
        self.device.flush()?;
        self.clusters.clear();
        self.root = None;
        Ok(report)
    }
}
