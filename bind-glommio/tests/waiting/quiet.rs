//! What only this driver has: a ring that must be left in order, and two ways of waiting.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::process::Command as Process;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use meshward_core::clock::{Deadline, Now};
use meshward_core::link::{Entry, LinkEvent};
use meshward_core::machine::Machine;
use meshward_core::proxy::{Action, Input};
use meshward_glommio::{
    Clock, Command, Destination, Driver, Unavailable, available, bind_listener, spawn_shard,
};

use crate::common::*;

const ROLE: &str = "MESHWARD_TEST_ROLE";

/// Runs the test `name` again in a child of `sh` after `limits`, where `ROLE` is set.
fn passes_in_a_child(name: &str, limits: &str) {
    let output = Process::new("sh")
        .args(["-c", &format!("{limits}; exec \"$@\""), "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(ROLE, name)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{complaint}");
    assert!(text.contains("1 passed"), "{text}");
}

fn is_child() -> bool {
    std::env::var_os(ROLE).is_some()
}

/// Sends back what it gets, and always has a deadline an hour away.
fn echoing() -> Scripted {
    let (machine, _) = Scripted::new(|input, now: Now, wishes| {
        match input {
            Input::Link(id, LinkEvent::Accepted { .. }) => wishes.read(*id, 64 << 10),
            Input::Link(id, LinkEvent::Received(bytes)) => {
                wishes.send(*id, bytes, false);
                wishes.read(*id, 64 << 10);
            }
            Input::Link(id, LinkEvent::Eof) => wishes.finish(*id),
            _ => {}
        }
        wishes.deadline = Some(now.at.after(Duration::from_secs(3600)));
    });
    machine
}

/// Breaks after so many inputs.
struct Breaking {
    machine: Forwarder,
    inputs_left: u64,
}

impl Machine for Breaking {
    type Input = Input;
    type Action = Action;

    fn handle(&mut self, input: Input, now: Now) {
        self.inputs_left -= 1;
        assert!(self.inputs_left > 0, "a machine breaks");
        self.machine.handle(input, now);
    }

    fn poll_action(&mut self) -> Option<Action> {
        self.machine.poll_action()
    }

    fn poll_timeout(&self) -> Option<Deadline> {
        self.machine.poll_timeout()
    }
}

fn ping(mut client: &TcpStream) {
    client.write_all(b"ping").unwrap();
    client.read_exact(&mut [0; 4]).unwrap();
}

/// Keeps `client` full in both directions until it ends.
fn flood(client: TcpStream) -> thread::JoinHandle<()> {
    let reader = client.try_clone().unwrap();
    thread::spawn(move || {
        let takes = thread::spawn(move || {
            let mut sink = vec![0; 256 << 10];
            while (&reader).read(&mut sink).is_ok_and(|n| n > 0) {}
        });
        while (&client).write_all(&[7; 32 << 10]).is_ok() {}
        // The other direction ends too when the socket does.
        let _ = client.shutdown(Shutdown::Both);
        takes.join().unwrap();
    })
}

/// Waits until a shard without traffic has stopped its beat, which takes it some 20 ms.
fn fall_quiet(shard: &Shard<Scripted>) {
    wait_until("it falls quiet", || {
        let before = shard.ask(|d| d.stats().turns);
        thread::sleep(Duration::from_millis(30));
        shard.ask(|d| d.stats().turns) - before <= 4
    });
}

#[test]
fn a_quiet_shard_does_not_run() {
    let shard = Shard::start(echoing);
    let clients: Vec<_> = (0..10).map(|_| shard.connect()).collect();
    clients.iter().for_each(ping);
    fall_quiet(&shard);

    let before = shard.ask(|d| d.stats().turns);
    thread::sleep(Duration::from_millis(500));
    let turns = shard.ask(|d| d.stats().turns) - before;
    // The asking itself takes a turn or two; a beat that went on would take 60.
    assert!(turns <= 4, "{turns} turns");
}

#[test]
fn a_command_wakes_a_quiet_shard_at_once() {
    let shard = Shard::start(echoing);
    ping(&shard.connect());
    fall_quiet(&shard);
    let mut took: Vec<_> = (0..9)
        .map(|_| {
            thread::sleep(Duration::from_millis(20));
            let asked = Instant::now();
            shard.ask(|_| ());
            asked.elapsed()
        })
        .collect();
    took.sort();
    println!("median {:?}", took[4]);
    assert!(took[4] < Duration::from_millis(5), "{took:?}");
}

#[test]
fn traffic_wakes_a_quiet_shard_at_once() {
    let shard = Shard::start(echoing);
    let client = shard.connect();
    ping(&client);
    let mut took: Vec<_> = (0..9)
        .map(|_| {
            thread::sleep(Duration::from_millis(30));
            let asked = Instant::now();
            ping(&client);
            asked.elapsed()
        })
        .collect();
    took.sort();
    println!("median {:?}", took[4]);
    assert!(took[4] < Duration::from_millis(5), "{took:?}");
}

#[test]
fn deadlines_ring_in_a_quiet_shard_also_when_they_move_closer() {
    let (near, far) = (Duration::from_millis(20), Duration::from_secs(3600));
    let (machine, hear) = Scripted::new(move |input, now: Now, wishes| {
        wishes.deadline = Some(now.at.after(match input {
            Input::Drain { .. } => near,
            _ => far,
        }));
    });
    let shard = Shard::start(move || machine);
    for _ in 0..3 {
        shard.handle.send(Command::Input(FIRST, Input::Tick));
        hear.recv_timeout(SOON).unwrap();
        fall_quiet(&shard);
        let grace = Duration::ZERO;
        shard
            .handle
            .send(Command::Input(FIRST, Input::Drain { grace }));
        let (_, set) = hear.recv_timeout(SOON).unwrap();
        loop {
            let (input, now) = hear.recv_timeout(SOON).unwrap();
            assert!(matches!(input, Input::Tick));
            if now.at.since(set.at) >= near {
                break;
            }
        }
    }
}

#[test]
fn sixty_four_mebibytes_go_both_ways_at_once() {
    const TIMES: usize = 1024;
    // A length that no buffer of ours has, so that a lost or a repeated piece shows.
    let piece: Vec<u8> = (0..65_521).map(|i| (i * 31 + i / 251) as u8).collect();
    let up = upstream(echo);
    let shard = Shard::start(move || Forwarder::new(up));
    let mut client = shard.connect();
    let (mut writer, sent) = (client.try_clone().unwrap(), piece.clone());
    let writes = thread::spawn(move || {
        for _ in 0..TIMES {
            writer.write_all(&sent).unwrap();
        }
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = vec![0; piece.len()];
    for _ in 0..TIMES {
        client.read_exact(&mut back).unwrap();
        assert!(back == piece);
    }
    assert_eq!(client.read(&mut back).unwrap(), 0);
    writes.join().unwrap();
    drop(client);
    shard.drain();
}

#[test]
fn a_body_that_pauses_goes_on() {
    let shard = Shard::start(echoing);
    let client = shard.connect();
    for _ in 0..5 {
        // Large enough to be waited for with a large buffer, then longer than it is waited with one.
        for len in [256 << 10, 1, 256 << 10] {
            let mut writer = client.try_clone().unwrap();
            let writes = thread::spawn(move || writer.write_all(&vec![9; len]).unwrap());
            (&client).read_exact(&mut vec![0; len]).unwrap();
            writes.join().unwrap();
            thread::sleep(Duration::from_millis(30));
        }
    }
    drop(client);
    shard.drain();
}

#[test]
fn more_links_than_provided_buffers_are_all_heard() {
    let shard = Shard::start(echoing);
    let clients: Vec<_> = (0..700).map(|_| shard.connect()).collect();
    for _ in 0..3 {
        // All become readable while the shard is held up.
        let (go, gone) = channel::<()>();
        let hold = Box::new(move |_: &mut Driver<Scripted>| gone.recv_timeout(SOON).unwrap());
        shard.handle.send(Command::Run(hold));
        for mut client in &clients {
            client.write_all(b"ping").unwrap();
        }
        go.send(()).unwrap();
        for mut client in &clients {
            client.read_exact(&mut [0; 4]).unwrap();
        }
    }
    drop(clients);
    shard.drain();
}

#[test]
fn other_tasks_of_the_executor_run_beside_traffic() {
    let listener = bind_listener(local(), false).unwrap();
    let addr = listener.local_addr().unwrap();
    let (told, tell) = channel();
    let handle = spawn_shard("shared", None, move || {
        let count = Rc::new(Cell::new(0));
        let counter = Rc::clone(&count);
        glommio::spawn_local(async move {
            loop {
                glommio::timer::sleep(Duration::from_millis(1)).await;
                counter.set(counter.get() + 1);
                // The test may have heard enough.
                let _ = told.send(counter.get());
            }
        })
        .detach();
        let mut driver = Driver::new(Clock::start(), Box::new(|_, _| {}));
        let proxy = driver.add(echoing());
        driver.listen(proxy, listener, Entry::Inbound, Destination::Local)?;
        Ok(driver)
    })
    .unwrap();
    let floods: Vec<_> = (0..4).map(|_| flood(connect(addr))).collect();
    let begun = Instant::now();
    for _ in 0..50 {
        tell.recv_timeout(SOON).unwrap();
    }
    println!("50 ticks of 1 ms took {:?}", begun.elapsed());
    handle.send(Command::Stop);
    join(handle);
    for flood in floods {
        flood.join().unwrap();
    }
}

#[test]
fn a_shard_that_ends_amid_traffic_leaves_nothing_behind() {
    if !is_child() {
        let name = "quiet::a_shard_that_ends_amid_traffic_leaves_nothing_behind";
        return passes_in_a_child(name, "ulimit -n 300");
    }
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let bare = || {
        let run = || glommio::LocalExecutor::default().run(async {});
        thread::spawn(run).join().unwrap();
        descriptors()
    };
    // What glommio makes once per process, then what it keeps of each executor.
    bare();
    let kept = bare().abs_diff(bare());
    let mut before = None;
    for round in 0..12 {
        let up = upstream(echo);
        let shard = Shard::start(move || Breaking {
            machine: Forwarder::new(up),
            inputs_left: if round % 4 == 3 { 500 } else { u64::MAX },
        });
        let floods: Vec<_> = (0..8).map(|_| flood(shard.connect())).collect();
        // Some are connecting, some wait to be accepted.
        let more: Vec<_> = (0..8).map(|_| shard.connect()).collect();
        thread::sleep(Duration::from_millis(5 * (round % 5)));
        shard.handle.send(Command::Stop);
        wait_until("the shard ends", || shard.handle.is_finished());
        // It may have stopped before it broke.
        if let Err(e) = shard.handle.join() {
            assert_eq!(e.to_string(), "shard panicked: a machine breaks");
        }
        for flood in floods {
            flood.join().unwrap();
        }
        drop(more);
        // The test's own upstream keeps its listener.
        let left = || descriptors() - round as usize * (1 + kept);
        let first = *before.get_or_insert_with(left);
        wait_until("its descriptors are closed", || left() <= first);
    }
}

#[test]
fn too_little_lockable_memory_is_said_in_words() {
    if !is_child() {
        assert!(available().is_ok());
        let name = "quiet::too_little_lockable_memory_is_said_in_words";
        return passes_in_a_child(name, "ulimit -S -l 64");
    }
    let why = available().unwrap_err();
    assert!(matches!(why, Unavailable::Memlock { limit: 65_536 }));
    let shard = spawn_shard("poor", None, || -> std::io::Result<Driver<Scripted>> {
        panic!("there is no executor to run this in")
    });
    assert!(shard.is_err());
}
