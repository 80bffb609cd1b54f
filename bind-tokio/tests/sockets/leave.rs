//! Links that leave from an address that was asked for.

use std::collections::BTreeSet;
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpListener};

use meshward_core::id::LinkId;
use meshward_core::link::{CloseCause, LinkCommand, LinkEvent};
use meshward_core::proxy::Input;
use meshward_tokio::{Command, bind_listener};

use crate::common::*;

/// Opens `links` to the addresses of `to` in turn, from the address `from` and any port, when it is ticked.
fn opening(
    links: u32,
    to: Vec<SocketAddr>,
    from: IpAddr,
) -> (
    Shard<Scripted>,
    std::sync::mpsc::Receiver<(Input, meshward_core::clock::Now)>,
) {
    let (machine, hear) = Scripted::new(move |input, _, wishes| match input {
        Input::Tick => {
            for (slot, to) in (0..links).zip(to.iter().cycle()) {
                let connect = LinkCommand::Connect {
                    to: *to,
                    from: Some(SocketAddr::new(from, 0)),
                };
                wishes.actions.push((LinkId::opened(slot, 1), connect));
            }
        }
        Input::Link(id, LinkEvent::Connected { .. }) => wishes.send(*id, b"x", false),
        _ => {}
    });
    let shard = Shard::start(move || machine);
    shard.handle.send(Command::Input(FIRST, Input::Tick));
    (shard, hear)
}

#[test]
fn the_peer_sees_the_address_that_a_link_left_from() {
    for from in ["127.0.0.6", "127.1.0.200", "::1"] {
        let from: IpAddr = from.parse().unwrap();
        let here = SocketAddr::new(if from.is_ipv6() { from } else { local().ip() }, 0);
        let Ok(listener) = TcpListener::bind(here) else {
            assert!(from.is_ipv6(), "the machine has no IPv6");
            continue;
        };
        let (shard, hear) = opening(1, vec![listener.local_addr().unwrap()], from);
        let (_, event) = next(&hear);
        let LinkEvent::Connected { local } = event else {
            panic!("{event:?}")
        };
        let (mut accepted, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip(), from);
        assert_eq!(local, peer, "the port too is the real one");
        accepted.read_exact(&mut [0]).unwrap();
        shard.handle.send(Command::Stop);
        join(shard.handle);
    }
}

#[test]
fn an_address_that_is_not_ours_closes_the_link() {
    let listener = TcpListener::bind(local()).unwrap();
    let from = IpAddr::from([192, 0, 2, 1]);
    let (shard, hear) = opening(1, vec![listener.local_addr().unwrap()], from);
    let (_, event) = next(&hear);
    assert!(
        matches!(event, LinkEvent::Closed(CloseCause::Unreachable)),
        "{event:?}"
    );
    shard.drain();
}

#[test]
fn a_thousand_links_leave_from_one_address_to_two_ports() {
    const LINKS: u32 = 1000;
    if !crate::alone::is_child("leave") {
        let name = "leave::a_thousand_links_leave_from_one_address_to_two_ports";
        let child = crate::alone::child(name, "leave", 4096);
        assert_eq!(crate::alone::finish(child), ["1000 links"]);
        return;
    }
    let doors = [0, 1].map(|_| bind_listener(local(), false).unwrap());
    let addrs = [0, 1].map(|i| doors[i].local_addr().unwrap());
    let accepts = doors.map(|door| {
        door.set_nonblocking(false).unwrap();
        std::thread::spawn(move || {
            let accept = |_| door.accept().unwrap();
            (0..LINKS / 2).map(accept).collect::<Vec<_>>()
        })
    });
    let from = IpAddr::from([127, 0, 0, 6]);
    let (shard, hear) = opening(LINKS, addrs.to_vec(), from);
    let mut ours = BTreeSet::new();
    for _ in 0..LINKS {
        match next(&hear) {
            (id, LinkEvent::Connected { local }) => {
                assert!(ours.insert((addrs[id.slot() as usize % 2], local)));
            }
            other => panic!("{other:?}"),
        }
    }
    let mut theirs = BTreeSet::new();
    for (accept, addr) in accepts.into_iter().zip(addrs) {
        for (_, peer) in accept.join().unwrap() {
            assert_eq!(peer.ip(), from);
            assert!(theirs.insert((addr, peer)));
        }
    }
    assert_eq!(ours, theirs);
    crate::alone::say(format_args!("{} links", ours.len()));
    shard.handle.send(Command::Stop);
    join(shard.handle);
}
