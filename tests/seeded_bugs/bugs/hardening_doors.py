"""The doors: for whom a port answers, and how many connections it has."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_APP: Final = "cluster/http/app.py"
_HOSTS: Final = "cluster/http/hosts.py"
_RENDER: Final = "cluster/http/render.py"
_SEATS: Final = "cluster/base/seats.py"
_LISTENER: Final = "cluster/base/listener.py"
_DESCRIPTORS: Final = "cluster/base/descriptors.py"
_RPC: Final = "cluster/rpc/server.py"
_RPC_CLIENT: Final = "cluster/rpc/client.py"
_RAFT: Final = "cluster/raft/transport.py"
_START: Final = "cluster/node/start.py"

_T_HOSTS: Final = "tests/parts/http/test_hosts.py"
_T_FUZZ: Final = "tests/parts/http/test_fuzz.py"
_T_SEATS: Final = "tests/unit/base/test_seats.py"
_T_SHARES: Final = "tests/unit/base/test_descriptors.py"
_T_RPC: Final = "tests/parts/rpc/test_places.py"
_T_RAFT: Final = "tests/parts/raft/test_places.py"
_T_LISTENER: Final = "tests/parts/test_listener.py"
_T_NODE: Final = "tests/integration/test_descriptors.py"
_T_BYTES: Final = f"{_T_FUZZ}::test_no_bytes_at_the_socket_get_an_answer_that_is_not_documented"

BUGS: Final = (
    # -- for whom
    Bug(
        "any name of the listener",
        "a web page whose name is made to point to a node has the whole API, private keys of leaves included",
        _HOSTS,
        "        if parsed is None or not self._is_allowed(parsed[0], request):\n",
        "        if False:\n",
        (f"{_T_HOSTS}::test_other_names_are_421_and_nothing_is_done",),
    ),
    Bug(
        "the host in a request's target is not looked at",
        "the one of two names that has precedence is not checked",
        _HOSTS,
        """        if not request.raw_path.startswith("/") and (authority := _authority(request)):\n""",
        """        if False and (authority := _authority(request)):\n""",
        (f"{_T_HOSTS}::test_the_host_in_a_target_counts_too", f"{_T_HOSTS}::test_connect_meets_the_same_door"),
    ),
    Bug(
        "pages of other origins may ask",
        "any page that an operator looks at signs, or moves the leader",
        _HOSTS,
        "            if not self._is_own(origin, hosts):\n",
        "            if False:\n",
        (f"{_T_HOSTS}::test_only_the_own_origin_may_ask",),
    ),
    Bug(
        "an origin of the same name on another port or in clear is the own one",
        "another program on the host, or whoever changes what goes over the network in clear, has the API",
        _HOSTS,
        "        return named is not None and any(named == self._with_port(host) for host in hosts)\n",
        "        return named is not None\n",
        (f"{_T_HOSTS}::test_only_the_own_origin_may_ask",),
    ),
    Bug(
        "Sec-Fetch-Site is not looked at",
        "requests without an Origin, as a page's images, are carried out for any page",
        _HOSTS,
        '            if not _OTHER_SITES.isdisjoint(site.strip().lower() for site in sites.split(",")):\n',
        "            if False:\n",
        (f"{_T_HOSTS}::test_requests_for_pages_of_other_sites_are_403",),
    ),
    Bug(
        "a wildcard stands for any number of labels",
        "names that somebody else may give out are served",
        _HOSTS,
        """        return f"*.{host.partition('.')[2]}" in self._allowed\n""",
        """        return any(host.endswith(name[1:]) for name in self._allowed if name.startswith("*"))\n""",
        (f"{_T_HOSTS}::test_configured_names_are_served",),
    ),
    Bug(
        "every Host is remembered",
        "a client that names a port after the other fills a node's memory",
        _HOSTS,
        "        if len(self._remembered) < _MAX_REMEMBERED and (",
        "        if (",
        (f"{_T_HOSTS}::test_hosts_that_are_many_are_not_all_remembered",),
    ),
    Bug(
        "names of a certificate stay allowed once it is replaced",
        "a name that was given to somebody else is served until the node restarts",
        _APP,
        """            _load(context, section)
            api.hosts.read_certificate()
""",
        """            _load(context, section)
""",
        (f"{_T_HOSTS}::test_names_of_the_certificate_are_served_until_it_is_replaced",),
    ),
    Bug(
        "the router answers by itself",
        "a path with a line break in it passes by the checks of Host and Origin, by log and metrics",
        _APP,
        """        except web.HTTPException:
            assert isinstance""",
        """        except ZeroDivisionError:
            assert isinstance""",
        (f"{_T_HOSTS}::test_no_path_and_no_method_passes_by_the_door",),
    ),
    Bug(
        "a target that cannot be taken apart leaves its connection waiting",
        "each such request holds a connection for ever",
        _APP,
        "        except ValueError:  # an address in place of a path",
        "        except ZeroDivisionError:  # an address in place of a path",
        (_T_BYTES,),
    ),
    Bug(
        "what a parser refuses is not logged",
        "an attack on the parser is not seen",
        _APP,
        "        if status != 503:  # a full port",
        "        if status == 503:  # a full port",
        (f"{_T_HOSTS}::test_every_answer_is_logged_and_counted_whatever_refused_it",),
    ),
    Bug(
        "answers without nosniff",
        "a browser takes what an attacker got into an answer for a script",
        _RENDER,
        """{"Server": SERVER, "X-Content-Type-Options": "nosniff"}""",
        """{"Server": SERVER}""",
        (f"{_T_HOSTS}::test_secrets_are_never_kept_and_no_answer_is_sniffed",),
    ),
    Bug(
        "private answers may be kept",
        "a cache between client and node has the private keys of leaves",
        _APP,
        "**(NO_STORE if route.is_private else {})",
        "**{}",
        (f"{_T_HOSTS}::test_secrets_are_never_kept_and_no_answer_is_sniffed",),
    ),
    Bug(
        "what is not welcome is asked for its body",
        "a page of another site makes a browser send megabytes",
        "cluster/http/body.py",
        "    return None\n\n\nasync def go_on",
        "    await go_on(_request, 1 << 40)\n    return None\n\n\nasync def go_on",
        (f"{_T_HOSTS}::test_what_is_refused_is_not_asked_for_its_body",),
    ),
    # -- how many
    Bug(
        "any number of connections",
        "a node has no file descriptors left for its own log",
        _SEATS,
        "        if has_room and self.taken >= self.caps.total:\n",
        "        if False:\n",
        (f"{_T_SEATS}::test_bounds_hold_and_nobody_is_turned_away_while_there_is_an_idle_one",),
    ),
    Bug(
        "one address may have all connections",
        "a single client shuts out every other one",
        _SEATS,
        "        has_room = self._counts.get(source, 0) < self.caps.per_source or self._end_one(source)\n",
        "        has_room = True\n",
        (f"{_T_SEATS}::test_the_share_of_one_source_leaves_room_for_others",),
    ),
    Bug(
        "idle connections give no way",
        "whoever holds connections on which nothing is said shuts out every other client",
        _SEATS,
        "        seat = next(iter(self._new.get(source, ())), None) or self._first_idle(source)\n",
        "        seat = None\n",
        (f"{_T_HOSTS}::test_whoever_only_holds_connections_shuts_nobody_out",),
    ),
    Bug(
        "connections in use give way",
        "a flood of connections ends the requests of others",
        _SEATS,
        "            if seat._is_idle():\n                return seat\n",
        "            return seat\n",
        (f"{_T_SEATS}::test_what_is_served_never_makes_room",),
    ),
    Bug(
        "each connection that is turned away is a line of the log",
        "a flood of connections fills the disk",
        _SEATS,
        "        if (now := time.monotonic()) >= self._next:\n",
        "        if now := time.monotonic():\n",
        (f"{_T_SEATS}::test_many_are_one_line_of_the_log",),
    ),
    Bug(
        "connections get the log's descriptors",
        "the next compaction finds none and ends the node",
        _DESCRIPTORS,
        "    left = limit - max(_RESERVE, min(limit // _RESERVE_SHARE, _MOST_RESERVED)) - _PER_WORKER * workers\n",
        "    left = limit\n",
        (f"{_T_SHARES}::test_connections_never_get_the_descriptors_of_the_log",),
    ),
    Bug(
        "the limit stays as low as the shell's",
        "a node has a tenth of the connections that it may have",
        _DESCRIPTORS,
        "            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))\n            return wanted\n",
        "            return soft\n",
        (f"{_T_SHARES}::test_the_limit_is_raised_as_far_as_the_process_may",),
    ),
    Bug(
        "an IPv6 host is as many sources as it likes",
        "one host has every connection although each address has few",
        _SEATS,
        "        return str(ipaddress.IPv6Network((ip, _IPV6_NETWORK_BITS), strict=False))\n",
        "        return str(ip)\n",
        (f"{_T_SEATS}::test_a_source_is_an_ipv4_address_or_an_ipv6_network",),
    ),
    Bug(
        "members have no places of their own on the RPC port",
        "strangers keep the nodes from asking the leader",
        _RPC,
        "        if not self._seat.move(self._rpc.seats.members, name):\n",
        "        if not self._seat.is_taken:\n",
        (f"{_T_RPC}::test_strangers_take_no_place_of_a_member",),
    ),
    Bug(
        "members have no places of their own on the Raft port",
        "strangers end the connections over which the log is replicated",
        _RAFT,
        '            self._seat.move(members, self.peer or "")\n',
        "            pass\n",
        (f"{_T_RAFT}::test_strangers_take_no_place_of_a_member_and_do_not_shut_it_out",),
    ),
    Bug(
        "silent handshakes on the RPC port last a minute",
        "a few connections in a minute hold every place",
        _RPC,
        "                self._tls.server_context,\n                _HANDSHAKE_SECONDS,\n",
        "                self._tls.server_context,\n                60.0,\n",
        (f"{_T_RPC}::test_silent_handshake_ends_within_seconds",),
    ),
    Bug(
        "idle connections to the RPC port last",
        "a client certificate of the cluster holds places for an hour each",
        _RPC,
        "            keepalive_timeout=_IDLE_SECONDS,\n",
        "",
        (f"{_T_RPC}::test_idle_member_is_let_go_and_comes_back_without_an_error",),
    ),
    Bug(
        "who is no member may stay on the RPC port",
        "a server that was removed holds places",
        _RPC,
        "        seconds = _STRANGER_SECONDS if self._current_request is None else _MAX_WAIT_SECONDS\n",
        "        seconds = 3600.0\n",
        (f"{_T_RPC}::test_certificate_of_no_member_holds_a_place_for_a_moment",),
    ),
    Bug(
        "requests on the RPC port have no end in time",
        "a member that stands still in the middle of a request holds a place for ever",
        _RPC,
        "            async with asyncio.timeout(_BODY_SECONDS):\n",
        "            async with asyncio.timeout(None):\n",
        (f"{_T_RPC}::test_request_without_an_end_is_408",),
    ),
    Bug(
        "peers need not say hello",
        "a client certificate of the cluster holds places on the Raft port without end",
        _RAFT,
        "            self._hello = asyncio.get_running_loop().call_later(_HELLO_SECONDS, transport.abort)\n",
        "            self._hello = None\n",
        (f"{_T_RAFT}::test_peer_that_says_no_hello_is_let_go",),
    ),
    Bug(
        "a connection that gives way is closed some time",
        "a flood has many times the descriptors that are counted, until the next collection of garbage",
        _LISTENER,
        "                seat.leave()\n                sock.close()\n",
        "                seat.leave()\n",
        (f"{_T_LISTENER}::test_what_gives_way_is_closed_at_once_however_far_it_has_come",),
    ),
    Bug(
        "the HTTP port has as many connections as configured, whatever the process may open",
        "the next compaction finds no descriptor",
        _START,
        "start_http(create_app(service, log), config.http, shares.http)",
        "start_http(create_app(service, log), config.http)",
        (f"{_T_NODE}::test_a_cluster_goes_on_while_somebody_holds_hundreds_of_idle_connections",),
    ),
    Bug(
        "connections to others are kept for ever",
        "a node that was a follower of many leaders has its descriptors in connections that nobody uses",
        _RPC_CLIENT,
        "            if position < excess or connection.idle_since <= oldest or not connection.is_open:\n",
        "            if False:\n",
        (f"{_T_RPC}::test_connections_that_are_not_used_make_room_for_others",),
    ),
)
