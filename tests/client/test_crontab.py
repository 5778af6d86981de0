"""agentcli.py import --crontab: what lines of crontabs become, and crontabs as they are found in a real agent."""
import json
import os
import re
import sys
import time

import pytest

import agent as agent_module
from conftest import TOP, turns_of, wait_for
from support.client import objects, run_client

sys.path.insert(0, str(TOP / "tools"))

from agentcli import (get_user, make_crontab, mark, name_entries, program_of, quote_literal, split_input,    # noqa: E402
                      stem_of)

pytestmark = pytest.mark.once

USER = get_user()
PATHS = "PATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin\n"
# file -> (text, what the entries that are carried over for root go by, numbers of the lines that are not, and of those
# that may fail where nothing has failed)
SHIPPED = {
    "crontab": ("""\
# /etc/crontab: system-wide crontab
# Unlike any other crontab you don't have to run the `crontab'
# command to install the new version when you edit this file
# and files in /etc/cron.d. These files also have username fields,
# that none of the other crontabs do.

SHELL=/bin/sh
PATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin

# .---------------- minute (0 - 59)
# |  .------------- hour (0 - 23)
# *  *  *  *  * user-name command to be executed
17 *\t* * *\troot    cd / && run-parts --report /etc/cron.hourly
25 6\t* * *\troot\ttest -x /usr/sbin/anacron || ( cd / && run-parts --report /etc/cron.daily )
47 6\t* * 7\troot\ttest -x /usr/sbin/anacron || { cd / && run-parts --report /etc/cron.weekly; }
52 6\t1 * *\troot\ttest -x /usr/sbin/anacron || ( cd / && run-parts --report /etc/cron.monthly )
#
""", "cron.hourly cron.daily cron.weekly cron.monthly", (), ()),
    "0hourly": ("""\
# Run the hourly jobs
SHELL=/bin/bash
PATH=/sbin:/bin:/usr/sbin:/usr/bin
MAILTO=root
01 * * * * root run-parts /etc/cron.hourly
""", "cron.hourly", (), ()),
    "e2scrub_all": ("""\
30 3 * * 0 root test -e /run/systemd/system || SERVICE_MODE=1 /usr/lib/x86_64-linux-gnu/e2fsprogs/e2scrub_all_cron
10 3 * * * root test -e /run/systemd/system || SERVICE_MODE=1 /sbin/e2scrub_all -A -r
""", "e2scrub_all_cron e2scrub_all", (), ()),
    "sysstat": ("""\
# The first element of the path is a directory where the debian-sa1
# script is located
PATH=/usr/lib/sysstat:/usr/sbin:/usr/sbin:/usr/bin:/sbin:/bin

# Activity reports every 10 minutes everyday
5-55/10 * * * * root command -v debian-sa1 > /dev/null && debian-sa1 1 1

# Additional run at 23:59 to rotate the statistics file
59 23 * * * root command -v debian-sa1 > /dev/null && debian-sa1 60 2
""", "debian-sa1 debian-sa1", (), (6, 9)),
    "php": ("""\
# Look for and purge old sessions every 30 minutes
09,39 *     * * *     root   [ -x /usr/lib/php/sessionclean ] && if [ ! -d /run/systemd/system ]; then \
/usr/lib/php/sessionclean; fi
""", "sessionclean", (), (2,)),
    "certbot": ("SHELL=/bin/sh\n" + PATHS + """
0 */12 * * * root test -x /usr/bin/certbot -a \\! -d /run/systemd/system && perl -e 'sleep int(rand(43200))' && \
certbot -q renew --no-random-sleep-on-renew
""", "certbot", (), (4,)),
    "mdadm": ("""\
57 0 * * 0 root if [ -x /usr/share/mdadm/checkarray ] && [ $(date +\\%d) -le 7 ]; then \
/usr/share/mdadm/checkarray --cron --all --idle --quiet; fi
""", "checkarray", (), ()),
    "zfsutils-linux": (PATHS + """
24 0 1-7 * * root if [ $(date +\\%w) -eq 0 ] && [ -x /usr/lib/zfs-linux/trim ]; then /usr/lib/zfs-linux/trim; fi
24 0 8-14 * * root if [ $(date +\\%w) -eq 0 ] && [ -x /usr/lib/zfs-linux/scrub ]; then /usr/lib/zfs-linux/scrub; fi
""", "trim scrub", (), ()),
    "popularity-contest": ("SHELL=/bin/sh\n" + PATHS + """\
33 19 * * *   root    test -x /etc/cron.daily/popularity-contest && /etc/cron.daily/popularity-contest --crond
""", "popularity-contest", (), (3,)),
    "anacron": ("SHELL=/bin/sh\n" + PATHS + """
30 7-23 * * *   root\t[ -x /etc/init.d/anacron ] && if [ ! -d /run/systemd/system ]; then \
/usr/sbin/invoke-rc.d anacron start >/dev/null; fi
""", "invoke-rc.d", (), (4,)),
    "amavisd-new": ("""\
#
#  SpamAssassin maintenance for amavisd-new
#
# m h dom mon dow user  command
18 */3\t* * *\tamavis\ttest -e /usr/sbin/amavisd-new-cronjob && /usr/sbin/amavisd-new-cronjob sa-sync
24 1\t* * *\tamavis\ttest -e /usr/sbin/amavisd-new-cronjob && /usr/sbin/amavisd-new-cronjob sa-clean
""", "", (5, 6), ()),
    "ntpsec": ("""\
25 6     * * * root if [ ! -d /run/systemd/system ] && [ -x /usr/libexec/ntpsec/rotate-stats ] ; then \
/usr/libexec/ntpsec/rotate-stats ; fi
""", "rotate-stats", (), ()),
    "logcheck": (PATHS + """\
MAILTO=root

@reboot         logcheck    if [ -x /usr/sbin/logcheck ]; then nice -n10 /usr/sbin/logcheck -R; fi
2 * * * *       logcheck    if [ -x /usr/sbin/logcheck ]; then nice -n10 /usr/sbin/logcheck; fi

# EOF
""", "", (4, 5), ()),
    "munin": ("""\
MAILTO=root

@reboot         root  if [ ! -d /var/run/munin ]; then /bin/bash -c 'perms=(`/usr/sbin/dpkg-statoverride --list \
/var/run/munin`); mkdir /var/run/munin; if [ ! -z "$perms" ]; then chown ${perms[0]}:${perms[1]} /var/run/munin; fi'; fi
*/5 * * * *     munin if [ -x /usr/bin/munin-cron ]; then /usr/bin/munin-cron; fi
27 03 * * *     root htmldir=${htmldir:-/var/cache/munin/www}; if [ -d "$htmldir" ]; then find "$htmldir/" -type f \
-name "*.html" -mtime +30 -delete; fi
""", "bash find", (4,), ()),
    "atop": ("""\
PATH=/bin:/usr/bin:/sbin:/usr/sbin
# daily restart of atop at midnight
0 0 * * * root if [ -d "/run/systemd/system" ]; then systemctl restart atop; else /usr/share/atop/atop.daily & : ; fi
""", "systemctl", (), ()),
    "awstats": ("""\
MAILTO=root
*/10 * * * * www-data [ -x /usr/share/awstats/tools/update.sh ] && /usr/share/awstats/tools/update.sh
# Generate static reports:
10 03 * * * www-data [ -x /usr/share/awstats/tools/buildstatic.sh ] && /usr/share/awstats/tools/buildstatic.sh
""", "", (2, 4), ()),
    "mailman3": ("SHELL=/bin/sh\n" + PATHS + """
0  8 * * *  list\tif [ -x /usr/bin/mailman ]; then /usr/bin/mailman notify; fi
0 12 * * *  list\tif [ -x /usr/bin/mailman ]; then /usr/bin/mailman digests --periodic; fi
""", "", (4, 5), ()),
    "munin-node": ("""\
MAILTO=root
*/5 * * * *\troot if [ -x /etc/munin/plugins/apt_all ]; then /etc/munin/plugins/apt_all update 7200 12 >/dev/null; \
elif [ -x /etc/munin/plugins/apt ]; then /etc/munin/plugins/apt update 7200 12 >/dev/null; fi
""", "apt_all", (), ()),
    "btrfsmaintenance": ("-*/15 * * * *   root  test -x /usr/lib/atsar/atsa1 && /usr/lib/atsar/atsa1\n",
                         "atsa1", (), (1,)),
}


def read_crontab(text, path="nightly", is_system=None, user="me"):
    """The Crontab of a text, imported by `user`, whose home is /home/me."""
    data = text if isinstance(text, bytes) else text.encode()
    return make_crontab(path, is_system, user, "/home/me").read(data)


def task_of(text):
    """The task of the last entry."""
    return read_crontab(text).entries[-1].scenario["steps"][0]["tasks"][0]


def schedule_of(text):
    """The schedule of the last entry."""
    return read_crontab(text).entries[-1].schedule


def notes_of(crontab):
    """What is said about lines: `number reason`."""
    return ["%d %s" % (line.number, reason) for line, reason in sorted(crontab.notes)]


# ---- what a line becomes ---------------------------------------------------------------------------------------------

def test_an_entry_becomes_a_scenario_and_a_schedule():
    crontab = read_crontab("# m h dom mon dow\n\n  0 2 * * mon-fri  /opt/bin/load.sh --all # tonight\n")
    entry, = crontab.entries
    assert entry.line == (3, "0 2 * * mon-fri  /opt/bin/load.sh --all # tonight") and crontab.notes == []
    name = mark("CRON.load.sh", "/opt/bin/load.sh --all # tonight", "")
    assert crontab.document() == {
        "scenarios": [{"name": name, "version": "001", "steps": [{"name": "main", "tasks": [
            {"type": "os", "command": "/opt/bin/load.sh --all # tonight", "cwd": "/home/me",
             "env": {"SHELL": "/bin/sh", "HOME": "/home/me", "LOGNAME": "me", "USER": "me"}}]}]}],
        "schedules": [{"name": name, "scenario": name, "version": "001", "keywords": "cron",
                       "rule": "cron 0 2 * * mon-fri", "overlap": "parallel", "misfire": "skip"}]}


@pytest.mark.parametrize("line, name, value", [
    ("A=b", "A", "b"), ("A = b c  ", "A", "b c"), ("A=\tb", "A", "b"), ('A="b "', "A", "b "), ("A=' b'  ", "A", " b"),
    ("A=", "A", ""), ('A=""', "A", ""), ('"A"=b', "A", "b"), ("'A' = b", "A", "b"), ("A=it's", "A", "it's"),
    ("A=b=c", "A", "b=c"), ("A='say \"b\"'", "A", 'say "b"'), ("A=$HOME/x", "A", "$HOME/x"), ("A=b # c", "A", "b # c"),
    ("A=${HOME}", "A", "$${HOME}"), ("A=50%", "A", "50%"), ("PATH=/a:/b", "PATH", "/a:/b"), ("A.b-c=1", "A.b-c", "1"),
    ("LOGNAME=you", "LOGNAME", "me"), ("USER=you", "USER", "me"), ("CRON_TZ=UTC", "CRON_TZ", "UTC")])
def test_settings(line, name, value):
    crontab = read_crontab(line + "\n* * * * * x\n")
    assert crontab.notes == [] and len(crontab.entries) == 1
    assert task_of(line + "\n* * * * * x\n")["env"][name] == value


def test_a_setting_holds_for_the_entries_below_it():
    crontab = read_crontab("* * * * * a\nX=1\n* * * * * b\nX=2\n@daily X=3 c\n")
    environments = [entry.scenario["steps"][0]["tasks"][0]["env"] for entry in crontab.entries]
    assert [environment.get("X") for environment in environments] == [None, "1", "2"]
    assert task_of("X=2\n@daily X=3 c")["command"] == "X=3 c"


def test_settings_that_mean_something_to_cron():
    assert task_of("HOME=/srv\n* * * * * x")["cwd"] == "/srv"
    assert task_of("SHELL=/bin/bash\n* * * * * a ${b}\\%")["command"] == ["/bin/bash", "-c", "a $${b}%"]
    assert task_of("SHELL=/bin/sh\n* * * * * x")["command"] == "x"
    assert "timezone" not in schedule_of("* * * * * x")
    assert schedule_of("CRON_TZ=Europe/Zurich\n* * * * * x")["timezone"] == "Europe/Zurich"
    assert "timezone" not in schedule_of("CRON_TZ=Europe/Zurich\nCRON_TZ=\n* * * * * x")
    assert schedule_of("RANDOM_DELAY=5\n* * * * * x")["jitter"] == 300
    assert "jitter" not in schedule_of("RANDOM_DELAY=5\nRANDOM_DELAY=\n* * * * * x")
    assert notes_of(read_crontab("MAILTO=\"\"\nMAILTO=me\n* * * * * x")) == [
        "2 a mail is sent when a command fails, not when it prints (that is in its session's log), by the notice "
        "CRON.MAILTO.cron.me"]
    crontab = read_crontab("RANDOM_DELAY=some\n* * * * * x")
    assert notes_of(crontab) == ["1 must be whole minutes"] and "jitter" not in crontab.entries[0].schedule


@pytest.mark.parametrize("text, command, data", [
    ("cat", "cat", ""), ("cat%", "cat", ""), ("cat%a", "cat", "a\n"), ("cat%a%b", "cat", "a\nb\n"),
    ("cat%a%", "cat", "a\n"), ("cat%%", "cat", "\n"), ("cat%a%%b", "cat", "a\n\nb\n"), ("cat% a ", "cat", " a \n"),
    ("date +\\%d", "date +%d", ""), ("date +\\%d%x\\%y", "date +%d", "x%y\n"), ("a\\b", "a\\b", ""),
    ("a\\", "a\\", ""), ("a\\\\%b", "a\\\\", "b\n"), ("a\\\\\\%b", "a\\\\%b", ""), ("cat%a\\b", "cat", "a\\b\n"),
    ('mail -s "It\'s 10pm" joe%Joe,%%Where are your kids?%', 'mail -s "It\'s 10pm" joe',
     "Joe,\n\nWhere are your kids?\n")])
def test_percent(text, command, data):
    assert split_input(text) == (command, data)
    task = task_of("* * * * * " + text)
    assert (task["command"], task.get("stdin", "")) == (command, data)


@pytest.mark.parametrize("text", [
    "echo $HOME ${HOME} $${HOME} $$${HOME} $$", "${x:-y} ${#x} ${x%.*} ${} ${1} ${a[0]}", "$(x) `y` $${ $ {x} $$ ${x",
    "${SESSION} $${SESSION} ${VAR_x}"])
def test_what_the_agent_would_substitute(text):
    assert agent_module.shell_command(quote_literal(text)) == text
    assert agent_module.substitute(quote_literal(text), {}) == text


@pytest.mark.parametrize("when, rule, others", [
    ("*/5\t0  1,15 * sun", "cron */5 0 1,15 * sun", {}), ("-*/15 * * * *", "cron */15 * * * *", {}),
    ("@daily", "cron @daily", {}), ("@midnight", "cron @midnight", {}), ("@reboot", "boot", {"misfire": None}),
    ("@every_minute", "every 1m", {}), ("@every_second", "every 1s", {}), ("@90", "every 90s", {"overlap": "skip"})])
def test_rules(when, rule, others):
    schedule = schedule_of(when + " x")
    wanted = dict({"rule": rule, "overlap": "parallel", "misfire": "skip"}, **others)
    assert {name: schedule.get(name) for name in wanted} == wanted
    agent_module.parse_rule(schedule["rule"])


@pytest.mark.parametrize("line, reason", [
    ("* * * * *", "no entry"), ("* * * * x", "no entry"), ("* * * * * %x", "no entry"), ("@daily", "no entry"),
    ("x", "no entry"), ("A=\"b", "no entry"), ("* * * * * * x", "sixth field"), ("* * * * * -n x", "options"),
    ("0~30 * * * * x", "random time"), (b"* * * * * \xfcber", "is not UTF-8"), (b"A=\xff", "is not UTF-8")])
def test_what_cannot_be_carried_over(line, reason):
    data = line if isinstance(line, bytes) else line.encode()
    crontab = read_crontab(b"# \xfc\n" + data + b"\n* * * * * y\n")
    note, = notes_of(crontab)
    assert note.startswith("2 ") and reason in note
    assert (crontab.left_out, [entry.line.number for entry in crontab.entries]) == (1, [3])


def test_forms_of_the_file():
    for text in ("", "\n", "# only\n\t \n", "A=1"):
        assert read_crontab(text).document() == {"scenarios": [], "schedules": []} and not read_crontab(text).notes
    assert task_of("A=1\r\n0 0 * * * x\r\n")["env"]["A"] == "1"
    assert task_of("A=1\r\n0 0 * * * x\r\n")["command"] == "x"
    assert task_of("\ufeff \t0 0 * * *\tx  y ")["command"] == "x  y "
    assert task_of("0 0 * * * \u00fcber \u20ac")["command"] == "\u00fcber \u20ac"


# ---- whose it is -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("path, is_system, carried", [
    ("/etc/crontab", None, True), ("/etc/cron.d/php", None, True), ("/srv/copy/cron.d/php", None, True),
    ("/etc/crontab", False, False), ("crontab", None, False), ("crontab", True, True), ("-", None, False),
    ("-", True, True), ("/etc/cron.daily/php", None, False)])
def test_what_is_a_system_crontab(path, is_system, carried):
    task = read_crontab("* * * * * me x y\n", path, is_system).entries[0].scenario["steps"][0]["tasks"][0]
    assert task["command"] == ("x y" if carried else "me x y")


def test_users():
    crontab = read_crontab("1 * * * * me a\n2 * * * * you b\n3 * * * * me:wheel c\n4 * * * * me/daemon d\n5 * * * * me\n"
                   "6 * * * *\n@daily me e\n", is_system=True)
    assert [entry.line.number for entry in crontab.entries] == [1, 7]
    assert notes_of(crontab) == [
        "%d is of user %s, and the agent does not change users" % pair
        for pair in ((2, "you"), (3, "me:wheel"), (4, "me/daemon"))] + [
            "%d is no entry: five fields or an @ word, a user, a command" % number for number in (5, 6)]


@pytest.mark.parametrize("folder", ["/var/spool/cron/crontabs", "/var/spool/cron", "/var/spool/cron/tabs",
                                    "/var/cron/tabs"])
def test_the_crontab_of_another_user(folder):
    assert len(read_crontab("* * * * * x", folder + "/me").entries) == 1
    assert notes_of(read_crontab("* * * * * x", folder + "/you")) == ["1 is of user you, and the agent does not change users"]


def test_a_user_before_the_command():
    def found(text, path="nightly", is_system=None):
        field = read_crontab(text, path, is_system).find_user_field(("root", "me").__contains__)
        return field and "%d %s" % (field[0].number, field[1])
    assert found("A=1\n17 * * * * root cd /\n") == "2 root"
    assert found("@daily me:wheel x\n@daily root/daemon x\n") == "1 me:wheel"
    assert found("@daily x\n@daily me x\n@daily root x\n") == "2 me"
    assert found("@daily x\n@daily me x\n") is None               # as many as not
    for text in ("", "@daily me\n", "@daily /me x\n", "@daily x me\n", "1~2 * * * * me x\n"):
        assert found(text) is None
    assert found("@daily me x\n", "/etc/cron.d/a") is None and found("@daily me x\n", is_system=True) is None


# ---- names -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("command, name", [
    ("backup", "backup"), ("/opt/x/backup.sh -v /data", "backup.sh"), ("$HOME/bin/go", "go"), ("~/bin/go", "go"),
    ('"$HOME/bin/go" now', "go"), ("A=1 B='2 3' go", "go"), ("nice -n 19 ionice -c3 /usr/bin/go", "go"),
    ("timeout 60s go", "go"), ("flock -n /run/lock/x go a", "go"), ("nice flock -w 10 /x nice /go", "go"), ("flock /x", "flock"),
    ("flock -n 9 || exit 1", "flock"), ("cd /srv/app && ./run.sh 2>&1 | logger", "run.sh"), ("cd /srv/app; go", "go"),
    ("python3 -u /srv/load.py", "load.py"), ("python3 -m pack.age", "pack.age"), ("/usr/bin/env perl x.pl", "x.pl"),
    ("cd /srv && php artisan schedule:run >> /dev/null 2>&1", "artisan"), ("wget -q -O - http://x/", "wget"),
    ("test -x /a && b", "b"), ("[ -x /a ] || exit 0; b", "b"), ("[ `date +x` = y ] && b", "b"),
    (". ~/.profile; b", "b"), ("for x in 1 2; do b $x; done", "b"), ("if true; then bash -c 'a b'; fi", "true"),
    (">/dev/null b", "b"), ("(b)", "b"), ("echo hello", "echo"), ("bash -c 'a b'", "bash"), ("'$x", "x"),
    ("+", "command"), ("m\u00fcll", "m_ll"), ("x" * 200, "x" * 50)])
def test_what_a_command_goes_by(command, name):
    assert program_of(command) == name


@pytest.mark.parametrize("command, stem", [
    ("backup", "backup"), ("backup full  -v", "backup_full_-v"), ("nice backup", "nice_backup"), ("a.b-c", "a.b-c")])
def test_a_command_of_plain_words_is_its_own_name(command, stem):
    assert stem_of(command, "") == stem
    assert re.fullmatch(program_of(command) + "-[0-9a-f]{6}", stem_of(command, "input"))


def test_what_follows_from_the_whole_command():
    stems = {stem_of(command, data) for command in ("/a/x", "/b/x", "x 'y'", "x >y", "cd /a; x", "x " + "y" * 60)
             for data in ("", "a\n")}
    assert len(stems) == 12 and {re.sub("-[0-9a-f]{6}$", "", stem) for stem in stems} == {"x"}
    assert stem_of("/opt/load.sh --all", "") == "load.sh-2d68e4"       # the same for ever: schedules are found by it


def names_of(text, path="nightly", known=None):
    """The names of a crontab's scenarios and schedules."""
    crontab = read_crontab(text, path)
    name_entries([crontab], known or {})
    entries = crontab.entries
    assert all(entry.scenario["name"] == entry.schedule["name"] == entry.schedule["scenario"] for entry in entries)
    return [entry.schedule["name"] for entry in entries]


def test_a_name_is_that_of_the_command_wherever_it_stands():
    a, b, c = ("0 %d * * * /bin/%s x\n" % pair for pair in enumerate("abc"))
    assert names_of(c + a + b)[1:] == names_of(a + b) == names_of("# a\nX=1\n" + a + "HOME=/\n" + b)
    assert names_of(a) == names_of(a.replace("0", "30", 1)) == names_of(a, "-") == names_of(a, "/x/crontab.txt")
    assert names_of(a + "1~2 * * * * /bin/a x\n" + b) == names_of(a + b)
    assert all(agent_module.check_name(name) for name in names_of("* * * * * " + "x" * 200, "y" * 200))


def test_names_of_one_command_at_several_times():
    """Each keeps the name that its time has in the agent; the others follow from their time."""
    a, b, c = ("0 %d * * * x\n" % hour for hour in range(3))

    def known(text, before=None):
        return {name: entry.when for name, entry in zip(names_of(text, known=before), read_crontab(text).entries)}
    assert names_of(a + b)[0] == "CRON.x" and re.fullmatch("CRON.x-[0-9a-f]{6}", names_of(a + b)[1])
    before = known(a + b)
    assert names_of(c + b + a, known=before)[1:] == names_of(a + b)[::-1]
    assert names_of(b, known=before) == names_of(a + b)[1:]
    assert names_of(c + b, known=before) == names_of(a + b)           # the time of the first has changed
    assert names_of(c, known={"CRON.x": ("cron 0 5 * * *", "")}) == ["CRON.x"]
    assert len(set(names_of(a + "CRON_TZ=UTC\n" + a + a + a))) == 4
    assert names_of(a + "CRON_TZ=UTC\n" + a + a)[2] == names_of(a + "CRON_TZ=UTC\n" + a)[1] + "-2"


def test_several_crontabs_are_named_together():
    one, two = read_crontab("0 1 * * * x\n"), read_crontab("0 2 * * * x\n", "/etc/cron.d/two", user="me")
    two = read_crontab("0 2 * * * me x\n", "/etc/cron.d/two")
    name_entries([one, two], {})
    assert [one.entries[0].name] == ["CRON.x"] and two.entries[0].name.startswith("CRON.x-")


@pytest.mark.parametrize("path, is_system, keywords", [
    ("-", None, "cron"), ("/home/me/crontab.txt", None, "cron"), ("/var/spool/cron/crontabs/me", None, "cron"),
    ("/etc/crontab", None, "cron,system"), ("-", True, "cron,system"), ("/x/crontab.txt", True, "cron,system"),
    ("/etc/cron.d/a b", None, "cron,system,a_b"), ("/etc/cron.d/a", False, "cron")])
def test_by_what_the_schedules_of_a_crontab_are_found_again(path, is_system, keywords):
    assert make_crontab(path, is_system, "me", "/home/me").keywords == keywords


# ---- comments and warnings -------------------------------------------------------------------------------------------

@pytest.mark.parametrize("above, description", [
    ("# Nightly load\n", "Nightly load"), ("## of all\n#\n# 2 files:\n#  a, b  #\n", "of all\n2 files:\na, b"),
    ("# Nightly\n\n", ""), ("# Nightly\nX=1\n", ""), ("# Nightly\n0 1 * * * b\n", ""), ("", ""),
    ("# Old\n#0 1 * * * b\n", ""), ("#@daily b\n", ""), ("# 0 1 * * mon-fri b\n# New\n", "New"),
    ("# m h  dom mon dow   command\n", ""), ("# .---- minute (0 - 59)\n# *  *  *  *  * user-name command\n", ""),
    ("# --------\n# load\n# --------\n", "load"), ("# M\u00fcll\n", "M\u00fcll"), ("# nul\0\n", "nul")])
def test_the_comment_above_an_entry_describes_it(above, description):
    scenario = read_crontab(above + "0 2 * * * load\n").entries[-1].scenario
    assert scenario.get("description", "") == description and list(scenario)[-1] == "steps"


@pytest.mark.parametrize("line, reason", [
    ("0 */5 * * * MON-FRI x", "has a sixth field, MON-FRI, before its command; cron has five"),
    ("0 0 2 * * mon-fri x", "has a sixth field, mon-fri, before"), ("0 0 2 1 1 ? x", "has a sixth field, ?, before"),
    ("0 0 2 * * 1-5 x", "has a sixth field, 1-5, before"), ("0 0 2 * * * x", "has a sixth field, *, before"),
    ("0 0 2 * * 1 2026 x", "has a sixth field, 1, before"), ("0 0 2 * * 5#2 x", "has a sixth field, 5#2, before"),
    ("@monthly 45 cron.monthly nice run-parts /etc/cron.monthly", "is of an anacrontab: period, delay, name, command"),
    ("1\t5\tcron.daily\t\tnice run-parts /etc/cron.daily", "is of an anacrontab: "),
    ("7 25 cron.weekly nice run-parts /etc/cron.weekly", "is of an anacrontab: ")])
def test_what_is_no_entry_of_cron(line, reason):
    crontab = read_crontab(line + "\n0 1 * * * mon x\n0 2 * * * 7z a\n1 5 L * * a-b c\n")
    assert [notes_of(crontab), crontab.left_out, len(crontab.entries)] == [[notes_of(crontab)[0]], 1, 3]
    assert notes_of(crontab)[0].startswith("1 " + reason)
    if reason.startswith("has"):
        fields, _, command = line.rpartition(" ")
        assert notes_of(read_crontab("%s root %s" % (fields, command), is_system=True))[0].startswith("1 " + reason)


FLOCK = "while another has its lock, its session ends in ERROR; with flock -E 0 it ends well"
CONDITION = "where its condition is not met, its session ends in ERROR; as 'if condition; then command; fi' it ends well"


@pytest.mark.parametrize("command, reasons", [
    ("flock -n /run/lock/x y", [FLOCK]), ("/usr/bin/flock --nonblock /l y z", [FLOCK]), ("cd / && flock -xn /l y", [FLOCK]),
    ("flock -w 10 /l y", [FLOCK]), ("flock -n -E 0 /l y", []), ("flock -nE 0 /l y", []), ("flock /l y -n", []),
    ("flock -n --conflict-exit-code=0 /l y", []), ("[ -x /a ] && /a", [CONDITION]), ("[[ -x /a ]] && /a", [CONDITION]),
    ("test -x /a && /a", [CONDITION]), ("cd /x && test -x a && ./a", [CONDITION]), ("grep -q 'a||b' /c && d", [CONDITION]),
    ("command -v a > /dev/null && a 1", [CONDITION]), ("[ -x /a ] || exit 0; b", []), ("test -x /a || b", []),
    ("[ -x /a ] && b || true", []), ("[ -x /a ] && b; c", []), ("[ -x /a ] && if b; then c; fi", [CONDITION]),
    ("if [ -x /a ]; then b; fi", []), ("a && b", []), ("echo '[ a ] && b'", []), ("testing && b", []),
    ("[ -x /a ] && flock -n /l /a", [FLOCK, CONDITION])])
def test_failures_that_are_none(command, reasons):
    crontab = read_crontab("0 1 * * * " + command)
    assert [reason for _, reason in crontab.notes] == reasons and (len(crontab.entries), crontab.left_out) == (1, 0)


@pytest.mark.parametrize("make", [lambda count: "* * * * * a\n" * count, lambda count: "A=b" + " " * count + "c",
                                  lambda count: "* * * * * " + "nice \"a' " * count])
def test_four_times_the_crontab_is_four_times_the_work(make):
    little, much, ratios = make(4000), make(16000), []
    for _ in range(10):             # the machine may be slow just now
        ratios.append(turns_of(lambda: read_crontab(much))[1] / (turns_of(lambda: read_crontab(little))[1] + 5000))
        if ratios[-1] < 8:
            return
    pytest.fail("%s times the work" % ratios)


# ---- crontabs as they are shipped ------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_crontab(name):
    text, carried, left_out, doubtful = SHIPPED[name]
    crontab = read_crontab(text, "/etc/" + ("" if name == "crontab" else "cron.d/") + name, user="root")
    stems = [re.fullmatch("CRON[.](.*)-[0-9a-f]{6}", entry.schedule["name"]).group(1) for entry in crontab.entries]
    assert " ".join(stems) == carried and len({entry.name for entry in crontab.entries}) == len(stems)
    assert [line.number for line, reason in crontab.notes if reason == CONDITION] == list(doubtful)
    assert [line.number for line, reason in crontab.notes if "is of user" in reason] == list(left_out)
    assert crontab.left_out == len(left_out)
    assert len(crontab.notes) == len(left_out) + len(doubtful) + text.count("MAILTO=root")


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_a_shipped_crontab_entry_by_entry(name):
    """Schedule, command, environment and user are those that the line has, read here in another way: word by word."""
    expected, settings = [], {}
    for line in SHIPPED[name][0].splitlines():
        words = line.split()
        if line.startswith("#") or not words:
            continue
        if re.match("[A-Z]+=", line):
            settings[line.split("=")[0]] = line.split("=", 1)[1]
            continue
        count = 1 if words[0].startswith("@") else 5
        command = line.split(None, count + 1)[count + 1]
        expected.append((words[count], "boot" if count == 1 else "cron " + " ".join(words[:5]).lstrip("-"),
                         command.replace("\\%", "%").replace("${", "$${"), dict(settings)))
    for user in {user for user, *_ in expected}:
        crontab = read_crontab(SHIPPED[name][0], "/etc/cron.d/" + name, user=user)
        tasks = [entry.scenario["steps"][0]["tasks"] for entry in crontab.entries]
        own = {"SHELL": "/bin/sh", "HOME": "/home/me", "LOGNAME": user, "USER": user}
        assert [(entry.schedule["rule"], entry.schedule["keywords"]) for entry in crontab.entries] == [
            (rule, "cron,system," + name) for other, rule, _, _ in expected if other == user]
        assert [(task["command"] if isinstance(task["command"], str) else task["command"][2], task["env"], task["cwd"])
                for task, in tasks] == [(command, dict(own, **env), "/home/me")
                                        for other, _, command, env in expected if other == user]
        assert crontab.left_out == sum(other != user for other, *_ in expected)


def test_the_anacrontab_that_is_shipped():
    """Nothing of it is taken for entries of cron, whether its lines are thought to name users or not."""
    text = ("SHELL=/bin/sh\n" + PATHS + "HOME=/root\nLOGNAME=root\n\n1\t5\tcron.daily\trun-parts --report /etc/cron.daily\n"
            "7\t10\tcron.weekly\trun-parts --report /etc/cron.weekly\n"
            "@monthly\t15\tcron.monthly\trun-parts --report /etc/cron.monthly\n")
    for is_system in (None, True):
        crontab = read_crontab(text, "/etc/anacrontab", is_system, user="root")
        assert (crontab.entries, crontab.left_out) == ([], 3)
        assert {reason for _, reason in crontab.notes} == {"is of an anacrontab: period, delay, name, command; write an entry of "
                                                           "cron, such as @monthly and the command"}


def test_shipped_crontabs_in_an_agent(agent, tmp_path):
    folder = tmp_path / "cron.d"
    folder.mkdir()
    for name, (text, *_) in SHIPPED.items():
        (folder / name).write_text(re.sub(r"\broot\b", USER, text))
    paths = [str(folder / name) for name in sorted(SHIPPED)]
    result = run_client(agent.port, "import", "--crontab", *paths)
    assert result.status == 0, result
    counts = [(len(carried.split()), len(left_out)) for _, (_, carried, left_out, _) in sorted(SHIPPED.items())]
    assert result.out == "".join("scenarios=%d schedules=%d left_out=%d\n" % (n, n, left) for n, left in counts)
    assert "amavisd-new:5: is of user amavis, and the agent does not change users: 18 */3\\t* * *" in result.err
    rows = {row["name"]: row for row in agent.rows("SCHED LIST")}
    assert sorted(name[5:-7] for name in rows) == sorted(name for _, carried, *_ in SHIPPED.values() for name in carried.split())
    assert [name[:-7] for name, row in rows.items() if not row["next"]] == ["CRON.bash"]        # @reboot
    again = run_client(agent.port, "import", "--crontab", *paths)
    assert again.out == re.sub("(scenarios|schedules)=[0-9]+", r"\1=0", result.out) and again.err == result.err


# ---- with an agent ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/../bin/sh"])       # a string, and a list without the agent's shell
def test_an_entry_is_executed(agent, tmp_path, shell):
    text = """\
SHELL = %s
HOME = "%s"
WORD="two  words"
BRACED = ${HOME}
0 2 * * * cat; pwd; echo "$WORD ${BRACED} ${NO:-none} $LOGNAME"; test "$${X}" = "$$"'{X}' && date +\\%%\\%%%%a%% b \\%%
""" % (shell, tmp_path)
    result = run_client(agent.port, "import", "--crontab", "-", input=text.encode())
    assert (result.status, result.out, result.err) == (0, "scenarios=1 schedules=1 left_out=0\n", "")
    assert agent.ok("EXEC %s -SYNC" % agent.rows("SCHED LIST")[0]["scenario"])["status"] == "DONE"
    assert agent.log_texts(1001) == ["a", " b %", str(tmp_path), "two  words ${HOME} none " + USER, "%"]
    assert agent.rows("SCHED LIST")[0]["rule"] == "cron 0 2 * * *"


def test_lines_that_the_agent_refuses(agent):
    text = (b"0 1 * * * a\n61 1 * * * b\n@sometimes c\nCRON_TZ=Mars\n0 2 * * * d\nCRON_TZ=\nHOME=\n@daily e\n"
            b"HOME=/\n@daily f")
    result = run_client(agent.port, "import", "--crontab", "-", "--json", input=text)
    assert result.status == 0 and json.loads(result.out) == {"scenarios": 2, "schedules": 2, "left_out": 4}
    found = [re.match(r"agentcli: standard input:(\d+): .*: (.+)$", line).groups() for line in result.err.splitlines()[:-1]]
    assert result.err.endswith("\nagentcli: standard input: lines left out: 4; carried over: 2\n")
    assert found == [("2", "61 1 * * * b"), ("3", "@sometimes c"), ("5", "0 2 * * * d"), ("8", "@daily e")]
    assert "standard input:2: rule 'cron 61 1 * * *': minute '61' is not 0-59: 61" in result.err and "Mars" in result.err
    assert "standard input:8: cwd must not be empty: @daily e" in result.err
    assert [row["name"] for row in agent.rows("SCHED LIST")] == ["CRON.a", "CRON.f"]


def test_all_fields_are_the_agents(agent):
    text = b"CRON_TZ=UTC\nRANDOM_DELAY=5\n@reboot a\n@every_minute b\n@60 c\n@midnight d\n"
    assert run_client(agent.port, "import", "--crontab", "-", input=text).out == "scenarios=4 schedules=4 left_out=0\n"
    wanted = {"timezone": "UTC", "jitter": 300, "keywords": "cron", "overlap": "parallel", "misfire": "skip"}
    exported, = objects(run_client(agent.port, "export", "CRON.d", "--json"))[0]["schedules"]
    assert {name: exported[name] for name in wanted} == wanted


def loader(agent):
    """load(text, *options): imports a crontab of standard input -> Result."""
    return lambda text, *options: run_client(agent.port, "import", "--crontab", "-", *options, input=text.encode())


def rules(agent):
    """{schedule: its rule without `cron`}."""
    return {row["name"]: row["rule"][5:] for row in agent.rows("SCHED LIST")}


def test_a_crontab_that_has_changed(agent):
    load = loader(agent)
    assert load("0 1 * * * true 1\n0 2 * * * b\n").status == 0
    assert load("0 3 * * * true 1\n0 2 * * * b\n").out == "scenarios=0 schedules=1 left_out=0\n"       # another time only
    changed = "# more\nX=1\n0 3 * * * true 1\n0 2 * * * b\n61 * * * * d\n"
    result = load(changed)
    assert (result.status, result.out) == (4, "")
    first, second, third, last = result.err.splitlines()
    assert first.startswith("agentcli: standard input:3: ") and "--replace" in first and first.endswith(": 0 3 * * * true 1")
    assert second.startswith("agentcli: standard input:4: ") and third.startswith("agentcli: standard input:5: ")
    assert last == "agentcli: ERR EXISTS nothing was imported; --replace takes the lines as they are now"
    result = load(changed, "--replace")
    assert (result.status, result.out) == (0, "scenarios=2 schedules=0 left_out=1\n")
    assert result.err.splitlines()[1:] == ["agentcli: standard input: lines left out: 1; carried over: 2"]


def test_a_line_more_renames_nothing(agent):
    load = loader(agent)
    text = "0 1 * * * true a\n0 2 * * * sh -c 'true b'\n0 3 * * * true\n0 4 * * * true\n"
    assert load(text).out == "scenarios=4 schedules=4 left_out=0\n"
    before = rules(agent)
    assert load("0 9 * * * sh -c 'true c'\n30 9 * * * true\n" + text).out == "scenarios=2 schedules=2 left_out=0\n"
    assert set(before.items()) < set(rules(agent).items()) and len(rules(agent)) == 6


def test_the_same_crontab_by_another_way(agent, tmp_path):
    text = "# Nightly\n0 1 * * * true a\n0 2 * * * sh -c 'true b'\n@daily sh -c 'true c'\n"
    path = tmp_path / "crontab.txt"
    path.write_text(text)
    assert run_client(agent.port, "import", "--crontab", str(path)).out == "scenarios=3 schedules=3 left_out=0\n"
    before = rules(agent)
    assert loader(agent)(text) == (0, "scenarios=0 schedules=0 left_out=0\n", "") and rules(agent) == before
    assert [each.get("description") for each in json.loads("".join(line[2:] for line in agent.ask("EXPORT")[:-1]))[
        "scenarios"] if each["name"] == "CRON.true_a"] == ["Nightly"]


def test_what_a_crontab_no_longer_has(agent, tmp_path):
    load, folder = loader(agent), tmp_path / "cron.d"
    folder.mkdir()
    (folder / "x").write_text("0 5 * * * %s true x\n" % USER)
    assert run_client(agent.port, "import", "--crontab", str(folder / "x")).status == 0
    agent.ok("SCHED ADD CRON.own HELLO -1 GLOBAL 'daily at 02:00' -KEYWORDS=cron")
    assert load("0 1 * * * true a\n0 2 * * * true b\n").err == ""
    gone = "agentcli: standard input: schedule CRON.true_a stands for none of the lines"
    for options in ((), ("--dry-run",), ("--dry-run", "--prune")):
        assert load("0 2 * * * true b\n", *options).err == gone + ", and fires as before: --prune deletes it\n"
    assert set(rules(agent)) == {"CRON.own", "CRON.true_a", "CRON.true_b", "CRON.true_x"}
    broken = "0 2 * * * true b\n61 1 * * * true a\n"            # is still there
    assert "none of the lines" not in load(broken, "--prune").err and "CRON.true_a" in rules(agent)
    result = load("0 2 * * * true b\n", "--prune")
    assert (result.status, result.err) == (0, gone + ": deleted\n")
    assert set(rules(agent)) == {"CRON.own", "CRON.true_b", "CRON.true_x"}
    assert "CRON.true_a" not in {row["scenario"] for row in agent.rows("SCENARIOS")}
    assert load("0 2 * * * true b\n", "--prune") == (0, "scenarios=0 schedules=0 left_out=0\n", "")
    assert "CRON.true_b stands" in load("", "--prune").err and set(rules(agent)) == {"CRON.own", "CRON.true_x"}


def test_words_that_are_no_programs_here(agent):
    """As users of another host are; a word alone, a path and words of the shell are none of them."""
    load = loader(agent)
    text = "*/5 * * * * ubuntu x\n0 1 * * * root y\n0 2 * * * true z\n0 3 * * * /no/x y\n0 4 * * * x\n0 5 * * * while y\n"
    result = load(text)
    assert result.out == "scenarios=6 schedules=6 left_out=0\n"
    told_of = re.findall("standard input:(\\d): (\\w+) is no program of this host; if it is a user, .*say --system yes", result.err)
    assert told_of == [("1", "ubuntu"), ("2", "root")] and result.err.count("\n") == 2
    assert "no program" not in load(text, "--system", "no").err
    assert "is of user ubuntu, and the agent does not change users" in load(text, "--system", "yes").err


def test_a_step_larger_than_its_field(agent):
    result = loader(agent)("*/90 * * * * true\n")
    assert result.out == "scenarios=1 schedules=1 left_out=0\n"
    assert result.err == ("agentcli: standard input:1: '*/90' is minute 0 of each hour: the step is larger than what it goes over: "
                          "*/90 * * * * true\n")
    assert agent.ok("SCHED SET CRON.true -RULE='cron 0 */24 * * *'")["note"].startswith("'*/24' is hour 0 of each day")
    assert "note" not in agent.ok("SCHED SET CRON.true -RULE='cron */30 * * * *'")
    assert "note" in agent.ok("SCHED ADD A HELLO -1 GLOBAL 'cron */90 * * * *'")


def test_a_dry_run_ends_as_the_import(agent):
    load = loader(agent)
    text = "0 0 30 2 * a\n61 * * * * b\n0 1 * * * c\n* * * *\n*/90 1 * * * e\nCRON_TZ=Mars\n@daily d\n"
    dry = load(text, "--dry-run", "--json")
    assert [row["name"] for row in objects(dry)] == ["CRON.c", "CRON.e"]
    assert agent.rows("SCHED LIST") == agent.rows("SCENARIOS")[1:] == []
    assert "standard input:1: rule 'cron 0 0 30 2 *': can never fire" in dry.err and "standard input:2: rule 'cron 61" in dry.err
    assert "standard input:5: '*/90' is minute 0" in dry.err
    assert dry.err.endswith("\nagentcli: standard input: lines left out: 4; carried over: 2\n")
    result = load(text)
    assert (result.status, result.out, result.err) == (0, "scenarios=2 schedules=2 left_out=4\n", dry.err)
    for changed, options, status in ((text, (), 0), ("X=1\n0 1 * * * c\n", (), 4),
                                     ("X=1\n0 1 * * * c\n", ("--replace",), 0)):
        before = agent.rows("SCHED LIST"), agent.rows("SCENARIOS"), agent.ask("EXPORT")
        dry = load(changed, "--dry-run", *options)
        assert (agent.rows("SCHED LIST"), agent.rows("SCENARIOS"), agent.ask("EXPORT")) == before
        result = load(changed, *options)
        assert (dry.status, dry.err) == (result.status, result.err) and result.status == status
    assert load("", "--dry-run", "--system", "yes") == (0, "", "")
    assert load(text, "--dry-run", "--repo", "NONE").status == 4


def test_a_dry_run_shows_a_line_for_each_entry(make_agent, tmp_path):
    agent = make_agent(env={"TZ": "UTC0"}).start()
    text = "# Nightly\n\n0 2 31 12 * true a\n@reboot true b\n0 3 1 1 * true c\n"
    result = run_client(agent.port, "import", "--crontab", "-", "--dry-run", input=text.encode(), env=dict(os.environ, TZ="UTC0"))
    assert (result.status, result.err) == (0, "")
    heading, *lines = result.out.splitlines()
    assert heading.split() == ["LINE", "NAME", "RULE", "NEXT"]
    assert re.match(r" +3  CRON.true_a  cron 0 2 31 12 \*  \d{4}-12-31 02:00:00$", lines[0])
    assert re.match(r" +4  CRON.true_b  boot$", lines[1]) and re.match(r" +5 .*-01-01 03:00:00$", lines[2])
    rows = objects(run_client(agent.port, "import", "--crontab", "-", "--dry-run", "--json", input=text.encode()))
    assert [list(row) for row in rows] == [["line", "name", "rule", "next"]] * 3
    assert [row["line"] for row in rows] == [3, 4, 5] and [row["rule"] for row in rows][1] == "boot"
    assert rows[1]["next"] is None and rows[0]["next"].endswith("-12-31T02:00:00+00:00")
    (tmp_path / "other").write_text("0 4 * * * true d\n")
    rows = objects(run_client(agent.port, "import", "--crontab", "-", str(tmp_path / "other"), "--dry-run", "--json",
                       input=text.encode()))
    assert [(row["crontab"], row["line"]) for row in rows] == [("standard input", 3), ("standard input", 4), ("standard input", 5), ("other", 1)]


def test_from_cron_to_the_agent_under_a_hold(agent):
    """README's order: what comes due until the release is cron's, or skipped; nothing is executed twice."""
    agent.ok("HOLD")
    assert run_client(agent.port, "import", "--crontab", "-", input=b"@every_second true\n").status == 0
    begun = time.time()
    wait_for(lambda: time.time() > begun + 1.2)
    agent.ok("RELEASE")
    rows = wait_for(lambda: [row for row in agent.rows("SCHED WHY") if row["decision"] == "started"] and
                    agent.rows("SCHED WHY"))
    agent.ok("SCHED OFF CRON.true")
    assert [(row["decision"], row["reason"]) for row in rows[-1:]] == [("skipped", "hold")]
    assert all(row["decision"] == "started" and row["due"] > rows[-1]["last_due"] for row in rows[:-1])


def test_imported_again(agent):
    """A schedule is what its line says, whatever it was set to since; switched off it stays."""
    def load():
        assert run_client(agent.port, "import", "--crontab", "-", input=b"0 1 * * * a\n").status == 0
        row, = agent.rows("SCHED LIST")
        return row["enabled"], agent.ask("SCHED SHOW CRON.a")
    before = load()
    assert before[0] == "yes"
    agent.ok("SCHED SET CRON.a -HOURS=00:00-18:00")
    agent.ok("SCHED OFF CRON.a")
    assert load()[0] == "no"
    agent.ok("SCHED ON CRON.a")
    assert load() == before


def test_a_systems_crontab_taken_for_a_users(agent, tmp_path):
    path = tmp_path / "copy"
    path.write_text("SHELL=/bin/sh\n17 * * * * root cd / && x\n0 1 * * * root y z\n0 2 * * * nobodyatall x y\n")
    for options in ((), ("--dry-run",)):
        result = run_client(agent.port, "import", "--crontab", str(path), *options)
        assert (result.status, result.out) == (2, "")
        assert result.err.startswith("agentcli: copy:2: root is a user of this host, ") and "--system yes" in result.err
        assert result.err.endswith(": 17 * * * * root cd / && x\n") and result.err.count("\n") == 1
    assert agent.rows("SCHED LIST") == []
    for system, count in (("yes", 2 * (USER == "root")), ("no", 3)):
        found = objects(run_client(agent.port, "import", "--crontab", str(path), "--system", system, "--dry-run", "--json"))
        assert len(found) == count


def test_into_another_repository(agent, tmp_path):
    agent.ok("ATTACH SECOND '%s' -CREATE" % (tmp_path / "second.db"))
    result = run_client(agent.port, "import", "--crontab", "-", "--repo", "SECOND", input=b"@daily a\n")
    assert (result.status, result.err) == (0, "")
    assert [row["repository"] for row in agent.rows("SCHED LIST")] == ["SECOND"]
    assert run_client(agent.port, "import", "--crontab", "-", "--repo", "NONE", input=b"@daily a\n").status == 4


# ---- without one -----------------------------------------------------------------------------------------------------

def test_dry_run(tmp_path):
    path = tmp_path / "nightly"
    path.write_text("0 2 * * * load\n* * * *\n")
    result = run_client(1, "import", "--crontab", str(path), "--dry-run")
    assert result.status == 0
    unchecked, *others = result.err.splitlines()
    assert unchecked.startswith("agentcli: the rules are not checked, which the agent does at the import: cannot conn")
    assert others == ["agentcli: nightly:2: is no entry: five fields or an @ word, a command: * * * *",
                      "agentcli: nightly: lines left out: 1; carried over: 1"]
    assert result.out == "LINE  NAME       RULE\n   1  CRON.load  cron 0 2 * * *\n"
    row, = objects(run_client(1, "import", "--crontab", str(path), "--dry-run", "--json"))
    assert row == {"line": 1, "name": "CRON.load", "rule": "cron 0 2 * * *", "next": None}
    task = make_crontab(str(path), None, USER, os.path.expanduser("~")).read(b"@daily x").entries[0].task
    assert task["cwd"] == os.path.expanduser("~") and task["env"]["LOGNAME"] == USER


@pytest.mark.parametrize("words, reason", [
    (("--prune", "x"), "are for --crontab"), (("--system", "no", "x"), "are for --crontab"), (("--crontab", "--system", "maybe", "x"), "yes or no"),
    (("--crontab", "no such file"), "cannot read 'no such file'"), (("--crontab",), "FILE... is missing")])
def test_usage(words, reason):
    result = run_client(1, "import", *words)
    assert (result.status, result.out) == (2, "") and reason in result.err
    assert run_client(1, "import", "--crontab", "-").status == 3
