"""The type evaluate: comparisons, and expressions searched where they can be ended.

An expression of Python may take for ever to be searched, and long to be compiled, and lets nothing
else of a process run meanwhile. So both are done in a process of their own, at an import too.
"""
import json
import os
import signal
import subprocess

from ..base.vocabulary import DONE, MAX_EXPRESSION, SEARCH_S
from ..base.program import alone_command
from ..base.words import shorten
from ..definitions.kinds import (Field, Kind, VARIABLE_NAME, _check_value, _refuse, check_items,
                                 choice)
from ..definitions.references import _REFERENCE
from ..processes.process import exit_text, start_error
from .task import (TaskError, TaskResult, as_number, ask_process, substitute_all, task_type,
                   tell_value)

OPERATORS = {
    "=": lambda a, b: a == b, "!=": lambda a, b: a != b, "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b, ">": lambda a, b: a > b, ">=": lambda a, b: a >= b,
}
TOO_LONG = "has over %d characters" % MAX_EXPRESSION
TOO_SLOW = "takes over %d s" % SEARCH_S


def search_alone(fd, limit_s):
    """In a process by itself: searches expressions in a text, which it reads as JSON. Writes a line
    of JSON for each to `fd`: whether it is there (null without a text), or what is wrong with it.
    It ends itself when all together take too long."""
    import json
    import re
    import signal
    import sys
    import warnings
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGALRM])
    warnings.simplefilter("ignore")
    expressions, text = json.loads(sys.stdin.buffer.read().decode())
    signal.alarm(int(limit_s))
    with open(int(fd), "wb", 0) as file:
        for expression in expressions:
            try:
                compiled = re.compile(expression)
                result = None if text is None else compiled.search(text) is not None
            except RecursionError:
                result = "is nested too deeply"
            except (re.error, OverflowError, MemoryError, ValueError) as error:
                result = str(error) or "takes too much memory"
            file.write(json.dumps(result).encode() + b"\n")


def _read_results(data, rc):
    """What search_alone wrote, a result for each expression that it came to; how it ended by a
    time-out is one, too."""
    results = [json.loads(line) for line in data.decode().split("\n")[:-1]]
    return results + [TOO_SLOW] if rc == -signal.SIGALRM else results


def find_expression_faults(expressions):
    """{expression: what is wrong with it} of those that cannot be compiled."""
    faults = {text: TOO_LONG for text in expressions if len(text) > MAX_EXPRESSION}
    short = [text for text in expressions if text not in faults]
    try:
        process = subprocess.run(
            alone_command(search_alone, "1", str(SEARCH_S)), stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, start_new_session=True,
            input=json.dumps([short, None]).encode())
        results = _read_results(process.stdout, process.returncode)
        rest = "was not compiled: %s" % exit_text(process.returncode)
    except OSError as error:
        results, rest = [], start_error(error)
    results += [rest] * (len(short) - len(results))
    return dict(faults, **{text: reason for text, reason in zip(short, results) if reason})


def _check_compared(value):
    return check_items(_check_value, value) if isinstance(value, list) else _check_value(value)


@task_type("evaluate")
class EvaluateTask:
    """Compares a variable: false sends the step to its on_false and is no error."""

    fields = {
        "variable": Field(VARIABLE_NAME, required=True, meaning="the variable that is compared"),
        "operator": Field(choice(*(list(OPERATORS) + ["in", "matches"])), required=True,
                          meaning="how it is compared"),
        "value": Field(Kind(_check_compared, _refuse, "text or a number; a list for in"),
                       required=True, meaning="what it is compared with"),
    }

    @staticmethod
    def judge(fields):
        """[(field, reason)] of what is wrong between its fields."""
        if isinstance(fields["value"], list) and fields["operator"] not in ("in", None):
            yield "value", "a list is for the operator in"

    @staticmethod
    def judge_all(tasks):
        """{place in the list: (field, reason)} of fields of tasks whose expression is none."""
        expressions = {place: fields["value"] for place, fields in enumerate(tasks)
                       if fields["operator"] == "matches" and isinstance(fields["value"], str)
                       and not _REFERENCE.search(fields["value"])}
        if not expressions:             # no process
            return {}
        faults = find_expression_faults(list(dict.fromkeys(expressions.values())))
        return {place: ("value", "must be a regular expression: %s" % faults[expression])
                for place, expression in expressions.items() if expression in faults}

    def run(self, fields, execution):
        """Numbers are compared as numbers when both sides are."""
        value, operator = execution.values[fields["variable"]], fields["operator"]
        right = substitute_all(fields["value"], execution.values)
        if operator == "matches":
            is_true = yield from self._search(value, right, execution)
        else:
            is_true = self._compare(value, operator, right)
        message = "" if is_true else "false: %s %s %s (%s is %s)" % (
            fields["variable"], operator, tell_value(right, execution), fields["variable"],
            tell_value(value, execution))
        return TaskResult(DONE, message=message, is_false=not is_true)

    @staticmethod
    def _search(value, expression, execution):
        """Whether an expression is somewhere in a value. TaskError."""
        if len(expression) > MAX_EXPRESSION:
            raise TaskError("%s is no regular expression: it %s" % (shorten(expression), TOO_LONG))
        rc, data = yield from ask_process(
            execution, lambda fd: alone_command(search_alone, str(fd), str(SEARCH_S)),
            dict(os.environ), json.dumps([[expression], value]))
        for result in _read_results(data, rc):
            if isinstance(result, bool):
                return result
            raise TaskError("%s %s: %s" % (
                shorten(expression),
                "was not searched to the end" if result == TOO_SLOW else "is no regular expression",
                result))
        raise TaskError("the process that searches ended early: %s" % execution.exit.text)

    @staticmethod
    def _compare(value, operator, right):
        if operator == "in":
            items = (right if isinstance(right, list)
                     else [item.strip() for item in right.split(",")])
            return any(EvaluateTask._compare(value, "=", item) for item in items)
        numbers = as_number(value), as_number(right)
        return OPERATORS[operator](*(numbers if None not in numbers else (value, right)))
