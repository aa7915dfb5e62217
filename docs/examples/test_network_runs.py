from udpecho import EchoServer, MemoryNetwork, echo


def test_runs():
    network = MemoryNetwork(latency=0.01)
    here, there = network.host("here", "192.0.2.1"), network.host("there", "192.0.2.2")
    there.listenUDP(7, EchoServer())

    async def twice():
        return await echo(here, "there", 7, b"hello") + await echo(here, "there", 7, b"world!")

    assert network.runUntil(twice(), timeout=1) == 11
    waiting = echo(here, "there", 7, b"hello")
    event = network.step()
    assert event is not None
    assert "192.0.2.2:7" in event.what
    network.runUntilIdle()
    assert waiting.result == 5
