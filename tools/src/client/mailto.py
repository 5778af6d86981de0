"""MAILTO of a crontab: notices by mail of what fails."""
import re
import zlib

NOTICE_PREFIX = "CRON.MAILTO."


def notice_prefix(keywords):
    """What the names of all notices of a crontab begin with, by the keywords of its schedules."""
    return NOTICE_PREFIX + keywords.replace(",", "-").replace(".", "_") + "."


def notice_name(keywords, value):
    """The name of the notice for a value of MAILTO; all but plain users are told apart by a mark.
    """
    name = re.sub("[^A-Za-z0-9_-]+", "_", value).strip("_")[:50]
    return notice_prefix(keywords) + (name if name == value else "%s-%06x" % (
        name, zlib.crc32(value.encode("utf-8", "replace")) & 0xffffff))


def list_addresses(value):
    """The addresses of a value of MAILTO."""
    return list(filter(None, re.split(r"[,\s]+", value)))


def list_notices(keywords, entries):
    """The notices of the entries of a crontab, as definitions: one for each value of MAILTO that
    names somebody, of the scenarios below it."""
    by_value = {}
    for entry in entries:
        value = entry.task["env"].get("MAILTO", "")
        if list_addresses(value):
            by_value.setdefault(value, []).append(entry.name)
    return [{"name": notice_name(keywords, value), "scenarios": sorted(set(names)),
             "send": {"type": "mail", "to": list_addresses(value)}}
            for value, names in sorted(by_value.items())]
