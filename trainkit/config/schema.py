"""Configs as dataclasses, for Python: one for the root, one for each target of the main groups.

A field stands for the argument of the same name of the class in ``_target_``, with its default;
what it means is said there. Types that OmegaConf cannot hold are ``Any``: the check before a run
knows the real ones. A dataclass of one's own works in the same places, with a field ``_target_``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

NOT_GIVEN: Any = "???"  # OmegaConf's MISSING, without importing it


@dataclass(kw_only=True)
class TrainConfig:
    """The whole config. A field that is given takes the place of what its group would choose.

    Groups take a dataclass or a mapping; None switches a split or the schedules off. ``hooks`` adds
    to the default hooks, and changes those of the same name. Overrides apply afterwards.

    Args:
        model: Config of a ``torch.nn.Module`` with ``train_step``.
        dataloader: :class:`DataLoadersConfig`.
        evaluator: Config of the metrics.
        train_cfg: :class:`EpochBasedTrainLoopConfig` or :class:`IterBasedTrainLoopConfig`.
        val_cfg: Config of the validation loop.
        test_cfg: Config of the test loop.
        optim_wrapper: :class:`OptimWrapperConfig` or :class:`AmpOptimWrapperConfig`.
        param_scheduler: One scheduler's config, a list, or a mapping by name.
        runner: ``{"_target_": ...}``: a class derived from Runner, with arguments of its own.
        hooks: Hooks' configs by name, or a list; None in place of a default removes it.
        visualizer: Config of the visualizer.
        env: Device, threads and data workers.
        log_processor: How log lines are made.
        randomness: ``{"deterministic": ..., "diff_rank_seed": ...}``.
        auto_scale_lr: ``{"enable": ..., "base_batch_size": ...}``.
        experiment_name: Runs are kept in ``outputs/<experiment_name>/``.
        work_dir: A directory of one's own for the run.
        tags: Words to find the run by.
        seed: Of every random number; None draws one.
        resume: True, a path, or ``"fresh"``.
        resume_with: ``"config"`` or ``"checkpoint"``: whose learning rates and the like hold.
        load_from: Weights to start from.
        load_cfg: ``{"strict": ..., "revise_keys": ..., "key": ...}``: how ``load_from`` is taken.
        log_level: The least level that is logged.
        fast_dev_run: Batches of each split, to see that everything runs; 0: all.
        overfit_batches: Batches to train and validate on; 0: all.
        amp: Mixed precision on whatever ``optim_wrapper`` there is.
        compile: True, or arguments of ``torch.compile``.
        activation_checkpointing: Names of submodules whose activations are computed again.
        launcher: Who has started several processes: ``"auto"`` finds out, ``"none"`` is alone.
        find_unused_parameters: Whether ranks look for parameters without a gradient in each step.
        sync_bn: ``"torch"``: batch norm over all ranks.
        model_wrapper_cfg: How ranks wrap the model; None: ``DistributedDataParallel``.
        trust: Packages that configs of stored runs may name.
    """

    model: Any = NOT_GIVEN
    dataloader: Any = NOT_GIVEN
    evaluator: Any = NOT_GIVEN
    train_cfg: Any = NOT_GIVEN
    val_cfg: Any = NOT_GIVEN
    test_cfg: Any = NOT_GIVEN
    optim_wrapper: Any = NOT_GIVEN
    param_scheduler: Any = NOT_GIVEN
    runner: Any = NOT_GIVEN
    hooks: Any = NOT_GIVEN
    visualizer: Any = NOT_GIVEN
    env: Any = NOT_GIVEN
    log_processor: Any = NOT_GIVEN
    randomness: Any = NOT_GIVEN
    auto_scale_lr: Any = NOT_GIVEN
    experiment_name: str = NOT_GIVEN
    work_dir: str | None = NOT_GIVEN
    tags: list[str] = NOT_GIVEN
    seed: int | None = NOT_GIVEN
    resume: bool | str = NOT_GIVEN
    resume_with: str = NOT_GIVEN
    load_from: str | None = NOT_GIVEN
    load_cfg: Any = NOT_GIVEN
    log_level: str | int = NOT_GIVEN
    fast_dev_run: int = NOT_GIVEN
    overfit_batches: int = NOT_GIVEN
    amp: bool = NOT_GIVEN
    compile: Any = NOT_GIVEN
    activation_checkpointing: Any = NOT_GIVEN
    launcher: str = NOT_GIVEN
    find_unused_parameters: bool = NOT_GIVEN
    sync_bn: str | None = NOT_GIVEN
    model_wrapper_cfg: Any = NOT_GIVEN
    trust: list[str] = NOT_GIVEN


# ---------------------------------------------------------------- optim_wrapper


@dataclass(kw_only=True)
class OptimWrapperConfig:
    """:class:`trainkit.optim_wrapper.OptimWrapper`, and what its constructor takes."""

    optimizer: Any
    accumulative_counts: int = 1
    clip_grad: Any = None
    constructor: Any = None
    paramwise_cfg: Any = None
    modules: Any = None
    _target_: str = "trainkit.optim_wrapper.OptimWrapper"


@dataclass(kw_only=True)
class AmpOptimWrapperConfig:
    """:class:`trainkit.optim_wrapper.AmpOptimWrapper`, and what its constructor takes."""

    optimizer: Any
    loss_scale: Any = "dynamic"
    dtype: Any = None
    accumulative_counts: int = 1
    clip_grad: Any = None
    constructor: Any = None
    paramwise_cfg: Any = None
    modules: Any = None
    _target_: str = "trainkit.optim_wrapper.AmpOptimWrapper"


@dataclass(kw_only=True)
class SGDConfig:
    """:class:`torch.optim.SGD`."""

    lr: float = 0.001
    momentum: float = 0.0
    dampening: float = 0.0
    weight_decay: float = 0.0
    nesterov: bool = False
    maximize: bool = False
    foreach: bool | None = None
    differentiable: bool = False
    fused: bool | None = None
    _target_: str = "torch.optim.SGD"


@dataclass(kw_only=True)
class AdamConfig:
    """:class:`torch.optim.Adam`."""

    lr: float = 0.001
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    amsgrad: bool = False
    foreach: bool | None = None
    maximize: bool = False
    capturable: bool = False
    differentiable: bool = False
    fused: bool | None = None
    decoupled_weight_decay: bool = False
    _target_: str = "torch.optim.Adam"


@dataclass(kw_only=True)
class AdamWConfig:
    """:class:`torch.optim.AdamW`."""

    lr: float = 0.001
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.01
    amsgrad: bool = False
    maximize: bool = False
    foreach: bool | None = None
    capturable: bool = False
    differentiable: bool = False
    fused: bool | None = None
    _target_: str = "torch.optim.AdamW"


# -------------------------------------------------------------------- train_cfg


@dataclass(kw_only=True)
class EpochBasedTrainLoopConfig:
    """:class:`trainkit.loops.EpochBasedTrainLoop`."""

    max_epochs: int
    val_begin: int = 1
    val_interval: int = 1
    dynamic_intervals: Any = None
    val_before_train: bool = False
    _target_: str = "trainkit.loops.EpochBasedTrainLoop"


@dataclass(kw_only=True)
class IterBasedTrainLoopConfig:
    """:class:`trainkit.loops.IterBasedTrainLoop`."""

    max_iters: int
    val_begin: int = 1
    val_interval: int = 1000
    dynamic_intervals: Any = None
    val_before_train: bool = False
    _target_: str = "trainkit.loops.IterBasedTrainLoop"


# ------------------------------------------------------------------- dataloader


@dataclass(kw_only=True)
class DefaultSamplerConfig:
    """:class:`trainkit.dataloader.DefaultSampler`; the run gives its seed, and pads training."""

    shuffle: bool = True
    _target_: str = "trainkit.dataloader.DefaultSampler"


@dataclass(kw_only=True)
class InfiniteSamplerConfig:
    """:class:`trainkit.dataloader.InfiniteSampler`; the run gives its seed."""

    shuffle: bool = True
    _target_: str = "trainkit.dataloader.InfiniteSampler"


@dataclass(kw_only=True)
class DigitsConfig:
    """:class:`trainkit.data.Digits`."""

    split: str = "train"
    _target_: str = "trainkit.data.Digits"


@dataclass(kw_only=True)
class DataLoaderConfig:
    """:class:`torch.utils.data.DataLoader`, and ``num_batch_per_epoch``, which the Runner reads.

    Without ``sampler`` and ``shuffle``, training data is shuffled, other data is not.
    """

    dataset: Any
    batch_size: int | None = 1
    shuffle: bool | None = None
    sampler: Any = None
    batch_sampler: Any = None
    num_workers: int = 0
    collate_fn: Any = None
    pin_memory: bool = False
    drop_last: bool = False
    timeout: float = 0.0
    worker_init_fn: Any = None
    multiprocessing_context: Any = None
    generator: Any = None
    prefetch_factor: int | None = None
    persistent_workers: bool = False
    pin_memory_device: str = ""
    in_order: bool = True
    num_batch_per_epoch: int | None = None
    _target_: str = "torch.utils.data.DataLoader"


@dataclass(kw_only=True)
class DataLoadersConfig:
    """The loaders of the splits, each a :class:`DataLoaderConfig`."""

    train: Any = None
    val: Any = None
    test: Any = None
