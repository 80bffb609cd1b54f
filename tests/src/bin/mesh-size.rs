//! What a mesh of N sidecars on one machine costs, and how soon it answers: `mesh-size [--sidecars N] [--runtime R]`.
//!
//! Runs the `meshward` that was built beside it on a generated folder, and measures with requests through every sidecar:
//! from the start of `up` until each has answered, from the start of `apply` until each refuses, and the memory of an idle
//! sidecar as the difference between this mesh and the same one without sidecars.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Requests at the same time.
const HANDS: usize = 8;
/// Nothing here takes so long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> ExitCode {
    match arguments().and_then(|arguments| run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

struct Arguments {
    sidecars: usize,
    runtime: String,
}

fn arguments() -> Result<Arguments, String> {
    let mut found = Arguments {
        sidecars: 200,
        runtime: "auto".into(),
    };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
        match word.as_str() {
            "--sidecars" => {
                let value = value()?;
                found.sidecars = value.parse().map_err(|_| format!("`{value}`: no number"))?;
            }
            "--runtime" => found.runtime = value()?,
            _ => return Err(format!("`{word}`: mesh-size [--sidecars N] [--runtime R]")),
        }
    }
    Ok(found)
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let place = Place::new()?;
    let n = arguments.sidecars;
    let without = Mesh::start(&place, arguments, false)?;
    without.all(n, 200)?;
    let bare = without.memory()?;
    without.end()?;

    let mesh = Mesh::start(&place, arguments, true)?;
    mesh.all(n, 200)?;
    let answered = mesh.started.elapsed();
    thread::sleep(Duration::from_secs(1));
    let full = mesh.memory()?;
    let changed = Instant::now();
    mesh.apply(&place, DENY_ALL)?;
    let applied = changed.elapsed();
    let late = mesh.each(n, |status| status != 403)?;
    let in_force = changed.elapsed();
    if late > 0 {
        return Err(format!(
            "{late} of {n} sidecars did not refuse after `apply` had returned"
        ));
    }
    println!(
        "{n} sidecars on {}: every one answered {:.2} s after the start; a policy was applied in {:.3} s, and seen in force \
         at every one after {:.3} s; {:.0} KiB for an idle sidecar",
        arguments.runtime,
        answered.as_secs_f64(),
        applied.as_secs_f64(),
        in_force.as_secs_f64(),
        full.saturating_sub(bare) as f64 / n as f64
    );
    mesh.end()
}

const DENY_ALL: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: deny-all
  namespace: istio-system
spec: {}
";

/// The folder that everything is generated in; gone at the end.
struct Place {
    folder: PathBuf,
    meshward: PathBuf,
}

impl Place {
    fn new() -> Result<Self, String> {
        let beside = std::env::current_exe().map_err(|e| e.to_string())?;
        let meshward = beside.with_file_name("meshward");
        if !meshward.exists() {
            return Err(format!(
                "{}: not there; build it with the same profile first",
                meshward.display()
            ));
        }
        let folder = std::env::temp_dir().join(format!("meshward-size-{}", std::process::id()));
        fs::create_dir_all(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        Ok(Self { folder, meshward })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// A namespace `load` with `n` services of one pod each, and a caller without sidecar.
fn yaml(n: usize, sidecars: bool) -> String {
    let injection = if sidecars { "enabled" } else { "disabled" };
    let mut text = format!(
        "apiVersion: v1
kind: Namespace
metadata: {{name: load, labels: {{istio-injection: {injection}}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: caller, namespace: default}}
spec:
  selector: {{matchLabels: {{app: caller}}}}
  template:
    metadata: {{labels: {{app: caller}}}}
    spec: {{containers: [{{name: caller}}]}}
"
    );
    for i in 0..n {
        text += &format!(
            "---
apiVersion: v1
kind: Service
metadata: {{name: s{i}, namespace: load}}
spec: {{selector: {{app: s{i}}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: s{i}, namespace: load}}
spec:
  selector: {{matchLabels: {{app: s{i}}}}}
  template:
    metadata: {{labels: {{app: s{i}}}}}
    spec: {{containers: [{{name: app, ports: [{{containerPort: 8080}}]}}]}}
"
        );
    }
    text
}

struct Mesh {
    child: Child,
    name: String,
    started: Instant,
    caller: SocketAddr,
}

impl Mesh {
    fn start(place: &Place, arguments: &Arguments, sidecars: bool) -> Result<Self, String> {
        let file = place.folder.join("mesh.yaml");
        write(&file, &yaml(arguments.sidecars, sidecars))?;
        let name = format!("size-{}", std::process::id());
        let started = Instant::now();
        let child = Command::new(&place.meshward)
            .args(["up", "--mesh", &name, "--runtime", &arguments.runtime])
            .args(["--pod-range", "127.77.0.0/16"])
            .arg(&file)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{}: {e}", place.meshward.display()))?;
        let mut mesh = Self {
            child,
            name,
            started,
            caller: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        };
        mesh.caller = mesh.find_caller(place)?;
        Ok(mesh)
    }

    /// The entry of the caller, as `exec` knows it, once the mesh is up.
    fn find_caller(&mut self, place: &Place) -> Result<SocketAddr, String> {
        // What is printed later must not fill the pipe.
        if let Some(out) = self.child.stdout.take() {
            thread::spawn(move || BufReader::new(out).lines().map_while(Result::ok).count());
        }
        while self.started.elapsed() < PATIENCE {
            let said = Command::new(&place.meshward)
                .args(["exec", "--mesh", &self.name, "deploy/caller", "--"])
                .args(["sh", "-c", "echo $MESHWARD_PROXY"])
                .stderr(Stdio::null())
                .output()
                .map_err(|e| e.to_string())?;
            if let Ok(address) = String::from_utf8_lossy(&said.stdout).trim().parse() {
                return Ok(address);
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("`up` ended: {status}"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        Err("`up` does not come up".into())
    }

    /// Waits until each of `n` services has answered with `status`.
    fn all(&self, n: usize, status: u16) -> Result<(), String> {
        let since = Instant::now();
        while self.each(n, |got| got != status)? > 0 {
            if since.elapsed() > PATIENCE {
                return Err(format!("not every sidecar answers with {status}"));
            }
        }
        Ok(())
    }

    /// Asks each of `n` services once; how many answers `count` counts. No answer is status 0.
    fn each(&self, n: usize, count: impl Fn(u16) -> bool + Sync) -> Result<usize, String> {
        let (next, found) = (AtomicUsize::new(0), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..HANDS {
                scope.spawn(|| {
                    loop {
                        let i = next.fetch_add(1, Ordering::Relaxed);
                        if i >= n {
                            break;
                        }
                        let status = ask(self.caller, &format!("s{i}.load")).unwrap_or(0);
                        found.fetch_add(usize::from(count(status)), Ordering::Relaxed);
                    }
                });
            }
        });
        Ok(found.into_inner())
    }

    fn apply(&self, place: &Place, yaml: &str) -> Result<(), String> {
        let file = place.folder.join("policy.yaml");
        write(&file, yaml)?;
        let status = Command::new(&place.meshward)
            .args(["apply", "--mesh", &self.name, "-f"])
            .arg(&file)
            .stdout(Stdio::null())
            .status()
            .map_err(|e| e.to_string())?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("`apply`: {status}"))
        }
    }

    /// KiB of the process that are its own.
    fn memory(&self) -> Result<u64, String> {
        let path = format!("/proc/{}/smaps_rollup", self.child.id());
        let text = fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        text.lines()
            .find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB"))
            .and_then(|kib| kib.trim().parse().ok())
            .ok_or_else(|| format!("{path}: no `Pss`"))
    }

    fn end(mut self) -> Result<(), String> {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        sent.map_err(|e| format!("kill: {e}"))?;
        let status = self.child.wait().map_err(|e| e.to_string())?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("`up`: {status}"))
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

/// The status of `GET /` at port 80 of a host, by CONNECT.
fn ask(entry: SocketAddr, host: &str) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&entry, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    let connect = format!("CONNECT {host}:80 HTTP/1.1\r\nhost: {host}:80\r\n\r\n");
    stream.write_all(connect.as_bytes())?;
    let mut reader = BufReader::new(stream);
    head(&mut reader)?;
    let stream = reader.get_mut();
    let get = format!("GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    stream.write_all(get.as_bytes())?;
    let status = head(&mut reader)?;
    reader.read_to_end(&mut Vec::new())?;
    Ok(status)
}

/// Reads a head; its status.
fn head(reader: &mut impl BufRead) -> std::io::Result<u16> {
    let mut status = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line == "\r\n" {
            return Ok(status);
        }
        if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
            status = rest.get(..3).and_then(|s| s.parse().ok()).unwrap_or(0);
        }
    }
}
