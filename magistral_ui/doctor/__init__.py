"""`app.py doctor`: checks this installation and this machine, and names what is to be mended; it serves nothing."""
