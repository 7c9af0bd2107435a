"""`/oauth`: the spec's JSON, client credentials (RFC 6749, section 4.4), introspection; and what is `/.well-known`."""

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from starlette.types import Message, Receive, Scope, Send

from fastpubsub import filters
from fastpubsub.api.bodies import FORM, media_type
from fastpubsub.api.errors import DOCUMENTED
from fastpubsub.api.middleware import API_POLICY, UNCACHED
from fastpubsub.api.oauth_forms import CREDENTIALS, OAuthError, answer_form, is_basic, parse_form, read_credentials
from fastpubsub.api.security import ScopedRoute, public
from fastpubsub.exceptions import InvalidRequest, NotFound
from fastpubsub.json_text import check_json, check_object, member
from fastpubsub.models import AuthorizationServer, Introspection, PublicKeys, Token, TokenRequest
from fastpubsub.scopes import SCOPES, parse
from fastpubsub.services import subscriptions
from fastpubsub.services.introspection import introspect_token
from fastpubsub.services.tokens import issue_token

HEADERS = [UNCACHED, (b"pragma", b"no-cache"), API_POLICY]

GRANT_SCHEMA = {
    "type": "object",
    "required": ["grant_type"],
    "properties": {
        "grant_type": {"const": "client_credentials"},
        **CREDENTIALS,
        "scope": {"type": "string", "description": "fewer scopes than the client has, separated by spaces"},
        "filter": {"type": "string", "description": "the JSON of a filter, for the streams of topics"},
    },
}
INTROSPECTION_SCHEMA = {
    "type": "object",
    "required": ["token"],
    "properties": {
        "token": {"type": "string"},
        "token_type_hint": {"type": "string", "description": "ignored: there is one type"},
        **CREDENTIALS,
    },
}
REFUSED: dict[str, Any] = {
    "description": "Refused; a form gets the errors of RFC 6749",
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
REFUSALS: dict[int | str, dict[str, Any]] = {400: REFUSED, 401: REFUSED, 429: REFUSED}
BODIES = {"application/json": {"schema": TokenRequest.model_json_schema()}, FORM: {"schema": GRANT_SCHEMA}}
"""The endpoints read the body themselves, so FastAPI does not know what they take."""


class TokenRoute(ScopedRoute):
    """No cache may keep any of its answers."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_uncached(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        await super().handle(scope, receive, send_uncached)


router = APIRouter(tags=["clients"], route_class=TokenRoute)
well_known = APIRouter(prefix="/.well-known", tags=["clients"], route_class=ScopedRoute)


@well_known.get("/jwks.json", dependencies=[public()])
async def list_public_keys(request: Request, response: Response) -> PublicKeys:
    """The keys that check access tokens, for other programs; none as long as tokens are signed with a secret."""
    _may_be_kept(response)
    signer = request.app.state.authenticator.signer
    return PublicKeys(keys=signer.public_keys if signer else [])


@well_known.get("/oauth-authorization-server", dependencies=[public()])
async def get_authorization_server(request: Request, response: Response) -> AuthorizationServer:
    """Tell OAuth 2 libraries where and how to get tokens; 404 unless FASTPUBSUB_AUTH_ISSUER is set."""
    issuer = request.app.state.settings.auth_issuer
    if issuer is None:
        raise NotFound("this server does not know its address; set FASTPUBSUB_AUTH_ISSUER, such as https://bus.example")
    _may_be_kept(response)
    return AuthorizationServer(
        issuer=issuer,
        token_endpoint=f"{issuer}/oauth/token",
        introspection_endpoint=f"{issuer}/oauth/introspect",
        jwks_uri=f"{issuer}/.well-known/jwks.json",
        scopes_supported=list(SCOPES),
    )


def _may_be_kept(response: Response) -> None:
    response.headers["Cache-Control"] = "public, max-age=300"
    response.headers["Content-Security-Policy"] = API_POLICY[1].decode()


@router.post(
    "/oauth/token",
    status_code=201,
    response_model=Token,
    responses={200: {"model": Token, "description": "To a form"}, **REFUSALS},
    openapi_extra={"requestBody": {"content": BODIES, "required": True}},
    dependencies=[public(forms=True, query=["client_secret"])],
)
async def create_token(request: Request) -> Response:
    """Get an access token for a client's id and secret, as JSON or as the form of OAuth 2."""
    body = await request.body()
    if media_type(request) == FORM:
        return await answer_form(request, _grant(request, body))
    wanted = _read_json(request, body)
    bound = None if wanted.filter is None else member(body, "filter")
    token = await _issue(request, wanted, subscriptions.filter_text(request.app.state.settings, bound))
    return JSONResponse(token.model_dump(), 201)


@router.post(
    "/oauth/introspect",
    response_model=Introspection,
    responses=REFUSALS,
    openapi_extra={"requestBody": {"content": {FORM: {"schema": INTROSPECTION_SCHEMA}}, "required": True}},
    dependencies=[public(forms=True, query=["client_secret", "token"])],
)
async def create_introspection(request: Request) -> Response:
    """Ask whether an access token is good, and what it allows; any client may, with its id and secret."""
    return await answer_form(request, _introspect(request, await request.body()))


async def _grant(request: Request, body: bytes) -> Token:
    form = parse_form(body)
    return await _issue(request, _read_grant(request, form), _read_filter(request, form.get("filter")))


async def _issue(request: Request, wanted: TokenRequest, filter_text: str | None) -> Token:
    state = request.app.state
    authenticator = state.authenticator
    return await issue_token(
        state.database,
        authenticator.hasher,
        authenticator.attempts,
        authenticator.signer,
        wanted,
        _address(request),
        filter_text,
    )


async def _introspect(request: Request, body: bytes) -> Introspection:
    if media_type(request) != FORM:
        raise OAuthError("invalid_request", f"send a form: token, client_id and client_secret as {FORM}")
    if "token" in request.query_params:
        raise OAuthError("invalid_request", "the token must not be in the address; send it in the body")
    form = parse_form(body)
    if "token" not in form:
        raise OAuthError("invalid_request", "token is missing; send the access token as token")
    client_id, client_secret = read_credentials(request, form)
    asking = TokenRequest(client_id=client_id, client_secret=client_secret)
    state = request.app.state
    return await introspect_token(state.database, state.authenticator, asking, form["token"], _address(request))


def _address(request: Request) -> str | None:
    return request.client.host if request.client else None


def _read_json(request: Request, body: bytes) -> TokenRequest:
    if is_basic(request.headers.get("authorization", "")) or "client_secret" in request.query_params:
        raise InvalidRequest("the body is JSON: send client_id and client_secret in it, and only there")
    check_object(body)
    try:
        return TokenRequest.model_validate_json(body)
    except ValidationError as error:
        errors: list[Any] = error.errors(include_url=False, include_input=False)
        raise RequestValidationError([one | {"loc": ("body", *one["loc"])} for one in errors]) from None


def _read_filter(request: Request, text: str | None) -> str | None:
    if text is None:
        return None
    try:
        check_json(text.encode())
        wanted = filters.check(filters.read(text))
    except ValueError as error:
        raise InvalidRequest(f"filter: {error}") from None
    return None if wanted is None else subscriptions.filter_text(request.app.state.settings, text.encode())


def _read_grant(request: Request, form: dict[str, str]) -> TokenRequest:
    if "grant_type" not in form:
        raise OAuthError("invalid_request", "grant_type is missing; send grant_type=client_credentials")
    if form["grant_type"] != "client_credentials":
        raise OAuthError("unsupported_grant_type", "the only grant_type here is client_credentials")
    client_id, client_secret = read_credentials(request, form)
    scope = form.get("scope")
    try:
        if scope:
            parse(scope)
    except InvalidRequest as error:
        raise OAuthError("invalid_scope", error.detail) from None
    return TokenRequest(client_id=client_id, client_secret=client_secret, scope=scope)
