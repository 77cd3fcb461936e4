"""What goes wrong around a server: clients that vanish, stall or flood, full disks, small caches,
signals. Nobody else may notice, and nothing may be lost."""

import json
import signal
import socket
import struct
import tempfile
import threading
import time
import unittest
from pathlib import Path

from server_process import SECONDS, STORIES, Server, ServerTest, post_bytes, streamed_text

PROMPT = "Once upon a time"
LONG = {"prompt": PROMPT, "max_tokens": 120, "temperature": 0, "ignore_eos": True}
# A million tokens: nobody waits for the end of this one.
ENDLESS = {**LONG, "prompt": [PROMPT] * 64, "n": 128}


def reset(client):
    """Closes a connection as a crash would: RST instead of FIN."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


class Background:
    """Clients that stream all the while; each must get exactly the text that it should."""

    def __init__(self, server, clients=4):
        self.server = server
        self.expected = server.complete(**LONG)["choices"][0]["text"]
        self.problems = []
        self.rounds = 0
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self.run) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def run(self):
        while not self.ending.is_set():
            try:
                text = streamed_text(self.server.stream("/v1/completions", LONG))
                if text != self.expected:
                    self.problems.append(text)
                self.rounds += 1
            except Exception as problem:  # pylint: disable=broad-except
                self.problems.append(repr(problem))

    def end(self, test):
        self.ending.set()
        for thread in self.threads:
            thread.join(SECONDS)
        test.assertEqual(self.problems, [])
        test.assertGreater(self.rounds, 0)


class Faults(ServerTest):
    arguments = ("--max-sequences", 16, "--write-timeout", "0.5", "--io-threads", 2)

    def setUp(self):
        self.others = Background(self.server)
        self.addCleanup(self.others.end, self)

    def assert_idle_again(self):
        """Nothing of the faulty requests is left in the engine, once the others are done."""
        self.others.ending.set()
        for thread in self.others.threads:
            thread.join(SECONDS)
        self.assertEqual(self.settled()["kv_pages"]["used"], 0)
        self.eventually(lambda: self.gauges("connections")[0] <= 1, "connections were left")

    def test_clients_that_vanish(self):
        cancelled = self.server.get_json("/stats")["totals"]["cancelled"]
        for leave in reset, socket.socket.close:
            for stream in True, False:
                clients = [self.server.socket() for _ in range(8)]
                for client in clients:
                    client.sendall(post_bytes({**LONG, "stream": stream, "n": 32}))
                if stream:
                    for client in clients:
                        client.recv(10)
                for client in clients:
                    leave(client)
                    client.close()
        self.assert_idle_again()
        self.assertGreater(self.settled()["totals"]["cancelled"], cancelled)

    def test_clients_that_vanish_in_mid_request(self):
        data = post_bytes(LONG)
        for cut in range(1, len(data), 7):
            with self.server.socket() as client:
                client.sendall(data[:cut])
        self.assert_idle_again()

    def test_a_client_that_reads_nothing_is_dropped(self):
        dropped = "atom_http_dropped_clients_total"
        before = self.metric(dropped)
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", self.server.port))
        # Log-probabilities make more than the socket buffers on both sides hold.
        client.sendall(post_bytes({**LONG, "stream": True, "logprobs": 20, "n": 128}))
        self.eventually(lambda: self.metric(dropped) > before, "the client was not dropped")
        client.close()
        self.assert_idle_again()

    def test_floods_of_nonsense(self):
        for data in b"\x00" * 65536, b"GET " + b"a" * 65536, post_bytes({"prompt": 1}) * 50, \
                post_bytes({"prompt": "x" * 500_000}), post_bytes([]), \
                post_bytes({"prompt": PROMPT, "n": 128, "best_of": 128, "stop": ["e"] * 17}):
            for _ in range(3):
                with self.server.socket() as client:
                    try:
                        client.sendall(data)
                        client.shutdown(socket.SHUT_WR)
                        while client.recv(65536):
                            pass
                    except ConnectionError:
                        pass
        self.assert_idle_again()

    def test_more_text_than_the_cache_holds(self):
        with self.subTest("prompts of all lengths"):
            for length in 0, 1, 126, 127, 128, 129, 1000, 100_000:
                status, answer = self.server.post("/v1/completions", {
                    "prompt": [5] * length, "max_tokens": 1000})
                self.assertEqual(status, 200 if 0 < length < 128 else 400, answer)


class SlowRequests(unittest.TestCase):
    def test_slow_loris(self):
        """Many that send a byte now and then hold up nobody, and are shown out."""
        server = Server(STORIES, "--header-timeout", 1)
        self.addCleanup(server.stop)
        slow = [server.socket() for _ in range(50)]
        for client in slow:
            client.sendall(b"GET /health HTTP/1.1\r\nX")
        begin = time.monotonic()
        self.assertEqual(server.complete(PROMPT, max_tokens=5)["usage"]["completion_tokens"], 5)
        while slow:
            time.sleep(0.1)
            self.assertLess(time.monotonic() - begin, SECONDS)
            for client in list(slow):
                try:
                    client.sendall(b"-")
                    client.setblocking(False)
                    answer = client.recv(1000)
                    self.assertTrue(answer == b"" or b" 408 " in answer, answer)
                    client.close()
                    slow.remove(client)
                except BlockingIOError:
                    client.setblocking(True)
                except ConnectionError:
                    client.close()
                    slow.remove(client)
        self.assertEqual(server.get_json("/health"), {"status": "ok"})


class SmallCache(ServerTest):
    # Ten pages: a sequence may need eight of them.
    arguments = ("--kv-memory", "80K", "--max-sequences", 8)

    def test_exhaustion_changes_no_text(self):
        pages = self.server.get_json("/stats")["kv_pages"]["total"]
        self.assertLess(pages, 16)
        alone = self.server.complete(**LONG)["choices"][0]["text"]
        together = self.server.complete(**{**LONG, "prompt": [PROMPT] * 12}, n=2)
        self.assertEqual([c["text"] for c in together["choices"]], [alone] * 24)
        stats = self.settled()
        self.assertGreater(stats["totals"]["preemptions"], 0)
        self.assertEqual(stats["kv_pages"]["used"], 0)


class Logs(unittest.TestCase):
    def test_a_line_a_request(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "log"
            server = Server(STORIES, "--log", path)
            try:
                server.complete(PROMPT, max_tokens=7)
                server.request("POST", "/v1/completions", {"prompt": "\n\"x", "n": 0},
                               {"X-Request-Id": "mine"})
                with server.socket() as client:
                    client.sendall(post_bytes({**ENDLESS, "stream": True}))
                    client.recv(10)
                server.signal()
                self.assertEqual(server.wait(), 0)
            finally:
                server.stop()
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            line = {line["status"]: line for line in lines}
            self.assertEqual((len(lines), set(line)), (3, {200, 400, 499}))
            self.assertEqual(line[200]["generated_tokens"], 7)
            self.assertLessEqual(line[200]["first_token_ms"], line[200]["total_ms"])
            self.assertEqual(line[400]["id"], "mine")
            self.assertIn("0 is not within", line[400]["error"])

    def test_a_full_disk_loses_lines_and_nothing_else(self):
        server = Server(STORIES, "--log", "/dev/full")
        self.addCleanup(server.stop)
        for _ in range(5):
            server.complete(PROMPT, max_tokens=1)
        def lost():
            return "\natom_log_lines_lost_total 5\n" in server.request("GET", "/metrics")[2].decode()
        end = time.monotonic() + SECONDS
        while not lost():
            self.assertLess(time.monotonic(), end)
            time.sleep(0.01)
        server.signal()
        self.assertEqual(server.wait(), 0)
        self.assertEqual(server.stderr().count("No space left"), 1)


class Signals(unittest.TestCase):
    def test_what_runs_is_finished_and_the_rest_refused(self):
        for number in signal.SIGTERM, signal.SIGINT:
            server = Server(STORIES, "--max-sequences", 2, "--write-timeout", 600)
            self.addCleanup(server.stop)
            # This client reads only at the end: till then its answer cannot be sent to the end.
            reader = socket.socket()
            self.addCleanup(reader.close)
            reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.connect(("127.0.0.1", server.port))
            reader.sendall(post_bytes({**LONG, "n": 128, "logprobs": 20, "stream": True}))
            waiting = server.connection()
            waiting.request("POST", "/v1/completions", json.dumps({**LONG, "n": 128}),
                            {"Content-Type": "application/json"})
            idle = server.connection()
            while server.get_json("/stats")["totals"]["accepted"] < 2:
                time.sleep(0.005)
            server.signal(number)
            while True:
                idle.request("GET", "/health")
                answer = idle.getresponse().read()
                if answer == b'{"status":"draining"}':
                    break
            status, headers, answer = server.request("POST", "/v1/completions", LONG)
            self.assertEqual((status, json.loads(answer)["error"]["code"]), (503, "draining"))
            self.assertIn("Retry-After", headers)
            choices = json.loads(waiting.getresponse().read())["choices"]
            self.assertEqual(len({choice["text"] for choice in choices}), 1)
            self.assertIsNone(server.process.poll())
            answer = b""
            while not answer.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"):
                piece = reader.recv(1 << 16)
                self.assertTrue(piece, "the stream was cut off")
                answer += piece
            self.assertEqual(answer.count(b'"finish_reason":"length"'), 128)
            self.assertEqual(server.wait(), 0)
            waiting.close()
            idle.close()

    def test_a_second_signal_ends_at_once(self):
        server = Server(STORIES, "--max-sequences", 1, "--write-timeout", 600)
        self.addCleanup(server.stop)
        stream = server.stream("/v1/completions", ENDLESS)
        next(stream)
        server.signal(signal.SIGINT)
        while server.request("GET", "/health")[0] != 503:
            time.sleep(0.01)
        # Signals of the first half second are the first one's echo.
        while server.process.poll() is None:
            server.signal(signal.SIGINT)
            time.sleep(0.1)
        self.assertEqual(server.wait(), 130)
        stream.close()


class TimeLimit(ServerTest):
    arguments = ("--request-timeout", "0.2", "--max-sequences", 1)

    def test_generations_end_in_time(self):
        error = self.error(504, "/v1/completions", ENDLESS)
        self.assertEqual(error["code"], "time_limit")
        events = list(self.server.stream("/v1/completions", ENDLESS))
        self.assertEqual(events[-1]["error"]["code"], "time_limit")
        self.assertEqual(self.settled()["kv_pages"]["used"], 0)
        # A short one makes it, unless the machine is busy with something else.
        self.eventually(lambda: self.server.post("/v1/completions", {
            "prompt": PROMPT, "max_tokens": 1})[0] == 200, "nothing is served any more")


if __name__ == "__main__":
    unittest.main()
