"""A signal ends a command wherever it comes, also where Python passes on no exception."""

import subprocess
import sys

import pytest

from tests.pages import ROOT

START = """
import os
import signal
import weakref

from fastpubsub import stopping
from fastpubsub.cli.interrupts import Interrupts


class Thing:
    pass


def come(number):
    signal.raise_signal(number)
    for _ in range(1000):  # the interpreter looks for signals between two rounds
        pass


def come_unheard(number):
    thing = Thing()
    watching = weakref.ref(thing, lambda _: come(number))
    del thing
    return watching


def wait():
    os.write(writing, bytes(1 << 24))


reading, writing = os.pipe()
"""

FIRST = """
try:
    with Interrupts().installed():
        come_unheard(signal.{name})
        wait()
except KeyboardInterrupt:
    print("interrupted")
"""

DEFERRED = """
try:
    with Interrupts().installed() as interrupts:
        with interrupts.deferred():
            come_unheard(signal.SIGINT)
            print("deferred")
        print("not reached")
except KeyboardInterrupt:
    print("interrupted")
"""

UNHEARD_THEN_DEFERRED = """
stopping.AGAIN_SECONDS = 3600
try:
    with Interrupts().installed() as interrupts:
        come_unheard(signal.SIGINT)
        with interrupts.deferred():
            come(signal.SIGALRM)
            print("deferred")
        print("not reached")
except KeyboardInterrupt:
    print("interrupted")
"""

SECOND = """
try:
    with Interrupts().installed() as interrupts, interrupts.deferred():
        come(signal.SIGTERM)
        print("deferred")
        come_unheard(signal.SIGTERM)
        wait()
except KeyboardInterrupt:
    print("interrupted")
"""

EXIT = """
def leave(_number, _frame):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise SystemExit("left")


signal.signal(signal.SIGTERM, leave)
with stopping.insisting(SystemExit, leave):
    come_unheard(signal.SIGTERM)
    wait()
"""

OTHERS = """
class Broken(Thing):
    def __del__(self):
        raise ValueError("of another kind")


with Interrupts().installed():
    Broken()
print("went on")
"""

WHILE_IT_IS_DROPPED = """
stopping.AGAIN_SECONDS = 1e-4
for _ in range(200):
    try:
        with Interrupts().installed():
            come_unheard(signal.SIGINT)
            wait()
    except KeyboardInterrupt:
        continue
print("interrupted")
"""


def run(text: str) -> tuple[int, str, str]:
    command = [sys.executable, "-c", START + text]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        (FIRST.format(name="SIGINT"), "interrupted\n"),
        (FIRST.format(name="SIGTERM"), "interrupted\n"),
        (DEFERRED, "deferred\ninterrupted\n"),
        (UNHEARD_THEN_DEFERRED, "deferred\ninterrupted\n"),
        (SECOND, "deferred\ninterrupted\n"),
        (WHILE_IT_IS_DROPPED, "interrupted\n"),
    ],
    ids=["SIGINT", "SIGTERM", "deferred", "unheard, then deferred", "a second one", "at once"],
)
def test_a_signal_in_a_callback_of_a_weak_reference_is_heard(text: str, printed: str) -> None:
    assert run(text) == (0, printed, "")


def test_so_is_one_that_ends_the_process() -> None:
    assert run(EXIT) == (1, "", "left\n")


def test_what_else_is_dropped_is_shown_as_ever() -> None:
    code, printed, errors = run(OTHERS)
    assert (code, printed, "ValueError: of another kind" in errors) == (0, "went on\n", True)
