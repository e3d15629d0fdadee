"""Overlays mean the same to every command: what ``kvg --print_config`` prints of them."""

from __future__ import annotations

import datetime
import importlib
import inspect

import pytest
import yaml
from torch.nn.parallel import DistributedDataParallel

from kvg.cli.kvg import main
from kvg.cli.kvg_data import main as data_door
from kvg.errors import ConfigError
from kvg.training.resolved import answering_settings, answering_words, merged_settings, num_processes, parse_answering

STAGE = "configs/stage/cot_sft.yaml"
CHECKPOINT = "--model.init_args.backbone.init_args.checkpoint"
OVERLAYS = {
    "key by key.yaml": "model: {init_args: {backbone: {init_args: {feature_cache_mb: 64}}}}",
    "another key.yaml": "model: {init_args: {backbone: {init_args: {attn: eager}}}}",
    "own family.yaml": "model: {init_args: {backbone: {init_args: {family: {class_path: "
    "kvg.backbones.families.qwen2_5_vl.Qwen25VL}}}}}",
    "strategy.yaml": "trainer: {strategy: {class_path: lightning.pytorch.strategies.DDPStrategy, "
    "init_args: {find_unused_parameters: true}}}",
    "strategy again.yaml": "trainer: {strategy: {init_args: {gradient_as_bucket_view: true}}, devices: 2}",
    "dotted.yaml": "trainer.devices: 3\nmodel.init_args.backbone.init_args.attn: eager",
    "appended.yaml": "trainer: {callbacks+: {class_path: callbacks.Requeue}}",
}
COMBINATIONS = [
    ["key by key.yaml", "another key.yaml"],
    ["configs/backbone/lab.yaml", "key by key.yaml"],
    ["configs/backbone/qwen2_vl_2b.yaml", "own family.yaml", "another key.yaml"],
    ["configs/strategy/ddp.yaml", "strategy.yaml", "strategy again.yaml"],
    ["configs/strategy/ddp.yaml", "configs/strategy/fsdp2.yaml", "dotted.yaml"],
    ["configs/strategy/fsdp2.yaml", "configs/strategy/single.yaml", "appended.yaml", "configs/slurm/requeue.yaml"],
    ["configs/experiment/qwen2_vl_7b_cot_sft.yaml", "key by key.yaml"],
]


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A working folder with the overlays."""
    for name, text in OVERLAYS.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def print_config(capsys):
    """The settings that ``kvg fit`` prints."""

    def read(*args):
        capsys.readouterr()
        with pytest.raises(SystemExit, match="0"):
            main(["fit", *args, "--print_config"])
        return yaml.safe_load(capsys.readouterr().out)

    return read


def options(paths):
    return [word for path in paths for word in ("-c", path)]


def with_defaults(setting):
    """All arguments of ``{class_path, init_args}``, those that are left out by their defaults."""
    if not isinstance(setting, dict):
        return setting
    module, _, name = setting["class_path"].rpartition(".")
    kind = getattr(importlib.import_module(module), name)
    parameters = {}
    # What DDPStrategy takes by **kwargs goes on to the module of torch.
    for base in (*([DistributedDataParallel] if name == "DDPStrategy" else []), *reversed(kind.__mro__[:-1])):
        own = inspect.signature(base.__init__).parameters.values()
        parameters |= {one.name: one.default for one in own if one.default is not one.empty}
    values = parameters | setting.get("init_args", {})
    return {key: str(v) if isinstance(v, datetime.timedelta) else list(v) if isinstance(v, tuple) else v
            for key, v in values.items()}  # fmt: skip


def test_commands_are_merged_as_kvg_merges_them(files, print_config):
    commands = {str(n): ["kvg", "fit", *options([STAGE, *paths])] for n, paths in enumerate(COMBINATIONS[:-1])}
    from kvg.config.overlay_files import shipped_configs

    merged = merged_settings({title: shipped_configs(command) for title, command in commands.items()})
    for title, command in commands.items():
        printed = print_config(*command[2:])
        ours = {key: value for key, value in merged[title].items() if key in printed}
        assert yaml.safe_load(yaml.safe_dump(ours)) == printed
    assert [num_processes(merged[title]) for title in "0345"] == [1, 2, 3, 1]


@pytest.mark.parametrize("paths", COMBINATIONS, ids=", ".join)
def test_a_model_that_answers_has_what_kvg_would_print(files, print_config, paths):
    backbone, trainer = parse_answering(answering_words(paths, "lab"))
    stage = [] if "experiment" in paths[0] else [STAGE]
    printed = print_config(*options([*stage, *paths]), CHECKPOINT, "lab")
    expected = printed["model"]["init_args"]["backbone"]
    assert backbone["class_path"] == expected["class_path"]
    named = with_defaults(backbone)
    # The stage's own file tells arguments of a backbone too; here overlays alone do.
    of_stage = {} if stage == [] else print_config("-c", STAGE)["model"]["init_args"]["backbone"]["init_args"]
    for name, value in expected["init_args"].items():
        assert named[name] == value or (name in of_stage and value == of_stage[name]), name
    for name in ("accelerator", "devices", "num_nodes", "precision"):
        assert trainer.get(name) == printed["trainer"][name] or name == "precision"
    expected = printed["trainer"]["strategy"]
    if isinstance(expected, str):
        assert trainer["strategy"] == expected
    else:
        assert trainer["strategy"]["class_path"] == expected["class_path"]
        found = with_defaults(trainer["strategy"])
        assert {name: found[name] for name in expected.get("init_args", {})} == expected.get("init_args", {})


def test_later_files_change_single_arguments_and_options_come_last(files):
    paths = ["configs/backbone/qwen2_vl_2b.yaml", "key by key.yaml", "another key.yaml"]
    backbone, trainer = answering_settings(paths, "mine")
    assert backbone["class_path"] == "kvg.backbones.backbone.Backbone"
    values = backbone["init_args"]
    assert (values["checkpoint"], values["feature_cache_mb"], values["attn"]) == ("mine", 64, "eager")
    assert values["dtype"] == "float32"  # of the first file
    assert trainer["precision"] == "bf16-mixed"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", r"overlay.yaml: must be a mapping"),
        ("12", r"overlay.yaml: must be a mapping"),
        ("", r"overlay.yaml: must be a mapping"),
        ("trainer: {devices: 1", "overlay.yaml: is not YAML"),
        ("trainer: {a: b}: c", "overlay.yaml: is not YAML"),
        (b"\xff\xfe\x00", "overlay.yaml: is not YAML"),
        ("backbone: {init_args: {attn: eager}}", "overlay.yaml: backbone: unknown setting; there are .*model"),
        ("trainr.devices: 1", "overlay.yaml: trainr.devices: unknown setting"),
        ("trainer.devices: 2\ntrainer: {strategy: ddp}", "trainer.devices: would be ignored beside `trainer`"),
        ("model: {init_args: {a: {b: 1}, a.b.c: 2}}", "model.init_args.a.b.c: would be ignored"),
        ("trainer: {max_stepz: 1}", "trainer.max_stepz: unknown setting"),
        ("trainer: {devices: [many]}", "trainer.devices"),
        ("trainer: 5", "overlay.yaml: trainer: must be a mapping"),
        ("trainer: [1]", "overlay.yaml: trainer: must be a mapping"),
        ("model: 5", "model"),
        ("model: {init_args: 3}", "model"),
        ("model: {init_args: {backbone: 7}}", "model: .*Not a valid subclass of Backbone. Got value: 7"),
        ("model: {init_args: {backbone: {init_args: {chekpoint: lab}}}}", "chekpoint: unknown setting of kvg"),
        (
            "model: {init_args: {backbone: {class_path: kvg.backbones.backbone.Nothing}}}",
            "model: .*no attribute 'Nothing'",
        ),
        ("trainer: {strategy: {class_path: nowhere.Strategy}}", "strategy"),
        ("model: {init_args: {backbone: {init_args: {checkpoint: null}}}}", "checkpoint"),
    ],
)
def test_a_damaged_overlay_is_refused(files, tmp_path, text, message):
    path = tmp_path / "overlay.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=message):
        parse_answering(answering_words([str(path)], None))


def test_a_model_without_a_checkpoint_and_a_plugin_are_refused(files, tmp_path, capsys):
    with pytest.raises(ConfigError, match="--checkpoint: is missing"):
        parse_answering(answering_words(["strategy.yaml"], None))
    (tmp_path / "overlay.yaml").write_text("trainer: {plugins: lightning.pytorch.plugins.environments.MPIEnvironment}")
    given = ["filter", "--in", "nowhere", "--out", "out", "--checkpoint", "lab", "--config", "overlay.yaml"]
    assert data_door(given) == 2
    assert "trainer.plugins: is not an inference setting" in capsys.readouterr().err
