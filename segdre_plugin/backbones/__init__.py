"""Descriptions of ATLOP-like models and train scripts, and the hooks that go into the models; knows no stage."""
