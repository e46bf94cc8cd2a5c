"""Ranks: found in the environment that a launcher gives, and joined into a process group."""

from trainkit.launch.environment import (
    LAUNCHERS,
    Ranks,
    check_launcher,
    find_ranks,
    refuse_ranks,
)
from trainkit.launch.group import (
    check_dist_cfg,
    group_options,
    join,
    leave,
    leave_at_exit,
    process_group,
)

__all__ = [
    "LAUNCHERS",
    "Ranks",
    "check_dist_cfg",
    "check_launcher",
    "find_ranks",
    "group_options",
    "join",
    "leave",
    "leave_at_exit",
    "process_group",
    "refuse_ranks",
]
