//! The corpus at the level of decisions: which policies reach a workload, which mode its port has, what the rules say.
//!
//! A `request`, `tcp` or `tcp_timeline` check is judged at the destination: the fixture says which pod and port it reaches
//! and whether the hop is mutual TLS, the deciders say the rest. Of what a check expects, status, result, policy and details
//! of the destination are compared; the rest belongs to the machines.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test reads the shared material, which the core itself may not"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use meshward_core::api::authorization_policy::AuthorizationPolicy;
use meshward_core::api::load::{Cause, Text, load_mesh_config, validate};
use meshward_core::api::mesh_config::MeshConfig;
use meshward_core::api::meta::Labels;
use meshward_core::api::peer_authentication::{Mode, PeerAuthentication};
use meshward_core::authz::compile::compile;
use meshward_core::authz::trust_domain::expand_principals;
use meshward_core::authz::{
    Attributes, Decision, HttpAttributes, Layer, evaluate, explain, matcher,
};
use meshward_core::http::head::Fields;
use meshward_core::path::{normalize, without_query};
use meshward_core::snapshot::mtls::effective_modes;
use meshward_core::snapshot::select::{Workload, authorization_policies};
use serde::Deserialize;
use serde_json::{Map, Value};

const THEMES: &[&str] = &[
    "authz-operation",
    "authz-order",
    "authz-source",
    "authz-tcp",
    "authz-when",
    "path-template",
    "peer-auth",
    "scope-target",
    "seed-blog",
    "seed-boutique",
    "td-alias",
];

/// What of `needs` is there, or does not matter to a decision.
const FEATURES: &[&str] = &[
    "access-log",
    "audit",
    "authz",
    "outbound",
    "path-normalization",
    "peer-auth",
    "tcp",
    "trust-domain",
];

#[derive(Deserialize)]
struct Fixtures {
    meshes: BTreeMap<String, Fixture>,
}

#[derive(Clone, Deserialize)]
struct Fixture {
    workloads: Vec<Map<String, Value>>,
    services: Vec<Service>,
    #[serde(default)]
    external: Vec<External>,
    #[serde(default)]
    resources: String,
    #[serde(default)]
    mesh_config: Map<String, Value>,
}

#[derive(Deserialize)]
struct Pod {
    ns: String,
    name: String,
    ip: IpAddr,
    labels: Labels,
    sa: String,
    sidecar: bool,
    #[serde(rename = "trustDomain")]
    trust_domain: Option<String>,
}

#[derive(Clone, Deserialize)]
struct Service {
    ns: String,
    name: String,
    selector: Labels,
    ports: Vec<ServicePort>,
}

#[derive(Clone, Deserialize)]
struct ServicePort {
    name: String,
    port: u16,
    #[serde(rename = "targetPort")]
    target: u16,
}

#[derive(Clone, Deserialize)]
struct External {
    name: String,
    ip: IpAddr,
}

#[derive(Deserialize)]
struct File {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    mesh: String,
    needs: Vec<String>,
    #[serde(default)]
    mesh_config: Map<String, Value>,
    #[serde(default)]
    mesh_patch: Vec<Map<String, Value>>,
    #[serde(default)]
    resources: String,
    checks: Vec<Check>,
}

#[derive(Deserialize)]
struct Check {
    id: String,
    #[serde(default)]
    needs: Vec<String>,
    #[serde(flatten)]
    what: Kind,
}

#[derive(Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Kind {
    Request(Call),
    Tcp(Call),
    TcpTimeline(Call),
    EffectiveMtls {
        workload: String,
        port: u16,
        expect: ExpectedMode,
    },
    StringMatch {
        r#as: String,
        pattern: String,
        value: Option<String>,
        #[serde(default)]
        policy_namespace: String,
        expect: ExpectedMatch,
    },
    ExpandPrincipals {
        trust_domains: Vec<String>,
        principals: Vec<String>,
        expect: ExpectedPrincipals,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct ExpectedMode {
    mode: String,
}

#[derive(Deserialize)]
struct ExpectedMatch {
    r#match: bool,
}

#[derive(Deserialize)]
struct ExpectedPrincipals {
    principals: Vec<String>,
}

#[derive(Deserialize)]
struct Call {
    from: From,
    to: To,
    method: Option<String>,
    path: Option<String>,
    #[serde(default)]
    headers: Vec<(String, String)>,
    authority: Option<String>,
    expect: Expected,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum From {
    Named(String),
    Bare {
        identity: Option<String>,
        ip: Option<IpAddr>,
    },
}

#[derive(Deserialize)]
struct To {
    host: String,
    port: u16,
    #[serde(default)]
    bypass: bool,
}

#[derive(Deserialize)]
struct Expected {
    status: Option<Value>,
    result: Option<String>,
    after_send: Option<String>,
    policy: Option<String>,
    details: Option<String>,
}

/// A case with its fixture: everything that decides.
struct Mesh {
    pods: Vec<Pod>,
    services: Vec<Service>,
    external: Vec<External>,
    config: MeshConfig,
    authorization: Vec<AuthorizationPolicy>,
    authentication: Vec<PeerAuthentication>,
}

/// Who opens the connection that the destination sees.
struct Caller {
    ip: IpAddr,
    /// The identity that it would show in mutual TLS.
    identity: Option<String>,
    /// It has an outbound proxy, which chooses between mutual TLS and plaintext (S-60).
    proxied: bool,
}

/// What the protocol of a port is declared as.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http,
    Tcp,
    Auto,
}

/// What came of a call.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: &'static str,
    policy: Option<String>,
    details: Option<String>,
}

impl Mesh {
    fn new(fixture: Fixture, case: &Case) -> Self {
        let mut pods = fixture.workloads;
        for patch in &case.mesh_patch {
            let same = |pod: &&mut Map<String, Value>| {
                pod.get("ns") == patch.get("ns") && pod.get("name") == patch.get("name")
            };
            match pods.iter_mut().find(same) {
                Some(pod) => pod.extend(patch.clone()),
                None => pods.push(patch.clone()),
            }
        }
        let pods = pods
            .into_iter()
            .map(|pod| serde_json::from_value(Value::Object(pod)).expect("a workload"))
            .collect();

        let mut config = fixture.mesh_config;
        config.extend(case.mesh_config.clone());
        let config = load_mesh_config(&text("mesh", &Value::Object(config).to_string()))
            .unwrap_or_else(|refused| panic!("{refused}"));
        let texts = [
            text("fixture", &fixture.resources),
            text("case", &case.resources),
        ];
        let loaded = validate(&texts, "default");
        for finding in loaded.findings.iter().filter(|finding| finding.is_error()) {
            assert_eq!(finding.cause, Cause::NotJudged, "{finding}");
        }
        Self {
            pods,
            services: fixture.services,
            external: fixture.external,
            config,
            authorization: loaded.authorization_policies,
            authentication: loaded.peer_authentications,
        }
    }

    fn pod(&self, name: &str) -> &Pod {
        let same = |pod: &&Pod| format!("{}/{}", pod.ns, pod.name) == name;
        self.pods.iter().find(same).expect("a workload of the mesh")
    }

    fn caller(&self, from: &From, bypass: bool) -> Caller {
        match from {
            From::Bare { identity, ip } => Caller {
                ip: ip.unwrap_or(IpAddr::from([10, 9, 9, 9])),
                identity: identity.as_deref().map(without_scheme),
                proxied: false,
            },
            From::Named(name) if name.contains('/') => {
                let pod = self.pod(name);
                let trust_domain = pod
                    .trust_domain
                    .as_ref()
                    .unwrap_or(&self.config.trust_domain);
                let proxied = pod.sidecar && !bypass;
                Caller {
                    ip: pod.ip,
                    identity: proxied
                        .then(|| format!("{trust_domain}/ns/{}/sa/{}", pod.ns, pod.sa)),
                    proxied,
                }
            }
            From::Named(name) => {
                let external = self.external.iter().find(|external| external.name == *name);
                Caller {
                    ip: external.expect("an external client").ip,
                    identity: None,
                    proxied: false,
                }
            }
        }
    }

    /// The pod and the workload port that an address means, and whether it was reached through a Service.
    fn destination(&self, to: &To, from: &From) -> (&Pod, u16, Protocol, bool) {
        let selected = |service: &Service, pod: &Pod| {
            let mut selector = service.selector.iter();
            pod.ns == service.ns && selector.all(|(key, value)| pod.labels.get(key) == Some(value))
        };
        if let Ok(ip) = to.host.parse::<IpAddr>() {
            let pod = self
                .pods
                .iter()
                .find(|pod| pod.ip == ip)
                .expect("a pod with this address");
            let mut ports = self
                .services
                .iter()
                .filter(|service| selected(service, pod))
                .flat_map(|service| &service.ports);
            let declared = ports.find(|port| port.target == to.port);
            return (
                pod,
                to.port,
                declared.map_or(Protocol::Auto, protocol),
                false,
            );
        }
        let mut labels = to.host.split('.');
        let name = labels.next();
        // A short name is looked up in the caller's namespace.
        let namespace = labels.next().or_else(|| match from {
            From::Named(caller) => caller.split('/').next(),
            From::Bare { .. } => None,
        });
        let service = self
            .services
            .iter()
            .find(|service| Some(&*service.name) == name && Some(&*service.ns) == namespace)
            .unwrap_or_else(|| panic!("no service is called {}", to.host));
        let port = service
            .ports
            .iter()
            .find(|port| port.port == to.port)
            .expect("a declared port");
        let pod = self
            .pods
            .iter()
            .find(|pod| selected(service, pod))
            .expect("an endpoint");
        (pod, port.target, protocol(port), true)
    }

    /// `Err`: the policies say something that is not compiled, so that they are not enforced as they are written.
    fn call(&self, call: &Call, wants_http: bool) -> Result<Answer, String> {
        let caller = self.caller(&call.from, call.to.bypass);
        let (pod, port, protocol, by_service) = self.destination(&call.to, &call.from);
        let workload = Workload {
            namespace: pod.ns.clone(),
            labels: pod.labels.clone(),
        };
        let root = &self.config.root_namespace;
        let mode = if pod.sidecar {
            effective_modes(&workload, &self.authentication, root).of(port)
        } else {
            Mode::Disable
        };
        let mutual =
            caller.identity.is_some() && (!caller.proxied || (by_service && mode != Mode::Disable));
        if matches!(
            (mode, mutual),
            (Mode::Strict, false) | (Mode::Disable, true)
        ) {
            return Ok(Answer {
                status: if caller.proxied { "503" } else { "000" },
                policy: None,
                details: (!caller.proxied).then(|| "filter_chain_not_found".to_owned()),
            });
        }
        if !pod.sidecar {
            return Ok(allowed(None));
        }

        let layer = match protocol {
            Protocol::Http => Layer::Http,
            Protocol::Auto if wants_http => Layer::Http,
            Protocol::Tcp | Protocol::Auto => Layer::Tcp,
        };
        assert_eq!(
            layer == Layer::Http,
            wants_http,
            "a client speaks as the port does"
        );
        let policies = authorization_policies(&workload, &self.authorization, root);
        let rules = compile(&policies, &self.config, layer);
        assert_eq!(rules.findings(), [], "the policies are compiled as written");

        let host_and_port = match call.to.port {
            80 => call.to.host.clone(),
            port => format!("{}:{port}", call.to.host),
        };
        let path = call.path.as_deref().unwrap_or("/");
        let mut path = path.as_bytes().to_vec();
        // Once per proxy on the way (S-200).
        for _ in 0..=usize::from(caller.proxied) {
            path = normalize(&path, self.config.normalization, true)
                .expect("a path that can be normalised")
                .into_owned();
        }
        let lines: Vec<(&[u8], &[u8])> = call
            .headers
            .iter()
            .map(|(name, value)| (name.as_bytes(), value.trim().as_bytes()))
            .collect();
        // What an outbound proxy asks for in its ClientHello (S-152).
        let server_name = (mutual && caller.proxied).then(|| {
            format!(
                "outbound_.{}_._.{}",
                call.to.port,
                service_name(&call.to.host)
            )
        });
        let http = HttpAttributes {
            method: call.method.as_deref().unwrap_or("GET"),
            path: without_query(&path),
            authority: call.authority.as_ref().unwrap_or(&host_and_port).as_bytes(),
            fields: Fields::listed(&lines),
            claims: None,
        };
        let attributes = Attributes {
            principal: caller.identity.as_deref().filter(|_| mutual),
            source_ip: caller.ip,
            remote_ip: forwarded_for(&call.headers).unwrap_or(caller.ip),
            destination_ip: pod.ip,
            destination_port: port,
            sni: server_name.as_deref(),
            http: (layer == Layer::Http).then_some(http),
        };
        let decision = evaluate(&rules, &attributes, &mut |_| {}, &mut ());
        let (explained, explanation) = explain(&rules, &attributes);
        assert_eq!(decision, explained, "{explanation}");
        Ok(match decision {
            Decision::Allowed { policy } => allowed(policy.map(ToString::to_string)),
            Decision::Denied { policy } => Answer {
                status: "403",
                policy: policy.map(ToString::to_string),
                details: decision.denial_details(),
            },
        })
    }
}

fn allowed(policy: Option<String>) -> Answer {
    Answer {
        status: "200",
        policy,
        details: None,
    }
}

fn text(name: &str, text: &str) -> Text {
    Text {
        name: name.into(),
        text: text.to_owned(),
    }
}

fn protocol(port: &ServicePort) -> Protocol {
    match port.name.split('-').next() {
        Some("http" | "http2" | "grpc") => Protocol::Http,
        Some("tcp" | "tls" | "https" | "mongo" | "mysql" | "redis") => Protocol::Tcp,
        _ => Protocol::Auto,
    }
}

fn without_scheme(uri: &str) -> String {
    uri.strip_prefix("spiffe://")
        .expect("a SPIFFE identity")
        .to_owned()
}

/// A service in full; the corpus writes `name.namespace`.
fn service_name(host: &str) -> String {
    let mut labels = host.split('.');
    let name = labels.next().unwrap_or_default();
    let namespace = labels.next().unwrap_or_default();
    format!("{name}.{namespace}.svc.cluster.local")
}

/// The last entry of X-Forwarded-For, which a sidecar believes (S-320, S-321).
fn forwarded_for(headers: &[(String, String)]) -> Option<IpAddr> {
    let (_, value) = headers.iter().find(|(name, _)| name == "x-forwarded-for")?;
    value.rsplit(',').next()?.trim().parse().ok()
}

fn check_call(call: &Call, answer: &Answer) -> Option<String> {
    let Expected {
        status,
        result,
        after_send,
        policy,
        details,
    } = &call.expect;
    let said = match answer.status {
        "200" => ["ok", "echo"],
        _ => ["rejected", "closed"],
    };
    let status = status.as_ref().map(|status| match status {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    });
    let fits = status.is_none_or(|status| status == answer.status)
        && result.as_ref().is_none_or(|result| result == said[0])
        && after_send.as_ref().is_none_or(|end| end == said[1])
        && policy
            .as_ref()
            .is_none_or(|policy| Some(policy) == answer.policy.as_ref())
        && details
            .as_ref()
            .is_none_or(|details| Some(details) == answer.details.as_ref());
    (!fits).then(|| format!("{answer:?}"))
}

/// Whether the pattern takes the value; `None`: no such kind of pattern here.
fn string_match(kind: &str, pattern: &str, value: &str, policy_namespace: &str) -> Option<bool> {
    let identity = value.strip_prefix("spiffe://");
    Some(match kind {
        "string" => matcher::Text::of_value(pattern).matches(value.as_bytes()),
        "header" => matcher::Text::of_header(pattern).matches(value.as_bytes()),
        "host" => matcher::Text::of_header(pattern).matches_any_case(value.as_bytes()),
        "path" => {
            let path = value.split('?').next().unwrap_or_default();
            matcher::Path::parse(pattern)
                .expect("a path")
                .matches(path.as_bytes())
        }
        // Every form but the lone star begins with the scheme (S-127).
        "principal" => match identity {
            Some(identity) => matcher::Text::of_value(pattern).matches(identity.as_bytes()),
            None => pattern == "*" && !value.is_empty(),
        },
        "namespace" => {
            let namespace = matcher::Namespace::parse(pattern);
            identity.is_some_and(|identity| namespace.matches(identity))
        }
        "service_account" => {
            let account = matcher::ServiceAccount::parse(pattern, policy_namespace)
                .expect("a service account");
            identity.is_some_and(|identity| account.matches(identity))
        }
        "trust_domain" => {
            let domain = matcher::TrustDomain::parse(pattern).expect("a trust domain");
            identity.is_some_and(|identity| domain.matches(identity))
        }
        _ => return None,
    })
}

#[derive(Default)]
struct Tally {
    run: BTreeMap<&'static str, usize>,
    skipped: BTreeMap<String, usize>,
    wrong: Vec<String>,
}

impl Tally {
    fn case(&mut self, fixtures: &Fixtures, case: &Case) {
        let mut mesh = None;
        for check in &case.checks {
            let needs: BTreeSet<_> = case.needs.iter().chain(&check.needs).collect();
            let missing: Vec<_> = needs
                .into_iter()
                .filter(|need| !FEATURES.contains(&need.as_str()))
                .map(String::as_str)
                .collect();
            if !missing.is_empty() {
                *self.skipped.entry(missing.join(", ")).or_default() += 1;
                continue;
            }
            let mesh =
                mesh.get_or_insert_with(|| Mesh::new(fixtures.meshes[&case.mesh].clone(), case));
            match judge(mesh, &check.what) {
                Ok((kind, None)) => *self.run.entry(kind).or_default() += 1,
                Ok((_, Some(wrong))) => self.wrong.push(format!("{}: {wrong}", check.id)),
                Err(reason) => *self.skipped.entry(reason).or_default() += 1,
            }
        }
    }
}

/// The kind of the check, and what it got if that is wrong; `Err`: why it is not judged.
fn judge(mesh: &Mesh, check: &Kind) -> Result<(&'static str, Option<String>), String> {
    let wrong = |fits: bool, got: String| (!fits).then_some(got);
    Ok(match check {
        Kind::Request(call) => ("request", check_call(call, &mesh.call(call, true)?)),
        Kind::Tcp(call) => ("tcp", check_call(call, &mesh.call(call, false)?)),
        Kind::TcpTimeline(call) => ("tcp_timeline", check_call(call, &mesh.call(call, false)?)),
        Kind::EffectiveMtls {
            workload,
            port,
            expect,
        } => {
            let pod = mesh.pod(workload);
            let workload = Workload {
                namespace: pod.ns.clone(),
                labels: pod.labels.clone(),
            };
            let root = &mesh.config.root_namespace;
            let mode = effective_modes(&workload, &mesh.authentication, root).of(*port);
            let got = format!("{mode:?}").to_uppercase();
            ("effective_mtls", wrong(got == expect.mode, got))
        }
        Kind::StringMatch {
            r#as,
            pattern,
            value,
            policy_namespace,
            expect,
        } => {
            let got = value
                .as_deref()
                .map(|value| string_match(r#as, pattern, value, policy_namespace));
            let got = got.unwrap_or(Some(false)).ok_or("a kind of pattern")?;
            (
                "string_match",
                wrong(got == expect.r#match, got.to_string()),
            )
        }
        Kind::ExpandPrincipals {
            trust_domains,
            principals,
            expect,
        } => {
            let known: Vec<_> = trust_domains.iter().map(String::as_str).collect();
            let got = expand_principals(&known, principals);
            (
                "expand_principals",
                wrong(got == expect.principals, format!("{got:?}")),
            )
        }
        Kind::Other => return Err("another kind of check".to_owned()),
    })
}

/// The shared folder; `None`, after a line that says so, where it is absent and may be.
fn shared() -> Option<PathBuf> {
    let root = std::env::var_os("MESHWARD_SHARED").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"),
        PathBuf::from,
    );
    if root.join("corpus/open").is_dir() {
        return Some(root);
    }
    assert!(
        std::env::var_os("CI").is_none(),
        "no corpus at {}",
        root.display()
    );
    println!("skipped: no corpus at {}", root.display());
    None
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> T {
    let text = std::fs::read_to_string(path).expect("a file of the corpus can be read");
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn decisions_are_those_of_the_corpus() {
    let Some(root) = shared() else { return };
    let fixtures: Fixtures = read(&root.join("corpus/fixtures.yaml"));
    let mut tally = Tally::default();
    for theme in THEMES {
        let file: File = read(&root.join(format!("corpus/open/{theme}.yaml")));
        for case in &file.cases {
            tally.case(&fixtures, case);
        }
    }
    println!("right: {:?}", tally.run);
    for (reason, count) in &tally.skipped {
        println!("skipped for lack of {reason}: {count}");
    }
    assert!(tally.wrong.is_empty(), "{}", tally.wrong.join("\n"));
    assert!(
        tally.run.values().sum::<usize>() > 200,
        "the corpus is read: {:?}",
        tally.run
    );
}
