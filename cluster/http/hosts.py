"""Which names a request may call this listener by, and from which pages it may come.

A browser sends a page's requests wherever the page says, and shows it the answers of its own name. So a page whose name
is made to point here (DNS rebinding) would have the whole API, and any page could send what changes something without
reading the answer. Both give themselves away: the one in Host, the other in Origin, Sec-Fetch-Site and Referer.

Not always, though: browsers send Sec-Fetch-Site to "potentially trustworthy" origins only (W3C Fetch Metadata 2: to TLS
or loopback), no Origin with the GET of an image, and a page decides whether there is a Referer. In clear over a network
such a GET cannot be told from one that somebody typed. Its answer is shown to no page; and where a GET changes
something, it is refused there. Nor can that of a player beside the browser that loads what a page embeds.
"""

import re
from collections.abc import Iterable
from typing import Final

from aiohttp import web

from cluster.base.config import HttpSection
from cluster.base.names import ip_address, is_loopback, parse_host
from cluster.http.errors import CrossSite, Misdirected
from cluster.http.query import shown
from cluster.tls.contexts import PemFile, subject_names

_LOCALHOST: Final = "localhost"
#: What a forwarded port has on the other side, as of `ssh -L`, where the listener is not on loopback itself.
_LOOPBACK: Final = ("127.0.0.1", "::1")
_OTHER_SITES: Final = frozenset(("cross-site", "same-site"))
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_ORIGIN: Final = re.compile(r"(https?)://([^/?#@\s]+)", re.IGNORECASE)
#: How every browser's User-Agent begins (RFC 9110 10.1.5); a page cannot change it without a preflight.
_BROWSER: Final = "mozilla/"
#: How those begin that load a page's video and sound past the browser's own fetching: they send neither Origin nor
#: Sec-Fetch-Site, to TLS and loopback either. Those that are known; there may be others.
_MEDIA_LOADERS: Final = (
    "applecoremedia/",
    "gstreamer",
    "lavf/",
    "nsplayer/",
    "stagefright/",
    "windows-media-player/",
)
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
#: Host headers that were found good, so that the next request with one is not parsed again.
_MAX_REMEMBERED: Final = 64


class Hosts:
    """Of one listener."""

    def __init__(self, section: HttpSection) -> None:
        self._section = section
        self._scheme = "http" if section.tls_cert is None else "https"
        listener = section.address.rpartition(":")[0].strip("[]").lower()
        own = ip_address(listener)
        self._takes_any_address = own is not None and own.is_unspecified
        #: A listener on a name has the addresses that the name stands for; its connections know which.
        self._asks_connection = own is None
        self._is_loopback = is_loopback(section.address)
        self._own = {_LOCALHOST, listener if own is None else str(own)}
        if own is None or not own.is_loopback:
            self._own.update(_LOOPBACK)
        self._allowed: frozenset[str] = frozenset()
        self._remembered: set[str] = set()
        self._allow(section.allowed_hosts or ())

    def read_certificate(self) -> None:
        """Allow the names in the listener's certificate, unless others are configured. Again when it was replaced.

        Raises: TlsFileRefused.
        """
        if self._section.allowed_hosts is None and self._section.tls_cert is not None:
            self._allow(subject_names(PemFile("http.tls_cert", self._section.tls_cert)))

    def check(self, request: web.BaseRequest) -> None:
        """Raises: Misdirected, CrossSite."""
        headers = request.headers
        # HTTP/1.0 knows no Host, and no browser speaks it. Whoever gives a name must give one that is ours.
        hosts = headers.getall("Host", ())
        for host in hosts:
            self._check_host(host, request)
        if not request.raw_path.startswith("/") and (authority := _authority(request)):
            self._check_host(authority, request)  # RFC 9112 3.2.2: it would have precedence
        for sites in headers.getall("Sec-Fetch-Site", ()):
            if not _OTHER_SITES.isdisjoint(site.strip().lower() for site in sites.split(",")):
                raise CrossSite(f"Sec-Fetch-Site: {shown(sites)}: requests from pages of other sites are refused")
        for origin in headers.getall("Origin", ()):
            if not self._is_own(origin, hosts):
                raise CrossSite(f"Origin: {shown(origin)}: requests from pages of other origins are refused")
        for referer in headers.getall("Referer", ()):
            if referer and not self._is_own(_origin_of(referer), hosts):
                raise CrossSite(f"Referer: {shown(referer)}: requests from pages of other origins are refused")

    def check_change(self, request: web.BaseRequest) -> None:
        """Of what changes something, and what a browser sends for any page without asking here first whether it may.

        Raises: CrossSite.
        """
        headers = request.headers
        if "Origin" in headers or "Sec-Fetch-Site" in headers:
            return  # it has been checked
        silent: tuple[str, ...] = _MEDIA_LOADERS
        if self._scheme == "http" and not (self._is_loopback and all(map(_is_local, headers.getall("Host", ())))):
            silent = (_BROWSER, *silent)  # elsewhere it would have sent Sec-Fetch-Site
        for agent in headers.getall("User-Agent", ()):
            if agent.strip().lower().startswith(silent):
                raise CrossSite(
                    f"User-Agent: {shown(agent)}: a browser that sends neither Origin nor Sec-Fetch-Site"
                    " may ask for a page of another site, so nothing is made or changed for it; a program needs another"
                    " User-Agent"
                )

    def _check_host(self, text: str, request: web.BaseRequest) -> None:
        """Raises: Misdirected."""
        if text in self._remembered:
            return
        parsed = parse_host(text)
        if parsed is None or not self._is_allowed(parsed[0], request):
            raise Misdirected(
                f"Host: {shown(text)}: this is another host; allowed are the address that it listens on, localhost,"
                " and what http.allowed_hosts or else http.tls_cert names"
            )
        # What depends on the connection is not remembered.
        if len(self._remembered) < _MAX_REMEMBERED and (parsed[0] in self._own or parsed[0] in self._allowed):
            self._remembered.add(text)

    def _is_allowed(self, host: str, request: web.BaseRequest) -> bool:
        if host in self._own or host in self._allowed:
            return True
        if ip_address(host) is not None:
            return self._takes_any_address or (self._asks_connection and host == _own_address(request))
        # As in certificates: the star stands for one label (RFC 6125 6.4.3).
        return f"*.{host.partition('.')[2]}" in self._allowed

    def _allow(self, names: Iterable[str]) -> None:
        self._allowed = frozenset(_canonical(name) for name in names)
        self._remembered.clear()

    def _is_own(self, origin: str, hosts: Iterable[str]) -> bool:
        found = _ORIGIN.fullmatch(origin)
        if found is None or found[1].lower() != self._scheme:
            return False
        named = self._with_port(found[2])
        return named is not None and any(named == self._with_port(host) for host in hosts)

    def _with_port(self, text: str) -> tuple[str, int] | None:
        parsed = parse_host(text)
        return None if parsed is None else (parsed[0], parsed[1] or _DEFAULT_PORTS[self._scheme])


def _is_local(text: str) -> bool:
    """Of a Host header, as the browser has the name: a listener on loopback may stand behind a proxy."""
    parsed = parse_host(text)
    if parsed is None:
        return False
    address = ip_address(parsed[0])
    return parsed[0] == _LOCALHOST if address is None else address.is_loopback


def _origin_of(url: str) -> str:
    """Empty where there is none."""
    found = _ORIGIN.match(url)
    return found[0] if found is not None and url[found.end() : found.end() + 1] in ("", "/", "?", "#") else ""


def _authority(request: web.BaseRequest) -> str:
    """Of a request's target that is no path: `http://host/path`, or `host:port` for CONNECT."""
    target = request.raw_path
    if request.method == "CONNECT":
        return target
    scheme = _SCHEME.match(target)
    return re.split(r"[/?#]", target[scheme.end() :], maxsplit=1)[0] if scheme else ""


def _own_address(request: web.BaseRequest) -> str:
    """The one of this side of the connection."""
    name = request.get_extra_info("sockname")
    address = ip_address(name[0].partition("%")[0]) if isinstance(name, tuple) else None
    return "" if address is None else str(getattr(address, "ipv4_mapped", None) or address)


def _canonical(name: str) -> str:
    address = ip_address(name.strip("[]"))
    return name.lower().removesuffix(".") if address is None else str(address)
