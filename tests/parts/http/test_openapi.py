"""The OpenAPI document against the routes, and against itself."""

from collections.abc import Iterator
from typing import Any

from cluster.http.app import ROUTES, template
from cluster.http.gate import Open
from cluster.http.openapi.document import DOCUMENT
from tests.kit.acl_samples import uuid
from tests.kit.callers import MANAGER
from tests.parts.http.conftest import Running


def test_every_route_is_described_and_every_description_is_a_route() -> None:
    served = {(template(route.path), method.lower()) for route in ROUTES for method in route.methods}
    described = {(path, method) for path, operations in DOCUMENT["paths"].items() for method in operations}
    assert served == described


def test_what_is_asked_without_a_token_is_said_to_be() -> None:
    for route in ROUTES:
        for method in route.methods:
            described = DOCUMENT["paths"][template(route.path)][method.lower()]
            assert (described.get("security") == []) is isinstance(route.access, Open), (method, route.path)


def _references(value: Any) -> Iterator[str]:
    match value:
        case {"$ref": str(name)}:
            yield name
        case dict():
            for member in value.values():
                yield from _references(member)
        case list() | tuple():
            for member in value:
                yield from _references(member)


def test_every_reference_leads_to_a_schema_and_every_schema_is_used() -> None:
    schemas = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert set(_references(DOCUMENT)) == schemas


def test_every_path_parameter_is_described() -> None:
    for path, operations in DOCUMENT["paths"].items():
        for operation in operations.values():
            named = [parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"]
            assert named == [part[1:-1] for part in path.split("/") if part.startswith("{")]
            assert all(parameter["name"] for parameter in operation["parameters"])


async def test_answers_have_the_members_that_the_document_promises(api: Running) -> None:
    schemas = DOCUMENT["components"]["schemas"]
    for path, name in (
        ("/v1/connect/ca/roots", "Roots"),
        ("/v1/connect/ca/configuration", "Configuration"),
        ("/v1/connect/ca/rotation", "RotationStatus"),
        ("/v1/operator/autopilot/health", "Health"),
        ("/v1/operator/digest", "Digest"),
        ("/v1/agent/metrics", "Metrics"),
    ):
        assert set((await api.get(path)).json()) == set(schemas[name]["properties"])
    root = (await api.get("/v1/connect/ca/roots")).json()["Roots"][0]
    assert list(root) == list(schemas["Root"]["properties"])
    await api.put("/v1/connect/ca/rotation", {"Action": "rotate", "Staged": True})
    await api.put("/v1/connect/ca/rotation", {"Action": "abort"})
    await api.put("/v1/connect/ca/rotation", {"Action": "rotate", "Staged": True})
    status = (await api.get("/v1/connect/ca/rotation")).json()
    for member, of in (("Rotation", status["Rotation"]), ("Last", status["Last"])):
        (described, _null) = schemas["RotationStatus"]["properties"][member]["anyOf"]
        assert list(of) == list(described["properties"])
    assert list(status["Roots"][0]) == list(schemas["RotationStatus"]["properties"]["Roots"]["items"]["properties"])
    await api.put("/v1/connect/ca/rotation", {"Action": "abort"})
    plan = (await api.put("/v1/connect/ca/rotation", {"Action": "plan"})).json()
    assert list(plan) == list(schemas["RotationPlan"]["properties"])
    for path, name in (
        ("/v1/acl/token/self", "Token"),
        ("/v1/acl/tokens", "Token"),
        ("/v1/acl/token/self?expanded", "ExpandedToken"),
        ("/v1/acl/policies", "PolicyStub"),
        (f"/v1/acl/policy/{uuid(1)}", "Policy"),
        ("/v1/acl/roles", "Role"),
        ("/v1/acl/auth-methods", "AuthMethodStub"),
        ("/v1/acl/auth-method/jwt-1", "AuthMethod"),
        ("/v1/acl/binding-rules", "BindingRule"),
    ):
        found = (await api.get(path, headers={"X-Consul-Token": MANAGER.secret_id})).json()
        for one in found if isinstance(found, list) else [found]:
            assert set(schemas[name]["required"]) <= set(one) <= set(schemas[name]["properties"]), path
    leaf = (await api.get("/v1/agent/connect/ca/leaf/web")).json()
    assert set(schemas["IssuedCert"]["required"]) <= set(leaf) <= set(schemas["IssuedCert"]["properties"])


async def test_the_document_is_served(api: Running) -> None:
    answer = (await api.get("/v1/openapi.json")).json()
    assert (answer["openapi"], answer["info"]["title"]) == ("3.1.0", "Quorum CA")
    assert answer["paths"].keys() == DOCUMENT["paths"].keys()
