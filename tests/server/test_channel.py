"""Worker and main process, talking over a real pair of sockets; one of them may be stopped."""

from __future__ import annotations

import json
import socket
import threading
import time

import pytest

from obsserve.server.channel import WorkerChannel


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    yield ours, theirs
    ours.close()
    theirs.close()


def channel(sock, **options):
    return WorkerChannel(sock, lambda: None, **options)


def read(sock, count):
    with sock.makefile("rb") as lines:
        return [json.loads(lines.readline()) for _ in range(count)]


def test_messages_arrive_in_their_order(pair):
    ours, theirs = pair
    talking = channel(ours)
    talking.tell("ready")
    assert talking.send("app_metrics", snapshot=[1])
    talking.tell("draining")
    assert [message["type"] for message in read(theirs, 3)] == ["ready", "app_metrics", "draining"]


def test_the_event_loop_waits_for_nobody(pair):
    ours, theirs = pair
    talking = channel(ours)
    large = threading.Thread(target=talking.send, args=("app_metrics",), kwargs={"snapshot": "x" * 4_000_000})
    large.start()  # and the main process is stopped
    time.sleep(0.2)
    assert large.is_alive()
    began = time.monotonic()
    talking.tell("recycle", reason="max_requests")
    talking.tell("draining")
    assert time.monotonic() - began < 1
    # It goes on: nothing is lost, nothing is broken in two.
    assert [message["type"] for message in read(theirs, 3)] == ["app_metrics", "recycle", "draining"]
    large.join(10)


def test_a_full_socket_without_anybody_sending(pair):
    ours, theirs = pair
    talking = channel(ours)
    for number in range(20_000):
        talking.tell("pulse", number=number)
    assert talking._told  # no room for all of them

    def send_rest():
        while talking._told:
            talking.tell("more")
            time.sleep(0.001)

    rest = threading.Thread(target=send_rest)
    rest.start()
    found = [message["number"] for message in read(theirs, 20_000)]
    assert found == list(range(20_000))
    theirs.close()
    rest.join(10)


def test_an_impatient_end_loses_what_finds_no_room(pair):
    ours, _theirs = pair
    talking = channel(ours, patient=False)
    began = time.monotonic()
    results = [talking.send("app_metrics", number=number) for number in range(20_000)]
    assert time.monotonic() - began < 10
    assert results[0]
    assert not results[-1]


def test_when_the_other_side_is_gone(pair):
    ours, theirs = pair
    gone = threading.Event()
    talking = WorkerChannel(ours, gone.set)
    talking.start()
    theirs.close()
    assert gone.wait(10)
    talking.join(10)
    assert not talking.send("late")
    talking.tell("later")
    assert not talking._told
