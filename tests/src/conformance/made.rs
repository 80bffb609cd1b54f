//! Cases that the kinds `sniff` and `retry` are run on: they name no mesh of their own.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use meshward_core::accept::PortKind;
use meshward_core::api::peer_authentication::Mode;

use super::bytes::Found;
use super::checks::{BARE, Failure};
use super::corpus::Case;
use super::http::{Kind, Message, Reader};
use super::scene::{Quirks, Scene};
use super::stage::Stage;
use super::words::Makers;
use super::{bytes, caller::Caller};

const SERVER: &str = "quarter/server";
const SERVER_IP: Ipv4Addr = Ipv4Addr::new(10, 8, 0, 20);
const CLIENT: &str = "quarter/client";
const PORT: u16 = 7070;

/// A client with a sidecar, and a server: `port` names its service's port 7000.
fn mesh(port: &str, sidecar: bool) -> String {
    format!(
        "workloads:
- {{ns: quarter, name: client, ip: 10.8.0.10, sa: client, labels: {{app: client}}, sidecar: true}}
- {{ns: quarter, name: server, ip: {SERVER_IP}, sa: server, labels: {{app: server}}, sidecar: {sidecar}}}
services:
- {{ns: quarter, name: server, selector: {{app: server}}, ports: [{{name: {port}, port: 7000, targetPort: {PORT}}}]}}
"
    )
}

/// What a port of this mode and kind does with bytes.
pub(super) fn sniff(
    (mode, kind): (Mode, PortKind),
    timeout: Duration,
    send: &[super::checks::Step],
    makers: &mut Makers,
    stage: Box<dyn Stage>,
) -> Result<Found, String> {
    let port = match kind {
        PortKind::Http => "http",
        PortKind::Tcp => "tcp",
        PortKind::Auto => "misc",
    };
    let mode_name = match mode {
        Mode::Strict => "STRICT",
        Mode::Permissive | Mode::Unset => "PERMISSIVE",
        Mode::Disable => "DISABLE",
    };
    let policy = format!(
        "{{apiVersion: security.istio.io/v1, kind: PeerAuthentication, \
          metadata: {{name: mode, namespace: quarter}}, spec: {{mtls: {{mode: {mode_name}}}}}}}"
    );
    let mut config = Vec::new();
    if !timeout.is_zero() {
        let timeout = format!("{}s", timeout.as_secs());
        config.push(("protocolDetectionTimeout", timeout));
    }
    let case = Case::made(&mesh(port, true), &policy, &config)?;
    let quirks = Quirks {
        absent: Some(SERVER.into()),
        ..Quirks::default()
    };
    let mut scene = Scene::new(&case, &quirks, makers, stage)?;
    let app = scene.pods().iter().find(|pod| pod.name == SERVER);
    let app = app.and_then(|pod| pod.apps.get(&PORT).copied());
    scene
        .stage
        .listen(scene.ear, app.ok_or("the server listens nowhere")?)?;
    let at = SocketAddr::new(IpAddr::V4(SERVER_IP), PORT);
    bytes::port(&mut scene, at, (mode, kind), timeout, send)
}

/// How often a proxy tries, and what its client gets. `outbound`: the proxy is the client's, and the server has none; else it
/// is the server's, and the client has none.
pub(super) fn retry(
    outbound: bool,
    failure: Failure,
    makers: &mut Makers,
    stage: Box<dyn Stage>,
) -> Result<Found, String> {
    let case = Case::made(&mesh("http", !outbound), "", &[])?;
    let quirks = Quirks {
        absent: (failure == Failure::ConnectRefused).then(|| SERVER.into()),
        ..Quirks::default()
    };
    let mut scene = Scene::new(&case, &quirks, makers, stage)?;
    scene.each_app(|app| app.failure = Some(failure));
    let proxied = if outbound { CLIENT } else { SERVER };
    let place = |name: &str| scene.pods().iter().position(|pod| pod.name == name);
    let sidecar = place(proxied).and_then(|pod| scene.sidecar(pod));
    let sidecar = sidecar.ok_or("the proxy is not there")?;
    let (to, ip) = match outbound {
        true => {
            let way = scene
                .way("server.quarter", 7000)
                .ok_or("nobody is called")?;
            let own = place(CLIENT).map(|pod| scene.pods()[pod].ip);
            (way.meant, own.ok_or("the client is not there")?)
        }
        false => (SocketAddr::new(IpAddr::V4(SERVER_IP), PORT), BARE),
    };
    let before = scene.stage.connects(sidecar)?;
    let party = scene.call(Caller::new(Vec::new()), ip, outbound.then_some(sidecar), to)?;
    let request = b"GET / HTTP/1.1\r\nhost: server.quarter:7000\r\n\r\n";
    scene.caller(party, |caller, out| caller.say(request, out));
    let status = |scene: &mut Scene| {
        scene.caller(party, |caller, _| {
            let mut reader = Reader::new(Kind::Responses);
            reader.push(&caller.received);
            reader.answer().map(Message::status)
        })
    };
    scene.wait_until(|scene| status(scene).is_some());
    let attempts = match failure {
        Failure::ConnectRefused => scene.stage.connects(sidecar)? - before,
        Failure::CloseAfterRequest | Failure::Status503 => {
            let requests = scene.app_of(SERVER, |app| app.requests.len());
            requests.unwrap_or_default() as u64
        }
    };
    Ok(Found::from([
        ("attempts", attempts.into()),
        ("status", status(&mut scene).into()),
    ]))
}
