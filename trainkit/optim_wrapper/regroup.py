"""Fit an optimizer's state to groups that the config has drawn otherwise since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_DIFFERENT = "different values"  # of parameters that were in several groups: equal to no value


def regrouped(saved: Mapping[str, Any], names: Sequence[Sequence[str]]) -> Mapping[str, Any]:
    """Return an OptimWrapper's state in other groups of the same parameters.

    A group takes the values of the group that its first parameter was in. What the parameters of a
    group did not have in common before counts as changed by the config.

    Args:
        saved: As ``OptimWrapper.state_dict()`` gives it.
        names: The names of the parameters in each of the groups that there are now.
    """
    before: Sequence[Sequence[str]] = saved.get("param_names") or []
    order = [name for group in names for name in group]
    if before == names or sorted(order) != sorted(name for group in before for name in group):
        return saved  # as they are; or other parameters, which the optimizer itself refuses
    if len(set(order)) != len(order):
        return saved  # some have no name
    home = {name: index for index, group in enumerate(before) for name in group}
    number = {
        name: key
        for group, inside in zip(saved["param_groups"], before, strict=True)
        for name, key in zip(inside, group["params"], strict=True)
    }
    state, groups, configured = saved["state"], [], []
    for inside in names:
        homes = sorted({home[name] for name in inside}, key=lambda index: index != home[inside[0]])
        taken = dict(saved["param_groups"][homes[0]])
        groups.append({**taken, "params": [order.index(name) for name in inside]})
        configured.append(_common([saved["configured"][index] for index in homes]))
    return {
        **saved,
        "state": {
            new: state[number[name]] for new, name in enumerate(order) if number[name] in state
        },
        "param_groups": groups,
        "configured": [*configured, *saved["configured"][len(before) :]],
    }


def _common(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the first settings, with what others have otherwise marked as different."""
    first = settings[0]
    return {
        key: value if all(other.get(key) == value for other in settings) else _DIFFERENT
        for key, value in first.items()
    }
