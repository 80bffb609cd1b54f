//! Connections that somebody else accepted and handed over.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use meshward_core::link::{Entry, LinkEvent};
use meshward_core::proxy::Input;
use meshward_tokio::{Command, ProxyId};

use crate::common::*;

/// Addresses that no socket of these tests has.
const PEER: ([u8; 4], u16) = ([192, 0, 2, 7], 4711);
const MEANT: ([u8; 4], u16) = ([10, 96, 0, 9], 80);

/// A client, and the other end of its connection as a shell that accepted it has it.
fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(local()).unwrap();
    let client = connect(listener.local_addr().unwrap());
    (client, listener.accept().unwrap().0)
}

fn adopt(proxy: ProxyId, stream: TcpStream) -> Command<Forwarder> {
    Command::Adopt {
        proxy,
        stream,
        entry: Entry::Outbound,
        peer: PEER.into(),
        original_dst: MEANT.into(),
    }
}

fn rest(mut client: &TcpStream) -> std::io::Result<Vec<u8>> {
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).map(|_| rest)
}

fn ask(mut client: &TcpStream, question: &[u8]) {
    client.write_all(question).unwrap();
    let mut answer = vec![0; question.len()];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(answer, question);
}

fn is_reset(client: &TcpStream) -> bool {
    rest(client).is_err_and(|e| e.kind() == ErrorKind::ConnectionReset)
}

#[test]
fn an_adopted_stream_has_the_addresses_it_was_given_and_what_nobody_read() {
    let (machine, hear) = Scripted::new(|input, _, wishes| {
        if let Input::Link(id, event) = input {
            match event {
                LinkEvent::Accepted { .. } => wishes.read(*id, 100),
                LinkEvent::Received(bytes) => {
                    wishes.send(*id, bytes, true);
                    wishes.read(*id, 100);
                }
                LinkEvent::Eof => wishes.finish(*id),
                _ => {}
            }
        }
    });
    let shard = Shard::start(move || machine);
    let (mut client, mut ours) = pair();
    client.write_all(b"to the shell, to the mesh").unwrap();
    ours.read_exact(&mut [0; 13]).unwrap();
    let copy = ours.try_clone().unwrap();
    let (peer, original_dst) = (SocketAddr::from(PEER), SocketAddr::from(MEANT));
    shard.handle.send(Command::Adopt {
        proxy: FIRST,
        stream: ours,
        entry: Entry::Outbound,
        peer,
        original_dst,
    });

    let (id, event) = next(&hear);
    assert!(id.is_accepted());
    let LinkEvent::Accepted {
        entry,
        peer: said_peer,
        original_dst: said_dst,
    } = event
    else {
        panic!("{event:?}")
    };
    assert_eq!(
        (entry, said_peer, said_dst),
        (Entry::Outbound, peer, original_dst)
    );
    let (_, event) = next(&hear);
    assert!(
        matches!(&event, LinkEvent::Received(b) if **b == *b" to the mesh"),
        "{event:?}"
    );
    assert!(copy.nodelay().unwrap());
    drop(copy);
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&client).unwrap(), b" to the mesh");
    assert_eq!(shard.drain().accepted, 1);
}

#[test]
fn adopted_bytes_and_ends_pass_both_ways() {
    let up = upstream(echo);
    let shard = Shard::start(move || Forwarder::new(up));
    let (mut client, ours) = pair();
    shard.handle.send(adopt(FIRST, ours));
    ask(&client, b"hello");
    let much = vec![7; 3 << 20];
    let mut writer = client.try_clone().unwrap();
    let sent = much.clone();
    let writes = std::thread::spawn(move || writer.write_all(&sent).unwrap());
    let mut back = vec![0; much.len()];
    client.read_exact(&mut back).unwrap();
    writes.join().unwrap();
    assert!(back == much);

    client.write_all(b"bye").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&client).unwrap(), b"bye");
    shard.drain();
}

#[test]
fn resets_pass_an_adopted_link_in_both_directions() {
    let (heard, hear) = channel();
    let heard = Mutex::new(heard);
    let up = upstream(move |mut stream| {
        let mut order = [0];
        stream.read_exact(&mut order).unwrap();
        stream.write_all(b"k").unwrap();
        if order == *b"r" {
            stream.read_exact(&mut order).unwrap();
            return reset(stream);
        }
        heard.lock().unwrap().send(is_reset(&stream)).unwrap();
    });
    let shard = Shard::start(move || Forwarder::new(up));
    let talk = |order: &[u8]| {
        let (mut client, ours) = pair();
        shard.handle.send(adopt(FIRST, ours));
        client.write_all(order).unwrap();
        client.read_exact(&mut [0]).unwrap();
        client
    };
    reset(talk(b"g"));
    assert!(hear.recv_timeout(SOON).unwrap(), "the upstream hears it");

    let mut client = talk(b"r");
    client.write_all(b"now").unwrap();
    assert!(is_reset(&client), "the client hears it");
    shard.drain();
}

#[test]
fn a_stream_that_nobody_may_take_is_reset() {
    let up = upstream(echo);
    let shard = Shard::start(move || Forwarder::new(up));
    let (client, ours) = pair();
    shard.handle.send(adopt(ProxyId(7), ours));
    assert!(is_reset(&client), "there is no such proxy");

    let open = shard.connect();
    ask(&open, b"open");
    shard.handle.send(Command::Drain { grace: SOON });
    let (client, ours) = pair();
    shard.handle.send(adopt(FIRST, ours));
    assert!(is_reset(&client), "the driver drains");
    ask(&open, b"still open");
    drop(open);
    assert_eq!(join(shard.handle).accepted, 1);
}

#[test]
fn a_stream_can_be_adopted_before_the_driver_runs() {
    let up = upstream(echo);
    let (client, ours) = pair();
    let handle = meshward_tokio::spawn_shard("early", None, move || {
        let mut driver =
            meshward_tokio::Driver::new(meshward_tokio::Clock::start(), Box::new(|_, _| {}));
        let proxy = driver.add(Forwarder::new(up));
        driver.adopt(proxy, ours, Entry::Outbound, PEER.into(), MEANT.into())?;
        Ok(driver)
    })
    .unwrap();
    ask(&client, b"hello");
    drop(client);
    let grace = Duration::from_secs(1);
    handle.send(Command::Drain { grace });
    assert_eq!(join(handle).accepted, 1);
}
