"""The words of the protocol as the client spells them: options, verbs, and the agent's texts."""
import re

from ..base.forms import VERB_FORMS, list_parts

# options that have another name here: --host is where the agent is
OTHER_NAMES = {"-HOST": "--of-host", "-SYNC": "--wait"}
# behind these stands a name, which may look like a verb
NOUNS = frozenset("agent calendar context of repository scenario schedule schema server session "
                  "step task variable".split())
_OPTIONS = frozenset(part.name for form in VERB_FORMS for part in list_parts(form)
                     if part.name.startswith("-"))
_VERBS = sorted((form.name for form in VERB_FORMS), key=len, reverse=True)
# a quoted text; an option; a verb
_SPELLED = re.compile(r'"(?:[^"\\]|\\.)*"|(?<![\w-])-[A-Z][A-Z_]+|(?<![\w.=-])(?:%s)(?![\w.=-])'
                   % "|".join(_VERBS))
# how one says who he is, over the port and here
_LOGIN = "AUTH USER PASSWORD", "--user NAME"
_FROM_A_SHELL = re.compile(r"-[A-Z_]+ \(from a shell (--[a-z-]+)\)")


def spell_option(name):
    """An option of the protocol as the client has it: -MAX_WAIT is --max-wait."""
    return OTHER_NAMES.get(name) or "-" + name.lower().replace("_", "-")


def spell(text):
    """A text of the protocol, or of the agent, with the options and verbs of the client. What is
    quoted, and what is a name, stays as it is."""
    def spell_word(match):
        word = match.group()
        if word.startswith('"'):
            return re.sub('^"(-[A-Z_]+)', lambda option: '"' + spell_known(option.group(1)), word)
        if word.startswith("-"):
            return spell_known(word)
        before = match.string[:match.start()].split()[-1:]
        return word if NOUNS.intersection(before) else word.lower()
    return _SPELLED.sub(spell_word, _FROM_A_SHELL.sub(r"\1", text.replace(*_LOGIN)))


def spell_known(word):
    """An option of the protocol as the client has it, any other word as it is."""
    return spell_option(word) if word in _OPTIONS else word
