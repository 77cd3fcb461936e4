"""atom bench serve against a mock server whose every answer is known."""

import asyncio
import json
import signal
import socket
import subprocess
import time
from html.parser import HTMLParser

import program
from mock_openai import MockServer, answer, count_words
from program import ProgramTest


class BenchServeTest(ProgramTest):
    def setUp(self):
        super().setUp()
        self.server = MockServer()
        self.addCleanup(self.server.stop)

    def bench(self, *arguments):
        return self.json_of("bench", "serve", "--url", self.server.url, *arguments)

    def behave(self, behaviour, name="odd"):
        self.server.behaviours[name] = behaviour
        return ("--model", name, "--tokens-per-word", 1)


class Requests(BenchServeTest):
    def test_closed_loop(self):
        report = self.bench("--concurrency", 4, "--requests", 20, "--max-tokens", 5,
                            "--prompt-tokens", 43, "--warmup", 2, "--slo", "e2e=1m")
        self.assertEqual(report["requests"], {"succeeded": 20, "failed": 0, "unfinished": 0})
        self.assertEqual(report["model"], "mock")
        self.assertEqual(report["token_source"], "server")
        self.assertEqual(report["generated_tokens"], 20 * 5)
        self.assertEqual(report["prompt_tokens"], 20 * 43)
        self.assertEqual(report["peak_streams"], 4)
        self.assertEqual(report["ttft_ms"]["count"], 20)
        self.assertEqual(report["itl_ms"]["count"], 20 * 4)
        self.assertEqual(report["goodput"]["requests"], 20)
        self.assertAlmostEqual(report["generate_tokens_per_s"] * report["seconds"], 100, delta=1e-6)
        self.assertEqual(len(self.server.bodies), 22)
        body = self.server.bodies[-1]
        self.assertEqual(body["max_tokens"], 5)
        self.assertEqual(body["temperature"], 0)
        self.assertTrue(body["ignore_eos"] and body["stream_options"]["include_usage"])
        self.assertEqual(len({b["prompt"] for b in self.server.bodies}), 22)
        # Six questions and the model come one by one, each on a connection of its own.
        self.assertLessEqual(self.server.connections, 7 + 2 + 4)

    def test_chat_without_usage(self):
        async def plain(body, reply):
            await answer(body, reply, with_usage=False)
        self.server.behaviours["mock"] = plain
        report = self.bench("--api", "chat", "--requests", 3, "--max-tokens", 4,
                            "--respect-eos", "--extra-body", '{"top_p": 0.5}')
        self.assertEqual(report["token_source"], "events")
        self.assertEqual(report["generated_tokens"], 12)
        self.assertEqual(report["prompt_tokens"], 0)
        self.assertNotIn("ignore_eos", self.server.bodies[0])
        self.assertEqual(self.server.bodies[0]["top_p"], 0.5)

    def test_same_seed_same_requests(self):
        def prompts(seed):
            self.server.bodies.clear()
            self.bench("--rate", 5000, "--requests", 10, "--seed", seed, "--max-tokens", 1)
            return sorted(body["prompt"] for body in self.server.bodies)
        self.assertEqual(prompts(1), prompts(1))
        self.assertNotEqual(prompts(1), prompts(2))

    def test_shared_prefix(self):
        self.bench("--requests", 2, "--prompt-tokens", 100, "--shared-prefix", 60)
        first, second = (body["prompt"].split() for body in self.server.bodies)
        shared = next(i for i, (a, b) in enumerate(zip(first, second)) if a != b)
        self.assertGreaterEqual(shared, 28)
        self.assertLess(shared, 40)

    def test_words_of_a_text(self):
        text = self.folder / "text"
        text.write_text("only these  four\nwords")
        self.bench("--requests", 2, "--text", text)
        self.assertLessEqual(set(self.server.bodies[0]["prompt"].split()),
                             {"only", "these", "four", "words"})

    def test_trace_arrivals(self):
        trace = self.folder / "trace.csv"
        trace.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n"
                         "2023-11-16 18:15:46.0,43,4\n2023-11-16 18:15:46.2,83,3\n"
                         "2023-11-16 18:15:46.2,9000,3\n")
        report = self.bench("--trace", trace, "--trace-arrivals", "--context", 1000)
        self.assertEqual(report["requests"]["succeeded"], 2)
        self.assertEqual(report["load"]["kind"], "trace")
        self.assertGreaterEqual(report["seconds"], 0.2)
        # Two connections: the server may read the second one's request first.
        self.assertEqual(sorted((count_words(b), b["max_tokens"]) for b in self.server.bodies),
                         [(20, 4), (40, 3)])

    def test_duration(self):
        report = self.bench("--concurrency", 2, "--duration", "300ms", "--max-tokens", 1)
        self.assertGreater(report["requests"]["succeeded"], 0)
        self.assertGreaterEqual(report["seconds"], 0.25)

    def test_a_thousand_streams(self):
        waiting = []

        async def all_at_once(body, reply):
            """No answer before all have asked."""
            gate = asyncio.get_running_loop().create_future()
            waiting.append(gate)
            if len(waiting) == 1000:
                for each in waiting:
                    each.set_result(None)
            await gate
            await answer(body, reply)
        report = self.bench(*self.behave(all_at_once), "--concurrency", 1000, "--requests", 1000,
                            "--max-tokens", 3)
        self.assertEqual(report["requests"], {"succeeded": 1000, "failed": 0, "unfinished": 0})
        self.assertEqual(report["peak_streams"], 1000)

    def test_api_key(self):
        self.server.api_key = "sesame"
        self.fails("bench", "serve", "--url", self.server.url, says="http 401: wrong key")
        self.bench("--requests", 1, "--api-key", "sesame")
        key = self.folder / "key"
        key.write_text("sesame\n")
        self.bench("--requests", 1, "--api-key-file", key)


class Failures(BenchServeTest):
    def failures(self, behaviour, *arguments, good=1):
        """Runs good + 1 requests of which the first meets the behaviour; what was counted."""
        calls = []

        async def first(body, reply):
            calls.append(body)
            await (behaviour if len(calls) == 1 else answer)(body, reply)
        report = self.bench(*self.behave(first), "--requests", good + 1, "--max-tokens", 3,
                            *arguments)
        self.assertEqual(report["requests"]["succeeded"], good)
        return {kind: group["count"] for kind, group in report["failures"].items()}

    def test_status(self):
        async def overloaded(body, reply):
            await reply.body({"error": {"message": "try later"}}, status=503)
        self.assertEqual(self.failures(overloaded), {"http 503": 1})

    def test_lost_in_the_stream(self):
        async def lost(body, reply):
            await reply.begin()
            await reply.event({"choices": [{"text": "a"}]})
            reply.cut()
        self.assertEqual(self.failures(lost), {"connection lost": 1})

    def test_ended_early(self):
        async def early(body, reply):
            await reply.begin()
            await reply.event({"choices": [{"text": "a"}]})
            reply.writer.write(b"0\r\n\r\n")
        self.assertEqual(self.failures(early), {"stream cut off": 1})

    def test_error_event(self):
        async def broken(body, reply):
            await reply.begin()
            await reply.event({"error": {"message": "out of pages"}})
            await reply.end()
        self.assertEqual(self.failures(broken), {"error in the stream": 1})

    def test_no_text(self):
        async def silent(body, reply):
            await reply.begin()
            await reply.end()
        self.assertEqual(self.failures(silent), {"no text": 1})

    def test_malformed(self):
        async def not_json(body, reply):
            await reply.begin()
            await reply.raw(b"data: {]\n\n")
            await reply.end()

        async def not_http(body, reply):
            reply.writer.write(b"hello\r\n\r\n")

        async def endless_event(body, reply):
            await reply.begin()
            while not reply.writer.transport.is_closing():
                await reply.raw(b"data: " + b"x" * 65536)
        for behaviour in (not_json, not_http, endless_event):
            with self.subTest(behaviour.__name__):
                self.assertEqual(self.failures(behaviour), {"malformed answer": 1})

    def test_timeout(self):
        async def stall(body, reply):
            await reply.begin()
            await asyncio.sleep(60)
        # No request but the stalled one: another could be late on a busy machine.
        code, out, err = program.atom("bench", "serve", "--url", self.server.url, "--requests", 1,
                                      "--timeout", "200ms", "--json", *self.behave(stall))
        self.assertEqual(code, 1, err)
        failures = json.loads(out)["failures"]
        self.assertEqual({kind: group["count"] for kind, group in failures.items()}, {"timeout": 1})

    def test_closed_while_idle(self):
        """A server may close a connection between two requests: no request is lost by that."""
        async def then_close(body, reply):
            await answer(body, reply)
            reply.writer.close()
        report = self.bench(*self.behave(then_close), "--requests", 10, "--max-tokens", 2)
        self.assertEqual(report["requests"], {"succeeded": 10, "failed": 0, "unfinished": 0})

    def test_too_many_streams(self):
        async def slow(body, reply):
            await answer(body, reply, gap=2)
        report = self.bench(*self.behave(slow), "--rate", 10000, "--requests", 9, "--max-streams",
                            4, "--max-tokens", 1)
        self.assertEqual(report["requests"], {"succeeded": 4, "failed": 5, "unfinished": 0})
        self.assertEqual(report["failures"]["not sent"]["count"], 5)

    def test_every_request_failed(self):
        async def broken(body, reply):
            await reply.body({"error": {"message": "no\x1b[31m"}}, status=500)
        code, out, err = program.atom("bench", "serve", "--url", self.server.url, "--requests", 2,
                                      *self.behave(broken))
        self.assertEqual(code, 1, err)
        self.assertIn("http 500", out)
        self.assertNotIn("\x1b", out)

    def test_unreachable(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            self.fails("bench", "serve", "--url", f"http://127.0.0.1:{unused.getsockname()[1]}",
                       code=1, says="connect")

    def test_interrupt(self):
        async def endless(body, reply):
            if len(self.server.bodies) <= 2:
                await answer(body, reply)
                return
            await reply.begin()
            await reply.event({"choices": [{"text": "a"}]})
            await asyncio.sleep(600)
        command = [program.ATOM, "bench", "serve", "--url", self.server.url, "--json",
                   "--requests", "9", "--max-tokens", "2", *map(str, self.behave(endless))]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            while len(self.server.bodies) < 3:
                self.assertIsNone(process.poll())
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=program.SECONDS)
        self.assertEqual(process.returncode, 130)
        report = json.loads(out)
        self.assertTrue(report["interrupted"])
        self.assertEqual(report["requests"], {"succeeded": 2, "failed": 0, "unfinished": 1})


class Arguments(ProgramTest):
    def refused(self, *arguments, says):
        self.fails("bench", "serve", *arguments, says=says)

    def test_url(self):
        for url, says in (("localhost:8000", "expected http://"), ("https://a", "TLS"),
                          ("http://", "host"), ("http://a:0", "port"), ("http://[::1", "'['"),
                          ("http://a b", "spaces")):
            self.refused("--url", url, says=says)

    def test_options(self):
        url = ("--url", "http://127.0.0.1:1")
        self.refused(*url, "--slo", "ttft=5", says="'5'")
        self.refused(*url, "--slo", "speed=5s", says="speed=5s")
        self.refused(*url, "--duration", "0s", says="'0s'")
        self.refused(*url, "--extra-body", "[1]", says="--extra-body")
        self.refused(*url, "--report", self.folder / "none/x.html", says="none/x.html")
        self.refused(*url, "--concurrency", 2, "--rate", 2, says="--rate")
        self.refused(*url, "--api-key", "a b", says="API key")
        self.assert_nothing_left()

    def test_traces(self):
        path = self.folder / "trace"
        for text, says in (("a,b\n1,2\n", "trace:1: no trace"),
                           ("ContextTokens,GeneratedTokens\n1,2\n1,x\n",
                            "trace:3: column 'GeneratedTokens': expected an integer"),
                           ("ContextTokens,GeneratedTokens\n1,2,3\n", "trace:2: 3 columns"),
                           ("ContextTokens,GeneratedTokens\n", "no requests"),
                           ('{"input_toks": 5}\n', "trace:1: a column of output tokens"),
                           ("", "no requests")):
            path.write_text(text)
            with self.subTest(text):
                self.refused("--url", "http://127.0.0.1:1", "--trace", path, says=says)


class Report(BenchServeTest):
    def test_page(self):
        page = self.folder / "report.html"

        async def sometimes(body, reply):
            if len(self.server.bodies) == 3:
                await reply.body({"error": {"message": "<script>x</script>"}}, status=500)
            else:
                await answer(body, reply)
        self.bench(*self.behave(sometimes), "--requests", 6, "--report", page, "--slo", "ttft=1s")
        text = page.read_text()
        test = self

        class Checker(HTMLParser):
            """Well nested, no scripts, nothing from outside."""
            open_tags = []
            plots = 0

            def handle_starttag(self, tag, attributes):
                test.assertNotIn(tag, ("script", "link", "img", "iframe"))
                for name, _ in attributes:
                    test.assertNotIn(name, ("src", "href", "style", "onload"))
                self.plots += tag == "svg"
                if tag != "meta":
                    self.open_tags.append(tag)

            def handle_startendtag(self, tag, attributes):
                pass

            def handle_endtag(self, tag):
                test.assertEqual(self.open_tags.pop(), tag)
        checker = Checker()
        checker.feed(text)
        self.assertEqual(checker.open_tags, [])
        self.assertEqual(checker.plots, 6)
        self.assertIn("&lt;script&gt;", text)
        self.assertNotIn("nan", text)


if __name__ == "__main__":
    program.main()
