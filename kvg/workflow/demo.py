"""The paper's whole method in the lab: data, stage 1, filter, stage 2, evaluation and report, one command each.

The settings of the models are in ``configs/experiment/demo_*.yaml``, the sizes of the data sets in ``DemoSizes``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from kvg.config.overlay_files import SHIPPED, shipped
from kvg.errors import ConfigError
from kvg.training.resolved import merged_settings, num_processes
from kvg.workflow.dag import Step

STAGES = ("base", "direct_sft", "cot_sft", "cot_sft_grpo")
TRAINED = ("direct_sft", "cot_sft", "grpo")
EXPERIMENTS = Path("docs/experiments/README.md")  # claims of the paper, with several seeds
CHECKPOINT = "--model.init_args.backbone.init_args.checkpoint"


@dataclass(frozen=True)
class DemoSizes:
    """Numbers of composites, and other settings that are not in a config.

    Attributes:
        num_train: composites for both kinds of stage 1.
        num_hard: new composites from which the filter chooses those for stage 2.
        num_val: composites of all categories, for validation curves.
        num_test: composites of all categories, half of them seen.
        card_repeats: replayed texts of each known card.
        num_answers: answers to each sample in the filter.
        temperature: sampling temperature of those answers, the same as in stage 2. Then the kept samples are those that
            stage 2 is uncertain about.
        keep_min: minimum number of correct answers of a kept sample.
        keep_max: maximum number.
        max_steps: maximum number of steps of every training; None for that of its config.
        max_val_batches: maximum number of batches of every validation; None for all.
    """

    num_train: int = 650
    num_hard: int = 1300
    num_val: int = 200
    num_test: int = 2000
    card_repeats: int = 8
    num_answers: int = 4
    temperature: float = 0.7
    keep_min: int = 1
    keep_max: int = 3
    max_steps: int | None = None
    max_val_batches: int | None = None


# A quick check that everything runs; its figures mean nothing. keep_min is 0: a model of a few steps is never right.
FAST = DemoSizes(
    num_train=48, num_hard=16, num_val=16, num_test=40, card_repeats=1,
    num_answers=2, keep_min=0, keep_max=2, max_steps=3, max_val_batches=1,
)  # fmt: skip


def demo_steps(fast: bool, out: Path, seed: int, base: str) -> list[Step]:
    """Returns all steps of the demo.

    Args:
        fast: whether to run only a few steps on a few composites, as a check.
        out: folder of all outputs.
        seed: seed of data and training.
        base: the base model.

    Raises:
        ConfigError: a config is missing, or cannot be used.
    """
    return steps(FAST if fast else DemoSizes(), out, seed, base, processes_of_stages())


def steps(sizes: DemoSizes, out: Path, seed: int, base: str, processes: Mapping[str, int]) -> list[Step]:
    """Returns all steps; of those that can run at the same time, the most urgent comes first.

    Args:
        sizes: sizes of the sets and trainings.
        out: folder of all outputs.
        seed: seed of data and training.
        base: the base model.
        processes: number of processes of each training, by stage.
    """
    made = {step.name: step for step in _data_steps(sizes, out, seed)}
    trained = {step.name: step for step in _training_steps(sizes, out, seed, base, processes)}
    first = ("plain", "val", "cards", "train")
    ordered = [made.pop(name) for name in first]
    ordered.append(trained.pop("cot_sft"))  # it is on the critical path
    return [*ordered, *made.values(), *trained.values(), _report_step(out, seed, base)]


def _data_steps(sizes: DemoSizes, out: Path, seed: int) -> list[Step]:

    def compose(name: str, config: str, num: int, offset: int, title: str) -> Step:
        folder, path = out / "data" / name, config_path(f"configs/lab/{config}.yaml")
        command = ("compose", "--config", path, "--out", folder, "--num", num, "--seed", 10 * seed + offset)
        return Step(name, title, _words("kvg-data", *command), folder, folder / "manifest.json", reads=(Path(path),))

    plain, train, cards = out / "data/plain", out / "data/train", out / "data/cards.jsonl"
    rationalize = _words("kvg-data", "rationalize", "--in", plain, "--out", train)
    replay = _words("kvg-data", "cards", "--out", cards, "--repeats", sizes.card_repeats, "--seed", seed)
    return [
        compose("plain", "train", sizes.num_train, 0, "composites of the five seen categories, for stage 1"),
        compose("val", "val", sizes.num_val, 2, "composites of all ten categories, to watch training by"),
        Step("cards", "what the base model has read of the known entities, to be replayed", replay, cards, cards),
        Step("train", "a rationale for each of them", rationalize, train, train / "manifest.json", ("plain",)),
        compose("hard", "train", sizes.num_hard, 1, "fresh composites of the seen categories, for stage 2"),
        compose("test", "test", sizes.num_test, 3, "held-out composites of all ten categories"),
    ]


def _training_steps(sizes: DemoSizes, out: Path, seed: int, base: str, processes: Mapping[str, int]) -> list[Step]:

    replay, hard = ("--data.replay", out / "data/cards.jsonl"), out / "data/filtered"
    direct = _fit(sizes, out, seed, "direct_sft", processes["direct_sft"], base, out / "data/train", *replay)
    cot = _fit(sizes, out, seed, "cot_sft", processes["cot_sft"], base, out / "data/train", *replay)
    grpo = _fit(sizes, out, seed, "grpo", processes["grpo"], str(cot.proof.parent), hard, "--model.seed", seed)
    answers = ("--samples", sizes.num_answers, "--temperature", sizes.temperature)
    kept = ("--keep-min", sizes.keep_min, "--keep-max", sizes.keep_max)
    command = ("filter", "--in", out / "data/hard", "--out", hard, "--checkpoint", cot.proof.parent, *answers, *kept)
    return [
        cot,
        direct,
        Step(
            "filter",
            f"the composites that stage 1 gets right {sizes.keep_min} to {sizes.keep_max} times of {sizes.num_answers}",
            _words("kvg-data", *command, "--seed", seed),
            hard,
            hard / "manifest.json",
            ("hard", "cot_sft"),
        ),
        grpo,
        _test(out, "cot_sft_grpo", grpo, devices=2),  # runs last and alone, so it can use two cores
        _test(out, "cot_sft", cot),
        _test(out, "direct_sft", direct),
        _test(out, "base", None, base),
    ]


def _fit(
    sizes: DemoSizes, out: Path, seed: int, stage: str, processes: int, start: str, train: Path, *more: object
) -> Step:

    titles = {
        "direct_sft": "supervised on the boxes alone, for comparison",
        "cot_sft": "stage 1: supervised on rationales and boxes",
        "grpo": "stage 2: rewarded for overlap and form",
    }
    needs = {"grpo": ("filter", "val")}.get(stage, ("train", "cards", "val"))
    overlays = _overlays(stage)
    folder = out / stage
    words: list[object] = ["kvg", "fit", *overlays, CHECKPOINT, start]
    words += ["--data.train", train, "--data.val", out / "data/val", "--trainer.default_root_dir", folder]
    words += ["--seed_everything", seed, "--data.seed", seed, *more]
    if sizes.max_steps is not None:
        words += ["--trainer.max_steps", sizes.max_steps]
    if sizes.max_val_batches is not None:
        words += ["--trainer.limit_val_batches", sizes.max_val_batches]
    reads = (
        *map(Path, overlays[1::2]),
        *(() if stage == "grpo" else _weights(start)),
    )  # files made by steps are covered by `needs`
    proof = folder / "export/config.json"
    return Step(stage, titles[stage], _words(*words), folder, proof, needs, reads, processes)


def _test(out: Path, name: str, trained: Step | None, base: str = "", devices: int = 1) -> Step:
    """Returns the evaluation of one model; models without rationales use the mode ``direct``, as in the paper."""
    thinks = name.startswith("cot_sft")
    configs = [
        config_path(f"configs/{n}.yaml")
        for n in (f"stage/{'cot_sft' if thinks else 'direct_sft'}", "backbone/lab", "data/lab_test")
    ]
    folder, start = out / "test" / name, str(trained.proof.parent) if trained else base
    words: list[object] = ["kvg", "test", *(w for path in configs for w in ("-c", path)), CHECKPOINT, start]
    words += ["--data.test", out / "data/test", "--data.mode", "think" if thinks else "direct", "--data.batch_size", 64]
    words += ["--trainer.default_root_dir", folder]
    if devices > 1:
        words += ["--trainer.devices", devices, "--trainer.strategy", "ddp"]
    needs = ("test", trained.name) if trained else ("test",)
    reads = (*map(Path, configs), *(() if trained else _weights(start)))
    title = f"the test composites, answered by {name}"
    return Step(f"test_{name}", title, _words(*words), folder, folder / "predictions.jsonl", needs, reads, devices)


def _report_step(out: Path, seed: int, base: str) -> Step:

    runs = [f"{name}={out / 'test' / name}" for name in STAGES]
    curves = [f"direct_sft={out / 'direct_sft'}", f"cot_sft={out / 'cot_sft'}", f"cot_sft_grpo={out / 'grpo'}"]
    inputs: tuple[object, ...] = ("--set", out / "data/test", "--trained", out / "data/train", out / "data/filtered")
    inputs += ("--texts", out / "data/cards.jsonl")
    if base != "tiny":  # which was not trained on cards
        inputs += ("--lab",)
    if EXPERIMENTS.is_file():  # in a checkout
        inputs += ("--links", f"Experiments with more seeds={os.path.relpath(EXPERIMENTS, out)}")
    command = ("report", "--runs", *runs, "--curves", *curves, *inputs, "--out", out, "--seed", seed)
    needs = tuple(f"test_{name}" for name in STAGES)
    # All steps share its folder, so only the file that it writes last is removed before it runs again.
    result = out / "results.json"
    return Step("report", "table and page", _words("kvg-data", *command), result, result, needs)


def config_path(name: str) -> str:
    """Returns the path of a shipped config: unchanged if it exists here, else the full path.

    Raises:
        ConfigError: the config does not exist.
    """
    path = shipped(name)
    if Path(path).is_file():
        return path
    raise ConfigError(name, "is not in this installation; install the package again")


def processes_of_stages() -> dict[str, int]:
    """Returns the number of processes of each training, from its merged configs.

    Raises:
        ConfigError: a config is missing, or cannot be used.
    """
    commands = {stage: ["kvg", "fit", *_overlays(stage)] for stage in TRAINED}
    return {stage: num_processes(settings) for stage, settings in merged_settings(commands).items()}


def _overlays(stage: str) -> list[str]:
    names = (f"stage/{stage}", "backbone/lab", f"experiment/demo_{stage}")
    return [word for name in names for word in ("-c", config_path(f"configs/{name}.yaml"))]


def _weights(checkpoint: str) -> tuple[Path, ...]:
    """Returns the weight files of a base model: part of the identity, so that another base reruns all steps."""
    folder = SHIPPED / "kvg/lab/base" if checkpoint == "lab" else Path(checkpoint)
    return tuple(sorted(folder.glob("*.safetensors")))


def _words(*words: object) -> tuple[str, ...]:
    return tuple(map(str, words))
