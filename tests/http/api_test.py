"""What the API answers: completions, chats, streams, log-probabilities, tools, tokens, figures."""

import json
import math
import tempfile
import unittest

import server_process
from server_process import ServerTest, streamed_text

PROMPT = "Once upon a time"
GREEDY = {"max_tokens": 12, "temperature": 0}


class Completions(ServerTest):
    def test_whole_and_streamed_are_the_same(self):
        whole = self.server.complete(PROMPT, **GREEDY)
        self.assertEqual(whole["object"], "text_completion")
        self.assertEqual(whole["model"], "stories260k")
        self.assertEqual(whole["usage"]["prompt_tokens"], 5)
        self.assertEqual(whole["usage"]["completion_tokens"], 12)
        choice = whole["choices"][0]
        self.assertEqual(choice["finish_reason"], "length")
        self.assertIn("there was a little", choice["text"])
        events = list(self.server.stream("/v1/completions", {
            "prompt": PROMPT, **GREEDY, "stream_options": {"include_usage": True}}))
        self.assertEqual(streamed_text(events), choice["text"])
        self.assertEqual(events[-1]["choices"], [])
        self.assertEqual(events[-1]["usage"]["completion_tokens"], 12)
        self.assertTrue(all(event["usage"] is None for event in events[:-1]))
        self.assertEqual([event["choices"][0]["finish_reason"] for event in events[:-1]],
                         [None] * (len(events) - 2) + ["length"])
        plain = list(self.server.stream("/v1/completions", {"prompt": PROMPT, **GREEDY}))
        self.assertTrue(all("usage" not in event for event in plain))

    def test_prompts_in_every_form(self):
        text = self.server.complete(PROMPT, **GREEDY)["choices"][0]["text"]
        ids = self.server.post("/tokenize", {"prompt": PROMPT})[1]["tokens"]
        for prompt in ids, [ids, ids], [PROMPT, PROMPT]:
            choices = self.server.complete(prompt, **GREEDY)["choices"]
            self.assertEqual([c["text"] for c in choices], [text] * len(choices))
            self.assertEqual([c["index"] for c in choices], list(range(len(choices))))
        two = self.server.complete([PROMPT, "The dog"], n=2, **GREEDY)["choices"]
        self.assertEqual([c["text"] for c in two[:2]], [text, text])
        self.assertEqual([c["index"] for c in two], [0, 1, 2, 3])
        self.assertNotEqual(two[2]["text"], text)

    def test_echo_and_prompt_logprobs(self):
        answer = self.server.complete(PROMPT, max_tokens=1, temperature=0, echo=True, logprobs=2)
        choice = answer["choices"][0]
        self.assertTrue(choice["text"].startswith(PROMPT))
        logprobs = choice["logprobs"]
        self.assertEqual(list(logprobs), ["tokens", "token_logprobs", "top_logprobs",
                                          "text_offset"])
        self.assertEqual({len(column) for column in logprobs.values()}, {6})
        self.assertIsNone(logprobs["token_logprobs"][0])
        self.assertIsNone(logprobs["top_logprobs"][0])
        for token, logprob, top in list(zip(logprobs["tokens"], logprobs["token_logprobs"],
                                            logprobs["top_logprobs"], strict=True))[1:]:
            self.assertLess(logprob, 0)
            self.assertAlmostEqual(top[token], logprob, delta=1e-6)
            self.assertIn(len(top), (2, 3))
        self.assertEqual(max(logprobs["top_logprobs"][-1].values()), logprobs["token_logprobs"][-1])
        offsets = logprobs["text_offset"]
        self.assertEqual(offsets, sorted(offsets))
        self.assertEqual(offsets[-1], len(PROMPT))

        scored = self.server.complete(PROMPT, max_tokens=0, echo=True, logprobs=0)["choices"][0]
        self.assertEqual(scored["text"], PROMPT)
        self.assertEqual(scored["logprobs"]["token_logprobs"], logprobs["token_logprobs"][:5])
        events = list(self.server.stream("/v1/completions", {
            "prompt": PROMPT, "max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 2}))
        self.assertEqual(streamed_text(events), choice["text"])
        self.assertEqual(sum((e["choices"][0]["logprobs"]["tokens"] for e in events), []),
                         logprobs["tokens"])

    def test_the_token_that_ends_an_output_has_a_logprob(self):
        """Clients that score a prompt with max_tokens = 1 take the last entry off."""
        body = {"max_tokens": 1, "temperature": 0, "echo": True, "logprobs": 1}
        whole = self.server.complete(PROMPT, **body)["choices"][0]
        first = self.server.post("/tokenize", {"prompt": whole["text"]})[1]["tokens"][5]
        body["stop_token_ids"] = [first]
        ended = self.server.complete(PROMPT, **body)["choices"][0]
        self.assertEqual((ended["text"], ended["finish_reason"]), (PROMPT, "stop"))
        self.assertEqual(ended["logprobs"], whole["logprobs"])
        events = list(self.server.stream("/v1/completions", {"prompt": PROMPT, **body}))
        self.assertEqual(sum((e["choices"][0]["logprobs"]["tokens"] for e in events), []),
                         whole["logprobs"]["tokens"])

    def test_logprobs_do_not_depend_on_the_cache_or_the_batch(self):
        body = {"max_tokens": 4, "temperature": 0, "echo": True, "logprobs": 1}
        first = self.server.complete("The little dog was very happy to see", **body)
        again = self.server.complete(["The little dog was very happy to see"] * 3, **body)
        expected = first["choices"][0]["logprobs"]["token_logprobs"]
        for choice in again["choices"]:
            got = choice["logprobs"]["token_logprobs"]
            self.assertEqual(len(got), len(expected))
            for a, b in zip(got[1:], expected[1:], strict=True):
                self.assertTrue(math.isclose(a, b, abs_tol=1e-3), (got, expected))

    def test_stop_strings_end_the_text_before_them(self):
        text = self.server.complete(PROMPT, max_tokens=40, temperature=0)["choices"][0]["text"]
        for stop in "little girl", "e g", text[10:14]:
            body = {"prompt": PROMPT, "max_tokens": 40, "temperature": 0, "stop": [stop, "zzz"]}
            choice = self.server.post("/v1/completions", body)[1]["choices"][0]
            self.assertEqual(choice["text"], text[:text.index(stop)])
            self.assertEqual(choice["finish_reason"], "stop")
            events = list(self.server.stream("/v1/completions", body))
            self.assertEqual(streamed_text(events), choice["text"])

    def test_seeds_are_reproducible(self):
        def sample(seed):
            return [c["text"] for c in self.server.complete(
                PROMPT, max_tokens=20, temperature=1.5, seed=seed, n=3)["choices"]]
        self.assertEqual(sample(7), sample(7))
        self.assertNotEqual(sample(7), sample(8))
        self.assertEqual(len(set(sample(7))), 3)

    def test_best_of_returns_the_likeliest(self):
        answer = self.server.complete(PROMPT, max_tokens=8, temperature=2.0, seed=1, n=2,
                                      best_of=8, logprobs=0)
        means = [sum(c["logprobs"]["token_logprobs"]) / 8 for c in answer["choices"]]
        every = self.server.complete(PROMPT, max_tokens=8, temperature=2.0, seed=1, n=8,
                                     logprobs=0)
        best = sorted((sum(c["logprobs"]["token_logprobs"]) / 8 for c in every["choices"]),
                      reverse=True)
        for mean, expected in zip(means, best, strict=False):
            self.assertAlmostEqual(mean, expected, delta=1e-3)
        self.assertEqual(answer["usage"]["completion_tokens"], 64)

    def test_logit_bias_and_penalties(self):
        comma = self.server.post("/tokenize", {"prompt": ",", "add_special_tokens": False})
        ids = comma[1]["tokens"]
        text = self.server.complete(PROMPT, max_tokens=6, temperature=0,
                                    logit_bias={str(ids[-1]): 100})["choices"][0]["text"]
        self.assertEqual(text, "," * 6)
        # Five commas take back what the bias gives.
        text = self.server.complete(PROMPT, max_tokens=20, temperature=0, frequency_penalty=2,
                                    logit_bias={str(ids[-1]): 10})["choices"][0]["text"]
        self.assertIn(",", text)
        self.assertNotEqual(text, "," * 20)

    def test_errors_name_the_field(self):
        for body, param in [
                ({"prompt": PROMPT, "temperature": "x"}, "temperature"),
                ({"prompt": PROMPT, "top_p": 2}, "top_p"),
                ({"prompt": PROMPT, "n": 1000}, "n"),
                ({"prompt": PROMPT, "stop": [""]}, "stop"),
                ({"prompt": PROMPT, "logit_bias": {"x": 1}}, "logit_bias"),
                ({"prompt": [[1, 100000]]}, "prompt"),
                ({"prompt": PROMPT, "suffix": "end"}, "suffix"),
                ({"max_tokens": 3}, "prompt")]:
            error = self.error(400, "/v1/completions", body)
            self.assertEqual(error["param"], param)
            self.assertEqual(error["type"], "invalid_request_error")
        error = self.error(400, "/v1/completions", {"prompt": "story " * 200})
        self.assertEqual(error["code"], "context_length_exceeded")
        self.assertIn("context of 128", error["message"])
        self.assertIn("no chat template", self.error(400, "/v1/chat/completions", {
            "messages": [{"role": "user", "content": "hi"}]})["message"])

    def test_unknown_fields_and_models_are_served(self):
        self.server.complete(PROMPT, max_tokens=1, model="gpt-4", user="me", new_field={"a": 1})

    def test_tokens_there_and_back(self):
        status, answer = self.server.post("/tokenize", {"prompt": PROMPT,
                                                        "return_token_strs": True})
        self.assertEqual((status, answer["count"]), (200, 5))
        self.assertEqual("".join(answer["token_strs"]), "<s> Once upon a time")
        status, back = self.server.post("/detokenize", {"tokens": answer["tokens"],
                                                        "skip_special_tokens": True})
        self.assertEqual((status, back["prompt"].strip()), (200, PROMPT))
        self.assertEqual(self.error(400, "/detokenize", {"tokens": [-1]})["param"], "tokens")

    def test_models_health_page_and_figures(self):
        self.assertEqual(self.server.get_json("/v1/models")["data"][0]["id"], "stories260k")
        self.assertEqual(self.server.get_json("/health"), {"status": "ok"})
        status, headers, page = self.server.request("GET", "/")
        self.assertEqual(status, 200)
        self.assertIn(b"<!doctype html>", page[:200].lower())
        status, _, body = self.server.request("GET", "/", headers={
            "If-None-Match": headers["ETag"]})
        self.assertEqual((status, body), (304, b""))
        status, headers, body = self.server.request("HEAD", "/health")
        self.assertEqual((status, body, headers["Content-Length"]), (200, b"", "15"))

        before = self.settled()
        self.server.complete(PROMPT, **GREEDY)
        after = self.settled()
        self.assertEqual(after["totals"]["finished"], before["totals"]["finished"] + 1)
        self.assertEqual(after["totals"]["generated_tokens"]
                         - before["totals"]["generated_tokens"], 12)
        pages = after["kv_pages"]
        self.assertEqual(pages["used"] + pages["cached"] + pages["free"], pages["total"])
        self.assertGreater(after["latency_seconds"]["time_to_first_token"]["p50"], 0)

    def test_metrics_are_prometheus_text(self):
        self.server.complete(PROMPT, **GREEDY)
        status, headers, body = self.server.request("GET", "/metrics")
        self.assertEqual(status, 200)
        self.assertIn("version=0.0.4", headers["Content-Type"])
        types, samples = {}, {}
        for line in body.decode().splitlines():
            if line.startswith("# TYPE "):
                name, kind = line.split()[2:]
                self.assertNotIn(name, types)
                types[name] = kind
            elif not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                self.assertNotIn(name, samples)
                samples[name] = float(value)
        self.assertEqual(types["atom_generated_tokens_total"], "counter")
        self.assertEqual(types["atom_time_to_first_token_seconds"], "histogram")
        count = samples["atom_time_to_first_token_seconds_count"]
        self.assertEqual(samples['atom_time_to_first_token_seconds_bucket{le="+Inf"}'], count)
        self.assertGreaterEqual(
            samples['atom_http_requests_total{path="/v1/completions",status="200"}'], 1)


class Chat(ServerTest):
    @classmethod
    def model(cls):
        cls.folder = tempfile.TemporaryDirectory()
        return server_process.chat_model(cls.folder.name)

    @classmethod
    def tearDownClass(cls):
        super().tearDownClass()
        cls.folder.cleanup()

    def chat(self, content="Hello", **fields):
        status, answer = self.server.post("/v1/chat/completions", {
            "messages": [{"role": "user", "content": content}], "temperature": 0,
            "max_tokens": 10, **fields})
        self.assertEqual(status, 200, answer)
        return answer

    def test_whole_and_streamed_are_the_same(self):
        whole = self.chat()
        self.assertEqual(whole["object"], "chat.completion")
        message = whole["choices"][0]["message"]
        self.assertEqual(message["role"], "assistant")
        self.assertTrue(message["content"])
        events = list(self.server.stream("/v1/chat/completions", {
            "messages": [{"role": "user", "content": "Hello"}], "temperature": 0,
            "max_tokens": 10, "n": 2}))
        for index in 0, 1:
            self.assertEqual(streamed_text(events, index), message["content"])
        self.assertEqual(events[0]["choices"][0]["delta"], {"role": "assistant", "content": ""})
        self.assertEqual(events[0]["object"], "chat.completion.chunk")
        self.assertEqual(len({event["id"] for event in events}), 1)

    def test_the_template_makes_the_prompt(self):
        tokens = self.server.post("/tokenize", {"messages": [
            {"role": "user", "content": "Hi"}]})[1]["tokens"]
        plain = self.server.post("/tokenize", {
            "prompt": "user: Hi\nassistant:", "add_special_tokens": False})[1]["tokens"]
        self.assertEqual(tokens, plain)
        self.assertEqual(self.chat("Hi")["usage"]["prompt_tokens"], len(tokens))

    def test_logprobs(self):
        answer = self.chat(logprobs=True, top_logprobs=3)
        content = answer["choices"][0]["logprobs"]["content"]
        self.assertEqual(len(content), 10)
        text = b"".join(bytes(entry["bytes"]) for entry in content).decode(errors="replace")
        self.assertEqual(text, answer["choices"][0]["message"]["content"])
        for entry in content:
            self.assertEqual(len(entry["top_logprobs"]), 3)
            self.assertEqual(entry["top_logprobs"][0]["logprob"], entry["logprob"])
        self.assertIsNone(self.chat()["choices"][0]["logprobs"])
        self.assertEqual(self.error(400, "/v1/chat/completions", {
            "messages": [{"role": "user", "content": "x"}], "top_logprobs": 3})["param"],
            "top_logprobs")

    def test_tools_reach_the_template_and_text_is_no_call(self):
        tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
        plain = self.chat()
        with_tools = self.chat(tools=tools)
        self.assertGreater(with_tools["usage"]["prompt_tokens"], plain["usage"]["prompt_tokens"])
        self.assertNotIn("tool_calls", with_tools["choices"][0]["message"])
        none = self.chat(tools=tools, tool_choice="none")
        self.assertEqual(none["usage"]["prompt_tokens"], plain["usage"]["prompt_tokens"])

    def test_calls_can_be_forced(self):
        def tool(name, key):
            return {"type": "function", "function": {"name": name, "parameters": {
                "type": "object", "properties": {key: {"type": "boolean"}}, "required": [key],
                "additionalProperties": False}}}
        tools = [tool("look", "far"), tool("go", "fast")]
        for choice, names in ("required", {"look", "go"}), \
                ({"type": "function", "function": {"name": "go"}}, {"go"}):
            body = {"tools": tools, "tool_choice": choice, "max_tokens": 80}
            answer = self.chat(**body)["choices"][0]
            self.assertEqual(answer["finish_reason"], "tool_calls", answer)
            self.assertIsNone(answer["message"]["content"])
            call = answer["message"]["tool_calls"][0]
            self.assertEqual(call["type"], "function")
            self.assertIn(call["function"]["name"], names)
            arguments = json.loads(call["function"]["arguments"])
            self.assertEqual(len(arguments), 1)
            self.assertIsInstance(list(arguments.values())[0], bool)
            events = list(self.server.stream("/v1/chat/completions", {
                "messages": [{"role": "user", "content": "Hello"}], "temperature": 0, **body}))
            streamed = [c for e in events for c in e["choices"][0]["delta"].get("tool_calls", [])]
            self.assertEqual([c["function"] for c in streamed], [call["function"]])
            self.assertEqual(streamed[0]["index"], 0)
        for choice in "required", {"type": "function", "function": {"name": "none"}}:
            self.assertEqual(self.error(400, "/v1/chat/completions", {
                "messages": [{"role": "user", "content": "x"}], "tool_choice": choice,
                **({} if choice == "required" else {"tools": tools})})["param"], "tool_choice")

    def test_shapes_of_outputs(self):
        schema = {"type": "object", "properties": {
            "name": {"enum": ["Tim", "Lily"]}, "age": {"type": "integer", "minimum": 1,
                                                       "maximum": 9}},
            "required": ["name", "age"], "additionalProperties": False}
        answer = self.chat(max_tokens=60, response_format={
            "type": "json_schema", "json_schema": {"name": "x", "schema": schema}})
        value = json.loads(answer["choices"][0]["message"]["content"])
        self.assertIn(value["name"], ("Tim", "Lily"))
        self.assertIn(value["age"], range(1, 10))
        self.assertEqual(answer["choices"][0]["finish_reason"], "stop")
        for shape, texts in ({"choice": ["red", "blue"]}, r"red|blue"), \
                ({"regex": "[a-c]{3}-[0-9]"}, r"[a-c]{3}-[0-9]"):
            answer = self.chat(structured_outputs=shape)
            self.assertRegex(answer["choices"][0]["message"]["content"], f"^(?:{texts})$")
        error = self.error(400, "/v1/chat/completions", {
            "messages": [{"role": "user", "content": "x"}], "response_format": {
                "type": "json_schema", "json_schema": {"schema": {"type": "nonsense"}}}})
        self.assertEqual(error["param"], "response_format")

    def test_conversations_with_tool_calls(self):
        status, answer = self.server.post("/v1/chat/completions", {
            "messages": [
                {"role": "user", "content": "a"},
                {"role": "assistant", "content": None, "tool_calls": [
                    {"id": "1", "type": "function",
                     "function": {"name": "f", "arguments": "{\"x\": 1}"}}]},
                {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "2"}]}],
            "max_tokens": 2})
        self.assertEqual(status, 200, answer)

    def test_errors_name_the_message(self):
        error = self.error(400, "/v1/chat/completions", {"messages": [{"role": "user"}]})
        self.assertIn("messages[0]", error["message"])
        self.assertEqual(self.error(400, "/v1/chat/completions", {})["param"], "messages")
        error = self.error(400, "/v1/chat/completions", {
            "messages": [{"role": "user", "content": "x"}],
            "response_format": {"type": "xml"}})
        self.assertEqual(error["param"], "response_format")


if __name__ == "__main__":
    unittest.main()
