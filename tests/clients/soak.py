"""Many streams at once, for as long as asked: soak.py URL [--streams N] [--seconds S] [--tokens T]
[--leave SHARE] [--pid PID]

Keeps N streams open, each ending and beginning anew. A share of them leaves in the middle, by a reset
or by closing; every other one has to be complete, with exactly the tokens that were asked for. At the
end the server must hold nothing: no sequence, no page, no connection, and each request that it
accepted finished or cancelled. With PID, a process of this machine, its memory must not have grown
from the middle third of the time to the last. Exit code 1 where any of this fails."""

import argparse
import asyncio
import json
import random
import resource
import socket
import statistics
import struct
import time
from urllib.parse import urlsplit

BODY = {"prompt": "Once upon a time", "temperature": 0.8, "ignore_eos": True, "stream": True,
        "stream_options": {"include_usage": True}}
END = b"data: [DONE]\n\n\r\n0\r\n\r\n"
MAY_GROW = 1.05  # of the median resident memory: allocators round, histograms fill


def resident_mib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS:"))


def request_bytes(method, path, body=b""):
    return (f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body


async def get_json(address, path):
    reader, writer = await asyncio.open_connection(*address)
    try:
        writer.write(request_bytes("GET", path))
        return json.loads((await reader.read()).split(b"\r\n\r\n", 1)[1])
    finally:
        writer.close()


class Soak:
    def __init__(self, arguments):
        self.arguments = arguments
        url = urlsplit(arguments.url)
        self.address = (url.hostname, url.port)
        self.finished = self.left = self.open = self.most_open = 0
        self.lost = []
        self.memory = []  # MiB

    async def stream(self, seed, choose):
        data = json.dumps({**BODY, "max_tokens": self.arguments.tokens, "seed": seed}).encode()
        leaves = choose.random() < self.arguments.leave
        reader, writer = await asyncio.open_connection(*self.address)
        self.open += 1
        self.most_open = max(self.most_open, self.open)
        try:
            writer.write(request_bytes("POST", "/v1/completions", data))
            if leaves:
                # Anywhere from before the first byte to the end.
                left = choose.randrange(50 * self.arguments.tokens)
                while left > 0 and (piece := await reader.read(left)):
                    left -= len(piece)
                if choose.random() < 0.5:
                    writer.get_extra_info("socket").setsockopt(
                        socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.left += 1
                return
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.read()
            if not head.startswith(b"HTTP/1.1 200 "):
                self.lost.append(head.split(b"\r\n")[0].decode())
            elif not body.endswith(END):
                self.lost.append(f"cut off after {len(body)} bytes")
            else:
                usage = [line for line in body.split(b"\n") if b'"usage":{' in line][-1]
                got = json.loads(usage[len(b"data: "):])["usage"]["completion_tokens"]
                if got != self.arguments.tokens:
                    self.lost.append(f"{got} tokens instead of {self.arguments.tokens}")
                self.finished += 1
        finally:
            self.open -= 1
            writer.close()

    async def client(self, number, end):
        choose = random.Random(number)
        while time.monotonic() < end:
            try:
                await self.stream(choose.getrandbits(32), choose)
            except (OSError, asyncio.IncompleteReadError) as problem:
                self.lost.append(repr(problem))

    async def watch(self, begin):
        pid = self.arguments.pid
        if pid:
            self.memory.append(resident_mib(pid))
        print(json.dumps({"seconds": round(time.monotonic() - begin, 1), "open": self.open,
                          "finished": self.finished, "left": self.left, "lost": len(self.lost),
                          "resident_mib": round(self.memory[-1], 1) if pid else None}), flush=True)

    async def run(self):
        begin = time.monotonic()
        end = begin + self.arguments.seconds
        before = await get_json(self.address, "/stats")
        clients = [asyncio.create_task(self.client(i, end)) for i in range(self.arguments.streams)]
        while any(not task.done() for task in clients):
            await asyncio.sleep(min(10, max(self.arguments.seconds / 60, 0.5)))
            await self.watch(begin)
        return self.verdict(before["totals"], await self.settled())

    async def settled(self):
        """The server's figures, once it has noticed that all have left."""
        for _ in range(600):
            stats = await get_json(self.address, "/stats")
            if [stats["running"], stats["waiting"], stats["connections"]] == [0, 0, 1]:
                break
            await asyncio.sleep(0.1)
        return stats

    def verdict(self, before, stats):
        counts = {name: stats["totals"][name] - before[name]
                  for name in ("accepted", "finished", "cancelled", "failed")}
        problems = self.lost[:10]
        if [stats["running"], stats["waiting"], stats["kv_pages"]["used"]] != [0, 0, 0]:
            problems.append(f"work was left: {stats}")
        if stats["connections"] != 1:
            problems.append(f"{stats['connections'] - 1} connections were left")
        if counts["accepted"] != counts["finished"] + counts["cancelled"] or counts["failed"]:
            problems.append(f"requests do not add up: {counts}")
        if counts["finished"] < self.finished:
            problems.append(f"{self.finished} were answered: {counts}")
        third = len(self.memory) // 3
        growth = None
        if third > 0:
            growth = (statistics.median(self.memory[-third:])
                      / statistics.median(self.memory[third:-third]))
            if growth > MAY_GROW:
                problems.append(f"memory grew by {100 * growth - 100:.1f}%")
        print(json.dumps({"most_open": self.most_open, "finished": self.finished, "left": self.left,
                          "lost": len(self.lost), "memory_growth": growth, "server": counts}))
        for problem in problems:
            print("problem:", problem)
        return 1 if problems or self.finished == 0 else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--leave", type=float, default=0.2)
    parser.add_argument("--pid", type=int)
    arguments = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = arguments.streams + 64
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    raise SystemExit(asyncio.run(Soak(arguments).run()))


if __name__ == "__main__":
    main()
