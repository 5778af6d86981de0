"""The drivers of engines: how a batch system is asked, and what its answers mean.

A driver gets call(words) -> Answer at its construction, which raises NoAnswer, and has
    submit(script, marker) -> id        Refused, NoAnswer: it may have been taken
    find(markers) -> {marker: [ids]}    those that have not ended first
    states(ids) -> {id: JobState}       in one call for all
    end_of(id, state) -> JobState       all that is known of one that has ended
    cancel(ids) -> [ids that could not be told]
    output(id) -> bytes                 what the engine itself has of what it printed
"""
import re
from typing import NamedTuple, Optional

from ..base.controls import one_line
from ..base.vocabulary import QUEUED, RUNNING
from ..definitions.references import substitute
from ..definitions.engines import SLURM
from ..processes.calls import NoAnswer
from ..processes.process import exit_text

HAS_ENDED, IS_LOST = "ENDED", "LOST"
REFUSED_RC = 65         # exit code of `submit`: refused for good (EX_DATAERR of sysexits.h)
IDS_AT_ONCE = 1000      # that one call asks for
ID = re.compile(r"[^\s\x00-\x1f]{1,200}")


class Refused(Exception):
    """An engine does not take a task, and says why."""


class JobState(NamedTuple):
    """What an engine says of a task that it has."""
    word: str                       # QUEUED, RUNNING, ENDED, LOST: it knows nothing of it
    rc: Optional[int] = None        # of one that has ended, where it is known; a signal is negative
    text: str = ""                  # what else there is to say of its end
    is_plain: bool = True           # its exit code says all


def tell_answer(answer):
    """An Answer that is none, in words."""
    text = exit_text(answer.rc)
    return "%s: %s" % (text, one_line(answer.err)) if answer.err else text


def as_signal(rc):
    """The exit code of a shell as one of a process: over 128 it was a signal (PBS: over 256)."""
    for base in (128, 256):
        if base < rc <= base + 64:
            return base - rc
    return rc


class CommandEngine:
    """Calls what the definition says, one call of `state` for all tasks."""

    def __init__(self, options, call):
        self._options, self._call = options, call

    def _ask(self, template, **values):
        """Calls a template -> Answer. A word that is `${ID}` alone becomes one for each id."""
        ids = values.get("ID", [])
        texts = {"MARKER": values.get("MARKER", ""), "SCRIPT": values.get("SCRIPT", ""),
                 "ID": " ".join(ids)}
        words = []
        for word in self._options[template]:
            words += ids if word == "${ID}" else [substitute(word, texts)]
        return self._call(words)

    def _get(self, template, **values):
        """What a template prints, as text. NoAnswer."""
        answer = self._ask(template, **values)
        if answer.rc:
            raise NoAnswer(tell_answer(answer))
        return answer.out.decode("utf-8", "replace")

    def submit(self, script, marker):
        """The id is the last line that is printed."""
        answer = self._ask("submit", SCRIPT=script, MARKER=marker)
        if answer.rc == REFUSED_RC:
            raise Refused(one_line(answer.err) or tell_answer(answer))
        if answer.rc:
            raise NoAnswer(tell_answer(answer))
        return _last_id(answer.out)

    def find(self, markers):
        """One call for each: it is asked where a submission was cut short alone."""
        return {marker: [line.strip() for line in self._get("find", MARKER=marker).split("\n")
                         if ID.fullmatch(line.strip())] for marker in markers}

    def states(self, ids):
        """In calls of so many at once."""
        states = {}
        for start in range(0, len(ids), IDS_AT_ONCE):
            part = ids[start:start + IDS_AT_ONCE]
            states.update(read_states(self._get("state", ID=part), part))
        return states

    def end_of(self, _, state):
        """It has said all."""
        return state

    def cancel(self, ids):
        """One call for each. What comes of it, its state tells."""
        return [each for each in ids if self._ask("cancel", ID=[each]).rc]

    def output(self, each):
        """Nothing without a template."""
        return self._ask("output", ID=[each]).out if "output" in self._options else b""


def _last_id(out):
    lines = out.decode("utf-8", "replace").split()
    if not lines or not ID.fullmatch(lines[-1]):
        raise NoAnswer("printed no id")
    return lines[-1]


def read_states(text, ids):
    """{id: JobState} of what `state` prints: a line for each id, in their order, or, in any order,
    behind the id. One that is not named then is LOST. NoAnswer for what is neither."""
    lines = [line.split(None, 1) for line in text.split("\n") if line.strip()]
    if lines and lines[0][0] in ids:
        named = {words[0]: words[1] if len(words) > 1 else "" for words in lines}
        return {each: read_state_line(named[each]) if each in named else JobState(IS_LOST)
                for each in ids}
    if len(lines) != len(ids):
        raise NoAnswer("printed %d states for %d ids" % (len(lines), len(ids)))
    return {each: read_state_line(" ".join(words)) for each, words in zip(ids, lines)}


def read_state_line(text):
    """`QUEUED`, `RUNNING`, `LOST`, or `ENDED`, its exit code, and maybe words -> JobState."""
    match = re.fullmatch(r"(QUEUED|RUNNING|LOST)\b.*|ENDED(?:\s+(-?[0-9]{1,5}))?(?:\s+(.*?))?\s*",
                         text, re.S)
    if not match:
        raise NoAnswer("printed no state: %s" % text[:60])
    if match.group(1):
        return JobState(match.group(1))
    rc, words = match.group(2), match.group(3) or ""
    return JobState(HAS_ENDED, rc and as_signal(int(rc)), words, not words)


# what sbatch, squeue, scontrol and scancel say where the controller cannot be asked
_AWAY = re.compile("unable to contact|socket timed out|zero bytes|connect|communication|temporar|"
                   "backup controller|authentication|munge|dns srv|transport|time.?d? ?out|"
                   "host is down|configuration source|config source|slurmctld", re.I)
_REFUSAL = re.compile(r"submission failed: |unrecognized option|invalid|unable to open file|"
                      r"ambiguous|requires an argument", re.I)
# the environment that sbatch hands on to a task; what has a purpose here alone stays here
_KEPT = re.compile("PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_.*|TZ|TMPDIR|LD_LIBRARY_PATH|"
                   "MODULEPATH|KRB5CCNAME|SLURM_.*|SBATCH_.*")
_FILTERS = re.compile("SQUEUE_.*|SCANCEL_.*|SCONTROL_.*")       # would hide tasks
_WORDS = {
    "CANCELLED": "cancelled there", "TIMEOUT": "out of time", "DEADLINE": "out of time",
    "OUT_OF_MEMORY": "out of memory", "NODE_FAIL": "its node was lost",
    "BOOT_FAIL": "its node was lost", "PREEMPTED": "preempted", "REVOKED": "revoked there",
}
_GONE = re.compile("invalid job id", re.I)
_ENDINGS = ("COMPLETED", "FAILED", "SPECIAL_EXIT", "LAUNCH_FAILED") + tuple(_WORDS)


class SlurmEngine:
    """Slurm by its own commands."""

    def __init__(self, options, call):
        self._options, self._call = options, call

    def _get(self, words):
        """What a command prints. NoAnswer."""
        answer = self._call(words, _without(_FILTERS))
        if answer.rc:
            raise NoAnswer("%s: %s" % (words[0], tell_answer(answer)))
        return answer.out.decode("utf-8", "replace")

    def submit(self, script, marker):
        """What the engine itself says of it goes to a file beside the script."""
        answer = self._call(
            ["sbatch", "--parsable", "--no-requeue", "--job-name=" + marker, "--open-mode=append",
             "--output=%s/engine.log" % script.rpartition("/")[0].replace("%", "%%")]
            + ["--%s" % name if value is True else "--%s=%s" % (name, value)
               for name, value in sorted(self._options.items())] + [script], _only(_KEPT))
        if answer.rc and _REFUSAL.search(answer.err) and not _AWAY.search(answer.err):
            raise Refused(one_line(answer.err))
        if answer.rc:
            raise NoAnswer("sbatch: " + tell_answer(answer))
        return _last_id(answer.out.split(b";")[0])

    def find(self, markers):
        """In one call, by their names."""
        out, jobs = "", {marker: [] for marker in markers}
        if markers:
            out = self._get(["squeue", "--noheader", "--states=all", "--format=%i|%T|%j",
                             "--name=" + ",".join(markers)])
        for line in out.split("\n"):
            job, _, rest = line.strip().partition("|")
            state, _, name = rest.partition("|")
            if name in jobs:
                jobs[name].insert(0 if state not in _ENDINGS else len(jobs[name]), job)
        return jobs

    def states(self, ids):
        """In one squeue for all; what it does not know any more is LOST."""
        states = {each: JobState(IS_LOST) for each in ids}
        for start in range(0, len(ids), IDS_AT_ONCE):
            try:
                out = self._get(["squeue", "--noheader", "--states=all", "--format=%i|%T",
                                 "--jobs=" + ",".join(ids[start:start + IDS_AT_ONCE])])
            except NoAnswer as error:
                if not _GONE.search(str(error)):
                    raise
                continue
            for line in out.split("\n"):
                job, _, state = line.strip().partition("|")
                if job in states:
                    states[job] = JobState(
                        HAS_ENDED if state in _ENDINGS else
                        QUEUED if state in ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD",
                                            "RESV_DEL_HOLD", "REQUEUE_FED") else RUNNING,
                        None, _WORDS.get(state, ""), state not in _WORDS)
        return states

    def end_of(self, each, state):
        """By scontrol, which has its exit code."""
        try:
            out = self._get(["scontrol", "--oneliner", "show", "job", each])
        except NoAnswer as error:
            if not _GONE.search(str(error)):
                raise
            return state
        fields = dict(part.split("=", 1) for part in out.split() if "=" in part)
        rc, _, number = fields.get("ExitCode", "0:0").partition(":")
        word, reason = fields.get("JobState", ""), fields.get("Reason", "None")
        text = ", ".join(filter(None, (word, reason if reason != "None" else "")))
        text = "%s (%s)" % (_WORDS[word], text) if word in _WORDS else "(%s)" % text
        has_signal = number.isdigit() and int(number)
        return JobState(HAS_ENDED, -int(number) if has_signal else int(rc), text,
                        word not in _WORDS)

    def cancel(self, ids):
        """In one call for all, of those that it still knows."""
        for start in range(0, len(ids), IDS_AT_ONCE):
            answer = self._call(["scancel"] + ids[start:start + IDS_AT_ONCE], _without(_FILTERS))
            if answer.rc and not _GONE.search(answer.err):
                raise NoAnswer("scancel: " + tell_answer(answer))
        return []

    def output(self, _):
        """It has written that into the spool."""
        return b""


def _only(pattern):
    return lambda environment: {name: text for name, text in environment.items()
                                if pattern.fullmatch(name)}


def _without(pattern):
    return lambda environment: {name: text for name, text in environment.items()
                                if not pattern.fullmatch(name)}


def make_driver(engine, call):
    """The driver of an engine's definition; call(words, choose=None) -> Answer, where choose takes
    the environment of the agent and gives that of the call. NoAnswer."""
    kind = SlurmEngine if engine["driver"] == SLURM else CommandEngine
    return kind(engine["options"], call)
