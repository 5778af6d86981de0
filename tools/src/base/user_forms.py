"""The forms of the requests about users, and the lines of their replies."""
import re

from .form import AS_ROWS, Form
from .replies import ReplyLine, text_key, time_key
from .vocabulary import ADMINISTRATOR, MONITOR

_USER = text_key("user", "name of the user")
_ROLE = text_key("role", "monitor, operator or administrator")
_PATTERNS = "names of the scenarios that are there for him, between commas; * stands for any " \
    "text, ? for one character"
USER_LINE = ReplyLine("a user", (
    _USER, _ROLE, text_key("scenarios", _PATTERNS + "; empty: all"),
    text_key("os_user", "the OS user of this host who needs no password; empty: there is none"),
    text_key("password", "own; once: for one use; expired: that was not used in time"),
    time_key("until", "until when the one for one use lets in"),
    time_key("created", "when the user was added"), time_key("changed", "when he was changed")))
USER_NAME_LINE = ReplyLine("the user", (_USER,))
USER_PASSWORD_LINE = ReplyLine("the user", (
    _USER, text_key("password", "his password for one use within a day, which nobody tells again",
                    True)))
KNOWN_LINE = ReplyLine("who you are now", (
    _USER, _ROLE, text_key("note", "that the password was for one use", True)))

_KINDS = {"NAME": "user", "USER": "text", "PASSWORD": "secret", "NEW": "password",
          "-ROLE": "role", "-SCENARIOS": "patterns", "-OS_USER": "os_user"}
_MEANINGS = {
    "NAME": "name of the user", "USER": "name of the user", "PASSWORD": "his password",
    "NEW": "the new password", "-ROLE": "what he may do: each may do what those before may",
    "-SCENARIOS": _PATTERNS + " (all); with nothing behind the = all",
    "-OS_USER": "the OS user of this host, by name or number, who is this user without a "
                "password; with nothing behind the = nobody",
    "-RESET": "give him a new password for one use within a day"}
_ROLES = "monitor|operator|administrator"


def _make_form(name, words, role, text, **more):
    """A Form with the kinds and meanings of its words."""
    names = re.findall("-?[A-Z_]+", words)
    kinds, meanings = ({word: table[word] for word in names if word in table}
                       for table in (_KINDS, _MEANINGS))
    return Form(name, words, role, text, kinds=kinds, meanings=meanings, **more)


USER_FORMS = (
    _make_form("AUTH", "USER PASSWORD", None, "say who you are; from then on the connection is "
               "that user's", oks=(KNOWN_LINE,)),
    _make_form("USERS LIST", "[-JSON]", ADMINISTRATOR, "list the users", reply=AS_ROWS,
               lines=(USER_LINE,)),
    _make_form("USERS ADD", "NAME [-ROLE=%s] [-SCENARIOS=a*,b] [-OS_USER=name]" % _ROLES,
               ADMINISTRATOR, "add a user, who gets a password for one use; -ROLE must be given",
               oks=(USER_PASSWORD_LINE,)),
    _make_form("USERS SET", "NAME [-ROLE=%s] [-SCENARIOS=a*,b] [-OS_USER=name] [-RESET]" % _ROLES,
               ADMINISTRATOR, "change a user, effective at once", oks=(USER_PASSWORD_LINE,)),
    _make_form("USERS PASSWORD", "NAME NEW", MONITOR, "give a user another password: yourself, or "
               "as an administrator anybody", oks=(USER_NAME_LINE,)),
    _make_form("USERS DEL", "NAME", ADMINISTRATOR, "delete a user", oks=(USER_NAME_LINE,)),
)
