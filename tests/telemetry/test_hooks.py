"""Hooks call their observers, whatever one of them does; in C where that was built, and in Python."""

import gc
import weakref

import pytest

from obsserve.telemetry import hooks
from obsserve.telemetry.hooks import Hooks


@pytest.fixture(params=["C", "Python"], autouse=True)
def way(request, monkeypatch):
    if request.param == "Python":
        monkeypatch.setattr(hooks, "native", None)
    elif hooks.native is None:
        pytest.skip("the part in C was not built, or is left aside")


class Observer:
    """Writes down what it sees, and raises if it is to."""

    def __init__(self, name, seen, fault=None):
        self.name, self.seen, self.fault = name, seen, fault

    def exchange_ended(self, view):
        self.seen.append((self.name, view))
        if self.fault is not None:
            raise self.fault


def compiled(*faults):
    seen, told = [], []
    observers = [Observer(n, seen, fault) for n, fault in enumerate(faults)]
    made = Hooks(observers, lambda observer, hook, fault: told.append((observer.name, hook, fault)))
    return made, seen, told


def test_nobody_implements_it():
    made, _, _ = compiled(None)
    assert made.exchange_started is None
    assert Hooks().exchange_ended is None


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_all_are_called_in_their_order(count):
    made, seen, _ = compiled(*[None] * count)
    made.exchange_ended("view")
    assert seen == [(n, "view") for n in range(count)]


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("at", [0, 1, -1])
def test_one_that_raises_is_told_of_once_and_removed(count, at):
    fault = LookupError("no")
    faults = [None] * count
    faults[at] = fault
    made, seen, told = compiled(*faults)
    made.exchange_ended("view")
    assert seen == [(n, "view") for n in range(count)], "it must not silence the others"
    faulty = at % count
    assert told == [(faulty, "exchange_ended", fault)]
    assert fault.__traceback__ is not None, "who looks for the fault needs the place"
    seen.clear()
    made.exchange_ended("next")
    assert seen == [(n, "next") for n in range(count) if n != faulty]
    assert len(told) == 1


def test_all_raise():
    made, seen, told = compiled(*(ValueError(n) for n in range(3)))
    made.exchange_ended("view")
    assert len(seen) == len(told) == 3
    assert made.exchange_ended is None


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit])
def test_what_is_to_end_the_process_is_not_swallowed(end):
    made, seen, told = compiled(None, end(), None)
    with pytest.raises(end):
        made.exchange_ended("view")
    assert told == []
    assert [name for name, _ in seen] == [0, 1]


def test_a_report_that_raises_comes_out():
    """It is the server's own; to swallow it would hide it."""
    observers = [Observer(0, [], ValueError("first")), Observer(1, [])]

    def report(*_):
        raise RuntimeError("the report")

    made = Hooks(observers, report)
    with pytest.raises(RuntimeError, match="the report"):
        made.exchange_ended("view")


def test_an_observer_that_has_the_hooks_compiled_again_while_it_is_called():
    seen = []
    first, last = Observer("first", seen), Observer("last", seen)

    class Restless:
        def exchange_ended(self, view):
            made.replace([first, self, last], [])
            gc.collect()

    made = Hooks([first, Restless(), last])
    made.exchange_ended("view")
    assert [name for name, _ in seen] == ["first", "last"], "those of the call that is under way"
    assert made.exchange_ended is None


def test_hooks_that_nobody_holds_go_away():
    made, _, _ = compiled(None, None, None)
    observer = made._observers[0]
    watched = weakref.ref(observer)
    observer.hooks = made  # a cycle through the compiled call
    del made, observer
    gc.collect()
    assert watched() is None


def test_it_takes_what_is_observed_and_nothing_else():
    made, _, _ = compiled(None, None)
    for given, named in (((), {}), (("view", "more"), {}), ((), {"sight": "view"})):
        with pytest.raises(TypeError):
            made.exchange_ended(*given, **named)


def test_measured_calls_are_followed_by_usual_ones():
    made, seen, told = compiled(None, ValueError("no"), None)
    usual = made.exchange_ended
    costs = []
    made.measure(1, lambda hook, each: costs.append((hook, len(each))))
    assert made.exchange_ended is not usual
    made.exchange_ended("view")
    assert costs == [("exchange_ended", 3)]
    assert [name for name, _, _ in told] == [1]
    made.exchange_ended("next")
    assert [name for name, view in seen if view == "next"] == [0, 2]
