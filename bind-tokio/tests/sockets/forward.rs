//! An opaque forwarder between real sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use meshward_core::link::Entry;
use meshward_tokio::{Clock, Command, Destination, Driver, bind_listener, spawn_shard};
use socket2::{Domain, SockRef, Socket, Type};

use crate::common::*;

fn ask(client: &mut TcpStream, question: &[u8]) -> Vec<u8> {
    client.write_all(question).unwrap();
    let mut answer = vec![0; question.len()];
    client.read_exact(&mut answer).unwrap();
    answer
}

fn rest(mut client: &TcpStream) -> std::io::Result<Vec<u8>> {
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).map(|_| rest)
}

fn kind_at_end(client: &TcpStream) -> Option<ErrorKind> {
    rest(client).err().map(|e| e.kind())
}

/// Bytes whose place shows; a block of a prime length, repeated, because making each byte takes seconds in a debug build.
fn pattern(len: usize) -> Vec<u8> {
    let block: Vec<u8> = (0..65_521).map(|i| (i * 31 + i / 251) as u8).collect();
    let mut all = Vec::with_capacity(len + block.len());
    while all.len() < len {
        all.extend_from_slice(&block);
    }
    all.truncate(len);
    all
}

#[test]
fn the_client_may_finish_first() {
    let up = upstream(echo);
    let shard = Shard::start(move || Forwarder::new(up));
    let mut client = shard.connect();
    assert_eq!(ask(&mut client, b"hello"), b"hello");

    client.write_all(b"bye").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&client).unwrap(), b"bye");
    shard.drain();
}

#[test]
fn the_upstream_may_finish_first() {
    let (heard, hear) = channel();
    let heard = Mutex::new(heard);
    let up = upstream(move |mut stream| {
        stream.write_all(b"first").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        heard.lock().unwrap().send(rest(&stream).unwrap()).unwrap();
    });
    let shard = Shard::start(move || Forwarder::new(up));
    let mut client = shard.connect();
    assert_eq!(rest(&client).unwrap(), b"first");

    client.write_all(b"still here").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(hear.recv_timeout(SOON).unwrap(), b"still here");
    shard.drain();
}

#[test]
fn eight_mebibytes_come_back_as_they_went() {
    let up = upstream(echo);
    let shard = Shard::start(move || Forwarder::new(up));
    let client = shard.connect();
    let sent = pattern(8 << 20);

    let mut writer = client.try_clone().unwrap();
    let bytes = sent.clone();
    let writes = std::thread::spawn(move || {
        writer.write_all(&bytes).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    assert!(rest(&client).unwrap() == sent);
    writes.join().unwrap();
    shard.drain();
}

#[test]
fn a_message_costs_one_turn() {
    const ROUNDS: u64 = 200;
    let up = upstream(echo);
    let shard = Shard::start(move || Forwarder::new(up));
    let mut client = shard.connect();
    ask(&mut client, b"warm");
    let before = shard.ask(|d| d.stats().turns);
    for _ in 0..ROUNDS {
        ask(&mut client, b"hello");
    }
    let turns = shard.ask(|d| d.stats().turns) - before;
    // A question and an answer; a busy machine adds the turns of a timer, a needless wake-up would add one to each.
    let expected = 2 * crate::TURNS_PER_MESSAGE * ROUNDS;
    assert!(turns < expected + ROUNDS / 2, "{turns}");
}

#[test]
fn a_message_that_nobody_acknowledges_costs_one_turn_everywhere() {
    const ROUNDS: u64 = 200;
    let shard = Shard::start(crate::alone::echoing);
    let mut client = shard.connect();
    ask(&mut client, b"warm");
    let before = shard.ask(|d| d.stats().turns);
    for _ in 0..ROUNDS {
        ask(&mut client, b"hello");
    }
    let turns = shard.ask(|d| d.stats().turns) - before;
    assert!(turns < ROUNDS + ROUNDS / 4, "{turns}");
}

#[test]
fn a_reset_by_the_client_in_mid_body_reaches_the_upstream() {
    let (heard, hear) = channel();
    let heard = Mutex::new(heard);
    let up = upstream(move |mut stream| {
        let mut first = [0; 4096];
        stream.read_exact(&mut first).unwrap();
        stream.write_all(b"go").unwrap();
        heard.lock().unwrap().send(kind_at_end(&stream)).unwrap();
    });
    let shard = Shard::start(move || Forwarder::new(up));
    let mut client = shard.connect();
    client.write_all(&pattern(4096)).unwrap();
    client.read_exact(&mut [0; 2]).unwrap();
    reset(client);

    let kind = hear.recv_timeout(SOON).unwrap();
    assert_eq!(kind, Some(ErrorKind::ConnectionReset));
    shard.drain();
}

#[test]
fn a_reset_by_the_upstream_in_mid_body_reaches_the_client() {
    let up = upstream(|mut stream| {
        stream.write_all(&pattern(4096)).unwrap();
        stream.read_exact(&mut [0; 1]).unwrap();
        reset(stream);
    });
    let shard = Shard::start(move || Forwarder::new(up));
    let mut client = shard.connect();
    client.read_exact(&mut [0; 4096]).unwrap();
    client.write_all(b"x").unwrap();

    assert_eq!(kind_at_end(&client), Some(ErrorKind::ConnectionReset));
    shard.drain();
}

#[test]
fn a_refused_connect_resets_the_client() {
    let nobody = std::net::TcpListener::bind(local())
        .unwrap()
        .local_addr()
        .unwrap();
    let shard = Shard::start(move || Forwarder::new(nobody));

    assert_eq!(
        kind_at_end(&shard.connect()),
        Some(ErrorKind::ConnectionReset)
    );
    shard.drain();
}

/// An address that answers no SYN, because its backlog is full, and the sockets that fill it.
fn deaf() -> (SocketAddr, Vec<Socket>) {
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    listener.bind(&local().into()).unwrap();
    listener.listen(0).unwrap();
    let addr = listener.local_addr().unwrap();
    let mut held = vec![listener];
    loop {
        let filler = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        let connected = filler.connect_timeout(&addr, Duration::from_millis(100));
        held.push(filler);
        if connected.is_err() {
            return (addr.as_socket().unwrap(), held);
        }
        assert!(held.len() < 100, "the backlog fills");
    }
}

#[test]
fn a_client_that_goes_while_we_connect_ends_the_connect() {
    let (up, _held) = deaf();
    let shard = Shard::start(move || Forwarder::new(up));
    let client = shard.connect();
    wait_until("it connects", || shard.ask(|d| d.links()) == 2);
    reset(client);

    wait_until("both links end", || shard.ask(|d| d.links()) == 0);
    shard.drain();
}

#[test]
fn a_slow_reader_stops_the_sender_and_loses_nothing() {
    static TAKEN: AtomicUsize = AtomicUsize::new(0);
    let up = upstream(|mut stream| {
        SockRef::from(&stream)
            .set_send_buffer_size(64 << 10)
            .unwrap();
        stream.set_write_timeout(Some(SOON)).unwrap();
        for chunk in pattern(64 << 20).chunks(16 << 10) {
            stream.write_all(chunk).unwrap();
            TAKEN.fetch_add(chunk.len(), Ordering::Relaxed);
        }
    });
    let shard = Shard::start(move || Forwarder::new(up));
    let client = shard.connect();
    let (mut before, mut same) = (0, 0);
    wait_until("the sender stands still", || {
        std::thread::sleep(Duration::from_millis(10));
        let now = TAKEN.load(Ordering::Relaxed);
        same = if now == before && now > 0 {
            same + 1
        } else {
            0
        };
        before = now;
        same == 20
    });
    // What the kernel's buffers hold, and one read.
    assert!(before < 32 << 20, "{before} bytes are under way");

    assert!(rest(&client).unwrap() == pattern(64 << 20));
    drop(client);
    shard.drain();
}

#[test]
fn two_proxies_share_a_driver_and_nothing_else() {
    let ups = [b'a', b'b'].map(|name| {
        upstream(move |mut stream| {
            stream.write_all(&[name]).unwrap();
            echo(stream);
        })
    });
    let doors = [0, 1].map(|_| bind_listener(local(), false).unwrap());
    let addrs = [0, 1].map(|i| doors[i].local_addr().unwrap());
    let handle = spawn_shard("pair", None, move || {
        let mut driver = Driver::new(Clock::start(), Box::new(|_, _| {}));
        for (door, up) in doors.into_iter().zip(ups) {
            let proxy = driver.add(Forwarder::new(up));
            driver.listen(proxy, door, Entry::Outbound, Destination::Local)?;
        }
        Ok(driver)
    })
    .unwrap();

    let mut clients = addrs.map(connect);
    for (client, name) in clients.iter_mut().zip(*b"ab") {
        let mut first = [0];
        client.read_exact(&mut first).unwrap();
        assert_eq!(first, [name]);
        assert_eq!(ask(client, b"hello"), b"hello");
    }
    handle.send(Command::CloseListeners(FIRST));
    let (done, closed) = channel();
    let run = Box::new(move |_: &mut Driver<Forwarder>| done.send(()).unwrap());
    handle.send(Command::Run(run));
    closed.recv_timeout(SOON).unwrap();
    assert!(TcpStream::connect(addrs[0]).is_err());
    assert_eq!(ask(&mut clients[0], b"open links stay"), b"open links stay");
    drop(connect(addrs[1]));

    drop(clients);
    handle.send(Command::Drain { grace: SOON });
    assert_eq!(join(handle).connects, 3);
}

#[test]
fn a_drain_lets_open_links_finish_and_takes_no_new_ones() {
    let up = upstream(echo);
    let shard = Shard::start(move || Forwarder::new(up));
    let mut client = shard.connect();
    assert_eq!(ask(&mut client, b"one"), b"one");
    shard.handle.send(Command::Drain { grace: SOON });

    shard.ask(|_| ());
    assert!(TcpStream::connect(shard.addr).is_err());
    assert_eq!(ask(&mut client, b"two"), b"two");
    assert!(!shard.handle.is_finished());
    drop(client);
    assert_eq!(join(shard.handle).accepted, 1);
}

#[test]
fn a_drain_ends_when_the_machine_runs_out_of_patience() {
    let up = upstream(echo);
    let shard = Shard::start(move || Forwarder::new(up));
    let mut client = shard.connect();
    assert_eq!(ask(&mut client, b"one"), b"one");
    let grace = Duration::from_millis(20);
    shard.handle.send(Command::Drain { grace });

    assert_eq!(kind_at_end(&client), Some(ErrorKind::ConnectionReset));
    join(shard.handle);
}
