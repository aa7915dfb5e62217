"""Tests of L{udpecho.net.linux.proof}."""

from __future__ import annotations

import errno

import pytest

from udpecho.net.linux.proof import Proof


class ProofTests:
    """L{Proof}."""

    @pytest.mark.parametrize("fault", [None, "it is not so"])
    def test_once(self, fault: str | None) -> None:
        """What is proven, and what is not, stands for as long as the process lives."""
        calls: list[None] = []
        proof = Proof(lambda: calls.append(None) or fault)  # type: ignore[func-returns-value]
        assert [proof.reason(), proof.reason()] == [fault, fault]
        assert len(calls) == 1
        proof.forget()
        assert proof.reason() == fault
        assert len(calls) == 2

    @pytest.mark.parametrize("error", [BufferError("no"), AttributeError("no"), NotImplementedError("no"), MemoryError("no")])
    def test_raises(self, error: Exception) -> None:
        """Whatever it raises is a refusal, once."""
        errors = [error]

        @Proof
        def proof() -> str | None:
            raise errors.pop()

        assert proof.reason() == proof.reason() == f"{type(error).__name__}: no"

    def test_ofTheMoment(self) -> None:
        """What the system refuses is tried again; without a descriptor nobody knows."""
        errors = [OSError(errno.ENETDOWN, "Network is down"), OSError(errno.EMFILE, "none left"), None]

        @Proof
        def proof() -> str | None:
            error = errors.pop(0)
            if error is not None:
                raise error
            return None

        assert proof.reason() == "Network is down"
        with pytest.raises(OSError, match="none left"):
            proof.reason()
        assert proof.reason() is None
