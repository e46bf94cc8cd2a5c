"""Compose configs and turn them into objects. The only package that knows Hydra and OmegaConf."""

from trainkit.config.build import Partial, build, is_config, named, to_plain
from trainkit.config.compose import compose
from trainkit.config.loader import conf_dir

__all__ = ["Partial", "build", "compose", "conf_dir", "is_config", "named", "to_plain"]
