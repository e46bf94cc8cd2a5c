"""``trainkit rerun RUN``: train the config that a run has stored once more, in a new directory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from trainkit.cli.arguments import Arguments, parse
from trainkit.cli.run_names import find_named_run
from trainkit.cli.train import train_in
from trainkit.config.findings import raise_findings
from trainkit.config.loader import parse_override
from trainkit.config.options import ADDING, read_option
from trainkit.config.origins import is_at_or_below, trace_stored
from trainkit.config.stored import stored_config
from trainkit.errors import ConfigError
from trainkit.launch.environment import refuse_ranks
from trainkit.run_dir import experiment_directory, find_run, has_identity, identity, read_status

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Overrides of the first run that are about its own start, not about what it trained.
_NOT_AGAIN = ("resume", "resume_with", "work_dir", "trust")


def run(command: str, argv: list[str]) -> None:
    """Train the config of a run again, changed by overrides; nothing of that run is touched.

    The new run records the overrides of the first together with the new ones, so that the same
    command with ``resume=true`` finds it again. A stored config is not trusted: ``trust=[mypkg]``
    lets it name what is in that package.
    """
    name, given = _read(argv)
    refuse_ranks("trainkit rerun")
    base = find_named_run(name)
    cfg = stored_config(
        base,
        given.overrides,
        config_name=given.config_name,
        config_dirs=given.config_dirs,
        reset=("work_dir",),
    )
    resume = _resumes(cfg)
    overrides = _merged(_recorded(base), given.overrides, _added(given))
    from trainkit.runner.check import find_mistakes  # imports torch

    raise_findings(
        find_mistakes(cfg), lambda _: trace_stored(base / "config.yaml", given.overrides)
    )
    wanted = identity(str(cfg.get("experiment_name")), overrides)
    directory = _directory(cfg, base, wanted, resume)
    status = {} if directory is None else read_status(directory)
    if resume and status.get("status") == "finished" and has_identity(status, wanted):
        print(
            f"{directory} is finished already, so there is nothing to resume. resume=fresh starts "
            "a new run."
        )
        return
    print(f"Training the config of {base} again.")
    train_in(cfg, directory, wanted, overrides, resume=resume, rerun_of=str(base))


def _added(given: Arguments) -> dict[str, tuple[str, ...]]:
    """Return the keys that are set by each override that adds options to those of a group."""
    found: dict[str, tuple[str, ...]] = {}
    for text in given.overrides:
        if _key(text) in ADDING:
            option = read_option(parse_override(text), given.config_name, given.config_dirs)
            found[text] = option.keys
    return found


def _merged(
    recorded: Iterable[str],
    given: Iterable[str],
    added: Mapping[str, tuple[str, ...]],
) -> list[str]:
    """Return the overrides of a run and those given now.

    A new one replaces what was recorded for its key and for all below, as it did in the config.

    Args:
        recorded: Those of the run.
        given: The new ones.
        added: Of them, those that add the options of a group, with the keys that these set: what
            was recorded for other keys of the group stays.
    """
    merged = {_key(text): text for text in recorded}
    for text in given:
        key = _key(text)
        before = merged.pop(key, "")
        replaced = added.get(text, (key,))
        merged = {k: old for k, old in merged.items() if not _is_replaced(k, replaced)}
        # What had to be added to the composed config has to be when that is composed again.
        plus = "" if text[0] in "+~" else before.removesuffix(before.lstrip("+"))
        merged[key] = plus + (_joined(before, text) if before and text in added else text)
    return [text for key, text in merged.items() if key not in _NOT_AGAIN]


def _is_replaced(key: str, replaced: Iterable[str]) -> bool:
    """Whether a recorded key is one of those, or below one, or the node whose target is one."""
    return any(is_at_or_below(key, one) or f"{key}._target_" == one for one in replaced)


def _joined(before: str, text: str) -> str:
    """Return one override with the options of two, each once."""
    values = [parse_override(one).value() for one in (before, text)]
    options = [one for value in values for one in (value if isinstance(value, list) else [value])]
    return f"{text.partition('=')[0]}=[{','.join(dict.fromkeys(map(str, options)))}]"


def _read(argv: list[str]) -> tuple[str, Arguments]:
    if not argv or argv[0].startswith("-"):
        raise ConfigError(
            "trainkit rerun needs a run, before anything else: trainkit rerun "
            "outputs/digits/<run> [key=value ...]."
        )
    given = parse(argv[1:])
    if given.multirun or given.inspect:
        flag = "--multirun" if given.multirun else given.inspect[0]
        raise ConfigError(f"trainkit rerun trains one run; it does not take {flag}.")
    return argv[0].removeprefix("run="), given


def _recorded(run: Path) -> list[str]:
    recorded = read_status(run).get("overrides")
    return [str(text) for text in recorded] if isinstance(recorded, list) else []


def _key(override: str) -> str:
    return override.partition("=")[0].lstrip("+~").replace("/", ".")


def _resumes(cfg: DictConfig) -> bool:
    resume = cfg.get("resume")
    if resume in (None, False, "fresh"):
        return False
    if resume is not True:
        raise ConfigError(
            f"resume is {resume!r}; a rerun takes true, to go on with the newest rerun of these "
            f"overrides, or fresh. To go on with any other run: trainkit resume={resume}"
        )
    return True


def _directory(cfg: DictConfig, base: Path, wanted: list[str], resume: bool) -> Path | None:
    """Return where to train; None for a new directory."""
    if cfg.get("work_dir") is not None:
        named = Path(str(cfg.work_dir))
        if named.exists() and named.samefile(base):
            raise ConfigError(
                f"work_dir is {str(named)!r}, the run to train again. A rerun leaves that as it "
                "is: name another directory."
            )
        return named
    if not resume:
        return None
    home = experiment_directory(wanted[0])
    found = find_run(home, wanted)
    if found is not None and not found.samefile(base):
        return found
    print(f"resume=true: no earlier rerun of {' '.join(wanted)} in {home}; starting afresh.")
    return None
