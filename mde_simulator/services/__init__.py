"""The services that listen: their own rules for a request, and the faults on its way in."""
