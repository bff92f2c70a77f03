//! One round of a harness with its limits, and many of them. The harness of the partition tables uses
//! this file, too.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::choices::Choices;
use super::memory;

/// The bytes that one run may allocate on top of the block cache: README and issue promise 64 MiB for any
/// image, so that a helper VM of 256 MiB never fails for want of it.
pub const MOST_MEMORY: usize = 64 << 20;
/// Device reads of one run. The images have at most 32,000 blocks, and a run looks at each a few times
/// through a cache that holds half of them: more would be a loop that the image steers.
pub const MOST_READS: u64 = 100_000;
/// How long one run may take: it takes milliseconds, so this is a loop without end even on a machine
/// that is busy with other things.
pub const MOST_TIME: Duration = Duration::from_secs(60);

/// The result of a run.
pub struct Outcome {
    /// Device reads.
    pub reads: u64,
    /// Whether the damage was noticed.
    pub noticed: bool,
}

/// Something to be damaged and tried.
pub trait Target: Send + Sync {
    /// For messages.
    fn name(&self) -> String;
    /// Damages a copy as `choices` say and puts it through everything.
    fn round(&self, choices: &mut Choices<'_>) -> Outcome;
    /// Bytes of a cache of its own that come on top of [`MOST_MEMORY`].
    fn cache(&self) -> usize {
        0
    }
    /// The undamaged one is not refused.
    fn check_undamaged(&self);
}

/// The most that a run took.
#[derive(Default)]
pub struct Most {
    reads: u64,
    memory: usize,
    time: Duration,
}

/// One round within the limits; whether the damage was noticed.
pub fn round(target: &dyn Target, choices: &mut Choices<'_>, most: &mut Most) -> bool {
    let start = Instant::now();
    memory::start();
    let Outcome { reads, noticed } = target.round(choices);
    let (used, time) = (memory::peak(), start.elapsed());
    assert!(reads < MOST_READS, "{reads} reads");
    assert!(used < MOST_MEMORY + target.cache(), "{} MiB", used >> 20);
    assert!(time < MOST_TIME, "{time:?}");
    most.reads = most.reads.max(reads);
    most.memory = most.memory.max(used);
    most.time = most.time.max(time);
    noticed
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// The seconds that `SNF_FUZZ_SECONDS` gives to a part of all harnesses: `part` hundredths.
pub fn seconds(part: u64) -> Option<Duration> {
    number("SNF_FUZZ_SECONDS").map(|all| Duration::from_millis(all * part * 10))
}

/// Tries every target: `rounds` times, or as long as `time` lasts, on all processors.
pub fn run_all(targets: &[Box<dyn Target>], time: Option<Duration>, rounds: u64) {
    let wanted = std::env::var("SNF_FUZZ_TARGET").unwrap_or_default();
    let targets: Vec<_> = targets.iter().filter(|t| t.name().contains(&wanted)).collect();
    assert!(!targets.is_empty(), "no target has `{wanted}` in its name");
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(targets.len());
    let share = time.map(|time| time * threads as u32 / targets.len() as u32);
    let queue: Mutex<VecDeque<_>> = Mutex::new(targets.iter().copied().collect());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap().pop_front();
                    let Some(target) = next else { break };
                    run_one(target.as_ref(), share, rounds);
                }
            });
        }
    });
}

fn run_one(target: &dyn Target, share: Option<Duration>, rounds: u64) {
    target.check_undamaged();
    let seed = number("SNF_FUZZ_SEED").unwrap_or(1);
    let only = number("SNF_FUZZ_ONLY");
    let start = Instant::now();
    let (mut done, mut noticed) = (0u64, 0u64);
    let mut most = Most::default();
    let first = only.unwrap_or(1);
    for number in first.. {
        let mut choices = Choices::of_seed(seed.wrapping_mul(1_000_003).wrapping_add(number));
        let work = AssertUnwindSafe(|| round(target, &mut choices, &mut most));
        match catch_unwind(work) {
            Ok(seen) => noticed += u64::from(seen),
            Err(_) => panic!("{}: seed {seed} round {number}", target.name()),
        }
        done += 1;
        if only.is_some() || share.map_or(done >= rounds, |share| start.elapsed() >= share) {
            break;
        }
    }
    println!(
        "{}: {done} rounds, {noticed} noticed; at most {} reads, {} KiB, {:?}",
        target.name(),
        most.reads,
        most.memory >> 10,
        most.time
    );
    let enough = only.is_some() || done < 20 || noticed > done / 20;
    assert!(enough, "{}: {noticed} of {done} noticed", target.name());
}
