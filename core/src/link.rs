//! What every machine and every shell agree on about a byte stream.

use std::fmt;
use std::net::SocketAddr;

use bytes::BytesMut;

/// Bytes on their way into or out of a machine: owned by one holder at a time, with room in front for a header.
///
/// Keys and tokens may be in here, so `Debug` shows the length alone.
#[derive(Default)]
pub struct Buf {
    bytes: BytesMut,
    start: usize,
}

impl Buf {
    /// An empty buffer that takes `capacity` bytes without growing.
    pub fn with_capacity(capacity: usize) -> Self {
        Self {
            bytes: BytesMut::with_capacity(capacity),
            start: 0,
        }
    }

    pub fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Drops the first `n` bytes, which leaves room in front.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.len(), "no more can be dropped than there is");
        self.start += n;
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
    }

    pub fn extend_from_slice(&mut self, more: &[u8]) {
        self.bytes.extend_from_slice(more);
    }

    /// Forgets everything from byte `len` on.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(self.start + len);
    }

    /// Appends `n` zero bytes and lends them.
    pub fn grow(&mut self, n: usize) -> &mut [u8] {
        let old = self.bytes.len();
        self.bytes.resize(old + n, 0);
        &mut self.bytes[old..]
    }

    /// The storage, for a shell that reads from a socket straight into it. Only ever append.
    pub fn storage(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }
}

impl std::ops::Deref for Buf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl std::ops::DerefMut for Buf {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }
}

impl From<&[u8]> for Buf {
    fn from(bytes: &[u8]) -> Self {
        Self {
            bytes: BytesMut::from(bytes),
            start: 0,
        }
    }
}

impl From<Vec<u8>> for Buf {
    fn from(bytes: Vec<u8>) -> Self {
        Self::from(bytes.as_slice())
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

/// What happened to a link.
#[derive(Debug)]
pub enum LinkEvent {
    /// Somebody connected. `peer` is its address, `original_dst` the address that it meant (S-137).
    Accepted {
        entry: Entry,
        peer: SocketAddr,
        original_dst: SocketAddr,
    },
    /// Our `Connect` succeeded; `local` is our end.
    Connected { local: SocketAddr },
    /// Spends the grant of one `Read`; never empty, never longer than granted.
    Received(Buf),
    /// The kernel took this many bytes since the last `Sent`; comes after a `Send` that asked for it.
    Sent(usize),
    /// The peer finished its direction; ours may go on. Spends the grant like `Received`.
    Eof,
    /// Always the last event of a link, exactly once, whoever caused it. After it the id is dead.
    Closed(CloseCause),
}

/// What a machine wants done with a link.
#[derive(Debug)]
pub enum LinkCommand {
    /// Opens the link. `from`: the address to leave from, where it matters (S-134, S-330).
    Connect {
        to: SocketAddr,
        from: Option<SocketAddr>,
    },
    /// Grants one `Received` of at most so many bytes, or one `Eof`. Nothing arrives that was not asked for.
    Read { at_most: usize },
    /// `ack`: answer with `Sent` when the kernel has taken everything up to here.
    Send { bytes: Buf, ack: bool },
    /// Finish our direction after everything sent so far (FIN). When the peer has finished too, the shell closes the link
    /// and reports `Closed`.
    Finish,
    /// Let go of the link now, both directions, unsent bytes lost (RST). `Closed` will still come.
    Reset,
}

/// Through which door a link came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// From the mesh to the application.
    Inbound,
    /// From the application to the mesh.
    Outbound,
}

/// Why a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCause {
    /// Both directions were finished.
    Finished,
    /// We let go of it.
    Local,
    /// Nobody listened.
    Refused,
    /// The peer reset it.
    Reset,
    /// No way to the peer, or no resources for the link.
    Unreachable,
    /// The operating system gave up waiting.
    TimedOut,
}
