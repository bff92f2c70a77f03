//! The checker: counts what refers to each cluster and compares it with the refcounts.

use super::bitmaps;
use super::entry::{self, Mapping};
use super::error::{Error, Result};
use super::image::Image;
use super::layout::{AUTOCLEAR_BITMAPS, COPIED, Geometry, MAX_OFFSET, OFFSET_MASK};
use super::refcount::Refcounts;

/// Clusters that are counted in one pass: 16 MiB of memory.
const WINDOW: u64 = 4 << 20;
/// At most this many passes.
const MOST_PASSES: u64 = 64;
/// Words of tables that are looked at, all passes together; tables that are listed many times
/// would take for ever.
const MOST_WORK: u64 = 1 << 29;
/// So many findings are kept.
const MOST_FINDINGS: usize = 100;
/// Refcount blocks in memory, in bytes.
const CACHE: u64 = 4 << 20;

/// The checker's finding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckReport {
    /// Contradictions that can destroy data.
    pub errors: u64,
    /// Clusters that are counted more often than used: room lost, nothing else.
    pub leaks: u64,
    /// The first hundred of both.
    pub findings: Vec<Finding>,
}

/// Something wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The offset in the file, in bytes.
    pub offset: u64,
    /// In words.
    pub problem: String,
}

impl CheckReport {
    /// Whether there is nothing to say.
    pub fn is_clean(&self) -> bool {
        self.errors == 0 && self.leaks == 0
    }

    fn error(&mut self, offset: u64, problem: String) {
        self.errors += 1;
        self.note(offset, problem);
    }

    fn note(&mut self, offset: u64, problem: String) {
        if self.findings.len() < MOST_FINDINGS {
            self.findings.push(Finding { offset, problem });
        }
    }
}

/// One pass: the clusters `first..first + counts.len()`.
struct Pass<'a> {
    first: u64,
    counts: Vec<u32>,
    /// Clusters of the file.
    clusters: u64,
    /// Contradictions are reported once, in the first pass.
    report: Option<&'a mut CheckReport>,
    work: u64,
}

impl Pass<'_> {
    fn count(&mut self, cluster: u64, from: impl FnOnce() -> String) {
        if cluster >= self.clusters {
            if let Some(report) = &mut self.report {
                let problem =
                    format!("cluster {cluster}, {}, is beyond the end of the file", from());
                report.error(0, problem);
            }
        } else if let Some(count) =
            cluster.checked_sub(self.first).and_then(|at| self.counts.get_mut(at as usize))
        {
            *count = count.saturating_add(1);
        }
    }

    /// The clusters of a structure of so many bytes.
    fn range(&mut self, geo: Geometry, offset: u64, bytes: u64, what: &str) -> Result<()> {
        let (first, count) = (offset / geo.cluster_size(), geo.clusters(bytes));
        self.spend(count)?;
        for cluster in first..first + count {
            self.count(cluster, || what.to_owned());
        }
        Ok(())
    }

    fn spend(&mut self, words: u64) -> Result<()> {
        self.work += words + 64;
        match self.work > MOST_WORK {
            true => Err(Error::TooLarge {
                what: "the tables to check".to_owned(),
                limit: format!("{MOST_WORK} entries"),
            }),
            false => Ok(()),
        }
    }

    fn wrong(&mut self, offset: u64, problem: impl Into<String>) {
        if let Some(report) = &mut self.report {
            report.error(offset, problem.into());
        }
    }
}

impl Image {
    pub(crate) fn check(&mut self) -> Result<CheckReport> {
        self.flush()?;
        let (geo, raw) = (self.geo, &self.header.raw);
        let mut refcounts = Refcounts::load(
            &*self.file,
            geo,
            raw.refcount_table_offset.get(),
            raw.refcount_table_clusters.get().into(),
            CACHE,
        )?;
        let clusters = geo.clusters(self.file.len());
        let last = refcounts.table.iter().rposition(|entry| *entry != 0).map_or(0, |at| at + 1);
        let end = clusters.max(last as u64 * geo.refcounts_per_block());
        if end.div_ceil(WINDOW) > MOST_PASSES {
            return Err(Error::TooLarge {
                what: format!("a file of {clusters} clusters"),
                limit: format!("{} clusters", WINDOW * MOST_PASSES),
            });
        }
        let mut report = CheckReport::default();
        let (mut first, mut work) = (0, 0);
        while first < end {
            let counts = vec![0; WINDOW.min(end - first) as usize];
            let once = (first == 0).then_some(&mut report);
            let mut pass = Pass { first, counts, clusters, report: once, work };
            self.count_all(&mut pass, &mut refcounts)?;
            work = pass.work;
            let counts = pass.counts;
            for (at, count) in counts.iter().enumerate() {
                let cluster = first + at as u64;
                let refcount = refcounts.get(&*self.file, cluster)?;
                let problem = || format!("refcount {refcount}, {count} references");
                let offset = cluster.saturating_mul(geo.cluster_size());
                if refcount < u64::from(*count) {
                    report.error(offset, problem());
                } else if refcount > u64::from(*count) {
                    report.leaks += 1;
                    report.note(offset, problem());
                }
            }
            first += WINDOW;
        }
        Ok(report)
    }

    fn count_all(&self, pass: &mut Pass<'_>, refcounts: &mut Refcounts) -> Result<()> {
        let (geo, raw) = (self.geo, &self.header.raw);
        pass.range(geo, 0, 1, "the header")?;
        let table_bytes = refcounts.table.len() as u64 * 8;
        pass.range(geo, refcounts.table_offset, table_bytes, "of the refcount table")?;
        for entry in refcounts.table.iter().filter(|entry| **entry != 0) {
            pass.range(geo, *entry, 1, "a refcount block")?;
        }
        pass.range(geo, self.tables.l1_offset, self.tables.l1.len() as u64 * 8, "of the L1 table")?;
        let snapshots = self.snapshot_table()?;
        pass.range(geo, raw.snapshots_offset.get(), snapshots.length, "of the snapshot table")?;
        for snapshot in &snapshots.snapshots {
            pass.range(geo, snapshot.l1_offset, snapshot.l1_size * 8, "of a snapshot's L1 table")?;
        }
        self.count_bitmaps(pass)?;
        for entry in &self.tables.l1 {
            self.count_table(pass, *entry, Some(refcounts))?;
        }
        for snapshot in &snapshots.snapshots {
            let mut done = 0;
            while done < snapshot.l1_size {
                let now = (snapshot.l1_size - done).min(8192);
                pass.spend(now)?;
                let words = super::read_words(&*self.file, snapshot.l1_offset + done * 8, now)?;
                for entry in words {
                    self.count_table(pass, entry, None)?;
                }
                done += now;
            }
        }
        Ok(())
    }

    /// An L2 table and what its entries refer to. The flag COPIED is checked in the active tables.
    fn count_table(
        &self,
        pass: &mut Pass<'_>,
        l1_entry: u64,
        mut active: Option<&mut Refcounts>,
    ) -> Result<()> {
        let geo = self.geo;
        let offset = l1_entry & OFFSET_MASK;
        if offset == 0 {
            return Ok(());
        }
        pass.spend(geo.cluster_size() / 8)?;
        if !geo.is_aligned(offset) || offset >= MAX_OFFSET || offset >= self.file.len() {
            pass.wrong(offset, "no L2 table can be here");
            return Ok(());
        }
        pass.count(offset / geo.cluster_size(), || "an L2 table".to_owned());
        if let Some(refcounts) = active.as_deref_mut() {
            self.check_copied(pass, refcounts, offset, l1_entry & COPIED != 0)?;
        }
        let mut bytes = vec![0; geo.cluster_size() as usize];
        super::read_padded(&*self.file, offset, &mut bytes, "L2 table")?;
        let words = super::words(&bytes);
        for (number, entry) in words.chunks_exact(geo.entry_words() as usize).enumerate() {
            let second = entry.get(1).copied().unwrap_or(0);
            match entry::decode(geo, number as u64, entry[0], second) {
                Err(error) => pass.wrong(offset, error.to_string()),
                Ok(Mapping::Compressed { offset, size }) => {
                    let cut = size.min(self.file.len().saturating_sub(offset).max(1));
                    for cluster in entry::touched(geo, offset, cut) {
                        pass.count(cluster, || "of a compressed cluster".to_owned());
                    }
                }
                Ok(Mapping::Plain(plain)) => {
                    let Some(host) = plain.host else { continue };
                    pass.count(host / geo.cluster_size(), || "of guest data".to_owned());
                    if let Some(refcounts) = active.as_deref_mut() {
                        self.check_copied(pass, refcounts, host, plain.copied)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn check_copied(
        &self,
        pass: &mut Pass<'_>,
        refcounts: &mut Refcounts,
        offset: u64,
        copied: bool,
    ) -> Result<()> {
        if pass.report.is_some() {
            let refcount = refcounts.get(&*self.file, offset / self.geo.cluster_size())?;
            if copied != (refcount == 1) {
                pass.wrong(offset, format!("the flag COPIED is {copied}, the refcount {refcount}"));
            }
        }
        Ok(())
    }

    fn count_bitmaps(&self, pass: &mut Pass<'_>) -> Result<()> {
        let Some(raw) = &self.extensions.bitmaps else { return Ok(()) };
        if self.header.autoclear() & AUTOCLEAR_BITMAPS == 0 {
            return Ok(());
        }
        let geo = self.geo;
        let (offset, size) = (raw.bitmap_directory_offset.get(), raw.bitmap_directory_size.get());
        pass.range(geo, offset, size, "of the bitmap directory")?;
        for bitmap in bitmaps::directory(&*self.file, geo, raw)? {
            pass.range(geo, bitmap.table_offset, bitmap.table_size * 8, "of a bitmap table")?;
            let mut done = 0;
            while done < bitmap.table_size {
                let now = (bitmap.table_size - done).min(8192);
                pass.spend(now)?;
                for word in super::read_words(&*self.file, bitmap.table_offset + done * 8, now)? {
                    if word & OFFSET_MASK != 0 {
                        pass.range(geo, word & OFFSET_MASK, 1, "of a bitmap")?;
                    }
                }
                done += now;
            }
        }
        Ok(())
    }
}
