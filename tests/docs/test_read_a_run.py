"""The tutorial on reading a run does what it says."""

from __future__ import annotations

import json

from tests.docs.pages import ROOT, programs

PAGE = "docs/tutorials/read_a_run.md"


def test_its_blocks_run_and_show_what_it_says(run_block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fit, rows = programs(PAGE)
    run_block(fit, {})
    page = (tmp_path / "runs/stuck/page/index.html").read_text("utf-8")
    for verdict in (
        "Reward component iou: it is stuck: 0 in 100% of the last 32 rollouts; it gives no gradient",
        "Answers: 100% of the last 32 rollouts have no box",
    ):
        assert verdict in page
        assert f"- {verdict}\n" in (ROOT / PAGE).read_text("utf-8")
    record = json.loads((tmp_path / "runs/stuck/page/results.json").read_text())
    assert record["curves"]["stuck"]["train/reward/iou"]
    assert [step["step"] for step in record["rollouts"]["stuck"]["steps"]] == [0, 1, 2, 3, 4, 5]
    printed = run_block(rows, {}).splitlines()
    assert len(printed) == 3
    assert all(" 0.0 length '" in line for line in printed)
