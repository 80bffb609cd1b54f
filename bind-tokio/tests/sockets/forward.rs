//! An opaque forwarder between real sockets.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::sync::mpsc::channel;

use crate::common::*;

#[test]
fn bytes_and_both_ends_pass_through() {
    let up = upstream(echo);
    let shard = Shard::start(move || Forwarder::new(up));
    let mut client = shard.connect();
    client.write_all(b"hello").unwrap();
    let mut five = [0; 5];
    client.read_exact(&mut five).unwrap();
    assert_eq!(&five, b"hello");

    client.write_all(b"bye").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    client.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"bye");
    shard.drain();
}
