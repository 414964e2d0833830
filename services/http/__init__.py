"""What stands around the endpoints: API keys and limits, errors, the OpenAPI document, pages."""
