"""The scenarios: Locust files, one for each row of `loadtests/expectations.py`."""
