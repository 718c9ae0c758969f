"""py-consul's `acl`, all of it, against one node on which nothing is allowed by default."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import consul
import pytest
import pytest_asyncio

from tests.kit.real_cluster import LocalCluster, Settings
from tests.kit.tokens import public_pem, signer, token_of

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

DENY: Final[Settings] = {"acl": {"default_policy": "deny"}, "limits": {"signing_workers": 1}}
HIDDEN: Final = "<hidden>"
ANONYMOUS: Final = "00000000-0000-0000-0000-000000000002"
UNKNOWN: Final = "5ca1ab1e-0000-4000-8000-00000000dead"
RULES: Final = {"service": {"web": {"policy": "write"}}, "operator": "read"}

Client = Any
Connect = Callable[[str], Client]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def connect(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Connect]:
    """A client with a token; "root" is the one of the bootstrap, which `test_bootstrap` looks at."""
    async with LocalCluster(tmp_path_factory.mktemp("py-consul"), nodes=1, settings=DENY) as cluster:
        await cluster.start_all()
        await cluster.wait_ready()
        host, _, port = cluster.nodes[0].local.http.rpartition(":")

        def made(token: str) -> Client:
            return consul.Consul(host=host, port=int(port), token=first["SecretID"] if token == "root" else token)

        nobody = consul.Consul(host=host, port=int(port))
        with pytest.raises(consul.ACLPermissionDenied, match="anonymous token lacks permission 'acl:read'"):
            await asyncio.to_thread(nobody.acl.token.list)
        first = await asyncio.to_thread(nobody.acl.bootstrap)
        yield made


async def checked(check: Callable[[], None]) -> None:
    """The client blocks, so it runs in a thread."""
    await asyncio.to_thread(check)


async def test_bootstrap(connect: Connect) -> None:
    def check() -> None:
        own = connect("root").acl.token.read_self()
        assert own["Description"] == "Bootstrap Token (Global Management)"
        assert [link["Name"] for link in own["Policies"]] == ["global-management"]
        for secret in (None, UNKNOWN):
            with pytest.raises(consul.ACLPermissionDenied, match="ACL bootstrap no longer allowed"):
                connect("").acl.bootstrap(secret)

    await checked(check)


async def test_policies(connect: Connect) -> None:
    def check() -> None:
        policies = connect("root").acl.policy
        made = policies.create("readers", description="some", rules=RULES)
        assert (made["Name"], made["Description"], json.loads(made["Rules"])) == ("readers", "some", RULES)
        assert policies.read(made["ID"]) == made
        updated = policies.update(made["ID"], "readers-2", rules={"acl": "read"})
        assert (updated["Name"], updated["Description"], updated["CreateIndex"]) == (
            "readers-2",
            "",
            made["CreateIndex"],
        )
        assert updated["ModifyIndex"] > made["ModifyIndex"]
        listed = {policy["ID"]: policy for policy in policies.list()}
        assert listed[made["ID"]]["Name"] == "readers-2"
        assert "Rules" not in listed[made["ID"]]
        assert policies.delete(made["ID"]) is True
        assert policies.read(made["ID"]) is None
        assert policies.delete(made["ID"]) is False
        with pytest.raises(consul.ConsulException, match="400 Invalid service policy"):
            policies.create("broken", rules={"service": {"web": {"policy": "x"}}})

    await checked(check)


async def test_roles(connect: Connect) -> None:
    def check() -> None:
        acl = connect("root").acl
        policy = acl.policy.create("for-roles", rules=RULES)
        made = acl.role.create(
            "crew",
            description="some",
            policies_id=[policy["ID"]],
            policies_name=["global-management"],
            service_identities=[{"ServiceName": "web"}],
            node_identities=[{"NodeName": "node-9", "Datacenter": "dc1"}],
            templated_policies=[],
        )
        assert {link["Name"] for link in made["Policies"]} == {"for-roles", "global-management"}
        assert acl.role.read(made["ID"]) == acl.role.read_by_name("crew") == made
        assert [role["ID"] for role in acl.role.list(policy=policy["ID"])] == [made["ID"]]
        updated = acl.role.update(made["ID"], "crew-2")
        assert updated["Name"] == "crew-2"
        assert "Policies" not in updated
        assert acl.role.list(policy=policy["ID"]) == []
        assert acl.role.delete(made["ID"]) is True
        assert acl.role.read(made["ID"]) is acl.role.read_by_name("crew-2") is None

    await checked(check)


async def test_tokens(connect: Connect) -> None:
    def check() -> None:
        acl = connect("root").acl
        acl.policy.create("for-tokens", rules=RULES)
        role = acl.role.create("for-tokens")
        made = acl.token.create(
            accessor_id="5ca1ab1e-0000-4000-8000-00000000a002",
            secret_id="5ca1ab1e-0000-4000-8000-00000000b002",
            description="some",
            node_identities=["node-9:dc1"],
            service_identities=[{"ServiceName": "api"}],
            policies_name=["for-tokens"],
            roles_id=[role["ID"]],
            expiration_ttl="1h",
            local=False,
        )
        accessor, secret = made["AccessorID"], made["SecretID"]
        assert secret == "5ca1ab1e-0000-4000-8000-00000000b002"
        assert acl.token.read(accessor) == {**made, "SecretID": HIDDEN}
        assert connect(secret).acl.token.read_self() == made
        for found in (
            acl.token.list(role=role["ID"]),
            acl.token.list(servicename="api"),
            acl.token.list(policy=made["Policies"][0]["ID"]),
        ):
            assert [token["AccessorID"] for token in found] == [accessor]
            assert found[0]["SecretID"] == HIDDEN
        assert {ANONYMOUS, accessor} < {token["AccessorID"] for token in acl.token.list()}
        with pytest.raises(consul.ConsulException, match="can only filter by one of"):
            acl.token.list(role=role["ID"], servicename="api")

        updated = acl.token.update(accessor, description="less", policies_name=["for-tokens"], secret_id=secret)
        assert (updated["Description"], "Roles" in updated, updated["ExpirationTime"]) == (
            "less",
            False,
            made["ExpirationTime"],
        )
        with pytest.raises(consul.ConsulException, match="Changing a token's SecretID is not permitted"):
            acl.token.update(accessor, secret_id=UNKNOWN)
        cloned = acl.token.clone(accessor, description="another")
        assert cloned["SecretID"] not in (secret, HIDDEN)
        for token in (made, cloned):
            assert acl.token.delete(token["AccessorID"]) is True
            with pytest.raises(consul.ACLPermissionDenied, match="token does not exist: ACL not found"):
                acl.token.read(token["AccessorID"])
            with pytest.raises(consul.ACLPermissionDenied, match="ACL not found"):
                connect(token["SecretID"]).acl.token.read_self()
        with pytest.raises(consul.ConsulException, match="templated policies are not supported"):
            acl.token.create(templated_policies=[{"builtin/service": {"Name": "web"}}])

    await checked(check)


async def test_login(connect: Connect) -> None:
    def check() -> None:
        acl = connect("root").acl
        config = {
            "JWTValidationPubKeys": [public_pem(signer("ES256"))],
            "JWTSupportedAlgs": ["ES256"],
            "BoundAudiences": ["quorumca"],
            "ClaimMappings": {"service": "service"},
        }
        method = acl.auth_method.create(
            "jwt",
            "jwt",
            display_name="J",
            description="some",
            config=config,
            max_token_ttl="10m",
            token_locality="local",
        )
        assert (method["Config"], method["MaxTokenTTL"], method["DisplayName"]) == (
            {**method["Config"], **config},
            "10m0s",
            "J",
        )
        assert acl.auth_method.read("jwt") == method
        rule = acl.binding_rule.create(
            "jwt", "service", "${value.service}", description="some", selector='value.service != "root"'
        )
        assert acl.binding_rule.read(rule["ID"]) == rule
        assert acl.binding_rule.list() == acl.binding_rule.list(auth_method="jwt") == [rule]
        changed = acl.binding_rule.update(rule["ID"], "jwt", "service", "x-${value.service}")
        assert (changed["Selector"], changed["BindName"]) == ("", "x-${value.service}")

        claims = {"aud": "quorumca", "service": "web", "iat": int(time.time())}
        bearer = token_of(claims, algorithm="ES256")
        token = connect("").acl.login("jwt", bearer, meta={"pod": "p1"})
        assert token["Description"] == 'token created via login: {"pod":"p1"}'
        assert token["ServiceIdentities"] == [{"ServiceName": "x-web"}]
        client = connect(token["SecretID"])
        assert client.agent.connect.ca.leaf("x-web")["Service"] == "x-web"
        with pytest.raises(consul.ACLPermissionDenied, match="lacks permission 'service:write' on \"web\""):
            client.agent.connect.ca.leaf("web")
        with pytest.raises(consul.ACLPermissionDenied, match="Permission denied"):
            connect("").acl.login("jwt", token_of({**claims, "aud": "others"}, algorithm="ES256"))
        assert connect("").acl.logout(token["SecretID"]) is True
        with pytest.raises(consul.ACLPermissionDenied, match="ACL not found"):
            connect("").acl.logout(token["SecretID"])

        renamed = acl.auth_method.update("jwt", "jwt", config=config, display_name="K")
        assert (renamed["DisplayName"], renamed.get("MaxTokenTTL")) == ("K", None)
        assert [found["Name"] for found in acl.auth_method.list()] == ["jwt"]
        assert "Config" not in acl.auth_method.list()[0]
        assert acl.binding_rule.delete(rule["ID"]) is True
        assert acl.auth_method.delete("jwt") is True
        assert acl.binding_rule.list() == acl.auth_method.list() == []

    await checked(check)


async def test_members_and_what_is_not_here(connect: Connect) -> None:
    def check() -> None:
        acl = connect("root").acl
        # This client sends its token with few requests but those of `acl`: members are asked for by nobody.
        acl.policy.create("for-anybody", rules={"node_prefix": {"": {"policy": "read"}}})
        assert connect("root").agent.members() == []
        acl.token.update(ANONYMOUS, description="Anonymous Token", policies_name=["for-anybody"])
        (member,) = connect("root").agent.members()
        assert (member["Status"], member["Tags"]["dc"]) == (1, "dc1")
        acl.token.update(ANONYMOUS, description="Anonymous Token")
        assert connect("root").agent.members(wan=True) == []
        templated = acl.templated_policy
        assert templated.list() is templated.read("builtin/service") is templated.preview("x") is None

    await checked(check)
