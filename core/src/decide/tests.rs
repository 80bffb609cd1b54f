//! The order of decisions, and what is heard of them.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::accept::{Mode, PortKind};
use crate::api::load::{Text, load_for_enforcement};
use crate::api::mesh_config::MeshConfig;
use crate::authz::Layer;
use crate::authz::compile::compile;

const JWT: &str = r#"
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata:
  name: jwt
spec:
  jwtRules:
  - issuer: "https://issuer.example"
    jwks: '{"keys":[{"kty":"EC","crv":"P-256","kid":"k","x":"J8m_YtvEeHNjcpHiWAiVnuK706HUxKaw2V4IBIz5Q1s","y":"aPnaahgNxLkcWSkTNmuzJIGI-UL-vjCQaH2piBobwEM"}]}'
"#;
/// Of alice, for ever.
const ALICE: &str = "eyJhbGciOiJFUzI1NiIsImtpZCI6ImsifQ.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoiYWxpY2UiLCJvIjp7InAiOlsidiJdfSwibiI6NDIsInNjb3BlIjoicmVhZCB3cml0ZSJ9.UhCeJYu0tteqyeQyQKhFXFAd7mlHp8XF5NyUvRoxqIooyTmssu1KjPhdG-OdYofRXQFJtxgIAbWwk1RUdQnyoA";
const NOW: UnixTime = UnixTime(1_767_323_045_000);

fn port(policies: &str) -> InboundPort {
    let text = Text {
        name: "p.yaml".into(),
        text: policies.to_owned(),
    };
    let loaded = load_for_enforcement(&[text], "default").expect("valid policies");
    let tokens: Vec<_> = loaded.request_authentications.iter().collect();
    let rules: Vec<_> = loaded.authorization_policies.iter().collect();
    let mesh = MeshConfig::default();
    InboundPort {
        listener: 0,
        port: 8080,
        kind: PortKind::Http,
        mode: Mode::Permissive,
        upstream: ([127, 0, 0, 1], 8080).into(),
        from: None,
        cluster: "inbound|8080||".into(),
        authn: Arc::new(authn::compile(&tokens)),
        http: compile(&rules, &mesh, Layer::Http),
        tcp: compile(&rules, &mesh, Layer::Tcp),
        normalization: Normalization::Base,
        detection_timeout: None,
        connect_timeout: Duration::from_secs(10),
        records: false,
    }
}

const CALLER: Caller<'_> = Caller {
    principal: None,
    peer: SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1)), 40_000),
    reached: IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2)),
    sni: None,
};

/// Status of the answer or 200, its details, and what was heard.
fn asked(port: &InboundPort, path: &str, lines: &[(&str, &str)]) -> (u16, String, Explanation) {
    let lines: Vec<(&[u8], &[u8])> = lines
        .iter()
        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
        .collect();
    let request = Request {
        method: "GET",
        path: path.as_bytes(),
        authority: b"a",
        fields: Fields::listed(&lines),
    };
    let mut heard = Explanation::default();
    let mut cache = Cache::default();
    let verdict = inbound_request(
        port,
        CALLER,
        request,
        NOW,
        &mut cache,
        &mut |_| {},
        &mut heard,
    );
    // Hearing changes nothing.
    let quiet = inbound_request(port, CALLER, request, NOW, &mut cache, &mut |_| {}, &mut ());
    match (verdict, quiet) {
        (Verdict::Allow(..), Verdict::Allow(..)) => (200, String::new(), heard),
        (Verdict::Deny(denial, path), Verdict::Deny(other, same)) => {
            assert_eq!((&denial, path), (&other, same));
            (denial.status, denial.details, heard)
        }
        (heard, quiet) => panic!("{heard:?} heard, {quiet:?} unheard"),
    }
}

#[test]
fn path_then_token_then_policies_and_each_is_heard_in_its_turn() {
    // S-110, S-232.
    let port = port(&format!(
        "{JWT}---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: alice}}
spec: {{rules: [{{from: [{{source: {{requestPrincipals: [\"https://issuer.example/alice\"]}}}}]}}]}}
"
    ));
    let bearer = |token: &str| format!("Bearer {token}");
    let (good, bad) = (bearer(ALICE), bearer("bad"));

    let (status, details, heard) = asked(&port, "/%00", &[("authorization", &bad)]);
    assert_eq!(
        (status, details.as_str()),
        (400, "path_normalization_failed")
    );
    assert_eq!(heard, Explanation::default());

    let (status, _, heard) = asked(&port, "/", &[("authorization", &bad)]);
    assert_eq!(status, 401);
    assert_eq!(heard.authn.end, authn::End::Refused(Status::BadFormat));
    assert_eq!(heard.authz, authz::Explanation::default());

    let (status, details, heard) = asked(&port, "/", &[]);
    assert_eq!(
        (status, details.as_str()),
        (403, "rbac_access_denied_matched_policy[none]")
    );
    assert_eq!(heard.authn.end, authn::End::NoToken);
    assert!(heard.authz.nearest_miss().is_some());

    let (status, _, heard) = asked(&port, "/", &[("authorization", &good)]);
    assert_eq!((status, heard.authn.end), (200, authn::End::Verified));
    let told = heard.to_string();
    let first = "a token was verified\nissuer `https://issuer.example`: verified (p.yaml:8:5)\n  header `authorization`: verified\nallowed by ns[default]-policy[alice]-rule[0]\n";
    assert!(told.starts_with(first), "{told}");
    assert!(!told.contains(ALICE));
}

#[test]
fn policies_see_the_head_as_it_goes_on() {
    // S-322 to S-325, S-224.
    let port = port(&format!(
        "{JWT}---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {{name: heads}}
spec:
  action: DENY
  rules:
  - when: [{{key: \"request.headers[authorization]\", values: [\"*\"]}}]
  - when: [{{key: \"request.headers[x-envoy-internal]\", values: [\"*\"]}}]
  - when: [{{key: \"request.headers[x-forwarded-client-cert]\", values: [\"*\"]}}]
  - when: [{{key: \"request.headers[x-forwarded-proto]\", notValues: [\"http\"]}}]
"
    ));
    let good = format!("Bearer {ALICE}");
    let lines = [
        ("authorization", good.as_str()),
        ("x-envoy-internal", "true"),
        ("x-forwarded-client-cert", "By=x"),
    ];
    assert_eq!(asked(&port, "/", &lines).0, 200);
    assert_eq!(asked(&port, "/", &[("authorization", "Basic x")]).0, 403);
    assert_eq!(asked(&port, "/", &[("x-forwarded-proto", "https")]).0, 403);
}

#[test]
fn the_last_entry_of_x_forwarded_for_is_the_client_if_it_is_an_address() {
    // S-320.
    let peer: IpAddr = "10.0.0.1".parse().unwrap();
    for (values, ip) in [
        (&[][..], "10.0.0.1"),
        (&["9.9.9.9, 1.2.3.4"], "1.2.3.4"),
        (&["1.2.3.4, junk"], "10.0.0.1"),
        (&["1.2.3.4", "2001:db8::1"], "2001:db8::1"),
    ] {
        let lines: Vec<(&[u8], &[u8])> = values
            .iter()
            .map(|value| (&b"X-Forwarded-For"[..], value.as_bytes()))
            .collect();
        let got = remote_ip(Fields::listed(&lines), peer);
        assert_eq!(got, ip.parse::<IpAddr>().unwrap(), "{values:?}");
    }
}
