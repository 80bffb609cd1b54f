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


def test_ids_are_values() -> None:
    assert mw.LinkId.accepted(3) == LINK != mw.LinkId.accepted(3, 2)
    assert {LINK: "x"}[mw.LinkId.accepted(3, 1)] == "x"
    assert (LINK.slot, LINK.generation, LINK.is_accepted) == (3, 1, True)
    with pytest.raises(AttributeError):
        LINK.slot = 4  # type: ignore[misc]
