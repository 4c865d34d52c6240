"""`zoo ui`: MLflow's own UI on loopback, opened on the runs of this store."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import webbrowser
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.contracts import Say
from zoo.errors import ZooError
from zoo.settings import home
from zoo.tracking.home import artifact_root, is_server, mask, tracking_uri
from zoo.tracking.served import PLACE
from zoo.tracking.view import experiment_page

if TYPE_CHECKING:
    from zoo.tracking.experiments import Board

HOST = "127.0.0.1"
APP = "preference_zoo"  # the entry point of zoo.tracking.served
START_SECONDS = 120  # a loaded machine imports MLflow slowly


def serve(port: int = 5000, *, say: Say, browse: bool = True) -> None:
    """Serve the UI until Ctrl-C; the next free port where `port` is taken.

    A remote tracking server is only opened.
    """
    uri = tracking_uri()
    where = mask(uri) if is_server(uri) else f"the runs of {home()}; its server takes some seconds"
    say(f"opening MLflow on {where}")  # at once: what comes takes seconds
    boards = comparisons()
    place = boards[0].place if boards else experiment_page(None)
    if is_server(uri):
        root = mask(uri.rstrip("/")) if uri.startswith("http") else ""
        for board in boards if root else ():
            say(f"{board}: {root}/#{board.place}")
        page = f"/#{place}" if root else ""
        say(f"MLflow runs elsewhere: {mask(uri.rstrip('/'))}{page}")
        if browse and has_display() and mask(uri) == uri:  # a password does not belong on a browser's command line
            webbrowser.open(uri.rstrip("/") + page)
        return
    from zoo.tracking.sync import keep_people_s_notes

    free = free_port(port)
    for number in (signal.SIGTERM, signal.SIGHUP):  # as Ctrl-C: the server must not outlive this process or its terminal
        signal.signal(number, signal.default_int_handler)
    process = start_server(uri, free, place)
    try:
        wait_until_up(process, f"http://{HOST}:{free}/health")
        for board in boards:
            say(f"{board}: http://{HOST}:{free}/#{board.place}")
        url = f"http://{HOST}:{free}/#{place}"
        say(f"MLflow: {url}")
        say("Ctrl-C stops it; runs are kept")
        if browse and has_display():
            webbrowser.open(url)
        process.wait()
    except KeyboardInterrupt:
        say("stopped")
    finally:
        stop(process)
        keep_people_s_notes()


def comparisons() -> list[Board]:
    """The UI's places that compare members, one for each data set, the newest first.

    ZooError where the tracking store cannot be used.
    """
    from zoo.settings import store_folder
    from zoo.tracking.client.connection import ensure_store
    from zoo.tracking.experiments import boards
    from zoo.tracking.sync import catch_up, unusable

    try:
        ensure_store()
        catch_up(store_folder())
        return boards()
    except Exception as error:
        raise unusable(error, "zoo ui") from None


def has_display() -> bool:
    """Whether a browser could show anything: on Linux not without a display."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def free_port(wanted: int) -> int:
    """`wanted`, or the first free port of the 50 after it."""
    for port in range(wanted, min(wanted + 50, 65536)):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise ZooError(f"ports {wanted} to {wanted + 49} of {HOST} are taken; give another with --port")


def start_server(uri: str, port: int, place: str) -> subprocess.Popen[bytes]:
    """`mlflow server` in a session of its own, so that stopping it stops its workers too.

    Its bare address leads to `place` (`zoo.tracking.served`). Its log is beside the database. It ends with this process,
    however that ends (`zoo.tracking.guard`).
    """
    command = [sys.executable, "-m", "zoo.tracking.guard"]
    command += [sys.executable, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += ["--artifacts-destination", artifact_root().as_uri()]
    if entry_points(group="mlflow.app", name=APP):  # not of an installation from before it was there
        command += ["--app-name", APP]
    # By environment, not by argument: a database's URI can hold a password, and arguments show in process lists.
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_BACKEND_STORE_URI": uri, PLACE: place}
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = (
        "false"  # queues of language-model jobs: nine processes that nothing here uses
    )
    artifact_root().mkdir(parents=True, exist_ok=True)
    with log_file().open("ab") as log:
        return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True)


def log_file() -> Path:
    return artifact_root().parent / "ui.log"


def wait_until_up(process: subprocess.Popen[bytes], url: str) -> None:
    """Return when the server answers; ZooError where it ends or says nothing for two minutes."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ZooError(f"the MLflow server ended with exit code {process.returncode}; see {log_file()}", exit_code=1)
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise ZooError(f"the MLflow server did not answer within {START_SECONDS} s; see {log_file()}", exit_code=1)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End the server and its workers."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
            process.wait(timeout=10)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
        return
