"""What a driver may rely on, and what it hears when it breaks its side of the contract."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import meshward as mw
from meshward.testing import Ca

WALL_MS = 1_900_000_000_000
LINK = mw.LinkId.accepted(3)
SERVER = "spiffe://cluster.local/ns/default/sa/server"

STRICT_MESH = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
"""


def at(ms: int) -> mw.Now:
    return mw.Now(at_ns=ms * 1_000_000, unix_ms=WALL_MS + ms)


def new_proxy() -> mw.Proxy:
    return mw.Proxy(bytes(range(32)), at(0))


def drained(proxy: mw.Proxy) -> list[object]:
    return list(iter(proxy.poll_action, None))


def ready_proxy(policies: str = STRICT_MESH) -> mw.Proxy:
    proxy = new_proxy()
    proxy.handle(Ca(unix_ms=WALL_MS).issue(SERVER, unix_ms=WALL_MS), at(0))
    assert drained(proxy) == []
    assert proxy.configure(policies, None, 8080, "127.0.0.1:9000", now=at(0)) == []
    assert drained(proxy) == []
    return proxy


def snapshot(*ports: mw.Inbound | mw.Outbound) -> mw.Snapshot:
    inbound = [port for port in ports if isinstance(port, mw.Inbound)]
    outbound = [port for port in ports if isinstance(port, mw.Outbound)]
    return mw.Snapshot(mw.Policies(STRICT_MESH), inbound, outbound, version=1)


def test_silence_on_a_strict_port_ends_at_the_deadline_and_not_before() -> None:
    proxy = ready_proxy()
    proxy.handle(mw.Accepted(LINK, "inbound", "10.0.0.9:40000", "10.0.0.1:8080"), at(1))
    assert drained(proxy) == [mw.Read(LINK, 16384)]
    deadline = proxy.poll_timeout()
    assert deadline is not None and (deadline.at_ns, deadline.why) == (15_001_000_000, "tls handshake")
    proxy.handle(mw.Tick(), at(15_000))
    assert drained(proxy) == []
    assert len(proxy.pending()) == 1
    proxy.handle(mw.Tick(), at(15_001))
    assert mw.Reset(LINK) in drained(proxy)
    proxy.handle(mw.Closed(LINK, "local"), at(15_002))
    assert (drained(proxy), proxy.pending(), proxy.poll_timeout()) == ([], [], None)


def test_an_event_of_a_link_that_never_was_is_counted_and_dropped() -> None:
    proxy = ready_proxy()
    proxy.handle(mw.Received(LINK, b"GET"), at(1))
    assert drained(proxy) == []
    assert proxy.stats()["stale"] == 1


def test_actions_must_be_taken_before_the_next_event() -> None:
    proxy = ready_proxy()
    proxy.handle(mw.Accepted(LINK, "inbound", "10.0.0.9:40000", "10.0.0.1:8080"), at(1))
    with pytest.raises(mw.MeshwardError, match="actions are left over"):
        proxy.handle(mw.Tick(), at(2))
    with pytest.raises(mw.MeshwardError, match="actions are left over"):
        proxy.configure("", "STRICT", 8080, "127.0.0.1:9000", now=at(2))
    assert drained(proxy) == [mw.Read(LINK, 16384)], "the refused event took nothing away"
    proxy.handle(mw.Tick(), at(2))


def test_time_must_not_run_back() -> None:
    proxy = ready_proxy()
    proxy.handle(mw.Tick(), at(5))
    drained(proxy)
    with pytest.raises(mw.MeshwardError, match="time ran back from 5000000 ns to 4000000 ns"):
        proxy.handle(mw.Tick(), at(4))
    proxy.handle(mw.Tick(), at(5))


def test_a_fault_in_a_policy_is_said_with_its_place_and_changes_nothing() -> None:
    proxy = ready_proxy()
    wrong = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: x}\nspec:\n  mtls: {mode: STRICKT}\n"
    with pytest.raises(mw.MeshwardError, match=r"^mesh\.yaml:5:\d+: .*STRICKT"):
        proxy.configure(wrong, None, 8080, "127.0.0.1:9000", now=at(1), file="mesh.yaml")
    with pytest.raises(mw.MeshwardError, match=r"^policies\.yaml:2:1: a mode is given beside"):
        proxy.configure(STRICT_MESH, "DISABLE", 8080, "127.0.0.1:9000", now=at(1))
    proxy.handle(mw.Accepted(LINK, "inbound", "10.0.0.9:40000", "10.0.0.1:8080"), at(1))
    drained(proxy)
    proxy.handle(mw.Received(LINK, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), at(2))
    assert mw.Reset(LINK) in drained(proxy), "the port is still STRICT (S-28)"


def test_peer_authentication_reaches_the_port_by_the_labels_of_the_workload() -> None:
    policy = STRICT_MESH.replace("istio-system", "shop").replace("mtls:", "selector: {matchLabels: {app: api}}, mtls:")
    for app, is_strict in [("api", True), ("web", False)]:
        proxy = ready_proxy("")
        proxy.configure(
            policy, None, 8080, "127.0.0.1:9000", namespace="shop", labels={"app": app}, now=at(1)
        )
        drained(proxy)
        proxy.handle(mw.Accepted(LINK, "inbound", "10.0.0.9:40000", "10.0.0.1:8080"), at(1))
        drained(proxy)
        proxy.handle(mw.Received(LINK, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"), at(2))
        actions = drained(proxy)
        assert (mw.Reset(LINK) in actions) == is_strict, app
        assert any(isinstance(a, mw.Connect) for a in actions) != is_strict, app


def test_a_snapshot_has_ports_and_destinations_and_replaces_the_one_of_before() -> None:
    proxy = new_proxy()
    policies = mw.Policies(STRICT_MESH, file="mesh.yaml")
    doors = [mw.Inbound(8080, "127.0.0.1:9000"), mw.Inbound(9100, "127.0.0.1:9001", "tcp", from_="127.0.0.6")]
    calls = [mw.Outbound("10.96.0.1:80", "10.0.0.2:8080", "outbound|80||api.shop.svc.cluster.local")]
    proxy.handle(mw.Snapshot(policies, doors, calls, version=3), at(0))
    drained(proxy)
    proxy.handle(mw.Accepted(LINK, "outbound", "10.0.0.1:40000", "10.96.0.1:80"), at(1))
    drained(proxy)
    proxy.handle(mw.Received(LINK, b"GET / HTTP/1.1\r\nHost: api\r\n\r\n"), at(1))
    [connect] = [action for action in drained(proxy) if isinstance(action, mw.Connect)]
    assert connect.to == "10.0.0.2:8080"

    # Of equal age is not newer; what is refused changes nothing.
    with pytest.raises(mw.MeshwardError, match="snapshot 3 is not newer than 3"):
        proxy.handle(mw.Snapshot(policies, doors, version=3), at(2))
    proxy.handle(mw.Snapshot(mw.Policies(), doors, version=4), at(2))
    drained(proxy)
    plain = mw.LinkId.accepted(4)
    proxy.handle(mw.Accepted(plain, "inbound", "10.0.0.9:40000", "10.0.0.1:9100"), at(3))
    drained(proxy)
    proxy.handle(mw.Received(plain, b"hello"), at(3))
    [connect] = [action for action in drained(proxy) if isinstance(action, mw.Connect)]
    assert (connect.to, connect.from_) == ("127.0.0.1:9001", "127.0.0.6:0"), "PERMISSIVE by now (S-9)"
    assert proxy.configure("", "STRICT", 8080, "127.0.0.1:9000", now=at(4)) == [], "configure goes on from there"


def test_policies_tell_the_mode_of_any_workload() -> None:
    policies = mw.Policies(
        STRICT_MESH
        + "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: api, namespace: shop}\n"
        + "spec: {selector: {matchLabels: {app: api}}, portLevelMtls: {8080: {mode: DISABLE}}}\n"
    )
    assert policies.mode(8080) == "STRICT"
    assert policies.mode(8080, namespace="shop", labels={"app": "api"}) == "DISABLE", "S-22"
    assert policies.mode(9000, namespace="shop", labels={"app": "api"}) == "STRICT"
    assert mw.Policies().mode(8080) == "PERMISSIVE", "S-9"


def test_the_trust_domain_is_that_of_the_mesh() -> None:
    allow = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: a}\nspec: {}\n"
    doors = [mw.Inbound(8080, "127.0.0.1:9000")]
    mw.Snapshot(mw.Policies(allow), doors, version=1, trust_domain="td.example")
    with pytest.raises(mw.MeshwardError, match="`a b` is no trust domain"):
        mw.Snapshot(mw.Policies(allow), doors, version=1, trust_domain="a b")


def test_an_authority_certifies_a_foreign_identity_when_it_is_told_to() -> None:
    svid = Ca().issue("spiffe://elsewhere.example/ns/a/sa/b", foreign=True)
    assert svid.chain_pem.startswith("-----BEGIN CERTIFICATE-----")


def test_an_identity_is_judged_by_the_time_of_the_script() -> None:
    ca = Ca(unix_ms=WALL_MS)
    svid = ca.issue(SERVER, ttl_s=60, unix_ms=WALL_MS)
    new_proxy().handle(svid, at(60_000))
    with pytest.raises(mw.MeshwardError, match="the certificate has expired at"):
        new_proxy().handle(svid, at(61_000))
    other = ca.issue(SERVER, unix_ms=WALL_MS)
    with pytest.raises(mw.MeshwardError, match="does not belong to the leaf"):
        new_proxy().handle(mw.Svid(svid.chain_pem, other.key_pem, svid.bundle_pem), at(0))


def test_a_drain_resets_what_is_left_after_its_grace() -> None:
    proxy = ready_proxy()
    proxy.handle(mw.Accepted(LINK, "inbound", "10.0.0.9:40000", "10.0.0.1:8080"), at(1))
    drained(proxy)
    proxy.handle(mw.Drain(0.25), at(2))
    assert mw.Reset(LINK) not in drained(proxy)
    proxy.handle(mw.Tick(), at(252))
    assert mw.Reset(LINK) in drained(proxy)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: mw.Accepted(LINK, "sideways", "10.0.0.9:1", "10.0.0.1:1"), "`sideways` is no entry"),  # type: ignore[arg-type]
        (lambda: mw.Accepted(LINK, "inbound", "localhost:1", "10.0.0.1:1"), "`localhost:1` is no address"),
        (lambda: mw.LinkId.accepted(1 << 20), "slot 1048576 is not below"),
        (lambda: mw.LinkId.accepted(0, 0), "generations begin with 1"),
        (lambda: ready_proxy().configure("", "STRICT", 1, "10.0.0.1:1", "ftp", now=at(1)), "`ftp` is no protocol"),  # type: ignore[arg-type]
        (lambda: ready_proxy().configure("", "STRICT", 1, "10.0.0.1:1", namespace="A_B", now=at(1)), "no namespace"),
        (lambda: ready_proxy().handle(mw.Received(LINK, b""), at(1)), "nothing was received"),
        (lambda: ready_proxy().handle(mw.Drain(-1.0), at(1)), "a grace of -1 s cannot be given"),
        (lambda: ready_proxy().handle(mw.Drain(float("nan")), at(1)), "a grace of NaN s cannot be given"),
        (lambda: ready_proxy().configure("", "STRICT", 1, "10.0.0.1:0", now=at(1)), "nothing listens on"),
        (lambda: mw.Policies(namespace="A_B"), "`A_B` is no namespace"),
        (lambda: mw.Policies("kind: X", file="x.yaml"), r"^x\.yaml:1:1: "),
        (lambda: mw.Policies().mode(80, namespace=""), "`` is no namespace"),
        (lambda: mw.Inbound(1, "10.0.0.1:1", from_="10.0.0.1:1"), "no address without a port"),
        (lambda: mw.Inbound(1, "10.0.0.1:1", "ftp"), "`ftp` is no protocol"),  # type: ignore[arg-type]
        (lambda: snapshot(mw.Inbound(1, "10.0.0.1:0")), "nothing listens on '10.0.0.1:0'"),
        (lambda: snapshot(mw.Inbound(1, "10.0.0.1:1"), mw.Inbound(1, "10.0.0.1:2")), "port 1 has two inbound"),
        (lambda: snapshot(mw.Inbound(1, "10.0.0.1:1", mode="DISABLE")), "a mode is given beside"),
        (lambda: snapshot(mw.Outbound("10.0.0.1:1", "10.0.0.2:1", "c", "auto")), "is http or tcp"),  # type: ignore[arg-type]
        (lambda: snapshot(mw.Outbound("10.0.0.1:1", "10.0.0.2:0", "c")), "nothing listens on '10.0.0.2:0'"),
        (lambda: snapshot(mw.Outbound("10.0.0.1:1", "10.0.0.2:1", "c", identities=[SERVER])), "in plain text"),
        (lambda: Ca("not a domain"), "`not a domain`"),
        (lambda: Ca().issue("spiffe://elsewhere/ns/a/sa/b"), "speaks for `cluster.local`"),
        (lambda: Ca().issue("spiffe://cluster.local"), "names a trust domain"),
        (lambda: Ca().issue(SERVER, 0), "longer than 0 s"),
        (lambda: Ca(unix_ms=2**64 - 1), "has no date"),
    ],
)
def test_what_cannot_be_used_is_refused_in_words(make: Callable[[], object], words: str) -> None:
    with pytest.raises(mw.MeshwardError, match=words):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: new_proxy().handle("tick", at(1)),  # type: ignore[arg-type]
        lambda: mw.Received(LINK, "text"),  # type: ignore[arg-type]
        lambda: mw.Tick(1),  # type: ignore[call-arg]
    ],
)
def test_what_has_the_wrong_type_is_a_type_error(make: Callable[[], object]) -> None:
    with pytest.raises(TypeError):
        make()


def test_a_seed_has_32_bytes() -> None:
    with pytest.raises(ValueError, match="32"):
        mw.Proxy(b"short", at(0))


def test_classes_print_their_fields_and_no_secret() -> None:
    svid = Ca().issue(SERVER)
    assert "PRIVATE KEY" in svid.key_pem
    assert "PRIVATE KEY" not in repr(svid)
    accepted = mw.Accepted(LINK, "inbound", "10.0.0.9:40000", "[::1]:8080")
    assert repr(accepted) == (
        "Accepted(link=<d3.1>, entry='inbound', peer='10.0.0.9:40000', original_dst='[::1]:8080')"
    )
    assert repr(mw.Received(LINK, b"authorization: secret")) == "Received(link=<d3.1>, data=<21 bytes>)"
    assert repr(mw.Send(LINK, b"secret", True)) == "Send(link=<d3.1>, data=<6 bytes>, ack=True)"
    assert repr(mw.Connect(LINK, "10.0.0.1:80", None)) == "Connect(link=<d3.1>, to='10.0.0.1:80', from_=None)"
    assert repr(mw.Tick()) == "Tick()"
    door = mw.Inbound(8080, "127.0.0.1:9000", from_="127.0.0.6")
    assert repr(door) == (
        "Inbound(port=8080, upstream='127.0.0.1:9000', protocol='http', mode=None, from_='127.0.0.6')"
    )
    assert door == mw.Inbound(8080, "127.0.0.1:9000", "http", None, "127.0.0.6")


def test_ids_are_values() -> None:
    assert mw.LinkId.accepted(3) == LINK != mw.LinkId.accepted(3, 2)
    assert {LINK: "x"}[mw.LinkId.accepted(3, 1)] == "x"
    assert (LINK.slot, LINK.generation, LINK.is_accepted) == (3, 1, True)
    with pytest.raises(AttributeError):
        LINK.slot = 4  # type: ignore[misc]
