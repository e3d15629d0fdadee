"""`kvg predict` and `kvg test` of a model behind a server: the lines are those of a checkpoint."""

from __future__ import annotations

import base64
import json
from dataclasses import replace

import pytest

from kvg.backbones.answers import completions
from kvg.backbones.backbone import Backbone
from kvg.cli.kvg import main
from kvg.evaluation.records.prediction import read_predictions
from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings
from kvg.shards.writer import ShardWriter
from kvg.text.prompts import describe_prompts, prompt
from tests.inference.scripted import MODEL, ScriptedServer, answer, question, says

BUDGET = "{max_pixels: 19600, min_pixels: 784}"  # of the lab's models


@pytest.fixture
def test_set(tmp_path, scenes):
    """Seven questions, in batches of 3, 3 and 1."""

    def write(change=lambda number, sample: sample, num=7):
        with ShardWriter(tmp_path / "set", 4) as writer:
            for number, sample in enumerate(scenes(num, sizes=[(84, 84), (112, 84)], snap_px=None)):
                writer.write(change(number, sample))
        return str(tmp_path / "set")

    return write


def words(command, server, test, out, **settings):
    given = {
        "data.test": test,
        "data.mode": "direct",
        "data.batch_size": 3,
        "model.client.init_args.url": server.url,
        "model.client.init_args.model": MODEL,
        "model.client.init_args.concurrency": 2,
        "trainer.default_root_dir": out,
        **{name.replace("__", "."): value for name, value in settings.items()},
    }
    overlays = ["-c", "configs/client/server.yaml", "-c", "configs/data/lab_test.yaml"]
    return [command, *overlays, *(f"--{key}={value}" for key, value in given.items())]


def lines_of(folder):
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text("utf-8").splitlines()]


def entity(body):
    return question(body).partition("<|object_ref_start|>")[2].partition("<|object_ref_end|>")[0]


def test_lines_and_verdicts_of_all_that_a_server_may_say(test_set, scenes, tmp_path):
    samples = scenes(7, sizes=[(84, 84), (112, 84)], snap_px=None)
    box = [round(v * 1000 / side) for v, side in zip(samples[0].box_px, (84, 84, 84, 84), strict=True)]
    right = answer("<|box_start|>({},{}),({},{})<|box_end|>".format(*box))
    order = {base64.b64encode(sample.image).decode(): number for number, sample in enumerate(samples)}
    script = {0: says(right), 1: says({"error": "too large"}, 400), 2: says(answer("(1,2),(3", "length"))}

    def act(number, body):
        picture = body["messages"][-1]["content"][0]["image_url"]["url"].partition(",")[2]
        return script.get(order[picture], says(answer("I see none.")))

    with ScriptedServer(act) as server:
        run = words("test", server, test_set(), tmp_path / "run")
        with pytest.warns(UserWarning, match="1 questions have no answer"):
            assert main(run) == 0
        assert len(server.bodies) == 7
        assert main(run) == 0
        assert len(server.bodies) == 7  # nothing is asked again
    lines = lines_of(tmp_path / "run")
    assert [line["key"] for line in lines] == [sample.key for sample in samples]
    assert lines[0]["correct"]
    assert lines[0]["num_tokens"] == 20
    assert (lines[1]["answer"], lines[1]["box"]) == ("", None)
    assert lines[1]["fault"] == 'the server refused it: 400 "too large"'
    assert (lines[2]["answer"], lines[2]["finish_reason"], lines[2]["box"]) == ("(1,2),(3", "length", None)
    assert [case.answered for case in read_predictions(tmp_path / "run")] == [True] + 6 * [False]
    record = json.loads((tmp_path / "run/predictions.json").read_text("utf-8"))
    assert (record["num_cases"], record["num_bad"], record["num_unanswered"]) == (7, 0, 1)
    assert server.url in record["client"]
    assert "model" in record["settings"]["client"][1]
    assert not list((tmp_path / "run").glob("*.units"))


@pytest.mark.parametrize("mode", ["direct", "think"])
def test_a_served_checkpoint_writes_the_file_of_the_checkpoint(mode, test_set, scenes, tmp_path):
    """The server answers by a backbone of its own, from nothing but what it is sent."""
    backbone = Backbone("lab").eval()

    def act(number, body):
        picture, text = body["messages"][-1]["content"]
        image = base64.b64decode(picture["image_url"]["url"].partition(",")[2])
        example = backbone.processor.encode_question("sent", image, text["text"])
        batch = backbone.processor.collate([example], [], pad_left=True)
        (said,) = completions(backbone, rollout(backbone, batch, SamplingSettings(body["max_tokens"], 0.0)))
        reply = answer(said.text, said.finish_reason)
        return says({**reply, "usage": {"prompt_tokens": 1, "completion_tokens": said.num_tokens}})

    test, asked = test_set(), {"data.mode": mode, "data.batch_size": 1}
    with ScriptedServer(act) as server:
        settings = {"model.client.init_args.max_tokens": 48, "model.sent_size": BUDGET, **asked}
        assert main(words("predict", server, test, tmp_path / "served", **settings)) == 0
    local = {"data.test": test, "trainer.default_root_dir": tmp_path / "own", "trainer.accelerator": "cpu", **asked}
    local["model.max_new_tokens"] = 48
    names = ("stage/cot_sft", "backbone/lab", "data/lab_test")
    overlays = [word for name in names for word in ("-c", f"configs/{name}.yaml")]
    assert main(["predict", *overlays, *(f"--{key}={value}" for key, value in local.items())]) == 0
    served, own = ((tmp_path / name / "predictions.jsonl").read_bytes() for name in ("served", "own"))
    assert served == own


def test_two_turns_are_one_conversation(test_set, tmp_path):
    def act(number, body):
        return says(answer("It is <|box_start|>red." if len(body["messages"]) == 1 else "(1,2),(300,400)"))

    with ScriptedServer(act) as server:
        assert main(words("predict", server, test_set(num=2), tmp_path / "run", data__mode="describe")) == 0
    lines = lines_of(tmp_path / "run")
    assert [(line["description"], line["answer"]) for line in lines] == 2 * [("It is red.", "(1,2),(300,400)")]
    first, second = describe_prompts(lines[0]["entity"])
    conversations = [body["messages"] for body in server.bodies if len(body["messages"]) == 3]
    assert [(turn["role"], turn["content"]) for turn in conversations[0][1:]] == [
        ("assistant", "It is red."),
        ("user", second),
    ]
    assert conversations[0][0]["content"][1]["text"] == first


def test_marks_of_names_are_those_of_the_config(test_set, tmp_path):
    with ScriptedServer() as server:
        marks = {"model.prompt_format.name_start": "'", "model.prompt_format.name_end": "'"}
        assert main(words("predict", server, test_set(num=1), tmp_path / "run", **marks)) == 0
    name = lines_of(tmp_path / "run")[0]["entity"]
    assert [question(body) for body in server.bodies] == [f"Find and give the bounding box of '{name}'"]
    assert question(server.bodies[0]) != prompt(name, "direct")


def test_a_picture_that_does_not_decode_ends_it_or_is_counted(test_set, tmp_path, capsys):
    def broken(number, sample):
        at = sample.image.index(b"IDAT") + 4
        return replace(sample, image=sample.image[:at] + bytes(40) + sample.image[at + 40 :]) if number < 3 else sample

    test = test_set(broken)
    with ScriptedServer() as server:
        assert main(words("predict", server, test, tmp_path / "run")) == 2
        assert "set row 0 (s0-0000000): image: is cut off" in capsys.readouterr().err
        assert main(words("predict", server, test, tmp_path / "run", data__skip_bad="true")) == 0
        assert len(server.bodies) <= 4 + 2  # those that were under way when it ended
    assert [line["key"] for line in lines_of(tmp_path / "run")] == [f"s0-000000{n}" for n in (3, 4, 5, 6)]
    assert json.loads((tmp_path / "run/predictions.json").read_text("utf-8"))["num_bad"] == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data.mode": "auto"}, "data.mode: auto needs a model that stores its mode"),
        ({"model.codec": "kvg.text.box_codec.AbsoluteCodec"}, "model.sent_size: is needed for boxes in pixels"),
        ({"model.sent_size": "{max_pixels: 100}"}, "model.sent_size.max_pixels: 100 is less than min_pixels"),
        ({"trainer.devices": 2}, "trainer.devices: must be 1"),
        ({"model.client.init_args.url": "nowhere"}, "url: 'nowhere' is no address"),
        ({"model.client.init_args.key_env": "NO_SUCH_KEY"}, "key_env: the environment has no 'NO_SUCH_KEY'"),
        ({"model.client.init_args.model": "other"}, "model: 'other' is not served, but org/seer"),
    ],
)
def test_settings_that_cannot_work_are_said(settings, message, test_set, tmp_path, capsys):
    with ScriptedServer() as server:
        assert main(words("predict", server, test_set(num=1), tmp_path / "run", **settings)) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
