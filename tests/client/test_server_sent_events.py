"""The parser of Server-Sent Events, tried with the cases of the web platform's own tests of parsing."""

import pytest

from fastpubsub.client.server_sent_events import Event, EventParser

# The name is that of the web platform's test; what it sends, and the (kind, last id, data) that it wants to see.
CASES: dict[str, tuple[str, list[tuple[str, str, str]]]] = {
    "format-bom": ("\ufeffdata:1\n\n\ufeffdata:2\n\ndata:3\n\n", [("message", "", "1"), ("message", "", "3")]),
    "format-bom-2": ("\ufeff\ufeffdata:1\n\ndata:2\n\ndata:3\n\n", [("message", "", "2"), ("message", "", "3")]),
    "format-comments": (
        f"data:1\r:\0\n:\r\ndata:2\n:{'x' * 2048}\rdata:3\n:data:fail\r:{'x' * 2048}\ndata:4\n\n",
        [("message", "", "1\n2\n3\n4")],
    ),
    "format-data-before-final-empty-line": (
        "retry:1000\ndata:test1\n\nid:test\ndata:test2",
        [("message", "", "test1")],
    ),
    "format-field-data": (
        "data:\n\ndata\ndata\n\ndata:test\n\n",
        [("message", "", ""), ("message", "", "\n"), ("message", "", "test")],
    ),
    "format-field-event": ("event:test\ndata:x\n\ndata:x\n\n", [("test", "", "x"), ("message", "", "x")]),
    "format-field-event-empty": ("event: \ndata:data\n\n", [("message", "", "data")]),
    "format-field-id": ("id: …\ndata:hello\n\n", [("message", "…", "hello")]),
    "format-field-id-3, kept": (
        "id: 1\ndata: 1\n\ndata: 2\n\nid: 2\ndata:3\n\ndata:4\n\n",
        [("message", "1", "1"), ("message", "1", "2"), ("message", "2", "3"), ("message", "2", "4")],
    ),
    "format-field-id-3, reset": (
        "id: 1\ndata: 1\n\nid: \ndata: 2\n\ndata:3\n\n",
        [("message", "1", "1"), ("message", "", "2"), ("message", "", "3")],
    ),
    "format-field-id-3, reset without colon": (
        "id: 1\ndata: 1\n\nid\ndata: 2\n\ndata:3\n\n",
        [("message", "1", "1"), ("message", "", "2"), ("message", "", "3")],
    ),
    **{
        f"format-field-id-null, {value!r}": (f"id: {value}\ndata:hello\n\n", [("message", "", "hello")])
        for value in ("\0\0", "x\0", "\0x", "x\0x", " \0")
    },
    "format-field-parsing": (
        "data:\0\ndata:  2\rData:1\ndata\0:2\ndata:1\r\0data:4\nda-ta:3\rdata_5\ndata:3\rdata:\r\n data:32\ndata:4\n\n",
        [("message", "", "\0\n 2\n1\n3\n\n4")],
    ),
    "format-field-retry": ("retry:3000\ndata:x\n\n", [("message", "", "x")]),
    "format-field-retry-bogus": ("retry:3000\nretry:1000x\ndata:x\n\n", [("message", "", "x")]),
    "format-field-retry-empty": ("retry\ndata:test\n\n", [("message", "", "test")]),
    "format-field-unknown": (
        "data:test\n data\ndata\nfoobar:xxx\njustsometext\n:thisisacommentyay\ndata:test\n\n",
        [("message", "", "test\n\ntest")],
    ),
    "format-leading-space": ("data:\ttest\rdata: \ndata:test\n\n", [("message", "", "\ttest\n\ntest")]),
    "format-newlines": ("data:test\r\ndata\ndata:test\r\n\r", [("message", "", "test\n\ntest")]),
    "format-null-character": ("data:\0\n\n\n\n", [("message", "", "\0")]),
    "format-utf-8": ("data:ok…\n\n", [("message", "", "ok…")]),
    "event-data": (
        "data:msg\ndata: msg\n\n:\nfalsefield:msg\n\nfalsefield:msg\nMessage:data\n\ndata\n\ndata:end\n\n",
        [("message", "", "msg\nmsg"), ("message", "", ""), ("message", "", "end")],
    ),
    "ours: characters that end lines elsewhere": (
        'id: 7\ndata: {"a":"\u2028\u2029\x85\x0b\x0c\x1c"}\n\n',
        [("message", "7", '{"a":"\u2028\u2029\x85\x0b\x0c\x1c"}')],
    ),
}


def parse(stream: bytes, size: int) -> list[Event]:
    parser = EventParser()
    return [event for start in range(0, len(stream), size) for event in parser.feed(stream[start : start + size])]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [1, 2, 3, 7, 1 << 16])
def test_as_browsers_do(name: str, size: int) -> None:
    text, wanted = CASES[name]
    events = parse(text.encode(), size)
    assert [(event.kind, event.id, event.data.decode()) for event in events if event.kind] == wanted


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
@pytest.mark.parametrize("size", [1, 2, 1 << 16])
def test_events_without_data_say_where_the_stream_is(end: str, size: int) -> None:
    text = "retry: 1\n\n:\n\nid: 1\n\nevent: gap\n\ndata: x\n\nid: 2\n\nid: 3\n".replace("\n", end)
    assert parse(text.encode(), size) == [
        Event("", "", b""),
        Event("", "", b""),
        Event("", "1", b""),
        Event("", "1", b""),
        Event("message", "1", b"x"),
        Event("", "2", b""),
    ]


def test_an_event_is_there_with_the_first_byte_that_ends_it() -> None:
    parser = EventParser()
    assert not list(parser.feed(b"data: x\r"))
    assert list(parser.feed(b"\r")) == [Event("message", "", b"x")]
    assert not list(parser.feed(b""))
    assert not list(parser.feed(b"\n"))
    assert list(parser.feed(b"\n")) == [Event("", "", b"")]
