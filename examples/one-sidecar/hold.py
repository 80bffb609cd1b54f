"""Holds eight connections as the account `reader` while a policy changes, and counts what fails on them."""

import http.client
import ssl
import sys
import time

PAGE, DRAFT = "/public/page", "/public/drafts/1"  # allowed throughout; denied from some moment on
PATIENCE_S = 8

context = ssl.create_default_context(cafile="id/reader/bundle.pem")
context.check_hostname = False  # the server has a SPIFFE ID, not a host name
context.load_cert_chain("id/reader/cert.pem", "id/reader/key.pem")
held = [http.client.HTTPSConnection("127.0.0.1", 18443, context=context) for _ in range(8)]
for connection in held:
    connection.connect()
    connection.auto_open = False  # no new connection in place of a lost one


def ask(path):
    """What each connection gets for `path`."""
    for connection in held:
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            response.read()
            yield response.status
        except (OSError, http.client.HTTPException) as error:
            yield repr(error)


drafts, pages = [*ask(DRAFT)], []
print("eight connections are held", flush=True)
end = time.monotonic() + PATIENCE_S
while drafts[-1] == 200 and time.monotonic() < end:
    pages += ask(PAGE)
    drafts += ask(DRAFT)
for _ in range(100):
    pages += ask(PAGE)
drafts += ask(DRAFT)

failures = sum(answer != 200 for answer in pages)
print(f"{DRAFT}: {drafts[0]}, then {drafts[-1]}")
print(f"{PAGE}: {len(pages)} requests, {failures} failures", flush=True)
sys.exit(failures != 0)
