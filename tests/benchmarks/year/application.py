"""The application of the rehearsal: it opens a client for each server once, and keeps asking.

    python -m tests.benchmarks.year.application PORT HOST:PORT ...

Its page, at C{http://127.0.0.1:PORT/}, has the sums of each client in JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.task import LoopingCall, deferLater, react
from twisted.logger import textFileLogObserver
from twisted.python.failure import Failure
from twisted.python.log import startLoggingWithObserver
from twisted.web.resource import Resource
from twisted.web.server import Site

from udpecho import EchoError, connect
from udpecho.parsing import parseAddress

#: Seconds between two datagrams, and until one is given up.
INTERVAL, TIMEOUT = 0.2, 1.0


class Asker:
    """One client, and what became of all it has sent.

    @ivar asked: how many datagrams.
    @ivar outcomes: of how many what: C{answered}, or the name of the failure.
    """

    def __init__(self) -> None:
        self.asked = 0
        self.outcomes: Counter[str] = Counter()
        self._began: dict[int, float] = {}

    async def run(self, reactor: Any, server: str) -> None:
        """Open the client, and ask for ever."""
        host, port = parseAddress(server)
        while True:
            try:
                client = await connect(reactor, host, port, TIMEOUT)
                break
            except EchoError as e:
                print(f"cannot connect to {server}: {e}", flush=True)
                await deferLater(reactor, 1)

        def ask() -> None:
            number, self.asked = self.asked, self.asked + 1
            self._began[number] = time.monotonic()
            payload = os.urandom(16)
            client.exchange(payload).addCallback(lambda reply: reply.payload == payload).addBoth(self._ended, number)

        await LoopingCall(ask).start(INTERVAL)

    def _ended(self, result: object, number: int) -> None:
        # A second time for one number is a KeyError, which fails the application.
        del self._began[number]
        if isinstance(result, Failure):
            self.outcomes[type(result.value).__name__] += 1
            if not result.check(EchoError):
                result.printTraceback()
        else:
            self.outcomes["answered" if result is True else "wrong"] += 1

    def sums(self) -> dict[str, Any]:
        """What became of all so far: C{oldest} is how long the oldest one has waited, in seconds."""
        oldest = time.monotonic() - min(self._began.values(), default=time.monotonic())
        return {"asked": self.asked, "outstanding": len(self._began), "oldest": oldest, "outcomes": self.outcomes}


class Page(Resource):
    """The sums."""

    isLeaf = True

    def __init__(self, askers: dict[str, Asker]) -> None:
        super().__init__()
        self._askers = askers

    def render_GET(self, request: Any) -> bytes:
        """Answer a request."""
        return json.dumps({server: asker.sums() for server, asker in self._askers.items()}).encode()


async def main(reactor: Any, port: str, *servers: str) -> None:
    """Run until it is ended."""
    startLoggingWithObserver(textFileLogObserver(sys.stdout), setStdout=False)
    askers = {server: Asker() for server in servers}
    site = Site(Page(askers))
    site.noisy = False
    site.log = lambda request: None  # type: ignore[method-assign]
    await TCP4ServerEndpoint(reactor, int(port), interface="127.0.0.1").listen(site)
    for server, asker in askers.items():
        Deferred.fromCoroutine(asker.run(reactor, server)).addErrback(lambda failure: failure.printTraceback())
    print("asking", flush=True)
    await Deferred()


def run(arguments: Sequence[str]) -> None:
    """Run it."""
    react(lambda reactor: Deferred.fromCoroutine(main(reactor, *arguments)))


if __name__ == "__main__":
    run(sys.argv[1:])
