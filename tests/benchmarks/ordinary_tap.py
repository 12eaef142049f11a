"""The tap that an ordinary user of singer-sdk would write for the same two streams: what the SDK's guide shows.

A contestant of `compare.py`, not for use: it knows no quota, its STATE has an entry for every machine,
and updates that were installed stay in the warehouse for ever.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

import requests
from singer_sdk import RESTStream, Tap
from singer_sdk import typing as th
from singer_sdk.authenticators import OAuthAuthenticator
from singer_sdk.pagination import BaseHATEOASPaginator
from typing_extensions import override

if TYPE_CHECKING:
    from collections.abc import Mapping
    from urllib.parse import ParseResult

Text, Number, Boolean, Moment = th.StringType, th.IntegerType, th.BooleanType, th.DateTimeType


def properties(**types: Any) -> dict[str, Any]:
    """A schema of properties by name and type."""
    return th.PropertiesList(*(th.Property(name, kind) for name, kind in types.items())).to_dict()


class Authenticator(OAuthAuthenticator):
    """Client credentials."""

    @property
    @override
    def oauth_request_body(self) -> dict[str, Any]:
        return {
            "grant_type": "client_credentials",
            "client_id": self.client_id,
            "client_secret": self.client_secret,
            "scope": self.oauth_scopes,
        }


class NextLinkPaginator(BaseHATEOASPaginator):
    """Follows the next link."""

    @override
    def get_next_url(self, response: requests.Response) -> str | None:
        link: str | None = response.json().get("@odata.nextLink")
        return link


class DefenderStream(RESTStream[Any]):
    """Base of the streams."""

    records_jsonpath = "$.value[*]"

    @property
    @override
    def url_base(self) -> str:
        return f"{self.config['api_url']}/api"

    @cached_property
    @override
    def authenticator(self) -> Authenticator:
        return Authenticator(
            auth_endpoint=f"{self.config['authority_url']}/{self.config['tenant_id']}/oauth2/v2.0/token",
            oauth_scopes="https://api.securitycenter.microsoft.com/.default",
            client_id=self.config["client_id"],
            client_secret=self.config["client_secret"],
        )

    @cached_property
    @override
    def requests_session(self) -> requests.Session:
        session = requests.Session()
        session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or True  # the SDK does not look
        return session

    @override
    def get_new_paginator(self) -> NextLinkPaginator:
        return NextLinkPaginator()

    @override
    def get_url_params(self, context: Mapping[str, Any] | None, next_page_token: ParseResult | None) -> dict[str, str]:
        return dict(parse_qsl(next_page_token.query)) if next_page_token else {}


class Machines(DefenderStream):
    """The machines."""

    name = "machines"
    path = "/machines"
    primary_keys = ("id",)
    schema = properties(
        **dict.fromkeys(("id", "mergedIntoMachineId", "exclusionReason", "computerDnsName", "osPlatform"), Text),
        **dict.fromkeys(("osVersion", "osProcessor", "osArchitecture", "version", "lastIpAddress"), Text),
        **dict.fromkeys(("lastExternalIpAddress", "agentVersion", "healthStatus", "deviceValue"), Text),
        **dict.fromkeys(("rbacGroupName", "riskScore", "exposureLevel", "aadDeviceId", "onboardingStatus"), Text),
        **dict.fromkeys(("managedBy", "managedByStatus", "defenderAvStatus"), Text),
        **dict.fromkeys(("osBuild", "rbacGroupId"), Number),
        **dict.fromkeys(("isPotentialDuplication", "isExcluded", "isAadJoined"), Boolean),
        **dict.fromkeys(("firstSeen", "lastSeen"), Moment),
        machineTags=th.ArrayType(Text),
        ipAddresses=th.ArrayType(
            th.ObjectType(
                *(th.Property(name, Text) for name in ("ipAddress", "macAddress", "type", "operationalStatus"))
            )
        ),
        vmMetadata=th.ObjectType(
            *(th.Property(name, Text) for name in ("vmId", "cloudProvider", "resourceId", "subscriptionId"))
        ),
    )

    @override
    def get_child_context(self, record: Mapping[str, Any], context: Mapping[str, Any] | None) -> dict[str, Any]:
        return {"machineId": record["id"]}


class MissingKbs(DefenderStream):
    """What each machine lacks."""

    name = "missing_kbs"
    path = "/machines/{machineId}/getmissingkbs"
    primary_keys = ("machineId", "id")
    parent_stream_type = Machines
    schema = properties(
        **dict.fromkeys(("machineId", "id", "name", "url", "osBuild"), Text),
        **dict.fromkeys(("machineMissedOn", "cveAddressed"), Number),
        productsNames=th.ArrayType(Text),
    )


class OrdinaryTap(Tap):
    """Machines, and what each lacks."""

    name = "ordinary-tap"
    config_jsonschema = properties(
        **dict.fromkeys(("tenant_id", "client_id", "client_secret", "api_url", "authority_url"), Text)
    )

    @override
    def discover_streams(self) -> list[DefenderStream]:
        return [Machines(self), MissingKbs(self)]


if __name__ == "__main__":
    OrdinaryTap.cli()
