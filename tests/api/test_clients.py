"""`/clients`."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest

from fastpubsub.config import Settings
from tests.api.conftest import Tokens
from tests.attacks import KEY
from tests.conftest import MakeSettings
from tests.together import together

pytestmark = pytest.mark.shared_application

BODY = {"name": "My Application", "scopes": "topics:create topics:read subscriptions:consume", "is_active": True}
UNKNOWN = "550e8400-e29b-41d4-a716-446655440000"


@pytest.fixture
def settings(make_settings: MakeSettings) -> Settings:
    return make_settings(auth_enabled=True, auth_secret_key=KEY)


@pytest.fixture
def admin(token: Tokens) -> dict[str, str]:
    return token("*")


async def create(client: httpx.AsyncClient, headers: dict[str, str], **values: Any) -> dict[str, str]:
    response = await client.post("/clients", json=BODY | values, headers=headers)
    assert response.status_code == 201, response.text
    made: dict[str, str] = response.json()
    return made


async def get(client: httpx.AsyncClient, headers: dict[str, str], client_id: str) -> dict[str, Any]:
    response = await client.get(f"/clients/{client_id}", headers=headers)
    assert response.status_code == 200, response.text
    shown: dict[str, Any] = response.json()
    return shown


async def headers_of(client: httpx.AsyncClient, made: dict[str, str]) -> dict[str, str]:
    body = {"client_id": made["id"], "client_secret": made["secret"]}
    response = await client.post("/oauth/token", json=body)
    return {"Authorization": f"Bearer {response.json()['access_token']}"}


async def test_create_and_get(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    made = await create(client, admin)
    assert set(made) == {"id", "secret"}
    shown = await get(client, admin, made["id"])
    assert {name: shown.pop(name) for name in BODY} == BODY
    assert (shown.pop("id"), shown.pop("token_version")) == (made["id"], 1)
    assert shown["created_at"] == shown["updated_at"]
    assert shown["created_at"].endswith("Z")
    assert set(shown) == {"created_at", "updated_at"}
    assert str(UUID(made["id"])) == made["id"]


async def test_a_client_is_active_unless_told_otherwise(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    response = await client.post("/clients", json={"name": "n", "scopes": "*"}, headers=admin)
    assert (await get(client, admin, response.json()["id"]))["is_active"] is True
    made = await create(client, admin, is_active=False)
    assert (await get(client, admin, made["id"]))["is_active"] is False


async def test_scopes_are_kept_in_order_and_once(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    scopes = f"  topics:read topics:create:a  topics:read clients:read:{UNKNOWN.upper()} "
    made = await create(client, admin, scopes=scopes)
    expected = f"topics:read topics:create:a clients:read:{UNKNOWN}"
    assert (await get(client, admin, made["id"]))["scopes"] == expected


async def test_list(client: httpx.AsyncClient, token: Tokens) -> None:
    admin = token("*")
    ids = sorted([str(token.client_id), *[(await create(client, admin))["id"] for _ in range(11)]])

    async def listed(headers: dict[str, str], **params: int) -> list[str]:
        response = await client.get("/clients", params=params, headers=headers)
        assert set(response.json()) == {"data"}
        return [one["id"] for one in response.json()["data"]]

    assert await listed(admin) == ids[:10]
    assert await listed(admin, offset=10) == ids[10:]
    assert await listed(admin, offset=3, limit=2) == ids[3:5]
    assert await listed(admin, offset=2**31 - 1, limit=100) == []
    assert await listed(token(f"clients:read:{ids[4]} clients:read:{UNKNOWN}")) == [ids[4]]
    shown = (await client.get("/clients", params={"limit": 1}, headers=admin)).json()["data"]
    assert shown == [await get(client, admin, ids[0])]


async def test_a_list_that_cannot_be(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    for query in ("offset=-1", f"offset={2**31}", "limit=0", "limit=101", "limit=x", f"limit={10**30}"):
        assert (await client.get(f"/clients?{query}", headers=admin)).status_code == 422


async def test_update(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    made = await create(client, admin)
    before = await get(client, admin, made["id"])
    body = {"name": "Updated Application Name", "scopes": "topics:read subscriptions:read", "is_active": False}
    response = await client.put(f"/clients/{made['id']}", json=body, headers=admin)
    assert response.status_code == 200
    shown = response.json()
    assert shown == before | body | {"token_version": 2, "updated_at": shown["updated_at"]}
    assert datetime.fromisoformat(shown["updated_at"]) > datetime.fromisoformat(before["updated_at"])
    assert shown == await get(client, admin, made["id"])


async def test_an_update_does_not_enable_what_is_disabled(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    made = await create(client, admin, is_active=False)
    for body in ({"name": "n", "scopes": "*"}, {"name": "n", "scopes": "*", "is_active": None}):
        assert (await client.put(f"/clients/{made['id']}", json=body, headers=admin)).json()["is_active"] is False


@pytest.mark.parametrize("missing", ["name", "scopes"])
async def test_name_and_scopes_are_required(client: httpx.AsyncClient, admin: dict[str, str], missing: str) -> None:
    made = await create(client, admin)
    body = {name: value for name, value in BODY.items() if name != missing}
    assert (await client.post("/clients", json=body, headers=admin)).status_code == 422
    assert (await client.put(f"/clients/{made['id']}", json=body, headers=admin)).status_code == 422
    assert (await get(client, admin, made["id"]))["token_version"] == 1


BAD: list[dict[str, Any]] = [
    {"name": ""},
    {"name": "x" * 256},
    {"name": "a\x00b"},
    {"name": "a\nb"},
    {"name": "a\x7fb"},
    {"name": None},
    {"name": 1},
    {"scopes": ""},
    {"scopes": "  "},
    {"scopes": None},
    {"scopes": ["*"]},
    {"scopes": "topics"},
    {"scopes": "topics:"},
    {"scopes": "topics:reed"},
    {"scopes": "topics:read:"},
    {"scopes": "topics:read:a:b"},
    {"scopes": "topics:read:é"},
    {"scopes": "topics:read:.."},
    {"scopes": "topics:read:*"},
    {"scopes": "topics:*"},
    {"scopes": "*:a"},
    {"scopes": "TOPICS:READ"},
    {"scopes": "topics:read\ttopics:create"},
    {"scopes": "topics:read\n"},
    {"scopes": "topics:read:" + "a" * 129},
    {"scopes": "clients:read:name"},
    {"scopes": f"clients:create:{UNKNOWN}"},
    {"scopes": " ".join(f"topics:read:{number:0100}" for number in range(50))},
    {"is_active": "true"},
    {"is_active": 1},
    {"isActive": False},
]


async def test_what_a_client_cannot_be(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    made = await create(client, admin)
    for values in BAD:
        body = BODY | values
        created = await client.post("/clients", json=body, headers=admin)
        changed = await client.put(f"/clients/{made['id']}", json=body, headers=admin)
        assert (created.status_code, len(created.content) < 2048) == (422, True), values
        assert changed.status_code == 422, values


async def test_an_unknown_scope_is_named_with_those_there_are(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    response = await client.post("/clients", json=BODY | {"scopes": "topics:read topics:reed"}, headers=admin)
    assert "'topics:reed'" in response.json()["detail"]
    assert "topics:consume" in response.json()["detail"]


async def test_delete(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    made = await create(client, admin)
    response = await client.delete(f"/clients/{made['id']}", headers=admin)
    assert (response.status_code, response.content) == (204, b"")
    assert (await client.delete(f"/clients/{made['id']}", headers=admin)).status_code == 404


async def test_an_unknown_client(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    for method, body in (("GET", None), ("PUT", BODY), ("DELETE", None)):
        response = await client.request(method, f"/clients/{uuid4()}", json=body, headers=admin)
        assert response.status_code == 404
        assert response.json()["detail"].endswith("does not exist")
        assert (await client.request(method, "/clients/x", json=body, headers=admin)).status_code == 422


# revocation


async def test_an_update_ends_tokens_at_once(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    made = await create(client, admin)
    old = await headers_of(client, made)
    assert (await client.get("/topics", headers=old)).status_code == 200
    await client.put(f"/clients/{made['id']}", json=BODY, headers=admin)
    refused = await client.get("/topics", headers=old)
    assert refused.status_code == 401
    assert 'error="invalid_token"' in refused.headers["www-authenticate"]
    assert (await client.get("/topics", headers=await headers_of(client, made))).status_code == 200


async def test_deleting_ends_tokens_at_once(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    made = await create(client, admin)
    old = await headers_of(client, made)
    assert (await client.get("/topics", headers=old)).status_code == 200
    await client.delete(f"/clients/{made['id']}", headers=admin)
    assert (await client.get("/topics", headers=old)).status_code == 401


# another secret


async def may_enter(client: httpx.AsyncClient, client_id: str, secret: str) -> bool:
    response = await client.post("/oauth/token", json={"client_id": client_id, "client_secret": secret})
    assert response.status_code in (201, 401)
    return response.status_code == 201


async def test_changing_a_secret_refuses_nobody(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    made = await create(client, admin)
    path = f"/clients/{made['id']}/secrets"
    token = await headers_of(client, made)
    rotated = await client.post(path, json={"old_secret_seconds": 60}, headers=admin)
    assert rotated.status_code == 201
    assert rotated.json().keys() == {"id", "secret", "old_secret_expires_at"}
    secret = rotated.json()["secret"]
    assert secret != made["secret"]
    assert (await client.get("/topics", headers=token)).status_code == 200
    for good in (secret, made["secret"]):
        assert await may_enter(client, made["id"], good)
    assert not await may_enter(client, made["id"], "wrong")
    assert (await client.post(path, json={}, headers=admin)).status_code == 409
    assert (await client.delete(f"{path}/old", headers=admin)).status_code == 204
    assert await may_enter(client, made["id"], secret)
    assert not await may_enter(client, made["id"], made["secret"])
    assert (await client.get("/topics", headers=token)).status_code == 401
    assert (await client.delete(f"{path}/old", headers=admin)).status_code == 409


async def test_a_secret_that_was_lost_on_its_way_is_taken_back(
    client: httpx.AsyncClient, admin: dict[str, str]
) -> None:
    made = await create(client, admin)
    path = f"/clients/{made['id']}/secrets"
    lost = (await client.post(path, json={}, headers=admin)).json()
    remaining = datetime.fromisoformat(lost["old_secret_expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=23) < remaining <= timedelta(days=1)
    assert (await client.delete(f"{path}/new", headers=admin)).status_code == 204
    assert await may_enter(client, made["id"], made["secret"])
    assert not await may_enter(client, made["id"], lost["secret"])


async def test_a_stolen_secret_ends_at_once(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    made = await create(client, admin)
    token = await headers_of(client, made)
    body = {"old_secret_seconds": 0}
    rotated = (await client.post(f"/clients/{made['id']}/secrets", json=body, headers=admin)).json()
    assert rotated["old_secret_expires_at"] is None
    assert (await client.get("/topics", headers=token)).status_code == 401
    assert not await may_enter(client, made["id"], made["secret"])
    assert await may_enter(client, made["id"], rotated["secret"])


async def test_only_who_covers_a_client_changes_its_secret(client: httpx.AsyncClient, token: Tokens) -> None:
    target = await create(client, token("*"), scopes="topics:read topics:create")
    path = f"/clients/{target['id']}/secrets"
    mine = token("topics:read clients:update")
    assert (await client.post(path, json={}, headers=mine)).status_code == 403
    assert (await client.delete(f"{path}/new", headers=mine)).status_code == 403
    assert await may_enter(client, target["id"], target["secret"])


async def test_a_secret_that_cannot_be_made(client: httpx.AsyncClient, admin: dict[str, str]) -> None:
    path = f"/clients/{UNKNOWN}/secrets"
    for seconds in (-1, 2592001, "x", True, None):
        refused = await client.post(path, json={"old_secret_seconds": seconds}, headers=admin)
        assert refused.status_code == 422, seconds
    assert (await client.post(path, json={}, headers=admin)).status_code == 404
    assert (await client.delete(f"{path}/old", headers=admin)).status_code == 404
    assert (await client.delete(f"{path}/other", headers=admin)).status_code == 422


# nobody gives what they do not have


@together(
    "granted, wanted, allowed",
    [
        ("topics:read", "topics:read", True),
        ("topics:read", "topics:read:a", True),
        ("topics:read:a", "topics:read:a", True),
        ("topics:read:a", "topics:read", False),
        ("topics:read:a", "topics:read:ab", False),
        ("topics:read:ab", "topics:read:a", False),
        ("topics:read", "topics:create", False),
        ("topics:read", "topics:read topics:create", False),
        ("topics:read", "*", False),
    ],
)
async def test_granting(client: httpx.AsyncClient, token: Tokens, granted: str, wanted: str, allowed: bool) -> None:
    mine = token(f"{granted} clients:create clients:update")
    target = await create(client, token("*"), scopes=granted)
    created = await client.post("/clients", json=BODY | {"scopes": wanted}, headers=mine)
    updated = await client.put(f"/clients/{target['id']}", json=BODY | {"scopes": wanted}, headers=mine)
    assert (created.status_code, updated.status_code) == ((201, 200) if allowed else (403, 403))
    if not allowed:
        assert 'error="insufficient_scope"' in created.headers["www-authenticate"]
        assert (await get(client, token("*"), target["id"]))["scopes"] == granted


@pytest.mark.parametrize("scopes", ["*", "topics:read topics:create", "clients:update topics:delete:a"])
async def test_only_who_covers_a_client_changes_it(client: httpx.AsyncClient, token: Tokens, scopes: str) -> None:
    target = await create(client, token("*"), scopes=scopes)
    mine = token("topics:read clients:update clients:delete")
    body = {"name": "taken over", "scopes": "topics:read"}
    assert (await client.put(f"/clients/{target['id']}", json=body, headers=mine)).status_code == 403
    assert (await client.delete(f"/clients/{target['id']}", headers=mine)).status_code == 403
    assert (await get(client, token("*"), target["id"]))["token_version"] == 1
