"""The official suite of JSON Schema, draft 2020-12: what it expects, but for what is refused on purpose."""

import re
from functools import partial
from pathlib import Path

import msgspec

from fastpubsub.exceptions import InvalidRequest
from fastpubsub.payload_schemas import PayloadSchema
from tests.pages import DOCS

SUITE = Path(__file__).parent / "json_schema_suite"
REFUSED = [line.split("\t") for line in (SUITE / "refused.tsv").read_text().splitlines()]
TABLE = (DOCS / "http.md").read_text().partition("| what is refused on purpose |")[2].partition("\n\n")[0]
REASONS = re.findall(r"^\|[^|]+\| (.+) \|$", TABLE, re.MULTILINE)
ONLY_AN_ANNOTATION = "is only an annotation by default"
"""As the suite has it of `format`, which the draft lets everybody check."""


class Expected(msgspec.Struct):
    description: str
    data: msgspec.Raw
    valid: bool


class Group(msgspec.Struct):
    """Numbers stay what they are."""

    file: str
    description: str
    schema: msgspec.Raw
    tests: list[Expected]


GROUPS = list(map(partial(msgspec.json.decode, type=Group), (SUITE / "draft2020-12.jsonl").read_bytes().splitlines()))


def fits(schema: PayloadSchema, test: Expected) -> bool:
    try:
        schema.check([bytes(test.data)])
    except InvalidRequest:
        return False
    return True


def test_the_suite() -> None:
    refused: list[list[str]] = []
    ran = 0
    for group in GROUPS:
        try:
            schema = PayloadSchema(bytes(group.schema))
        except InvalidRequest as error:
            refused.append([group.file, group.description, error.detail.removeprefix("the schema is not valid: ")])
            continue
        got = [(test.description, fits(schema, test)) for test in group.tests]
        expected = [
            (test.description, test.valid and ONLY_AN_ANNOTATION not in test.description) for test in group.tests
        ]
        assert got == expected, (group.file, group.description)
        ran += len(got)
    assert refused == REFUSED
    assert (len(GROUPS), ran) == (461, 2094)


def test_what_is_refused_on_purpose_is_documented() -> None:
    assert {reason for *_, reason in REFUSED} == set(REASONS)
