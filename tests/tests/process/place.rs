//! What a test runs in: a folder, an address, the executable, an application.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Whatever is waited for comes within this, or the test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The account of the sidecar in most tests.
pub(crate) const SERVER: &str = "spiffe://cluster.local/ns/default/sa/server";
pub(crate) const READER: &str = "spiffe://cluster.local/ns/default/sa/reader";

/// The executable that was built with these tests.
///
/// One that is older than a source file it was made of would be tested in place of the sources, so it is refused.
pub(crate) fn meshward() -> &'static Path {
    static FOUND: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    FOUND.get_or_init(|| {
        let test = std::env::current_exe().expect("a test knows its path");
        let products = test
            .ancestors()
            .find(|dir| dir.join("deps").is_dir())
            .expect("a test lies below its profile's folder");
        let path = products.join("meshward");
        let made = fs::metadata(&path).and_then(|m| m.modified());
        let made = made.unwrap_or_else(|e| {
            panic!(
                "no executable {}: {e}; run `cargo build` first",
                path.display()
            )
        });
        let sources = fs::read_to_string(products.join("meshward.d")).unwrap_or_default();
        for source in sources.split_whitespace().skip(1) {
            let changed = fs::metadata(source).and_then(|m| m.modified());
            assert!(
                changed.is_ok_and(|changed| changed <= made),
                "{} is older than {source}; run `cargo build` first",
                path.display()
            );
        }
        path
    })
}

/// A folder and a loopback address that no other test has.
pub(crate) struct Place {
    pub(crate) dir: PathBuf,
    pub(crate) ip: Ipv4Addr,
}

impl Place {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let last = u8::try_from(number).expect("fewer than 256 places in one run");
        let dir =
            std::env::temp_dir().join(format!("meshward-process-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).expect("a folder for the test");
        Self {
            dir,
            ip: Ipv4Addr::new(127, 64 | (high & 0x3f), low, last),
        }
    }

    /// Three addresses that nobody else has; the first is `ip`.
    pub(crate) fn ips(&self) -> [Ipv4Addr; 3] {
        let [a, b, c, d] = self.ip.octets();
        [b, b + 64, b + 128].map(|b| Ipv4Addr::new(a, b, c, d))
    }

    /// `--pod-range` for pods that say no address.
    pub(crate) fn range(&self) -> String {
        let [.., last] = self.ip.octets();
        format!("127.{}.{last}.0/24", 2 + std::process::id() % 60)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("folder");
        fs::write(path, text).expect("file");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// The executable in this folder, with nothing of our surroundings that changes what it does.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(meshward());
        command
            .args(arguments)
            .current_dir(&self.dir)
            .env_remove("CI")
            .env_remove("REWRITE")
            .env_remove("MESHWARD_MESH")
            .env("XDG_RUNTIME_DIR", &self.dir)
            .env("NO_COLOR", "1")
            .env("RUST_BACKTRACE", "full")
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.command(arguments).output().expect("it can be run"))
    }

    /// Any other program, in this folder, with one string of shell.
    pub(crate) fn shell(&self, text: &str) -> Ran {
        let output = Command::new("sh")
            .arg("-c")
            .arg(text)
            .current_dir(&self.dir)
            .env("IP", self.ip.to_string())
            .env("MESHWARD", meshward())
            .env("XDG_RUNTIME_DIR", &self.dir)
            .env_remove("MESHWARD_MESH")
            .stdin(Stdio::null())
            .output()
            .expect("sh can be run");
        Ran::from(output)
    }

    /// An authority in `ca`, and the identity of `id` in the folder `name`.
    pub(crate) fn issue(&self, id: &str, name: &str) {
        if !self.path("ca").exists() {
            assert_eq!(self.run(&["ca", "init", "ca"]).code, Some(0));
        }
        let ran = self.run(&["ca", "issue", "ca", id, "--out", name]);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    }

    /// An inbound listener `app` at port 8443 of this place's address in front of port 8080, and `more` below it.
    pub(crate) fn inbound(&self, more: &str) -> String {
        let ip = self.ip;
        format!(
            "inbound:\n- name: app\n  address: {ip}:8443\n  protocol: http\n  upstream: {ip}:8080\n{more}"
        )
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !thread::panicking() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

/// The fields of a listener that name the identity in the folder `id`.
pub(crate) const TLS: &str = "  tls:\n    certificateChain: id/cert.pem\n    privateKey: id/key.pem\n    trustBundle: id/bundle.pem\n";

/// What became of a process.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// Exit `code`, `stderr` and nothing on stdout.
    #[track_caller]
    pub(crate) fn refuses(&self, code: i32, stderr: &str) {
        assert_eq!(self.stderr, stderr);
        assert_eq!((self.code, self.stdout.as_str()), (Some(code), ""));
    }
}

/// What a runtime is called in what is printed.
pub(crate) fn in_words(runtime: &str) -> &str {
    if runtime == "uring" {
        "io_uring"
    } else {
        runtime
    }
}

/// A sidecar, or another command, that runs, with what it has said so far.
pub(crate) struct Sidecar {
    child: Child,
    lines: Receiver<String>,
    /// stdout and stderr as they came.
    pub(crate) said: Vec<String>,
}

impl Sidecar {
    /// Starts one with `file`, and waits until it listens.
    pub(crate) fn start(place: &Place, file: &str, runtime: &str) -> Self {
        let mut sidecar =
            Self::watch(place.command(&["sidecar", "--config", file, "--runtime", runtime]));
        sidecar.says(&format!("meshward sidecar on {}, pid ", in_words(runtime)));
        sidecar
    }

    /// Runs any command and hears what it says.
    pub(crate) fn watch(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it can be run");
        let (sender, lines) = mpsc::channel();
        let out = child.stdout.take().expect("stdout is a pipe");
        let err = child.stderr.take().expect("stderr is a pipe");
        for stream in [Box::new(out) as Box<dyn Read + Send>, Box::new(err)] {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    let _ = sender.send(line);
                }
            });
        }
        Self {
            child,
            lines,
            said: Vec::new(),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for the next line that holds `text`.
    #[track_caller]
    pub(crate) fn says(&mut self, text: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            match self
                .lines
                .recv_timeout(end.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    let found = line.contains(text);
                    self.said.push(line);
                    if found {
                        return;
                    }
                }
                Err(e) => panic!("`{text}` was not said ({e}), but: {:#?}", self.said),
            }
        }
    }

    /// `signal` as kill(1) names it.
    pub(crate) fn signal(&self, signal: &str) {
        let sent = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(self.child.id().to_string())
            .status();
        assert!(sent.is_ok_and(|s| s.success()), "kill -{signal}");
    }

    /// Waits for its end, and gathers the rest of what it said.
    #[track_caller]
    pub(crate) fn ends(&mut self) -> ExitStatus {
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                self.said.extend(self.lines.iter());
                return status;
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("it does not end; it said: {:#?}", self.said)
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An application on port 8080 that answers each request with its head, `/slow` only after [`App::release`].
pub(crate) struct App {
    gate: Arc<Gate>,
}

#[derive(Default)]
struct Gate {
    /// How many `/slow` have arrived, and whether they may be answered.
    state: Mutex<(usize, bool)>,
    changed: Condvar,
}

impl App {
    pub(crate) fn start(place: &Place) -> Self {
        let listener = TcpListener::bind((place.ip, 8080)).expect("an address of our own");
        let gate = Arc::new(Gate::default());
        let shared = Arc::clone(&gate);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let gate = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &gate));
            }
        });
        Self { gate }
    }

    /// Waits until a `/slow` has arrived.
    pub(crate) fn has_slow(&self) {
        let state = self
            .gate
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let (state, _) = self
            .gate
            .changed
            .wait_timeout_while(state, PATIENCE, |s| s.0 == 0)
            .unwrap_or_else(PoisonError::into_inner);
        assert!(state.0 > 0, "no request for /slow arrived");
    }

    pub(crate) fn release(&self) {
        let mut state = self
            .gate
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        state.1 = true;
        self.gate.changed.notify_all();
    }
}

fn serve(stream: TcpStream, gate: &Gate) {
    let mut writer = stream.try_clone().expect("a socket can be cloned");
    let mut reader = BufReader::new(stream);
    while let Some(head) = read_head(&mut reader) {
        if head.starts_with("GET /slow ") {
            let mut state = gate.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.0 += 1;
            gate.changed.notify_all();
            while !state.1 {
                state = gate
                    .changed
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
            }
        }
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{head}",
            head.len()
        );
        if writer.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// Lines up to the empty one; `None` where the peer has gone.
fn read_head(reader: &mut impl BufRead) -> Option<String> {
    let mut head = String::new();
    loop {
        let before = head.len();
        match reader.read_line(&mut head) {
            Ok(1..) if head.get(before..) == Some("\r\n") => return Some(head),
            Ok(1..) => {}
            Ok(0) | Err(_) => return None,
        }
    }
}

/// A connection in plain text that is kept.
pub(crate) struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(place: &Place) -> Self {
        let stream = TcpStream::connect((place.ip, 8443)).expect("the sidecar listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self {
            stream: BufReader::new(stream),
        }
    }

    pub(crate) fn send(&mut self, path: &str) {
        let head = format!("GET {path} HTTP/1.1\r\nhost: app\r\n\r\n");
        self.stream
            .get_mut()
            .write_all(head.as_bytes())
            .expect("the connection is open");
    }

    /// The status of the next answer, `None` if the connection ends in place of it.
    pub(crate) fn status(&mut self) -> Option<u16> {
        let head = read_head(&mut self.stream)?;
        let length = head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
            .map_or(0, |(_, value)| value.parse().expect("a number"));
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).expect("the whole body");
        head.get(9..12)?.parse().ok()
    }

    pub(crate) fn get(&mut self, path: &str) -> Option<u16> {
        self.send(path);
        self.status()
    }
}

/// Waits until `done` has an answer.
#[track_caller]
pub(crate) fn until<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some(answer) = done() {
            return answer;
        }
        thread::sleep(Duration::from_millis(5));
    }
    panic!("{what} did not come about")
}
