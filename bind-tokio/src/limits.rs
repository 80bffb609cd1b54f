//! Every limit of the shell, with unit and reason.

use std::time::Duration;

/// Connections that wait to be accepted, per listener; the kernel lowers it to `net.core.somaxconn` (4096 since Linux 5.4).
pub const LISTEN_BACKLOG: i32 = 4096;
/// Connections taken from one listener before the other sockets get their turn.
pub const ACCEPTS_PER_TURN: usize = 32;
/// Inputs fed and sockets served before timers, commands and new readiness are looked at: about a millisecond.
pub const EVENTS_PER_TURN: usize = 256;
/// How long a listener rests when the process or the system is out of descriptors or memory.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Bytes of the buffer that is read into; no read is larger.
pub const READ_BUFFER: usize = meshward_core::limits::READ_BODY;
/// Bytes read below which they are copied into a buffer of their size, so that a buffer handed out is at least a fourth full.
/// Copying 600 bytes costs a hundredth of the read; keeping 64 KiB alive for them costs the memory of a hundred idle links.
pub const COPY_BELOW: usize = READ_BUFFER / 4;
/// Read buffers, and queues for sending, that are kept for reuse, per driver.
pub const SPARES_MAX: usize = 64;
/// Buffers that go out with one system call.
pub const WRITEV_MAX: usize = 32;
