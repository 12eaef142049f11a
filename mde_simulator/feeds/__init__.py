"""What the three advisory feeds say of the fleet's updates: MSRC's documents, CISA's KEV, FIRST's EPSS."""
