"""The page as atom serve hands it out, in a real browser. Skipped where there is no Chromium."""

import sys
import tempfile
import unittest
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "cli"))
from browser import Browser, find_chromium
from server_process import ServerTest, chat_model


class ServedPage(ServerTest):
    arguments = ("--api-key", "sesame")

    @classmethod
    def model(cls):
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        return chat_model(folder.name)

    def test_a_conversation(self):
        browser = Browser()
        self.addCleanup(browser.close)
        browser.screen(1280, 800)
        browser.open(f"http://127.0.0.1:{self.server.port}/")
        browser.wait("document.getElementById('key-dialog').open")
        browser.type("sesame")
        browser.press("Enter")
        browser.wait("document.getElementById('model').textContent === 'stories'")
        # The refusals are the only trouble there was: nothing broke the page's policy.
        self.assertTrue(all("401" in problem for problem in browser.problems), browser.problems)
        browser.problems.clear()
        browser.evaluate("document.getElementById('prompt').focus()")
        browser.type("Once upon a time")
        browser.press("Enter")
        browser.wait("document.querySelectorAll('.message.assistant:not([aria-busy])').length === 1")
        answer = browser.evaluate("document.querySelector('.message.assistant').innerText")
        self.assertRegex(answer, r"\d+ tokens? · .*first after \d")
        browser.wait("document.getElementById('counts').innerText === '0 running · 0 waiting'")
        browser.wait("document.getElementById('latencies').innerText.includes('ms')")
        self.assertRegex(browser.evaluate("document.getElementById('pages').innerText"),
                         r"^0 of [\d,]+ pages in use, [1-9][\d,]* kept$")
        self.assertEqual(browser.problems, [])


if __name__ == "__main__":
    if find_chromium() is None:
        print("no Chromium here")
        sys.exit(77)
    unittest.main()
