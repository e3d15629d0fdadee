"""KVG-Bench as a data set of VLMEvalKit, run by its own loader and its own files where it is installed."""

from __future__ import annotations

import pytest

from kvg.text.prompts import prompt

from .conftest import HEIGHT, IOUS, WIDTH, answers

# smart_resize with at least 1280*784 pixels enlarges 640x480 to 1176x868.
UNITS = {"relative": (1000, 1000), "pixels": (WIDTH, HEIGHT), "absolute": (1176, 868)}


@pytest.fixture
def module(load_file, monkeypatch, tmp_path):
    pytest.importorskip("vlmeval.dataset")
    (tmp_path / "LMUData").mkdir()  # VLMEvalKit uses the folder only if it exists
    monkeypatch.setenv("LMUData", str(tmp_path / "LMUData"))
    return load_file("vlmevalkit/kvg_bench.py")


@pytest.mark.parametrize("unit", UNITS)
def test_verdicts_in_the_declared_unit(unit, module, bench, tmp_path):
    from vlmeval.dataset import build_dataset
    from vlmeval.smp import dump

    path = module.make_tsv(str(bench))
    assert path == tmp_path / "LMUData" / "KVG-Bench.tsv"
    module.register()
    dataset = build_dataset(f"KVG-Bench_{unit}")
    assert isinstance(dataset, module.KVGBench)
    assert len(dataset) == 4
    image, text = dataset.build_prompt(0)
    assert (image["type"], text) == ("image", {"type": "text", "value": prompt("Merlin 0", "qwen")})
    predictions = dataset.data[["index", "question"]].copy()
    predictions["prediction"] = answers(*UNITS[unit])
    file = str(tmp_path / "model_KVG.xlsx")
    dump(predictions, file)
    table = dataset.evaluate(file).set_index("split")
    assert table.loc["all", "n"] == 4
    assert table["Acc@0.5"].tolist() == [50.0, 50.0, 50.0]
    assert table.loc["all", "mean IoU"] == pytest.approx(sum(IOUS) / 4, abs=0.01)
    assert table.loc["all", "unparsed"] == 25.0


def test_a_missing_tsv_is_named(module):
    with pytest.raises(FileNotFoundError, match="--bench"):
        module.KVGBench("KVG-Bench_relative")
