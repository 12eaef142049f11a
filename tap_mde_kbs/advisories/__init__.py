"""What is publicly known of updates: MSRC, CISA KEV and EPSS. Knows neither sweeps nor the API, and has no token."""
