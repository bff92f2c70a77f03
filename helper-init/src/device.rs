//! Waiting for a device node no longer than it takes: the kernel says when one appears.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};
use snf_image::wire::HostLine;

use crate::host::Host;

/// How long a device may take to appear, by the VM's clock. It is there within milliseconds. The
/// limit is generous because that clock may run far too fast, and there is one at all for a host
/// that ends no run by itself.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);

/// Returns when `path` exists, or an error after `limit`, or when the host says that the time is
/// up.
pub(crate) fn wait_for(path: &Path, limit: Duration, host: &mut Host) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    // The socket is there before the second look: no event falls between.
    let events = uevents()?;
    let deadline = Instant::now() + limit;
    while !path.exists() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(too_late(limit.as_secs()));
        }
        let timeout =
            Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        let mut fds = vec![PollFd::new(&events, PollFlags::IN)];
        fds.extend(host.fd().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => continue,
            Ok(_) => {}
            Err(e) => return Err(e.into()),
        }
        let ordered = fds.get(1).is_some_and(|fd| !fd.revents().is_empty());
        // An event's text does not matter, only that something happened.
        let mut buffer = [0_u8; 4096];
        let _ = rustix::net::recv(&events, &mut buffer[..], RecvFlags::DONTWAIT);
        if ordered && let Some(HostLine::Stop { seconds }) = host.order() {
            return Err(too_late(seconds));
        }
    }
    Ok(())
}

fn too_late(seconds: u64) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("no such device after {seconds} s"))
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
    fn a_device_that_is_there_is_not_waited_for_and_a_missing_one_ends() {
        let mut host = Host::default();
        wait_for(Path::new("/dev/null"), Duration::from_secs(60), &mut host).unwrap();
        let error =
            wait_for(Path::new("/dev/nothing"), Duration::from_millis(50), &mut host).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }
}
