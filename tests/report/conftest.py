"""Cases, samples and runs made by hand, and a browser to look at pages with."""

from __future__ import annotations

import io
import json

import pytest
from PIL import Image

from kvg.evaluation.records.prediction import Prediction
from kvg.types import Sample, SceneObject
from tests.conftest import BIRDS
from tests.report.browser import Browser, find_browser


@pytest.fixture(scope="session")
def make_case(make_line):
    """The case of such a line."""

    def make(key="k0", right=True, **fields):
        return Prediction.from_line(make_line(key, right, **fields), "here")

    return make


@pytest.fixture(scope="session")
def encoded():
    """An encoded picture of one colour."""

    def encode(colour, size=(100, 100), kind="PNG"):
        file = io.BytesIO()
        Image.new("RGB", size, colour).save(file, kind)
        return file.getvalue()

    return encode


@pytest.fixture(scope="session")
def make_sample(encoded):
    """A sample with both birds where the lines say."""

    def make(key, image=None, size=(100, 100), **fields):
        width, height = size
        objects = tuple(
            SceneObject(one["entity"], tuple(v * side / 1000 for v, side in zip(one["box"], 2 * size, strict=True)))
            for one in BIRDS
        )
        fields = {"category": "bird", "split": "seen", "knowledge": "known", "objects": objects, "target": 0, **fields}
        return Sample(key=key, image=image or encoded((90, 160, 210), size), width=width, height=height, **fields)

    return make


@pytest.fixture(scope="session")
def write_run():
    """Writes the lines of a run into a folder."""

    def write(folder, lines):
        folder.mkdir(parents=True, exist_ok=True)
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (folder / "predictions.jsonl").write_text(text, "utf-8")
        return folder

    return write


@pytest.fixture(scope="module")
def browser():
    """One process for a module."""
    program = find_browser()
    if program is None:
        pytest.skip("needs chromium or google-chrome on the path")
    found = Browser(program)
    yield found
    found.close()
