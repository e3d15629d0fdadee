"""A real server and our own backbone are shown the same pictures and asked the same: they see and say the same."""

from __future__ import annotations

import base64
import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch

from kvg.backbones.answers import completion_texts, read_answers
from kvg.backbones.backbone import Backbone
from kvg.boxes import iou
from kvg.cli.kvg import main
from kvg.composites.compositor import Compositor
from kvg.errors import DataError
from kvg.inference.request import Request
from kvg.inference.server import Server
from kvg.lab.world import TraitSource, lab_canvas
from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings
from kvg.shards.writer import ShardWriter
from kvg.text.prompts import prompt
from kvg.types import Box, Completion, Sample
from tests.inference.real_server import VARIABLE, RealServer, served_folder
from tests.work.killing import Command

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        VARIABLE not in os.environ, reason=f"{VARIABLE} names no Python; see the head of tests/inference/real_server.py"
    ),
]
NUM, LONGEST = 50, 400


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[RealServer]:
    folder = tmp_path_factory.mktemp("served")
    with RealServer(os.environ[VARIABLE], served_folder(folder / "lab"), 0, folder / "server.log") as running:
        yield running


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return Backbone("lab", max_pixels=None).eval()


def described(num: int, *sizes: tuple[int, int]) -> list[Sample]:
    """Composites of nameless things, asked for by their traits; canvases take turns."""
    source = TraitSource(families=20, variants=1, seed=77)
    canvas = lab_canvas(77, {2: 1.0, 3: 1.0, 4: 1.0}, 0.5)
    makers = [Compositor(source, replace(canvas, canvas_sizes=[size])) for size in sizes]
    samples = [makers[n % len(makers)].sample(n) for n in range(num)]
    return [
        replace(sample, objects=tuple(replace(o, entity=o.description) for o in sample.objects)) for sample in samples
    ]


def asked(server: RealServer, sample: Sample, mode: str, **more: Any) -> dict[str, Any]:
    picture = {"url": f"data:image/jpeg;base64,{base64.b64encode(sample.image).decode()}"}
    words = {"type": "text", "text": prompt(sample.entity, mode)}
    turns = [{"role": "user", "content": [{"type": "image_url", "image_url": picture}, words]}]
    body = {"model": server.name, "messages": turns, "max_tokens": LONGEST, "temperature": 0, **server.extra, **more}
    status, answer = server.post("/chat/completions", body)
    assert status == 200, answer
    return answer


def said(answer: dict[str, Any]) -> str:
    """Some servers take what is thought out of the answer, transformers' among them; here it is put back."""
    message = answer["choices"][0]["message"]
    thought = message.get("reasoning_content")
    return message["content"] if thought is None else f"<think>{thought}</think>{message['content']}"


def our_answers(backbone: Backbone, samples: list[Sample], mode: str) -> tuple[list[str], list[int]]:
    """Greedy answers of our own backbone, and the lengths of its prompts in tokens."""
    rows = [backbone.processor.encode(sample, mode=mode, target=None) for sample in samples]
    batch = backbone.processor.collate(rows, samples, pad_left=True)
    result = rollout(backbone, batch, SamplingSettings(LONGEST, 0.0))
    texts = completion_texts(backbone, result.tokens, result.completion_mask)
    return texts, [len(row.input_ids) for row in rows]


def answered_box(backbone: Backbone, text: str, sample: Sample) -> Box | None:
    (answer,) = read_answers(backbone, [Completion(text, None, "stop")], [sample])
    return answer.box_px


def hits(backbone: Backbone, samples: list[Sample], texts: list[str]) -> list[bool]:
    found = []
    for sample, text in zip(samples, texts, strict=True):
        box = answered_box(backbone, text, sample)
        truth = torch.tensor([sample.objects[sample.target].box_px])
        found.append(box is not None and float(iou(torch.tensor([box]), truth)[0]) >= 0.5)
    return found


def compared(server: RealServer, backbone: Backbone, samples: list[Sample], mode: str) -> tuple[int, int]:
    """Puts all questions, four at a time. Returns equal answers, and hits of the server, which have to be ours, too."""
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda sample: asked(server, sample, mode), samples))
    ours, lengths = our_answers(backbone, samples, mode)
    theirs = [said(answer) for answer in answers]
    assert [answer["usage"]["prompt_tokens"] for answer in answers] == lengths  # same template, same visual tokens
    right, ours_right = hits(backbone, samples, theirs), hits(backbone, samples, ours)
    assert sum(a != b for a, b in zip(right, ours_right, strict=True)) <= 1
    return sum(a == b for a, b in zip(theirs, ours, strict=True)), sum(right)


def test_boxes_asked_for_over_http_are_those_of_our_backbone(server, backbone):
    equal, right = compared(server, backbone, described(NUM, (140, 140)), "direct")
    assert equal >= 0.96 * NUM
    assert right >= 0.9 * NUM  # it has looked at the pictures: blind, one of three would be right


def test_pictures_of_any_size_are_reduced_alike(server, backbone):
    # The lab's model has 25 visual tokens at most, and reads larger pictures badly; but it reads them alike.
    equal, _ = compared(server, backbone, described(NUM, (300, 200), (97, 155), (640, 480)), "direct")
    assert equal >= 0.9 * NUM


@pytest.mark.parametrize("mode", ["cot", "think"])
def test_what_is_thought_first_is_the_same_too(server, backbone, mode):
    equal, right = compared(server, backbone, described(20, (140, 140)), mode)
    assert equal >= 0.9 * 20
    assert right >= 0.8 * 20


def test_special_tokens_stay_in_the_answer(server):
    text = said(asked(server, described(1, (140, 140))[0], "direct"))
    assert text.startswith("<|box_start|>")
    assert text.endswith("<|box_end|>")


def test_a_temperature_is_heeded_and_a_seed_gives_the_same_again(server):
    sample = described(1, (140, 140))[0]
    texts = [said(asked(server, sample, "cot", temperature=1.5, seed=seed)) for seed in (1, 1, 2, 3, 4)]
    assert texts[0] == texts[1]
    assert len(set(texts)) > 2


def test_our_client_gets_the_same_boxes_and_asks_nothing_twice(server, backbone, tmp_path):
    samples = {sample.key: sample for sample in described(NUM, (140, 140))}
    requests = [Request(key, prompt(sample.entity, "direct"), sample.image) for key, sample in samples.items()]
    # No picture at all: the server refuses it or falls over it each time, and the other requests must not suffer.
    requests.insert(NUM // 2, Request("broken", "What is this?", b"\xff\xd8\xff no picture"))

    def box_of(request: Request, text: str) -> Box:
        box = answered_box(backbone, text, samples[request.key])
        if box is None:
            raise DataError(request.key, "answer", f"no box in {text!r}")
        return box

    def boxes(client: Server) -> dict[str, tuple[Box, ...]]:
        outcomes = list(client.ask(requests, box_of, tmp_path / "work"))
        assert [outcome.request.key for outcome in outcomes] == [request.key for request in requests]
        assert all(outcome.complete == (outcome.request.key != "broken") for outcome in outcomes), outcomes
        return {outcome.request.key: outcome.values for outcome in outcomes}

    calls = {"extra": server.extra, "concurrency": 4, "retries": 1, "backoff": 0.1}
    client = Server(url=server.url, model=server.name, max_tokens=60, **calls)
    found = boxes(client)
    assert client.tally.answers == NUM
    ours, _ = our_answers(backbone, list(samples.values()), "direct")
    own = {key: answered_box(backbone, text, samples[key]) for key, text in zip(samples, ours, strict=True)}
    assert sum(found[key] == (own[key],) for key in samples) >= 0.96 * NUM

    again = replace(client)
    assert boxes(again) == found
    assert again.tally.answers == 0


def test_our_client_loses_nothing_of_what_is_thought(server, backbone, tmp_path):
    samples = described(10, (140, 140))
    requests = [Request(sample.key, prompt(sample.entity, "think"), sample.image) for sample in samples]
    client = Server(url=server.url, model=server.name, extra=server.extra, concurrency=4)
    outcomes = client.ask(requests, lambda request, text: text, tmp_path)
    ours, _ = our_answers(backbone, samples, "think")
    assert sum(outcome.values == (text,) for outcome, text in zip(outcomes, ours, strict=True)) >= 9


@pytest.mark.parametrize("mode", ["direct", "think"])
def test_predict_writes_the_file_that_the_checkpoint_writes_also_when_it_is_killed(server, mode, tmp_path):
    with ShardWriter(tmp_path / "set", 20) as writer:
        for sample in described(NUM, (140, 140), (300, 200)):
            writer.write(sample)
    common = {"data.test": tmp_path / "set", "data.mode": mode, "data.batch_size": 1, "trainer.accelerator": "cpu"}
    own = {**common, "model.max_new_tokens": LONGEST, "trainer.default_root_dir": tmp_path / "own"}
    stage = ["-c", "configs/stage/cot_sft.yaml", "-c", "configs/backbone/lab.yaml", "-c", "configs/data/lab_test.yaml"]
    assert main(["predict", *stage, *(f"--{key}={value}" for key, value in own.items())]) == 0
    client = {"url": server.url, "model": server.name, "max_tokens": LONGEST, "concurrency": 4}
    client["extra"] = json.dumps(server.extra)
    settings = {**common, "model.sent_size": "{max_pixels: 19600, min_pixels: 784}"}
    settings |= {
        f"model.client.init_args.{name}": json.dumps(value) if name == "extra" else value
        for name, value in client.items()
    }
    words = ["kvg", "predict", "-c", "configs/client/server.yaml", "-c", "configs/data/lab_test.yaml"]
    words += [f"--{key}={value}" for key, value in settings.items()]

    def served(name: str) -> Command:
        folder = tmp_path / name
        return Command((*words, f"--trainer.default_root_dir={folder}"), folder, "predictions.json")

    served("whole").finish()
    killed = served("killed")
    assert killed.kill(8, signal.SIGKILL), "it came to its end before it could be killed"
    killed.finish()
    whole = (tmp_path / "whole/predictions.jsonl").read_bytes()
    assert (tmp_path / "killed/predictions.jsonl").read_bytes() == whole
    lines = [json.loads(line) for line in whole.splitlines()]
    ours = [json.loads(line) for line in (tmp_path / "own/predictions.jsonl").read_text("utf-8").splitlines()]
    assert [line["key"] for line in lines] == [line["key"] for line in ours]
    assert sum(a["box"] == b["box"] for a, b in zip(lines, ours, strict=True)) >= 0.96 * NUM
