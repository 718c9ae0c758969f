"""Where a node may be sent."""

from ipaddress import ip_address

import pytest

from cluster.access.methods.addresses import OwnPorts, UrlRefused, https_url, why_not

OWN = OwnPorts(frozenset({8300, 8500}), lambda: {ip_address("10.0.0.1")})


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("https://a.example", "a.example", 443),
        ("https://A.Example.:8443/x/y?z=1", "a.example", 8443),
        ("https://127.0.0.1:1/", "127.0.0.1", 1),
        ("https://[::1]:65535", "::1", 65535),
    ],
)
def test_https_urls_are_read(text: str, host: str, port: int) -> None:
    url = https_url(text)
    assert (url.text, url.host, url.port) == (text, host, port)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "http://a.example",
        "HTTPS://a.example",
        "//a.example",
        "https:a.example",
        "https:///x",
        "https://",
        "https://.",
        "https://:443",
        "https://a.example:0",
        "https://a.example:65536",
        "https://a.example:",
        "https://u@a.example",
        "https://u:p@a.example",
        "https://a.example#x",
        "https://a.example\\@evil.example",
        "https://a.example /x",
        "https://a.example/x y",
        "https://a.example/\r\nX: y",
        "https://a.example/x\n",
        "https://é.example",
        "https://a。example",
        "https://[fe80::1%25eth0]/",
        "https://[::1",
        "https://a.example/" + "x" * 2048,
        "file:///etc/passwd",
        "gopher://a.example",
        "unix:///run/x",
    ],
)
def test_what_is_no_plain_https_url_is_refused(text: str) -> None:
    with pytest.raises(UrlRefused):
        https_url(text)


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("93.184.216.34", ""),
        ("10.1.2.3", ""),
        ("127.0.0.1", ""),
        ("::1", ""),
        ("2001:db8::1", ""),
        ("fd00::1", ""),
        ("169.254.169.254", "link-local"),
        ("169.254.0.1", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("::ffff:169.254.169.254", "link-local"),
        ("2002:a9fe:a9fe::1", "link-local"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("::ffff:224.0.0.1", "multicast"),
        ("255.255.255.255", "multicast"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("::ffff:0.0.0.0", "unspecified"),
        ("a.example", "no address"),
        ("", "no address"),
    ],
)
def test_addresses_are_judged(address: str, why: str) -> None:
    found = why_not(address, 443, OWN)
    assert why in found
    assert bool(why) is bool(found)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "10.0.0.1", "::ffff:10.0.0.1"]
)
def test_ports_of_the_cluster_are_refused_where_it_listens(address: str) -> None:
    assert why_not(address, 8500, OWN) == "it is a port of this cluster"
    assert why_not(address, 8501, OWN) == ""
    assert why_not("10.0.0.2", 8500, OWN) == ""
