#!/usr/bin/env python3
"""The test command: pytest over tests/, in a virtual environment of its own.

    python tools/check.py [--python PATH] [-j N] [pytest arguments]

The environment lies in .venv-check/MAJOR.MINOR and is made by the interpreter it is for: this one, or the one named.
It is made again when it is broken or tests/requirements.txt has changed; one that fits asks nothing of the network.

Each test file gets a pytest process, N at once (default: three a core), the slowest of last time first
(those never seen before them, by size). What a file
printed appears in one piece when it ends. The last line is the total: `123 passed, 0 failed, 4 skipped`.

A file in which something failed is tested once more when all others are over, alone, unless more than AGAIN_FILES
files failed. What fails again has failed. What passes then is told as unsteady, with its name, above the total and in it:
the machine was too busy for it, or it fails now and then. Both want mending.

First tools/build.py --check, with the same interpreter: sources that break a rule of the house, or
a built file that is not what they say, count as one test that failed, and nothing else is tested.

Exit status: 0 all passed, 1 a test failed or none was executed, 2 usage, or no environment, 130 interrupted.
For --lf and --pdb use pytest itself: .venv-check/3.11/bin/python -m pytest tests
"""
import argparse
import collections
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import typing
from xml.etree import ElementTree

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TESTS = os.path.join(TOP, "tests")
HOME = os.path.join(TOP, ".venv-check")
SECONDS = os.path.join(HOME, "seconds.json")
FILE_LIMIT_S = 600  # a test has its timeout from pytest.ini; this is for a process that does not end after its tests
AGAIN_FILES = 3  # so many files that failed may be tested once more; when there are more, something is broken
END_GRACE_S = 10  # from SIGINT, which lets pytest tear its fixtures down, to SIGKILL
OPTIONS_WITH_VALUE = ("-k -m -p -o -c -W --deselect --ignore --ignore-glob --basetemp --rootdir --confcutdir "
                      "--log-file").split()  # those whose value could pass for a test file
PROBE = "import json, sys; print(json.dumps([sys.version_info[:3], getattr(sys, 'base_prefix', sys.prefix)]))"


class CheckError(Exception):
    """What ends check.py with its text on stderr and exit status 2."""


# ---- the environment -------------------------------------------------------------------------------------------------

def output_of(what, *command):
    """Standard output of a command. Raises CheckError, with what the command printed, when it fails."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                              universal_newlines=True)
    except OSError as error:
        raise CheckError("%s: %s" % (what, error.strerror))
    if done.returncode:
        raise CheckError("%s:\n%s" % (what, (done.stderr + done.stdout).strip() or "exit %d" % done.returncode))
    return done.stdout


def get_environment(python):
    """Path of the environment's interpreter; the environment is made first where it is missing or does not fit."""
    version, prefix = json.loads(output_of("%s is no working Python" % python, python, "-c", PROBE))
    if version < [3, 6]:
        raise CheckError("%s is Python %d.%d, the oldest supported is 3.6" % (python, version[0], version[1]))
    folder = os.path.join(HOME, "%d.%d" % (version[0], version[1]))
    inside = os.path.join(folder, "bin", "python")
    requirements = os.path.join(TESTS, "requirements.txt")
    with open(requirements) as file:
        stamp = json.dumps([version, prefix, file.read()])
    os.makedirs(HOME, exist_ok=True)
    with open(folder + ".lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_fit(folder, inside, stamp):
            print("check: making %s" % os.path.relpath(folder), file=sys.stderr)
            shutil.rmtree(folder, ignore_errors=True)
            output_of("cannot make %s" % folder, python, "-m", "venv", folder)
            output_of("cannot install tests/requirements.txt into %s" % folder, inside, "-m", "pip", "install",
                      "--quiet", "--disable-pip-version-check", "-r", requirements)
            with open(os.path.join(folder, "check.json"), "w") as file:
                file.write(stamp)
    return inside


def is_fit(folder, inside, stamp):
    """Whether the environment was completed for this interpreter and these requirements, and still works."""
    try:
        with open(os.path.join(folder, "check.json")) as file:
            if file.read() != stamp:
                return False
        output_of("", inside, "-c", "import pytest, pytest_timeout")
    except (OSError, CheckError):
        return False
    return True


# ---- what to test ----------------------------------------------------------------------------------------------------

def split_arguments(arguments):
    """Pytest arguments -> ({test file: [what to hand to pytest for it]}, options for every file); paths from TOP."""
    targets, options, before = collections.OrderedDict(), [], ""
    for argument in arguments:
        is_value = argument.startswith("-") or before in OPTIONS_WITH_VALUE
        path, colons, name = argument.partition("::")
        found = not is_value and find_path(path)
        if found:
            for file in list_files(found):
                targets.setdefault(file, []).append(file + colons + name)
        elif not is_value and path.endswith(".py"):
            raise CheckError("there is no file %s" % path)
        else:
            options.append(argument)
        before = argument
    if not targets:
        targets.update((file, [file]) for file in list_files(find_path(TESTS)))
    return targets, options


def find_path(path):
    """The path from TOP of a file or folder that is named from here or from TOP, or None."""
    for place in (os.path.abspath(path), os.path.join(TOP, path)):
        if os.path.exists(place):
            return os.path.relpath(place, TOP)
    return None


def list_files(path):
    """The test files of a folder, itself for a file; path and result from TOP."""
    if os.path.isfile(os.path.join(TOP, path)):
        return [path]
    return sorted(os.path.relpath(os.path.join(folder, name), TOP)
                  for folder, _, names in os.walk(os.path.join(TOP, path))
                  for name in names if name.startswith("test_") and name.endswith(".py"))


def read_seconds():
    """{test file: seconds it took last time}; empty when there is no such note."""
    try:
        with open(SECONDS) as file:
            return json.load(file)
    except (OSError, ValueError):
        return {}


# ---- testing ---------------------------------------------------------------------------------------------------------

class FileCheck:
    """One pytest process over one test file. Its output and its report lie in `scratch` until it has ended."""

    def __init__(self, python, file, arguments, scratch):
        self.file = file
        self.begun = time.monotonic()
        self.problem = ""
        place = os.path.join(scratch, file.replace(os.sep, "_"))
        self.output, self.report = place + ".out", place + ".xml"
        for path in (self.output, self.report):
            if os.path.exists(path):
                os.unlink(path)  # of the first time
        color = "--color=yes" if sys.stdout.isatty() else "--color=no"
        command = [python, "-m", "pytest", "-c", os.path.join(TESTS, "pytest.ini"), "--rootdir", TESTS, "--quiet",
                   "-p", "no:cacheprovider", color] + arguments + ["--junitxml", self.report]
        with open(self.output, "wb") as output:
            self.process = subprocess.Popen(command, cwd=TOP, stdin=subprocess.DEVNULL, stdout=output,
                                            stderr=subprocess.STDOUT, start_new_session=True)

    def seconds(self):
        """Seconds since it was begun."""
        return time.monotonic() - self.begun

    def is_over(self):
        """Whether it has ended; one beyond the limit is ended."""
        if self.seconds() > FILE_LIMIT_S:
            self.problem = "check: %s was ended after %d s\n" % (self.file, FILE_LIMIT_S)
            self.end()
        return self.process.poll() is not None

    def interrupt(self):
        """Asks pytest to tear down and end."""
        if self.process.poll() is None:
            os.kill(self.process.pid, signal.SIGINT)

    def end(self):
        """Ends it, by force when it does not do so itself."""
        self.interrupt()
        try:
            self.process.wait(END_GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def show(self):
        """Prints what pytest printed, unless the arguments left no test of this file."""
        if self.process.returncode != 5:
            print("== %s (%.1f s)" % (self.file, self.seconds()), flush=True)
            with open(self.output, "rb") as output:
                shutil.copyfileobj(output, sys.stdout.buffer)
            sys.stdout.buffer.write(self.problem.encode())
            sys.stdout.flush()

    def counts(self):
        """The Counts; a process that ended badly without naming a test counts as one that failed."""
        counts, is_bad = collections.Counter(), bool(self.problem) or self.process.returncode not in (0, 5)
        try:
            for suite in ElementTree.parse(self.report).getroot().iter("testsuite"):
                counts.update({name: int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")})
        except (OSError, ElementTree.ParseError):
            is_bad = True
        failed = counts["failures"] + counts["errors"]
        passed = counts["tests"] - failed - counts["skipped"]
        return Counts(passed, failed or int(is_bad), counts["skipped"])


class Counts(typing.NamedTuple):
    """How many tests of a file, or of all, had which outcome."""
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    unsteady: int = 0  # of those that passed: at the second time alone


def check(python, targets, options, slots):
    """Tests the files, those that failed once more, and gives the Counts of all."""
    seconds, scratch = read_seconds(), tempfile.mkdtemp(prefix="check-")
    try:
        counts = hand_out(python, targets, options, slots, scratch, seconds)
        again = {file: targets[file] for file in counts if counts[file].failed}
        if again and len(again) <= AGAIN_FILES and not {"-x", "--exitfirst"}.intersection(options):
            print("== once more, alone: %s" % " ".join(sorted(again)), flush=True)
            for file, second in hand_out(python, again, options, 1, scratch, seconds).items():
                counts[file] = second._replace(unsteady=max(0, counts[file].failed - second.failed))
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    for file in sorted(file for file in counts if counts[file].unsteady):
        print("unsteady: %s: %d failed at first and passed alone" % (file, counts[file].unsteady))
    if not options:
        with open(SECONDS, "w") as file:
            json.dump(seconds, file)
    return Counts(*map(sum, zip(Counts(), *counts.values())))


def hand_out(python, targets, options, slots, scratch, seconds):
    """Hands the files out to `slots` processes at once. -> {file: Counts}; notes in `seconds` what each took."""
    counts, going = {}, []

    def weight(file):
        return seconds.get(file, FILE_LIMIT_S), os.path.getsize(os.path.join(TOP, file))

    waiting = sorted(targets, key=weight)  # taken from its end
    try:
        while waiting or going:
            while waiting and len(going) < slots:
                file = waiting.pop()
                going.append(FileCheck(python, file, options + targets[file], scratch))
            for done in [each for each in going if each.is_over()]:
                going.remove(done)
                seconds[done.file] = round(done.seconds(), 1)
                done.show()
                counts[done.file] = done.counts()
                if counts[done.file].failed and {"-x", "--exitfirst"}.intersection(options):
                    waiting.clear()
            time.sleep(0.05)
    finally:
        for each in going:
            each.interrupt()
        for each in going:
            each.end()
    return counts


def is_built(python):
    """Whether agent.py and the client are what the sources say; build.py prints why not."""
    build = os.path.join(TOP, "tools", "build.py")
    return subprocess.run([python, build, "--check"], stdin=subprocess.DEVNULL).returncode == 0


def on_signal(number, frame):
    """The first SIGINT or SIGTERM ends check.py and its processes; further ones do not disturb that."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def main(arguments=None):
    """Tests and gives the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False,
                                     usage="%(prog)s [-h] [--python PATH] [-j N] [pytest arguments]")
    parser.add_argument("--python", metavar="PATH", default=sys.executable, help="the interpreter to test with")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("-j", metavar="N", type=int, default=3 * cores,
                        help="test files at once; most of their time they wait (default: %(default)s)")
    own, rest = parser.parse_known_args(arguments)
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, on_signal)
    for name in ("PYTHONHOME", "PYTHONPATH", "PIP_USER", "PIP_TARGET", "PIP_PREFIX"):
        os.environ.pop(name, None)  # they would reach into the environment
    try:
        targets, options = split_arguments(rest)
        python = get_environment(own.python)
        counts = Counts(failed=1)
        if is_built(python):
            counts = check(python, targets, options, max(1, own.j))
    except CheckError as error:
        print("check: %s" % error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("check: interrupted", file=sys.stderr)
        return 130
    if not counts.passed + counts.failed:
        print("check: no test was executed", file=sys.stderr)
    print("%d passed, %d failed" % (counts.passed, counts.failed) +
          (", %d skipped" % counts.skipped if counts.skipped else "") +
          (", %d unsteady" % counts.unsteady if counts.unsteady else ""))
    return 0 if counts.passed and not counts.failed else 1


if __name__ == "__main__":
    sys.exit(main())
