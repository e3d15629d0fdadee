"""What `kvg` gives to Python: its names, and the documents that show them."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from transformers import AutoProcessor

import kvg
from kvg.backbones.backbone import Backbone

DOCS = Path(__file__).resolve().parents[1] / "docs" / "how-to"
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def run_blocks(name):
    """Runs the Python blocks of a document, in order and in one namespace, which is returned."""
    blocks = BLOCK.findall((DOCS / name).read_text("utf-8"))
    assert blocks
    names = {"__name__": "document"}
    for block in blocks:
        exec(compile(block, name, "exec"), names)
    return names


@pytest.fixture
def folder(tmp_path, monkeypatch, scenes):
    """A working folder with a picture, an export and two runs."""
    Backbone("lab").export(tmp_path / "runs" / "demo" / "grpo" / "export", "think")
    (tmp_path / "dog.jpg").write_bytes(scenes(1)[0].image)
    for run, answers in (("base", ["(600,600),(900,900)"] * 4), ("mine", ["(100,100),(400,400)"] * 3 + ["no"])):
        (tmp_path / "runs" / run).mkdir()
        lines = [{"key": f"{n}", "answer": a, "gt_bbox": [[100, 100, 400, 400]]} for n, a in enumerate(answers)]
        (tmp_path / "runs" / run / "predictions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_importing_kvg_loads_nothing_heavy():
    code = (
        "import sys, kvg; kvg.Completion; dir(kvg); print([m for m in ('torch', 'numpy', 'PIL') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


def test_every_public_name_is_there_and_known_to_type_checkers():
    for name in kvg.__all__:
        assert getattr(kvg, name).__name__ == name
    tree = ast.parse(Path(kvg.__file__).read_text("utf-8"))
    imports = next(node for node in tree.body if isinstance(node, ast.If)).body
    assert {alias.asname: node.module for node in imports for alias in node.names} == kvg._MODULES
    with pytest.raises(AttributeError, match="'Groundr'; its names are Completion"):
        _ = kvg.Groundr


def test_the_document_on_python_runs(folder, capsys):
    names = run_blocks("use_from_python.md")
    assert (folder / "dog.boxed.png").is_file()
    assert (folder / "runs" / "report" / "index.html").is_file()
    assert 0 < names["result"].num_tokens <= 200
    assert names["total"].tolist() == [2.0]
    assert names["metric"].compute() == 0.5
    printed = capsys.readouterr().out
    assert "tensor([0.6667, 0.0000])" in printed
    assert "0.75 ['3']" in printed


def test_every_public_name_is_in_the_document():
    text = (DOCS / "use_from_python.md").read_text("utf-8")
    assert [name for name in kvg.__all__ if name not in text] == ["Grounding", "Prediction", "Sample"]  # results


def test_the_document_on_transformers_runs_and_agrees(folder):
    names = run_blocks("use_with_transformers.md")
    ours = kvg.Grounder("runs/demo/grpo/export").ground("dog.jpg", "Clumber Spaniel")
    assert names["completion"].removesuffix("<|im_end|>") == ours.text
    assert names["box_px"] == pytest.approx(ours.box_px)
    assert names["about"] == {
        "mode": "think",
        "prompt": "Find and give the bounding box of <|object_ref_start|>{name}<|object_ref_end|>  Output the thinking "
        "process in <think> </think> and final answer (bounding box) in <answer> </answer> tags.",
        "box": {
            "codec": "relative",
            "unit": "relative_1000",
            "example": "<|box_start|>(250,250),(750,750)<|box_end|>",
        },
        "min_pixels": 784,
        "max_pixels": 19600,
    }


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="is about environments without torchvision")
def test_without_torchvision_the_processor_of_transformers_fails_as_the_document_says(folder):
    with pytest.raises(ImportError, match="Qwen2VLVideoProcessor"):
        AutoProcessor.from_pretrained("runs/demo/grpo/export")
