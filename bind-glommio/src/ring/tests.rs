use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;

use super::*;

fn who(slot: u32) -> Who {
    Who::new(slot, slot + 100)
}

fn chunk(bytes: &[u8]) -> Chunk {
    Chunk {
        bytes: Buf::from(bytes),
        ack: false,
    }
}

fn wait(ring: &mut Ring) -> Completion {
    loop {
        if let Some(completion) = ring.next() {
            return completion;
        }
        ring.turn(true).unwrap();
    }
}

fn received(ring: &mut Ring) -> (Who, io::Result<()>, Buf) {
    match wait(ring) {
        Completion::Received {
            link, done, bytes, ..
        } => (link, done, bytes),
        other => panic!("{other:?}"),
    }
}

fn pairs(n: usize) -> Vec<(UnixStream, UnixStream)> {
    (0..n).map(|_| UnixStream::pair().unwrap()).collect()
}

#[test]
fn an_operation_says_what_it_is_and_whose() {
    let who = Who::new((1 << 24) - 1, u32::MAX);
    for kind in [kind::ACCEPT, kind::HELD, kind::CANCEL] {
        let op = Op::new(kind, who);
        assert_eq!((op.kind(), op.who()), (kind, who));
    }
}

#[test]
#[should_panic(expected = "fewer than 2^24")]
fn a_slot_that_would_run_into_the_kind_is_refused() {
    Who::new(1 << 24, 1);
}

#[test]
fn more_operations_than_the_queue_holds_are_all_done() {
    let mut ring = Ring::with_sizes(2, 4, 32).unwrap();
    let pairs = pairs(20);
    for ((ours, theirs), slot) in pairs.iter().zip(0..) {
        (&*theirs).write_all(&[slot as u8]).unwrap();
        ring.receive(ours.as_raw_fd(), 100, slot % 2 == 0, who(slot));
    }
    let mut seen = [false; 20];
    for _ in 0..20 {
        let (link, done, bytes) = received(&mut ring);
        done.unwrap();
        assert_eq!(*bytes, [link.slot as u8]);
        assert_eq!(link, who(link.slot));
        assert!(!mem::replace(&mut seen[link.slot as usize], true));
    }
    assert_eq!(ring.owed, 0);
}

#[test]
fn a_receive_without_a_free_buffer_says_so_and_loses_nothing() {
    let mut ring = Ring::with_sizes(8, 16, 1).unwrap();
    let pairs = pairs(2);
    for ((ours, theirs), slot) in pairs.iter().zip(0..) {
        (&*theirs).write_all(b"both").unwrap();
        ring.receive(ours.as_raw_fd(), 100, slot % 2 == 0, who(slot));
    }
    let (first, done, bytes) = received(&mut ring);
    done.unwrap();
    assert_eq!(*bytes, *b"both");
    let (second, done, bytes) = received(&mut ring);
    assert_ne!(second, first);
    assert_eq!(done.unwrap_err().raw_os_error(), Some(libc::ENOBUFS));
    assert!(bytes.is_empty());

    let ours = &pairs[second.slot as usize].0;
    ring.receive(ours.as_raw_fd(), 3, true, second);
    let (_, done, bytes) = received(&mut ring);
    done.unwrap();
    assert_eq!(*bytes, *b"bot");
}

#[test]
fn a_cancelled_receive_gives_its_buffer_back() {
    let mut ring = Ring::with_sizes(8, 16, 1).unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let op = ring.receive_into(
        ours.as_raw_fd(),
        Buf::with_capacity(4096),
        1 << 20,
        false,
        who(7),
    );
    ring.turn(false).unwrap();
    ring.cancel(op);
    let (link, done, mut bytes) = received(&mut ring);
    assert_eq!(link, who(7));
    assert_eq!(done.unwrap_err().raw_os_error(), Some(libc::ECANCELED));
    assert!(bytes.is_empty() && bytes.storage().capacity() >= 4096);

    theirs.write_all(&[3; 5000]).unwrap();
    ring.receive_into(ours.as_raw_fd(), bytes, 4000, true, who(7));
    let (_, done, bytes) = received(&mut ring);
    done.unwrap();
    assert_eq!(*bytes, [3; 4000]);
    assert!(ring.held.is_empty());
}

#[test]
fn many_chunks_go_out_as_one_and_come_back_in_order() {
    let mut ring = Ring::with_sizes(8, 16, 1).unwrap();
    let (ours, mut theirs) = UnixStream::pair().unwrap();
    let mut queue: VecDeque<_> = (0..40).map(|i| chunk(&[i; 3])).collect();
    let mut sizes = Vec::new();
    while !queue.is_empty() {
        ring.send(ours.as_raw_fd(), &mut queue, Haste::Patient, who(1));
        let left = queue.len();
        let Completion::Sent { sent, parcel, .. } = wait(&mut ring) else {
            panic!("a send was asked for");
        };
        ring.unpack(parcel, &mut queue);
        sizes.push(sent.unwrap());
        queue.drain(..queue.len() - left);
    }
    assert_eq!(sizes, [GATHER_MAX * 3, (40 - GATHER_MAX) * 3]);
    let mut all = [0; 120];
    theirs.read_exact(&mut all).unwrap();
    assert!(all.chunks(3).zip(0..).all(|(c, i)| *c == [i; 3]));
}

fn tcp() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, theirs)
}

fn sent(ring: &mut Ring) -> (Who, io::Result<usize>, Parcel) {
    match wait(ring) {
        Completion::Sent { link, sent, parcel } => (link, sent, parcel),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_quiet_send_is_done_with_the_turn_that_hands_it_over() {
    let mut ring = Ring::with_sizes(8, 16, 1).unwrap();
    let (ours, mut theirs) = tcp();
    for chunks in [1, 5] {
        let mut queue: VecDeque<_> = (0..chunks).map(|i| chunk(&[i; 3])).collect();
        ring.send(ours.as_raw_fd(), &mut queue, Haste::Quiet, who(1));
        assert!(queue.is_empty());
        assert!(ring.next().is_none(), "nothing was handed over");
        ring.turn(false).unwrap();
        assert!(ring.arrived.is_empty(), "it says nothing by itself");
        let (link, sent, parcel) = sent(&mut ring);
        assert_eq!((link, sent.unwrap()), (who(1), 3 * usize::from(chunks)));
        ring.unpack(parcel, &mut queue);
        assert_eq!(queue.len(), usize::from(chunks));
        let mut bytes = vec![0; 3 * usize::from(chunks)];
        theirs.read_exact(&mut bytes).unwrap();
        assert!(bytes.chunks(3).zip(0..).all(|(c, i)| *c == [i; 3]));
    }
    assert_eq!((ring.owed, ring.quiet.len(), ring.held.len()), (0, 0, 0));
}

#[test]
fn a_quiet_send_wakes_nobody_unless_somebody_hurries() {
    let mut ring = Ring::with_sizes(8, 16, 1).unwrap();
    let (ours, _theirs) = tcp();
    ring.send(
        ours.as_raw_fd(),
        &mut VecDeque::from([chunk(b"one")]),
        Haste::Quiet,
        who(1),
    );
    ring.alarm(Duration::from_millis(20), 7);
    let start = std::time::Instant::now();
    ring.turn(true).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(20));
    let (link, ..) = sent(&mut ring);
    assert_eq!(link, who(1), "it was over before the alarm rang");
    assert!(matches!(ring.next(), Some(Completion::Alarm { .. })));

    ring.send(
        ours.as_raw_fd(),
        &mut VecDeque::from([chunk(b"two")]),
        Haste::Quiet,
        who(2),
    );
    ring.alarm(Duration::from_secs(3600), 8);
    ring.hurry();
    ring.turn(true).unwrap();
    let (link, ..) = sent(&mut ring);
    assert_eq!(link, who(2));
}

#[test]
fn a_quiet_send_that_finds_little_room_says_how_much_went_out() {
    const MUCH: usize = 16 << 20;
    for pieces in [1, 4] {
        let mut ring = Ring::with_sizes(8, 16, 1).unwrap();
        let (ours, mut theirs) = tcp();
        let mut queue: VecDeque<_> = (0..pieces)
            .map(|_| chunk(&vec![7; MUCH / pieces]))
            .collect();
        ring.send(ours.as_raw_fd(), &mut queue, Haste::Quiet, who(1));
        let (_, some, parcel) = sent(&mut ring);
        let some = some.unwrap();
        assert!((1..MUCH).contains(&some), "{some} bytes");
        assert_eq!(parcel.len(), MUCH);
        let mut more = VecDeque::from([chunk(b"more")]);
        ring.send(ours.as_raw_fd(), &mut more, Haste::Quiet, who(1));
        let (_, none, _) = sent(&mut ring);
        assert_eq!(none.unwrap_err().raw_os_error(), Some(libc::EAGAIN));

        drop(ours);
        ring.unpack(parcel, &mut queue);
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).unwrap();
        assert!(all.len() == some && all.iter().all(|b| *b == 7));
        assert_eq!((ring.owed, ring.held.len()), (0, 0));
    }
}

#[test]
fn more_quiet_sends_than_the_queues_hold_are_all_told_once() {
    let mut ring = Ring::with_sizes(2, 4, 1).unwrap();
    let pairs: Vec<_> = (0..40).map(|_| tcp()).collect();
    let gone = tcp();
    gone.0.shutdown(std::net::Shutdown::Write).unwrap();
    let mut seen = [false; 40];
    for ((ours, _), slot) in pairs.iter().zip(0..) {
        let broken = slot % 3 == 0;
        let socket = if broken { &gone.0 } else { ours };
        let mut queue = VecDeque::from([chunk(&[slot as u8])]);
        ring.send(socket.as_raw_fd(), &mut queue, Haste::Quiet, who(slot));
    }
    for _ in 0..40 {
        let (link, sent, _) = sent(&mut ring);
        assert_eq!(sent.is_err(), link.slot % 3 == 0);
        assert!(!mem::replace(&mut seen[link.slot as usize], true));
    }
    assert_eq!((ring.owed, ring.held.len()), (0, 0));
    for ((_, theirs), slot) in pairs.iter().zip(0u8..) {
        if slot % 3 != 0 {
            let mut byte = [0];
            (&*theirs).read_exact(&mut byte).unwrap();
            assert_eq!(byte, [slot]);
        }
    }
}

#[test]
fn a_receive_says_whether_it_left_something() {
    let mut ring = Ring::with_sizes(8, 16, 2).unwrap();
    let (ours, mut theirs) = tcp();
    theirs.write_all(b"some more").unwrap();
    for (expected, left) in [(&b"some"[..], true), (b" more", false)] {
        ring.receive(ours.as_raw_fd(), if left { 4 } else { 100 }, left, who(1));
        let Completion::Received { bytes, dry, .. } = wait(&mut ring) else {
            panic!("a receive was asked for");
        };
        assert_eq!((&*bytes, dry), (expected, !left));
    }
}

#[test]
fn a_watch_tells_a_reset_from_a_fin() {
    let mut ring = Ring::with_sizes(8, 16, 1).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    ring.watch(ours.as_raw_fd(), who(1));
    ring.turn(false).unwrap();

    client.shutdown(std::net::Shutdown::Write).unwrap();
    let Completion::Watched { broken, .. } = wait(&mut ring) else {
        panic!("a watch was asked for");
    };
    assert!(!broken);
    socket2::SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    loop {
        match wait(&mut ring) {
            Completion::Watched { broken: true, .. } => break,
            Completion::Watched { last: false, .. } => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_bound_address_takes_no_port_before_the_connect() {
    for from in ["127.0.0.6:0", "[::1]:0"] {
        let from: std::net::SocketAddr = from.parse().unwrap();
        let domain = socket2::Domain::for_address(from);
        let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None).unwrap();
        bind_address_no_port(&socket).unwrap();
        match socket.bind(&from.into()) {
            Err(_) if from.is_ipv6() => continue,
            bound => bound.unwrap(),
        }
        let local = socket.local_addr().unwrap().as_socket().unwrap();
        assert_eq!(local, from);
    }
}

#[test]
fn a_dropped_ring_receives_no_more() {
    let mut ring = Ring::with_sizes(4, 8, 2).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let pairs = pairs(4);
    let fd = |i: usize| pairs[i].0.as_raw_fd();
    ring.accept(listener.as_raw_fd(), who(0));
    // Accepted, and taken by nobody.
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    ring.turn(true).unwrap();
    ring.receive(fd(0), 100, false, who(1));
    ring.receive_into(fd(1), Buf::with_capacity(100), 100, true, who(2));
    ring.watch(fd(2), who(3));
    // More than the socket takes, so it waits.
    let mut queue = VecDeque::from([chunk(&[1; 8 << 20])]);
    ring.send(fd(3), &mut queue, Haste::Patient, who(4));
    let mut queue = VecDeque::from([chunk(b"out or not, and then freed")]);
    ring.send(fd(2), &mut queue, Haste::Quiet, who(3));
    ring.beat(Duration::from_millis(1), 1);
    ring.alarm(Duration::from_secs(3600), 1);
    ring.turn(false).unwrap();
    drop(ring);

    assert_eq!(client.read(&mut [0]).unwrap(), 0, "it was closed");
    for (ours, theirs) in &pairs[..2] {
        (&*theirs).write_all(b"late").unwrap();
        let mut bytes = [0; 4];
        (&*ours).read_exact(&mut bytes).unwrap();
        assert_eq!(bytes, *b"late");
    }
}
