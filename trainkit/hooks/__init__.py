"""The hooks that come with trainkit, one in each file."""

from trainkit.hooks.checkpoint import CheckpointHook
from trainkit.hooks.early_stopping import EarlyStoppingHook
from trainkit.hooks.ema import EMAHook
from trainkit.hooks.empty_cache import EmptyCacheHook
from trainkit.hooks.iter_timer import IterTimerHook
from trainkit.hooks.logger import LoggerHook
from trainkit.hooks.nan_guard import NanGuardHook
from trainkit.hooks.param_scheduler import ParamSchedulerHook
from trainkit.hooks.profiler import ProfilerHook
from trainkit.hooks.runtime_info import RuntimeInfoHook
from trainkit.hooks.sampler_seed import DistSamplerSeedHook
from trainkit.hooks.sync_buffers import SyncBuffersHook
from trainkit.hooks.time_limit import TimeLimitHook
from trainkit.hooks.visualization import VisualizationHook

__all__ = [
    "CheckpointHook",
    "DistSamplerSeedHook",
    "EMAHook",
    "EarlyStoppingHook",
    "EmptyCacheHook",
    "IterTimerHook",
    "LoggerHook",
    "NanGuardHook",
    "ParamSchedulerHook",
    "ProfilerHook",
    "RuntimeInfoHook",
    "SyncBuffersHook",
    "TimeLimitHook",
    "VisualizationHook",
]
