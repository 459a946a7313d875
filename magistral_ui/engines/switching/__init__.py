"""Switches, unloads and loads models while the page is open, over the engines that run one model each."""
