"""Project files and configs with one value damaged: a message with file and key, or no fault; never a traceback."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvg.cli.kvg_data import main
from kvg.errors import ConfigError, KVGError
from kvg.pipeline.compose import load_config
from kvg.pipeline.settings.project import load_project

CONFIGS = Path(__file__).parents[2] / "configs"
CLIENT = {"class_path": "kvg.inference.server.Server", "init_args": {"url": "http://127.0.0.1:9/v1", "model": "m"}}
CODEC = {"class_path": "kvg.text.box_codec.RelativeCodec", "init_args": {"as_json": False}}
SECTIONS = {  # those that the shipped file only shows in comments
    "box": {
        "client": CLIENT,
        "codec": CODEC,
        "question": "Where is {entity}?",
        "second": CLIENT,
        "second_codec": CODEC,
        "samples": 1,
        "agreement": 0.7,
        "max_attempts": 2,
        "max_pixels": 1_000_000,
        "min_area": 0.01,
        "max_area": 0.9,
        "max_aspect": 8,
        "review": "model",
    },
    "probe": {"client": CLIENT, "uses": ["train"], "pictures": 5, "questions": 5, "max_side": 640},
    "filter": {
        "sets": ["train"],
        "checkpoint": "lab",
        "config": ["configs/strategy/single.yaml"],
        "samples": 4,
        "temperature": 1.0,
        "iou": 0.5,
        "keep_min": 1,
        "keep_max": 3,
        "batch_size": 8,
        "mode": "think",
        "max_new_tokens": 64,
        "limit": 10,
        "seed": 1,
        "samples_per_shard": 500,
        "codec": "relative",
    },
    "shard": {"sets": ["train"], "samples_per_shard": 500, "shuffle": True, "knowledge": None},
    "exclude": ["data/bench"],
}
FEW: tuple[Any, ...] = (None, [], "text", -1, {})
VALUES: tuple[Any, ...] = (
    *FEW, True, 0, 3.5, 10**30, float("nan"), float("inf"), "", "5", "a.b.C", "os.getcwd", ".x", "kvg.\0",
    [None], ["x"], [[]], [1, 2, 3], {"x": 1}, {"class_path": "kvg.errors.DataError"}, {1: 2}, {None: {}},
)  # fmt: skip


def project() -> dict[str, Any]:
    settings = {**yaml.safe_load((CONFIGS / "project.yaml").read_text()), **copy.deepcopy(SECTIONS)}
    settings["splits"] |= {"copy_distance": 3}
    settings["compose"]["sets"]["train"]["compositor"] = {"k_weights": {2: 1.0}}
    settings["compose"]["compositor"] |= yaml.safe_load((CONFIGS / "compose/catalogue.yaml").read_text())["compositor"]
    settings["rationalize"] |= {
        "teacher": CLIENT,
        "codec": CODEC,
        "rules": {"min_iou": 0.5, "min_words": 20, "max_words": 600, "all_boxes": False},
        "min_facts": 0,
    }
    return settings


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every key and index in nested mappings and lists."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, held in items:
        yield (*place, key)
        yield from places(held, (*place, key))


def damaged(settings: dict[str, Any], place: tuple[Any, ...], value: Any) -> dict[str, Any]:
    made = copy.deepcopy(settings)
    inner = made
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return made


def test_the_file_itself_is_good(tmp_path):
    path = tmp_path / "project.yaml"
    path.write_text(yaml.safe_dump(project()))
    load_project(path).check_classes()
    assert len(list(places(project()))) > 120


def error_of(path: Path, settings: dict[str, Any], check: Callable[[Path], object]) -> KVGError | None:
    path.write_text(yaml.safe_dump(settings, allow_unicode=True))
    try:
        check(path)
    except KVGError as error:
        return error
    return None


def check_project(path: Path) -> None:
    load_project(path).check_classes()


def check_section(tmp_path: Path, section: str, values: Sequence[Any]) -> None:
    """Puts each value in each place of a section; what that does not concern is left out of the file."""
    settings, path = project(), tmp_path / "project.yaml"
    small = {"sources": settings["sources"], "compose": {"sets": settings["compose"]["sets"]}}
    settings, num_refused = {**small, section: settings[section]}, 0
    for place in [(section,), *((section, *inner) for inner in places(settings[section]))]:
        for value in values:
            error = error_of(path, damaged(settings, place, value), check_project)
            if error is not None:
                num_refused += 1
                assert isinstance(error, ConfigError), (place, value, error)
                assert str(path) in str(error), (place, value)
                named = re.split(r"[.\[]", error.field)[0]
                assert named == section or (section, named) == ("compose", "compositor"), (place, value, error)
    assert num_refused > len(values) / 2


@pytest.mark.parametrize("section", [*project()])
def test_a_damaged_value_ends_in_a_message_with_the_file_and_the_key(tmp_path, section):
    check_section(tmp_path, section, FEW)


@pytest.mark.slow
@pytest.mark.parametrize("section", [*project()])
def test_many_damaged_values(tmp_path, section):
    check_section(tmp_path, section, VALUES)


@pytest.mark.parametrize(
    ("name", "values"),
    [("catalogue", FEW), pytest.param("catalogue", VALUES, marks=pytest.mark.slow)],
)
def test_damaged_values_of_a_compose_config(tmp_path, name, values):
    settings, path = yaml.safe_load((CONFIGS / f"compose/{name}.yaml").read_text()), tmp_path / "compose.yaml"
    assert error_of(path, settings, load_config) is None
    for place in places(settings):
        for value in values:
            error = error_of(path, damaged(settings, place, value), load_config)
            assert error is None or (isinstance(error, ConfigError) and str(path) in str(error)), (place, value, error)


FOLDER = "kvg.catalogue.folders.ImageFolder"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "contains no settings"),
        ("[]", "contains no settings"),
        ("a: [", "is not YAML"),
        ("a: b: c", "is not YAML"),
        ("a: 2020-99-99", "is not YAML"),
        ("a: !!python/object:os.system x", "is not YAML"),
        ("a: \x07", "is not YAML"),
        ("- a: &x [*x]", "is not YAML|contains no settings"),
        ("a: 1\n---\nb: 2", "is not YAML"),
        ("{" * 5000, "is not YAML"),
        ("seed: 1\nseed: 2", "contains 'seed' twice, in lines 1 and 2"),
        ("sources:\n  a: {}\n  a: {}", "contains 'a' twice, in lines 2 and 3"),
        ("seed: 1", "sources: are missing"),
        ("sources: {mine: {class_path: FOLDER}}\nseed: '1'", "write 1 without quotes"),
        # Sections of later steps are checked by the first command.
        ("sources: {mine: {class_path: FOLDER}}\nfilter: {samples: 0}", "filter.samples: 0 must be at least 1"),
        ("sources: {mine: {class_path: FOLDER}}\nrationalize: {rules: {min_iou: 2}}", "rationalize.rules.min_iou: 2"),
        ("sources: {mine: {class_path: FOLDER}}\ncompose: {sets: {a: {num: 1}}}\nshard: {sets: [b]}", "have no 'b'"),
        ("sources: {mine: {class_path: nowhere.Class}}", "sources.mine.class_path: 'nowhere.Class' cannot be imported"),
        ("sources: {mine: {class_path: kvg.catalogue.folders}}", "is not a suitable class"),
        ("sources: {mine: {class_path: os.getcwd}}", "name a class with the methods listings, read"),
        ("sources: {mine: {clas_path: x}}", "sources.mine.clas_path: is unknown; choose from class_path, init_args"),
        ("sources: {mine: {class_path: FOLDER}}", "sources.mine.init_args: .*root"),
        (
            "sources: {mine: {class_path: FOLDER, init_args: [1]}}",
            "init_args: .* not settings",
        ),
        (
            "sources: {mine: {class_path: FOLDER, init_args: {root: 5}}}",
            "init_args.root: 5 sh",
        ),
        ("sources: {mine: {class_path: FOLDER, init_args: {root: x, rot: x}}}", "init_args: .*'rot'"),
    ],
)
def test_damaged_files_end_a_command_with_one_line(tmp_path, capsys, text, message):
    path = tmp_path / "project.yaml"
    path.write_text(text.replace("FOLDER", FOLDER))
    assert main(["scan", str(path)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert str(path) in err
    assert re.search(message, err), err


def test_files_that_are_none(tmp_path, capsys):
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "no.yaml", tmp_path, tmp_path / "x.yaml"):
        assert main(["run", str(path)]) == 2
        assert str(path) in capsys.readouterr().err


def test_a_module_that_fails_while_it_is_imported(tmp_path, monkeypatch, capsys):
    (tmp_path / "broken_source.py").write_text("raise RuntimeError('no licence')\n")
    (tmp_path / "odd_source.py").write_text("def (:\n")
    monkeypatch.syspath_prepend(tmp_path)
    for module, reason in (("broken_source", "RuntimeError: no licence"), ("odd_source", "SyntaxError")):
        (tmp_path / "project.yaml").write_text(f"sources: {{mine: {{class_path: {module}.Source}}}}")
        assert main(["scan", str(tmp_path / "project.yaml")]) == 2
        assert reason in capsys.readouterr().err
