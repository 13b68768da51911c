"""Ctrl-C and termination: the first asks for an end, the second is the signal's own."""

from __future__ import annotations

import signal

import pytest

from sentio_rllib.search.interruption import Interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_for_an_end_and_gives_the_signals_back(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    with Interruption() as interruption:
        assert not interruption.stop_all()
        signal.raise_signal(number)
        assert interruption.stop_all()
        assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
        interruption.listen()
        assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == before
    assert capsys.readouterr().out == "ending: trials are stopped, what was reached is written\n"
