"""The demo served by several processes: one ring, a page that is the same whichever answers, and one of them killed."""

import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from examples.demo.board import Board, together
from examples.demo.key_history import KeyLife
from server_keys import KeyRing
from server_keys.client import sealed_client
from tests.helpers.demo_process import Demo, running_demo

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the demo has several processes on POSIX systems only")


@pytest.fixture
def demo() -> Iterator[Demo]:
    with running_demo("--workers", "2", "--refresh-time-s", "2", "--word-delay-s", "0.001") as demo:
        demo.wait_for_line(r"serves \(2 now\)")
        yield demo


def keys(demo: Demo) -> Any:
    return demo.ask("GET", "/keys")[1]


def until(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, otherwise
        time.sleep(0.05)


def chat(client: httpx2.Client, demo: Demo) -> str:
    """Ask for one answer, and return which process gave it."""
    question = {"model": "toy-rambler", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 5}
    answer = client.post(f"{demo.url}/v1/chat/completions", json=question)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Ehbp-Response-Nonce"]
    return str(json.loads(answer.text)["system_fingerprint"])


def test_sealed_chats_go_on_when_a_process_is_killed(demo: Demo) -> None:
    first, second = sorted(process["pid"] for process in keys(demo)["processes"])
    began = keys(demo)["made"]
    limits = httpx2.Limits(max_keepalive_connections=0)
    with sealed_client(limits=limits) as client:
        answered = {chat(client, demo) for _ in range(40)}
        assert answered == {f"process {first}", f"process {second}"}
        os.kill(first, signal.SIGKILL)
        answered = {chat(client, demo) for _ in range(20)}
        demo.wait_for_line(rf"process {first} is gone")
        demo.wait_for_line(r"serves \(2 now\)[^\n]*", within_s=20)
        until(lambda: sum(process["serves"] for process in keys(demo)["processes"]) == 2, "nobody took its place")
        (newcomer,) = {process["pid"] for process in keys(demo)["processes"]} - {first, second}
        until(lambda: chat(client, demo) == f"process {newcomer}", "the newcomer answered nothing")
        until(lambda: keys(demo)["made"] >= began + 3, "the keys rotate no more")
        chat(client, demo)
    told = {process["pid"]: process for process in keys(demo)["processes"]}
    assert not told[first]["serves"]
    assert told[second]["shared"]
    assert told[newcomer]["shared"]


def test_the_page_gets_the_same_keys_whichever_process_answers(demo: Demo) -> None:
    demo.wait_for_line(r"key +1 \S+ erased")
    by_process = {}
    for _ in range(60):
        answer = keys(demo)
        by_process[answer["answered_by"]] = [key["public_key"] for key in answer["keys"]]
        if len(by_process) == 2:
            break
    first, second = by_process.values()
    # A key may have come between the two answers.
    assert set(first) & set(second) >= set(first[1:-1])
    assert len(first) >= 3
    assert len({process["epoch"] for process in answer["processes"]}) == 1


def test_the_terminal_tells_of_one_ring_and_of_each_event_once() -> None:
    with running_demo("--workers", "2", "--refresh-time-s", "1.5", "--overlap-s", "1") as demo:
        demo.wait_for_line(r"serves \(2 now\). To see what its end does: kill -9 \d+")
        demo.wait_for_line(r"key +4 \S+ erased after [23]\.\d s", within_s=30)
    assert demo.process.returncode == 0
    text = "\n".join(demo.lines)
    for number in (2, 3):
        events = re.findall(rf"key +{number} \S+ (came, published in \d\.\d s|\w+)", text)
        assert [event.split()[0].strip(",") for event in events] == ["came", "published", "replaced", "erased"]
        assert re.fullmatch(r"came, published in 0\.\d s", events[0])
    assert "Stopped: 2 of 2 processes have erased all of their key pairs." in text
    assert not any("Traceback" in line for line in demo.lines)


def test_processes_that_cannot_share_say_so() -> None:
    with running_demo("--workers", "2", "--refresh-time-s", "2", "--overlap-s", "0.2") as demo:
        demo.wait_for_line(r"serves \(2 now\)")
        processes = keys(demo)["processes"]
        assert [process["shared"] for process in processes] == [False, False]
        assert {process["why_not"] for process in processes} == {
            "a refresh time or an overlap below 0.5 s is too short to be shared"
        }
        demo.wait_for_line("WARNING server_keys: each worker of this server has keys of its own")


def test_one_process_alone_tells_of_no_group() -> None:
    with running_demo() as demo:
        assert keys(demo)["processes"] == []


LIFE = KeyLife(7, "ab" * 32, made_at=10.0)


def test_a_key_is_replaced_and_erased_when_the_last_process_has_done_so() -> None:
    first = KeyLife(7, LIFE.public_key, made_at=10.1, replaced_at=12.0, erased_at=14.0, agreements=2)
    assert together([LIFE, first]) == (KeyLife(7, LIFE.public_key, made_at=10.0, agreements=2),)
    second = KeyLife(7, LIFE.public_key, made_at=10.0, replaced_at=12.1, erased_at=14.1, agreements=1)
    assert together([first, second]) == (
        KeyLife(7, LIFE.public_key, made_at=10.0, replaced_at=12.1, erased_at=14.1, agreements=3),
    )


def test_a_key_is_coming_until_one_process_has_published_it() -> None:
    coming = KeyLife(7, LIFE.public_key, made_at=11.0, is_coming=True)
    assert together([coming, coming])[0].is_coming
    assert not together([coming, LIFE])[0].is_coming


def test_the_newest_keys_come_first() -> None:
    lives = [KeyLife(number, f"{number:064x}", made_at=float(number)) for number in (2, 3, 1)]
    assert [life.number for life in together(lives)] == [3, 2, 1]


def test_a_process_that_hangs_counts_as_gone_and_is_shown_for_a_while(tmp_path: Path) -> None:
    now_s = 100.0
    board = Board(tmp_path, clock=lambda: now_s)
    with KeyRing(300) as ring:
        board.tell(ring, (LIFE,), 1)
    (process,) = board.processes()
    assert (process.pid, process.lives, process.unerased) == (os.getpid(), (LIFE,), 1)
    assert board.serves(process)
    assert board.lives() == (LIFE,)
    now_s += 3
    assert not board.serves(process)
    assert board.lives() == ()
    assert board.shown() == [process]
    now_s += 15
    assert board.shown() == []
