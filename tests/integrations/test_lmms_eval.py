"""KVG-Bench as a task of lmms-eval: its functions, and a whole run where lmms-eval is installed."""

from __future__ import annotations

import pytest
import yaml

from kvg.text.prompts import prompt

from .conftest import HEIGHT, IOUS, ROOT, WIDTH, answers

FOLDER = ROOT / "lmms_eval"
# smart_resize with 256*784 to 2048*784 pixels leaves 640x480 at multiples of 28: 644x476.
RESIZED = (644, 476)
UNITS = {"relative": (1000, 1000), "pixels": (WIDTH, HEIGHT), "absolute": RESIZED}


class Loader(yaml.SafeLoader):
    """Reads lmms-eval's tag for functions as their names."""


Loader.add_constructor("!function", lambda loader, node: loader.construct_scalar(node))


@pytest.mark.parametrize("unit", UNITS)
def test_verdicts_in_the_declared_unit(unit, rows, load_file):
    utils = load_file("lmms_eval/utils.py")
    score = getattr(utils, f"score_{unit}")
    verdicts = [score(row, [answer]) for row, answer in zip(rows, answers(*UNITS[unit]), strict=True)]
    assert [v["kvg_acc"]["iou"] for v in verdicts] == pytest.approx(IOUS, abs=0.01)
    columns = {name: [v[name] for v in verdicts] for name in verdicts[0]}
    assert utils.accuracy(columns["kvg_acc"]) == 0.5
    assert utils.accuracy_seen(columns["kvg_acc_seen"]) == 0.5  # birds: right and wrong
    assert utils.accuracy_unseen(columns["kvg_acc_unseen"]) == 0.5
    assert utils.mean_iou(columns["kvg_mean_iou"]) == pytest.approx(1.75 / 4, abs=0.01)
    assert utils.unparsed(columns["kvg_unparsed"]) == 0.25


def test_another_unit_is_not_forgiven(rows, load_file):
    """Pixels that are scored on the grid: 640x480 is no 1000x1000."""
    utils = load_file("lmms_eval/utils.py")
    made = [utils.score_relative(row, [answer]) for row, answer in zip(rows, answers(WIDTH, HEIGHT), strict=True)]
    assert utils.accuracy(v["kvg_acc"] for v in made) == 0.0


def test_question_and_picture(rows, load_file):
    utils = load_file("lmms_eval/utils.py")
    assert utils.doc_to_text(rows[1]) == prompt("Merlin 1", "qwen")
    asked = utils.doc_to_text(rows[1], {"mode": "json"})
    assert asked == "Find and give the bounding box of Merlin 1, output its bbox coordinates using JSON format."
    assert utils.doc_to_visual(rows[0])[0].size == (WIDTH, HEIGHT)


def test_every_function_of_the_task_files_exists(load_file):
    utils = load_file("lmms_eval/utils.py")
    common = yaml.load((FOLDER / "_kvg_bench.yaml").read_text(), Loader)
    names = [metric["aggregation"] for metric in common["metric_list"]] + [common["doc_to_text"]]
    for path in FOLDER.glob("kvg_bench_*.yaml"):
        task = yaml.load(path.read_text(), Loader)
        assert task["task"] == path.stem
        names.append(task["process_results"])
    for name in names:
        module, _, function = name.partition(".")
        assert module == "utils"
        assert callable(getattr(utils, function)), name


@pytest.mark.parametrize("unit", UNITS)
def test_a_run_of_lmms_eval(unit, bench, monkeypatch, tmp_path):
    """The task as lmms-eval loads it, with a model that gives the answers above."""
    pytest.importorskip("lmms_eval")
    evaluator = pytest.importorskip("lmms_eval.evaluator")
    from lmms_eval.api.model import lmms
    from lmms_eval.tasks import TaskManager

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    texts, prompts = answers(*UNITS[unit]), []

    class Scripted(lmms):
        def generate_until(self, requests):
            for request in requests:
                context, _, doc_to_visual, doc_id, task, split = request.args
                prompts.append(context)
                assert doc_to_visual(self.task_dict[task][split][doc_id])[0].size == (WIDTH, HEIGHT)
            return [texts[request.args[3]] for request in requests]

        def loglikelihood(self, requests):
            raise NotImplementedError

        def generate_until_multi_round(self, requests):
            raise NotImplementedError

    manager = TaskManager("WARNING", include_path=str(FOLDER), include_defaults=False)
    name = f"kvg_bench_{unit}"
    found = evaluator.simple_evaluate(Scripted(), tasks=[name], task_manager=manager, batch_size=1, bootstrap_iters=0)
    result = found["results"][name]
    assert result["kvg_acc,none"] == 0.5
    assert result["kvg_mean_iou,none"] == pytest.approx(1.75 / 4, abs=0.01)
    assert result["kvg_unparsed,none"] == 0.25
    assert prompt("Merlin 3", "qwen") in prompts
