"""meshward's proxy as a machine without sockets and clocks.

The script that drives it is network, clock and application::

    proxy = Proxy(seed=os.urandom(32), now=now)
    proxy.handle(Svid(chain_pem, key_pem, bundle_pem), now)
    proxy.handle(Snapshot(Policies(yaml), [Inbound(8080, "127.0.0.1:9000")], version=1), now)
    proxy.handle(event, now)
    while (action := proxy.poll_action()) is not None:
        match action:
            case Connect(link, to):
                ...
            case Read(link, at_most):
                ...
    deadline = proxy.poll_timeout()

A whole mesh is read from the YAML that ``meshward up`` reads; it knows every pod and what its proxy is to be told::

    mesh = Mesh(yaml, now=now)
    webapp = mesh.find("deploy/webapp", "shop")
    proxy.handle(ca.issue(webapp.identity), now)
    proxy.handle(mesh.snapshot(webapp, {8080: "127.0.0.1:9000"}), now)
    mesh.apply(policies)

Addresses are texts such as ``127.0.0.1:8080`` and ``[::1]:8080``.
"""

from ._core import (
    Accepted,
    Closed,
    Connect,
    Connected,
    Deadline,
    Drain,
    Eof,
    Finish,
    Inbound,
    LinkId,
    Mesh,
    MeshwardError,
    Note,
    Now,
    Outbound,
    Pod,
    PodPort,
    Policies,
    Proxy,
    Read,
    Received,
    Report,
    Reset,
    Send,
    Sent,
    Service,
    ServicePort,
    Snapshot,
    Svid,
    Tick,
)

__all__ = [
    "Accepted",
    "Closed",
    "Connect",
    "Connected",
    "Deadline",
    "Drain",
    "Eof",
    "Finish",
    "Inbound",
    "LinkId",
    "Mesh",
    "MeshwardError",
    "Note",
    "Now",
    "Outbound",
    "Pod",
    "PodPort",
    "Policies",
    "Proxy",
    "Read",
    "Received",
    "Report",
    "Reset",
    "Send",
    "Sent",
    "Service",
    "ServicePort",
    "Snapshot",
    "Svid",
    "Tick",
]
