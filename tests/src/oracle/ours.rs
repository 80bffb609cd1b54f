//! Our proxy for every place: real sockets, one shard over tokio.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;

use meshward_core::link::Entry;
use meshward_core::proxy::{Input, Proxy};
use meshward_core::snapshot::compile::{InboundSource, Sources, snapshot};
use meshward_core::spiffe::Svid;
use meshward_core::telemetry::record::Record;
use meshward_core::tls::Crypto;
use meshward_tokio::{Clock, Command, Driver, ProxyId, spawn_shard};

use super::Place;
use super::envoy::{Logged, Material};

/// A sidecar for each place, behind one door.
#[derive(Debug)]
pub struct Ours {
    /// The place is named in a line `PLACE n`, its client's address in a line of PROXY protocol behind it.
    pub door: SocketAddr,
    records: Receiver<Record>,
}

impl Ours {
    /// Starts the proxies; they end with the process.
    pub fn start(
        places: &[Place],
        upstream: SocketAddr,
        material: &Material,
    ) -> Result<Self, String> {
        let clock = Clock::start();
        let wall = clock.now().wall;
        let mut inputs = Vec::new();
        for (place, number) in places.iter().zip(1..) {
            let sources = Sources {
                version: 1,
                workload: place.workload.clone(),
                mesh: place.mesh.clone(),
                inbound: vec![InboundSource {
                    listener: number,
                    port: place.address.port(),
                    kind: place.kind,
                    mode: Some(place.mode),
                    upstream,
                    from: None,
                    records: true,
                    authorization_policies: Arc::new(place.authorization.clone()),
                    request_authentications: Arc::new(place.authentication.clone()),
                    peer_authentications: Arc::new(Vec::new()),
                }],
                outbound: Vec::new(),
            };
            let snapshot = snapshot(&sources).map_err(|error| error.to_string())?;
            let identity = material.identity(&place.identity)?;
            let svid = Svid::from_pem(
                identity.chain_pem.as_bytes(),
                identity.key_pem.as_bytes(),
                material.root_pem.as_bytes(),
                wall,
            )
            .map_err(|error| error.to_string())?;
            inputs.push([
                Input::Svid(Arc::new(svid)),
                Input::Snapshot(Arc::new(snapshot)),
            ]);
        }
        let (sender, records) = channel();
        let shard = spawn_shard("oracle", None, move || {
            let sink = move |_: ProxyId, record: Box<Record>| {
                // Nobody listens any more when the comparison is over.
                let _ = sender.send(*record);
            };
            let mut driver = Driver::new(clock, Box::new(sink));
            for (inputs, seed) in inputs.into_iter().zip(0_u32..) {
                let mut seeds = [7; 32];
                seeds[..4].copy_from_slice(&seed.to_be_bytes());
                let proxy = driver.add(Proxy::new(seeds, Crypto::production(), clock.now()));
                for input in inputs {
                    driver.input(proxy, input);
                }
            }
            Ok(driver)
        })
        .map_err(|error| error.to_string())?;
        let door = TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)).map_err(|e| e.to_string())?;
        let address = door.local_addr().map_err(|e| e.to_string())?;
        let remote = Mutex::new(shard.remote());
        let addresses: Vec<SocketAddr> = places.iter().map(|place| place.address).collect();
        thread::spawn(move || {
            for stream in door.incoming().flatten() {
                let Ok((place, peer)) = announced(&stream) else {
                    continue;
                };
                let Some(original_dst) = addresses.get(place).copied() else {
                    continue;
                };
                let number = u32::try_from(place).unwrap_or(u32::MAX);
                if let Ok(remote) = remote.lock() {
                    remote.send(Command::Adopt {
                        proxy: ProxyId(number),
                        stream,
                        entry: Entry::Inbound,
                        peer,
                        original_dst,
                    });
                }
            }
            drop(shard);
        });
        Ok(Self {
            door: address,
            records,
        })
    }

    /// What the access log says, by the client's address. Ends when nothing came for `patience`.
    pub fn log(
        &self,
        expected: usize,
        patience: std::time::Duration,
    ) -> BTreeMap<SocketAddr, Logged> {
        let mut log = BTreeMap::new();
        while log.len() < expected {
            let Ok(record) = self.records.recv_timeout(patience) else {
                break;
            };
            let Some(peer) = record.downstream_remote else {
                continue;
            };
            let words = |text: Option<String>| {
                text.map_or_else(|| "-".to_owned(), |text| text.replace(' ', "_"))
            };
            log.insert(
                peer,
                Logged {
                    details: words(record.details),
                    termination: words(record.termination),
                },
            );
        }
        log
    }
}

/// The two lines in front of what the client sends.
fn announced(mut stream: &TcpStream) -> io::Result<(usize, SocketAddr)> {
    let mut line = || -> io::Result<String> {
        let mut text = Vec::new();
        let mut byte = [0];
        while !text.ends_with(b"\r\n") {
            stream.read_exact(&mut byte)?;
            text.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
    };
    let wrong = || io::Error::other("not the lines of this tool's client");
    let place = line()?;
    let place = place.strip_prefix("PLACE ").and_then(|n| n.parse().ok());
    let proxy = line()?;
    let words: Vec<&str> = proxy.split(' ').collect();
    let ["PROXY", _, source, _, port, _] = words.as_slice() else {
        return Err(wrong());
    };
    let ip: IpAddr = source.parse().map_err(|_| wrong())?;
    let port = port.parse().map_err(|_| wrong())?;
    Ok((place.ok_or_else(wrong)?, SocketAddr::new(ip, port)))
}
