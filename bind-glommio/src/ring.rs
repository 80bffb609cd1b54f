//! The ring, and everything that the kernel reads or writes while an operation is under way.
//!
//! All `unsafe` of this crate is here and in `provided`, so that it can be judged here: buffers and addresses come in by value, are kept until
//! the last completion of their operation, and go out with it. Dropping a [`Ring`] cancels everything and waits until no
//! completion is owed; should the kernel refuse even that, the memory is leaked, not freed.
//!
//! Descriptors are the caller's: one must stay open until no operation on it is owed, or a later one meets another file.

mod provided;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use io_uring::squeue::Flags;
use io_uring::types::{CancelBuilder, Fd, SubmitArgs, TimeoutFlags, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use meshward_core::id::{Key, Table};
use meshward_core::link::Buf;
use socket2::SockAddr;

use self::provided::Provided;
use crate::buffers::Chunk;
use crate::limits::{COMPLETIONS, GATHER_MAX, PROVIDED, PROVIDED_SIZE, SUBMISSIONS};

/// Whose an operation is, in the caller's terms: a slot below 2^24 and its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Who {
    slot: u32,
    generation: u32,
}

impl Key for Who {
    fn new(slot: u32, generation: u32) -> Self {
        assert!(slot < 1 << 24, "fewer than 2^24 links and listeners each");
        Self { slot, generation }
    }
    fn slot(self) -> u32 {
        self.slot
    }
    fn generation(self) -> u32 {
        self.generation
    }
}

/// One operation under way, for [`Ring::cancel`]. Names no other one later, because its generation grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Op(u64);

impl Op {
    fn new(kind: u8, who: Who) -> Self {
        Self(u64::from(kind) << 56 | u64::from(who.slot) << 32 | u64::from(who.generation))
    }

    fn kind(self) -> u8 {
        (self.0 >> 56) as u8
    }

    fn who(self) -> Who {
        Who {
            slot: (self.0 >> 32) as u32 & 0xff_ffff,
            generation: self.0 as u32,
        }
    }
}

/// What an operation is.
mod kind {
    pub(super) const ACCEPT: u8 = 0;
    pub(super) const RECEIVE: u8 = 1;
    pub(super) const WATCH: u8 = 2;
    /// An operation with memory: `who` names its entry in `held`.
    pub(super) const HELD: u8 = 3;
    pub(super) const BEAT: u8 = 4;
    pub(super) const ALARM: u8 = 5;
    pub(super) const BELL: u8 = 6;
    pub(super) const CANCEL: u8 = 7;
}

/// How an operation went.
#[derive(Debug)]
pub(crate) enum Completion {
    /// `last`: the listener accepts no more until it is told to again.
    Accepted {
        listener: Who,
        socket: io::Result<OwnedFd>,
        last: bool,
    },
    /// `bytes` are empty if the peer finished, or if it failed. `ENOBUFS`: all provided buffers were in use, ask again.
    /// `dry`: nothing was left in the socket.
    Received {
        link: Who,
        done: io::Result<()>,
        bytes: Buf,
        dry: bool,
    },
    /// `parcel` is for [`Ring::unpack`].
    Sent {
        link: Who,
        sent: io::Result<usize>,
        parcel: Parcel,
    },
    Connected {
        link: Who,
        done: io::Result<()>,
    },
    /// Something happened to a watched socket. `broken`: an error or a hang-up, else the peer's FIN. `last`: the watch is over.
    Watched {
        link: Who,
        broken: bool,
        last: bool,
    },
    /// `number` is that which it was started with; `last`: it has stopped.
    Beat {
        number: u32,
        last: bool,
    },
    /// `rang`: it was not cancelled.
    Alarm {
        number: u32,
        rang: bool,
    },
    /// It has to be asked for again.
    Bell,
}

/// Memory that the kernel may be at.
enum Held {
    Landing {
        link: Who,
        bytes: Buf,
    },
    /// `quiet`: it has no completion unless it fails.
    Parcel {
        link: Who,
        parcel: Parcel,
        quiet: bool,
    },
    Address {
        link: Who,
        _to: Box<SockAddr>,
    },
}

/// Bytes that were handed to the kernel with one operation.
pub(crate) enum Parcel {
    One(Chunk),
    Many(Box<Gather>),
}

impl Parcel {
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::One(chunk) => chunk.bytes.len(),
            Self::Many(gather) => gather.chunks.iter().map(|chunk| chunk.bytes.len()).sum(),
        }
    }
}

/// How a send is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Haste {
    /// As soon as the kernel has room for all of it; completes as soon as that is so.
    Patient,
    /// At once, while it is handed over, and all of it; else it completes short or with `EAGAIN`. That it went well is said
    /// behind the next [`Ring::turn`] that returns, and is no reason for that one to return: who needs to know before calls
    /// [`Ring::hurry`].
    Quiet,
}

/// The arguments of a `sendmsg(2)`.
pub(crate) struct Gather {
    chunks: Vec<Chunk>,
    slices: Vec<libc::iovec>,
    head: libc::msghdr,
}

impl fmt::Debug for Parcel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(chunk) => chunk.fmt(f),
            Self::Many(gather) => gather.chunks.fmt(f),
        }
    }
}

#[derive(Clone, Copy)]
struct HeldKey(Who);

impl Key for HeldKey {
    fn new(slot: u32, generation: u32) -> Self {
        Self(Who::new(slot, generation))
    }
    fn slot(self) -> u32 {
        self.0.slot
    }
    fn generation(self) -> u32 {
        self.0.generation
    }
}

pub(crate) struct Ring {
    io: IoUring,
    held: Table<HeldKey, Held>,
    provided: Option<Provided>,
    /// Completions that are still to come, multishot operations counted once.
    owed: usize,
    /// Completions that have come.
    arrived: VecDeque<cqueue::Entry>,
    /// Quiet sends, in the order in which they were pushed.
    quiet: VecDeque<HeldKey>,
    /// So many of `quiet`, from the front, are over: those that failed have arrived.
    over: usize,
    /// The next turn does not wait.
    hurried: bool,
    /// Entries that the submission queue had no room for.
    backlog: VecDeque<squeue::Entry>,
    beat: Box<Timespec>,
    alarm: Box<Timespec>,
    #[expect(
        clippy::vec_box,
        reason = "they are used in their boxes, which must not move"
    )]
    spare: Vec<Box<Gather>>,
    /// A ring with `SINGLE_ISSUER` obeys the thread that made it alone.
    thread: PhantomData<*const ()>,
}

impl Ring {
    pub(crate) fn new() -> io::Result<Self> {
        Self::with_sizes(SUBMISSIONS, COMPLETIONS, PROVIDED)
    }

    /// `provided` is a power of two.
    pub(crate) fn with_sizes(
        submissions: u32,
        completions: u32,
        provided: u16,
    ) -> io::Result<Self> {
        let io = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(completions)
            .build(submissions)?;
        let provided = Provided::register(&io, provided)?;
        Ok(Self {
            io,
            held: Table::default(),
            provided: Some(provided),
            owed: 0,
            arrived: VecDeque::new(),
            quiet: VecDeque::new(),
            over: 0,
            hurried: false,
            backlog: VecDeque::new(),
            beat: Box::default(),
            alarm: Box::default(),
            spare: Vec::new(),
            thread: PhantomData,
        })
    }

    /// Accepts until it fails or is cancelled.
    pub(crate) fn accept(&mut self, listener: RawFd, who: Who) -> Op {
        let op = Op::new(kind::ACCEPT, who);
        let entry = opcode::AcceptMulti::new(Fd(listener)).flags(libc::SOCK_CLOEXEC);
        self.push(entry.build(), op)
    }

    /// Receives once, at most `PROVIDED_SIZE` bytes, without a buffer while there is nothing to receive. `dry`: there is likely
    /// nothing yet, so wait before the first try.
    pub(crate) fn receive(&mut self, socket: RawFd, at_most: usize, dry: bool, link: Who) -> Op {
        let op = Op::new(kind::RECEIVE, link);
        self.push(receive_provided(socket, at_most, dry), op)
    }

    /// Receives once, straight into the room behind what is in `bytes`, but not more than `at_most`. `dry` as in
    /// [`receive`](Self::receive).
    pub(crate) fn receive_into(
        &mut self,
        socket: RawFd,
        mut bytes: Buf,
        at_most: usize,
        dry: bool,
        link: Who,
    ) -> Op {
        let room = bytes.storage().spare_capacity_mut();
        let (at, len) = (room.as_mut_ptr(), room.len().min(at_most) as u32);
        let op = self.hold(Held::Landing { link, bytes });
        let entry = opcode::Recv::new(Fd(socket), at.cast(), len).ioprio(poll_first(dry));
        self.push(entry.build(), op)
    }

    /// Sends from the front of `queue`, which must not be empty. What is sent with patience completes short only if it failed on
    /// the way.
    pub(crate) fn send(
        &mut self,
        socket: RawFd,
        queue: &mut VecDeque<Chunk>,
        haste: Haste,
        link: Who,
    ) -> Op {
        // With `WAITALL` less than all is a failure, which completes whatever was skipped; with `DONTWAIT` the kernel is done
        // with the memory when it has taken the entry.
        let (flags, skip) = match haste {
            Haste::Patient => (libc::MSG_WAITALL | libc::MSG_NOSIGNAL, Flags::empty()),
            Haste::Quiet => (
                libc::MSG_WAITALL | libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT,
                Flags::SKIP_SUCCESS,
            ),
        };
        let quiet = haste == Haste::Quiet;
        let (op, entry) = self.pack(socket, queue, flags, quiet, link);
        if quiet {
            self.quiet.push_back(HeldKey(op.who()));
        }
        self.push(entry.flags(skip), op)
    }

    fn pack(
        &mut self,
        socket: RawFd,
        queue: &mut VecDeque<Chunk>,
        flags: i32,
        quiet: bool,
        link: Who,
    ) -> (Op, squeue::Entry) {
        if queue.len() > 1 {
            let mut gather = self.spare.pop().unwrap_or_else(Gather::boxed);
            let head = gather.fill(queue);
            let parcel = Parcel::Many(gather);
            let entry = opcode::SendMsg::new(Fd(socket), head).flags(flags as u32);
            return (self.hold_parcel(link, parcel, quiet), entry.build());
        }
        let chunk = queue.pop_front().expect("there is something to send");
        let (at, len) = (chunk.bytes.as_ptr(), chunk.bytes.len() as u32);
        let parcel = Parcel::One(chunk);
        let entry = opcode::Send::new(Fd(socket), at, len).flags(flags);
        (self.hold_parcel(link, parcel, quiet), entry.build())
    }

    fn hold_parcel(&mut self, link: Who, parcel: Parcel, quiet: bool) -> Op {
        self.hold(Held::Parcel {
            link,
            parcel,
            quiet,
        })
    }

    /// Somebody waits for what a quiet send will say.
    pub(crate) fn hurry(&mut self) {
        self.hurried = true;
    }

    /// Puts what a completed send had taken back where it was.
    pub(crate) fn unpack(&mut self, parcel: Parcel, queue: &mut VecDeque<Chunk>) {
        match parcel {
            Parcel::One(chunk) => queue.push_front(chunk),
            Parcel::Many(mut gather) => {
                while let Some(chunk) = gather.chunks.pop() {
                    queue.push_front(chunk);
                }
                if self.spare.len() < crate::limits::SPARES_MAX {
                    self.spare.push(gather);
                }
            }
        }
    }

    pub(crate) fn connect(&mut self, socket: RawFd, to: SockAddr, link: Who) -> Op {
        let to = Box::new(to);
        let (at, len) = (to.as_ptr(), to.len());
        let op = self.hold(Held::Address { link, _to: to });
        self.push(opcode::Connect::new(Fd(socket), at.cast(), len).build(), op)
    }

    /// Tells of errors, hang-ups and the peer's FIN, without receiving, until it is cancelled.
    pub(crate) fn watch(&mut self, socket: RawFd, link: Who) -> Op {
        let op = Op::new(kind::WATCH, link);
        // The kernel adds errors, hang-ups and the FIN to any mask.
        let entry = opcode::PollAdd::new(Fd(socket), 0).multi(true);
        self.push(entry.build(), op)
    }

    /// Tells when somebody writes to the other end of `socket`, and takes what was written.
    pub(crate) fn bell(&mut self, socket: RawFd) {
        let op = Op::new(kind::BELL, Who::new(0, 0));
        self.push(receive_provided(socket, PROVIDED_SIZE, true), op);
    }

    /// Completes every `period` from now on.
    pub(crate) fn beat(&mut self, period: Duration, number: u32) -> Op {
        *self.beat = Timespec::from(period);
        let op = Op::new(kind::BEAT, Who::new(0, number));
        let entry = opcode::Timeout::new(&raw const *self.beat).flags(TimeoutFlags::MULTISHOT);
        self.push(entry.build(), op)
    }

    /// Completes after `span`.
    pub(crate) fn alarm(&mut self, span: Duration, number: u32) -> Op {
        *self.alarm = Timespec::from(span);
        let op = Op::new(kind::ALARM, Who::new(0, number));
        self.push(opcode::Timeout::new(&raw const *self.alarm).build(), op)
    }

    /// The operation completes soon: with what it has, or with `ECANCELED`.
    pub(crate) fn cancel(&mut self, op: Op) {
        self.push(
            opcode::AsyncCancel::new(op.0).build(),
            Op::new(kind::CANCEL, Who::new(0, 0)),
        );
    }

    /// Hands over what was pushed, and waits for a completion if `block`.
    pub(crate) fn turn(&mut self, block: bool) -> io::Result<()> {
        self.take_backlog();
        let hurried = mem::take(&mut self.hurried);
        let want = usize::from(block && !hurried && self.backlog.is_empty());
        match self.io.submit_and_wait(want) {
            Err(e) if !is_passing(&e) => return Err(e),
            Ok(_) | Err(_) => {}
        }
        self.collect();
        Ok(())
    }

    /// Takes in the completions that have come.
    fn collect(&mut self) {
        let submission = self.io.submission();
        let all_told = submission.is_empty() && !submission.cq_overflow();
        drop(submission);
        for entry in self.io.completion() {
            let op = Op(entry.user_data());
            if op.kind() == kind::HELD
                && let Some(Held::Parcel { quiet, .. }) = self.held.get_mut(HeldKey(op.who()))
            {
                *quiet = false;
            }
            self.arrived.push_back(entry);
        }
        // The kernel has done what it took from the queue at once, and told of what failed before it returned.
        if all_told && self.backlog.is_empty() {
            self.over = self.quiet.len();
        }
    }

    /// The next completion that has come. Quiet sends come first: what arrived after them may want to send too.
    pub(crate) fn next(&mut self) -> Option<Completion> {
        while self.over > 0 {
            self.over -= 1;
            let Some(key) = self.quiet.pop_front() else {
                break;
            };
            if let Some(Held::Parcel { quiet: true, .. }) = self.held.get(key)
                && let Some(Held::Parcel { link, parcel, .. }) = self.held.remove(key)
            {
                self.owed -= 1;
                return Some(Completion::Sent {
                    link,
                    sent: Ok(parcel.len()),
                    parcel,
                });
            }
        }
        loop {
            let entry = self.arrived.pop_front()?;
            let last = !cqueue::more(entry.flags());
            if last {
                self.owed -= 1;
            }
            let completion = self.complete(Op(entry.user_data()), entry, last);
            if completion.is_some() {
                return completion;
            }
        }
    }

    fn complete(&mut self, op: Op, entry: cqueue::Entry, last: bool) -> Option<Completion> {
        let (who, result) = (op.who(), check(entry.result()));
        Some(match op.kind() {
            kind::ACCEPT => Completion::Accepted {
                listener: who,
                // SAFETY: the kernel made this descriptor for this completion, and nobody else has seen it.
                socket: result.map(|fd| unsafe { OwnedFd::from_raw_fd(fd as RawFd) }),
                last,
            },
            kind::RECEIVE => {
                let bytes = self.take_provided(&result, entry.flags());
                Completion::Received {
                    link: who,
                    dry: is_dry(&result, entry.flags()),
                    done: result.map(drop),
                    bytes,
                }
            }
            kind::WATCH => Completion::Watched {
                link: who,
                broken: result.is_ok_and(|events| {
                    events as i32 & i32::from(libc::POLLERR | libc::POLLHUP) != 0
                }),
                last,
            },
            kind::HELD => match self.held.remove(HeldKey(who))? {
                Held::Landing { link, mut bytes } => {
                    if let Ok(n) = &result {
                        let storage = bytes.storage();
                        let len = storage.len() + *n as usize;
                        // SAFETY: the kernel wrote `n` bytes from where the initialized ones end, and was given no more room
                        // than the capacity.
                        unsafe { storage.set_len(len) };
                    }
                    Completion::Received {
                        link,
                        dry: is_dry(&result, entry.flags()),
                        done: result.map(drop),
                        bytes,
                    }
                }
                Held::Parcel { link, parcel, .. } => Completion::Sent {
                    link,
                    sent: result.map(|n| n as usize),
                    parcel,
                },
                Held::Address { link, .. } => Completion::Connected {
                    link,
                    done: result.map(drop),
                },
            },
            kind::BEAT => Completion::Beat {
                number: who.generation,
                last,
            },
            kind::ALARM => Completion::Alarm {
                number: who.generation,
                rang: result.is_err_and(|e| e.raw_os_error() == Some(libc::ETIME)),
            },
            kind::BELL => {
                self.take_provided(&result, entry.flags());
                Completion::Bell
            }
            _ => return None,
        })
    }

    /// What the kernel wrote into the provided buffer that a completion names; nothing if it names none.
    fn take_provided(&mut self, result: &io::Result<u32>, flags: u32) -> Buf {
        match (cqueue::buffer_select(flags), &mut self.provided) {
            (Some(id), Some(provided)) => {
                provided.take(id, *result.as_ref().unwrap_or(&0) as usize)
            }
            _ => Buf::default(),
        }
    }

    fn hold(&mut self, held: Held) -> Op {
        let HeldKey(key) = self.held.insert(held);
        Op::new(kind::HELD, key)
    }

    fn push(&mut self, entry: squeue::Entry, op: Op) -> Op {
        self.owed += 1;
        let entry = entry.user_data(op.0);
        if !self.backlog.is_empty() || !self.offer(&entry) {
            self.backlog.push_back(entry);
            self.take_backlog();
        }
        op
    }

    fn take_backlog(&mut self) {
        while let Some(entry) = self.backlog.pop_front() {
            if !self.offer(&entry) {
                self.backlog.push_front(entry);
                if self.io.submit().is_err() || self.io.submission().is_full() {
                    return;
                }
            }
        }
    }

    /// `false`: the submission queue is full.
    fn offer(&mut self, entry: &squeue::Entry) -> bool {
        // SAFETY: an entry points to memory in `held`, whose buffers do not move while they are there and are not freed before
        // the operation's last completion, or to the two `Timespec`s, which the kernel reads when it takes the entry; all of
        // them live as long as the ring, whose `drop` waits for the kernel.
        unsafe { self.io.submission().push(entry) }.is_ok()
    }

    /// Cancels everything and waits for it; `false`: the kernel does not answer.
    fn drain(&mut self) -> bool {
        while self.owed > 0 {
            self.push(
                opcode::AsyncCancel2::new(CancelBuilder::any()).build(),
                Op::new(kind::CANCEL, Who::new(0, 0)),
            );
            self.take_backlog();
            let span = Timespec::from(Duration::from_millis(100));
            let args = SubmitArgs::new().timespec(&span);
            if let Err(e) = self.io.submitter().submit_with_args(1, &args)
                && !is_passing(&e)
                && e.raw_os_error() != Some(libc::ETIME)
            {
                return false;
            }
            self.collect();
            // Sockets that were accepted are closed here.
            while self.next().is_some() {}
        }
        true
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.drain() {
            let _ = self.io.submitter().unregister_buf_ring(Provided::GROUP);
        } else {
            mem::forget(mem::take(&mut self.held));
            mem::forget(self.provided.take());
        }
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("owed", &self.owed)
            .field("held", &self.held.len())
            .finish_non_exhaustive()
    }
}

impl Gather {
    fn boxed() -> Box<Self> {
        Box::new(Self {
            chunks: Vec::with_capacity(GATHER_MAX),
            slices: Vec::with_capacity(GATHER_MAX),
            // SAFETY: `msghdr` is made of integers and pointers, for which zero is a value.
            head: unsafe { mem::zeroed() },
        })
    }

    /// Takes up to `GATHER_MAX` chunks; what it returns is good as long as the box lives and is left alone.
    fn fill(&mut self, queue: &mut VecDeque<Chunk>) -> *const libc::msghdr {
        let n = queue.len().min(GATHER_MAX);
        self.chunks.clear();
        self.chunks.extend(queue.drain(..n));
        self.slices.clear();
        self.slices
            .extend(self.chunks.iter().map(|chunk| libc::iovec {
                iov_base: chunk.bytes.as_ptr().cast_mut().cast(),
                iov_len: chunk.bytes.len(),
            }));
        self.head.msg_iov = self.slices.as_mut_ptr();
        self.head.msg_iovlen = self.slices.len();
        &raw const self.head
    }
}

fn receive_provided(socket: RawFd, at_most: usize, dry: bool) -> squeue::Entry {
    let len = at_most.min(PROVIDED_SIZE) as u32;
    opcode::Recv::new(Fd(socket), std::ptr::null_mut(), len)
        .buf_group(Provided::GROUP)
        .ioprio(poll_first(dry))
        .build()
        .flags(Flags::BUFFER_SELECT)
}

/// `IORING_RECVSEND_POLL_FIRST`, which spares the kernel a try that finds nothing.
fn poll_first(dry: bool) -> u16 {
    u16::from(dry)
}

/// A receive got bytes and left none behind.
fn is_dry(result: &io::Result<u32>, flags: u32) -> bool {
    matches!(result, Ok(1..)) && !cqueue::sock_nonempty(flags)
}

/// The call may be made again.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINTR | libc::EAGAIN | libc::EBUSY)
    )
}

fn check(result: i32) -> io::Result<u32> {
    u32::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

/// Leaves the choice of the local port to `connect`, which then needs a free pair of ends and not a free port: without it all
/// links that leave from one address share some 28,000 ports (decision 27, ip(7)).
pub(crate) fn bind_address_no_port(socket: &impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the descriptor is open while `socket` is borrowed; the kernel reads `size_of::<c_int>()` bytes at `&on`, which
    // outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Bytes of memory that this process may lock (soft limit).
pub(crate) fn memlock() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes one `rlimit` at `&limit`, which outlives the call.
    let done = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) };
    if done == 0 {
        Ok(limit.rlim_cur)
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests;
