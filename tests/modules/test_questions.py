"""Questions and answers under a Trainer: how they are asked, what is kept, and what a second start does."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import lightning as L
import pytest

from data_modules import CoTSFTDataModule, EvaluationDataModule
from kvg.backbones.backbone import Backbone
from kvg.backbones.families.qwen2_5_vl import Qwen25VL
from kvg.backbones.families.qwen2_vl import Qwen2VL
from kvg.backbones.lora import LoRASettings
from kvg.errors import DataError
from kvg.evaluation.records.prediction import read_predictions
from kvg.evaluation.records.question_sets import ArtifactSettings
from kvg.inference import engine
from kvg.modules.cot_sft import CoTSFTModule
from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings
from kvg.shards.writer import ShardWriter
from kvg.text.prompts import PROMPTS, describe_prompts, prompt
from kvg.types import Completion

pytestmark = [
    pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),  # who asks saves nothing
    pytest.mark.filterwarnings("ignore:Your `IterableDataset` has `__len__` defined"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create .* worker processes"),  # on a single core
]


@pytest.fixture
def write(tmp_path, scenes):
    """Writes small composites to shards."""

    def make(name, num, change=lambda number, sample: sample):
        with ShardWriter(tmp_path / name, 3) as writer:
            for number, sample in enumerate(scenes(num, sizes=[(84, 84), (112, 84)], snap_px=None)):
                writer.write(change(number, sample))
        return str(tmp_path / name)

    return make


@pytest.fixture
def ask(tmp_path):
    """Asks a model, and returns the lines and what was logged."""

    def run(backbone, test, command="test", folder="run", ckpt_path=None, limit=None, tokens=4, **settings):
        module = CoTSFTModule(backbone, max_new_tokens=tokens)
        data = EvaluationDataModule(test, **{"batch_size": 2, **settings})
        data.connect(backbone)
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        limits = {} if limit is None else {"limit_test_batches": limit}
        trainer = L.Trainer(accelerator="cpu", default_root_dir=tmp_path / folder, **quiet, **limits)
        if command == "test":
            (logged,) = trainer.test(module, data, verbose=False, ckpt_path=ckpt_path, weights_only=True)
        else:
            logged = trainer.predict(module, data, ckpt_path=ckpt_path, weights_only=True)
        path = tmp_path / folder / "predictions.jsonl"
        lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []
        return lines, logged

    return run


@pytest.fixture
def rollouts(monkeypatch):
    """Counts the batches that a model is asked."""
    calls = []

    def counted(*args):
        calls.append(len(args[1]))
        return rollout(*args)

    monkeypatch.setattr(engine, "rollout", counted)
    return calls


def test_a_line_per_question_and_figures_by_set(tiny, ask, write):
    lines, logged = ask(tiny(), {"a": write("a", 3), "b": write("b", 2)})
    assert [(line["set"], line["key"]) for line in lines] == [
        *(("a", f"s0-000000{n}") for n in range(3)),
        *(("b", f"s0-000000{n}") for n in range(2)),
    ]
    needed = {"category", "split", "entity", "mode", "answer", "num_tokens", "finish_reason", "image", "size"}
    assert all(needed | {"gt_bbox", "objects", "target", "box", "iou", "correct"} <= set(line) for line in lines)
    assert {line["finish_reason"] for line in lines} <= {"stop", "length"}
    assert all(line["num_tokens"] == 4 for line in lines if line["finish_reason"] == "length")
    assert (logged["test/a/n"], logged["test/b/n"], logged["test/a/iou_acc"], logged["test/a/unparsed"]) == (3, 2, 0, 1)
    assert "test/n" not in logged


def test_the_answers_are_those_of_the_model_however_they_are_padded(tiny, ask, write, scenes):
    """Each question asked alone, by hand, says the same."""
    lines, _ = ask(tiny(), write("set", 3), tokens=8)
    backbone = tiny().eval()
    for line, sample in zip(lines, scenes(3, sizes=[(84, 84), (112, 84)], snap_px=None), strict=True):
        batch = backbone.processor.collate([backbone.processor.encode(sample, mode="direct", target=None)], [sample])
        out = rollout(backbone, batch, SamplingSettings(8, temperature=0.0))
        ended = set(backbone.end_token_ids)
        tokens = [token for token in out.tokens[0][out.completion_mask[0]].tolist() if token not in ended]
        assert line["answer"] == backbone.processor.tokenizer.decode(tokens)
        assert line["num_tokens"] == int(out.completion_mask.sum())
        assert line["mode"] == "direct"


@pytest.mark.parametrize("family", [Qwen2VL, Qwen25VL])
@pytest.mark.parametrize("mode", [*PROMPTS, "describe"])
def test_every_mode_asks_in_its_own_words(family, mode, ask, write, scenes, monkeypatch):
    backbone, asked = Backbone("tiny", family=family()), []
    ids = backbone.processor.ids
    monkeypatch.setattr(backbone.processor, "ids", lambda text: asked.append(text) or ids(text))
    lines, _ = ask(backbone, write("set", 1), mode=mode)
    asked = [text for text in asked if text != backbone.family.image_token]  # what stands for the picture's tokens
    (sample,) = scenes(1, sizes=[(84, 84)], snap_px=None)
    start = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
    start += "<|vision_start|><|image_pad|><|vision_end|>"
    turn = "<|im_end|>\n<|im_start|>assistant\n"
    assert lines[0]["mode"] == mode
    assert lines[0]["codec"] == ("relative" if family is Qwen2VL else "absolute")
    if mode != "describe":
        assert asked == [start + prompt(sample.entity, mode) + turn]
        assert "description" not in lines[0]
        return
    first, second = describe_prompts(sample.entity)
    whole = f"{start}{first}{turn}{lines[0]['description']}<|im_end|>\n<|im_start|>user\n{second}{turn}"
    assert asked == [start + first + turn, whole]


def test_conversations_of_unequal_length_are_padded_alike(tiny, ask, write):
    data = write("set", 3)
    one, three = (ask(tiny(), data, folder=str(n), mode="describe", batch_size=n, tokens=12)[0] for n in (1, 3))
    assert one == three
    assert len({line["description"] for line in one}) > 1


def test_a_model_tells_how_it_was_trained_to_be_asked(tiny, ask, write, tmp_path, caplog):
    tiny().export(tmp_path / "thinks", "think")
    tiny().export(tmp_path / "silent")
    thinks, silent = (Backbone(str(tmp_path / name)) for name in ("thinks", "silent"))
    data = write("set", 1)
    with caplog.at_level(logging.INFO):
        assert ask(thinks, data, folder="a")[0][0]["mode"] == "think"
        assert "the one that the model was trained with: think" in caplog.text
        assert ask(silent, data, folder="b")[0][0]["mode"] == "direct"
        assert "does not store its prompt mode" in caplog.text
    with pytest.warns(UserWarning, match="the prompt mode is direct, but the model was trained with think"):
        assert ask(thinks, data, folder="c", mode="direct")[0][0]["mode"] == "direct"


@pytest.mark.parametrize("command", ["test", "predict"])
def test_a_second_start_asks_nothing(command, tiny, ask, write, rollouts, tmp_path, caplog):
    data = write("set", 3)
    lines, logged = ask(tiny(), data, command)
    before = (tmp_path / "run/predictions.jsonl").stat().st_mtime_ns
    assert rollouts == [2, 1]
    with caplog.at_level(logging.INFO):
        again, logged_again = ask(tiny(), data, command)
    assert rollouts == [2, 1]
    assert again == lines
    assert (tmp_path / "run/predictions.jsonl").stat().st_mtime_ns == before
    assert "holds all 3 answers; nothing to do" in caplog.text
    if command == "test":
        assert logged_again == logged


def test_other_settings_ask_again(tiny, ask, write, rollouts, tmp_path):
    data = write("set", 2)
    ask(tiny(), data)
    for change in ({"tokens": 5}, {"mode": "think"}, {"batch_size": 1}):
        rollouts.clear()
        ask(tiny(), data, **change)
        assert sum(rollouts) == 2, change
    rollouts.clear()
    ask(tiny(max_pixels=28 * 56), data, mode="think")
    ask(tiny(max_pixels=28 * 56), write("other", 2, lambda n, s: replace(s, key=f"x{n}")), mode="think")
    assert sum(rollouts) == 4
    (tmp_path / "set").rename(tmp_path / "moved")
    ask(tiny(), str(tmp_path / "moved"), folder="b")
    rollouts.clear()
    (tmp_path / "moved").rename(tmp_path / "set")
    ask(tiny(), data, folder="b")
    assert rollouts == []  # the same set, wherever it lies


def test_what_has_been_answered_is_kept(tiny, ask, write, rollouts, tmp_path):
    data = write("set", 5)
    whole, _ = ask(tiny(), data, folder="whole")
    rollouts.clear()
    with pytest.warns(UserWarning, match="some questions have no answer yet"):
        lines, logged = ask(tiny(), data, limit=2)
    assert (lines, logged, rollouts) == ([], {}, [2, 2])
    assert ask(tiny(), data)[0] == whole
    assert rollouts == [2, 2, 1]
    assert (tmp_path / "run/predictions.jsonl").read_bytes() == (tmp_path / "whole/predictions.jsonl").read_bytes()
    assert not (tmp_path / "run/predictions.units").exists()


def broken(number, sample):
    """Two pictures whose heads are whole: only who decodes them sees it."""
    if number not in (2, 4):
        return sample
    at = sample.image.index(b"IDAT") + 4
    return replace(sample, image=sample.image[:at] + bytes(40) + sample.image[at + 40 :])


def test_a_picture_that_does_not_decode_ends_it_or_is_counted(tiny, ask, write, rollouts, tmp_path, caplog):
    data = write("set", 6, broken)
    with pytest.raises(DataError, match=r"set row 2 \(s0-0000002\): image: is cut off .*all other answers are kept"):
        ask(tiny(), data)
    assert rollouts == [2]
    lines, logged = ask(tiny(), data, skip_bad=True)
    assert rollouts == [2, 1, 1]
    assert [line["key"] for line in lines] == [f"s0-000000{n}" for n in (0, 1, 3, 5)]
    told = json.loads((tmp_path / "run/predictions.json").read_text("utf-8"))
    assert (told["num_cases"], told["num_bad"], len(told["bad"])) == (4, 2, 2)
    assert "row 4 (s0-0000004): image" in told["bad"][1]
    assert logged["test/n"] == 4.0
    with caplog.at_level(logging.INFO):
        ask(tiny(), data, skip_bad=True)
    assert rollouts == [2, 1, 1]
    assert "(2 unusable questions skipped); nothing to do" in caplog.text


def test_weights_of_a_checkpoint_answer_and_are_told_apart(tiny, adamw, ask, write, fit, tmp_path, rollouts):
    """A LoRA of one step, saved by Lightning: other answers than the base's, and the mode of its training."""
    data = write("set", 2)
    saver = L.pytorch.callbacks.ModelCheckpoint(tmp_path, filename="{step}", every_n_train_steps=1, save_top_k=-1)
    module = CoTSFTModule(tiny(lora=LoRASettings(r=4)), adamw(1e-1), warmup=0.0, export=False)
    fit(module, CoTSFTDataModule(data, batch_size=2), 2, callbacks=[saver], enable_checkpointing=True)
    rollouts.clear()
    saved = [str(tmp_path / f"step={step}.ckpt") for step in (1, 2)]
    found = [
        ask(tiny(lora=LoRASettings(r=4)), data, folder=f"run-{path is None}", ckpt_path=path, tokens=8)[0]
        for path in (None, *saved)
    ]
    assert sum(rollouts) == 6  # the second checkpoint does not take the answers of the first
    assert [lines[0]["mode"] for lines in found] == ["direct", "think", "think"]
    told = [[line["answer"] for line in lines] for lines in found]
    assert told[0] != told[1]
    assert told[1] != told[2]
    own, _ = ask(module.backbone, data, folder="own", mode="think", tokens=8)  # the weights that were saved last
    assert [line["answer"] for line in own] == told[2]


def test_a_module_that_learns_on_asks_again(tiny, adamw, write, fit, tmp_path, rollouts):
    data = write("set", 2)
    module = CoTSFTModule(tiny(), adamw(1e-1), warmup=0.0, export=False, max_new_tokens=4)
    asked = EvaluationDataModule(data, mode="think", batch_size=2)
    asked.connect(module.backbone)
    for _ in range(2):
        fit(module, CoTSFTDataModule(data, batch_size=2), 1)
        rollouts.clear()
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        L.Trainer(accelerator="cpu", default_root_dir=tmp_path / "run", **quiet).test(module, asked, verbose=False)
        assert rollouts == [2]


def test_disturbed_pictures_and_names_to_choose_from(tiny, ask, write):
    def choice(number, sample):
        return replace(sample, options=("Merlin", sample.entity))

    sets = {"boxes": write("boxes", 2), "names": write("names", 2, choice)}
    lines, logged = ask(tiny(), sets, artifacts=ArtifactSettings(["noise"], [5]), batch_size=4)
    assert [(line["set"], line.get("artifact"), line.get("strength")) for line in lines[::2]] == [
        ("boxes", None, None),
        ("names", None, None),
        ("boxes", "noise", 5),
        ("names", "noise", 5),
    ]
    assert lines[2]["options"][lines[2]["right"]] == lines[2]["entity"]
    assert len({line["image"] for line in lines}) == 4  # both sets show the same two pictures, and two disturbed ones
    assert {"test/boxes/iou_acc", "test/boxes/noise-5/iou_acc", "test/names/choice_acc"} <= set(logged)


def test_lines_are_read_as_cases_with_boxes_on_the_grid(tiny, ask, write, scenes, tmp_path, monkeypatch):
    """A model that says the true box of every question, in its own convention."""
    for name, backbone in (("relative", tiny()), ("absolute", Backbone("tiny", family=Qwen25VL(), max_pixels=28 * 56))):
        samples = scenes(3, sizes=[(84, 84), (112, 84)], snap_px=None)
        said = iter([backbone.processor.completion(sample, "answer") for sample in samples])
        monkeypatch.setattr(
            engine,
            "completions",
            lambda backbone, out, said=said: [Completion(next(said), 9, "stop") for _ in out.tokens],
        )
        lines, logged = ask(backbone, write(name, 3), folder=name)
        assert {line["codec"] for line in lines} == {name}
        cases = read_predictions(tmp_path / name)
        for case, sample in zip(cases, samples, strict=True):
            truth = [v * 1000 / side for v, side in zip(sample.box_px, (sample.width, sample.height) * 2, strict=True)]
            assert case.targets[0] == pytest.approx(truth, abs=1e-5)
            assert case.box == pytest.approx(truth, abs=12)  # the pixel of a picture of 56 is 18 wide
            assert case.correct
        assert (logged["test/iou_acc"], logged["test/unparsed"]) == (1.0, 0.0)
        assert logged["test/mean_iou"] == pytest.approx(sum(case.iou for case in cases) / 3, abs=1e-6)


def test_workers_make_the_same_batches(tiny, ask, write):
    data = write("set", 5)
    assert ask(tiny(), data, folder="a")[0] == ask(tiny(), data, folder="b", num_workers=2)[0]
