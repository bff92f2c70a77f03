//! Compressed clusters: deflate and zstd. They are read; a changed one becomes a plain one.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::sync::Arc;

use super::error::{Error, Result};

/// Decompression is spread over at most this many threads.
const MAX_THREADS: usize = 4;
/// The window that every zstd decoder must have (RFC 8878), 8 MiB, as a power of two: images that
/// need more are refused.
const MAX_WINDOW_LOG: u32 = 23;
/// Bytes of decompressed clusters that are kept for further small reads.
const KEPT: usize = 4 << 20;

/// A cluster to decompress.
pub(crate) struct Job<'a> {
    /// Its offset in the file, in bytes.
    pub(crate) offset: u64,
    pub(crate) input: Vec<u8>,
    /// Exactly one cluster.
    pub(crate) output: &'a mut [u8],
}

/// Decompresses clusters and keeps a few.
#[derive(Debug)]
pub(crate) struct Decoder {
    zstd: bool,
    threads: usize,
    kept: VecDeque<(u64, Arc<Vec<u8>>)>,
}

impl Decoder {
    pub(crate) fn new(zstd: bool) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Self { zstd, threads: threads.min(MAX_THREADS), kept: VecDeque::new() }
    }

    /// How many jobs are worth having at once.
    pub(crate) fn threads(&self) -> usize {
        self.threads
    }

    /// Decompresses all, on several threads when there are several.
    pub(crate) fn run(&self, jobs: &mut [Job<'_>]) -> Result<()> {
        let zstd = self.zstd;
        let one = |job: &mut Job<'_>| {
            unpack(&job.input, job.output, zstd)
                .map_err(|source| Error::Compressed { offset: job.offset, source })
        };
        if jobs.len() < 2 || self.threads < 2 {
            return jobs.iter_mut().try_for_each(one);
        }
        let share = jobs.len().div_ceil(self.threads);
        std::thread::scope(|scope| {
            let parts: Vec<_> = jobs
                .chunks_mut(share)
                .map(|part| scope.spawn(move || part.iter_mut().try_for_each(one)))
                .collect();
            parts.into_iter().try_for_each(|part| {
                part.join().unwrap_or_else(|_| {
                    let source = io::Error::other("the decompressor broke off");
                    Err(Error::Compressed { offset: 0, source })
                })
            })
        })
    }

    /// A decompressed cluster that was kept.
    pub(crate) fn kept(&self, offset: u64) -> Option<Arc<Vec<u8>>> {
        self.kept.iter().find(|(at, _)| *at == offset).map(|(_, cluster)| cluster.clone())
    }

    /// Decompresses one cluster and keeps it.
    pub(crate) fn keep(
        &mut self,
        offset: u64,
        input: Vec<u8>,
        cluster_size: usize,
    ) -> Result<Arc<Vec<u8>>> {
        let mut output = vec![0; cluster_size];
        self.run(&mut [Job { offset, input, output: &mut output }])?;
        let cluster = Arc::new(output);
        while self.kept.len() >= (KEPT / cluster_size).clamp(1, 64) {
            self.kept.pop_front();
        }
        self.kept.push_back((offset, cluster.clone()));
        Ok(cluster)
    }

    /// Forgets what was kept: clusters of the file may be used for something else now.
    pub(crate) fn forget(&mut self) {
        self.kept.clear();
    }
}

/// Decompresses one cluster. The bytes after its stream in the last sector are not looked at.
fn unpack(input: &[u8], output: &mut [u8], zstd: bool) -> io::Result<()> {
    if zstd {
        let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?.single_frame();
        decoder.window_log_max(MAX_WINDOW_LOG)?;
        return decoder.read_exact(output);
    }
    // Raw deflate, without zlib's header.
    let mut inflater = flate2::Decompress::new(false);
    inflater
        .decompress(input, output, flate2::FlushDecompress::Finish)
        .map_err(io::Error::other)?;
    match inflater.total_out() == output.len() as u64 {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn packed(data: &[u8]) -> Vec<u8> {
        let mut encoder =
            flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(data).unwrap();
        let mut packed = encoder.finish().unwrap();
        packed.extend([0xaa; 100]);
        packed
    }

    #[test]
    fn many_clusters_at_once() {
        let decoder = Decoder { zstd: false, threads: 3, kept: VecDeque::new() };
        let mut outputs = vec![vec![0; 4096]; 7];
        let mut jobs: Vec<_> = outputs
            .iter_mut()
            .enumerate()
            .map(|(n, output)| Job { offset: 1, input: packed(&[n as u8; 4096]), output })
            .collect();
        decoder.run(&mut jobs).unwrap();
        jobs[4].input.truncate(3);
        jobs[4].offset = 77;
        let error = decoder.run(&mut jobs).unwrap_err();
        assert!(matches!(error, Error::Compressed { offset: 77, .. }));
        drop(jobs);
        assert!(outputs.iter().enumerate().all(|(n, output)| n == 4 || *output == [n as u8; 4096]));
    }

    #[test]
    fn a_frame_with_a_large_window_is_refused() {
        // Magic, descriptor without single segment, window of 2^(10+17) = 128 MiB.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, 17 << 3, 1, 0, 0];
        assert!(unpack(&frame, &mut [0; 512], true).is_err());
    }
}
