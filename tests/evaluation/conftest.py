"""Lines of predictions as they are written, made by hand."""

import json

import pytest

RIGHT, WRONG = "(100,100),(400,400)", "(600,600),(900,900)"


@pytest.fixture
def make_line():
    """A line; two birds on the picture, of which the first is asked for."""

    def make(key="k0", right=True, **fields):
        line = {
            "key": key,
            "set": "test",
            "category": "bird",
            "split": "seen",
            "knowledge": "known",
            "entity": "Merlin",
            "mode": "direct",
            "answer": RIGHT if right else WRONG,
            "gt_bbox": [[100, 100, 400, 400]],
            "objects": [
                {"entity": "Merlin", "box": [100, 100, 400, 400]},
                {"entity": "Hobby", "box": [600, 600, 900, 900]},
            ],
            "target": 0,
        }
        return {name: value for name, value in {**line, **fields}.items() if value is not None}

    return make


@pytest.fixture
def write_lines(tmp_path):
    """Writes lines to a file, and returns its path."""

    def write(lines, name="predictions.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
        return path

    return write
