//! Drives meshward's machines over tokio sockets.
//!
//! One [`Driver`] per shard: one thread, one current-thread runtime, one task. The task owns any number of machines and all
//! their sockets, so no link has a task, a channel or a lock of its own. It decides nothing: what it does to a link was
//! asked for by a machine, or is an error of the operating system.
//!
//! ```text
//!    tokio readiness ──► wakers ──► ready list ─┐
//!    other threads ────► commands ──────────────┤
//!    Sleep ─────────────► ticks ────────────────┤
//!                                               ▼
//!          ┌──────── inputs ◄──────── serve a ready socket
//!          ▼                                    ▲
//!    Machine::handle ──► actions ──► obey: queue bytes, grant reads, connect, reset
//! ```
//!
//! One turn is bounded ([`limits`]), each link gets one read at a time and then goes to the end of the line.
//!
//! A machine that greets and hangs up, on a shard of its own:
//!
//! ```
//! use std::collections::VecDeque;
//! use std::io::Read;
//! use std::time::Duration;
//!
//! use meshward_core::clock::{Deadline, Now};
//! use meshward_core::link::{Buf, Entry, LinkCommand, LinkEvent};
//! use meshward_core::machine::Machine;
//! use meshward_core::proxy::{Action, Input};
//! use meshward_tokio::{Clock, Command, Destination, Driver, bind_listener, spawn_shard};
//!
//! #[derive(Default)]
//! struct Greeter(VecDeque<Action>);
//!
//! impl Machine for Greeter {
//!     type Input = Input;
//!     type Action = Action;
//!
//!     fn handle(&mut self, input: Input, _: Now) {
//!         if let Input::Link(id, LinkEvent::Accepted { .. }) = input {
//!             let bytes = Buf::from(&b"hello"[..]);
//!             for command in [
//!                 LinkCommand::Send { bytes, ack: false },
//!                 LinkCommand::Finish,
//!                 LinkCommand::Read { at_most: 1 },
//!             ] {
//!                 self.0.push_back(Action::Link(id, command));
//!             }
//!         }
//!     }
//!     fn poll_action(&mut self) -> Option<Action> {
//!         self.0.pop_front()
//!     }
//!     fn poll_timeout(&self) -> Option<Deadline> {
//!         None
//!     }
//! }
//!
//! # fn main() -> std::io::Result<()> {
//! let door = bind_listener(([127, 0, 0, 1], 0).into(), false)?;
//! let addr = door.local_addr()?;
//! let shard = spawn_shard("shard-0", None, move || {
//!     let mut driver = Driver::new(Clock::start(), Box::new(|_, record| println!("{record:?}")));
//!     let proxy = driver.add(Greeter::default());
//!     driver.listen(proxy, door, Entry::Inbound, Destination::Local)?;
//!     Ok(driver)
//! })?;
//!
//! let mut text = String::new();
//! std::net::TcpStream::connect(addr)?.read_to_string(&mut text)?;
//! assert_eq!(text, "hello");
//! shard.send(Command::Drain { grace: Duration::ZERO });
//! assert_eq!(shard.join()?.accepted, 1);
//! # Ok(())
//! # }
//! ```

pub mod limits;

mod buffers;
mod clock;
mod deadlines;
mod driver;
mod link;
mod listen;
mod remote;
mod shard;
mod sys;
mod wake;

pub use clock::Clock;
pub use driver::{Driver, ProxyId, Sink, Stats};
pub use listen::{Destination, bind_listener};
pub use remote::{Command, Remote};
pub use shard::{ShardHandle, spawn_shard};
pub use sys::bind_address_no_port;
