"""The Defender API: its routes, OData options, bulk calls, and the quota."""
