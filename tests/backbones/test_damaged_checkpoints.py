"""Checkpoint folders come from outside: whatever is wrong with one is named with its file, before it is loaded."""

from __future__ import annotations

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from kvg.backbones.backbone import Backbone
from kvg.backbones.families.qwen2_vl import Qwen2VL
from kvg.backbones.fingerprint import fingerprint
from kvg.backbones.weight_files import former_name
from kvg.cli.kvg import main
from kvg.errors import ConfigError


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    Backbone("tiny").export(folder, "think")
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "model")


def fault(folder) -> str:
    with pytest.raises(ConfigError) as caught:
        Backbone(str(folder))
    assert caught.value.field == "backbone.checkpoint"
    assert str(folder) in str(caught.value)
    assert len(str(caught.value)) < 900
    return caught.value.remedy


def change(path, **settings):
    content = json.loads(path.read_text())
    for name, value in settings.items():
        *owners, last = name.split("__")
        place = content
        for owner in owners:
            place = place[owner]
        place[last] = value
    path.write_text(json.dumps(content))


JSON_FILES = ("config.json", "preprocessor_config.json", "kvg.json", "tokenizer.json", "tokenizer_config.json")
CONTENTS = [b"", b"{", b"[]", b"null", b'"text"', b"\xff\xfe\x00", b"[" * 100_000, b"\x00" * 20]


@pytest.mark.parametrize("content", CONTENTS, ids=range(len(CONTENTS)))
@pytest.mark.parametrize("name", JSON_FILES)
def test_files_that_are_no_settings(folder, name, content, monkeypatch):
    monkeypatch.setattr(Backbone, "load", lambda *_: pytest.fail("the weights were loaded"))
    (folder / name).write_bytes(content)
    remedy = fault(folder)
    assert name in remedy or ("tokenizer" in name and "tokenizer" in remedy)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": None}, "model_type is None"),
        ({"model_type": ["qwen2_vl"]}, "model_type is"),
        ({"model_type": "llama"}, "holds a llama model; there are glm4v, internvl, qwen2_5_vl"),
        ({"image_token_id": 7}, "does not know <|image_pad|> as token 7"),
        ({"image_token_id": "x"}, "its config.json cannot be read"),
        ({"text_config__vocab_size": 10}, "embeddings"),
        ({"vision_config__patch_size": 16}, "does not fit its model: patch_size is 14, and patch_size"),
        ({"text_config": [1]}, "its config.json cannot be read"),
        ({"vision_config": "none"}, "its config.json cannot be read"),
    ],
)
def test_settings_of_another_model(folder, settings, message, monkeypatch):
    monkeypatch.setattr(Backbone, "load", lambda *_: pytest.fail("the weights were loaded"))
    change(folder / "config.json", **settings)
    assert message in fault(folder)


def test_a_length_of_texts_that_is_no_number(folder):
    change(folder / "tokenizer_config.json", model_max_length=[512])
    assert "its tokenizer cannot be read" in fault(folder)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"text_config__num_hidden_layers": 10**9, "text_config__layer_types": None}, "num_hidden_layers: 1000000000"),
        ({"text_config__num_hidden_layers": 0, "text_config__layer_types": []}, "num_hidden_layers: 0 must be"),
        ({"vision_config__depth": 10**9}, "depth: 1000000000 must be a whole number from 1 to 1000"),
        ({"text_config__num_hidden_layers": "2"}, "num_hidden_layers: '2' must be"),
        ({"text_config__num_hidden_layers": 1, "text_config__layer_types": None}, "says 1 layers"),
        ({"text_config": None}, "and its weights hold 2"),
        ({"text_config__hidden_size": 128}, "weights do not fit its config.json"),
        ({"text_config__vocab_size": 10**12}, "weights do not fit its config.json"),
        ({"text_config__num_attention_heads": 0}, "describes no model"),
    ],
)
def test_settings_that_the_weights_do_not_fit_are_seen_in_the_heads_of_their_files(
    folder, settings, message, monkeypatch
):
    monkeypatch.setattr(Qwen2VL.hf_class, "from_pretrained", lambda *_, **__: pytest.fail("loaded"))
    change(folder / "config.json", **settings)
    assert message in fault(folder)


ENDLESS = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{% for m in messages %}", "chat template"),
        ("{{ raise_exception('not for you') }}", "not for you"),
        ("{{ messages[9].content.x.y }}", "fails"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "fails (SecurityError"),
        ("{{ messages.append(1) }}", "fails (SecurityError"),
        ("{{ 1 / 0 }}", "fails (ZeroDivisionError"),
        ("{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}", "fails (RecursionError"),
        (ENDLESS, "fails (TimeoutError"),
        ("hello", "leaves out what is said"),
        ("{% for m in messages %}{{ m.content }}{% endfor %}", "writes <|image_pad|> 0 times once for a picture"),
        ("", "leaves out what is said"),
    ],
)
def test_chat_templates(folder, template, message, monkeypatch):
    monkeypatch.setattr("kvg.backbones.chat_template._SECONDS", 1.0)
    monkeypatch.setattr(Backbone, "load", lambda *_: pytest.fail("the weights were loaded"))
    (folder / "chat_template.jinja").write_text(template)
    remedy = fault(folder)
    assert message in remedy
    assert "chat_template.jinja" in remedy


def test_a_missing_chat_template_is_that_of_the_family(folder):
    (folder / "chat_template.jinja").unlink()
    assert Backbone(str(folder)).processor.chat("Who?") == Backbone("tiny").processor.chat("Who?")


def parted(folder, **names):
    """The weights in two files with an index, as large models have them."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    half = len(weights) // 2
    parts = {"a.safetensors": list(weights)[:half], "b.safetensors": list(weights)[half:]}
    for name, keys in parts.items():
        save_file({key: weights[key] for key in keys}, folder / name, {"format": "pt"})
    index = {key: names.get(name[0], name) for name, keys in parts.items() for key in keys}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def test_weights_in_parts_are_read(folder):
    parted(folder)
    assert Backbone(str(folder)).hidden_size == 64


@pytest.mark.parametrize(
    "name", ["../b.safetensors", "/etc/passwd", "../../x", "b.bin", 7, None, "", "c/b.safetensors"]
)
def test_an_index_that_names_files_elsewhere(folder, name):
    parted(folder, b=name)
    assert "which is no safetensors file of its own folder" in fault(folder)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": []}', '{"weight_map": {}}'])
def test_an_index_that_is_none(folder, content):
    parted(folder)
    (folder / "model.safetensors.index.json").write_text(content)
    assert "model.safetensors.index.json" in fault(folder)


def test_a_part_that_is_missing_or_cut_off(folder):
    parted(folder)
    path = folder / "b.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    assert "its b.safetensors is damaged or cut off" in fault(folder)
    path.unlink()
    assert "has no b.safetensors, which its model.safetensors.index.json names" in fault(folder)


def test_pickled_weights_are_not_read(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "pytorch_model.bin could run code as it is read: save it as safetensors" in fault(folder)


@pytest.mark.parametrize("ends", ["x", [1.5], {"a": 1}, [None], True])
def test_ends_of_completions_that_are_no_tokens(folder, ends):
    change(folder / "generation_config.json", eos_token_id=ends)
    assert "generation_config.json" in fault(folder) or "cannot be loaded" in fault(folder)


@pytest.mark.parametrize("mode", [["think"], {}, 5, "no such mode"])
def test_modes_that_there_are_not(folder, mode):
    (folder / "kvg.json").write_text(json.dumps({"mode": mode}))
    assert "its kvg.json names the mode" in fault(folder)


def test_names_that_are_no_folders(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "is a file" in fault(folder / "config.json")
    assert "is no such folder" in fault(tmp_path / "nowhere")


def test_a_name_on_a_hub_that_does_not_answer(monkeypatch):
    def offline(*_, **__):
        raise OSError("We couldn't connect")

    monkeypatch.setattr("kvg.backbones.checkpoints.AutoConfig.from_pretrained", offline)
    remedy = fault("Qwen/Qwen2-VL-2B-Instruct")
    assert "cannot be read (We couldn't connect); correct the name, or download the model" in remedy
    assert "export" not in remedy


def test_no_code_of_a_checkpoint_is_run(folder):
    (folder / "own.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    change(folder / "config.json", auto_map={"AutoConfig": "own.Own"}, model_type="own")
    fault(folder)
    assert not (folder / "ran").exists()


def test_folders_that_name_each_other_have_a_fingerprint(tmp_path):
    for name, base in (("a", "b"), ("b", "a")):
        (tmp_path / name).mkdir()
        settings = {"peft_type": "LORA", "base_model_name_or_path": str(tmp_path / base)}
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match="holds adapters, too"):
        fingerprint(str(tmp_path / "a"))


def test_the_command_says_so_in_one_line_and_ends_with_2(folder, capsys, lab_shards, tmp_path):
    (folder / "tokenizer.json").write_text("{")
    data = ["--data.train", lab_shards(tmp_path / "set", 2), "--trainer.default_root_dir", str(tmp_path / "run")]
    code = main(["fit", "-c", "configs/stage/cot_sft.yaml", "--model.backbone.checkpoint", str(folder), *data])
    errors = capsys.readouterr().err
    assert code == 2
    assert f"kvg: backbone.checkpoint: '{folder}' its tokenizer cannot be read" in errors
    assert "Traceback" not in errors


def test_old_names_of_weights_are_read(folder):
    """Checkpoints of the hub name their weights as before transformers 4.52."""
    weights = load_file(folder / "model.safetensors")
    former = {former_name(name): value for name, value in weights.items()}
    save_file(former, folder / "model.safetensors", {"format": "pt"})
    assert Backbone(str(folder)).hidden_size == 64
