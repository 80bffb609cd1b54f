//! meshward's proxy from Python: one machine with its three verbs, and plain classes for what goes in and comes out.
//!
//! A shell without sockets: the script that imports it is network, clock and application. It decides nothing, and what a
//! script gets wrong is an exception, raised before the machine hears of it.

mod action;
mod convert;
mod event;
mod machine;
mod mesh;
mod plain;
mod policies;
mod report;
mod snapshot;
mod svid;
mod testing;

use pyo3::create_exception;
use pyo3::exceptions::PyException;

create_exception!(
    meshward,
    MeshwardError,
    PyException,
    "Something that was handed in cannot be used; the machine or the mesh is as it was before.\n\n\
     What is wrong in a text of policies or objects is said with `file:line:column`, one finding after the other."
);

#[pyo3::pymodule]
mod _core {
    #[pymodule_export]
    use super::MeshwardError;
    #[pymodule_export]
    use super::action::{Connect, Finish, Note, Read, Reset, Send};
    #[pymodule_export]
    use super::convert::{Deadline, LinkId, Now};
    #[pymodule_export]
    use super::event::{Accepted, Closed, Connected, Drain, Eof, Received, Sent, Tick};
    #[pymodule_export]
    use super::machine::Proxy;
    #[pymodule_export]
    use super::mesh::{Mesh, Pod, PodPort, Service, ServicePort};
    #[pymodule_export]
    use super::policies::Policies;
    #[pymodule_export]
    use super::report::Report;
    #[pymodule_export]
    use super::snapshot::{Inbound, Outbound, Snapshot};
    #[pymodule_export]
    use super::svid::Svid;
    #[pymodule_export]
    use super::testing::Ca;
}
