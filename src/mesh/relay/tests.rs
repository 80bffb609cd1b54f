use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap());
    let (client, accepted) = tokio::join!(client, listener.accept());
    (client.unwrap(), accepted.unwrap().0)
}

/// A client and a server with a relay between them.
async fn between(idle: Duration) -> (TcpStream, TcpStream, tokio::task::JoinHandle<End>) {
    let (client, a) = pair().await;
    let (b, server) = pair().await;
    (client, server, tokio::spawn(relay(a, b, idle)))
}

async fn ended(relay: tokio::task::JoinHandle<End>) -> End {
    tokio::time::timeout(PATIENCE, relay)
        .await
        .unwrap()
        .unwrap()
}

#[tokio::test]
async fn each_direction_ends_by_itself() {
    let (mut client, mut server, relay) = between(PATIENCE).await;
    client.write_all(b"question").await.unwrap();
    client.shutdown().await.unwrap();
    let mut text = String::new();
    server.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "question");
    server.write_all(b"answer after the end").await.unwrap();
    server.shutdown().await.unwrap();
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "answer after the end");
    assert_eq!(ended(relay).await, End::Finished);
}

#[tokio::test]
async fn a_reset_arrives_as_a_reset_in_either_direction() {
    for by_client in [true, false] {
        let (client, server, relay) = between(PATIENCE).await;
        let (broken, mut other) = if by_client {
            (client, server)
        } else {
            (server, client)
        };
        broken.set_zero_linger().unwrap();
        drop(broken);
        let error = other.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset, "{by_client}");
        assert_eq!(ended(relay).await, End::Reset);
    }
}

/// A STRICT port closes without reading what the client sent (S-28); the kernel makes a reset of it.
#[tokio::test]
async fn a_close_over_unread_bytes_arrives_as_a_reset() {
    let (mut client, server, relay) = between(PATIENCE).await;
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    server.peek(&mut [0]).await.unwrap();
    drop(server);
    let error = client.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(ended(relay).await, End::Reset);
}

#[tokio::test]
async fn what_came_before_a_reset_arrives_before_it() {
    let (mut client, mut server, relay) = between(PATIENCE).await;
    server.write_all(b"last words").await.unwrap();
    let mut words = [0; 10];
    client.read_exact(&mut words).await.unwrap();
    assert_eq!(&words, b"last words");
    server.set_zero_linger().unwrap();
    drop(server);
    let error = client.read_u8().await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(ended(relay).await, End::Reset);
}

#[tokio::test]
async fn a_client_that_does_not_read_stops_the_server_and_loses_nothing() {
    // More than the kernel keeps for two connections.
    const TOTAL: usize = 48 * 1024 * 1024;
    let piece: Vec<u8> = (0..=255).cycle().take(64 * 1024).collect();
    let sample = piece.clone();
    let (mut client, mut server, relay) = between(PATIENCE).await;
    let sent = std::sync::Arc::new(AtomicU64::new(0));
    let counted = std::sync::Arc::clone(&sent);
    let sending = tokio::spawn(async move {
        for _ in 0..TOTAL / piece.len() {
            server.write_all(&piece).await.unwrap();
            counted.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
    });
    // Nobody reads until nothing moves any more.
    let mut before = u64::MAX;
    while before != sent.load(Ordering::Relaxed) {
        before = sent.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(before < TOTAL as u64, "the relay holds {before} bytes");
    let mut arrived = Vec::new();
    client.shutdown().await.unwrap();
    client.read_to_end(&mut arrived).await.unwrap();
    assert_eq!(arrived.len(), TOTAL);
    assert!(arrived.chunks(sample.len()).all(|chunk| chunk == sample));
    sending.await.unwrap();
    assert_eq!(ended(relay).await, End::Finished);
}

#[tokio::test]
async fn a_connection_on_which_nothing_moves_is_ended() {
    let (mut client, mut server, relay) = between(Duration::from_millis(200)).await;
    let began = Instant::now();
    // Bytes put the end off.
    tokio::time::sleep(Duration::from_millis(120)).await;
    client.write_all(b"x").await.unwrap();
    assert_eq!(server.read_u8().await.unwrap(), b'x');
    assert_eq!(ended(relay).await, End::Idle);
    assert!(
        began.elapsed() >= Duration::from_millis(310),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
}
