"""The commands of an experiment, and the table in the end, with real files."""

from __future__ import annotations

import json
import shlex
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from torch.utils.tensorboard import SummaryWriter

from kvg.cli.kvg_data import main
from kvg.errors import ConfigError
from kvg.training import resolved
from kvg.workflow.dag import Step
from kvg.workflow.sweep_config import load_experiment
from kvg.workflow.sweep_plan import Plan, plan
from kvg.workflow.sweep_table import compare_sweep, curve_table, over_seeds, sweep_curves, write_sweep


@pytest.fixture
def here(monkeypatch):
    """Settings are merged in this process, where torch is there already."""

    class Inline:
        def __init__(self, *_: object, **__: object) -> None:
            pass

        def __enter__(self) -> Inline:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def shutdown(self, **_: object) -> None:
            pass

        def submit(self, work, *arguments: object) -> Future:
            done = Future()
            try:
                done.set_result(work(*arguments))
            except ConfigError as error:
                done.set_exception(error)
            return done

    monkeypatch.setattr(resolved, "ProcessPoolExecutor", Inline)


@pytest.mark.parametrize(
    ("part", "settings", "message"),
    [
        ("fit", {"trainer.default_root_dir": "x"}, r"fit.settings.trainer.default_root_dir: is set by the sweep"),
        (
            "predict",
            {"model.init_args.backbone.init_args.checkpoint": "x"},
            r"predict.settings.model.*is set by the sw",
        ),
        ("fit", {"data.train": "{sed}"}, r"\{sed\}: in '\{sed\}' has no value"),
        ("fit", {"trainer.max_stepz": 3}, r"trainer.max_stepz: unknown setting \(fit small_seed0\)"),
        ("predict", {"data.moed": "think"}, r"data.init_args.moed: unknown setting of .* \(predict small_seed0\)"),
        ("fit", {"model.export": False}, r"model.export: is false in small_seed0"),
    ],
)
def test_a_setting_that_no_stage_has_is_found_before_anything_runs(
    here, write_experiment, experiment_text, tmp_path, part, settings, message
):
    content = yaml.safe_load(experiment_text)
    content[part]["settings"] = settings
    axes = {"size": {"small": {}}}
    path = write_experiment(**{part: content[part]}, axes=axes, compare=None, seeds=[0])
    with pytest.raises(ConfigError, match=message):
        plan(load_experiment(path))
    assert not (tmp_path / "sweep").exists()


def test_the_shipped_experiment_differs_in_the_reward_alone(here):
    found = plan(load_experiment("configs/sweeps/reward_gate.yaml"))
    assert [run.name for run in found.runs] == [f"{v}_seed{s}" for s in (0, 1, 2) for v in ("gated", "binary")]
    gated, binary = (run.fit.command for run in found.runs[:2])
    added = [word for word in binary if word not in gated and "/binary/" not in word]
    assert added == ["--model.reward.parts.iou.init_args.binary", "true"]
    assert len(binary) == len(gated) + 2
    assert {step.cores for step in found.steps()} == {1}


def test_a_dry_run_prints_commands_that_a_shell_can_run(here, write_experiment, tmp_path, capsys):
    path = write_experiment(axes={"size": {"small": {}}}, compare=None)
    assert main(["sweep", str(path), "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"# 2 runs in {tmp_path}/sweep: variants small; seeds 0, 1"
    assert lines[1] == "# 5 commands, 0 of them done"
    commands = [shlex.split(line) for line in lines if line and not line.startswith("#")]
    assert [words[:2] for words in commands] == [["kvg-data", "compose"], *[["kvg", "fit"], ["kvg", "predict"]] * 2]
    assert not (tmp_path / "sweep").exists()


def test_a_command_that_fails_ends_the_sweep_and_shows_why(here, write_experiment, tmp_path, capsys):
    wrong = {"wrong": {"run": "kvg-data verify {out}/none", "makes": "{out}/none"}}
    assert main(["sweep", str(write_experiment(prepare=wrong, seeds=[0]))]) == 1
    said = capsys.readouterr().out
    assert "prepare_wrong ended with exit code 2" in said
    assert "run the same command again" in said
    assert "fit_" not in said


@pytest.fixture(scope="module")
def made(tmp_path_factory, experiment_text) -> tuple[Path, Plan]:
    """The plan of the experiment, and the folder of its training set."""
    folder = tmp_path_factory.mktemp("plan")
    (folder / "train").mkdir()
    (folder / "train/manifest.json").write_text("{}")
    path = folder / "trial.yaml"
    path.write_text(experiment_text.replace("OUT", str(folder / "sweep")).replace("TRAIN", str(folder / "train")))
    return folder, plan(load_experiment(path))


def value(step: Step, key: str) -> str | None:
    """The last value of an option; it is the one that counts."""
    found = [step.command[i + 1] for i, word in enumerate(step.command) if word == key]
    return found[-1] if found else None


def test_a_training_and_its_answers_for_each_variant_and_seed(made):
    folder, found = made
    names = [step.name for step in found.steps()]
    assert len(names) == 1 + 4 * 2 * 2
    assert names[:5] == ["prepare_test", *(f"{p}_{v}_seed0" for v in ("large+grpo", "small+sft") for p in PARTS)]
    run = found.runs[-1]
    assert run.name == "large+sft_seed1"
    assert run.fit.command[:4] == ("kvg", "fit", "-c", "configs/stage/cot_sft.yaml")
    assert value(run.fit, "--trainer.default_root_dir") == str(folder / "sweep/runs/large+sft/seed1/fit")
    assert run.fit.needs == ("prepare_test",)
    assert run.predict.needs == ("prepare_test", "fit_large+sft_seed1")
    assert value(run.predict, "--model.init_args.backbone.init_args.checkpoint") == str(run.fit.out / "export")
    assert value(run.predict, "--data.test") == str(folder / "sweep/test")
    assert run.predict.cores == run.fit.cores == 1


PARTS = ("fit", "predict")


def test_seeds_go_where_the_stage_has_them(made):
    grpo, sft = made[1].runs[4], made[1].runs[5]
    assert (grpo.name, sft.name) == ("large+grpo_seed1", "small+sft_seed1")
    for run in (grpo, sft):
        assert value(run.fit, "--seed_everything") == value(run.fit, "--data.seed") == "1"
    assert value(grpo.fit, "--model.seed") == "1"
    assert value(sft.fit, "--model.seed") is None
    assert value(sft.predict, "--data.seed") is None


def test_runs_by_name(made):
    found = made[1]
    assert [s.name for s in found.steps(["small+sft_seed1"])] == [
        "prepare_test",
        "fit_small+sft_seed1",
        "predict_small+sft_seed1",
    ]
    with pytest.raises(ConfigError, match=r"--only: 'small' is not a run; there are large\+grpo_seed0, "):
        found.steps(["small"])


def test_other_data_are_another_run_and_what_the_sweep_makes_is_not(here, write_experiment, tmp_path):
    experiment = load_experiment(write_experiment(axes={"a": {"b": {}}}, compare=None, seeds=[0]))
    (tmp_path / "train").mkdir()
    manifest = tmp_path / "train/manifest.json"

    def identities(text: str) -> list[str]:
        manifest.write_text(text)
        return [step.extra_identity for step in plan(experiment).steps()]

    before = identities('{"sha256": "1"}')
    (tmp_path / "sweep/test").mkdir(parents=True)
    (tmp_path / "sweep/test/manifest.json").write_text("{}")
    assert identities('{"sha256": "1"}') == before
    prepare, fit, predict = identities('{"sha256": "2"}')
    assert (prepare, predict) == (before[0], before[2])
    assert fit != before[1]
    assert str(tmp_path / "train") in fit


@pytest.fixture
def logged(made, tmp_path, make_answers):
    """The experiment of two variants and two seeds with answers and logs as if they had been run."""
    folder, found = made
    experiment = load_experiment(folder / "trial.yaml")
    runs = []
    for run in found.runs:
        if run.variant not in ("large+grpo", "small+sft"):
            continue
        place = tmp_path / run.name
        runs.append(replace(run, fit=replace(run.fit, out=place), predict=replace(run.predict, out=place / "p")))
        # Of 8 cases the baseline has 2 and 4 right, the other one 5 and 7.
        right = {"large+grpo": (2, 4), "small+sft": (5, 7)}[run.variant][run.seed]
        make_answers(place / "p", right)
        with SummaryWriter(place / "lightning_logs/version_0") as log:
            for step in (4, 9):
                log.add_scalar("val/iou_acc", (step + run.seed) / 16, step)
    names = {run.variant for run in runs}
    return replace(experiment, variants=tuple(v for v in experiment.variants if v.name in names)), runs


@pytest.fixture
def make_answers():
    def make(folder: Path, right: int) -> None:
        folder.mkdir(parents=True)
        lines = [
            {
                "key": f"k{i}",
                "split": "seen" if i % 2 else "unseen",
                "answer": "(100,100),(400,400)" if i < right else "(600,600),(900,900)",
                "gt_bbox": [[100, 100, 400, 400]],
            }
            for i in range(8)
        ]
        (folder / "predictions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    return make


def test_the_table_says_how_variants_differ_from_the_baseline(logged, tmp_path):
    experiment, runs = logged
    experiment = replace(experiment, out=tmp_path)
    comparison, curves = compare_sweep(experiment, runs), sweep_curves(experiment, runs)
    row = comparison.difference("large+grpo", "small+sft")
    assert row["difference"]["value"] == pytest.approx(6 / 8 - 3 / 8)
    found = {(a["run"], a["by"], a["name"]): a for a in comparison.accuracies}
    assert found["large+grpo", "all", "all"]["per_seed"] == [2 / 8, 4 / 8]
    assert found["small+sft", "split", "seen"]["per_seed"] == [2 / 4, 3 / 4]  # k1, k3, and then k5
    assert curves["val/iou_acc"]["small+sft"] == [
        {"step": 4, "n": 2, "mean": 4.5 / 16, "low": 4 / 16, "high": 5 / 16},
        {"step": 9, "n": 2, "mean": 9.5 / 16, "low": 9 / 16, "high": 10 / 16},
    ]
    paths = write_sweep(experiment, runs, comparison, curves, "trial")
    record = json.loads(paths[0].read_text())
    assert record["baseline"] == "large+grpo"
    assert record["curves"] == curves
    assert [(run["variant"], run["seed"]) for run in record["runs"]] == [(r.variant, r.seed) for r in runs]
    table = paths[1].read_text()
    assert table.startswith("# trial\n")
    assert "+37.5" in table
    assert "| 9 | 0.594 (0.562 to 0.625) | 0.594 (0.562 to 0.625) |" in table


def test_only_differences_to_the_baseline_count(made, tmp_path, make_answers):
    folder, found = made
    experiment = load_experiment(folder / "trial.yaml")
    runs = [replace(run, predict=replace(run.predict, out=tmp_path / run.name)) for run in found.runs]
    for number, run in enumerate(runs):
        make_answers(run.predict.out, number)
    pairs = {(row["before"], row["after"]) for row in compare_sweep(experiment, runs).differences}
    assert pairs == {("large+grpo", other) for other in ("small+sft", "small+grpo", "large+sft")}


def test_curves_of_seeds_that_differ_in_length():
    points = over_seeds([[(1, 0.5), (2, 1.0)], [(1, 0.0)]])
    assert [(point["step"], point["n"], point["mean"]) for point in points] == [(1, 2, 0.25), (2, 1, 1.0)]
    table = curve_table("val/x", {"a": points, "b": []})
    assert table.rows[1][2].text == "–"
    assert "Not logged by b." in table.note
