"""Plans in the heads of configs are those that `kvg plan` makes now."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from kvg.cli.plan import parser
from kvg.planning.command import planned
from kvg.planning.heads import plan_in

FOLDER = Path(__file__).parents[2] / "configs/experiment"
PLANNED = {path.stem: plan for path in sorted(FOLDER.glob("*.yaml")) if (plan := plan_in(path)) is not None}
NUMBER = re.compile(r"\d+\.\d+")
LARGE = re.compile(r"_\d+b_")


def remade(command: str) -> list[str]:
    options, settings = parser().parse_known_args(shlex.split(command)[2:])
    words = [word for path in options.config for word in ("-c", path)] + settings
    return planned(words, options.size, options.tokens, options.card)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if LARGE.search(name) else []) for name in PLANNED]
)
def test_a_config_states_its_plan(name, monkeypatch):
    monkeypatch.chdir(FOLDER.parents[1])
    command, lines = PLANNED[name]
    made = remade(command)
    # Words exactly; numbers closely, for other versions of torch.
    assert [NUMBER.sub("#", line) for line in made] == [NUMBER.sub("#", line) for line in lines]
    for new, old in zip(made, lines, strict=True):
        pairs = zip(NUMBER.findall(new), NUMBER.findall(old), strict=True)
        assert all(float(a) == pytest.approx(float(b), rel=0.03, abs=0.11) for a, b in pairs), (new, old)
