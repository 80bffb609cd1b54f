//! Every limit of the shell, with unit and reason.

use std::time::Duration;

/// Connections that wait to be accepted, per listener; the kernel lowers it to `net.core.somaxconn` (4096 since Linux 5.4).
pub const LISTEN_BACKLOG: i32 = 4096;
/// Completions and inputs served before timers and commands are looked at: about a millisecond.
pub const EVENTS_PER_TURN: usize = 256;
/// How long a listener rests when the process or the system is out of descriptors or memory.
pub const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);
/// Bytes of a buffer that bodies are received into; no read is larger.
pub const READ_BUFFER: usize = meshward_core::limits::READ_BODY;
/// Bytes received below which they are copied into a buffer of their size, so that a large buffer handed out is at least a
/// fourth full.
pub const COPY_BELOW: usize = READ_BUFFER / 4;
/// Large buffers, and queues for sending, that are kept for reuse, per driver.
pub const SPARES_MAX: usize = 64;
/// Buffers that go out with one operation.
pub const GATHER_MAX: usize = 32;

/// Operations handed to the kernel with one system call; more take another.
pub const SUBMISSIONS: u32 = 512;
/// Completions that the ring holds; what does not fit waits in the kernel.
pub const COMPLETIONS: u32 = 4096;
/// Buffers that the kernel picks from when bytes come for a waiting link. Each is given back within the turn, so this is how
/// many links can become readable in one turn before some have to ask again. A power of two, 4 MiB in all, used round robin:
/// more of them cost cache.
pub const PROVIDED: u16 = 256;
/// Bytes of a provided buffer.
pub const PROVIDED_SIZE: usize = meshward_core::limits::READ_HEAD;

/// How often the executor gets its turn while traffic flows, and how late a deadline may be seen then. A turn costs some 80 µs:
/// at 2 ms that was more than the traffic itself at 500 messages a second.
pub const BEAT: Duration = Duration::from_millis(8);
/// Beats without traffic before the beat stops. Falling asleep and waking through the executor costs as much as several beats,
/// so a link that speaks every few milliseconds is waited for.
pub const QUIET_AFTER: u32 = 2;
/// How long the executor runs one task before it wants to look at the others.
pub const PREEMPT: Duration = Duration::from_millis(2);
/// Bytes that glommio reserves for files; its default of 10 MiB is for storage engines.
pub const IO_MEMORY: usize = 64 * 1024;
/// Bytes of memory that a process must be allowed to lock; glommio does not start below it.
pub const MEMLOCK_MIN: u64 = 512 * 1024;
