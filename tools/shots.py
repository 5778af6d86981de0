#!/usr/bin/env python3
"""Draws the pictures of README: the operator page and `agentcli.py top`, as SVG of their texts and shapes.

    .venv-check/3.11/bin/python tools/shots.py [--folder PATH]

It needs pytest (the environment of tools/check.py) and a Chromium. A night of an agent is played in this process, on a
clock that begins at 2026-06-02T01:55Z wherever and whenever that is. The page is laid out by the Chromium, and what
stands where is read from its DOM; the screen is that of a terminal of 24 rows. So the pictures stay true: after a change
of the page or of `top`, draw them again. What differs from one time to the next is some tenths of a second.
"""
import argparse
import contextlib
import html
import json
import os
import pathlib
import re
import sys
import tempfile
import time

TOP = pathlib.Path(__file__).resolve().parent.parent
sys.path[:0] = [str(TOP), str(TOP / "tests")]

from conftest import AgentInside, program, wait_for         # noqa: E402
from support.browser import Browser                         # noqa: E402
from support.terminal import Picture, Terminal              # noqa: E402

FOLDER = TOP / "sqlite_repos" / "examples"
BEGIN = 1780365300              # 2026-06-02T01:55:00Z, a Tuesday
MAX_BYTES = 60 * 1024           # of a picture
PAGE_WIDTH, PAGE_HEIGHT = 1180, 1010
ROWS, COLUMNS = 24, 100         # of the terminal
CELL = 8.4, 18                  # pixels of a character of it
TOP_COLOURS = {"": "#d8dcdb", "1": "#ffffff", "2": "#8b979e", "31": "#f08b82", "32": "#76c893", "33": "#e5b454",
               "34": "#82b7f0", "35": "#c7a3e4", "36": "#7cc4bb", "7": "#14181b"}

# every text of the page line by line, and every shape with a colour, in the order in which they are painted
LAYOUT = r"""
(() => {
  const texts = [], shapes = [], canvas = document.createElement("canvas").getContext("2d");
  const round = value => Math.round(value * 10) / 10;
  const isSeen = colour => colour && colour != "none" && !/, 0\)$/.test(colour) && colour != "transparent";
  const measure = style => {
    canvas.font = `${style.fontWeight} ${style.fontSize} ${style.fontFamily}`;
    return canvas.measureText("x");
  };
  function say(text, box, style, colour) {
    const metrics = measure(style), middle = metrics.fontBoundingBoxAscent + metrics.fontBoundingBoxDescent;
    texts.push([round(box.left), round(box.top + (box.height - middle) / 2 + metrics.fontBoundingBoxAscent),
                round(box.width), text, style.fontWeight, style.fontSize, /mono/i.test(style.fontFamily), colour]);
  }
  function lines(node, style, colour) {
    const range = document.createRange(), words = [...node.textContent.matchAll(/\S+/g)];
    let line = null;
    for (const word of words) {
      range.setStart(node, word.index);
      range.setEnd(node, word.index + word[0].length);
      const parts = [...range.getClientRects()];
      if (!parts.length || !parts[0].width) continue;
      let text = word[0];
      for (const box of parts) {
        const share = parts.length == 1 ? text : text.slice(0, Math.round(text.length * box.width /
          parts.reduce((sum, each) => sum + each.width, 0)));
        if (line && Math.abs(line.top - box.top) < 2 && box.left >= line.right - 1) {
          line.text += " " + share;
          line.right = box.right;
        } else {
          if (line) say(line.text, { ...line, width: line.right - line.left }, style, colour);
          line = { left: box.left, top: box.top, height: box.height, right: box.right, text: share };
        }
      }
    }
    if (line) say(line.text, { ...line, width: line.right - line.left }, style, colour);
  }
  function shape(box, style) {
    const radius = Math.min(parseFloat(style.borderTopLeftRadius) || 0, box.height / 2);
    const widths = ["Top", "Right", "Bottom", "Left"].map(side => parseFloat(style[`border${side}Width`]));
    const colours = ["Top", "Right", "Bottom", "Left"].map(side => style[`border${side}Color`]);
    const isFrame = widths.every(width => width == widths[0] && width) && isSeen(colours[0]);
    if (isSeen(style.backgroundColor) || isFrame)
      shapes.push(["rect", round(box.left), round(box.top), round(box.width), round(box.height), round(radius),
                   isSeen(style.backgroundColor) ? style.backgroundColor : "none", isFrame ? colours[0] : "none"]);
    if (!isFrame && widths[2] && isSeen(colours[2]))
      shapes.push(["rect", round(box.left), round(box.bottom - widths[2]), round(box.width), widths[2], 0, colours[2], "none"]);
    if (!isFrame && widths[3] && isSeen(colours[3]))
      shapes.push(["rect", round(box.left), round(box.top), widths[3], round(box.height), 0, colours[3], "none"]);
  }
  function mark(each, box, style) {        // the one before the word of a state
    const dot = getComputedStyle(each, "::before"), size = parseFloat(dot.width);
    const left = box.left + parseFloat(style.paddingLeft), top = box.top + (box.height - size) / 2;
    const isRing = dot.backgroundColor == "rgba(0, 0, 0, 0)";
    shapes.push([dot.transform != "none" ? "diamond" : parseFloat(dot.borderTopLeftRadius) < size / 3 ? "square" :
                 isRing ? "ring" : "dot", round(left), round(top), round(size), round(size), 0, style.color, "none"]);
  }
  for (const each of document.body.querySelectorAll("*")) {
    const style = getComputedStyle(each), box = each.getBoundingClientRect();
    if (each.closest(".unseen, .skip, [hidden], option") || !each.closest("svg") && (box.width < 1 || box.height < 1)) continue;
    if (each.closest("svg")) {
      if (each.tagName == "rect" || each.tagName == "line") shapes.push([
        "rect", round(box.left), round(box.top), round(Math.max(box.width, .8)), round(box.height),
        each.tagName == "rect" ? 2 : 0, each.tagName == "rect" ? style.fill : style.stroke, "none"]);
      if (each.tagName == "text") say(each.textContent, box, style, style.fill);
      continue;
    }
    shape(box, style);
    if (each.matches(".state")) mark(each, box, style);
    if (each.matches("[aria-current]")) shapes.push(["rect", round(box.left), round(box.bottom), round(box.width), 2, 0,
      getComputedStyle(document.documentElement).getPropertyValue("--accent").trim(), "none"]);
    if (each.matches("input, select")) {
      const text = each.matches("select") ? each.selectedOptions[0].text : each.value || each.placeholder;
      const left = box.left + parseFloat(style.paddingLeft) + 1;
      measure(style);
      const width = Math.min(canvas.measureText(text).width, box.right - left - 8);
      let shown = text;
      while (shown && canvas.measureText(shown).width > width + 1) shown = shown.slice(0, -1);
      if (shown) say(shown, { left, top: box.top, width: canvas.measureText(shown).width, height: box.height }, style,
        each.value && each.matches("input") || each.matches("select") ? style.color : getComputedStyle(
          document.querySelector(".dim") || each).color);
      continue;
    }
    for (const node of each.childNodes) if (node.nodeType == 3) lines(node, style, style.color);
  }
  return { texts, shapes, paper: getComputedStyle(document.body).backgroundColor };
})()
"""


# -- a night ---------------------------------------------------------------------------


class NightClock(program.Clock):
    """A clock that begins at BEGIN, on which time can pass at once."""

    def __init__(self):
        self.passed, self._begun = 0.0, super().monotonic()

    def now(self):
        return BEGIN + self.monotonic() - self._begun

    def monotonic(self):
        return super().monotonic() + self.passed


class Night:
    """An agent that has had a night: its sessions end when the picture's course says so."""

    def __init__(self, folder):
        self.running = AgentInside(folder, "--name", "NIGHT", "--max-sessions", "8")
        self.running.clock = NightClock()
        self.running.start()
        self.running._conversation = program.Conversation(
            self.running.agent, program.Client(program.ADMINISTRATOR, "ops"))
        self._gates = pathlib.Path(folder)

    def scenario(self, name, version, *steps, **fields):
        """A document of a scenario: of each step its name, what it prints, and its exit code."""
        return dict({"name": name, "version": version, "steps": [
            {"name": step, "tasks": [{"type": "os", "command": "echo '%s'; until [ -e '%s'/$SESSION ]; do sleep 0.02; done"
                                      "%s" % (text, self._gates, "; echo '%s' >&2; exit 3" % text if code else "")}]}
            for step, text, code in steps]}, **fields)

    def clock(self, hours, minutes, seconds=0):
        """Lets time pass until then, and what came due begin: otherwise it is late at the next time."""
        self.running.let_pass_until(BEGIN - 6900 + 3600 * hours + 60 * minutes + seconds)
        wait_for(lambda: all(row["waits_for"] != "slot" and row["status"] != "QUEUED" or row["scenario"] == "LOAD_WEATHER"
                             for row in self.running.rows("SESSIONS -STATUS=WAITING,QUEUED")), "what is due to begin")

    def newest(self, scenario):
        """The number of the newest session, once it runs."""
        return wait_for(lambda: next((row["session"] for row in self.running.rows(
            "SESSIONS -SCENARIO=%s -STATUS=RUNNING -LIMIT=1" % scenario)), None), scenario + " to run")

    def end(self, scenario):
        """The newest session of a scenario ends now."""
        session = self.newest(scenario)
        (self._gates / session).write_text("")
        self.running.wait_status(session, "DONE", "ERROR")

    def pass_by(self):
        """Plays it until 06:24."""
        ask = self.running.ok
        self.running.import_document({"scenarios": [
            self.scenario("LOAD_WEATHER", "001", ("fetch", "48213 bytes", 0), concurrency={"limit": 1}),
            self.scenario("REPORT_DAILY", "3", ("draw", "cannot read /srv/in/today.csv", 3)),
            self.scenario("SYNC_CRM", "2.1", ("sync", "customer 4117", 0)),
            self.scenario("CLEAN_TMP", "1", ("rm", "12 files removed", 0)),
            self.scenario("BACKUP_DB", "12", ("dump", "3 GiB", 0))], "schedules": [
            {"name": "NIGHTLY", "scenario": "LOAD_WEATHER", "rule": "daily at 02:00"},
            {"name": "REPORT", "scenario": "REPORT_DAILY", "rule": "weekly on mon,tue,wed,thu,fri at 03:30"},
            {"name": "CRM", "scenario": "SYNC_CRM", "rule": "hourly at 10:00", "overlap": "skip"},
            {"name": "TIDY", "scenario": "CLEAN_TMP", "rule": "every 2h"},
            {"name": "WEEKLY_BACKUP", "scenario": "BACKUP_DB", "rule": "weekly on sat at 22:00"}]})
        ask('HOLD "the disk is being replaced" -SCHEDULE=WEEKLY_BACKUP')
        self.clock(2, 0)
        self.clock(2, 1)
        self.end("CLEAN_TMP")
        self.clock(2, 10)
        self.clock(2, 14)
        self.end("SYNC_CRM")
        self.clock(2, 31)
        self.end("LOAD_WEATHER")
        self.clock(3, 10)
        self.clock(3, 13)
        self.end("SYNC_CRM")
        self.clock(3, 30)
        self.clock(3, 32)
        self.end("REPORT_DAILY")
        self.clock(4, 0)
        self.clock(4, 2)
        self.end("CLEAN_TMP")
        self.clock(4, 10)
        self.newest("SYNC_CRM")
        self.clock(5, 10)
        self.clock(5, 22)
        self.end("SYNC_CRM")
        self.clock(6, 0)
        self.clock(6, 1)
        self.end("CLEAN_TMP")
        self.clock(6, 10)
        self.newest("SYNC_CRM")
        self.clock(6, 12)
        ask('EXEC LOAD_WEATHER -NAME="again, for Monday"')
        self.newest("LOAD_WEATHER")
        self.clock(6, 20)
        ask('EXEC LOAD_WEATHER -NAME="and for Sunday"')
        self.clock(6, 24)
        return self

    def close(self):
        """Ends what it has begun."""
        self.running.finish()


# -- drawing ---------------------------------------------------------------------------


def to_hex(colour):
    """`rgb(1, 2, 3)` -> #010203; what is none stays."""
    numbers = re.findall("[0-9.]+", colour) if colour.startswith("rgb") else []
    return "#%02x%02x%02x" % tuple(int(float(number)) for number in numbers[:3]) if numbers else colour


def short(number):
    """A number without a fraction that is none."""
    return "%g" % round(number, 1)


def make_svg(width, height, title, styles, parts):
    """The whole picture: `styles` are {what a style says: its class}."""
    rules = "".join(".%s{%s}" % (name, rule) for rule, name in styles.items())
    return ('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img" '
            'aria-label="%s"><title>%s</title><style>%s</style>\n%s\n</svg>\n' % (
                width, height, width, height, title, title, rules, "\n".join(parts)))


class Styles(dict):
    """Gives each style a class of one or two letters."""

    def name(self, rule):
        return self.setdefault(rule, "abcdefghijklmnopqrstuvwxyz"[len(self) % 26] + "12345"[len(self) // 26 - 1] * (
            len(self) > 25))


def draw_page(layout, width, height, title):
    """The layout of a page -> the text of a picture, cut at its height."""
    styles, parts = Styles(), ['<rect width="100%%" height="100%%" fill="%s"/>' % to_hex(layout["paper"])]
    for kind, left, top, wide, high, radius, fill, stroke in layout["shapes"]:
        if top < height:
            parts.append(draw_shape(styles, kind, (left, top, wide, high, radius), to_hex(fill), to_hex(stroke)))
    for left, base, wide, text, weight, size, is_mono, colour in layout["texts"]:
        if base < height:
            rule = "font:%s %s %s;fill:%s" % (weight, size, "ui-monospace,monospace" if is_mono else
                                              "system-ui,'Segoe UI','DejaVu Sans',sans-serif", to_hex(colour))
            parts.append('<text class="%s" x="%s" y="%s" textLength="%s">%s</text>' % (
                styles.name(rule), short(left), short(base), short(wide), html.escape(text, quote=False)))
    return make_svg(width, height, title, styles, parts)


def draw_shape(styles, kind, box, fill, stroke):
    """A box, or the mark before the word of a state."""
    left, top, wide, high, radius = box
    middle = "%s %s" % (short(left + wide / 2), short(top + high / 2))
    if kind in ("dot", "ring"):
        inner = "fill:none;stroke:%s;stroke-width:1.4" % fill if kind == "ring" else "fill:%s" % fill
        return '<circle class="%s" cx="%s" cy="%s" r="%s"/>' % (
            (styles.name(inner),) + tuple(middle.split()) + (short(wide / 2 - 0.7 * (kind == "ring")),))
    turn = ' transform="rotate(45 %s)"' % middle if kind == "diamond" else ""
    rule = "fill:%s" % fill + (";stroke:%s" % stroke if stroke != "none" else "")
    if stroke != "none":                # its line lies within the box
        left, top, wide, high = left + 0.5, top + 0.5, wide - 1, high - 1
    corner = ' rx="%s"' % short(radius) if radius else ""
    return '<rect class="%s" x="%s" y="%s" width="%s" height="%s"%s%s/>' % (
        styles.name(rule), short(left), short(top), short(wide), short(high), corner, turn)


class Inked(str):
    """A character with the codes of its colour."""
    ink = ()

    @classmethod
    def make(cls, char, ink):
        inked = cls(char)
        inked.ink = tuple(ink)
        return inked


class ColouredPicture(Picture):
    """A Picture that keeps colours, too."""
    _ink = ()

    def _put(self, char):
        super()._put(Inked.make(char, self._ink))

    def _obey(self, mark, numbers, letter):
        if letter != "m" or mark:
            super()._obey(mark, numbers, letter)
            return
        for code in (numbers or "0").split(";"):
            if code in ("", "0"):
                self._ink = ()
            elif code in ("39", "22", "27"):
                gone = {"39": "31 32 33 34 35 36", "22": "1 2", "27": "7"}[code].split()
                self._ink = tuple(each for each in self._ink if each not in gone)
            else:
                self._ink += (code.lstrip("0"),)

    def list_runs(self):
        """(row, column, text, ink) of what is alike and beside each other; blanks are only told where they are seen."""
        for row, line in enumerate(self._cells):
            column = 0
            while column < len(line):
                ink, begin = getattr(line[column], "ink", ()), column
                while column < len(line) and getattr(line[column], "ink", ()) == ink:
                    column += 1
                text = "".join(line[begin:column])
                if text.strip() or "7" in ink:
                    yield row, begin, text, ink


def draw_terminal(runs, rows, columns, title):
    """The runs of a screen -> the text of a picture."""
    styles, (wide, high), edge = Styles(), CELL, 16
    width, height = int(columns * wide + 2 * edge), rows * high + 2 * edge
    parts = ['<rect width="100%" height="100%" rx="8" fill="#14181b"/>']
    font = "font:14px ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace;white-space:pre;fill:%s"
    for row, column, text, ink in runs:
        left, top = edge + column * wide, edge + row * high
        colour = next((TOP_COLOURS[code] for code in ("7", "31", "32", "33", "34", "35", "36", "2", "1") if code in ink),
                      TOP_COLOURS[""])
        if "7" in ink:
            parts.append('<rect class="%s" x="%s" y="%s" width="%s" height="%d"/>' % (
                styles.name("fill:#9aa5ab"), short(left), short(top), short(len(text) * wide), high))
        for match in re.finditer(r"\S+(?: \S+)*", text):
            parts.append('<text class="%s" x="%s" y="%s" textLength="%s">%s</text>' % (
                styles.name(font % colour + (";font-weight:600" if "1" in ink else "")),
                short(left + match.start() * wide), short(top + 13.5), short(len(match.group()) * wide),
                html.escape(match.group(), quote=False)))
    return make_svg(width, height, title, styles, parts)


def shoot_page(port):
    """The picture of the first page."""
    with Browser() as tab:
        tab.show(PAGE_WIDTH, PAGE_HEIGHT)
        tab.go("http://localhost:%d/" % port)
        layout = tab.run(LAYOUT)
    return draw_page(layout, PAGE_WIDTH, PAGE_HEIGHT, "The operator page of an agent")


def shoot_top(port, clock, folder):
    """The picture of `agentcli.py top`, which has the time of the night."""
    (folder / "sitecustomize.py").write_text(
        "import time\nown = time.time\ntime.time = lambda: own() + %r\n" % (clock.now() - time.time()))
    with Terminal(port, "top", rows=ROWS, columns=COLUMNS, env={"PYTHONPATH": str(folder), "TZ": "UTC"}) as terminal:
        terminal.wait_screen("q quit")
        picture = ColouredPicture(ROWS, COLUMNS)
        picture.take(terminal.text)
        terminal.type("q")
        terminal.end()
    return draw_terminal(picture.list_runs(), ROWS, COLUMNS, "agentcli.py top on a terminal")


def main(arguments=None):
    """Draws both -> exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=pathlib.Path, default=FOLDER, help="where the pictures are put")
    options = parser.parse_args(arguments)
    os.environ["TZ"] = "UTC"
    time.tzset()
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = pathlib.Path(name)
        (folder / "night").mkdir()
        night = Night(folder / "night")
        stack.callback(night.close)
        night.pass_by()
        server = program.Server(night.running.agent, "127.0.0.1", 0, program.WireLimits())
        stack.callback(server.close)
        server.listen()
        pictures = {"page.svg": shoot_page(server.port),
                    "top.svg": shoot_top(server.port, night.running.clock, folder)}
    for name, text in pictures.items():
        assert len(text.encode()) <= MAX_BYTES, "%s has %d bytes" % (name, len(text.encode()))
        (options.folder / name).write_text(text, encoding="utf-8")
        print("%s: %d bytes" % (options.folder / name, len(text.encode())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
