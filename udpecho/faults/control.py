"""Proxies that are made and changed while they run, as Toxiproxy has them: by name, each with its toxics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet import error

from udpecho.addresses import formatAddress
from udpecho.errors import EchoError
from udpecho.faults.decision import Decider
from udpecho.faults.plan import FaultPlan
from udpecho.faults.proxy import FaultProxy
from udpecho.faults.toxics import STREAMS, Chain, Toxic
from udpecho.parsing import parseAddress, parseListen

#: How many proxies there may be, and how many toxics each may have; and the longest name, in characters.
MAX_PROXIES = 64
MAX_TOXICS = 64
MAX_NAME = 128

#: Makes a proxy for an upstream, with the plans of its directions.
MakeProxy = Callable[[tuple[str, int], Decider, Decider], FaultProxy]


class ControlError(Exception):
    """A request that cannot be met.

    @ivar status: the HTTP status.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _listen(text: str) -> tuple[str, int]:
    """Read where a proxy listens. Toxiproxy's users write C{localhost}."""
    return parseListen(f"127.0.0.1:{text[10:]}" if text.startswith("localhost:") else text, "listen")


class NamedProxy:
    """A proxy that can be stopped, moved and made again, and keeps its name, its toxics and its sums.

    @ivar toxics: in the order in which datagrams go through them.
    @ivar proxy: what passes the datagrams.
    """

    def __init__(self, name: str, proxy: FaultProxy, listen: tuple[str, int], upstream: tuple[str, int], seed: str) -> None:
        """@param seed: determines the decisions of the toxics."""
        self.name = name
        self.proxy = proxy
        self.listen = listen
        self.upstream = upstream
        self.toxics: dict[str, Toxic] = {}
        self.enabled = False
        self._seed = seed
        self._plans = {stream: getattr(proxy, way).plan for stream, way in STREAMS.items()}

    def enable(self) -> None:
        """Start, if it is not running.

        @raise ControlError: if the address cannot be had.
        """
        if self.enabled:
            return
        try:
            self.proxy.start(self.listen[1], self.listen[0])
        except error.CannotListenError as e:
            reason = getattr(e.socketError, "strerror", None) or str(e.socketError)
            raise ControlError(409, f"cannot listen on {formatAddress(self.listen)}: {reason}") from None
        except ValueError as e:
            raise ControlError(400, str(e)) from None
        self.listen = self.proxy.address
        self.enabled = True

    def disable(self) -> None:
        """Stop. What waits is lost."""
        self.enabled = False
        self.proxy.stop()

    def addToxic(self, fields: Mapping[str, Any]) -> Toxic:
        """Add a toxic, behind the others of its stream.

        @raise ControlError: if there is one of that name.
        @raise ValueError: if a field is not what it must be, and C{TypeError}.
        """
        kind, stream = text(fields, "type", None), text(fields, "stream", "downstream").lower()
        name = checkName(text(fields, "name", "") or f"{kind}_{stream}")
        if name in self.toxics:
            raise ControlError(409, f"toxic already exists: {name}")
        if len(self.toxics) >= MAX_TOXICS:
            raise ControlError(409, f"number of toxics must be {MAX_TOXICS} at the most")
        toxic = Toxic(name, kind, stream, fields.get("toxicity", 1.0), fields.get("attributes") or {}, self._seed)
        self.toxics[name] = toxic
        self._apply()
        return toxic

    def removeToxic(self, name: str) -> None:
        """Remove a toxic."""
        del self.toxics[name]
        self._apply()

    def reset(self) -> None:
        """Remove all toxics."""
        self.toxics.clear()
        self._apply()

    def _apply(self) -> None:
        for stream, way in STREAMS.items():
            toxics = [toxic for toxic in self.toxics.values() if toxic.stream == stream]
            plan = self._plans[stream]
            getattr(self.proxy, way).plan = Chain(plan, toxics) if toxics else plan

    def asDictionary(self) -> dict[str, Any]:
        """As Toxiproxy writes it, and what has become of the datagrams in addition."""
        proxy = self.proxy
        return {
            "name": self.name,
            "listen": formatAddress(self.listen),
            "upstream": formatAddress(self.upstream),
            "enabled": self.enabled,
            "toxics": [toxic.asDictionary() for toxic in self.toxics.values()],
            "clients": proxy.clients,
            "up": {"datagrams": proxy.up.datagrams, **+proxy.up.outcomes},
            "down": {"datagrams": proxy.down.datagrams, **+proxy.down.outcomes},
        }


class ProxyTable:
    """All proxies of a process, by name."""

    def __init__(self, make: MakeProxy, seed: str) -> None:
        """@param make: makes a proxy.
        @param seed: determines the decisions of all of them.
        """
        self.proxies: dict[str, NamedProxy] = {}
        self._make = make
        self._seed = seed

    def adopt(self, name: str, proxy: FaultProxy, upstream: tuple[str, int]) -> NamedProxy:
        """Add a proxy that is running."""
        named = self.proxies[name] = NamedProxy(name, proxy, proxy.address, upstream, f"{self._seed} {name}")
        named.enabled = True
        return named

    async def create(self, fields: Mapping[str, Any], replaces: bool = False) -> NamedProxy:
        """Make a proxy.

        @param replaces: whether one of that name is replaced, if it is not the same.
        @raise ControlError: if it cannot be.
        @raise ValueError: if a field is not what it must be, and C{TypeError}.
        """
        name = checkName(text(fields, "name", None))
        listen = _listen(text(fields, "listen", "127.0.0.1:0"))
        upstream = parseAddress(text(fields, "upstream", None))
        enabled = flag(fields, "enabled", True)
        former = self.proxies.get(name)
        if former is not None and not replaces:
            raise ControlError(409, f"proxy already exists: {name}")
        if former is not None and (former.listen, former.upstream) == (listen, upstream):
            former.enable() if enabled else former.disable()
            return former
        if former is None and len(self.proxies) >= MAX_PROXIES:
            raise ControlError(409, f"number of proxies must be {MAX_PROXIES} at the most")
        seed = f"{self._seed} {name}"
        made = NamedProxy(
            name, await self._made(upstream, FaultPlan(f"{seed} up"), FaultPlan(f"{seed} down")), listen, upstream, seed
        )
        if former is not None:
            former.disable()
        try:
            if enabled:
                made.enable()
        except ControlError:
            if former is not None:
                former.enable()
            raise
        self.proxies[name] = made
        return made

    async def update(self, named: NamedProxy, fields: Mapping[str, Any]) -> None:
        """Change where a proxy listens, its upstream, or whether it is enabled. Its clients are forgotten.

        @raise ControlError: if it cannot be; then it stays as it was.
        @raise ValueError: if a field is not what it must be, and C{TypeError}.
        """
        listen = _listen(text(fields, "listen", formatAddress(named.listen)))
        upstream = parseAddress(text(fields, "upstream", formatAddress(named.upstream)))
        enabled = flag(fields, "enabled", named.enabled)
        before = named.proxy, named.listen, named.upstream, named.enabled
        proxy = named.proxy
        if upstream != named.upstream:
            proxy = await self._made(upstream, proxy.up.plan, proxy.down.plan)
            # The sums go on, and so does the time that plans see.
            for new, old in ((proxy.up, named.proxy.up), (proxy.down, named.proxy.down)):
                new.datagrams, new.outcomes, new.began = old.datagrams, old.outcomes, old.began
            proxy.refusals, proxy.refusalsPassed = named.proxy.refusals, named.proxy.refusalsPassed
        if (listen, upstream, enabled) != before[1:]:
            named.disable()
            named.proxy, named.listen, named.upstream = proxy, listen, upstream
        try:
            if enabled:
                named.enable()
        except ControlError:
            named.proxy, named.listen, named.upstream, wasEnabled = before
            if wasEnabled:
                named.enable()
            raise

    async def _made(self, upstream: tuple[str, int], up: Decider, down: Decider) -> FaultProxy:
        try:
            proxy = self._make(upstream, up, down)
            await proxy.upstream.lookUp()
        except (error.DNSLookupError, EchoError) as e:
            raise ControlError(400, str(e.args[0])) from None
        return proxy

    def remove(self, name: str) -> None:
        """Stop a proxy, and forget it."""
        self.proxies.pop(name).disable()

    def reset(self) -> None:
        """Enable all proxies, and remove all toxics.

        @raise ControlError: if one cannot be enabled; all others are.
        """
        failures = []
        for named in self.proxies.values():
            named.reset()
            try:
                named.enable()
            except ControlError as e:
                failures.append(e)
        if failures:
            raise failures[0]


def text(fields: Mapping[str, Any], name: str, default: str | None) -> str:
    """A field that is a string.

    @param default: for a field that is missing; C{None} if it must be there.
    @raise ControlError: if it is missing, or no string.
    """
    value = fields.get(name, default)
    if value is None:
        raise ControlError(400, f"missing required field: {name}")
    if not isinstance(value, str):
        raise ControlError(400, f"{name} must be a string, got {value!r}")
    return value


def flag(fields: Mapping[str, Any], name: str, default: bool) -> bool:
    """A field that is true or false.

    @raise ControlError: if it is something else.
    """
    value = fields.get(name, default)
    if not isinstance(value, bool):
        raise ControlError(400, f"{name} must be true or false, got {value!r}")
    return value


def checkName(name: str) -> str:
    """@raise ControlError: if a name cannot be part of a path, or is too long."""
    if not (0 < len(name) <= MAX_NAME) or not name.isprintable() or "/" in name:
        raise ControlError(400, f"name must be 1 to {MAX_NAME} printable characters without a slash, got {name!r}")
    return name
