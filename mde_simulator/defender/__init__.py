"""The Defender API: its routes as a table, who answers them, OData options, errors, quotas."""
