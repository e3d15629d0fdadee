"""What has been answered is not asked again: not after a stop, a kill, or under another address."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from kvg.errors import DataError
from kvg.inference.cache import AnswerCache
from kvg.inference.http_call import Reply
from tests.inference.conftest import as_it_is, questions
from tests.inference.scripted import ScriptedServer, answer, says

KEYS = ["00" * 32, "11" * 32, "22" * 32, "33" * 32]


def start(server, work, num, catch="catch", limit=0) -> subprocess.Popen[str]:
    arguments = [server.url, str(work), str(num), catch, str(limit)]
    command = [sys.executable, "-X", "dev", "-m", "tests.inference.ask_in_process", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(server, num) -> None:
    deadline = time.monotonic() + 20
    while len(server.bodies) < num and time.monotonic() < deadline:
        time.sleep(0.002)


def test_answers_are_found_again_by_another_process(tmp_path):
    cache = AnswerCache(tmp_path / "work")
    assert not (tmp_path / "work").exists()
    replies = [Reply("first", False, 3, 4), Reply('ä "\n\u2028 ', True), Reply("", True, None, 0)]
    for key, reply in zip(KEYS, replies, strict=False):
        cache.put(key, reply)
        assert cache.get(key) == reply
    again = AnswerCache(tmp_path / "work")  # the first is still open
    assert [again.get(key) for key in KEYS] == [*replies, None]
    again.put(KEYS[3], replies[0])
    cache.close()
    again.close()
    assert len(AnswerCache(tmp_path / "work")) == 4
    assert sorted(path.name for path in (tmp_path / "work").iterdir()) == [
        "answers-000001.jsonl",
        "answers-000002.jsonl",
    ]


def test_a_line_that_was_cut_off_is_passed_over_and_odd_ones_are_counted(tmp_path, caplog):
    cache = AnswerCache(tmp_path)
    for key in KEYS[:3]:
        cache.put(key, Reply("text", False))
    cache.close()
    path = tmp_path / "answers-000001.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    for end in range(len(lines[2])):
        path.write_bytes(lines[0] + lines[1] + lines[2][:end])
        assert len(AnswerCache(tmp_path)) == 2
    assert not caplog.records
    odd = [b"\n", b"null\n", b"\xff\n", b'{"key": 3}\n', lines[2].replace(b'"text"', b"7"), b"[" * 99_999 + b"\n"]
    path.write_bytes(lines[0] + b"".join(odd) + lines[1])
    assert len(AnswerCache(tmp_path)) == 2
    assert AnswerCache(tmp_path).get(KEYS[1]) == Reply("text", False)
    assert "6 lines are not answers" in caplog.text


def test_a_file_that_changes_under_us_is_noticed(tmp_path):
    cache = AnswerCache(tmp_path)
    cache.put(KEYS[0], Reply("text", False))
    path = tmp_path / "answers-000001.jsonl"
    path.write_bytes(b"x" + path.read_bytes())
    with pytest.raises(DataError, match="changed by another program"):
        cache.get(KEYS[0])
    path.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        cache.get(KEYS[0])
    cache.close()


def test_nothing_is_asked_twice_after_a_stop(client, tmp_path):
    with ScriptedServer(latency=0.005) as server:
        outcomes = client(server).ask(questions(60, answers=2), as_it_is, tmp_path)
        first = [next(outcomes) for _ in range(20)]
        outcomes.close()
        before = len(server.bodies)
        again = client(server)
        everything = list(again.ask(questions(60, answers=2), as_it_is, tmp_path))
        assert everything[:20] == first
        assert again.tally.cached >= 40
        assert len(server.bodies) == before + 120 - again.tally.cached
        calls = Counter((body["seed"], body["messages"][0]["content"][1]["text"]) for body in server.bodies)
        assert len(calls) == 120
        assert sum(calls.values()) <= 120 + 4  # but for those that were under way
    last = client(server)  # the server has gone, and nobody needs it
    assert list(last.ask(questions(60, answers=2), as_it_is, tmp_path)) == everything
    assert last.tally.cached == 120


def test_a_refused_answer_is_kept_and_judged_anew(client, tmp_path):
    def strict(request, text):
        raise DataError(request.key, "answer", "is no good")

    with ScriptedServer() as server:
        assert not any(o.complete for o in client(server).ask(questions(3), strict, tmp_path, max_attempts=2))
        outcomes = list(client(server).ask(questions(3), strict, tmp_path, max_attempts=2))
        assert [len(outcome.faults) for outcome in outcomes] == [2, 2, 2]
        assert all(o.complete for o in client(server).ask(questions(3), as_it_is, tmp_path))
        assert len(server.bodies) == 6


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.1},
        {"top_p": 0.5},
        {"max_tokens": 9},
        {"seed": 1},
        {"system": "a"},
        {"extra": {"b": 1}},
        {"model": "other"},
    ],
)
def test_other_settings_are_another_question(client, tmp_path, settings):
    with ScriptedServer(models=None) as server:
        for _ in range(2):
            list(client(server).ask(questions(1), as_it_is, tmp_path))
            list(client(server, **settings).ask(questions(1), as_it_is, tmp_path))
    assert len(server.bodies) == 2


def test_a_failure_is_not_kept(client, tmp_path):
    with ScriptedServer({0: says({"error": "too long"}, 400)}) as server:
        assert not any(o.complete for o in client(server).ask(questions(1), as_it_is, tmp_path))
        assert all(o.complete for o in client(server).ask(questions(1), as_it_is, tmp_path))


def test_a_killed_process_goes_on_where_it_was(tmp_path):
    with ScriptedServer(latency=0.02) as server:
        process = start(server, tmp_path, 100)
        wait_for(server, 40)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        last = start(server, tmp_path, 100)
        out, err = last.communicate()
        assert (last.returncode, err) == (0, "")
        assert out.splitlines() == [*(f"key-{n} question {n} seen" for n in range(100)), "False"]  # without torch
        asked = Counter(server.asked)
        assert len(asked) == 100
        assert sum(asked.values()) <= 100 + 4  # but for those that were under way


@pytest.mark.parametrize("catch", ["catch", "leave"])
def test_an_interrupted_process_ends_in_order(tmp_path, catch):
    with ScriptedServer(latency=0.02) as server:
        process = start(server, tmp_path, 500, catch)
        wait_for(server, 20)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
        assert "False" not in out
        if catch == "catch":
            assert (process.returncode, err) == (130, "")  # -X dev would tell of threads, sockets and tasks
        else:
            assert process.returncode == -signal.SIGINT
            assert err.count("Traceback") == 1
            assert err.endswith("KeyboardInterrupt\n")


def test_a_full_disk_is_said_so(tmp_path):
    with ScriptedServer(lambda number, body: says(answer("long " * 100))) as server:
        process = start(server, tmp_path / "work", 100, limit=4000)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (2, "")
        assert out.splitlines()[-1].startswith(f"{tmp_path / 'work'}: out: cannot be written (File too large); free")
        last = start(server, tmp_path / "work", 20)
        assert last.communicate(timeout=20)[1] == ""
        assert last.returncode == 0


def test_a_folder_that_cannot_be_made_is_said_so(client, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with ScriptedServer() as server, pytest.raises(DataError, match="cannot be written"):
        list(client(server).ask(questions(3), as_it_is, tmp_path / "file"))


def test_twenty_thousand_answers_are_found_in_a_moment(tmp_path):
    cache = AnswerCache(tmp_path)
    for number in range(20_000):
        cache.put(f"{number:064x}", Reply("x" * 200, False, 1, 2))
    cache.close()
    began = time.monotonic()
    again = AnswerCache(tmp_path)
    assert time.monotonic() - began < 3
    assert len(again) == 20_000
    assert again.get(f"{19_999:064x}") == Reply("x" * 200, False, 1, 2)
