"""Visualizer: every backend gets everything, between open and close, on rank 0 only."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.toy import make_runner
from trainkit.errors import ConfigError
from trainkit.visualizer import LocalVisBackend, VisBackend, Visualizer
from trainkit.visualizer import visualizer as module


class Memory(VisBackend):
    """Keep every call."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def open(self, save_dir: Path, resume_step: int | None) -> None:
        self.calls.append(("open", save_dir, resume_step))

    def add_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        self.calls.append(("add_scalars", dict(scalars), step))

    def add_config(self, text: str) -> None:
        self.calls.append(("add_config", text))

    def close(self) -> None:
        self.calls.append(("close",))


def use(visualizer: Visualizer, directory: Path) -> None:
    visualizer.open(directory, resume_step=5)
    visualizer.add_config("a: 1")
    visualizer.add_scalars({"loss": 1.0}, step=6)
    visualizer.close()


def test_every_backend_gets_every_call_in_order(tmp_path: Path) -> None:
    first, second = Memory(), Memory()
    use(Visualizer([first, second]), tmp_path)
    assert first.calls == second.calls
    assert first.calls == [
        ("open", tmp_path, 5),
        ("add_config", "a: 1"),
        ("add_scalars", {"loss": 1.0}, 6),
        ("close",),
    ]


def test_one_scalar_is_written_like_several(tmp_path: Path) -> None:
    visualizer = Visualizer([LocalVisBackend()])
    visualizer.open(tmp_path)
    visualizer.add_scalar("loss", 0.5, 3)
    visualizer.close()
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 3, "loss": 0.5}\n'


def test_nothing_is_written_before_open_and_after_close(tmp_path: Path) -> None:
    memory = Memory()
    visualizer = Visualizer([memory])
    visualizer.add_scalars({"loss": 1.0}, 1)
    visualizer.add_config("a: 1")
    visualizer.close()
    assert memory.calls == []
    use(visualizer, tmp_path)
    visualizer.add_scalars({"loss": 1.0}, 1)
    assert len(memory.calls) == 4


def test_opening_twice_opens_once_and_it_can_be_opened_again(tmp_path: Path) -> None:
    memory = Memory()
    visualizer = Visualizer([memory])
    visualizer.open(tmp_path)
    visualizer.open(tmp_path)
    visualizer.close()
    visualizer.open(tmp_path, 3)
    assert memory.calls == [("open", tmp_path, None), ("close",), ("open", tmp_path, 3)]


def test_other_ranks_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_main_process", lambda: False)
    memory = Memory()
    use(Visualizer([memory, LocalVisBackend()]), tmp_path)
    assert memory.calls == []
    assert list(tmp_path.iterdir()) == []


def test_backends_come_in_a_list_or_by_name(tmp_path: Path) -> None:
    first, second = Memory(), Memory()
    assert Visualizer({"a": first, "off": None, "b": second}).vis_backends == [first, second]
    assert Visualizer([None, first]).vis_backends == [first]  # type: ignore[list-item]
    use(Visualizer(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("backend", ["local", {"type": "LocalVisBackend"}, LocalVisBackend])
def test_what_is_no_backend_is_refused(backend: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"A visualizer got a .* as backend; expected a VisBackend"
    ):
        Visualizer([backend])


def test_a_backend_need_not_show_configs(tmp_path: Path) -> None:
    use(Visualizer([LocalVisBackend()]), tmp_path)
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 6, "loss": 1.0}\n'


def test_what_each_backend_has_written_goes_into_a_checkpoint(tmp_path: Path) -> None:
    visualizer = Visualizer([LocalVisBackend(), Memory()])
    visualizer.open(tmp_path)
    visualizer.add_scalars({"loss": 1.0, "iter": 1}, step=1)
    visualizer.add_scalars({"accuracy": 1.0, "iter": 1}, step=1)
    state = visualizer.state_dict()
    visualizer.add_scalars({"late": 1.0, "iter": 1}, step=1)
    visualizer.close()
    assert state == {"LocalVisBackend": {"lines": 2}}
    resumed = Visualizer([Memory(), LocalVisBackend()])
    resumed.load_state_dict(state)
    resumed.open(tmp_path, resume_step=1)
    resumed.close()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_two_backends_of_one_kind_keep_their_own_state(tmp_path: Path) -> None:
    visualizer = Visualizer([LocalVisBackend("a.jsonl"), LocalVisBackend("b.jsonl")])
    visualizer.open(tmp_path)
    visualizer.vis_backends[0].add_scalars({"own": 1.0}, step=1)
    visualizer.add_scalars({"loss": 1.0}, step=2)
    state = visualizer.state_dict()
    visualizer.close()
    resumed = Visualizer([LocalVisBackend("a.jsonl"), LocalVisBackend("b.jsonl")])
    resumed.load_state_dict(state)
    resumed.open(tmp_path, resume_step=2)
    resumed.close()
    assert [len((tmp_path / f"{name}.jsonl").read_text().splitlines()) for name in "ab"] == [2, 1]


class Full(Memory):
    """A backend whose disk is full after it was opened."""

    error: Exception = OSError(28, "No space left on device")

    def fail(self, *args: Any, **kwargs: Any) -> Any:
        raise self.error

    add_scalars = add_config = add_image = add_hparams = state_dict = close = fail


def test_a_backend_that_fails_is_told_of_once_and_training_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    memory = Memory()
    runner = make_runner(
        tmp_path,
        visualizer=Visualizer({"disk": Full(), "memory": memory}),
        default_hooks={"logger": {"interval": 1}},
    )
    with caplog.at_level(logging.WARNING, logger="trainkit"):
        runner.train()
    told = [r.getMessage() for r in caplog.records if "vis_backends" in r.getMessage()]
    assert told == [
        "visualizer.vis_backends.disk cannot write: [Errno 28] No space left on device. Training "
        "goes on; what cannot be written is missing there."
    ]
    assert "vis_backends.disk cannot write" in (tmp_path / "train.log").read_text()
    assert [call[0] for call in memory.calls].count("add_scalars") == 8
    assert memory.calls[-1] == ("close",)
    assert runner.iter == 6


def test_a_backend_names_the_failures_of_its_own(tmp_path: Path) -> None:
    class Refused(Exception):
        """What a server says."""

    class Remote(Full):
        error = Refused("no")
        failures = (OSError, Refused)

    visualizer = Visualizer([Remote()])
    visualizer.open(tmp_path)
    visualizer.add_scalars({"loss": 1.0}, 1)
    visualizer.close()


def test_a_mistake_in_a_backend_is_no_failure_outside(tmp_path: Path) -> None:
    class Wrong(Full):
        error = KeyError("loss")

    visualizer = Visualizer([Wrong()])
    visualizer.open(tmp_path)
    with pytest.raises(KeyError):
        visualizer.add_scalars({"loss": 1.0}, 1)


def test_a_backend_that_cannot_begin_is_an_error_and_the_others_are_closed(tmp_path: Path) -> None:
    class ReadOnly(Memory):
        def open(self, save_dir: Path, resume_step: int | None) -> None:
            raise PermissionError(13, "Permission denied")

    memory = Memory()
    visualizer = Visualizer({"memory": memory, "disk": ReadOnly()})
    with pytest.raises(
        ConfigError, match=r"vis_backends\.disk cannot write in .*Permission denied.*disk=null"
    ):
        visualizer.open(tmp_path)
    assert memory.calls == [("open", tmp_path, None), ("close",)]
    assert not visualizer.is_open


def test_what_a_run_is_compared_by_reaches_every_backend(tmp_path: Path) -> None:
    class Compared(Memory):
        def add_hparams(self, hparams: Any, metrics: Any, step: int) -> None:
            self.calls.append(("add_hparams", hparams, metrics, step))

    compared = Compared()
    visualizer = Visualizer([compared, Memory()])
    visualizer.open(tmp_path)
    visualizer.add_hparams({"lr": 0.1}, {"accuracy": 0.5}, step=7)
    visualizer.close()
    assert ("add_hparams", {"lr": 0.1}, {"accuracy": 0.5}, 7) in compared.calls
