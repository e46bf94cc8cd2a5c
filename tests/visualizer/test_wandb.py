"""Weights & Biases, the real package, offline: what is logged is in its files."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.toy import make_runner
from trainkit import ConfigError
from trainkit.errors import MissingExtra
from trainkit.visualizer import Visualizer, WandbVisBackend

# The package takes a second to import, starts a process, and gives warnings of its own.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


def blocks(data: bytes) -> Iterator[bytes]:
    """Yield the records of a file in LevelDB's log format, after W&B's header of 7 bytes."""
    position, record = 7, b""
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = (
            int.from_bytes(data[position + 4 : position + 6], "little"),
            data[position + 6],
        )
        record += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def records(file: Path) -> list[Any]:
    """Return all records of a run that has ended; W&B's own process may still be writing them."""
    from wandb.proto import wandb_internal_pb2

    end = time.monotonic() + 20
    while True:
        found = []
        for data in blocks(file.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            found.append(record)
        if any(record.WhichOneof("record_type") == "exit" for record in found):
            return found
        assert time.monotonic() < end, f"{file} has no end"
        time.sleep(0.01)


def runs(directory: Path) -> list[Path]:
    return sorted(directory.glob("wandb/offline-run-*/*.wandb"), key=lambda f: f.stat().st_mtime_ns)


def named(items: Any) -> dict[str, Any]:
    """Return what W&B writes as pairs of a key and JSON; the key may be of several parts."""
    return {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}


def rows(file: Path) -> list[dict[str, Any]]:
    """Return what was logged, without what W&B adds but for the row's number."""
    logged = [r.history for r in records(file) if r.WhichOneof("record_type") == "history"]
    return [
        {name: value for name, value in named(row.item).items() if not name.startswith("_")}
        | {"row": row.step.num}
        for row in logged
    ]


def config(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for record in records(file):
        found |= named(record.run.config.update) | named(record.config.update)
    return found


def kept(directory: Path) -> bytes:
    """Return all that W&B has written, as far as it is no log of its own."""
    files = [file for file in directory.rglob("*") if file.is_file() and file.suffix != ".log"]
    return b"".join(file.read_bytes() for file in files)


def opened(directory: Path, resume_step: int | None = None, **options: Any) -> WandbVisBackend:
    backend = WandbVisBackend(**options)
    backend.open(directory, resume_step)
    return backend


def test_scalars_are_rows_with_numbers_of_their_own(tmp_path: Path) -> None:
    backend = opened(tmp_path)
    backend.add_scalars({"loss": 1.5, "iter": 10, "epoch": 1, "samples": 40}, step=10)
    backend.add_scalars({"accuracy": 0.5, "iter": 10, "epoch": 1, "samples": 40}, step=1)
    backend.close()
    (file,) = runs(tmp_path)
    counters = {"iter": 10, "epoch": 1, "samples": 40}
    assert rows(file) == [
        {"loss": 1.5, **counters, "row": 0},
        {"accuracy": 0.5, **counters, "row": 1},
    ]


@pytest.mark.parametrize("x_axis", ["iter", "epoch", "samples"])
def test_curves_are_drawn_over_the_chosen_axis(tmp_path: Path, x_axis: Any) -> None:
    backend = opened(tmp_path, x_axis=x_axis, define_metric_cfg={"accuracy": "max"})
    backend.add_scalars({"accuracy": 1.0, "iter": 1, "epoch": 1, "samples": 1}, step=1)
    backend.close()
    (file,) = runs(tmp_path)
    metrics = [r.metric for r in records(file) if r.WhichOneof("record_type") == "metric"]
    axes = {m.glob_name or m.name: m.step_metric for m in metrics if m.step_metric}
    assert axes == {"*": x_axis, "accuracy": x_axis}
    assert [m.name for m in metrics if m.summary.max] == ["accuracy"]


def test_a_resumed_run_goes_on_in_its_own_rows(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()  # W&B names what it keeps by the second
    first = opened(tmp_path / "a")
    for step in (1, 2):
        first.add_scalars({"loss": float(step), "iter": step}, step)
    state = first.state_dict()
    first.add_scalars({"loss": 3.0, "iter": 3}, 3)  # after the checkpoint
    first.close()
    second = WandbVisBackend()
    second.load_state_dict(state)
    second.open(tmp_path / "b", resume_step=2)
    for step in (3, 4):
        second.add_scalars({"loss": float(step), "iter": step}, step)
    second.close()
    (one,), (other,) = runs(tmp_path / "a"), runs(tmp_path / "b")
    assert one.name == other.name  # the name has the id
    assert [row["row"] for row in rows(one)] == [0, 1, 2]
    # The server, which has row 2 already, passes over it.
    assert [row["row"] for row in rows(other)] == [2, 3]


def test_rows_that_the_server_has_are_not_sent_again(tmp_path: Path) -> None:
    backend = opened(tmp_path)
    backend._known = 2  # what W&B says of a run that is resumed online
    for step in range(4):
        backend.add_scalars({"loss": float(step), "iter": step}, step)
    backend.close()
    (file,) = runs(tmp_path)
    assert [(row["row"], row["loss"]) for row in rows(file)] == [(2, 2.0), (3, 3.0)]


def test_a_run_that_does_not_resume_is_another_run(tmp_path: Path) -> None:
    for _ in range(2):
        opened(tmp_path).close()
    assert len({file.name for file in runs(tmp_path)}) == 2


def test_a_picture_is_kept(tmp_path: Path) -> None:
    backend = opened(tmp_path)
    backend.add_image("val/predictions", np.zeros((8, 8, 3), dtype=np.uint8), step=5)
    backend.close()
    (file,) = runs(tmp_path)
    (row,) = rows(file)
    assert row["iter"] == 5
    picture = file.parent / "files" / row["val/predictions/path"]
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_training_is_logged_without_its_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["train", "data.hf_token=hf_abcdefghijklmnopqrstuvwxyz"])
    cfg = {"lr": 0.1, "data": {"hf_token": "hf_abcdefghijklmnopqrstuvwxyz"}, "tags": ["a"]}
    backend = WandbVisBackend({"project": "toys", "name": "first"})
    runner = make_runner(tmp_path / "run", visualizer=Visualizer([backend]), cfg=cfg)
    runner.train()
    (file,) = runs(tmp_path / "run")
    run = next(r.run for r in records(file) if r.WhichOneof("record_type") == "run")
    assert (run.project, run.display_name) == ("toys", "first")
    found = config(file)
    assert found["lr"] == 0.1
    assert "<redacted>" in str(found["data"])
    assert b"hf_abcdefghij" not in kept(tmp_path / "run" / "wandb")
    assert [row["iter"] for row in rows(file)] == [3, 3, 6, 6]
    summary = [r.summary for r in records(file) if r.WhichOneof("record_type") == "summary"]
    assert {"best/mse"} <= {name for update in summary for name in named(update.update)}
    exits = [r.exit.exit_code for r in records(file) if r.WhichOneof("record_type") == "exit"]
    assert exits == [0]


def test_a_run_that_fails_has_failed_in_wandb_too(tmp_path: Path) -> None:
    def fail() -> None:
        visualizer = Visualizer([WandbVisBackend()])
        visualizer.open(tmp_path)
        try:
            raise RuntimeError
        finally:
            visualizer.close()

    with pytest.raises(RuntimeError):
        fail()
    (file,) = runs(tmp_path)
    exits = [r.exit.exit_code for r in records(file) if r.WhichOneof("record_type") == "exit"]
    assert exits == [1]


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have W&B try a server that is not there; it reads its environment once in a process."""
    import wandb

    wandb.teardown()
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("HOME", str(tmp_path))  # no key in ~/.netrc
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("trainkit.visualizer.wandb._INIT_TIMEOUT", 0.5)
    yield
    monkeypatch.undo()
    wandb.teardown()


def test_without_a_network_the_run_is_kept_offline(
    tmp_path: Path, online: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    with caplog.at_level(logging.WARNING, logger="trainkit"):
        backend = opened(tmp_path)
    backend.add_scalars({"loss": 1.0, "iter": 1}, step=1)
    backend.close()
    assert "The run is kept offline" in caplog.text
    assert [row["loss"] for row in rows(runs(tmp_path)[-1])] == [1.0]


def test_who_has_not_logged_in_is_told(tmp_path: Path, online: None) -> None:
    with pytest.raises(
        ConfigError, match=r"cannot begin a run: No API key.*Or set .*mode: offline"
    ):
        opened(tmp_path)


def test_what_wandb_refuses_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"cannot begin a run: Run ID cannot contain"):
        opened(tmp_path, init_kwargs={"id": "../../mine"})


def test_nothing_is_done_before_it_is_opened(tmp_path: Path) -> None:
    backend = WandbVisBackend({"id": "mine"})
    assert backend.state_dict() == {"id": "mine", "rows": 0}
    backend.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"init_kwargs": {"projet": "a"}}, r"init_kwargs\.projet.*Did you mean 'project'"),
        ({"init_kwargs": {"settings": {"base_url": "http://a"}}}, "not for a config"),
        ({"init_kwargs": {"mode": "onlin"}}, "mode='onlin'. Did you mean 'online'"),
        ({"x_axis": "iters"}, "x_axis='iters'. Did you mean 'iter'"),
        ({"define_metric_cfg": [{"summary": "max"}]}, "expected a mapping with name"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        WandbVisBackend(**options)


@pytest.mark.parametrize(
    "option", [{"commit": True}, {"log_code_name": "code"}, {"watch_kwargs": {"log": "all"}}]
)
def test_an_option_of_mmengines_that_is_left_out_is_refused_on_purpose(
    option: dict[str, Any], tmp_path: Path
) -> None:
    node = {"_target_": "trainkit.visualizer.WandbVisBackend", **option}
    with pytest.raises(
        ConfigError, match=f"no argument '{next(iter(option))}'|{next(iter(option))}"
    ):
        make_runner(tmp_path, visualizer={"vis_backends": [node]})


def test_the_extra_is_named_where_the_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"pip install 'trainkit\[wandb\]'"):
        WandbVisBackend()


def test_the_tests_send_nothing() -> None:
    assert os.environ["WANDB_MODE"] == "offline"
    assert os.environ["WANDB_ERROR_REPORTING"] == "false"
