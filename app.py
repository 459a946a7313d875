"""Reads the settings, opens the engine, serves the page and waits; everything else is done further down."""

import os
import signal
import sys
import threading

from magistral_ui.errors import MagistralUIError
from magistral_ui.models.folder import check_name
from magistral_ui.plan_table import card_lines, machine_lines
from magistral_ui.settings import Settings, read_settings
from magistral_ui.ui.i18n import sentence_of, text

CLOSING = 1.0
"""Seconds that the engine gets to end its generations."""


def main() -> int:
    """Serve until Ctrl-C or SIGTERM (0), or say why not (2)."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        settings = read_settings(sys.argv[1:], os.environ)
        if settings.plan:
            print_plan(settings)
            return 0
        if settings.model:
            check_name(settings.model)
        serve(settings)
    except MagistralUIError as error:
        print(sentence_of(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    return 0


def print_plan(settings: Settings) -> None:
    """What fits on usual graphics cards, at once; then on this machine, for which torch has to be asked."""
    for line in card_lines():
        print(line)
    sys.stdout.flush()
    from magistral_ui.engines.local.devices import find_device

    device = find_device(settings.device)
    print("\n".join(machine_lines(device.name, device.place)))


def serve(settings: Settings) -> None:
    """Open the page first, then load the model behind it; ends by KeyboardInterrupt only."""
    # Imported late, so that --help and wrong flags are answered at once.
    from magistral_ui.engines.local.engine import LocalEngine
    from magistral_ui.sessions.visitors import Visitors
    from magistral_ui.ui.page import build_page, close, launch

    engine = LocalEngine(
        settings.model,
        device=settings.device,
        precision=settings.precision,
        context_length=settings.context,
        threads=settings.threads,
        revision=settings.revision,
        save_quantized=settings.save_quantized,
    )
    page = build_page(engine, Visitors(engine))
    try:
        url = launch(page, host=settings.host, port=settings.port)
        print(text("app_serving", url=url), flush=True)
        engine.start()
        threading.Event().wait()
    finally:
        close(page)
        # A model that is still being loaded cannot be interrupted, so it is not waited for.
        closing = threading.Thread(target=engine.close, daemon=True)
        closing.start()
        closing.join(timeout=CLOSING)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # all is closed; taking torch down, perhaps in the middle of loading, would need seconds more
