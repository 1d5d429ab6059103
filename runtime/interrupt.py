"""Ctrl-C as an exception after which the process ends with the exit status that was chosen for it."""

import signal


class Interrupt(KeyboardInterrupt):
    """What SIGINT raises instead of a plain KeyboardInterrupt.

    When a plain one passes an `exec` of a text, which imports of named tuples and data classes are full of, CPython
    ends the process by SIGINT in the end, although the exception was handled and another exit status was chosen.
    """


def raise_on_sigint() -> list[int]:
    """Raise `Interrupt` at SIGINT; return a list of signals that came: libraries convert the exception to others."""
    received: list[int] = []

    def interrupt(number: int, _: object) -> None:
        received.append(number)
        raise Interrupt

    signal.signal(signal.SIGINT, interrupt)
    return received
