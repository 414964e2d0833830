"""Great Expectations: context, suites, results and Data Docs."""
