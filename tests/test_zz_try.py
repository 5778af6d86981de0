from test_tasks import *
from test_task_io import one, zipfile
def test_try(make_agent, tmp_path):
    a = make_agent().start()
    print(a.ask("IMPORT '%s'" % json.dumps({"data_servers":[{"name":"M","driver":"no_such_mod","connect":{}}]})))
    (tmp_path/"old").write_text("x"); import os; os.utime(str(tmp_path/"old"), (0,0))
    d = run(a, one("zip", tmp_path/"old", tmp_path/"o.zip")); print(d.status, d.message)
    (tmp_path/"d").mkdir(); (tmp_path/"d"/"e").mkdir(); (tmp_path/"d"/"f").write_text("")
    d = run(a, one("zip", tmp_path/"d", tmp_path/"p.zip"), one("unzip", tmp_path/"p.zip", tmp_path/"u")); print(d.status, d.message, list((tmp_path/"u").glob("**/*")))
    d = run(a, one("copy", tmp_path/"d", tmp_path/"d2"), one("copy", tmp_path/"d", tmp_path/"d2"), one("copy", tmp_path/"d", tmp_path/"d2")); print(d.status, d.message, list((tmp_path/"d2").glob("**/*")))
    d = run(a, one("copy", tmp_path/"d", tmp_path/"d"/"e"/"in")); print(d.status, d.message[:300])
    d = run(a, one("move", tmp_path/"d", tmp_path/"d"/"e"/"in")); print(d.status, d.message[:300])
    d = run(a, {"type":"http","url":"http://127.0.0.1:1/","headers":{"A":"\u20ac"}}); print(d.status, d.message[:300])
    d = run(a, {"type":"http","url":"http://127.0.0.1:1/","method":"G T"}); print(d.status, d.message[:300])
    (tmp_path/"a").write_text("x");(tmp_path/"ro").mkdir()
    d = run(a, one("copy", tmp_path/"a", tmp_path/"x"/"y")); print(d.status, d.message)
    d = run(a, {"type":"wait_file","path":str(tmp_path/"[")}, {"type":"delete","path":str(tmp_path/"**"/"f")}); print(d.status, d.message) if 0 else None
def test_unzip_dirs(make_agent, tmp_path):
    a = make_agent().start()
    with zipfile.ZipFile(str(tmp_path/"z.zip"),"w") as z: z.writestr("a//b", "x"); z.writestr("d/", ""); z.writestr("./e", "x"); z.writestr("12:30", "x"); z.writestr("x" * 300, "x")
    d = run(a, one("unzip", tmp_path/"z.zip", tmp_path/"u")); print(d.status, d.message[-100:], list((tmp_path/"u").glob("**/*")))
