def test_hello(make_agent):
    agent = make_agent(plain=True).start()
    agent.send("EXEC HELLO who='you' -SYNC")
    agent.expect("* session=1001 status=QUEUED", "OK session=1001 status=DONE *")
    assert agent.log_texts(1001) == ["Hello, you! This is session 1001."]
    agent.ok("SHUTDOWN")
    assert agent.wait() == 0
