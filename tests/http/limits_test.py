"""Who may ask, how much and how often: keys, origins, sizes, times, queues, and HTTP itself."""

import json
import tempfile
import unittest

from server_process import STORIES, Server, ServerTest, post_bytes

HELLO = {"prompt": "Once", "max_tokens": 1, "temperature": 0}


def raw(server, data, shut=False):
    """All that the server answers to these bytes."""
    with server.socket() as client:
        client.sendall(data)
        if shut:
            client.shutdown(1)
        answer = b""
        while True:
            piece = client.recv(65536)
            if not piece:
                return answer
            answer += piece


def status_of(answer):
    return int(answer.split(b" ", 2)[1]) if answer.startswith(b"HTTP/1.") else None


class Keys(ServerTest):
    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls.keys.close()

    @classmethod
    def setUpClass(cls):
        cls.keys = tempfile.NamedTemporaryFile("w", suffix=".keys")
        cls.keys.write("# two keys\nsecond-key\n\nthird-key\r\n")
        cls.keys.flush()
        cls.arguments = ("--api-key", "first-key", "--api-key-file", cls.keys.name,
                         "--cors-origin", "https://a.example")
        super().setUpClass()

    def test_keys(self):
        for key in "first-key", "second-key", "third-key":
            status, _ = self.server.post("/v1/completions", HELLO,
                                         {"Authorization": f"Bearer {key}"})
            self.assertEqual(status, 200)
        for authorization in "Bearer wrong", "Bearer ", "first-key", "Bearer first-key2":
            error = self.error(401, "/v1/completions", HELLO, Authorization=authorization)
            self.assertEqual(error["code"], "invalid_api_key")
        for path in "/v1/models", "/metrics", "/stats":
            self.assertEqual(self.server.request("GET", path)[0], 401)
        for path in "/health", "/":
            self.assertEqual(self.server.request("GET", path)[0], 200)

    def test_a_refused_body_is_not_read(self):
        head = (b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
                b"Content-Length: 1000000\r\n\r\n")
        self.assertEqual(status_of(raw(self.server, head)), 401)

    def test_origins(self):
        def allowed(origin, method="GET", path="/health"):
            _, headers, _ = self.server.request(method, path, headers={
                "Origin": origin, "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,x-stainless-lang"})
            return headers
        self.assertEqual(allowed("https://a.example")["Access-Control-Allow-Origin"],
                         "https://a.example")
        self.assertNotIn("Access-Control-Allow-Origin", allowed("https://b.example"))
        headers = allowed("https://a.example", "OPTIONS", "/v1/completions")
        self.assertEqual(headers["Access-Control-Allow-Headers"], "authorization,x-stainless-lang")
        self.assertIn("POST", headers["Access-Control-Allow-Methods"])


class Http(ServerTest):
    arguments = ("--max-body", 1)

    def test_request_ids(self):
        for given, kept in ("abc-1.2_X", True), ("a b", False), ("x" * 200, False):
            _, headers, _ = self.server.request("GET", "/health", headers={"X-Request-Id": given})
            self.assertEqual(headers["X-Request-Id"] == given, kept)
            self.assertTrue(headers["X-Request-Id"])

    def test_paths_and_methods(self):
        self.assertEqual(self.error(404, "/v1/nothing", {})["code"], "not_found")
        status, headers, _ = self.server.request("GET", "/v1/completions")
        self.assertEqual((status, headers["Allow"]), (405, "POST"))
        self.assertEqual(self.server.request("GET", "/health?x=1")[0], 200)
        self.assertEqual(self.server.request("GET", "/../../etc/passwd")[0], 404)

    def test_bodies_must_be_json(self):
        for body in "", "{", "[1]", '"x"', "\x00", '{"prompt": ' + "[" * 100000:
            status, _, answer = self.server.request("POST", "/v1/completions", body,
                                                    {"Content-Type": "application/json"})
            self.assertEqual(status, 400)
            self.assertIn("message", json.loads(answer)["error"])
        self.assertEqual(self.server.request("POST", "/v1/completions", json.dumps(HELLO),
                                             {"Content-Type": "text/plain"})[0], 415)

    def test_sizes(self):
        big = {"prompt": "x" * (1 << 20)}
        self.assertIn("more than 1048576 bytes", self.error(413, "/v1/completions", big)["message"])
        status, _, body = self.server.request("GET", "/health", headers={"X": "y" * 20000})
        self.assertEqual(status, 431, body)
        chunks = b"".join(b"10000\r\n" + b" " * 0x10000 + b"\r\n" for _ in range(20))
        self.assertEqual(status_of(raw(
            self.server, b"POST /v1/completions HTTP/1.1\r\nHost: x\r\n"
            b"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)),
            413)

    def test_what_is_no_http(self):
        for data in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n", b"GET\r\n\r\n",
                     b"GET /health HTTP/9.9\r\n\r\n", b"GET /health HTTP/1.1\r\nno colon\r\n\r\n",
                     b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                     b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
                     b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"):
            self.assertEqual(status_of(raw(self.server, data)), 400, data)
        self.assertEqual(raw(self.server, b"GET /hea", shut=True), b"")
        self.assertEqual(self.server.get_json("/health"), {"status": "ok"})

    def test_connections_are_kept_and_requests_may_come_early(self):
        one = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"
        last = b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        answer = raw(self.server, one * 3 + last)
        self.assertEqual(answer.count(b"HTTP/1.1 200 OK"), 4)
        self.assertEqual(answer.count(b'{"status":"ok"}'), 4)
        answer = raw(self.server, post_bytes({**HELLO, "stream": True}) + last)
        self.assertEqual(answer.count(b"data: [DONE]"), 1)
        self.assertTrue(answer.endswith(b'{"status":"ok"}'))

    def test_http_1_0_and_expect(self):
        body = json.dumps({**HELLO, "stream": True}).encode()
        head = b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        answer = raw(self.server, b"POST /v1/completions HTTP/1.0\r\n" + head + b"\r\n" + body)
        self.assertNotIn(b"chunked", answer)
        self.assertTrue(answer.endswith(b"data: [DONE]\n\n"))
        with self.server.socket() as client:
            client.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                           b"Expect: 100-continue\r\n" + head + b"\r\n")
            self.assertTrue(client.recv(100).startswith(b"HTTP/1.1 100 "))
            client.sendall(body)
            self.assertTrue(client.recv(100).startswith(b"HTTP/1.1 200 "))


class Queue(ServerTest):
    arguments = ("--max-sequences", 1, "--max-waiting", 2, "--max-connections", 20)

    def test_a_full_queue_says_when_to_come_back(self):
        refused, held = [], []

        def hold():
            """One more client with a long request that the engine has accepted."""
            accepted = self.server.get_json("/stats")["totals"]["accepted"]
            held.append(self.server.socket())
            held[-1].sendall(post_bytes({**HELLO, "max_tokens": 120, "ignore_eos": True,
                                         "n": 128}))
            self.eventually(lambda: self.server.get_json("/stats")["totals"]["accepted"] > accepted,
                            "not accepted")

        def refuses():
            hold()
            self.eventually(lambda: self.gauges("running") == [1], "does not run")
            hold()
            hold()
            answer = self.server.request("POST", "/v1/completions", HELLO)
            while held:
                held.pop().close()
            self.settled()
            if answer[0] == 429:
                refused.append(answer)
            return refused  # none where the machine took so long that one of the three was done

        self.eventually(refuses, "the queue was never full")
        _, headers, body = refused[0]
        self.assertGreaterEqual(int(headers["Retry-After"]), 1)
        self.assertEqual(json.loads(body)["error"]["code"], "queue_full")
        self.assertEqual(self.server.post("/v1/completions", HELLO)[0], 200)

    def test_connections_beyond_the_limit(self):
        own = self.server.connection()

        def connections():
            own.request("GET", "/stats")
            return json.loads(own.getresponse().read())["connections"]

        self.eventually(lambda: connections() == 1, "left open")
        held = [self.server.socket() for _ in range(19)]
        try:
            self.eventually(lambda: connections() == 20, "not all were taken")
            answer = raw(self.server, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            self.assertEqual(status_of(answer), 503)
            self.assertIn(b"Retry-After: 1", answer)
        finally:
            for client in held:
                client.close()
        self.eventually(lambda: raw(
            self.server, b"GET /health HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 200"),
            "no place again")
        own.close()


class CommandLine(unittest.TestCase):
    def fails(self, *arguments):
        with self.assertRaises(AssertionError) as caught:
            Server(*arguments).stop()
        return str(caught.exception)

    def test_errors_before_the_start(self):
        self.assertIn("/nowhere", self.fails("/nowhere"))
        self.assertIn("--kv-memory", self.fails(STORIES, "--kv-memory", "lots"))
        self.assertIn("cannot be opened", self.fails(STORIES, "--log", "/nowhere/log"))
        self.assertIn("not an address", self.fails(STORIES, "--host", "no such host"))
        with tempfile.NamedTemporaryFile() as empty:
            self.assertIn("holds no key", self.fails(STORIES, "--api-key-file", empty.name))
        server = Server(STORIES)
        try:
            self.assertIn(f"127.0.0.1:{server.port}: cannot listen",
                          self.fails(STORIES, "--port", server.port))
        finally:
            server.stop()


if __name__ == "__main__":
    unittest.main()
