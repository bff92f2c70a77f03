//! A small NBD client over a Unix socket: fixed newstyle negotiation, simple replies. The field
//! names are those of the NBD project's doc/proto.md.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::io::Errno;

/// Longest text of a server, in bytes: the protocol's own bound.
pub const TEXT_BYTES: u32 = 4096;
/// Most replies of a server to one option.
pub const REPLIES: usize = 64;

const NBDMAGIC: u64 = 0x4e42_444d_4147_4943;
const IHAVEOPT: u64 = 0x4948_4156_454f_5054;
const REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const FLAG_FIXED_NEWSTYLE: u16 = 1;
const FLAG_NO_ZEROES: u16 = 2;
const OPT_GO: u32 = 7;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const REP_ERROR: u32 = 1 << 31;
const INFO_EXPORT: u16 = 0;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const CMD_READ: u16 = 0;
const CMD_WRITE: u16 = 1;
const CMD_DISC: u16 = 2;
const CMD_FLUSH: u16 = 3;
const CMD_WRITE_ZEROES: u16 = 6;
const FLAG_READ_ONLY: u16 = 1 << 1;
const FLAG_SEND_FLUSH: u16 = 1 << 2;
const FLAG_SEND_WRITE_ZEROES: u16 = 1 << 6;
const FLAG_SEND_FAST_ZERO: u16 = 1 << 11;
const CMD_FLAG_FAST_ZERO: u16 = 1 << 4;

/// Every server takes requests of this size.
pub const MAX_REQUEST: usize = 4 << 20;
/// Writes that are under way at once.
const IN_FLIGHT: usize = 4;
/// How often a wait looks whether it was asked to stop.
const TICK: Duration = Duration::from_millis(250);
/// Longest silence of a server that owes an answer. Zeroing may take a while.
const PATIENCE: Duration = Duration::from_secs(120);

/// Says, with an error, that a wait is to end.
type Stop = Box<dyn Fn() -> io::Result<()> + Send + Sync>;

/// A connection to one export.
pub struct NbdClient {
    stream: UnixStream,
    stop: Stop,
    size: u64,
    transmission_flags: u16,
    handle: u64,
    /// Handles of writes that were not answered yet, and where each began.
    pending: Vec<(u64, u64)>,
}

impl std::fmt::Debug for NbdClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NbdClient").field("size", &self.size).finish_non_exhaustive()
    }
}

fn protocol(text: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text.into())
}

impl NbdClient {
    /// Negotiates `export` on a fresh connection. Every wait calls `stop` four times a second, and ends
    /// with its error.
    ///
    /// # Errors
    /// The server is none, knows no such export, or does not answer.
    pub fn connect(
        stream: UnixStream,
        export: &str,
        stop: impl Fn() -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        stream.set_read_timeout(Some(TICK))?;
        stream.set_write_timeout(Some(TICK))?;
        let mut client = Self {
            stream,
            stop: Box::new(stop),
            size: 0,
            transmission_flags: 0,
            handle: 0,
            pending: Vec::new(),
        };
        let mut greeting = [0; 18];
        client.receive(&mut greeting)?;
        if be64(&greeting, 0) != NBDMAGIC || be64(&greeting, 8) != IHAVEOPT {
            return Err(protocol("it does not speak NBD (newstyle)"));
        }
        let handshake_flags = u16::from_be_bytes([greeting[16], greeting[17]]);
        if handshake_flags & FLAG_FIXED_NEWSTYLE == 0 {
            return Err(protocol("it does not speak the fixed newstyle of NBD"));
        }
        let flags = u32::from(FLAG_FIXED_NEWSTYLE | handshake_flags & FLAG_NO_ZEROES);
        let length = u32::try_from(export.len()).unwrap_or(u32::MAX);
        let mut option = flags.to_be_bytes().to_vec();
        option.extend(IHAVEOPT.to_be_bytes());
        option.extend(OPT_GO.to_be_bytes());
        option.extend(length.saturating_add(6).to_be_bytes());
        option.extend(length.to_be_bytes());
        option.extend(export.as_bytes());
        option.extend(0u16.to_be_bytes());
        client.send(&option)?;
        client.answers_to_go()?;
        Ok(client)
    }

    fn answers_to_go(&mut self) -> io::Result<()> {
        let mut found = false;
        for _ in 0..REPLIES {
            let mut head = [0; 20];
            self.receive(&mut head)?;
            let (kind, length) = (be32(&head, 12), be32(&head, 16));
            if be64(&head, 0) != REPLY_MAGIC || be32(&head, 8) != OPT_GO {
                return Err(protocol("its answer to NBD_OPT_GO is none"));
            }
            if length > TEXT_BYTES {
                return Err(protocol(format!("it sends an option reply of {length} bytes")));
            }
            let mut data = vec![0; length as usize];
            self.receive(&mut data)?;
            match kind {
                REP_ACK if found => return Ok(()),
                REP_ACK => return Err(protocol("it does not say how large the export is")),
                REP_INFO if data.len() == 12 && data[..2] == INFO_EXPORT.to_be_bytes() => {
                    self.size = be64(&data, 2);
                    self.transmission_flags = u16::from_be_bytes([data[10], data[11]]);
                    found = true;
                }
                REP_INFO => {}
                kind if kind & REP_ERROR != 0 => {
                    let text = String::from_utf8_lossy(&data).into_owned();
                    return Err(protocol(format!("it refuses the export: {text:?} ({kind:#x})")));
                }
                kind => {
                    return Err(protocol(format!("it sends an unknown option reply {kind:#x}")));
                }
            }
        }
        Err(protocol("its answers to NBD_OPT_GO do not end"))
    }

    /// Size of the export in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether the server takes no writes.
    pub fn read_only(&self) -> bool {
        self.transmission_flags & FLAG_READ_ONLY != 0
    }

    /// Whether it can be asked for zeros that cost nothing.
    pub fn fast_zero(&self) -> bool {
        self.transmission_flags & FLAG_SEND_FAST_ZERO != 0
    }

    /// Fills `buf` from `offset`.
    ///
    /// # Errors
    /// The server's, or the connection broke.
    pub fn read(&mut self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.settle(0)?;
        for (n, part) in buf.chunks_mut(MAX_REQUEST).enumerate() {
            let at = offset + (n * MAX_REQUEST) as u64;
            let handle = self.request(CMD_READ, 0, at, part.len())?;
            self.reply(handle)?;
            self.receive(part)?;
        }
        Ok(())
    }

    /// Writes `bytes` at `offset`. An error of the server may be told by a later call, at the
    /// latest by [`Self::flush`].
    ///
    /// # Errors
    /// The server's, or the connection broke.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        for (n, part) in bytes.chunks(MAX_REQUEST).enumerate() {
            self.settle(IN_FLIGHT - 1)?;
            let at = offset + (n * MAX_REQUEST) as u64;
            let handle = self.request(CMD_WRITE, 0, at, part.len())?;
            self.send(part)?;
            self.pending.push((handle, at));
        }
        Ok(())
    }

    /// Makes a range read as zeros; `false` where the server cannot (fast, if that is asked for).
    ///
    /// # Errors
    /// The server's, or the connection broke.
    pub fn write_zeroes(&mut self, offset: u64, length: u32, fast: bool) -> io::Result<bool> {
        let needed = if fast { FLAG_SEND_FAST_ZERO } else { FLAG_SEND_WRITE_ZEROES };
        if self.transmission_flags & needed == 0 {
            return Ok(false);
        }
        self.settle(0)?;
        let flags = if fast { CMD_FLAG_FAST_ZERO } else { 0 };
        let handle = self.request(CMD_WRITE_ZEROES, flags, offset, length as usize)?;
        match self.reply(handle) {
            Ok(()) => Ok(true),
            Err(error)
                if error.raw_os_error().is_some_and(|raw| {
                    [Errno::OPNOTSUPP, Errno::INVAL].iter().any(|e| e.raw_os_error() == raw)
                }) =>
            {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns when everything written is on stable storage.
    ///
    /// # Errors
    /// The server's, or the connection broke.
    pub fn flush(&mut self) -> io::Result<()> {
        self.settle(0)?;
        if self.transmission_flags & FLAG_SEND_FLUSH == 0 {
            return Ok(());
        }
        let handle = self.request(CMD_FLUSH, 0, 0, 0)?;
        self.reply(handle)
    }

    fn request(&mut self, kind: u16, flags: u16, offset: u64, length: usize) -> io::Result<u64> {
        self.handle += 1;
        let length = u32::try_from(length).map_err(|_| protocol("a request is too large"))?;
        let mut request = REQUEST_MAGIC.to_be_bytes().to_vec();
        request.extend(flags.to_be_bytes());
        request.extend(kind.to_be_bytes());
        request.extend(self.handle.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(length.to_be_bytes());
        self.send(&request)?;
        Ok(self.handle)
    }

    /// Takes answers to writes until at most `left` are open.
    fn settle(&mut self, left: usize) -> io::Result<()> {
        while self.pending.len() > left {
            let (handle, error) = self.any_reply()?;
            let Some(at) = self.pending.iter().position(|(pending, _)| *pending == handle) else {
                return Err(protocol("it answers what was not asked"));
            };
            let (_, offset) = self.pending.swap_remove(at);
            if error != 0 {
                let source = server_error(error);
                return Err(io::Error::new(source.kind(), format!("{source} (byte {offset})")));
            }
        }
        Ok(())
    }

    fn reply(&mut self, handle: u64) -> io::Result<()> {
        match self.any_reply()? {
            (found, _) if found != handle => Err(protocol("it answers what was not asked")),
            (_, 0) => Ok(()),
            (_, error) => Err(server_error(error)),
        }
    }

    fn any_reply(&mut self) -> io::Result<(u64, u32)> {
        let mut reply = [0; 16];
        self.receive(&mut reply)?;
        if be32(&reply, 0) != SIMPLE_REPLY_MAGIC {
            return Err(protocol("it sends something that is no reply"));
        }
        Ok((be64(&reply, 8), be32(&reply, 4)))
    }

    fn receive(&mut self, buf: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        let mut patience = Instant::now() + PATIENCE;
        while filled < buf.len() {
            match self.stream.read(&mut buf[filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => {
                    filled += n;
                    patience = Instant::now() + PATIENCE;
                }
                Err(error) => self.waiting(error, patience)?,
            }
        }
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut sent = 0;
        let mut patience = Instant::now() + PATIENCE;
        while sent < bytes.len() {
            match self.stream.write(&bytes[sent..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => {
                    sent += n;
                    patience = Instant::now() + PATIENCE;
                }
                Err(error) => self.waiting(error, patience)?,
            }
        }
        Ok(())
    }

    /// A wait that has lasted a moment: goes on, unless it was for too long or in vain.
    fn waiting(&self, error: io::Error, patience: Instant) -> io::Result<()> {
        use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
        if !matches!(error.kind(), Interrupted | TimedOut | WouldBlock) {
            return Err(error);
        }
        (self.stop)()?;
        if Instant::now() < patience {
            return Ok(());
        }
        Err(io::Error::new(
            TimedOut,
            format!("the storage has not answered for {} s", PATIENCE.as_secs()),
        ))
    }
}

impl Drop for NbdClient {
    /// Says goodbye; a server that does not listen any more does not matter.
    fn drop(&mut self) {
        if self.pending.is_empty() {
            let _ = self.request(CMD_DISC, 0, 0, 0);
        }
    }
}

/// NBD's error numbers are Linux's.
fn server_error(error: u32) -> io::Error {
    match error {
        1 | 5 | 12 | 22 | 28 | 75 | 95 => {
            io::Error::from_raw_os_error(i32::try_from(error).unwrap_or(5))
        }
        other => io::Error::other(format!("the storage reports the error {other}")),
    }
}

fn be32(bytes: &[u8], at: usize) -> u32 {
    bytes[at..at + 4].iter().fold(0, |word, byte| word << 8 | u32::from(*byte))
}

fn be64(bytes: &[u8], at: usize) -> u64 {
    bytes[at..at + 8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte))
}
