"""A vLLM server of the lab's model, for tests; ``KVG_VLLM`` names the command ``vllm`` where it is not on the path."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

COMMAND = os.environ.get("KVG_VLLM") or shutil.which("vllm")
OPTIONS = (
    "--dtype", "float32", "--host", "127.0.0.1", "--served-model-name", "lab", "--max-model-len", "512",
    "--logprobs-mode", "processed_logprobs", "--chat-template-content-format", "openai", "--enforce-eager",
    "--no-enable-chunked-prefill",
    "--limit-mm-per-prompt", '{"image": 1, "video": 0}', "--enable-lora", "--max-lora-rank", "8",
)  # fmt: skip
SETTINGS = {
    "VLLM_SERVER_DEV_MODE": "1",  # /collective_rpc
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB
    "OMP_NUM_THREADS": "1",
}


@contextmanager
def vllm_server(folder: Path, port: int, log: Path) -> Iterator[str]:
    """Serves a folder; yields the base of the server, which takes a minute or two to answer."""
    assert COMMAND
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    command = [COMMAND, "serve", str(folder), "--port", str(port), *OPTIONS]
    with log.open("w") as out:
        process = subprocess.Popen(command, env={**environment, **SETTINGS}, stdout=out, stderr=subprocess.STDOUT)
        try:
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
