"""Keeps a door shut that Gradio opens by itself on a Hugging Face Space; what comes in by the others is checked elsewhere."""

from gradio import http_server


def keep_code_as_it_is() -> None:
    """No server that takes new code for this process.

    On a Space, Gradio's server runs one of the spaces package beside itself: on every address, port 7887, without a password.
    """
    http_server.watchfn_spaces = lambda reloader: None  # type: ignore[attr-defined]  # noqa: ARG005
