"""Clients and their secrets."""

from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from fastpubsub.models.fields import UtcTime, WholeNumber

ClientName = Annotated[str, Field(min_length=1, max_length=255, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Scopes = Annotated[str, Field(description="separated by spaces", examples=["topics:create topics:publish:my-topic"])]


class NewClient(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: ClientName
    scopes: Scopes
    is_active: StrictBool = True


class ChangedClient(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: ClientName
    scopes: Scopes
    is_active: StrictBool | None = Field(None, description="unchanged by default")


class ClientCredentials(BaseModel):
    id: UUID
    secret: str = Field(description="shown only in this answer")


class NewSecret(BaseModel):
    model_config = ConfigDict(extra="forbid")

    old_secret_seconds: WholeNumber = Field(
        86400,
        ge=0,
        le=2592000,
        description="how long the previous secret stays valid; 0 ends all earlier secrets, and all tokens, now",
    )


class RotatedSecret(ClientCredentials):
    old_secret_expires_at: UtcTime | None


class Client(BaseModel):
    id: UUID
    name: str
    scopes: str
    is_active: bool
    token_version: int
    created_at: UtcTime
    updated_at: UtcTime


class ClientList(BaseModel):
    data: list[Client]
