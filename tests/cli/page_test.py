"""The page at / in a real browser, against a server whose every answer is known.

Needs Chromium and is skipped without it. The browser enforces the policy that the page is served
with, so that a script or a request from outside would fail the test.
"""

import asyncio
import itertools
import json
import sys
import unittest

import program
from browser import Browser, find_chromium
from mock_openai import MockServer
from program import DATA

WEB = DATA.parents[1] / "src/server/web"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript",
         ".svg": "image/svg+xml"}
POLICY = ["Content-Security-Policy: default-src 'none'; script-src 'self'; style-src 'self'; "
          "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'"]
ALT = 1

# Each would run a script, load something or be a dangerous link if any of it became markup.
HOSTILE = [
    "<script>window.hacked = 1</script>", "<img src=x onerror='window.hacked=1'>",
    "[x](javascript:window.hacked=1)", "[x](JaVaScRiPt:alert(1))", "[x](data:text/html,hi)",
    "![x](https://example.org/x.png)", "```\n</code><script>window.hacked=1</script>\n```",
    "`<b onclick=alert(1)>`", "| <i>a</i> | b |\n|---|---|\n| <svg onload=alert(1)> | c |",
    "> <iframe src=//example.org>", "- <a href=javascript:alert(1)>x</a>",
    "[x](https://example.org/\" onmouseover=\"alert(1))", "# <style>*{display:none}</style>",
    "<https://example.org>", "**" * 3000, "[" * 3000, "> " * 500 + "x", "_a" * 2000,
    "- " * 300 + "x", "`" * 3000, "| - " * 500,
]


def stats(running=2, waiting=1):
    """As in docs/http_api.md."""
    sequences = [{"request": 1, "choice": 0, "running": True, "prompt_tokens": 100,
                  "generated_tokens": 40, "cached_tokens": 32, "computed_tokens": 139, "pages": 9},
                 {"request": 2, "choice": 0, "running": True, "prompt_tokens": 300,
                  "generated_tokens": 0, "cached_tokens": 0, "computed_tokens": 64, "pages": 4},
                 {"request": 3, "choice": 0, "running": False, "prompt_tokens": 20,
                  "generated_tokens": 0, "cached_tokens": 0, "computed_tokens": 0, "pages": 0}]
    percentiles = {"p50": 0.084, "p90": 0.2, "p99": 1.5}
    nothing = {"p50": None, "p90": None, "p99": None}
    return {
        "model": "tiny-model", "context": 512, "uptime_seconds": 4.5, "draining": False,
        "connections": 1, "running": running, "waiting": waiting,
        "sequences": sequences[:running + waiting],
        "kv_pages": {"total": 1000, "used": 13, "cached": 7, "free": 980},
        "tokens_per_second": {"prompt": 1.0, "generated": 2.0},
        "totals": {"generated_tokens": 40, "prompt_tokens": 400, "computed_tokens": 400},
        "latency_seconds": {"queue": percentiles, "time_to_first_token": percentiles,
                            "time_per_output_token": nothing, "request": nothing}}


class PageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.browser = Browser()
        cls.addClassCleanup(cls.browser.close)

    def setUp(self):
        self.server = MockServer()
        self.addCleanup(self.server.stop)
        for path in WEB.iterdir():
            name = "/" if path.name == "index.html" else f"/{path.name}"
            self.server.files[name] = (TYPES[path.suffix], POLICY, path.read_bytes())
        self.stats = stats(running=0, waiting=0)
        self.stats_file = lambda: ("application/json", [], json.dumps(self.stats).encode())
        self.server.files["/stats"] = self.stats_file
        self.browser.problems.clear()
        self.browser.screen(1280, 800)

    def tearDown(self):
        self.browser.open("about:blank")

    def open(self):
        self.browser.open(self.server.url)
        self.browser.wait("document.getElementById('model').textContent !== ''")

    def run_js(self, script):
        return self.browser.evaluate(script)

    def say(self, text):
        self.run_js("document.getElementById('prompt').focus()")
        self.browser.type(text)
        self.browser.press("Enter")

    def wait_answered(self, answers=1):
        self.browser.wait("document.querySelectorAll('.message.assistant:not([aria-busy])').length"
                          f" === {answers}")

    def last_answer(self):
        return self.run_js("document.querySelector('.message.assistant:last-child').innerText")

    def behave(self, text, usage=True):
        async def chat(body, reply):
            await reply.begin()
            for i in range(0, len(text), 7):
                await reply.event({"choices": [{"delta": {"content": text[i:i + 7]}}]})
            await reply.event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
            if usage:
                await reply.event({"choices": [], "usage": {"completion_tokens": 1234}})
            await reply.end()
        self.server.behaviours["mock"] = chat


class Conversation(PageTest):
    def test_answer(self):
        self.behave("It is **blue**.\n\n1. one\n   - two\n\n```python\nx = '<b>'\n```\n\n"
                    "| a | b |\n|---|--:|\n| 1 | 2 |\n\nSee https://example.org/a_b_c.")
        self.open()
        self.run_js("document.getElementById('open-settings').click()")
        self.run_js("document.getElementById('system').focus()")
        self.browser.type("Be short.")
        self.run_js("document.getElementById('knob-temperature').select()")
        self.run_js("document.getElementById('knob-temperature').focus()")
        self.browser.type("0.25")
        self.browser.press("Escape")
        self.say("Why?")
        self.wait_answered()
        item = "document.querySelector('.message.assistant')"
        self.assertEqual(self.run_js(f"{item}.querySelector('strong').textContent"), "blue")
        self.assertEqual(self.run_js(f"{item}.querySelector('ol > li > ul > li').textContent"), "two")
        self.assertEqual(self.run_js(f"{item}.querySelector('pre code').textContent"), "x = '<b>'")
        self.assertEqual(self.run_js(f"{item}.querySelector('td.right').textContent"), "2")
        self.assertEqual(self.run_js(f"{item}.querySelector('a').href"), "https://example.org/a_b_c")
        self.assertIn("1,234 tokens", self.last_answer())
        self.assertIn("tok/s", self.last_answer())
        body, = self.server.bodies
        self.assertEqual(body["messages"], [{"role": "system", "content": "Be short."},
                                            {"role": "user", "content": "Why?"}])
        self.assertEqual(body["temperature"], 0.25)
        self.assertEqual(self.browser.problems, [])
        # What was said and set outlives a reload of the tab.
        self.open()
        self.wait_answered()
        self.assertEqual(self.run_js("document.getElementById('knob-temperature').value"), "0.25")
        self.run_js("localStorage.clear()")

    def test_hostile_answers(self):
        self.open()
        for text in HOSTILE:
            self.run_js(f"""import('/markdown.js').then(({{ markdown }}) => {{
                const box = document.createElement('div');
                box.append(markdown({json.dumps(text)}));
                document.getElementById('messages').replaceChildren(box);
                const allowed = new Set(('A BLOCKQUOTE BR BUTTON CODE DIV EM FIGCAPTION FIGURE H1 H2 '
                  + 'H3 HR LI OL P PRE S SPAN STRONG TABLE TBODY TD TH THEAD TR UL svg use').split(' '));
                for (const node of box.querySelectorAll('*')) {{
                  if (!allowed.has(node.tagName)) throw Error('element ' + node.tagName);
                  for (const {{ name, value }} of node.attributes) {{
                    if (name.startsWith('on') || name === 'style' || name === 'src')
                      throw Error('attribute ' + name);
                    if (name === 'href' && node.tagName === 'A' && !/^https?:/.test(value))
                      throw Error('link ' + value);
                  }}
                }}
              }})""")
        self.assertIsNone(self.run_js("window.hacked"))
        self.assertEqual(self.browser.problems, [])

    def test_stop_and_again(self):
        async def endless(body, reply):
            await reply.begin()
            while not reply.writer.transport.is_closing():
                await reply.event({"choices": [{"delta": {"content": "word "}}]})
                await asyncio.sleep(0.01)
        self.server.behaviours["mock"] = endless
        self.open()
        self.say("Go on")
        self.browser.wait("document.querySelector('.prose')?.textContent.includes('word word')")
        self.browser.press("Escape")
        self.wait_answered()
        self.assertIn("stopped", self.last_answer())
        self.assertIn("word", self.last_answer())
        self.behave("Another one.")
        self.browser.press("r", "KeyR", ALT)
        self.browser.wait("document.querySelector('.prose')?.textContent === 'Another one.'")
        self.wait_answered()
        self.assertEqual([b["messages"] for b in self.server.bodies],
                         [[{"role": "user", "content": "Go on"}]] * 2)
        # Up takes the message back into the field; Alt+N forgets everything.
        self.run_js("document.getElementById('prompt').focus()")
        self.browser.press("ArrowUp")
        self.browser.wait("document.getElementById('prompt').value === 'Go on'")
        self.browser.press("n", "KeyN", ALT)
        self.browser.wait("!document.getElementById('welcome').hidden")
        self.assertEqual(self.browser.problems, [])

    def test_trouble(self):
        async def busy(body, reply):
            await reply.body({"error": {"message": "Too many requests wait."}}, status=503)

        async def broken(body, reply):
            await reply.begin()
            await reply.event({"choices": [{"delta": {"content": "half"}}]})
            await reply.event({"error": {"message": "Out of pages."}})
        self.server.behaviours["mock"] = busy
        self.open()
        self.say("Hello")
        self.wait_answered()
        self.assertIn("Too many requests wait.", self.last_answer())
        self.server.behaviours["mock"] = broken
        self.run_js("document.querySelector('.trouble + footer button').click()")
        self.wait_answered(2)
        self.assertIn("Out of pages.", self.last_answer())
        self.behave("Fine.")
        self.run_js("document.querySelector('.trouble + footer button').click()")
        self.browser.wait("document.querySelector('.message:last-child .prose')?.textContent === 'Fine.'")

    def test_api_key(self):
        self.server.api_key = "sesame"
        self.behave("Welcome.")
        self.browser.open(self.server.url)
        self.browser.wait("document.getElementById('key-dialog').open")
        self.browser.type("sesame")
        self.browser.press("Enter")
        self.browser.wait("document.getElementById('model').textContent === 'tiny-model'")
        self.say("Hello")
        self.wait_answered()
        self.assertIn("Welcome.", self.last_answer())
        self.run_js("sessionStorage.clear()")


class Engine(PageTest):
    def ink(self, canvas):
        """How many pixels of a canvas are drawn."""
        return self.run_js(f"""(() => {{ const c = document.getElementById('{canvas}');
            const data = c.getContext('2d').getImageData(0, 0, c.width, c.height).data;
            let drawn = 0;
            for (let i = 3; i < data.length; i += 4) drawn += data[i] > 0;
            return drawn; }})()""")

    def text(self, node):
        return self.run_js(f"document.getElementById('{node}').innerText")

    def test_figures(self):
        self.open()
        self.assertEqual(self.text("counts"), "0 running · 0 waiting")
        self.assertEqual(self.ink("loom"), 0)
        self.stats = stats()
        self.browser.wait("document.getElementById('counts').innerText === '2 running · 1 waiting'")
        self.assertIn("13 of 1,000 pages", self.text("pages"))
        self.assertIn("84 ms", self.text("latencies"))
        self.assertIn("1.50 s", self.text("latencies"))
        pages_drawn = 9 + 19 + 2
        self.browser.until(lambda: self.ink("loom") > pages_drawn * 50)
        self.browser.until(lambda: self.ink("history") > 0)
        # Tokens that come with every look raise the rates: of those read, too, where the model
        # runs more than it generates.
        looks = itertools.count()

        def rising(prompt_tokens):
            def answer():
                look = next(looks)
                totals = {"generated_tokens": 1000 * look,
                          "computed_tokens": (1000 + prompt_tokens) * look}
                return "application/json", [], json.dumps(stats() | {"totals": totals}).encode()
            return answer
        self.server.files["/stats"] = rising(0)
        self.browser.wait("parseFloat(document.getElementById('rate').innerText) > 0"
                          " && document.getElementById('prompt-rate').innerText === '0'")
        self.server.files["/stats"] = rising(3000)
        self.browser.wait("parseFloat(document.getElementById('prompt-rate').innerText) > 0")
        self.server.files["/stats"] = self.stats_file
        self.stats = stats(0, 0)
        self.browser.wait("document.getElementById('idle').style.opacity === '1'")
        self.assertEqual(self.browser.problems, [])

    def test_more_sequences_than_fit(self):
        self.stats = stats()
        self.stats["sequences"] = [self.stats["sequences"][0] | {"request": i, "prompt_tokens": 30000}
                                   for i in range(200)]
        self.stats["running"], self.stats["waiting"] = 200, 100
        self.open()
        self.browser.wait("document.getElementById('counts').innerText.includes('not shown')")
        self.assertEqual(self.browser.problems, [])

    def test_no_answer(self):
        self.open()
        del self.server.files["/stats"]
        self.browser.wait("!document.getElementById('offline').hidden")


class Layout(PageTest):
    def test_phone(self):
        self.stats = stats()
        self.browser.screen(360, 740, mobile=True)
        self.behave("```\n" + "long line " * 40 + "\n```\n\n" + "unbroken" * 60)
        self.open()
        self.say("Hello")
        self.wait_answered()
        self.assertLessEqual(self.run_js("document.documentElement.scrollWidth"), 360)
        self.assertLessEqual(self.run_js("document.getElementById('scroll').scrollWidth"), 360)
        hidden = "getComputedStyle(document.getElementById('engine')).visibility === 'hidden'"
        self.assertTrue(self.run_js(hidden))
        self.run_js("document.getElementById('show-engine').click()")
        self.browser.wait(f"!({hidden})")
        self.browser.press("Escape")
        self.browser.wait(hidden)
        self.assertEqual(self.browser.problems, [])

    def test_light_and_dark(self):
        page = "getComputedStyle(document.body).backgroundColor"
        self.open()
        light = self.run_js(page)
        self.browser.press("t", "KeyT", ALT)
        dark = self.run_js(page)
        self.assertNotEqual(light, dark)
        self.open()
        self.assertEqual(self.run_js(page), dark)
        self.run_js("localStorage.clear()")
        self.browser.screen(1280, 800, dark=True)
        self.open()
        self.assertEqual(self.run_js(page), dark)

    def test_names_and_motion(self):
        self.browser.screen(1280, 800, reduced_motion=True)
        self.stats = stats()
        self.open()
        nameless = self.run_js("""[...document.querySelectorAll('button, input, textarea, [role=img]')]
            .filter((node) => !(node.getAttribute('aria-label') ?? '').trim()
                && !node.textContent.trim() && !node.labels?.length)
            .map((node) => node.outerHTML)""")
        self.assertEqual(nameless, [])
        self.browser.press("?")
        self.browser.wait("document.getElementById('help').open")
        self.browser.press("Escape")
        self.assertEqual(self.run_js("document.getAnimations().length"), 0)
        self.assertEqual(self.browser.problems, [])


if __name__ == "__main__":
    if find_chromium() is None:
        print("no Chromium here")
        sys.exit(77)
    program.main()
