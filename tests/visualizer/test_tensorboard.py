"""TensorBoard: what is written is what TensorBoard reads, also after a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from trainkit import ConfigError
from trainkit.visualizer import TensorboardVisBackend

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard")


def opened(directory: Path, resume_step: int | None = None) -> TensorboardVisBackend:
    backend = TensorboardVisBackend()
    backend.open(directory, resume_step)
    return backend


def close(backend: TensorboardVisBackend, directory: Path, age: int) -> None:
    """Close; give the event file the time it would have, had the processes run one by one."""
    backend.close()
    for path in (directory / "tensorboard").iterdir():
        stem, _, rest = path.name.partition("tfevents.")
        second, _, end = rest.partition(".")
        if int(second) > 1000:
            path.rename(path.with_name(f"{stem}tfevents.{age:010d}.{end}"))


def read(directory: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(directory / "tensorboard")).Reload()


def points(directory: Path, name: str) -> list[tuple[int, float]]:
    return [(event.step, event.value) for event in read(directory).Scalars(name)]


def test_scalars_are_read_back_without_the_counters(tmp_path: Path) -> None:
    backend = opened(tmp_path)
    for step in (10, 20):
        counters = {"iter": step, "epoch": 1, "step": step}
        backend.add_scalars({"loss": step / 8, "accuracy": 1, **counters}, step)
    backend.close()
    assert points(tmp_path, "loss") == [(10, 1.25), (20, 2.5)]
    assert sorted(read(tmp_path).Tags()["scalars"]) == ["accuracy", "loss"]


def test_the_config_is_shown_as_text(tmp_path: Path) -> None:
    backend = opened(tmp_path)
    backend.add_config("seed: 1\nlr: 0.1")
    backend.close()
    (event,) = read(tmp_path).Tensors("config/text_summary")
    assert event.tensor_proto.string_val[0].decode() == "```yaml\nseed: 1\nlr: 0.1\n```"


def test_points_after_the_checkpoint_are_dropped_by_a_resumed_run(tmp_path: Path) -> None:
    backend = opened(tmp_path)
    for step in (1, 2, 3, 4):
        backend.add_scalars({"loss": float(step)}, step)
    close(backend, tmp_path, age=1)
    backend = opened(tmp_path, resume_step=2)
    backend.add_scalars({"loss": 9.0}, 3)
    close(backend, tmp_path, age=2)
    assert points(tmp_path, "loss") == [(1, 1.0), (2, 2.0), (3, 9.0)]


def test_metrics_by_epoch_after_the_checkpoint_are_dropped_too(tmp_path: Path) -> None:
    backend = opened(tmp_path)
    for epoch in (1, 2, 3):
        backend.add_scalars({"accuracy": epoch / 8, "epoch": epoch, "iter": 10 * epoch}, epoch)
    close(backend, tmp_path, age=1)
    backend = opened(tmp_path, resume_step=20)
    backend.add_scalars({"accuracy": 1.0, "epoch": 3, "iter": 30}, 3)
    close(backend, tmp_path, age=2)
    assert [value for _, value in points(tmp_path, "accuracy")] == [0.125, 0.25, 1.0]


def test_a_run_that_does_not_resume_drops_nothing(tmp_path: Path) -> None:
    for age in (1, 2):
        backend = opened(tmp_path)
        backend.add_scalars({"loss": float(age)}, age)
        close(backend, tmp_path, age)
    assert points(tmp_path, "loss") == [(1, 1.0), (2, 2.0)]


def test_the_directory_can_be_named(tmp_path: Path) -> None:
    backend = TensorboardVisBackend("curves")
    backend.open(tmp_path, None)
    backend.close()
    assert [path.name for path in tmp_path.iterdir()] == ["curves"]


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    backend = opened(tmp_path)
    backend.close()
    backend.close()
    TensorboardVisBackend().close()


@pytest.mark.parametrize("subdir", ["/etc", "../elsewhere", "a/../../b"])
def test_the_event_files_stay_in_the_runs_directory(subdir: str) -> None:
    with pytest.raises(ConfigError, match="expected a directory inside the run's"):
        TensorboardVisBackend(subdir)
