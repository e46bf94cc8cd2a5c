"""Weights from elsewhere: renamed, reported, and taken as a whole or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.toy import ToyModel, make_runner
from trainkit import CheckpointError, ConfigError, Runner
from trainkit.checkpoint.fit import Fit, listed, nearest_rename, renamed, without_wrappers
from trainkit.config import compose
from trainkit.runner import LoadOptions
from trainkit.runner.check import find_mistakes


class Two(ToyModel):
    """The toy model with a backbone of two layers before it."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))

    def forward(self, x: torch.Tensor, y: torch.Tensor, mode: str = "tensor") -> Any:
        return super().forward(self.backbone(x), y, mode)


def values(runner: Runner) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in runner.model.state_dict().items()}


def weights(model: nn.Module, by: float = 1.0) -> dict[str, torch.Tensor]:
    return {name: value + by for name, value in model.state_dict().items()}


def under(prefix: str, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


def start(tmp_path: Path, state: Any, **changes: Any) -> Runner:
    """A runner that is to start from a file with ``state`` in it."""
    torch.save(state, tmp_path / "weights.pth")
    arguments = {"model": Two(), "load_from": tmp_path / "weights.pth", **changes}
    return make_runner(tmp_path / "run", **arguments)


def test_entries_are_renamed_by_the_config(tmp_path: Path) -> None:
    state = under("old.", weights(Two()))
    rename = {"revise_keys": [["^old\\.back", "back"], ["^old\\.", ""]], "strict": True}
    runner = start(tmp_path, state, load_cfg=rename)
    runner.load_or_resume()
    assert torch.equal(runner.model.backbone[1].weight, state["old.backbone.1.weight"])


def test_renaming_is_reached_from_the_command_line(tmp_path: Path) -> None:
    torch.save({"net.x": torch.zeros(1)}, tmp_path / "weights.pth")
    rename = "load_cfg.revise_keys=[['^net\\.', 'head.'], ['x$', 'y']]"
    cfg = compose([f"load_from={tmp_path / 'weights.pth'}", rename, "load_cfg.strict=true"])
    runner = Runner.from_cfg(cfg, work_dir=tmp_path / "run")
    renames: Any = [["^net\\.", "head."], ["x$", "y"]]
    assert runner.load_options == LoadOptions(True, renames)


@pytest.mark.parametrize(
    ("load_cfg", "key", "text"),
    [
        ({"revise_keys": [["(", ""]]}, "load_cfg.revise_keys", "expected a regular expression"),
        ({"revise_keys": [["a", "\\2"]]}, "load_cfg.revise_keys", "expected a regular expression"),
        ({"revise_keys": {"a": "b"}}, "load_cfg.revise_keys", "takes a list"),
        ({"stict": True}, "load_cfg.stict", "Did you mean 'strict'?"),
        ({"strict": "yes"}, "load_cfg.strict", "true, false or null"),
    ],
)
def test_wrong_options_are_found_before_anything_is_built(
    load_cfg: Any, key: str, text: str
) -> None:
    (finding,) = find_mistakes({**compose(), "load_cfg": load_cfg})
    assert finding.key == key
    assert text in finding.text


def test_wrong_options_are_refused_in_python(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"revise_keys has \['\(', ''\]; expected a regular"):
        make_runner(tmp_path, load_cfg={"revise_keys": [["(", ""]]})
    with pytest.raises(ConfigError, match="load_cfg is True; expected a mapping"):
        make_runner(tmp_path, load_cfg=True)


def test_what_fits_is_taken_and_the_rest_is_told(tmp_path: Path) -> None:
    state = weights(Two())
    state["linear.weight"] = torch.zeros(5, 3)
    state["neck.bias"] = state.pop("linear.bias")
    runner = start(tmp_path, state)
    before = values(runner)
    runner.train()
    log = (tmp_path / "run" / "train.log").read_text()
    assert "gives 4 of 6 entries of Two" in log
    assert "1 missing in it: linear.bias" in log
    assert "1 not in the model: neck.bias" in log
    assert "1 of another shape: linear.weight (5, 3) for (1, 3)" in log
    assert "With load_cfg.revise_keys=[['^neck\\.', 'linear.']], 1 more fit." in log
    assert not torch.equal(runner.model.backbone[0].bias, before["backbone.0.bias"])


def test_strict_refuses_what_does_not_fit_and_changes_nothing(tmp_path: Path) -> None:
    state = weights(Two())
    del state["linear.bias"]
    runner = start(tmp_path, state, load_cfg={"strict": True})
    before = values(runner)
    with pytest.raises(CheckpointError, match=r"5 of 6 entries.*linear.bias.*Nothing was loaded"):
        runner.train()
    assert all(torch.equal(value, before[name]) for name, value in values(runner).items())


def test_weights_of_which_nothing_fits_are_refused_with_what_would(tmp_path: Path) -> None:
    runner = start(tmp_path, under("encoder.", weights(Two())))
    with pytest.raises(CheckpointError) as caught:
        runner.train()
    message = str(caught.value)
    assert "does not fit Two (0 of 6 entries): 6 missing in it" in message
    assert message.endswith(
        "With load_cfg.revise_keys=[['^encoder\\.', '']], 6 more fit. Nothing was loaded."
    )


class Stubborn(ToyModel):
    """A model whose second layer refuses every weight, after the first has taken its own."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.second = nn.Linear(3, 1)
        second: Any = self.second
        second.register_load_state_dict_pre_hook(self._refuse)
        self.error = error

    def _refuse(self, *args: Any) -> None:
        if self.error is not None:
            raise self.error
        args[-1].append("second refuses")


def test_a_model_that_refuses_one_weight_keeps_all_of_its_own(tmp_path: Path) -> None:
    for error in (None, KeyError("mine")):
        runner = start(tmp_path, weights(Stubborn()), model=Stubborn(error))
        before = values(runner)
        with pytest.raises(CheckpointError if error is None else KeyError, match=r"second|mine"):
            runner.load_or_resume()
        assert all(torch.equal(value, before[name]) for name, value in values(runner).items())


def test_an_evaluation_takes_every_weight_unless_told(tmp_path: Path) -> None:
    state = weights(Two())
    del state["linear.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing in it: linear\.bias"):
        start(tmp_path, state).val()
    assert start(tmp_path, state, load_cfg={"strict": False}).val().keys() == {"mse"}


def test_weights_may_stand_under_another_key(tmp_path: Path) -> None:
    state = weights(Two())
    file: dict[str, Any] = {"model": state, "ema": weights(Two(), 2.0), "step": 3}
    with pytest.raises(CheckpointError, match=r"under model, ema: choose by load_cfg\.key=model"):
        start(tmp_path, file).load_or_resume()
    runner = start(tmp_path, file, load_cfg={"key": "ema", "strict": True})
    runner.load_or_resume()
    assert torch.equal(runner.model.linear.bias, file["ema"]["linear.bias"])
    runner = start(tmp_path, {"state_dict": {}, **file}, load_cfg={"key": "model"})
    runner.load_or_resume()
    assert torch.equal(runner.model.linear.bias, state["linear.bias"])
    with pytest.raises(CheckpointError, match=r"no weights\. Did you mean 'model'\?"):
        start(tmp_path, file, load_cfg={"key": "modle"}).load_or_resume()


def test_a_pattern_that_finds_nothing_is_told(tmp_path: Path) -> None:
    runner = start(tmp_path, weights(Two()), load_cfg={"revise_keys": [["^nek\\.", ""]]})
    runner.train()
    told = "revise_keys: '^nek\\\\.' finds nothing in linear.weight, linear.bias, "
    assert told in (tmp_path / "run" / "train.log").read_text()


def test_the_options_are_not_for_the_runs_own_checkpoints(tmp_path: Path) -> None:
    options = {"load_cfg": {"revise_keys": [["^linear", "other"]], "key": "nowhere"}}
    make_runner(tmp_path, **options).train()
    resumed = make_runner(tmp_path, resume=True, **options)
    resumed.load_or_resume()
    assert resumed.iter == 6
    assert make_runner(tmp_path, **options).val().keys() == {"mse"}


def test_two_entries_of_one_name_are_refused() -> None:
    both = {"a.x": torch.zeros(1), "b.x": torch.zeros(1)}
    with pytest.raises(CheckpointError, match=r"a\.x and b\.x would both be x"):
        renamed(both, [("^[ab]\\.", "")])


def test_only_what_the_model_has_not_is_taken_for_a_wrappers() -> None:
    state = {"module.a": 1, "module.module.b": 2, "block._orig_mod.c": 3, "_orig_mod.d": 4}
    assert without_wrappers(state, ["module.a", "module.b"]) == {
        "module.a": 1,
        "module.b": 2,
        "block.c": 3,
        "d": 4,
    }
    inside = {"x._checkpoint_wrapped_module._fsdp_wrapped_module.y": 1}
    assert without_wrappers(inside, ["x.y"]) == {"x.y": 1}


def test_versions_of_modules_go_along_with_renamed_weights() -> None:
    norm = nn.Sequential(nn.BatchNorm1d(2))
    found: Any = renamed(norm.state_dict(), [("^0", "norm")])
    assert found._metadata["norm"] == {"version": 2}
    fit: Any = Fit(dict(found), found).taken()
    assert fit._metadata["norm"] == {"version": 2}


def test_the_counters_of_batch_norm_may_be_missing() -> None:
    own = nn.BatchNorm1d(2).state_dict()
    loaded = {name: value for name, value in own.items() if name != "num_batches_tracked"}
    assert Fit(own, loaded).problems() == []


def test_a_parameter_without_a_shape_yet_takes_any(tmp_path: Path) -> None:
    model = ToyModel()
    model.linear = nn.LazyLinear(1)
    torch.save(weights(ToyModel()), tmp_path / "weights.pth")
    runner = make_runner(tmp_path / "run", model=model)
    runner.load_checkpoint(tmp_path / "weights.pth", strict=True)
    assert runner.model.linear.weight.shape == (1, 3)


def test_numbers_of_another_kind_do_not_fit(tmp_path: Path) -> None:
    state = weights(Two())
    state["linear.weight"] = state["linear.weight"].to(torch.complex64)
    state["linear.bias"] = state["linear.bias"].to(torch.int64)
    state["backbone.0.bias"] = state["backbone.0.bias"] > 0
    runner = start(tmp_path, state, load_cfg={"strict": True})
    before = values(runner)
    with pytest.raises(CheckpointError) as caught:
        runner.load_or_resume()
    message = str(caught.value)
    assert "(3 of 6 entries): 3 of another type: " in message
    assert "linear.weight torch.complex64 for torch.float32" in message
    assert "linear.bias torch.int64 for torch.float32" in message
    assert "backbone.0.bias torch.bool for torch.float32" in message
    assert all(torch.equal(value, before[name]) for name, value in values(runner).items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_floating_point_numbers_fit_in_any_precision(dtype: torch.dtype) -> None:
    own = {"w": torch.zeros(2), "count": torch.tensor(0)}
    fit = Fit(own, {"w": torch.ones(2, dtype=dtype), "count": torch.tensor(1, dtype=torch.int32)})
    assert fit.problems() == []


def test_many_names_are_told_by_what_they_begin_with() -> None:
    names = [f"backbone.layer{n}.weight" for n in range(12)]
    assert listed([*names, "head.bias"]) == "backbone.* (12), head.bias"
    assert listed([f"{name}.x" for name in names]).startswith("backbone.layer0.weight.x, ")
    assert listed(names[:2]) == "backbone.layer0.weight, backbone.layer1.weight"
    assert listed(names).endswith("backbone.layer7.weight and 4 more")


def test_the_nearest_rename_is_that_of_most_names() -> None:
    own = {f"net.{n}.w": torch.zeros(n + 1) for n in range(4)}
    loaded = {f"model.body.{n}.w": torch.zeros(n + 1) for n in range(3)}
    loaded["model.tail.w"] = torch.zeros(9)
    assert nearest_rename(Fit(own, loaded)) == ("^model\\.body\\.", "net.")
    assert nearest_rename(Fit(own, {"w": torch.zeros(9)})) is None
    without = {name.removeprefix("net."): value for name, value in own.items()}
    assert nearest_rename(Fit(own, without)) == ("^", "net.")


def test_a_pickle_is_refused_with_what_to_do(tmp_path: Path) -> None:
    class Buffer:
        pass

    Buffer.__qualname__ = "Fit"
    Buffer.__module__ = "trainkit.checkpoint.fit"
    Buffer.__name__ = "Fit"
    state = {"state_dict": weights(Two()), "message_hub": Fit({}, {})}
    with pytest.raises(CheckpointError, match=r"weights_only=False\)\['state_dict'\]"):
        start(tmp_path, state).load_or_resume()
