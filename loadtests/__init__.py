"""Load scenarios that find what breaks, and say why: ``python -m loadtests steady`` (docs/load-testing.md)."""
