"""Another user, as whom the processes of tasks run; what the agent has done as that user."""
import os
import pwd
import subprocess
import sys
from typing import NamedTuple

from ..base.controls import one_line
from ..base.encoding import utf8_environment
from ..base.errors import CannotStart
from ..base.program import alone_command, log, open_code, program_command
from .process import Command, exit_text
from .stages import staged

ANSWER_AS_S = 60        # that a look at a file, or the start of Python, may take


class TaskUser(NamedTuple):
    """A user of the host, not root."""
    name: str
    home: str
    numbers: list           # uid, gid, and all groups

    def surround(self, environment):
        """An environment of the agent's as one of this user's."""
        return dict(environment, HOME=self.home, USER=self.name, LOGNAME=self.name)

    def answer(self, words, pass_fds=()):
        """Runs a program as this user to its end -> what it prints, bytes. ValueError says why
        that is not to be had."""
        command = Command(words, utf8_environment(self.surround(os.environ)), cwd="/",
                          pass_fds=pass_fds, user=self.numbers)
        try:
            with staged(command, None) as (stage, _):
                process = subprocess.run(
                    stage.words, env=stage.environment, pass_fds=stage.pass_fds,
                    stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                    start_new_session=True, timeout=ANSWER_AS_S)
        except subprocess.TimeoutExpired:
            raise ValueError("took over %d s" % ANSWER_AS_S) from None
        except OSError as error:
            raise ValueError(error.strerror) from None
        if process.returncode:
            lines = process.stderr.decode("utf-8", "replace").split("\n")
            raise ValueError(one_line(next(filter(str.strip, reversed(lines)),
                                           exit_text(process.returncode))))
        return process.stdout

    def read(self, path, size):
        """The first bytes of a regular file, as far as this user may read it. ValueError."""
        return self.answer(alone_command(read_alone, os.fsencode(path).hex(), str(size)))

    def discard(self, path):
        """remove_all() as this user."""
        try:
            self.answer(alone_command(remove_alone, os.fsencode(path).hex()))
        except ValueError as error:
            log.warning("%s cannot be deleted as %s: %s", path, self.name, error)


def find_user(name):
    """The TaskUser of this name, who can start this program. CannotStart."""
    if os.geteuid() != 0:
        raise CannotStart("--run-as %s: only an agent that root has started can run tasks as "
                          "another user" % name)
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        raise CannotStart("--run-as %s: this host has no such user" % name) from None
    if entry.pw_uid == 0:
        raise CannotStart("--run-as %s: that is root; name a user who may do what tasks need, and "
                          "no more" % name)
    user = TaskUser(name, entry.pw_dir, [entry.pw_uid, entry.pw_gid] + sorted(
        set(os.getgrouplist(name, entry.pw_gid)) | {entry.pw_gid}))
    try:
        user.answer(program_command("-s") + ["--version"], (open_code(),))
    except ValueError as error:
        raise CannotStart("--run-as %s: %s cannot start this agent's Python, %s, which their tasks "
                          "need: %s" % (name, name, sys.executable, error)) from None
    return user


def read_alone(path, size):
    """In a process by itself: prints the first bytes of a regular file, whose path is in
    hexadecimal digits."""
    import os
    import stat
    import sys
    path = bytes.fromhex(path)
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):     # a pipe would make us wait, a device too
            sys.exit("is no regular file")
        with open(path, "rb") as file:
            sys.stdout.buffer.write(file.read(int(size)))
    except OSError as error:
        sys.exit(error.strerror)


def remove_alone(path):
    """In a process by itself: deletes a file, or a folder with all that is in it, as far as it can
    be. Its path is in hexadecimal digits."""
    import os
    import shutil
    path = bytes.fromhex(path)
    if os.path.islink(path) or not os.path.isdir(path):
        os.unlink(path)
        return
    for folder, names, _ in os.walk(path):
        for each in [folder] + [os.path.join(folder, name) for name in names]:
            if not os.path.islink(each):
                os.chmod(each, 0o700)   # from one that is read-only nothing can be deleted
    shutil.rmtree(path)
