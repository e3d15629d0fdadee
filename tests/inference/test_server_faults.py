"""Servers that fail in every way: what passes is waited for, what does not is a fault or an end."""

from __future__ import annotations

import email.utils
import logging
import socket
import time

import pytest

from kvg.errors import ConfigError, DataError
from kvg.inference.http_call import Refused, _retry_after, quoted
from kvg.inference.request import Request
from kvg.inference.server import Server
from tests.inference.conftest import PICTURE, as_it_is, questions
from tests.inference.scripted import MODEL, ScriptedServer, answer, cuts, question, resets, says, waits

PASSING = {
    "status 500": says({"error": {"message": "oops"}}, 500),
    "status 503": says(b"<html>busy</html>", 503),
    "status 408": says({}, 408),
    "status 409": says({}, 409),
    "status 425": says({}, 425),
    "status 429": says({"error": "slow down"}, 429, Retry_After="0"),
    "time-out": waits(5),
    "cut connection": cuts,
    "broken JSON": says(b'{"choices": [{"message": {"con'),
    "wrong schema": says({"object": "error", "message": "engine is dead"}),
    "an empty answer": says(answer("  \n")),
}


@pytest.mark.parametrize("kind", PASSING)
def test_a_failure_that_passes_is_waited_for(client, tmp_path, kind):
    with ScriptedServer({1: PASSING[kind], 2: PASSING[kind]}) as server:
        patient = client(server, concurrency=1, timeout=0.3 if kind == "time-out" else 30)
        outcomes = list(patient.ask(questions(3), as_it_is, tmp_path))
    assert [(o.values, o.faults) for o in outcomes] == [((f"question {n} seen",), ()) for n in range(3)]
    assert patient.tally.retries == {kind: 2}
    assert server.asked == ["question 0", "question 1", "question 1", "question 1", "question 2"]
    assert len({body["seed"] for body in server.bodies}) == 3  # the very same call


@pytest.mark.parametrize(
    "found",
    [[], 7, None, {"choices": []}, {"choices": [{}]}, {"choices": [[]]}, answer(["text"]), answer({"text": "a"})],
)
def test_json_that_is_no_answer_is_not_taken_for_one(client, tmp_path, found):
    with ScriptedServer({0: says(found)}) as server:
        patient = client(server)
        assert next(iter(patient.ask(questions(1), as_it_is, tmp_path))).values == ("question 0 seen",)
    assert patient.tally.retries == {"wrong schema": 1}


def test_a_connection_that_is_reset_is_tried_again(client, tmp_path):
    with ScriptedServer({0: resets}) as server:
        patient = client(server, concurrency=1)
        assert [o.values for o in patient.ask(questions(1), as_it_is, tmp_path)] == [("question 0 seen",)]
    assert patient.tally.retries == {"cut connection": 1}


def test_waits_grow_twofold_with_chance_from_the_seed(client, tmp_path):
    gaps = []
    for name in "ab":
        with ScriptedServer({n: says({}, 500) for n in range(3)}) as server:
            list(client(server, backoff=0.06, retries=3).ask(questions(1), as_it_is, tmp_path / name))
        gaps.append([b - a for a, b in zip(server.times, server.times[1:], strict=False)])
    for times in gaps:
        for number, gap in enumerate(times):
            assert 0.5 * 0.06 * 2**number <= gap < 0.06 * 2**number + 0.15
    assert all(abs(a - b) < 0.15 for a, b in zip(*gaps, strict=True))


def test_a_server_that_asks_to_be_left_alone_is_left_alone_by_all(client, tmp_path):
    with ScriptedServer({3: says({}, 429, Retry_After="1")}, latency=0.05) as server:
        assert all(o.complete for o in client(server).ask(questions(12), as_it_is, tmp_path))
    refused = server.times[3]
    assert [t for t in server.times if refused + 0.1 < t < refused + 0.98] == []
    assert server.times[-1] < refused + 3


def test_a_pause_is_given_in_seconds_or_as_a_date():
    assert _retry_after("7") == 7
    assert 55 < _retry_after(email.utils.formatdate(time.time() + 60, usegmt=True)) <= 60
    for odd in ("", "-5", "nan", "inf", "soon", "Mon, 99 Foo 2020 00:00:00 GMT", email.utils.formatdate(0)):
        assert _retry_after(odd) == 0


@pytest.mark.parametrize("code", [400, 413, 422, 451])
def test_what_the_server_refuses_is_a_fault_of_that_request_alone(client, tmp_path, code):
    words = "The prompt is too long " + "x" * 1000
    with ScriptedServer({1: says({"error": {"message": words}}, code)}) as server:
        outcomes = list(client(server, concurrency=1).ask(questions(3), as_it_is, tmp_path, max_attempts=3))
    assert [outcome.complete for outcome in outcomes] == [True, False, True]
    assert len(server.bodies) == 3
    (fault,) = outcomes[1].faults
    assert fault.startswith(f'the server refused it: {code} "The prompt is too long xxx')
    assert len(fault) < 260


def test_a_picture_that_is_none_is_not_sent(client, tmp_path):
    requests = [Request("odd", "What?", b"GIF89a"), *questions(1)]
    with ScriptedServer() as server:
        outcomes = list(client(server).ask(requests, as_it_is, tmp_path))
    assert outcomes[0].faults == ("odd: image: is neither JPEG nor PNG; convert it",)
    assert outcomes[1].complete
    assert server.asked == ["question 0"]


def test_an_answer_that_is_cut_off_before_it_begins_is_not_waited_for(client, tmp_path):
    with ScriptedServer({0: says(answer(None, finish="length"))}) as server:
        (outcome,) = client(server).ask(questions(1), as_it_is, tmp_path)
    assert outcome.faults == ("was truncated after 20 tokens; raise max_tokens",)


def test_an_answer_that_is_cut_off_is_a_fault_and_a_try(client, tmp_path):
    cut = says(answer("It is a", finish="length"))
    with ScriptedServer(lambda number, body: cut if question(body) == "question 0" else None) as server:
        first, second = client(server, concurrency=1).ask(questions(2), as_it_is, tmp_path, max_attempts=2)
        assert (first.values, first.faults) == ((), ("was truncated after 20 tokens; raise max_tokens",) * 2)
        assert second.complete
        list(client(server).ask(questions(2), as_it_is, tmp_path, max_attempts=2))
    assert len(server.bodies) == 3  # nor is that asked again


@pytest.mark.parametrize(
    ("code", "words", "remedy"),
    [
        (401, "bad key", "key_env"),
        (403, "not for you", "another key"),
        (404, "The model `org/seer` does not exist.", "correct the name of the model"),
        (302, "", "redirects to http://elsewhere/v1"),
    ],
)
def test_what_no_call_would_survive_ends_it_at_once(client, tmp_path, code, words, remedy):
    said = says({"error": {"message": words}}, code, Location="http://elsewhere/v1")
    with ScriptedServer(lambda number, body: said if number >= 5 else None, models=None) as server:
        outcomes = client(server, concurrency=2).ask(questions(100), as_it_is, tmp_path)
        with pytest.raises(DataError, match=remedy) as caught:
            list(outcomes)
        assert words in str(caught.value)
        assert server.url in str(caught.value)
        assert len(server.bodies) <= 5 + 2


def test_a_wrong_name_of_the_model_is_told_with_names_that_are_served(client, tmp_path):
    names = [f"org/model-{n}" for n in range(7)]
    with ScriptedServer(models=names) as server:
        with pytest.raises(DataError) as caught:
            list(client(server).ask(questions(3), as_it_is, tmp_path))
        assert "'org/seer' is not served, but org/model-0, " in str(caught.value)
        assert "org/model-4 and 2 more" in str(caught.value)
        assert server.bodies == []
        assert all(o.complete for o in client(server, check_model=False).ask(questions(3), as_it_is, tmp_path))


def test_a_server_that_lists_nothing_is_fine(client, tmp_path):
    with ScriptedServer(models=None) as server:
        assert all(o.complete for o in client(server).ask(questions(3), as_it_is, tmp_path))


def test_a_server_that_is_not_there_is_said_so(tmp_path):
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        server = Server(url, MODEL, backoff=0.01, retries=2)
        with pytest.raises(DataError) as caught:
            list(server.ask(questions(30), as_it_is, tmp_path / "work"))
    assert str(caught.value) == (
        f"{url}: server: no answer after 3 attempts: no connection (Connection refused); existing answers are kept "
        f"in {tmp_path / 'work'}; start the server and run it again"
    )
    assert server.tally.failed == 0


def test_a_server_that_comes_late_is_waited_for(tmp_path):
    with ScriptedServer() as server:
        url = server.url
        server.vanish()
        time.sleep(0.1)
        client = Server(url, MODEL, backoff=0.2, retries=3)
        outcomes = client.ask(questions(1), as_it_is, tmp_path)
        port = int(url.split(":")[2].split("/")[0])
        server.come_back(port, after=0.2)
        assert next(outcomes).complete
    assert client.tally.retries["no connection"] >= 1


def test_a_server_that_vanishes_ends_it_and_what_was_answered_is_kept(client, tmp_path):
    def script(number, body):
        if number == 30:
            server.vanish()
        return None

    with ScriptedServer(script, latency=0.005) as server:
        outcomes = client(server).ask(questions(100), as_it_is, tmp_path)
        seen = []
        with pytest.raises(DataError, match="start the server and run it again"):
            seen.extend(outcomes)
    assert all(outcome.complete for outcome in seen)
    with ScriptedServer() as server:  # elsewhere
        again = client(server)
        assert sum(outcome.complete for outcome in again.ask(questions(100), as_it_is, tmp_path)) == 100
    assert 25 <= again.tally.cached <= 30
    assert again.tally.answers == 100 - again.tally.cached


def test_one_question_that_is_always_in_vain_fails_alone(client, tmp_path):
    for name, act in {"a": says({"error": "bug"}, 500), "b": resets}.items():
        poison = {"question 2": act}
        with ScriptedServer(lambda number, body, poison=poison: poison.get(question(body))) as server:
            for _ in range(2):  # the second time, nothing else is left to be asked
                outcomes = list(client(server).ask(questions(6), as_it_is, tmp_path / name))
                assert [outcome.complete for outcome in outcomes] == [True, True, False, True, True, True]
                assert outcomes[2].faults[0].startswith("failed 4 times: ")
            assert len(server.bodies) == 5 + 4 + 4


def test_questions_that_are_in_vain_among_others_fail_alone_however_many_they_are(client, tmp_path):
    with ScriptedServer(lambda number, body: resets if question(body)[-1] in "13579" else None) as server:
        outcomes = list(client(server, concurrency=1, retries=0).ask(questions(20), as_it_is, tmp_path))
    assert [outcome.complete for outcome in outcomes] == [True, False] * 10


def test_a_server_that_fails_at_everything_ends_it(client, tmp_path):
    with ScriptedServer(lambda number, body: says({"error": "engine is dead"}, 500)) as server:
        with pytest.raises(DataError, match=r"engine is dead.*check the server") as caught:
            list(client(server).ask(questions(100), as_it_is, tmp_path))
        assert str(tmp_path) in str(caught.value)
        assert len(server.bodies) <= 8 * 4


def test_an_answer_that_stays_empty_is_asked_for_with_another_seed(client, tmp_path):
    empty = says(answer(""))
    with ScriptedServer(lambda number, body: empty if number < 4 else None) as server:
        (outcome,) = client(server).ask(questions(1), as_it_is, tmp_path, max_attempts=2)
    assert outcome.values == ("question 0 seen",)
    assert outcome.faults == ("failed 4 times: an empty answer",)
    assert len({body["seed"] for body in server.bodies}) == 2


def test_half_a_character_is_replaced(client, tmp_path):
    with ScriptedServer({0: says(b'{"choices": [{"message": {"content": "a \\ud83d b"}}]}')}) as server:
        (outcome,) = client(server).ask(questions(1), as_it_is, tmp_path)
    assert outcome.values == ("a ? b",)


def test_a_key_is_sent_and_never_told(tmp_path, monkeypatch, caplog):
    key, words = "sk-0123456789-very-secret", []
    monkeypatch.setenv("KEY_OF_A_TEST", f" {key}\n")
    caplog.set_level(logging.DEBUG, "kvg")

    async def echoes(request, body):
        sent = request.headers["Authorization"]
        act = says({"error": {"message": f"no good: {sent}"}}, code, Location=f"http://elsewhere/?{sent}")
        return await act(request, body)

    for code in (400, 401, 500, 302):
        with ScriptedServer({0: echoes}) as server:
            client = Server(server.url, MODEL, key_env="KEY_OF_A_TEST", backoff=0.01, retries=0 if code == 500 else 2)
            try:
                words += [o.faults for o in client.ask(questions(1), as_it_is, tmp_path / str(code))]
            except DataError as error:
                words.append(str(error))
            list(client.ask(questions(2), as_it_is, tmp_path / str(code)))
            assert server.headers[0]["Authorization"] == f"Bearer {key}"
            words += [client.summary(), repr(client), repr(vars(client)), caplog.text]
    assert "no good: Bearer ***" in str(words)
    files = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert "very-secret" not in str(words) + str(files)


def test_a_key_is_missed_before_anything_is_asked(tmp_path, monkeypatch):
    monkeypatch.setenv("KEY_OF_A_TEST", "first")
    server = Server("http://127.0.0.1:9/v1", MODEL, key_env="KEY_OF_A_TEST")
    for wrong in (None, "", "two\nlines", "schlüssel"):
        if wrong is None:
            monkeypatch.delenv("KEY_OF_A_TEST")
        else:
            monkeypatch.setenv("KEY_OF_A_TEST", wrong)
        with pytest.raises(ConfigError, match="key_env") as caught:
            server.ask(questions(1), as_it_is, tmp_path)
        assert not wrong or wrong not in str(caught.value)
    with pytest.raises(ConfigError, match="password") as caught:
        Server("http://me:secret@host/v1", MODEL)
    assert "secret" not in str(caught.value)


def test_words_of_a_server_are_short_and_printable():
    assert quoted(b'{"error": {"message": "too\\nlarge"}}', "") == '"too large"'
    assert quoted(b'{"detail": "no such field"}', "") == '"no such field"'
    assert quoted(b'{"error": "a sk-1 b"}', "sk-1") == '"a *** b"'
    assert quoted(b"\x00\xff<b>", "") == '"\ufffd<b>"'
    assert quoted(b"", "") == "(no words)"
    assert quoted(b"[" * 100_000, "").startswith('"[[[')
    assert Refused("x").final
    assert PICTURE.startswith(b"\xff\xd8")
