"""Train loops of one's own: whatever of a loop is overridden, checkpoints and resume are right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.runner.test_resume import assert_equal
from tests.toy import ToyModel, loader_config, make_runner
from trainkit import ConfigError, Hook, Preempted, Runner
from trainkit.checkpoint import list_checkpoints, read_checkpoint
from trainkit.loops import BaseTrainLoop, EpochBasedTrainLoop, IterBasedTrainLoop


class _RunIter:
    """The step of MMEngine's loops, which calls the points by name."""

    def run_iter(self: Any, idx: int, data_batch: Any) -> None:
        runner = self.runner
        runner.call_hook("before_train_iter", batch_idx=idx, data_batch=data_batch)
        outputs = runner.model.train_step(data_batch, optim_wrapper=runner.optim_wrapper)
        runner.call_hook("after_train_iter", batch_idx=idx, data_batch=data_batch, outputs=outputs)
        self.iter += 1


class OwnIterInEpochs(_RunIter, EpochBasedTrainLoop):
    """``run_iter`` of one's own."""


class OwnIter(_RunIter, IterBasedTrainLoop):
    """``run_iter`` of one's own."""


class OwnEpoch(EpochBasedTrainLoop):
    """``run_epoch`` of one's own."""

    def run_epoch(self) -> None:
        self.runner.hooks.before_train_epoch(self.runner)
        self.runner.model.train()
        for idx, data_batch in self.places():
            self.run_iter(idx, data_batch)
        self.runner.hooks.after_train_epoch(self.runner)
        self.epoch += 1

    def places(self) -> Any:
        return self.batches()


class ReadingEpoch(OwnEpoch):
    """It reads the data loader itself."""

    def places(self) -> Any:
        return enumerate(self.dataloader)


class OwnRun(OwnEpoch):
    """``run`` of one's own, by epochs."""

    def run(self) -> Any:
        self.runner.hooks.before_train(self.runner)
        while self.epoch < self.max_epochs:
            self.run_epoch()
            self.validate_if_due()
        self.runner.hooks.after_train(self.runner)
        return self.runner.model


class OwnIterRun(OwnIter):
    """``run`` of one's own, by iterations."""

    def run(self) -> Any:
        runner, batches = self.runner, self.batches()
        runner.hooks.before_train(runner)
        runner.hooks.before_train_epoch(runner)
        runner.model.train()
        while self.iter < self.max_iters:
            self.run_iter(*next(batches))
        runner.hooks.after_train_epoch(runner)
        runner.hooks.after_train(runner)
        return runner.model


class At(Hook):
    """Break training off at a point of iteration ``at``, or ask for its end."""

    def __init__(self, at: int, error: Exception | None) -> None:
        self.at, self.error = at, error

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        if runner.iter == self.at and self.error is not None:
            raise self.error
        if runner.iter == self.at:
            runner.request_preemption("a test")


def run_of(work_dir: Path, loop: type, by_epoch: bool | None = False, **changes: Any) -> Runner:
    end = {"max_iters": 10} if issubclass(loop, IterBasedTrainLoop) else {"max_epochs": 4}
    return make_runner(
        work_dir,
        model=ToyModel(dropout=0.3),
        train_dataloader=loader_config(sampler={"shuffle": True}),
        train_cfg={"_target_": loop, **end},
        default_hooks={
            "checkpoint": {"interval": 1 if by_epoch is None else 2, "by_epoch": by_epoch}
        },
        **changes,
    )


def saved(work_dir: Path) -> list[str]:
    return [path.name for path in list_checkpoints(work_dir / "checkpoints")]


def assert_same_weights(one: Path, other: Path) -> None:
    ends = [read_checkpoint(list_checkpoints(path / "checkpoints")[-1]) for path in (one, other)]
    for part in ("state_dict", "optimizer", "train_loop"):
        assert_equal(ends[0][part], ends[1][part], part)


LOOPS = [OwnIterInEpochs, OwnIter, OwnEpoch, OwnRun, OwnIterRun]


@pytest.mark.parametrize("at", [5, 7])
@pytest.mark.parametrize("error", [ValueError("no"), None], ids=["an error", "a request"])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_loop_of_ones_own_goes_on_to_the_bit(
    tmp_path: Path, loop: type, error: Exception | None, at: int
) -> None:
    run_of(tmp_path / "whole", loop).train()
    assert saved(tmp_path / "whole")[:3] == ["iter_2", "iter_4", "iter_6"]
    runner = run_of(tmp_path / "stopped", loop, custom_hooks=[At(at, error)])
    with pytest.raises(Preempted if error is None else ValueError):
        runner.train()
    assert saved(tmp_path / "stopped")[-1] == f"iter_{at + 1 if error is None else at - 1}"
    run_of(tmp_path / "stopped", loop, resume=True).train()
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped")


@pytest.mark.parametrize("error", [ValueError("no"), None], ids=["an error", "a request"])
def test_a_loop_that_reads_its_data_itself_goes_on_between_epochs(
    tmp_path: Path, error: Exception | None
) -> None:
    run_of(tmp_path / "whole", ReadingEpoch, by_epoch=None).train()
    assert saved(tmp_path / "whole") == ["epoch_1", "epoch_2", "epoch_3", "epoch_4"]
    runner = run_of(tmp_path / "stopped", ReadingEpoch, None, custom_hooks=[At(4, error)])
    with pytest.raises(Preempted if error is None else ValueError):
        runner.train()
    assert saved(tmp_path / "stopped")[-1] == ("epoch_2" if error is None else "epoch_1")
    run_of(tmp_path / "stopped", ReadingEpoch, None, resume=True).train()
    assert_same_weights(tmp_path / "whole", tmp_path / "stopped")


def test_a_loop_that_reads_its_data_itself_cannot_go_on_inside_an_epoch(tmp_path: Path) -> None:
    runner = run_of(tmp_path, ReadingEpoch, custom_hooks=[At(5, ValueError("no"))])
    with pytest.raises(ValueError, match="no"):
        runner.train()
    assert saved(tmp_path)[-1] == "iter_4"
    with pytest.raises(ConfigError) as raised:
        run_of(tmp_path, ReadingEpoch, resume=True).train()
    assert str(raised.value) == (
        "The run was stopped after batch 1 of an epoch, but ReadingEpoch reads its data from their "
        "beginning. Take the batches from self.batches() there, or resume from a checkpoint of an "
        "epoch's end."
    )
    run_of(tmp_path, OwnEpoch, resume=True).train()


class RunOnly:
    """No train loop but for its run()."""

    def __init__(self, runner: Any, dataloader: Any) -> None: ...

    def run(self) -> None: ...


class Unfinished(BaseTrainLoop):
    """It says nothing of its end."""

    def run(self) -> None: ...


def test_a_loop_that_lacks_something_says_what(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        make_runner(tmp_path, train_cfg={"_target_": RunOnly}).train()
    assert str(raised.value) == (
        "train_cfg is a RunOnly; expected a loop derived from trainkit.loops.BaseTrainLoop, which "
        "knows how far it has come, for checkpoints, and when to validate. A loop of one's own has "
        "to add run(), max_epochs, max_iters and by_epoch only."
    )
    with pytest.raises(ConfigError) as raised:
        make_runner(tmp_path, train_cfg={"_target_": Unfinished}).train()
    assert str(raised.value) == (
        "train_cfg: Unfinished has no max_epochs, max_iters, by_epoch. A train loop says itself "
        "how it runs, run(), until when, max_epochs and max_iters, and by by_epoch = True or False "
        "what it counts."
    )


def test_names_of_mmengine_are_answered(tmp_path: Path) -> None:
    runner = make_runner(tmp_path)
    with pytest.raises(ConfigError, match=r"no point 'before_train_itre'\. Did you mean"):
        runner.call_hook("before_train_itre")
    with pytest.raises(AttributeError, match=r"uses self\._iter; in trainkit it is self\.iter,"):
        runner.train_loop._iter += 1
    with pytest.raises(AttributeError, match=r"uses self\._epoch; in trainkit it is self\.epoch,"):
        runner.train_loop._epoch = 0
