"""``kvg ground``: a picture and a name, a folder and a name, a list; and what a user may do wrong."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from kvg.backbones.builtin import lab_folder
from kvg.cli.kvg import main
from kvg.inference.engine import BackboneEngine
from kvg.pipeline.ground import in_words
from kvg.pipeline.grounder import Grounder, plain_text
from kvg.pipeline.grounding import Grounding


@pytest.fixture(scope="module")
def lab():
    return Grounder("lab")


@pytest.fixture(scope="module")
def photographs(scenes, tmp_path_factory):
    """Three pictures in a folder with two that cannot be used, and a list of them."""
    folder = tmp_path_factory.mktemp("photographs")
    samples = scenes(3)
    lines = []
    for sample in samples:
        (folder / f"{sample.key}.png").write_bytes(sample.image)
        lines.append({"image": f"{sample.key}.png", "entity": sample.entity})
    (folder / "cut.png").write_bytes(samples[0].image[:200])
    (folder / "page.jpg").write_text("<html>")
    lines += [{"image": "cut.png", "entity": "Merlin"}, {"image": "gone.png", "entity": "Merlin"}, {"image": "cut.png"}]
    text = "".join(json.dumps(line) + "\n" for line in lines) + "not JSON\n"
    (folder / "pairs.jsonl").write_text(text)
    return folder, samples


def test_a_box_is_given_in_each_convention():
    grounding = Grounding("Merlin", "bird.jpg", 200, 100, "", "", (20.0, 10.0, 150.0, 90.0), "stop", 7, b"")
    assert grounding.box_unit == (0.1, 0.1, 0.75, 0.9)
    assert grounding.box_norm == (100.0, 100.0, 750.0, 900.0)
    assert in_words(grounding).splitlines() == [
        "Merlin in bird.jpg (200 x 100 pixels, upright)",
        "  pixels  20  10  150  90",
        "  0-1     0.1  0.1  0.75  0.9",
        "  0-1000  100  100  750  900",
    ]


def test_a_picture_is_answered_drawn_and_printed(lab, photographs, tmp_path, capsys):
    folder, (sample, *_) = photographs
    picture = shutil.copy(folder / f"{sample.key}.png", tmp_path / "snail.png")
    assert main(["ground", str(picture), sample.entity, "--checkpoint", "lab"]) == 0
    printed = capsys.readouterr().out
    answer = lab.ground(picture, sample.entity)
    assert printed == f"{plain_text(answer.text)}\n\n{in_words(answer)}\n{tmp_path / 'snail.boxed.png'}\n"
    boxed, plain = (Image.open(tmp_path / name).convert("RGB") for name in ("snail.boxed.png", "snail.png"))
    x1, y1, x2, y2 = map(round, answer.box_px)
    assert boxed.getpixel((x1, (y1 + y2) // 2)) == boxed.getpixel(((x1 + x2) // 2, y2)) == (255, 40, 40)
    inner = (x1 + 3, y1 + 3, x2 - 3, y2 - 3)
    assert boxed.crop(inner).tobytes() == plain.crop(inner).tobytes()


def test_the_box_is_that_of_the_written_numbers(lab, photographs):
    _, (sample, *_) = photographs
    answer = lab.ground(sample.image, sample.entity)
    numbers = [float(n) for n in plain_text(answer.text).replace("(", "").replace(")", "").split(",")]
    assert list(answer.box_norm) == pytest.approx(numbers)
    sides = (sample.width, sample.height) * 2
    assert list(answer.box_px) == pytest.approx([n * side / 1000 for n, side in zip(numbers, sides, strict=True)])


def test_text_comes_in_parts_that_make_the_whole(lab, photographs):
    _, (sample, *_) = photographs
    parts = []
    grounder = Grounder("lab", mode="think", max_new_tokens=80)
    answer = grounder.ground(sample.image, sample.entity, parts.append)
    assert len(parts) > 10
    assert "".join(parts) == plain_text(answer.text)
    assert (answer.finish_reason, answer.num_tokens, answer.box_px) == ("length", 80, None)
    assert "--max-new-tokens" in in_words(answer)


def test_a_turned_picture_is_answered_upright(lab, photographs, tmp_path):
    _, (sample, *_) = photographs
    upright = Image.open(io.BytesIO(sample.image)).convert("RGB")
    wide = Image.new("RGB", (upright.width + 30, upright.height), "white")
    wide.paste(upright, (0, 0))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees to the right
    wide.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    wide.save(tmp_path / "plain.png")
    turned, plain = (lab.ground(tmp_path / name, sample.entity) for name in ("turned.png", "plain.png"))
    assert (turned.width, turned.height) == wide.size
    assert turned.box_px == plain.box_px
    assert lab.ground(Image.open(tmp_path / "turned.png"), sample.entity).box_px == plain.box_px
    assert turned.with_box().size == wide.size


def test_json_is_all_that_is_printed(photographs, tmp_path, capsys):
    folder, (sample, *_) = photographs
    out = tmp_path / "a.webp"
    args = ["ground", str(folder / f"{sample.key}.png"), sample.entity, "--checkpoint", "lab", "--json"]
    assert main([*args, "--out", str(out)]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["picture"] == str(out)
    assert Image.open(out).size == (record["width"], record["height"]) == (140, 140)
    assert record["box_norm"] == pytest.approx([v * 1000 for v in record["box_unit"]])


def test_a_list_is_answered_without_its_bad_lines(lab, photographs, tmp_path, capsys):
    folder, samples = photographs
    args = ["ground", str(folder / "pairs.jsonl"), "--checkpoint", "lab", "--out", str(tmp_path)]
    assert main(args) == 0
    printed = capsys.readouterr().out
    assert "3 answers: 3 with a box, 0 without" in printed
    assert "4 left out" in printed
    records = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    for record, sample in zip(records, samples, strict=True):
        assert record["box_px"] == [round(v, 2) for v in lab.ground(sample.image, sample.entity).box_px]
        assert Image.open(record["picture"]).size == (140, 140)
    faults = (tmp_path / "skipped.jsonl").read_text()
    assert [text in faults for text in ("line 4", "line 5", "line 6: entity", "line 7: json")] == [True] * 4
    before = (tmp_path / "answers.jsonl").stat().st_mtime_ns
    assert main([*args, "--json"]) == 0  # complete: nothing is asked or written again
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == records
    assert (tmp_path / "answers.jsonl").stat().st_mtime_ns == before


def test_a_folder_is_asked_one_name(photographs, tmp_path, capsys):
    folder, _ = photographs
    assert main(["ground", str(folder), "Merlin", "--checkpoint", "lab", "--out", str(tmp_path), "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["entity"] for record in records] == ["Merlin"] * 3
    assert "page.jpg" in (tmp_path / "skipped.jsonl").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("with_signal", [signal.SIGINT, signal.SIGKILL])
def test_a_list_grows_and_an_ended_one_goes_on_with_the_same_answers(photographs, tmp_path, with_signal):
    folder, _ = photographs
    lines = (folder / "pairs.jsonl").read_text().splitlines()[:3]
    source = folder / "many.jsonl"
    source.write_text("\n".join(lines * 8) + "\n")
    command = [sys.executable, "-m", "kvg", "ground", str(source), "--checkpoint", "lab", "--batch-size", "1", "--out"]
    process = subprocess.Popen([*command, str(tmp_path / "cut")], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    answers = tmp_path / "cut" / "answers.jsonl"
    while process.poll() is None and not (answers.exists() and answers.read_text().count("\n") > 2):
        time.sleep(0.02)
    process.send_signal(with_signal)
    _, errors = process.communicate()
    assert process.returncode == (130 if with_signal == signal.SIGINT else -signal.SIGKILL), errors
    assert (b"kvg: interrupted" in errors) == (with_signal == signal.SIGINT)
    part = answers.read_text()
    assert 2 < part.count("\n") < 24
    for name in ("cut", "whole"):
        args = ["ground", str(source), "--checkpoint", "lab", "--batch-size", "1", "--out", str(tmp_path / name)]
        assert main(args) == 0
    texts = [(tmp_path / name / "answers.jsonl").read_text().replace(f"/{name}/", "/") for name in ("cut", "whole")]
    assert texts[0] == texts[1]
    assert texts[0].startswith(part.replace("/cut/", "/"))
    assert not (tmp_path / "cut" / "ground.units").exists()


def test_lines_come_while_later_pictures_are_answered(photographs, tmp_path, monkeypatch, capsys):
    """With batches of one: when the second picture is answered, the line of the first can be read."""
    folder, _ = photographs
    seen = []
    answer = BackboneEngine.answer

    def watched(self, batch, seed):
        path = tmp_path / "answers.jsonl"
        seen.append(len(path.read_text().splitlines()))
        return answer(self, batch, seed)

    monkeypatch.setattr(BackboneEngine, "answer", watched)
    args = ["ground", str(folder / "pairs.jsonl"), "--checkpoint", "lab", "--batch-size", "1", "--out", str(tmp_path)]
    assert main([*args, "--json"]) == 0
    assert seen == [0, 1, 2, 3]  # the last batch has the picture that is cut off
    assert capsys.readouterr().out == (tmp_path / "answers.jsonl").read_text()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["{folder}/scene.png", "Merlin"], "--checkpoint: is missing; give RUN/export of a training, or lab"),
        (["{folder}/scene.png", "--checkpoint", "lab"], "NAME: is missing"),
        (["{folder}/gone.png", "Merlin", "--checkpoint", "lab"], "gone.png: image: does not exist"),
        (["{folder}/cut.png", "Merlin", "--checkpoint", "lab"], "cut.png: image: is cut off"),
        (["{folder}/scene.png", " ", "--checkpoint", "lab"], "entity: is empty"),
        (["{folder}/scene.png", "a <think>", "--checkpoint", "lab"], "may not hold <think>"),
        (["{folder}/scene.png", "Merlin", "--checkpoint", "lab", "--mode", "loud"], "mode: 'loud' is not one of auto"),
        (["{folder}/scene.png", "Merlin", "--checkpoint", "lab", "--out", "{folder}/scene.png"], "the picture itself"),
        (["{folder}/scene.png", "Merlin", "--checkpoint", "lab", "--out", "a.gif"], "must end in one of .jpg"),
        (["{folder}/scene.png", "Merlin", "--checkpoint", "{folder}/export"], "no such folder"),
        (["{folder}/pairs.jsonl", "Merlin", "--checkpoint", "lab"], "NAME: 'Merlin' is one too many"),
        (["{folder}/empty", "Merlin", "--checkpoint", "lab"], "pictures: there are none in this folder"),
        (["{folder}/bad.jsonl", "--checkpoint", "lab"], "lines: none can be used"),
    ],
)
def test_what_a_user_may_do_wrong(photographs, tmp_path, monkeypatch, capsys, args, message):
    folder, (sample, *_) = photographs
    for name in ("cut.png", "pairs.jsonl"):
        shutil.copy(folder / name, tmp_path)
    (tmp_path / "scene.png").write_bytes(sample.image)
    (tmp_path / "bad.jsonl").write_text('{"image": "gone.png", "entity": "Merlin"}\n')
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    assert main(["ground", *(arg.format(folder=tmp_path) for arg in args)]) == 2
    assert message in capsys.readouterr().err


def test_exports_of_the_working_folder_are_named(photographs, tmp_path, monkeypatch, capsys):
    _, (sample, *_) = photographs
    (tmp_path / "scene.png").write_bytes(sample.image)
    shutil.copytree(lab_folder(), tmp_path / "runs" / "mine" / "export")
    (tmp_path / "runs" / "mine" / "export" / "kvg.json").write_text('{"mode": null}')
    monkeypatch.chdir(tmp_path)
    assert main(["ground", "scene.png", "Merlin"]) == 2
    assert "(here: runs/mine/export)" in capsys.readouterr().err
    assert main(["ground", "scene.png", "Merlin", "--checkpoint", "runs/yours"]) == 2  # never looked up on the hub
    assert "'runs' is a folder here" in capsys.readouterr().err
