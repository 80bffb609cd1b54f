//! What can only be counted in a process of its own: descriptors and memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command as Process, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use meshward_core::link::{Entry, LinkEvent};
use meshward_core::proxy::Input;
use meshward_tokio::{
    Clock, Command, Destination, Driver, ProxyId, Sink, bind_listener, spawn_shard,
};

use crate::common::*;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator as it came; counting does not touch memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are those that `System` asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const ROLE: &str = "MESHWARD_TEST_ROLE";

/// Runs the test `name` again in a child with `role`, which prints what it finds on lines that begin with `=`.
pub(crate) fn child(name: &str, role: &str, descriptors: usize) -> Child {
    Process::new("sh")
        .args(["-c", "ulimit -n $0; exec \"$@\""])
        .arg(descriptors.to_string())
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(ROLE, role)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

pub(crate) fn is_child(role: &str) -> bool {
    std::env::var(ROLE).is_ok_and(|r| r == role)
}

/// Waits for its success and returns what it printed.
pub(crate) fn finish(child: Child) -> Vec<String> {
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    text.lines()
        .filter_map(|l| l.strip_prefix('='))
        .map(str::to_owned)
        .collect()
}

pub(crate) fn say(what: impl std::fmt::Display) {
    println!("\n={what}");
}

pub(crate) fn echoing() -> Scripted {
    let (machine, _) = Scripted::new(|input, _, wishes| match input {
        Input::Link(id, LinkEvent::Accepted { .. }) => wishes.read(*id, 16 << 10),
        Input::Link(id, LinkEvent::Received(bytes)) => {
            wishes.send(*id, bytes, false);
            wishes.read(*id, 16 << 10);
        }
        Input::Link(id, LinkEvent::Eof) => wishes.finish(*id),
        _ => {}
    });
    machine
}

fn ping(mut client: &TcpStream) {
    client.write_all(b"ping").unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

#[test]
fn a_thousand_connections_leave_no_descriptor_behind() {
    if !is_child("churn") {
        let name = "alone::a_thousand_connections_leave_no_descriptor_behind";
        let found = finish(child(name, "churn", 256));
        assert_eq!(found, ["1001 0"], "links, descriptors left");
        return;
    }
    let shard = Shard::start(echoing);
    ping(&shard.connect());
    let idle = || shard.ask(|d| d.links()) == 0;
    wait_until("the first is gone", idle);
    let before = descriptors();
    for i in 0..1000 {
        let client = shard.connect();
        match i % 4 {
            0 => ping(&client),
            1 => {
                ping(&client);
                reset(client);
            }
            2 => reset(client),
            _ => (&client).write_all(b"unread").unwrap(),
        }
    }
    wait_until("all are gone", idle);
    let left = descriptors() - before;
    let stats = shard.drain();
    say(format_args!("{} {left}", stats.accepted));
}

struct Complaints;

impl Sink for Complaints {
    fn record(&mut self, _: ProxyId, _: Box<meshward_core::telemetry::Record>) {}

    fn listener_failed(&mut self, _: ProxyId, listener: SocketAddr, error: &std::io::Error) {
        say(format_args!(
            "{} {:?}",
            listener.port(),
            error.raw_os_error()
        ));
    }
}

#[test]
fn a_shard_without_descriptors_rests_and_goes_on_when_there_are_some() {
    const CLIENTS: usize = 60;
    if is_child("starved") {
        let listener = bind_listener(local(), false).unwrap();
        say(listener.local_addr().unwrap().port());
        let handle = spawn_shard("starved", None, move || {
            let mut driver = Driver::new(Clock::start(), Box::new(Complaints));
            let proxy = driver.add(echoing());
            driver.listen(proxy, listener, Entry::Inbound, Destination::Local)?;
            Ok(driver)
        })
        .unwrap();
        std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        handle.send(Command::Drain { grace: SOON });
        let stats = join(handle);
        say(format_args!(
            "accepted {} rested {}",
            stats.accepted,
            stats.accept_failures > 0
        ));
        return;
    }
    let name = "alone::a_shard_without_descriptors_rests_and_goes_on_when_there_are_some";
    let mut child = child(name, "starved", 32);
    let mut lines = BufReader::new(child.stdout.take().unwrap())
        .lines()
        .filter_map(|l| l.unwrap().strip_prefix('=').map(str::to_owned));
    let port: u16 = lines.next().unwrap().parse().unwrap();

    // The kernel completes them all; the child can take some 20 at a time.
    let clients: Vec<_> = (0..CLIENTS)
        .map(|_| connect(SocketAddr::from(([127, 0, 0, 1], port))))
        .collect();
    assert_eq!(lines.next().unwrap(), format!("{port} Some(24)"), "EMFILE");
    for client in clients {
        ping(&client);
    }
    drop(child.stdin.take());
    let mut rest = lines.collect::<Vec<_>>();
    assert!(child.wait().unwrap().success());
    let end = format!("accepted {CLIENTS} rested true");
    assert_eq!(rest.pop(), Some(end));
    // Said once per shortage: each of them lets at least one link in before the next.
    assert!(rest.len() < CLIENTS, "{rest:?}");
}

#[test]
fn an_idle_link_costs_less_than_700_bytes() {
    const FEW: usize = 100;
    const MANY: usize = 400;
    if !is_child("memory") {
        let name = "alone::an_idle_link_costs_less_than_700_bytes";
        let found = finish(child(name, "memory", 1000));
        let [each] = found.as_slice() else {
            panic!("{found:?}")
        };
        let each: usize = each.parse().unwrap();
        println!("{each} bytes of heap per idle link");
        assert!((100..700).contains(&each), "{each}");
        return;
    }
    let shard = Shard::start(echoing);
    let mut clients = Vec::with_capacity(MANY);
    let mut fill = |n: usize| {
        while clients.len() < n {
            let client = shard.connect();
            ping(&client);
            clients.push(client);
        }
        // The driver has let go of what it served the last one with.
        shard.ask(|d| d.links());
        LIVE.load(Ordering::Relaxed)
    };
    let few = fill(FEW);
    let many = fill(MANY);
    say((many - few) / (MANY - FEW));
}

#[test]
fn an_idle_proxy_with_three_doors_costs_less_than_2600_bytes_beside_its_machine() {
    const FEW: usize = 50;
    const MANY: usize = 350;
    if !is_child("proxies") {
        let name =
            "alone::an_idle_proxy_with_three_doors_costs_less_than_2600_bytes_beside_its_machine";
        let found = finish(child(name, "proxies", 2000));
        let [each] = found.as_slice() else {
            panic!("{found:?}")
        };
        let each: usize = each.parse().unwrap();
        println!("{each} bytes of heap per idle proxy");
        assert!((100..2600).contains(&each), "{each}");
        return;
    }
    let nobody = || SocketAddr::from(([127, 0, 0, 1], 9));
    let shard = Shard::start(move || Forwarder::new(nobody()));
    let fill = |n: usize| {
        shard.ask(move |driver| {
            while driver.proxies() < n {
                let proxy = driver.add(Forwarder::new(nobody()));
                for _ in 0..3 {
                    let door = bind_listener(local(), false).unwrap();
                    driver
                        .listen(proxy, door, Entry::Inbound, Destination::Local)
                        .unwrap();
                }
            }
        });
        shard.ask(|_| LIVE.load(Ordering::Relaxed))
    };
    let few = fill(FEW);
    let many = fill(MANY);
    say((many - few) / (MANY - FEW) - size_of::<Forwarder>());
}
