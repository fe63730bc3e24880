"""The status again and again, until Ctrl-C: live on a terminal, a line per change in a pipe.

The only importer of `rich`. Ends with 0 on Ctrl-C: that is how a live view is left.
"""

from __future__ import annotations

import sys
import time

from pgvigil.watchdog.cli import cluster, codes, render

INTERVAL_S = 0.25


def watch(run_dir: str, as_json: bool) -> int:
    """Read and show until interrupted."""
    try:
        if as_json:
            _lines(run_dir, as_json=True)
        elif sys.stdout.isatty():
            _live(run_dir)
        else:
            _lines(run_dir, as_json=False)
    except KeyboardInterrupt:
        pass
    return codes.OK


def _lines(run_dir: str, as_json: bool) -> None:
    shown = ""
    while True:
        reading = cluster.read(run_dir)
        text = cluster.as_json(reading) if as_json else render.line(reading)
        if as_json or text != shown:
            print(text if as_json else f"{time.strftime('%H:%M:%S')} {text}", flush=True)
            shown = text
        time.sleep(INTERVAL_S)


def _live(run_dir: str) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    colour = render.wants_colour(sys.stdout)
    console = Console(no_color=not colour)
    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            page = Text.from_ansi(render.page(cluster.read(run_dir), colour), no_wrap=True, overflow="ellipsis")
            live.update(page, refresh=True)
            time.sleep(INTERVAL_S)
