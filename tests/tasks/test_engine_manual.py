"""What the manual shows for PBS and for ssh, run as it stands there, with programs of these names that do it here."""
import json
import os
import re

import pytest

from conftest import program, wait_for
from support.engines import engine_scenario, exec_sync, wait_there

pytestmark = pytest.mark.once

PROGRAMS = {
    # the last argument is for the other host's shell
    "ssh": 'for last; do :; done; echo "$last" >> "$JOBS/ssh"; exec sh -c "$last"',
    "qsub": 'while [ $# -gt 1 ]; do [ "$1" = -N ] && name=$2; shift; done; id=$(($(ls "$JOBS" | wc -l) + 1)).pbs\n'
            'mkdir "$JOBS/$id"; echo "$name" > "$JOBS/$id/name"; cp "$1" "$JOBS/$id/script"\n'
            'setsid sh -c \'sh "$1/script"; echo $? > "$1/rc"\' job "$JOBS/$id" >/dev/null 2>&1 </dev/null &\n'
            'echo $! > "$JOBS/$id/pid"; echo "$id"',
    "qselect": 'for last; do :; done; cd "$JOBS"; grep -lx "$last" */name | cut -d/ -f1; true',
    "qstat": '[ "$1" = -B ] && exit; shift 2; for id; do [ -d "$JOBS/$id" ] || continue; echo "Job Id: $id"\n'
             'if [ -e "$JOBS/$id/rc" ]; then echo "    job_state = F"; echo "    Exit_status = $(cat "$JOBS/$id/rc")"\n'
             'else echo "    job_state = R"; fi; done',
    "qdel": 'kill -- -$(cat "$JOBS/$1/pid"); echo 271 > "$JOBS/$1/rc"',
}


def engine_shown(name):
    """The engine of this name in the manual."""
    text = re.sub("^    ", "", program.MANUAL_ENGINES, flags=re.M)
    document, _ = json.JSONDecoder().raw_decode(text, text.index('{"engines": [{"name": "%s"' % name))
    return document["engines"][0]


@pytest.mark.parametrize("name", ["PBS", "BIG"])
def test_the_templates_of_the_manual(make_inside, tmp_path, monkeypatch, name):
    for folder in ("bin", "jobs"):
        (tmp_path / folder).mkdir()
    for each, text in PROGRAMS.items():
        (tmp_path / "bin" / each).write_text("#!/bin/sh\n%s\n" % text)
        (tmp_path / "bin" / each).chmod(0o755)
    script = re.search("    # pbs-state.*?END { tell\\(\\) }'\n", program.MANUAL_ENGINES, re.S).group()
    (tmp_path / "pbs-state").write_text(re.sub("^    ", "", script, flags=re.M))
    monkeypatch.setenv("PATH", "%s:%s" % (tmp_path / "bin", os.environ["PATH"]))
    monkeypatch.setenv("JOBS", str(tmp_path / "jobs"))
    agent = make_inside().start()
    agent.agent.settings.engine_look_s = 0.15
    engine = dict(engine_shown(name), name="HPC", spool=str(tmp_path / "spool"))
    engine["options"]["state"] = [word.replace("/usr/local/bin", str(tmp_path)) for word in engine["options"]["state"]]
    agent.import_document({"engines": [engine]})
    end = exec_sync(agent, {"type": "os", "command": "echo out; echo err >&2; exit 4"})
    assert end["status"] == "ERROR" and "exit code 4: err" in end["message"], end
    assert sorted(agent.log_texts("1001")) == ["err", "out"]
    agent.import_document({"scenarios": [engine_scenario("B", {"type": "os", "command": "sleep 300"})]})
    session = agent.ok("EXEC B")["session"]
    job = wait_there(agent, session)
    marker = os.path.basename(wait_for(lambda: list((tmp_path / "spool").glob("*.2001.2")), "its folder")[0].as_posix())
    watch = next(iter(agent.agent.engines._watches.values()))
    driver = watch._looking._driver
    assert driver.find([marker, "other"]) == {marker: [job], "other": []}
    agent.ok("STOP %s -IMMEDIATE" % session)
    assert agent.ok("WAIT %s" % session)["status"] == "STOPPED"
    assert driver.states([job])[job].word in ("ENDED", "LOST")
