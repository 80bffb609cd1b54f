use std::collections::BTreeMap;
use std::io::Read;
use std::net::Ipv6Addr;
use std::process::Command;
use std::sync::Mutex;

use tokio::sync::mpsc;

use super::*;

const POD: Ipv4Addr = Ipv4Addr::new(127, 1, 0, 9);
const VIP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 1));
/// A port that the service lacks.
const ABSENT: u16 = 4444;
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 99, 0, 1));

/// A mesh of one service, `webapp.istioinaction`, with or without somebody behind it.
#[derive(Default)]
struct OneService {
    behind: Option<SocketAddr>,
    asked: Mutex<Vec<(String, String)>>,
}

impl Resolver for OneService {
    fn resolve(&self, namespace: &str, name: &str) -> Vec<IpAddr> {
        self.asked
            .lock()
            .unwrap()
            .push((namespace.to_owned(), name.to_owned()));
        match name {
            "webapp.istioinaction" => vec![VIP],
            // Headless: the first of its pods is gone.
            "db" => vec![NOBODY, VIP],
            _ => Vec::new(),
        }
    }

    fn endpoint(&self, meant: SocketAddr) -> Endpoint {
        match (meant.ip(), self.behind) {
            (VIP, _) if meant.port() == ABSENT => Endpoint::NoPort,
            (VIP, Some(address)) => Endpoint::Address(address),
            (VIP, None) => Endpoint::Refused,
            (ip, _) if ip.is_loopback() => Endpoint::Address(meant),
            _ => Endpoint::Unroutable,
        }
    }
}

/// What a sidecar was handed.
type Handed = (std::net::TcpStream, SocketAddr, SocketAddr);

async fn start(mesh: OneService, way: Way) -> (SocketAddr, Arc<OneService>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mesh = Arc::new(mesh);
    let resolver: Arc<dyn Resolver> = mesh.clone();
    tokio::spawn(serve(listener, "shop".to_owned(), resolver, Arc::new(way)));
    (address, mesh)
}

async fn sidecar() -> (SocketAddr, mpsc::UnboundedReceiver<Handed>, Arc<OneService>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let way = Way::Sidecar(Box::new(move |stream, peer, meant| {
        sender.send((stream, peer, meant)).unwrap();
    }));
    let (address, mesh) = start(OneService::default(), way).await;
    (address, receiver, mesh)
}

async fn plain(behind: Option<SocketAddr>) -> SocketAddr {
    let mesh = OneService {
        behind,
        ..OneService::default()
    };
    start(mesh, Way::Plain { from: POD }).await.0
}

fn greeting() -> Vec<u8> {
    vec![5, 1, 0]
}

fn by_name(name: &str, port: u16) -> Vec<u8> {
    let mut bytes = vec![5, 1, 0, 3, u8::try_from(name.len()).unwrap()];
    bytes.extend(name.as_bytes());
    bytes.extend(port.to_be_bytes());
    bytes
}

fn by_address(address: impl Into<IpAddr>, port: u16) -> Vec<u8> {
    let mut bytes = vec![5, 1, 0];
    match address.into() {
        IpAddr::V4(address) => {
            bytes.push(1);
            bytes.extend(address.octets());
        }
        IpAddr::V6(address) => {
            bytes.push(4);
            bytes.extend(address.octets());
        }
    }
    bytes.extend(port.to_be_bytes());
    bytes
}

/// Sends everything at once and reads to the end.
async fn exchange(entry: SocketAddr, bytes: &[u8]) -> Vec<u8> {
    let mut client = TcpStream::connect(entry).await.unwrap();
    client.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).await.unwrap();
    answer
}

async fn exchange_text(entry: SocketAddr, bytes: &[u8]) -> String {
    String::from_utf8(exchange(entry, bytes).await).unwrap()
}

/// What a client sent ahead of its answer and after it, as it lies in the socket that was handed over.
fn unread(handed: &mut Handed) -> Vec<u8> {
    handed.0.set_nonblocking(false).unwrap();
    let mut bytes = Vec::new();
    handed.0.read_to_end(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn socks_hands_over_the_stream_with_pod_and_service_address_and_all_that_follows() {
    let (entry, mut handed, mesh) = sidecar().await;
    for (request, meant) in [
        (by_name("webapp.istioinaction", 80), (VIP, 80)),
        (by_name("10.96.0.1", 80), (VIP, 80)),
        (
            by_address([127, 1, 0, 4], 3000),
            ([127, 1, 0, 4].into(), 3000),
        ),
        (
            by_address(Ipv6Addr::LOCALHOST, 443),
            (Ipv6Addr::LOCALHOST.into(), 443),
        ),
        (
            by_address(Ipv4Addr::new(127, 1, 0, 4).to_ipv6_mapped(), 80),
            ([127, 1, 0, 4].into(), 80),
        ),
    ] {
        let mut client = TcpStream::connect(entry).await.unwrap();
        let mut bytes = greeting();
        bytes.extend(request);
        bytes.extend(b"early");
        client.write_all(&bytes).await.unwrap();
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(answer[..8], [5, 0, 5, 0, 0, 1, 127, 0]);
        client.shutdown().await.unwrap();
        let mut handed = handed.recv().await.unwrap();
        let client_port = client.local_addr().unwrap().port();
        assert_eq!(handed.1, SocketAddr::new(entry.ip(), client_port));
        assert_eq!(handed.2, SocketAddr::from(meant));
        assert_eq!(unread(&mut handed), b"early");
    }
    let asked = mesh.asked.lock().unwrap();
    assert_eq!(
        *asked,
        [("shop".to_owned(), "webapp.istioinaction".to_owned())]
    );
}

#[tokio::test]
async fn connect_hands_over_the_stream_with_all_that_follows_the_head() {
    let (entry, mut handed, _) = sidecar().await;
    for (authority, meant) in [
        ("webapp.istioinaction:443", SocketAddr::new(VIP, 443)),
        ("127.1.0.4:3000", "127.1.0.4:3000".parse().unwrap()),
        ("[::1]:80", "[::1]:80".parse().unwrap()),
    ] {
        let mut client = TcpStream::connect(entry).await.unwrap();
        let bytes = format!("CONNECT {authority} HTTP/1.0\r\n\r\nearly\r\n\r\n");
        client.write_all(bytes.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = [0; 39];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 Connection established\r\n\r\n");
        let mut handed = handed.recv().await.unwrap();
        assert_eq!(handed.2, meant);
        assert_eq!(unread(&mut handed), b"early\r\n\r\n");
    }
}

#[tokio::test]
async fn a_handshake_cut_at_every_byte_is_the_same_handshake() {
    let (entry, mut handed, _) = sidecar().await;
    let head = b"CONNECT webapp.istioinaction:443 HTTP/1.1\r\nHost: webapp.istioinaction:443\r\nUser-Agent: x\r\n\r\n";
    let mut socks = greeting();
    socks.extend(by_name("webapp.istioinaction", 443));
    for bytes in [&head[..], &socks] {
        let mut client = TcpStream::connect(entry).await.unwrap();
        client.set_nodelay(true).unwrap();
        for byte in bytes.iter().chain(b"early") {
            client.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        client.shutdown().await.unwrap();
        let mut handed = handed.recv().await.unwrap();
        assert_eq!(handed.2, SocketAddr::new(VIP, 443));
        assert_eq!(unread(&mut handed), b"early");
    }
}

#[tokio::test]
async fn without_a_sidecar_the_pod_connects_before_the_client_hears_of_it() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let entry = plain(Some(server.local_addr().unwrap())).await;
    let mut client = TcpStream::connect(entry).await.unwrap();
    let mut bytes = greeting();
    // Of the two addresses of `db` the first is of nobody.
    bytes.extend(by_name("db", 5432));
    bytes.extend(b"early");
    client.write_all(&bytes).await.unwrap();
    let (mut peer, from) = server.accept().await.unwrap();
    assert_eq!(from.ip(), IpAddr::V4(POD));
    let mut answer = [0; 12];
    client.read_exact(&mut answer).await.unwrap();
    let mut expected = vec![5, 0, 5, 0, 0, 1, 127, 1, 0, 9];
    expected.extend(from.port().to_be_bytes());
    assert_eq!(answer[..], expected);
    let mut early = [0; 5];
    peer.read_exact(&mut early).await.unwrap();
    assert_eq!(&early, b"early");
    peer.write_all(b"hello").await.unwrap();
    peer.set_zero_linger().unwrap();
    let mut hello = [0; 5];
    client.read_exact(&mut hello).await.unwrap();
    drop(peer);
    let error = client.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn socks_says_why_it_refuses() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = gone.local_addr().unwrap();
    drop(gone);
    let closed_port = plain(Some(address)).await;
    let empty_service = plain(None).await;
    let long = "a".repeat(64);
    for (entry, request, code) in [
        (closed_port, by_name("webapp.istioinaction", 80), 5),
        (empty_service, by_name("webapp.istioinaction", 80), 5),
        (empty_service, by_name("nobody", 80), 4),
        (empty_service, by_address([192, 0, 2, 1], 80), 4),
        (
            empty_service,
            by_address(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 1), 80),
            4,
        ),
        // BIND, UDP ASSOCIATE, an unknown address type, a wrong version, a reserved byte.
        (empty_service, vec![5, 2, 0, 1, 10, 96, 0, 1, 0, 80], 7),
        (empty_service, vec![5, 3, 0, 1, 10, 96, 0, 1, 0, 80], 7),
        (empty_service, vec![5, 1, 0, 2, 0, 0], 8),
        (empty_service, vec![4, 1, 0, 1, 10, 96, 0, 1, 0, 80], 1),
        (empty_service, vec![5, 1, 9, 1, 10, 96, 0, 1, 0, 80], 1),
        // Names that no DNS has.
        (empty_service, by_name("", 80), 1),
        (empty_service, by_name("a..b", 80), 1),
        (empty_service, by_name("a b", 80), 1),
        (empty_service, by_name("a\0", 80), 1),
        (empty_service, by_name(&long, 80), 1),
        (empty_service, by_name("webapp.istioinaction", 0), 1),
    ] {
        let mut bytes = greeting();
        bytes.extend(&request);
        let answer = exchange(entry, &bytes).await;
        let expected = [5, 0, 5, code, 0, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(answer, expected, "{request:?}");
    }
    // Neither with a password nor with nothing.
    assert_eq!(exchange(empty_service, &[5, 1, 2]).await, [5, 0xff]);
    assert_eq!(exchange(empty_service, &[5, 0]).await, [5, 0xff]);
}

#[tokio::test]
async fn connect_says_why_it_refuses() {
    let entry = plain(None).await;
    for (request, status, why) in [
        (
            "CONNECT nobody:80 HTTP/1.1\r\nHost: nobody:80\r\n\r\n".to_owned(),
            "502 Bad Gateway",
            "nobody:80: no service or pod of this mesh has that name",
        ),
        (
            "CONNECT 192.0.2.1:80 HTTP/1.0\r\n\r\n".to_owned(),
            "502 Bad Gateway",
            "192.0.2.1:80: no service or pod of this mesh has that address",
        ),
        (
            "CONNECT webapp.istioinaction:80 HTTP/1.0\r\n\r\n".to_owned(),
            "502 Bad Gateway",
            "webapp.istioinaction:80: connection refused",
        ),
        (
            "GET http://webapp.istioinaction/ HTTP/1.1\r\nHost: webapp.istioinaction\r\n\r\n"
                .to_owned(),
            "405 Method Not Allowed",
            "this is the entry of a pod, no HTTP proxy for GET\n  hint: use it as socks5h://, or by CONNECT (curl --proxytunnel)",
        ),
        (
            "COPY webapp:80 HTTP/1.0\r\n\r\n".to_owned(),
            "405 Method Not Allowed",
            "this is the entry of a pod, no HTTP proxy for COPY\n  hint: use it as socks5h://, or by CONNECT (curl --proxytunnel)",
        ),
        (
            format!("CONNECT a:1 HTTP/1.0\r\nx: {}\r\n\r\n", "y".repeat(9000)),
            "431 Request Header Fields Too Large",
            "the head of the request has more than 8192 bytes",
        ),
    ] {
        let answer = exchange_text(entry, request.as_bytes()).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert_eq!(head.lines().next(), Some(&*format!("HTTP/1.1 {status}")));
        assert_eq!(head.contains("allow: CONNECT"), status.starts_with("405"));
        assert!(head.contains(&format!("content-length: {}", body.len())));
        assert_eq!(body, format!("{why}\n"));
    }
}

#[tokio::test]
async fn a_sidecar_gets_nothing_that_would_leave_the_machine_for_an_address_of_services() {
    let (with_sidecar, mut handed, _) = sidecar().await;
    let without = plain(None).await;
    for entry in [with_sidecar, without] {
        for (request, code) in [
            (by_name("webapp.istioinaction", ABSENT), 5),
            (by_address([10, 96, 0, 1], ABSENT), 5),
            (by_address([10, 99, 0, 1], 80), 4),
        ] {
            let mut bytes = greeting();
            bytes.extend(&request);
            let answer = exchange(entry, &bytes).await;
            let expected = [5, 0, 5, code, 0, 1, 0, 0, 0, 0, 0, 0];
            assert_eq!(answer, expected, "{request:?}");
        }
    }
    assert!(handed.try_recv().is_err());
}

#[tokio::test]
async fn garbage_is_closed_without_a_word() {
    let (entry, mut handed, _) = sidecar().await;
    let hello = [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];
    for bytes in [
        &hello[..],
        b"\0\0\0\0",
        b"\x04\x01\0\x50\x0a\x60\0\x01\0",
        b"get / HTTP/1.1\r\n\r\n",
        b"",
    ] {
        let mut client = TcpStream::connect(entry).await.unwrap();
        client.write_all(bytes).await.unwrap();
        if bytes.is_empty() {
            client.shutdown().await.unwrap();
        }
        let mut answer = Vec::new();
        let read = timeout(CONNECT_MAX, client.read_to_end(&mut answer)).await;
        assert_eq!(read.unwrap().unwrap(), 0);
    }
    assert!(handed.try_recv().is_err());
}

/// The clock is stopped and jumps to the next deadline when nobody has anything to do.
#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_go_on_is_cut_off() {
    let (entry, mut handed, _) = sidecar().await;
    for bytes in [
        &b""[..],
        b"\x05",
        b"\x05\x01\x00\x05\x01\x00\x03\x20abc",
        b"CONNECT webapp",
    ] {
        let began = tokio::time::Instant::now();
        let mut client = TcpStream::connect(entry).await.unwrap();
        client.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert!(!answer.starts_with(b"HTTP/1.1 200"));
        assert!(began.elapsed() >= HANDSHAKE_MAX, "{:?}", began.elapsed());
        assert!(began.elapsed() < 2 * HANDSHAKE_MAX, "{:?}", began.elapsed());
    }
    assert!(handed.try_recv().is_err());
}

#[tokio::test]
async fn what_an_entry_relays_ends_with_it() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let entry = listener.local_addr().unwrap();
    let mesh = OneService {
        behind: Some(server.local_addr().unwrap()),
        ..OneService::default()
    };
    let way = Arc::new(Way::Plain { from: POD });
    let serving = tokio::spawn(serve(listener, "shop".into(), Arc::new(mesh), way));
    let mut client = TcpStream::connect(entry).await.unwrap();
    let mut bytes = greeting();
    bytes.extend(by_address([10, 96, 0, 1], 80));
    client.write_all(&bytes).await.unwrap();
    client.read_exact(&mut [0; 12]).await.unwrap();
    serving.abort();
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}

#[test]
fn a_command_is_led_through_its_entry_and_past_no_other() {
    let entry = SocketAddr::from((POD, 15001));
    let environment: BTreeMap<_, _> = environment(entry).into_iter().collect();
    for name in ["ALL_PROXY", "http_proxy", "https_proxy"] {
        assert_eq!(
            environment[name].as_deref(),
            Some("socks5h://127.1.0.9:15001")
        );
    }
    assert_eq!(
        environment["MESHWARD_PROXY"].as_deref(),
        Some("127.1.0.9:15001")
    );
    for name in [
        "all_proxy",
        "HTTPS_PROXY",
        "HTTP_PROXY",
        "NO_PROXY",
        "no_proxy",
    ] {
        assert_eq!(environment[name], None);
    }
}

/// Runs a tool that everybody has; `None`, said in one line, where it is missing and need not be there.
async fn tool(
    name: &'static str,
    arguments: Vec<String>,
    entry: SocketAddr,
) -> Option<(i32, String)> {
    let run = move || {
        let mut command = Command::new(name);
        command.args(arguments).stdin(std::process::Stdio::null());
        for (name, value) in environment(entry) {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.output()
    };
    match tokio::task::spawn_blocking(run).await.unwrap() {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Some((
                output.status.code().unwrap(),
                String::from_utf8_lossy(&text).into_owned(),
            ))
        }
        Err(e) => {
            assert!(
                std::env::var_os("CI").is_none(),
                "{name} cannot be run: {e}"
            );
            println!("skipped: {name} cannot be run: {e}");
            None
        }
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

#[tokio::test]
async fn curl_sees_what_a_pod_would_see() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let entry = plain(Some(server.local_addr().unwrap())).await;
    let serving = tokio::spawn(async move {
        let (mut first, _) = server.accept().await.unwrap();
        let mut head = [0; 4096];
        let read = first.read(&mut head).await.unwrap();
        let head = String::from_utf8_lossy(&head[..read]).into_owned();
        first
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\nconnection: close\r\n\r\nhi\n")
            .await
            .unwrap();
        drop(first);
        // The second is reset over an unread request (S-28).
        let (second, _) = server.accept().await.unwrap();
        second.peek(&mut [0]).await.unwrap();
        drop(second);
        (head, server)
    });
    let url = "http://webapp.istioinaction/api/catalog";
    let code = "-s -o /dev/null -w %{http_code}";
    let Some(answer) = tool("curl", words(&format!("-s {url}")), entry).await else {
        return;
    };
    assert_eq!(answer, (0, "hi\n".to_owned()));
    // S-65
    let answer = tool("curl", words(&format!("{code} {url}")), entry).await;
    assert_eq!(answer, Some((56, "000".to_owned())));
    let (head, server) = serving.await.unwrap();
    assert!(
        head.starts_with("GET /api/catalog HTTP/1.1\r\nHost: webapp.istioinaction\r\n"),
        "{head}"
    );
    drop(server);
    // curl's code for a proxy that refuses the handshake, and what the reply said.
    let answer = tool("curl", words(&format!("-sS {url}")), entry)
        .await
        .unwrap();
    assert_eq!(
        (answer.0, answer.1.contains("(5)")),
        (97, true),
        "{}",
        answer.1
    );
}

#[tokio::test]
async fn openssl_reaches_its_peer_by_connect() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let entry = plain(Some(server.local_addr().unwrap())).await;
    let serving = tokio::spawn(async move {
        let (mut stream, _) = server.accept().await.unwrap();
        let mut record = [0; 6];
        stream.read_exact(&mut record).await.unwrap();
        // A fatal alert: certificate required (RFC 8446 §6.2).
        stream.write_all(&[21, 3, 3, 0, 2, 2, 116]).await.unwrap();
        drain(stream).await;
        record
    });
    let arguments = format!("s_client -proxy {entry} -connect webapp.istioinaction:443");
    let Some((code, text)) = tool("openssl", words(&arguments), entry).await else {
        return;
    };
    assert_eq!(
        (code, text.contains("alert number 116")),
        (1, true),
        "{text}"
    );
    let record = serving.await.unwrap();
    assert_eq!((record[0], record[5]), (22, 1), "a ClientHello");
}
