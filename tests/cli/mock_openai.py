"""A server that speaks just enough of OpenAI's API to be measured, and fails on demand.

It runs in a thread of the test. A request for the model "NAME" gets the behaviour that the test
registered for NAME: a coroutine that is given the request's body and a Reply to write to.
"""

import asyncio
import json
import resource
import threading


class Reply:
    """The answer to one request: one JSON body, or a stream of events."""

    def __init__(self, writer):
        self.writer = writer

    async def body(self, document, status=200):
        text = json.dumps(document).encode()
        self.writer.write(b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\n"
                          b"Content-Length: %d\r\n\r\n" % (status, len(text)) + text)
        await self.writer.drain()

    async def file(self, content_type, headers, data):
        lines = [f"Content-Type: {content_type}", f"Content-Length: {len(data)}", *headers]
        self.writer.write("\r\n".join(["HTTP/1.1 200 OK", *lines, "", ""]).encode() + data)
        await self.writer.drain()

    async def begin(self):
        self.writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                          b"Transfer-Encoding: chunked\r\n\r\n")

    async def raw(self, data):
        self.writer.write(b"%x\r\n" % len(data) + data + b"\r\n")
        await self.writer.drain()

    async def event(self, document):
        await self.raw(b"data: " + json.dumps(document).encode() + b"\n\n")

    async def end(self):
        await self.raw(b"data: [DONE]\n\n")
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    def cut(self):
        self.writer.transport.abort()


def count_words(body):
    text = body["prompt"] if "prompt" in body else body["messages"][0]["content"]
    return len(text.split())


def usage(body):
    """Two tokens a word and three around them: what the client has to find out."""
    return {"prompt_tokens": 2 * count_words(body) + 3, "completion_tokens": body["max_tokens"]}


async def answer(body, reply, with_usage=True, gap=0.0):
    """What a well-behaved server does."""
    if not body.get("stream"):
        document = {"choices": [{"text": "a"}]}
        await reply.body(document | ({"usage": usage(body)} if with_usage else {}))
        return
    await reply.begin()
    chat = "messages" in body
    if chat:
        await reply.event({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
    for _ in range(body["max_tokens"]):
        await asyncio.sleep(gap)
        await reply.event({"choices": [{"delta": {"content": " a"}} if chat else {"text": " a"}]})
    if with_usage:
        await reply.event({"choices": [], "usage": usage(body)})
    await reply.end()


def raise_file_limit(files):
    """Each connection is a file, and soft limits are often 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY:
        most = files if hard == resource.RLIM_INFINITY else min(files, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))


class MockServer:
    def __init__(self):
        raise_file_limit(4096)
        self.behaviours = {"mock": answer}
        self.api_key = None
        self.bodies = []   # of the streamed requests
        self.files = {}    # path -> (content type, headers, bytes), or, behind the API key, a function
        self.connections = 0
        self.loop = asyncio.new_event_loop()
        started = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(started,), daemon=True)
        self.thread.start()
        started.wait()
        self.url = f"http://127.0.0.1:{self.port}"

    def _run(self, started):
        asyncio.set_event_loop(self.loop)
        server = self.loop.run_until_complete(
            asyncio.start_server(self._connection, "127.0.0.1", 0, backlog=4096))
        self.port = server.sockets[0].getsockname()[1]
        started.set()
        self.loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.loop.run_until_complete(asyncio.sleep(0))

    def stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()

    async def _connection(self, reader, writer):
        self.connections += 1
        try:
            while await self._request(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    async def _request(self, reader, writer):
        head = await reader.readuntil(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines[1:] if line)
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        reply = Reply(writer)
        path = lines[0].split()[1]
        file = self.files.get(path)
        if file and not callable(file):
            await reply.file(*file)
        elif self.api_key and headers.get("authorization") != f"bearer {self.api_key}":
            await reply.body({"error": {"message": "wrong key"}}, status=401)
        elif file:
            await reply.file(*file())
        elif path == "/v1/models":
            await reply.body({"data": [{"id": "mock"}]})
        elif not body:
            await reply.body({"error": {"message": f"no path {path}"}}, status=404)
        else:
            document = json.loads(body)
            if document.get("stream"):
                self.bodies.append(document)
            await self.behaviours[document.get("model", "mock")](document, reply)
        return not writer.transport.is_closing()
