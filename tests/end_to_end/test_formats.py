"""Both stages on files in the published formats, as somebody who has downloaded them would run them."""

from __future__ import annotations

import json

import pytest

from kvg.formats.grpo_parquet import write_grpo_parquet
from kvg.formats.kvg_bench import write_kvg_bench
from kvg.formats.sharegpt import write_sharegpt

SMALL = {
    "trainer__max_steps": 2,
    "data__init_args__batch_size": 2,
    "model__init_args__max_new_tokens": 8,
    "model__init_args__export": "false",
}


@pytest.fixture
def four(scenes):
    return scenes(4, sizes=[(140, 84), (84, 140)], snap_px=None, categories=["bird"])


def test_stage_1_on_sharegpt(tmp_path, four, kvg, curves):
    path = tmp_path / "cot-sft-bird.json"
    write_sharegpt(four, path)
    kvg("fit", "cot_sft", tmp_path / "run", "configs/data/sharegpt.yaml", data__init_args__train=path, **SMALL)
    losses = curves(tmp_path / "run")["train/loss"]
    assert len(losses) == 2
    assert min(losses) > 1.0


@pytest.mark.parametrize("verl", [False, True])
def test_stage_2_on_parquet(tmp_path, four, kvg, curves, verl):
    path = tmp_path / ("verl-grpo-bird.parquet" if verl else "grpo-bird.parquet")
    write_grpo_parquet(four, path, verl=verl)
    kvg("fit", "grpo", tmp_path / "run", "configs/data/grpo_parquet.yaml", data__init_args__train=path, **SMALL)
    assert len(curves(tmp_path / "run")["train/reward/total"]) == 2


def test_bench(tmp_path, four, kvg):
    path = tmp_path / "kvg-bench.parquet"
    write_kvg_bench(four, path)
    settings = {"data__init_args__test": path, "model__init_args__max_new_tokens": 4}
    kvg("test", "cot_sft", tmp_path / "run", "configs/data/kvg_bench.yaml", **settings)
    lines = [json.loads(line) for line in (tmp_path / "run/predictions.jsonl").read_text().splitlines()]
    assert [line["entity"] for line in lines] == [sample.entity for sample in four]
    for line, sample in zip(lines, four, strict=True):
        x1, y1, x2, y2 = line["gt_bbox"][0]
        pixels = (x1 * sample.width, y1 * sample.height, x2 * sample.width, y2 * sample.height)
        assert [value / 1000 for value in pixels] == pytest.approx(sample.box_px, abs=0.1)
        assert line["question_id"] == f"bird/{sample.key}"
    assert {line["category"] for line in lines} == {"bird"}
