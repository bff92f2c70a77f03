//! Waiting for a device node no longer than it takes: the kernel says when one appears.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

/// Returns when `path` exists, or an error after `limit`.
pub(crate) fn wait_for(path: &Path, limit: Duration) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    // The socket is there before the second look: no event falls between.
    let events = uevents()?;
    let deadline = Instant::now() + limit;
    while !path.exists() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no such device after {} s", limit.as_secs()),
            ));
        }
        let timeout =
            Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let mut fds = [PollFd::new(&events, PollFlags::IN)];
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(e) => return Err(e.into()),
        }
        // What it says does not matter, only that something happened.
        let mut buffer = [0_u8; 4096];
        let _ = rustix::net::recv(&events, &mut buffer[..], RecvFlags::DONTWAIT);
    }
    Ok(())
}

fn uevents() -> io::Result<OwnedFd> {
    let socket = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        Some(netlink::KOBJECT_UEVENT),
    )?;
    // Group 1: the kernel's own events.
    rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 1))?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_not_waited_for_and_what_is_not_ends() {
        wait_for(Path::new("/dev/null"), Duration::from_secs(60)).unwrap();
        let error = wait_for(Path::new("/dev/nothing"), Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
