"""The scenario that a new work repository has, to try."""

HELLO = {"scenarios": [{
    "name": "HELLO", "version": "001", "variables": {"who": "world"},
    "steps": [{"name": "greet", "tasks": [
        {"type": "os", "command": 'echo "Hello, ${who}! This is session $SESSION."'}]}]}]}
