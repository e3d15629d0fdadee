"""What is sent to a server, in which order things come back, and how many are under way."""

from __future__ import annotations

import base64
import threading
import time

import pytest

from kvg.errors import DataError
from kvg.inference.request import Request
from tests.catalogue.conftest import drawing, encoded
from tests.inference.conftest import PICTURE, as_it_is, questions
from tests.inference.scripted import MODEL, ScriptedServer, answer, question, says, waits


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "asking"]


def test_a_question_is_sent_as_a_picture_and_a_text_behind_it(client, tmp_path):
    png = encoded(drawing(1), "PNG")
    requests = [Request("a", "What is it?", PICTURE), Request("b", "And this?", png)]
    with ScriptedServer() as server:
        settings = {"temperature": 0.3, "top_p": 0.9, "max_tokens": 64, "system": "Be brief.", "extra": {"top_k": 5}}
        outcomes = list(client(server, **settings).ask(requests, as_it_is, tmp_path))
    assert [outcome.values for outcome in outcomes] == [("What is it? seen",), ("And this? seen",)]
    assert all(outcome.complete and not outcome.faults for outcome in outcomes)
    bodies = {question(body): body for body in server.bodies}
    for request, kind in zip(requests, ("jpeg", "png"), strict=True):
        body = bodies[request.text]
        url = f"data:image/{kind};base64,{base64.b64encode(request.image).decode()}"
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": request.text}]
        assert 0 <= body.pop("seed") < 2**31
        assert body == {
            "model": MODEL,
            "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}],
            "temperature": 0.3,
            "top_p": 0.9,
            "max_tokens": 64,
            "top_k": 5,
            "stream": False,
        }
    assert "Authorization" not in server.headers[0]
    assert server.paths == {"models": 1, "chat": 2}


def test_outcomes_come_in_order_and_as_many_calls_are_under_way_as_may_be(client, tmp_path):
    with ScriptedServer(lambda number, body: waits(0.03 if number % 3 else 0.06)) as server:
        outcomes = list(client(server, concurrency=6).ask(questions(40), as_it_is, tmp_path))
    assert [outcome.request.key for outcome in outcomes] == [f"key-{n}" for n in range(40)]
    assert [outcome.values for outcome in outcomes] == [(f"late question {n}",) for n in range(40)]
    assert server.most == 6


def test_a_slow_answer_holds_up_no_others_within_the_window(client, tmp_path):
    slow = {"question 0": waits(0.8)}
    with ScriptedServer(lambda number, body: slow.get(question(body))) as server:
        outcomes = client(server).ask(questions(40), as_it_is, tmp_path)
        assert next(outcomes).values == ("late question 0",)
        assert server.answered == 16  # 4 calls at a time: 16 are held, and the other 15 are through
        assert len(list(outcomes)) == 39


def test_three_hundred_questions_take_little_longer_than_the_server_does(client, tmp_path):
    with ScriptedServer(latency=0.02) as server:
        patient = client(server, concurrency=16)
        began = time.monotonic()
        assert sum(outcome.complete for outcome in patient.ask(questions(300), as_it_is, tmp_path)) == 300
        seconds = time.monotonic() - began
    assert 300 * 0.02 / 16 <= seconds < 2.0  # 0.375 s; both ends share this process, and its cores with others
    assert patient.tally.seconds <= seconds


@pytest.mark.parametrize("delay", [0.0, 0.02])
def test_requests_are_taken_from_their_source_only_as_they_are_needed(client, tmp_path, delay):
    pulled = 0

    def source():
        nonlocal pulled
        for request in questions(100):
            pulled += 1
            yield request

    with ScriptedServer(latency=0.002) as server:
        for number, _ in enumerate(client(server, concurrency=2).ask(source(), as_it_is, tmp_path)):
            time.sleep(delay if number < 20 else 0)
            assert number < pulled <= number + 1 + 8
    assert pulled == 100


def test_a_slow_source_and_a_slow_reader_leave_the_server_at_work(client, tmp_path):
    step = 0.2  # seconds; long beside what a busy machine adds

    def source():
        for request in questions(6):
            time.sleep(step)
            yield request

    with ScriptedServer(latency=step) as server:
        began = time.monotonic()
        for _ in client(server, concurrency=2).ask(source(), as_it_is, tmp_path):
            time.sleep(step)
        seconds = time.monotonic() - began
    assert seconds < 0.9 * 6 * 3 * step  # one after the other


def test_an_outcome_that_is_there_does_not_wait_for_a_full_window(client, tmp_path):
    pulled = []

    def source():
        for request in questions(16):
            pulled.append(request)
            time.sleep(0.06)
            yield request

    with ScriptedServer() as server:
        next(iter(client(server).ask(source(), as_it_is, tmp_path)))
    assert len(pulled) < 10  # a few, since the first call has a connection to make


def test_several_answers_to_one_question_are_calls_with_seeds_of_their_own(client, tmp_path):
    def by_seed(number, body):
        return says(answer(str(body["seed"])))

    with ScriptedServer(by_seed) as server:
        runs = [
            list(client(server, temperature=1.0, seed=seed).ask(questions(3, answers=4), as_it_is, tmp_path / name))
            for name, seed in (("a", 0), ("b", 0), ("c", 1))
        ]
    values = [[outcome.values for outcome in run] for run in runs]
    assert values[0] == values[1] != values[2]
    assert len({value for run in (values[0], values[2]) for answers in run for value in answers}) == 2 * 3 * 4


def test_seeds_depend_on_what_is_asked_and_not_on_what_it_is_called(client, tmp_path):
    same = [Request("one", "What?", PICTURE), Request("two", "What?", PICTURE), Request("three", "Who?", PICTURE)]
    with ScriptedServer(lambda number, body: says(answer(str(body["seed"])))) as server:
        one, two, three = (outcome.values[0] for outcome in client(server).ask(same, as_it_is, tmp_path))
    assert one == two != three
    assert sorted(server.asked) == ["What?", "Who?"]  # and what is under way already is not asked again


def test_what_the_judge_refuses_is_asked_again_warmer_and_with_another_seed(client, tmp_path):
    def validator(request, text):
        if text == "bad":
            raise DataError(request.key, "answer", "is bad")
        return len(text)

    def script(number, body):
        return says(answer("bad" if question(body) == "question 1" or body["temperature"] == 0 else "good"))

    with ScriptedServer(script) as server:
        outcomes = list(client(server).ask(questions(2), validator, tmp_path, max_attempts=3))
    assert outcomes[0].values == (4,)
    assert outcomes[0].faults == ("key-0: answer: is bad",)
    assert outcomes[1].values == ()
    assert outcomes[1].faults == ("key-1: answer: is bad",) * 3
    temperatures = {q: [b["temperature"] for b in server.bodies if question(b) == q] for q in set(server.asked)}
    assert temperatures == {"question 0": [0, 0.7], "question 1": [0, 0.7, 0.7]}
    assert len({body["seed"] for body in server.bodies}) == 5


def test_faults_come_in_the_order_of_the_tries(client, tmp_path):
    def never(request, text):
        raise DataError(request.key, "answer", text)

    with ScriptedServer(lambda number, body: says(answer(f"bad {number}"))) as server:
        (outcome,) = client(server, concurrency=1).ask(questions(1), never, tmp_path, max_attempts=3)
    assert outcome.faults == ("key-0: answer: bad 0", "key-0: answer: bad 1", "key-0: answer: bad 2")


def test_a_temperature_that_is_higher_stays_as_it_is(client, tmp_path):
    def never(request, text):
        raise DataError("a", "b", "c")

    with ScriptedServer() as server:
        list(client(server, temperature=1.2).ask(questions(1), never, tmp_path, max_attempts=2))
    assert [body["temperature"] for body in server.bodies] == [1.2, 1.2]


def test_thoughts_that_a_server_sets_apart_are_put_back(client, tmp_path):
    apart = {
        0: says(answer("<answer>1</answer>", reasoning_content="hm")),
        1: says(answer(None, reasoning="still thinking", reasoning_content=None)),
    }
    with ScriptedServer(apart) as server:
        outcomes = list(client(server, concurrency=1).ask(questions(2), as_it_is, tmp_path))
    assert outcomes[0].values == ("<think>hm</think><answer>1</answer>",)
    assert outcomes[1].values == ("<think>still thinking</think>",)


def test_turns_are_given_evenly_where_there_is_a_limit(client, tmp_path):
    with ScriptedServer() as server:
        list(client(server, requests_per_minute=1200).ask(questions(8), as_it_is, tmp_path))  # one every 50 ms
    gaps = [b - a for a, b in zip(server.times, server.times[1:], strict=False)]
    assert server.times[-1] - server.times[0] >= 7 * 0.05 - 0.02
    assert all(gap > 0.01 for gap in gaps)


def test_closing_ends_the_thread_and_what_is_under_way(client, tmp_path):
    with ScriptedServer(lambda number, body: waits(30) if number > 2 else None) as server:
        outcomes = client(server).ask(questions(50), as_it_is, tmp_path)
        next(outcomes)
        assert threads() == ["asking"]
        began = time.monotonic()
        outcomes.close()
        assert threads() == []
        assert time.monotonic() - began < 5
        deadline = time.monotonic() + 5
        while server.now and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.now == 0  # the server has noticed, too


def test_an_error_of_the_source_or_of_the_judge_comes_through_and_leaves_nothing_behind(client, tmp_path):
    def source():
        yield from questions(3)
        raise ZeroDivisionError("source")

    def validator(request, text):
        raise ZeroDivisionError("validator")

    with ScriptedServer() as server:
        with pytest.raises(ZeroDivisionError, match="source"):
            list(client(server).ask(source(), as_it_is, tmp_path / "a"))
        with pytest.raises(ZeroDivisionError, match="validator"):
            list(client(server).ask(questions(3), validator, tmp_path / "b"))
    assert threads() == []


def test_the_summary_counts_what_it_took(client, tmp_path):
    def validator(request, text):
        if request.text == "question 3":
            raise DataError(request.key, "answer", "is bad")

    script = {0: says({"error": "full"}, 503), 2: says({"error": {"message": "too long"}}, 400)}
    with ScriptedServer(script) as server:
        patient = client(server, concurrency=1, price_prompt=2.0, price_completion=10.0)
        list(patient.ask(questions(4), validator, tmp_path, max_attempts=2))
        # question 0 twice (503), one refused, one once, question 3 twice: 6 calls, 4 answers of 100 and 20 tokens
        assert server.paths["chat"] == 6
        tally = patient.tally
        assert (tally.requests, tally.answers, tally.cached, tally.failed) == (4, 4, 0, 1)
        assert tally.retries == {"status 503": 1}
        assert (tally.prompt_tokens, tally.completion_tokens) == (4 * 100, 4 * 20)
        seconds, tally.seconds = tally.seconds, 4.0
        assert 0 < seconds < 5
        assert patient.summary() == (
            "4 questions; 4 answers and 0 from the cache; 1 refused or left without an answer; "
            "1 repeated (status 503 1); 400 tokens read and 80 written; 4.0 s (20 tokens written a second); "
            "cost 0.0016"  # (400 x 2 + 80 x 10) / 1,000,000
        )
        again = client(server, concurrency=1)
        list(again.ask(questions(4), validator, tmp_path, max_attempts=2))
    assert again.summary().startswith("4 questions; 1 answers and 4 from the cache; 100 tokens read and 20 written; ")
    assert "cost" not in again.summary()
