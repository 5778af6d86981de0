"""A batch system of 60 lines: jobs are folders below one of its own, each run by a keeper process. `python batch.py
FOLDER submit SCRIPT MARKER | find MARKER | state ID ... | cancel ID ... | output ID`; what stands in FOLDER/mode tells it
how to fail: `away` answers nothing, `hang` never, `mute` takes a job and does not say its id, `full` refuses. Each call
is a line of FOLDER/calls."""
import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time


def read_text(path, default=""):
    with contextlib.suppress(OSError):
        return path.read_text().strip()
    return default


def keep(job):
    """The keeper of a job: runs its script once FOLDER/held is gone, and notes how it ended."""
    while (job.parent / "held").exists():
        time.sleep(0.05)
    with open(str(job / "out"), "wb") as out:
        process = subprocess.Popen(["/bin/sh", read_text(job / "script")], stdout=out, stderr=out, start_new_session=True)
    (job / "pid").write_text(str(process.pid))
    rc = process.wait()
    (job / "part").write_text("ENDED %d %s" % (rc if rc >= 0 else 128 - rc, read_text(job / "words")))
    (job / "part").rename(job / "state")


def submit(top, script, marker):
    job = top / str(1 + sum(each.name.isdigit() for each in top.iterdir()))
    job.mkdir()
    (job / "script").write_text(script)
    (job / "marker").write_text(marker)
    subprocess.Popen([sys.executable, __file__, str(job), "keep"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                     stderr=subprocess.DEVNULL, start_new_session=True)
    if read_text(top / "mode") == "mute":
        time.sleep(30)
    print(job.name)


def cancel(job):
    if not (job / "state").exists():
        (job / "words").write_text("cancelled")
        with contextlib.suppress(OSError, ValueError):
            os.killpg(int(read_text(job / "pid")), signal.SIGTERM)


def main(folder, verb, *words):
    top = pathlib.Path(folder)
    if verb == "keep":
        return keep(top)
    with open(str(top / "calls"), "a") as calls:
        calls.write(" ".join((verb,) + words) + "\n")
    mode = read_text(top / "mode")
    if mode == "hang":
        time.sleep(30)
    if mode in ("away", "full"):
        sys.exit("the batch system is " + mode if mode == "away" or verb != "submit" else 65)
    if verb == "submit":
        submit(top, *words)
    elif verb == "find":
        print("\n".join(each.parent.name for each in sorted(top.glob("*/marker")) if read_text(each) == words[0]))
    for job in [top / word for word in words if verb in ("state", "cancel", "output")]:
        if verb == "state":
            running = "RUNNING" if (job / "pid").exists() else "QUEUED"
            print(read_text(job / "state", running) if job.is_dir() else "LOST")
        elif verb == "cancel":
            cancel(job)
        else:
            print(read_text(job / "out"))


if __name__ == "__main__":
    main(*sys.argv[1:])
