"""METRICS: what it counts, and that Prometheus can read it."""
import re

import pytest

import agent as program
from conftest import wait_for

NAMES = re.compile("[a-zA-Z_:][a-zA-Z0-9_:]*")
SAMPLE = re.compile(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)')
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"(?:,|$)')


def parse_metrics(lines):
    """The text format -> {family: (type, [(name, {label: value}, number)])}; what breaks its rules fails."""
    families, name = {}, None
    for line in lines:
        if line.startswith("# HELP "):
            name = line.split()[2]
            assert NAMES.fullmatch(name) and name not in families, "a family stands together, once: %s" % line
            families[name] = None
        elif line.startswith("# TYPE "):
            assert line.split()[2] == name and families[name] is None
            families[name] = line.split()[3], []
        else:
            sample, labels, number = SAMPLE.fullmatch(line).groups()
            assert sample in [name + end for end in ("", "_bucket", "_sum", "_count")], line
            assert "".join(match.group() for match in LABEL.finditer(labels or "")) == (labels or ""), line
            families[name][1].append((sample, dict(LABEL.findall(labels or "")), float(number)))
    for name, (kind, samples) in families.items():
        assert kind in ("gauge", "counter", "histogram") and (kind != "counter" or name.endswith("_total"))
        assert len({(sample, tuple(sorted(labels.items()))) for sample, labels, _ in samples}) == len(samples)
        assert kind == "histogram" or all(sample == name for sample, _, _ in samples)
    return families


def look_at_metrics(agent):
    return parse_metrics([line[2:] for line in agent.ask("METRICS")[:-1]])


def find_sample(families, name, **labels):
    """The one value of a sample with these labels, or None."""
    samples = families[re.sub("_(bucket|sum|count)$", "", name) if name not in families else name][1]
    values = [value for sample, others, value in samples if sample == name and labels.items() <= others.items()]
    assert len(values) <= 1
    return values[0] if values else None


def sample_now(agent, name, **labels):
    return find_sample(look_at_metrics(agent), name, **labels)


def one_task(name, **task):
    return {"name": name, "version": "1", "variables": {"v": "1"}, "steps": [{"name": "a", "tasks": [task]}]}


DOCUMENT = {"scenarios": [one_task("GOOD", type="set", variable="v", value="2"),
                          one_task("BAD", type="os", command="exit 3"),
                          one_task("NAP", type="sleep", seconds=1000)]}


def test_sessions_are_counted_by_scenario_and_how_they_ended(inside):
    inside.import_document(DOCUMENT)
    for name in ("GOOD", "GOOD", "BAD"):
        inside.ok("EXEC %s -SYNC" % name)
    wait_for(lambda: sum(inside.agent.desk.tally.totals.values()) == 3, "three ends")
    families = look_at_metrics(inside)
    assert find_sample(families, "agent_sessions_ended_total", status="DONE") == 2
    assert find_sample(families, "agent_sessions_ended_total", status="STOPPED") == 0
    assert find_sample(families, "agent_scenario_sessions_ended_total", scenario="GOOD", status="DONE") == 2
    assert find_sample(families, "agent_scenario_sessions_ended_total", scenario="BAD", status="ERROR") == 1
    assert find_sample(families, "agent_session_duration_seconds_count", scenario="GOOD") == 2
    assert find_sample(families, "agent_session_duration_seconds_bucket", scenario="GOOD", le="+Inf") == 2
    assert find_sample(families, "agent_schedule_lateness_seconds_count") == 0


def test_histograms_are_cumulative(inside):
    histogram = program.Histogram((1, 2.5))
    for value in (0.5, 1, 2, 7):
        histogram.add(value)
    assert histogram.read() == [2, 3, 4] and histogram.sum == 10.5
    assert [count for _, labels, count in parse_metrics(program._histograms("x_seconds", "y", [({"a": '"\\'}, histogram)]))[
        "agent_x_seconds"][1] if "le" in labels] == [2, 3, 4]
    inside.ok("EXEC HELLO -SYNC")
    for name, (kind, samples) in look_at_metrics(inside).items():
        if kind == "histogram":
            kinds = {tuple(sorted((key, value) for key, value in labels.items() if key != "le"))
                     for _, labels, _ in samples}
            for own in kinds:
                buckets = [value for sample, labels, value in samples
                           if "le" in labels and set(own) <= set(labels.items())]
                assert buckets == sorted(buckets), name
                assert buckets[-1] == find_sample({name: (kind, samples)}, name + "_count", **dict(own))


def test_what_waits_is_told_with_the_age_of_the_oldest(make_inside):
    agent = make_inside("--max-sessions", "1").start()
    agent.import_document(DOCUMENT)
    assert sample_now(agent, "agent_queue_length") == 0 and sample_now(agent, "agent_queue_head_age_seconds") == 0
    first = agent.ok("EXEC NAP")["session"]
    wait_for(lambda: agent.ok("PING")["running"] == "1", "the first to run")
    agent.ok("EXEC NAP")
    agent.ok("EXEC GOOD")
    agent.let_pass(7)
    families = look_at_metrics(agent)
    assert find_sample(families, "agent_queue_length") == 2 and find_sample(families, "agent_queue_head_age_seconds") >= 7
    assert find_sample(families, "agent_sessions", scenario="NAP", status="RUNNING") == 1
    assert find_sample(families, "agent_sessions", scenario="NAP", status="QUEUED") == 1
    assert find_sample(families, "agent_sessions", scenario="GOOD", status="QUEUED") == 1
    agent.ok("STOP %s -IMMEDIATE" % first)


def test_lateness_is_that_of_the_first_begin(inside):
    inside.import_document(DOCUMENT)
    inside.ok('SCHED ADD S BAD 1 GLOBAL "every 60s"')
    inside.let_pass(61)
    wait_for(lambda: sample_now(inside, "agent_schedule_lateness_seconds_count") == 1, "a scheduled session to end")
    inside.ok("SCHED OFF S")
    session = inside.rows("SESSIONS -SCHEDULE=S")[0]["session"]
    inside.let_pass(5000)
    inside.ok("RESTART %s" % session)
    wait_for(lambda: sample_now(inside, "agent_scenario_sessions_ended_total", scenario="BAD", status="ERROR") == 2,
             "its second end")
    assert sample_now(inside, "agent_schedule_lateness_seconds_count") == 1
    assert sample_now(inside, "agent_schedule_lateness_seconds_sum") < 4000


def test_repositories_and_their_commits(inside):
    inside.ok("EXEC HELLO -SYNC")
    families = look_at_metrics(inside)
    for name in ("master", "WORKREP"):
        assert find_sample(families, "agent_commit_seconds_count", repository=name) > 0
        assert find_sample(families, "agent_repository_read_only", repository=name) == 0
    assert find_sample(families, "agent_repository_usable", repository="WORKREP") == 1
    inside.agent.places.find_by_id(1).let_go("gone for a test")
    assert sample_now(inside, "agent_repository_usable", repository="WORKREP") == 0


@pytest.mark.parametrize("count", [program.MAX_COUNTED, program.MAX_COUNTED + 3])
def test_so_many_scenarios_are_told_apart(count):
    tally = program.Tally()
    for number in range(count):
        tally.add(program.Ending(1, "DONE", scenario="S%d" % number, duration_s=1.0))
    names = {scenario for scenario, _, _ in tally.list_ended()}
    assert len(names) == min(count, program.MAX_COUNTED + 1) and ("" in names) == (count > program.MAX_COUNTED)
    assert sum(number for _, _, number in tally.list_ended()) == count == tally.totals["DONE"]
