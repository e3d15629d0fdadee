"""Files of predictions."""

import json

import pytest


@pytest.fixture
def write_lines(tmp_path):
    """Writes lines to a file, and returns its path."""

    def write(lines, name="predictions.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
        return path

    return write
