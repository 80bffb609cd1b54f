//! The corpus's requests and connections as questions to any proxy: what arrives at the sidecar of a server.
//!
//! What a client's own sidecar does on the way is done here by rule: it proves its workload's identity and normalises the
//! path. A check whose answer comes from elsewhere is passed over, with the reason.

use std::net::{IpAddr, SocketAddr};

use meshward_core::accept::Mode;
use meshward_core::api::object::Object;
use meshward_core::clock::UnixTime;
use meshward_core::path;
use meshward_core::snapshot::select::Workload;

use super::checks::{Check, Given, Request, To, Who};
use super::corpus::Case;
use super::keys::Keys;
use super::request::write;
use super::scene::more_ports;
use super::town::Town;
use super::words::Makers;
use super::{Authorities, Options, Refused, lacking, read};
use crate::oracle::{Place, Question, What};

/// What the corpus asks.
#[derive(Debug, Default)]
pub struct Asked {
    pub places: Vec<Place>,
    pub questions: Vec<Question>,
    /// Ids, and why they are no question.
    pub passed_over: Vec<(String, String)>,
}

/// The checks of the kinds `request` and `tcp` that `options` choose. `now`: the present of the proxies.
pub fn questions(options: &Options, now: UnixTime) -> Result<Asked, Refused> {
    let mut makers = Makers {
        authorities: Authorities::new(now),
        keys: Keys::default(),
    };
    let mut asked = Asked::default();
    for case in &read(options)? {
        let about: Vec<&Check> = case
            .checks
            .iter()
            .filter(|check| matches!(check.given, Some(Given::Request(_) | Given::Tcp { .. })))
            .filter(|check| lacking(case, check).is_empty())
            .collect();
        if about.is_empty() {
            continue;
        }
        let town = Town::of(case, &more_ports(case), &mut makers, now);
        let first = asked.places.len();
        match town {
            Ok(mut town) => {
                for check in about {
                    if let Err(reason) =
                        ask(case, check, &mut town, first, &mut makers, now, &mut asked)
                    {
                        asked.passed_over.push((check.id.clone(), reason));
                    }
                }
            }
            Err(reason) => {
                let all = about.iter().map(|check| (check.id.clone(), reason.clone()));
                asked.passed_over.extend(all);
            }
        }
    }
    Ok(asked)
}

fn ask(
    case: &Case,
    check: &Check,
    town: &mut Town,
    first: usize,
    makers: &mut Makers,
    now: UnixTime,
    asked: &mut Asked,
) -> Result<(), String> {
    let (from, to) = match &check.given {
        Some(Given::Request(request)) if request.tls.is_some() => {
            return Err("the client speaks TLS itself".into());
        }
        Some(Given::Request(request)) if request.http != "1.1" => {
            return Err(format!("HTTP/{}", request.http));
        }
        Some(Given::Request(request)) => (&request.from, &request.to),
        Some(Given::Tcp { tls: Some(_), .. }) => {
            return Err("the client speaks TLS itself".into());
        }
        Some(Given::Tcp { from, to, .. }) => (from, to),
        _ => return Err("neither a request nor a connection".into()),
    };
    let client = client(case, from, to, town)?;
    let way = town
        .way(&to.host, to.port, &client.namespace)
        .ok_or("nobody has the name")?;
    let address = *way.endpoints.first().ok_or("nobody is there")?;
    let server = town
        .pods
        .iter()
        .position(|pod| pod.ip == address.ip())
        .ok_or("outside of the mesh")?;
    if !town.pods[server].sidecar {
        return Err("the server has no sidecar".into());
    }
    let snapshot = town.snapshot(server)?;
    let port = snapshot
        .inbound
        .get(&address.port())
        .ok_or("no declared port")?;
    let known = asked.places.len();
    let place = position(
        case,
        town,
        server,
        address,
        (port.kind, port.mode),
        first,
        asked,
    );
    if asked.places[place].is_unservable() {
        asked.places.truncate(known);
        return Err("Envoy refuses the key set".into());
    }
    // Automatic mutual TLS (S-60).
    let secured = client.sidecar && port.mode != Mode::Disable && town.config().enable_auto_mtls;
    let identity = match secured {
        true => client.identity.clone(),
        false => client.bare,
    };
    let what = match &check.given {
        Some(Given::Request(request)) => {
            What::Request(bytes(request, town, client.sidecar, makers, now)?)
        }
        _ => What::Bytes(b"hello there\n".to_vec()),
    };
    asked.questions.push(Question {
        id: check.id.clone(),
        place,
        from: SocketAddr::new(client.ip, 0),
        sni: identity.as_ref().and(way.sni),
        identity,
        forged: false,
        what,
    });
    Ok(())
}

struct Client {
    namespace: String,
    ip: IpAddr,
    /// It is passed on the way.
    sidecar: bool,
    /// Of its sidecar.
    identity: Option<String>,
    /// Without a sidecar.
    bare: Option<String>,
}

fn client(case: &Case, from: &Who, to: &To, town: &Town) -> Result<Client, String> {
    if to.indirect {
        return Err("through a gateway".into());
    }
    let default = || "default".to_owned();
    Ok(match from {
        Who::Bare { identity, ip } => Client {
            namespace: default(),
            ip: *ip,
            sidecar: false,
            identity: None,
            bare: identity.clone(),
        },
        Who::Named(name) => match (town.pod(name), case.mesh.external.get(name)) {
            (Some(pod), _) => {
                let pod = &town.pods[pod];
                Client {
                    namespace: pod.key.namespace.clone(),
                    ip: pod.ip,
                    sidecar: pod.sidecar && !to.bypass,
                    identity: Some(pod.identity()),
                    bare: None,
                }
            }
            (None, Some(ip)) => Client {
                namespace: default(),
                ip: *ip,
                sidecar: false,
                identity: None,
                bare: None,
            },
            (None, None) => return Err(format!("`{name}` is no client")),
        },
    })
}

/// The request as it leaves the client's side.
fn bytes(
    request: &Request,
    town: &Town,
    through_sidecar: bool,
    makers: &mut Makers,
    now: UnixTime,
) -> Result<Vec<u8>, String> {
    let mut request = request.clone();
    if through_sidecar {
        let mode = town.config().normalization;
        let normal = path::normalize(request.path.as_bytes(), mode, true)
            .map_err(|_| "the client's sidecar refuses the path")?;
        request.path = String::from_utf8(normal.into_owned()).map_err(|_| "no text")?;
    }
    Ok(write(now, &request, makers)?.bytes)
}

/// Where the place of a port stands; it is added if it is new.
fn position(
    case: &Case,
    town: &Town,
    server: usize,
    address: SocketAddr,
    (kind, mode): (meshward_core::accept::PortKind, Mode),
    first: usize,
    asked: &mut Asked,
) -> usize {
    let known = asked.places[first..]
        .iter()
        .position(|place| place.address == address);
    if let Some(known) = known {
        return first + known;
    }
    let pod = &town.pods[server];
    let labels = case
        .mesh
        .by_name
        .get(&pod.name)
        .map(|workload| workload.labels.clone())
        .unwrap_or_default();
    let mut place = Place {
        address,
        kind,
        mode,
        workload: Workload {
            namespace: pod.key.namespace.clone(),
            labels: labels.into_iter().collect(),
        },
        identity: pod.identity(),
        mesh: town.config().clone(),
        authorization: Vec::new(),
        authentication: Vec::new(),
    };
    for object in &town.objects {
        match object {
            Object::AuthorizationPolicy(policy) => place.authorization.push(policy.clone()),
            Object::RequestAuthentication(policy) => place.authentication.push(policy.clone()),
            _ => {}
        }
    }
    asked.places.push(place);
    asked.places.len() - 1
}
