"""Automations: notify on failure, refusal, hold and missed schedule of a home's deployments.

`shortlist deploy` creates them, with one notification block for each channel in the settings:
SHORTLIST_NOTIFY_WEBHOOK, SHORTLIST_NOTIFY_SLACK, SHORTLIST_NOTIFY_EMAIL. Without a channel the
automations exist too, and Prefect shows when they fired. A home is the folder SHORTLIST_HOME.
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.notifications import (
    CustomWebhookNotificationBlock,
    SendgridEmail,
    SlackWebhook,
)
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.actions import DoNothing, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.types import SecretDict

from shortlist.config import Settings

SUBJECT = "Shortlist {home}: {{{{ flow.name }}}} is {{{{ flow_run.state.name }}}}"
BODY = """{{ flow_run.name }} ({{ deployment.name }}) is {{ flow_run.state.name }}:
{{ flow_run.state.message }}
{{ flow_run|ui_url }}
What to do: docs/prefect.md, "When a run ends badly"."""


@dataclass(frozen=True)
class Alarm:
    """An automation of a home: the Prefect events that trigger it."""

    name: str
    states: tuple[str, ...]
    description: str


ALARMS = (
    Alarm("failure", ("Failed", "Crashed", "TimedOut"), "A run failed, crashed or timed out."),
    Alarm("refusal", ("Refused",), "Validation refused a batch, or a gate refused a release."),
    Alarm("hold", ("Held",), "A guardrail asks to hold: the served lists got worse."),
    Alarm("missed-schedule", ("Late",), "A scheduled run didn't start: no worker is running."),
)


def automation_names(settings: Settings) -> list[str]:
    """Return the names of the automations of a home."""
    return [f"{alarm.name}-{settings.home_name}" for alarm in ALARMS]


def create_automations(client: SyncPrefectClient, settings: Settings, *, pool: str) -> list[str]:
    """Create or replace the automations of a home; return the names of its channels.

    Args:
        pool: work pool of the home's deployments; only their runs trigger an automation.
    """
    blocks = save_blocks(settings)
    for alarm, name in zip(ALARMS, automation_names(settings), strict=True):
        automation = automation_of(alarm, name, settings, pool=pool, blocks=blocks)
        existing = client.read_automations_by_name(name)
        if existing:
            client.update_automation(existing[0].id, automation)
        else:
            client.create_automation(automation)
    return sorted(blocks)


def automation_of(
    alarm: Alarm, name: str, settings: Settings, *, pool: str, blocks: dict[str, UUID]
) -> AutomationCore:
    """Return the automation for an alarm; it fires for each flow run that enters a state."""
    notify: list[Any] = [
        SendNotification(
            block_document_id=block, subject=SUBJECT.format(home=settings.home_name), body=BODY
        )
        for block in blocks.values()
    ]
    return AutomationCore(
        name=name,
        description=alarm.description,
        tags=["shortlist", f"home:{settings.home_name}"],
        trigger=EventTrigger(
            expect={f"prefect.flow-run.{state}" for state in alarm.states},
            match={"prefect.resource.id": "prefect.flow-run.*"},
            match_related={
                "prefect.resource.role": "work-pool",
                "prefect.resource.name": pool,
            },
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=timedelta(0),
        ),
        actions=notify or [DoNothing()],
    )


def save_blocks(settings: Settings) -> dict[str, UUID]:
    """Save a notification block for each channel in the settings; return {channel: block id}."""
    found: dict[str, UUID] = {}
    for channel, block in channels(settings).items():
        type(block).register_type_and_schema()
        name = f"shortlist-{channel}-{settings.home_name}".replace("_", "-")
        found[channel] = UUID(str(block.save(name, overwrite=True)))
    return found


def channels(settings: Settings) -> dict[str, NotificationBlock]:
    """Return the notification block of each channel in the settings."""
    found: dict[str, NotificationBlock] = {}
    if settings.notify_webhook is not None:
        found["webhook"] = CustomWebhookNotificationBlock(
            name=f"shortlist-{settings.home_name}",
            url="{{address}}",
            headers=None,
            cookies=None,
            json_data={"title": "{{subject}}", "text": "{{body}}"},
            secrets=SecretDict({"address": settings.notify_webhook.get_secret_value()}),
        )
    if settings.notify_slack is not None:
        found["slack"] = SlackWebhook(url=settings.notify_slack)
    if settings.notify_email and settings.notify_sendgrid_key is not None:
        found["email"] = SendgridEmail(
            api_key=settings.notify_sendgrid_key,
            sender_email=settings.notify_email[0],
            to_emails=list(settings.notify_email),
        )
    return found
