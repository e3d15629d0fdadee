"""A model that is loaded here: the same answers however it is run, and nothing asked twice."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest

from kvg.backbones.fingerprint import fingerprint
from kvg.errors import ConfigError, DataError
from kvg.inference.local import LocalClient
from kvg.inference.request import Request
from tests.catalogue.conftest import drawing, encoded


@pytest.fixture(scope="module")
def requests():
    """Seven questions of one to three answers, one of them about a damaged picture."""
    made = []
    for number in range(7):
        image = encoded(drawing(number, (56, 56)), "PNG")
        if number == 3:
            image = image[:200] + bytes(40) + image[240:]
        made.append(Request(f"q{number}", f"What is on picture {number}?", image, 1 + number % 3))
    return made


@pytest.fixture(scope="module")
def model():
    return LocalClient("tiny", max_tokens=6, batch_size=3, seed=5)


@pytest.fixture(scope="module")
def answers(model, requests, tmp_path_factory):
    return texts(model, requests, tmp_path_factory.mktemp("whole"))


def texts(client, requests, work):
    return [outcome.values for outcome in client.ask(requests, lambda _, text: text, work)]


def test_every_request_has_its_answers_and_a_damaged_picture_has_a_fault(model, requests, answers, tmp_path):
    outcomes = list(model.ask(requests, lambda _, text: text, tmp_path))
    assert [outcome.request for outcome in outcomes] == requests
    assert [len(outcome.values) for outcome in outcomes] == [1, 2, 3, 0, 2, 3, 1]
    (fault,) = outcomes[3].faults
    assert fault.startswith("q3: image: is cut off")
    assert not any(outcome.faults for outcome in outcomes if outcome.request.key != "q3")
    assert [outcome.values for outcome in outcomes] == answers
    assert len(set(answers[2])) == 3  # one prompt, three draws
    cut = "12 answers, 72 tokens (12 cut off at 6)"  # a model of random weights never ends
    assert cut in model.summary()


def test_the_seed_decides(requests, answers, tmp_path):
    other = LocalClient("tiny", max_tokens=6, batch_size=3, seed=6)
    assert texts(other, requests, tmp_path) != answers
    greedy = LocalClient("tiny", max_tokens=6, batch_size=3, temperature=0.0)
    same = texts(greedy, requests, tmp_path)[2]
    assert len(set(same)) == 1


def forge(path, text):
    """Changes what has been answered, as no model would."""
    found = json.loads(path.read_text())
    for record in found["result"]:
        record["texts"] = [text for _ in record.get("texts", ())]
    path.write_text(json.dumps(found))


def test_what_is_answered_is_not_asked_again(model, requests, answers, tmp_path):
    assert texts(model, requests, tmp_path) == answers
    first, second, third = (tmp_path / f"0/00000{number}.json" for number in range(3))
    forge(first, "known")
    second.write_text(second.read_text()[:50])  # as a full disk would leave it
    third.unlink()
    assert texts(model, requests, tmp_path) == [("known",), ("known",) * 2, ("known",) * 3, *answers[3:]]


def test_a_request_that_has_changed_is_asked_anew_with_its_batch(model, requests, answers, tmp_path):
    texts(model, requests, tmp_path)
    for number in range(3):
        forge(tmp_path / f"0/00000{number}.json", "known")
    changed = [*requests[:4], replace(requests[4], text="Else?"), *requests[5:]]
    found = texts(model, changed, tmp_path)
    assert found[:3] == [("known",), ("known",) * 2, ("known",) * 3]
    assert found[4] != answers[4]
    assert "known" not in (*found[4], *found[5])
    assert found[6] == ("known",)
    other = LocalClient("tiny", max_tokens=6, batch_size=3, seed=5, temperature=0.5)
    assert all("known" not in values for values in texts(other, requests, tmp_path))


def test_a_refused_answer_is_asked_for_again_as_often_as_told(model, requests, tmp_path):
    seen: dict[str, list[str]] = {}

    def validator(request: Request, text: str) -> str:
        met = seen.setdefault(request.key, [])
        if text not in met:
            met.append(text)
        if request.key == "q1" and met.index(text) < 3:  # the first three that it gives
            raise DataError("q1", "answer", f"no {text}")
        if request.key == "q6":
            raise DataError("q6", "answer", "never")
        return text

    outcomes = {o.request.key: o for o in model.ask(requests, validator, tmp_path, max_attempts=3)}
    assert outcomes["q1"].complete  # two refused, then one of two, then one
    assert outcomes["q1"].values == tuple(seen["q1"][3:5])
    assert outcomes["q1"].faults == tuple(f"q1: answer: no {text}" for text in seen["q1"][:3])
    assert (outcomes["q6"].values, outcomes["q6"].faults) == ((), ("q6: answer: never",) * 3)
    assert len(outcomes["q3"].faults) == 1  # what cannot be read is not tried again
    numbers = [
        [len(r["texts"]) for r in json.loads((tmp_path / f"{n}/000000.json").read_text())["result"]] for n in (1, 2)
    ]
    assert numbers == [[2, 1], [1, 1]]


def test_requests_that_change_on_the_way_are_refused(model, requests, tmp_path):
    class Moving:
        times = 0

        def __iter__(self):
            self.times += 1
            return iter([replace(requests[0], text=f"Time {self.times}?")])

    with pytest.raises(DataError, match="q0: requests: changed during the run"):
        texts(model, Moving(), tmp_path)


def test_nothing_is_asked_of_nobody(tmp_path):
    assert texts(LocalClient("nowhere/at/all"), [], tmp_path) == []


def test_workers_prepare_the_same(requests, answers, tmp_path):
    assert texts(LocalClient("tiny", max_tokens=6, batch_size=3, seed=5, num_workers=2), requests, tmp_path) == answers


def test_another_model_in_the_same_folder_is_another_model(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(bytes(40_000_000))
    before = fingerprint(str(tmp_path))
    assert before == fingerprint(str(tmp_path))
    assert [row[:2] for row in before] == [["config.json", "2"], ["model.safetensors", "40000000"]]
    with weights.open("r+b") as stream:
        for place in range(0, 40_000_000, 100_000):
            stream.seek(place)
            stream.write(b"\x01")
    assert fingerprint(str(tmp_path)) != before
    assert fingerprint("someone/on-the-hub") == []
    assert len(fingerprint("lab")) > 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": 3}, "backbone: 3 is neither a checkpoint nor"),
        ({"backbone": {"class_path": "kvg.A"}}, "backbone.init_args.checkpoint: is missing"),
        (
            {"backbone": {"class_path": "kvg.A", "init_args": {"checkpoint": "lab", "lora": {"r": 2}}}},
            "backbone.init_args.lora: would add fresh adapters; merge them first",
        ),
        ({"batch_size": 0}, "batch_size: 0 must be a whole number of at least 1"),
        ({"max_tokens": 1.5}, "max_tokens: 1.5 must be a whole number"),
        ({"num_workers": -1}, "num_workers: -1 must be"),
        ({"temperature": -1}, "temperature: -1 must be a number of at least 0"),
        ({"top_p": 0}, "top_p: 0 must be a number above 0"),
        ({"trainer": 3}, "trainer: 3 are not settings"),
        ({"trainer": {"logger": True}}, "trainer.logger: is not an inference setting"),
        ({"trainer": {"strategy": "fsdp"}}, "trainer.strategy: 'fsdp' is none of auto, ddp"),
        ({"trainer": {"precision": "bf16-true"}}, "trainer.precision: 'bf16-true' is none of"),
        (
            {"trainer": {"strategy": {"class_path": "lightning.pytorch.strategies.FSDPStrategy"}}},
            "trainer.strategy: cannot generate; use configs/strategy/fsdp2.yaml",
        ),
    ],
)
def test_settings_are_checked_before_anything_is_loaded(settings, message):
    with pytest.raises(ConfigError) as caught:
        LocalClient(**{"backbone": "tiny", **settings})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backbone": "nowhere/at/all"}, "'nowhere/at/all' is no such folder"),
        ({"trainer": {"accelerator": "abacus"}}, "trainer: .*abacus"),
        ({"trainer": {"strategy": {"class_path": "kvg.Nowhere"}}}, "trainer.strategy.class_path: 'kvg.Nowhere'"),
    ],
)
def test_what_only_loading_shows_says_what_to_do(requests, tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        texts(LocalClient(**{"backbone": "tiny", **settings}), requests, tmp_path)


def test_it_is_built_without_torch():
    code = "import sys; from kvg.inference.local import LocalClient; LocalClient('tiny'); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
