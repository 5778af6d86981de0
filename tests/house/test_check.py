"""tools/check.py: what it hands to which pytest process, and what it makes of their ends."""
import importlib.util
import os
import re
import signal
import subprocess
import sys
import textwrap
import time

import pytest

from conftest import TOP

pytestmark = pytest.mark.once

PATH = os.path.join(TOP, "tools", "check.py")


@pytest.fixture(scope="module")
def check():
    spec = importlib.util.spec_from_file_location("check", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def write_tests(tmp_path):
    """Writes test files and gives the targets of check() for them."""
    def write_tests(**files):
        targets = {}
        for name, text in files.items():
            path = tmp_path / ("test_%s.py" % name)
            path.write_text(textwrap.dedent(text))
            targets[str(path)] = [str(path)]
        return targets
    return write_tests


def test_arguments_are_split_into_files_and_options(check):
    file = os.path.join("tests", "house", "test_check.py")
    targets, options = check.split_arguments(["-k", "tests", file + "::one", "--tb", "short", file + "::two"])
    assert targets == {file: [file + "::one", file + "::two"]}
    assert options == ["-k", "tests", "--tb", "short"]


def test_without_a_file_every_test_file_is_taken(check):
    targets, options = check.split_arguments(["-v"])
    assert os.path.join("tests", "house", "test_check.py") in targets
    assert os.path.join("tests", "conftest.py") not in targets
    assert options == ["-v"]


def test_a_file_that_is_not_there_is_told(check):
    with pytest.raises(check.CheckError, match="no file tests/test_nowhere.py"):
        check.split_arguments(["tests/test_nowhere.py"])


def test_sums_over_files(check, write_tests, capfd):
    targets = write_tests(good="def test_a(): pass\ndef test_b(): pass",
                    bad="def test_a(): assert 0",
                    skips="import pytest\n@pytest.mark.skip\ndef test_a(): pass")
    assert check.check(sys.executable, targets, ["-q"], 2) == (2, 1, 1, 0)
    assert capfd.readouterr().out.count("FAILED tests::test_a - assert 0\n") == 2


SECOND = """
    import os
    def test_a():
        assert os.path.exists(%(mark)r) or open(%(mark)r, "w").close()
    def test_b(): pass
"""


def test_what_passes_the_second_time_is_told_as_unsteady(check, write_tests, tmp_path, capfd):
    targets = write_tests(late=SECOND % {"mark": str(tmp_path / "mark")}, good="def test_a(): pass")
    assert check.check(sys.executable, targets, ["-q"], 2) == (3, 0, 0, 1)
    assert re.search(r"(?m)^== once more, alone: \S*test_late.py\n", capfd.readouterr().out)
    assert check.check(sys.executable, targets, ["-q"], 2) == (3, 0, 0, 0)


def test_when_many_files_fail_they_are_not_tested_again(check, write_tests, tmp_path, capfd):
    targets = write_tests(**{name: SECOND % {"mark": str(tmp_path / name)} for name in "abcd"})
    assert check.check(sys.executable, targets, ["-q"], 2) == (4, 4, 0, 0)
    assert "once more" not in capfd.readouterr().out


@pytest.mark.parametrize("text", [
    "import os\ndef test_a(): os._exit(0)",
    "import os\ndef test_a(): os._exit(3)",
    "import nothing_of_that_name",
    "import threading, time\ndef test_a(): threading.Thread(target=time.sleep, args=(600,)).start()",
], ids=["exit 0", "exit 3", "import", "hangs after its tests"])
def test_a_process_that_ends_badly_is_a_failure(check, write_tests, monkeypatch, text):
    monkeypatch.setattr(check, "FILE_LIMIT_S", 3)
    monkeypatch.setattr(check, "END_GRACE_S", 1)
    assert check.check(sys.executable, write_tests(bad=text), ["-q"], 1)[1] == 1


def test_deselecting_all_tests_of_one_file_is_no_failure(check, write_tests):
    targets = write_tests(one="def test_one(): pass", two="def test_two(): pass")
    assert check.check(sys.executable, targets, ["-k", "test_two"], 2) == (1, 0, 0, 0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_lets_fixtures_tear_down(write_tests, tmp_path, number):
    targets = write_tests(slow="""
        import pathlib, pytest, time
        HERE = pathlib.Path(__file__).parent
        @pytest.fixture
        def thing():
            yield
            (HERE / "ended").touch()
        def test_a(thing):
            (HERE / "begun").touch()
            time.sleep(1000)
        """)
    code = ("import importlib.util, signal, sys; spec = importlib.util.spec_from_file_location('check', %r); "
            "check = importlib.util.module_from_spec(spec); spec.loader.exec_module(check); "
            "check.get_environment = lambda python: python; sys.exit(check.main(sys.argv[1:]))" % PATH)
    process = subprocess.Popen([sys.executable, "-c", code] + list(targets), stderr=subprocess.PIPE)
    while not (tmp_path / "begun").exists():
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(number)
    assert process.communicate()[1] == b"check: interrupted\n"
    assert process.returncode == 130
    assert (tmp_path / "ended").exists()


def test_mistakes_are_one_line(write_tests):
    for arguments, says in [(["tests/test_nowhere.py"], b"there is no file"), (["--python", "/nowhere"], b"no working")]:
        done = subprocess.run([sys.executable, PATH] + arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert done.returncode == 2
        assert says in done.stderr and done.stderr.count(b"\n") == 1


def test_the_build_is_checked_with_the_interpreter_of_the_tests(check, tmp_path, monkeypatch, capfd):
    (tmp_path / "tools").mkdir()
    monkeypatch.setattr(check, "TOP", str(tmp_path))
    build = tmp_path / "tools" / "build.py"
    build.write_text("import sys; assert sys.argv[1:] == ['--check']")
    assert check.is_built(sys.executable)
    build.write_text("import sys; sys.exit('agent.py is not what tools/src says')")
    assert not check.is_built(sys.executable)
    assert capfd.readouterr().err == "agent.py is not what tools/src says\n"
