"""The HTTP API's schemas, its client, and what requests carry: rules and cursors."""
