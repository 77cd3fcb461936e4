"""A server of the tests: atom serve on a free port, and clients of the standard library."""

import http.client
import json
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

DATA = Path(__file__).resolve().parents[1] / "data"
STORIES = DATA / "model/stories260k.gguf"  # context of 128 tokens
ATOM = sys.argv.pop(1) if len(sys.argv) > 1 else "build/release/atom"
SECONDS = 300  # nothing here takes long, except on a machine that does much else

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n"
    "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>\n"
    "{% endfor %}{% endfor %}"
    "{% for t in tools or [] %}{{ t.function.name }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}")


def chat_model(folder):
    """The tiny model as a checkpoint with a chat template: a folder that can be served."""
    target = Path(folder) / "stories"
    subprocess.run([ATOM, "quantize", STORIES, target, "--recipe", "w16a16", "--calib",
                    DATA / "text/story.txt", "--windows", "1", "--context", "64"],
                   check=True, capture_output=True, timeout=SECONDS)
    (target / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    return target


class Server:
    """atom serve MODEL ARGUMENTS... on a free port, until stop()."""

    def __init__(self, model, *arguments):
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [ATOM, "serve", str(model), *([] if "--port" in arguments else ["--port", "0"]),
             "--threads", "1", *map(str, arguments)],
            stdout=subprocess.PIPE, stderr=self.errors, text=True)
        self.ready = self.process.stdout.readline()
        found = re.match(r"ready: http://[^ ]*:(\d+) ", self.ready)
        if not found:
            said = self.stderr()
            self.stop()
            raise AssertionError(f"no ready line but '{self.ready}'; {said}")
        self.port = int(found[1])

    def stderr(self):
        self.errors.seek(0)
        return self.errors.read().decode()

    def signal(self, number=signal.SIGTERM):
        self.process.send_signal(number)

    def wait(self):
        """The exit code, once it is there."""
        return self.process.wait(SECONDS)

    def stop(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(SECONDS)
        self.process.stdout.close()
        self.errors.close()

    def connection(self):
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)

    def socket(self):
        """A plain connection, for what no decent client would send."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS)

    def request(self, method, path, body=None, headers=None):
        """(status, headers, body as bytes)"""
        connection = self.connection()
        try:
            headers = dict(headers or {})
            if isinstance(body, (dict, list)):
                body = json.dumps(body)
                headers.setdefault("Content-Type", "application/json")
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()
        finally:
            connection.close()

    def post(self, path, body, headers=None):
        """(status, JSON)"""
        status, _, data = self.request("POST", path, body, headers)
        return status, json.loads(data)

    def get_json(self, path):
        status, _, data = self.request("GET", path)
        assert status == 200, (status, data)
        return json.loads(data)

    def complete(self, prompt, **fields):
        """The completion of a prompt that has to be answered."""
        status, answer = self.post("/v1/completions", {"prompt": prompt, **fields})
        assert status == 200, answer
        return answer

    def stream(self, path, body):
        """The events of a stream, as they come: parsed data, without [DONE]."""
        connection = self.connection()
        try:
            connection.request("POST", path, json.dumps({**body, "stream": True}),
                               {"Content-Type": "application/json"})
            response = connection.getresponse()
            assert response.status == 200, response.read()
            assert response.getheader("Content-Type").startswith("text/event-stream")
            done = False
            for line in response:
                line = line.strip()
                if not line:
                    continue
                assert line.startswith(b"data: ") and not done, line
                if line == b"data: [DONE]":
                    done = True
                else:
                    yield json.loads(line[len(b"data: "):])
            assert done, "the stream did not end with [DONE]"
        finally:
            connection.close()


def post_bytes(body, path="/v1/completions"):
    """A request as it goes over the wire."""
    data = json.dumps(body).encode()
    return (f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n\r\n").encode() + data


def streamed_text(events, index=0):
    """The text of one output of a completion's or chat's stream."""
    text = ""
    for event in events:
        for choice in event["choices"]:
            if choice["index"] == index:
                text += choice.get("text") or choice.get("delta", {}).get("content") or ""
    return text


class ServerTest(unittest.TestCase):
    """One server for all tests of a class."""

    arguments = ()
    server = None

    @classmethod
    def model(cls):
        return STORIES

    @classmethod
    def setUpClass(cls):
        cls.server = Server(cls.model(), *cls.arguments)

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def eventually(self, condition, what):
        """Waits until condition() holds."""
        end = time.monotonic() + SECONDS
        while not condition():
            self.assertLess(time.monotonic(), end, what)
            time.sleep(0.01)

    def settled(self):
        """The server's figures once all that was asked before has ended and is counted."""
        self.eventually(lambda: self.gauges("running", "waiting") == [0, 0], "work was left")
        return self.server.get_json("/stats")

    def gauges(self, *names):
        stats = self.server.get_json("/stats")
        return [stats[name] for name in names]

    def metric(self, name):
        """A sample of /metrics without labels."""
        text = self.server.request("GET", "/metrics")[2].decode()
        return float(text.split(f"\n{name} ")[1].split("\n")[0])

    def error(self, status, path, body, **headers):
        """The error object of a request that has to be refused with that status."""
        got, answer = self.server.post(path, body, headers)
        self.assertEqual(got, status, answer)
        self.assertEqual(list(answer), ["error"])
        self.assertEqual(list(answer["error"]), ["message", "type", "param", "code"])
        self.assertNotIn("\n", answer["error"]["message"])
        return answer["error"]
