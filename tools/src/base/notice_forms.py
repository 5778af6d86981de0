"""The forms of NOTICE, and the lines of its replies, as data."""
from .form import AS_ROWS, Form
from .replies import ReplyLine, number_key, text_key, time_key
from .vocabulary import ADMINISTRATOR, MONITOR

NOTICE_LINE = ReplyLine("a notice", (
    text_key("name", "name of the notice"),
    text_key("on", "what it tells of, between commas"),
    text_key("scenarios", "patterns of the scenarios that it tells of, between commas"),
    text_key("type", "how it is sent: mail, http or os"),
    number_key("waiting", "events of this agent's that are not sent yet"),
    time_key("last", "when this agent has sent it last"),
    text_key("message", "why it could not be sent, and when it is tried again or was given up")))
NOTICE_TEST_LINE = ReplyLine("the notice", (
    text_key("notice", "name of the notice"), text_key("status", "DONE or ERROR"),
    text_key("message", "why it could not be sent")))
NOTICE_NAME_LINE = ReplyLine("the notice", (text_key("notice", "name of the notice"),))

_NOTICE_MEANINGS = {"NAME": "name of the notice"}
NOTICE_FORMS = (
    Form("NOTICE LIST", "[-JSON]", MONITOR, "list the notices, and what waits to be sent of each",
         AS_ROWS, lines=(NOTICE_LINE,)),
    Form("NOTICE TEST", "NAME", ADMINISTRATOR, "send a notice that says it is a test, and wait for "
         "what comes of that", oks=(NOTICE_TEST_LINE,), meanings=_NOTICE_MEANINGS),
    Form("NOTICE DEL", "NAME", ADMINISTRATOR, "delete a notice, and what waits of it",
         oks=(NOTICE_NAME_LINE,), meanings=_NOTICE_MEANINGS),
)
