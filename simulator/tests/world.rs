//! The world and its network, ruled by a toy that forwards bytes.

mod toy;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use meshward_core::id::LinkId;
use meshward_core::link::Entry;
use meshward_simulator::chance::Chance;
use meshward_simulator::clock::WallClock;
use meshward_simulator::net::Weather;
use meshward_simulator::peer::{Ending, Hands, Speaker};
use meshward_simulator::trace::Trace;
use meshward_simulator::world::{Node, World};
use toy::Toy;

type Toys = World<Toy, Speaker<()>>;

const HOUR: Duration = Duration::from_secs(3600);

fn ip(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 1, 0, last))
}

/// client (peer 0) → proxy (process 0) at 127.1.0.1:8080 → application (peer 1) at 127.1.0.1:18080.
fn forwarding(seed: u64, weather: Weather) -> (Toys, SocketAddr) {
    let mut world = World::new(seed, weather, Trace::with_lines());
    let (front, back) = (SocketAddr::new(ip(1), 8080), SocketAddr::new(ip(1), 18_080));
    let proxy = world.add_process(Toy::new(back), ip(1), WallClock::default());
    let client = world.add_peer(Speaker::new(()), ip(9));
    let app = world.add_peer(Speaker::new(()), ip(1));
    assert_eq!((proxy, client, app), (0, 0, 1));
    world.listen(Node::Process(0), front, Entry::Inbound);
    world.listen(Node::Peer(1), back, Entry::Inbound);
    (world, front)
}

fn act<R>(world: &mut Toys, peer: usize, act: impl FnOnce(&mut Hands) -> R) -> R {
    world.poke(peer, |p, _, out| p.act(out, act))
}

fn only(world: &Toys, peer: usize) -> LinkId {
    let ids: Vec<_> = world.peer(peer).hands.conns().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), 1, "one connection");
    ids[0]
}

fn rough(chance: &mut Chance) -> Weather {
    Weather {
        latency_ns: 1_000..=chance.within(1_000..=50_000_000),
        bandwidth: chance.pick(&[0, 1_000_000, 50_000_000]),
        segment: 1..=chance.pick(&[1, 7, 1448, 65_536]),
        send_buffer: chance.within(1..=200_000) as usize,
        receive_buffer: chance.within(1..=200_000) as usize,
        short_read_one_in: chance.within(0..=4),
        ..Weather::calm()
    }
}

#[test]
fn bytes_come_out_as_they_went_in_however_they_are_cut() {
    for seed in 0..60 {
        let mut chance = Chance::new(seed, 100);
        let (mut world, front) = forwarding(seed, rough(&mut chance));
        let mut there = vec![0; chance.within(1..=20_000) as usize];
        let mut back = vec![0; chance.within(1..=20_000) as usize];
        chance.fill(&mut there);
        chance.fill(&mut back);

        let id = act(&mut world, 0, |h| h.open(front, None, None));
        act(&mut world, 0, |h| {
            h.send(id, &there);
            h.finish(id);
        });
        world.settle();
        let app = only(&world, 1);
        assert_eq!(world.peer(1).hands.conn(app).ending, Some(Ending::Fin));
        act(&mut world, 1, |h| {
            h.send(app, &back);
            h.finish(app);
        });
        world.settle();

        assert!(world.peer(1).hands.conn(app).received == there, "{seed}");
        assert!(world.peer(0).hands.conn(id).received == back, "{seed}");
        assert_eq!(world.peer(0).hands.conn(id).ending, Some(Ending::Fin));
        assert!(world.exhaust(HOUR), "nothing is left to happen");
        assert_eq!(world.process(0).open_links(), 0);
        assert_eq!(world.net().open_streams(), 0);
    }
}

#[test]
fn every_link_closes_once_whatever_is_reset() {
    let mut resets = 0;
    for seed in 0..200 {
        let mut chance = Chance::new(seed, 101);
        let weather = Weather {
            reset_one_in: 20,
            reset_loses_unread: chance.one_in(2),
            refuse_one_in: 10,
            unreachable_one_in: 10,
            ..rough(&mut chance)
        };
        let (mut world, front) = forwarding(seed, weather);
        let ids: Vec<_> = (0..4)
            .map(|_| act(&mut world, 0, |h| h.open(front, None, None)))
            .collect();
        for id in ids {
            act(&mut world, 0, |h| h.send(id, &[7; 3000]));
            world.advance(Duration::from_millis(chance.within(0..=30)));
            match chance.within(0..=2) {
                0 => act(&mut world, 0, |h| h.reset(id)),
                _ => act(&mut world, 0, |h| h.finish(id)),
            }
        }
        world.settle();
        let apps: Vec<_> = world.peer(1).hands.conns().map(|(id, _)| id).collect();
        for app in apps {
            act(&mut world, 1, |h| h.finish(app));
        }
        world.settle();
        assert!(world.exhaust(HOUR), "seed {seed}");
        let tally = world.process(0).tally();
        assert_eq!(tally.links, tally.closed, "seed {seed}");
        assert_eq!(world.net().open_streams(), 0, "seed {seed}");
        resets += world.net().stats().resets;
    }
    assert!(
        resets > 100,
        "{resets} resets are too few to mean something"
    );
}

#[test]
fn a_slow_reader_holds_the_writer_back() {
    let weather = Weather {
        send_buffer: 10_000,
        receive_buffer: 10_000,
        ..Weather::calm()
    };
    let (mut world, front) = forwarding(1, weather);
    let id = act(&mut world, 0, |h| h.open(front, None, None));
    world.settle();
    let app = only(&world, 1);
    act(&mut world, 1, |h| h.pause(app));
    act(&mut world, 0, |h| h.send(id, &vec![1; 1_000_000]));
    world.settle();
    let passed = world.net().stats().bytes;
    assert!(passed < 300_000, "{passed} bytes went on their way");

    act(&mut world, 1, |h| h.resume(app));
    world.settle();
    assert_eq!(world.peer(1).hands.conn(app).received.len(), 1_000_000);
}

#[test]
fn a_paused_reader_hears_of_a_reset() {
    let (mut world, front) = forwarding(2, Weather::calm());
    let id = act(&mut world, 0, |h| h.open(front, None, None));
    world.settle();
    let app = only(&world, 1);
    act(&mut world, 1, |h| h.pause(app));
    // The first read was granted before the pause.
    for bytes in [&b"read "[..], b"unread"] {
        act(&mut world, 0, |h| h.send(id, bytes));
        world.settle();
    }
    act(&mut world, 0, |h| h.reset(id));
    world.settle();
    assert_eq!(world.peer(1).hands.conn(app).ending, None, "not looked yet");
    act(&mut world, 1, |h| h.resume(app));
    world.settle();
    let conn = world.peer(1).hands.conn(app);
    assert_eq!(conn.ending, Some(Ending::Reset));
    assert_eq!(conn.received, b"read unread");
}

#[test]
fn nobody_listening_is_refused_and_a_cut_off_address_unreachable() {
    let (mut world, front) = forwarding(3, Weather::calm());
    let (closed, away) = (SocketAddr::new(ip(3), 1), SocketAddr::new(ip(4), 1));
    world.net().cut_off(away);
    let ids = act(&mut world, 0, |h| {
        [closed, away, front].map(|to| h.open(to, None, None))
    });
    world.settle();
    let endings = ids.map(|id| world.peer(0).hands.conn(id).ending);
    assert_eq!(
        endings,
        [Some(Ending::Refused), Some(Ending::Unreachable), None]
    );
}

#[test]
fn equal_seeds_give_equal_runs_and_another_seed_another() {
    let run = |seed| {
        let mut chance = Chance::new(seed, 102);
        let (mut world, front) = forwarding(seed, rough(&mut chance));
        let id = act(&mut world, 0, |h| h.open(front, None, None));
        act(&mut world, 0, |h| h.send(id, &[3; 5000]));
        world.settle();
        world.trace().hash()
    };
    assert_eq!(run(5), run(5));
    assert_ne!(run(5), run(6));
}

#[test]
fn a_captured_peer_reaches_the_outbound_entry() {
    let (mut world, _) = forwarding(4, Weather::calm());
    world.capture(0, 0);
    let service = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1)), 80);
    let id = act(&mut world, 0, |h| h.open(service, None, None));
    act(&mut world, 0, |h| h.send(id, b"hello"));
    world.settle();
    assert!(
        world
            .trace()
            .lines()
            .iter()
            .any(|l| l.contains("accepted outbound from") && l.ends_with("to 10.96.0.1:80")),
        "{:#?}",
        world.trace().lines()
    );
    let app = only(&world, 1);
    assert_eq!(world.peer(1).hands.conn(app).received, b"hello");
}
