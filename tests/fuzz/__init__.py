"""All pairs of marks, very often, through what draws answers: on the page and in files. See the Makefile."""
