"""The part of validation that uses Great Expectations: suites, checkpoints, findings, Data Docs."""
