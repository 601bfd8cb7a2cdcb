"""/openapi.json of both listeners names each route, field and error that there is, and no other."""

from __future__ import annotations

import json
from typing import Any, cast
from zoneinfo import ZoneInfo

import msgspec

from gateway.app.config_documents import METHODS as CONFIG_METHODS
from gateway.core.endpoints import ENDPOINTS, OBJECT_ENDPOINTS
from gateway.core.errors import AdminForbidden, ClientGone, GatewayError, NoWorker
from gateway.identity.administration import KeyAdministration
from gateway.identity.contract import AuditEntry
from gateway.identity.grants import GrantAdministration
from gateway.identity.in_memory import InMemoryKeyStore
from gateway.identity.sessions import SessionDirectory
from gateway.notifications.history import METHODS as NOTIFICATION_METHODS
from gateway.pipeline import Services
from gateway.runtime.system_clock import SystemClock
from gateway.store.in_memory import InMemoryStore
from gateway.store.operator_reports import FIGURES, USAGE_PARAMETERS
from gateway.web.admin_access import SESSION, AdminAccess
from gateway.web.admin_api import AdminApi
from gateway.web.admin_losses import METHODS as LOSS_METHODS
from gateway.web.admin_openapi import PREFIX, admin_document
from gateway.web.admin_requests import METHODS as REQUEST_METHODS
from gateway.web.admin_routes import AdminHandlers, AdminRequest, AdminRoutes
from gateway.web.public_openapi import HEALTH_PATH, public_document
from gateway.web.public_pages import PAGES

Document = dict[str, Any]
PUBLIC: Document = json.loads(public_document())
ADMIN: Document = json.loads(admin_document())
WITHOUT_BODY = {"get", "head"}


def operations(document: Document) -> set[tuple[str, str]]:
    return {(path, method) for path, item in document["paths"].items() for method in item}


def test_every_public_route_is_described_and_no_other() -> None:
    served = {(page.endpoint.path, method.lower()) for page in PAGES for method in page.methods}
    served |= {(HEALTH_PATH, method) for method in WITHOUT_BODY} | {(path, "post") for path in ENDPOINTS}
    served |= {(row.path, row.method.lower()) for row in OBJECT_ENDPOINTS}
    served |= {(row.path, "head") for row in OBJECT_ENDPOINTS if row.method == "GET"}
    assert operations(PUBLIC) == served


def test_every_admin_route_is_described_and_no_other() -> None:
    listener = AdminRoutes(AdminHandlers(*[_never] * len(AdminHandlers._fields)), lambda _what, _error: None)
    served = {(path, method) for path in listener.pages for method in WITHOUT_BODY}
    store, zone = InMemoryKeyStore(SystemClock()), ZoneInfo("UTC")
    keys = KeyAdministration(store, _no_snapshot, zone, _no_entry, _never)
    grants = GrantAdministration(store, InMemoryStore(SystemClock(), zone), _no_snapshot, zone, _no_entry)
    members = {f"keys/{{id}}/{verb}".rstrip("/"): methods for verb, methods in keys.members.items()}
    of_grants = {"grants": grants.collection, "grants/{id}": grants.member}
    of_others = {**of_grants, **REQUEST_METHODS, **CONFIG_METHODS, **NOTIFICATION_METHODS, **LOSS_METHODS}
    for path, methods in {**keys.collections, **members, **of_others}.items():
        served |= {(PREFIX + path, method.lower()) for method in methods}
    access = AdminAccess("token", cast(SessionDirectory, None), _ignored, _never)
    api = AdminApi(cast(Services, None), access, {}, {"traffic": _never, "overview": _never})
    served |= {(PREFIX + page, "get") for page in api.pages}
    served |= {(PREFIX + SESSION, method.lower()) for method in access.methods}
    served |= {(path, "head") for path, method in served if method == "get"}
    assert operations(ADMIN) == served | {(PREFIX + action, "post") for action in api.actions}


def test_every_field_that_is_read_is_described() -> None:
    for row in ENDPOINTS.values():
        assert row.fields is not None
        content = PUBLIC["paths"][row.path]["post"]["requestBody"]["content"]
        assert ("multipart/form-data" in content) == row.takes_form
        name = content["application/json"]["schema"]["$ref"].rpartition("/")[2]
        described = set(PUBLIC["components"]["schemas"][name]["properties"])
        assert described == {field.encode_name for field in msgspec.structs.fields(row.fields)}


def test_every_error_is_described_on_the_listener_that_answers_it() -> None:
    for document, absent in ((PUBLIC, {AdminForbidden, NoWorker, ClientGone}), (ADMIN, None)):
        described = {code for item in document["paths"].values() for each in item.values() for code in _codes(each)}
        errors = [kind for kind in _leaves(GatewayError) if absent is not None and kind not in absent]
        assert {(str(kind.status), kind.code) for kind in errors} <= described
    assert (str(AdminForbidden.status), AdminForbidden.code) in described


def test_usage_has_the_figures_of_the_report() -> None:
    assert set(ADMIN["components"]["schemas"]["Usage"]["properties"]) == set(FIGURES)


def test_usage_takes_the_parameters_of_the_report() -> None:
    described = ADMIN["paths"][f"{PREFIX}usage"]["get"]["parameters"]
    assert {parameter["name"] for parameter in described} == set(USAGE_PARAMETERS)


def test_every_reference_leads_somewhere() -> None:
    for document in (PUBLIC, ADMIN):
        text = json.dumps(document)
        names = {part.partition('"')[0] for part in text.split('"#/components/schemas/')[1:]}
        assert names == set(document["components"]["schemas"])


async def _never(*_arguments: object) -> Any:
    raise AssertionError("nothing is asked")


def _codes(operation: Document) -> set[tuple[str, str]]:
    """Status and code, as the descriptions of the answers say them."""
    prefix = "The error's code is "
    described = ((status, each["description"]) for status, each in operation["responses"].items())
    return {
        (status, code)
        for status, text in described
        if text.startswith(prefix)
        for code in text.removeprefix(prefix).rstrip(".").split(" or ")
    }


def _leaves(root: type[GatewayError]) -> list[type[GatewayError]]:
    kinds = root.__subclasses__()
    return [leaf for kind in kinds for leaf in _leaves(kind)] if kinds else [root]


def _no_snapshot() -> Any:
    raise AssertionError("no key is asked for")


def _no_entry(_entry: AuditEntry) -> None:
    """Nothing is changed."""


def _ignored(_request: AdminRequest, _error: GatewayError) -> None:
    """No request is made."""
