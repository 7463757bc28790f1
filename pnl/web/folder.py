"""Where the dashboard itself lies."""

from pathlib import Path

from pnl.errors import ConfigError


def app_folder() -> Path:
    """The folder that `panel serve` is given: beside the package in a checkout, inside it when installed.

    Raises:
        ConfigError: It is in neither place.
    """
    package = Path(__file__).parents[1]
    for folder in (package.parent / "app", package / "app"):
        if (folder / "main.py").exists():
            return folder
    raise ConfigError("the dashboard's folder app/ is missing from this installation; install pnl anew")
