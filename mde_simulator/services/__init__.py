"""The services that listen: the rules that each has for whoever asks, and the faults on the way in."""
