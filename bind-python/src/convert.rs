//! Addresses, names, ids and times, as Python writes them.

use std::convert::Infallible;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, SocketAddr};

use meshward_core::accept::{Mode, PortKind};
use meshward_core::clock::{self, Instant, UnixTime};
use meshward_core::id;
use meshward_core::link::{CloseCause, Entry};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::MeshwardError;
use crate::plain::Show;

/// Slots for accepted links of one proxy. The machine's table is as long as the highest slot, so this bounds what one wrong
/// number can cost.
const SLOTS_MAX: u32 = 1 << 20;

/// An address with a port: `127.0.0.1:8080` or `[::1]:8080`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Address(pub(crate) SocketAddr);

impl FromPyObject<'_, '_> for Address {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let text: String = object.extract()?;
        text.parse().map(Self).map_err(|_| {
            MeshwardError::new_err(format!(
                "`{text}` is no address with a port\n  hint: write it as 127.0.0.1:8080 or [::1]:8080"
            ))
        })
    }
}

impl<'py> IntoPyObject<'py> for Address {
    type Target = PyString;
    type Output = Bound<'py, PyString>;
    type Error = Infallible;

    fn into_pyobject(self, py: Python<'py>) -> Result<Self::Output, Infallible> {
        self.0.to_string().into_pyobject(py)
    }
}

impl Show for Address {
    fn show(&self) -> String {
        format!("'{}'", self.0)
    }
}

/// An address without a port: `127.0.0.6` or `::1`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ip(pub(crate) IpAddr);

impl FromPyObject<'_, '_> for Ip {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        let text: String = object.extract()?;
        text.parse().map(Self).map_err(|_| {
            MeshwardError::new_err(format!(
                "`{text}` is no address without a port\n  hint: write it as 127.0.0.6 or ::1"
            ))
        })
    }
}

impl<'py> IntoPyObject<'py> for Ip {
    type Target = PyString;
    type Output = Bound<'py, PyString>;
    type Error = Infallible;

    fn into_pyobject(self, py: Python<'py>) -> Result<Self::Output, Infallible> {
        self.0.to_string().into_pyobject(py)
    }
}

impl Show for Ip {
    fn show(&self) -> String {
        format!("'{}'", self.0)
    }
}

/// One of a few values, which has a name in Python.
pub(crate) trait Choice: Copy + PartialEq + 'static {
    const WHAT: &'static str;
    const NAMES: &'static [(&'static str, Self)];
}

/// A [`Choice`] that crosses as its name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Named<T>(pub(crate) T);

impl<T: Choice> Named<T> {
    fn name(self) -> &'static str {
        let own = T::NAMES.iter().find(|(_, value)| *value == self.0);
        own.map_or("?", |(name, _)| name)
    }

    pub(crate) fn parse(text: &str) -> PyResult<Self> {
        let found = T::NAMES.iter().find(|(name, _)| *name == text);
        found.map(|(_, value)| Self(*value)).ok_or_else(|| {
            let names: Vec<_> = T::NAMES.iter().map(|(name, _)| *name).collect();
            MeshwardError::new_err(format!(
                "`{text}` is no {}\n  hint: one of {}",
                T::WHAT,
                names.join(", ")
            ))
        })
    }
}

impl<T: Choice> FromPyObject<'_, '_> for Named<T> {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, '_, PyAny>) -> PyResult<Self> {
        Self::parse(&object.extract::<String>()?)
    }
}

impl<'py, T: Choice> IntoPyObject<'py> for Named<T> {
    type Target = PyString;
    type Output = Bound<'py, PyString>;
    type Error = Infallible;

    fn into_pyobject(self, py: Python<'py>) -> Result<Self::Output, Infallible> {
        self.name().into_pyobject(py)
    }
}

impl<T: Choice> Show for Named<T> {
    fn show(&self) -> String {
        format!("'{}'", self.name())
    }
}

impl Choice for Entry {
    const WHAT: &'static str = "entry";
    const NAMES: &'static [(&'static str, Self)] =
        &[("inbound", Self::Inbound), ("outbound", Self::Outbound)];
}

impl Choice for CloseCause {
    const WHAT: &'static str = "cause";
    const NAMES: &'static [(&'static str, Self)] = &[
        ("finished", Self::Finished),
        ("local", Self::Local),
        ("refused", Self::Refused),
        ("reset", Self::Reset),
        ("unreachable", Self::Unreachable),
        ("timed_out", Self::TimedOut),
    ];
}

impl Choice for Mode {
    const WHAT: &'static str = "mode";
    const NAMES: &'static [(&'static str, Self)] = &[
        ("STRICT", Self::Strict),
        ("PERMISSIVE", Self::Permissive),
        ("DISABLE", Self::Disable),
    ];
}

impl Choice for PortKind {
    const WHAT: &'static str = "protocol";
    const NAMES: &'static [(&'static str, Self)] = &[
        ("http", Self::Http),
        ("tcp", Self::Tcp),
        ("auto", Self::Auto),
    ];
}

/// One byte stream. The script names those that it accepts, the machine those that it opens; an id never comes back.
#[pyclass(module = "meshward", frozen, eq, ord, from_py_object)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkId(pub(crate) id::LinkId);

#[pymethods]
impl LinkId {
    /// The id of a stream that the script accepted. A slot may be given out again once its link is closed, each time with
    /// a greater generation.
    #[staticmethod]
    #[pyo3(signature = (slot, generation = 1))]
    fn accepted(slot: u32, generation: u32) -> PyResult<Self> {
        if generation == 0 {
            return Err(MeshwardError::new_err("generations begin with 1"));
        }
        if slot >= SLOTS_MAX {
            return Err(MeshwardError::new_err(format!(
                "slot {slot} is not below {SLOTS_MAX}\n  hint: give out the lowest free slot"
            )));
        }
        Ok(Self(id::LinkId::accepted(slot, generation)))
    }

    #[getter]
    fn slot(&self) -> u32 {
        self.0.slot()
    }

    #[getter]
    fn generation(&self) -> u32 {
        self.0.generation()
    }

    /// Whether the script gave out this id, and not the machine.
    #[getter]
    fn is_accepted(&self) -> bool {
        self.0.is_accepted()
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        hasher.finish()
    }

    fn __repr__(&self) -> String {
        self.show()
    }
}

impl Show for LinkId {
    fn show(&self) -> String {
        format!("<{:?}>", self.0)
    }
}

/// Both clocks, which the script reads: nanoseconds that never go back, and milliseconds since 1970-01-01T00:00:00Z.
#[pyclass(module = "meshward", frozen, eq, get_all, from_py_object)]
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Now {
    at_ns: u64,
    unix_ms: u64,
}

#[pymethods]
impl Now {
    #[new]
    fn new(at_ns: u64, unix_ms: u64) -> Self {
        Self { at_ns, unix_ms }
    }

    fn __repr__(&self) -> String {
        format!("Now(at_ns={}, unix_ms={})", self.at_ns, self.unix_ms)
    }
}

impl From<Now> for clock::Now {
    fn from(now: Now) -> Self {
        Self {
            at: Instant(now.at_ns),
            wall: UnixTime(now.unix_ms),
        }
    }
}

/// When a `Tick` is wanted at the latest, and which part of the machine asked for it.
#[pyclass(module = "meshward", frozen, eq, get_all)]
#[derive(PartialEq, Eq)]
pub(crate) struct Deadline {
    at_ns: u64,
    why: &'static str,
}

#[pymethods]
impl Deadline {
    fn __repr__(&self) -> String {
        format!("Deadline(at_ns={}, why='{}')", self.at_ns, self.why)
    }
}

impl From<clock::Deadline> for Deadline {
    fn from(deadline: clock::Deadline) -> Self {
        Self {
            at_ns: deadline.at.0,
            why: deadline.why,
        }
    }
}
