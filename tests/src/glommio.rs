//! Sidecars over io_uring and glommio: each a shard of its own, its machine held against the contract.

use std::net::{SocketAddr, TcpListener, TcpStream};

use meshward_core::link::Entry;
use meshward_core::proxy::Input;
use meshward_glommio::{
    Clock, Command, Destination, Driver, ProxyId, ShardHandle, available, spawn_shard,
};

use crate::sockets::{Host, Machine, Running, Sidecar, wait_for_end};

/// Starts shards.
#[derive(Debug, Default)]
pub struct Glommio;

struct Shard(ShardHandle<Machine>);

/// The only proxy of each driver.
const PROXY: ProxyId = ProxyId(0);

impl Host for Glommio {
    fn name(&self) -> &'static str {
        "glommio"
    }

    fn start(&mut self, sidecar: Sidecar) -> Result<Box<dyn Running>, String> {
        available().map_err(|e| format!("glommio cannot be judged on this machine: {e}"))?;
        let Sidecar {
            machine,
            inputs,
            doors,
            mut records,
        } = sidecar;
        let shard = spawn_shard("sidecar", None, move || {
            let clock = Clock::start();
            let sink = move |_, record: Box<_>| records(*record);
            let mut driver = Driver::new(clock, Box::new(sink));
            let proxy = driver.add(machine(clock.now()));
            assert_eq!(proxy, PROXY, "the first proxy of a driver");
            for input in inputs {
                driver.input(proxy, input);
            }
            for (listener, entry) in doors {
                driver.listen(proxy, listener, entry, Destination::Local)?;
            }
            Ok(driver)
        });
        shard
            .map(|shard| Box::new(Shard(shard)) as Box<dyn Running>)
            .map_err(|e| e.to_string())
    }
}

impl Running for Shard {
    fn tell(&self, input: Input) {
        self.0.send(Command::Input(PROXY, input));
    }

    fn open(&self, listener: TcpListener, entry: Entry) {
        self.0.send(Command::Listen {
            proxy: PROXY,
            listener,
            entry,
            destination: Destination::Local,
        });
    }

    fn capture(&self, stream: TcpStream, from: SocketAddr, to: SocketAddr) {
        self.0.send(Command::Adopt {
            proxy: PROXY,
            stream,
            entry: Entry::Outbound,
            peer: from,
            original_dst: to,
        });
    }

    fn stop(self: Box<Self>) -> Result<(), String> {
        self.0.send(Command::Stop);
        wait_for_end(|| self.0.is_finished())?;
        self.0.join().map(drop).map_err(|e| e.to_string())
    }
}
