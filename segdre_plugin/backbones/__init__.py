"""What ATLOP-like code looks like, and the hooks that go into it; knows no stage."""
