"""``kvg doctor``: the lab's base as it is; with a wrong convention, cut prompts, split tokens and equal rewards."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest
from transformers import AutoTokenizer

from kvg.backbones.backbone import Backbone
from kvg.backbones.builtin import lab_folder
from kvg.backbones.checkpoints import describe_checkpoint
from kvg.backbones.families.qwen2_vl import Qwen2VL
from kvg.backbones.processor import ChatProcessor
from kvg.cli.doctor import split
from kvg.cli.kvg import main
from kvg.errors import ConfigError
from kvg.pipeline.doctor.answers import Questions, group_check
from kvg.pipeline.doctor.text_checks import length_check, measure, name_check, picture_check, token_check
from kvg.rl.sampling import SamplingSettings
from kvg.types import Completion
from tests.modules.stage_2 import PUBLISHED, grpo

STAGE_1 = ["-c", "configs/stage/cot_sft.yaml", "-c", "configs/backbone/lab.yaml"]
STAGE_2 = ["-c", "configs/stage/grpo.yaml", "-c", "configs/backbone/lab.yaml"]


@pytest.fixture(scope="module")
def shards(lab_shards, tmp_path_factory):
    return lab_shards(tmp_path_factory.mktemp("doctor") / "train", 12, sizes=((140, 140), (140, 112)))


@pytest.fixture(scope="module")
def processor():
    return lab_processor(str(lab_folder()))


def lab_processor(folder):
    description = describe_checkpoint(Qwen2VL(), folder)
    return ChatProcessor(description.tokenizer, Qwen2VL(), description.picture)


def statuses(folder):
    record = json.loads((folder / "doctor.json").read_text())
    return {check["name"]: check["status"] for check in record["checks"]}, record


def test_the_base_reads_right(shards, tmp_path, capsys):
    args = ["doctor", *STAGE_1, "--data.train", shards, "--num", "12", "--out", str(tmp_path)]
    assert main(args) == 0
    printed = capsys.readouterr().out
    assert "✓ box convention  the declared convention fits, 0-1000 of width and height (x1, y1, x2, y2)" in printed
    checks, record = statuses(tmp_path)
    assert checks["box convention"] == checks["special tokens"] == checks["names"] == checks["lengths"] == "ok"
    assert checks["group rewards"] == "skipped"
    assert record["convention"]["num_answers"] == 12
    assert record["facts"]["mode"] == "direct"
    page = (tmp_path / "doctor.html").read_text()
    assert 'Before the training: <span class="right">no fault' in page
    assert page.count("<figure class=case>") == 12
    assert "<script" not in page
    assert not (tmp_path / "doctor.units").exists()


def test_a_wrong_convention_cut_prompts_and_equal_rewards_are_named(shards, tmp_path, capsys):
    wrong = ["--model.backbone.family", "tests.cli.doctor_family.PixelQwen2VL", "--data.max_tokens", "60"]
    args = ["doctor", *STAGE_2, "--data.train", shards, *wrong, "--model.max_new_tokens", "24"]
    assert main([*args, "--mode", "direct", "--num", "12", "--out", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "✗ box convention  the answers are boxes in 0-1000 of width and height (x1, y1, x2, y2)" in printed
    assert "as declared, pixels of the resized picture, as in this run" in printed
    assert "12 of 12 are longer than data.max_tokens = 60, and left out: raise it" in printed
    assert "12 of 12 groups of 4 have equal rewards; mean reward 0.00" in printed
    assert "truncated at 24 tokens: raise model.max_new_tokens" in printed
    assert "3 faults; the answers are in" in printed
    assert statuses(tmp_path)[1]["convention"]["verdict"] == "wrong"
    assert "answer under the best convention" in (tmp_path / "doctor.html").read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([*STAGE_1, "--num", "2"], "--num: 2 answers show nothing"),
        ([*STAGE_1, "--mode", "loud"], "--mode: 'loud' is not one of auto, think"),
        ([*STAGE_1, "--data.train", "gone"], "gone"),
        ([*STAGE_1, "--data.trian", "x"], "trian"),
        (["-c", "configs/stage/gone.yaml"], "no such file"),
    ],
)
def test_what_a_user_may_do_wrong(args, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", *args]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_options_of_fit_are_handed_on():
    options, settings = split(["-c", "a.yaml", "--num", "9", "--data.train", "x", "-c", "b.yaml", "--data.mode=direct"])
    assert options.num == 9
    assert settings == ["-c", "a.yaml", "-c", "b.yaml", "--data.train", "x", "--data.mode=direct"]


def test_help_imports_nothing_heavy():
    code = "import sys, kvg.cli.doctor as d; d.parser().format_help(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- single checks -------------------------------------------------------------------------------------------------
def test_split_special_tokens_are_named(scenes, processor, tmp_path):
    (sample,) = scenes(1)
    assert token_check(processor, sample, "think", 1024).status == "ok"
    folder = shutil.copytree(lab_folder(), tmp_path / "split")
    content = json.loads((folder / "tokenizer.json").read_text())
    for token in content["added_tokens"]:
        token["content"] = token["content"].replace("box_", "other_")  # the ids stay
    (folder / "tokenizer.json").write_text(json.dumps(content))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    for name in ("added_tokens_decoder", "additional_special_tokens", "extra_special_tokens"):
        settings.pop(name, None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=r"cuts <\|box_start\|> into 4 tokens"):  # before the model is loaded
        lab_processor(str(folder))
    tokenizer, processor.tokenizer = processor.tokenizer, AutoTokenizer.from_pretrained(folder)
    check = token_check(processor, sample, "think", 1024)
    processor.tokenizer = tokenizer
    assert check.status == "fault"
    assert [detail.split(" is written")[0] for detail in check.details] == ["<|box_start|>", "<|box_end|>"]
    check = token_check(processor, sample, "think", 1013)
    assert "<|object_ref_start|> is token 1013, and the model has 1013 embeddings" in check.details


def test_names_are_compared(scenes, processor):
    samples = scenes(4)
    assert name_check(processor, samples, [], "think").status == "ok"
    first = samples[0]
    objects = [replace(item, entity=f"{item.entity}_a b") for item in first.objects]
    other = replace(first, objects=tuple(replace(item, entity=f"{item.entity}-a  B") for item in first.objects))
    check = name_check(processor, [replace(first, objects=tuple(objects))], [other], "think")
    assert check.status == "fault"
    assert f"several spellings, each an entity of its own: {len(objects)}" in check.text
    same = tuple(replace(item, entity=first.entity) for item in first.objects)
    check = name_check(processor, [replace(first, objects=same)], [], "think")
    assert "questions whose name is on the picture twice: 1" in check.text


def test_lengths_and_pictures_are_counted(scenes, processor):
    samples = scenes(4, sizes=((280, 280),))
    lengths, faults = measure(processor, [*samples, replace(samples[0], image=b"none")], "think", "rationale")
    assert len(lengths) == 4
    assert len(faults) == 1
    example = processor.encode(samples[0], mode="think", target="rationale")
    one = lengths[0]
    assert one.prompt + one.completion == len(example.input_ids)
    assert (one.visual, one.reduced) == (25, 0.25)  # 280 x 280 becomes 140 x 140, tokens of 28 x 28
    check = picture_check(lengths, faults)
    assert check.status == "fault"  # one sample of five cannot be used
    assert "4 of 4 are reduced, at most to 25% of their area" in check.text
    longest = max(one.prompt + one.completion for one in lengths)
    assert length_check(lengths, longest, 4096, None).status == "ok"
    check = length_check(lengths, longest - 1, 4096, None)
    assert check.status == "fault"
    assert f"longer than data.max_tokens = {longest - 1}" in check.text
    assert "4 of 4 have answers longer than model.max_new_tokens = 10" in length_check(lengths, None, 10, None).text
    assert "exceed the 64 positions" in length_check(lengths, None, 4096, 64).text


def test_groups_are_told_apart_by_their_rewards(scenes):
    samples = scenes(2)
    module = grpo(Backbone("tiny"), PUBLISHED, group_size=2, max_new_tokens=8)

    def texts(sample, *boxes):
        size = module.backbone.processor.image_size(sample.width, sample.height)
        written = [module.backbone.codec.encode(box, size) for box in boxes]
        return [Completion(f"<think>a</think><answer>{text}</answer>", 9, "stop", 8) for text in written]

    truth, miss = [sample.box_px for sample in samples], (0.0, 0.0, 2.0, 2.0)
    unequal = [*texts(samples[0], truth[0], miss), *texts(samples[1], miss, truth[1])]
    check = group_check(module, "think", samples, unequal)
    assert check.status == "ok"
    assert check.text.startswith("0 of 2 groups of 2 have equal rewards; mean reward 1.5")
    equal = [*texts(samples[0], miss, miss), *texts(samples[1], miss, miss)]
    check = group_check(module, "think", samples, equal)
    assert check.status == "fault"
    assert (
        "2 of 2 groups of 2 have equal rewards; mean reward 1.00, standard deviation within a group 0.00" in check.text
    )
    assert "the boxes are wrong, or iou_threshold is too high" in check.text


def test_answers_that_are_there_are_not_asked_again(scenes, tmp_path):
    backbone = Backbone("tiny").requires_grad_(False).eval()
    questions = Questions(scenes(3), "direct", SamplingSettings(6, temperature=1.0), 2, batch_size=2)
    first = questions.ask(backbone, tmp_path, "settings")
    assert len(first) == 6
    assert questions.ask(None, tmp_path, "settings") == first  # no model is needed
    (tmp_path / "000001.json").unlink()
    assert questions.ask(backbone, tmp_path, "settings") == first
    with pytest.raises(AttributeError):
        questions.ask(None, tmp_path, "other settings")
