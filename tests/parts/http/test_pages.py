"""What a page of another site can have a browser do: every endpoint, with whatever a browser says of the page."""

import ssl
from pathlib import Path

import pytest

from cluster.http.app import ROUTES, template
from cluster.http.gate import Open
from tests.kit import tls_files
from tests.kit.acl_samples import uuid
from tests.kit.callers import MANAGER
from tests.kit.fake_service import CSR
from tests.parts.http.conftest import Reply, Running, Start, free_port

BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"}
#: What PowerShell's Invoke-WebRequest says that it is.
SHELL = {"User-Agent": "Mozilla/5.0 (Windows NT 10.0; Microsoft Windows 10.0.26100; en-US) PowerShell/7.5.1"}
ENDPOINTS = [(method, template(route.path)) for route in ROUTES for method in route.methods]
BODIES = {"/v1/connect/ca/sign": {"CSR": CSR}, "/v1/agent/connect/authorize": {"Target": "web"}}

OPEN = {template(route.path) for route in ROUTES if isinstance(route.access, Open)}

#: By what a browser may give a page of another site away.
PAGES = {
    "Origin": {"Origin": "http://evil.example"},
    "no name in Origin": {"Origin": "null"},
    "Referer": {"Referer": "http://evil.example/"},
    "Sec-Fetch-Site": {"Sec-Fetch-Site": "cross-site"},
    "nothing": {},
}
#: Methods that a page uses without the browser asking first: the others it asks for by OPTIONS.
NOT_ASKED_FOR = ("GET", "POST")
#: What the node behind the API is asked for without anything being changed or made.
READS = {
    *("read", "watch", "find_cert", "search_certs", "cluster", "digest", "seal_status", "rotation_uptake"),
    *("plan_rotation", "save_snapshot"),
}


@pytest.fixture
async def in_clear(start: Start) -> Running:
    """A listener to which browsers do not say whose page it is: neither TLS nor loopback."""
    port = free_port()
    started: Running = await start(http={"address": f"0.0.0.0:{port}", "allow_plaintext_off_loopback": True}, port=port)
    return started


@pytest.fixture
def listener(request: pytest.FixtureRequest) -> Running:
    found: Running = request.getfixturevalue(request.param)
    return found


async def asked(api: Running, method: str, path: str, headers: dict[str, str]) -> tuple[Reply, set[str]]:
    """The answer, and what the node did for it."""
    api.service.calls.clear()
    is_acl = path.startswith("/v1/acl/")
    url = path.replace("{service}", "web").replace("{serial}", "01").replace("{kind}", "agent")
    url = url.replace("{id}", uuid(1) if is_acl and "name" not in path else "aa:r1")
    body = BODIES.get(path, {}) if method in ("POST", "PUT") else None
    token = {"X-Consul-Token": MANAGER.secret_id} if is_acl and path not in OPEN else {}
    reply = await api.ask(method, url, json=body, headers=headers | token)
    return reply, {name for name, _ in api.service.calls}


@pytest.mark.parametrize(
    ("listener", "page"),
    [("in_clear", page) for page in PAGES] + [("api", page) for page in PAGES if page != "nothing"],
    indirect=["listener"],
)
async def test_no_page_of_another_site_has_anything_changed(listener: Running, page: str) -> None:
    """Also where browsers say nothing of the page, which is on listeners that are neither TLS nor loopback."""
    for method, path in ENDPOINTS:
        reply, done = await asked(listener, method, path, BROWSER | PAGES[page])
        if page != "nothing":
            assert (reply.status, done) == (403, set()), (method, path)
        elif method in NOT_ASKED_FOR:
            assert done <= READS, (method, path)
            assert (reply.status == 403) is (method == "POST" or "/leaf/" in path), (method, path)
        assert not [name for name in reply.headers if name.lower().startswith("access-control-")], (method, path)


@pytest.mark.parametrize("page", PAGES)
async def test_no_browser_is_told_that_a_page_may_do_more(api: Running, page: str) -> None:
    """The preflight of CORS: without these headers in the answer, PUT and DELETE of a page are not sent."""
    for method, path in ENDPOINTS:
        wanted = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": "user-agent"}
        reply, done = await asked(api, "OPTIONS", path, BROWSER | PAGES[page] | wanted)
        assert not done
        assert not [name for name in reply.headers if name.lower().startswith("access-control-")], (method, path)


@pytest.mark.parametrize(
    "headers",
    [
        {"User-Agent": "Go-http-client/1.1"},
        {"User-Agent": "curl/8.5.0"},
        {"User-Agent": ""},
        BROWSER | {"Sec-Fetch-Site": "none"},
        BROWSER | {"Sec-Fetch-Site": "same-origin"},
        BROWSER | {"Origin": "OWN"},
    ],
    ids=["Go", "curl", "no name", "typed", "own page", "own origin"],
)
@pytest.mark.parametrize("listener", ["in_clear", "api"], indirect=True)
async def test_programs_people_and_own_pages_get_what_they_ask_for(listener: Running, headers: dict[str, str]) -> None:
    own = {name: value.replace("OWN", f"http://127.0.0.1:{listener.port}") for name, value in headers.items()}
    await assert_served(listener, own)


async def assert_served(api: Running, headers: dict[str, str]) -> None:
    for method, path in ENDPOINTS:
        reply, _ = await asked(api, method, path, headers)
        assert reply.status not in (403, 405, 421), (method, path)
    _, done = await asked(api, "GET", "/v1/agent/connect/ca/leaf/{service}", headers)
    assert done == {"leaf"}
    _, done = await asked(api, "POST", "/v1/connect/ca/sign", headers)
    assert done == {"sign"}


@pytest.mark.parametrize("address", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST.:80"])
async def test_programs_that_call_themselves_browsers_are_served_on_loopback(
    start: Start, address: str, host: str
) -> None:
    """A browser says there whose page it is, so its name need not be looked at."""
    port = free_port()
    await assert_served(await start(http={"address": f"{address}:{port}"}, port=port), SHELL | {"Host": host})


async def test_programs_that_call_themselves_browsers_are_served_over_tls(start: Start, tmp_path: Path) -> None:
    authority = tls_files.Authority()
    authority.write_ca(tmp_path / "ca.pem")
    authority.write_certificate(tmp_path, "http", "ca.test")
    files = {"tls_cert": str(tmp_path / "http.pem"), "tls_key": str(tmp_path / "http.key")}
    api: Running = await start(http=files)
    context = ssl.create_default_context(cafile=str(tmp_path / "ca.pem"))
    for host in ("127.0.0.1", "ca.test"):
        api.service.calls.clear()
        url = f"https://127.0.0.1:{api.port}/v1/agent/connect/ca/leaf/web"
        async with api.client.get(url, headers=SHELL | {"Host": host}, ssl=context) as reply:
            assert reply.status == 200
        assert "leaf" in {name for name, _ in api.service.calls}


@pytest.mark.parametrize(("host", "status"), [("ca.example.net", 403), ("10.1.2.3", 403), ("127.0.0.1", 200)])
async def test_loopback_behind_a_proxy_in_clear_is_not_loopback_to_a_browser(
    start: Start, host: str, status: int
) -> None:
    """It goes by the name in the address bar, and sends no Sec-Fetch-Site."""
    api: Running = await start(http={"allowed_hosts": ["ca.example.net", "10.1.2.3"]})
    reply = await api.get("/v1/agent/connect/ca/leaf/web", headers=BROWSER | {"Host": f"{host}:8500"})
    assert reply.status == status


@pytest.mark.parametrize(
    ("referer", "status"),
    [
        ("http://127.0.0.1:OWN/v1/agent/self", 200),
        ("HTTP://127.0.0.1:OWN", 200),
        ("http://127.0.0.1:OWN?x", 200),
        ("", 200),
        ("https://127.0.0.1:OWN/", 403),
        ("http://127.0.0.1/", 403),
        ("http://127.0.0.1:OWN.evil.example/", 403),
        ("http://127.0.0.1:OWN@evil.example/", 403),
        ("http://evil.example/http://127.0.0.1:OWN/", 403),
        ("about:blank", 403),
        ("android-app://com.example/", 403),
    ],
)
async def test_referer_must_be_a_page_of_the_own_origin(api: Running, referer: str, status: int) -> None:
    reply = await api.get("/v1/status/leader", headers={"Referer": referer.replace("OWN", str(api.port))})
    assert reply.status == status


@pytest.mark.parametrize(
    ("agent", "status"),
    [
        ("AppleCoreMedia/1.0.0.22F82 (Macintosh; U; Intel Mac OS X 14_5; en_us)", 403),
        ("stagefright/1.2 (Linux;Android 9)", 403),
        ("GStreamer souphttpsrc 1.24.2 libsoup/3.4.4", 403),
        ("gstreamer/1.0", 403),
        ("NSPlayer/12.00.26100.0 WMFSDK/12.00.26100.0", 403),
        ("Windows-Media-Player/12.0.26100.0", 403),
        ("Lavf/61.1.100", 403),
        ("curl/8.5.0 stagefright/1.2", 200),
        ("stagefrighter", 200),
    ],
)
@pytest.mark.parametrize("listener", ["in_clear", "api"], indirect=True)
async def test_what_loads_media_for_a_page_has_nothing_made(listener: Running, agent: str, status: int) -> None:
    """It says nothing of the page, on loopback either: it is not the browser's own way of fetching."""
    for path in ("/v1/agent/connect/ca/leaf/web", "/v1/connect/ca/roots"):
        reply = await listener.get(path, headers={"User-Agent": agent})
        assert reply.status == (status if "leaf" in path else 200)
    assert ("leaf" in [name for name, _ in listener.service.calls]) is (status == 200)
    reply = await listener.get("/v1/agent/connect/ca/leaf/web", headers={"User-Agent": agent, "Sec-Fetch-Site": "none"})
    assert reply.status == 200


@pytest.mark.parametrize(
    ("agent", "status"),
    [("Mozilla/4.0 (compatible)", 403), (" mozilla/5.0", 403), ("curl/8.5.0 Mozilla/5.0", 200), ("Mozillator", 200)],
)
async def test_browsers_are_known_by_how_their_name_begins(in_clear: Running, agent: str, status: int) -> None:
    reply = await in_clear.get("/v1/agent/connect/ca/leaf/web", headers={"User-Agent": agent})
    assert reply.status == status
    assert (reply.status == 200) is ("private" in reply.text.lower())
    if status == 403:
        assert reply.text.startswith("User-Agent: ")
