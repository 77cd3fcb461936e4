"""Many streams at once: soak.py URL [--streams N] [--seconds S] [--tokens T] [--pid PID]

Keeps N streams open, each ending and beginning anew, checks that every one is complete and has the
number of tokens that were asked for, and reports the memory of the server (PID, on this machine)
over time. Exit code 1 if any request was lost."""

import argparse
import asyncio
import json
import time
from urllib.parse import urlsplit

BODY = {"prompt": "Once upon a time", "temperature": 0.8, "ignore_eos": True, "stream": True,
        "stream_options": {"include_usage": True}}


def resident_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        for line in status:
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    return 0.0


async def one_stream(host, port, tokens, seed):
    """The tokens of a stream that came whole; an exception otherwise."""
    data = json.dumps({**BODY, "max_tokens": tokens, "seed": seed}).encode()
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                     b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(data)
                     + data)
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ConnectionError(head.split(b"\r\n")[0].decode())
        body = await reader.read()
        if not body.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n"):
            raise ConnectionError("cut off")
        usage = [line for line in body.split(b"\n") if b'"usage":{' in line][-1]
        return json.loads(usage[len(b"data: "):])["usage"]["completion_tokens"]
    finally:
        writer.close()


async def soak(arguments):
    address = urlsplit(arguments.url)
    end = time.monotonic() + arguments.seconds
    done, lost = 0, []

    async def client(number):
        nonlocal done
        seed = number
        while time.monotonic() < end:
            try:
                got = await one_stream(address.hostname, address.port, arguments.tokens, seed)
                if got != arguments.tokens:
                    lost.append(f"{got} tokens instead of {arguments.tokens}")
                done += 1
            except (OSError, asyncio.IncompleteReadError) as problem:
                lost.append(repr(problem))
            seed += arguments.streams

    clients = [asyncio.create_task(client(i)) for i in range(arguments.streams)]
    begin = time.monotonic()
    memory = []
    while any(not task.done() for task in clients):
        await asyncio.sleep(min(5, max(arguments.seconds / 20, 0.5)))
        if arguments.pid:
            memory.append(resident_mib(arguments.pid))
        print(json.dumps({"seconds": round(time.monotonic() - begin, 1), "finished": done,
                          "lost": len(lost), "resident_mib": memory[-1] if memory else None}),
              flush=True)
    for problem in lost[:10]:
        print("lost:", problem)
    return 1 if lost or done == 0 else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--pid", type=int)
    raise SystemExit(asyncio.run(soak(parser.parse_args())))


if __name__ == "__main__":
    main()
