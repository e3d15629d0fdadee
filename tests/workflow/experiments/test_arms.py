"""Every arm of every shipped question: its commands are understood, and run with a few steps on a few composites."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from kvg.config.overlay_files import switches
from kvg.training.resolved import merged_settings
from kvg.workflow.experiments.plan import measurements
from kvg.workflow.experiments.question import load_question, question_files
from kvg.workflow.experiments.result import ResultFolder
from kvg.workflow.experiments.run import Experiments
from kvg.workflow.experiments.step_library import load_library

NAMES = [path.stem for path in question_files("configs/sweeps")]


def planned(name: str, out: Path):
    question = load_question(f"configs/sweeps/{name}.yaml")
    first = [one for one in measurements(name, question, load_library().quick(), out) if one.seed == question.seeds[0]]
    return question, first


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", NAMES)
def test_the_settings_of_all_commands_are_understood(name, tmp_path):
    _, first = planned(name, tmp_path)
    steps = {made.name: made.step.command for one in first for made in one.made.chain()}
    commands = {step: switches(command) for step, command in steps.items() if command[0] == "kvg"}
    assert merged_settings(commands).keys() == commands.keys()


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("name", NAMES)
def test_every_arm_runs_at_the_smallest_size(name, tmp_path):
    question, first = planned(name, tmp_path / "out")
    experiments = Experiments({name: question}, first, tmp_path / "out", ResultFolder(tmp_path / "results"))
    with (tmp_path / "log").open("w") as log:
        code = experiments.carry_out(experiments.left(), 2, Console(file=log))
    assert code == 0, (tmp_path / "log").read_text()[-3000:]
    assert not experiments.left()
