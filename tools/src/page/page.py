"""The operator page: which address shows what, in a frame, or as JSON for a page that is open."""
import json
import re

from ..base.digests import sha256
from ..base.vocabulary import VERSION
from ..agent.figures import ping
from ..protocol.conversation import internal
from .asking import Asker
from .instants import show_clock, show_duration
from .markup import Markup, fill_template, join_markup, make_note, make_state, markup
from .now import show_now
from .requests import (HTML_TYPE, HttpAnswer, HttpError, JSON_TYPE, NO_STORE)
from .schedules import show_schedules
from .session import show_session
from .view import View, draw_part, draw_parts

PAGE_FRAME = ""  # embedded: page.html
PAGE_STYLE = ""  # embedded: page.css
PAGE_SCRIPT = ""  # embedded: page.js
PAGE_ICON = ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" '
             'height="16" rx="4" fill="#2f6f6b"/><path d="M4 5h8M4 8h5M4 11h7" stroke="#fff" '
             'stroke-width="1.6" stroke-linecap="round"/></svg>')
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
KEPT_S = 31536000       # that a browser keeps what is asked for by its digest
FILES = {"/page.css": (PAGE_STYLE, "text/css; charset=utf-8"),
         "/page.js": (PAGE_SCRIPT, "text/javascript; charset=utf-8"),
         "/icon.svg": (PAGE_ICON, "image/svg+xml")}
DIGESTS = {path: sha256(text.encode()).hexdigest()[:12]
           for path, (text, _) in FILES.items()}
_SESSION_PATH = re.compile("/session/([0-9]{1,15})")
_PLACES = (("now", "/", "Now"), ("schedules", "/schedules", "Schedules"),
           ("metrics", "/metrics", "Metrics"))
# a code of the protocol -> the status of HTTP
STATUS_OF_CODES = {"NOT_FOUND": 404, "BAD_REQUEST": 400, "DENIED": 403, "AUTH": 403}


class Page:
    """Answers for the operator page, each for a Client who is known; it changes nothing."""

    def __init__(self, agent):
        self._agent = agent

    def answer(self, request, client):
        """The HttpAnswer to an PageRequest. HttpError."""
        if request.path in FILES:
            return self._give_file(request)
        asker = Asker(self._agent, client)
        if request.path == "/metrics":
            return self._give_metrics(asker)
        is_told = request.path == "/api" or request.path.startswith("/api/")
        path = (request.path[4:] or "/") if is_told else request.path
        try:
            if is_told:
                return self._tell(asker, path, request)
            return HttpAnswer(200, HTML_TYPE, self._draw(asker, self._show(asker, path, request)))
        except HttpError as error:
            if is_told:
                body = json.dumps({"error": error.message})
                return HttpAnswer(error.status, JSON_TYPE, body.encode())
            view = View("%d" % error.status, "This is not there" if error.status == 404 else
                        "This cannot be shown", [], "")
            return HttpAnswer(error.status, HTML_TYPE, self._draw(
                asker, view, make_note(error.message, "trouble")))
        except Exception as error:      # a fault of the program: the log says which
            raise HttpError(500, internal(error, ()).message) from None

    @staticmethod
    def _show(asker, path, request):
        """The View of a path. HttpError."""
        match = _SESSION_PATH.fullmatch(path)
        if match:
            return show_session(asker, request, int(match.group(1)))
        if path == "/schedules":
            return show_schedules(asker, request)
        if path == "/":
            return show_now(asker, request)
        raise HttpError(404, "There is no such page; / is the first one.")

    def _tell(self, asker, path, request):
        """The parts of a page as JSON, for one that is open. With `after` in the address the log is
        told from there on, without its part. HttpError."""
        view = self._show(asker, path, request)
        is_going_on = "after" in request.query
        parts = {part.name: draw_part(part) for part in view.parts
                      if part.name != "log" or not is_going_on}
        body = {"title": self._name(view), "heading": join_markup([view.heading]),
                "status": self._draw_status(), "parts": parts}
        if view.log is not None:
            body["log"] = view.log
        return HttpAnswer(200, JSON_TYPE, json.dumps(body).encode())

    def _name(self, view):
        return "%s \u00b7 %s" % (view.title, self._agent.name)

    def _draw(self, asker, view, note=""):
        """A page as it is first loaded."""
        links = join_markup(markup('<a href="%s"%s>%s</a>', path, Markup(' aria-current="page"')
                                   if place == view.place else "", text)
                            for place, path, text in _PLACES)
        return fill_template(PAGE_FRAME, {
            "title": self._name(view), "heading": view.heading, "agent": self._agent.name,
            "version": VERSION, "links": links, "status": self._draw_status(), "note": note,
            "top": draw_parts(view.parts, "top"), "side": draw_parts(view.parts, "side"),
            "below": draw_parts(view.parts, "below"),
            "shape": "areas" if len({part.area for part in view.parts}) > 1 else "alone",
            "style": "/page.css?v=" + DIGESTS["/page.css"],
            "script": "/page.js?v=" + DIGESTS["/page.js"],
            "icon": "/icon.svg?v=" + DIGESTS["/icon.svg"],
            "clock": show_clock(asker.now, asker.now)}).encode("utf-8", "backslashreplace")

    def _draw_status(self):
        """How the agent is, in a line, and its hold."""
        values = ping(self._agent)
        hold = markup('<p class="hold"><b>Held.</b> Nothing new begins%s%s%s</p>',
                      " until " + show_clock(values["hold_until"], self._agent.clock.now())
                      if values["hold_until"] else "", ": " + values["hold_reason"]
                      if values["hold_reason"] else ".", " (%s)" % values["hold_by"]) \
            if values["hold"] else ""
        return markup(
            '<p class="figures">%s <span><b>%s</b> running</span> <span><b>%s</b> waiting</span> '
            '<span>up <b>%s</b></span> <span><b>%s</b> repositories</span></p>%s',
            make_state(values["status"]), values["running"], values["queued"],
            show_duration(values["uptime"]), values["repositories"], hold)

    @staticmethod
    def _give_metrics(asker):
        """METRICS without its `* `. HttpError."""
        lines, last = asker.list_lines("METRICS")
        if not last.startswith("OK"):
            _, code, message = last.split(" ", 2)
            raise HttpError(STATUS_OF_CODES.get(code, 503), message)
        return HttpAnswer(200, METRICS_TYPE, "".join(line + "\n" for line in lines).encode(
            "utf-8", "backslashreplace"))

    @staticmethod
    def _give_file(request):
        """What belongs to every page; a browser may keep it, under its digest."""
        text, kind = FILES[request.path]
        is_current = request.query.get("v") == DIGESTS[request.path]
        keeping = ("Cache-Control", "private, max-age=%d, immutable" % KEPT_S)
        return HttpAnswer(200, kind, text.encode(), (keeping if is_current else NO_STORE,))
