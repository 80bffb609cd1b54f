//! Where a mesh keeps its control socket and what belongs to its pods.
//!
//! ```text
//! $XDG_RUNTIME_DIR/meshward, else /tmp/meshward-UID        0700, ours
//!     NAME.lock                                            held while the mesh runs; its pid
//!     NAME.sock                                            0600
//!     NAME/NAMESPACE/POD/{app.log,istio-proxy.log,certs}   0700; $MESHWARD_RUN is NAME
//! ```
//!
//! Whoever starts a mesh of a name that runs is told so. What a mesh left behind that was killed is taken over; what is
//! not ours, or is no socket, is never touched.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use clap::Args;
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use crate::exit::Failure;
use crate::files;

/// Bytes of the path of a socket, with the zero at its end (sockaddr_un).
const SOCKET_PATH_MAX: usize = 108;
/// Bytes of the name of a mesh.
const NAME_MAX: usize = 40;

/// Names of meshes of `--check` begin so; what follows is the pid.
pub(crate) const CHECK: &str = "check-";

/// Which mesh of this user.
#[derive(Args, Clone, Debug)]
pub(crate) struct Which {
    /// Which mesh; each has its control socket and its folder.
    #[arg(
        long = "mesh",
        env = "MESHWARD_MESH",
        default_value = "default",
        value_name = "NAME"
    )]
    pub(crate) name: String,
}

/// The places of one mesh, whether it runs or not.
#[derive(Clone, Debug)]
pub(crate) struct Folder {
    pub(crate) name: String,
    dir: PathBuf,
}

impl Folder {
    /// Fails on a name that is none, and on a path that a socket cannot have.
    pub(crate) fn of(which: &Which) -> Result<Self, Failure> {
        let name = which.name.clone();
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        if name.is_empty()
            || name.len() > NAME_MAX
            || name.starts_with('-')
            || !name.bytes().all(fits)
        {
            return Err(Failure::Usage(format!(
                "`{name}` is no name of a mesh\n  hint: use lower-case letters, digits and `-`, at most {NAME_MAX} of them"
            )));
        }
        let dir = match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
            Some(dir) if dir.is_absolute() => dir.join("meshward"),
            _ => {
                let uid = rustix::process::getuid().as_raw();
                PathBuf::from(format!("/tmp/meshward-{uid}"))
            }
        };
        let folder = Self { name, dir };
        let socket = folder.socket();
        if socket.as_os_str().len() >= SOCKET_PATH_MAX {
            return Err(Failure::Machine(format!(
                "{}: too long for the path of a socket\n  hint: set XDG_RUNTIME_DIR to a shorter one, or unset it",
                socket.display()
            )));
        }
        Ok(folder)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.join(format!("{}.sock", self.name))
    }

    /// `$MESHWARD_RUN`.
    pub(crate) fn run(&self) -> PathBuf {
        self.dir.join(&self.name)
    }

    fn lock(&self) -> PathBuf {
        self.dir.join(format!("{}.lock", self.name))
    }

    /// Connects to the mesh that runs. Fails with words if none does.
    pub(crate) fn connect(&self) -> Result<UnixStream, Failure> {
        let socket = self.socket();
        match fs::symlink_metadata(&self.dir) {
            // Whoever may write there could put a socket of his own in the place of what we look at.
            Ok(found) => must_be_private(&self.dir, &found)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(self.no_mesh()),
            Err(e) => return Err(unreachable(&self.dir, &e)),
        }
        match fs::symlink_metadata(&socket) {
            Ok(found) => self.must_be_our_socket(&found)?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(self.no_mesh()),
            Err(e) => return Err(unreachable(&socket, &e)),
        }
        UnixStream::connect(&socket).map_err(|e| match e.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => self.no_mesh(),
            _ => unreachable(&socket, &e),
        })
    }

    fn no_mesh(&self) -> Failure {
        let hint = if self.name == "default" {
            "meshward up DIR".to_owned()
        } else {
            format!("meshward up DIR --mesh {}", self.name)
        };
        Failure::Machine(format!(
            "no mesh named `{}` is running\n  hint: {hint}",
            self.name
        ))
    }

    fn must_be_our_socket(&self, found: &fs::Metadata) -> Result<(), Failure> {
        let socket = self.socket();
        let wrong = if found.uid() != rustix::process::getuid().as_raw() {
            format!("belongs to another user (uid {})", found.uid())
        } else if !found.file_type().is_socket() {
            "is no socket".to_owned()
        } else {
            return Ok(());
        };
        Err(Failure::Machine(format!(
            "{}: {wrong}\n  hint: have a look and move it away, or choose another --mesh",
            socket.display()
        )))
    }

    /// Takes the name for this process: locks it, makes a new folder and listens on the socket. Fails if a mesh of the name
    /// runs, and on anything in the way that no mesh of ours has left there.
    pub(crate) fn take(self) -> Result<(Taken, UnixListener), Failure> {
        private(&self.dir)?;
        self.sweep();
        let lock = self.locked()?;
        let socket = self.socket();
        if let Ok(found) = fs::symlink_metadata(&socket) {
            self.must_be_our_socket(&found)?;
            match UnixStream::connect(&socket) {
                Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {
                    fs::remove_file(&socket).map_err(|e| unreachable(&socket, &e))?;
                }
                Err(e) => return Err(unreachable(&socket, &e)),
                Ok(_) => {
                    return Err(Failure::Machine(format!(
                        "{}: somebody listens there who is no mesh\n  hint: end it, or choose another --mesh",
                        socket.display()
                    )));
                }
            }
        }
        let run = self.run();
        match fs::symlink_metadata(&run) {
            Ok(found) if found.is_dir() => {
                fs::remove_dir_all(&run).map_err(|e| broken(&run, &e))?
            }
            Ok(_) => {
                return Err(Failure::Machine(format!(
                    "{}: is in the way\n  hint: have a look and move it away",
                    run.display()
                )));
            }
            Err(_) => {}
        }
        private(&run)?;
        let listener = UnixListener::bind(&socket).map_err(|e| broken(&socket, &e))?;
        // Nobody else can reach it before: the folder around it is closed.
        fs::set_permissions(&socket, fs::Permissions::from_mode(0o600))
            .map_err(|e| broken(&socket, &e))?;
        let taken = Taken {
            folder: self,
            lock: Some(lock),
        };
        Ok((taken, listener))
    }

    /// Takes away what a check has left that was killed: its name holds its pid, so that nobody takes it over.
    fn sweep(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let file = entry.file_name();
            let Some(name) = file.to_str().and_then(|name| name.strip_suffix(".lock")) else {
                continue;
            };
            let pid = name.strip_prefix(CHECK).and_then(|pid| pid.parse().ok());
            let pid = pid.filter(|pid: &i32| *pid > 0).and_then(Pid::from_raw);
            // One that is about to lock its name must find it free.
            if !pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH)) {
                continue;
            }
            let folder = Self {
                name: name.to_owned(),
                dir: self.dir.clone(),
            };
            if let Ok(lock) = folder.locked() {
                let _ = fs::remove_dir_all(folder.run());
                let lock = Some(lock);
                drop(Taken { folder, lock });
            }
        }
    }

    /// The lock on the name, with our pid in it.
    fn locked(&self) -> Result<File, Failure> {
        let path = self.lock();
        loop {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
                .open(&path)
                .map_err(|e| broken(&path, &e))?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    let mut pid = String::new();
                    let _ = file.read_to_string(&mut pid);
                    return Err(Failure::Machine(format!(
                        "a mesh named `{}` is running (pid {})\n  hint: end it, or choose another --mesh",
                        self.name,
                        pid.trim()
                    )));
                }
                Err(TryLockError::Error(e)) => return Err(broken(&path, &e)),
            }
            // Its last holder may have removed the file between our opening and locking it.
            let ours = file.metadata().map(|m| (m.dev(), m.ino()));
            let there = fs::symlink_metadata(&path).map(|m| (m.dev(), m.ino()));
            if let (Ok(ours), Ok(there)) = (ours, there)
                && ours == there
            {
                file.set_len(0)
                    .and_then(|()| writeln!(file, "{}", std::process::id()))
                    .map_err(|e| broken(&path, &e))?;
                return Ok(file);
            }
        }
    }
}

/// A name that is ours until this is dropped.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) folder: Folder,
    /// `None`: given back.
    lock: Option<File>,
}

impl Taken {
    /// The folder of a pod, made if it is not there.
    pub(crate) fn pod(&self, namespace: &str, pod: &str) -> Result<PathBuf, Failure> {
        let above = self.folder.run().join(namespace);
        private(&above)?;
        let dir = above.join(pod);
        private(&dir)?;
        Ok(dir)
    }

    /// Nobody can connect any more; who has connected stays.
    pub(crate) fn close_socket(&self) {
        let _ = fs::remove_file(self.folder.socket());
    }
}

impl Taken {
    /// Gives the name back; the folder with its logs stays. Asked again, it does nothing.
    pub(crate) fn release(&mut self) {
        // Removed while it is still locked: who takes the name next makes a file of its own.
        if let Some(lock) = self.lock.take() {
            self.close_socket();
            let _ = fs::remove_file(self.folder.lock());
            drop(lock);
        }
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.release();
    }
}

/// Makes a folder that nobody else may enter, or finds it to be one.
pub(crate) fn private(dir: &Path) -> Result<(), Failure> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Ok(()) => return Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
        Err(e) => return Err(broken(dir, &e)),
    }
    let found = fs::symlink_metadata(dir).map_err(|e| broken(dir, &e))?;
    must_be_private(dir, &found)
}

fn must_be_private(dir: &Path, found: &fs::Metadata) -> Result<(), Failure> {
    let wrong = if !found.is_dir() {
        "is no folder"
    } else if found.uid() != rustix::process::getuid().as_raw() {
        "belongs to another user"
    } else if found.mode() & 0o077 != 0 {
        "can be entered by others"
    } else {
        return Ok(());
    };
    Err(Failure::Machine(format!(
        "{}: {wrong}\n  hint: it must be yours with mode 0700; or set XDG_RUNTIME_DIR to a folder of yours",
        dir.display()
    )))
}

fn broken(path: &Path, error: &io::Error) -> Failure {
    Failure::Machine(format!(
        "{}: cannot be made: {}",
        path.display(),
        files::words(error)
    ))
}

fn unreachable(path: &Path, error: &io::Error) -> Failure {
    Failure::Machine(format!(
        "{}: cannot be reached: {}",
        path.display(),
        files::words(error)
    ))
}
