//! What one run is: drawn from its seed before anything happens.

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use meshward_core::api::peer_authentication::Mode;

use crate::chance::Chance;
use crate::http::chunked;
use crate::net::Weather;

/// Which faults exist in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Nothing is cut, late or broken; every request must get its answer.
    Calm,
    /// Bytes are cut anywhere and late, buffers small; every request must get its answer.
    Rough,
    /// Resets, refused connects, clients and applications that leave, rules that change.
    Storm,
}

impl Profile {
    /// `calm`, `rough` or `storm`.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "calm" => Some(Self::Calm),
            "rough" => Some(Self::Rough),
            "storm" => Some(Self::Storm),
            _ => None,
        }
    }
}

/// Rules at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    pub mode: Mode,
    /// DENY of `/admin*` on the HTTP port.
    pub denies_admin: bool,
    /// ALLOW of the service account `front`, and so of nobody else.
    pub allows_front_alone: bool,
    /// `front` expects a name of the catalog that it does not have (S-58).
    pub expects_other: bool,
}

/// Who opens a connection, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// The application of `front`, through its sidecar.
    Sidecar,
    /// … to a server whose certificate is not the one it expects (S-59).
    SidecarToImpostor,
    /// Without a sidecar, in plain text.
    Plain,
    /// Without a sidecar, with the certificate of a service account of the mesh.
    Tls { front: bool },
    /// With a certificate of another authority.
    Stranger,
    /// With a certificate of another trust domain.
    Foreigner,
    /// With TLS and no certificate.
    Nameless,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Http,
    Tcp,
}

/// How a client ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leave {
    /// FIN when everything is answered.
    AfterAnswers,
    /// FIN at once behind the last request.
    AfterRequests,
    /// RST so long after the last byte.
    Reset(Duration),
}

#[derive(Clone, Debug)]
pub struct RequestPlan {
    pub id: u64,
    pub target: String,
    pub body: Vec<u8>,
    /// What goes over the wire; cut short if the client leaves in the middle of it.
    pub wire: Vec<u8>,
    pub cut_short: bool,
}

#[derive(Clone, Debug)]
pub struct ConnPlan {
    pub at: Duration,
    pub caller: Caller,
    pub service: Service,
    pub pipelined: bool,
    pub leave: Leave,
    pub requests: Vec<RequestPlan>,
}

/// How the application behaves, besides answering.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    pub delay_one_in: u64,
    pub reset_one_in: u64,
    pub close_one_in: u64,
    pub early_one_in: u64,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub profile: Profile,
    pub weather: Weather,
    pub versions: Vec<Version>,
    /// When the second version is given to front, catalog and impostor.
    pub change_at: [Duration; 3],
    /// Wall clocks of front, catalog and impostor, in ms.
    pub skew_ms: [i64; 3],
    pub conns: Vec<ConnPlan>,
    pub manners: Manners,
    pub drain_at: Option<Duration>,
    /// When front, catalog and impostor get a new certificate for the same name, which nobody notices (S-94).
    pub renew_at: [Option<Duration>; 3],
    /// Whose wall clock jumps when, to which skew in ms.
    pub clock_jump: Option<(usize, Duration, i64)>,
}

impl Plan {
    pub fn draw(seed: u64, profile: Option<Profile>) -> Self {
        let chance = &mut Chance::new(seed, 2);
        let profile = profile.unwrap_or_else(|| {
            chance.pick(&[
                Profile::Calm,
                Profile::Rough,
                Profile::Storm,
                Profile::Storm,
            ])
        });
        let storm = profile == Profile::Storm;
        let versions = (0..=u64::from(storm && chance.one_in(3)))
            .map(|_| Version {
                mode: chance.pick(&[Mode::Strict, Mode::Strict, Mode::Permissive, Mode::Disable]),
                denies_admin: chance.one_in(2),
                allows_front_alone: chance.one_in(3),
                expects_other: false,
            })
            .collect();
        let mut next_id = 1;
        let count = chance.within(1..=8);
        let conns = (0..count)
            .map(|_| conn(chance, storm, &mut next_id))
            .collect();
        let mut plan = Self {
            seed,
            profile,
            weather: weather(chance, profile),
            versions,
            change_at: [0; 3].map(|_| Duration::from_millis(chance.within(0..=300))),
            skew_ms: [0; 3].map(|_| chance.within(0..=60_000) as i64 - 30_000),
            conns,
            manners: Manners {
                delay_one_in: chance.pick(&[0, 2, 5]),
                reset_one_in: if storm { chance.pick(&[0, 4, 20]) } else { 0 },
                close_one_in: chance.pick(&[0, 3, 10]),
                early_one_in: if storm { chance.pick(&[0, 5]) } else { 0 },
            },
            drain_at: (storm && chance.one_in(5))
                .then(|| Duration::from_millis(chance.within(0..=400))),
            renew_at: [None; 3],
            clock_jump: None,
        };
        plan.trouble(&mut Chance::new(seed, TROUBLE_CHANCE));
        plan
    }

    /// Draws of their own, so that the rest of a plan stays what it was when its seed was written down.
    fn trouble(&mut self, chance: &mut Chance) {
        let soon = |chance: &mut Chance| Duration::from_millis(chance.within(0..=300));
        self.renew_at = [0; 3].map(|_| chance.one_in(3).then(|| soon(chance)));
        self.clock_jump = chance.one_in(3).then(|| {
            let skew = chance.within(0..=60_000) as i64 - 30_000;
            (chance.index(3), soon(chance), skew)
        });
        if let [_, last] = &mut self.versions[..] {
            last.expects_other = chance.one_in(3);
        }
        if self.profile != Profile::Calm && chance.one_in(6) {
            self.weather.bandwidth = 20_000;
        }
        for conn in self.conns.iter_mut().filter(|c| c.service == Service::Http) {
            if let Some(last) = conn.requests.last_mut()
                && !last.cut_short
                && chance.one_in(3)
            {
                let at = last.wire.windows(2).position(|w| w == b"\r\n");
                let at = at.expect("a request line ends") + 2;
                last.wire
                    .splice(at..at, b"Connection: close\r\n".iter().copied());
            }
        }
    }

    /// The versions that may be in force for a connection that begins at `at`: the last alone, once everybody has it.
    pub fn versions_at(&self, at: Duration) -> &[Version] {
        let everywhere = self.change_at.iter().all(|change| *change < at);
        match &self.versions[..] {
            [_, last @ ..] if everywhere && !last.is_empty() => last,
            all => all,
        }
    }

    /// How many HTTP requests and byte streams the clients begin.
    pub fn requests(&self) -> usize {
        self.conns.iter().map(|c| c.requests.len()).sum()
    }
}

/// The plan without its bytes.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}: {:?}", self.profile, self.weather)?;
        for (version, at) in self
            .versions
            .iter()
            .zip([[Duration::ZERO; 3], self.change_at])
        {
            writeln!(f, "at {at:?}: {version:?}")?;
        }
        writeln!(
            f,
            "clocks {:?} ms, jump {:?}, renewals {:?}, drain {:?}, {:?}",
            self.skew_ms, self.clock_jump, self.renew_at, self.drain_at, self.manners
        )?;
        for c in &self.conns {
            let (at, caller, service, leave) = (c.at, c.caller, c.service, c.leave);
            write!(
                f,
                "at {at:?}: {caller:?} {service:?} pipelined={} {leave:?}:",
                c.pipelined
            )?;
            for r in &c.requests {
                let cut = if r.cut_short { " cut" } else { "" };
                write!(
                    f,
                    " #{} {} {}+{}{cut}",
                    r.id,
                    r.target,
                    r.wire.len(),
                    r.body.len()
                )?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

pub(super) fn weather(chance: &mut Chance, profile: Profile) -> Weather {
    if profile == Profile::Calm {
        return Weather::calm();
    }
    let odds = |chance: &mut Chance, one_in: RangeInclusive<u64>| {
        if profile == Profile::Storm && chance.one_in(3) {
            chance.within(one_in)
        } else {
            0
        }
    };
    Weather {
        latency_ns: 1_000..=chance.pick(&[10_000, 1_000_000, 30_000_000]),
        bandwidth: chance.pick(&[0, 2_000_000, 100_000_000]),
        segment: 1..=chance.pick(&[3, 100, 1448, 1448, 65_536]),
        send_buffer: chance.within(1_000..=200_000) as usize,
        receive_buffer: chance.within(1_000..=200_000) as usize,
        short_read_one_in: chance.pick(&[0, 1, 4]),
        reset_one_in: odds(chance, 10..=3000),
        stall_one_in: chance.pick(&[0, 0, 500]),
        stall_ns: 40_000_000,
        reset_loses_unread: chance.one_in(2),
        refuse_one_in: odds(chance, 2..=10),
        unreachable_one_in: odds(chance, 2..=10),
        connect_timeout_one_in: odds(chance, 3..=20),
    }
}

fn conn(chance: &mut Chance, storm: bool, next_id: &mut u64) -> ConnPlan {
    let service = chance.pick(&[Service::Http, Service::Http, Service::Http, Service::Tcp]);
    let mut caller = match chance.within(0..=15) {
        0..=7 => Caller::Sidecar,
        8 => Caller::SidecarToImpostor,
        9..=10 => Caller::Plain,
        11..=12 => Caller::Tls {
            front: chance.one_in(2),
        },
        13 => Caller::Stranger,
        14 => Caller::Foreigner,
        _ => Caller::Nameless,
    };
    if service == Service::Tcp && caller == Caller::SidecarToImpostor {
        caller = Caller::Sidecar;
    }
    let leave = match chance.within(0..=9) {
        0..=2 if storm => Leave::Reset(Duration::from_micros(chance.within(0..=50_000))),
        3 if storm || service == Service::Tcp => Leave::AfterRequests,
        _ => Leave::AfterAnswers,
    };
    let count = match service {
        Service::Http => chance.within(1..=6),
        Service::Tcp => 1,
    };
    let mut requests: Vec<_> = (0..count)
        .map(|_| {
            *next_id += 1;
            request(chance, service, *next_id)
        })
        .collect();
    if matches!(leave, Leave::Reset(_))
        && chance.one_in(2)
        && let Some(last) = requests.last_mut()
    {
        last.wire.truncate(chance.index(last.wire.len()));
        last.cut_short = true;
    }
    ConnPlan {
        at: Duration::from_micros(chance.within(1_000..=200_000)),
        caller,
        service,
        pipelined: service == Service::Tcp || chance.one_in(3),
        leave,
        requests,
    }
}

fn request(chance: &mut Chance, service: Service, id: u64) -> RequestPlan {
    let len = match chance.within(0..=9) {
        0..=4 => 0,
        5..=8 => chance.within(1..=5_000),
        _ => chance.within(5_000..=150_000),
    };
    if service == Service::Tcp {
        let body = body_of(id, len as usize + TCP_ID);
        return RequestPlan {
            id,
            target: String::new(),
            wire: body.clone(),
            body,
            cut_short: false,
        };
    }
    let body = body_of(id, len as usize);
    let target = format!("{}/{id}", chance.pick(&["/ok", "/ok", "/ok", "/admin"]));
    let method = if body.is_empty() { "GET" } else { "POST" };
    let mut wire = format!("{method} {target} HTTP/1.1\r\nHost: catalog\r\n").into_bytes();
    if chance.one_in(4) {
        let filler = "f".repeat(chance.within(1..=4_000) as usize);
        wire.extend_from_slice(format!("x-filler: {filler}\r\n").as_bytes());
    }
    if body.is_empty() {
        wire.extend_from_slice(b"\r\n");
    } else if chance.one_in(2) {
        let cuts: Vec<usize> = (0..chance.within(0..=5))
            .map(|_| chance.index(body.len()))
            .collect();
        wire.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        wire.extend_from_slice(&chunked(&body, &cuts));
    } else {
        wire.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        wire.extend_from_slice(&body);
    }
    RequestPlan {
        id,
        target,
        body,
        wire,
        cut_short: false,
    }
}

/// The purpose of the draws of [`Plan::trouble`].
const TROUBLE_CHANCE: u64 = 5;
/// Bytes of a TCP stream that tell which one it is.
pub const TCP_ID: usize = 9;

/// `len` bytes that only `id` has. The first nine spell it; none of them begins TLS or HTTP.
pub fn body_of(id: u64, len: usize) -> Vec<u8> {
    let mut state = id.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let spelled = format!("#{id:08}").into_bytes();
    spelled
        .into_iter()
        .chain(std::iter::from_fn(move || {
            state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
            Some((state >> 56) as u8)
        }))
        .take(len)
        .collect()
}

/// The id that the beginning of a body spells.
pub fn id_in(bytes: &[u8]) -> Option<u64> {
    let digits = bytes.get(1..TCP_ID)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The id at the end of a request target.
pub fn id_of_target(target: &str) -> Option<u64> {
    target.rsplit('/').next()?.parse().ok()
}

/// What the application answers to request `id`.
pub fn answer_of(id: u64) -> Vec<u8> {
    let len = match id % 7 {
        0 => 0,
        6 => 70_000 + id as usize % 1_000,
        n => (n * n * n) as usize * 10 + id as usize % 50,
    };
    let mut body = body_of(id ^ 0xffff_ffff, len.max(1));
    body.truncate(len);
    body
}

impl Version {
    /// As YAML.
    pub fn rules(&self) -> String {
        let mode = match self.mode {
            Mode::Strict => "STRICT",
            Mode::Permissive => "PERMISSIVE",
            Mode::Disable | Mode::Unset => "DISABLE",
        };
        let mut yaml = format!(
            "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata:\n  name: modes\n  namespace: default\n\
             spec:\n  mtls:\n    mode: {mode}\n"
        );
        let mut policy = |name: &str, spec: &str| {
            yaml += &format!(
                "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: {name}\n  \
                 namespace: default\nspec:\n  selector:\n    matchLabels:\n      app: catalog\n{spec}"
            );
        };
        if self.denies_admin {
            policy(
                "no-admin",
                "  action: DENY\n  rules:\n  - to:\n    - operation:\n        paths: [\"/admin*\"]\n        ports: [\"8080\"]\n",
            );
        }
        if self.allows_front_alone {
            policy(
                "front-alone",
                "  action: ALLOW\n  rules:\n  - from:\n    - source:\n        principals: [\"cluster.local/ns/default/sa/front\"]\n",
            );
        }
        yaml
    }

    /// Whether the rules let somebody do something; `front`: the caller proved to be that service account.
    pub fn permits(&self, front: bool, target: Option<&str>) -> bool {
        let admin = target.is_some_and(|t| t.starts_with("/admin"));
        !(self.denies_admin && admin) && (front || !self.allows_front_alone)
    }
}

/// Where everything is.
pub mod at {
    use super::SocketAddr;
    use std::net::{IpAddr, Ipv4Addr};

    const fn address(ip: [u8; 4], port: u16) -> SocketAddr {
        let [a, b, c, d] = ip;
        SocketAddr::new(IpAddr::V4(Ipv4Addr::new(a, b, c, d)), port)
    }

    pub const CATALOG_HTTP: SocketAddr = address([127, 1, 0, 2], 8080);
    pub const CATALOG_TCP: SocketAddr = address([127, 1, 0, 2], 9000);
    pub const IMPOSTOR: SocketAddr = address([127, 1, 0, 3], 8080);
    pub const CATALOG_APP: SocketAddr = address([127, 2, 0, 2], 8080);
    pub const ECHO_APP: SocketAddr = address([127, 2, 0, 2], 9000);
    pub const IMPOSTOR_APP: SocketAddr = address([127, 2, 0, 3], 8080);
    pub const SERVICE_HTTP: SocketAddr = address([10, 96, 0, 1], 80);
    pub const SERVICE_TCP: SocketAddr = address([10, 96, 0, 1], 9000);
    pub const SERVICE_IMPOSTOR: SocketAddr = address([10, 96, 0, 2], 80);
    pub const FRONT: IpAddr = address([127, 1, 0, 1], 0).ip();
    pub const OUTSIDE: IpAddr = address([127, 0, 0, 9], 0).ip();
}
