"""The yardstick: a FastAPI route that checks a list of objects and does nothing, in the server that we run in."""

import asyncio
from typing import Any

from fastapi import FastAPI

from fastpubsub import logs
from fastpubsub.api.processes import GunicornApplication
from fastpubsub.config import Settings, load_settings

PATH = "/noop"


class NoopApplication(GunicornApplication):
    def load(self) -> FastAPI:
        return make_app()


def make_app() -> FastAPI:
    """Without documentation routes, which would be looked through before ours; no middleware, log lines or metrics."""
    app = FastAPI(openapi_url=None)
    app.state.stopping = asyncio.Event()  # what the worker sets at its end

    @app.post(PATH, status_code=204)
    async def noop(body: list[dict[str, Any]]) -> None:
        pass

    return app


def run(settings: Settings) -> None:
    logs.configure(settings)
    NoopApplication(settings).run()


if __name__ == "__main__":
    run(load_settings())
