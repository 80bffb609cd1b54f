use proptest::prelude::*;

use super::*;

const HTTP: &[&[u8]] = &[b"istio-http/1.1"];
const H2: &[&[u8]] = &[b"istio-h2", b"istio", b"h2"];
const TCP: &[&[u8]] = &[b"istio-peer-exchange", b"istio"];
const TCP_FIRST: &[&[u8]] = &[b"istio", b"istio-http/1.1"];
const FOREIGN: &[&[u8]] = &[b"h2", b"http/1.1"];
const NO_ALPN: &[&[u8]] = &[];
const CAPITALS: &[&[u8]] = &[b"ISTIO", b"istio-http/1.2", b"istio "];

const MODES: [Mode; 3] = [Mode::Strict, Mode::Permissive, Mode::Disable];
const KINDS: [PortKind; 3] = [PortKind::Http, PortKind::Tcp, PortKind::Auto];

fn tls(mode: Mode, kind: PortKind, alpn: &[&[u8]]) -> Accept {
    decide(mode, kind, FirstBytes::tls(alpn.iter().copied()))
}

fn plain(mode: Mode, kind: PortKind, bytes: &[u8]) -> Accept {
    decide(mode, kind, FirstBytes::Plain(first_plain_kind(bytes)))
}

#[test]
fn tls_goes_where_the_matrix_says() {
    // S-25; columns: HTTP name, HTTP/2 and TCP names, TCP names, TCP name first, foreign names, none, misspelt names.
    use Accept::{PassThrough as P, Reset as R, TerminateHttp as H, TerminateTcp as T};
    for (mode, kind, expected) in [
        (Mode::Strict, PortKind::Http, [H, H, H, H, H, H, H]),
        (Mode::Strict, PortKind::Tcp, [T, T, T, T, T, T, T]),
        (Mode::Strict, PortKind::Auto, [H, H, T, H, T, T, T]),
        (Mode::Permissive, PortKind::Http, [H, H, H, H, R, R, R]),
        (Mode::Permissive, PortKind::Tcp, [T, T, T, T, P, P, P]),
        (Mode::Permissive, PortKind::Auto, [H, H, T, T, P, P, P]),
        (Mode::Disable, PortKind::Http, [R; 7]),
        (Mode::Disable, PortKind::Tcp, [R; 7]),
        (Mode::Disable, PortKind::Auto, [R; 7]),
    ] {
        let offers = [HTTP, H2, TCP, TCP_FIRST, FOREIGN, NO_ALPN, CAPITALS];
        assert_eq!(
            offers.map(|alpn| tls(mode, kind, alpn)),
            expected,
            "{mode:?} {kind:?}"
        );
    }
}

#[test]
fn plaintext_goes_where_the_matrix_says() {
    // S-25; columns: HTTP/1.1, HTTP/1.0, preface of HTTP/2, other bytes, part of a line, part of the preface.
    use Accept::{Http as H, NeedMore as N, Reset as R, Tcp as T};
    for (mode, kind, expected) in [
        (Mode::Strict, PortKind::Http, [R; 6]),
        (Mode::Strict, PortKind::Tcp, [R; 6]),
        (Mode::Strict, PortKind::Auto, [R; 6]),
        (Mode::Permissive, PortKind::Http, [H, H, R, H, H, N]),
        (Mode::Permissive, PortKind::Tcp, [T; 6]),
        (Mode::Permissive, PortKind::Auto, [H, T, R, T, N, N]),
        (Mode::Disable, PortKind::Http, [H, H, R, H, H, N]),
        (Mode::Disable, PortKind::Tcp, [T; 6]),
        (Mode::Disable, PortKind::Auto, [H, T, R, T, N, N]),
    ] {
        let sent: [&[u8]; 6] = [
            b"GET / HTTP/1.1\r\n",
            b"GET / HTTP/1.0\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"\0\0\0\x08",
            b"GET /index",
            b"PRI * HTTP/2.0\r\n",
        ];
        assert_eq!(
            sent.map(|bytes| plain(mode, kind, bytes)),
            expected,
            "{mode:?} {kind:?}"
        );
    }
}

#[test]
fn nothing_is_decided_before_the_first_byte() {
    for mode in MODES {
        for kind in KINDS {
            assert_eq!(decide(mode, kind, FirstBytes::NeedMore), Accept::NeedMore);
        }
    }
}

#[test]
fn silence_counts_as_plaintext_once_it_was_long_enough() {
    // S-27.
    assert_eq!(after_silence(Mode::Permissive, PortKind::Auto), Accept::Tcp);
    assert_eq!(after_silence(Mode::Permissive, PortKind::Tcp), Accept::Tcp);
    assert_eq!(
        after_silence(Mode::Permissive, PortKind::Http),
        Accept::Http
    );
    assert_eq!(after_silence(Mode::Disable, PortKind::Auto), Accept::Tcp);
    for kind in KINDS {
        assert_eq!(after_silence(Mode::Strict, kind), Accept::Reset);
    }
}

#[test]
fn an_app_speaks_first_only_where_nothing_but_plain_bytes_is_served() {
    // S-27.
    for mode in MODES {
        for kind in KINDS {
            let only = (mode, kind) == (Mode::Disable, PortKind::Tcp);
            assert_eq!(app_may_speak_first(mode, kind), only);
        }
    }
}

#[test]
fn a_connection_begins_nothing_new_against_the_mode_of_its_port() {
    // S-26; columns: plaintext, our TLS.
    for (mode, expected) in [
        (Mode::Strict, [false, true]),
        (Mode::Permissive, [true, true]),
        (Mode::Disable, [true, false]),
    ] {
        let taken = [false, true].map(|terminated| still_takes(mode, terminated));
        assert_eq!(taken, expected, "{mode:?}");
    }
}

#[test]
fn what_the_app_sends_to_an_undeclared_port_is_http_or_opaque() {
    // S-69.
    let plain = |bytes: &[u8]| outbound(FirstBytes::Plain(first_plain_kind(bytes)));
    assert_eq!(plain(b"GET / HTTP/1.1\r\n"), Accept::Http);
    assert_eq!(plain(b"GET / HTTP/1.0\r\n"), Accept::Tcp);
    assert_eq!(plain(b"\0"), Accept::Tcp);
    assert_eq!(plain(b"GET /"), Accept::NeedMore);
    let own_tls = FirstBytes::tls(HTTP.iter().copied());
    assert_eq!(outbound(own_tls), Accept::Tcp);
    assert_eq!(outbound(FirstBytes::NeedMore), Accept::NeedMore);
}

#[test]
fn several_names_for_http_stand_for_http() {
    let offered: [&[u8]; 2] = [b"istio-http/1.1", b"istio-http/1.0"];
    let both = FirstBytes::Tls {
        first: Some(Carries::Http),
        http: true,
    };
    assert_eq!(FirstBytes::tls(offered), both);
}

#[test]
fn first_lines_are_told_apart() {
    use PlainKind::{Http2Preface, Http10, Http11, Other, Undecided, UndecidedPreface};
    for (sent, kind) in [
        ("GET / HTTP/1.1\r\n", Http11),
        ("GET / HTTP/1.1\n", Http11),
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\nbody", Http11),
        ("GET  /\tHTTP/1.1 \r\n", Http11),
        ("M-SEARCH * HTTP/1.1\r\n", Http11),
        ("OPTIONS * HTTP/1.1\r\n", Http11),
        ("GET http://h/ HTTP/1.1\r\n", Http11),
        ("GET a1+-.://h/ HTTP/1.1\r\n", Http11),
        ("CONNECT h:443 HTTP/1.1\r\n", Http11),
        ("GET /\\|\"<> HTTP/1.1\r\n", Http11),
        ("GET / HTTP/1.0\r\n", Http10),
        ("GET / HTTP/2.0\r\n", Http10),
        ("PRI * HTTP/2.0\r\n\r\nXX", Http10),
        ("GET /\r\n", Http10),
        ("GET / \n", Http10),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0", Http2Preface),
        ("", UndecidedPreface),
        ("P", UndecidedPreface),
        ("PRI * HTTP/2.0\r\n\r\nSM", UndecidedPreface),
        ("PO", Undecided),
        ("GET", Undecided),
        ("GET ", Undecided),
        ("GET /a", Undecided),
        ("GET http:/", Undecided),
        ("GET / HT", Undecided),
        ("GET / HTTP/1", Undecided),
        ("GET / HTTP/1.", Undecided),
        ("GET / HTTP/1.1\r", Undecided),
        ("\r\nGET / HTTP/1.1\r\n", Other),
        (" GET / HTTP/1.1\r\n", Other),
        ("ping", Undecided),
        ("*1\r\n$4\r\nPING\r\n", Other),
        ("ping\r\n", Other),
        ("get / HTTP/1.1\r\n", Http11),
        ("PING\r\n", Other),
        ("GET\n", Other),
        ("GET \r\n", Other),
        ("EHLO mail.example\r\n", Other),
        ("GET h:80 HTTP/1.1\r\n", Other),
        ("GET /a\0", Other),
        ("GET /\u{e9}", Other),
        ("GET / HTTQ", Other),
        ("GET / HTTP/1.1x", Other),
        ("GET / HTTP/11\r\n", Other),
        ("GET / HTTP/1\r\n", Other),
        ("GET / HTTP/1.\r", Other),
        ("GET / HTTP/x.1\r\n", Other),
        ("GET / HTTP/1.x\r\n", Other),
        ("GET / HTTP/x", Other),
        ("GET / HTTP/x.", Other),
        ("GET 1://h/ HTTP/1.1\r\n", Other),
        ("GET +://h/ HTTP/1.1\r\n", Other),
        ("GET ://h/ HTTP/1.1\r\n", Other),
        ("GET / HTTP/\r\n", Other),
        ("GET / HT\r\n", Other),
        ("GET / HT x", Other),
        ("GET / http/1.1\r\n", Other),
        ("GET / HTTP/1.1 x", Other),
        ("GET / HTTP/1.1\rx", Other),
        ("G(T", Other),
        ("\u{16}\u{3}\u{1}", Other),
    ] {
        assert_eq!(first_plain_kind(sent.as_bytes()), kind, "{sent:?}");
    }
}

#[test]
fn a_line_without_end_is_given_up() {
    let mut sent = b"GET /".to_vec();
    sent.resize(HEAD_MAX - 1, b'a');
    assert_eq!(first_plain_kind(&sent), PlainKind::Undecided);
    sent.push(b'a');
    assert_eq!(first_plain_kind(&sent), PlainKind::TooLong);
    assert_eq!(
        plain(Mode::Permissive, PortKind::Auto, &sent),
        Accept::Reset
    );
    assert_eq!(plain(Mode::Permissive, PortKind::Http, &sent), Accept::Http);
    assert_eq!(plain(Mode::Permissive, PortKind::Tcp, &sent), Accept::Tcp);
}

fn lines() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "GET",
        "POST",
        "PRI",
        "CONNECT",
        "get",
        "P",
        " ",
        " ",
        "\t",
        "/",
        "*",
        "/a?b",
        "http",
        "://",
        "h",
        ":80",
        "HTTP/",
        "HTTP/1.1",
        "HTTP/1.0",
        "HTTP/2.0",
        "H",
        "1",
        ".",
        "\r",
        "\n",
        "\r\n",
        "\r\n\r\nSM\r\n\r\n",
        "\0",
        "é",
    ]);
    let mixed = prop::collection::vec(pieces, 0..9).prop_map(|pieces| pieces.concat());
    let good =
        "(GET|PUT|PRI|CONNECT)[ \t]{1,2}(/[a-z]{0,3}|\\*|http://h/|h:1)( HTTP/[0-2]\\.[01])?\r?\n?";
    prop_oneof![mixed, good]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_decision_stands_whatever_follows(line in lines()) {
        let mut decided = None;
        for end in 0..=line.len() {
            let kind = first_plain_kind(&line.as_bytes()[..end]);
            match (decided, kind) {
                (Some(earlier), kind) => prop_assert_eq!(earlier, kind, "at {} of {:?}", end, line),
                (None, PlainKind::Undecided | PlainKind::UndecidedPreface) => {}
                (None, kind) => decided = Some(kind),
            }
        }
    }

    #[test]
    fn a_line_feed_decides(line in lines()) {
        if line.contains('\n') && !PREFACE.starts_with(line.as_bytes()) {
            let kind = first_plain_kind(line.as_bytes());
            prop_assert!(!matches!(kind, PlainKind::Undecided | PlainKind::UndecidedPreface), "{:?}", line);
        }
    }

    #[test]
    fn bytes_never_panic(bytes: Vec<u8>, alpn in prop::collection::vec(any::<[u8; 5]>(), 0..4)) {
        first_plain_kind(&bytes);
        FirstBytes::tls(alpn.iter().map(<[u8; 5]>::as_slice));
    }
}
