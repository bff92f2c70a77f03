//! The worker's system calls: what computing on open disks takes, nothing that opens, runs,
//! connects or changes anything else. Everything else is refused with EPERM rather than death, so
//! that a library that only asks politely goes on.

use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, TargetArch, apply_filter};

use crate::error::FilterError;

const ALLOWED: [i64; 45] = [
    // The open disks and the pipes to PID 1.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_fstat,
    libc::SYS_fcntl,
    libc::SYS_close,
    libc::SYS_poll,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    // Threads: host keys are made beside the rest.
    libc::SYS_clone,
    libc::SYS_clone3,
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_prctl,
    // Time and randomness.
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_getrandom,
    // Signals of one's own, and the end.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_tgkill,
    libc::SYS_tkill,
    libc::SYS_restart_syscall,
    libc::SYS_sysinfo,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// Puts the filter on this process for good.
pub(crate) fn apply() -> Result<(), FilterError> {
    Ok(apply_filter(&program()?)?)
}

fn program() -> Result<BpfProgram, seccompiler::BackendError> {
    let filter = SeccompFilter::new(
        ALLOWED.into_iter().map(|call| (call, Vec::new())).collect(),
        SeccompAction::Errno(libc::EPERM.cast_unsigned()),
        SeccompAction::Allow,
        TargetArch::x86_64,
    )?;
    filter.try_into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_file_is_opened_under_the_filter() {
        // In a thread: a filter is forever, and only its thread's.
        std::thread::spawn(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            apply().unwrap();
            let error = std::fs::File::open("/etc/passwd").unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EPERM));
            assert!(std::process::Command::new("/bin/true").status().is_err());
            // Threads, memory and randomness still work.
            let sum = std::thread::spawn(|| {
                vec![1_u8; 10 << 20].iter().map(|&b| u64::from(b)).sum::<u64>()
            });
            assert_eq!(sum.join().unwrap(), 10 << 20);
        })
        .join()
        .unwrap();
    }
}
