"""Questions as files, the identity of steps, and runs with real processes of the cheapest command."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import pytest
from rich.console import Console

from kvg.config.settings import settings_of
from kvg.errors import ConfigError, DataError
from kvg.workflow.experiments.page import write_page
from kvg.workflow.experiments.plan import measurements
from kvg.workflow.experiments.question import Question, load_question, question_files
from kvg.workflow.experiments.result import ResultFolder
from kvg.workflow.experiments.run import Experiments
from kvg.workflow.experiments.step_library import Library, StepMaker, load_library

LIBRARY = {
    "values": {"times": 2},
    "steps": {
        "cards": {"run": "kvg-data cards --out {out} --repeats {times} --seed {seed}", "proof": "."},
        "more": {"like": "cards", "add": "--unknown-repeats 1"},
        "mixed": {"run": "kvg-data cards --out {out} --seed 3", "proof": "."},
        "exam": {"run": "kvg-data exam --checkpoint {weights} --out {out}/exam.json", "proof": "exam.json"},
        "think": {"run": "kvg test --data.test {test} --x {weights} --root {out}"},
        "cot": {"run": "kvg fit --data.train {cards} --root {out} --seed {seed}"},
        "longer": {"like": "cot", "use": {"cards": "more"}},
    },
}
QUESTION = {
    "question": "Q?", "measure": "m", "refuted": "r", "power": "p", "seeds": [0, 1],
    "arms": {"base": {"model": "base"}, "a": {"model": "cot"}, "b": {"model": "longer"}},
    "tests": {"test": {"set": "mixed"}},
    "claims": [{"claim": "A over base", "after": "a", "before": "base"}],
}  # fmt: skip


@pytest.fixture
def library():
    return settings_of(Library, LIBRARY)


@pytest.fixture
def maker(library, tmp_path):
    return StepMaker(library, tmp_path)


def test_a_step_is_known_by_its_command_and_what_it_is_made_of(maker, tmp_path, library):
    first, second = maker.made("cot", 0), maker.made("cot", 1)
    assert first.identity != second.identity
    assert first.step.command[-1] == "0"
    assert first.step.needs == (maker.made("cards", 0).name,)
    assert maker.made("longer", 0).identity != first.identity
    assert maker.made("longer", 0).name.startswith("cot-")
    assert StepMaker(library, tmp_path / "elsewhere").made("cot", 0).identity == first.identity
    assert maker.made("cot", 0, {"cards": "more"}).identity == maker.made("longer", 0).identity
    other = settings_of(Library, {**LIBRARY, "values": {"times": 3}})
    assert StepMaker(other, tmp_path).made("cot", 0).identity != first.identity


def test_the_base_model_is_one_measurement_for_all_seeds(library, tmp_path):
    planned = measurements("q", settings_of(Question, QUESTION), library, tmp_path)
    assert len(planned) == 6
    assert len({one.made.identity for one in planned}) == 5
    assert planned[0].made.step.command[5] == "lab"
    assert planned[1].made.step.command[5].endswith("/export")
    assert [one.name for one in planned[:2]] == ["q/base.test.seed0", "q/a.test.seed0"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": {}}, "must not be empty"),
        ({"claims": [{"claim": "c", "after": "z"}]}, "'z' is none of base, a, b"),
        ({"claims": [{"claim": "c", "after": "a", "holds": {"over": 1}}]}, "must be one of above, below, within"),
        ({"claims": [{"claim": "c", "after": "a", "test": "z"}]}, "'z' is none of test"),
        ({"sedes": [1]}, "is unknown"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        settings_of(Question, {**QUESTION, **change})


def test_steps_that_do_not_exist_or_need_each_other_are_refused(tmp_path):
    commands = {
        "a": "kvg-data cards --out {b}",
        "b": "kvg-data cards --out {a}",
        "c": "echo {out}",
        "f": "kvg-data cards --out {nothing}",
    }
    steps = {**{name: {"run": command} for name, command in commands.items()}, "d": {"like": "e"}}
    maker = StepMaker(settings_of(Library, {"steps": steps}), tmp_path)
    for name, message in (("a", "needs itself"), ("c", "must begin with"), ("d", "is no step"), ("f", "is no step")):
        with pytest.raises(ConfigError, match=message):
            maker.made(name, 0)


@pytest.fixture
def experiments(tmp_path):
    """A question whose measurements are steps that leave an exam: fast, and real processes all the same."""
    steps = {
        "cards": {"run": "kvg-data cards --out {out} --repeats 1 --seed {seed}", "proof": "."},
        "exam": {"run": "kvg-data cards --out {out}/exam.json --seed {seed} --knowledge {level}", "proof": "exam.json"},
        "known": {"run": "kvg-data cards --out {out} --seed 9", "proof": "."},
    }
    library = settings_of(Library, {"values": {"level": "known"}, "steps": steps})

    def made(out: Path, arms=None) -> Experiments:
        arms = arms or {"base": {"model": "base"}}
        question = settings_of(Question, {**QUESTION, "tests": {"exam": {}}, "arms": arms, "claims": []})
        planned = measurements("q", question, library, out)
        return Experiments({"q": question}, planned, out, ResultFolder(tmp_path / "results"))

    return made


def test_results_are_written_one_by_one_and_recognised_elsewhere(experiments, tmp_path, monkeypatch):
    monkeypatch.setattr("kvg.workflow.experiments.result.own_record", lambda path: {"figure": 0.5, "seconds": 1.0})
    first = experiments(tmp_path / "here")
    console = Console(file=(tmp_path / "log").open("w"))
    assert first.carry_out(first.left()[:1], 1, console) == 0
    assert [path.name for path in sorted((tmp_path / "results/results/q").iterdir())] == ["base.exam.seed0.json"]
    second = experiments(tmp_path / "another machine")
    assert [one.name for one in second.left()] == ["q/base.exam.seed1"]
    assert second.carry_out(second.left(), 1, console) == 0
    third = experiments(tmp_path / "a third one")
    start = time.monotonic()
    assert third.carry_out(third.left(), 1, console) == 0
    assert time.monotonic() - start < 5
    assert not (tmp_path / "a third one/steps").exists()
    page = write_page(third, tmp_path / "results").read_text()
    assert "2 of 2 measurements have a result" in page


def test_a_failed_step_stops_only_what_needs_it(experiments, tmp_path, monkeypatch):
    monkeypatch.setattr("kvg.workflow.experiments.result.own_record", lambda path: {"figure": 0.5})
    made = experiments(tmp_path / "here", {"bad": {"model": "base", "ask": "--repeats 0"}, "good": {"model": "base"}})
    with (tmp_path / "log").open("w") as log:
        assert made.carry_out(made.left()[:2], 1, Console(file=log)) == 1
    assert [path.name for path in (tmp_path / "results/results/q").iterdir()] == ["good.exam.seed0.json"]
    assert "--repeats: 0 must be at least 1" in (tmp_path / "log").read_text().replace("\n", " ")


def test_a_damaged_result_is_named(experiments, tmp_path):
    path = tmp_path / "results/results/q/x.json"
    path.parent.mkdir(parents=True)
    path.write_text("{")
    with pytest.raises(DataError, match=r"x\.json: result: is damaged"):
        experiments(tmp_path)


def test_all_shipped_questions_can_be_planned(tmp_path):
    library = load_library()
    paths = question_files("configs/sweeps")
    assert paths
    for path in paths:
        question = load_question(path)
        for chosen in (library, library.quick()):
            assert measurements(path.stem, question, chosen, tmp_path)


def test_the_page_says_what_has_not_been_run(tmp_path):
    question = load_question("configs/sweeps/stages.yaml")
    planned = measurements("stages", question, load_library(), tmp_path / "out")
    page = write_page(Experiments({"stages": question}, planned, tmp_path / "out", ResultFolder(tmp_path)), tmp_path)
    text = page.read_text()
    waiting = text[text.index("Registered, and not yet run:") :]
    assert all(f"- [stages](#stages): {claim.claim}" in waiting for claim in question.parsed_claims())
    assert "Result: not yet run." in text
    assert question.refuted.strip() in text
    assert not list((tmp_path / "figures").iterdir())


def test_steps_of_a_finished_demo_are_taken_over(tmp_path):
    library = settings_of(Library, {
        "steps": {
            "cards": {"run": "kvg-data cards --out {out} --repeats 8 --seed {seed}", "proof": "."},
            "exam": {"run": "kvg-data exam --checkpoint {cot_sft}/export --out {out}/exam.json"},
            "cot_sft": {"run": "kvg fit --cards {cards} --root {out}", "proof": "export/config.json"},
        },
    })  # fmt: skip
    values = {**QUESTION, "tests": {"exam": {}}, "arms": {"a": {"model": "cot_sft"}}, "claims": [], "seeds": [0]}
    question = settings_of(Question, values)
    run = tmp_path / "demo"
    (run / "data").mkdir(parents=True)
    (run / "data/cards.jsonl").write_text("{}")
    (run / "cot_sft/export").mkdir(parents=True)
    (run / "cot_sft/export/config.json").write_text("{}")
    (run / "stamps").mkdir()
    stamps = {
        "cards": "kvg-data cards --out runs/demo/data/cards.jsonl --repeats 8 --seed 0",
        "cot_sft": "kvg fit --cards runs/demo/data/cards.jsonl --root runs/demo/cot_sft",
    }
    for name, command in stamps.items():
        (run / f"stamps/{name}.json").write_text(json.dumps({"command": command, "seconds": 3.0, "identity": "x"}))
    planned = measurements("q", question, library, tmp_path / "out")
    made = Experiments({"q": question}, planned, tmp_path / "out", ResultFolder(tmp_path / "results"))
    assert [name.partition("-")[0] for name in made.take(run)] == ["cards", "cot_sft"]
    model = planned[0].model
    assert (model.folder / "export/config.json").is_file()
    stamp = json.loads((tmp_path / f"out/stamps/{model.name}.json").read_text())
    assert stamp["origin"] == "demo/cot_sft"
    shutil.rmtree(run)
    with pytest.raises(DataError, match="is no finished demo"):
        made.take(run)
