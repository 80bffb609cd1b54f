use std::io::Write;
use std::os::unix::net::UnixStream;

use meshward_core::link::CloseCause;

use super::*;
use crate::limits::READ_BUFFER;
use crate::ring::Completion;

const PROXY: ProxyId = ProxyId(0);

struct Bench {
    ring: Ring,
    links: Links,
    id: LinkId,
    peer: UnixStream,
}

impl Bench {
    fn new() -> Self {
        let (ours, peer) = UnixStream::pair().unwrap();
        let mut links = Links::default();
        links.add_proxy();
        let socket = Socket::from(std::os::fd::OwnedFd::from(ours));
        let id = links.add_accepted(socket, PROXY);
        Self {
            ring: Ring::with_sizes(16, 32, 4).unwrap(),
            links,
            id,
            peer,
        }
    }

    fn command(&mut self, command: LinkCommand) {
        self.links.obey(&mut self.ring, PROXY, self.id, command);
        self.links.drive_touched(&mut self.ring);
    }

    fn read(&mut self) {
        self.command(LinkCommand::Read {
            at_most: READ_BUFFER,
        });
    }

    fn sweep(&mut self) {
        self.links.sweep(&mut self.ring);
        self.ring.turn(false).unwrap();
        self.settle();
    }

    /// Takes in what has completed.
    fn settle(&mut self) {
        while let Some(completion) = self.ring.next() {
            let ring = &mut self.ring;
            match completion {
                Completion::Received {
                    link,
                    done,
                    bytes,
                    dry,
                } => self.links.received(ring, link, done, bytes, dry),
                Completion::Sent { link, sent, parcel } => {
                    self.links.sent(ring, link, sent, parcel);
                }
                Completion::Watched { link, broken, last } => {
                    self.links.watched(ring, link, broken, last);
                }
                other => panic!("{other:?}"),
            }
            self.links.drive_starved(ring);
        }
    }

    fn event(&mut self) -> LinkEvent {
        loop {
            self.settle();
            match self.links.inputs.pop_front() {
                Some((PROXY, Input::Link(id, event))) if id == self.id => return event,
                Some(other) => panic!("{other:?}"),
                None => self.ring.turn(true).unwrap(),
            }
        }
    }

    fn received(&mut self) -> usize {
        match self.event() {
            LinkEvent::Received(bytes) => bytes.len(),
            other => panic!("{other:?}"),
        }
    }

    fn holds_a_large_buffer(&self) -> bool {
        self.links
            .table
            .iter()
            .any(|(_, _, link)| link.landing().is_some())
    }
}

#[test]
fn a_link_waits_with_a_large_buffer_only_after_much_came_and_not_for_long() {
    let mut bench = Bench::new();
    bench.read();
    assert!(!bench.holds_a_large_buffer(), "nothing has come yet");
    bench.peer.write_all(&[1; 20_000]).unwrap();
    assert_eq!(bench.received(), 16 << 10);
    bench.read();
    assert!(bench.holds_a_large_buffer());
    assert_eq!(bench.received(), 20_000 - (16 << 10));

    bench.read();
    assert!(!bench.holds_a_large_buffer(), "little came");
    bench.peer.write_all(&[1; 16 << 10]).unwrap();
    assert_eq!(bench.received(), 16 << 10);
    bench.read();
    for _ in 0..2 {
        assert!(bench.holds_a_large_buffer());
        bench.sweep();
    }
    bench.ring.turn(false).unwrap();
    bench.settle();
    assert!(!bench.holds_a_large_buffer(), "it has waited long enough");
    bench.peer.write_all(b"the grant is still good").unwrap();
    assert_eq!(bench.received(), 23);
}

#[test]
fn closed_comes_once_and_after_the_last_completion() {
    let mut bench = Bench::new();
    bench.sweep();
    bench.read();
    bench.command(LinkCommand::Send {
        bytes: Buf::from(vec![0; 8 << 20]),
        ack: true,
    });
    bench.ring.turn(false).unwrap();
    bench.settle();
    bench.command(LinkCommand::Reset);
    assert!(
        bench.links.inputs.is_empty(),
        "a receive, a send and a watch are under way"
    );
    assert_eq!(bench.links.len(), 1);
    bench.command(LinkCommand::Reset);
    assert_eq!(bench.links.stats.stale_commands, 1);

    assert!(matches!(
        bench.event(),
        LinkEvent::Closed(CloseCause::Local)
    ));
    assert_eq!(bench.links.len(), 0);
    bench.ring.turn(false).unwrap();
    bench.settle();
    assert!(bench.links.inputs.is_empty());
}

#[test]
fn a_late_completion_does_not_meet_the_next_link_in_its_slot() {
    let mut bench = Bench::new();
    let old = Who::new(0, 1);
    bench.command(LinkCommand::Reset);
    assert!(matches!(bench.event(), LinkEvent::Closed(_)));
    let (ours, _peer) = UnixStream::pair().unwrap();
    let socket = Socket::from(std::os::fd::OwnedFd::from(ours));
    bench.id = bench.links.add_accepted(socket, PROXY);
    assert_eq!((bench.id.slot(), bench.id.generation()), (0, 2));

    bench
        .links
        .received(&mut bench.ring, old, Ok(()), Buf::default(), false);
    assert!(bench.links.inputs.is_empty());
}
