//! Whether somebody listens, asked of the kernel and not of the listener.

use std::collections::BTreeSet;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

const LOOK: Duration = Duration::from_millis(20);
/// TCP_LISTEN in /proc/net/tcp.
const LISTEN: &str = "0A";

/// Waits until somebody listens on each of `wanted`, at most for `patience`; what nobody listens on then.
pub(crate) fn wait(mut wanted: Vec<SocketAddr>, patience: Duration) -> Vec<SocketAddr> {
    let end = Instant::now() + patience;
    loop {
        if wanted.is_empty() {
            return wanted;
        }
        let found = now();
        wanted.retain(|address| !found.takes(*address));
        if wanted.is_empty() || Instant::now() >= end {
            return wanted;
        }
        thread::sleep(LOOK);
    }
}

#[derive(Default)]
struct Listening {
    addresses: BTreeSet<SocketAddr>,
    /// Ports of those who listen on all addresses.
    ports: BTreeSet<u16>,
}

impl Listening {
    fn takes(&self, address: SocketAddr) -> bool {
        self.addresses.contains(&address) || self.ports.contains(&address.port())
    }

    fn add(&mut self, table: &str) {
        for line in table.lines().skip(1) {
            let mut fields = line.split_whitespace().skip(1);
            let (local, state) = (fields.next(), fields.nth(1));
            if state == Some(LISTEN)
                && let Some((ip, port)) = local.and_then(|text| text.split_once(':'))
                && let Ok(port) = u16::from_str_radix(port, 16)
            {
                match u32::from_str_radix(ip, 16) {
                    Ok(0) => {
                        self.ports.insert(port);
                    }
                    // In the order of the machine's bytes.
                    Ok(ip) => {
                        let ip = IpAddr::V4(Ipv4Addr::from(ip.to_ne_bytes()));
                        self.addresses.insert(SocketAddr::new(ip, port));
                    }
                    Err(_) if ip.bytes().all(|b| b == b'0') => {
                        self.ports.insert(port);
                    }
                    Err(_) => {}
                }
            }
        }
    }
}

fn now() -> Listening {
    let mut listening = Listening::default();
    for table in ["/proc/self/net/tcp", "/proc/self/net/tcp6"] {
        listening.add(&fs::read_to_string(table).unwrap_or_default());
    }
    listening
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_listener_is_seen_by_its_address_and_on_all_addresses_by_its_port() {
        let one = TcpListener::bind("127.0.0.1:0").unwrap();
        let all = TcpListener::bind("0.0.0.0:0").unwrap();
        let six = TcpListener::bind("[::]:0").unwrap();
        let here = one.local_addr().unwrap();
        let elsewhere = SocketAddr::new([127, 0, 0, 2].into(), here.port());
        let port = |listener: &TcpListener| {
            let port = listener.local_addr().unwrap().port();
            SocketAddr::new([127, 9, 9, 9].into(), port)
        };
        let wanted = vec![here, elsewhere, port(&all), port(&six)];
        assert_eq!(wait(wanted, Duration::from_millis(50)), [elsewhere]);
    }
}
