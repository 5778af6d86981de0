"""The form of AUDIT, and the lines of the audit in replies, as data."""
from .form import AS_ROWS, Form
from .replies import FLAG_KEY, ReplyKey, ReplyLine, number_key, text_key, time_key
from .vocabulary import ADMINISTRATOR

AUDIT_LINE = ReplyLine("a row of the audit", (
    time_key("time", "when it was; of several, when the last was"),
    text_key("agent", "name of the agent whose chain it stands in"),
    number_key("n", "its number in the chain"),
    text_key("user", "who asked: user of the agent; empty: its owner, or nobody that it knows"),
    text_key("os_user", "user of the host at the other end, or that agent.py ran as"),
    text_key("address", "where he asked from; empty: no connection, but agent.py itself"),
    text_key("verb", "what was asked for"),
    text_key("object", "what it was about: number of the session, name of the schedule"),
    text_key("outcome", "OK, or the code of the error"),
    number_key("count", "how often, of a refusal that came again and again"),
    text_key("hash", "SHA-256 of the row, which the next one carries")))
AUDIT_END_LINE = ReplyLine("the end of this agent's chain", (
    text_key("head", "hash of its newest row, for --verify-audit --head"),))
AUDIT_PURGED_LINE = ReplyLine("with -AUDIT, what was purged", (
    number_key("purged", "rows of the audit that were deleted"),
    ReplyKey("dry_run", FLAG_KEY, "yes: nothing was deleted, it is only counted", True)))

AUDIT_FORMS = (
    Form("AUDIT", "[-SINCE=time] [-WHO=name] [-VERB=verb] [-LIMIT=n] [-JSON]", ADMINISTRATOR,
         "who changed what, and who was refused, newest first", AS_ROWS, oks=(AUDIT_END_LINE,),
         lines=(AUDIT_LINE,), kinds={"-WHO": "label"},
         meanings={"-SINCE": "only what was from then on",
                   "-WHO": "only what this user asked for, or this user of the host",
                   "-VERB": "only this verb; SCHED stands for all that begin so"}),
)
