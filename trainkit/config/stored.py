"""The config that a run has stored, read with care and changed by overrides."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.config.compose import compose
from trainkit.config.secrets import refuse_redacted
from trainkit.config.trust import check_trust, only_resolvers, trust_list
from trainkit.errors import ConfigError

if TYPE_CHECKING:
    from hydra.core.override_parser.types import Override
    from omegaconf import DictConfig

# Far more than a config has; a file that was made to choke its reader goes beyond one of them.
_MAX_BYTES = 1_000_000
_MAX_NODES = 100_000  # each alias counts as what it stands for
_MAX_DEPTH = 100


def stored_config(
    run: Path,
    overrides: Sequence[str],
    *,
    config_name: str = "config",
    config_dirs: Sequence[str | Path] = (),
    trust: Sequence[str] = (),
    reset: Sequence[str] = ("load_from", "hooks.checkpoint.out_dir"),
) -> DictConfig:
    """Return the config of a run, changed by ``overrides``; a group's option is composed anew.

    What the run has stored is trusted as far as :func:`trainkit.config.trust.check_trust` says.
    The packages that it may name are those of ``trust``, of an override ``trust=[mypkg]``, and of
    the key ``trust`` in the user's own config; never those that were stored.

    Args:
        run: The run's directory.
        overrides: As on the command line.
        config_name: The user's own primary config.
        config_dirs: Directories whose groups and options are added to trainkit's own.
        trust: Packages of the user's own that the config may name.
        reset: Keys that are set to null, as they were about the start of that run, or do nothing in
            an evaluation.

    Raises:
        ConfigError: ``run`` is no run, its config names what it may not, or an override does not
            fit it.
    """
    file = run / "config.yaml"
    if run == Path() or not file.is_file():
        raise ConfigError(
            f"run={run} has no config.yaml, so it is no run. Expected a directory such as "
            "outputs/digits/<run>."
        )
    cfg = read_stored(file)
    changes, given = _changes(overrides, config_name, config_dirs)
    own = compose([], config_name=config_name, config_dirs=config_dirs).get("trust")
    trusted = list(dict.fromkeys([*trust_list(own), *trust_list(trust), *trust_list(given)]))
    cfg.update({"trust": trusted, "resume": False})
    _reset(cfg, reset, trusted)
    _change(cfg, changes, trusted, str(file))
    refuse_redacted(cfg)
    return cfg


def read_stored(file: Path) -> DictConfig:
    """Return the config in a YAML file that was stored by a run, unresolved and not yet trusted.

    Raises:
        ConfigError: It is no config, or larger or deeper than any config is.
    """
    from omegaconf import DictConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    text = _text(file)
    if not text.strip():
        raise ConfigError(f"{file} is empty, so it is no config. Restore the file.")
    try:
        _check_size(text, file)
        cfg = OmegaConf.load(io.StringIO(text))
    except YAMLError as error:
        raise ConfigError(f"{file} is no YAML: {' '.join(str(error).split())}") from None
    except (OmegaConfBaseException, RecursionError, OSError) as error:  # OSError: a lone number
        deep = isinstance(error, RecursionError)
        reason = "it nests too deep" if deep else str(error).splitlines()[0]
        raise ConfigError(f"{file} is no config: {reason}. Restore the file.") from None
    if not isinstance(cfg, DictConfig):
        raise ConfigError(f"{file} is no config: expected keys with values, not a list.")
    return cfg


def _text(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            content = stream.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ConfigError(f"{file} has more than {_MAX_BYTES:,} bytes, so it is no config.")
        return content.decode()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{file} is no text in UTF-8, so it is no config.") from None


@dataclass
class _Collection:
    """What the YAML parser is inside of: its nodes so far, itself included, and how deep it is."""

    anchor: str | None = None
    nodes: int = 1
    depth: int = 1

    def add(self, child: _Collection) -> None:
        """Count what stands in it."""
        self.nodes += child.nodes
        self.depth = max(self.depth, child.depth + 1)


def _check_size(text: str, file: Path) -> None:
    """Raise if a YAML text has too many nodes, or nests too deep, with its aliases followed.

    The parser's events tell, so that nothing of that size is made.
    """
    import yaml

    inside = [_Collection()]  # the first is the file itself
    anchored: dict[Any, _Collection] = {}
    # The same parser that OmegaConf reads with: the faster one in C may take a text for another.
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        _count(event, inside, anchored)
        if inside[-1].nodes > _MAX_NODES:
            raise ConfigError(f"{file} has more than {_MAX_NODES:,} nodes, so it is no config.")
        if max(len(inside), inside[-1].depth) > _MAX_DEPTH:
            raise ConfigError(f"{file} nests more than {_MAX_DEPTH} deep, so it is no config.")


def _count(event: Any, inside: list[_Collection], anchored: dict[Any, _Collection]) -> None:
    import yaml

    if isinstance(event, yaml.CollectionStartEvent):
        inside.append(_Collection(event.anchor))
    elif isinstance(event, yaml.CollectionEndEvent):
        ended = inside.pop()
        anchored[ended.anchor] = ended
        inside[-1].add(ended)
    elif isinstance(event, yaml.AliasEvent):
        endless = any(outer.anchor == event.anchor for outer in inside)
        stands_for = anchored.get(event.anchor, _Collection(depth=0))
        inside[-1].add(_Collection(nodes=_MAX_NODES) if endless else stands_for)
    elif isinstance(event, yaml.ScalarEvent):
        inside[-1].add(_Collection(depth=0))


@dataclass(frozen=True)
class _Change:
    """One override, and what it does.

    Args:
        override: As it was typed.
        value: What it puts at its key.
        typed: The keys that are trusted by it.
        adds: Whether it is merged into what is there.
    """

    override: Override
    value: Any
    typed: tuple[str, ...]
    adds: bool = False


def _changes(
    overrides: Sequence[str], config_name: str, config_dirs: Sequence[str | Path]
) -> tuple[list[_Change], Any]:
    """Return what the overrides do, and apart from them what ``trust`` is given.

    A group's value is its option, composed anew.
    """
    from trainkit.config.loader import group_options, hydra_loader, parse_override
    from trainkit.config.options import read_option

    with hydra_loader(config_dirs) as loader:
        groups = set(group_options(loader, config_name))
    changes: list[_Change] = []
    trust: Any = None
    for text in overrides:
        override = parse_override(text)
        _check_key(override)
        if override.key_or_group == "trust":
            trust = override.value()
        elif override.key_or_group in groups:
            option = read_option(override, config_name, config_dirs)
            changes.append(_Change(override, option.value, option.keys, option.adds))
        else:
            changes.append(_Change(override, override.value(), (_key(override),)))
    return changes, trust


def _reset(cfg: DictConfig, keys: Sequence[str], trust: Sequence[str]) -> None:
    """Set keys to null: those of the top in any case, those below where they are."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for key in keys:
        try:
            with only_resolvers(trust):  # the way to a key may lead through an interpolation
                if "." not in key or _has(cfg, key):
                    OmegaConf.update(cfg, key, None, merge=False)
        except OmegaConfBaseException:
            pass  # no way leads there, so that nothing is there to be reset


def _check_key(override: Override) -> None:
    key = override.key_or_group
    if override.is_sweep_override():
        raise ConfigError(f"{override.input_line} gives several values; a stored config takes one.")
    if key in ("experiment", "debug"):
        raise ConfigError(
            f"{override.input_line}: {key} changes the whole config, so it cannot be put on a "
            "run's. Override single keys."
        )
    if re.split(r"[./]", key)[0] == "hydra":
        raise ConfigError(
            f"{override.input_line}: a run's config has nothing for Hydra. Drop this override."
        )


def _change(cfg: DictConfig, changes: Sequence[_Change], trust: Sequence[str], source: str) -> None:
    """Put the values into ``cfg``, and hold the rest of it to what a stored config may do."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from trainkit.config.diagnose import key_error

    OmegaConf.set_struct(cfg, True)
    typed: list[str] = []
    for change in changes:
        override = change.override
        try:
            with only_resolvers(trust):  # the way to a key may lead through an interpolation
                is_there = _put(cfg, change)
        except OmegaConfBaseException as error:
            check_trust(cfg, trust, typed=typed, source=source)
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{override.input_line} does not fit {source}: {reason}.") from None
        if not is_there:
            check_trust(
                cfg, trust, typed=typed, source=source
            )  # for the error imports what is near
            raise key_error(override, cfg)
        typed += change.typed
    check_trust(cfg, trust, typed=typed, source=source)


def _put(cfg: DictConfig, change: _Change) -> bool:
    """Set one key; return False if ``cfg`` lacks it, and the override does not add it."""
    from omegaconf import OmegaConf

    override, key = change.override, _key(change.override)
    if not (override.is_add() or override.is_force_add() or _has(cfg, key)):
        return False
    if override.is_delete():
        raise ConfigError(
            f"{override.input_line}: a key of a run's config cannot be deleted; set it to null."
        )
    if change.adds and OmegaConf.is_interpolation(cfg, key):
        OmegaConf.update(cfg, key, OmegaConf.select(cfg, key).copy(), merge=False)
    OmegaConf.update(cfg, key, change.value, merge=change.adds, force_add=True)
    return True


def _has(cfg: DictConfig, key: str) -> bool:
    """Whether ``cfg`` has a key. Its value is not resolved: the user is about to replace it."""
    from omegaconf import ListConfig, OmegaConf

    above, _, last = key.rpartition(".")
    node = OmegaConf.select(cfg, above) if above else cfg
    if isinstance(node, ListConfig):
        return last.isdecimal() and int(last) < len(node)
    return OmegaConf.is_dict(node) and last in map(str, node)


def _key(override: Override) -> str:
    return override.key_or_group.replace("/", ".")
