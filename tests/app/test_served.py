"""The page as a process on a port of this machine, asked by Gradio's client and by plain HTTP."""

from __future__ import annotations

import io
import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from kvg.app.examples import load_examples
from kvg.pipeline.grounder import Grounder, plain_text

pytest.importorskip("gradio")
httpx = pytest.importorskip("httpx")
gradio_client = pytest.importorskip("gradio_client")
pytestmark = pytest.mark.slow

SECRET = "nobody may read this"


class Served(NamedTuple):
    url: str
    process: subprocess.Popen
    folder: Path


def start(folder, port, *options):
    """The app in a process, when it listens."""
    command = [sys.executable, "-m", "kvg", "app", "--port", str(port), *options]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "Ctrl-C" in line:
            threading.Thread(target=process.stdout.read, daemon=True).start()  # or a full pipe would stop it
            return Served(f"http://127.0.0.1:{port}", process, folder)
    raise AssertionError("".join(lines))


@pytest.fixture(scope="module")
def served(tmp_path_factory, find_port):
    """One model under two names, so that both columns have the same answer."""
    folder = tmp_path_factory.mktemp("app")
    (folder / "secret.png").write_text(SECRET)
    app = start(folder, find_port(), "--checkpoint", "a=lab", "b=lab", "--max-new-tokens", "60")
    yield app
    app.process.send_signal(signal.SIGINT)
    assert app.process.wait(30) == 0


@pytest.fixture(scope="module")
def client(served):
    return gradio_client.Client(served.url, verbose=False)


@pytest.fixture(scope="module")
def example(served):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(served.folder)
        chosen = load_examples(None)[0]
    path = served.folder / "example.png"
    path.write_bytes(chosen.picture)
    return chosen, path


def test_text_comes_in_parts_and_the_answer_is_that_of_the_model(client, example):
    chosen, path = example
    job = client.submit(gradio_client.handle_file(str(path)), chosen.entity, api_name="/ground")
    *_, html = job.result(timeout=120)
    texts = [re.sub(r"<[^>]*>", "", output[3]) for output in job.outputs()]
    assert len(texts) >= 3
    expected = Grounder("lab", max_new_tokens=60).ground(path, chosen.entity)
    assert "".join(re.findall(r"[\d(),]+", plain_text(expected.text))) in html
    assert re.search(r"(right|wrong): IoU \d\.\d\d with the true box", html)
    assert job.outputs()[-1][1] == html  # the same model twice


def test_a_picture_and_a_name_that_cannot_be_used_are_named(client, served, example):
    page = served.folder / "page.png"
    page.write_text("<html>")
    for file, name, message in (
        (page, "Merlin", "is a web page, not a picture"),
        (example[1], " ", "is empty"),
        (example[1], "M" * 201, "more than 200 characters"),
    ):
        with pytest.raises(gradio_client.exceptions.AppError, match=message):
            client.predict(gradio_client.handle_file(str(file)), name, api_name="/ground")
    with pytest.raises(gradio_client.exceptions.AppError, match="upload"):
        client.predict(None, "Merlin", api_name="/ground")


def test_pictures_are_bounded_in_bytes_and_pixels(client, served):
    from PIL import Image  # the sizes need it

    large = io.BytesIO()
    Image.new("1", (9000, 9000)).save(large, "PNG")
    path = served.folder / "large.png"
    path.write_bytes(large.getvalue())
    with pytest.raises(gradio_client.exceptions.AppError, match="9000x9000 pixels, more than"):
        client.predict(gradio_client.handle_file(str(path)), "Merlin", api_name="/ground")
    for size in (21, 40):
        files = {"files": ("a.png", bytes(size * 2**20), "image/png")}
        assert httpx.post(f"{served.url}/gradio_api/upload", files=files, timeout=60).status_code == 413


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "SECRET", "../secret.png", "%2e%2e/%2e%2e/etc/passwd", "FOLDER/page.py"]
)
def test_no_other_file_is_served(served, path):
    path = path.replace("SECRET", str(served.folder / "secret.png"))
    path = path.replace("FOLDER/a.py", load_examples.__code__.co_filename)
    answer = httpx.get(f"{served.url}/gradio_api/file={path}")
    assert answer.status_code in (403, 404), answer.text
    assert "root:" not in answer.text
    assert SECRET not in answer.text


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/etc/passwd", '"error": null'),
        ("SECRET", '"error": null'),
        ("../secret.png", '"error": null'),
        ("http://example.org/a.png", "no URL is fetched"),
        (None, "picture: upload: is missing"),
    ],
)
def test_no_other_file_is_taken_for_an_upload(served, path, message):
    data = {"path": path and path.replace("SECRET", str(served.folder / "secret.png"))}
    data |= {"meta": {"_type": "gradio.FileData"}} | ({} if path else {"url": "data:image/png;base64,AAAA"})
    posted = httpx.post(f"{served.url}/gradio_api/call/ground", json={"data": [data, "Merlin"]})
    answer = httpx.get(f"{served.url}/gradio_api/call/ground/{posted.json()['event_id']}", timeout=60).text
    assert "event: error" in answer
    assert message in answer


def test_the_page_names_no_other_server_and_sends_nothing(served):
    config = httpx.get(f"{served.url}/config").json()
    assert config["analytics_enabled"] is False
    page = httpx.get(f"{served.url}/").text + httpx.get(f"{served.url}/theme.css").text
    assert not re.search(r"fonts\.g|cdn|@import", page)
    for path in ("file=https://example.org/a.png", "proxy=https://example.org/"):
        assert httpx.get(f"{served.url}/gradio_api/{path}").status_code == 403
    assert httpx.get(f"{served.url}/", headers={"host": "evil.example"}).status_code == 403


def test_the_queue_is_bounded(served, example):
    from kvg.app.page import MAX_WAITING  # needs Gradio

    path = httpx.post(f"{served.url}/gradio_api/upload", files={"files": ("a.png", example[0].picture)}).json()[0]
    data = {"data": [{"path": path, "meta": {"_type": "gradio.FileData"}}, "Merlin"]}
    codes = [httpx.post(f"{served.url}/gradio_api/call/ground", json=data).status_code for _ in range(3 * MAX_WAITING)]
    assert codes[:MAX_WAITING] == [200] * MAX_WAITING
    assert set(codes) == {200, 503}


def test_it_ends_while_a_model_writes_and_leaves_no_files(tmp_path, find_port, example, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    options = "--checkpoint", "lab", "--mode", "think", "--max-new-tokens", "2000"
    app = start(tmp_path, find_port(), *options)
    client = gradio_client.Client(app.url, verbose=False)
    job = client.submit(gradio_client.handle_file(str(example[1])), "Merlin", api_name="/ground")
    while len(job.outputs()) < 2:
        time.sleep(0.05)
    app.process.send_signal(signal.SIGINT)
    assert app.process.wait(30) == 0
    assert [path.name for path in (tmp_path / "tmp").iterdir() if path.name.startswith("kvg-app-")] == []


def test_faults_come_before_a_model_is_loaded(tmp_path, find_port):
    port = find_port()
    (tmp_path / "empty").mkdir()
    app = start(tmp_path, port, "--checkpoint", "lab")
    try:
        for options, message in (
            (["--port", str(port)], "choose another --port"),
            (["--port", "0"], "--port: 0 is not in 1-65535"),
            (["--examples", "empty"], "empty"),
            (["--checkpoint", "runs/none/export"], "runs/none/export"),
        ):
            command = [
                sys.executable,
                "-m",
                "kvg",
                "app",
                "--port",
                str(find_port()),
                "--checkpoint",
                "x=lab",
                *options,
            ]
            done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
            assert done.returncode == 2, json.dumps([options, done.stderr])
            assert message in done.stderr
            assert "loading" not in done.stdout
    finally:
        app.process.send_signal(signal.SIGTERM)
        assert app.process.wait(30) == 0
