"""Dataclasses of the hooks' configs; :mod:`trainkit.config.schema` says how they are used."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(kw_only=True)
class HookConfig:
    """What every hook's config may hold besides the hook's own arguments."""

    priority: Any = None


@dataclass(kw_only=True)
class CheckpointHookConfig(HookConfig):
    """:class:`trainkit.hooks.CheckpointHook`."""

    interval: int | None = -1
    by_epoch: bool | None = None
    save_optimizer: bool = True
    save_param_scheduler: bool = True
    max_keep_ckpts: int = -1
    save_last: bool = True
    save_best: Any = None
    rule: Any = None
    greater_keys: list[str] | None = None
    less_keys: list[str] | None = None
    filename_tmpl: str | None = None
    save_begin: int = 0
    out_dir: str | None = None
    published_keys: Any = None
    async_save: bool = False
    _target_: str = "trainkit.hooks.CheckpointHook"


@dataclass(kw_only=True)
class EMAHookConfig(HookConfig):
    """:class:`trainkit.hooks.EMAHook`."""

    ema_type: Any = "ExponentialMovingAverage"
    strict_load: bool = False
    begin_iter: int = 0
    begin_epoch: int = 0
    momentum: float | None = None
    gamma: int | None = None
    interval: int | None = None
    device: str | None = None
    update_buffers: bool | None = None
    _target_: str = "trainkit.hooks.EMAHook"


@dataclass(kw_only=True)
class EarlyStoppingHookConfig(HookConfig):
    """:class:`trainkit.hooks.EarlyStoppingHook`."""

    monitor: str
    rule: str | None = None
    min_delta: float = 0.0
    strict: bool = True
    check_finite: bool = True
    patience: int = 5
    stopping_threshold: float | None = None
    _target_: str = "trainkit.hooks.EarlyStoppingHook"


@dataclass(kw_only=True)
class LoggerHookConfig(HookConfig):
    """:class:`trainkit.hooks.LoggerHook`."""

    interval: int = 10
    ignore_last: bool = True
    interval_exp_name: int = 1000
    log_metric_by_epoch: bool = True
    _target_: str = "trainkit.hooks.LoggerHook"


@dataclass(kw_only=True)
class IterTimerHookConfig(HookConfig):
    """:class:`trainkit.hooks.IterTimerHook`."""

    _target_: str = "trainkit.hooks.IterTimerHook"


@dataclass(kw_only=True)
class ParamSchedulerHookConfig(HookConfig):
    """:class:`trainkit.hooks.ParamSchedulerHook`."""

    _target_: str = "trainkit.hooks.ParamSchedulerHook"


@dataclass(kw_only=True)
class RuntimeInfoHookConfig(HookConfig):
    """:class:`trainkit.hooks.RuntimeInfoHook`."""

    _target_: str = "trainkit.hooks.RuntimeInfoHook"


@dataclass(kw_only=True)
class DistSamplerSeedHookConfig(HookConfig):
    """:class:`trainkit.hooks.DistSamplerSeedHook`."""

    _target_: str = "trainkit.hooks.DistSamplerSeedHook"


@dataclass(kw_only=True)
class SyncBuffersHookConfig(HookConfig):
    """:class:`trainkit.hooks.SyncBuffersHook`."""

    _target_: str = "trainkit.hooks.SyncBuffersHook"


@dataclass(kw_only=True)
class EmptyCacheHookConfig(HookConfig):
    """:class:`trainkit.hooks.EmptyCacheHook`."""

    before_epoch: bool = False
    after_epoch: bool = True
    after_iter: bool = False
    _target_: str = "trainkit.hooks.EmptyCacheHook"


@dataclass(kw_only=True)
class ProfilerHookConfig(HookConfig):
    """:class:`trainkit.hooks.ProfilerHook`."""

    by_epoch: bool | None = None
    profile_times: int = 1
    activity_with_cpu: bool = True
    activity_with_cuda: bool | None = None
    schedule: Any = None
    on_trace_ready: Any = None
    record_shapes: bool = False
    profile_memory: bool = False
    with_stack: bool = False
    with_flops: bool = False
    json_trace_path: str | None = None
    _target_: str = "trainkit.hooks.ProfilerHook"


@dataclass(kw_only=True)
class VisualizationHookConfig(HookConfig):
    """:class:`trainkit.hooks.VisualizationHook`."""

    draw: bool = True
    interval: int = 50
    draw_gt: bool = True
    max_images: int = 16
    render: Any = None
    _target_: str = "trainkit.hooks.VisualizationHook"


@dataclass(kw_only=True)
class TimeLimitHookConfig(HookConfig):
    """:class:`trainkit.hooks.TimeLimitHook`."""

    limit: Any
    _target_: str = "trainkit.hooks.TimeLimitHook"


@dataclass(kw_only=True)
class NanGuardHookConfig(HookConfig):
    """:class:`trainkit.hooks.NanGuardHook`."""

    policy: Any = "raise"
    patience: int = 10
    max_rollbacks: int = 3
    post_mortems: int = 3
    post_mortem_mib: float = 64.0
    _target_: str = "trainkit.hooks.NanGuardHook"
