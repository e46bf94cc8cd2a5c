"""TensorBoard: what is written is what TensorBoard reads, also after a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.toy import loader, make_runner
from trainkit import ConfigError
from trainkit.visualizer import TensorboardVisBackend, Visualizer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:tensorboard")


def opened(directory: Path, resume_step: int | None = None) -> TensorboardVisBackend:
    backend = TensorboardVisBackend()
    backend.open(directory, resume_step)
    return backend


def close(backend: TensorboardVisBackend, directory: Path, age: int) -> None:
    """Close; give the event file the time it would have, had the processes run one by one."""
    backend.close()
    for path in (directory / "tensorboard").glob("*tfevents*"):
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


def test_points_of_a_start_without_a_checkpoint_are_kept_aside_and_not_shown(
    tmp_path: Path,
) -> None:
    for age in (1, 2):
        backend = opened(tmp_path)
        backend.add_scalars({"loss": float(age)}, 1)
        close(backend, tmp_path, age)
    assert points(tmp_path, "loss") == [(1, 2.0)]
    names = [path.name for path in (tmp_path / "tensorboard").iterdir()]
    assert sorted("superseded" in name for name in names) == [False, True]


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


AXES = {"iter": 20, "epoch": 2, "samples": 640}


@pytest.mark.parametrize("x_axis", AXES)
def test_curves_stand_over_the_chosen_axis(tmp_path: Path, x_axis: Any) -> None:
    backend = TensorboardVisBackend(x_axis=x_axis)
    backend.open(tmp_path, None)
    backend.add_scalars({"loss": 1.0, **AXES}, step=3)
    backend.close()
    assert points(tmp_path, "loss") == [(AXES[x_axis], 1.0)]
    assert read(tmp_path).Tags()["scalars"] == ["loss"]


def test_an_axis_that_is_not_known_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"x_axis='sample'\. Did you mean 'samples'"):
        TensorboardVisBackend(x_axis="sample")  # type: ignore[arg-type]
    backend = TensorboardVisBackend(x_axis="samples")
    backend.open(tmp_path, None)
    with pytest.raises(ConfigError, match="how many samples were seen is not known"):
        backend.add_scalars({"loss": 1.0, "iter": 1}, step=1)
    backend.close()


def test_samples_that_nobody_can_count_are_no_axis_before_anything_is_written(
    tmp_path: Path,
) -> None:
    visualizer = Visualizer([TensorboardVisBackend(x_axis="samples")])
    runner = make_runner(tmp_path / "run", visualizer=visualizer, train_dataloader=list(loader()))
    with pytest.raises(ConfigError, match="how many samples were seen is not known"):
        runner.train()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("x_axis", AXES)
def test_no_point_is_doubled_by_a_resume_whatever_the_axis(tmp_path: Path, x_axis: Any) -> None:
    def write(backend: TensorboardVisBackend, iteration: int, name: str = "loss") -> None:
        axes = {"iter": iteration, "epoch": 1 + iteration // 9, "samples": 4 * iteration}
        backend.add_scalars({name: float(iteration), **axes}, step=iteration)

    first = TensorboardVisBackend(x_axis=x_axis)
    first.open(tmp_path, None)
    for iteration in (1, 2, 3):
        write(first, iteration)
    state = first.state_dict()
    write(first, 3, "accuracy")  # a validation after the checkpoint of the same iteration
    write(first, 4)
    close(first, tmp_path, age=1)
    second = TensorboardVisBackend(x_axis=x_axis)
    # close() has renamed the file.
    (file,) = (tmp_path / "tensorboard").iterdir()
    second.load_state_dict({"files": {file.name: next(iter(state["files"].values()))}})
    second.open(tmp_path, resume_step=3)
    write(second, 3, "accuracy")
    for iteration in (4, 5):
        write(second, iteration)
    close(second, tmp_path, age=2)
    assert [value for _, value in points(tmp_path, "loss")] == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert [value for _, value in points(tmp_path, "accuracy")] == [3.0]


def test_files_after_the_checkpoint_go_and_those_of_others_stay(tmp_path: Path) -> None:
    first = opened(tmp_path)
    first.add_scalars({"loss": 1.0}, 1)
    state = first.state_dict()
    first.close()
    other = tmp_path / "tensorboard" / "events.out.tfevents.1.mine"
    other.write_bytes(b"")
    opened(tmp_path, resume_step=1).close()  # resumed, and killed before its first checkpoint
    third = TensorboardVisBackend()
    third.load_state_dict(state)
    third.open(tmp_path, resume_step=1)
    third.close()
    assert other.exists()
    assert len(list((tmp_path / "tensorboard").iterdir())) == 3  # the first, the third, mine


def hparams(directory: Path) -> dict[str, Any]:
    """Return what the HPARAMS tab reads: the values of the run's session."""
    from tensorboard.plugins.hparams import plugin_data_pb2

    summary = read(directory).SummaryMetadata("_hparams_/session_start_info")
    content = summary.plugin_data.content
    data = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info.hparams
    return {name: getattr(value, value.WhichOneof("kind")) for name, value in data.items()}


def test_a_run_stands_in_the_hparams_tab_as_itself(tmp_path: Path) -> None:
    backend = opened(tmp_path)
    backend.add_hparams(
        {"lr": 0.1, "width": 64, "amp": False, "name": "a"}, {"best/accuracy": 0.5}, step=20
    )
    backend.close()
    assert hparams(tmp_path) == {"lr": 0.1, "width": 64.0, "amp": False, "name": "a"}
    assert points(tmp_path, "best/accuracy") == [(20, 0.5)]
    assert len(list((tmp_path / "tensorboard").iterdir())) == 1  # no run beside it


def test_a_run_that_is_trained_further_stands_there_once(tmp_path: Path) -> None:
    def train(epochs: int, resume: bool) -> None:
        make_runner(
            tmp_path,
            visualizer=Visualizer([TensorboardVisBackend()]),
            cfg={"lr": 0.1},
            resume=resume,
            train_cfg={"by_epoch": True, "max_epochs": epochs},
        ).train()

    train(1, resume=False)
    assert [step for step, _ in points(tmp_path, "best/mse")] == [3]
    train(2, resume=True)
    assert [step for step, _ in points(tmp_path, "best/mse")] == [6]
    assert [step for step, _ in points(tmp_path, "loss")] == [3, 6]
    assert hparams(tmp_path) == {"lr": 0.1}


def test_a_run_without_values_is_not_compared(tmp_path: Path) -> None:
    backend = opened(tmp_path)
    backend.add_hparams({}, {"best/accuracy": 0.5}, step=1)
    backend.close()
    assert read(tmp_path).Tags()["scalars"] == []


def test_a_run_without_a_validation_is_compared_by_its_values(tmp_path: Path) -> None:
    backend = opened(tmp_path)
    backend.add_hparams({"lr": 0.1}, {}, step=1)
    backend.close()
    assert hparams(tmp_path) == {"lr": 0.1}
    assert read(tmp_path).Tags()["scalars"] == []
