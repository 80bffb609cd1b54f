//! Envoy: a configuration of places as istiod would make it, and the process.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use meshward_core::accept::{Mode, PortKind};
use meshward_core::clock::UnixTime;
use meshward_core::path::Normalization;
use meshward_simulator::crypto::Identity;
use serde_json::{Value, json};

use super::rbac::Chain;
use super::{Place, jwt, rbac};
use crate::conformance::cert::{Authorities, MESH, Spec};

/// The listener of the first place; the others follow.
const FIRST_PORT: u16 = 20_000;
const START: Duration = Duration::from_secs(60);

/// ALPN names by which Istio's proxies know each other (S-25).
const ISTIO: [&str; 5] = [
    "istio",
    "istio-peer-exchange",
    "istio-http/1.0",
    "istio-http/1.1",
    "istio-h2",
];

/// What the access log says of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    pub details: String,
    pub termination: String,
}

/// Certificates of one mesh, made as they are asked for.
pub struct Material {
    authorities: Mutex<Authorities>,
    identities: Mutex<BTreeMap<String, std::sync::Arc<Identity>>>,
    pub root_pem: String,
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material").finish_non_exhaustive()
    }
}

impl Material {
    pub fn new(now: UnixTime) -> Result<Self, String> {
        let mut authorities = Authorities::new(now);
        let root_pem = authorities.root_pem(MESH)?.to_owned();
        Ok(Self {
            authorities: Mutex::new(authorities),
            identities: Mutex::default(),
            root_pem,
        })
    }

    /// The certificate of `uri`, always the same one.
    pub fn identity(&self, uri: &str) -> Result<std::sync::Arc<Identity>, String> {
        let poisoned = |_| "a thread panicked".to_owned();
        let mut identities = self.identities.lock().map_err(|_| poisoned(()))?;
        if let Some(known) = identities.get(uri) {
            return Ok(std::sync::Arc::clone(known));
        }
        let mut authorities = self.authorities.lock().map_err(|_| poisoned(()))?;
        let made = std::sync::Arc::new(authorities.issue(&Spec::of(uri))?);
        identities.insert(uri.to_owned(), std::sync::Arc::clone(&made));
        Ok(made)
    }
}

/// An Envoy that runs. It is ended when this is dropped.
#[derive(Debug)]
pub struct Envoy {
    child: Child,
    folder: PathBuf,
}

impl Envoy {
    /// Writes the configuration to `folder` and starts `executable`. Fails if it refuses any of the places.
    pub fn start(
        executable: &Path,
        folder: &Path,
        places: &[Place],
        upstream: SocketAddr,
        material: &Material,
    ) -> Result<Self, String> {
        let listeners = places
            .iter()
            .zip(0..)
            .map(|(place, number)| listener(place, number, material, folder))
            .collect::<Result<Vec<_>, _>>()?;
        let config = bootstrap(&listeners, upstream);
        let file = folder.join("envoy.json");
        let words = |error: io::Error| format!("{}: {error}", folder.display());
        fs::write(&file, config.to_string()).map_err(words)?;
        let log = fs::File::create(folder.join("envoy.log")).map_err(words)?;
        let child = Command::new(executable)
            .arg("-c")
            .arg(&file)
            .args(["--concurrency", "1", "--disable-hot-restart", "-l", "warn"])
            .args(["--file-flush-interval-msec", "20"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{}: {error}", executable.display()))?;
        let mut envoy = Self {
            child,
            folder: folder.to_owned(),
        };
        envoy.await_start(places.len())?;
        Ok(envoy)
    }

    /// Where a place's listener is.
    pub fn door(place: usize) -> SocketAddr {
        let port = FIRST_PORT.saturating_add(u16::try_from(place).unwrap_or(u16::MAX));
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
    }

    fn await_start(&mut self, places: usize) -> Result<(), String> {
        let until = Instant::now() + START;
        let last = Self::door(places.saturating_sub(1));
        while TcpStream::connect_timeout(&last, Duration::from_millis(200)).is_err() {
            let ended = self.child.try_wait().map_err(|error| error.to_string())?;
            if ended.is_some() || Instant::now() > until {
                let log = fs::read_to_string(self.folder.join("envoy.log")).unwrap_or_default();
                let tail: Vec<&str> = log.lines().rev().take(5).collect();
                return Err(format!("Envoy does not start: {}", tail.join("\n")));
            }
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// What the access log says, by the client's address, once it has `expected` lines or nothing more comes for `patience`.
    pub fn log(&self, expected: usize, patience: Duration) -> BTreeMap<SocketAddr, Logged> {
        let mut before = 0;
        let mut until = Instant::now() + patience;
        loop {
            let log = read_log(&self.folder.join("access.log"));
            if log.len() >= expected || Instant::now() > until {
                return log;
            }
            if log.len() > before {
                before = log.len();
                until = Instant::now() + patience;
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // Nothing is left to be done for a process that is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_log(file: &Path) -> BTreeMap<SocketAddr, Logged> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let rows = text.lines().filter_map(|line| {
        let row: Value = serde_json::from_str(line).ok()?;
        let peer = row["peer"].as_str()?.parse().ok()?;
        let words = |name: &str| row[name].as_str().unwrap_or("-").to_owned();
        let logged = Logged {
            details: words("details"),
            termination: words("termination"),
        };
        Some((peer, logged))
    });
    rows.collect()
}

fn bootstrap(listeners: &[Value], upstream: SocketAddr) -> Value {
    json!({
        "node": {"id": "oracle", "cluster": "oracle"},
        "static_resources": {
            "listeners": listeners,
            "clusters": [{
                "name": "inbound",
                "type": "STATIC",
                "connect_timeout": "10s",
                "load_assignment": {"cluster_name": "inbound", "endpoints": [{"lb_endpoints": [
                    {"endpoint": {"address": address(upstream)}},
                ]}]},
            }],
        },
        "layered_runtime": {"layers": [{"name": "static", "static_layer": {
            "envoy.reloadable_features.http_reject_path_with_fragment": false,
            "re2.max_program_size.error_level": 32768,
        }}]},
    })
}

fn address(at: SocketAddr) -> Value {
    json!({"socket_address": {"address": at.ip().to_string(), "port_value": at.port()}})
}

fn listener(
    place: &Place,
    number: usize,
    material: &Material,
    folder: &Path,
) -> Result<Value, String> {
    let mut chains = Vec::new();
    let speaks: &[Chain] = match place.kind {
        PortKind::Http => &[Chain::Http],
        PortKind::Tcp => &[Chain::Tcp],
        PortKind::Auto => &[Chain::Http, Chain::Tcp],
    };
    for chain in speaks {
        let http_only = place.kind == PortKind::Auto && *chain == Chain::Http;
        let filters = match chain {
            Chain::Http => vec![http(place, folder)],
            Chain::Tcp => tcp(place, folder),
        };
        if place.mode != Mode::Disable {
            let names: &[&str] = match (place.kind, chain) {
                (PortKind::Auto, Chain::Http) => &["istio-http/1.0", "istio-http/1.1", "istio-h2"],
                (PortKind::Auto, Chain::Tcp) => &["istio", "istio-peer-exchange"],
                (PortKind::Http | PortKind::Tcp, _) => &ISTIO,
            };
            chains.push(json!({
                "filter_chain_match": {"transport_protocol": "tls", "application_protocols": names},
                "filters": filters,
                "transport_socket": tls(place, material)?,
            }));
        }
        if place.mode != Mode::Strict {
            let mut matched = json!({"transport_protocol": "raw_buffer"});
            if http_only {
                matched["application_protocols"] = json!(["http/1.0", "http/1.1", "h2c"]);
            }
            chains.push(json!({"filter_chain_match": matched, "filters": filters}));
        }
    }
    let inspector = |name: &str, kind: &str| {
        json!({"name": format!("envoy.filters.listener.{name}"), "typed_config": {
            "@type": format!("type.googleapis.com/envoy.extensions.filters.listener.{name}.v3.{kind}"),
        }})
    };
    let mut inspectors = vec![
        inspector("proxy_protocol", "ProxyProtocol"),
        inspector("tls_inspector", "TlsInspector"),
    ];
    if place.kind == PortKind::Auto {
        inspectors.push(inspector("http_inspector", "HttpInspector"));
    }
    Ok(json!({
        "name": format!("place-{number}"),
        "address": {"socket_address": {
            "address": "::", "port_value": Envoy::door(number).port(), "ipv4_compat": true,
        }},
        "listener_filters": inspectors,
        "filter_chains": chains,
        // Connections that no chain takes; the others log for themselves.
        "access_log": access_log(folder, Some("NR")),
    }))
}

fn tls(place: &Place, material: &Material) -> Result<Value, String> {
    let identity = material.identity(&place.identity)?;
    let domains = std::iter::once(&place.mesh.trust_domain)
        .chain(&place.mesh.trust_domain_aliases)
        .map(|domain| {
            json!({"san_type": "URI", "matcher": {"prefix": format!("spiffe://{domain}/")}})
        });
    Ok(
        json!({"name": "envoy.transport_sockets.tls", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
            "require_client_certificate": true,
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_certificates": [{
                    "certificate_chain": {"inline_string": identity.chain_pem},
                    "private_key": {"inline_string": identity.key_pem},
                }],
                "validation_context": {
                    "trusted_ca": {"inline_string": material.root_pem},
                    "match_typed_subject_alt_names": domains.collect::<Vec<_>>(),
                },
            },
        }}),
    )
}

/// `flag`: only lines with this response flag.
fn access_log(folder: &Path, flag: Option<&str>) -> Value {
    let mut log = json!({"name": "envoy.access_loggers.file", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": folder.join("access.log"),
        "log_format": {"json_format": {
            "peer": "%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
            "details": "%RESPONSE_CODE_DETAILS%",
            "termination": "%CONNECTION_TERMINATION_DETAILS%",
        }},
    }});
    if let Some(flag) = flag {
        log["filter"] = json!({"response_flag_filter": {"flags": [flag]}});
    }
    json!([log])
}

fn policies(place: &Place, chain: Chain) -> Vec<Value> {
    let policies: Vec<_> = place
        .authorization
        .iter()
        .filter(|policy| place.counts(&policy.meta, policy.selector.as_ref(), policy.targets))
        .collect();
    let trust_domains: Vec<&str> = std::iter::once(&place.mesh.trust_domain)
        .chain(&place.mesh.trust_domain_aliases)
        .map(String::as_str)
        .collect();
    rbac::filters(&policies, &trust_domains, chain)
}

fn http(place: &Place, folder: &Path) -> Value {
    let authentications: Vec<_> = place
        .authentication
        .iter()
        .filter(|policy| place.counts(&policy.meta, policy.selector.as_ref(), policy.targets))
        .collect();
    let mut filters: Vec<Value> = jwt::filter(&authentications).into_iter().collect();
    filters.extend(policies(place, Chain::Http));
    filters.push(
        json!({"name": "envoy.filters.http.router", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router",
        }}),
    );
    let mode = place.mesh.normalization;
    let escaped = if mode == Normalization::DecodeAndMergeSlashes {
        "UNESCAPE_AND_FORWARD"
    } else {
        "KEEP_UNCHANGED"
    };
    let merges = matches!(
        mode,
        Normalization::MergeSlashes | Normalization::DecodeAndMergeSlashes
    );
    json!({"name": "envoy.filters.network.http_connection_manager", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "inbound",
        "server_name": "istio-envoy",
        "use_remote_address": false,
        "forward_client_cert_details": "APPEND_FORWARD",
        "set_current_client_cert_details": {"subject": true, "dns": true, "uri": true},
        "normalize_path": mode != Normalization::None,
        "merge_slashes": merges,
        "path_with_escaped_slashes_action": escaped,
        "access_log": access_log(folder, None),
        "route_config": {"name": "inbound", "validate_clusters": false, "virtual_hosts": [{
            "name": "inbound", "domains": ["*"], "routes": [{
                "name": "default",
                "match": {"prefix": "/"},
                "route": {"cluster": "inbound", "timeout": "0s"},
            }],
        }]},
        "http_filters": filters,
    }})
}

fn tcp(place: &Place, folder: &Path) -> Vec<Value> {
    let mut filters = policies(place, Chain::Tcp);
    filters.push(
        json!({"name": "envoy.filters.network.tcp_proxy", "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "inbound",
            "cluster": "inbound",
            "access_log": access_log(folder, None),
        }}),
    );
    filters
}
