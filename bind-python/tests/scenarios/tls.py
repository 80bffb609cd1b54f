"""OpenSSL as a client whose socket is two buffers."""

from __future__ import annotations

import ssl
from enum import IntEnum


class Alert(IntEnum):
    """Descriptions of alerts (RFC 8446 §6, RFC 5246 §7.2). OpenSSL tells them by name alone."""

    UNEXPECTED_MESSAGE = 10
    BAD_RECORD_MAC = 20
    RECORD_OVERFLOW = 22
    HANDSHAKE_FAILURE = 40
    BAD_CERTIFICATE = 42
    UNSUPPORTED_CERTIFICATE = 43
    CERTIFICATE_REVOKED = 44
    CERTIFICATE_EXPIRED = 45
    CERTIFICATE_UNKNOWN = 46
    ILLEGAL_PARAMETER = 47
    UNKNOWN_CA = 48
    ACCESS_DENIED = 49
    DECODE_ERROR = 50
    DECRYPT_ERROR = 51
    PROTOCOL_VERSION = 70
    INSUFFICIENT_SECURITY = 71
    INTERNAL_ERROR = 80
    INAPPROPRIATE_FALLBACK = 86
    USER_CANCELLED = 90
    NO_RENEGOTIATION = 100
    MISSING_EXTENSION = 109
    UNSUPPORTED_EXTENSION = 110
    UNRECOGNIZED_NAME = 112
    BAD_CERTIFICATE_STATUS_RESPONSE = 113
    CERTIFICATE_REQUIRED = 116
    NO_APPLICATION_PROTOCOL = 120


def alert_of(error: ssl.SSLError) -> Alert | None:
    """The fatal alert that `error` reports, if the peer sent one: `TLSV13_ALERT_CERTIFICATE_REQUIRED`."""
    version, found, name = (error.reason or "").partition("_ALERT_")
    return Alert.__members__.get(name) if found and version in ("SSLV3", "TLSV1", "TLSV13") else None


class TlsClient:
    """The client's side of one session. It proves who it is and does not ask who the other one is: what it accepts is not
    what is tested."""

    def __init__(self, context: ssl.SSLContext, server_name: str | None) -> None:
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_name)
        self._unsent = b""
        self.is_handshaking = True
        #: How it ended, spelled as in the files: `fin`, `alert N`, `not-tls`.
        self.ending: str | None = None
        self.receive(b"")

    def receive(self, wire: bytes) -> bytes:
        """Takes bytes from the wire, returns the plaintext in them."""
        plain = bytearray()
        if self.ending is not None:
            return b""
        self._incoming.write(wire)
        try:
            if self.is_handshaking:
                self._tls.do_handshake()
                self.is_handshaking = False
                self.send(b"")
            while data := self._tls.read(65_536):
                plain += data
            self.ending = "fin"
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            self.ending = "fin"
        except ssl.SSLError as error:
            alert = alert_of(error)
            self.ending = "not-tls" if alert is None else f"alert {alert.value}"
        return bytes(plain)

    def send(self, plain: bytes) -> None:
        """Before the handshake is over, plaintext waits for it."""
        self._unsent += plain
        if not self.is_handshaking and self._unsent:
            try:
                self._tls.write(self._unsent)
            except ssl.SSLError:
                # Nobody can be told anything any more; why stands in `ending`.
                assert self.ending is not None, "a session that is open takes everything"
            self._unsent = b""

    def finish(self) -> None:
        """Sends close_notify."""
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            # The peer's own is not there yet.
            pass
        except ssl.SSLError:
            assert self.ending is not None, "a session that is open can be finished"

    def take_wire(self) -> bytes:
        return self._outgoing.read()
