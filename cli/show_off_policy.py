"""Shows off-policy estimates in a terminal."""

from typing import Any

from rich import box
from rich.table import Table
from rich.text import Text

from cli import show

METHODS = ("ips", "snips", "dr")


def off_policy(content: dict[str, Any]) -> None:
    """Print what each policy's lists would have got, the challenger's lead, or why not."""
    console = show.terminal()
    younger = ""
    if content.get("open"):
        younger = f"; {content['open']:,} younger than {content['hours']:g} hours are open"
    console.print(
        f"Off-policy, test window: {content['explored']:,} of {content['lists']:,} lists have"
        f" random positions{younger}"
    )
    if "policies" in content:
        table = Table(
            title=f"Estimated {content['outcome']} items per list; ± is half a 95% interval",
            title_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        table.add_column("policy")
        for name in (*METHODS, "could be shown", "worth lists"):
            table.add_column(name, justify="right")
        table.add_row("as shown", *[show.interval(content["shown"])] * 3, "", "")
        for name, of in content["policies"].items():
            cells = [show.interval(of[method]) for method in METHODS]
            table.add_row(
                name, *cells, f"{of['support']['mean']:.0%}", f"{of['effective_lists']:,.0f}"
            )
        if "lead" in content:
            lead = content["lead"]
            cells = [show.interval(lead[method], sign="+") for method in METHODS]
            over = {"shown": "what was shown"}.get(content["against"], "the champion")
            table.add_row("lead", *cells, "", "")
            table.caption = f"lead: of the challenger over {over}"
            table.caption_justify = "left"
        console.print(table)
    if content["refused"] is not None:
        console.print(Text.assemble(("No estimate", "bold"), f": {content['refused']}"))
