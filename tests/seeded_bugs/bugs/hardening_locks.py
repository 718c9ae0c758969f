"""What keeps servers from locking one another out, and pages out of what changes something."""

from typing import Final

from tests.seeded_bugs.bug import Bug

_CONTEXTS: Final = "cluster/tls/contexts.py"
_PINNING: Final = "cluster/node/pinning.py"
_MEMBERSHIP: Final = "cluster/node/membership.py"
_UPKEEP: Final = "cluster/node/upkeep.py"
_MESSAGES: Final = "cluster/rpc/messages.py"
_APP: Final = "cluster/http/app.py"
_HOSTS: Final = "cluster/http/hosts.py"

_T_KEYS: Final = "tests/unit/tls/test_keys.py"
_T_PINNING: Final = "tests/unit/node/test_pinning.py"
_T_MEMBERSHIP: Final = "tests/unit/node/test_membership.py"
_T_UPKEEP: Final = "tests/unit/node/test_upkeep.py"
_T_FORWARD: Final = "tests/parts/rpc/test_forward.py"
_T_PAGES: Final = "tests/parts/http/test_pages.py"
_T_UNACCEPTABLE: Final = f"{_T_KEYS}::test_certificate_that_nobody_accepts_does_not_take_the_place_of_a_good_one"

BUGS: Final = (
    Bug(
        "a certificate that every other server refuses is taken",
        "its key is announced, cannot be shown, and is taken back: with good certificates all servers are strangers",
        _CONTEXTS,
        "        fault = refused or self._not_its_own(found)\n",
        "        fault = self._not_its_own(found)\n",
        (_T_UNACCEPTABLE,),
    ),
    Bug(
        "a certificate in use that has expired is taken for one that is refused",
        "its expiry is said to be that of the one before, and nobody is warned",
        _CONTEXTS,
        "        if found.certificate == self._certificate:\n",
        "        if not found.fault and found.certificate == self._certificate:\n",
        (f"{_T_KEYS}::test_node_that_starts_with_a_certificate_that_nobody_accepts_takes_a_good_one",),
    ),
    Bug(
        "a certificate of another server is taken",
        "servers whose files were mixed up are known by keys that they cannot show under their names",
        _CONTEXTS,
        "        fault = refused or self._not_its_own(found)\n",
        "        fault = refused\n",
        (_T_UNACCEPTABLE,),
    ),
    Bug(
        "files are used whose key is not the one that was announced",
        "a certificate that is put in place while the others are told of the one before shuts its server out",
        _CONTEXTS,
        "        if key is not None and found.key != key:\n",
        "        if False:\n",
        (f"{_T_KEYS}::test_files_that_changed_since_their_key_was_read_are_not_used",),
    ),
    Bug(
        "a certificate that is refused is announced again and again",
        "the leader is asked five times a second for what it cannot do, and the log does not say what to mend",
        _PINNING,
        "        except TlsFileRefused:\n            return True ",
        "        except TlsFileRefused:\n            return False ",
        (f"{_T_PINNING}::test_key_that_nobody_could_be_shown_is_not_announced",),
    ),
    Bug(
        "the leader takes every key that is announced",
        "one that does not count makes the name alone count, and the leader pins the key that is given up",
        _MEMBERSHIP,
        "            if not self._replica.admission.counts(key):\n",
        "            if False:\n",
        (f"{_T_MEMBERSHIP}::test_key_that_would_not_count_is_not_announced",),
    ),
    Bug(
        "files that were refused are looked at when they change",
        "a certificate that was put in place before it is valid is never taken",
        _UPKEEP,
        "        if (before != self._versions or self._failure) and ",
        "        if before != self._versions and ",
        (f"{_T_UPKEEP}::test_certificate_that_is_refused_is_looked_at_until_it_is_good_and_named_once",),
    ),
    Bug(
        "a follower gives an abort up after the ordinary time",
        "with a backend that hangs, a rotation is never given up by whoever asks another node than the leader",
        _MESSAGES,
        '"steer_rotation", SteerRequest, Nothing, needs=OPERATOR_WRITE, seconds=_CONFIGURE_SECONDS',
        '"steer_rotation", SteerRequest, Nothing, needs=OPERATOR_WRITE',
        (f"{_T_FORWARD}::test_change_that_waits_for_a_backend_is_waited_for_through_a_follower",),
    ),
    Bug(
        "a page's GET signs where the browser does not say whose it is",
        "any page that is opened in the network of a listener in clear has leaves signed for any service",
        _APP,
        """            if route.changes_on_get or request.method == "POST":\n""",
        """            if request.method == "POST":\n""",
        (f"{_T_PAGES}::test_no_page_of_another_site_has_anything_changed",),
    ),
    Bug(
        "a page's POST signs where the browser does not say whose it is",
        "an old browser signs, and moves the leader, for any page",
        _APP,
        """            if route.changes_on_get or request.method == "POST":\n""",
        """            if route.changes_on_get:\n""",
        (f"{_T_PAGES}::test_no_page_of_another_site_has_anything_changed",),
    ),
    Bug(
        "Referer is not looked at",
        "images of any page are answered by a listener in clear",
        _HOSTS,
        "            if referer and not self._is_own(_origin_of(referer), hosts):\n",
        "            if False:\n",
        (f"{_T_PAGES}::test_no_page_of_another_site_has_anything_changed",),
    ),
)
