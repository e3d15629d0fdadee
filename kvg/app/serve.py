"""Serves the page until it is interrupted."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kvg.app.answering import Answering
from kvg.app.examples import load_examples
from kvg.app.guard import Guard
from kvg.backbones.find_family import find_family
from kvg.errors import ConfigError
from kvg.pipeline.ground import GroundSettings
from kvg.pipeline.grounder import Grounder, prompt_mode

LOCAL: Final = "127.0.0.1"
_CSS: Final = Path(__file__).with_name("page.css")
_FONTS: Final = {
    "font": ["system-ui", "sans-serif"],  # those of the machine: Gradio's own default is fetched from elsewhere
    "font_mono": ["ui-monospace", "monospace"],
}


@dataclass(frozen=True)
class AppSettings:
    """Settings of the page.

    Attributes:
        models: settings of the models by name.
        examples: see ``load_examples``.
        host: address to listen on.
        port: of TCP.
    """

    models: Mapping[str, GroundSettings]
    examples: Path | None = None
    host: str = LOCAL
    port: int = 7860


def serve(settings: AppSettings) -> None:
    """Loads the models and serves the page until SIGINT or SIGTERM.

    Raises:
        ConfigError: a setting cannot work, the port is in use, or Gradio is not installed.
        DataError: the examples cannot be read.
    """
    with tempfile.TemporaryDirectory(prefix="kvg-app-") as folder:
        _prepare_gradio(folder)
        _check(settings)
        examples = load_examples(settings.examples)
        import gradio as gr  # after its settings: it reads them from the environment when it is imported
        from starlette.middleware import Middleware  # comes with Gradio

        from kvg.app.page import MAX_UPLOAD, build_page  # imports Gradio

        grounders: dict[str, Grounder] = {}
        for name, model in settings.models.items():
            print(f"loading {name}: {model.checkpoint}", flush=True)
            grounders[name] = model.grounder()
        pictures = Path(folder) / "examples"
        pictures.mkdir()
        answering = Answering(grounders)
        page = build_page(answering, examples, pictures)
        host = f"[{settings.host}]" if ":" in settings.host else settings.host  # IPv6, as in an address of a browser
        local = settings.host in (LOCAL, "localhost", "::1")
        options: dict[str, Any] = {
            "app_kwargs": {"middleware": [Middleware(Guard, local=local)], "docs_url": None, "redoc_url": None},
            "allowed_paths": [],
            "max_file_size": MAX_UPLOAD,
            "css_paths": [_CSS],
            "theme": gr.themes.Default(**_FONTS),
            "footer_links": [],
            **dict.fromkeys(("share", "ssr_mode", "pwa", "mcp_server", "enable_monitoring", "run_history"), False),
        }
        ended = threading.Event()

        def end(number: int, _frame: object) -> None:
            signal.signal(number, signal.SIG_DFL)  # a second one need not wait for a model that computes
            ended.set()

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end)
        try:
            page.launch(server_name=host, server_port=settings.port, prevent_thread_lock=True, quiet=True, **options)
            print(f"http://{host}:{settings.port}   (Ctrl-C ends it)", flush=True)
            ended.wait()
        finally:
            answering.end()
            page.close(verbose=False)
        print("ended", flush=True)


def _prepare_gradio(folder: str) -> None:
    """Gradio's settings: nothing is sent anywhere, and its files are in a folder that is removed at the end."""
    os.environ.update(
        GRADIO_ANALYTICS_ENABLED="False",
        HF_HUB_DISABLE_TELEMETRY="1",
        GRADIO_TEMP_DIR=f"{folder}/files",
        GRADIO_EXAMPLES_CACHE=f"{folder}/cache",
    )
    local = f"{LOCAL},localhost,::1"  # Gradio asks its own server whether it runs, which no proxy may answer
    for name in ("NO_PROXY", "no_proxy"):
        os.environ[name] = f"{os.environ[name]},{local}" if os.environ.get(name) else local


def _check(settings: AppSettings) -> None:
    """Finds what is wrong before a model is loaded."""
    if not 1 <= settings.port <= 65535:
        raise ConfigError("--port", f"{settings.port} is not in 1-65535")
    for model in settings.models.values():
        prompt_mode(model.checkpoint, model.mode)
        find_family(model.checkpoint)
    kind = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    with socket.socket(kind) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            remedy = f"{settings.host}:{settings.port} cannot be listened on ({error.strerror}); choose another --port"
            raise ConfigError("--port", remedy) from error
