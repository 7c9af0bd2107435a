"""`/oauth/token`: the spec's JSON, and the client credentials grant of RFC 6749, section 4.4; and the public keys."""

import base64
import re
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.types import Message, Receive, Scope, Send

from fastpubsub.api.errors import DOCUMENTED
from fastpubsub.api.middleware import API_POLICY, UNCACHED
from fastpubsub.api.security import FORM, ScopedRoute, media_type, public
from fastpubsub.exceptions import FastpubsubError, InvalidRequest, PermissionDenied, TooManyRequests, Unauthenticated
from fastpubsub.models import PublicKeys, Token, TokenRequest
from fastpubsub.payloads import check_json
from fastpubsub.scopes import parse
from fastpubsub.services.tokens import issue_token

MAX_BODY_BYTES = 16_384
MAX_PARAMETERS = 20
HEADERS = [UNCACHED, (b"pragma", b"no-cache"), API_POLICY]
CHALLENGE = {"WWW-Authenticate": 'Basic realm="fastpubsub"'}

CODES: dict[type[FastpubsubError], str] = {
    InvalidRequest: "invalid_request",
    PermissionDenied: "invalid_scope",
    Unauthenticated: "invalid_client",
}
NOT_DESCRIBABLE = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")

FORM_SCHEMA = {
    "type": "object",
    "required": ["grant_type"],
    "properties": {
        "grant_type": {"const": "client_credentials"},
        "client_id": {"type": "string", "description": "unless sent by HTTP Basic"},
        "client_secret": {"type": "string", "description": "unless sent by HTTP Basic"},
        "scope": {"type": "string", "description": "fewer scopes than the client has, separated by spaces"},
    },
}
REFUSED: dict[str, Any] = {
    "description": "Refused; to a form in the words of RFC 6749",
    "content": {
        **DOCUMENTED["default"]["content"],
        "application/json": {
            "schema": {
                "title": "TokenRefusal",
                "type": "object",
                "required": ["error"],
                "properties": {"error": {"type": "string"}, "error_description": {"type": "string"}},
            }
        },
    },
}
BODIES = {"application/json": {"schema": TokenRequest.model_json_schema()}, FORM: {"schema": FORM_SCHEMA}}
"""The endpoint reads the body itself, so FastAPI does not know what it takes."""


class TokenRoute(ScopedRoute):
    """No answer of it may be kept by a cache, whoever makes it."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_uncached(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        await super().handle(scope, receive, send_uncached)


class Refusal(Exception):
    """A refusal with a code of RFC 6749, section 5.2."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(description)
        self.code = code
        self.description = NOT_DESCRIBABLE.sub(" ", description)


router = APIRouter(tags=["clients"], route_class=TokenRoute)
well_known = APIRouter(prefix="/.well-known", tags=["clients"], route_class=ScopedRoute)


@well_known.get("/jwks.json", dependencies=[public()])
async def list_public_keys(request: Request, response: Response) -> PublicKeys:
    """The keys that check access tokens, for other programs; none as long as tokens are signed with a secret."""
    response.headers["Cache-Control"] = "public, max-age=300"
    response.headers["Content-Security-Policy"] = API_POLICY[1].decode()
    signer = request.app.state.authenticator.signer
    return PublicKeys(keys=signer.public_keys if signer else [])


@router.post(
    "/oauth/token",
    status_code=201,
    response_model=Token,
    responses={200: {"model": Token, "description": "To a form"}, 400: REFUSED, 401: REFUSED, 429: REFUSED},
    openapi_extra={"requestBody": {"content": BODIES, "required": True}},
    dependencies=[public(forms=True, max_body_bytes=MAX_BODY_BYTES)],
)
async def create_token(request: Request) -> Response:
    """Get an access token for a client's id and secret, as JSON or as the form of OAuth 2."""
    body = await request.body()
    if media_type(request) == FORM:
        return await _answer_form(request, body)
    token = await _issue(request, _read_json(body))
    return JSONResponse(token.model_dump(), 201)


async def _answer_form(request: Request, body: bytes) -> Response:
    try:
        token = await _issue(request, _read_grant(request, body))
    except (InvalidRequest, PermissionDenied, Unauthenticated) as error:
        return _refuse(Refusal(CODES[type(error)], error.detail))
    except TooManyRequests as error:
        # The RFC has no code for it; this one is of its section 4.1.2.1.
        refused = {"error": "temporarily_unavailable", "error_description": error.detail}
        return JSONResponse(refused, error.status, {"Retry-After": str(error.retry_after_seconds)})
    except Refusal as refusal:
        return _refuse(refusal)
    return JSONResponse(token.model_dump())


def _refuse(refusal: Refusal) -> Response:
    body = {"error": refusal.code, "error_description": refusal.description}
    return JSONResponse(body, 401, CHALLENGE) if refusal.code == "invalid_client" else JSONResponse(body, 400)


async def _issue(request: Request, wanted: TokenRequest) -> Token:
    database, authenticator = request.app.state.database, request.app.state.authenticator
    address = request.client.host if request.client else None
    return await issue_token(
        database, authenticator.hasher, authenticator.attempts, authenticator.signer, wanted, address
    )


def _read_json(body: bytes) -> TokenRequest:
    check_json(body)
    try:
        return TokenRequest.model_validate_json(body)
    except ValidationError as error:
        errors: list[Any] = error.errors(include_url=False, include_input=False)
        raise RequestValidationError([one | {"loc": ("body", *one["loc"])} for one in errors]) from None


def _read_grant(request: Request, body: bytes) -> TokenRequest:
    form = _parse_form(body)
    if "grant_type" not in form:
        raise Refusal("invalid_request", "grant_type is missing; send grant_type=client_credentials")
    if form["grant_type"] != "client_credentials":
        raise Refusal("unsupported_grant_type", "the only grant_type here is client_credentials")
    client_id, client_secret = _read_credentials(request, form)
    scope = form.get("scope")
    try:
        if scope:
            parse(scope)
    except InvalidRequest as error:
        raise Refusal("invalid_scope", error.detail) from None
    return TokenRequest(client_id=client_id, client_secret=client_secret, scope=scope)


def _parse_form(body: bytes) -> dict[str, str]:
    """Without the parameters that have no value: they count as left out."""
    try:
        pairs = parse_qsl(
            body.decode(),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError:
        raise Refusal("invalid_request", "the body is not a form in UTF-8, such as a=1&b=2") from None
    form = dict(pairs)
    if len(form) < len(pairs):
        raise Refusal("invalid_request", "a parameter is repeated; send each once")
    return {name: value for name, value in form.items() if value}


def _read_credentials(request: Request, form: dict[str, str]) -> tuple[str, str]:
    """From the body or from HTTP Basic, never from both, nor from the address, which ends up in logs."""
    if "client_secret" in request.query_params:
        raise Refusal("invalid_request", "the client_secret must not be in the address; send it in the body")
    headers = request.headers.getlist("authorization")
    if len(headers) > 1:
        raise Refusal("invalid_request", "the request has more than one Authorization header; send one")
    scheme, _, value = headers[0].partition(" ") if headers else ("", "", "")
    if scheme.lower() == "basic":
        client_id, client_secret = _read_basic(value)
        if "client_secret" in form or form.get("client_id", client_id) != client_id:
            raise Refusal("invalid_request", "the client is in the body and in HTTP Basic; send it once")
        return client_id, client_secret
    if "client_id" not in form or "client_secret" not in form:
        raise Refusal("invalid_client", "send client_id and client_secret, in the body or by HTTP Basic")
    return form["client_id"], form["client_secret"]


def _read_basic(value: str) -> tuple[str, str]:
    try:
        client_id, colon, client_secret = base64.b64decode(value.strip(), validate=True).decode().partition(":")
        if not colon:
            raise ValueError
        return unquote_plus(client_id, errors="strict"), unquote_plus(client_secret, errors="strict")
    except ValueError:
        raise Refusal("invalid_client", "HTTP Basic must be the base64 of client_id:client_secret in UTF-8") from None
