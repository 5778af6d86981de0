"""The calendar: tables of dates, every option, every error, and random rules against a slow reference.

Zones come as POSIX TZ texts, so that neither zoneinfo nor the host's time-zone data is needed.
"""
import calendar
import os
import random
import threading
import time
from datetime import date, datetime, timedelta

import pytest

import agent
from agent import WHOLE_SECONDS, CalendarError, find_jitter, find_zone, make_timetable, parse_moment, parse_rule
from conftest import turns_of

ZURICH = "CET-1CEST,M3.5.0,M10.5.0/3"
NEW_YORK = "EST5EDT,M3.2.0,M11.1.0"
LORD_HOWE = "<+1030>-10:30<+11>-11,M10.1.0,M4.1.0"
KATHMANDU = "<+0545>-5:45"
ZONES = {"Europe/Zurich": ZURICH, "America/New_York": NEW_YORK, "Australia/Lord_Howe": LORD_HOWE,
         "Asia/Kathmandu": KATHMANDU, "UTC": "UTC0"}
EPOCH = datetime(1970, 1, 1)
MINUTE, HOUR, DAY = 60, 3600, 86400
WEEKDAYS = "mon tue wed thu fri sat sun".split()


@pytest.fixture(autouse=True)
def set_tz():
    """A function that sets the system's zone; put back after the test."""
    before = os.environ.get("TZ")

    def change(text):
        if text is None:
            os.environ.pop("TZ", None)
        else:
            os.environ["TZ"] = text
        time.tzset()
    yield change
    change(before)


def has_zones():
    try:
        import zoneinfo
        zoneinfo.ZoneInfo("Australia/Lord_Howe")
    except (ImportError, KeyError):
        return False
    return True


needs_zones = pytest.mark.skipif(not has_zones(), reason="this Python has no zoneinfo, or no data for it")


def at(text):
    """Seconds since 1970 of `YYYY-MM-DD HH:MM[:SS]`, taken as UTC."""
    form = "%Y-%m-%d %H:%M:%S" if text.count(":") == 2 else "%Y-%m-%d %H:%M"
    return int((datetime.strptime(text, form) - EPOCH).total_seconds())


def show(instant):
    return (EPOCH + timedelta(seconds=instant)).strftime("%Y-%m-%d %H:%M:%S" if instant % MINUTE else "%Y-%m-%d %H:%M")


def show_local(instant):
    """The wall clock of the system's zone, with the offset: tells the passes of a fold apart."""
    local = time.localtime(instant)
    return "%s%+03d%02d" % ((time.strftime("%m-%d %H:%M", local),) + (local.tm_gmtoff // HOUR, local.tm_gmtoff // 60 % 60))


def list_due(table, after, n=6, until=None):
    found = []
    while len(found) < n:
        after = table.next_after(after)
        if after is None or until is not None and after > until:
            break
        found.append(after)
    return found


def dues_in_utc(rule, after, n, **options):
    return [show(due) for due in list_due(make_timetable(rule, "UTC", options), at(after), n)]


# -- rules in UTC


@pytest.mark.parametrize("rule, after, due", [
    ("at 2026-12-01 02:00", "2026-01-01 00:00", "2026-12-01 02:00"),
    ("at 2026-12-01T02:00:30", "2026-01-01 00:00", "2026-12-01 02:00:30"),
    ("at 1970-01-01 00:00", "1969-12-31 00:00", "1970-01-01 00:00"),
    ("every 90s", "2026-01-01 00:00", "2026-01-01 00:01:30 | 2026-01-01 00:03"),
    ("every 15m", "2026-01-01 00:01", "2026-01-01 00:15 | 2026-01-01 00:30"),
    ("every 7200", "2026-01-01 00:00", "2026-01-01 02:00"),
    ("every 1d", "2026-01-01 00:01", "2026-01-02 00:00"),
    ("hourly at 05:00", "2026-12-31 23:05", "2027-01-01 00:05"),
    ("hourly at 5:00", "2026-12-31 23:05", "2027-01-01 00:05"),
    ("hourly at 05:30,35:00", "2026-01-01 00:00", "2026-01-01 00:05:30 | 2026-01-01 00:35 | 2026-01-01 01:05:30"),
    ("daily at 14:00,02:00", "2026-12-31 14:00", "2027-01-01 02:00 | 2027-01-01 14:00"),
    ("Daily  at  2:00 , 2:00", "2026-01-01 00:00", "2026-01-01 02:00 | 2026-01-02 02:00"),
    ("weekly on mon,wed at 02:00", "2026-01-01 00:00", "2026-01-05 02:00 | 2026-01-07 02:00 | 2026-01-12 02:00"),
    ("weekly on fri-sun at 02:00", "2026-01-01 00:00", "2026-01-02 02:00 | 2026-01-03 02:00 | 2026-01-04 02:00"),
    ("monthly on 1,15,last at 02:00", "2028-02-01 02:00", "2028-02-15 02:00 | 2028-02-29 02:00 | 2028-03-01 02:00"),
    ("monthly on 31 at 02:00", "2026-01-31 02:00", "2026-03-31 02:00 | 2026-05-31 02:00"),
    ("monthly on 29-31 at 02:00", "2026-02-01 00:00", "2026-03-29 02:00 | 2026-03-30 02:00 | 2026-03-31 02:00"),
    ("monthly on last at 00:00", "2026-11-30 00:00", "2026-12-31 00:00 | 2027-01-31 00:00 | 2027-02-28 00:00"),
    ("monthly on last fri at 18:00", "2026-01-01 00:00", "2026-01-30 18:00 | 2026-02-27 18:00 | 2026-03-27 18:00"),
    ("monthly on first mon at 18:00", "2026-01-01 00:00", "2026-01-05 18:00 | 2026-02-02 18:00"),
    ("monthly on second mon,fourth tue at 18:00", "2026-01-06 00:00", "2026-01-12 18:00 | 2026-01-27 18:00"),
    ("monthly on 1,third wed at 18:00", "2026-01-02 00:00", "2026-01-21 18:00 | 2026-02-01 18:00"),
    ("yearly on 12-31 at 23:00", "2026-12-31 23:00", "2027-12-31 23:00"),
    ("yearly on 12-31,06-30 at 23:00", "2026-01-01 00:00", "2026-06-30 23:00 | 2026-12-31 23:00"),
    ("yearly on 02-29 at 00:00", "2024-02-29 00:00", "2028-02-29 00:00 | 2032-02-29 00:00"),
    ("yearly on 02-29 at 00:00", "2096-02-29 00:00", "2104-02-29 00:00"),
    ("cron 0 2 * * mon-fri", "2026-01-02 02:00", "2026-01-05 02:00 | 2026-01-06 02:00"),
    ("cron 30 0 2 * * *", "2026-01-02 02:00", "2026-01-02 02:00:30"),
    ("cron */20 1-2 * * *", "2026-01-02 00:00", "2026-01-02 01:00 | 2026-01-02 01:20 | 2026-01-02 01:40"),
    ("cron 5/30 3 * * *", "2026-01-02 00:00", "2026-01-02 03:05 | 2026-01-02 03:35 | 2026-01-03 03:05"),
    ("cron 10-40/15,7 3 * * *", "2026-01-02 00:00", "2026-01-02 03:07 | 2026-01-02 03:10 | 2026-01-02 03:25"),
    ("cron 0 0 * jan,DEC Sun", "2026-01-20 00:00", "2026-01-25 00:00 | 2026-12-06 00:00"),
    ("cron 0 0 * * 0", "2026-01-01 00:00", "2026-01-04 00:00 | 2026-01-11 00:00"),
    ("cron 0 0 * * 7", "2026-01-01 00:00", "2026-01-04 00:00 | 2026-01-11 00:00"),
    ("cron 0 0 * * 5-7", "2026-01-01 00:00", "2026-01-02 00:00 | 2026-01-03 00:00 | 2026-01-04 00:00"),
    ("cron 0 0 * * 0-7", "2026-01-01 00:00", "2026-01-02 00:00 | 2026-01-03 00:00"),
    ("cron 0 0 L * *", "2028-02-01 00:00", "2028-02-29 00:00 | 2028-03-31 00:00"),
    ("cron 0 0 1,L 2 *", "2026-02-01 00:00", "2026-02-28 00:00 | 2027-02-01 00:00"),
    ("cron 0 0 * * 5#2", "2026-01-01 00:00", "2026-01-09 00:00 | 2026-02-13 00:00"),
    ("cron 0 0 * * fri#5", "2026-02-01 00:00", "2026-05-29 00:00 | 2026-07-31 00:00"),
    ("cron 0 0 * * 5L", "2026-01-01 00:00", "2026-01-30 00:00 | 2026-02-27 00:00"),
    ("cron 0 0 * * 1,5L", "2026-01-26 00:00", "2026-01-30 00:00 | 2026-02-02 00:00"),
    ("cron 0 0 13 * fri", "2026-02-07 00:00", "2026-02-13 00:00 | 2026-02-20 00:00"),       # either
    ("cron 0 0 */2 * mon", "2026-01-01 00:00", "2026-01-05 00:00 | 2026-01-19 00:00"),      # both: day begins with *
    ("cron 0 0 13 * */5", "2026-01-01 00:00", "2026-02-13 00:00 | 2026-03-13 00:00"),       # both: Sunday or Friday
    ("cron 0 0 31 2 mon", "2026-01-01 00:00", "2026-02-02 00:00 | 2026-02-09 00:00"),
    ("cron @daily", "2026-01-01 00:00", "2026-01-02 00:00"),
    ("@midnight", "2026-01-01 00:00", "2026-01-02 00:00"),
    ("cron @hourly", "2026-01-01 00:00", "2026-01-01 01:00"),
    ("cron @weekly", "2026-01-01 00:00", "2026-01-04 00:00"),
    ("cron @monthly", "2026-01-01 00:00", "2026-02-01 00:00"),
    ("cron @yearly", "2026-01-01 00:00", "2027-01-01 00:00"),
    ("cron @annually", "2026-01-01 00:00", "2027-01-01 00:00"),
])
def test_next_due_times(rule, after, due):
    assert dues_in_utc(rule, after, due.count("|") + 1) == due.split(" | ")


def test_kinds():
    kinds = ("startup", "boot", "at 2026-01-01 00:00", "every 1h", "hourly at 00:00", "daily at 00:00", "weekly on mon at 00:00",
             "monthly on 1 at 00:00", "yearly on 01-01 at 00:00", "cron @daily")
    for rule in kinds:
        assert parse_rule(rule).kind == rule.split()[0]
    assert parse_rule("cron @reboot").kind == parse_rule("@reboot").kind == "boot"
    assert [kind for kind in kinds if not parse_rule(kind).is_by_clock] == ["startup", "boot"]
    assert parse_rule("@daily").kind == "cron"


@pytest.mark.parametrize("rule, surprise", [
    ("cron */90 * * * *", "'*/90' is minute 0 of each hour"), ("cron */60 * * * *", "'*/60' is minute 0 of each hour"),
    ("cron */90 0 0 1 1 *", "'*/90' is second 0 of each minute"), ("cron 0 */24 * * *", "'*/24' is hour 0 of each day"),
    ("cron 0 0 */31 * *", "'*/31' is day of month 1 of each month"), ("cron 0 0 1 */12 *", "'*/12' is month 1 of each year"),
    ("cron 30,5-59/60 * * * *", "'5-59/60' is minute 5 of each hour"), ("cron 0 0 * * */7", "'*/7' is week day 0 alone"),
    ("CRON  */90 * * * *", "'*/90' is minute 0"), ("cron */59 * * * *", ""), ("cron 5/90 * * * *", ""), ("cron 5-5/90 * * * *", ""),
    ("cron @daily", ""), ("daily at 02:00", ""), ("boot", ""), ("", "")])
def test_steps_of_cron_that_leave_one_value(rule, surprise):
    parse_rule(rule or "boot")
    found = agent.list_surprises(rule)
    assert len(found) == bool(surprise) and "".join(found).startswith(surprise)
    if surprise:
        assert found[0].endswith(": the step is larger than what it goes over")


def test_startup_is_never_due():
    for rule in ("startup", "@reboot"):
        table = make_timetable(rule, "", {"hours": "08:00-10:00", "exclude_weekdays": "sat"})
        assert table.next_after(0) is None and table.last_until(0, 10 ** 10) is None and table.count(0, 10 ** 10) == 0
        assert table.excluded_between(0, 10 ** 10, 9) == [] and table.notes(1700000000) == []


def test_at_is_due_once():
    table = make_timetable("at 2026-12-01 02:00", "UTC")
    due = at("2026-12-01 02:00")
    assert table.next_after(due - 1) == due and table.next_after(due) is None
    assert table.count(0, 10 ** 10) == 1 and table.last_until(0, 10 ** 10) == due


def test_nothing_before_1970_and_an_end():
    table = make_timetable("daily at 00:00", "UTC")
    assert table.next_after(-10 ** 12) == 0
    assert table.next_after(10 ** 12) is None
    assert table.next_after(0.5) == DAY and table.next_after(-0.5) == 0
    assert table.count(-10 ** 12, 0) == 1 and table.count(100, 50) == 0 and table.last_until(100, 50) is None


# -- errors


@pytest.mark.parametrize("rule, part", [
    ("", "'' is no kind"), ("fortnightly at 02:00", "'fortnightly' is no kind"), ("startup now", "write 'startup'"),
    ("at", "write 'at 2026-12-01 02:00'"), ("at 2026-12-01", "write 'at "), ("at 2026-02-30 02:00", "'2026-02-30'"),
    ("at 2026-12-01 24:00", "'24:00'"), ("at 2026-12-01 02:00 Z", "write 'at "),
    ("every", "write 'every 15m'"), ("every 0", "below 1s"), ("every 5w", "'5w'"), ("every 1.5h", "'1.5h'"),
    ("every -5m", "'-5m'"), ("hourly", "write 'hourly at 05:00'"), ("hourly at 60:00", "'60:00'"),
    ("hourly at 05", "'05' is not minute:second"), ("hourly on mon at 05:00", "write 'hourly"),
    ("daily", "write 'daily at"), ("daily at 24:00", "'24:00' is not HH:MM"), ("daily at 02:60", "'02:60'"),
    ("daily at 02:00,", "'' is not HH:MM"), ("daily at 02:00:60", "'02:00:60'"), ("daily at two", "'two'"),
    ("daily on mon at 02:00", "write 'daily at"), ("weekly at 02:00", "write 'weekly on mon,wed at 02:00'"),
    ("weekly on at 02:00", "write 'weekly"), ("weekly on moo at 02:00", "'moo' is not 0-7 sun mon"),
    ("weekly on fri-mon at 02:00", "'fri-mon': ranges do not wrap"), ("monthly on 0 at 02:00", "'0' is not 1-31, last"),
    ("monthly on 32 at 02:00", "'32'"), ("monthly on fifth fri at 02:00", "'fifth fri' is not 1-31, last or first to fourth or last with"),
    ("monthly on last moo at 02:00", "'moo'"), ("yearly on 13-01 at 02:00", "'13-01' is not MM-DD"),
    ("yearly on 1-1 at 02:00", "'1-1'"), ("yearly on 02-30 at 02:00", "never fire: no year has the day 02-30"),
    ("yearly on 01-01,04-31 at 02:00", "no year has the day 04-31"),
    ("cron", "0 fields"), ("cron * * * *", "4 fields"), ("cron 0 * * * * * *", "7 fields"),
    ("cron 60 * * * *", "minute '60' is not 0-59"), ("cron 60 0 * * * *", "second '60'"),
    ("cron 0 24 * * *", "hour '24' is not 0-23"), ("cron 0 0 0 * *", "day of month '0' is not 1-31 or L"),
    ("cron 0 0 32 * *", "'32'"), ("cron 0 0 * 13 *", "month '13' is not 1-12 jan feb"), ("cron 0 0 * foo *", "'foo'"),
    ("cron 0 0 * * 8", "week day '8' is not 0-7 sun"), ("cron 0 0 * * fri-mon", "'fri-mon': ranges do not wrap"),
    ("cron 0 22-6 * * *", "'22-6': ranges do not wrap; write two, like 22-23,0-6"), ("cron */0 * * * *", "'*/0'"),
    ("cron */x * * * *", "'*/x': after / comes a step"), ("cron 1,,2 * * * *", "'1,,2': an item is empty"),
    ("cron 1- * * * *", "minute '1-': a range lacks its end; it is like 1-5"), ("cron -1 * * * *", "'-1': a range lacks its start"),
    ("cron 0 1-/2 * * *", "hour '1-/2': a range lacks its end"), ("cron /5 * * * *", "'/5': before / comes *"),
    ("cron 0 0 L-3 * *", "day of month 'l-3': L stands alone"), ("cron 0 0 1,1-L * *", "'1-l': L stands alone"),
    ("monthly on 1-last at 02:00", "'1-last': last stands alone"), ("weekly on mon,,wed at 02:00", "'mon,,wed': an item is empty"),
    ("0 2 * * *", "write 'cron 0 2 * * *'"), ("*/5 * * * MON", "write 'cron */5 * * * MON'"),
    ("2026-12-01 02:00", "no kind of rule"), ("every monday at 05:00", "'weekly on mon,wed at 02:00'"), ("every day", "'daily at"),
    ("every blue moon", "'blue moon' is no duration, like 15m"), ("hourly at 5:60", "'5:60' is not minute:second"),
    ("cron 0 0 * * 5#6", "'5#6' is not 0-7 sun mon tue wed thu fri sat, alone, with #1 to #5 or with L"), ("cron 0 0 * * 5#", "'5#'"), ("cron 0 0 * * 8L", "'8'"), ("cron 0 0 * * L", "'l'"),
    ("cron 0 0 15W * *", "'15w'"), ("cron 0 0 ? * *", "'?'"), ("cron @often", "'@often' is none of @hourly"),
    ("cron 0 0 31 2 *", "never fire: no month of '2' has a day '31'"), ("cron 0 0 31 4,6,9,11 *", "never fire"),
    ("cron 0 0 30 2 */2", "never fire"), ("cron \u0661 * * * *", "minute"),
])
def test_wrong_rules_name_the_part(rule, part):
    for _ in range(2):  # and again, from whatever is kept
        with pytest.raises(CalendarError) as caught:
            parse_rule(rule)
        assert part in str(caught.value)
        assert rule in str(caught.value)


@pytest.mark.parametrize("options, part", [
    ({"from": "soon"}, "from: 'soon' is not YYYY-MM-DD"), ({"to": "2026-02-30"}, "to: '2026-02-30'"),
    ({"from": "2026-01-01 25:00"}, "from: time '25:00'"), ({"from": "2026-01-02", "to": "2026-01-01"}, "before from"),
    ({"hours": "08:00"}, "hours: '08:00' is not HH:MM-HH:MM"), ({"hours": "08:00-25:00"}, "hours: time '25:00'"),
    ({"exclude_weekdays": "xyz"}, "exclude_weekdays: week day 'xyz'"),
    ({"exclude_monthdays": [32]}, "exclude_monthdays: day of month '32' is not 1-31 or last"),
    ({"exclude_monthdays": "3-last"}, "exclude_monthdays: day of month '3-last': last stands alone"),
    ({"exclude_dates": "swiss"}, "exclude_dates: 'swiss' is neither a date YYYY-MM-DD, a range a..b, nor a calendar"),
    ({"exclude_dates": ["2026-02-30"]}, "'2026-02-30'"), ({"exclude_dates": "2026-01-02..2026-01-01"}, "ends before"),
    ({"repeat_every": "15m"}, "needs repeat_count or repeat_for"), ({"repeat_count": 3}, "repeat_every"),
    ({"repeat_every": 0, "repeat_count": 3}, "repeat_every (from 1s up)"), ({"repeat_every": "x"}, "repeat_every: duration 'x'"),
    ({"repeat_every": 60, "repeat_count": "many"}, "repeat_count: duration 'many'"),
    ({"repeat_every": "1h", "repeat_for": "59m"}, "repeat_for is shorter than repeat_every"),
    ({"repeat_every": 900, "repeat_count": 0}, "nothing would be repeated"),
    ({"gap": "jump"}, "gap: 'jump' is not run or skip"), ({"fold": "last"}, "fold: 'last' is not first or both"),
])
def test_wrong_options_name_the_field(options, part):
    with pytest.raises(CalendarError) as caught:
        make_timetable("daily at 02:00", "UTC", options, {"de": "2026-10-03"})
    assert part in str(caught.value)


def test_repetition_that_overlaps_too_often_is_refused():
    with pytest.raises(CalendarError) as caught:
        make_timetable("cron * * * * * *", "UTC", {"repeat_every": 1, "repeat_for": "1d"})
    assert "might overlap" in str(caught.value)


@pytest.mark.parametrize("value, seconds", [("90s", 90), ("15m", 900), (7, 7), ("0", 0), (" 2H ", 7200)])
def test_durations_of_fields(value, seconds):
    assert WHOLE_SECONDS.check(value) == seconds


@pytest.mark.parametrize("value", ["", "h", "1h30m", "-1", -1, "1.5", 1.5, None, True, "1w", "\u0661", "9999999999"])
def test_wrong_durations_of_fields(value):
    with pytest.raises(ValueError):
        WHOLE_SECONDS.check(value)


@pytest.mark.parametrize("zone", sorted(ZONES))
def test_a_time_is_the_first_or_second_instant_that_has_it_or_the_one_after_its_gap(set_tz, zone):
    """Against the host's own local time, second by second of the changes of two years."""
    set_tz(ZONES[zone])
    here, rng = find_zone(""), random.Random(zone)
    starts = [here.get_piece(day)[0] for day in range(1767225600, 1830297600, 40 * DAY)]
    for start in sorted(set(starts)) + [rng.randrange(1767225600, 1830297600) for _ in range(20)]:
        offsets = {instant: time.localtime(instant).tm_gmtoff for instant in range(start - 3 * HOUR, start + 3 * HOUR, 900)}
        for local in range(start + here.get_piece(start)[2] - 7200, start + here.get_piece(start)[2] + 7200, 900):
            having = [instant for instant, offset in offsets.items() if instant + offset == local]
            text = (EPOCH + timedelta(seconds=local)).strftime("%Y-%m-%d %H:%M:%S")
            first, second = (parse_moment(text, here, is_second=is_second) for is_second in (False, True))
            after = start if not having else None
            assert (first, second) == (having[0] if having else after, having[-1] if having else after), text
            assert parse_moment(text + "-0130", here) == local + 5400 and parse_moment(text + ".25Z", here) == local + 0.25
    assert parse_moment("2026-07-01", here, is_end=True) == parse_moment("2026-07-02", here) - 0.001
    assert parse_moment("0001-01-01", here) < parse_moment("1900-01-01", here) < 0 < parse_moment("9999-12-31", here)


# -- window and repetition


@pytest.mark.parametrize("rule, after, options, due", [
    ("every 1h", "2026-01-01 17:30", {"hours": "08:00-18:00"}, "01-01 18:00 | 01-02 08:00"),
    ("every 1h", "2026-01-01 22:30", {"hours": "22:00-01:00"}, "01-01 23:00 | 01-02 00:00 | 01-02 01:00 | 01-02 22:00"),
    ("every 1h", "2026-01-01 22:30", {"hours": "22:00-24:00"}, "01-01 23:00 | 01-02 22:00"),
    ("hourly at 00:00", "2026-01-01 17:30", {"hours": "08:00-18:00"}, "01-01 18:00 | 01-02 08:00"),
    ("daily at 08:00,12:00,18:00", "2026-01-01 00:00", {"hours": "18:00 - 08:00"}, "01-01 08:00 | 01-01 18:00 | 01-02 08:00"),
    ("daily at 07:59,18:01", "2026-01-01 00:00", {"hours": "08:00-18:00"}, ""),
    ("daily at 12:00", "2026-01-01 00:00", {"hours": "12:00-12:00"}, "01-01 12:00"),
    ("daily at 02:00", "2026-01-01 02:00", {"exclude_weekdays": ["sat", "sun"]}, "01-02 02:00 | 01-05 02:00"),
    ("daily at 02:00", "2026-01-01 02:00", {"exclude_weekdays": "Fri-Sun"}, "01-05 02:00"),
    ("daily at 02:00", "2026-01-30 00:00", {"exclude_monthdays": "last"}, "01-30 02:00 | 02-01 02:00"),
    ("daily at 02:00", "2026-02-26 03:00", {"exclude_monthdays": [1, "last"]}, "02-27 02:00 | 03-02 02:00"),
    ("every 12h", "2026-02-26 13:00", {"exclude_monthdays": "27-28"}, "03-01 00:00 | 03-01 12:00"),
    ("daily at 02:00", "2026-01-01 03:00", {"exclude_dates": "2026-01-02, 2026-01-04..2026-01-06"}, "01-03 02:00 | 01-07 02:00"),
    ("daily at 02:00", "2026-01-01 03:00", {"exclude_dates": ["swiss", "2026-01-03"]}, "01-05 02:00"),
    ("daily at 02:00", "2026-01-01 03:00", {"exclude_dates": "list of dates"}, "01-03 02:00 | 01-05 02:00"),
    ("daily at 02:00", "2026-01-01 03:00", {"from": "2026-02-01", "to": "2026-02-02"}, "02-01 02:00 | 02-02 02:00"),
    ("daily at 02:00", "2026-01-01 03:00", {"from": "2026-02-01 02:00", "to": "2026-02-02T02:00:00Z"}, "02-01 02:00 | 02-02 02:00"),
    ("daily at 02:00", "2026-01-01 03:00", {"from": "2026-02-01 02:00:01", "to": "2026-02-02 01:59:59"}, ""),
    ("daily at 02:00", "2026-01-01 03:00", {"from": "2026-02-01T03:00:00+02:00", "to": "2026-02-02T02:30:00.000+0030"}, "02-01 02:00 | 02-02 02:00"),
    ("every 7h", "2026-01-01 00:00", {"from": "2026-01-01 03:00"}, "01-01 03:00 | 01-01 10:00"),
    ("daily at 02:00", "2026-01-01 03:00", {"repeat_every": "15m", "repeat_count": 2, "to": "2026-01-02"}, "01-02 02:00 | 01-02 02:15 | 01-02 02:30"),
    ("daily at 02:00", "2026-01-01 02:05", {"repeat_every": 900, "repeat_for": "40m"}, "01-01 02:15 | 01-01 02:30 | 01-02 02:00"),
    ("daily at 02:00", "2026-01-01 02:05", {"repeat_every": 900, "repeat_for": "30m", "repeat_count": 1}, "01-01 02:15 | 01-02 02:00"),
    ("daily at 23:00", "2026-01-01 23:05", {"repeat_every": "1h", "repeat_count": 2, "exclude_weekdays": "fri"}, "01-03 23:00 | 01-04 00:00"),
    ("daily at 16:00", "2026-01-01 16:00", {"repeat_every": "1h", "repeat_for": "5h", "hours": "08:00-18:00"}, "01-01 17:00 | 01-01 18:00 | 01-02 16:00"),
    ("daily at 00:00", "2026-01-02 00:00", {"repeat_every": "7h", "repeat_count": 4}, "01-02 04:00 | 01-02 07:00 | 01-02 14:00 | 01-02 21:00 | 01-03 00:00"),
    ("daily at 02:00", "2026-01-01 03:00", {"exclude_weekdays": [], "hours": "", "to": None, "gap": "", "priority": 5}, "01-02 02:00"),
])
def test_window(rule, after, options, due):
    calendars = {"swiss": ["2026-01-02", "2026-01-04"], "list of dates": "2026-01-02,2026-01-04"}
    table = make_timetable(rule, "UTC", options, calendars)
    found = [show(instant)[5:] for instant in list_due(table, at(after), due.count("|") + 1)]
    assert found == (due.split(" | ") if due else [])


@pytest.mark.parametrize("rule, options", [
    ("daily at 02:00", {"exclude_weekdays": "mon-sun"}), ("daily at 02:00", {"exclude_monthdays": "1-31"}),
    ("weekly on mon at 02:00", {"exclude_weekdays": "mon"}), ("monthly on 31 at 02:00", {"exclude_monthdays": "last"}),
    ("monthly on first fri at 02:00", {"exclude_monthdays": "1-7"}), ("every 1h", {"exclude_weekdays": "mon-sun"}),
    ("daily at 02:00", {"exclude_dates": "1970-01-01..9999-12-31"}), ("every 1d", {"hours": "08:00-09:00"}),
    ("yearly on 02-29 at 02:00", {"exclude_monthdays": "last"}), ("at 2026-01-01 02:00", {"exclude_weekdays": "thu"}),
    ("hourly at 30:00", {"hours": "08:00-08:10"}), ("at 2026-01-01 02:00", {"from": "2026-01-02"}),
    ("every 1m", {"exclude_dates": "0001-01-01..9999-12-31"}), ("daily at 02:00", {"to": "2001-01-01"}),
])
def test_filters_that_leave_nothing(rule, options):
    table = make_timetable(rule, "UTC", options)
    now = at("2026-01-01 00:00")
    assert table.next_after(now) is None
    assert table.count(now, now + 400 * DAY) == 0 and table.last_until(now, now + 400 * DAY) is None


def test_far_dates():
    for day in WEEKDAYS:
        others = [other for other in WEEKDAYS if other != day]
        table = make_timetable("yearly on 02-29 at 00:00", "UTC", {"exclude_weekdays": others})
        year = 2072
        due = table.next_after(at("2072-03-01 00:00"))
        while not (calendar.isleap(year) and year > 2072 and WEEKDAYS[date(year, 2, 29).weekday()] == day):
            year += 1
        assert show(due) == "%d-02-29 00:00" % year
    assert dues_in_utc("daily at 00:00", "2026-01-01 00:00", 1, exclude_dates="1990-01-01..2525-06-30") == ["2525-07-01 00:00"]


def test_last_until_and_count():
    table = make_timetable("cron * * * * * *", "UTC")
    year = at("2027-01-01 00:00"), at("2028-01-01 00:00")
    assert table.count(*year) == 365 * DAY and table.last_until(*year) == year[1]
    table = make_timetable("yearly on 02-29 at 00:00", "UTC")
    assert table.last_until(0, at("2027-12-01 00:00")) == at("2024-02-29 00:00")
    assert table.last_until(at("2024-02-29 00:00"), at("2027-12-01 00:00")) is None
    assert table.last_until(at("2024-02-29 00:00") - 1, at("2024-02-29 00:00")) == at("2024-02-29 00:00")


# -- daylight saving


def in_zone(set_tz, zone, rule, after, n, **options):
    set_tz(zone)
    table = make_timetable(rule, "", options)
    return table, [show_local(due) for due in list_due(table, at(after), n)]


@pytest.mark.parametrize("zone, rule, after, options, due", [
    # gap in Zurich: 2026-03-29 02:00 -> 03:00 (01:00 UTC)
    (ZURICH, "daily at 02:30", "2026-03-28 00:00", {}, "03-28 02:30+0100 | 03-29 03:00+0200 | 03-30 02:30+0200"),
    (ZURICH, "daily at 02:30", "2026-03-28 00:00", {"gap": "skip"}, "03-28 02:30+0100 | 03-30 02:30+0200"),
    (ZURICH, "daily at 02:00,02:30,03:00", "2026-03-28 12:00", {}, "03-29 03:00+0200 | 03-30 02:00+0200"),
    (ZURICH, "daily at 02:30,03:00", "2026-03-28 12:00", {"gap": "skip"}, "03-29 03:00+0200 | 03-30 02:30+0200"),
    (ZURICH, "cron 30 2 * * *", "2026-03-28 12:00", {}, "03-29 03:00+0200 | 03-30 02:30+0200"),
    (ZURICH, "cron * 2 * * *", "2026-03-28 12:00", {}, "03-29 03:00+0200 | 03-30 02:00+0200"),
    (ZURICH, "cron 30 1-3 * * *", "2026-03-28 12:00", {}, "03-29 01:30+0100 | 03-29 03:00+0200 | 03-29 03:30+0200"),
    (ZURICH, "cron 30 * * * *", "2026-03-29 00:00", {}, "03-29 01:30+0100 | 03-29 03:30+0200"),
    (ZURICH, "cron 30 */2 * * *", "2026-03-28 23:00", {}, "03-29 00:30+0100 | 03-29 04:30+0200"),
    (ZURICH, "hourly at 30:00", "2026-03-29 00:00", {}, "03-29 01:30+0100 | 03-29 03:30+0200"),
    (ZURICH, "weekly on sun at 02:30", "2026-03-22 12:00", {}, "03-29 03:00+0200 | 04-05 02:30+0200"),
    (ZURICH, "monthly on last sun at 02:30", "2026-03-22 12:00", {}, "03-29 03:00+0200 | 04-26 02:30+0200"),
    (ZURICH, "yearly on 03-29 at 02:30", "2026-03-22 12:00", {}, "03-29 03:00+0200 | 03-29 02:30+0200"),
    (ZURICH, "at 2026-03-29 02:30", "2026-03-22 12:00", {}, "03-29 03:00+0200"),
    (ZURICH, "at 2026-03-29 02:30", "2026-03-22 12:00", {"gap": "skip"}, ""),
    (ZURICH, "daily at 02:30", "2026-03-28 12:00", {"hours": "02:00-02:45"}, "03-29 03:00+0200 | 03-30 02:30+0200"),
    (ZURICH, "daily at 02:30", "2026-03-28 12:00", {"from": "2026-03-29 02:10"}, "03-29 03:00+0200 | 03-30 02:30+0200"),
    (ZURICH, "every 30m", "2026-03-29 00:30", {}, "03-29 03:00+0200 | 03-29 03:30+0200"),
    (ZURICH, "every 1d", "2026-03-28 00:00", {}, "03-29 01:00+0100 | 03-30 02:00+0200"),
    (ZURICH, "every 1h", "2026-03-28 23:30", {"hours": "01:00-03:00"}, "03-29 01:00+0100 | 03-29 03:00+0200 | 03-30 01:00+0200"),
    # fold in Zurich: 2026-10-25 03:00 -> 02:00 (01:00 UTC)
    (ZURICH, "daily at 02:30", "2026-10-24 12:00", {}, "10-25 02:30+0200 | 10-26 02:30+0100"),
    (ZURICH, "daily at 02:30", "2026-10-24 12:00", {"fold": "both"}, "10-25 02:30+0200 | 10-25 02:30+0100 | 10-26 02:30+0100"),
    (ZURICH, "daily at 02:00", "2026-10-24 12:00", {}, "10-25 02:00+0200 | 10-26 02:00+0100"),
    (ZURICH, "daily at 03:00", "2026-10-24 12:00", {}, "10-25 03:00+0100 | 10-26 03:00+0100"),
    (ZURICH, "cron 0,30 2,3 * * *", "2026-10-24 23:00", {}, "10-25 02:00+0200 | 10-25 02:30+0200 | 10-25 03:00+0100"),
    (ZURICH, "cron 30 * * * *", "2026-10-25 00:00", {}, "10-25 02:30+0200 | 10-25 02:30+0100 | 10-25 03:30+0100"),
    (ZURICH, "hourly at 30:00", "2026-10-25 00:00", {}, "10-25 02:30+0200 | 10-25 02:30+0100 | 10-25 03:30+0100"),
    (ZURICH, "every 30m", "2026-10-25 00:15", {}, "10-25 02:30+0200 | 10-25 02:00+0100"),
    (ZURICH, "at 2026-10-25 02:30", "2026-10-24 12:00", {"fold": "both"}, "10-25 02:30+0200 | 10-25 02:30+0100"),
    (ZURICH, "daily at 01:45", "2026-10-24 12:00", {"repeat_every": "1h", "repeat_count": 2}, "10-25 01:45+0200 | 10-25 02:45+0200 | 10-25 02:45+0100"),
    (ZURICH, "hourly at 30:00", "2026-10-25 00:00", {"to": "2026-10-25 02:30"}, "10-25 02:30+0200 | 10-25 02:30+0100"),
    (ZURICH, "hourly at 30:00", "2026-10-25 00:00", {"from": "2026-10-25 02:30"}, "10-25 02:30+0200 | 10-25 02:30+0100"),
    # New York: gap 2026-03-08 02:00, fold 2026-11-01 02:00
    (NEW_YORK, "daily at 02:30", "2026-03-07 12:00", {}, "03-08 03:00-0400 | 03-09 02:30-0400"),
    (NEW_YORK, "daily at 01:30", "2026-11-01 00:00", {}, "11-01 01:30-0400 | 11-02 01:30-0500"),
    (NEW_YORK, "daily at 01:30", "2026-11-01 00:00", {"fold": "both"}, "11-01 01:30-0400 | 11-01 01:30-0500 | 11-02 01:30-0500"),
    # Lord Howe: half an hour; gap 2026-10-04 02:00 -> 02:30, fold 2026-04-05 02:00 -> 01:30
    (LORD_HOWE, "daily at 02:15", "2026-10-03 00:00", {}, "10-04 02:30+1100 | 10-05 02:15+1100"),
    (LORD_HOWE, "daily at 01:45", "2026-04-04 00:00", {}, "04-05 01:45+1100 | 04-06 01:45+1030"),
    (LORD_HOWE, "daily at 01:45", "2026-04-04 00:00", {"fold": "both"}, "04-05 01:45+1100 | 04-05 01:45+1030 | 04-06 01:45+1030"),
    (LORD_HOWE, "hourly at 15:00", "2026-10-03 14:00", {}, "10-04 01:15+1030 | 10-04 03:15+1100"),
    (LORD_HOWE, "hourly at 45:00", "2026-04-04 14:00", {}, "04-05 01:45+1100 | 04-05 01:45+1030 | 04-05 02:45+1030"),
    (LORD_HOWE, "cron 15,45 * * * *", "2026-10-03 15:00", {}, "10-04 01:45+1030 | 10-04 02:45+1100"),
    (KATHMANDU, "daily at 00:00", "2026-01-01 00:00", {}, "01-02 00:00+0545 | 01-03 00:00+0545"),
    (KATHMANDU, "hourly at 05:00", "2026-01-01 00:00", {}, "01-01 06:05+0545 | 01-01 07:05+0545"),
    (KATHMANDU, "every 1h", "2026-01-01 00:00", {}, "01-01 06:45+0545"),
])
def test_daylight_saving(set_tz, zone, rule, after, options, due):
    table, found = in_zone(set_tz, zone, rule, after, due.count("|") + 1, **options)
    assert found == (due.split(" | ") if due else [])


def test_notes(set_tz):
    set_tz(ZURICH)
    table = make_timetable("daily at 02:30,03:00,04:00")
    assert table.notes(at("2026-03-29 01:00")) == ["after gap 02:30 does not exist"]
    assert table.notes(at("2026-03-29 02:00")) == []
    assert table.notes(at("2026-10-25 00:30")) == ["first of two 02:30"]
    assert make_timetable("daily at 02:30:30", "", {"fold": "both"}).notes(at("2026-10-25 01:30:30")) == ["second of two 02:30:30"]
    assert make_timetable("hourly at 30:00").notes(at("2026-10-25 01:30")) == ["second of two 02:30"]
    assert make_timetable("hourly at 30:00").notes(at("2026-03-29 01:00")) == []
    assert make_timetable("daily at 02:30,03:00", "", {"gap": "skip"}).notes(at("2026-03-29 01:00")) == []
    assert make_timetable("every 30m").notes(at("2026-10-25 00:30")) == []
    assert make_timetable("daily at 02:30", "UTC").notes(at("2026-10-25 00:30")) == []


@pytest.mark.parametrize("rule, options, lost", [
    ("daily at 02:30", {}, [("10-25 01:30", "fold", "second of two 02:30")]),
    ("daily at 02:30", {"fold": "both"}, []),
    ("daily at 02:30", {"gap": "skip", "fold": "both"}, [("03-29 01:00", "gap", "02:30 does not exist")]),
    ("monthly on last sun at 02:30", {"exclude_monthdays": "29", "fold": "both"},
     [("03-29 01:00", "window", "excluded day sun 2026-03-29"),
      ("11-29 01:30", "window", "excluded day sun 2026-11-29")]),
    ("monthly on 2 at 12:00", {"exclude_weekdays": "mon", "exclude_dates": "2026-12-02"},
     [("02-02 11:00", "window", "excluded day mon 2026-02-02"),
      ("03-02 11:00", "window", "excluded day mon 2026-03-02"),
      ("11-02 11:00", "window", "excluded day mon 2026-11-02"),
      ("12-02 11:00", "window", "excluded day wed 2026-12-02")]),
    ("yearly on 06-01 at 12:00,19:00", {"hours": "08:00-18:00"}, [("06-01 17:00", "window", "outside hours")]),
    ("yearly on 02-01,12-01 at 00:00", {"from": "2026-03-01", "to": "2026-11-30"},
     [("01-31 23:00", "window", "before from"), ("11-30 23:00", "window", "after to")]),
    ("at 2026-06-01 12:00", {"exclude_weekdays": "mon"}, [("06-01 10:00", "window", "excluded day mon 2026-06-01")]),
    ("every 30d", {"from": "2026-01-01", "exclude_weekdays": "mon,tue,wed,fri,sat,sun", "to": "2026-02-15"},
     [("01-30 23:00", "window", "excluded day sat 2026-01-31")]),
    ("hourly at 00:00", {}, []), ("cron * * * * * *", {}, []),
])
def test_excluded_between(set_tz, rule, options, lost):
    set_tz(ZURICH)
    found = make_timetable(rule, "", options).excluded_between(at("2026-01-01 00:00"), at("2026-12-31 00:00"), 50)
    assert [(show(instant)[5:],) + tuple(rest) for instant, *rest in found[:len(lost) or None]] == lost


def test_excluded_between_stops_at_its_limit():
    table = make_timetable("cron * * * * * *", "UTC", {"exclude_dates": "2026-06-01"})
    found = table.excluded_between(at("2026-01-01 00:00"), at("2027-01-01 00:00"), 3)
    assert [show(instant)[5:] for instant, _, _ in found][0] == "06-01 00:00"
    assert [instant for instant, _, _ in found] == [at("2026-06-01 00:00") + n for n in range(3)]


def spans_of(table, after, until):
    return [(show(first)[5:], show(last)[5:], count, reason) for first, last, count, reason, _ in
            table.excluded_spans(at(after), at(until))]


def test_excluded_spans(set_tz):
    set_tz(ZURICH)
    table = make_timetable("daily at 02:30,12:00", "", {"gap": "skip", "exclude_weekdays": "sat"})
    assert spans_of(table, "2026-03-27 12:00", "2026-04-05 12:00") == [
        ("03-28 01:30", "03-28 11:00", 2, "window"), ("03-29 01:00", "03-29 01:00", 1, "gap"),
        ("04-04 00:30", "04-04 10:00", 2, "window")]
    assert spans_of(table, "2026-03-28 01:30", "2026-03-28 11:00") == [("03-28 11:00", "03-28 11:00", 1, "window")]
    assert spans_of(table, "2026-03-28 11:00", "2026-03-29 00:59") == []
    # what follows each other is one, whatever is due in between
    assert spans_of(table, "2026-04-01 00:00", "2026-04-30 00:00") == [("04-04 00:30", "04-25 10:00", 8, "window")]
    assert spans_of(table, "2026-10-24 12:00", "2026-10-31 12:00") == [
        ("10-25 01:30", "10-25 01:30", 1, "fold"), ("10-31 01:30", "10-31 11:00", 2, "window")]
    texts = [text for *_, text in table.excluded_spans(at("2026-03-27 12:00"), at("2026-03-30 12:00"))]
    assert texts == ["excluded day sat 2026-03-28", "02:30 does not exist"]


def test_many_excluded_are_told_as_few():
    table = make_timetable("daily at 10:00,12:00", "UTC", {"exclude_weekdays": "mon-fri"})
    days = (date(2026, 1, 1) + timedelta(days=n) for n in range((date(2035, 12, 31) - date(2026, 1, 1)).days))
    assert spans_of(table, "2026-01-01 00:00", "2035-12-31 00:00") == [
        ("01-01 10:00", "12-28 12:00", 2 * sum(day.weekday() < 5 for day in days), "window")]
    # from the fiftieth on it is one, with the reason of that
    table = make_timetable("hourly at 00:00", "UTC", {"exclude_dates": "2026-06-01..2026-06-02", "hours": "00:00-22:00"})
    assert spans_of(table, "2026-06-01 00:00", "2026-07-01 00:00") == [("06-01 01:00", "06-30 23:00", 47 + 28, "window")]
    table = make_timetable("cron * * * * * *", "UTC", {"exclude_dates": "2026-06-01..2027-05-31"})
    spans, turns = turns_of(lambda: spans_of(table, "2026-01-01 00:00", "2028-01-01 00:00"))
    assert spans == [("06-01 00:00", "05-31 23:59:59", 365 * DAY, "window")]
    assert turns < 365 * DAY            # less than to count the seconds


def test_excluded_spans_of_more_reasons_than_are_told(set_tz):
    set_tz(ZURICH)
    table = make_timetable("cron */5 2 * * *", "", {"exclude_weekdays": "sat", "gap": "skip"})
    rows = table.excluded_between(at("2026-10-18 12:00"), at("2026-11-30 12:00"), 10 ** 6)
    assert [reason for _, reason, _ in rows] == ["window"] * 12 + ["fold"] * 12 + ["window"] * 60
    found = table.excluded_spans(at("2026-10-18 12:00"), at("2026-11-30 12:00"))
    assert [(count, reason) for _, _, count, reason, _ in found] == [(12, "window"), (12, "fold"), (60, "window")]
    assert found[-1][1] == rows[-1][0]


def test_next_excluded(set_tz):
    set_tz(ZURICH)
    fold, gap = at("2026-10-25 01:30"), at("2026-03-29 01:00")
    table = make_timetable("daily at 02:30", "")
    due = table.next_after(fold - DAY)
    assert table.next_excluded(due, table.next_after(due)) == fold
    assert table.next_excluded(due, fold) is None and table.next_excluded(fold, fold + DAY) is None
    assert table.next_excluded(gap, table.next_after(gap)) is None
    table = make_timetable("daily at 02:10,02:40", "")      # two of a second pass, and the first one is over
    due = table.next_after(fold)
    assert table.next_excluded(fold - 20 * MINUTE, due) == fold + 10 * MINUTE == table.excluded_between(fold, due)[0][0]
    table = make_timetable("daily at 02:30", "", {"gap": "skip"})
    assert table.next_excluded(gap - DAY + HOUR, gap + DAY - HOUR) == gap
    for rule in ("every 30m", "hourly at 30:00", "cron 30 * * * *"):
        table = make_timetable(rule, "")
        for change in (fold, gap):
            assert all(table.next_excluded(due, table.next_after(due)) is None
                       for due in range(change - 3 * HOUR, change + 3 * HOUR, 30 * MINUTE))
    table = make_timetable("every 1h", "UTC", {"hours": "08:00-10:00", "from": "2026-06-01", "to": "2026-06-02"})
    begin = at("2026-06-01 00:00")
    assert table.next_excluded(begin - HOUR, begin + 8 * HOUR) == begin
    assert table.next_excluded(begin + 10 * HOUR, begin + 32 * HOUR) == begin + 11 * HOUR
    assert table.next_excluded(begin + 46 * HOUR, table.last + 1) == begin + 47 * HOUR
    assert table.next_excluded(begin + 47 * HOUR, table.last + 1) is None
    for rule in ("startup", "at 2026-06-01 02:00"):
        table = make_timetable(rule, "UTC", {"exclude_weekdays": "tue"})
        assert table.next_excluded(begin + DAY, table.last + 1) is None
    table = make_timetable("at 2026-06-01 02:00", "UTC", {"exclude_weekdays": "mon"})
    assert table.next_excluded(begin, table.last + 1) == begin + 2 * HOUR


def test_iter_excluded_looks_no_further_than_it_is_asked():
    table = make_timetable("cron * * * * * *", "UTC", {"exclude_dates": "2026-06-01..2500-01-01"})
    found = table.iter_excluded(at("2026-01-01 00:00"), at("2499-01-01 00:00"))
    assert [show(next(found)[0]) for _ in range(2)] == ["2026-06-01 00:00", "2026-06-01 00:00:01"]


# -- zones


def test_system_zone_follows_tzset(set_tz):
    for zone, due in ((ZURICH, "2026-01-01 01:00"), (NEW_YORK, "2026-01-01 07:00"), ("UTC0", "2026-01-01 02:00")):
        set_tz(zone)
        assert show(make_timetable("daily at 02:00").next_after(at("2026-01-01 00:00"))) == due
    assert find_zone("") is find_zone("") and find_zone("UTC") is find_zone("UTC")


def test_zones_of_equal_names_and_offsets_are_told_apart(set_tz):
    set_tz("AAA-2BBB,M3.5.0,M10.5.0")
    first = make_timetable("daily at 12:00").next_after(at("2026-04-01 00:00"))
    set_tz("AAA-2BBB,M4.5.0,M10.5.0")
    assert make_timetable("daily at 12:00").next_after(at("2026-04-01 00:00")) == first + HOUR


@needs_zones
@pytest.mark.parametrize("name", sorted(ZONES))
def test_named_zones(set_tz, name):
    set_tz(ZONES[name])
    named, system = find_zone(name), find_zone("")
    for instant in range(at("2026-01-01 00:00"), at("2030-01-01 00:00"), 5 * HOUR):
        assert named.get_piece(instant)[2] == system.get_piece(instant)[2]


@needs_zones
def test_a_day_that_does_not_exist():
    table = make_timetable("daily at 10:00", "Pacific/Apia")  # 2011-12-30 was left out
    assert [show(due) for due in list_due(table, at("2011-12-29 00:00"), 4)] == [
        "2011-12-29 20:00", "2011-12-30 10:00", "2011-12-30 20:00", "2011-12-31 20:00"]
    assert table.count(at("2011-12-29 00:00"), at("2011-12-31 23:00")) == 4


@needs_zones
@pytest.mark.parametrize("name", ["Mars/Olympus", "../etc/passwd", "Europe", "/etc/passwd", "europe zurich", "\0"])
def test_no_such_zone(name):
    with pytest.raises(CalendarError) as caught:
        find_zone(name)
    assert "no such zone; write a name like Europe/Zurich" in str(caught.value)


def test_named_zone_without_zoneinfo():
    try:
        import zoneinfo  # noqa: F401
    except ImportError:
        with pytest.raises(CalendarError) as caught:
            find_zone("Europe/Zurich")
        assert "needs Python 3.9 or newer" in str(caught.value) and "only UTC and the system" in str(caught.value)
    else:
        pytest.skip("this Python has zoneinfo")


def test_threads_share_a_zone(set_tz):
    set_tz(NEW_YORK)
    table = make_timetable("daily at 02:30", "")
    starts = [at("2026-01-01 00:00") + n * 200 * DAY for n in range(20)]
    found = [None] * 8

    def work(place):
        found[place] = [table.next_after(start) for start in starts]
    threads = [threading.Thread(target=work, args=(place,)) for place in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(answers == found[0] for answers in found)


def test_a_chunk_edge_inside_a_fold():
    """Pieces of a zone are kept by 2 ** 24 s: a fold that straddles an edge is still one fold."""
    edge = 105 << 24  # a whole minute
    for change in range(edge - 2 * HOUR, edge + 2 * HOUR, 15 * MINUTE):
        for before, after in ((7200, 3600), (3600, 7200)):
            zone = agent.Zone(lambda instant: before if instant < change else after)
            local = lambda instant: instant + (before if instant < change else after)
            window = agent.OPEN_WINDOW
            table = agent.Timetable(parse_rule("cron */10 0-23 * * *"), zone, window, 0, 10 ** 10, 0)
            found = list_due(table, edge - 6 * HOUR, 10 ** 6, edge + 6 * HOUR)
            seen, expected = -1, []
            for instant in range(edge - 5 * DAY, edge + 6 * HOUR + 1, 60):
                gap = local(instant) - local(instant - 60) > 60
                if local(instant) > seen and (local(instant) % 600 == 0 or gap):
                    expected.append(instant)
                seen = max(seen, local(instant))
            assert found == [instant for instant in expected if instant > edge - 6 * HOUR]
            assert table.count(edge - 6 * HOUR, edge + 6 * HOUR) == len(found)


# -- jitter


def test_jitter():
    found = [find_jitter("NIGHT", due, 60) for due in range(0, 86400 * 50, 8640)]
    assert found == [find_jitter("NIGHT", due, 60) for due in range(0, 86400 * 50, 8640)]
    assert min(found) >= 0 and max(found) <= 60 and len(set(found)) > 40
    assert find_jitter("NIGHT", 1700000000, 0) == 0
    assert [find_jitter("A", due, 1000) for due in range(9)] != [find_jitter("B", due, 1000) for due in range(9)]
    assert find_jitter("NIGHT", 1700000000, 600) == 415  # the same for ever


# -- random rules against a reference that looks at every minute


class Minutes:
    """Every minute of some days of the system's zone: what a slow and simple calendar would look at."""

    def __init__(self, first, days):
        self.first, self.rows = at(first), []
        seen = None
        for instant in range(self.first - 2 * DAY, self.first + days * DAY, MINUTE):
            local = instant + time.localtime(instant).tm_gmtoff
            missing = list(range(seen + MINUTE, local, MINUTE)) if seen is not None else []
            second_pass = seen is not None and local <= seen
            seen = local if seen is None else max(seen, local)
            if instant > self.first:
                self.rows.append((instant, EPOCH + timedelta(seconds=local), second_pass,
                                  [EPOCH + timedelta(seconds=moment) for moment in missing]))
        self.last = self.rows[-1][0]

    def list_due(self, spec):
        """Due times of a spec: rule, real, step, options, and functions of a local time."""
        options, due, shown = spec["options"], [], {}
        for instant, local, second_pass, missing in self.rows:
            shown[instant] = local
            if spec["step"]:
                hit = instant % spec["step"] == 0 and spec["open"](local)
            elif spec["real"]:
                hit = spec["match"](local) and spec["open"](local)
            else:
                hit = (spec["match"](local) and spec["open"](local)
                       and (not second_pass or options.get("fold") == "both"))
                if missing and options.get("gap") != "skip":
                    hit = hit or any(spec["match"](moment) and spec["open"](moment) for moment in missing)
            if hit:
                due.append(instant)
        if options.get("repeat_every"):
            for firing in list(due):
                for n in range(1, options["repeat_count"] + 1):
                    again = firing + n * options["repeat_every"]
                    if again in shown and spec["open"](shown[again]):
                        due.append(again)
        return sorted(set(due))

    def find_reason(self, spec, instant):
        """Why the rule alone is due at an instant, and a spec is not."""
        _, local, _, missing = self.rows[(instant - self.rows[0][0]) // MINUTE]
        gone = [] if spec["step"] or spec["real"] else [moment for moment in missing if spec["match"](moment)]
        if not spec["open"]((gone + [local])[0]):
            return "window"
        return "gap" if gone else "fold"


def merge_spans(lost):
    """[(instant, reason)] -> those that follow each other as one; from the fiftieth on all are one."""
    spans = []
    for number, (instant, reason) in enumerate(lost):
        if spans and (spans[-1][3] == reason or number >= agent.MAX_SPANS):
            spans[-1] = (spans[-1][0], instant, spans[-1][2] + 1, spans[-1][3])
        else:
            spans.append((instant, instant, 1, reason))
    return spans


def random_set(rng, low, high, star=0.3):
    """(cron text, set of numbers) for one field."""
    if rng.random() < star:
        step = rng.choice((1, 1, 2, 3, 5))
        return "*" if step == 1 else "*/%d" % step, set(range(low, high + 1, step))
    texts, numbers = [], set()
    for _ in range(rng.randint(1, 3)):
        first = rng.randint(low, high)
        last, step = rng.randint(first, high), rng.randint(1, 4)
        form = rng.randint(0, 2)
        texts.append(("%d" % first, "%d-%d" % (first, last), "%d-%d/%d" % (first, last, step))[form])
        numbers |= set(({first}, range(first, last + 1), range(first, last + 1, step))[form])
    return ",".join(texts), numbers


def random_times(rng):
    times = {(rng.choice((0, 1, 1, 2, 2, 2, 3, 3, 12, 23)), rng.choice((0, 15, 30, 45, 59))) for _ in range(rng.randint(1, 4))}
    return ",".join("%02d:%02d" % moment for moment in times), times


def last_day(local):
    return calendar.monthrange(local.year, local.month)[1]


def random_rule(rng):
    """(rule, whether of real hours, step in seconds, function that tells whether a local minute matches)."""
    kind = rng.choice(("every", "hourly", "daily", "weekly", "monthly", "nth", "yearly", "cron", "cron", "cron"))
    text, times = random_times(rng)
    on_time = lambda local: (local.hour, local.minute) in times
    if kind == "every":
        step = 60 * rng.choice((1, 7, 15, 30, 60, 100, 360, 1440))
        return "every %ds" % step, False, step, None
    if kind == "hourly":
        minutes = {rng.randint(0, 59) for _ in range(2)}
        return "hourly at " + ",".join("%02d:00" % minute for minute in minutes), True, 0, lambda l: l.minute in minutes
    if kind == "daily":
        return "daily at " + text, False, 0, on_time
    if kind == "weekly":
        days = rng.sample(range(7), rng.randint(1, 5))
        return ("weekly on %s at %s" % (",".join(WEEKDAYS[day] for day in days), text), False, 0,
                lambda local: on_time(local) and local.weekday() in days)
    if kind == "monthly":
        days = rng.sample(range(1, 32), 9)
        return ("monthly on %s,last at %s" % (",".join(map(str, days)), text), False, 0,
                lambda local: on_time(local) and (local.day in days or local.day == last_day(local)))
    if kind == "nth":
        n, day = rng.choice((1, 2, 3, 4, 5)), rng.choice((0, 6, 6))
        word = {5: "last", 1: "first", 2: "second", 3: "third", 4: "fourth"}[n]
        return ("monthly on %s %s at %s" % (word, WEEKDAYS[day], text), False, 0,
                lambda local: on_time(local) and local.weekday() == day
                and (local.day + 7 > last_day(local) if n == 5 else (local.day - 1) // 7 == n - 1))
    if kind == "yearly":
        days = {(month, rng.randint(20, 30)) for month in (3, 3, 4, 10, 10, 11)} | {(4, 5), (3, 8), (11, 1), (10, 4)}
        return ("yearly on %s at %s" % (",".join("%02d-%02d" % day for day in days), text), False, 0,
                lambda local: on_time(local) and (local.month, local.day) in days)
    return random_cron(rng)


def random_cron(rng):
    (minute, minutes), (hour, hours) = random_set(rng, 0, 59), random_set(rng, 0, 23, 0.4)
    (day, days), (month, months), (week, weekdays) = random_set(rng, 1, 28, 0.6), random_set(rng, 1, 12, 0.8), random_set(rng, 0, 6, 0.6)
    if day.startswith("*"):
        days = set(range(1, 32, int(day[2:] or 1)))
    extra = rng.choice(("", "", "L", "0#2", "0L"))
    day = day + ",L" if extra == "L" and not day.startswith("*") else day
    week = week + "," + extra if extra[:1] == "0" and not week.startswith("*") else week

    def match(local):
        if local.minute not in minutes or local.hour not in hours or local.month not in months:
            return False
        number = local.isoweekday() % 7
        on_day = local.day in days or day.endswith("L") and local.day == last_day(local)
        on_week = (number in weekdays or week.endswith("0#2") and number == 0 and (local.day - 1) // 7 == 1
                   or week.endswith("0L") and number == 0 and local.day + 7 > last_day(local))
        return on_day and on_week if day.startswith("*") or week.startswith("*") else on_day or on_week
    return "cron %s %s %s %s %s" % (minute, hour, day, month, week), hour.startswith("*"), 0, match


def random_options(rng, minutes):
    options, checks = {}, []
    if rng.random() < 0.3:
        low, high = (rng.choice((0, 60, 90, 120, 150, 180, 600, 1320)) for _ in range(2))
        options["hours"] = "%02d:%02d-%02d:%02d" % (low // 60, low % 60, high // 60, high % 60)
        checks.append(lambda l: low <= l.hour * 60 + l.minute <= high if low <= high
                      else not high < l.hour * 60 + l.minute < low)
    if rng.random() < 0.3:
        closed = rng.sample(range(7), rng.randint(1, 3))
        options["exclude_weekdays"] = [WEEKDAYS[day] for day in closed]
        checks.append(lambda l: l.weekday() not in closed)
    if rng.random() < 0.3:
        barred = rng.sample(range(1, 32), 5)
        options["exclude_monthdays"] = barred + ["last"]
        checks.append(lambda l: l.day not in barred and l.day != last_day(l))
    if rng.random() < 0.3:
        first = (EPOCH + timedelta(seconds=minutes.first + rng.randint(0, 9) * DAY)).date()
        until = first + timedelta(days=rng.randint(0, 3))
        options["exclude_dates"] = "%s..%s" % (first, until)
        checks.append(lambda l: not first <= l.date() <= until)
    if rng.random() < 0.3:
        options["gap"] = "skip"
    if rng.random() < 0.4:
        options["fold"] = "both"
    return options, lambda local: all(check(local) for check in checks)


@pytest.mark.parametrize("zone, first", [
    (ZURICH, "2026-03-22 00:00"), (ZURICH, "2026-10-18 12:00"), (NEW_YORK, "2026-03-02 00:00"),
    (NEW_YORK, "2026-10-25 00:00"), (LORD_HOWE, "2026-09-28 00:00"), (LORD_HOWE, "2026-03-30 00:00"),
    (KATHMANDU, "2026-02-20 00:00"), ("UTC0", "2027-12-24 00:00"),
])
def test_random_rules_against_every_minute(set_tz, zone, first):
    set_tz(zone)
    minutes, rng = Minutes(first, 14), random.Random(first + zone)
    for _ in range(40):
        rule, real, step, match = random_rule(rng)
        options, is_open = random_options(rng, minutes)
        spec = {"real": real, "step": step, "match": match, "open": is_open, "options": options}
        table = make_timetable(rule, "", options)
        expected = minutes.list_due(spec)
        said = (zone, rule, options)
        assert list_due(table, minutes.first, 10 ** 6, minutes.last) == expected, said
        for _ in range(6):
            low, high = sorted(rng.randint(minutes.first, minutes.last) for _ in range(2))
            inside = [due for due in expected if low < due <= high]
            assert table.count(low, high) == len(inside), said
            assert table.last_until(low, high) == (inside[-1] if inside else None), said
        alone = dict(spec, open=lambda local: True, options={"fold": "both"})
        lost = sorted(set(minutes.list_due(alone)) - set(expected))
        lost = [(instant, minutes.find_reason(spec, instant)) for instant in lost]
        found = table.excluded_between(minutes.first, minutes.last, 10 ** 6)
        assert [row[:2] for row in found] == lost, said
        assert list(table.iter_excluded(minutes.first, minutes.last)) == found, said
        for _ in range(6):
            low, high = sorted(rng.randint(minutes.first, minutes.last) for _ in range(2))
            inside = [row for row in lost if low < row[0] <= high]
            assert [span[:4] for span in table.excluded_spans(low, high)] == merge_spans(inside), said
        for low in [rng.randint(minutes.first, minutes.last) for _ in range(6)] + rng.sample(expected, min(6, len(expected))):
            high = table.next_after(low) or minutes.last
            inside = [instant for instant, _ in lost if low < instant < high]
            assert table.next_excluded(low, min(high, minutes.last)) == (inside[0] if inside else None), said


def test_random_repetitions_against_every_minute(set_tz):
    set_tz(ZURICH)
    for first in ("2026-03-24 00:00", "2026-10-20 00:00"):
        minutes, rng = Minutes(first, 9), random.Random(first)
        start = minutes.first + 3 * DAY  # no repetition from before the first minute reaches so far
        for _ in range(40):
            rule, real, step, match = random_rule(rng)
            options, is_open = random_options(rng, minutes)
            options.update(repeat_every=60 * rng.choice((1, 7, 30, 60, 420)), repeat_count=rng.randint(1, 9))
            if step == 60 or rule.startswith("cron * *"):
                continue  # hundreds of firings overlap: right, but slow to list
            expected = [due for due in minutes.list_due({"real": real, "step": step, "match": match, "open": is_open,
                                                         "options": options}) if due > start]
            try:
                table = make_timetable(rule, "", options)
            except CalendarError as error:
                assert "might overlap" in str(error)
                continue
            assert list_due(table, start, 300, minutes.last) == expected[:300], (rule, options)
            low, high = sorted(rng.randint(start, minutes.last) for _ in range(2))
            inside = [due for due in expected if low < due <= high]
            assert table.count(low, high) == len(inside), (rule, options)
            assert table.last_until(low, high) == (inside[-1] if inside else None), (rule, options)


@pytest.mark.parametrize("zone, first, hours", [(ZURICH, "2026-03-29 00:00", 3), (LORD_HOWE, "2026-04-04 14:00", 3)])
def test_seconds_around_a_change(set_tz, zone, first, hours):
    """Six fields, second by second."""
    set_tz(zone)
    for hour in ("*", "1-3"):
        table = make_timetable("cron */7,59 * %s * * *" % hour)
        expected, seen = [], None
        for instant in range(at(first) - HOUR, at(first) + hours * HOUR + 1):
            local = instant + time.localtime(instant).tm_gmtoff
            seconds = set(range(0, 60, 7)) | {59}
            hit = local % 60 in seconds and (hour == "*" or 1 <= local // HOUR % 24 <= 3)
            if hour != "*" and seen is not None:
                hit = hit and local > seen or local > seen + 1
            seen = max(local, seen or 0)
            if hit and instant > at(first):
                expected.append(instant)
        assert list_due(table, at(first), 10 ** 6, at(first) + hours * HOUR) == expected
        assert table.count(at(first), at(first) + hours * HOUR) == len(expected)


def test_many_firings_whose_repetitions_overlap_cost_little():
    """960 of them are under way at any time; each second of a day is due once. A count of one hour took 3 s."""
    table = make_timetable("hourly at 12:18", "UTC", {"repeat_every": 1, "repeat_for": 40 * 24 * HOUR})
    begin = at("2026-06-01 00:00")
    count, turns = turns_of(lambda: table.count(begin, begin + 24 * HOUR))
    assert count == 24 * HOUR and turns < 2 * 10 ** 6
    dues, turns = turns_of(lambda: list_due(table, begin, 500))
    assert dues == list(range(begin + 1, begin + 501)) and turns < 2 * 10 ** 6


def test_what_is_excluded_first_is_found_without_a_look_at_all_years():
    """Of a rule that its window never lets be due: it took a minute."""
    table = make_timetable("every 1d", "UTC", {"hours": "08:00-18:00", "exclude_monthdays": "31"})
    begin = at("2026-06-01 00:00")
    excluded, turns = turns_of(lambda: table.excluded_between(begin, at("9998-01-01 00:00"), 30))
    assert [instant for instant, *_ in excluded] == [begin + (day + 1) * 24 * HOUR for day in range(30)]
    assert turns < 2 * 10 ** 6
