"""`fastpubsub schedules`."""

from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from functools import partial, wraps
from typing import Annotated, Any

import typer

from fastpubsub.cli.arguments import (
    ExistOk,
    Limit,
    TopicId,
    Yes,
    attributes_of,
    body_of,
    json_text,
    object_id,
    object_ids,
    text,
)
from fastpubsub.cli.commands import with_options
from fastpubsub.cli.groups import delete_each, group, list_by_token, show
from fastpubsub.cli.output import AsJson, Output

COLUMNS = (
    "id",
    "cron",
    "time_zone",
    "interval_seconds",
    "next_at",
    "last_fired_at",
    "fired",
    "missed",
    "problem",
    "payload",
)

app = group("Create, list, show, change, pause, fire and delete schedules: messages that are published repeatedly.")


class CatchUp(StrEnum):
    once = "once"
    all = "all"
    none = "none"


ScheduleId = Annotated[
    str, typer.Argument(metavar="SCHEDULE", callback=object_id, help="The id of the schedule; its topic has it once.")
]
ScheduleIds = Annotated[
    list[str], typer.Argument(metavar="SCHEDULE", callback=object_ids, help="The ids of the schedules.")
]
Settings = dict[str, Any]
OPTIONS: dict[str, Any] = {
    "cron": Annotated[
        str | None,
        typer.Option(
            metavar="EXPRESSION",
            help="Minute, hour, day of the month, month and day of the week, such as '0 9 * * MON-FRI'.",
            callback=text,
            show_default=False,
        ),
    ],
    "time_zone": Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The time zone of --cron, such as Europe/Berlin; new: UTC.",
            callback=text,
            show_default=False,
        ),
    ],
    "interval_seconds": Annotated[
        int | None, typer.Option(help="How many seconds are between two times; instead of --cron.", show_default=False)
    ],
    "payload": Annotated[
        str | None,
        typer.Option(metavar="JSON", help="The payload of each message; new: {}.", show_default=False),
    ],
    "attributes": Annotated[
        list[str] | None,
        typer.Option("--attribute", "-a", metavar="NAME=VALUE", help="An attribute of each message; can be repeated."),
    ],
    "ordering_key": Annotated[
        str | None, typer.Option(help="The ordering key of each message.", callback=text, show_default=False)
    ],
    "catch_up": Annotated[
        CatchUp | None,
        typer.Option(
            help="How many messages to publish for times at which no server ran; new: once.", show_default=False
        ),
    ],
}


def taking_settings(command: Callable[..., None]) -> Callable[..., None]:
    """A command that has these options, and gets those that are given as `settings`."""

    @wraps(command)
    def run(**given: Any) -> None:
        chosen = {name: given.pop(name) for name in OPTIONS}
        settings: Settings = {name: value for name, value in chosen.items() if value not in (None, [])}
        if "payload" in settings:
            settings["payload"] = json_text(settings["payload"], "--payload")
        if "attributes" in settings:
            settings["attributes"] = attributes_of(settings["attributes"])
        command(settings=settings, **given)

    return with_options(command, run, OPTIONS, instead="settings")


@app.talking("list")
def list_schedules(topic: TopicId, limit: Limit = None, as_json: AsJson = None) -> None:
    """List the schedules of a topic, ordered by id."""
    from fastpubsub.client import requests

    list_by_token(
        Output(as_json, *COLUMNS, grows="payload"), lambda **page: requests.list_schedules(topic, **page), limit
    )


@app.talking("show")
def show_schedule(topic: TopicId, schedule: ScheduleId, as_json: AsJson = None) -> None:
    """Show a schedule, with the next five times at which it publishes."""
    from fastpubsub.client import requests

    show(Output(as_json), requests.get_schedule(topic, schedule))


@app.talking("create")
@taking_settings
def create_schedule(
    topic: TopicId, schedule: ScheduleId, settings: Settings, exist_ok: ExistOk = False, as_json: AsJson = None
) -> None:
    """Create a schedule and show it: it publishes a message at the times of --cron, or every --interval-seconds."""
    from fastpubsub.client import requests

    request = requests.create_schedule(topic, schedule, exist_ok=exist_ok)
    show(Output(as_json), replace(request, content=body_of({"id": schedule, **settings})))


@app.talking("update")
@taking_settings
def update_schedule(topic: TopicId, schedule: ScheduleId, settings: Settings, as_json: AsJson = None) -> None:
    """Change the given settings and show the schedule. With other times it begins anew, from now on."""
    from fastpubsub.client import requests

    if not settings:
        raise typer.BadParameter("say what to change: --cron, --payload, …")
    show(Output(as_json), replace(requests.update_schedule(topic, schedule), content=body_of(settings)))


@app.talking("pause")
def pause_schedule(topic: TopicId, schedule: ScheduleId, as_json: AsJson = None) -> None:
    """Let a schedule publish nothing until it is resumed."""
    from fastpubsub.client import requests

    show(Output(as_json), requests.pause_schedule(topic, schedule))


@app.talking("resume")
def resume_schedule(topic: TopicId, schedule: ScheduleId, as_json: AsJson = None) -> None:
    """End a pause: the schedule goes on with its next time from now."""
    from fastpubsub.client import requests

    show(Output(as_json), requests.resume_schedule(topic, schedule))


@app.talking("fire")
def fire_schedule(topic: TopicId, schedule: ScheduleId, as_json: AsJson = None) -> None:
    """Publish the message of a schedule now, besides its times."""
    from fastpubsub.client import requests

    show(Output(as_json), requests.fire_schedule(topic, schedule))


@app.talking("delete")
def delete_schedules(topic: TopicId, schedules: ScheduleIds, yes: Yes = False) -> None:
    """Delete schedules of a topic. The messages that they have published stay."""
    from fastpubsub.client import requests

    delete_each("schedule", schedules, f" of {topic}", partial(requests.delete_schedule, topic), yes)
