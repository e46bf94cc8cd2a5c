"""Trainkit's conf/ on the search path of an application of one's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainkit.config.loader import conf_dir

if TYPE_CHECKING:
    from hydra.core.config_search_path import ConfigSearchPath


def add_conf() -> None:
    """Let a ``@hydra.main`` application of this process choose trainkit's groups and options.

    Its own files of the same name come first. Call it before the application starts::

        @hydra.main(version_base="1.3", config_path="conf", config_name="my_run")
        def app(cfg):
            return trainkit.train(cfg)

        trainkit.config.add_conf()
        app()
    """
    from hydra.core.plugins import Plugins
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class TrainkitConf(SearchPathPlugin):
        """Appends conf/, unless it is there."""

        def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
            where = f"file://{conf_dir()}"
            if all(element.path != where for element in search_path.get_path()):
                search_path.append("trainkit", where)

    Plugins.instance().register(TrainkitConf)
