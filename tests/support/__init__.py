"""What test files share beside the agents of conftest."""
