"""The proof that the memory layouts of the system calls are right."""

from __future__ import annotations

import socket
from collections import Counter

from udpecho.net import features, reply_controls
from udpecho.net.batch import SLOT_SIZE, BatchOptions, MessageBatch
from udpecho.net.batch_sender import BatchSender
from udpecho.net.linux import sockopt
from udpecho.net.linux.proof import Proof


def unsupportedReason() -> str | None:
    """Why batches do not work here; C{None} if they do. A test that the system refuses is done again next time: there may be
    no descriptor left, or the loopback interface may be down.
    """
    try:
        return batching.reason()
    except OSError as e:
        return e.strerror or str(e)


@Proof
def batching() -> str | None:
    """Send a few datagrams through a pair of sockets, and back."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as far:
        for sock in (near, far):
            sock.bind(("127.0.0.1", 0))
            sock.setblocking(False)
        near.connect(far.getsockname())
        return _mismatch(near, far)


def _areUsual(batch: MessageBatch, options: BatchOptions) -> bool:
    """Whether the control messages are where all are read at once, in whichever order they may stand."""
    fields, addresses = batch.fields, [batch.address(entry) for entry in range(batch.entries)]
    if fields is None:
        return False
    hosts = b"".join(socket.inet_aton(address.localHost or "") for address in addresses) if options.destinations else b""
    hopLimits = [address.hopLimit for address in addresses] if options.hopLimits else []
    return (not options.destinations or fields.locals4.tobytes() == fields.destinations4.tobytes() == hosts) and (
        not options.hopLimits or fields.hopLimits.tolist() == hopLimits
    )


def _mismatch(near: socket.socket, far: socket.socket) -> str | None:
    """What is wrong, if anything is.

    @raise OSError: if something cannot be done at all.
    """
    payloads = [b"", b"\0" * 3, bytes(range(256)) * 5, b"last"]
    outcomes: Counter[tuple[str | None, int, int]] = Counter()
    canReport = [reply_controls.areTaken(socket.AF_INET, feature) for feature in (features.PKTINFO, features.HOP_LIMIT)]
    destinations, hopLimits = sockopt.enablePktinfo(far, canReport[0]), sockopt.enableRecvHopLimit(far, canReport[1])
    options = BatchOptions(False, None, destinations, hopLimits)
    sender = BatchSender(options, lambda payload, address, callback: callback("send_failed"), Counter())
    batch = MessageBatch(options, sender.send)
    for payload in payloads:
        near.send(payload)
    if batch.receive(far.fileno()) != len(payloads) or batch.sizes() != list(map(len, payloads)):
        return "a batch has not the lengths of what was sent"
    if [batch.payloads(entry) for entry in range(len(payloads))] != [[payload] for payload in payloads]:
        return "a batch has not the bytes that were sent"
    host, port = near.getsockname()
    address = batch.address(1)
    expired = batch.nonUnicast() or batch.hopLimitExpired()
    if tuple(address) != (host, port) or batch.ports() != [port] * len(payloads) or expired:
        return "a batch has not the addresses of what was sent"
    if (options.destinations and address.localHost != host) or (options.hopLimits and not address.hopLimit):
        return "a batch has not the control messages of what was sent"
    if not _areUsual(batch, options):
        return "a batch has its control messages at other places"
    batch.drop(1, "not_allowed")
    batch.send(lambda reason, datagrams, size: outcomes.update([(reason, datagrams, size)]))
    del payloads[1]
    if outcomes != Counter([("not_allowed", 1, 3), (None, 3, sum(map(len, payloads)))]):
        return "a batch cannot be sent"
    if [near.recv(SLOT_SIZE) for _ in payloads] != payloads:
        return "what was sent by the batch is not what comes"
    return None
