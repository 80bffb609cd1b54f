//! A mesh that runs: started from files, looked after, ended in order.
//!
//! Its [`State`] is behind one lock, which traffic never takes.

use std::collections::BTreeMap;
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use meshward_core::api::load::load_objects;
use meshward_core::control::mesh::PodKey;
use meshward_core::control::plane::Plane;
use meshward_core::spiffe::TrustDomain;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::apps::{AppKind, Death};
use super::directory::Directory;
use super::edge::Edge;
use super::folder::Taken;
use super::identities::{Identities, Issuing};
use super::protocol::FileText;
use super::rollout::Rollouts;
use super::server;
use super::shards::{Seat, Shards};
use super::sources::{Sources, place_of};
use super::state::{DRAIN_GRACE, DRAIN_MARGIN, State, kinds, need_files};
pub(crate) use super::state::{data, texts};
use crate::exit::Failure;
use crate::logs::Logs;
use crate::machine::{self, Chosen};
use crate::say;

/// Apps have so long to end; a command heeds SIGTERM or is killed before.
const APPS_PATIENCE: Duration = Duration::from_secs(8);
/// How often something is looked at that tells nobody when it changes.
const LOOK: Duration = Duration::from_millis(10);
/// The longest time without a look at workers and clocks.
const BEAT: Duration = Duration::from_secs(1);

/// How a mesh is started.
#[derive(Clone, Debug)]
pub(crate) struct Start {
    pub(crate) chosen: Chosen,
    pub(crate) workers: usize,
    pub(crate) issuing: Issuing,
    /// Say why links end before their time.
    pub(crate) notes: bool,
}

/// A mesh as files describe it, before anything of it runs.
pub(crate) struct Design {
    plane: Plane,
    sources: Sources,
    kinds: BTreeMap<PodKey, AppKind>,
}

/// Why a mesh should end.
#[derive(Debug)]
pub(crate) enum Ending {
    Signal,
    /// Something that it cannot do without has gone.
    Broken(String),
}

pub(crate) struct Running {
    state: Arc<Mutex<State>>,
    keeper: thread::JoinHandle<()>,
    events: Sender<Event>,
    /// Nobody is to wait any more for pods that are made anew.
    enough: Arc<AtomicBool>,
}

/// What the keeper is told.
pub(super) enum Event {
    /// A proxy let go of its last link.
    Removed(Seat),
    /// Deadlines may have changed.
    Changed,
    End,
}

impl Design {
    /// Reads all of it. Warnings go to stderr.
    pub(crate) fn read(files: Vec<FileText>, strict: bool, pods: Ipv4Net) -> Result<Self, Failure> {
        let texts = texts(files);
        let objects = load_objects(&texts, "default", strict).map_err(data)?;
        for warning in &objects.warnings {
            say::err(warning);
        }
        let size = u32::MAX >> pods.prefix_len();
        let mut plane = Plane::with_pods_in(pods.network(), size.saturating_add(1));
        plane.apply(objects.objects, machine::now()).map_err(data)?;
        plane.keep_pods();
        for warning in plane.warnings() {
            say::err(warning);
        }
        let kinds = kinds(&plane, &texts).map_err(Failure::Data)?;
        if kinds.is_empty() {
            say::err("warning: no pod: the mesh is empty until something is applied");
        }
        let mut sources = Sources::default();
        sources.note(&texts, plane.store().objects().map(place_of));
        Ok(Self {
            plane,
            sources,
            kinds,
        })
    }
}

impl Running {
    /// Starts everything that `design` asks for, and answers on `socket`. On failure nothing is left behind.
    pub(crate) fn start(
        start: &Start,
        design: Design,
        taken: Taken,
        socket: UnixListener,
        ending: Sender<Ending>,
    ) -> Result<Self, Failure> {
        let config = design.plane.mesh_config();
        need_files(design.plane.mesh())?;
        let domain = TrustDomain::parse(&config.trust_domain)
            .map_err(|e| Failure::Data(vec![format!("trustDomain: {e}")]))?;
        let logs = Logs::open(&[], config.access_log_encoding).map_err(Failure::Machine)?;
        logs.rotate_files();
        let (events, happened) = mpsc::channel();
        let (removed, gone) = mpsc::channel();
        let shards = Shards::start(start.chosen, start.workers, &logs, start.notes, &removed)
            .map_err(|e| Failure::Machine(format!("a worker cannot start: {e}")))?;
        let edge = Edge::start();
        let edge = edge.map_err(|e| Failure::Machine(format!("a thread cannot start: {e}")))?;
        let (deaths, died) = unbounded_channel();
        edge.spawn(tell_deaths(died));
        forward_removed(gone, events.clone())?;
        let mut state = State {
            plane: Plane::new(),
            pods: BTreeMap::new(),
            leaving: Vec::new(),
            stopping: Vec::new(),
            identities: Identities::new(&domain, start.issuing)?,
            shards: Arc::new(shards),
            logs,
            edge: Arc::new(edge),
            directory: Arc::new(Directory::new(Arc::clone(design.plane.mesh()))),
            deaths,
            taken,
            turn: 0,
            ending: false,
            events: events.clone(),
            sources: design.sources,
            rollouts: Rollouts::default(),
            began: machine::now(),
            last_uid: 0,
            enough: Arc::default(),
        };
        let late = state.adopt(design.plane, &design.kinds, &[])?;
        for warning in late {
            say::err(warning);
        }
        let enough = Arc::clone(&state.enough);
        let state = Arc::new(Mutex::new(state));
        let asked = Arc::clone(&state);
        let thread = |e| Failure::Machine(format!("a thread cannot start: {e}"));
        server::serve(socket, move |ask| lock(&asked).answer(ask)).map_err(thread)?;
        let kept = Arc::clone(&state);
        let keeper = thread::Builder::new()
            .name("keeper".into())
            .spawn(move || keep(&kept, &happened, &ending))
            .map_err(thread)?;
        Ok(Self {
            state,
            keeper,
            events,
            enough,
        })
    }

    /// What a command needs to find this mesh.
    pub(crate) fn surroundings(&self) -> [(&'static str, String); 2] {
        let state = lock(&self.state);
        let folder = &state.taken.folder;
        [
            ("MESHWARD_MESH", folder.name.clone()),
            ("MESHWARD_RUN", folder.run().display().to_string()),
        ]
    }

    /// The table of its pods, and how to reach them.
    pub(crate) fn describe(&self) -> String {
        let state = lock(&self.state);
        super::describe::mesh(
            &state.plane,
            &state.pods,
            &state.taken.folder,
            (state.shards.runtime(), state.shards.len()),
        )
    }

    /// Ends everything in order: nobody comes in, what is open may finish, apps end, keys and sockets go. `hurry`: end
    /// what is open at once.
    pub(crate) fn end(self, hurry: impl Fn() -> bool) -> Result<(), Failure> {
        self.enough.store(true, Ordering::Relaxed);
        let _ = self.events.send(Event::End);
        let _ = self.keeper.join();
        let (shards, edge, apps, stopping) = {
            let mut state = lock(&self.state);
            let (apps, stopping) = state.close();
            state.shards.drain(DRAIN_GRACE);
            let (shards, edge) = (Arc::clone(&state.shards), Arc::clone(&state.edge));
            (shards, edge, apps, stopping)
        };
        let mut end = Instant::now() + DRAIN_GRACE + DRAIN_MARGIN;
        while !shards.have_ended() && Instant::now() < end {
            if hurry() {
                shards.stop();
                end = end.min(Instant::now() + DRAIN_MARGIN);
            }
            thread::sleep(LOOK);
        }
        edge.wait(
            async move {
                let stops: Vec<_> = apps
                    .into_iter()
                    .map(|app| tokio::spawn(app.stop()))
                    .chain(stopping)
                    .collect();
                for stop in stops {
                    let _ = stop.await;
                }
            },
            APPS_PATIENCE,
        );
        lock(&self.state).forget();
        if shards.have_ended() {
            Ok(())
        } else {
            Err(Failure::Machine("a worker does not end".into()))
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    // A panic elsewhere is told by the worker or the thread that panicked; what is left can still be ended.
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Looks after agents, pods that leave and workers, until it is told to end.
fn keep(state: &Mutex<State>, happened: &Receiver<Event>, ending: &Sender<Ending>) {
    let mut broken = false;
    loop {
        let wait = lock(state).due().min(BEAT);
        match happened.recv_timeout(wait) {
            Ok(Event::Removed(seat)) => lock(state).let_go(seat),
            Ok(Event::Changed) | Err(RecvTimeoutError::Timeout) => {}
            Ok(Event::End) | Err(RecvTimeoutError::Disconnected) => return,
        }
        let mut state = lock(state);
        state.tick();
        if let Some(worker) = state.shards.ended()
            && !std::mem::replace(&mut broken, true)
        {
            // Whoever should hear it may be gone already.
            let _ = ending.send(Ending::Broken(format!("worker {worker} has ended")));
        }
    }
}

async fn tell_deaths(mut died: UnboundedReceiver<Death>) {
    while let Some(death) = died.recv().await {
        say::err(death);
    }
}

/// Makes events of what workers say.
fn forward_removed(gone: Receiver<Seat>, events: Sender<Event>) -> Result<(), Failure> {
    let forwarding = move || {
        for seat in gone {
            if events.send(Event::Removed(seat)).is_err() {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("removed".into())
        .spawn(forwarding)
        .map(drop)
        .map_err(|e| Failure::Machine(format!("a thread cannot start: {e}")))
}
