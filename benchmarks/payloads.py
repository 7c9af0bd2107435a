"""The messages: small JSON objects of an exact size, the same from Python and from SQL, and cheap for every parser."""

KINDS = 100
"""Different values of the field `kind`; a filter for one of them matches 1 of 100 messages."""

FIRST = 100_000_000
"""Of `n`, so that every number has nine digits."""

SMALL = 200
LARGE = 1024

_EMPTY = '{"n":100000000,"kind":"k00","text":""}'


def payload(number: int, size: int = SMALL) -> str:
    return f'{{"n":{FIRST + number},"kind":"k{number % KINDS:02d}","text":"{_text(size)}"}}'


def batch(count: int, size: int = SMALL) -> bytes:
    return f"[{','.join(payload(number, size) for number in range(count))}]".encode()


def payload_sql(number: str, size: int) -> str:
    """The same as an expression; `number` is one of type integer."""
    return (
        f"""format('{{"n":%s,"kind":"k%s","text":"{_text(size)}"}}', {FIRST} + {number}, """
        f"lpad(({number} % {KINDS})::text, 2, '0'))::json"
    )


def _text(size: int) -> str:
    return "x" * (size - len(_EMPTY))
