"""Signing and checking tokens, issuing them, and what is remembered of them."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest

from fastpubsub.config import Settings
from fastpubsub.database.calls import Database
from fastpubsub.database.connections import Row
from fastpubsub.exceptions import InvalidRequest, Overloaded, PermissionDenied, Unauthenticated, Unavailable
from fastpubsub.models import ChangedClient, ClientCredentials, NewClient, TokenRequest
from fastpubsub.scopes import ADMINISTRATOR
from fastpubsub.services import clients, hashing
from fastpubsub.services.authenticator import STATE_SECONDS, Authenticator
from fastpubsub.services.hashing import NO_HASH, SecretHasher
from fastpubsub.services.recent import Recent
from fastpubsub.services.tokens import MAX_TOKEN_BYTES, Signer, issue_token, make_signer
from fastpubsub.signing_keys import signing_key
from tests.attacks import ATTACKS, CLIENT_ID, KEY, now, sign
from tests.conftest import HASHING, MakeSettings
from tests.harness import free_port

HALF_AN_HOUR = timedelta(minutes=30)
SIGNER = Signer([signing_key(KEY, "HS256")], "HS256", HALF_AN_HOUR)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack(name: str) -> None:
    with pytest.raises(Unauthenticated) as raised:
        SIGNER.verify(ATTACKS[name]())
    assert raised.value.error == "invalid_token"


@pytest.mark.parametrize("header", ["jku", "jwk", "x5u"])
def test_headers_that_name_a_key_change_nothing(header: str) -> None:
    value: Any = {"kty": "oct", "k": "eg"} if header == "jwk" else "file:///dev/null"
    assert SIGNER.verify(sign(headers={header: value})).caller.client_id == str(CLIENT_ID)
    with pytest.raises(Unauthenticated):
        SIGNER.verify(sign(headers={header: value}, key="z" * 32))


@pytest.mark.parametrize(("algorithm", "key"), [("HS256", KEY), ("HS384", "k" * 48), ("HS512", "k" * 64)])
def test_a_token_says_who_may_what(algorithm: str, key: str) -> None:
    signer = Signer([signing_key(key, algorithm)], algorithm, HALF_AN_HOUR)
    token = signer.sign(CLIENT_ID, "topics:read topics:publish:a", 7)
    grant = signer.verify(token.encode())
    assert grant.version == 7
    assert grant.caller.client_id == str(CLIENT_ID)
    assert grant.caller.scopes == {"topics:read", "topics:publish:a"}
    assert time.time() + 1790 < grant.expires_at <= time.time() + 1800
    kid = signing_key(key, algorithm).kid
    assert jwt.get_unverified_header(token) == {"alg": algorithm, "typ": "JWT", "kid": kid}


def test_tokens_of_the_same_second_differ() -> None:
    assert len({SIGNER.sign(CLIENT_ID, "*", 1) for _ in range(100)}) == 100


def test_a_token_of_a_server_whose_clock_is_ahead_is_taken() -> None:
    assert SIGNER.verify(sign(iat=now() + 30)).caller.client_id == str(CLIENT_ID)


def test_a_token_with_the_longest_scopes_is_accepted() -> None:
    assert len(SIGNER.sign(CLIENT_ID, "x" * 4096, 2**63 - 1)) < MAX_TOKEN_BYTES


@pytest.mark.parametrize(
    ("key", "algorithm", "signs"),
    [
        (None, "HS256", False),
        ("k" * 31, "HS256", False),
        (KEY, "HS256", True),
        (KEY, "HS512", False),
        ("k" * 64, "HS512", True),
    ],
)
def test_without_a_long_key_nothing_is_signed(key: str | None, algorithm: str, signs: bool) -> None:
    settings = Settings(_env_file=None, auth_secret_key=key, auth_algorithm=algorithm)
    assert (make_signer(settings) is not None) == signs


def test_what_was_used_last_is_kept() -> None:
    recent: Recent[int, int] = Recent(2)
    recent.put(1, 1)
    recent.put(2, 2)
    recent.get(1)
    recent.put(3, 3)
    assert [recent.get(key) for key in (1, 2, 3)] == [1, None, 3]


# hashing


@pytest.fixture(autouse=True)
def _cost(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """That of production, which other tests do without."""
    monkeypatch.setattr(hashing, "TIME_COST", pytestconfig.stash[HASHING][0])
    monkeypatch.setattr(hashing, "MEMORY_COST", pytestconfig.stash[HASHING][1])


async def test_hashes() -> None:
    hasher = SecretHasher()
    secret_hash = await hasher.hash("secret")
    assert secret_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert await hasher.verify(secret_hash, "secret")
    assert not await hasher.verify(secret_hash, "Secret")
    assert not await hasher.verify("not a hash", "secret")
    assert not await hasher.verify(NO_HASH, "secret")
    assert NO_HASH.rsplit("$", 2)[0] == secret_hash.rsplit("$", 2)[0], "both must cost the same"
    hasher.close()


async def test_too_many_hashes_at_once_are_refused() -> None:
    hasher = SecretHasher(places=2)
    with hasher.place(), hasher.place(), pytest.raises(Overloaded), hasher.place():
        pass
    with hasher.place():
        hasher.close()


async def test_the_event_loop_goes_on_while_hashing() -> None:
    hasher = SecretHasher()
    hashing = asyncio.gather(*(hasher.hash("secret") for _ in range(4)))
    turns = 0
    while not hashing.done():
        await asyncio.sleep(0)
        turns += 1
    assert turns > 100
    hasher.close()


# issuing and authenticating, on a database


class CountingDatabase(Database):
    """The real one; counts the calls, and can be made unreachable."""

    calls = 0

    async def fetch_all(self, procedure: str, *arguments: object) -> list[Row]:
        self.calls += 1
        return await super().fetch_all(procedure, *arguments)


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(auth_enabled=True, auth_secret_key=KEY)


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[CountingDatabase]:
    opened = CountingDatabase(settings)
    yield opened
    await opened.close()


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def authenticator(settings: Settings, database: CountingDatabase, clock: Clock) -> AsyncIterator[Authenticator]:
    made = Authenticator(settings, database, clock)
    yield made
    made.close()


async def make_client(database: Database, authenticator: Authenticator, **values: Any) -> ClientCredentials:
    body = NewClient(**({"name": "name", "scopes": "topics:read"} | values))
    return await clients.create_client(database, authenticator.hasher, body, ADMINISTRATOR)


async def get_token(database: Database, authenticator: Authenticator, made: ClientCredentials) -> bytes:
    request = TokenRequest(client_id=str(made.id), client_secret=made.secret)
    token = await issue_token(database, authenticator.hasher, authenticator.attempts, authenticator.signer, request)
    return token.access_token.encode()


async def change(database: Database, authenticator: Authenticator, client_id: UUID, **values: Any) -> None:
    body = ChangedClient(**({"name": "name", "scopes": "topics:read"} | values))
    await clients.update_client(database, authenticator, client_id, body, ADMINISTRATOR)


async def is_rejected(authenticator: Authenticator, token: bytes) -> bool:
    try:
        await authenticator.authenticate(token)
    except Unauthenticated as error:
        return error.error == "invalid_token"
    return False


async def test_a_secret_is_long_and_stored_as_a_hash(database: CountingDatabase, authenticator: Authenticator) -> None:
    made = await make_client(database, authenticator)
    assert len(made.secret) >= 4 + 24 * 4 / 3
    (secret_hash, *_) = await database.fetch_one("find_client_credentials", made.id)
    assert secret_hash.startswith("$argon2id$")


async def test_an_issued_token_authenticates(database: CountingDatabase, authenticator: Authenticator) -> None:
    made = await make_client(database, authenticator, scopes="topics:read topics:publish:a topics:read")
    request = TokenRequest(client_id=str(made.id), client_secret=made.secret)
    token = await issue_token(database, authenticator.hasher, authenticator.attempts, authenticator.signer, request)
    assert (token.token_type, token.expires_in, token.scope) == ("Bearer", 1800, "topics:read topics:publish:a")
    caller = await authenticator.authenticate(token.access_token.encode())
    assert caller.client_id == str(made.id)
    assert caller.scopes == {"topics:read", "topics:publish:a"}


async def test_what_a_token_is_remembered_by_is_no_token(
    database: CountingDatabase, authenticator: Authenticator
) -> None:
    """A digest may be written down where the token may not."""
    made = await make_client(database, authenticator, scopes=" ".join(f"topics:publish:{n:0100}" for n in range(20)))
    request = TokenRequest(client_id=str(made.id), client_secret=made.secret)
    issued = await issue_token(database, authenticator.hasher, authenticator.attempts, authenticator.signer, request)
    token = issued.access_token.encode()
    assert (await authenticator.authenticate(token)).client_id == str(made.id)
    digest = sha256(token)
    assert await is_rejected(authenticator, digest.digest())
    assert await is_rejected(authenticator, digest.hexdigest().encode())


async def test_a_token_can_have_fewer_scopes(database: CountingDatabase, authenticator: Authenticator) -> None:
    made = await make_client(database, authenticator, scopes="topics:read topics:publish")

    async def scope_of(wanted: str) -> str:
        request = TokenRequest(client_id=str(made.id), client_secret=made.secret, scope=wanted)
        return (
            await issue_token(database, authenticator.hasher, authenticator.attempts, authenticator.signer, request)
        ).scope

    assert await scope_of("topics:publish:a") == "topics:publish:a"
    assert await scope_of("") == "topics:read topics:publish"
    with pytest.raises(PermissionDenied):
        await scope_of("topics:read topics:delete")
    with pytest.raises(InvalidRequest):
        await scope_of("everything")


async def test_wrong_credentials_are_refused_alike(database: CountingDatabase, authenticator: Authenticator) -> None:
    made = await make_client(database, authenticator)
    disabled = await make_client(database, authenticator, is_active=False)
    wrong = [
        (str(made.id), "wrong"),
        (str(made.id), ""),
        (str(uuid4()), made.secret),
        ("no-uuid", made.secret),
        ("\x00", made.secret),
        (str(disabled.id), disabled.secret),
    ]
    answers = set()
    for client_id, secret in wrong:
        request = TokenRequest(client_id=client_id, client_secret=secret)
        with pytest.raises(Unauthenticated) as raised:
            await issue_token(database, authenticator.hasher, authenticator.attempts, authenticator.signer, request)
        answers.add((raised.value.detail, raised.value.error))
    assert len(answers) == 1


async def test_what_is_wrong_costs_the_same(
    database: CountingDatabase, authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the client has one secret, two, or is not there: seen in hashes, which are what takes the time."""
    one, two = await make_client(database, authenticator), await make_client(database, authenticator)
    await clients.rotate_client_secret(database, authenticator, two.id, 60, ADMINISTRATOR)
    hashes: list[str] = []
    matches = SecretHasher._matches

    def counted(hasher: SecretHasher, secret_hash: str, secret: str) -> bool:
        hashes.append(secret_hash.rsplit("$", 2)[0])
        return matches(hasher, secret_hash, secret)

    monkeypatch.setattr(SecretHasher, "_matches", counted)
    for client_id in (str(one.id), str(two.id), str(uuid4()), "no-uuid"):
        hashes.clear()
        request = TokenRequest(client_id=client_id, client_secret="wrong")
        with pytest.raises(Unauthenticated):
            await issue_token(database, authenticator.hasher, authenticator.attempts, authenticator.signer, request)
        assert hashes == [NO_HASH.rsplit("$", 2)[0]] * 2


async def test_without_a_key_no_token_is_issued(database: CountingDatabase, authenticator: Authenticator) -> None:
    made = await make_client(database, authenticator)
    calls = database.calls
    request = TokenRequest(client_id=str(made.id), client_secret=made.secret)
    with pytest.raises(InvalidRequest, match="generate_secret_key"):
        await issue_token(database, authenticator.hasher, authenticator.attempts, None, request)
    assert database.calls == calls


async def test_a_known_token_costs_no_query(
    database: CountingDatabase, authenticator: Authenticator, clock: Clock
) -> None:
    token = await get_token(database, authenticator, await make_client(database, authenticator))
    before = database.calls
    await asyncio.gather(*(authenticator.authenticate(token) for _ in range(100)))
    assert database.calls == before + 1, "all wait for one query"
    clock.now += STATE_SECONDS - 0.001
    await authenticator.authenticate(token)
    assert database.calls == before + 1
    clock.now += 0.001
    await authenticator.authenticate(token)
    assert database.calls == before + 2


async def test_attacks_cause_no_query(settings: Settings) -> None:
    database = CountingDatabase(settings.model_copy(update={"database_url": nowhere()}))
    authenticator = Authenticator(settings, database)
    for name, attack in ATTACKS.items():
        assert await is_rejected(authenticator, attack()), name
        assert await is_rejected(authenticator, attack() + b"A" * MAX_TOKEN_BYTES), name
    assert database.calls == 0
    authenticator.close()
    await database.close()


def nowhere() -> Any:
    return Settings(_env_file=None, database_url=f"postgresql://u@127.0.0.1:{free_port()}/d").database_url


async def test_a_change_here_ends_tokens_at_once(database: CountingDatabase, authenticator: Authenticator) -> None:
    made = await make_client(database, authenticator)
    token = await get_token(database, authenticator, made)
    await authenticator.authenticate(token)
    await change(database, authenticator, made.id)
    assert await is_rejected(authenticator, token)
    newer = await get_token(database, authenticator, made)
    assert not await is_rejected(authenticator, newer)
    await clients.delete_client(database, authenticator, made.id, ADMINISTRATOR)
    assert await is_rejected(authenticator, newer)
    calls = database.calls
    assert await is_rejected(authenticator, newer)
    assert database.calls == calls, "that a client is gone is remembered too"


async def test_disabling_ends_tokens(database: CountingDatabase, authenticator: Authenticator) -> None:
    made = await make_client(database, authenticator)
    token = await get_token(database, authenticator, made)
    await change(database, authenticator, made.id, is_active=False)
    assert await is_rejected(authenticator, token)
    await change(database, authenticator, made.id, is_active=True)
    assert await is_rejected(authenticator, token), "an ended token stays ended"


async def test_a_change_elsewhere_is_noticed_within_five_seconds(
    settings: Settings, database: CountingDatabase, authenticator: Authenticator, clock: Clock
) -> None:
    elsewhere = Authenticator(settings, database)
    made = await make_client(database, authenticator)
    token = await get_token(database, authenticator, made)
    await authenticator.authenticate(token)
    await change(database, elsewhere, made.id)
    assert not await is_rejected(authenticator, token)
    clock.now += STATE_SECONDS
    assert await is_rejected(authenticator, token)
    elsewhere.close()


async def test_a_token_issued_after_a_change_elsewhere_is_good_at_once(
    settings: Settings, database: CountingDatabase, authenticator: Authenticator
) -> None:
    elsewhere = Authenticator(settings, database)
    made = await make_client(database, authenticator)
    await authenticator.authenticate(await get_token(database, authenticator, made))
    await change(database, elsewhere, made.id)
    assert not await is_rejected(authenticator, await get_token(database, elsewhere, made))
    elsewhere.close()


async def test_a_query_under_way_does_not_bring_back_what_was_forgotten(
    database: CountingDatabase, authenticator: Authenticator
) -> None:
    made = await make_client(database, authenticator)
    token = await get_token(database, authenticator, made)
    waiting = asyncio.create_task(authenticator.authenticate(token))
    await asyncio.sleep(0)
    authenticator.forget(made.id)
    await waiting
    before = database.calls
    await authenticator.authenticate(token)
    assert database.calls == before + 1


async def test_one_who_goes_away_does_not_end_the_query_of_others(
    database: CountingDatabase, authenticator: Authenticator
) -> None:
    token = await get_token(database, authenticator, await make_client(database, authenticator))
    first, second = (asyncio.create_task(authenticator.authenticate(token)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).scopes == {"topics:read"}
    assert first.cancelled()


async def test_a_token_expires_also_when_it_is_known(
    settings: Settings, database: CountingDatabase, authenticator: Authenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = await get_token(database, authenticator, await make_client(database, authenticator))
    await authenticator.authenticate(token)
    later = time.time() + 1800
    monkeypatch.setattr(time, "time", lambda: later)
    assert await is_rejected(authenticator, token)


async def test_without_the_database_known_tokens_are_good_for_five_seconds(
    settings: Settings, database: CountingDatabase, authenticator: Authenticator, clock: Clock
) -> None:
    token = await get_token(database, authenticator, await make_client(database, authenticator))
    unreachable = CountingDatabase(settings.model_copy(update={"database_url": nowhere()}))
    await authenticator.authenticate(token)
    authenticator._database = unreachable
    assert not await is_rejected(authenticator, token)
    clock.now += STATE_SECONDS
    for _ in range(2):
        with pytest.raises(Unavailable):
            await authenticator.authenticate(token)
    authenticator._database = database
    assert not await is_rejected(authenticator, token)
    await unreachable.close()
