"""pip install udpecho pytest rpcudp==2.1 future; pytest test_deposit.py"""

import pytest

from udpecho import FaultPlan, MemoryNetwork


@pytest.mark.parametrize("seed", range(20))
def test_deposit(seed):
    network = MemoryNetwork(FaultPlan(seed, loss=0.1, duplicate=0.1), latency=0.01)
    bank, customer = network.host("bank", "192.0.2.1"), network.host("customer", "192.0.2.2")
    with network.running(bank, seed=seed):
        from rpcudp.protocol import RPCProtocol

        class Account(RPCProtocol):
            balance = 0

            def rpc_deposit(self, sender, amount):
                self.balance += amount
                return self.balance

        account, teller = Account(), RPCProtocol()
        bank.listenUDP(1234, account)
        with network.running(customer):
            customer.listenUDP(0, teller)
            teller.deposit(("192.0.2.1", 1234), 10)
        network.advance(60)
    assert account.balance <= 10, f"\n{network.trace}"
