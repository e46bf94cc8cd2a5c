"""``trainkit val`` and ``trainkit test``: evaluate a run, or a checkpoint, once more."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainkit.cli.arguments import parse
from trainkit.cli.train import OUTPUTS
from trainkit.config import compose
from trainkit.config.secrets import refuse_redacted
from trainkit.errors import ConfigError
from trainkit.run_dir import make_unique, safe_name, timestamp

if TYPE_CHECKING:
    from omegaconf import DictConfig


def run(purpose: str, argv: list[str]) -> None:
    """Validate or test, and print the metrics; ``run=DIR`` takes that run's config and weights."""
    given = parse(argv)
    if given.multirun or given.inspect:
        flag = "--multirun" if given.multirun else given.inspect[0]
        raise ConfigError(f"trainkit {purpose} evaluates one run; it does not take {flag}.")
    runs = [text.partition("=")[2] for text in given.overrides if text.startswith("run=")]
    overrides = [text for text in given.overrides if not text.startswith("run=")]
    if runs:
        directory = Path(runs[-1]).expanduser()
        cfg = _stored_config(directory, overrides, given.config_dirs)
    else:
        cfg = compose(overrides, config_name=given.config_name, config_dirs=given.config_dirs)
        if cfg.get("load_from") is None:
            raise ConfigError(
                f"trainkit {purpose} needs weights: give run=DIR, or load_from=CHECKPOINT."
            )
        directory = make_unique(
            OUTPUTS / safe_name(str(cfg.get("experiment_name"))), f"{purpose}_{timestamp()}"
        )
    from trainkit.runner import Runner

    runner = Runner.from_cfg(cfg, work_dir=str(directory), resume=False)
    metrics: dict[str, Any] = getattr(runner, purpose)()
    for name, value in metrics.items():
        print(f"{name}: {value}")


def _stored_config(run: Path, overrides: list[str], config_dirs: list[str]) -> DictConfig:
    """Return the config of a run, changed by ``overrides``; a group's option is composed anew.

    Raises:
        ConfigError: ``run`` is no run, or an override does not fit its config.
    """
    from omegaconf import DictConfig, OmegaConf
    from yaml import YAMLError

    file = run / "config.yaml"
    if run == Path() or not file.is_file():
        raise ConfigError(
            f"run={run} has no config.yaml, so it is no run. Expected a directory such as "
            "outputs/digits/<run>."
        )
    try:
        cfg = OmegaConf.load(file)
    except YAMLError as error:
        raise ConfigError(f"{file} is no YAML: {' '.join(str(error).split())}") from None
    assert isinstance(cfg, DictConfig), "a run's config is a mapping"
    cfg.resume = False
    cfg.load_from = None  # where training started; what is evaluated is where it came to
    OmegaConf.set_struct(cfg, True)
    for text in overrides:
        _apply(cfg, text, config_dirs)
    refuse_redacted(cfg)
    return cfg


def _apply(cfg: DictConfig, text: str, config_dirs: list[str]) -> None:
    from omegaconf import OmegaConf

    from trainkit.config.diagnose import all_groups, key_error
    from trainkit.config.loader import hydra_loader, parse_override

    override = parse_override(text)
    if override.is_sweep_override():
        raise ConfigError(f"{text} gives several values; an evaluation takes one.")
    with hydra_loader(config_dirs) as loader:
        is_group = override.key_or_group in set(all_groups(loader))
    key = override.key_or_group.replace("/", ".")
    if is_group:
        if override.key_or_group in ("experiment", "debug"):
            raise ConfigError(
                f"{text}: {key} changes the whole config, so it cannot be put on a run's. Override "
                "single keys."
            )
        composed = compose([text], config_dirs=config_dirs)
        OmegaConf.update(cfg, key, OmegaConf.select(composed, key), merge=False, force_add=True)
        return
    missing = OmegaConf.select(cfg, key, default=KeyError, throw_on_missing=False) is KeyError
    if missing and not override.is_add() and not override.is_force_add():
        raise key_error(override, cfg)
    if override.is_delete():
        raise ConfigError(f"{text}: a key of a run's config cannot be deleted; set it to null.")
    OmegaConf.update(cfg, key, override.value(), merge=False, force_add=True)
