"""A rule of a schedule, from its text to days and times of day."""
import functools
import re
import sys
from datetime import date
from typing import NamedTuple

from ..base.errors import CalendarError
from ..base.times import parse_duration
from .days import (DayTimes, Days, EPOCH_ORDINAL, EVERY_DAY, FORMS, HOURS, MACROS,
                   MONTH_LENGTHS, MONTH_NUMBERS, NEVER, ORDINALS, WEEKDAY_NUMBERS, _is_possible,
                   _share)


BY_STARTS = ("startup", "boot")     # kinds that a start of the agent fires


class Rule(NamedTuple):
    """A parsed rule, without zone and window."""

    kind: str                  # a key of FORMS
    days: Days = EVERY_DAY
    times: DayTimes = DayTimes((0,), (0,))
    # matches the local clock of each real hour: no gap to fill, both passes of a fold
    real: bool = False
    step: int = 0              # seconds, of `every`
    day: int = None            # of `at`

    @property
    def is_by_clock(self):
        """Whether it has due times by the clock."""
        return self.kind not in BY_STARTS


_COMMA, _ON_AT, _NUMBER = (re.compile(" ?, ?"), re.compile("(?:on (.+) )?at (.+)"),
                           re.compile("[0-9]{1,4}"))
_CLOCK = re.compile("([01]?[0-9]|2[0-3]):([0-5][0-9])(?::([0-5][0-9]))?")
_MINUTE = re.compile("([0-5]?[0-9]):([0-5][0-9])")
_LIKE_CRON = re.compile(r"[-0-9*/,]+(\s+[^\s:]+){4,5}")
# the fields of cron: name, first and last value
_CRON_FIELDS = (("second", 0, 59), ("minute", 0, 59), ("hour", 0, 23), ("day of month", 1, 31),
                ("month", 1, 12), ("week day", 0, 6))
_EACH = {"second": "of each minute", "minute": "of each hour", "hour": "of each day",
         "day of month": "of each month", "month": "of each year", "week day": "alone"}
# what is incomplete in an item of a field of cron, and what would be right
_INCOMPLETE = ((re.compile("$"), "an item is empty; leave out the comma"),
               (re.compile("/"), "before / comes * or a range, like */5"),
               (re.compile("-"), "a range lacks its start; it is like 1-5"),
               (re.compile("[^/]*-(/|$)"), "a range lacks its end; it is like 1-5"),
               (re.compile("[^/]*/(?!0*[1-9][0-9]{0,5}$)"),
                "after / comes a step from 1 up, like */5"))


@functools.lru_cache(maxsize=8192)
def parse_rule(text):
    """The Rule written in `text`. CalendarError names the part that is wrong."""
    kind, _, rest = _COMMA.sub(",", " ".join(text.lower().split())).partition(" ")
    if kind.startswith("@") and not rest:
        kind, rest = "cron", kind
    try:
        if kind not in FORMS:
            if _LIKE_CRON.fullmatch(text.strip()):
                raise CalendarError("write 'cron %s'" % text.strip())
            raise CalendarError("'%s' is no kind of rule; one of: %s" % (kind, " ".join(FORMS)))
        return _parse_cron(rest) if kind == "cron" else _parse_words(sys.intern(kind), rest)
    except CalendarError as error:
        raise CalendarError("rule '%s': %s" % (text[:200], error)) from None


def _parse_words(kind, rest):
    """The Rule of a kind but cron, and what stands behind that word. CalendarError."""
    if kind in BY_STARTS and not rest:
        return Rule(kind, times=NEVER)
    if kind == "every" and rest[:1].isalpha():
        raise CalendarError("'%s' is no duration, like 15m; for days or times of day write "
                            "'%s' or '%s'" % (rest, FORMS["daily"], FORMS["weekly"]))
    if kind == "every" and rest:
        step = parse_duration(rest, is_whole=True)
        if not step:
            raise CalendarError("duration '%s' is below 1s" % rest)
        return Rule(kind, step=step)
    if kind == "at" and re.fullmatch("[^ t]+[ t][^ t]+", rest):
        day, clock = re.split("[ t]", rest)
        return Rule(kind, day=parse_day(day), days=_parse_yearly(day[5:]),
                    times=_parse_times(clock, parse_clock))
    match = _ON_AT.fullmatch(rest)
    parse_days = {"weekly": _parse_weekly, "monthly": _parse_monthly,
                  "yearly": _parse_yearly}.get(kind)
    if kind in BY_STARTS + ("every", "at") or not match or bool(match.group(1)) != bool(parse_days):
        raise CalendarError("write '%s'" % FORMS[kind])
    if kind == "hourly":
        return Rule(kind, times=_parse_times(match.group(2), _parse_minute, HOURS), real=True)
    days = parse_days(match.group(1)) if parse_days else EVERY_DAY
    return Rule(kind, days, _parse_times(match.group(2), parse_clock))


def _parse_times(text, parse, starts=(0,)):
    return DayTimes(starts, tuple(sorted({parse(item) for item in text.split(",")})))


def parse_clock(text):
    """The second of the day of `HH:MM[:SS]`."""
    match = _CLOCK.fullmatch(text)
    if not match:
        raise CalendarError("time '%s' is not HH:MM or HH:MM:SS, 00:00 to 23:59:59" % text)
    return int(match.group(1)) * 3600 + int(match.group(2)) * 60 + int(match.group(3) or 0)


def _parse_minute(text):
    match = _MINUTE.fullmatch(text)
    if not match:
        raise CalendarError("time '%s' is not minute:second of the hour, 00:00 to 59:59" % text)
    return int(match.group(1)) * 60 + int(match.group(2))


def parse_day(text):
    """Days since 1970-01-01 of `YYYY-MM-DD`."""
    try:
        year, month, day = re.fullmatch("([0-9]{4})-([0-9]{2})-([0-9]{2})", text).groups()
        return date(int(year), int(month), int(day)).toordinal() - EPOCH_ORDINAL
    except (AttributeError, ValueError):
        raise CalendarError("'%s' is not a date of the calendar, YYYY-MM-DD" % text) from None


@functools.lru_cache(maxsize=1024)
def _parse_weekly(text):
    return EVERY_DAY._replace(weekdays=_parse_weekdays(text))


@functools.lru_cache(maxsize=1024)
def _parse_monthly(text):
    plain, nth = [], []
    for item in text.split(","):
        ordinal, _, name = item.partition(" ")
        if name and ordinal in ORDINALS:
            nth.append(name + ORDINALS[ordinal])
        else:
            plain.append(item)
    return _parse_days(",".join(plain) or "*", "*", ",".join(nth) or "*", "last",
                       ", last or first to fourth or last with a week day, like 'first mon'")


@functools.lru_cache(maxsize=1024)
def _parse_yearly(text):
    months = [0] * 12
    for item in text.split(","):
        if not re.fullmatch("(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])", item):
            raise CalendarError("day '%s' is not MM-DD, like 12-31" % item)
        month, day = int(item[:2]) - 1, int(item[3:])
        if day > MONTH_LENGTHS[month]:
            raise CalendarError("can never fire: no year has the day %s" % item)
        months[month] |= 1 << day
    return EVERY_DAY._replace(months=tuple(months))


def _parse_cron(rest):
    """The Rule of the fields of cron, or of a macro like @daily. CalendarError."""
    if rest == "@reboot":
        return Rule("boot", times=NEVER)
    if rest.startswith("@") and rest not in MACROS:
        raise CalendarError("'%s' is none of %s @reboot" % (rest, " ".join(MACROS)))
    fields = MACROS.get(rest, rest).split()
    if len(fields) not in (5, 6):
        raise CalendarError("%d fields; cron has 5 (minute hour day month weekday) "
                            "or 6 (second first)" % len(fields))
    second, minute, hour, day, month, weekday = fields if len(fields) == 6 else ["0"] + fields
    seconds, minutes = _parse_field("second", second, 0, 59), _parse_field("minute", minute, 0, 59)
    within = _share(tuple(60 * minute + second for minute in minutes for second in seconds))
    starts = _share(tuple(3600 * hour for hour in _parse_field("hour", hour, 0, 23)))
    days = _share(_parse_days(day, month, weekday))
    if not _is_possible(days):
        raise CalendarError("can never fire: no month of '%s' has a day '%s'" % (month, day))
    return Rule("cron", days, DayTimes(starts, within), hour.startswith("*"))


def list_surprises(text):
    """[what is to be said] of a rule, which is a good one: steps of cron that leave one value."""
    words = _COMMA.sub(",", " ".join(text.lower().split())).split(" ")
    fields = words[1:] if words[0] == "cron" else []
    if len(fields) not in (5, 6):
        return []
    return [_tell_step(name, low, item)
            for (name, low, high), field in zip(_CRON_FIELDS[-len(fields):], fields)
            for item in field.split(",") if _is_lone_step(item, low, high)]


def _is_lone_step(item, low, high):
    """Whether a step goes over several values and meets the first alone."""
    match = re.fullmatch(r"(?:\*|([0-9]+)-([0-9]+))/([0-9]+)", item)
    if not match:
        return False
    first, last = (int(match.group(1)), int(match.group(2))) if match.group(1) else (low, high)
    return first < last < first + int(match.group(3))


def _tell_step(name, low, item):
    first = re.match("[0-9]*", item).group() or low
    return "'%s' is %s %s %s: the step is larger than what it goes over" % (
        item, name, first, _EACH[name])


def _parse_days(day, month, weekday, last="L", hint=" or L"):
    """Days from the last three fields of cron; `last` is the word for the last day."""
    months, mask = (_parse_field("month", month, 1, 12, MONTH_NUMBERS),
                    _parse_monthdays(day, last, hint))
    nth, plain = set(), []
    for item in weekday.split(","):
        match = re.fullmatch("([^#]+)(?:#([1-5])|l)", item)
        if match:
            numbers = _parse_field("week day", match.group(1), 0, 7, WEEKDAY_NUMBERS)
            nth.update((int(match.group(2) or 0), (number - 1) % 7) for number in numbers)
        else:
            plain.append(item)
    return Days(tuple(mask if number in months else 0 for number in range(1, 13)),
                _parse_weekdays(",".join(plain), ", alone, with #1 to #5 or with L")
                if plain else 0,
                tuple(sorted(nth)), not day.startswith("*") and not weekday.startswith("*"))


def _parse_weekdays(text, hint=""):
    return sum({1 << (number - 1) % 7
                for number in _parse_field("week day", text, 0, 7, WEEKDAY_NUMBERS, hint)})


def _parse_monthdays(text, last="last", hint=" or last"):
    plain = [item for item in text.split(",") if item != last.lower()]
    for item in plain:
        if last.lower() in re.split("[-/]", item):
            raise CalendarError("day of month '%s': %s stands alone, in no range and without a step"
                                % (item, last))
    numbers = _parse_field("day of month", ",".join(plain), 1, 31, hint=hint) if plain else []
    return sum(1 << number for number in numbers) | (len(plain) <= text.count(","))


def _parse_field(what, text, low, high, names=(), hint=""):
    """The numbers, in order, of a list of `*`, `a`, `a-b`, each with `/step`;
    high 7 is Sunday once more."""
    def read(word):
        if word in names:
            return names[word]
        if word == "?":
            raise CalendarError("%s: '%s' is no part of '%s'; every one is *" % (what, word, text))
        if not _NUMBER.fullmatch(word) or not low <= int(word) <= high:
            raise CalendarError("%s '%s' is not %d-%d%s"
                                % (what, word, low, high, " ".join(["", *names]) + hint))
        return int(word)
    top, numbers = 6 if high == 7 else high, set()
    for item in text.split(","):
        for pattern, reason in _INCOMPLETE:
            if pattern.match(item):
                raise CalendarError("%s '%s': %s" % (what, item or text, reason))
        body, slash, step = item.partition("/")
        start, dash, right = body.partition("-")
        first = low if body == "*" else read(start)
        last = top if slash or body == "*" else first
        if dash:
            last = 7 if right == "sun" and first else read(right)
        if last < first:
            raise CalendarError("%s '%s': ranges do not wrap; write two, like %s-%s,%s-%s"
                                % (what, item, start, top, low, right))
        numbers.update(range(first, last + 1, int(step or 1)))
    return sorted(numbers)
