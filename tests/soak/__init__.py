"""Long trials that are no tests of the gate: killing, cutting and crowding the app, again and again. See the Makefile."""
