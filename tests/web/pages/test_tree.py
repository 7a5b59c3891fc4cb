"""Tests of the gate's own pages, in memory: real client, real server, no socket."""

from __future__ import annotations

import json
from base64 import b64encode
from ipaddress import IPv4Network, ip_network
from typing import Any

from treq.testing import RequestTraversalAgent
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import readBody
from twisted.web.http_headers import Headers
from twisted.web.iweb import IResponse
from twisted.web.resource import IResource
from twisted.web.server import Request
from zope.interface.verify import verifyObject

from mcpgate.errors import Overloaded
from mcpgate.gate.sessions import SessionView
from mcpgate.model import Secret
from mcpgate.telemetry.meters import Meters
from mcpgate.telemetry.views import CertificateView, InstanceView
from mcpgate.web.pages.admin import AdminView, ProcessView
from mcpgate.web.pages.admin_access import AdminAccess, AdminUsers
from mcpgate.web.pages.tree import GateTree

PASSWORD = "canary-admin-password"
EVIL = "<img src=x onerror=alert(1)>\x1b[2J\u202e\n"


class TreeCase(SynchronousTestCase):
    """A tree that can be asked."""

    def setUp(self) -> None:
        """Make a tree with one user."""
        self.meters = Meters()
        self.unready: list[str] = []
        self.waits: dict[str, float] = {}
        self.wrong: list[str] = []
        self.broken: Exception | None = None
        self.address = "192.0.2.7"
        self.patch(
            Request,
            "getClientAddress",
            lambda _: IPv4Address("TCP", self.address, 1) if self.address else None,
        )
        self.serve()

    def serve(
        self,
        *,
        users: bool = True,
        allow: tuple[IPv4Network, ...] = (),
        proxies: tuple[IPv4Network, ...] = (),
        on: bool = True,
    ) -> None:
        """Make the tree anew."""
        access = AdminAccess(
            users=AdminUsers({"admin": Secret(PASSWORD)} if users else {}, b"pepper"),
            allow=allow,
            proxies=proxies,
            enabled=on,
            held_back=lambda address: self.waits.get(address, 0.0),
            wrong=self.wrong.append,
        )
        tree = GateTree(self.view(), access, make_id=lambda: "r-made", realm='my "gate"')
        self.resource = tree.resource()
        self.agent = RequestTraversalAgent(self.resource)

    def view(self) -> AdminView:
        """Give what the pages show."""

        def metrics() -> Deferred[bytes]:
            if self.broken is not None:
                return fail(self.broken)
            return succeed(b"mcpgate_up 1\n")

        return AdminView(
            version="1.2",
            started_at=1000.0,
            wall=lambda: 5000.0,
            meters=self.meters,
            unready=lambda: self.unready,
            instances=lambda: [
                InstanceView(
                    server="files",
                    owner="aabbccdd",
                    state="running",
                    user=EVIL,
                    uptime_s=90.0,
                    idle_s=4.0,
                    memory_bytes=3 * 1024 * 1024,
                    cpu_s=1.5,
                ),
                InstanceView(server="clock", owner="shared", state="stopped"),
            ],
            sessions=lambda limit: [
                SessionView(
                    label="12345678",
                    server="files",
                    owner="aabbccdd",
                    user=EVIL,
                    revision="2025-06-18",
                    age_s=100000.0,
                    idle_s=9.0,
                    in_use=1,
                    instance="i-1",
                )
            ][:limit],
            session_counts=lambda: {"files": 1},
            certificates=lambda: [CertificateView(name="gate.example", expires_at=91400.0)],
            process=lambda: ProcessView(memory_bytes=5 * 1024**3, cpu_s=7200.0, open_files=9),
            metrics=metrics,
        )

    def ask(self, path: str, method: str = "GET", **fields: str) -> tuple[IResponse, bytes]:
        """Send one request, give answer and body."""
        headers = Headers({name.replace("_", "-"): [value] for name, value in fields.items()})
        waiting: Deferred[IResponse] = self.agent.request(
            method.encode(), b"http://gate.example" + path.encode("latin-1"), headers
        )
        self.agent.flush()
        response = self.successResultOf(waiting)
        body: Deferred[bytes] = readBody(response)
        self.agent.flush()
        return response, self.successResultOf(body)

    def told(self, path: str, status: int = 200, **fields: str) -> Any:
        """Send one GET, see that the answer is JSON with this status, and read it."""
        response, body = self.ask(path, **fields)
        self.assertEqual(response.code, status, body)
        self.assertEqual(response.headers.getRawHeaders("content-type"), ["application/json"])
        return json.loads(body)

    @property
    def login(self) -> str:
        """Give the right Authorization field."""
        return "Basic " + b64encode(f"admin:{PASSWORD}".encode()).decode()


class PublicPageTests(TreeCase):
    """Pages for everybody."""

    def test_is_a_resource(self) -> None:
        """The tree is an `IResource`."""
        verifyObject(IResource, self.resource)

    def test_root(self) -> None:
        """The root says who is there, in text, or in JSON for those who ask."""
        response, body = self.ask("/")
        self.assertEqual(response.code, 200)
        self.assertTrue(body.startswith(b"mcpgate\n"))
        self.assertEqual(self.told("/", accept="application/json")["name"], "mcpgate")

    def test_health(self) -> None:
        """Whether the gate runs is told to anybody."""
        self.assertEqual(self.told("/health"), {"status": "ok"})

    def test_ready(self) -> None:
        """Whether the gate wants traffic is told with the reasons."""
        self.assertEqual(self.told("/ready"), {"status": "ready"})
        self.unready += ["draining", "log sink blocked"]
        told = self.told("/ready", 503)
        self.assertEqual(told["reasons"], ["draining", "log sink blocked"])

    def test_head(self) -> None:
        """HEAD answers what GET would, without the body."""
        for path in ("/", "/health", "/ready"):
            got, body = self.ask(path)
            response, nothing = self.ask(path, "HEAD")
            self.assertEqual(response.code, 200)
            self.assertEqual(nothing, b"")
            self.assertEqual(
                response.headers.getRawHeaders("content-length"), [str(len(body))], path
            )
            self.assertEqual(got.code, response.code)

    def test_fields(self) -> None:
        """Every answer forbids to be sniffed, framed, kept or scripted."""
        for path in ("/", "/health", "/nothing", "/stats", "/.well-known/x"):
            response, _ = self.ask(path)
            fields = {name.lower(): values for name, values in response.headers.getAllRawHeaders()}
            self.assertEqual(fields[b"x-content-type-options"], [b"nosniff"])
            self.assertIn(b"default-src 'none'", fields[b"content-security-policy"][0])
            self.assertIn(b"frame-ancestors 'none'", fields[b"content-security-policy"][0])
            self.assertEqual(fields[b"cache-control"], [b"no-store"])
            self.assertNotIn(b"server", fields)


class UnknownPathTests(TreeCase):
    """Everything else is 404 in JSON: never HTML, never 401, never a redirect."""

    def test_unknown(self) -> None:
        """No path makes the tree answer anything but a JSON error with the request's id."""
        for path in (
            *("/nothing", "/.well-known/oauth-protected-resource", "/.well-known/", "/favicon.ico"),
            *("/.well-known/oauth-authorization-server/mcp", "/register", "//stats", "/%00"),
            *("/stats/extra", "/health/../stats", "/%ff%fe", "/.well-known/openid/%c3"),
        ):
            told = self.told(path, 404)
            self.assertEqual(told["error"]["reason"], "not_found")
            self.assertEqual(told["error"]["requestId"], "r-made")

    def test_post(self) -> None:
        """POST to an unknown path is 404, too; to a known one 405 with what is allowed."""
        response, body = self.ask("/register", "POST")
        self.assertEqual(response.code, 404)
        response, body = self.ask("/health", "POST")
        self.assertEqual(response.code, 405)
        self.assertEqual(response.headers.getRawHeaders("allow"), ["GET, HEAD"])
        self.assertEqual(json.loads(body)["error"]["reason"], "method_not_allowed")

    def test_odd_host(self) -> None:
        """A Host that is no name is no reason for a traceback."""
        self.assertEqual(self.told("/nothing", 404, host="\u00e4")["error"]["reason"], "not_found")

    def test_request_id(self) -> None:
        """The id the front door gave is used, if it is one."""
        told = self.told("/x", 404, X_Request_Id="abc-123")
        self.assertEqual(told["error"]["requestId"], "abc-123")
        for bad in ("x" * 65, "", "a\tb"):
            told = self.told("/x", 404, X_Request_Id=bad)
            self.assertEqual(told["error"]["requestId"], "r-made")

    def test_bug(self) -> None:
        """A bug is 500 with the request's id, the traceback in the log only."""
        self.broken = RuntimeError("canary-detail")
        response, body = self.ask("/metrics", authorization=self.login)
        self.assertEqual(response.code, 500)
        self.assertNotIn(b"canary", body)
        self.assertNotIn(b"Traceback", body)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_refusal(self) -> None:
        """A refusal of the gate keeps its status, its reason and its time."""
        self.broken = Overloaded(retry_after_s=2.0)
        response, body = self.ask("/metrics", authorization=self.login)
        self.assertEqual(response.code, 503)
        self.assertEqual(response.headers.getRawHeaders("retry-after"), ["2"])
        self.assertEqual(json.loads(body)["error"]["retryAfterMs"], 2000)


class AdmissionTests(TreeCase):
    """Who sees statistics."""

    def assert_statuses(self, stats: int, metrics: int, **fields: str) -> None:
        """See what both pages answer."""
        for path, status in (("/stats", stats), ("/metrics", metrics)):
            response, body = self.ask(path, **fields)
            self.assertEqual(response.code, status, (path, body))

    def test_login(self) -> None:
        """With user and password both pages open; without, one is asked for them."""
        self.assert_statuses(200, 200, authorization=self.login)
        self.assert_statuses(401, 401)
        response, _ = self.ask("/stats")
        self.assertEqual(
            response.headers.getRawHeaders("www-authenticate"),
            ['Basic realm="my gate", charset="UTF-8"'],
        )

    def test_wrong_password(self) -> None:
        """A wrong password is counted with its address."""
        wrong = "Basic " + b64encode(b"admin:wrong").decode()
        self.assert_statuses(401, 401, authorization=wrong)
        self.assertEqual(self.wrong, ["192.0.2.7"] * 2)
        self.assert_statuses(401, 401, authorization="Bearer x")
        self.assertEqual(len(self.wrong), 2)

    def test_held_back(self) -> None:
        """An address that guessed too often has to wait, even with the right password."""
        self.waits["192.0.2.7"] = 30.4
        response, _ = self.ask("/stats", authorization=self.login)
        self.assertEqual(response.code, 429)
        self.assertEqual(response.headers.getRawHeaders("retry-after"), ["31"])
        self.assert_statuses(401, 401)

    def test_networks(self) -> None:
        """Outside the allowed networks there is nothing; inside scraping needs no password."""
        self.serve(allow=(IPv4Network("192.0.2.0/24"),))
        self.assert_statuses(401, 200)
        self.assert_statuses(200, 200, authorization=self.login)
        self.address = "198.51.100.1"
        self.assert_statuses(404, 404, authorization=self.login)
        self.address = ""
        self.assert_statuses(404, 404)

    def test_without_users(self) -> None:
        """Without users statistics are for this machine alone."""
        self.serve(users=False)
        self.assert_statuses(404, 404)
        for self.address in ("127.0.0.1", "::1", "::ffff:127.0.0.1", ""):
            self.assert_statuses(200, 200)
        self.address = "no address"
        self.assert_statuses(404, 404)

    def test_a_proxy_on_this_machine(self) -> None:
        """What a proxy here passes on comes from somewhere else: there is nothing to see."""
        self.serve(users=False)
        for self.address in ("127.0.0.1", ""):
            for name in ("x-forwarded-for", "Forwarded", "via", "x-real-ip"):
                self.assert_statuses(404, 404, **{name: "127.0.0.1"})
        self.serve(users=False, proxies=(IPv4Network("127.0.0.0/8"),))
        self.address = "::ffff:127.0.0.1"
        self.assert_statuses(404, 404)

    def test_without_users_in_a_network(self) -> None:
        """Without users, allowed networks see both pages."""
        self.serve(users=False, allow=(ip_network("192.0.2.0/24"),))  # type: ignore[arg-type]  # it is v4
        self.assert_statuses(200, 200)

    def test_off(self) -> None:
        """Switched off, there is nothing, whoever asks."""
        self.serve(on=False)
        self.assert_statuses(404, 404, authorization=self.login)


class StatsTests(TreeCase):
    """What statistics show."""

    def test_json(self) -> None:
        """Programs get the figures as JSON."""
        self.meters.answered("files", 200, 0.1)
        self.meters.answered("files", 204, 0.1)
        self.meters.answered("-", 0, 0.1)
        self.meters.events["session_theft"] += 2
        told = self.told("/stats", authorization=self.login)
        self.assertEqual((told["version"], told["uptime_s"], told["ready"]), ("1.2", 4000.0, True))
        self.assertEqual(told["traffic"]["requests"], {"2xx": 2, "gone": 1})
        self.assertEqual(told["events"], {"session_theft": 2})
        self.assertEqual(told["instances"][0]["memory_bytes"], 3 * 1024 * 1024)
        self.assertEqual(told["sessions"]["total"], 1)
        self.assertEqual(told["certificates"], [{"name": "gate.example", "days_left": 1.0}])
        (user,) = told["users"]
        self.assertEqual(
            (user["key"], user["sessions"], user["instances"], user["idle_s"]),
            ("aabbccdd", 1, 1, 4.0),
        )

    def test_form(self) -> None:
        """Browsers get a page; the query overrides what Accept says."""
        for path, accept, kind in (
            ("/stats", "text/html,*/*", "text/html; charset=utf-8"),
            ("/stats?format=json", "text/html", "application/json"),
            ("/stats?format=html", "application/json", "text/html; charset=utf-8"),
            ("/stats", "*/*", "application/json"),
        ):
            response, _ = self.ask(path, authorization=self.login, accept=accept)
            self.assertEqual(response.headers.getRawHeaders("content-type"), [kind], path)

    def test_metrics(self) -> None:
        """The exposition has the type Prometheus expects."""
        response, body = self.ask("/metrics", authorization=self.login)
        self.assertEqual(body, b"mcpgate_up 1\n")
        self.assertEqual(
            response.headers.getRawHeaders("content-type"),
            ["text/plain; version=0.0.4; charset=utf-8"],
        )

    def test_page_is_inert(self) -> None:
        """A name made to attack the reader is shown as text (R82)."""
        self.unready.append(EVIL)
        response, body = self.ask("/stats?format=html", authorization=self.login)
        page = body.decode()
        self.assertNotIn("<img", page)
        self.assertNotIn("\x1b", page)
        self.assertNotIn("\u202e", page)
        self.assertIn("&lt;img src=x onerror=alert(1)&gt;", page)
        policy = response.headers.getRawHeaders("content-security-policy") or []
        self.assertEqual(len(policy), 1)
        self.assertIn("default-src 'none'", policy[0])
        self.assertNotIn("unsafe", policy[0])
        self.assertNotIn("<script", page)
        self.assertNotIn("http", page.replace("http_reject", ""))

    def test_nothing_secret(self) -> None:
        """The password is in no answer."""
        for path in ("/stats", "/stats?format=html", "/metrics", "/x"):
            _, body = self.ask(path, authorization=self.login)
            self.assertNotIn(PASSWORD.encode(), body)
            self.assertNotIn(self.login.encode(), body)
