"""Any command line, any control message, any datagram: inputs that nobody has thought of.

Configuration files are in L{tests.daemon.test_config_file}, socket activation in L{tests.daemon.test_systemd}.
"""

from __future__ import annotations

import socket
import struct
from contextlib import redirect_stdout
from io import StringIO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.python import usage

from tests.support.guards import onlyLinux
from tests.support.processes import Processes
from tests.support.running import PATIENCE, udpSocket
from udpecho.daemon.server_tap import Options
from udpecho.net.linux import cmsg, errqueue, sockopt
from udpecho.net.sockets import growReceiveBuffer
from udpecho.server.settings import OPTIONS

_values = st.one_of(
    st.text(max_size=8),
    st.integers().map(str),
    st.floats().map(str),
    st.ip_addresses().map(str),
    st.sampled_from(
        ["", "0", "-1", "all", "auto", "any", "private", "10.0.0.0/8", "4M", "nan", "1e400", "٣", "tcp:0", "::/0", "%"]
    ),
)
_names = st.sampled_from([*OPTIONS, "help", "version", "socket", "m", "no"])
_words = st.one_of(
    st.builds("--{}={}".format, _names, _values),
    st.builds("--{}".format, _names),
    st.sampled_from(["-p", "-i", "-i::1", "-p0", "--", "-", "--=", "-pi"]),
    _values,
)

_kinds = st.one_of(
    st.sampled_from(
        [
            (socket.IPPROTO_IP, sockopt.IP_PKTINFO),
            (socket.IPPROTO_IP, sockopt.IP_TTL),
            (socket.IPPROTO_IP, sockopt.IP_RECVERR),
            (socket.IPPROTO_IPV6, sockopt.IPV6_PKTINFO),
            (socket.IPPROTO_IPV6, sockopt.IPV6_HOPLIMIT),
            (socket.IPPROTO_IPV6, sockopt.IPV6_RECVERR),
            (sockopt.SOL_UDP, sockopt.UDP_GRO),
            (socket.SOL_SOCKET, sockopt.SO_TIMESTAMPING),
        ]
    ),
    st.tuples(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1)),
)
_messages = st.lists(st.builds(lambda kind, data: (*kind, data), _kinds, st.binary(max_size=64)), max_size=5)

#: A send: how long each datagram is, how many go as one, and with what time to live.
_sends = st.tuples(st.integers(0, 1400), st.integers(1, 20), st.sampled_from([1, 2, 3, 64, 255]))


class OptionsTests:
    """L{Options}."""

    @given(st.lists(_words, max_size=6))
    @settings(max_examples=150, deadline=None)
    def test_anyCommandLine(self, arguments: list[str]) -> None:
        """Any command line is read, or refused in a line, or shows the help."""
        message = "no error"
        try:
            with redirect_stdout(StringIO()):
                Options().parseOptions(arguments)
        except usage.UsageError as e:
            message = str(e)
        except SystemExit:
            assert any(argument.startswith(("--h", "--v", "--ch")) for argument in arguments)
        assert len(message.strip().splitlines()) == 1, message


@onlyLinux
class ControlMessageTests:
    """What reads control messages."""

    @given(_messages)
    def test_anyMessages(self, messages: cmsg.Ancillary) -> None:
        """Messages of any length are read or left out: a truncated one is left out, and raises nothing."""
        found = cmsg.readControls((messages, 0))
        assert found.segment >= 0
        errqueue.readEntry(messages)
        assert cmsg.unpackControls(cmsg.packControls(messages)) == messages

    @given(_messages, st.data())
    def test_anyBytes(self, messages: cmsg.Ancillary, data: st.DataObject) -> None:
        """So are bytes that are nearly messages."""
        written = bytearray(cmsg.packControls(messages))
        for _ in range(data.draw(st.integers(0, 4)) if written else 0):
            written[data.draw(st.integers(0, len(written) - 1))] = data.draw(st.integers(0, 255))
        cmsg.readControls((cmsg.unpackControls(bytes(written[: data.draw(st.integers(0, len(written)))])), 0))

    @pytest.mark.parametrize("length", range(12))
    def test_truncated(self, length: int) -> None:
        """A truncated destination counts as none."""
        whole = struct.pack("@I4s4s", 1, bytes([127, 0, 0, 2]), bytes([127, 0, 0, 2]))
        message = (socket.IPPROTO_IP, sockopt.IP_PKTINFO, whole[:length])
        found = cmsg.readControls(([message], 0))
        assert (found.local, found.truncated, found.expected) == (None, True, False)
        assert cmsg.readControls(([(*message[:2], whole)], 0)).local == "127.0.0.2"


@onlyLinux
class DatagramTests:
    """C{twistd udpecho}."""

    @pytest.mark.parametrize("options", [[], ["--no-offload"]], ids=["batches", "singly"])
    def test_anyDatagrams(self, processes: Processes, options: list[str]) -> None:
        """Datagrams of any length, alone and as GSO segments, with any time to live: each that has hops left for a reply
        comes back as it was sent, and the others are counted.
        """
        # On a busy machine all the datagrams of an example may have to wait in a receive buffer, on either side.
        server = processes.server("--interface", "127.0.0.1", "--log-datagrams", "0", "--receive-buffer", "4M", *options)
        sent = echoed = 0

        @given(st.lists(_sends, min_size=1, max_size=8))
        @settings(max_examples=60, deadline=None)
        def check(sends: list[tuple[int, int, int]]) -> None:
            nonlocal sent, echoed
            wanted: list[bytes] = []
            with udpSocket() as sock:
                sock.settimeout(PATIENCE)
                growReceiveBuffer(sock, 2**22)
                sock.connect(server.addresses[0])
                for number, (size, count, hops) in enumerate(sends):
                    count = count if size else 1
                    datagrams = [bytes([number, index] * size)[:size] for index in range(count)]
                    control = [(socket.IPPROTO_IP, sockopt.IP_TTL, struct.pack("@i", hops))]
                    if count > 1:
                        control.append((sockopt.SOL_UDP, sockopt.UDP_SEGMENT, struct.pack("@H", size)))
                    sock.sendmsg([b"".join(datagrams)], control)
                    sent += count
                    if hops > 1:
                        wanted += datagrams
                replies = [sock.recv(65536) for _ in wanted]
                echoed += len(wanted)
                assert sorted(replies) == sorted(wanted)

        check()
        sums = server.stop()
        assert (sums["received"], sums["echoed"], sums.get("loop_guard", 0)) == (sent, echoed, sent - echoed)
