"""The page's own look for Gradio's components: warm paper, ink, and one deep green; the rest is in assets/page.css."""

import gradio as gr
from gradio.themes.utils import colors

SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "Helvetica Neue", "Arial", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace")

GREEN = colors.Color(
    name="pine",
    c50="#eef6f2",
    c100="#d8eae2",
    c200="#b3d6c7",
    c300="#86bda8",
    c400="#589f86",
    c500="#36826a",
    c600="#256955",
    c700="#1e5445",
    c800="#1a4338",
    c900="#16372f",
    c950="#0b1f1a",
)
PAPER = colors.Color(
    name="paper",
    c50="#faf9f6",
    c100="#f3f1ec",
    c200="#e6e3dc",
    c300="#d2cec4",
    c400="#a39e92",
    c500="#757065",
    c600="#5b574e",
    c700="#3f3c36",
    c800="#282622",
    c900="#1c1b18",
    c950="#131210",
)
LIGHT_AND_DARK = {
    "body_background_fill": ("*neutral_50", "*neutral_950"),
    "body_text_color": ("*neutral_900", "*neutral_100"),
    "body_text_color_subdued": ("*neutral_600", "*neutral_400"),
    "background_fill_primary": ("#ffffff", "*neutral_900"),
    "background_fill_secondary": ("*neutral_100", "*neutral_800"),
    "border_color_primary": ("*neutral_200", "*neutral_700"),
    "block_background_fill": ("transparent", "transparent"),
    "block_label_text_color": ("*body_text_color", "*body_text_color"),
    "block_info_text_color": ("*body_text_color_subdued", "*body_text_color_subdued"),
    "block_title_text_color": ("*body_text_color", "*body_text_color"),
    "block_shadow": ("none", "none"),
    "input_background_fill": ("#ffffff", "*neutral_900"),
    "input_border_color": ("*neutral_300", "*neutral_700"),
    "input_border_color_focus": ("*primary_600", "*primary_300"),
    "input_placeholder_color": ("*neutral_500", "*neutral_400"),
    "button_secondary_background_fill": ("transparent", "transparent"),
    "button_secondary_background_fill_hover": ("*neutral_100", "*neutral_800"),
    "button_secondary_border_color": ("*neutral_300", "*neutral_700"),
    "slider_color": ("*primary_600", "*primary_400"),
    "color_accent_soft": ("*primary_50", "*primary_950"),
    "link_text_color": ("*primary_700", "*primary_300"),
}
IN_BOTH = {
    "block_border_width": "0px",
    "block_title_text_weight": "550",
    "button_border_width": "1px",
    "button_large_text_weight": "500",
    "button_small_text_weight": "500",
    "button_medium_text_weight": "500",
    "color_accent": "*primary_600",
}


def theme() -> gr.themes.Base:
    base = gr.themes.Base(
        primary_hue=GREEN,
        secondary_hue=GREEN,
        neutral_hue=PAPER,
        radius_size=gr.themes.sizes.radius_md,
        font=list(SANS),
        font_mono=list(MONO),
    )
    light = {name: value for name, (value, _) in LIGHT_AND_DARK.items()}
    dark = {f"{name}_dark": value for name, (_, value) in LIGHT_AND_DARK.items()}
    return base.set(**light, **dark, **IN_BOTH)
