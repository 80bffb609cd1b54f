//! Many machines in one driver, and machines that come and go.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use meshward_core::clock::Now;
use meshward_core::link::{Entry, LinkEvent};
use meshward_core::proxy::Input;
use meshward_core::sync::Published;
use meshward_core::telemetry::Record;
use meshward_tokio::{
    Clock, Command, Destination, Driver, ProxyId, ShardHandle, Sink, bind_listener, spawn_shard,
};

use crate::common::*;

const MANY: u32 = 300;

fn ask(mut client: &TcpStream) {
    client.write_all(b"ping").unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(answer, *b"ping");
}

fn is_refused(addr: SocketAddr) -> bool {
    TcpStream::connect(addr).is_err_and(|e| e.kind() == ErrorKind::ConnectionRefused)
}

/// Asks the driver behind `handle`.
fn of<M, T: Send + 'static>(
    handle: &ShardHandle<M>,
    ask: impl FnOnce(&mut Driver<M>) -> T + Send + 'static,
) -> T {
    let (answer, answered) = channel();
    let run = Box::new(move |driver: &mut Driver<M>| answer.send(ask(driver)).unwrap());
    assert!(handle.send(Command::Run(run)));
    answered.recv_timeout(SOON).unwrap()
}

/// Says which proxies are gone.
struct Obituaries(Sender<ProxyId>);

impl Sink for Obituaries {
    fn record(&mut self, _: ProxyId, _: Box<Record>) {}

    fn removed(&mut self, proxy: ProxyId) {
        self.0.send(proxy).unwrap();
    }
}

/// A driver with two forwarders to `up`, their doors, and who is gone.
fn two(up: SocketAddr) -> (ShardHandle<Forwarder>, [SocketAddr; 2], Receiver<ProxyId>) {
    let doors = [0, 1].map(|_| bind_listener(local(), false).unwrap());
    let addrs = [0, 1].map(|i| doors[i].local_addr().unwrap());
    let (gone, hear) = channel();
    let handle = spawn_shard("two", None, move || {
        let mut driver = Driver::new(Clock::start(), Box::new(Obituaries(gone)));
        for door in doors {
            let proxy = driver.add(Forwarder::new(up));
            driver.listen(proxy, door, Entry::Inbound, Destination::Local)?;
        }
        Ok(driver)
    })
    .unwrap();
    (handle, addrs, hear)
}

#[test]
fn a_removed_proxy_goes_with_its_last_link_and_its_number_with_it() {
    let (handle, [first, second], gone) = two(upstream(echo));
    let [open, other] = [first, second].map(connect);
    ask(&open);
    ask(&other);
    handle.send(Command::Remove {
        proxy: FIRST,
        grace: SOON,
    });
    let late = bind_listener(local(), false).unwrap();
    let refused = of(&handle, move |driver| {
        driver.listen(FIRST, late, Entry::Inbound, Destination::Local)
    });
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
    wait_until("its door is closed", || is_refused(first));
    ask(&open);
    assert_eq!(of(&handle, |d| d.proxies()), 2);
    assert!(gone.try_recv().is_err());

    drop(open);
    assert_eq!(gone.recv_timeout(SOON), Ok(FIRST));
    assert_eq!(of(&handle, |d| (d.proxies(), d.links())), (1, 2));
    // Who still knows the number reaches nobody.
    handle.send(Command::Input(FIRST, Input::Tick));
    handle.send(Command::CloseListeners(FIRST));
    handle.send(Command::Remove {
        proxy: FIRST,
        grace: SOON,
    });
    ask(&other);

    let up = upstream(echo);
    let door = bind_listener(local(), false).unwrap();
    let addr = door.local_addr().unwrap();
    let third = of(&handle, move |driver| {
        let proxy = driver.add(Forwarder::new(up));
        let opened = driver.listen(proxy, door, Entry::Inbound, Destination::Local);
        opened.map(|()| proxy)
    });
    assert_eq!(third.unwrap(), ProxyId(2));
    ask(&connect(addr));
    ask(&other);
    drop(other);
    handle.send(Command::Drain { grace: SOON });
    assert_eq!(join(handle).accepted, 3);
}

#[test]
fn a_removed_proxy_without_links_goes_at_once() {
    let (handle, [first, second], gone) = two(upstream(echo));
    let grace = Duration::from_secs(3600);
    handle.send(Command::Remove {
        proxy: FIRST,
        grace,
    });
    assert_eq!(gone.recv_timeout(SOON), Ok(FIRST));
    wait_until("its door is closed", || is_refused(first));
    ask(&connect(second));
    handle.send(Command::Stop);
    join(handle);
}

#[test]
fn a_removed_proxy_lets_go_of_its_links_when_the_grace_is_over() {
    let (handle, [first, second], gone) = two(upstream(echo));
    let [mut open, other] = [first, second].map(connect);
    ask(&open);
    ask(&other);
    for grace in [Duration::from_secs(3600), Duration::from_millis(20)] {
        handle.send(Command::Remove {
            proxy: FIRST,
            grace,
        });
    }
    let end = open.read(&mut [0]).unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);
    assert_eq!(gone.recv_timeout(SOON), Ok(FIRST));
    ask(&other);
    handle.send(Command::Stop);
    join(handle);
    assert!(gone.try_recv().is_err(), "it goes once");
}

#[test]
fn those_who_wait_at_the_door_of_a_removed_proxy_are_served() {
    let (handle, [first, _], gone) = two(upstream(echo));
    let (go, held) = channel::<()>();
    let hold = move |_: &mut Driver<Forwarder>| held.recv_timeout(SOON).unwrap();
    handle.send(Command::Run(Box::new(hold)));
    let client = connect(first);
    handle.send(Command::Remove {
        proxy: FIRST,
        grace: SOON,
    });
    go.send(()).unwrap();
    ask(&client);
    drop(client);
    assert_eq!(gone.recv_timeout(SOON), Ok(FIRST));
    handle.send(Command::Stop);
    assert_eq!(join(handle).accepted, 1);
}

/// Sends back what it gets, says each drain and each tick, and wants a tick `Drain`'s grace later.
fn telling(index: u32, say: Sender<(u32, bool)>) -> Scripted {
    let mut due = None;
    let (machine, _) = Scripted::new(move |input, now: Now, wishes| {
        match input {
            Input::Link(id, LinkEvent::Accepted { .. }) => wishes.read(*id, 100),
            Input::Link(id, LinkEvent::Received(bytes)) => {
                wishes.send(*id, bytes, false);
                wishes.read(*id, 100);
            }
            Input::Drain { grace } => {
                due = Some(now.at.after(*grace));
                say.send((index, false)).unwrap();
            }
            Input::Tick if due.is_some_and(|at| at <= now.at) => {
                due = None;
                say.send((index, true)).unwrap();
            }
            _ => {}
        }
        wishes.deadline = due;
    });
    machine
}

#[test]
fn three_hundred_machines_follow_their_own_cells_and_keep_their_own_time() {
    const MESSAGES: u64 = 300;
    let door = bind_listener(local(), false).unwrap();
    let addr = door.local_addr().unwrap();
    let (say, hear) = channel();
    let (mut cells, mut readers) = (Vec::new(), Vec::new());
    for _ in 0..MANY {
        let (cell, reader) = Published::new(Arc::new(Duration::from_secs(3600)), 1);
        cells.push(cell);
        readers.extend(reader);
    }
    let handle = spawn_shard("many", None, move || {
        let mut driver = Driver::new(Clock::start(), Box::new(|_, _| {}));
        for (reader, i) in readers.into_iter().zip(0..) {
            let proxy = driver.add(telling(i, say.clone()));
            driver.follow(proxy, reader, |grace| vec![Input::Drain { grace: *grace }]);
        }
        driver.listen(ProxyId(MANY - 1), door, Entry::Inbound, Destination::Local)?;
        Ok(driver)
    })
    .unwrap();
    for i in 0..MANY {
        assert_eq!(hear.recv_timeout(SOON), Ok((i, false)), "the first value");
    }

    // One publishes: it alone hears, and its tick does not wait for the others' hour.
    cells[7].publish(Arc::new(Duration::from_millis(5)));
    handle.remote().wake();
    assert_eq!(hear.recv_timeout(SOON), Ok((7, false)));
    assert_eq!(hear.recv_timeout(SOON), Ok((7, true)));

    // Traffic looks at no cell.
    let client = connect(addr);
    ask(&client);
    let before = of(&handle, |d| d.stats());
    for _ in 0..MESSAGES {
        ask(&client);
    }
    let after = of(&handle, |d| d.stats());
    assert!(after.turns - before.turns >= MESSAGES);
    assert_eq!(after.looks - before.looks, 1, "the asking itself");

    // All publish, the last shall be first: each tick comes at its own time.
    for (cell, i) in cells.iter_mut().zip(0..) {
        let grace = Duration::from_millis(u64::from(100 + (MANY - i) / 3));
        cell.publish(Arc::new(grace));
    }
    handle.remote().wake();
    let mut told: Vec<_> = (0..2 * MANY)
        .map(|_| hear.recv_timeout(SOON).unwrap())
        .collect();
    told.sort_unstable();
    let expected: Vec<_> = (0..MANY).flat_map(|i| [(i, false), (i, true)]).collect();
    assert_eq!(told, expected);
    handle.send(Command::Stop);
    join(handle);
}
