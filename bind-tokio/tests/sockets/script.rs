//! What a machine hears, event by event.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use meshward_core::clock::Now;
use meshward_core::id::LinkId;
use meshward_core::link::{CloseCause, Entry, LinkCommand, LinkEvent};
use meshward_core::proxy::Input;
use meshward_tokio::{Command, Driver, bind_listener, spawn_shard};

use crate::common::*;

/// A machine that does to its links what `react` says.
fn start(
    mut react: impl FnMut(LinkId, &LinkEvent, &mut Wishes) + Send + 'static,
) -> (Shard<Scripted>, Receiver<(Input, Now)>) {
    let (machine, hear) = Scripted::new(move |input, _, wishes| {
        if let Input::Link(id, event) = input {
            react(*id, event, wishes);
        }
    });
    (Shard::start(move || machine), hear)
}

/// A shard whose only business is to connect to `to`; `first` says what else is wanted at once.
fn start_connecting(
    to: SocketAddr,
    first: impl Fn(LinkId, &mut Wishes) + Send + 'static,
) -> (Shard<Scripted>, Receiver<(Input, Now)>) {
    let id = LinkId::opened(0, 1);
    let (machine, hear) = Scripted::new(move |input, _, wishes| match input {
        Input::Tick => {
            wishes.connect(id, to);
            first(id, wishes);
        }
        Input::Link(id, LinkEvent::Connected { .. }) => wishes.read(*id, 100),
        _ => {}
    });
    let shard = Shard::start(move || machine);
    assert!(shard.handle.send(Command::Input(FIRST, Input::Tick)));
    (shard, hear)
}

fn nobody() -> SocketAddr {
    let listener = TcpListener::bind(local()).unwrap();
    listener.local_addr().unwrap()
}

#[test]
fn a_link_is_accepted_with_its_door_and_both_its_ends() {
    let (shard, hear) = start(|_, _, _| {});
    let client = shard.connect();
    let (id, event) = next(&hear);
    assert!(id.is_accepted() && id.slot() == 0);
    let LinkEvent::Accepted {
        entry,
        peer,
        original_dst,
    } = event
    else {
        panic!("{event:?}")
    };
    assert_eq!(entry, Entry::Inbound);
    assert_eq!(peer, client.local_addr().unwrap());
    assert_eq!(original_dst, shard.addr);
}

#[test]
fn a_grant_buys_one_piece_of_at_most_its_size() {
    let (shard, hear) = start(|id, event, wishes| match event {
        LinkEvent::Accepted { .. } => wishes.read(id, 3),
        LinkEvent::Received(bytes) if **bytes == *b"abc" => wishes.read(id, 100),
        _ => {}
    });
    let mut client = shard.connect();
    client.write_all(b"abcdefgh").unwrap();
    next(&hear);
    let (_, first) = next(&hear);
    assert!(matches!(first, LinkEvent::Received(b) if *b == *b"abc"));
    let (_, second) = next(&hear);
    assert!(matches!(second, LinkEvent::Received(b) if *b == *b"defgh"));

    // Nothing is granted now: neither bytes nor the end are heard, until the reset is.
    client.write_all(b"unasked").unwrap();
    shard.ask(|_| ());
    assert!(hear.try_recv().is_err());
}

#[test]
fn each_ack_tells_the_bytes_since_the_one_before() {
    let (shard, hear) = start(|id, event, wishes| {
        if let LinkEvent::Accepted { .. } = event {
            wishes.send(id, b"12345", true);
            wishes.send(id, b"67", false);
            wishes.send(id, b"890", true);
            wishes.send(id, b"", true);
            wishes.send(id, b"end", false);
            wishes.finish(id);
        }
    });
    let mut client = shard.connect();
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "1234567890end");
    next(&hear);
    for n in [5, 5, 0] {
        let (_, event) = next(&hear);
        assert!(matches!(event, LinkEvent::Sent(m) if m == n), "{event:?}");
    }
}

#[test]
fn more_pieces_than_one_system_call_takes_arrive_in_order() {
    let (shard, hear) = start(|id, event, wishes| {
        if let LinkEvent::Accepted { .. } = event {
            for i in 0..100u8 {
                wishes.send(id, &[i; 1000], i == 99);
            }
        }
    });
    let mut client = shard.connect();
    let mut all = vec![0; 100_000];
    client.read_exact(&mut all).unwrap();
    assert!(all.chunks(1000).zip(0..).all(|(c, i)| c == [i; 1000]));
    next(&hear);
    assert!(matches!(next(&hear), (_, LinkEvent::Sent(100_000))));
}

#[test]
fn a_send_larger_than_the_kernel_takes_is_acked_when_it_is_all_gone() {
    const LEN: usize = 16 << 20;
    let (shard, hear) = start(|id, event, wishes| {
        if let LinkEvent::Accepted { .. } = event {
            wishes.send(id, &vec![7; LEN], false);
            wishes.send(id, b"last", true);
        }
    });
    let mut client = shard.connect();
    next(&hear);
    shard.ask(|_| ());
    assert!(hear.try_recv().is_err(), "nobody has read it");
    let mut all = vec![0; LEN + 4];
    client.read_exact(&mut all).unwrap();
    assert!(all[..LEN].iter().all(|b| *b == 7) && all.ends_with(b"last"));
    assert!(matches!(next(&hear), (_, LinkEvent::Sent(n)) if n == LEN + 4));
}

#[test]
fn a_link_closes_when_both_directions_are_finished() {
    let (shard, hear) = start(|id, event, wishes| match event {
        LinkEvent::Accepted { .. } => wishes.read(id, 100),
        LinkEvent::Eof => wishes.finish(id),
        _ => {}
    });
    let client = shard.connect();
    client.shutdown(Shutdown::Write).unwrap();
    let (id, _) = next(&hear);
    assert!(matches!(next(&hear), (i, LinkEvent::Eof) if i == id));
    let closed = next(&hear);
    assert!(matches!(closed, (i, LinkEvent::Closed(CloseCause::Finished)) if i == id));
    assert_eq!((&client).read(&mut [0]).unwrap(), 0);
}

#[test]
fn our_fin_leaves_the_peers_direction_open() {
    let (shard, hear) = start(|id, event, wishes| match event {
        LinkEvent::Accepted { .. } => {
            wishes.finish(id);
            wishes.read(id, 100);
        }
        LinkEvent::Received(_) => wishes.read(id, 100),
        _ => {}
    });
    let mut client = shard.connect();
    assert_eq!(client.read(&mut [0]).unwrap(), 0);
    client.write_all(b"late").unwrap();
    next(&hear);
    assert!(matches!(next(&hear), (_, LinkEvent::Received(_))));
    drop(client);
    assert!(matches!(next(&hear), (_, LinkEvent::Eof)));
    let (_, last) = next(&hear);
    assert!(matches!(last, LinkEvent::Closed(CloseCause::Finished)));
}

#[test]
fn a_reset_of_ours_reaches_the_peer_and_later_commands_are_dropped() {
    let (shard, hear) = start(|id, event, wishes| {
        if let LinkEvent::Accepted { .. } = event {
            wishes.send(id, b"lost or not", true);
            wishes.reset(id);
            wishes.read(id, 100);
            wishes.send(id, b"too late", true);
            wishes.finish(id);
            wishes.reset(id);
        }
    });
    let mut client = shard.connect();
    let end = client.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    next(&hear);
    let (_, last) = next(&hear);
    assert!(matches!(last, LinkEvent::Closed(CloseCause::Local)));
    assert_eq!(shard.ask(|d| d.stats().stale_commands), 4);
    assert!(hear.try_recv().is_err(), "`Closed` is last");
}

#[test]
fn an_id_from_before_means_nothing_to_the_link_in_its_slot() {
    let (shard, hear) = start(|id, event, wishes| match event {
        LinkEvent::Accepted { .. } if id.generation() == 1 => wishes.reset(id),
        LinkEvent::Accepted { .. } => {
            wishes.reset(LinkId::accepted(id.slot(), 1));
            wishes.reset(LinkId::opened(id.slot(), id.generation()));
            wishes.send(id, b"alive", false);
        }
        _ => {}
    });
    let first = shard.connect();
    let (old, _) = next(&hear);
    next(&hear);
    let mut second = shard.connect();
    let (new, _) = next(&hear);
    assert_eq!((new.slot(), new.generation()), (old.slot(), 2));
    second.read_exact(&mut [0; 5]).unwrap();
    drop(first);
}

#[test]
fn a_peers_reset_is_noticed_though_nothing_was_ever_granted() {
    let (shard, hear) = start(|_, _, _| {});
    let client = shard.connect();
    next(&hear);
    shard.ask(|_| ());
    reset(client);
    let (_, last) = next(&hear);
    assert!(matches!(last, LinkEvent::Closed(CloseCause::Reset)));
}

#[test]
fn a_peers_reset_is_noticed_though_nothing_is_granted_after_a_read() {
    let (shard, hear) = start(|id, event, wishes| {
        if let LinkEvent::Accepted { .. } = event {
            wishes.read(id, 100);
        }
    });
    let mut client = shard.connect();
    client.write_all(b"request").unwrap();
    next(&hear);
    next(&hear);
    shard.ask(|_| ());
    reset(client);
    let (_, last) = next(&hear);
    assert!(matches!(last, LinkEvent::Closed(CloseCause::Reset)));
}

#[test]
fn an_early_answer_is_heard_though_our_write_failed() {
    let up = TcpListener::bind(local()).unwrap();
    let (to, id) = (up.local_addr().unwrap(), LinkId::opened(0, 1));
    let (machine, hear) = Scripted::new(move |input, _, wishes| match input {
        Input::Tick => wishes.connect(id, to),
        Input::Link(_, LinkEvent::Connected { .. }) => wishes.read(id, 5),
        Input::Link(_, LinkEvent::Received(_)) => wishes.read(id, 5),
        Input::Drain { .. } => wishes.send(id, b"more of the request", true),
        _ => {}
    });
    let shard = Shard::start(move || machine);
    shard.handle.send(Command::Input(FIRST, Input::Tick));
    let (mut stream, _) = up.accept().unwrap();
    next(&hear);
    // The shard learns of the answer and of the reset only after it has tried to write.
    shard.ask(move |driver| {
        stream.write_all(b"early").unwrap();
        reset(stream);
        let grace = Duration::ZERO;
        driver.input(FIRST, Input::Drain { grace });
    });
    assert!(matches!(next(&hear), (_, LinkEvent::Received(b)) if *b == *b"early"));
    let (_, last) = next(&hear);
    assert!(
        matches!(last, LinkEvent::Closed(CloseCause::Reset)),
        "{last:?}"
    );
}

#[test]
fn a_connect_says_where_it_left_from() {
    let up = TcpListener::bind(local()).unwrap();
    let (to, id) = (up.local_addr().unwrap(), LinkId::opened(3, 9));
    let from = Some(SocketAddr::from(([127, 0, 0, 6], 0)));
    let (machine, hear) = Scripted::new(move |input, _, wishes| {
        if let Input::Tick = input {
            wishes.actions.push((id, LinkCommand::Connect { to, from }));
        }
    });
    let shard = Shard::start(move || machine);
    shard.handle.send(Command::Input(FIRST, Input::Tick));

    let (_, peer) = up.accept().unwrap();
    assert_eq!(peer.ip().to_string(), "127.0.0.6");
    let connected = next(&hear);
    assert!(matches!(connected, (i, LinkEvent::Connected { local }) if i == id && local == peer));
}

#[test]
fn what_is_sent_before_the_connect_is_done_goes_out_after_it() {
    let up = TcpListener::bind(local()).unwrap();
    let (shard, hear) = start_connecting(up.local_addr().unwrap(), |id, wishes| {
        wishes.send(id, b"early", true);
        wishes.finish(id);
    });
    let (mut stream, _) = up.accept().unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    assert_eq!(text, "early");
    drop(stream);
    assert!(matches!(next(&hear), (_, LinkEvent::Connected { .. })));
    assert!(matches!(next(&hear), (_, LinkEvent::Sent(5))));
    assert!(matches!(next(&hear), (_, LinkEvent::Eof)));
    let (_, last) = next(&hear);
    assert!(matches!(last, LinkEvent::Closed(CloseCause::Finished)));
    shard.drain();
}

#[test]
fn a_connect_that_fails_says_why() {
    let unreachable = SocketAddr::from(([255, 255, 255, 255], 80));
    for (to, why) in [
        (nobody(), CloseCause::Refused),
        (unreachable, CloseCause::Unreachable),
    ] {
        let (shard, hear) = start_connecting(to, |_, _| {});
        let (_, event) = next(&hear);
        assert!(
            matches!(event, LinkEvent::Closed(c) if c == why),
            "{event:?}"
        );
        shard.drain();
    }
}

#[test]
fn a_connect_can_be_called_off() {
    let up = TcpListener::bind(local()).unwrap();
    let (shard, hear) = start_connecting(up.local_addr().unwrap(), |id, wishes| wishes.reset(id));
    let (_, event) = next(&hear);
    assert!(matches!(event, LinkEvent::Closed(CloseCause::Local)));
    shard.drain();
}

#[test]
fn ticks_come_at_their_deadlines_and_not_before() {
    let ms = Duration::from_millis;
    let mut asked = None;
    let (machine, hear) = Scripted::new(move |input, now: Now, wishes| {
        match (input, asked) {
            (Input::Tick, Some(at)) if now.at >= at => asked = None,
            (Input::Tick, None) => asked = Some(now.at.after(ms(30))),
            // An early tick.
            _ => {}
        }
        wishes.deadline = asked;
    });
    let shard = Shard::start(move || machine);
    shard.handle.send(Command::Input(FIRST, Input::Tick));
    let (_, first) = hear.recv_timeout(SOON).unwrap();
    loop {
        let (_, tick) = hear.recv_timeout(SOON).unwrap();
        if tick.at.since(first.at) >= ms(30) {
            assert!(tick.wall >= first.wall);
            break;
        }
    }
    // No deadline, no ticks.
    assert!(hear.recv_timeout(ms(60)).is_err());
}

#[test]
fn an_earlier_deadline_overtakes_a_later_one() {
    let far = Duration::from_secs(3600);
    let near = Duration::from_millis(5);
    let (machine, hear) = Scripted::new(move |input, now: Now, wishes| {
        wishes.deadline = match input {
            Input::Drain { .. } => Some(now.at.after(far)),
            Input::Link(_, LinkEvent::Accepted { .. }) => Some(now.at.after(near)),
            _ => None,
        };
    });
    let shard = Shard::start(move || machine);
    let grace = Duration::ZERO;
    shard
        .handle
        .send(Command::Input(FIRST, Input::Drain { grace }));
    hear.recv_timeout(SOON).unwrap();
    let _client = shard.connect();
    next(&hear);
    let (input, _) = hear.recv_timeout(SOON).unwrap();
    assert!(matches!(input, Input::Tick));
}

#[test]
fn a_busy_link_starves_neither_its_neighbours_nor_the_clock() {
    const FLOOD: usize = 64 << 10;
    let (machine, hear) = Scripted::new(|input, now: Now, wishes| {
        match input {
            Input::Link(id, LinkEvent::Accepted { .. }) => wishes.read(*id, 100),
            Input::Link(id, LinkEvent::Received(bytes)) if **bytes == *b"flood" => {
                wishes.send(*id, &[0; FLOOD], true);
            }
            Input::Link(id, LinkEvent::Sent(FLOOD)) => wishes.send(*id, &[0; FLOOD], true),
            Input::Link(id, LinkEvent::Received(bytes)) => {
                wishes.send(*id, bytes, false);
                wishes.read(*id, 100);
            }
            _ => {}
        }
        wishes.deadline = Some(now.at.after(Duration::from_millis(1)));
    });
    let shard = Shard::start(move || machine);
    let mut flood = shard.connect();
    flood.write_all(b"flood").unwrap();
    let taker = std::thread::spawn(move || {
        let mut sink = vec![0; FLOOD];
        while flood.read(&mut sink).is_ok_and(|n| n > 0) {}
    });
    let mut client = shard.connect();
    for _ in 0..50 {
        client.write_all(b"ping").unwrap();
        client.read_exact(&mut [0; 4]).unwrap();
    }
    // Each input moves the deadline, so that a tick needs a moment without inputs, or the deadline of another proxy.
    let (clock, ticks) = Scripted::new(|_, now: Now, wishes| {
        wishes.deadline = Some(now.at.after(Duration::from_millis(1)));
    });
    let other = shard.ask(move |driver| driver.add(clock));
    shard.handle.send(Command::Input(other, Input::Tick));
    for _ in 0..5 {
        ticks.recv_timeout(SOON).unwrap();
    }
    drop(hear);
    shard.handle.send(Command::Stop);
    join(shard.handle);
    taker.join().unwrap();
}

#[test]
fn commands_of_other_threads_arrive_in_their_order() {
    let (machine, hear) = Scripted::new(|_, _, _| {});
    let shard = Shard::start(move || machine);
    for i in 0..100 {
        let grace = Duration::from_secs(i);
        shard
            .handle
            .send(Command::Input(FIRST, Input::Drain { grace }));
    }
    for i in 0..100 {
        let (input, _) = hear.recv_timeout(SOON).unwrap();
        assert!(matches!(input, Input::Drain { grace } if grace.as_secs() == i));
    }
}

#[test]
fn a_door_can_be_added_while_the_shard_runs() {
    let (shard, hear) = start(|_, _, _| {});
    let listener = bind_listener(local(), true).unwrap();
    let addr = listener.local_addr().unwrap();
    shard.handle.send(Command::Listen {
        proxy: FIRST,
        listener,
        entry: Entry::Outbound,
        destination: meshward_tokio::Destination::Redirected,
    });
    let _client = connect(addr);
    let (_, event) = next(&hear);
    // Nothing was redirected, so the meant address is the one that was connected to.
    assert!(
        matches!(event, LinkEvent::Accepted { entry: Entry::Outbound, original_dst, .. }
            if original_dst == addr),
        "{event:?}"
    );
}

#[test]
fn a_door_on_all_addresses_tells_each_link_its_own() {
    let (shard, hear) = start(|_, _, _| {});
    let listener = bind_listener(SocketAddr::from(([0, 0, 0, 0], 0)), false).unwrap();
    let port = listener.local_addr().unwrap().port();
    shard.handle.send(Command::Listen {
        proxy: FIRST,
        listener,
        entry: Entry::Inbound,
        destination: meshward_tokio::Destination::Local,
    });
    let to = SocketAddr::from(([127, 0, 0, 9], port));
    let _client = connect(to);
    let (_, event) = next(&hear);
    assert!(
        matches!(event, LinkEvent::Accepted { original_dst, .. } if original_dst == to),
        "{event:?}"
    );
}

#[test]
fn a_panic_of_a_machine_is_the_shards_error() {
    let (machine, _hear) = Scripted::new(|_, _, _| panic!("a promise was broken"));
    let shard = Shard::start(move || machine);
    shard.handle.send(Command::Input(FIRST, Input::Tick));
    wait_until("the shard ends", || shard.handle.is_finished());
    let error = shard.handle.join().unwrap_err().to_string();
    assert_eq!(error, "shard panicked: a promise was broken");
}

#[test]
fn a_shard_that_cannot_be_set_up_does_not_start() {
    let failed = spawn_shard("lame", None, || -> std::io::Result<Driver<Scripted>> {
        Err(std::io::Error::other("no certificate"))
    });
    assert_eq!(failed.unwrap_err().to_string(), "no certificate");
    let pinned = spawn_shard(
        "lame",
        Some(1 << 20),
        || -> std::io::Result<Driver<Scripted>> { panic!("not on this core") },
    );
    assert_eq!(pinned.unwrap_err().kind(), ErrorKind::InvalidInput);
}
