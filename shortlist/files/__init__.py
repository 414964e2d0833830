"""Files of a home: atomic and durable writes, JSON, Parquet and text."""
