"""`lorair benchmark`: what the experts and the rest cost, next to the plain network, in one run on one machine."""
