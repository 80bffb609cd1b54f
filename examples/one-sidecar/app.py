"""The application: answers with the request that reached it, on 127.0.0.1:18080, in plain text."""

from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        body = f"{self.command} {self.path}\n{self.headers}".rstrip().encode() + b"\n"
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 18080), Echo)
print("app on 127.0.0.1:18080", flush=True)
server.serve_forever()
