use super::*;

fn status(head: &str) -> Result<Target, &'static str> {
    judge(head.as_bytes()).map_err(|fault| &fault.status[..3])
}

#[test]
fn the_target_is_host_and_port_and_nothing_else() {
    for (text, host, port) in [
        ("webapp.istioinaction:80", "webapp.istioinaction", 80),
        (
            "webapp.istioinaction.svc.cluster.local.:80",
            "webapp.istioinaction.svc.cluster.local.",
            80,
        ),
        ("WebApp:65535", "WebApp", 65535),
        ("a_b-c:1", "a_b-c", 1),
    ] {
        let target = authority(text).unwrap();
        assert_eq!(
            target,
            Target {
                host: Host::Name(host.into()),
                port
            }
        );
    }
    for (text, address) in [
        ("127.1.0.4:80", "127.1.0.4"),
        ("[::1]:80", "::1"),
        ("[::ffff:127.1.0.4]:80", "127.1.0.4"),
    ] {
        let host = Host::Address(address.parse().unwrap());
        assert_eq!(authority(text).unwrap(), Target { host, port: 80 });
    }
    let long = format!("{}:80", "a".repeat(64));
    let longer = format!("{}aa:80", "abc.".repeat(63));
    for text in [
        "",
        ":",
        ":80",
        "webapp",
        "webapp:",
        "webapp:0",
        "webapp:+80",
        "webapp:65536",
        "webapp:000080",
        "webapp:8 0",
        "user@webapp:80",
        "http://webapp:80",
        "/",
        "*",
        "::1:80",
        "[::1]",
        "[::1]80",
        "[webapp]:80",
        "[::1:80",
        "web app:80",
        "a..b:80",
        ".a:80",
        "webäpp:80",
        &long,
        &longer,
    ] {
        assert_eq!(authority(text), None, "{text}");
    }
}

#[test]
fn a_head_is_held_to_its_form() {
    assert!(status("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n").is_ok());
    assert!(status("CONNECT a:1 HTTP/1.0\r\n\r\n").is_ok());
    for head in [
        // RFC 9112 §3.2: exactly one Host in HTTP/1.1.
        "CONNECT a:1 HTTP/1.1\r\n\r\n",
        "CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\nhost: a:1\r\n\r\n",
        // RFC 9110 §9.3.6: no content.
        "CONNECT a:1 HTTP/1.0\r\ncontent-length: 3\r\n\r\n",
        "CONNECT a:1 HTTP/1.0\r\ntransfer-encoding: chunked\r\n\r\n",
        "CONNECT a:1 HTTP/2.0\r\n\r\n",
        "CONNECT a:1\r\n\r\n",
        "CONNECT  a:1 HTTP/1.0\r\n\r\n",
        "CONNECT a:1 HTTP/1.0\r\nx y: z\r\n\r\n",
        "CONNECT a HTTP/1.0\r\n\r\n",
    ] {
        assert_eq!(status(head), Err("400"), "{head}");
    }
    let many = format!(
        "CONNECT a:1 HTTP/1.0\r\n{}\r\n",
        "x: y\r\n".repeat(HEADERS_MAX + 1)
    );
    assert_eq!(status(&many), Err("400"));
    assert_eq!(status("CONTACT a:1 HTTP/1.0\r\n\r\n"), Err("405"));
}
