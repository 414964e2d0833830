"""`shortlist --help` lists every command in a panel."""

import typer

from cli.main import PANELS, PARTS, app


def test_every_command_is_in_a_panel() -> None:
    written = set()
    for part in PARTS:
        written |= {group.name for group in part.app.registered_groups}
        for command in part.app.registered_commands:
            assert command.callback is not None
            written.add(command.name or command.callback.__name__)
    shown = typer.main.get_command(app)
    assert isinstance(shown, typer.core.TyperGroup)
    assert set(shown.commands) == written == {name for names in PANELS.values() for name in names}
