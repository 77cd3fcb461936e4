"""The openai package against a running server: openai_client.py URL"""

import json
import sys
import unittest

import openai

BASE = sys.argv.pop(1).rstrip("/")
CLIENT = openai.OpenAI(base_url=BASE + "/v1", api_key="-", max_retries=0, timeout=120)
MODEL = CLIENT.models.list().data[0].id
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
SCHEMA = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20},
                                           "population": {"type": "integer"}},
          "required": ["city", "population"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "get_weather", "description": "Weather of a city",
                                         "parameters": {
                                             "type": "object",
                                             "properties": {"city": {"enum": ["Paris", "Rome"]}},
                                             "required": ["city"],
                                             "additionalProperties": False}}}


class OpenAiPackage(unittest.TestCase):
    def chat(self, **fields):
        return CLIENT.chat.completions.create(**{
            "model": MODEL, "messages": QUESTION, "temperature": 0, "max_tokens": 24, **fields})

    def test_completion(self):
        answer = CLIENT.completions.create(model=MODEL, prompt="The capital of France is",
                                           max_tokens=8, temperature=0)
        self.assertIn("Paris", answer.choices[0].text)
        self.assertEqual(answer.usage.completion_tokens, 8)

    def test_completion_logprobs_and_echo(self):
        answer = CLIENT.completions.create(model=MODEL, prompt="The capital of France is",
                                           max_tokens=1, temperature=0, logprobs=3, echo=True)
        logprobs = answer.choices[0].logprobs
        self.assertEqual("".join(logprobs.tokens), answer.choices[0].text)
        self.assertIsNone(logprobs.token_logprobs[0])
        self.assertEqual(len(logprobs.tokens), len(logprobs.text_offset))

    def test_chat_and_stream_agree(self):
        whole = self.chat()
        self.assertIn("Paris", whole.choices[0].message.content)
        text, usage, finish = "", None, None
        for chunk in self.chat(stream=True, stream_options={"include_usage": True}):
            if chunk.usage:
                usage = chunk.usage
            for choice in chunk.choices:
                text += choice.delta.content or ""
                finish = choice.finish_reason or finish
        self.assertEqual(text, whole.choices[0].message.content)
        self.assertEqual(finish, whole.choices[0].finish_reason)
        self.assertEqual(usage.completion_tokens, whole.usage.completion_tokens)

    def test_chat_logprobs(self):
        answer = self.chat(logprobs=True, top_logprobs=2)
        content = answer.choices[0].logprobs.content
        self.assertEqual(bytes(b for entry in content for b in entry.bytes).decode(),
                         answer.choices[0].message.content)
        self.assertTrue(all(len(entry.top_logprobs) == 2 for entry in content))

    def test_n_seed_stop(self):
        def sample():
            answer = self.chat(n=3, seed=5, temperature=1.2, stop=["\n", "xyz"])
            return [choice.message.content for choice in answer.choices]
        self.assertEqual(sample(), sample())
        self.assertTrue(all("\n" not in text for text in sample()))

    def test_forced_tools(self):
        # The model's own template may know no tools; then the server says so.
        try:
            answer = self.chat(tools=[TOOL], tool_choice="required", max_tokens=100)
        except openai.BadRequestError as problem:
            self.assertIn("no place for tools", problem.message)
            self.skipTest("the model's template knows no tools")
        call = answer.choices[0].message.tool_calls[0]
        self.assertEqual(call.function.name, "get_weather")
        self.assertIn(json.loads(call.function.arguments)["city"], ("Paris", "Rome"))

    def test_structured_output(self):
        answer = self.chat(max_tokens=200, response_format={
            "type": "json_schema", "json_schema": {"name": "city", "schema": SCHEMA}})
        value = json.loads(answer.choices[0].message.content)
        self.assertEqual(set(value), {"city", "population"})
        self.assertIsInstance(value["population"], int)
        answer = self.chat(max_tokens=200, response_format={"type": "json_object"})
        if answer.choices[0].finish_reason == "stop":
            self.assertIsInstance(json.loads(answer.choices[0].message.content), dict)

    def test_parsed_output(self):
        import pydantic

        class City(pydantic.BaseModel):
            name: str = pydantic.Field(max_length=20)
            capital: bool
        answer = CLIENT.beta.chat.completions.parse(
            model=MODEL, messages=QUESTION, temperature=0, max_tokens=100, response_format=City)
        self.assertIsInstance(answer.choices[0].message.parsed, City)

    def test_errors(self):
        with self.assertRaises(openai.BadRequestError) as caught:
            self.chat(top_p=7)
        self.assertEqual(caught.exception.param, "top_p")
        with self.assertRaises(openai.NotFoundError):
            CLIENT.embeddings.create(model=MODEL, input="x")

    def test_closing_a_stream_cancels_it(self):
        stream = self.chat(stream=True, max_tokens=2000, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
        self.assertTrue(self.chat().choices[0].message.content)


if __name__ == "__main__":
    unittest.main()
