"""The generated pages: file name -> function that returns the content."""

from collections.abc import Callable

from cli.reference.commands import commands_page
from cli.reference.configuration import configuration_page, settings_page
from cli.reference.features import features_page
from cli.reference.figures import figures_page
from cli.reference.markdown import ROOT
from cli.reference.metrics import metrics_page

FOLDER = ROOT / "docs" / "reference"
PAGES: dict[str, Callable[[], str]] = {
    "configuration.md": configuration_page,
    "settings.md": settings_page,
    "commands.md": commands_page,
    "features.md": features_page,
    "metrics.md": metrics_page,
    "figures.md": figures_page,
}
