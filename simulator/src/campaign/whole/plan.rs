//! A mesh drawn from a seed: its objects as YAML, what its policies mean, who calls whom, and when which proxy hears what.
//!
//! The meaning is worked out here from the rules, and shares nothing with what is under test but the YAML.

use std::fmt;
use std::time::Duration;

use meshward_core::api::peer_authentication::Mode;

use super::super::plan::{Profile, RequestPlan, body_of, weather};
use crate::chance::Chance;
use crate::http::chunked;
use crate::net::Weather;

/// The namespace of all services.
pub const SHOP: &str = "shop";
/// Where the pods of services listen.
pub const PORT: u16 = 8080;

/// A service, and whether each of its pods has a sidecar. Both are called by a letter.
#[derive(Clone, Debug)]
pub struct ServicePlan {
    pub name: String,
    pub pods: Vec<bool>,
}

/// A pod that only calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    pub name: &'static str,
    pub namespace: &'static str,
    pub sidecar: bool,
}

pub const CALLERS: [Caller; 3] = [
    Caller {
        name: "client",
        namespace: SHOP,
        sidecar: true,
    },
    Caller {
        name: "elsewhere",
        namespace: "other",
        sidecar: true,
    },
    Caller {
        name: "outside",
        namespace: "plain",
        sidecar: false,
    },
];

/// Who a policy is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whom {
    Anyone,
    /// `cluster.local/ns/…/sa/…`.
    Principal(String),
    Namespace(&'static str),
}

#[derive(Clone, Debug)]
pub struct Policy {
    /// `None`: of the whole namespace.
    pub service: Option<usize>,
    pub deny: bool,
    pub from: Whom,
    /// For `/admin*` alone.
    pub admin: bool,
}

/// One state of all policies.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    pub of_mesh: Option<Mode>,
    pub of_namespace: Option<Mode>,
    /// Of each service: its own mode, and the one of its port.
    pub of_services: Vec<Option<(Mode, Option<Mode>)>>,
    pub policies: Vec<Policy>,
}

/// How a request may end at its client, whatever the application says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Arrives,
    Denied,
    /// 503 by the caller's own sidecar.
    Unavailable,
    Reset,
}

/// A connection and its requests.
#[derive(Clone, Debug)]
pub struct CallPlan {
    pub at: Duration,
    /// The name of a pod, `client` or `a-0`.
    pub caller: usize,
    pub service: usize,
    pub pipelined: bool,
    pub reset_after: Option<Duration>,
    pub requests: Vec<RequestPlan>,
}

/// How applications behave, besides answering.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    pub delay_one_in: u64,
    pub reset_one_in: u64,
    pub close_one_in: u64,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    pub profile: Profile,
    pub weather: Weather,
    pub services: Vec<ServicePlan>,
    pub versions: Vec<Rules>,
    /// When each version is made, and the longest delay of its delivery to a proxy.
    pub changes: Vec<(Duration, Duration)>,
    pub calls: Vec<CallPlan>,
    pub manners: Manners,
}

impl Plan {
    pub fn draw(seed: u64, profile: Option<Profile>) -> Self {
        let chance = &mut Chance::new(seed, PLAN_CHANCE);
        let profile = profile.unwrap_or_else(|| {
            let all = [Profile::Calm, Profile::Rough, Profile::Storm];
            chance.pick(&all)
        });
        let storm = profile == Profile::Storm;
        let services: Vec<ServicePlan> = ["a", "b", "c", "d"]
            .iter()
            .take(chance.within(2..=4) as usize)
            .map(|name| ServicePlan {
                name: (*name).to_owned(),
                pods: (0..chance.within(1..=3))
                    .map(|_| !chance.one_in(5))
                    .collect(),
            })
            .collect();
        let versions: Vec<Rules> = (0..chance.pick(&[1, 1, 2, 3]))
            .map(|_| Rules::draw(chance, &services))
            .collect();
        let mut at = 0;
        let changes = versions
            .iter()
            .map(|_| {
                let change = (at, chance.pick(&[0, 20, 200]));
                at += chance.within(10..=150);
                (
                    Duration::from_millis(change.0),
                    Duration::from_millis(change.1),
                )
            })
            .collect();
        let mut next_id = 0;
        let calls = (0..chance.within(2..=10))
            .map(|_| call(chance, storm, services.len(), &mut next_id))
            .collect();
        Self {
            seed,
            profile,
            weather: weather(chance, profile),
            services,
            versions,
            changes,
            calls,
            manners: Manners {
                delay_one_in: chance.pick(&[0, 2, 5]),
                reset_one_in: if storm { chance.pick(&[0, 6, 20]) } else { 0 },
                close_one_in: chance.pick(&[0, 3, 10]),
            },
        }
    }

    /// The name of a caller's pod.
    pub fn caller(index: usize) -> String {
        format!("{}-0", CALLERS[index].name)
    }

    /// Who a pod is to policies; `None` without a sidecar, which nobody can know.
    pub fn identity(&self, pod: &str) -> Option<String> {
        let (name, number) = pod.rsplit_once('-')?;
        if let Some(caller) = CALLERS.iter().find(|c| c.name == name) {
            return caller
                .sidecar
                .then(|| principal(caller.namespace, caller.name));
        }
        let service = self.services.iter().find(|s| s.name == name)?;
        let sidecar = service.pods.get(number.parse::<usize>().ok()?)?;
        sidecar.then(|| principal(SHOP, name))
    }

    /// The service that a pod is of.
    pub fn service_of(&self, pod: &str) -> Option<usize> {
        let (name, _) = pod.rsplit_once('-')?;
        self.services.iter().position(|s| s.name == name)
    }

    /// Namespaces, accounts, services and pods.
    pub fn objects(&self) -> String {
        let mut yaml = String::new();
        for (namespace, injection) in [
            (SHOP, "enabled"),
            ("other", "enabled"),
            ("plain", "disabled"),
        ] {
            yaml += &format!(
                "---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: {namespace}, labels: {{istio-injection: {injection}}}}}}}\n"
            );
        }
        let mut pod = |namespace: &str, account: &str, name: &str, sidecar: bool| {
            yaml += &format!(
                "---\n{{apiVersion: v1, kind: Pod, metadata: {{name: {name}, namespace: {namespace}, labels: {{app: {account}}}, \
                 annotations: {{sidecar.istio.io/inject: \"{sidecar}\"}}}}, \
                 spec: {{serviceAccountName: {account}, containers: [{{name: main}}]}}}}\n"
            );
        };
        for (index, caller) in CALLERS.iter().enumerate() {
            pod(
                caller.namespace,
                caller.name,
                &Self::caller(index),
                caller.sidecar,
            );
        }
        for ServicePlan { name, pods } in &self.services {
            for (number, sidecar) in pods.iter().enumerate() {
                pod(SHOP, name, &format!("{name}-{number}"), *sidecar);
            }
        }
        let accounts = CALLERS.iter().map(|c| (c.namespace, c.name));
        let accounts = accounts.chain(self.services.iter().map(|s| (SHOP, s.name.as_str())));
        for (namespace, name) in accounts {
            yaml += &format!(
                "---\n{{apiVersion: v1, kind: ServiceAccount, metadata: {{name: {name}, namespace: {namespace}}}}}\n"
            );
        }
        for ServicePlan { name, .. } in &self.services {
            yaml += &format!(
                "---\n{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: {SHOP}}}, \
                 spec: {{selector: {{app: {name}}}, ports: [{{name: http, port: 80, targetPort: {PORT}}}]}}}}\n"
            );
        }
        yaml
    }

    /// How a request from `caller` to `service` may end while `rules` are in force everywhere.
    pub fn ends(&self, rules: &Rules, caller: &str, service: usize, target: &str) -> Vec<End> {
        let identity = self.identity(caller);
        let pods = &self.services[service].pods;
        let mode = rules.mode(service);
        let mut ends = Vec::new();
        match identity {
            Some(identity) => {
                for sidecar in pods {
                    // S-60, S-61.
                    let tls = rules.namespace_mode() != Mode::Disable
                        && *sidecar
                        && mode != Mode::Disable;
                    let known = tls.then_some(identity.as_str());
                    ends.push(match (sidecar, accepts(mode, tls)) {
                        (false, _) => End::Arrives,
                        (true, false) => End::Unavailable,
                        (true, true) if rules.permits(service, known, target) => End::Arrives,
                        (true, true) => End::Denied,
                    });
                }
            }
            None => ends.push(match (pods[0], accepts(mode, false)) {
                (false, _) => End::Arrives,
                (true, false) => End::Reset,
                (true, true) if rules.permits(service, None, target) => End::Arrives,
                (true, true) => End::Denied,
            }),
        }
        ends
    }
}

fn principal(namespace: &str, account: &str) -> String {
    format!("cluster.local/ns/{namespace}/sa/{account}")
}

/// Whether a port of this mode takes connections with TLS, or without (S-20).
pub fn accepts(mode: Mode, tls: bool) -> bool {
    match mode {
        Mode::Strict => tls,
        Mode::Permissive | Mode::Unset => true,
        Mode::Disable => !tls,
    }
}

impl Rules {
    fn draw(chance: &mut Chance, services: &[ServicePlan]) -> Self {
        let some = [Mode::Strict, Mode::Strict, Mode::Permissive, Mode::Disable];
        let mode = |chance: &mut Chance, one_in| chance.one_in(one_in).then(|| chance.pick(&some));
        let of_mesh = mode(chance, 2);
        let of_namespace = mode(chance, 3);
        let of_services = services
            .iter()
            .map(|_| mode(chance, 4).map(|own| (own, mode(chance, 2))))
            .collect();
        let policies = (0..chance.within(0..=4))
            .map(|_| Policy {
                service: (!chance.one_in(4)).then(|| chance.index(services.len())),
                deny: chance.one_in(3),
                from: match chance.within(0..=5) {
                    0 | 1 => Whom::Anyone,
                    2 => Whom::Principal(principal(SHOP, "client")),
                    3 => Whom::Principal(principal(SHOP, &chance.pick(services).name)),
                    4 => Whom::Namespace(SHOP),
                    _ => Whom::Namespace("other"),
                },
                admin: chance.one_in(3),
            })
            .collect();
        Self {
            of_mesh,
            of_namespace,
            of_services,
            policies,
        }
    }

    fn namespace_mode(&self) -> Mode {
        self.of_namespace
            .or(self.of_mesh)
            .unwrap_or(Mode::Permissive)
    }

    /// Of the port of a service's pods (S-20 to S-22).
    pub fn mode(&self, service: usize) -> Mode {
        match self.of_services[service] {
            Some((own, port)) => port.unwrap_or(own),
            None => self.namespace_mode(),
        }
    }

    /// S-110: DENY first; then, if any ALLOW is there, one has to match.
    pub fn permits(&self, service: usize, identity: Option<&str>, target: &str) -> bool {
        let mut selected = self
            .policies
            .iter()
            .filter(|p| p.service.is_none_or(|s| s == service));
        let matches = |policy: &Policy| {
            let from = match &policy.from {
                Whom::Anyone => true,
                Whom::Principal(name) => identity == Some(name),
                Whom::Namespace(name) => {
                    identity.is_some_and(|id| id.contains(&format!("/ns/{name}/")))
                }
            };
            from && (!policy.admin || target.starts_with("/admin"))
        };
        if selected.clone().any(|p| p.deny && matches(p)) {
            return false;
        }
        let mut allows = selected.clone().filter(|p| !p.deny).peekable();
        allows.peek().is_none() || selected.any(|p| !p.deny && matches(p))
    }

    /// As YAML; `None`: there is nothing to say.
    pub fn objects(&self, services: &[ServicePlan]) -> Option<String> {
        let mut yaml = String::new();
        let mut add = |kind: &str, name: &str, namespace: &str, spec: &str| {
            yaml += &format!(
                "---\n{{apiVersion: security.istio.io/v1, kind: {kind}, metadata: {{name: {name}, namespace: {namespace}}}, \
                 spec: {{{spec}}}}}\n"
            );
        };
        let mtls = |mode: Mode| format!("mtls: {{mode: {}}}", spell(mode));
        for (mode, namespace) in [(self.of_mesh, "istio-system"), (self.of_namespace, SHOP)] {
            if let Some(mode) = mode {
                add("PeerAuthentication", "default", namespace, &mtls(mode));
            }
        }
        let select = |service: usize| {
            let name = &services[service].name;
            format!("selector: {{matchLabels: {{app: {name}}}}}")
        };
        for (index, modes) in self.of_services.iter().enumerate() {
            let Some((own, port)) = modes else { continue };
            let mut spec = format!("{}, {}", select(index), mtls(*own));
            if let Some(port) = port {
                spec += &format!(", portLevelMtls: {{{PORT}: {{mode: {}}}}}", spell(*port));
            }
            add("PeerAuthentication", &services[index].name, SHOP, &spec);
        }
        for (number, policy) in self.policies.iter().enumerate() {
            let mut parts = Vec::new();
            match &policy.from {
                Whom::Anyone => {}
                Whom::Principal(name) => {
                    parts.push(format!("from: [{{source: {{principals: [\"{name}\"]}}}}]"));
                }
                Whom::Namespace(name) => {
                    parts.push(format!("from: [{{source: {{namespaces: [\"{name}\"]}}}}]"));
                }
            }
            if policy.admin {
                parts.push("to: [{operation: {paths: [\"/admin*\"]}}]".to_owned());
            }
            let action = if policy.deny { "DENY" } else { "ALLOW" };
            let mut spec = format!("action: {action}, rules: [{{{}}}]", parts.join(", "));
            if let Some(service) = policy.service {
                spec += &format!(", {}", select(service));
            }
            add("AuthorizationPolicy", &format!("p{number}"), SHOP, &spec);
        }
        (!yaml.is_empty()).then_some(yaml)
    }
}

fn spell(mode: Mode) -> &'static str {
    match mode {
        Mode::Strict => "STRICT",
        Mode::Permissive => "PERMISSIVE",
        Mode::Disable => "DISABLE",
        Mode::Unset => "UNSET",
    }
}

fn call(chance: &mut Chance, storm: bool, services: usize, next_id: &mut u64) -> CallPlan {
    let caller = chance.index(CALLERS.len());
    let service = chance.index(services);
    // The short name is known in the services' own namespace alone.
    let short = CALLERS[caller].namespace == SHOP && chance.one_in(2);
    let name = ["a", "b", "c", "d"][service];
    let host = if short {
        name.to_owned()
    } else {
        format!("{name}.{SHOP}")
    };
    let requests = (0..chance.within(1..=5))
        .map(|_| {
            *next_id += 1;
            let id = *next_id;
            let len = chance.pick(&[0, 0, 0, 20, 3_000, 80_000]);
            let target = match chance.within(0..=5) {
                0..=2 => format!("/ok/{id}"),
                3 => format!("/admin/{id}"),
                _ => format!("/on/{}/{id}", chance.index(services)),
            };
            request(&host, id, target, len, chance)
        })
        .collect();
    CallPlan {
        at: Duration::from_micros(chance.within(1_000..=300_000)),
        caller,
        service,
        pipelined: chance.one_in(3),
        reset_after: (storm && chance.one_in(4))
            .then(|| Duration::from_micros(chance.within(0..=50_000))),
        requests,
    }
}

/// A request of `len` bytes of body.
pub fn request(
    host: &str,
    id: u64,
    target: String,
    len: usize,
    chance: &mut Chance,
) -> RequestPlan {
    let body = body_of(id, len);
    let method = if body.is_empty() { "GET" } else { "POST" };
    let mut wire = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n").into_bytes();
    if body.is_empty() {
        wire.extend_from_slice(b"\r\n");
    } else if chance.one_in(2) {
        wire.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        wire.extend_from_slice(&chunked(&body, &[chance.index(body.len())]));
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

/// The request that an application makes before it answers `id`, if its target asks for one: of which service, and its id.
pub fn calls_on(target: &str, id: u64) -> Option<(usize, u64)> {
    let service = target.strip_prefix("/on/")?.split('/').next()?;
    Some((service.parse().ok()?, id + CALLED_ON))
}

/// Beyond every id that is planned.
const CALLED_ON: u64 = 1_000_000;
/// The purpose of the draws of a plan.
const PLAN_CHANCE: u64 = 7;

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "a whole mesh, {:?}: {:?}", self.profile, self.weather)?;
        f.write_str(&self.objects())?;
        for (rules, (at, late)) in self.versions.iter().zip(&self.changes) {
            writeln!(f, "# at {at:?}, up to {late:?} late")?;
            f.write_str(&rules.objects(&self.services).unwrap_or_default())?;
        }
        writeln!(f, "# {:?}", self.manners)?;
        for c in &self.calls {
            let name = &self.services[c.service].name;
            write!(
                f,
                "# at {:?}: {} calls {name}, pipelined={} reset={:?}:",
                c.at,
                Self::caller(c.caller),
                c.pipelined,
                c.reset_after
            )?;
            for r in &c.requests {
                write!(f, " {}+{}", r.target, r.body.len())?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
