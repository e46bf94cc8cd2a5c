"""Take a checkpoint's hyperparameters in place of the config's."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import Any

from trainkit.optim_wrapper.base import OptimWrapper
from trainkit.optim_wrapper.several import OptimWrapperDict

logger = logging.getLogger(__name__)


def adopt(wrapper: OptimWrapper, state_dict: Mapping[str, Any]) -> None:
    """Give every group the values of a saved state, as if the config had given them.

    What differs is logged. The state itself is loaded afterwards.

    Args:
        wrapper: The wrapper.
        state_dict: As its ``state_dict`` returned it.

    Raises:
        ValueError: The state is of other groups.
    """
    if isinstance(wrapper, OptimWrapperDict):
        for name in wrapper:
            if name in state_dict:  # else loading refuses it
                adopt(wrapper[name], state_dict[name])
        return
    base = [] if wrapper.base_param_settings is None else [state_dict["base_param_settings"]]
    saved, own = [*state_dict["param_groups"], *base], wrapper.param_groups
    names = state_dict.get("param_names", wrapper.param_names)
    if len(saved) != len(own) or (names and names != wrapper.param_names):
        raise ValueError("its parameters are in other groups")
    _tell(state_dict["configured"], wrapper.configured)
    for group, values in zip(own, saved, strict=True):
        for key in [key for key in group if key.startswith("initial_")]:
            del group[key]
        group.update({key: value for key, value in values.items() if key != "params"})
    wrapper.configured = copy.deepcopy(state_dict["configured"])


def _tell(before: list[dict[str, Any]], now: list[dict[str, Any]]) -> None:
    for index, (old, new) in enumerate(zip(before, now, strict=True)):
        for key in sorted(old):
            theirs, own = _listed(old[key]), _listed(new.get(key))
            if theirs != own:
                text = "%s of group %d: the checkpoint's %s, not the config's %s."
                logger.info(text, key, index, theirs, own)


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
