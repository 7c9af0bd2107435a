"""Documents of AsyncAPI, judged by its official schema."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from functools import cache, partial
from html.parser import HTMLParser
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema_rs
import pytest
import yaml
from pydantic import BaseModel, Field

from fastpubsub.client import Message, Router, Topic, Worker
from fastpubsub.client.asyncapi import asyncapi
from fastpubsub.client.asyncapi_page import page
from fastpubsub.integrations.fastapi import Bus
from tests import warm
from tests.client.test_docs import save
from tests.pages import DOCS, Shell, walk

SCHEMA = Path(__file__).with_name("asyncapi_schema") / "3.0.0.json"


class Country(Enum):
    BR = "BR"
    US = "US"


class Order(BaseModel):
    number: int
    country: Country = Country.BR


class Refund(BaseModel):
    number: int
    of: Order


@dataclass
class Visit:
    page: str


class Card(BaseModel):
    kind: Literal["card"]


class Cash(BaseModel):
    kind: Literal["cash"]


class Everything(BaseModel):
    at: datetime
    on: date
    amount: Decimal
    place: tuple[float, float]
    places: tuple[float, ...]
    paid: Annotated[Card | Cash, Field(discriminator="kind")]
    notes: dict[str, list[int | None]]
    parts: "list[Everything]" = []


@cache
def validator() -> jsonschema_rs.Draft7Validator:
    return jsonschema_rs.Draft7Validator(json.loads(SCHEMA.read_text()))


def described(router: Router, **about: Any) -> dict[str, Any]:
    document = asyncapi(router, **about)
    errors = [(error.instance_path, error.message[:300]) for error in validator().iter_errors(document)]
    assert not errors
    for reference in references(document):
        assert resolved(document, reference), reference
    return json.loads(json.dumps(document))  # type: ignore[no-any-return]


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [one for inner in value.values() for one in references(inner)]
    return [one for inner in value for one in references(inner)] if isinstance(value, list) else []


def resolved(document: Any, reference: str) -> Any:
    for part in reference.removeprefix("#/").split("/"):
        document = document[part.replace("~1", "/").replace("~0", "~")]
    return document


def payload(document: dict[str, Any], channel: str, message: str) -> Any:
    schema = document["channels"][channel]["messages"][message]["payload"]["schema"]
    return resolved(document, schema["$ref"]) if "$ref" in schema else schema


def test_the_schema_refuses_what_is_no_document() -> None:
    assert not validator().is_valid({"asyncapi": "3.0.0"})
    wrong = asyncapi(Worker(), title="t")
    assert validator().is_valid(wrong)
    assert not validator().is_valid(wrong | {"operations": {"o": {"action": "receives"}}})


def test_a_topic_with_types_and_what_its_subscribers_take() -> None:
    mail = Topic[Order | Refund]("mail", Order | Refund)
    worker = Worker()

    @worker.subscriber("billing", topic=mail, filter={"country": ["BR"]}, start_from=datetime(2026, 1, 31, tzinfo=UTC))
    async def bill(order: Order) -> None:
        """Bills."""

    @worker.subscriber("archive", topic=mail)
    def archive(_message: Message) -> None: ...

    document = described(worker, title="Shop", version="2.1", server="https://user:secret@bus.example:8443/bus")
    assert document["info"] == {"title": "Shop", "version": "2.1"}
    assert document["servers"] == {"fastpubsub": {"host": "bus.example:8443", "protocol": "https", "pathname": "/bus"}}
    assert document["channels"].keys() == {"mail"}
    assert document["channels"]["mail"]["address"] == "mail"
    assert document["channels"]["mail"]["messages"].keys() == {"Order", "Refund"}
    assert payload(document, "mail", "Refund")["properties"]["of"] == {"$ref": "#/components/schemas/Order"}
    billing, archiving = document["operations"]["billing"], document["operations"]["archive"]
    assert billing["action"] == "receive"
    assert billing["messages"] == [{"$ref": "#/channels/mail/messages/Order"}]
    assert billing["description"] == "Bills."
    assert billing["x-fastpubsub-subscription"] == {
        "id": "billing",
        "filter": {"country": ["BR"]},
        "start_from": "2026-01-31T00:00:00Z",
    }
    assert "messages" not in archiving
    assert "description" not in archiving


def test_a_topic_without_types_has_those_of_its_subscribers() -> None:
    router = Router()

    @router.subscriber("billing", topic="orders")
    async def bill(order: Order) -> None: ...

    @router.subscriber("visits", topic="orders")
    async def count(visits: list[Visit]) -> None: ...

    @router.subscriber("log", topic="log")
    async def log(entry: dict[str, Any]) -> None: ...

    document = described(router)
    assert document["channels"]["orders"]["messages"].keys() == {"Order", "Visit"}
    assert payload(document, "orders", "Visit")["required"] == ["page"]
    assert document["channels"]["log"]["messages"] == {"message": {"name": "message", "payload": {"type": "object"}}}


def test_what_an_application_publishes() -> None:
    receipts = Topic("receipts", Visit)
    bus = Bus(topics=[Topic("orders", Order)])

    @bus.subscriber("billing", topic="orders", publish_to=receipts)
    async def bill(order: Order) -> Visit:
        return Visit(str(order.number))

    document = described(bus)
    assert {name: one["action"] for name, one in document["operations"].items()} == {
        "billing": "receive",
        "billing.receipts": "send",
        "publish.orders": "send",
    }
    assert document["operations"]["publish.orders"]["messages"] == [{"$ref": "#/channels/orders/messages/Order"}]
    assert document == described(bus.worker)


def test_a_subscription_whose_topic_nobody_names() -> None:
    worker = Worker()
    worker.subscriber("billing")(partial(bill_twice, 2))
    document = described(worker)
    assert document["channels"]["billing"]["address"] is None
    assert document["channels"]["billing"]["messages"].keys() == {"Order"}
    assert "description" not in document["operations"]["billing"]
    assert document["operations"]["billing"]["x-fastpubsub-subscription"] == {"id": "billing"}


def bill_twice(_times: int, order: Order) -> None: ...


def test_types_of_all_kinds() -> None:
    worker = Worker(topics=[Topic("all", Everything), Topic("a/b~c", Visit), Topic("counts", dict[str, int])])
    document = described(worker)
    properties = payload(document, "all", "Everything")["properties"]
    assert properties["place"]["items"] == [{"type": "number"}, {"type": "number"}]
    assert properties["paid"].keys() == {"oneOf", "title"} or properties["paid"].keys() == {"oneOf"}
    assert properties["parts"]["items"] == {"$ref": "#/components/schemas/Everything"}
    assert document["channels"]["counts"]["messages"].keys() == {"dict_str_int"}


def test_two_types_of_one_name() -> None:
    class Order(BaseModel):
        other: str

    topics = [Topic("new", Order), Topic("old", globals()["Order"])]
    document = described(Worker(topics=topics))
    assert payload(document, "new", "Order")["properties"].keys() == {"other"}
    assert payload(document, "old", "Order")["properties"].keys() == {"number", "country"}


class Odd(BaseModel):
    answer: Callable[[], int]


class Reading(HTMLParser):
    """The texts of a page, where its links lead, and its elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: set[str] = set()
        self.ids: list[str] = []
        self.links: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.links |= {value for name, value in attrs if name == "href" and value}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_for_people() -> None:
    worker = Worker(topics=[Topic("orders/new", Order), Topic("everything", Everything)])

    @worker.subscriber(
        "billing", topic=Topic("refunds", Refund), filter={"of": ["<b>"]}, publish_to=Topic("visits", Visit)
    )
    def bill(refund: Refund) -> None:
        """Bills <script>and</script> more."""

    @worker.subscriber("other")
    def other(payload: dict[str, int]) -> None: ...

    document = described(worker, title="<Shop>", server="https://bus.example/a")
    reading = Reading(page(document))
    assert not reading.elements & {"script", "link", "img", "b"}
    assert reading.links <= {f"#{id_}" for id_ in reading.ids}
    assert (
        len(set(reading.ids)) == len(reading.ids) == len(document["channels"]) + len(document["components"]["schemas"])
    )
    for shown in (
        "<Shop> 1.0.0",
        "https://bus.example/a",
        "Topic orders/new",
        "The topic of subscription other",
        "Received by subscription billing",
        "Bills <script>and</script> more.",
        'filter{"of": ["<b>"]}',
        "Published by billing",
        "numberintegeryes",
        '"BR" or "US"',
        "array of (Everything)",
        "object of (array of (integer or null))",
        "array of (number, number)",
        "Card or Cash",
        'stringyesformat: "date-time"',
    ):
        assert shown in reading.text, shown


def test_what_has_no_schema() -> None:
    with pytest.raises(TypeError, match="topic odd: Odd has no JSON Schema"):
        asyncapi(Worker(topics=[Topic("odd", Odd)]))


def test_a_server_that_is_none() -> None:
    with pytest.raises(ValueError, match="not the URL of a server"):
        asyncapi(Worker(), server="bus")


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path, {})


def test_the_page_and_the_command(shell: Shell) -> None:
    save(shell, "asyncapi.md")
    walk(DOCS / "asyncapi.md", shell)
    text = shell.run("fastpubsub asyncapi shop:worker --yaml --server http://localhost:8000 --app-version 3")
    document = yaml.safe_load(text)
    assert validator().is_valid(document)
    assert "Topic invoices" in Reading((shell.folder / "messages.html").read_text()).text
    assert (document["info"], document["servers"]["fastpubsub"]["host"]) == (
        {"title": "shop", "version": "3"},
        "localhost:8000",
    )


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["shop"], "write MODULE:ROUTER, for example: fastpubsub asyncapi app:bus"),
        (["nothing:worker"], "there is no module nothing"),
        (["shop:orders"], "orders is not a Router; shop has: worker"),
        (["shop:worker", "--server", "here"], "here is not the URL of a server"),
        (["shop:worker", "--yaml", "--html"], "--yaml and --html exclude each other"),
    ],
)
def test_what_the_command_refuses(shell: Shell, arguments: list[str], why: str) -> None:
    save(shell, "asyncapi.md")
    done = warm.run(["asyncapi", *arguments], cwd=shell.folder, env=shell.environment)
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr
    assert "Traceback" not in done.stderr
