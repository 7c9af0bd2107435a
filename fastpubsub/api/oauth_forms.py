"""Forms of OAuth 2: the client in them (RFC 6749, section 2.3.1), and refusals (section 5.2)."""

import base64
import re
from collections.abc import Awaitable
from urllib.parse import parse_qsl, unquote_plus

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from fastpubsub.exceptions import FastpubsubError, InvalidRequest, PermissionDenied, TooManyRequests, Unauthenticated

MAX_PARAMETERS = 20
REALM = 'realm="fastpubsub"'
CODES: dict[type[FastpubsubError], str] = {
    InvalidRequest: "invalid_request",
    PermissionDenied: "invalid_scope",
    Unauthenticated: "invalid_client",
}
NOT_DESCRIBABLE = re.compile(r"[^\x20\x21\x23-\x5b\x5d-\x7e]")
CREDENTIALS = {
    "client_id": {"type": "string", "description": "unless sent by HTTP Basic"},
    "client_secret": {"type": "string", "description": "unless sent by HTTP Basic"},
}
"""As the OpenAPI document describes them."""


class OAuthError(Exception):
    def __init__(self, code: str, description: str) -> None:
        super().__init__(description)
        self.code = code
        self.description = NOT_DESCRIBABLE.sub(" ", description)


async def answer_form(request: Request, answer: Awaitable[BaseModel]) -> Response:
    """Answers with the members that are not None, or with the error."""
    try:
        return JSONResponse((await answer).model_dump(exclude_none=True))
    except (InvalidRequest, PermissionDenied, Unauthenticated) as error:
        return _refuse(request, OAuthError(CODES[type(error)], error.detail))
    except TooManyRequests as error:
        # The RFC has no code for it; this one is of its section 4.1.2.1.
        refused = {"error": "temporarily_unavailable", "error_description": error.detail}
        return JSONResponse(refused, error.status, {"Retry-After": str(error.retry_after_seconds)})
    except OAuthError as refusal:
        return _refuse(request, refusal)


def _refuse(request: Request, refusal: OAuthError) -> Response:
    body = {"error": refusal.code, "error_description": refusal.description}
    if refusal.code != "invalid_client":
        return JSONResponse(body, 400)
    # A browser that is offered Basic opens a dialog of its own, also when a script of a page has asked.
    scheme = "Basic" if is_basic(request.headers.get("authorization", "")) else "Bearer"
    return JSONResponse(body, 401, {"WWW-Authenticate": f"{scheme} {REALM}"})


def parse_form(body: bytes) -> dict[str, str]:
    """Parses the form without empty parameters, which count as left out."""
    try:
        pairs = parse_qsl(
            body.decode(),
            keep_blank_values=True,
            strict_parsing=bool(body),
            errors="strict",
            max_num_fields=MAX_PARAMETERS,
        )
    except ValueError:
        raise OAuthError("invalid_request", "the body is not a form in UTF-8, such as a=1&b=2") from None
    form = dict(pairs)
    if len(form) < len(pairs):
        raise OAuthError("invalid_request", "a parameter is repeated; send each parameter once")
    return {name: value for name, value in form.items() if value}


def read_credentials(request: Request, form: dict[str, str]) -> tuple[str, str]:
    """Reads them from the body or from HTTP Basic, never from both, nor from the address, which ends up in logs."""
    if "client_secret" in request.query_params:
        raise OAuthError("invalid_request", "the client_secret must not be in the address; send it in the body")
    headers = request.headers.getlist("authorization")
    if len(headers) > 1:
        raise OAuthError("invalid_request", "the request has more than one Authorization header; send one")
    if headers and is_basic(headers[0]):
        client_id, client_secret = _read_basic(headers[0][len("basic") :])
        if "client_secret" in form or form.get("client_id", client_id) != client_id:
            raise OAuthError(
                "invalid_request", "the client credentials are in the body and in HTTP Basic; send them once"
            )
        return client_id, client_secret
    if "client_id" not in form or "client_secret" not in form:
        raise OAuthError("invalid_client", "send client_id and client_secret, in the body or by HTTP Basic")
    return form["client_id"], form["client_secret"]


def is_basic(header: str) -> bool:
    return header.partition(" ")[0].lower() == "basic"


def _read_basic(value: str) -> tuple[str, str]:
    try:
        client_id, colon, client_secret = base64.b64decode(value.strip(), validate=True).decode().partition(":")
        if not colon:
            raise ValueError
        return unquote_plus(client_id, errors="strict"), unquote_plus(client_secret, errors="strict")
    except ValueError:
        raise OAuthError(
            "invalid_client", "HTTP Basic must be the base64 of client_id:client_secret in UTF-8"
        ) from None
