"""A server that speaks as much of vLLM's protocol as the engine uses, and samples with a backbone of this process.

It works on what it is sent alone: it renders the conversation, decodes the picture, expands the placeholder and loads
weights from the folders that it is given, as vLLM does.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import torch

from kvg.backbones.backbone import Backbone
from kvg.rl.rollout import rollout
from kvg.rl.sampling import SamplingSettings

BACKBONE = "served"


class FakeVLLM:
    """Serves a backbone on the loopback address, and stops at the end of its block.

    Args:
        backbone: whose model is served.
        spoil: changes answers before they are sent.
    """

    def __init__(self, backbone: Backbone, spoil: Callable[[dict[str, Any]], None] = lambda answer: None) -> None:
        self.base, self.spoil = backbone.eval(), spoil
        self.adapters: dict[str, Backbone] = {}
        self.posts: list[tuple[str, dict[str, Any]]] = []
        self.refused: dict[str, int] = {}  # status by path
        self._lock = threading.Lock()

    def __enter__(self) -> FakeVLLM:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                names = [BACKBONE, *outer.adapters]
                self.reply(200, {"data": [{"id": name} for name in names]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer._lock:
                    outer.posts.append((self.path, body))
                    status = outer.refused.get(self.path, 200)
                    self.reply(status, outer.answer(self.path, body) if status == 200 else {"message": "refused"})

            def reply(self, status: int, content: Any) -> None:
                data = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        if path == "/v1/load_lora_adapter":
            self.adapters[body["lora_name"]] = Backbone(body["lora_path"]).eval()
        elif path == "/v1/unload_lora_adapter":
            del self.adapters[body["lora_name"]]
        elif path == "/collective_rpc":
            assert body["method"] == "reload_weights"
            self.base = Backbone(str(Path(body["kwargs"]["weights_path"]))).eval()
        elif path == "/v1/chat/completions":
            return self.complete(body)
        return {}

    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        backbone = self.adapters.get(body["model"], self.base)
        processor = backbone.processor
        *images, text = body["messages"][0]["content"]
        sources = [base64.b64decode(part["image_url"]["url"].partition(",")[2]) for part in images]
        pictures = [processor.picture(processor.decode(source, "sent"), source) for source in sources]
        example = processor.encode_chat("sent", pictures, [text["text"]])
        batch = processor.collate([example], [], pad_left=True)
        settings = SamplingSettings(body["max_tokens"], body["temperature"], body["top_p"], body["top_k"])
        generator = torch.Generator().manual_seed(body["seed"])
        out = rollout(backbone, batch, settings, body["n"], generator)
        choices = []
        for row, keep in enumerate(out.completion_mask):
            content = [{"logprob": value} for value in out.logprobs[row][keep].tolist()]
            choices.append(
                {
                    "token_ids": out.tokens[row][keep].tolist(),
                    "logprobs": {"content": content},
                    "finish_reason": "length" if out.truncated[row] else "stop",
                }
            )
        answer = {"prompt_token_ids": example.input_ids.tolist(), "choices": choices}
        self.spoil(answer)
        return answer
