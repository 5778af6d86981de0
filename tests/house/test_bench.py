"""tools/bench.py measures: its tools still fit the agent and the client."""
import json
import subprocess
import sys

import pytest

from conftest import TOP

pytestmark = pytest.mark.once


def test_a_quick_run_fills_its_rows(tmp_path):
    path = tmp_path / "table.json"
    done = subprocess.run([sys.executable, str(TOP / "tools" / "bench.py"), "--quick", "--only", "ping", "okays",
                           "--folder", str(tmp_path), "--json", str(path)], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, encoding="utf-8")
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    rows = {row["name"]: row for row in json.loads(path.read_text())["rows"]}
    assert "PING" in rows and len(rows) >= 4
    assert all(row["figure"] > 0 and row["limit"] > 0 for row in rows.values()), rows
