"""`shortlist alarms`: broken guardrails, what was done about them, and what they hold back."""

from typing import Annotated, Any

import typer

from cli import show
from cli.commands.options import JsonOption

app = typer.Typer()
alarms = typer.Typer(no_args_is_help=True, help="List, take over and silence alarms; end holds.")
app.add_typer(alarms, name="alarms")

NameArgument = Annotated[str, typer.Argument(help="Name of the guardrail.")]
WhoOption = Annotated[
    str | None, typer.Option(help="Who does it; default: the user of this process.")
]


@alarms.command("list")
def list_alarms(
    every: Annotated[bool, typer.Option("--all", help="Also closed alarms.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List open alarms with their actions, held promotions, and sources that are off."""
    from flows.acting.alarms import read_alarms
    from shortlist.config import Settings
    from shortlist.home.switches import in_force

    settings = Settings()
    found = [alarm for alarm in read_alarms(settings) if every or alarm["closed_at"] is None]
    result = {
        "alarms": found,
        "holds": in_force(settings, "holds"),
        "sources_off": in_force(settings, "sources_off"),
    }
    show.result(result, as_json=as_json, table=alarm_table)


@alarms.command()
def acknowledge(
    guardrail: NameArgument,
    note: Annotated[str, typer.Option(help="What you found, or plan to do.")] = "",
    who: WhoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take an open alarm over: its action isn't repeated while it is open."""
    from flows.acting.alarms import acknowledge as take_over
    from shortlist.config import Settings
    from shortlist.home.audit import user_name, write_audit

    settings = Settings()
    who = who or user_name()
    alarm = take_over(settings, guardrail, who=who, note=note)
    reason = f"{who}: {note}" if note else who
    write_audit(settings, f"acknowledge {guardrail}", before=None, after=None, reason=reason)
    show.result(alarm, as_json=as_json)


@alarms.command()
def silence(
    guardrail: NameArgument,
    hours: Annotated[float, typer.Option(min=0.1, max=24 * 90, help="For how long.")] = 24.0,
    who: WhoOption = None,
    as_json: JsonOption = False,
) -> None:
    """Let a guardrail with an open alarm do nothing for some hours; it is still shown."""
    from flows.acting.alarms import silence as quiet
    from shortlist.config import Settings
    from shortlist.home.audit import user_name, write_audit

    settings = Settings()
    who = who or user_name()
    alarm = quiet(settings, guardrail, hours=hours, who=who)
    reason = f"{who}: until {alarm['silenced_until']}"
    write_audit(settings, f"silence {guardrail}", before=None, after=None, reason=reason)
    show.result(alarm, as_json=as_json)


@alarms.command("end-hold")
def end_hold(
    name: Annotated[str, typer.Argument(help="Name of a hold, or of a source that is off.")],
    source: Annotated[bool, typer.Option("--source", help="NAME is a source.")] = False,
    as_json: JsonOption = False,
) -> None:
    """End a hold of promotions, or switch a source on again."""
    from shortlist.config import Settings
    from shortlist.home.audit import user_name, write_audit
    from shortlist.home.switches import end_switch, in_force

    settings = Settings()
    section = "sources_off" if source else "holds"
    end_switch(settings, section, name)
    write_audit(
        settings,
        f"end {'source switch' if source else 'hold'} {name}",
        before=None,
        after=None,
        reason=user_name(),
    )
    show.result({"ended": name, section: in_force(settings, section)}, as_json=as_json)


def alarm_table(content: dict[str, Any]) -> None:
    """Print open alarms, then holds and sources that are off."""
    from rich.table import Table

    table = Table(title=f"{len(content['alarms'])} alarms", title_justify="left")
    for column in ("guardrail", "since", "why", "done"):
        table.add_column(column)
    for alarm in content["alarms"]:
        by = f" (taken over by {alarm['acknowledged_by']})" if alarm["acknowledged_by"] else ""
        done = (alarm["outcome"] or alarm["waiting"] or "") + by
        table.add_row(alarm["guardrail"], alarm["opened_at"][:16], alarm["reason"], done)
    show.terminal().print(table)
    for name, hold in content["holds"].items():
        show.terminal().print(f"promotions held by '{name}': {hold['reason']}")
    for name, entry in content["sources_off"].items():
        show.terminal().print(f"source {name} is off: {entry['reason']}")
